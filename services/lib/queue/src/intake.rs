//! The intake of a partition: the part that its owner keeps in step with the journal.

use std::collections::VecDeque;

use hashbrown::HashMap;
use journal::{Lost, Writer, WriterEffect, WriterEvent};
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::{DeliveryRef, InFlight};
use proto::journal::entry::Kind;
use proto::journal::{Begin, Disposition, Outcome, Quarantined, RecipientOutcome, Reply, Stage};

use crate::delivery::{Flight, Retry, State, seed};
use crate::effect::{Assigned, Counted, Effect, SessionId, delivery_ref};
use crate::live::{Finished, Live};
use crate::recovery::Recovery;
use crate::report::EarlyReport;
use crate::report::Via;
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
    /// When to retry and for how long.
    fn retry(&self, tenant: &str, stream: &str, domain: &str) -> Retry;
    /// What to do with attempts in doubt.
    fn in_doubt(&self, tenant: &str, stream: &str) -> InDoubt;
}

/// Sizes and times of an intake.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Live recipients at which no more blocks are read.
    pub recipients: usize,
    /// A begin that took longer to be stored gets no permit any more, milliseconds: those who replay the journal
    /// only know when it was written.
    pub permit_within_ms: u64,
    /// How long after its begin an attempt without outcome is in doubt for good: at least the time within which
    /// its permit is sent, plus the permit's life, plus the final-dot time-out, milliseconds.
    pub in_doubt_after_ms: u64,
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
            in_doubt_after_ms: 10_000 + 60_000 + 600_000 + 10_000,
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

