//! Fields by which a client says between which times a message may be sent. They are ours, and are taken out.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use mail::Span;

use crate::{Field, fields};

const NOT_BEFORE: &str = "X-Staffetta-Not-Before";
const EXPIRES: &str = "X-Staffetta-Expires";
/// Longer values are no times, bytes.
const LONGEST_VALUE: usize = 100;
/// How far ahead times may be, milliseconds: 30 days to the first attempt, and 30 more to the expiry.
pub const MOST_AHEAD_MS: u64 = 30 * 86_400_000;

/// Between which times a message may be sent, Unix milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Not before; `None`: at once.
    pub not_before_ms: Option<u64>,
    /// Not any more from then on; `None`: nothing is said.
    pub expires_ms: Option<u64>,
}

impl Times {
    /// The same for a message that may not be sent before `at_ms` for another reason: the later time holds.
    pub fn released_at(self, at_ms: u64) -> Result<Self, TimesError> {
        let not_before_ms = self.not_before_ms.unwrap_or(0).max(at_ms);
        if self
            .expires_ms
            .is_some_and(|expires_ms| expires_ms <= not_before_ms)
        {
            return Err(TimesError::Expired);
        }
        Ok(Self {
            not_before_ms: (not_before_ms > 0).then_some(not_before_ms),
            ..self
        })
    }
}

