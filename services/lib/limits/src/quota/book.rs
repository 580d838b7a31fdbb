//! What this process has charged itself: what its share is measured by when Redis is away, and what Redis is told
//! when it is back.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

use super::{Scope, WindowLimit};

/// Most scopes that are remembered.
const MOST_SCOPES: usize = 100_000;

/// Uses in one window, in buckets of 1/128 of it; of a calendar month, in one.
#[derive(Debug, Clone)]
struct Counts {
    /// Milliseconds; 0 is the calendar month.
    length: u64,
    entries: VecDeque<(u64, u64)>,
}

impl Counts {
    fn new(length: u64) -> Self {
        Self {
            length,
            entries: VecDeque::new(),
        }
    }

    /// As the script has it: at the end of a bucket, so never too early.
    fn bucket(&self, at_ms: u64) -> u64 {
        if self.length == 0 {
            return month(at_ms);
        }
        at_ms.next_multiple_of((self.length / 128).max(1))
    }

    fn add(&mut self, at_ms: u64, uses: u64) {
        let bucket = self.bucket(at_ms);
        let behind = self.entries.partition_point(|(at, _)| *at < bucket);
        match self.entries.get_mut(behind) {
            Some((at, counted)) if *at == bucket => *counted += uses,
            _ => self.entries.insert(behind, (bucket, uses)),
        }
    }

    fn remove(&mut self, at_ms: u64, uses: u64) {
        let bucket = self.bucket(at_ms);
        if let Some((_, counted)) = self.entries.iter_mut().find(|(at, _)| *at == bucket) {
            *counted = counted.saturating_sub(uses);
        }
    }

    fn forget(&mut self, now_ms: u64) {
        let (length, this_month) = (self.length, month(now_ms));
        self.entries.retain(|(at, uses)| {
            *uses > 0
                && if length == 0 {
                    *at == this_month
                } else {
                    at.saturating_add(length) > now_ms
                }
        });
    }

    /// When `uses` more fit under `limit`, at `now_ms` or later; `None` = never, or not in this month.
    fn fits_at(&self, uses: u64, limit: u64, now_ms: u64) -> Option<u64> {
        if uses > limit {
            return None;
        }
        let mut counted: u64 = self.entries.iter().map(|(_, uses)| uses).sum();
        if self.length == 0 {
            return (counted.saturating_add(uses) <= limit).then_some(now_ms);
        }
        let mut at = now_ms;
        for (bucket, entry) in &self.entries {
            if counted.saturating_add(uses) <= limit {
                break;
            }
            at = at.max(bucket.saturating_add(self.length));
            counted -= entry;
        }
        Some(at)
    }
}

/// One scope.
#[derive(Debug, Default)]
struct Ledger {
    /// All charges of this process.
    own: Vec<Counts>,
    /// Those that Redis has not been told, nor has refused to hear.
    outside: Vec<Counts>,
    /// A report that is under way, until it was answered.
    report: Option<(u64, Vec<Counts>)>,
    /// The memory of Redis that knows all of this but `outside` and `report`.
    epoch: Option<u64>,
    /// For reports of the scope without anything to charge.
    group: Box<str>,
    windows: Vec<WindowLimit>,
}

/// All scopes of this process.
#[derive(Debug, Default)]
pub(super) struct Book {
    ledgers: HashMap<String, Ledger>,
    /// Numbers of reports, of all scopes: a scope that was forgotten goes on with a higher one.
    reports: u64,
}

/// What a script is told of one scope.
pub(super) struct Told {
    pub json: String,
    /// 0 = there is no report in it.
    pub report: u64,
}

impl Book {
    /// For a script that runs in the memory `epoch`.
    pub fn tell(&mut self, group: &str, scope: &Scope, epoch: u64, now_ms: u64) -> Told {
        self.reports += 1;
        let number = self.reports;
        let Some(ledger) = self.ledger(group, scope) else {
            return Told {
                json: json(&scope.windows, 0, &[]),
                report: 0,
            };
        };
        ledger.forget(now_ms);
        if ledger.epoch != Some(epoch) {
            // Everything anew: that memory knows nothing of us.
            ledger.epoch = Some(epoch);
            ledger.outside.clear();
            ledger.report = Some((number, ledger.own.clone()));
        } else if ledger.report.is_none() && !ledger.outside.is_empty() {
            ledger.report = Some((number, std::mem::take(&mut ledger.outside)));
        }
        match &ledger.report {
            Some((number, counts)) => Told {
                json: json(&scope.windows, *number, counts),
                report: *number,
            },
            None => Told {
                json: json(&scope.windows, 0, &[]),
                report: 0,
            },
        }
    }

    /// The script has run: the report is known there.
    pub fn told(&mut self, key: &str, report: u64) {
        if let Some(ledger) = self.ledgers.get_mut(key)
            && ledger
                .report
                .as_ref()
                .is_some_and(|(sent, _)| *sent == report)
        {
            ledger.report = None;
        }
    }

