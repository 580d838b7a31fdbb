//! What was found about domains, and how far a pass is: the value of the mark `domain-checks`.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use records::{Finding, Topic, Verdict};
use serde_json::{Value, json};

/// Format of the values that this release writes.
const FORMAT: u64 = 1;
/// What is looked at.
pub(crate) const TOPICS: [Topic; 7] = [
    Topic::Spf,
    Topic::Dkim,
    Topic::Dmarc,
    Topic::ReturnPath,
    Topic::Names,
    Topic::MtaSts,
    Topic::TlsRpt,
];

/// Whether it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    Same,
    Changed,
}

/// What was found of each topic: 0, nothing to complain of; else a part of a hash of it.
type Found = [u32; TOPICS.len()];

/// Numbers of domains, with their pools, by topic and verdict (wrong, note, unknown).
pub(crate) type Counts = [[u32; 3]; TOPICS.len()];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    begun_ms: u64,
    ended_ms: u64,
    /// Of the pass that is under way: what comes up to this one is looked at.
    after: String,
    found: BTreeMap<String, Found>,
    /// Of the pass that is under way.
    counted: Counts,
    /// Of the last whole pass.
    pub(crate) shown: Counts,
}

/// How a domain with a pool is named here.
pub(super) fn name(domain: &str, pool: &str) -> String {
    format!("{domain} {pool}")
}

impl State {
    /// As it was written; where nothing was, or something that can't be read, nothing was ever looked at.
    pub fn read(value: Option<&[u8]>) -> Self {
        let written = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let Some(written) = written.filter(|value| value["format"] == FORMAT) else {
            return Self::default();
        };
        let number = |name: &str| written[name].as_u64().unwrap_or(0);
        let found = written["found"].as_object().into_iter().flatten();
        Self {
            begun_ms: number("begun"),
            ended_ms: number("ended"),
            after: written["after"].as_str().unwrap_or_default().to_owned(),
            found: found
                .filter_map(|(name, found)| Some((name.clone(), numbers(found)?)))
                .collect(),
            counted: counts(&written["counted"]),
            shown: counts(&written["shown"]),
        }
    }

    pub fn written(&self) -> Bytes {
        let value = json!({
            "format": FORMAT,
            "begun": self.begun_ms,
            "ended": self.ended_ms,
            "after": self.after,
            "found": self.found,
            "counted": self.counted,
            "shown": self.shown,
        });
        Bytes::from(value.to_string())
    }

    /// A pass is begun and not ended.
    pub fn is_under_way(&self) -> bool {
        self.ended_ms < self.begun_ms
    }

    /// A pass is under way, or it is time for the next one.
    pub fn is_due(&self, now_ms: u64, every_ms: u64) -> bool {
        self.is_under_way() || now_ms.saturating_sub(self.begun_ms) >= every_ms
    }

    /// Goes on with the pass, or begins one.
    pub fn begin(mut self, now_ms: u64) -> Self {
        if !self.is_under_way() {
            self.begun_ms = now_ms.max(self.ended_ms + 1);
            self.after.clear();
            self.counted = Counts::default();
        }
        self
    }

    /// The pass has come to its end.
    pub fn end(&mut self, now_ms: u64) {
        self.ended_ms = now_ms.max(self.begun_ms);
        self.after.clear();
        self.shown = std::mem::take(&mut self.counted);
    }

    /// When the last whole pass ended, Unix milliseconds; 0 = there was none.
    pub fn ended_ms(&self) -> u64 {
        self.ended_ms
    }

    /// Domains with their pools that something is known of.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Forgets what is not configured any more.
    pub fn keep_only(&mut self, pairs: &[(String, String)]) {
        let configured: BTreeSet<String> = pairs.iter().map(|(d, p)| name(d, p)).collect();
        self.found.retain(|name, _| configured.contains(name));
    }

    /// It was looked at in this pass.
    pub fn is_past(&self, name: &str) -> bool {
        !self.after.is_empty() && name <= self.after.as_str()
    }

    /// Notes what was found. Where the DNS did not answer it is as it was. What was never looked at is other than it was when
    /// there is something to complain of.
    pub fn note(&mut self, name: &str, findings: &[Finding]) -> Difference {
        let before = self.found.get(name).copied().unwrap_or_default();
        let mut now = Found::default();
        for (at, topic) in TOPICS.into_iter().enumerate() {
            let of_topic = || findings.iter().filter(|finding| finding.topic == topic);
            let has = |verdict| of_topic().any(|finding| finding.verdict == verdict);
            let verdicts = [Verdict::Wrong, Verdict::Note, Verdict::Unknown];
            if let Some(worst) = verdicts.into_iter().position(has) {
                self.counted[at][worst] = self.counted[at][worst].saturating_add(1);
            }
            now[at] = if has(Verdict::Unknown) {
                before[at]
            } else {
                hash(of_topic())
            };
        }
        name.clone_into(&mut self.after);
        self.found.insert(name.to_owned(), now);
        if now == before {
            Difference::Same
        } else {
            Difference::Changed
        }
    }
}

