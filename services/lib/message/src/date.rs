//! Dates as header fields carry them.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

/// The date-time of RFC 5322 section 3.3 in UTC, for Unix milliseconds. A time that has no such
/// text (beyond the year 9999) becomes the epoch.
pub fn date_text(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let mut text = String::with_capacity(32);
    DateTimePrinter::new()
        .print_zoned(&timestamp.to_zoned(TimeZone::UTC), &mut text)
        .expect("a time of the years 1970 to 9999 has an RFC 5322 text");
    text
}

/// The date-time of RFC 3339 in UTC, without a fraction of a second, for Unix milliseconds. A time that has no such text
/// becomes the epoch.
pub fn timestamp_text(unix_ms: u64) -> String {
    i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_day_the_time_and_a_numeric_zone() {
        assert_eq!(
            date_text(1_795_351_205_999),
            "Sun, 22 Nov 2026 12:40:05 +0000"
        );
        assert_eq!(date_text(0), "Thu, 1 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn survives_times_that_no_calendar_has() {
        assert_eq!(date_text(u64::MAX), date_text(0));
        assert_eq!(timestamp_text(u64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn writes_times_of_the_internet() {
        assert_eq!(timestamp_text(1_795_351_205_999), "2026-11-22T12:40:05Z");
    }
}
