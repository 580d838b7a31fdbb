//! How far the reports are: a value of the mark `tls-reports`.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};
use tlsrpt::Day;

/// Format of the values that this release writes.
const FORMAT: u64 = 1;
/// Domains that are asked about again.
const MOST_UNANSWERED: usize = 1_000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The day that is worked on, or was last.
    day: Day,
    is_done: bool,
    /// Of that day: domains up to this one have their report, other than the unanswered.
    pub(super) after: String,
    /// Domains up to there about which the DNS did not answer.
    pub(super) unanswered: BTreeSet<String>,
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
            unanswered: field("unanswered")
                .and_then(Value::as_array)
                .map(|names| names.iter().filter_map(Value::as_str))
                .map(|names| names.take(MOST_UNANSWERED).map(str::to_owned).collect())
                .unwrap_or_default(),
            from: number("from"),
        }
    }

    pub(super) fn written(&self) -> Bytes {
        let value = json!({
            "format": FORMAT,
            "day": self.day.0,
            "done": self.is_done,
            "after": self.after,
            "unanswered": self.unanswered,
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
            unanswered: BTreeSet::new(),
            from,
        }
    }

    /// A domain has its report, or is asked about again; false where too many are.
    pub(super) fn pass(&mut self, domain: &str, is_answered: bool) -> bool {
        if is_answered {
            self.unanswered.remove(domain);
        } else if !self.unanswered.contains(domain) {
            if self.unanswered.len() >= MOST_UNANSWERED {
                return false;
            }
            self.unanswered.insert(domain.to_owned());
        }
        if *domain > *self.after {
            domain.clone_into(&mut self.after);
        }
        true
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
            unanswered: BTreeSet::new(),
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
        assert!(begun.pass("d.example", false) && begun.pass("m.example", true));
        let again = Progress::read(Some(&begun.written()));
        assert_eq!(again, begun);
        let mut again = again.begin(day);
        assert_eq!(again.after, "m.example");
        // Those after one that is to be asked about again are not done again.
        assert!(again.pass("d.example", false) && again.pass("p.example", true));
        assert_eq!(again.unanswered, BTreeSet::from(["d.example".to_owned()]));
        assert!(again.pass("d.example", true) && again.unanswered.is_empty());
        assert_eq!(again.after, "p.example");
        for number in 0..MOST_UNANSWERED {
            assert!(again.pass(&format!("q{number:04}.example"), false));
        }
        assert!(!again.pass("r.example", false) && &*again.after < "r.example");
        let done = Progress::done(day, 17);
        assert!(done.is_done(day) && done.is_done(day.before()) && !done.is_done(day.after()));
        let next = Progress::read(Some(&done.written())).begin(day.after());
        assert_eq!((next.after.as_str(), next.from), ("", 17));
        assert!(next.is_under_way(day.after()) && next.is_done(day));
    }
}