/// Of what is to complain of; how it is said does not matter.
fn hash<'a>(findings: impl Iterator<Item = &'a Finding>) -> u32 {
    let complaints: BTreeSet<String> = findings
        .filter(|finding| matches!(finding.verdict, Verdict::Wrong | Verdict::Note))
        .map(|finding| format!("{:?} {}\n", finding.verdict, finding.at))
        .collect();
    if complaints.is_empty() {
        return 0;
    }
    let text: String = complaints.into_iter().collect();
    let hash = digest(&SHA256, text.as_bytes());
    let first = hash.as_ref().iter().take(4);
    first
        .fold(0, |number, octet| number << 8 | u32::from(*octet))
        .max(1)
}

fn numbers<const N: usize>(value: &Value) -> Option<[u32; N]> {
    let numbers = value.as_array()?.iter();
    let numbers: Option<Vec<u32>> = numbers
        .map(|number| u32::try_from(number.as_u64()?).ok())
        .collect();
    numbers?.try_into().ok()
}

fn counts(value: &Value) -> Counts {
    let mut counts = Counts::default();
    for (at, of_topic) in counts.iter_mut().enumerate() {
        *of_topic = numbers(&value[at]).unwrap_or_default();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(topic: Topic, verdict: Verdict, what: &str) -> Finding {
        Finding {
            verdict,
            topic,
            at: "acme.example".into(),
            what: what.into(),
            publish: None,
        }
    }

    #[test]
    fn what_is_other_than_it_was_is_told_once_and_what_is_not_known_is_as_it_was() {
        use Difference::{Changed, Same};
        use Verdict::{Fine, Note, Unknown, Wrong};
        let mut state = State::default().begin(1_000);
        for (spf, dkim, difference) in [
            (Fine, Fine, Same),
            (Wrong, Fine, Changed),
            (Wrong, Fine, Same),
            (Unknown, Fine, Same),
            (Unknown, Note, Changed),
            (Wrong, Note, Same),
            (Fine, Note, Changed),
            (Fine, Fine, Changed),
            (Unknown, Unknown, Same),
        ] {
            let said = format!("{spf:?} {dkim:?}");
            let findings = [
                finding(Topic::Spf, spf, &said),
                finding(Topic::Dkim, dkim, &said),
            ];
            assert_eq!(
                state.note("acme.example bulk", &findings),
                difference,
                "{said}"
            );
            state = State::read(Some(&state.written()));
        }
        // What is wrong at first is told.
        let wrong = [finding(Topic::Names, Wrong, "")];
        assert_eq!(state.note("other.example bulk", &wrong), Changed);
        assert_eq!(state.len(), 2);
        state.keep_only(&[("other.example".into(), "bulk".into())]);
        assert_eq!(state.len(), 1);
        assert_eq!(state.counted[0], [3, 0, 3], "spf");
        assert_eq!(state.counted[4], [1, 0, 0], "names");
    }

    #[test]
    fn a_pass_goes_on_where_it_was_and_the_next_one_comes_in_its_time() {
        let none = State::read(Some(b"{}"));
        assert_eq!(none, State::default());
        assert!(none.is_due(10_000, 5_000) && !none.is_under_way());
        let mut state = none.begin(10_000);
        assert!(state.is_under_way() && state.is_due(10_000, 5_000));
        state.note("b.example bulk", &[finding(Topic::Spf, Verdict::Wrong, "")]);
        let mut state = State::read(Some(&state.written())).begin(20_000);
        assert!(state.is_past("a.example bulk") && state.is_past("b.example bulk"));
        assert!(!state.is_past("b.example fast") && !state.is_past("c.example bulk"));
        assert_eq!(state.shown, Counts::default());
        state.end(21_000);
        assert_eq!((state.shown[0], state.ended_ms()), ([1, 0, 0], 21_000));
        assert!(
            !state.is_under_way() && state.is_due(21_000, 5_000) && !state.is_due(14_000, 5_000)
        );
        let next = state.begin(22_000);
        assert!(next.is_under_way() && !next.is_past("a.example bulk"));
        assert_eq!(next.counted, Counts::default());
        assert_eq!(next.shown[0], [1, 0, 0]);
    }
}
