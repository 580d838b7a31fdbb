//! What is held in memory of each message and delivery.

use std::num::NonZeroU8;

use mail::{MessageId, Span};
use proto::journal::Class;

use crate::ordinals::Ordinals;
use crate::strings::Name;

/// Names a delivery within its partition as long as the scheduler owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Until it is due.
    Waiting,
    /// It was due, and waits until its window opens or its place in the spread comes. Told apart in memory only:
    /// who takes over finds it due.
    HeldBack,
    /// Due, and behind so many others of its line that the lanes need not have it yet.
    Behind,
    /// Handed to the lanes.
    Ready,
    /// Ready, and kept from the lanes by an operator: found by those who parked it only.
    Parked,
    /// At a sender; the flight tells which.
    InFlight,
    /// Not to be tried until released (hold, quarantine, in doubt under policy `hold`).
    Held,
    /// Due, and the simulator's: it is never handed to the lanes.
    Simulated,
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
    /// Attempts in which something was said of the message.
    pub(crate) attempts: u16,
    pub(crate) deferred: Deferred,
    pub(crate) state: State,
    pub(crate) told: Told,
}

impl Delivery {
    /// A failure is reported to the sender.
    pub(crate) fn wants_dsn(&self) -> bool {
        self.told.failures()
    }

    /// That it was relayed can be reported: there is a sender.
    pub(crate) fn has_sender(&self) -> bool {
        !self.told.is_nobody()
    }

    /// A failure is reported since its client asked for that by NOTIFY, and not only by saying nothing.
    pub(crate) fn asked_for_dsn(&self) -> bool {
        self.told.failures() && self.told.delays() != TellDelays::IfConfigured
    }

    /// It was tried before, or could not be.
    pub(crate) fn is_retry(&self) -> bool {
        self.attempts > 0 || self.deferred.times > 0
    }
}

/// What the sender of a message is told of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Told(u8);

/// Whether the sender is told of delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TellDelays {
    /// NOTIFY leaves it out, or there is nobody to tell.
    Never = 0,
    /// Nothing was said: if the stream says so.
    IfConfigured = 1,
    /// NOTIFY=DELAY.
    Asked = 2,
}

impl Told {
    /// Bits of a snapshot's flags.
    const FAILURES: u8 = 1;
    const DELAYS: u8 = 2;
    const NOTICES: u8 = 4;
    /// Where it is said whether delays are told.
    const NOBODY: u8 = 3 << Self::DELAYS;
    /// Notices that are counted.
    const MOST_NOTICES: u32 = 15;

    pub(crate) fn new(failures: bool, delays: TellDelays) -> Self {
        Self((u8::from(failures) * Self::FAILURES) | ((delays as u8) << Self::DELAYS))
    }

    /// Out of the flags in a snapshot, in which bit 1 says something else.
    pub(crate) fn from_flags(flags: u32) -> Self {
        Self((flags & 0xfd) as u8)
    }

    pub(crate) fn flags(self) -> u32 {
        self.0.into()
    }

    pub(crate) fn failures(self) -> bool {
        self.0 & Self::FAILURES != 0
    }

    pub(crate) fn delays(self) -> TellDelays {
        match (self.0 >> Self::DELAYS) & 3 {
            0 => TellDelays::Never,
            1 => TellDelays::IfConfigured,
            2 => TellDelays::Asked,
            _ => TellDelays::Never,
        }
    }

    /// The return path is null: there is nobody to tell anything.
    pub(crate) fn nobody() -> Self {
        Self(Self::NOBODY)
    }

    pub(crate) fn is_nobody(self) -> bool {
        self.0 & Self::NOBODY == Self::NOBODY
    }

    /// Notices of delay so far.
    pub(crate) fn notices(self) -> u32 {
        u32::from(self.0 >> Self::NOTICES)
    }

    pub(crate) fn with_notices(self, notices: u32) -> Self {
        let notices = u8::try_from(notices.min(Self::MOST_NOTICES)).unwrap_or(0);
        Self((self.0 & 0x0f) | (notices << Self::NOTICES))
    }
}

/// How a delivery was deferred last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deferred {
    /// Deferrals in a row by the same schedule.
    pub(crate) times: u16,
    /// Number of the class.
    class: u8,
    /// The schedule is that of the class alone.
    own: bool,
}

impl Deferred {
    pub(crate) fn new(times: u32, class: Class, own: bool) -> Self {
        Self {
            times: u16::try_from(times).unwrap_or(u16::MAX),
            class: u8::try_from(i32::from(class)).unwrap_or(0),
            own,
        }
    }

    pub(crate) fn class(self) -> Class {
        Class::try_from(i32::from(self.class)).unwrap_or_default()
    }

    pub(crate) fn has_own_schedule(self) -> bool {
        self.own
    }

