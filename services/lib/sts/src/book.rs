//! What is known of domains, and when to look again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::Domain;

use crate::policy::{Mode, Policy};

/// A record is looked at again after so long, and so is the lack of one.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// A policy is fetched again after a day, or half of its time, whatever its record says (RFC 8461 section 3.3).
const REFRESH: Duration = Duration::from_secs(24 * 3600);
/// Never more often than that.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// After a failure; doubled with each, up to [`LOOK_AGAIN`]. RFC 8461 section 3.3 asks for five minutes or longer.
const AFTER_FAILURE: Duration = Duration::from_secs(300);
/// A look that has not ended after so long was lost.
const LONGEST_LOOK: Duration = Duration::from_secs(300);
/// A policy of a domain to which nothing was sent for so long is not refreshed any more.
const WANTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Of an entry, beside the hosts of its policy, octets.
const ENTRY_WEIGHT: usize = 256;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Domains.
    pub domains: usize,
    /// Memory, about, octets.
    pub octets: usize,
}

/// What is known of many domains. Bounded: the quarter to which nothing was sent for the longest time goes when it is
/// full, and is looked up again when something is.
#[derive(Debug)]
pub struct Book {
    entries: HashMap<Domain, Entry>,
    octets: usize,
    bounds: Bounds,
}

#[derive(Debug)]
struct Entry {
    held: Option<Held>,
    /// What the last look came to, apart from a policy.
    standing: Standing,
    next: Instant,
    /// When the last look was over.
    looked: Instant,
    failures: u32,
    /// Since when somebody looks.
    looking: Option<Instant>,
    used: Instant,
}

#[derive(Debug)]
struct Held {
    policy: Arc<Policy>,
    id: Box<str>,
    fetched: Instant,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// There was no look yet, or none for long.
    Unknown,
    Absent,
    Unavailable,
}

/// What holds for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// This, in mode enforce or testing.
    Policy(Arc<Policy>),
    /// It has no policy, or one that says so.
    Absent,
    /// Whether it has one could not be found out lately.
    Unavailable,
    /// Somebody looks since then, for the first time.
    Awaited {
        /// When the look began.
        since: Instant,
    },
}

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is no record.
    NoRecord,
    /// The record names the policy that we have, and that is young enough.
    Unchanged,
    /// It was fetched.
    Policy {
        /// What the record called it.
        id: Box<str>,
        /// Itself.
        policy: Policy,
    },
    /// The record, or the policy that it speaks of, can't be had.
    Failed,
}

