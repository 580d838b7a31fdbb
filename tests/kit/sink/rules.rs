//! What a sink does other than accept.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Where in the dialogue a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In place of the banner.
    Connect,
    /// At EHLO or HELO.
    Hello,
    /// At STARTTLS.
    StartTls,
    /// At MAIL.
    Mail,
    /// At each RCPT.
    Recipient,
    /// At DATA.
    Data,
    /// After DATA was answered, before the content is read; a delay is all that can be had here.
    Content,
    /// After the final dot.
    Dot,
}

/// What is done.
#[derive(Debug, Clone)]
pub enum Action {
    /// This reply instead of acceptance, such as `451 4.7.1 Come back later`.
    Reply(String),
    /// The connection is dropped without a reply.
    Drop,
    /// The message is taken, and the connection dropped before its reply: in doubt for the client.
    TakeAndDrop,
    /// Waits, then goes on as if there were no rule.
    Delay(Duration),
    /// The message is taken, and its reply waits.
    TakeAndDelay(Duration),
}

/// What a rule looks at.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// The recipient contains this. At MAIL nothing is known of recipients.
    pub recipient: String,
    /// The sender contains this.
    pub sender: String,
}

/// At a stage, for what matches, does something, so many times for each sender and recipient.
#[derive(Debug, Clone)]
pub struct Rule {
    stage: Stage,
    matching: Matching,
    times: u32,
    action: Action,
}

impl Rule {
    /// Always, for everybody.
    pub fn at(stage: Stage, action: Action) -> Self {
        Self {
            stage,
            matching: Matching::default(),
            times: u32::MAX,
            action,
        }
    }

    /// A reply instead of acceptance.
    pub fn reply(stage: Stage, reply: &str) -> Self {
        Self::at(stage, Action::Reply(reply.to_owned()))
    }

    /// Only for recipients that contain the text.
    pub fn to(mut self, recipient: &str) -> Self {
        self.matching.recipient = recipient.to_owned();
        self
    }

    /// Only for senders that contain the text.
    pub fn from(mut self, sender: &str) -> Self {
        self.matching.sender = sender.to_owned();
        self
    }

    /// Only the first `times` times for each pair of sender and recipient.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// The rules of a sink and how often each has applied.
pub(super) struct Rules {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    applied: HashMap<(usize, String, String), u32>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        Self {
            state: Mutex::new(State {
                rules,
                applied: HashMap::new(),
            }),
        }
    }

    pub(super) fn replace(&self, rules: Vec<Rule>) {
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds the rules");
        *state = State {
            rules,
            applied: HashMap::new(),
        };
    }

    /// The action of the first rule that applies. At the dot, `recipient` is the first recipient.
    pub(super) fn action(&self, stage: Stage, sender: &str, recipient: &str) -> Option<Action> {
        let mut state = self
            .state
            .lock()
            .expect("nothing panics while it holds the rules");
        let State { rules, applied } = &mut *state;
        for (index, rule) in rules.iter().enumerate() {
            let fits = rule.stage == stage
                && sender.contains(&rule.matching.sender)
                && recipient.contains(&rule.matching.recipient);
            if !fits {
                continue;
            }
            let applied = applied
                .entry((index, sender.to_owned(), recipient.to_owned()))
                .or_insert(0);
            if *applied < rule.times {
                *applied += 1;
                return Some(rule.action.clone());
            }
        }
        None
    }
}
