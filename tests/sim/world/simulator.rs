//! Recipients for which the simulator answers: no sender may ever hear of one.

use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::envelope::Simulated;
use proto::journal::{Outcome, Simulation};

use super::*;

impl World {
    /// What the simulator answers for a recipient of a message; `None`: nothing is said of it.
    pub(super) fn simulated(&mut self, sandbox: bool) -> Option<Simulated> {
        if !self.chance(if sandbox { 50 } else { 5 }) {
            return None;
        }
        let code = if self.chance(50) { 250 } else { 550 };
        Some(Simulated {
            deferrals: self.rng.random_range(0..3),
            code,
            enhanced: String::new(),
            after_ms: self.rng.random_range(0..20_000),
        })
    }

    /// No sender is given what the simulator answers for.
    pub(super) fn check_is_real(&self, item: &SchedulerItem) {
        let Some(ToSender::Assignment(assignment)) = &item.kind else {
            return;
        };
        let delivery = assignment.delivery.as_ref().expect("each has one");
        let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
        for ordinal in &delivery.ordinals {
            let account = &self.ledger[&(id, *ordinal)];
            assert!(
                !account.simulated,
                "recipient {ordinal} of {id} is assigned although it is the simulator's"
            );
        }
    }

    /// An outcome is stored: who answered, and what ended by a hold.
    pub(super) fn note_answered(&mut self, id: MessageId, outcome: &Outcome) {
        let is_simulated = outcome.simulation() != Simulation::None;
        for recipient in &outcome.recipients {
            let account = self
                .ledger
                .get_mut(&(id, recipient.ordinal))
                .expect("outcomes are of submitted mail");
            assert_eq!(is_simulated, account.simulated, "{id}: {outcome:?}");
            let answered = match recipient.disposition() {
                Disposition::Delivered => Some(true),
                Disposition::Bounced if outcome.operation.is_empty() => Some(false),
                _ => None,
            };
            if let Some(answered) = answered.filter(|_| is_simulated) {
                // The store may say of one record twice that it has it.
                self.answered += u32::from(account.answered.is_none());
                account.answered = Some(answered);
            }
            if outcome.held_since_ms > 0 {
                assert!(account.held, "{id} was not on hold");
                self.holds_ended += 1;
            }
        }
    }
}