    /// The next deferral, for this class.
    pub(crate) fn next(self, class: Class, own: bool) -> Self {
        let goes_on = self.own == own && (!own || self.class() == class);
        let times = if goes_on { u32::from(self.times) } else { 0 };
        Self::new(times + 1, class, own)
    }
}

/// A time in the seconds of [`Message::expires_s`], the next whole one; 0 stays 0.
pub(crate) fn expires_s(expires_ms: u64) -> u32 {
    u32::try_from(expires_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Message {
    /// When it expires, Unix milliseconds; `None` = by the maximum age of the route.
    pub(crate) fn expires_ms(&self) -> Option<u64> {
        (self.expires_s != 0).then_some(u64::from(self.expires_s) * 1000)
    }

    /// From when on it may be sent, Unix milliseconds.
    pub(crate) fn earliest_ms(&self) -> u64 {
        self.id.unix_ms() + u64::from(self.not_before_s) * 1000
    }
}

/// What is noted once of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Quarantined = 1,
    /// Of the sandbox.
    Sandbox = 2,
    /// Its expiry is the stream's: the time on hold comes on top of it.
    ExpiryMoves = 4,
}

/// Marks of a message. Never 0, so that a free place in the arena takes no octet more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks(NonZeroU8);

impl Default for Marks {
    fn default() -> Self {
        Self(NonZeroU8::MIN.saturating_add(0x7f))
    }
}

impl Marks {
    pub(crate) fn with(self, mark: Mark, is: bool) -> Self {
        let bits = match is {
            true => self.0.get() | mark as u8,
            false => self.0.get() & !(mark as u8),
        };
        Self(NonZeroU8::new(bits).unwrap_or(self.0))
    }

    pub(crate) fn has(self, mark: Mark) -> bool {
        self.0.get() & mark as u8 != 0
    }
}

impl Message {
    pub(crate) fn is_quarantined(&self) -> bool {
        self.marks.has(Mark::Quarantined)
    }

    pub(crate) fn set_quarantined(&mut self, is: bool) {
        self.marks = self.marks.with(Mark::Quarantined, is);
    }

    pub(crate) fn is_sandboxed(&self) -> bool {
        self.marks.has(Mark::Sandbox)
    }

    pub(crate) fn expiry_moves(&self) -> bool {
        self.marks.has(Mark::ExpiryMoves)
    }
}

/// A seed from a delivery that stays the same as long as nothing was tried.
pub(crate) fn spread_seed(message: &Message, delivery: &Delivery) -> u64 {
    mix(seed(
        &message.id,
        u64::from(delivery.ordinals.first()) << 32,
    ))
}

/// End of a message's list of deliveries.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) sequence: u64,
    /// Unix seconds; 0 = the maximum age of the route.
    pub(crate) expires_s: u32,
    /// From acceptance to the time before which it must not be sent, seconds.
    pub(crate) not_before_s: u32,
    /// Position in its block.
    pub(crate) index: u16,
    /// MT-PRIORITY, -9 to 9.
    pub(crate) priority: i8,
    pub(crate) tenant: Name,
    pub(crate) stream: Name,
    pub(crate) campaign: Name,
    pub(crate) size: u32,
    pub(crate) first: u32,
    pub(crate) marks: Marks,
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

/// When to try again after a deferral for some class of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry<'a> {
    /// How long to wait.
    pub waits: Waits<'a>,
    /// Each wait is longer or shorter by up to this, percent.
    pub jitter_percent: u32,
    /// Milliseconds of age after which a deferral is an expiry.
    pub max_age_ms: u64,
    /// The waits are for this class alone: they begin with the first deferral for it.
    pub own: bool,
    /// Bounds of the wait that a reply asks for, milliseconds; a longest of 0: none is asked.
    pub asked_ms: (u64, u64),
}

/// How long to wait from one attempt to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits<'a> {
    /// Each wait is so many times the one before.
    Exponential {
        /// The first, milliseconds.
        initial_ms: u64,
        /// Percent: 200 doubles.
        factor_percent: u32,
        /// The longest, milliseconds.
        max_ms: u64,
    },
    /// One after the other, and then the last one again and again.
    List(&'a [Span]),
}

