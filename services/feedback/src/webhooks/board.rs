//! All webhooks: who posts, what is begun and ended as the configuration changes, and what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use futures::future::try_join_all;
use mail::PartitionId;
use proto::webhook::Order;
use runtime::{Shutdown, now_ms};
use spool::{Duties, Duty, EventWriter, Renewal, Stores, WebhookStore};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::hook::{Clients, Hook};
use super::line::{Line, Poster, replay};
use super::metrics;
use super::shelf::{Place, Shelf};
use crate::feed::{Bounds, Cursor, Feed, Shared, Source};

/// Name of the duty.
const DUTY: &str = "webhooks";
/// A process that does not renew it has lost it.
const DUTY_LASTS: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often it is tried to take it.
const TAKE_EVERY: Duration = Duration::from_secs(2);
/// How often it is kept how far webhooks are: what was accepted since is posted again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// How often the log of attempts is kept, and the lag is looked up.
const STATE_EVERY: Duration = Duration::from_secs(10);
/// What is known of a webhook is forgotten after it has not been in the configuration for so long.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// Records before the end that are read into the window at first.
const WARM: u64 = 1_000;

type Orders = Arc<BTreeMap<String, Order>>;

/// Posts events to webhooks whenever no other process does, until shutdown.
pub(crate) async fn run(
    stores: Stores,
    partitions: u32,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: Shutdown,
) {
    let told = stores.event_writer("feedback");
    while !shutdown.is_requested() {
        let wanted = async {
            let has_webhooks = |snapshot: &Arc<Snapshot>| snapshot.webhooks().next().is_some();
            // Without a sender there is none, and will be none.
            if snapshots.wait_for(has_webhooks).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = wanted => {}
            () = shutdown.requested() => return,
        }
        match stores.duties().take(DUTY, DUTY_LASTS).await {
            Ok(Some(duty)) => {
                let mut held = Held::keep(stores.duties(), duty);
                let begun = tokio::select! {
                    begun = Board::begin(&stores, partitions, told.clone()) => Some(begun),
                    () = held.lost() => None,
                };
                match begun {
                    Some(Ok(board)) => board.serve(&mut held, snapshots.clone(), &shutdown).await,
                    Some(Err(error)) => {
                        metrics::error("webhooks");
                        tracing::warn!(%error, "webhooks can't be posted to yet");
                    }
                    None => {}
                }
                held.give_back().await;
            }
            Ok(None) => {}
            Err(error) => {
                metrics::error("webhooks");
                tracing::warn!(%error, "it can't be said who posts to webhooks");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TAKE_EVERY) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// The duty, renewed beside all that is done meanwhile.
struct Held {
    task: JoinHandle<Option<Duty>>,
    stop: Shutdown,
    /// It ends with the task.
    lost: oneshot::Receiver<()>,
    duties: Duties,
}

impl Held {
    fn keep(duties: Duties, mut duty: Duty) -> Self {
        let stop = Shutdown::new();
        let (keeps, lost) = oneshot::channel::<()>();
        let (until, renewing) = (stop.child(), duties.clone());
        let task = tokio::spawn(async move {
            let _keeps = keeps;
            loop {
                tokio::select! {
                    () = until.requested() => return Some(duty),
                    () = tokio::time::sleep(RENEW_EVERY) => {}
                }
                if !renewed(&renewing, &mut duty).await {
                    tracing::warn!("another process posts to webhooks");
                    return None;
                }
            }
        });
        Self {
            task,
            stop,
            lost,
            duties,
        }
    }

    /// Waits until somebody else may have it.
    async fn lost(&mut self) {
        if !self.lost.is_terminated() {
            (&mut self.lost).await.ok();
        }
    }

    async fn give_back(mut self) {
        self.stop.request();
        if let Ok(Some(duty)) = (&mut self.task).await {
            // It ends by itself when it is not given back.
            self.duties.release(duty).await.ok();
        }
    }
}

impl Drop for Held {
    /// Nobody renews it for one that is not there any more.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A source of events and how far webhooks are in it.
struct Origin {
    feed: Arc<Feed>,
    shelf: Arc<Shelf>,
}

/// A webhook at work.
struct Running {
    hook: Arc<Hook>,
    shutdown: Shutdown,
    /// The order whose replay is under way or done.
    replayed_ms: u64,
}

struct Board {
    store: WebhookStore,
    told: EventWriter,
    origins: Vec<Origin>,
    clients: Arc<Clients>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
    /// Those that are not in the configuration, and since when: it may be an old one.
    absent: BTreeMap<String, Instant>,
    /// A webhook could not be begun yet.
    is_incomplete: bool,
    /// Ends everything.
    shutdown: Shutdown,
}

impl Board {
    async fn begin(
        stores: &Stores,
        partitions: u32,
        told: EventWriter,
    ) -> Result<Self, spool::Error> {
        let store = stores.webhooks();
        let shared = Arc::new(Shared::among(partitions as usize + 1));
        let mut origins = Vec::new();
        let journals = (0..partitions).map(|partition| Source::Journal(PartitionId(partition)));
        for source in journals.chain([Source::Told]) {
            let positions = store.positions(&source.to_string()).await?;
            let feed = Feed::new(source, stores.clone(), Arc::clone(&shared));
            origins.push(Origin {
                feed: Arc::new(feed),
                shelf: Arc::new(Shelf::of(positions)),
            });
        }
        Ok(Self {
            store,
            told,
            origins,
            clients: Arc::default(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            absent: BTreeMap::new(),
            is_incomplete: false,
            shutdown: Shutdown::new(),
        })
    }

    /// Until shutdown, or until another process has the duty.
    async fn serve(
        mut self,
        held: &mut Held,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        shutdown: &Shutdown,
    ) {
        tracing::info!("posting to webhooks");
        let is_lost = tokio::select! {
            () = self.work(snapshots, shutdown) => false,
            () = held.lost() => true,
        };
        self.end(!is_lost).await;
        tracing::info!("not posting to webhooks any more");
    }

    /// Until shutdown, or until there is nothing to do. Safe to cancel.
    async fn work(&mut self, mut snapshots: watch::Receiver<Arc<Snapshot>>, shutdown: &Shutdown) {
        let mut orders = self.store.follow_orders();
        if let Err(error) = self.read_sources().await {
            tracing::warn!(%error, "the streams of events can't be looked at yet");
            return;
        }
        snapshots.mark_changed();
        let every = |period| {
            let mut every = interval(period);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        };
        let (mut save, mut look) = (every(SAVE_EVERY), every(STATE_EVERY));
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    let present = Arc::clone(&orders.borrow());
                    self.follow_configuration(&snapshot, &present).await;
                    if self.is_idle() {
                        break;
                    }
                }
                changed = orders.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let present = Arc::clone(&orders.borrow_and_update());
                    self.obey(&present);
                }
                _ = save.tick() => self.save().await,
                _ = look.tick() => {
                    self.look().await;
                    self.save_states().await;
                    self.forget_absent().await;
                    if self.is_idle() {
                        break;
                    }
                    if self.is_incomplete {
                        snapshots.mark_changed();
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        metrics::error("webhooks");
                        tracing::error!(%error, "a task of a webhook has ended; all are begun again");
                        break;
                    }
                }
            }
        }
    }

    /// Begins to read all sources: a little before their ends, where those that are not far behind are.
    async fn read_sources(&mut self) -> Result<(), spool::Error> {
        let ends = self.ends().await?;
        for (origin, (first, last)) in self.origins.iter().zip(ends) {
            let from = last.saturating_sub(WARM).max(first);
            let (feed, shutdown) = (Arc::clone(&origin.feed), self.shutdown.child());
            self.tasks
                .spawn(async move { feed.run(from, shutdown).await });
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && !self.is_incomplete && self.absent.is_empty()
    }

    /// First and last sequences of all sources now, in their order.
    async fn ends(&self) -> Result<Vec<Bounds>, spool::Error> {
        let mut asked = Vec::with_capacity(self.origins.len());
        for origin in &self.origins {
            asked.push(origin.feed.bounds());
        }
        try_join_all(asked).await
    }

    /// Begins, changes and ends webhooks.
    async fn follow_configuration(&mut self, snapshot: &Snapshot, orders: &Orders) {
        let names: BTreeSet<String> = snapshot.webhooks().map(|hook| hook.name.clone()).collect();
        self.end_absent(&names).await;
        self.is_incomplete = false;
        let mut begun = Vec::new();
        for config in snapshot.webhooks() {
            let hook = match self.running.get(&config.name) {
                Some(running) if running.hook.config == *config => continue,
                Some(running) => {
                    running.shutdown.request();
                    let (mut known, _) = running.hook.take_state();
                    if running.hook.config.url != config.url {
                        known.gone_since_ms = 0;
                    }
                    let hook = Hook::new(Arc::clone(config), known, Arc::clone(&self.clients));
                    // What was taken is not kept yet.
                    hook.put_back();
                    hook
                }
                None => match self.store.state(&config.name).await {
                    Ok(state) => Hook::new(Arc::clone(config), state, Arc::clone(&self.clients)),
                    Err(error) => {
                        self.not_begun(&config.name, &error);
                        continue;
                    }
                },
            };
            begun.push(Arc::new(hook));
        }
        if !begun.is_empty()
            && let Err(error) = self.start(&begun).await
        {
            for hook in &begun {
                self.not_begun(&hook.config.name, &error);
            }
        }
        self.obey(orders);
    }

    fn not_begun(&mut self, webhook: &str, error: &spool::Error) {
        self.is_incomplete = true;
        // What may have run with another configuration is begun again from what is kept.
        self.running.remove(webhook);
        metrics::error("webhooks");
        tracing::warn!(webhook, %error, "a webhook can't be begun yet");
    }

    /// Ends those that are not in the configuration; they are remembered for a while.
    async fn end_absent(&mut self, names: &BTreeSet<String>) {
        self.absent.retain(|name, _| !names.contains(name));
        let mut absent = BTreeSet::new();
        for origin in &self.origins {
            absent.extend(origin.shelf.others(names));
        }
        for name in absent {
            if let Some(running) = self.running.remove(&name) {
                running.shutdown.request();
                self.save_state(&running.hook).await;
            }
            self.absent.entry(name).or_insert_with(Instant::now);
        }
    }

    /// Forgets those that have not been in the configuration for a while.
    async fn forget_absent(&mut self) {
        let over = self.absent.iter();
        let over = over.filter(|(_, since)| since.elapsed() >= FORGET_AFTER);
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            if let Err(error) = self.store.forget(&name).await {
                tracing::warn!(webhook = name, %error, "a webhook that is no more is still remembered");
                continue;
            }
            for origin in &self.origins {
                origin.shelf.remove(&name);
            }
            self.absent.remove(&name);
        }
    }

    /// Begins webhooks, each where it was; a new one at the end. Where that is is kept before anything is posted.
    async fn start(&mut self, hooks: &[Arc<Hook>]) -> Result<(), spool::Error> {
        // Looked up before the ends: what another line settles meanwhile is not beyond them.
        let known = self.origins.iter().map(|origin| {
            let places = hooks.iter().map(|hook| origin.shelf.get(&hook.config.name));
            places.collect::<Vec<_>>()
        });
        let known: Vec<_> = known.collect();
        let ends = self.ends().await?;
        for ((origin, places), bounds) in self.origins.iter().zip(known).zip(ends) {
            for (hook, place) in hooks.iter().zip(places) {
                if let Some(other) = moved(place, bounds) {
                    origin.shelf.set(&hook.config.name, other);
                }
            }
        }
        self.keep_places().await?;
        for hook in hooks {
            self.spawn_lines(Arc::clone(hook));
        }
        Ok(())
    }

    fn spawn_lines(&mut self, hook: Arc<Hook>) {
        let name = hook.config.name.clone();
        let shutdown = self.shutdown.child();
        for origin in &self.origins {
            let place = origin.shelf.get(&name).unwrap_or_default();
            let source = origin.feed.source.to_string();
            let poster = Poster::new(Arc::clone(&hook), source, place.failing_since_ms);
            let cursor = Cursor::after(Arc::clone(&origin.feed), place.sequence);
            let line = Line::new(
                poster,
                cursor,
                Arc::clone(&origin.shelf),
                self.store.clone(),
                self.told.clone(),
            );
            let shutdown = shutdown.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = line.run() => {}
                    () = shutdown.requested() => {}
                }
            });
        }
        tracing::info!(webhook = name, "a webhook is posted to");
        let running = Running {
            replayed_ms: hook.replayed_ms(),
            hook,
            shutdown,
        };
        self.running.insert(name, running);
    }

    /// Does what operators want.
    fn obey(&mut self, orders: &Orders) {
        for (name, order) in orders.iter() {
            let Some(running) = self.running.get_mut(name) else {
                continue;
            };
            let gone_since_ms = running.hook.gone_since_ms();
            if gone_since_ms > 0 && order.enabled_at_ms >= gone_since_ms {
                running.hook.enable();
            }
            if order.replay_to > 0 && running.replayed_ms < order.replay_at_ms {
                running.replayed_ms = order.replay_at_ms;
                let mut poster = Poster::new(Arc::clone(&running.hook), "dead".to_owned(), 0);
                poster.not_before_ms = order.replay_at_ms;
                let (store, shutdown) = (self.store.clone(), running.shutdown.clone());
                let order = order.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = replay(poster, store, order) => {}
                        () = shutdown.requested() => {}
                    }
                });
            }
        }
    }

    /// Keeps how far webhooks are.
    async fn save(&self) {
        if let Err(error) = self.keep_places().await {
            metrics::error("position");
            tracing::warn!(%error, "how far webhooks are could not be kept");
        }
    }

    /// As [`Self::save`], and says whether it failed somewhere.
    async fn keep_places(&self) -> Result<(), spool::Error> {
        let mut kept = Ok(());
        for origin in &self.origins {
            let Some(positions) = origin.shelf.take_changed() else {
                continue;
            };
            let source = origin.feed.source.to_string();
            // Until it is written: this may be cancelled.
            origin.shelf.put_back();
            match self.store.set_positions(&source, positions.clone()).await {
                Ok(()) => origin.shelf.kept(&positions),
                Err(error) => kept = Err(error),
            }
        }
        kept
    }

    async fn save_states(&self) {
        for running in self.running.values() {
            self.save_state(&running.hook).await;
        }
    }

    async fn save_state(&self, hook: &Hook) {
        let (state, is_changed) = hook.take_state();
        if is_changed && let Err(error) = self.store.set_state(state).await {
            hook.put_back();
            metrics::error("webhook_state");
            tracing::warn!(webhook = hook.config.name, %error, "the attempts at a webhook could not be kept");
        }
    }

    /// Looks how far behind webhooks are.
    async fn look(&self) {
        let Ok(ends) = self.ends().await else {
            return;
        };
        let shelves = self.origins.iter().map(|origin| &origin.shelf);
        let ends: Vec<_> = shelves.zip(ends.iter().map(|(_, last)| *last)).collect();
        let now_ms = now_ms();
        for (name, running) in &self.running {
            let places = ends
                .iter()
                .filter_map(|(shelf, last)| Some((shelf.get(name)?, *last)));
            let (mut lag, mut failing_ms) = (0, 0);
            for (place, last) in places {
                lag += last.saturating_sub(place.sequence);
                if place.failing_since_ms > 0 {
                    failing_ms = failing_ms.max(now_ms.saturating_sub(place.failing_since_ms));
                }
            }
            let metrics = &running.hook.metrics;
            metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
            let seconds = failing_ms / 1_000;
            metrics
                .failing
                .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// Ends all tasks; keeps what they have come to, if it is still ours to keep.
    async fn end(mut self, keep: bool) {
        self.shutdown.request();
        while self.tasks.join_next().await.is_some() {}
        if keep {
            self.save().await;
            self.save_states().await;
        }
    }
}

/// Where a webhook begins, if not where it was.
fn moved(place: Option<Place>, (first, last): Bounds) -> Option<Place> {
    match place {
        // A stream that was restored from a backup, or made anew.
        Some(place) if place.sequence > last => Some(Place {
            sequence: first.saturating_sub(1),
            ..place
        }),
        Some(_) => None,
        None => Some(Place {
            sequence: last,
            failing_since_ms: 0,
        }),
    }
}

/// Whether we still have the duty. Waits no longer than it is ours.
async fn renewed(duties: &Duties, duty: &mut Duty) -> bool {
    let until = duty.valid_until();
    match timeout_at(until.into(), duties.renew(duty)).await {
        Ok(Ok(Renewal::Renewed(_))) => true,
        Ok(Ok(Renewal::Lost)) | Err(_) => false,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the duty to post to webhooks could not be renewed");
            Instant::now().into_std() < until
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_goes_on_where_it_was_unless_that_is_nowhere() {
        let at = |sequence| Place {
            sequence,
            failing_since_ms: 7,
        };
        assert_eq!(moved(Some(at(5)), (3, 9)), None);
        assert_eq!(moved(Some(at(10)), (3, 9)), Some(at(2)));
        assert_eq!(moved(None, (3, 9)).unwrap().sequence, 9);
    }
}
