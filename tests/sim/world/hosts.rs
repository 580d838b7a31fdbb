//! The hosts of the sites: they count connections and messages from each source, and throttle, greylist and fail.

use std::collections::VecDeque;

use super::*;

/// Within this time a host counts messages of its own.
const MINUTE_MS: u64 = 60_000;

/// What is known of a source at a host.
#[derive(Default)]
struct Source {
    /// Open connections; of those whose scheduler is lost, from when they are not to be counted: when it is long gone
    /// nobody knows of them, and their replies may come late.
    open: BTreeMap<u64, Option<u64>>,
    /// When messages came, within the last minute.
    came: VecDeque<u64>,
}

/// A host.
pub(super) struct Host {
    /// What is configured for its lanes.
    pub(super) connections: u32,
    pub(super) messages_per_connection: u32,
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
        let throttles = rng.random_range(0..3) == 0;
        Self {
            connections,
            messages_per_connection: [1, 3, 100][rng.random_range(0..3)],
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
            "{now}: a connection from {source} too many: {} are open already: {:?}",
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
        while from.came.front().is_some_and(|at| at + MINUTE_MS <= now) {
            from.came.pop_front();
        }
        from.came.push_back(now);
        let takes = self.throttle.map_or(usize::MAX, |(_, messages)| messages);
        if from.came.len() > takes {
            return Err(No(421));
        }
        if self.greylists && self.seen.insert((source.clone(), id.into())) {
            return Err(No(451));
        }
        Ok(())
    }
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
        Ok(())
    }

    /// A message begins over the connection of a slot.
    pub(super) fn mail(&mut self, sender: usize, slot: SlotKey, id: &[u8]) -> Result<(), No> {
        let now = self.now;
        let connection = self.senders[sender].connections.get_mut(&slot);
        let connection = connection.expect("a message needs a connection");
        connection.messages += 1;
        let (source, site) = (connection.source.clone(), connection.site.clone());
        let said = self.host(&site).message(now, &source, id);
        if let Err(no) = &said {
            self.throttled += u32::from(no.0 == 421);
        }
        said
    }

    /// A connection is gone, at once.
    pub(super) fn cut_connection(&mut self, sender: usize, slot: SlotKey) {
        let Some(connection) = self.senders[sender].connections.remove(&slot) else {
            return;
        };
        let from = self.host(&connection.site).from.get_mut(&connection.source);
        from.expect("it was open").open.remove(&connection.number);
    }

    /// The scheduler to which these connections belong is lost: how long they count.
    pub(super) fn orphan(&mut self, sender: usize, stream: usize, until: u64) {
        let of_stream: Vec<Connection> = self.senders[sender]
            .connections
            .range((stream, 0, 0)..(stream + 1, 0, 0))
            .map(|(_, connection)| connection.clone())
            .collect();
        for connection in of_stream {
            let from = self.host(&connection.site).from.get_mut(&connection.source);
            let open = &mut from.expect("it was open").open;
            open.insert(connection.number, Some(until));
        }
    }

    /// Redis lost what it knew of connections, and their schedulers are lost, too.
    pub(super) fn nobody_knows_of_orphans(&mut self) {
        let now = self.now;
        for source in self
            .hosts
            .values_mut()
            .flat_map(|host| host.from.values_mut())
        {
            source
                .open
                .values_mut()
                .flatten()
                .for_each(|until| *until = now);
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
