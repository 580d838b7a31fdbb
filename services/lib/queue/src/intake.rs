//! The intake of a partition: the part that its owner keeps in step with the journal.

use std::collections::VecDeque;

use hashbrown::HashMap;
use journal::{Lost, Writer, WriterEffect, WriterEvent};
use mail::{PartitionId, Span};
use proto::dispatch::DeliveryRef;
use proto::journal::entry::Kind;
use proto::journal::{
    Acted, AdminAction, Class, Disposition, Outcome, RecipientOutcome, Reply, Simulation, Stage,
};
use proto::standing::Move;

use crate::delivery::{Flight, Retry, State, spread_seed};
use crate::effect::{Counted, Effect, SessionId};
use crate::holds::{LongestHold, Submitter};
use crate::live::{Finished, Live};
use crate::recovery::Recovery;
use crate::report::EarlyReport;
use crate::simulator::simulation_of;
use crate::snapshot::SnapshotRun;
use crate::{Key, trim::Trim};

/// What becomes of an attempt whose outcome will not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDoubt {
    /// Try again (a duplicate is possible).
    Retry,
    /// Keep until somebody decides.
    Hold,
    /// End it as bounced (a loss is possible, and reported).
    GiveUp,
}

/// What the configuration says of a delivery.
pub trait Policies {
    /// When to retry what is deferred for this class, and for how long.
    fn retry(&self, tenant: &str, stream: &str, domain: &str, class: Class) -> Retry<'_>;
    /// When the first attempt comes of what may be sent from `from_ms` on (Unix milliseconds); `seed` spreads them. The
    /// age counts from there.
    fn first_attempt_ms(&self, tenant: &str, stream: &str, from_ms: u64, seed: u64) -> u64;
    /// Ages at which the sender is told that delivery is delayed, ascending, at most 8; `asked`: with NOTIFY=DELAY.
    fn delay_notices(&self, tenant: &str, stream: &str, asked: bool) -> &[Span];
    /// What to do with attempts in doubt.
    fn in_doubt(&self, tenant: &str, stream: &str) -> InDoubt;
    /// For how long mail of a tenant may be on hold, and what becomes of it then.
    fn longest_hold(&self, tenant: &str) -> LongestHold;
    /// Whether who sent a message may send it now; else why not.
    fn may_send(&self, tenant: &str, submitter: Submitter<'_>) -> Result<(), String>;
}

/// Sizes and times of an intake.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Live recipients at which no more blocks are read.
    pub recipients: usize,
    /// A begin that took longer to be stored gets no permit any more, milliseconds: those who replay the journal
    /// only know when it was written.
    pub permit_within_ms: u64,
    /// How much longer after its begin than its sender waits for the final reply an attempt without outcome is in
    /// doubt for good: at least the time within which its permit is sent, plus the permit's life, milliseconds.
    pub in_doubt_margin_ms: u64,
    /// Least time between two journal records, milliseconds: under load each carries more entries then.
    pub journal_linger_ms: u64,
    /// Entries after which a snapshot is due, if the live messages are not more than that.
    pub snapshot_entries: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recipients: 4_000_000,
            permit_within_ms: 10_000,
            in_doubt_margin_ms: 10_000 + 60_000 + 10_000,
            journal_linger_ms: 16,
            snapshot_entries: 100_000,
        }
    }
}

/// Entries that wait for the journal from which nothing new is begun.
const CLOGGED: usize = 8192;

/// What waits for an entry to be stored.
#[derive(Debug)]
pub(crate) enum Gate {
    Nothing,
    Permit(SessionId, DeliveryRef),
    /// An outcome: who waits for its acknowledgement, and the block that a finished message leaves.
    Outcome {
        report: Option<(SessionId, DeliveryRef)>,
        finished: Option<Finished>,
    },
    SnapshotStart,
    SnapshotEnd {
        start: u64,
    },
    /// Blocks that messages have left for a copy.
    Moved {
        left: Vec<u64>,
    },
}