/// See the module.
#[derive(Debug)]
pub struct Intake {
    pub(crate) partition: PartitionId,
    pub(crate) settings: Settings,
    pub(crate) writer: Writer,
    pub(crate) live: Live,
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
    assignments: u32,
    last_flush_ms: u64,
    lost: Option<Lost>,
    /// Where replay would begin by what is stored.
    pub(crate) recoverable_from: u64,
    /// Reports on messages whose block is not read yet, see [`Intake::take_early_reports`].
    pub(crate) early_reports: Vec<EarlyReport>,
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
            writer,
            live: Live::default(),
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
            recipients: delivery.ordinals.as_slice().iter().map(returned).collect(),
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
            let Some(key) = self.live.pop_due(now_ms) else {
                break;
            };
            if !self.expire(now_ms, key, policies) {
                self.effects.push(Effect::Ready(key));
            }
        }
        self.settle_doubts(now_ms, policies);
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
        [flush, self.live.next_due(), self.live.next_doubt()]
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
        if delivery.state != State::Ready {
            return false;
        }
        if delivery.attempts == 0 && message.expires_ms == 0 {
            return false;
        }
        if now_ms < self.expires_ms(slot, policies) {
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

    pub(crate) fn expires_ms(&self, slot: u32, policies: &dyn Policies) -> u64 {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return u64::MAX;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return u64::MAX;
        };
        if message.expires_ms != 0 {
            return message.expires_ms;
        }
        let retry = policies.retry(
            self.live.strings.get(message.tenant),
            self.live.strings.get(message.stream),
            self.live.strings.get(delivery.domain),
        );
        message.id.unix_ms().saturating_add(retry.max_age_ms)
    }

    /// Ends all recipients of a delivery that is not at a sender, by a decision of ours.
    pub fn conclude(&mut self, now_ms: u64, key: Key, disposition: Disposition, reply: Reply) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return;
        };
        let dsn_owed = delivery.wants_dsn
            && matches!(disposition, Disposition::Bounced | Disposition::Expired);
        let recipients = delivery
            .ordinals
            .as_slice()
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
            index: message.index,
            ..Default::default()
        }
    }

    /// Applies an outcome and logs it.
    pub(crate) fn record_outcome(
        &mut self,
        outcome: Outcome,
        report: Option<(SessionId, DeliveryRef)>,
    ) {
        for recipient in &outcome.recipients {
            self.effects
                .push(Effect::Counted(Counted::Recipient(recipient.disposition())));
        }
        let finished = self.apply_outcome(&outcome);
        self.log(Kind::Outcome(outcome), Gate::Outcome { report, finished });
    }

    /// Tenant, stream and domain of a delivery that is ready; `None` when it is not any more.
    pub fn route_of(&self, key: Key) -> Option<RouteOf<'_>> {
        let slot = self.live.resolve(key)?;
        let delivery = self.live.deliveries.get(slot)?;
        let message = self.live.messages.get(delivery.message)?;
        (delivery.state == State::Ready).then(|| RouteOf {
            tenant: self.live.strings.get(message.tenant),
            stream: self.live.strings.get(message.stream),
            domain: self.live.strings.get(delivery.domain),
            attempts: delivery.attempts.into(),
            sequence: message.sequence,
            seed: seed(&message.id, u64::from(delivery.attempts)),
        })
    }

    /// Gives a ready delivery to a sender. `None` when it is not ready (any more).
    pub fn assign(&mut self, key: Key, session: SessionId) -> Option<Assigned> {
        let slot = self.live.resolve(key)?;
        let delivery = self.live.deliveries.get_mut(slot)?;
        if delivery.state != State::Ready {
            return None;
        }
        let message = self.live.messages.get(delivery.message)?;
        delivery.state = State::InFlight;
        self.assignments = self.assignments.wrapping_add(1);
        let flight = Flight {
            epoch: self.writer.epoch(),
            attempt: self.assignments,
            session: Some(session.0),
            begun_ms: None,
            doubt_ms: None,
        };
        let reference = delivery_ref(
            self.partition,
            flight.epoch,
            &message.id,
            delivery.ordinals.as_slice(),
            flight.attempt,
        );
        let assigned = Assigned {
            delivery: reference,
            place: Place {
                sequence: message.sequence,
                index: message.index,
            },
            domain: self.live.strings.shared(delivery.domain),
        };
        self.live.begin_flight(slot, flight);
        Some(assigned)
    }

    /// The delivery that a reference names and its flight, if that is the present one.
    pub(crate) fn flight_of(&self, reference: &DeliveryRef) -> Option<(u32, &Flight)> {
        let id = MessageId::try_from(&reference.message_id[..]).ok()?;
        let message = self.live.find(&id)?;
        // Some of its recipients may be final by a late report on an earlier attempt.
        let slot = reference.ordinals.iter().find_map(|ordinal| {
            self.live
                .delivery_with(message, u16::try_from(*ordinal).ok()?)
        })?;
        let flight = self.live.flights.get(&slot)?;
        (flight.epoch == reference.epoch && flight.attempt == reference.attempt)
            .then_some((slot, flight))
    }

    /// A sender has sent MAIL FROM. The permit follows when the begin is stored.
    pub fn begin(
        &mut self,
        now_ms: u64,
        session: SessionId,
        via: Via<'_>,
        reference: &DeliveryRef,
    ) {
        let refusal = match self.flight_of(reference) {
            None => Some("no such attempt"),
            Some((_, flight)) if flight.session != Some(session.0) => {
                Some("the attempt is another sender's")
            }
            Some((_, flight)) if flight.begun_ms.is_some() => Some("the attempt is already begun"),
            Some(_) if reference.epoch != self.writer.epoch() => {
                Some("the attempt is of another epoch")
            }
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            self.effects
                .push(Effect::Refused(session, reference.clone(), reason));
            return;
        }
        let Some((slot, _)) = self.flight_of(reference) else {
            return;
        };
        if !self.is_whole(slot, reference) {
            // A late report on an earlier attempt made some of its recipients final: they must not get it again.
            self.effects.push(Effect::Refused(
                session,
                reference.clone(),
                "some of the recipients are final",
            ));
            self.live.end_flight(slot);
            self.live.wait_until(slot, now_ms);
            return;
        }
        self.note_begun(slot, now_ms);
        let attempts = self.live.deliveries.get(slot).map_or(0, |d| d.attempts);
        let begin = Begin {
            message_id: reference.message_id.clone(),
            ordinals: reference.ordinals.clone(),
            attempt: reference.attempt,
            sender_id: via.sender_id.to_owned(),
            source: via.source.to_owned(),
            site: via.site.to_owned(),
            number: u32::from(attempts) + 1,
        };
        self.log(Kind::Begin(begin), Gate::Permit(session, reference.clone()));
        self.flush(now_ms);
    }

    /// Whether a delivery still has just the recipients that a reference names.
    fn is_whole(&self, slot: u32, reference: &DeliveryRef) -> bool {
        self.live.deliveries.get(slot).is_some_and(|delivery| {
            let ordinals = delivery.ordinals.as_slice().iter().copied().map(u32::from);
            ordinals.eq(reference.ordinals.iter().copied())
        })
    }

    /// Marks a flight as begun and sets the time at which it is in doubt for good.
    pub(crate) fn note_begun(&mut self, slot: u32, begun_ms: u64) {
        let doubt_ms = begun_ms.saturating_add(self.settings.in_doubt_after_ms);
        self.live.note_begun(slot, begun_ms, doubt_ms);
    }

    /// Begun attempts whose sender's stream is broken.
    pub fn in_doubt(&self) -> usize {
        self.live
            .flights
            .values()
            .filter(|flight| flight.session.is_none())
            .count()
    }

    fn settle_doubts(&mut self, now_ms: u64, policies: &dyn Policies) {
        while let Some(slot) = self.live.pop_doubt(now_ms) {
            self.settle_doubt(now_ms, slot, policies);
        }
    }

    /// The attempt can have no outcome any more that would still come: the policy of the stream decides.
    fn settle_doubt(&mut self, now_ms: u64, slot: u32, policies: &dyn Policies) {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return;
        };
        let policy = policies.in_doubt(
            self.live.strings.get(message.tenant),
            self.live.strings.get(message.stream),
        );
        let gives_up = policy == InDoubt::GiveUp;
        let next_attempt_ms = if policy == InDoubt::Hold {
            u64::MAX
        } else {
            now_ms
        };
        let recipients = delivery
            .ordinals
            .as_slice()
            .iter()
            .map(|&ordinal| RecipientOutcome {
                ordinal: ordinal.into(),
                disposition: if gives_up {
                    Disposition::Bounced
                } else {
                    Disposition::InDoubt
                }
                .into(),
                reply: Some(Reply {
                    stage: Stage::FinalDot.into(),
                    code: 0,
                    enhanced: "4.4.2".into(),
                    text: "the outcome of the attempt is not known".into(),
                }),
                next_attempt_ms: if gives_up { 0 } else { next_attempt_ms },
                dsn_owed: gives_up && delivery.wants_dsn,
                ..Default::default()
            });
        let outcome = Outcome {
            attempt: u32::from(delivery.attempts) + 1,
            recipients: recipients.collect(),
            finished_at_ms: now_ms,
            ..self.outcome_of(delivery.message)
        };
        self.record_outcome(outcome, None);
    }

    /// A ready delivery is to wait (no sender, no site, …); no attempt is counted and nothing logged.
    pub fn postpone(&mut self, key: Key, until_ms: u64) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        if self
            .live
            .deliveries
            .get(slot)
            .is_some_and(|delivery| delivery.state == State::Ready)
        {
            self.live.wait_until(slot, until_ms);
        }
    }

    /// A sender gives an assignment back that it has not begun. Ready again at `until_ms`.
    pub fn returned(&mut self, session: SessionId, reference: &DeliveryRef, until_ms: u64) {
        let Some((slot, flight)) = self.flight_of(reference) else {
            return;
        };
        if flight.begun_ms.is_none() && flight.session == Some(session.0) {
            self.live.end_flight(slot);
            self.live.wait_until(slot, until_ms);
        }
    }

    /// A sender found nothing, or damage, at the place it was given. When the message was moved meanwhile it is
    /// ready again, else it is quarantined: kept, alarmed, never bounced.
    pub fn unreadable(
        &mut self,
        now_ms: u64,
        session: SessionId,
        reference: &DeliveryRef,
        place: Place,
        reason: &str,
    ) {
        let Some((slot, flight)) = self.flight_of(reference) else {
            return;
        };
        if flight.begun_ms.is_some() || flight.session != Some(session.0) {
            return;
        }
        self.live.end_flight(slot);
        let Some(message_slot) = self
            .live
            .deliveries
            .get(slot)
            .map(|delivery| delivery.message)
        else {
            return;
        };
        let Some(message) = self.live.messages.get(message_slot) else {
            return;
        };
        if (message.sequence, message.index) != (place.sequence, place.index) {
            self.live.wait_until(slot, now_ms);
            return;
        }
        let entry = Quarantined {
            sequence: message.sequence,
            message_ids: vec![message.id.as_bytes().to_vec().into()],
            reason: reason.to_owned(),
        };
        self.apply_quarantined(&entry);
        self.log(Kind::Quarantined(entry), Gate::Nothing);
        self.effects.push(Effect::Counted(Counted::Quarantined));
    }

    /// A sender's stream is broken: what it had not begun is ready at once, what it had begun is in doubt.
    pub fn session_gone(&mut self, now_ms: u64, session: SessionId) {
        let of_session = |flight: &Flight| flight.session == Some(session.0);
        let slots: Vec<u32> = self
            .live
            .flights
            .iter()
            .filter(|(_, f)| of_session(f))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            let Some(flight) = self.live.flights.get_mut(&slot) else {
                continue;
            };
            if flight.begun_ms.is_some() {
                flight.session = None;
            } else {
                self.live.end_flight(slot);
                self.live.wait_until(slot, now_ms);
            }
        }
    }

    /// A sender is (back) on a stream and says what it holds of this partition: its begun attempts are no longer
    /// without a sender. What it holds and has not begun is assigned anew, so it must drop that.
    pub fn session_inventory(&mut self, session: SessionId, inventory: &[InFlight]) {
        for held in inventory {
            let Some(reference) = held.delivery.as_ref() else {
                continue;
            };
            if reference.partition != self.partition.0 || !held.begun {
                continue;
            }
            let Some((slot, _)) = self.flight_of(reference) else {
                continue;
            };
            if let Some(flight) = self.live.flights.get_mut(&slot)
                && flight.begun_ms.is_some()
            {
                flight.session = Some(session.0);
            }
        }
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

/// What decides where a delivery goes.
#[derive(Debug, Clone, Copy)]
pub struct RouteOf<'a> {
    /// Its tenant.
    pub tenant: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// Its recipient domain.
    pub domain: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// Its block.
    pub sequence: u64,
    /// Differs between deliveries and attempts.
    pub seed: u64,
}
