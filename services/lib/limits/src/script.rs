//! The scripts that run inside Redis, their arguments and answers.

use redis::{Pipeline, RedisResult, Script, Value};

use crate::connection::Epoch;
use crate::{GrantReply, GrantRequest, SliceId, SlotReply, SlotRequest};

/// Largest number that Lua holds exactly.
const EXACT: u64 = 1 << 53;

pub(crate) const GRANT: &str = include_str!("grant.lua");
pub(crate) const SLOTS: &str = include_str!("slots.lua");
pub(crate) const EPOCH: &str = include_str!("epoch.lua");

/// The scripts with their hashes.
pub(crate) struct Scripts {
    pub(crate) grant: Script,
    pub(crate) slots: Script,
    pub(crate) epoch: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            grant: Script::new(GRANT),
            slots: Script::new(SLOTS),
            epoch: Script::new(EPOCH),
        }
    }

    /// The request, and right after it on the same connection the question whether the epoch is still the same:
    /// memory that was emptied before the script ran is emptied of the epoch's record too.
    pub(crate) fn ask(
        &self,
        request: &GrantRequest,
        prefix: &str,
        epoch: &Epoch,
        slice_id: SliceId,
    ) -> Pipeline {
        let window = millis(request.window);
        let ttl = millis(request.ttl);
        let mut outside = request.outside;
        let mut previous = (String::new(), 0, 0);
        match &request.previous {
            Some(old) if old.slice_id.epoch == epoch.id => {
                let age = u64::try_from(old.last_use_ago.as_millis()).unwrap_or(u64::MAX);
                previous = (
                    hex(old.slice_id.number),
                    old.used.min(EXACT),
                    age.min(window),
                );
            }
            // A slice of memory that is lost: what was used of it is all that can be counted.
            Some(old) => outside = outside.saturating_add(old.used),
            None => {}
        }
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.grant.get_hash())
            .arg(1)
            .arg(state_key(prefix, "grant", &request.key, epoch.id))
            .arg(request.limit.min(EXACT))
            .arg(window)
            .arg(request.want.min(EXACT))
            .arg(ttl)
            .arg(hex(slice_id.number))
            .arg(epoch.since_ms)
            .arg(previous.0)
            .arg(previous.1)
            .arg(previous.2)
            .arg(outside.min(EXACT));
        same_epoch(&mut pipeline, prefix);
        pipeline
    }

    /// As [`Scripts::ask`], about connections.
    pub(crate) fn lease(
        &self,
        request: &SlotRequest,
        prefix: &str,
        epoch: &Epoch,
        fresh: bool,
    ) -> Pipeline {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.slots.get_hash())
            .arg(1)
            .arg(state_key(prefix, "slots", &request.key, epoch.id))
            .arg(request.limit)
            .arg(millis(request.ttl))
            .arg(&request.holder)
            .arg(request.have)
            .arg(request.want)
            .arg(epoch.since_ms)
            .arg(request.share)
            .arg(u8::from(fresh));
        same_epoch(&mut pipeline, prefix);
        pipeline
    }
}

fn same_epoch(pipeline: &mut Pipeline, prefix: &str) {
    pipeline.cmd("HGET").arg(epoch_key(prefix)).arg("id");
    pipeline.ignore_errors();
}

/// Where the state of a lane is. The braces are the hash tag of a cluster; the epoch is in the name, so that
/// state which a restarted server read from its disk is never taken for the present one.
fn state_key(prefix: &str, what: &str, key: &str, epoch: u64) -> String {
    format!("{prefix}:{what}:{{{key}}}:{}", hex(epoch))
}

pub(crate) fn epoch_key(prefix: &str) -> String {
    format!("{prefix}:epoch")
}

pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(EXACT)
        .clamp(1, EXACT)
}

/// Reads the script's answer.
pub(crate) fn answer(value: Value, slice_id: SliceId) -> RedisResult<GrantReply> {
    let (kind, amount, ms): (u8, u64, u64) = redis::from_redis_value(value)?;
    let time = std::time::Duration::from_millis(ms);
    Ok(match kind {
        0 => GrantReply::Granted {
            slice_id,
            amount,
            expires: time,
        },
        1 => GrantReply::Nothing { retry_after: time },
        _ => GrantReply::Unknown { safe_for: time },
    })
}

/// Reads the answer of the script about connections.
pub(crate) fn slot_answer(value: Value) -> RedisResult<SlotReply> {
    let (known, granted, excess, short): (u8, u32, u32, u32) = redis::from_redis_value(value)?;
    Ok(SlotReply {
        granted,
        excess,
        others_wait: short > 0,
        known: known == 1,
    })
}