/// What ends a delivery that is not at a sender.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct By<'a> {
    /// Id of the operation; empty = none.
    pub(crate) operation: &'a str,
    /// It was on hold for too long, since then; 0 = something else.
    pub(crate) held_since_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    pub(crate) partition: PartitionId,
    pub(crate) settings: Settings,
    pub(crate) writer: Writer,
    pub(crate) live: Live,
    /// For the keys of recipients' addresses; without them nobody is suppressed.
    pub(crate) keys: Option<suppress::Keys>,
    /// Spool sequence up to which blocks were read.
    pub(crate) cursor: u64,
    /// Spool sequence up to which the journal says that blocks were accepted.
    pub(crate) accepted_up_to: u64,
    /// Blocks whose index can't be read.
    pub(crate) quarantined_blocks: std::collections::BTreeSet<u64>,
    /// Until the blocks that were there at the claim are read.
    pub(crate) recovery: Option<Recovery>,
    pub(crate) active: bool,
    pub(crate) snapshot: Option<SnapshotRun>,
    pub(crate) entries_since_snapshot: u64,
    pub(crate) snapshots: u64,
    pub(crate) trim: Trim,
    gates: VecDeque<Gate>,
    /// Entries logged and entries stored since the claim.
    logged: u64,
    stored: u64,
    /// Acknowledgements of what is already logged, each with the number of entries that must be stored first.
    late_acks: VecDeque<(u64, SessionId, DeliveryRef)>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) assignments: u32,
    last_flush_ms: u64,
    lost: Option<Lost>,
    /// Where replay would begin by what is stored.
    pub(crate) recoverable_from: u64,
    /// Reports on messages whose block is not read yet, see [`Intake::take_early_reports`].
    pub(crate) early_reports: Vec<EarlyReport>,
    /// See [`Intake::acts`].
    pub(crate) acts: Vec<Acted>,
    /// The last move of a tenant in each pool of which this journal tells.
    pub(crate) standings_moved: Vec<Move>,
    /// See [`Intake::operations`].
    pub(crate) operations: Vec<AdminAction>,
    /// Deliveries that are due and the simulator's. Some may have changed their state since.
    pub(crate) simulated: VecDeque<Key>,
}

impl Intake {
    /// An intake whose writer has just claimed the partition. It is fed the journal's records from where replay
    /// begins ([`Intake::replay`]), then the blocks above [`Intake::cursor`], up to the last one that was there at the
    /// claim ([`Intake::caught_up`]) or until it wants no more; then it works ([`Intake::activate`]).
    pub fn new(partition: PartitionId, settings: Settings, writer: Writer) -> Self {
        Self {
            partition,
            settings,
            recoverable_from: writer.replay_from(),
            early_reports: Vec::new(),
            acts: Vec::new(),
            standings_moved: Vec::new(),
            operations: Vec::new(),
            simulated: VecDeque::new(),
            writer,
            live: Live::default(),
            keys: None,
            cursor: 0,
            accepted_up_to: 0,
            quarantined_blocks: std::collections::BTreeSet::new(),
            recovery: Some(Recovery::default()),
            active: false,
            snapshot: None,
            entries_since_snapshot: 0,
            snapshots: 0,
            trim: Trim::default(),
            gates: VecDeque::new(),
            logged: 0,
            stored: 0,
            late_acks: VecDeque::new(),
            effects: Vec::new(),
            assignments: 0,
            last_flush_ms: 0,
            lost: None,
        }
    }

    /// Notes the keys of recipients' addresses, so that they can be suppressed ([`Intake::suppress`]).
    pub fn with_keys(mut self, keys: suppress::Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The epoch of the claim.
    pub fn epoch(&self) -> u64 {
        self.writer.epoch()
    }

    /// Spool sequence up to which blocks were read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Why the partition is not owned any more, if it is not.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// Whether another block may be read, or the budget of live recipients is full.
    pub fn wants_blocks(&self) -> bool {
        self.live.recipients < self.settings.recipients
    }

    /// How full the budget of live recipients is, 0 to 1.
    pub fn fullness(&self) -> f64 {
        self.live.recipients as f64 / self.settings.recipients.max(1) as f64
    }

    /// What is to be done since the last call.
    pub fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        let moved_up = self.live.lines.moved_up.drain(..);
        self.effects.extend(moved_up.map(Effect::Ready));
        self.effects.drain(..)
    }

    pub(crate) fn log(&mut self, kind: Kind, gate: Gate) {
        self.entries_since_snapshot += 1;
        self.logged += 1;
        self.writer.push(kind);
        self.gates.push_back(gate);
    }

    /// Acknowledges a report that changes nothing (any more), as soon as all that is logged by now is stored:
    /// the first copy of the report may still be among that.
    pub(crate) fn acknowledge_when_stored(&mut self, session: SessionId, reference: DeliveryRef) {
        if self.stored == self.logged {
            self.effects.push(Effect::ReportStored(session, reference));
        } else {
            self.late_acks.push_back((self.logged, session, reference));
        }
    }

    /// Whether everything logged is stored.
    pub fn is_settled(&self) -> bool {
        self.gates.is_empty()
    }

    /// Sends what is pending to the journal when it is time to.
    pub fn flush(&mut self, now_ms: u64) {
        let early = now_ms < self.last_flush_ms + self.settings.journal_linger_ms;
        if early && self.writer.pending() < 512 {
            return;
        }
        if let Some(effect) = self.writer.flush(now_ms) {
            self.last_flush_ms = now_ms;
            self.effects.push(Effect::Journal(effect));
        }
    }