impl Book {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            entries: HashMap::new(),
            octets: 0,
            bounds,
        }
    }

    /// What holds for the domain, and whether the caller has to look: it then tells [`Book::found`].
    pub fn ask(&mut self, domain: &Domain, now: Instant) -> (Known, bool) {
        if !self.entries.contains_key(domain) {
            self.make_room(now);
            self.octets += ENTRY_WEIGHT;
            self.entries.insert(domain.clone(), Entry::new(now));
        }
        let entry = self
            .entries
            .get_mut(domain)
            .expect("it was there, or was put there");
        entry.used = now;
        let look = entry.begin_look(now);
        (entry.known(now), look)
    }

    /// Whether a policy that is called so must be fetched.
    pub fn needs_fetch(&self, domain: &Domain, id: &str, now: Instant) -> bool {
        let entry = self.entries.get(domain);
        let held = entry.and_then(|entry| entry.held.as_ref());
        held.is_none_or(|held| *held.id != *id || now >= held.refresh_at())
    }

    /// A look is over. True when it failed, and a policy that holds could not be refreshed.
    pub fn found(&mut self, domain: &Domain, finding: Finding, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(domain) else {
            // It had to make room meanwhile.
            return false;
        };
        self.octets -= entry.weight();
        entry.looking = None;
        let failed = finding == Finding::Failed;
        entry.take(finding, now);
        self.octets += entry.weight();
        failed && entry.is_serious(now)
    }

    /// No host fits the policy: perhaps there is a new one. It is looked for earlier (RFC 8461 section 5.1).
    pub fn doubt(&mut self, domain: &Domain) {
        if let Some(entry) = self.entries.get_mut(domain) {
            entry.next = entry.next.min(entry.looked + AFTER_FAILURE);
        }
    }

    /// Policies that are to be refreshed although nothing is sent, at most so many. The caller has to look.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<Domain> {
        let is_due = |entry: &Entry| {
            let held = entry.held.as_ref();
            held.is_some_and(|held| now < held.until && now >= held.refresh_at())
                && now < entry.used + WANTED_FOR
        };
        let due = self.entries.iter_mut().filter(|(_, entry)| is_due(entry));
        due.filter_map(|(domain, entry)| entry.begin_look(now).then(|| domain.clone()))
            .take(most)
            .collect()
    }

    /// Domains that it knows something of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < self.bounds.domains && self.octets < self.bounds.octets {
            return;
        }
        // What says nothing any more goes first.
        let mut used: Vec<(bool, Instant)> = self
            .entries
            .values()
            .map(|entry| (entry.is_serious(now), entry.used))
            .collect();
        let middle = used.len() / 4;
        if used.is_empty() {
            return;
        }
        let (_, oldest, _) = used.select_nth_unstable(middle);
        let oldest = *oldest;
        let octets = &mut self.octets;
        self.entries.retain(|_, entry| {
            let stays = (entry.is_serious(now), entry.used) > oldest;
            if !stays {
                *octets -= entry.weight();
            }
            stays
        });
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            held: None,
            standing: Standing::Unknown,
            next: now,
            looked: now,
            failures: 0,
            looking: None,
            used: now,
        }
    }

    fn begin_look(&mut self, now: Instant) -> bool {
        let is_looked_at = self.looking.is_some_and(|since| now < since + LONGEST_LOOK);
        let look = now >= self.next && !is_looked_at;
        if look {
            self.looking = Some(now);
        }
        look
    }

    /// What holds until a look is over.
    fn known(&self, now: Instant) -> Known {
        if let Some(held) = self.held.as_ref().filter(|held| now < held.until) {
            return match held.policy.mode {
                Mode::Enforce | Mode::Testing => Known::Policy(held.policy.clone()),
                Mode::None => Known::Absent,
            };
        }
        // What was found out so long ago says nothing of today.
        let standing = if now < self.next + LOOK_AGAIN {
            self.standing
        } else {
            Standing::Unknown
        };
        match (standing, self.looking) {
            (Standing::Absent, _) => Known::Absent,
            (Standing::Unknown, Some(since)) => Known::Awaited { since },
            (Standing::Unknown | Standing::Unavailable, _) => Known::Unavailable,
        }
    }

    fn take(&mut self, finding: Finding, now: Instant) {
        self.failures = match finding {
            Finding::Failed => self.failures.saturating_add(1),
            _ => 0,
        };
        self.looked = now;
        self.next = now + LOOK_AGAIN;
        match finding {
            // A policy holds for its time, even when its record is gone (RFC 8461 section 3.3): whoever could take away
            // the record could take away the policy.
            Finding::NoRecord => self.standing = Standing::Absent,
            Finding::Unchanged => {}
            Finding::Policy { id, policy } => {
                let held = Held {
                    until: now + policy.max_age,
                    policy: Arc::new(policy),
                    id,
                    fetched: now,
                };
                self.standing = Standing::Absent;
                self.next = self.next.min(held.refresh_at());
                self.held = Some(held);
            }
            Finding::Failed => {
                self.standing = Standing::Unavailable;
                let doubled = 1 << (self.failures - 1).min(8);
                self.next = now + (AFTER_FAILURE * doubled).min(LOOK_AGAIN);
            }
        }
        self.held = self.held.take().filter(|held| now < held.until);
    }

    /// A policy holds that says something.
    fn is_serious(&self, now: Instant) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| now < held.until && held.policy.mode != Mode::None)
    }

    fn weight(&self) -> usize {
        ENTRY_WEIGHT + self.held.as_ref().map_or(0, |held| held.policy.weight())
    }
}

