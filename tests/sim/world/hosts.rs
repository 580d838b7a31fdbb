//! The hosts of the sites: they count connections and messages from each source, and throttle, greylist and fail.

use std::collections::VecDeque;
use std::iter;

use super::limit::{Limit, Seen};
use super::*;

/// Within this time a host counts messages of its own.
pub(super) const MINUTE_MS: u64 = 60_000;

/// How long connections of a lost stream count, milliseconds (ADR 17: a lease of 20 s, less the time until the sender sees
/// that).
pub(super) const KNOWN_MS: u64 = 14_000;
/// Within this time of a return of Redis, or the beginning of a memory, all say what they have, and open no more than their
/// share, or nothing, milliseconds (ADR 17).
pub(super) const SPOKEN_MS: u64 = 6_000;
/// So long after its stream broke a use that is under way is dated, whatever becomes of it, milliseconds (ADR 22).
const UNSEEN_MS: u64 = 20_000;
/// Rates that hosts have.
pub(super) const RATES: [&str; 6] = ["none", "none", "2/s", "10/s", "30/m", "3/s, 60/m"];

/// A host.
pub(super) struct Host {
    /// What is configured for its lanes.
    pub(super) limit: Limit,
    pub(super) messages_per_connection: u32,
    /// It belongs to the provider.
    is_of_provider: bool,
    /// What it takes from a source itself: connections, and messages in a minute.
    throttle: Option<(u32, usize)>,
    /// It turns down what it has not seen before.
    greylists: bool,
    seen: BTreeSet<(Arc<str>, Box<[u8]>)>,
    pub(super) down_until: u64,
    pub(super) unknown_until: u64,
    /// When messages of each source were taken, within the last minute.
    taken: BTreeMap<Arc<str>, VecDeque<u64>>,
}

/// What a host says instead of taking something.
pub(super) struct No(pub(super) u32);

impl Host {
    pub(super) fn new(name: String, is_of_provider: bool, rng: &mut StdRng) -> Self {
        let connections = [1, 1, 2, 3, 5, 8][rng.random_range(0..6)];
        let rates = RATES[rng.random_range(0..RATES.len())];
        let throttles = rng.random_range(0..3) == 0;
        Self {
            limit: Limit::new(name, connections, rates),
            messages_per_connection: [1, 3, 100][rng.random_range(0..3)],
            is_of_provider,
            throttle: throttles
                .then(|| (rng.random_range(1..=connections), rng.random_range(5..40))),
            greylists: rng.random_range(0..4) == 0,
            seen: BTreeSet::new(),
            down_until: 0,
            unknown_until: 0,
            taken: BTreeMap::new(),
        }
    }

    /// Whether it takes one more connection, if anybody may open it.
    fn takes_connection(&mut self, source: &Arc<str>) -> bool {
        let open = self.limit.open(source);
        self.throttle.is_none_or(|(most, _)| open < most as usize)
    }

    /// MAIL FROM.
    fn message(&mut self, now: u64, source: &Arc<str>, id: &[u8]) -> Result<(), No> {
        let taken = self.taken.entry(source.clone()).or_default();
        while taken.front().is_some_and(|at| at + MINUTE_MS <= now) {
            taken.pop_front();
        }
        let takes = self.throttle.map_or(usize::MAX, |(_, messages)| messages);
        if taken.len() >= takes {
            return Err(No(421));
        }
        if self.greylists && self.seen.insert((source.clone(), id.into())) {
            return Err(No(451));
        }
        taken.push_back(now);
        Ok(())
    }
}

/// The limits that hold at a host: its own, and that of its provider.
fn limits_at<'a>(
    host: &'a mut Host,
    provider: &'a mut Limit,
) -> impl Iterator<Item = &'a mut Limit> {
    let provider = host.is_of_provider.then_some(provider);
    iter::once(&mut host.limit).chain(provider)
}

impl World {
    fn host(&mut self, site: &str) -> &mut Host {
        let host = self.hosts.get_mut(site);
        host.expect("mail goes to sites that there are")
    }

    /// What holds at a site, and what a killed scheduler may have sent on top of it.
    fn limits_at(&mut self, site: &str) -> (impl Iterator<Item = &mut Limit>, &Beside) {
        let host = self.hosts.get_mut(site);
        let host = host.expect("mail goes to sites that there are");
        (limits_at(host, &mut self.provider), &self.beside)
    }