    /// Takes an answer of the journal's store.
    pub fn journal(&mut self, now_ms: u64, event: WriterEvent) {
        match self.writer.step(now_ms, event) {
            Some(WriterEffect::Stored { sequence, entries }) => {
                for _ in 0..entries {
                    let gate = self.gates.pop_front().expect("every entry has a gate");
                    self.open_gate(now_ms, sequence, gate);
                }
                self.stored += entries as u64;
                while self
                    .late_acks
                    .front()
                    .is_some_and(|(after, ..)| *after <= self.stored)
                {
                    let Some((_, session, reference)) = self.late_acks.pop_front() else {
                        break;
                    };
                    self.effects.push(Effect::ReportStored(session, reference));
                }
                self.trim_head(now_ms);
                self.flush(now_ms);
            }
            Some(WriterEffect::Lost(lost)) => self.lost = Some(lost),
            Some(effect) => self.effects.push(Effect::Journal(effect)),
            None => {}
        }
    }

    fn open_gate(&mut self, now_ms: u64, sequence: u64, gate: Gate) {
        match gate {
            Gate::Nothing => {}
            Gate::Permit(session, delivery) => self.permit(now_ms, session, delivery),
            Gate::Outcome { report, finished } => {
                if let Some((session, delivery)) = report {
                    self.effects.push(Effect::ReportStored(session, delivery));
                }
                if let Some(finished) = finished {
                    self.live.release_block(finished.sequence);
                    self.effects
                        .extend(finished.upload_id.map(Effect::DeleteUpload));
                }
            }
            Gate::SnapshotStart => self.snapshot_started(sequence),
            Gate::SnapshotEnd { start } => self.snapshot_ended(start),
            Gate::Moved { left } => {
                for block in left {
                    self.live.release_block(block);
                }
            }
        }
    }

    /// The begin is stored: the permit follows, unless storing took so long that the attempt would still be under
    /// permit when a later owner thinks it is in doubt for good. Then it is broken off and made again.
    fn permit(&mut self, now_ms: u64, session: SessionId, reference: DeliveryRef) {
        // Over already (reported, or settled): nobody waits for the permit.
        let Some((slot, flight)) = self.flight_of(&reference) else {
            return;
        };
        let begun_ms = flight.begun_ms.unwrap_or(0);
        if now_ms <= begun_ms + self.settings.permit_within_ms {
            self.effects.push(Effect::Permit(session, reference));
            return;
        }
        self.effects.push(Effect::Refused(
            session,
            reference,
            "storing the begin took too long",
        ));
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        let returned = |&ordinal: &u16| RecipientOutcome {
            ordinal: ordinal.into(),
            disposition: Disposition::Returned.into(),
            next_attempt_ms: now_ms + 1_000,
            ..Default::default()
        };
        let outcome = Outcome {
            attempt: delivery.attempts.into(),
            recipients: self.live.ordinals(slot).iter().map(returned).collect(),
            finished_at_ms: now_ms,
            ..self.outcome_of(delivery.message)
        };
        self.record_outcome(outcome, None);
    }

    /// Time goes on: makes due deliveries ready (at most `limit`), settles what is in doubt, writes snapshots and
    /// sends the journal what waits.
    pub fn tick(&mut self, now_ms: u64, limit: usize, policies: &dyn Policies) {
        if !self.active || self.lost.is_some() {
            return;
        }
        for _ in 0..limit {
            let Some(slot) = self.live.pop_due(now_ms) else {
                break;
            };
            let key = self.live.key(slot);
            if key.is_some_and(|key| !self.expire(now_ms, key, policies)) {
                self.make_ready(slot);
            }
        }
        self.settle_doubts(now_ms, policies);
        self.note_late(now_ms, limit, policies);
        self.end_holds(now_ms, limit, policies);
        self.take_early_reports(now_ms, policies);
        self.continue_snapshot();
        self.trim_head(now_ms);
        self.flush(now_ms);
    }

    /// The journal has not taken anything for long: what is begun now would only wait.
    pub fn is_clogged(&self) -> bool {
        self.writer.pending() >= CLOGGED
    }

