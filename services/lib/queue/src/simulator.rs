//! The simulator: it answers for recipients whose mail never leaves.
//!
//! Its deliveries become due like others, and go no further: [`crate::Effect::Ready`] is never said of them, they have no
//! route, no assignment takes them. So neither DNS nor a sender hears of them. That a recipient is the simulator's was
//! decided when the message was accepted, and is stored with it.
//!
//! What it answers is judged as if a host had said it, and goes by the same schedule. Its attempts are no doubt to anybody:
//! begin and outcome are written together, and a begin without its outcome is forgotten.

use proto::dispatch::RecipientReport;
use proto::envelope::{self, Envelope, Recipient};
use proto::journal::entry::Kind;
use proto::journal::{Begin, Outcome, Reply, Simulation, Stage};

use crate::Key;
use crate::delivery::{Message, State};
use crate::intake::{Gate, Intake, Policies};
use crate::report::Judged;

/// What is said while it defers.
const DEFERRED: (u32, &str, &str) = (451, "4.3.0", "simulated: not now");
/// What is said of mail that it accepts.
const ACCEPTED: (u32, &str) = (250, "2.0.0");

/// What the simulator answers for a recipient.
#[derive(Debug)]
pub(crate) struct Simulated {
    answers: envelope::Simulated,
    /// For the events.
    address: Box<str>,
}

impl Simulated {
    pub(crate) fn new(answers: envelope::Simulated, address: &str) -> Self {
        let address = address.into();
        Self { answers, address }
    }

    /// It takes everything.
    pub(crate) fn accepting(address: &str) -> Self {
        let (code, enhanced) = ACCEPTED;
        let answers = envelope::Simulated {
            code,
            enhanced: enhanced.to_owned(),
            ..envelope::Simulated::default()
        };
        Self::new(answers, address)
    }

    /// `None` when a host shall get it.
    pub(crate) fn of(envelope: &Envelope, recipient: &Recipient) -> Option<Self> {
        match &recipient.simulated {
            Some(answers) => Some(Self::new(answers.clone(), &recipient.address)),
            None if envelope.sandbox => Some(Self::accepting(&recipient.address)),
            None => None,
        }
    }

    pub(crate) fn answers(&self) -> &envelope::Simulated {
        &self.answers
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it says to the attempt after so many.
    fn reply(&self, attempts: u32, sandbox: bool) -> Reply {
        let answers = &self.answers;
        if attempts < answers.deferrals {
            let (code, enhanced, text) = DEFERRED;
            return reply(Stage::Rcpt, code, enhanced, text);
        }
        let (stage, text) = match answers.code {
            200..300 if sandbox => (Stage::FinalDot, "sandbox"),
            200..300 => (Stage::FinalDot, "simulated"),
            _ => (Stage::Rcpt, "simulated"),
        };
        reply(stage, answers.code, &answers.enhanced, text)
    }
}

fn reply(stage: Stage, code: u32, enhanced: &str, text: &str) -> Reply {
    Reply {
        stage: stage.into(),
        code,
        enhanced: enhanced.to_owned(),
        text: text.to_owned(),
    }
}

/// Of a message as a whole.
pub(crate) fn simulation_of(message: &Message) -> Simulation {
    if message.is_sandboxed() {
        Simulation::Sandbox
    } else {
        Simulation::None
    }
}

impl Intake {
    /// Who answers for a delivery.
    pub(crate) fn simulation_of(&self, slot: u32) -> Simulation {
        let live = &self.live;
        if !live.simulated.contains_key(&slot) {
            return Simulation::None;
        }
        let delivery = live.deliveries.get(slot);
        let message = delivery.and_then(|delivery| live.messages.get(delivery.message));
        match message {
            Some(message) if message.is_sandboxed() => Simulation::Sandbox,
            _ => Simulation::Recipient,
        }
    }

    /// Lets the simulator answer what is due, at most `limit`; `judge` says what its replies mean. True when there is more.
    pub fn simulate(
        &mut self,
        now_ms: u64,
        limit: usize,
        policies: &dyn Policies,
        judge: &dyn Fn(RecipientReport) -> Judged,
    ) -> bool {
        if !self.active || self.lost().is_some() {
            return false;
        }
        for _ in 0..limit {
            let Some(key) = self.simulated.pop_front() else {
                return false;
            };
            self.answer(now_ms, key, policies, judge);
        }
        !self.simulated.is_empty()
    }

    fn answer(
        &mut self,
        now_ms: u64,
        key: Key,
        policies: &dyn Policies,
        judge: &dyn Fn(RecipientReport) -> Judged,
    ) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        let (Some(delivery), Some(simulated)) = (
            self.live.deliveries.get(slot),
            self.live.simulated.get(&slot),
        ) else {
            return;
        };
        if delivery.state != State::Simulated {
            return;
        }
        let (message_slot, attempts) = (delivery.message, u32::from(delivery.attempts));
        // It can be slow with its first answer.
        let answers_ms = self
            .live
            .age_begins_ms(slot)
            .saturating_add(simulated.answers.after_ms.into());
        if attempts == 0 && now_ms < answers_ms {
            self.live.wait_until(slot, answers_ms);
            return;
        }
        let simulation = self.simulation_of(slot);
        let reply = simulated.reply(attempts, simulation == Simulation::Sandbox);
        let address = simulated.address.to_string();
        let ordinals: Vec<u32> = self
            .live
            .ordinals(slot)
            .iter()
            .copied()
            .map(u32::from)
            .collect();
        if self.expire(now_ms, key, policies) {
            return;
        }
        let judged = ordinals.iter().map(|ordinal| {
            judge(RecipientReport {
                ordinal: *ordinal,
                address: address.clone(),
                reply: Some(reply.clone()),
                relayed: false,
            })
        });
        let judged = judged.collect();
        self.assignments = self.assignments.wrapping_add(1);
        let outcome = Outcome {
            attempt: attempts + 1,
            recipients: self.dispose(now_ms, slot, judged, policies),
            started_at_ms: now_ms,
            finished_at_ms: now_ms,
            simulation: simulation.into(),
            ..self.outcome_of(message_slot)
        };
        let begin = Begin {
            message_id: outcome.message_id.clone(),
            ordinals,
            attempt: self.assignments,
            number: attempts + 1,
            simulation: simulation.into(),
            ..Begin::default()
        };
        self.log(Kind::Begin(begin), Gate::Nothing);
        self.record_outcome(outcome, None);
    }
}
