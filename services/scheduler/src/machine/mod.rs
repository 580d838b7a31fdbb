//! The scheduler as one state machine: intakes, lanes, sites and sessions, without any I/O.
//!
//! [`Machine::step`] takes what happened, [`Machine::run`] lets everything move that can, and [`Machine::outputs`]
//! gives what is to be done. Time is an argument, so a simulation with a seed runs the same code as production.

mod automation;
mod isolation;
mod judge;
mod limits;
mod operations;
mod outcomes;
mod outputs;
mod placing;
mod policies;
mod pools;
mod reach;
mod sessions;
mod sources;
mod suppression;
#[cfg(test)]
mod tests;
mod turns;
mod used;
mod why;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Snapshot;
use egress::{
    Automation, Decision, GrantNews, Lanes, SenderId, SiteNews, Sites, SlotNews, Unit, Whose,
    Window, Word,
};
use journal::WriterEvent;
use mail::{MessageId, PartitionId};
use proto::dispatch::SenderItem;
use proto::journal::Acted;
use proto::operation::Operation;
use proto::spool::BlockIndex;
use proto::standing::PoolStandings;
use queue::{Effect, Intake, Key, SessionId};
use suppress::Table;

use automation::Told;
use isolation::Isolation;
use judge::judge_simulated;
pub(crate) use limits::lane_hash;
use operations::Operations;
pub use operations::Progress;
pub(crate) use operations::select::{Meant, Selection};
pub use outcomes::{Outcomes, RESULTS};
pub use outputs::{Counts, Output};
use placing::{LaneInfo, LaneInfos};
use policies::{ByConfig, longest_holds_of};
use pools::Pools;
use sessions::Session;
use sources::Sources;
pub use why::{Constraint, Explained};

/// Before its lease may expire the owner stops assigning, milliseconds.
const LEASE_MARGIN_MS: u64 = 2_000;
/// How long a partition counts as short of space after it was seen to be, milliseconds.
const SHORT_MS: u64 = 5_000;
/// Deliveries that one run makes ready per partition.
const DUE_PER_RUN: usize = 512;
/// Decisions of one run: other inputs must not wait behind a long queue.
const DECISIONS_PER_RUN: usize = 1024;

/// Idle lanes that one run forgets.
const FORGOTTEN_PER_RUN: usize = 256;

/// A ready delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    partition: PartitionId,
    /// Keys are good for one ownership only.
    epoch: u64,
    key: Key,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The configuration changed.
    Config(Arc<Snapshot>),
    /// The operations of operators that are stored now.
    Operations(Vec<Operation>),
    /// What is done about replies, as the schedulers told each other.
    Acts(Vec<Acted>),
    /// How tenants stand in pools, as it is stored now.
    Standings(Vec<PoolStandings>),
    /// What was told of a pool ([`Output::TellStandings`]) is stored, or can't be.
    StandingsTold(String),
    /// A partition was taken over: its intake is recovered. The lease holds until then (milliseconds of the clock
    /// that all calls use).
    Owned {
        /// The intake, active.
        intake: Box<Intake>,
        /// End of the lease.
        lease_until_ms: u64,
    },
    /// The lease of a partition was renewed.
    Renewed {
        /// The partition.
        partition: PartitionId,
        /// End of the lease.
        lease_until_ms: u64,
    },
    /// A partition is to be dropped (its lease is lost, or it is handed over).
    Drop(PartitionId),
    /// The next block of a partition.
    Block {
        /// The partition.
        partition: PartitionId,
        /// Lowest sequence that belongs to it.
        first: u64,
        /// Its sequence.
        sequence: u64,
        /// Its index, or why it can't be read.
        index: Result<BlockIndex, String>,
    },
    /// All blocks that were there when the partition was claimed are read.
    CaughtUp(PartitionId),
    /// The journal's store answered.
    Journal(PartitionId, WriterEvent),
    /// A sender is attached.
    Attached(SessionId),
    /// A sender's stream is broken.
    Detached(SessionId),
    /// A sender says something.
    Sender(SessionId, SenderItem),
    /// A domain is resolved.
    Resolved(Arc<str>, SiteNews),
    /// An answer to a question for a grant.
    Grant(Whose, Window, GrantNews),
    /// An answer to what was said about connections.
    Slots(Whose, SlotNews),
    /// Turns of a pool's rotation that were drawn.
    Turns {
        /// The pool.
        pool: Arc<str>,
        /// The first; `None` = nobody answers.
        first: Option<u64>,
        /// How many.
        count: u32,
    },
    /// Messages were copied forward; `None` = the copy failed.
    Copied {
        /// The partition.
        partition: PartitionId,
        /// Epoch under which the copy was wanted.
        epoch: u64,
        /// Where the copy is, and its messages in order.
        copy: Option<(u64, Vec<MessageId>)>,
    },
    /// A stream of the partition is short of space (70 % of its bound).
    ShortOfSpace(PartitionId),
}

