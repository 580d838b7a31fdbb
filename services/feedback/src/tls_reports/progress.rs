//! How far the reports are: a value of the mark `tls-reports`.

use bytes::Bytes;
use serde_json::{Value, json};
use tlsrpt::Day;

/// Format of the values that this release writes.
const FORMAT: u64 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The day that is worked on, or was last.
    day: Day,
    is_done: bool,
    /// Of that day: domains up to this one have their report.
    pub(super) after: String,
    /// Sequence in the stream `EVENTS` from which is read.
    pub(super) from: u64,
}

impl Progress {
    /// As it was written; where nothing was, or something that can't be read, nothing is done.
    pub(super) fn read(value: Option<&[u8]>) -> Self {
        let written = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let field = |name: &str| written.as_ref().and_then(|value| value.get(name));
        let number = |name: &str| field(name).and_then(Value::as_u64).unwrap_or(0);
        Self {
            day: Day(number("day")),
            is_done: field("done").and_then(Value::as_bool).unwrap_or(false),
            after: field("after")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            from: number("from"),
        }
    }

    pub(super) fn written(&self) -> Bytes {
        let value = json!({
            "format": FORMAT,
            "day": self.day.0,
            "done": self.is_done,
            "after": self.after,
            "from": self.from,
        });
        Bytes::from(value.to_string())
    }

    /// A day is over.
    pub(super) fn done(day: Day, from: u64) -> Self {
        Self {
            day,
            is_done: true,
            after: String::new(),
            from,
        }
    }

    /// The day has its reports, or a later one has.
    pub(super) fn is_done(&self, day: Day) -> bool {
        self.day > day || self.day == day && self.is_done
    }

    /// Somebody has begun with the day.
    pub(super) fn is_under_way(&self, day: Day) -> bool {
        self.day == day && !self.is_done
    }

    /// Goes on with the day, or begins it. One that nobody ended is left behind.
    pub(super) fn begin(self, day: Day) -> Self {
        if self.day == day {
            return self;
        }
        Self {
            day,
            is_done: false,
            after: String::new(),
            from: self.from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_where_another_has_ended_and_begins_each_day_anew() {
        let day = Day(20_000);
        let none = Progress::read(None);
        assert!(!none.is_done(day) && !none.is_under_way(day));
        assert_eq!(Progress::read(Some(b"what?")), none);
        let mut begun = none.begin(day);
        assert!(!begun.is_done(day) && begun.is_under_way(day));
        begun.after = "m.example".into();
        let again = Progress::read(Some(&begun.written()));
        assert_eq!(again, begun);
        assert_eq!(again.begin(day).after, "m.example");
        let done = Progress::done(day, 17);
        assert!(done.is_done(day) && done.is_done(day.before()) && !done.is_done(day.after()));
        let next = Progress::read(Some(&done.written())).begin(day.after());
        assert_eq!((next.after.as_str(), next.from), ("", 17));
        assert!(next.is_under_way(day.after()) && next.is_done(day));
    }
}
