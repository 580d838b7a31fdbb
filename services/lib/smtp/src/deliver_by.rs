//! `BY=` of MAIL: by when a message is wanted to be delivered (RFC 2852).

use std::fmt;

/// `by-time ";" by-mode [by-trace]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverBy {
    /// From now, −999,999,999 to 999,999,999; 0 and less: that time is over. More than 0 where it is to be returned.
    pub seconds: i32,
    /// What becomes of what is not delivered by then.
    pub mode: ByMode,
    /// `T`: the sender wants to be told of every host on the way.
    pub trace: bool,
}

/// What becomes of a message that is not delivered by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByMode {
    /// `R`: it is returned.
    Return,
    /// `N`: its sender is told, and it is tried on.
    Notify,
}

impl DeliverBy {
    /// Takes the value of `BY=`; `None` when it is not valid.
    pub fn parse(value: &str) -> Option<Self> {
        let (time, how) = value.split_once(';')?;
        let (sign, digits) = match time.strip_prefix(['-', '+']) {
            Some(digits) if time.starts_with('-') => (-1, digits),
            Some(digits) => (1, digits),
            None => (1, time),
        };
        let is_number =
            (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let number: i32 = is_number.then(|| digits.parse().ok()).flatten()?;
        let seconds = number.checked_mul(sign)?;
        let (mode, trace) = match how.to_ascii_uppercase().as_str() {
            "R" => (ByMode::Return, false),
            "N" => (ByMode::Notify, false),
            "RT" => (ByMode::Return, true),
            "NT" => (ByMode::Notify, true),
            _ => return None,
        };
        // Nothing can be returned because of a time that is over before it came.
        let possible = mode == ByMode::Notify || seconds > 0;
        possible.then_some(Self {
            seconds,
            mode,
            trace,
        })
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ByMode::Return => "R",
            ByMode::Notify => "N",
        };
        let trace = if self.trace { "T" } else { "" };
        write!(f, "{};{mode}{trace}", self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_time_and_what_becomes_of_the_message() {
        let by = |seconds, mode, trace| DeliverBy {
            seconds,
            mode,
            trace,
        };
        for (value, expected, written) in [
            ("120;N", by(120, ByMode::Notify, false), "120;N"),
            ("+1;r", by(1, ByMode::Return, false), "1;R"),
            (
                "-999999999;nT",
                by(-999_999_999, ByMode::Notify, true),
                "-999999999;NT",
            ),
            ("0;N", by(0, ByMode::Notify, false), "0;N"),
            (
                "999999999;RT",
                by(999_999_999, ByMode::Return, true),
                "999999999;RT",
            ),
        ] {
            let parsed = DeliverBy::parse(value);
            assert_eq!(parsed, Some(expected), "{value}");
            assert_eq!(expected.to_string(), written);
            assert_eq!(DeliverBy::parse(written), parsed);
        }
        for value in [
            "",
            ";",
            "1",
            "1;",
            ";N",
            "1;T",
            "1;NR",
            "1;NTT",
            "1 ;N",
            "1;N ",
            "--1;N",
            "+-1;N",
            "-;N",
            "1000000000;N",
            "0;R",
            "-1;R",
            "1,5;N",
            "1;N;T",
        ] {
            assert_eq!(DeliverBy::parse(value), None, "{value}");
        }
    }
}
