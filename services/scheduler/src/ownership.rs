//! Which partitions are ours: leases, taken, renewed and given back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::PartitionId;
use queue::Settings;
use runtime::Shutdown;
use spool::{Holder, Lease, LeaseHolder, Renewal, Stores};
use suppress::Keys;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::clock::Clock;
use crate::core::{Event, Events, tell};
use crate::machine::Input;
use crate::partition::Partition;
use crate::takeover::{self, TakenOver};

const TTL: Duration = Duration::from_secs(7);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often free partitions are looked for when nothing says that there are some.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// A partition that could not be taken over is left alone for so long.
const REST: Duration = Duration::from_secs(15);
/// Kind under which schedulers announce themselves.
const MEMBER: &str = "scheduler";
/// How long a silent scheduler counts as present.
const MEMBER_TTL: Duration = Duration::from_secs(6);
/// A partition that nobody with fewer has taken for so long is taken by anybody.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a stop waits for an answer of NATS: once for what is asked already, once to give everything back.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

struct Held {
    lease: Lease,
    renewed: Instant,
    /// It is being taken over.
    takeover: Option<AbortHandle>,
}

/// What became of a task that takes a partition over.
type Finished = Result<(tokio::task::Id, Result<TakenOver, takeover::Error>), JoinError>;

pub(crate) struct Ownership {
    pub(crate) stores: Stores,
    pub(crate) holder: Holder,
    pub(crate) partitions: u32,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    /// For the keys of recipients' addresses.
    pub(crate) keys: Option<Keys>,
    pub(crate) events: Events,
    pub(crate) dropped: mpsc::UnboundedReceiver<(PartitionId, String)>,
    pub(crate) takeovers: JoinSet<Result<TakenOver, takeover::Error>>,
}

