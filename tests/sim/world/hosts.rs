//! The hosts of the sites: they count connections and messages from each source, and throttle, greylist and fail.

use std::collections::VecDeque;

use super::*;

/// Within this time a host counts messages of its own.
const MINUTE_MS: u64 = 60_000;

/// How long connections of a lost scheduler, or a lost stream, count, milliseconds (ADR 17: a lease of 20 s, less the time
/// until the sender sees that).
pub(super) const KNOWN_MS: u64 = 14_000;
/// Within this time of a return of Redis, or the beginning of a memory, all say what they have, and open no more than their
/// share, or nothing, milliseconds (ADR 17).
pub(super) const SPOKEN_MS: u64 = 6_000;
/// So long after its stream broke a use that is under way is dated, whatever becomes of it, milliseconds (ADR 22).
const UNSEEN_MS: u64 = 20_000;
/// Rates that hosts have.
const RATES: [&str; 6] = ["none", "none", "2/s", "10/s", "30/m", "3/s, 60/m"];

/// What is known of a source at a host.
#[derive(Default)]
struct Source {
    /// Open connections; of those whose scheduler is lost, from when they are not to be counted: when it is long gone
    /// nobody knows of them, and their replies may come late.
    open: BTreeMap<u64, Option<u64>>,
    /// When messages were taken, within the last minute.
    taken: VecDeque<u64>,
    /// When MAIL and dots came, as long as any window counts them.
    mails: VecDeque<u64>,
    dots: VecDeque<u64>,
}

/// A host.
pub(super) struct Host {
    /// What is configured for its lanes.
    pub(super) connections: u32,
    pub(super) messages_per_connection: u32,
    /// As it is configured, and read: so many messages within so many milliseconds.
    pub(super) rates: &'static str,
    windows: Vec<(usize, u64)>,
    /// What it takes from a source itself: connections, and messages in a minute.
    throttle: Option<(u32, usize)>,
    /// It turns down what it has not seen before.
    greylists: bool,
    seen: BTreeSet<(Arc<str>, Box<[u8]>)>,
    pub(super) down_until: u64,
    pub(super) unknown_until: u64,
    from: BTreeMap<Arc<str>, Source>,
}

/// What a host says instead of taking something.
pub(super) struct No(pub(super) u32);

impl Host {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let connections = [1, 1, 2, 3, 5, 8][rng.random_range(0..6)];
        let rates = RATES[rng.random_range(0..RATES.len())];
        let throttles = rng.random_range(0..3) == 0;
        Self {
            connections,
            messages_per_connection: [1, 3, 100][rng.random_range(0..3)],
            rates,
            windows: windows(rates),
            throttle: throttles
                .then(|| (rng.random_range(1..=connections), rng.random_range(5..40))),
            greylists: rng.random_range(0..4) == 0,
            seen: BTreeSet::new(),
            down_until: 0,
            unknown_until: 0,
            from: BTreeMap::new(),
        }
    }

    /// Somebody connects. More connections than the limit are a fault of the relay, whatever the host thinks of them.
    fn connect(
        &mut self,
        now: u64,
        source: &Arc<str>,
        number: u64,
        strict: bool,
    ) -> Result<(), No> {
        if now < self.down_until {
            return Err(No(0));
        }
        let from = self.from.entry(source.clone()).or_default();
        let counts = |until: &Option<u64>| until.is_none_or(|until| now < until);
        let open = from.open.values().filter(|until| counts(until)).count();
        assert!(
            !strict || open < self.connections as usize,
            "at {now} a connection from {source} too many: {} are open already: {:?}",
            self.connections,
            from.open
        );
        let takes = self
            .throttle
            .map_or(usize::MAX, |(connections, _)| connections as usize);
        if from.open.len() >= takes {
            return Err(No(421));
        }
        from.open.insert(number, None);
        Ok(())
    }

    /// MAIL FROM.
    fn message(&mut self, now: u64, source: &Arc<str>, id: &[u8]) -> Result<(), No> {
        let from = self.from.entry(source.clone()).or_default();
        while from.taken.front().is_some_and(|at| at + MINUTE_MS <= now) {
            from.taken.pop_front();
        }
        let takes = self.throttle.map_or(usize::MAX, |(_, messages)| messages);
        if from.taken.len() >= takes {
            return Err(No(421));
        }
        if self.greylists && self.seen.insert((source.clone(), id.into())) {
            return Err(No(451));
        }
        from.taken.push_back(now);
        Ok(())
    }
}

