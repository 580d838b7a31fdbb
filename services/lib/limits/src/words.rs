//! What is said to Redis and what its answers mean, without a connection: for those who bring a server of their own, as
//! the simulation does.

use std::time::Duration;

use redis::{Arg, Cmd, RedisResult, Value};

use crate::keys::Shard;
use crate::presence;
use crate::script::{
    EPOCH, GRANT, PRESENCE, SLOTS, Scripts, answer, epoch_answer, hex, slot_answer,
};
use crate::{Epoch, GrantReply, GrantRequest, LeasedIn, SlotReply, SlotRequest, Unavailable};

/// A command with its arguments.
pub type Command = Vec<Vec<u8>>;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An integer.
    Number(i64),
    /// A text.
    Text(Vec<u8>),
    /// Nil.
    Nothing,
    /// An array.
    Several(Vec<Answer>),
}

impl From<Answer> for Value {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Number(number) => Self::Int(number),
            Answer::Text(text) => Self::BulkString(text),
            Answer::Nothing => Self::Nil,
            Answer::Several(answers) => Self::Array(answers.into_iter().map(Self::from).collect()),
        }
    }
}

/// The words to one server that has all counts. See the module.
pub struct Words {
    scripts: Scripts,
    prefix: String,
}

impl Words {
    /// `prefix`: first part of every key.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            scripts: Scripts::new(),
            prefix: prefix.into(),
        }
    }

    /// Hash and text of each script.
    pub fn scripts(&self) -> [(String, &'static str); 4] {
        let Scripts {
            grant,
            slots,
            epoch,
            presence,
        } = &self.scripts;
        [
            (grant, GRANT),
            (slots, SLOTS),
            (epoch, EPOCH),
            (presence, PRESENCE),
        ]
        .map(|(script, text)| (script.get_hash().to_owned(), text))
    }

    /// What is said first on a new connection, to the server of this run id. `id` names the epoch when it is a new one,
    /// `seen` is the last that the process has seen.
    pub fn open(&self, run_id: &str, id: u64, seen: Option<Epoch>) -> Command {
        let key = (&*self.prefix, Shard::Whole);
        command(&self.scripts.open(key, run_id, id, seen, 0))
    }

    /// The epoch that is open now, and whether it has just begun.
    pub fn opened(&self, answer: Answer) -> Result<(Epoch, bool), Unavailable> {
        understood(epoch_answer(answer.into()))
    }

    /// A scheduler is heard: so many partitions it has, of so many, and it was not heard for so long. And the question
    /// whether the epoch is the same.
    pub fn present(
        &self,
        member: &str,
        counts: (u32, u32),
        silent_for: Duration,
        epoch: Epoch,
    ) -> Vec<Command> {
        let (scripts, to) = (&self.scripts, (Shard::Whole, epoch));
        let mut pipeline = redis::pipe();
        scripts.present(
            &mut pipeline,
            (member, counts, silent_for),
            &self.prefix,
            to,
        );
        pipeline.cmd_iter().map(command).collect()
    }

    /// Whether the answer to [`Words::present`] is one of this epoch.
    pub fn was_heard(&self, answers: [Answer; 2], epoch: Epoch) -> Result<bool, Unavailable> {
        in_epoch(answers, epoch, Ok).map(|heard| heard.is_some())
    }

    /// Whether a scheduler that was not heard for so long may use its share.
    pub fn may_share(&self, silent_for: Duration) -> bool {
        presence::may_share(silent_for)
    }

    /// A word of a scheduler about a rate, and the question whether the epoch is the same.
    pub fn ask(&self, request: &GrantRequest, member: &str, epoch: Epoch) -> Vec<Command> {
        let to = (Shard::Whole, epoch);
        let pipeline = self.scripts.ask(request, member, &self.prefix, to);
        pipeline.cmd_iter().map(command).collect()
    }

    /// What the answer to [`Words::ask`] means; `None`: the counts are gone.
    pub fn granted(
        &self,
        answers: [Answer; 2],
        request: &GrantRequest,
        epoch: Epoch,
    ) -> Result<Option<GrantReply>, Unavailable> {
        let read = |value| answer(value, request.window);
        in_epoch(answers, epoch, read)
    }

    /// What a scheduler asks for that has been heard for so long, without 10 s of silence.
    pub fn asks_for(&self, request: &SlotRequest, heard_for: Duration) -> SlotRequest {
        presence::asks_for(request, heard_for)
    }

    /// A word about connections, and the question whether the epoch is the same.
    pub fn lease(&self, request: &SlotRequest, epoch: Epoch, leased: LeasedIn) -> Vec<Command> {
        let to = (Shard::Whole, epoch);
        let pipeline = self.scripts.lease(request, &self.prefix, to, leased);
        pipeline.cmd_iter().map(command).collect()
    }

    /// What the answer to [`Words::lease`] means; `None`: the counts are gone.
    pub fn leased(
        &self,
        answers: [Answer; 2],
        epoch: Epoch,
    ) -> Result<Option<SlotReply>, Unavailable> {
        in_epoch(answers, epoch, slot_answer)
    }
}

/// As [`crate::Grants`] takes an answer with that about the epoch after it.
fn in_epoch<T>(
    [answered, id]: [Answer; 2],
    epoch: Epoch,
    read: impl FnOnce(Value) -> RedisResult<T>,
) -> Result<Option<T>, Unavailable> {
    if id != Answer::Text(hex(epoch.id).into_bytes()) {
        return Ok(None);
    }
    understood(read(answered.into())).map(Some)
}

fn understood<T>(read: RedisResult<T>) -> Result<T, Unavailable> {
    read.map_err(|error| Unavailable(error.to_string()))
}

fn command(command: &Cmd) -> Command {
    let word = |arg: Arg<&[u8]>| match arg {
        Arg::Simple(word) => word.to_vec(),
        // Only what iterates over a server's keys has one.
        _ => b"0".to_vec(),
    };
    command.args_iter().map(word).collect()
}