struct Owned {
    intake: Box<Intake>,
    lease_until_ms: u64,
    /// Ready deliveries that were not assigned since the lease was about to expire, or the journal took nothing.
    parked: Vec<Item>,
    /// The head of the spool is copied forward sooner until then (Unix milliseconds).
    short_until_ms: u64,
    draining: bool,
}

/// See the module.
pub struct Machine {
    scheduler_id: String,
    partition_count: u32,
    leases_connections: bool,
    config: Arc<Snapshot>,
    partitions: BTreeMap<PartitionId, Owned>,
    sessions: BTreeMap<SessionId, Session>,
    lanes: Lanes<Item>,
    lane_infos: LaneInfos,
    sites: Sites<Item>,
    pools: Pools,
    sources: Sources,
    automation: Automation,
    told: Told,
    operations: Operations,
    isolation: Isolation,
    /// Whom nothing is sent to; somebody else keeps it.
    suppressed: Option<Arc<Table>>,
    /// Some stream has a window.
    has_windows: bool,
    /// The time of the last call.
    now_ms: u64,
    outputs: Vec<Output>,
    counts: Counts,
    /// Empty; kept for its memory.
    effects: Vec<(PartitionId, Effect)>,
}

impl Machine {
    /// A machine that owns nothing, in an installation of so many partitions.
    pub fn new(scheduler_id: impl Into<String>, partition_count: u32) -> Self {
        let scheduler_id = scheduler_id.into();
        Self {
            pools: Pools::new(&scheduler_id),
            sources: Sources::default(),
            scheduler_id,
            partition_count,
            leases_connections: false,
            config: Arc::new(Snapshot::default()),
            partitions: BTreeMap::new(),
            sessions: BTreeMap::new(),
            lanes: Lanes::default(),
            lane_infos: LaneInfos::default(),
            sites: Sites::default(),
            automation: Automation::default(),
            told: Told::default(),
            operations: Operations::default(),
            isolation: Isolation::default(),
            suppressed: None,
            has_windows: false,
            now_ms: 0,
            outputs: Vec::new(),
            counts: Counts::default(),
            effects: Vec::new(),
        }
    }

    /// Connections are opened only under leases ([`Output::AskSlots`]), so that a lane's limit holds for all schedulers
    /// together. Without this each partition has its share of a limit.
    pub fn leasing_connections(mut self) -> Self {
        self.leases_connections = true;
        self
    }

    /// Nothing is sent to whom this table names, which others keep.
    pub fn suppressing(mut self, table: Arc<Table>) -> Self {
        self.suppressed = Some(table);
        self
    }

    /// Its id, unique per process start.
    pub fn scheduler_id(&self) -> &str {
        &self.scheduler_id
    }

