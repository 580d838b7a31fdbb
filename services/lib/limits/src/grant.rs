//! What is asked for and what is answered.

use std::time::Duration;

/// Uses whose date is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// How long before the request the last of them was.
    pub ago: Duration,
    /// How many.
    pub count: u64,
}

/// What a holder says about its uses of a limit, and a wish for more. It replaces what it said before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// Name of what is limited, for example `source|site`; at most a few hundred bytes. Those who share a
    /// limit name it alike.
    pub key: String,
    /// Uses per window, all replicas together.
    pub limit: u64,
    /// Length of the window, 10 ms to 31 days.
    pub window: Duration,
    /// Who asks, unique per process start and key.
    pub holder: String,
    /// Uses that were granted and are not dated: not used yet, or under way. They count until they are not named any
    /// more, or until the holder was silent for [`GrantRequest::hold`] and one window more.
    pub have: u64,
    /// Number of the batch in `dated`, from 1 up. After [`crate::Unavailable`] the same batch is sent again under its
    /// number, and counts once; what is dated meanwhile waits (in `have`) for the next.
    pub batch: u64,
    /// Uses that came to be dated, the oldest first. Each counts until its date and one window.
    pub dated: Vec<Dated>,
    /// Uses wanted now; 0 = only to say this. A reply never holds more, nor more than 1/16 of the limit.
    pub want: u64,
}

impl GrantRequest {
    /// How long a grant may be drawn on: 1/16 of the window, at least 50 ms and at most 30 s. What is not used by then
    /// is to be given back, so that it does not lie about where there is no work.
    pub fn life(window: Duration) -> Duration {
        (window / 16).clamp(Duration::from_millis(50), Duration::from_secs(30))
    }

    /// For so long after its last word a holder counts as having all it had: one window, at least 2 s and at most 30 s.
    pub fn hold(window: Duration) -> Duration {
        window.clamp(Duration::from_secs(2), Duration::from_secs(30))
    }
}

/// The answer to a [`GrantRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantReply {
    /// More uses.
    Granted {
        /// How many, 1 to `want`.
        amount: u64,
        /// How long they may be drawn on, counted from the moment at which `ask` was called (so read the clock before).
        expires: Duration,
    },
    /// The limit is used up.
    Nothing {
        /// When something may be free; zero when nothing was wanted.
        retry_after: Duration,
    },
    /// Use so far is not known: the safe share holds.
    Unknown {
        /// For how long, from now.
        safe_for: Duration,
    },
}
