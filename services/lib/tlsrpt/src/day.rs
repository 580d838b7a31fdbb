//! Days, as reports have them.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

const DAY_MS: u64 = 86_400_000;

/// A day in UTC, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u64);

impl Day {
    /// That of a time in Unix milliseconds.
    pub fn of(unix_ms: u64) -> Self {
        Self(unix_ms / DAY_MS)
    }

    /// The day before.
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The day after.
    pub fn after(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its first moment, Unix milliseconds.
    pub fn start_ms(self) -> u64 {
        self.0.saturating_mul(DAY_MS)
    }

    /// Its last second, Unix milliseconds.
    pub fn last_second_ms(self) -> u64 {
        self.after().start_ms().saturating_sub(1_000)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", timestamp(self.start_ms()).strftime("%Y-%m-%d"))
    }
}

/// A time that has no text is the epoch.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    let timestamp = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The date-time of RFC 5322 in UTC.
pub(crate) fn date_text(unix_ms: u64) -> String {
    let mut text = String::with_capacity(32);
    let zoned = timestamp(unix_ms).to_zoned(TimeZone::UTC);
    // A year that has no such text: a field without a date is passed over.
    DateTimePrinter::new()
        .print_zoned(&zoned, &mut text)
        .unwrap_or_default();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_from_midnight_to_midnight_in_utc() {
        let day = Day::of(1_795_351_206_000);
        assert_eq!(day.to_string(), "2026-11-22");
        assert_eq!(Day::of(day.start_ms()), day);
        assert_eq!(Day::of(day.last_second_ms() + 999), day);
        assert_eq!(Day::of(day.last_second_ms() + 1_000), day.after());
        assert_eq!(day.after().before(), day);
        assert_eq!(
            timestamp(day.last_second_ms()).to_string(),
            "2026-11-22T23:59:59Z"
        );
        assert_eq!(Day(u64::MAX).to_string(), "1970-01-01");
    }
}