/// Counts what comes now. Gives the windows that have too much: how much, and of what.
fn count(
    times: &mut VecDeque<u64>,
    now: u64,
    windows: &[(usize, u64)],
) -> Vec<(usize, usize, u64)> {
    times.push_back(now);
    let longest = windows.iter().map(|(_, per_ms)| *per_ms).max().unwrap_or(0);
    while times.front().is_some_and(|at| at + longest <= now) {
        times.pop_front();
    }
    let within = |per_ms: u64| times.iter().filter(|at| **at + per_ms > now).count();
    let each = windows
        .iter()
        .map(|(limit, per_ms)| (within(*per_ms), *limit, *per_ms));
    each.filter(|(within, limit, _)| within > limit).collect()
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

impl World {
    fn host(&mut self, site: &str) -> &mut Host {
        let host = self.hosts.get_mut(site);
        host.expect("mail goes to sites that there are")
    }

    /// A sender opens a connection in a slot.
    pub(super) fn open(&mut self, sender: usize, slot: SlotKey) -> Result<(), No> {
        let lane = &self.senders[sender].lanes[&(slot.0, slot.1)];
        let (source, site) = (lane.source.clone(), lane.site.clone());
        self.numbers += 1;
        let (now, number, strict) = (self.now, self.numbers, self.is_strict);
        if let Err(no) = self.host(&site).connect(now, &source, number, strict) {
            self.throttled += u32::from(no.0 == 421);
            return Err(no);
        }
        let connection = Connection {
            number,
            source,
            site,
            state: Use::Busy,
            messages: 0,
            closes: false,
        };
        self.senders[sender].connections.insert(slot, connection);
        self.opened += 1;
        self.note(|| format!("sender {sender} opens {number} in {slot:?}"));
        Ok(())
    }

    /// A message begins over the connection of a slot.
    pub(super) fn mail(&mut self, sender: usize, slot: SlotKey, id: &[u8]) -> Result<(), No> {
        let now = self.now;
        let connection = self.senders[sender].connections.get_mut(&slot);
        let connection = connection.expect("a message needs a connection");
        connection.messages += 1;
        let (source, site) = (connection.source.clone(), connection.site.clone());
        let host = self.host(&site);
        let from = host.from.entry(source.clone()).or_default();
        let too_many = count(&mut from.mails, now, &host.windows);
        let said = host.message(now, &source, id);
        self.check_rates("MAIL", (&source, &site), &too_many);
        if let Err(no) = &said {
            self.throttled += u32::from(no.0 == 421);
        }
        said
    }

    /// The final dot of the message that is under way over a slot. Slow content is bounded by its MAIL only (ADR 22): a
    /// dot that follows later than the shortest window, or than the scheduler thinks possible when the stream is broken.
    pub(super) fn dot(&mut self, sender: usize, slot: SlotKey, mail_at: u64) {
        let (now, stream) = (self.now, self.streams[slot.0]);
        let connection = self.senders[sender].connections.get(&slot);
        let connection = connection.expect("a message needs a connection");
        let (source, site) = (connection.source.clone(), connection.site.clone());
        let host = self.host(&site);
        let shortest = host.windows.iter().map(|(_, per_ms)| *per_ms).min();
        let is_late = shortest.is_some_and(|shortest| now > mail_at + shortest);
        let is_lost = !stream.open && now > stream.cut_at + UNSEEN_MS;
        if !is_late && !is_lost {
            let from = host.from.entry(source.clone()).or_default();
            let too_many = count(&mut from.dots, now, &host.windows);
            self.check_rates("a dot", (&source, &site), &too_many);
        }
    }

    /// More than a rate is a fault of the relay, but for what [`Beside`] says.
    fn check_rates(
        &self,
        what: &str,
        (source, site): (&str, &str),
        too_many: &[(usize, usize, u64)],
    ) {
        for (within, limit, per_ms) in too_many {
            let key = format!("{source}|{site}|m{per_ms}");
            let beside = self.beside.shares(&key, self.now);
            assert!(
                *within <= limit + beside,
                "at {} {what} from {source} at {site} is number {within} within {per_ms} ms, of {limit} and {beside}",
                self.now
            );
        }
    }

    /// A connection is gone, at once.
    pub(super) fn cut_connection(&mut self, sender: usize, slot: SlotKey) {
        let Some(connection) = self.senders[sender].connections.remove(&slot) else {
            return;
        };
        let from = self.host(&connection.site).from.get_mut(&connection.source);
        from.expect("it was open").open.remove(&connection.number);
        self.note(|| format!("{} is gone", connection.number));
    }

    /// The connections of a stream count at the hosts until then, or less long when that was said before.
    pub(super) fn orphan(&mut self, stream: usize, until: u64) {
        let sender = &self.senders[self.streams[stream].sender];
        let of_stream = sender.connections.range((stream, 0, 0)..(stream + 1, 0, 0));
        for (_, connection) in of_stream {
            let host = self.hosts.get_mut(&*connection.site);
            let from = host.and_then(|host| host.from.get_mut(&connection.source));
            let counts = from.and_then(|from| from.open.get_mut(&connection.number));
            let counts = counts.expect("it is open");
            *counts = Some(counts.map_or(until, |before| before.min(until)));
        }
    }

    /// A scheduler is gone. What it opened while Redis was away, or did not say to a new memory yet, is known to
    /// nobody (ADR 17).
    pub(super) fn orphan_all(&mut self, node: usize, life: u64) {
        let known_ms = match self.has_heard_of_all() {
            true => KNOWN_MS,
            false => 0,
        };
        for stream in 0..self.streams.len() {
            if (self.streams[stream].node, self.streams[stream].life) == (node, life) {
                self.orphan(stream, self.now + known_ms);
            }
        }
    }

    /// Redis loses what it knew. Nobody tells it of the connections of schedulers that are gone, and nobody opens any
    /// in the first seconds (ADR 17).
    pub(super) fn forget_orphans(&mut self) {
        for stream in 0..self.streams.len() {
            let Stream { node, life, .. } = self.streams[stream];
            if self.nodes[node].life != life {
                self.orphan(stream, self.now + SPOKEN_MS);
            }
        }
    }

    /// A site cannot be reached, or its name not be resolved, for a while.
    pub(super) fn outage(&mut self) {
        let until = self.now + self.rng.random_range(1_000..60_000);
        let is_down = self.chance(60);
        let site = format!("mx.d{}.example", self.rng.random_range(0..SITES));
        let host = self.host(&site);
        match is_down {
            true => host.down_until = until,
            false => host.unknown_until = until,
        }
    }
}
