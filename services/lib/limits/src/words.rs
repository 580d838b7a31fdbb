//! What is said to Redis and what its answers mean, without a connection: for those who bring a server of their own, as
//! the simulation does.

use redis::{Arg, Pipeline, Value};

use crate::connection::Epoch;
use crate::script::{EPOCH, GRANT, SLOTS, Scripts, answer, epoch_key, hex, slot_answer};
use crate::{GrantReply, GrantRequest, SliceId, SlotReply, SlotRequest, Unavailable};

/// A command with its arguments.
pub type Command = Vec<Vec<u8>>;

/// A span in which the server forgot nothing, as the script of the epoch answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Its name.
    pub id: u64,
    /// Since when, by the server's clock, Unix milliseconds.
    pub since_ms: u64,
}

impl From<Memory> for Epoch {
    fn from(memory: Memory) -> Self {
        Self {
            id: memory.id,
            since_ms: memory.since_ms,
        }
    }
}

/// The words of one process. See the module.
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
    pub fn scripts(&self) -> [(String, &'static str); 3] {
        let Scripts {
            grant,
            slots,
            epoch,
        } = &self.scripts;
        [(grant, GRANT), (slots, SLOTS), (epoch, EPOCH)]
            .map(|(script, text)| (script.get_hash().to_owned(), text))
    }

    /// What is asked on a new connection to the server of this run id; `fresh` names the memory when it is a new one.
    /// The answer is its name in hexadecimal, since when it is, and 1 when it is new.
    pub fn epoch(&self, run_id: &str, fresh: u64) -> Command {
        let words = [
            "EVALSHA",
            self.scripts.epoch.get_hash(),
            "1",
            &epoch_key(&self.prefix),
            run_id,
            &hex(fresh),
        ];
        words.map(|word| word.as_bytes().to_vec()).to_vec()
    }

    /// A word about connections, and the question whether the memory is the same. `fresh`: this process has had no leases
    /// in any other memory.
    pub fn lease(&self, request: &SlotRequest, memory: Memory, fresh: bool) -> Vec<Command> {
        commands(
            &self
                .scripts
                .lease(request, &self.prefix, &memory.into(), fresh),
        )
    }

    /// A question for a slice, and the one whether the memory is the same. `number` is another one for each.
    pub fn ask(
        &self,
        request: &GrantRequest,
        memory: Memory,
        number: u64,
    ) -> (SliceId, Vec<Command>) {
        let slice = SliceId {
            epoch: memory.id,
            number,
        };
        let pipeline = self
            .scripts
            .ask(request, &self.prefix, &memory.into(), slice);
        (slice, commands(&pipeline))
    }

    /// What the script says about connections.
    pub fn leased(answered: &[i64]) -> Result<SlotReply, Unavailable> {
        slot_answer(numbers(answered)).map_err(|error| Unavailable(error.to_string()))
    }

    /// What the script says about a slice.
    pub fn granted(answered: &[i64], slice: SliceId) -> Result<GrantReply, Unavailable> {
        answer(numbers(answered), slice).map_err(|error| Unavailable(error.to_string()))
    }
}

fn numbers(answered: &[i64]) -> Value {
    Value::Array(answered.iter().copied().map(Value::Int).collect())
}

fn commands(pipeline: &Pipeline) -> Vec<Command> {
    let word = |arg: Arg<&[u8]>| match arg {
        Arg::Simple(word) => word.to_vec(),
        // Only what iterates over a server's keys has one.
        _ => b"0".to_vec(),
    };
    let command = |command: &redis::Cmd| command.args_iter().map(word).collect();
    pipeline.cmd_iter().map(command).collect()
}