impl Retry<'_> {
    /// The wait after so many deferrals (at least 1), milliseconds. `seed` spreads deliveries that fail together.
    pub fn delay_ms(&self, deferrals: u32, seed: u64) -> u64 {
        let delay = match self.waits {
            Waits::List(waits) => {
                let position = usize::try_from(deferrals.saturating_sub(1)).unwrap_or(usize::MAX);
                let wait = waits.get(position).or(waits.last());
                wait.map_or(0, |wait| wait.as_millis())
            }
            Waits::Exponential {
                initial_ms,
                factor_percent,
                max_ms,
            } => {
                let mut delay = initial_ms;
                for _ in 1..deferrals {
                    let next = delay.saturating_mul(u64::from(factor_percent)) / 100;
                    if next == delay || next >= max_ms {
                        delay = next;
                        break;
                    }
                    delay = next;
                }
                delay.min(max_ms)
            }
        };
        let spread = self.jitter_ms(delay);
        delay - spread + mix(seed) % (2 * spread + 1)
    }

    /// The wait that a reply asked for, within the bounds; never shorter for the jitter. `None`: none is asked.
    pub fn asked_delay_ms(&self, asked_ms: u64, seed: u64) -> Option<u64> {
        let (least, most) = self.asked_ms;
        let delay = (most > 0).then(|| asked_ms.max(least).min(most))?;
        Some(delay + mix(seed) % (self.jitter_ms(delay) + 1))
    }

    fn jitter_ms(&self, delay: u64) -> u64 {
        delay.saturating_mul(u64::from(self.jitter_percent.min(100))) / 100
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

    const RETRY: Retry<'static> = Retry {
        waits: Waits::Exponential {
            initial_ms: 1000,
            factor_percent: 200,
            max_ms: 10_000,
        },
        jitter_percent: 10,
        max_age_ms: 0,
        own: false,
        asked_ms: (2_000, 60_000),
    };

    fn check_waits(retry: &Retry<'_>, expected: &[(u32, u64)]) {
        for (deferrals, expected) in expected {
            for seed in 0..100 {
                let delay = retry.delay_ms(*deferrals, seed);
                assert!(
                    (expected * 9 / 10..=expected * 11 / 10).contains(&delay),
                    "{deferrals}: {delay}"
                );
            }
        }
    }

    #[test]
    fn waits_grow_to_the_maximum_and_vary_within_the_jitter() {
        let expected = [
            (1, 1000),
            (2, 2000),
            (3, 4000),
            (4, 8000),
            (5, 10_000),
            (1000, 10_000),
            (u32::MAX, 10_000),
        ];
        check_waits(&RETRY, &expected);
        let level = Retry {
            waits: Waits::Exponential {
                initial_ms: 1000,
                factor_percent: 100,
                max_ms: 10_000,
            },
            ..RETRY
        };
        check_waits(&level, &[(1, 1000), (u32::MAX, 1000)]);
    }

    #[test]
    fn waits_of_a_list_come_in_order_and_the_last_one_stays() {
        let waits = [1, 5, 2].map(Span::from_secs);
        let retry = Retry {
            waits: Waits::List(&waits),
            ..RETRY
        };
        let expected = [(1, 1000), (2, 5000), (3, 2000), (4, 2000), (u32::MAX, 2000)];
        check_waits(&retry, &expected);
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_within_bounds_and_never_cut_short() {
        for seed in 0..100 {
            for (asked, least, most) in [
                (10_000, 10_000, 11_000),
                (1, 2_000, 2_200),
                (u64::MAX, 60_000, 66_000),
            ] {
                let delay = RETRY.asked_delay_ms(asked, seed).unwrap();
                assert!((least..=most).contains(&delay), "{asked}: {delay}");
            }
        }
        let deaf = Retry {
            asked_ms: (0, 0),
            ..RETRY
        };
        assert_eq!(deaf.asked_delay_ms(1000, 0), None);
    }

    #[test]
    fn deferrals_in_a_row_are_counted_by_schedule() {
        let mut deferred = Deferred::default();
        let mut times = |class, own| {
            deferred = deferred.next(class, own);
            (deferred.times, deferred.class())
        };
        use Class::{Dns, Greylisted, Throttled};
        assert_eq!(times(Throttled, false), (1, Throttled));
        assert_eq!(times(Dns, false), (2, Dns));
        assert_eq!(times(Greylisted, true), (1, Greylisted));
        assert_eq!(times(Greylisted, true), (2, Greylisted));
        assert_eq!(times(Dns, true), (1, Dns));
        assert_eq!(times(Throttled, false), (1, Throttled));
    }

    #[test]
    fn marks_are_set_and_taken_away_one_by_one() {
        let marks = Marks::default().with(Mark::Sandbox, true);
        let marks = marks.with(Mark::Quarantined, true);
        assert!(marks.has(Mark::Sandbox) && marks.has(Mark::Quarantined));
        assert!(!marks.has(Mark::ExpiryMoves));
        let marks = marks.with(Mark::Quarantined, false);
        assert_eq!(marks, Marks::default().with(Mark::Sandbox, true));
        let none = marks.with(Mark::Sandbox, false);
        assert_eq!(none, Marks::default());
    }

    #[test]
    fn a_delivery_with_its_message_stays_small() {
        assert!(
            size_of::<Option<Delivery>>() <= 48,
            "{}",
            size_of::<Option<Delivery>>()
        );
        assert!(
            size_of::<Option<Message>>() <= 56,
            "{}",
            size_of::<Option<Message>>()
        );
    }
}