    /// Charged in Redis, or perhaps: it is not reported to the same memory again.
    pub fn charged(&mut self, group: &str, scope: &Scope, at_ms: u64, uses: u64) {
        if let Some(ledger) = self.ledger(group, scope) {
            add(&mut ledger.own, &scope.windows, at_ms, uses);
        }
    }

    /// Charges without Redis when every scope has room for it in this process's share, which is the limit divided
    /// by `replicas`. `unsure`: it may have been charged in Redis already. `Err` says when it would fit.
    pub fn charge_alone(
        &mut self,
        group: &str,
        scopes: &[Scope],
        uses: u64,
        replicas: u32,
        now_ms: u64,
        unsure: bool,
    ) -> Result<(), Option<u64>> {
        let mut fits_at = Some(now_ms);
        for scope in scopes {
            let ledger = self.ledger(group, scope).ok_or(Some(now_ms + 1000))?;
            ledger.forget(now_ms);
            for window in &scope.windows {
                let share = (window.limit / u64::from(replicas.max(1))).max(1);
                let counts = ledger.own.iter().find(|c| c.length == window.length_ms);
                let at = match counts {
                    Some(counts) => counts.fits_at(uses, share, now_ms),
                    None => (uses <= share).then_some(now_ms),
                };
                fits_at = match (fits_at, at) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
        }
        if fits_at != Some(now_ms) {
            return Err(fits_at);
        }
        for scope in scopes {
            if let Some(ledger) = self.ledger(group, scope) {
                add(&mut ledger.own, &scope.windows, now_ms, uses);
                if !unsure {
                    add(&mut ledger.outside, &scope.windows, now_ms, uses);
                }
            }
        }
        Ok(())
    }

    /// What was charged at `at_ms` is not used.
    pub fn give_back(&mut self, key: &str, at_ms: u64, uses: u64, alone: bool) {
        let Some(ledger) = self.ledgers.get_mut(key) else {
            return;
        };
        for counts in &mut ledger.own {
            counts.remove(at_ms, uses);
        }
        if alone {
            for counts in &mut ledger.outside {
                counts.remove(at_ms, uses);
            }
        }
    }

    /// Scopes of which the memory that counts their group does not know all; forgets those of which there is nothing to
    /// know. Nothing is to be told where no memory is.
    pub fn untold(
        &mut self,
        epoch_of: impl Fn(&str) -> Option<u64>,
        now_ms: u64,
    ) -> Vec<(Box<str>, Scope)> {
        for ledger in self.ledgers.values_mut() {
            ledger.forget(now_ms);
        }
        self.ledgers
            .retain(|_, ledger| !ledger.own.is_empty() || ledger.has_news());
        self.ledgers
            .iter()
            .filter(|(_, ledger)| {
                epoch_of(&ledger.group)
                    .is_some_and(|epoch| ledger.epoch != Some(epoch) || ledger.has_news())
            })
            .map(|(key, ledger)| {
                let scope = Scope {
                    key: key.clone(),
                    windows: ledger.windows.clone(),
                };
                (ledger.group.clone(), scope)
            })
            .collect()
    }

    /// `None` when there are too many.
    fn ledger(&mut self, group: &str, scope: &Scope) -> Option<&mut Ledger> {
        if !self.ledgers.contains_key(&scope.key) {
            if self.ledgers.len() >= MOST_SCOPES {
                return None;
            }
            self.ledgers.insert(scope.key.clone(), Ledger::default());
        }
        let ledger = self.ledgers.get_mut(&scope.key)?;
        if ledger.windows != scope.windows {
            ledger.windows.clone_from(&scope.windows);
            ledger.group = group.into();
        }
        Some(ledger)
    }
}

impl Ledger {
    fn has_news(&self) -> bool {
        self.report.is_some() || !self.outside.is_empty()
    }

    fn forget(&mut self, now_ms: u64) {
        for list in [&mut self.own, &mut self.outside] {
            for counts in list.iter_mut() {
                counts.forget(now_ms);
            }
            list.retain(|counts| !counts.entries.is_empty());
        }
    }
}

fn add(list: &mut Vec<Counts>, windows: &[WindowLimit], at_ms: u64, uses: u64) {
    if uses == 0 {
        return;
    }
    for window in windows {
        let position = list
            .iter()
            .position(|counts| counts.length == window.length_ms);
        let position = position.unwrap_or_else(|| {
            list.push(Counts::new(window.length_ms));
            list.len() - 1
        });
        if let Some(counts) = list.get_mut(position) {
            counts.add(at_ms, uses);
        }
    }
}

/// Only numbers: nothing needs to be escaped.
fn json(windows: &[WindowLimit], report: u64, counts: &[Counts]) -> String {
    let mut text = String::with_capacity(64);
    let mut push = |part: std::fmt::Arguments<'_>| {
        text.write_fmt(part).expect("a string takes all text");
    };
    push(format_args!("{{\"w\":["));
    for (index, window) in windows.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        push(format_args!(
            "{comma}[{},{}]",
            window.length_ms, window.limit
        ));
    }
    push(format_args!("],\"s\":{report},\"r\":["));
    for (index, counts) in counts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        push(format_args!("{comma}[{},[", counts.length));
        for (index, (at, uses)) in counts.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            push(format_args!("{comma}[{at},{uses}]"));
        }
        push(format_args!("]]"));
    }
    push(format_args!("]}}"));
    text
}

