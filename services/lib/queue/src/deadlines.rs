//! By when clients want their messages delivered (DELIVERBY, RFC 2852): of those that say so, until that time is over.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use proto::journal::{Class, Disposition, Outcome, RecipientOutcome, Reply, Stage};

use crate::delivery::TellDelays;
use crate::intake::{Intake, Policies};

/// Number of the notice that a message is late. Those by age have lower ones.
pub(crate) const LATE_NOTICE: u32 = 15;

/// Times by message slot.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    times: HashMap<u32, u64>,
    order: BTreeSet<(u64, u32)>,
}

impl Deadlines {
    /// `at_ms` 0: nothing is said.
    pub(crate) fn insert(&mut self, slot: u32, at_ms: u64) {
        if at_ms > 0 {
            self.times.insert(slot, at_ms);
            self.order.insert((at_ms, slot));
        }
    }

    /// Unix milliseconds; 0 = none (any more).
    pub(crate) fn get(&self, slot: u32) -> u64 {
        self.times.get(&slot).copied().unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        if let Some(at_ms) = self.times.remove(&slot) {
            self.order.remove(&(at_ms, slot));
        }
    }

    /// The message is on hold: its time stands still until [`Deadlines::go_on`].
    fn stand_still(&mut self, slot: u32) {
        if let Some(at_ms) = self.times.get(&slot) {
            self.order.remove(&(*at_ms, slot));
        }
    }

    /// It was on hold for so long, milliseconds.
    pub(crate) fn go_on(&mut self, slot: u32, held_ms: u64) {
        if let Some(at_ms) = self.times.get_mut(&slot) {
            self.order.remove(&(*at_ms, slot));
            *at_ms = at_ms.saturating_add(held_ms);
            self.order.insert((*at_ms, slot));
        }
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.order.first().map(|(at_ms, _)| *at_ms)
    }

    /// A message whose time is over.
    fn passed(&self, now_ms: u64) -> Option<u32> {
        let (at_ms, slot) = self.order.first()?;
        (*at_ms <= now_ms).then_some(*slot)
    }
}

impl Intake {
    /// Notes messages that are late, at most `limit`; those of their senders who want to know are owed a notice.
    pub(crate) fn note_late(&mut self, now_ms: u64, limit: usize, policies: &dyn Policies) {
        for _ in 0..limit {
            let Some(message_slot) = self.live.deadlines.passed(now_ms) else {
                return;
            };
            if self.live.all_held_since(message_slot).is_some() {
                self.live.deadlines.stand_still(message_slot);
                continue;
            }
            let outcome = self.late(now_ms, message_slot, policies);
            self.live.deadlines.remove(message_slot);
            if !outcome.recipients.is_empty() {
                self.record_outcome(outcome, None);
            }
        }
    }

    /// All recipients that are not final; they are tried until the first of them is given up.
    fn late(&self, now_ms: u64, message_slot: u32, policies: &dyn Policies) -> Outcome {
        let slots = self.live.deliveries_of(message_slot);
        let tried_until_ms = slots
            .iter()
            .map(|slot| self.expires_ms(*slot, Class::Unspecified, policies))
            .min();
        let reply = Reply {
            stage: Stage::Unspecified.into(),
            code: 0,
            enhanced: "4.4.7".into(),
            text: "not delivered by the time that the client asked for".into(),
        };
        let mut recipients = Vec::new();
        for slot in slots {
            let Some(delivery) = self.live.deliveries.get(slot) else {
                continue;
            };
            let is_told = delivery.told.delays() != TellDelays::Never;
            let late = |ordinal: &u16| RecipientOutcome {
                ordinal: u32::from(*ordinal),
                disposition: Disposition::Late.into(),
                reply: Some(reply.clone()),
                delay_notice: if is_told { LATE_NOTICE } else { 0 },
                tried_until_ms: tried_until_ms.filter(|_| is_told).unwrap_or(0),
                ..Default::default()
            };
            recipients.extend(self.live.ordinals(slot).iter().map(late));
        }
        Outcome {
            recipients,
            finished_at_ms: now_ms,
            ..self.outcome_of(message_slot)
        }
    }
}