impl Ownership {
    /// Takes and keeps partitions until shutdown, then hands them over.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut held: BTreeMap<PartitionId, Held> = BTreeMap::new();
        let mut resting: HashMap<PartitionId, Instant> = HashMap::new();
        let mut free_since: HashMap<PartitionId, Instant> = HashMap::new();
        let mut members = self.stores.members().watch(MEMBER);
        let mut leased = self.stores.leases().watch_held();
        let mut announcement = None;
        let mut finished = None;
        while !shutdown.is_requested() {
            let look = async {
                if announcement.is_none() {
                    let address = self.holder.address.clone().into();
                    announcement = self
                        .stores
                        .members()
                        .announce(MEMBER, &self.holder.id, address, MEMBER_TTL)
                        .await
                        .ok();
                }
                while let Ok((partition, _)) = self.dropped.try_recv() {
                    resting.insert(partition, Instant::now() + Duration::from_secs(1));
                    self.give_back(&mut held, partition).await;
                }
                self.renew(&mut held).await;
                if let Some(end) = finished.take() {
                    self.finish_takeover(&mut held, &mut resting, end).await;
                }
                resting.retain(|_, until| *until > Instant::now());
                let schedulers = members
                    .borrow_and_update()
                    .as_ref()
                    .map_or(1, |present| present.len().max(1));
                match self.stores.leases().holders().await {
                    Ok(holders) => {
                        self.balance(&mut held, &resting, &mut free_since, &holders, schedulers)
                            .await
                    }
                    Err(error) => tracing::warn!(%error, "the leases can't be read"),
                }
            };
            tokio::select! {
                () = look => {}
                () = overdue(&shutdown) => break,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Ok(()) = members.changed() => {}
                Ok(()) = leased.changed() => {}
                Some(end) = self.takeovers.join_next_with_id() => finished = Some(end),
                () = shutdown.requested() => {}
            }
        }
        // Who does not count with this one any more takes what it gives back at once.
        let withdraw = async {
            if let Some(announcement) = announcement {
                let withdrawn = tokio::time::timeout(STOPS_WITHIN, announcement.withdraw());
                withdrawn.await.ok();
            }
        };
        tokio::join!(withdraw, self.let_settle(&held));
        let rest = async {
            for partition in held.keys().copied().collect::<Vec<_>>() {
                self.give_back(&mut held, partition).await;
            }
        };
        if tokio::time::timeout(STOPS_WITHIN, rest).await.is_err() {
            tracing::warn!("NATS does not answer: what was not given back expires");
        }
    }

    /// Renews what is due; what can't be renewed in time is dropped.
    async fn renew(&self, held: &mut BTreeMap<PartitionId, Held>) {
        let mut lost = Vec::new();
        for (partition, held) in held.iter_mut() {
            if held.renewed.elapsed() < RENEW_EVERY {
                continue;
            }
            match self.stores.leases().renew(&mut held.lease).await {
                Ok(Renewal::Lost) => lost.push(*partition),
                Ok(Renewal::Renewed { .. }) => {
                    held.renewed = held.lease.asked_at();
                    if held.takeover.is_none() {
                        let lease_until_ms = self.clock.at(held.lease.valid_until());
                        tell(
                            &self.events,
                            Input::Renewed {
                                partition: *partition,
                                lease_until_ms,
                            },
                        )
                        .await;
                    }
                }
                Err(error) => {
                    tracing::warn!(partition = partition.0, %error, "the lease was not renewed");
                    if Instant::now() >= held.lease.valid_until() {
                        lost.push(*partition);
                    }
                }
            }
        }
        for partition in lost {
            tracing::warn!(partition = partition.0, "the lease is lost");
            tell(&self.events, Input::Drop(partition)).await;
            let takeover = held.remove(&partition).and_then(|held| held.takeover);
            if let Some(takeover) = takeover {
                takeover.abort();
            }
        }
    }

    /// Gives a partition whose journal is replayed to the core.
    async fn finish_takeover(
        &self,
        held: &mut BTreeMap<PartitionId, Held>,
        resting: &mut HashMap<PartitionId, Instant>,
        finished: Finished,
    ) {
        let id = match &finished {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let is_it = |held: &Held| held.takeover.as_ref().is_some_and(|task| task.id() == id);
        // Those that were broken off are nobody's.
        let Some((&partition, state)) = held.iter_mut().find(|(_, held)| is_it(held)) else {
            return;
        };
        state.takeover = None;
        match finished {
            Ok((_, Ok(taken))) => {
                state.lease.set_epoch(taken.intake.epoch());
                let event = Event::Owned {
                    lease_until_ms: self.clock.at(state.lease.valid_until()),
                    partition: Partition::start(
                        &self.stores,
                        partition,
                        taken.blocks,
                        &self.events,
                    ),
                    intake: Box::new(taken.intake),
                };
                // The core ends before the ownership only when the process stops.
                self.events.send(event).await.ok();
                return;
            }
            Ok((_, Err(error))) => {
                tracing::error!(partition = partition.0, %error, "the partition can't be taken over");
            }
            Err(error) => {
                tracing::error!(partition = partition.0, %error, "taking the partition over failed");
            }
        }
        resting.insert(partition, Instant::now() + REST);
        self.give_back(held, partition).await;
    }

    /// Takes free partitions up to a fair share (and beyond it what stays free), gives back what is more than that.
    async fn balance(
        &mut self,
        held: &mut BTreeMap<PartitionId, Held>,
        resting: &HashMap<PartitionId, Instant>,
        free_since: &mut HashMap<PartitionId, Instant>,
        holders: &[LeaseHolder],
        schedulers: usize,
    ) {
        let fair = (self.partitions as usize).div_ceil(schedulers);
        for partition in (0..self.partitions).map(PartitionId) {
            if held.contains_key(&partition)
                || holders.iter().any(|holder| holder.partition == partition)
            {
                free_since.remove(&partition);
                continue;
            }
            let since = *free_since.entry(partition).or_insert_with(Instant::now);
            let wanted = held.len() < fair || since.elapsed() >= PATIENCE;
            if wanted && !resting.contains_key(&partition) {
                self.take(held, partition).await;
            }
        }
        if held.len() > fair {
            let surplus = held
                .iter()
                .rev()
                .find(|(_, held)| held.takeover.is_none())
                .map(|(id, _)| *id);
            if let Some(partition) = surplus {
                tracing::info!(
                    partition = partition.0,
                    schedulers,
                    "handing the partition over to balance"
                );
                tell(&self.events, Input::Drop(partition)).await;
                self.give_back(held, partition).await;
            }
        }
    }

    async fn take(&mut self, held: &mut BTreeMap<PartitionId, Held>, partition: PartitionId) {
        match self
            .stores
            .leases()
            .acquire(partition, &self.holder, TTL)
            .await
        {
            Ok(Some(lease)) => {
                let (stores, clock, id, settings, keys) = (
                    self.stores.clone(),
                    self.clock,
                    self.holder.id.clone(),
                    self.settings,
                    self.keys.clone(),
                );
                let takeover = async move {
                    takeover::take_over(&stores, clock, partition, &id, settings, keys).await
                };
                let state = Held {
                    renewed: lease.asked_at(),
                    lease,
                    takeover: Some(self.takeovers.spawn(takeover)),
                };
                held.insert(partition, state);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the lease was not taken")
            }
        }
    }

    async fn give_back(&self, held: &mut BTreeMap<PartitionId, Held>, partition: PartitionId) {
        let Some(held) = held.remove(&partition) else {
            return;
        };
        if let Some(takeover) = held.takeover {
            takeover.abort();
        }
        if let Err(error) = self.stores.leases().release(held.lease).await {
            tracing::warn!(partition = partition.0, %error, "the lease was not given back; it expires");
        }
    }

    /// Lets the journals settle; from then on nothing is done with the partitions.
    async fn let_settle(&self, held: &BTreeMap<PartitionId, Held>) {
        let (done, settled) = oneshot::channel();
        if self.events.send(Event::Stop(done)).await.is_ok() {
            // The core answers within its own bound, or is gone.
            settled.await.ok();
        }
        for partition in held.keys().copied() {
            tell(&self.events, Input::Drop(partition)).await;
        }
    }
}

/// Ends when a stop has waited for NATS long enough.
async fn overdue(shutdown: &Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(STOPS_WITHIN).await;
}

/// The holder of this process.
pub(crate) fn holder(id: &Arc<str>, address: &str) -> Holder {
    Holder {
        id: id.to_string(),
        address: address.to_owned(),
    }
}