/// Number of the calendar month (UTC): twelve times the year and the month from 0. By H. Hinnant's
/// `civil_from_days`.
pub(super) fn month(unix_ms: u64) -> u64 {
    let days = unix_ms / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let (year, month) = (era * 400 + year_of_era, from_march);
    // March is the month 0 of its year: January and February belong to the next.
    year * 12 + month + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(windows: &[(u64, u64)]) -> Scope {
        Scope {
            key: "credential/app".to_owned(),
            windows: windows
                .iter()
                .map(|(length_ms, limit)| WindowLimit {
                    length_ms: *length_ms,
                    limit: *limit,
                })
                .collect(),
        }
    }

    #[test]
    fn months_begin_on_their_first_day() {
        let day = 86_400_000;
        // 1970-01-01, 1970-02-01, 2024-02-29, 2024-03-01, 2026-12-31, 2027-01-01
        for (days, year, of_year) in [
            (0, 1970, 0),
            (31, 1970, 1),
            (19_782, 2024, 1),
            (19_783, 2024, 2),
            (20_818, 2026, 11),
            (20_819, 2027, 0),
        ] {
            assert_eq!(month(days * day), year * 12 + of_year, "{days}");
            assert_eq!(month(days * day + day - 1), year * 12 + of_year, "{days}");
        }
    }

    #[test]
    fn alone_the_share_holds_over_every_window() {
        let mut book = Book::default();
        let scopes = [scope(&[(1000, 20), (10_000, 60)])];
        let mut accepted: Vec<u64> = Vec::new();
        for now in (1_000_000..1_040_000).step_by(20) {
            match book.charge_alone("acme", &scopes, 1, 2, now, false) {
                Ok(()) => accepted.push(now),
                Err(at) => assert!(at.unwrap() > now),
            }
        }
        for (length, share) in [(1000, 10), (10_000, 30)] {
            for start in &accepted {
                let within = accepted
                    .iter()
                    .filter(|at| (*start..start + length).contains(at));
                assert!(within.count() <= share);
            }
        }
        assert!(accepted.len() >= 118, "{}", accepted.len());
    }

    #[test]
    fn what_was_charged_alone_is_told_once_and_everything_to_a_new_memory() {
        let mut book = Book::default();
        let scope = scope(&[(1000, 20)]);
        let scopes = [scope.clone()];
        book.charged("acme", &scope, 5_000, 3);
        let first = book.tell("acme", &scope, 7, 5_001);
        assert!(first.json.contains(",3]"), "{}", first.json);
        // Not answered: the same again.
        let again = book.tell("acme", &scope, 7, 5_002);
        assert_eq!((again.report, &again.json), (first.report, &first.json));
        book.told("credential/app", again.report);
        assert_eq!(book.tell("acme", &scope, 7, 5_003).report, 0);
        book.charge_alone("acme", &scopes, 2, 1, 5_100, false)
            .unwrap();
        book.charge_alone("acme", &scopes, 4, 1, 5_100, true)
            .unwrap();
        let next = book.tell("acme", &scope, 7, 5_101);
        assert!(next.json.ends_with("[[5103,2]]]]}"), "{}", next.json);
        book.told("credential/app", next.report);
        assert!(book.untold(|_| Some(7), 5_102).is_empty());
        assert_eq!(book.untold(|_| Some(8), 5_102).len(), 1);
        let anew = book.tell("acme", &scope, 8, 5_103);
        assert!(
            anew.json.contains(",3]") && anew.json.contains("[5103,6]"),
            "{}",
            anew.json
        );
        book.told("credential/app", anew.report);
        assert!(book.untold(|_| Some(8), 6_200).is_empty());
        assert!(book.ledgers.is_empty());
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let mut book = Book::default();
        let scopes = [scope(&[(1000, 2), (0, 2)])];
        book.charge_alone("acme", &scopes, 2, 1, 5_000, false)
            .unwrap();
        assert_eq!(
            book.charge_alone("acme", &scopes, 1, 1, 5_001, false),
            Err(None)
        );
        book.give_back("credential/app", 5_000, 1, true);
        book.charge_alone("acme", &scopes, 1, 1, 5_002, false)
            .unwrap();
    }
}