/// Why the times of a message can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// The field is there more than once.
    #[error("it has more than one {0} field")]
    Repeated(&'static str),
    /// No date, and no duration.
    #[error("{0} is neither a date nor a duration such as 2h")]
    Unreadable(&'static str),
    /// Beyond what is kept.
    #[error("{0} is too far ahead")]
    TooFar(&'static str),
    /// It would expire before it may be sent.
    #[error("it is expired before it may be sent")]
    Expired,
}

/// Reads the fields `X-Staffetta-Not-Before` and `X-Staffetta-Expires`: a date as in `Date` (RFC 5322), a time of RFC 3339, or
/// a duration from now on such as `90m`. A time to send it that is over means at once. Linear in the header section.
pub fn times(header: &[u8], now_ms: u64) -> Result<Times, TimesError> {
    let mut times = Times::default();
    for field in fields(header) {
        let (name, known) = if field.is(NOT_BEFORE) {
            (NOT_BEFORE, &mut times.not_before_ms)
        } else if field.is(EXPIRES) {
            (EXPIRES, &mut times.expires_ms)
        } else {
            continue;
        };
        let at_ms = read(field.value, now_ms).ok_or(TimesError::Unreadable(name))?;
        if known.replace(at_ms).is_some() {
            return Err(TimesError::Repeated(name));
        }
    }
    times.not_before_ms = times.not_before_ms.filter(|at_ms| *at_ms > now_ms);
    let from_ms = times.not_before_ms.unwrap_or(now_ms);
    if from_ms - now_ms > MOST_AHEAD_MS {
        return Err(TimesError::TooFar(NOT_BEFORE));
    }
    match times.expires_ms {
        Some(expires_ms) if expires_ms <= from_ms => Err(TimesError::Expired),
        Some(expires_ms) if expires_ms - from_ms > MOST_AHEAD_MS => {
            Err(TimesError::TooFar(EXPIRES))
        }
        _ => Ok(times),
    }
}

/// Whether the field is one of these.
pub(crate) fn is_time(field: &Field<'_>) -> bool {
    field.is(NOT_BEFORE) || field.is(EXPIRES)
}

fn read(value: &[u8], now_ms: u64) -> Option<u64> {
    if value.len() > LONGEST_VALUE {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim();
    if let Ok(span) = text.parse::<Span>() {
        return now_ms.checked_add(span.as_millis());
    }
    let timestamp = text
        .parse::<Timestamp>()
        .or_else(|_| DateTimeParser::new().parse_timestamp(text))
        .ok()?;
    u64::try_from(timestamp.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sunday, 22 November 2026, 12:40:05 UTC.
    const NOW_MS: u64 = 1_795_351_205_000;
    const HOUR_MS: u64 = 3_600_000;

    fn read_times(header: &str) -> Result<(Option<u64>, Option<u64>), TimesError> {
        let times = times(header.as_bytes(), NOW_MS)?;
        let hours = |at_ms: u64| (at_ms - NOW_MS) / HOUR_MS;
        Ok((times.not_before_ms.map(hours), times.expires_ms.map(hours)))
    }

    #[test]
    fn dates_and_durations_say_when() {
        for (value, hours) in [
            ("2h", 2),
            (" 1d ", 24),
            ("\r\n 90m", 1),
            ("Sun, 22 Nov 2026 17:40:05 +0100", 4),
            ("22 Nov 2026 15:40:05 GMT", 3),
            ("2026-11-22T15:40:05Z", 3),
            ("2026-11-22T15:40:05+02:00", 1),
        ] {
            let header = format!("From: a@b\r\nx-staffetta-not-before:{value}\r\nSubject: s\r\n");
            assert_eq!(read_times(&header), Ok((Some(hours), None)), "{value}");
            let header = format!("X-Staffetta-Expires:{value}\r\n");
            assert_eq!(read_times(&header), Ok((None, Some(hours))), "{value}");
        }
        let both = "X-Staffetta-Not-Before: 20d\r\nX-Staffetta-Expires: 45d\r\n";
        assert_eq!(read_times(both), Ok((Some(480), Some(1080))));
        assert_eq!(read_times("Subject: s\r\n"), Ok((None, None)));
    }

    #[test]
    fn a_time_to_send_that_is_over_means_at_once() {
        for value in ["0", "2020-01-01T00:00:00Z"] {
            let header = format!("X-Staffetta-Not-Before: {value}\r\n");
            assert_eq!(read_times(&header), Ok((None, None)));
        }
    }

    #[test]
    fn times_that_can_not_be_kept_are_refused() {
        use TimesError::{Expired, Repeated, TooFar, Unreadable};
        let long = format!("X-Staffetta-Expires: {}1h\r\n", " ".repeat(200));
        for (header, error) in [
            ("X-Staffetta-Not-Before: soon\r\n", Unreadable(NOT_BEFORE)),
            ("X-Staffetta-Expires:\r\n", Unreadable(EXPIRES)),
            ("X-Staffetta-Expires: -1h\r\n", Unreadable(EXPIRES)),
            (
                "X-Staffetta-Expires: 1960-01-01T00:00:00Z\r\n",
                Unreadable(EXPIRES),
            ),
            (&*long, Unreadable(EXPIRES)),
            ("X-Staffetta-Not-Before: 31d\r\n", TooFar(NOT_BEFORE)),
            ("X-Staffetta-Expires: 31d\r\n", TooFar(EXPIRES)),
            ("X-Staffetta-Expires: 2020-01-01T00:00:00Z\r\n", Expired),
            (
                "X-Staffetta-Expires: 1h\r\nX-Staffetta-Not-Before: 1h\r\n",
                Expired,
            ),
            (
                "X-Staffetta-Expires: 1h\r\nX-Staffetta-Expires: 2h\r\n",
                Repeated(EXPIRES),
            ),
        ] {
            assert_eq!(read_times(header), Err(error), "{header}");
        }
    }

    #[test]
    fn the_later_of_two_times_to_send_holds() {
        let times = Times {
            not_before_ms: Some(10),
            expires_ms: Some(20),
        };
        for (at_ms, not_before_ms) in [(0, 10), (9, 10), (11, 11)] {
            let released = times.released_at(at_ms).unwrap();
            assert_eq!(released.not_before_ms, Some(not_before_ms));
        }
        assert_eq!(times.released_at(20), Err(TimesError::Expired));
        assert_eq!(Times::default().released_at(0), Ok(Times::default()));
    }

    proptest! {
        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..120), now_ms in any::<u64>()) {
            let header = [b"X-Staffetta-Expires:".as_slice(), &value, b"\r\n"].concat();
            if let Ok(times) = times(&header, now_ms) {
                prop_assert!(times.expires_ms.is_none_or(|at_ms| at_ms > now_ms));
            }
        }
    }
}
