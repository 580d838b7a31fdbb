//! What is asked for and what is answered.

use std::time::Duration;

/// Names a slice in the whole installation, for its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SliceId {
    /// Hash of the epoch of Redis' memory in which the slice was granted.
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// What became of a slice that is not used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceUse {
    /// As granted.
    pub slice_id: SliceId,
    /// How much of it was used.
    pub used: u64,
    /// How long ago the last use was, at the time of the request; zero is always safe, and costs little as long
    /// as reports come soon after the end of the slice, which bounds it.
    pub last_use_ago: Duration,
}

/// A wish for a slice of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// Name of what is limited, for example `source|site`; at most a few hundred bytes. Those who share a
    /// limit name it alike.
    pub key: String,
    /// Uses per window, all replicas together.
    pub limit: u64,
    /// Length of the window, 10 ms to 31 days.
    pub window: Duration,
    /// Uses wanted now; 0 to report only. A reply never holds more, and seldom more than 1/16 of the limit.
    pub want: u64,
    /// Life of the slice; 1/16 of the window is good ([`GrantRequest::good_ttl`]). The same for all who ask
    /// for the key.
    pub ttl: Duration,
    /// The slice before this one, which ends with this request whatever the answer is. After
    /// [`crate::Unavailable`] the same report may be sent again, it counts once.
    pub previous: Option<SliceUse>,
    /// Uses outside any slice (under the safe share) that no answered request has reported yet.
    pub outside: u64,
}

impl GrantRequest {
    /// 1/16 of the window, at least 50 ms and at most 30 s: a report lost with a crashed replica costs little,
    /// and requests stay rare.
    pub fn good_ttl(window: Duration) -> Duration {
        (window / 16).clamp(Duration::from_millis(50), Duration::from_secs(30))
    }
}

/// The answer to a [`GrantRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantReply {
    /// A slice.
    Granted {
        /// For its report.
        slice_id: SliceId,
        /// Uses, 1 to `want`.
        amount: u64,
        /// Life of the slice, counted from the moment at which `ask` was called (so read the clock before).
        expires: Duration,
    },
    /// The limit is used up.
    Nothing {
        /// When something may be free again; zero when nothing was wanted.
        retry_after: Duration,
    },
    /// Use so far is not known: the safe share holds, and slices granted before are void.
    Unknown {
        /// For how long, from now.
        safe_for: Duration,
    },
}
