//! What a source may do at a host, or at all hosts of a provider, counted where it is seen: there.

use std::collections::VecDeque;

use super::hosts::MINUTE_MS;
use super::*;

/// What is known of a source.
#[derive(Default)]
struct Counts {
    /// Open connections; of those whose scheduler is lost, from when they are not to be counted: when it is long gone
    /// nobody knows of them, and their replies may come late.
    open: BTreeMap<u64, Option<u64>>,
    /// When MAIL and dots came, as long as any window counts them.
    mails: VecDeque<u64>,
    dots: VecDeque<u64>,
}

/// Connections and rates for each source.
pub(super) struct Limit {
    /// The second part of its name in Redis.
    name: String,
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
    pub(super) fn check_connections(&self, now: u64, source: &Arc<str>) {
        let (name, most) = (&self.name, self.connections as usize);
        let none = BTreeMap::new();
        let open = self.from.get(source).map_or(&none, |counts| &counts.open);
        let counts = |until: &&Option<u64>| until.is_none_or(|until| now < until);
        assert!(
            open.values().filter(counts).count() < most,
            "at {now} a connection from {source} to {name} too many: {most} are open already: {open:?}"
        );
    }

    pub(super) fn opened(&mut self, source: &Arc<str>, number: u64) {
        self.of(source).open.insert(number, None);
    }

    pub(super) fn closed(&mut self, source: &Arc<str>, number: u64) {
        let closed = self.of(source).open.remove(&number);
        closed.expect("it was open");
    }

    /// A connection counts until then, or less long when that was said before.
    pub(super) fn orphan(&mut self, source: &Arc<str>, number: u64, until: u64) {
        let counts = self.of(source).open.get_mut(&number);
        let counts = counts.expect("it is open");
        *counts = Some(counts.map_or(until, |before| before.min(until)));
    }

    /// MAIL, or a dot. More than a rate are a fault of the relay, but for what [`Beside`] says.
    pub(super) fn count(&mut self, now: u64, source: &Arc<str>, seen: Seen, beside: &Beside) {
        let key = self.key(source);
        let counts = self.from.entry(source.clone()).or_default();
        let times = match seen {
            Seen::Mail => &mut counts.mails,
            Seen::Dot => &mut counts.dots,
        };
        times.push_back(now);
        let longest = self.windows.iter().map(|(_, per_ms)| *per_ms);
        let longest = longest.max().unwrap_or(0);
        while times.front().is_some_and(|at| at + longest <= now) {
            times.pop_front();
        }
        for (limit, per_ms) in &self.windows {
            let within = times.iter().filter(|at| **at + per_ms > now).count();
            let beside = beside.shares(&format!("{key}|m{per_ms}"), now);
            assert!(
                within <= limit + beside,
                "at {now} {seen:?} of {key} is number {within} within {per_ms} ms, of {limit} and {beside}"
            );
        }
    }

    pub(super) fn shortest_window(&self) -> Option<u64> {
        self.windows.iter().map(|(_, per_ms)| *per_ms).min()
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
