//! What is held in memory of each message and delivery.

use mail::MessageId;

use crate::strings::Name;

/// Names a delivery within its partition as long as the scheduler owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Recipients of a delivery, by their ordinals in the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ordinals {
    /// The usual case, without an allocation.
    One(u16),
    Many(Box<[u16]>),
}

impl Ordinals {
    pub(crate) fn new(ordinals: &[u16]) -> Self {
        match ordinals {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub(crate) fn contains(&self, ordinal: u16) -> bool {
        self.as_slice().contains(&ordinal)
    }

    /// Without one of them.
    pub(crate) fn without(&self, ordinal: u16) -> Self {
        let rest: Vec<u16> = self
            .as_slice()
            .iter()
            .copied()
            .filter(|&o| o != ordinal)
            .collect();
        Self::new(&rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// In the heap until it is due.
    Waiting,
    /// Due, and behind so many others of its line that the lanes need not have it yet.
    Behind,
    /// Handed to the lanes.
    Ready,
    /// At a sender; the flight tells which.
    InFlight,
    /// Not to be tried until released (hold, quarantine, in doubt under policy `hold`).
    Held,
}

/// Message × recipient domain × return path × header variant.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) due_ms: u64,
    pub(crate) ordinals: Ordinals,
    pub(crate) message: u32,
    /// The next delivery of the message, [`NONE`] at the end.
    pub(crate) next: u32,
    pub(crate) domain: Name,
    pub(crate) generation: u32,
    pub(crate) attempts: u16,
    pub(crate) state: State,
    /// A failure is reported to the sender.
    pub(crate) wants_dsn: bool,
}

/// End of a message's list of deliveries.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) sequence: u64,
    /// Unix milliseconds; 0 = the maximum age of the route.
    pub(crate) expires_ms: u64,
    pub(crate) index: u32,
    pub(crate) tenant: Name,
    pub(crate) stream: Name,
    pub(crate) campaign: Name,
    pub(crate) size: u32,
    pub(crate) first: u32,
    pub(crate) quarantined: bool,
}

/// How long a sender waits for the final reply when its begin says nothing of it, milliseconds: what RFC 5321
/// section 4.5.3.2.6 asks for, and what senders that say nothing do.
pub(crate) const FINAL_REPLY_MS: u32 = 600_000;

/// A delivery that is at a sender.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) epoch: u64,
    pub(crate) attempt: u32,
    /// The stream it was assigned on; `None` when that is broken and the attempt in doubt.
    pub(crate) session: Option<u64>,
    /// How long its sender waits for the final reply, milliseconds, as the begin says; 0 = [`FINAL_REPLY_MS`].
    pub(crate) final_reply_ms: u32,
    /// Unix milliseconds of the begin; `None` = not begun.
    pub(crate) begun_ms: Option<u64>,
    /// From then on it is in doubt for good, Unix milliseconds; `None` = not begun, or settled.
    pub(crate) doubt_ms: Option<u64>,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Before the second attempt, milliseconds.
    pub initial_ms: u64,
    /// Each wait is this many times the one before, in percent: 200 doubles.
    pub factor_percent: u32,
    /// The longest wait, milliseconds.
    pub max_ms: u64,
    /// Each wait is longer or shorter by up to this, percent.
    pub jitter_percent: u32,
    /// Milliseconds from acceptance after which a deferral is an expiry.
    pub max_age_ms: u64,
}

impl Retry {
    /// The wait after `attempts` attempts (at least 1), milliseconds. `seed` spreads deliveries that fail together.
    pub fn delay_ms(&self, attempts: u32, seed: u64) -> u64 {
        let mut delay = self.initial_ms;
        for _ in 1..attempts {
            delay = delay.saturating_mul(u64::from(self.factor_percent)) / 100;
            if delay >= self.max_ms {
                break;
            }
        }
        let delay = delay.min(self.max_ms);
        let spread = delay.saturating_mul(u64::from(self.jitter_percent.min(100))) / 100;
        delay - spread + mix(seed) % (2 * spread + 1)
    }
}

/// The finalizer of SplitMix64: equal seeds give equal results, neighbouring ones unrelated results.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed from a message id.
pub(crate) fn seed(id: &MessageId, salt: u64) -> u64 {
    let bytes = id.as_bytes();
    let tail = u64::from_le_bytes(bytes[8..].try_into().expect("a message id has 16 bytes"));
    tail ^ salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_maximum_and_vary_within_the_jitter() {
        let retry = Retry {
            initial_ms: 1000,
            factor_percent: 200,
            max_ms: 10_000,
            jitter_percent: 10,
            max_age_ms: 0,
        };
        for (attempts, expected) in [
            (1, 1000),
            (2, 2000),
            (3, 4000),
            (4, 8000),
            (5, 10_000),
            (1000, 10_000),
        ] {
            for seed in 0..100 {
                let delay = retry.delay_ms(attempts, seed);
                assert!(
                    (expected * 9 / 10..=expected * 11 / 10).contains(&delay),
                    "{attempts}: {delay}"
                );
            }
        }
    }

    #[test]
    fn a_delivery_with_its_message_stays_small() {
        assert!(
            size_of::<Option<Delivery>>() <= 56,
            "{}",
            size_of::<Option<Delivery>>()
        );
        assert!(
            size_of::<Option<Message>>() <= 64,
            "{}",
            size_of::<Option<Message>>()
        );
    }
}
