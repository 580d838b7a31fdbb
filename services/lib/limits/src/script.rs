//! The scripts that run inside Redis, their arguments and answers.

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, Value};

use crate::connection::Epoch;
use crate::keys::Shard;
use crate::presence::SILENCE;
use crate::slot::LeasedIn;
use crate::{GrantReply, GrantRequest, SlotReply, SlotRequest};

/// Largest number that Lua holds exactly.
const EXACT: u64 = 1 << 53;

pub(crate) const GRANT: &str = include_str!("grant.lua");
pub(crate) const SLOTS: &str = include_str!("slots.lua");
pub(crate) const EPOCH: &str = include_str!("epoch.lua");
pub(crate) const PRESENCE: &str = include_str!("presence.lua");

/// The scripts with their hashes.
pub(crate) struct Scripts {
    pub(crate) grant: Script,
    pub(crate) slots: Script,
    pub(crate) epoch: Script,
    pub(crate) presence: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            grant: Script::new(GRANT),
            slots: Script::new(SLOTS),
            epoch: Script::new(EPOCH),
            presence: Script::new(PRESENCE),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> [&Script; 4] {
        [&self.epoch, &self.grant, &self.slots, &self.presence]
    }

    /// Opens the epoch of a shard at the server of this run id. `id` is for a new one, `seen` the last that the process has
    /// seen of it; `margin_ms`: for how long another server may have gone on lending.
    pub(crate) fn open(
        &self,
        (prefix, shard): (&str, Shard),
        run_id: &str,
        id: u64,
        seen: Option<Epoch>,
        margin_ms: u64,
    ) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(self.epoch.get_hash())
            .arg(1)
            .arg(shard.epoch_key(prefix))
            .arg(run_id)
            .arg(hex(id))
            .arg(seen.map_or(0, |epoch| epoch.term))
            .arg(seen.map(|epoch| hex(epoch.id)).unwrap_or_default())
            .arg(margin_ms);
        command
    }

    /// What a scheduler says of itself: how many partitions it has, of how many, and for how long it was not heard. Then
    /// the question whether the epoch is still the same: who asks nothing else would not notice.
    pub(crate) fn present(
        &self,
        pipeline: &mut Pipeline,
        (member, (has, partitions), silent_for): (&str, (u32, u32), std::time::Duration),
        prefix: &str,
        (shard, epoch): (Shard, Epoch),
    ) {
        pipeline
            .cmd("EVALSHA")
            .arg(self.presence.get_hash())
            .arg(1)
            .arg(present_key(prefix, (shard, epoch)))
            .arg(member)
            .arg(has)
            .arg(partitions)
            .arg(millis(silent_for))
            .arg(millis(SILENCE));
        same_epoch(pipeline, prefix, shard);
    }

    /// The request, and right after it on the same connection the question whether the epoch is still the same:
    /// memory that was emptied before the script ran is emptied of the epoch's record too.
    /// `member`: the scheduler that asks; empty for somebody who is none.
    pub(crate) fn ask(
        &self,
        request: &GrantRequest,
        member: &str,
        prefix: &str,
        (shard, epoch): (Shard, Epoch),
    ) -> Pipeline {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.grant.get_hash())
            .arg(2)
            .arg(shard.state_key(prefix, "grant", &request.key, epoch.id))
            .arg(present_key(prefix, (shard, epoch)))
            .arg(request.limit.min(EXACT))
            .arg(millis(request.window))
            .arg(millis(GrantRequest::hold(request.window)))
            .arg(millis(GrantRequest::life(request.window)))
            .arg(epoch.since_ms)
            .arg(&request.holder)
            .arg(request.batch.min(EXACT))
            .arg(request.have.min(EXACT))
            .arg(request.want.min(EXACT))
            .arg(member)
            .arg(millis(SILENCE));
        for dated in &request.dated {
            let ago = u64::try_from(dated.ago.as_millis()).unwrap_or(EXACT);
            pipeline.arg(ago.min(EXACT)).arg(dated.count.min(EXACT));
        }
        same_epoch(&mut pipeline, prefix, shard);
        pipeline
    }

    /// As [`Scripts::ask`], about connections; `leased` says what the process had before.
    pub(crate) fn lease(
        &self,
        request: &SlotRequest,
        prefix: &str,
        (shard, epoch): (Shard, Epoch),
        leased: LeasedIn,
    ) -> Pipeline {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.slots.get_hash())
            .arg(1)
            .arg(shard.state_key(prefix, "slots", &request.key, epoch.id))
            .arg(request.limit)
            .arg(millis(request.ttl))
            .arg(&request.holder)
            .arg(request.have)
            .arg(request.want)
            .arg(epoch.since_ms)
            .arg(request.share)
            .arg(u8::from(leased.is_fresh(&epoch)));
        same_epoch(&mut pipeline, prefix, shard);
        pipeline
    }
}

/// Who is heard.
fn present_key(prefix: &str, (shard, epoch): (Shard, Epoch)) -> String {
    shard.state_key(prefix, "present", "all", epoch.id)
}

/// Asks for the epoch, after what was asked before.
pub(crate) fn same_epoch(pipeline: &mut Pipeline, prefix: &str, shard: Shard) {
    pipeline.cmd("HGET").arg(shard.epoch_key(prefix)).arg("id");
    pipeline.ignore_errors();
}

pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(EXACT)
        .clamp(1, EXACT)
}

/// Reads the answer to who opens an epoch; whether it has just begun.
pub(crate) fn epoch_answer(value: Value) -> RedisResult<(Epoch, bool)> {
    let (id, since_ms, term, fresh): (String, u64, u64, u8) = redis::from_redis_value(value)?;
    let id = u64::from_str_radix(&id, 16).map_err(|_| {
        RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "the epoch's id is not hexadecimal",
        ))
    })?;
    let epoch = Epoch { id, since_ms, term };
    Ok((epoch, fresh == 1))
}

/// Reads the script's answer to who wants a part of such a window.
pub(crate) fn answer(value: Value, window: std::time::Duration) -> RedisResult<GrantReply> {
    let (kind, amount, ms): (u8, u64, u64) = redis::from_redis_value(value)?;
    let time = std::time::Duration::from_millis(ms);
    Ok(match kind {
        0 => GrantReply::Granted {
            amount,
            expires: GrantRequest::life(window),
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