impl Held {
    fn refresh_at(&self) -> Instant {
        let life = self.until - self.fetched;
        self.fetched + (life / 2).clamp(AT_MOST_EVERY, REFRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        domains: 1000,
        octets: 1 << 20,
    };

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn policy(mode: &str, max_age: u64) -> Policy {
        let text = format!("version: STSv1\nmode: {mode}\nmx: mx.a.example\nmax_age: {max_age}\n");
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn fetched(id: &str, mode: &str, max_age: u64) -> Finding {
        Finding::Policy {
            id: id.into(),
            policy: policy(mode, max_age),
        }
    }

    /// A book with one domain, and a clock.
    struct Desk {
        book: Book,
        domain: Domain,
        now: Instant,
    }

    impl Desk {
        fn new() -> Self {
            Self {
                book: Book::new(BOUNDS),
                domain: domain("a.example"),
                now: Instant::now(),
            }
        }

        fn pass(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        fn ask(&mut self) -> (Known, bool) {
            self.book.ask(&self.domain, self.now)
        }

        fn find(&mut self, finding: Finding) -> bool {
            self.book.found(&self.domain, finding, self.now)
        }

        fn holds(&mut self) -> bool {
            matches!(self.ask().0, Known::Policy(_))
        }
    }

    #[test]
    fn one_looks_and_the_others_wait() {
        let mut desk = Desk::new();
        let since = desk.now;
        assert_eq!(desk.ask(), (Known::Awaited { since }, true));
        assert_eq!(desk.pass(1).ask(), (Known::Awaited { since }, false));
        desk.find(fetched("1", "enforce", 86_400));
        let Known::Policy(held) = desk.ask().0 else {
            panic!("it was found");
        };
        assert_eq!(*held, policy("enforce", 86_400));
    }

    #[test]
    fn a_look_that_was_lost_is_done_again() {
        let mut desk = Desk::new();
        assert!(desk.ask().1);
        assert!(!desk.pass(299).ask().1);
        assert!(desk.pass(1).ask().1);
    }

    #[test]
    fn a_domain_without_policy_costs_a_look_an_hour_and_nobody_waits_for_the_next() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(Finding::NoRecord);
        assert_eq!(desk.ask(), (Known::Absent, false));
        assert_eq!(desk.pass(3599).ask(), (Known::Absent, false));
        assert_eq!(desk.pass(1).ask(), (Known::Absent, true));
        assert_eq!(desk.ask(), (Known::Absent, false));
    }

    #[test]
    fn what_was_found_out_long_ago_is_waited_for_again() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(Finding::NoRecord);
        desk.pass(7200);
        let since = desk.now;
        assert_eq!(desk.ask(), (Known::Awaited { since }, true));
    }

    #[test]
    fn a_policy_holds_for_its_time_whatever_becomes_of_its_record_and_its_server() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(fetched("1", "enforce", 100_000));
        for _ in 0..20 {
            desk.pass(3600).ask();
            assert!(desk.find(Finding::Failed), "somebody should hear of it");
            assert!(desk.holds());
            desk.find(Finding::NoRecord);
            assert!(desk.holds());
        }
        desk.pass(100_000 - 20 * 3600);
        let since = desk.now;
        assert_eq!(desk.ask(), (Known::Awaited { since }, true));
        desk.find(Finding::NoRecord);
        assert_eq!(desk.ask().0, Known::Absent);
    }

    #[test]
    fn a_new_id_is_fetched_and_so_is_an_old_policy() {
        let mut desk = Desk::new();
        let needs = |desk: &Desk, id| desk.book.needs_fetch(&desk.domain, id, desk.now);
        assert!(needs(&desk, "1"));
        desk.ask();
        desk.find(fetched("1", "enforce", 1_000_000));
        assert!(!needs(&desk, "1"));
        assert!(needs(&desk, "2"));
        assert!(!needs(desk.pass(86_399), "1"));
        assert!(needs(desk.pass(1), "1"));
        desk.find(fetched("2", "testing", 1_000));
        assert!(!needs(desk.pass(499), "2"));
        assert!(needs(desk.pass(1), "2"));
    }

