//! Recipients that nothing is sent to any more.

use proto::journal::{Disposition, Outcome, RecipientOutcome, Reply};

use crate::Key;
use crate::delivery::State;
use crate::intake::Intake;

impl Intake {
    /// Ends those recipients of a ready delivery of which `why_not` knows a reason, by tenant, stream and the key of the
    /// address. True when nobody is left. Only who asked for it with NOTIFY=FAILURE is told: who sends to a list that was
    /// not cleaned shall not get all of it back.
    pub fn suppress(
        &mut self,
        now_ms: u64,
        key: Key,
        why_not: impl Fn(&str, &str, u64) -> Option<Reply>,
    ) -> bool {
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
        let tenant = self.live.strings.get(message.tenant);
        let stream = self.live.strings.get(message.stream);
        let dsn_owed = delivery.asked_for_dsn();
        let ended = |(ordinal, address): (&u16, &u64)| {
            let reply = why_not(tenant, stream, *address)?;
            Some(RecipientOutcome {
                ordinal: (*ordinal).into(),
                disposition: Disposition::Suppressed.into(),
                reply: Some(reply),
                dsn_owed,
                ..RecipientOutcome::default()
            })
        };
        let ordinals = self.live.ordinals(slot).iter();
        let recipients: Vec<RecipientOutcome> = ordinals
            .zip(self.live.address_keys(slot))
            .filter_map(ended)
            .collect();
        if recipients.is_empty() {
            return false;
        }
        let outcome = Outcome {
            attempt: delivery.attempts.into(),
            recipients,
            finished_at_ms: now_ms,
            ..self.outcome_of(delivery.message)
        };
        self.record_outcome(outcome, None);
        self.live.resolve(key).is_none()
    }
}
