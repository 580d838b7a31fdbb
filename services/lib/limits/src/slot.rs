//! Leases of connections: what is asked for and what is answered.

use std::time::Duration;

use crate::Epoch;

/// A good life of a lease, from the moment at which it was asked for. A holder asks again several times within it. It is
/// longer than a sender takes to see that its scheduler is gone and to close what it had open for it.
pub const SLOT_TTL: Duration = Duration::from_secs(20);

/// A word about the connections of a lane: it renews the lease, and may ask for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRequest {
    /// Name of what is limited; at most a few hundred bytes. Those who share a limit name it alike.
    pub key: String,
    /// Who asks: unique per process start and lane.
    pub holder: String,
    /// Connections at a time, all holders together.
    pub limit: u32,
    /// Connections that the holder has. What it was granted and does not have is given back by this.
    pub have: u32,
    /// Connections that it would like to open.
    pub want: u32,
    /// Its part of the limit when nobody can say what others have.
    pub share: u32,
    /// Life of the lease; [`SLOT_TTL`] is good. The same for all who ask for the key.
    pub ttl: Duration,
}

/// The answer to a [`SlotRequest`]: what the holder has is leased for `ttl` from the moment at which `lease` was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotReply {
    /// So many more may be opened within that time; 0 to `want`.
    pub granted: u32,
    /// So many of those that it has are to be closed soon: others wait for their part.
    pub excess: u32,
    /// Whether others wait for their part.
    pub others_wait: bool,
    /// What all others have is known. Else Redis lost its memory less than a `ttl` ago, and what is granted is within
    /// the share.
    pub known: bool,
}

/// The epoch in which a process had leases last, if in any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeasedIn(pub(crate) u64);

impl LeasedIn {
    /// Nobody has leases of a memory before this one, as far as the process can know. Where there was one, all have to
    /// speak first.
    pub(crate) fn is_fresh(self, epoch: &Epoch) -> bool {
        self.is_first(epoch) || self.0 == epoch.id
    }

    fn is_first(self, epoch: &Epoch) -> bool {
        self.0 == 0 && epoch.term == 1
    }

    /// As it is after an answer of this epoch.
    pub fn after(self, epoch: &Epoch, reply: &SlotReply) -> Self {
        if reply.known || self.is_first(epoch) {
            Self(epoch.id)
        } else {
            self
        }
    }
}