    /// What is to be done since the last call, in order.
    pub fn outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }

    /// What was counted since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Milliseconds from acceptance to delivery of what was delivered since the last call.
    pub fn take_queue_times(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.counts.queue_times)
    }

    /// What receivers made of mail since the last call.
    pub fn take_outcomes(&mut self) -> Outcomes {
        std::mem::take(&mut self.counts.outcomes)
    }

    /// The intakes of the owned partitions.
    pub fn intakes(&self) -> impl Iterator<Item = &Intake> {
        self.partitions.values().map(|owned| &*owned.intake)
    }

    /// Deliveries that wait in lanes, and connection slots in use.
    pub fn lane_totals(&self) -> (usize, usize) {
        (self.lanes.waiting(), self.lanes.slots_in_use())
    }

    /// Lanes that there are.
    pub fn lanes(&self) -> usize {
        self.lanes.count()
    }

    /// The site of a domain, as far as known.
    pub fn site_of(&self, domain: &str) -> Option<&str> {
        self.sites.peek(domain)
    }

    /// Takes what happened.
    pub fn step(&mut self, now_ms: u64, input: Input) {
        self.now_ms = now_ms;
        match input {
            Input::Config(config) => self.configure(now_ms, config),
            Input::Acts(acts) => self.acts_told(now_ms, &acts),
            Input::Operations(operations) => self.operations_known(now_ms, operations),
            Input::Standings(records) => self.standings_known(now_ms, &records),
            Input::StandingsTold(pool) => self.standings_told(&pool),
            Input::Owned {
                intake,
                lease_until_ms,
            } => self.own(now_ms, intake, lease_until_ms),
            Input::Renewed {
                partition,
                lease_until_ms,
            } => self.renewed(now_ms, partition, lease_until_ms),
            Input::Drop(partition) => self.drop_partition(partition, "its lease ended"),
            Input::Block {
                partition,
                first,
                sequence,
                index,
            } => self.block(now_ms, partition, (first, sequence), index),
            Input::CaughtUp(partition) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.intake.caught_up();
                }
            }
            Input::Journal(partition, event) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.intake.journal(now_ms, event);
                }
                self.resume_parked(now_ms, partition);
            }
            Input::Attached(session) => {
                self.sessions.insert(session, Session::default());
            }
            Input::Detached(session) => self.detached(now_ms, session),
            Input::Sender(session, item) => self.sender_item(now_ms, session, item),
            Input::Resolved(domain, news) => {
                for item in self.sites.resolved(now_ms, &domain, news) {
                    self.place(now_ms, item);
                }
            }
            Input::Grant(whose, window, news) => self.lanes.grant(now_ms, whose, window, news),
            Input::Slots(whose, news) => self.lanes.slots(now_ms, whose, news),
            Input::Turns { pool, first, count } => self.turns(&pool, first, count),
            Input::Copied {
                partition,
                epoch,
                copy,
            } => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    match copy {
                        Some((sequence, ids)) => owned.intake.copied(epoch, sequence, &ids),
                        None => owned.intake.copy_failed(epoch),
                    }
                }
            }
            Input::ShortOfSpace(partition) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.short_until_ms = now_ms + SHORT_MS;
                    owned.intake.save_space();
                }
            }
        }
        self.collect_effects(now_ms);
    }

    /// Lets everything move that can: due deliveries, snapshots, journal records, assignments. True when it stopped
    /// before the end, to let other inputs pass.
    pub fn run(&mut self, now_ms: u64) -> bool {
        self.now_ms = now_ms;
        self.tick_automation(now_ms);
        self.tick_sources(now_ms);
        self.tell_standings(now_ms);
        let policies = ByConfig(self.config.clone());
        let mut dropped = Vec::new();
        let mut simulates_on = false;
        for (partition, owned) in &mut self.partitions {
            owned.intake.tick(now_ms, DUE_PER_RUN, &policies);
            // Behind what is to leave, as operations are.
            if owned.stops(now_ms).is_none() && !owned.intake.is_busy() {
                let intake = &mut owned.intake;
                simulates_on |= intake.simulate(now_ms, DUE_PER_RUN, &policies, &judge_simulated);
            }
            if let Some(copy) = owned
                .intake
                .wants_copy(now_ms, now_ms < owned.short_until_ms)
            {
                self.outputs.push(Output::Copy(*partition, copy));
            }
            if let Some(lost) = owned.intake.lost() {
                dropped.push((*partition, lost.to_string()));
            } else if now_ms >= owned.lease_until_ms {
                dropped.push((*partition, "its lease ran out".to_owned()));
            }
        }
        for (partition, reason) in dropped {
            self.drop_partition(partition, &reason);
        }
        self.collect_effects(now_ms);
        let goes_on = self.run_operations(now_ms);
        self.collect_effects(now_ms);
        let mut more = true;
        for _ in 0..DECISIONS_PER_RUN {
            match self.lanes.next(now_ms) {
                Some(decision) => self.carry_out(now_ms, decision),
                // Others may have moved up behind those that left.
                None if self.collect_effects(now_ms) => {}
                None => {
                    more = false;
                    break;
                }
            }
        }
        self.collect_effects(now_ms);
        self.forget_lanes(now_ms);
        more || goes_on || simulates_on
    }

    /// Lanes that were not used for long are forgotten everywhere.
    fn forget_lanes(&mut self, now_ms: u64) {
        let lanes = self.lanes.forget_idle(now_ms, FORGOTTEN_PER_RUN);
        lanes.iter().for_each(|lane| self.lane_infos.forget(*lane));
    }

    /// Stops assigning, so that what is logged can be stored and the partitions handed over.
    pub fn drain(&mut self) {
        for owned in self.partitions.values_mut() {
            owned.draining = true;
        }
        // Nothing more is asked for what waits, and others can use at once what was granted here.
        for item in self.lanes.take_all() {
            if let Some(owned) = self.partitions.get_mut(&item.partition) {
                owned.parked.push(item);
            }
        }
        for (whose, window, word) in self.lanes.hand_over() {
            self.ask_grant(whose, window, word);
        }
    }

    /// Whether everything that is logged is stored.
    pub fn is_settled(&self) -> bool {
        self.partitions
            .values()
            .all(|owned| owned.intake.is_settled())
    }

    /// When [`Machine::run`] has something to do next; `now_ms` when it has at once.
    pub fn next_wake(&self) -> Option<u64> {
        let intakes = self
            .partitions
            .values()
            .filter_map(|owned| owned.intake.next_wake());
        intakes
            .chain(self.lanes.next_wake())
            .chain(self.automation.next_wake())
            .chain(self.operations.next_wake())
            .chain(self.isolation.next_wake())
            .chain(self.sources.next_wake())
            .min()
    }

    fn carry_out(&mut self, now_ms: u64, decision: Decision<Item>) {
        match decision {
            Decision::Assign {
                lane,
                slot,
                sender,
                item,
                drawn,
            } => self.assign(now_ms, (lane, slot, sender), item, drawn),
            Decision::CloseSlot { lane, slot, sender } => self.close_slot(lane, slot, sender),
            Decision::AskSlots {
                whose,
                limit,
                share,
                have,
                want,
            } => {
                let Some((source, name)) = self.name_of_limit(whose) else {
                    return;
                };
                let key = format!("{source}|{name}");
                self.outputs.push(Output::AskSlots {
                    whose,
                    key,
                    limit,
                    share,
                    have,
                    want,
                });
            }
            Decision::AskGrant {
                whose,
                window,
                word,
            } => self.ask_grant(whose, window, word),
        }
    }

    fn ask_grant(&mut self, whose: Whose, window: Window, word: Word) {
        let Some((source, name)) = self.name_of_limit(whose) else {
            return;
        };
        let key = limit_name(source, &name, window);
        self.outputs.push(Output::AskGrant {
            whose,
            key,
            window,
            word,
        });
    }

    fn configure(&mut self, now_ms: u64, config: Arc<Snapshot>) {
        self.automation.configure(&config);
        self.windows_change(now_ms, &config);
        let holds_change = longest_holds_of(&self.config).ne(longest_holds_of(&config));
        self.config = config;
        if holds_change {
            for owned in self.partitions.values_mut() {
                owned.intake.look_at_holds();
            }
        }
        self.pools.configure(&self.config);
        self.operations.config_changed();
        self.isolate();
        self.lanes_are_stale();
        self.limit_all_shared();
        // What waits in lanes was put there by routes and pools that may be others now.
        self.replace_all(now_ms);
        self.sources_changed(now_ms, None);
    }

    fn own(&mut self, now_ms: u64, intake: Box<Intake>, lease_until_ms: u64) {
        let partition = intake.partition();
        self.forget_partition(partition);
        let owned = Owned {
            intake,
            lease_until_ms,
            parked: Vec::new(),
            short_until_ms: 0,
            draining: false,
        };
        self.partitions.insert(partition, owned);
        self.restore_automation(now_ms, partition);
        self.note_operations(now_ms, partition);
        self.note_standings(now_ms, partition);
        self.share_limits();
        self.announce_owned();
        self.collect_effects(now_ms);
    }

    fn renewed(&mut self, now_ms: u64, partition: PartitionId, lease_until_ms: u64) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        owned.lease_until_ms = lease_until_ms;
        self.resume_parked(now_ms, partition);
    }

    /// What was not assigned since the lease or the journal kept the partition goes on when nothing does any more.
    fn resume_parked(&mut self, now_ms: u64, partition: PartitionId) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if owned.parked.is_empty() || owned.stops(now_ms).is_some() {
            return;
        }
        for item in std::mem::take(&mut owned.parked) {
            self.place(now_ms, item);
        }
    }

    fn drop_partition(&mut self, partition: PartitionId, reason: &str) {
        if !self.forget_partition(partition) {
            return;
        }
        self.outputs
            .push(Output::Dropped(partition, reason.to_owned()));
        self.share_limits();
        self.announce_owned();
    }

    /// Forgets what is known and held of a partition. False when it was not owned.
    fn forget_partition(&mut self, partition: PartitionId) -> bool {
        if self.partitions.remove(&partition).is_none() {
            return false;
        }
        let mut lost = Vec::new();
        for (id, session) in &mut self.sessions {
            lost.push(session.forget_partition(*id, partition, &mut self.lanes));
        }
        for lost in lost {
            self.settle_lost(self.now_ms, lost);
        }
        self.lanes.retain(|item| item.partition != partition);
        self.operations.forget_partition(partition);
        true
    }

    fn block(
        &mut self,
        now_ms: u64,
        partition: PartitionId,
        (first, sequence): (u64, u64),
        index: Result<BlockIndex, String>,
    ) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        match index {
            Ok(index) => {
                if let Err(error) = owned.intake.block(now_ms, first, sequence, index) {
                    self.outputs
                        .push(Output::Alarm(partition, error.to_string()));
                    self.drop_partition(partition, "a block is of an unknown format");
                }
            }
            Err(reason) => {
                owned.intake.damaged_block(sequence, &reason);
                self.outputs.push(Output::Alarm(
                    partition,
                    format!("block {sequence} is quarantined: {reason}"),
                ));
            }
        }
    }

    /// Passes on what the intakes want done. False when there was nothing.
    fn collect_effects(&mut self, now_ms: u64) -> bool {
        let mut all = std::mem::take(&mut self.effects);
        for (partition, owned) in &mut self.partitions {
            all.extend(owned.intake.effects().map(|effect| (*partition, effect)));
        }
        let some = !all.is_empty();
        for (partition, effect) in all.drain(..) {
            self.effect(now_ms, partition, effect);
        }
        self.effects = all;
        some
    }

    fn effect(&mut self, now_ms: u64, partition: PartitionId, effect: Effect) {
        match effect {
            Effect::Journal(effect) => self.outputs.push(Output::Journal(partition, effect)),
            Effect::Ready(key) => {
                let Some(owned) = self.partitions.get(&partition) else {
                    return;
                };
                let epoch = owned.intake.epoch();
                self.place(
                    now_ms,
                    Item {
                        partition,
                        epoch,
                        key,
                    },
                );
            }
            Effect::Permit(session, delivery) => self.permit(session, delivery),
            Effect::ReportStored(session, delivery) => self.report_stored(session, delivery),
            Effect::Refused(session, delivery, reason) => self.refuse(session, delivery, reason),
            Effect::TrimSpool { below } => self.outputs.push(Output::TrimSpool(partition, below)),
            Effect::TrimJournal { below } => {
                self.outputs.push(Output::TrimJournal(partition, below))
            }
            Effect::DeleteUpload(upload_id) => self
                .outputs
                .push(Output::DeleteUpload(partition, upload_id)),
            Effect::Counted(counted) => self.counts.add(counted),
        }
    }

    fn sender_id_of(session: SessionId) -> SenderId {
        SenderId(session.0)
    }
}

/// The name of a window for all replicas. Its count is not part of it: what was used stays known when it changes.
fn limit_name(source: &str, name: &str, window: Window) -> String {
    let unit = match window.unit {
        Unit::Messages => "m",
        Unit::Connections => "c",
    };
    format!("{source}|{name}|{unit}{}", window.limit.per_ms)
}