    #[test]
    fn a_policy_that_is_refreshed_begins_anew_and_one_that_ends_it_ends_it() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(fetched("1", "enforce", 7200));
        assert!(!desk.pass(3599).ask().1);
        assert!(desk.pass(1).ask().1);
        desk.find(fetched("1", "enforce", 7200));
        assert!(desk.pass(7000).holds());
        desk.find(fetched("2", "none", 7200));
        assert_eq!(desk.ask().0, Known::Absent);
    }

    #[test]
    fn a_policy_that_no_host_fits_is_looked_at_again_soon() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(fetched("1", "enforce", 86_400));
        desk.book.doubt(&desk.domain);
        assert!(!desk.pass(299).ask().1);
        assert!(desk.pass(1).ask().1);
        desk.find(Finding::Unchanged);
        assert!(!desk.pass(3599).ask().1);
    }

    #[test]
    fn failures_are_looked_into_ever_more_rarely() {
        let mut desk = Desk::new();
        desk.ask();
        for seconds in [300, 600, 1200, 2400, 3600, 3600] {
            assert!(!desk.find(Finding::Failed), "there was nothing to lose");
            assert_eq!(desk.ask(), (Known::Unavailable, false));
            assert!(!desk.pass(seconds - 1).ask().1);
            assert_eq!(desk.pass(1).ask(), (Known::Unavailable, true));
        }
        desk.find(Finding::NoRecord);
        desk.pass(3600).ask();
        desk.find(Finding::Failed);
        assert!(desk.pass(300).ask().1);
    }

    #[test]
    fn policies_are_refreshed_although_nothing_is_sent_but_not_for_ever() {
        let mut desk = Desk::new();
        let two = domain("b.example");
        desk.book.ask(&two, desk.now);
        desk.book.found(&two, Finding::NoRecord, desk.now);
        desk.ask();
        desk.find(fetched("1", "enforce", 31_000_000));
        let due = |desk: &mut Desk| desk.book.due(desk.now, 10);
        assert_eq!(due(desk.pass(86_399)), []);
        assert_eq!(due(desk.pass(1)), [desk.domain.clone()]);
        assert_eq!(due(&mut desk), [], "somebody looks");
        desk.find(fetched("1", "enforce", 31_000_000));
        assert_eq!(due(desk.pass(86_400)).len(), 1);
        desk.find(fetched("1", "enforce", 31_000_000));
        assert_eq!(due(desk.pass(30 * 86_400)), []);
        assert!(desk.holds());
    }

    #[test]
    fn a_policy_that_holds_no_time_is_none() {
        let mut desk = Desk::new();
        desk.ask();
        desk.find(fetched("1", "enforce", 0));
        assert_eq!(desk.ask(), (Known::Absent, false));
        assert!(desk.pass(60).ask().1);
    }

    #[test]
    fn is_bounded_and_keeps_policies_and_what_is_used() {
        let bounds = Bounds {
            domains: 100,
            octets: 1 << 20,
        };
        let mut book = Book::new(bounds);
        let start = Instant::now();
        let named = |n: u64| domain(&format!("d{n}.example"));
        for n in 0..1000 {
            let now = start + Duration::from_millis(n);
            book.ask(&named(n), now);
            let finding = if n < 20 {
                fetched("1", "enforce", 86_400)
            } else {
                Finding::NoRecord
            };
            book.found(&named(n), finding, now);
            assert!(book.len() <= 100);
        }
        let now = start + Duration::from_millis(1000);
        for n in 0..20 {
            assert!(matches!(
                book.ask(&named(n), now),
                (Known::Policy(_), false)
            ));
        }
        assert_eq!(book.ask(&named(999), now), (Known::Absent, false));
        // Also when all are policies, and when it is memory that is short.
        let mut book = Book::new(Bounds {
            octets: 10 * ENTRY_WEIGHT,
            ..bounds
        });
        for n in 0..1000 {
            let now = start + Duration::from_millis(n);
            book.ask(&named(n), now);
            book.found(&named(n), fetched("1", "enforce", 86_400), now);
            assert!(book.octets <= 12 * ENTRY_WEIGHT, "{}", book.octets);
        }
        assert!(!book.is_empty());
        // What had to go meanwhile is not missed.
        assert!(!book.found(&named(0), Finding::Failed, start));
    }
}
