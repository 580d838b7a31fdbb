//! Units of configuration: durations, sizes, rates. Each has one written form, which `Display`
//! prints and `FromStr` reads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The text is not in the written form of the unit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{expected} is expected")]
pub struct UnitError {
    expected: &'static str,
}

const SPAN_FORM: UnitError = UnitError {
    expected: "a duration such as 500ms, 30s, 5m, 4h or 5d",
};
const SIZE_FORM: UnitError = UnitError {
    expected: "a size such as 512B, 64KiB, 25MiB or 20GiB",
};
const RATE_FORM: UnitError = UnitError {
    expected: "a rate such as 100/s, 600/m, 5000/h or 20000/d",
};

/// A duration in whole milliseconds, written `500ms`, `30s`, `5m`, `4h` or `5d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    milliseconds: u64,
}

const SPAN_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    /// Of this many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self { milliseconds }
    }

    /// Of this many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1_000))
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.milliseconds
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.duration()
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let milliseconds = read_scaled(text, &SPAN_UNITS).ok_or(SPAN_FORM)?;
        Ok(Self { milliseconds })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.milliseconds, &SPAN_UNITS, "s")
    }
}

/// A number of octets, written `512B`, `64KiB`, `25MiB`, `20GiB` or `2TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize {
    bytes: u64,
}

const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl ByteSize {
    /// Of this many octets.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// Of this many MiB.
    pub const fn from_mib(mebibytes: u64) -> Self {
        Self::from_bytes(mebibytes << 20)
    }

    /// In octets.
    pub const fn as_u64(self) -> u64 {
        self.bytes
    }

    /// In octets; what does not fit is the largest number that does.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bytes = read_scaled(text, &SIZE_UNITS).ok_or(SIZE_FORM)?;
        Ok(Self { bytes })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.bytes, &SIZE_UNITS, "B")
    }
}

/// At most `count` in any window of the length `per`, written `100/s`, `600/m`, `5000/h` or `20000/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// At least 1.
    count: u32,
    /// One second, minute, hour or day.
    per: Duration,
}

const RATE_UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

impl Rate {
    /// How many in one window; at least 1.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The length of the window.
    pub const fn per(self) -> Duration {
        self.per
    }

    /// `count` in a second; 0 is taken as 1.
    pub const fn per_second(count: u32) -> Self {
        Self {
            count: if count == 0 { 1 } else { count },
            per: Duration::from_secs(1),
        }
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = text.split_once('/').ok_or(RATE_FORM)?;
        let count = read_digits(count)
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
            .ok_or(RATE_FORM)?;
        let (_, seconds) = RATE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(RATE_FORM)?;
        Ok(Self {
            count,
            per: Duration::from_secs(*seconds),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS
            .iter()
            .find(|(_, seconds)| *seconds == self.per.as_secs())
            .map_or("s", |(name, _)| *name);
        write!(f, "{}/{unit}", self.count)
    }
}

/// Digits only: no sign, no blank.
fn read_digits(text: &str) -> Option<u64> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only { text.parse().ok() } else { None }
}

/// Reads `<digits><unit>`; a bare `0` needs no unit.
fn read_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    read_digits(digits)?.checked_mul(*factor)
}

/// Writes with the largest unit that divides the value.
fn write_scaled(
    f: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(&str, u64)],
    unit_of_zero: &str,
) -> fmt::Result {
    if value == 0 {
        return write!(f, "0{unit_of_zero}");
    }
    for (name, factor) in units {
        if value.is_multiple_of(*factor) {
            return write!(f, "{}{name}", value / factor);
        }
    }
    write!(f, "{value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_written_forms() {
        assert_eq!("500ms".parse(), Ok(Span::from_millis(500)));
        assert_eq!("30s".parse(), Ok(Span::from_secs(30)));
        assert_eq!("5m".parse(), Ok(Span::from_secs(300)));
        assert_eq!("5d".parse(), Ok(Span::from_secs(432_000)));
        assert_eq!("0".parse(), Ok(Span::from_secs(0)));
        assert_eq!("25MiB".parse(), Ok(ByteSize::from_bytes(26_214_400)));
        assert_eq!("7B".parse(), Ok(ByteSize::from_bytes(7)));
        assert_eq!("100/s".parse(), Ok(Rate::per_second(100)));
        let hourly: Rate = "5000/h".parse().unwrap();
        assert_eq!(
            (hourly.count(), hourly.per()),
            (5000, Duration::from_secs(3600))
        );
    }

    #[test]
    fn refuses_other_forms_and_says_which_are_expected() {
        for text in [
            "",
            "5",
            "m",
            "-5m",
            "+5m",
            "5 m",
            "5min",
            "5M",
            "1h30m",
            "99999999999999d",
        ] {
            assert_eq!(text.parse::<Span>(), Err(SPAN_FORM), "{text}");
        }
        for text in ["", "25", "25MB", "25mib", "-1B", "99999999999TiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(SIZE_FORM), "{text}");
        }
        for text in [
            "",
            "100",
            "0/s",
            "100/",
            "100/w",
            "/s",
            "-1/s",
            "1.5/s",
            "4294967296/s",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(RATE_FORM), "{text}");
        }
        assert_eq!(
            SPAN_FORM.to_string(),
            "a duration such as 500ms, 30s, 5m, 4h or 5d is expected"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any::<u64>(), count in 1_u32.., unit in 0_usize..4) {
            let span = Span::from_millis(value);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let size = ByteSize::from_bytes(value);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let rate = Rate { count, per: Duration::from_secs(RATE_UNITS[unit].1) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