    /// A sender opens a connection in a slot.
    pub(super) fn open(&mut self, sender: usize, slot: SlotKey) -> Result<(), No> {
        let lane = &self.senders[sender].lanes[&(slot.0, slot.1)];
        let Stream { node, life, .. } = self.streams[slot.0];
        let scheduler = scheduler_id(node, life);
        let (source, site) = (lane.source.clone(), lane.site.clone());
        self.numbers += 1;
        let (now, number) = (self.now, self.numbers);
        if now < self.host(&site).down_until {
            return Err(No(0));
        }
        let host = self.hosts.get_mut(&*site);
        let host = host.expect("mail goes to sites that there are");
        // Within that of the provider, that of a host is not leased.
        let is_within = host.is_of_provider && self.provider.connections <= host.limit.connections;
        for limit in limits_at(host, &mut self.provider).skip(usize::from(is_within)) {
            limit.check_connections(now, &source, &self.redis);
        }
        if !self.host(&site).takes_connection(&source) {
            self.throttled += 1;
            return Err(No(421));
        }
        for limit in self.limits_at(&site).0 {
            limit.opened(&source, number, now, &scheduler);
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
        let (limits, beside) = self.limits_at(&site);
        for limit in limits {
            limit.count(now, &source, Seen::Mail, beside);
        }
        let said = self.host(&site).message(now, &source, id);
        if let Err(no) = &said {
            self.throttled += u32::from(no.0 == 421);
        }
        said
    }

    /// The final dot of the message that is under way over a slot. Slow content is bounded by its MAIL only (ADR 22): a
    /// dot that follows later than the shortest window, or than the scheduler thinks possible when the stream is broken or the
    /// partition is not its own any more.
    pub(super) fn dot(&mut self, sender: usize, slot: SlotKey, partition: u32, mail_at: u64) {
        let (now, stream) = (self.now, self.streams[slot.0]);
        let connection = self.senders[sender].connections.get(&slot);
        let connection = connection.expect("a message needs a connection");
        let (source, site) = (connection.source.clone(), connection.site.clone());
        let dropped_at = self.dropped_at[partition as usize];
        let is_unseen = |since| now > since + UNSEEN_MS;
        let is_lost = (!stream.open && is_unseen(stream.cut_at))
            || (dropped_at > mail_at && is_unseen(dropped_at));
        let (number, mail_ago) = (connection.number, now - mail_at);
        self.note(|| format!("dot over {number}, {mail_ago} ms after MAIL, lost: {is_lost}"));
        let windows = self.limits_at(&site).0.flat_map(|limit| limit.windows());
        let shortest = windows.min();
        let is_late = shortest.is_some_and(|shortest| now > mail_at + shortest);
        let (limits, beside) = self.limits_at(&site);
        for limit in limits.filter(|_| !is_late && !is_lost) {
            limit.count(now, &source, Seen::Dot, beside);
        }
    }

    /// A connection is gone, at once.
    pub(super) fn cut_connection(&mut self, sender: usize, slot: SlotKey) {
        let Some(connection) = self.senders[sender].connections.remove(&slot) else {
            return;
        };
        for limit in self.limits_at(&connection.site).0 {
            limit.closed(&connection.source, connection.number);
        }
        self.note(|| format!("{} is gone", connection.number));
    }

    /// The connections of a stream count at the hosts until then, or less long when that was said before.
    pub(super) fn orphan(&mut self, stream: usize, until: u64) {
        let sender = &self.senders[self.streams[stream].sender];
        let of_stream = sender.connections.range((stream, 0, 0)..(stream + 1, 0, 0));
        for (_, connection) in of_stream {
            let host = self.hosts.get_mut(&*connection.site);
            let host = host.expect("mail goes to sites that there are");
            for limit in limits_at(host, &mut self.provider) {
                limit.orphan(&connection.source, connection.number, until);
            }
        }
    }

    /// A scheduler is gone, or stands still. What it opened while Redis was away, or did not say to a new memory yet, is
    /// known to nobody (ADR 17); the rest is until its lease ends.
    pub(super) fn orphan_all(&mut self, node: usize, life: u64) {
        if self.redis.has_heard_of_all(self.now) {
            return;
        }
        for stream in 0..self.streams.len() {
            if (self.streams[stream].node, self.streams[stream].life) == (node, life) {
                self.orphan(stream, self.now);
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
