//! Dates as header fields carry them.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

/// The date-time of RFC 5322 in UTC, for Unix milliseconds; the epoch for a time that has no such text.
pub(crate) fn date_text(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let mut text = String::with_capacity(32);
    DateTimePrinter::new()
        .print_zoned(
            &timestamp
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .to_zoned(TimeZone::UTC),
            &mut text,
        )
        .expect("a time of the years 1970 to 9999 has an RFC 5322 text");
    text
}
