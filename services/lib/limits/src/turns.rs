//! Turns of rotations that replicas share.

use crate::grants::{Grants, Unavailable};

/// A count that nobody draws from for so long begins anew, seconds.
const KEPT_S: u64 = 86_400;

impl Grants {
    /// Draws the next `count` numbers (at least 1) from the count of this name, which all who share it draw from: no
    /// number is drawn twice as long as Redis keeps its memory, and what is drawn and not used is used by nobody. Gives
    /// the first of them. Takes at most the response time-out.
    pub async fn turns(&self, name: &str, count: u32) -> Result<u64, Unavailable> {
        let mut link = self.link(name)?;
        let key = link.shard.key(self.prefix(), "turns", name);
        let mut pipeline = redis::pipe();
        pipeline.cmd("INCRBY").arg(&key).arg(count.max(1));
        pipeline.cmd("EXPIRE").arg(&key).arg(KEPT_S).ignore();
        let drawn: Result<(u64,), _> = pipeline.query_async(&mut link.connection).await;
        match drawn {
            Ok((end,)) => Ok(end.saturating_sub(count.max(1).into())),
            Err(error) => Err(self.failed(&link, &error)),
        }
    }
}
