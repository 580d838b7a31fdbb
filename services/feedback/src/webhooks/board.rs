//! All webhooks: who posts, what is begun and ended as the configuration changes, and what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use mail::PartitionId;
use proto::webhook::Order;
use runtime::{Shutdown, now_ms};
use spool::{Duties, Duty, EventWriter, Renewal, Stores, WebhookStore};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::hook::Hook;
use super::line::{Line, Poster, replay};
use super::metrics;
use super::shelf::{Place, Shelf};
use crate::feed::{Cursor, Feed, READERS, Source};

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
                let board = Board::begin(&stores, partitions, told.clone()).await;
                match board {
                    Ok(board) => board.serve(duty, snapshots.clone(), &shutdown).await,
                    Err(error) => {
                        metrics::error("webhooks");
                        tracing::warn!(%error, "webhooks can't be posted to yet");
                        give_back(&stores.duties(), duty).await;
                    }
                }
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

async fn give_back(duties: &Duties, duty: Duty) {
    // It ends by itself when it is not given back.
    duties.release(duty).await.ok();
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
    stores: Stores,
    store: WebhookStore,
    told: EventWriter,
    origins: Vec<Origin>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
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
        let readers = Arc::new(Semaphore::new(READERS));
        let mut origins = Vec::new();
        let journals = (0..partitions).map(|partition| Source::Journal(PartitionId(partition)));
        for source in journals.chain([Source::Told]) {
            let positions = store.positions(&source.to_string()).await?;
            let feed = Feed::new(source, stores.clone(), Arc::clone(&readers));
            origins.push(Origin {
                feed: Arc::new(feed),
                shelf: Arc::new(Shelf::of(positions)),
            });
        }
        Ok(Self {
            stores: stores.clone(),
            store,
            told,
            origins,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            is_incomplete: false,
            shutdown: Shutdown::new(),
        })
    }

    /// Until shutdown, or until another process has the duty.
    async fn serve(
        mut self,
        mut duty: Duty,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        shutdown: &Shutdown,
    ) {
        tracing::info!("posting to webhooks");
        let duties = self.stores.duties();
        let mut orders = self.store.follow_orders();
        if let Err(error) = self.read_sources().await {
            tracing::warn!(%error, "the streams of events can't be looked at yet");
            give_back(&duties, duty).await;
            return;
        }
        snapshots.mark_changed();
        let every = |period| {
            let mut every = interval(period);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        };
        let (mut renew, mut save, mut look) =
            (every(RENEW_EVERY), every(SAVE_EVERY), every(STATE_EVERY));
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
                    if self.running.is_empty() && !self.is_incomplete {
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
                _ = renew.tick() => {
                    if !renewed(&duties, &mut duty).await {
                        tracing::warn!("another process posts to webhooks");
                        self.end(false).await;
                        return;
                    }
                }
                _ = save.tick() => self.save().await,
                _ = look.tick() => {
                    self.look().await;
                    self.save_states().await;
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
        self.end(true).await;
        give_back(&duties, duty).await;
        tracing::info!("not posting to webhooks any more");
    }

    /// Begins to read all sources: a little before their ends, where those that are not far behind are.
    async fn read_sources(&mut self) -> Result<(), spool::Error> {
        for origin in &self.origins {
            let (first, last) = origin.feed.bounds().await?;
            let from = last.saturating_sub(WARM).max(first);
            let (feed, shutdown) = (Arc::clone(&origin.feed), self.shutdown.child());
            self.tasks
                .spawn(async move { feed.run(from, shutdown).await });
        }
        Ok(())
    }

    /// Begins, changes and ends webhooks.
    async fn follow_configuration(&mut self, snapshot: &Snapshot, orders: &Orders) {
        let names: BTreeSet<String> = snapshot.webhooks().map(|hook| hook.name.clone()).collect();
        let mut removed: BTreeSet<String> = BTreeSet::new();
        for origin in &self.origins {
            removed.extend(origin.shelf.keep_only(&names));
        }
        for name in removed {
            if let Some(running) = self.running.remove(&name) {
                running.shutdown.request();
            }
            if let Err(error) = self.store.forget(&name).await {
                tracing::warn!(webhook = name, %error, "a webhook that is no more is still remembered");
            }
        }
        self.is_incomplete = false;
        for config in snapshot.webhooks() {
            let mut state = None;
            if let Some(running) = self.running.get(&config.name) {
                if running.hook.config == *config {
                    continue;
                }
                running.shutdown.request();
                let (mut known, _) = running.hook.take_state();
                if running.hook.config.url != config.url {
                    known.gone_since_ms = 0;
                }
                state = Some(known);
            }
            let known = match state {
                Some(state) => Ok(state),
                None => self.store.state(&config.name).await,
            };
            let begun = match known {
                Ok(state) => {
                    self.start(Arc::new(Hook::new(Arc::clone(config), state)))
                        .await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = begun {
                self.is_incomplete = true;
                metrics::error("webhooks");
                tracing::warn!(webhook = config.name, %error, "a webhook can't be begun yet");
            }
        }
        self.obey(orders);
    }

    async fn start(&mut self, hook: Arc<Hook>) -> Result<(), spool::Error> {
        let name = hook.config.name.clone();
        let shutdown = self.shutdown.child();
        let mut lines = Vec::new();
        for origin in &self.origins {
            let (first, last) = origin.feed.bounds().await?;
            let place = match origin.shelf.get(&name) {
                // A stream that was restored from a backup, or made anew.
                Some(place) if place.sequence > last => Place {
                    sequence: first - 1,
                    ..place
                },
                Some(place) => place,
                None => Place {
                    sequence: last,
                    failing_since_ms: 0,
                },
            };
            origin.shelf.set(&name, place);
            let source = origin.feed.source.to_string();
            let poster = Poster::new(Arc::clone(&hook), source, place.failing_since_ms);
            let cursor = Cursor::after(Arc::clone(&origin.feed), place.sequence);
            lines.push(Line::new(
                poster,
                cursor,
                Arc::clone(&origin.shelf),
                self.store.clone(),
                self.told.clone(),
            ));
        }
        for line in lines {
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
            hook,
            shutdown,
            replayed_ms: 0,
        };
        self.running.insert(name, running);
        Ok(())
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
                let to = order.replay_to;
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = replay(poster, store, to) => {}
                        () = shutdown.requested() => {}
                    }
                });
            }
        }
    }

    /// Keeps how far webhooks are.
    async fn save(&self) {
        for origin in &self.origins {
            let Some(positions) = origin.shelf.take_changed() else {
                continue;
            };
            let source = origin.feed.source.to_string();
            if let Err(error) = self.store.set_positions(&source, positions).await {
                origin.shelf.put_back();
                metrics::error("position");
                tracing::warn!(source, %error, "how far webhooks are could not be kept");
            }
        }
    }

    async fn save_states(&self) {
        for running in self.running.values() {
            let (state, is_changed) = running.hook.take_state();
            if is_changed && let Err(error) = self.store.set_state(state).await {
                running.hook.put_back();
                metrics::error("webhook_state");
                tracing::warn!(webhook = running.hook.config.name, %error, "the attempts at a webhook could not be kept");
            }
        }
    }

    /// Looks how far behind webhooks are.
    async fn look(&self) {
        let mut ends = Vec::new();
        for origin in &self.origins {
            match origin.feed.bounds().await {
                Ok((_, last)) => ends.push((&origin.shelf, last)),
                Err(_) => return,
            }
        }
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

/// Whether we still have the duty.
async fn renewed(duties: &Duties, duty: &mut Duty) -> bool {
    match duties.renew(duty).await {
        Ok(Renewal::Renewed(_)) => true,
        Ok(Renewal::Lost) => false,
        Err(error) => {
            tracing::warn!(%error, "the duty to post to webhooks could not be renewed");
            Instant::now().into_std() < duty.valid_until()
        }
    }
}