    /// When [`Intake::tick`] has something to do next, Unix milliseconds.
    pub fn next_wake(&self) -> Option<u64> {
        let flush = (self.writer.is_idle() && self.writer.pending() > 0)
            .then_some(self.last_flush_ms + self.settings.journal_linger_ms);
        let live = &self.live;
        [
            flush,
            live.next_due(),
            live.next_doubt(),
            live.deadlines.next(),
            live.holds.next().filter(|_| !self.is_busy()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A ready delivery whose message is too old is not tried once more. True when it was ended.
    pub fn expire(&mut self, now_ms: u64, key: Key, policies: &dyn Policies) -> bool {
        let Some(slot) = self.live.resolve(key) else {
            return false;
        };
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return false;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return false;
        };
        if !matches!(
            delivery.state,
            State::Ready | State::Behind | State::Simulated
        ) {
            return false;
        }
        if !delivery.is_retry() && message.expires_ms().is_none() {
            return false;
        }
        // The class may have given it less time than that, but at the deferral.
        if now_ms < self.expires_ms(slot, Class::Unspecified, policies) {
            return false;
        }
        let reply = Reply {
            stage: Stage::Unspecified.into(),
            code: 0,
            enhanced: "4.4.7".into(),
            text: "delivery time expired".into(),
        };
        self.conclude(now_ms, key, Disposition::Expired, reply);
        true
    }

    /// When a delivery that is deferred for this class is given up, Unix milliseconds.
    pub(crate) fn expires_ms(&self, slot: u32, class: Class, policies: &dyn Policies) -> u64 {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return u64::MAX;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return u64::MAX;
        };
        if let Some(expires_ms) = message.expires_ms() {
            return if message.expiry_moves() {
                expires_ms.saturating_add(self.live.held_for_ms(slot))
            } else {
                expires_ms
            };
        }
        let tenant = self.live.strings.get(message.tenant);
        let stream = self.live.strings.get(message.stream);
        let domain = self.live.strings.get(delivery.domain);
        let retry = policies.retry(tenant, stream, domain, class);
        let seed = spread_seed(message, delivery);
        policies
            .first_attempt_ms(tenant, stream, self.live.age_begins_ms(slot), seed)
            .saturating_add(retry.max_age_ms)
    }

    /// Ends all recipients of a delivery that is not at a sender, by a decision of ours.
    pub fn conclude(&mut self, now_ms: u64, key: Key, disposition: Disposition, reply: Reply) {
        self.conclude_by(now_ms, key, disposition, reply, By::default());
    }

    /// As [`Intake::conclude`], by an operation or the end of a hold.
    pub(crate) fn conclude_by(
        &mut self,
        now_ms: u64,
        key: Key,
        disposition: Disposition,
        reply: Reply,
        by: By<'_>,
    ) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return;
        };
        let dsn_owed = delivery.wants_dsn()
            && matches!(disposition, Disposition::Bounced | Disposition::Expired);
        let recipients = self
            .live
            .ordinals(slot)
            .iter()
            .map(|&ordinal| RecipientOutcome {
                ordinal: ordinal.into(),
                disposition: disposition.into(),
                reply: Some(reply.clone()),
                dsn_owed,
                ..Default::default()
            });
        let outcome = Outcome {
            message_id: message.id.as_bytes().to_vec().into(),
            attempt: delivery.attempts.into(),
            recipients: recipients.collect(),
            started_at_ms: 0,
            finished_at_ms: now_ms,
            operation: by.operation.to_owned(),
            held_since_ms: by.held_since_ms,
            simulation: self.simulation_of(slot).into(),
            ..self.outcome_of(delivery.message)
        };
        self.record_outcome(outcome, None);
    }

    /// Fields of an outcome that say which message it is about.
    pub(crate) fn outcome_of(&self, message_slot: u32) -> Outcome {
        let Some(message) = self.live.messages.get(message_slot) else {
            return Outcome::default();
        };
        let text = |name| self.live.strings.get(name).to_owned();
        Outcome {
            message_id: message.id.as_bytes().to_vec().into(),
            tenant: text(message.tenant),
            stream: text(message.stream),
            campaign: text(message.campaign),
            sequence: message.sequence,
            index: message.index.into(),
            simulation: simulation_of(message).into(),
            ..Default::default()
        }
    }

    /// Applies an outcome and logs it.
    pub(crate) fn record_outcome(
        &mut self,
        outcome: Outcome,
        report: Option<(SessionId, DeliveryRef)>,
    ) {
        let is_simulated = outcome.simulation() != Simulation::None;
        for recipient in &outcome.recipients {
            let disposition = recipient.disposition();
            self.effects.push(Effect::Counted(match is_simulated {
                true => Counted::Simulated(disposition),
                false => Counted::Recipient(disposition),
            }));
        }
        let finished = self.apply_outcome(&outcome);
        self.log(Kind::Outcome(outcome), Gate::Outcome { report, finished });
    }

    /// Whether an upload is the content of a live message.
    pub fn has_upload(&self, upload_id: &str) -> bool {
        self.live.uploads.values().any(|id| **id == *upload_id)
    }

    /// Deliveries at senders, by whether they are begun.
    pub(crate) fn flights(&self) -> &HashMap<u32, Flight> {
        &self.live.flights
    }
}
