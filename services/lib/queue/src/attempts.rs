//! Attempts: where a ready delivery goes, its assignment, its begin, and what becomes of it when its sender is gone.
use mail::{MessageId, Place};
use proto::dispatch::{DeliveryRef, InFlight};
use proto::journal::entry::Kind;
use proto::journal::{
    Begin, Class, Disposition, Outcome, Quarantined, RecipientOutcome, Reply, Stage,
};

use crate::Key;
use crate::delivery::{FINAL_REPLY_MS, Flight, State, seed, spread_seed};
use crate::effect::{Assigned, Counted, Effect, SessionId, delivery_ref};
use crate::intake::{Gate, InDoubt, Intake, Policies};
use crate::report::Via;

impl Intake {
    /// Tenant, stream and domain of a delivery that is ready; `None` when it is not any more.
    pub fn route_of(&self, key: Key) -> Option<RouteOf<'_>> {
        let slot = self.live.resolve(key)?;
        let delivery = self.live.deliveries.get(slot)?;
        let message = self.live.messages.get(delivery.message)?;
        (delivery.state == State::Ready).then(|| RouteOf {
            id: message.id,
            tenant: self.live.strings.get(message.tenant),
            stream: self.live.strings.get(message.stream),
            campaign: self.live.strings.get(message.campaign),
            domain: self.live.strings.get(delivery.domain),
            attempts: delivery.attempts.into(),
            is_retry: delivery.is_retry(),
            priority: message.priority,
            sequence: message.sequence,
            seed: seed(&message.id, u64::from(delivery.attempts)),
            spread_seed: spread_seed(message, delivery),
            from_ms: self.live.age_begins_ms(slot),
            kept_source: self.live.kept_source(slot),
        })
    }

    /// Gives a ready delivery to a sender. `None` when it is not ready (any more).
    pub fn assign(&mut self, key: Key, session: SessionId) -> Option<Assigned> {
        let slot = self.live.resolve(key)?;
        if self.live.deliveries.get(slot)?.state != State::Ready {
            return None;
        }
        self.live.set_state(slot, State::InFlight);
        let delivery = self.live.deliveries.get(slot)?;
        let message = self.live.messages.get(delivery.message)?;
        self.assignments = self.assignments.wrapping_add(1);
        let flight = Flight {
            epoch: self.writer.epoch(),
            attempt: self.assignments,
            session: Some(session.0),
            final_reply_ms: 0,
            begun_ms: None,
            doubt_ms: None,
        };
        let reference = delivery_ref(
            self.partition,
            flight.epoch,
            &message.id,
            self.live.ordinals(slot),
            flight.attempt,
        );
        let assigned = Assigned {
            delivery: reference,
            place: Place {
                sequence: message.sequence,
                index: message.index.into(),
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

    /// A sender has sent MAIL FROM and will wait so long for the final reply (milliseconds; 0 = 10 minutes). The
    /// permit follows when the begin is stored.
    pub fn begin(
        &mut self,
        now_ms: u64,
        session: SessionId,
        via: Via<'_>,
        reference: &DeliveryRef,
        final_reply_timeout_ms: u32,
    ) {
        let refusal = match self.flight_of(reference) {
            None => Some("no such attempt"),
            Some((_, flight)) if flight.session != Some(session.0) => {
                Some("the attempt is another sender's")
            }
            // Those of earlier epochs all are.
            Some((_, flight)) if flight.begun_ms.is_some() => Some("the attempt is already begun"),
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
        self.note_begun(slot, now_ms, final_reply_timeout_ms);
        let attempts = self.live.deliveries.get(slot).map_or(0, |d| d.attempts);
        let begin = Begin {
            message_id: reference.message_id.clone(),
            ordinals: reference.ordinals.clone(),
            attempt: reference.attempt,
            sender_id: via.sender_id.to_owned(),
            source: via.source.to_owned(),
            site: via.site.to_owned(),
            number: u32::from(attempts) + 1,
            final_reply_timeout_ms,
            ..Begin::default()
        };
        self.log(Kind::Begin(begin), Gate::Permit(session, reference.clone()));
        self.flush(now_ms);
    }

    /// Whether a delivery still has just the recipients that a reference names.
    fn is_whole(&self, slot: u32, reference: &DeliveryRef) -> bool {
        let ordinals = self.live.ordinals(slot).iter().copied().map(u32::from);
        ordinals.eq(reference.ordinals.iter().copied())
    }

    /// Marks a flight as begun and sets the time at which it is in doubt for good.
    pub(crate) fn note_begun(&mut self, slot: u32, begun_ms: u64, final_reply_ms: u32) {
        let waits_ms = match final_reply_ms {
            0 => FINAL_REPLY_MS,
            given => given,
        };
        let doubt_ms = begun_ms
            .saturating_add(self.settings.in_doubt_margin_ms)
            .saturating_add(waits_ms.into());
        if let Some(flight) = self.live.flights.get_mut(&slot) {
            flight.final_reply_ms = final_reply_ms;
        }
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

    pub(crate) fn settle_doubts(&mut self, now_ms: u64, policies: &dyn Policies) {
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
        let recipients = self
            .live
            .ordinals(slot)
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
                dsn_owed: gives_up && delivery.wants_dsn(),
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

    /// A ready delivery waits for its window or its place in the spread; nothing is logged, since whoever takes over finds
    /// the same. It is looked at when it expires, if that is before.
    pub fn hold_back(&mut self, key: Key, until_ms: u64, policies: &dyn Policies) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        if delivery.state != State::Ready {
            return;
        }
        let message = self.live.messages.get(delivery.message);
        let has_expiry = message.is_some_and(|message| message.expires_ms().is_some());
        let expires_ms = if has_expiry || delivery.is_retry() {
            self.expires_ms(slot, Class::Unspecified, policies)
        } else {
            u64::MAX
        };
        self.live.hold_back_until(slot, until_ms.min(expires_ms));
    }

    /// Windows or spreads are others now: what is held back for them is due, to be looked at anew. Cost O(live
    /// deliveries).
    pub fn release_held_back(&mut self, now_ms: u64) {
        let held_back = self.live.deliveries.iter();
        let held_back = held_back.filter(|(_, delivery)| delivery.state == State::HeldBack);
        let slots: Vec<u32> = held_back.map(|(slot, _)| slot).collect();
        for slot in slots {
            self.live.wait_until(slot, now_ms);
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
        if (message.sequence, u32::from(message.index)) != (place.sequence, place.index) {
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
        let flights = self.live.flights.iter();
        let mut slots: Vec<u32> = flights
            .filter(|(_, flight)| of_session(flight))
            .map(|(slot, _)| *slot)
            .collect();
        slots.sort_unstable();
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
}

/// What decides where a delivery goes.
#[derive(Debug, Clone, Copy)]
pub struct RouteOf<'a> {
    /// Its message.
    pub id: MessageId,
    /// Its tenant.
    pub tenant: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// Its campaign.
    pub campaign: &'a str,
    /// Its recipient domain.
    pub domain: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// It was tried before, or could not be.
    pub is_retry: bool,
    /// MT-PRIORITY, -9 to 9.
    pub priority: i8,
    /// Its block.
    pub sequence: u64,
    /// Differs between deliveries and attempts.
    pub seed: u64,
    /// Differs between deliveries, and stays the same until the first attempt.
    pub spread_seed: u64,
    /// From when on it may be sent, Unix milliseconds; later by the time that it was on hold after that.
    pub from_ms: u64,
    /// The egress source at which it was greylisted, and by which it goes on.
    pub kept_source: Option<&'a str>,
}
