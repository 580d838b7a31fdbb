//! What a source may do at a host, or at all hosts of a provider, counted where it is seen: there.

use std::collections::VecDeque;

use super::hosts::MINUTE_MS;
use super::*;

/// What is known of a source.
#[derive(Default)]
struct Counts {
    open: BTreeMap<u64, Open>,
    /// When MAIL and dots came, as long as any window counts them.
    mails: VecDeque<u64>,
    dots: VecDeque<u64>,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    scheduler: String,
    at: u64,
    /// From when it is not to be counted: when its scheduler is long gone, or did not reach Redis for long, nobody knew
    /// of it, and its reply may come late.
    until: Option<u64>,
}

impl Open {
    /// Not when its lease is over, with which it was opened: a reply may come late while Redis is away. Nor when its
    /// scheduler alone does not reach Redis, and uses its share beside what others lease (ADR 17).
    fn counts(&self, now: u64, key: &str, redis: &Redis) -> bool {
        let lease_ends = redis.lease_ends(key, &self.scheduler);
        let is_over = lease_ends <= now;
        let is_alone = redis.has_heard_of_all(now);
        self.until.is_none_or(|until| now < until)
            && !(is_over && (self.at < lease_ends || is_alone))
    }
}

/// Connections and rates for each source.
pub(super) struct Limit {
    /// The second part of its name in Redis.
    pub(super) name: String,
    pub(super) connections: u32,
    /// As it is configured, and read: so many messages within so many milliseconds.
    pub(super) rates: &'static str,
    windows: Vec<(usize, u64)>,
    from: BTreeMap<Arc<str>, Counts>,
}

impl Limit {
    pub(super) fn new(name: String, connections: u32, rates: &'static str) -> Self {
        let windows = windows(rates);
        Self {
            name,
            connections,
            rates,
            windows,
            from: BTreeMap::new(),
        }
    }

    fn of(&mut self, source: &Arc<str>) -> &mut Counts {
        self.from.entry(source.clone()).or_default()
    }

    /// Its name in Redis.
    pub(super) fn key(&self, source: &str) -> String {
        format!("{source}|{}", self.name)
    }

    /// Connections of a source, those that nobody knows of as well.
    pub(super) fn open(&mut self, source: &Arc<str>) -> usize {
        self.of(source).open.len()
    }

    /// Somebody connects. More connections than the limit are a fault of the relay.
    pub(super) fn check_connections(&self, now: u64, source: &Arc<str>, redis: &Redis) {
        let (key, most) = (self.key(source), self.connections as usize);
        let none = BTreeMap::new();
        let open = self.from.get(source).map_or(&none, |counts| &counts.open);
        let counted = open.values().filter(|open| open.counts(now, &key, redis));
        assert!(
            counted.count() < most,
            "at {now} a connection of {key} too many: {most} are open already: {open:?}"
        );
    }

    pub(super) fn opened(&mut self, source: &Arc<str>, number: u64, at: u64, scheduler: &str) {
        let open = Open {
            scheduler: scheduler.to_owned(),
            at,
            until: None,
        };
        self.of(source).open.insert(number, open);
    }

    pub(super) fn closed(&mut self, source: &Arc<str>, number: u64) {
        let closed = self.of(source).open.remove(&number);
        closed.expect("it was open");
    }

    /// A connection counts until then, or less long when that was said before.
    pub(super) fn orphan(&mut self, source: &Arc<str>, number: u64, until: u64) {
        let open = self.of(source).open.get_mut(&number);
        let open = open.expect("it is open");
        open.until = Some(open.until.map_or(until, |before| before.min(until)));
    }

    /// The lease of a scheduler was over then.
    pub(super) fn lapsed(&mut self, source: &str, scheduler: &str, at: u64) {
        let of_source = self.from.get_mut(source).into_iter();
        let open = of_source.flat_map(|counts| counts.open.values_mut());
        for open in open.filter(|open| open.scheduler == scheduler && open.at < at) {
            open.until = Some(open.until.map_or(at, |before| before.min(at)));
        }
    }

    /// MAIL, or a dot. More than a rate are a fault of the relay, but for what [`Beside`] says.
    pub(super) fn count(&mut self, now: u64, source: &Arc<str>, seen: Seen, beside: &Beside) {
        let key = self.key(source);
        let longest = self.windows().max().unwrap_or(0);
        let counts = self.from.entry(source.clone()).or_default();
        let times = match seen {
            Seen::Mail => &mut counts.mails,
            Seen::Dot => &mut counts.dots,
        };
        times.push_back(now);
        while times.front().is_some_and(|at| at + longest <= now) {
            times.pop_front();
        }
        for (limit, per_ms) in &self.windows {
            let within = times.iter().filter(|at| **at + per_ms > now).count();
            let beside = beside.shares(&format!("{key}|m{per_ms}"), now);
            assert!(
                within <= limit + beside,
                "at {now} {seen:?} of {key} is number {within} within {per_ms} ms, of {limit} and {beside}: {times:?}"
            );
        }
    }

    pub(super) fn windows(&self) -> impl Iterator<Item = u64> {
        self.windows.iter().map(|(_, per_ms)| *per_ms)
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Mail,
    Dot,
}

/// Rates as they are configured.
fn windows(rates: &str) -> Vec<(usize, u64)> {
    let window = |rate: &str| {
        let (count, per) = rate.split_once('/').expect("a rate");
        let per_ms = if per == "s" { 1_000 } else { MINUTE_MS };
        (count.parse().expect("a number"), per_ms)
    };
    let rates = rates.split(", ").filter(|rate| *rate != "none");
    rates.map(window).collect()
}
