//! The task that finds the servers, opens links to them, and looks whether another one has taken over.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::cluster::Topology;
use super::server::{Address, Opened, Server, Standing, Target, malformed};
use super::{Connector, Epoch, Link, Lost, Options};
use crate::keys::{BUCKETS, Shard};

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// With several servers: how often it is seen whether another one has taken over.
const LOOK: Duration = Duration::from_millis(500);
/// So long after a server took over some may not have seen it yet, and be lent by another one, milliseconds: a look, and
/// the time-outs within it.
const TAKE_OVER_MS: u64 = 2_000;

pub(super) async fn keep_connected(connector: Weak<Connector>) {
    let mut search = Search::default();
    let mut backoff = FIRST_BACKOFF;
    let mut opened = Instant::now();
    while let Some(connector) = connector.upgrade() {
        if !connector.is_complete() {
            match search.connect(&connector).await {
                // The time is not reset at once: a server may answer the handshake and refuse the first request.
                Ok(()) => opened = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?backoff, "Redis cannot be reached");
                    drop(connector);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
            continue;
        }
        // Not for ever, or the connector would never be dropped.
        let is_lost = timeout(LOOK, connector.lost.notified()).await.is_ok();
        if opened.elapsed() >= LONGEST_BACKOFF {
            backoff = FIRST_BACKOFF;
        } else if is_lost {
            drop(connector);
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            continue;
        }
        if !is_lost && connector.targets.len() > 1 {
            tokio::select! {
                () = connector.lost.notified() => connector.lost.notify_one(),
                () = search.look(&connector) => {}
            }
        }
    }
}

/// What is known of the servers.
#[derive(Default)]
struct Search {
    generation: u64,
    /// The last epoch of each shard.
    seen: HashMap<Shard, Epoch>,
    /// Servers of the cluster, as they told.
    told: HashSet<Address>,
    /// Connections to servers of the cluster, by where they are, with their generations.
    homes: HashMap<Address, (u64, Server)>,
    /// The server in use, when there is no cluster.
    run_id: String,
    /// Connections for looks.
    looks: Vec<Option<Server>>,
}

impl Search {
    /// Opens the links that are missing.
    async fn connect(&mut self, connector: &Connector) -> RedisResult<()> {
        let mut targets = connector.targets.clone();
        let named: HashSet<Address> = targets.iter().filter_map(Target::address).collect();
        if let Some(first) = connector.targets.first() {
            targets.extend(
                self.told
                    .difference(&named)
                    .map(|address| first.at(address)),
            );
        }
        let mut refused = None;
        let mut found = Vec::new();
        for server in dial_all(targets, &connector.options).await {
            match server {
                Ok(server) => found.push(server),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let refused = refused.unwrap_or_else(|| malformed("no server is named"));
        let is_cluster = found.iter().any(|server| server.is_cluster);
        if is_cluster {
            found.retain(|server| server.is_cluster);
            return self.join_cluster(connector, found).await;
        }
        match master_of(found, connector.prefix()).await {
            Ok(Some(server)) => self.use_server(connector, server).await,
            Ok(None) => Err(refused),
            Err(error) => Err(error),
        }
    }

    async fn use_server(&mut self, connector: &Connector, mut server: Server) -> RedisResult<()> {
        let margin_ms = match connector.targets.len() {
            1 => 0,
            _ => TAKE_OVER_MS,
        };
        self.run_id.clone_from(&server.run_id);
        let links = self
            .open(connector, &mut server, &[Shard::Whole], margin_ms)
            .await?;
        server.warn_about_eviction().await;
        let link = links.into_iter().next().transpose()?;
        *connector.links() = vec![link];
        Ok(())
    }

    /// Links over a new connection; also over one that is in use, for further shards.
    async fn open(
        &mut self,
        connector: &Connector,
        server: &mut Server,
        shards: &[Shard],
        margin_ms: u64,
    ) -> RedisResult<Vec<RedisResult<Link>>> {
        let asked: Vec<(Shard, Option<Epoch>)> = shards
            .iter()
            .map(|shard| (*shard, self.seen.get(shard).copied()))
            .collect();
        let opened = server
            .open(&connector.scripts, connector.prefix(), &asked, margin_ms)
            .await?;
        self.generation += 1;
        let (mut links, mut fresh) = (Vec::new(), 0);
        for (shard, opened) in shards.iter().zip(opened) {
            links.push(opened.map(|Opened { epoch, is_new }| {
                fresh += usize::from(is_new);
                self.seen.insert(*shard, epoch);
                Link {
                    connection: server.connection.clone(),
                    epoch,
                    shard: *shard,
                    generation: self.generation,
                }
            }));
        }
        if fresh > 0 {
            tracing::warn!(
                run_id = server.run_id,
                fresh,
                of = shards.len(),
                "Redis has no counts: the safe share holds for one window of each limit"
            );
        } else {
            tracing::info!(run_id = server.run_id, "connected to Redis");
        }
        Ok(links)
    }

    /// Opens links to those that have the buckets that are without one.
    async fn join_cluster(
        &mut self,
        connector: &Connector,
        mut found: Vec<Server>,
    ) -> RedisResult<()> {
        {
            let mut links = connector.links();
            if links.len() != usize::from(BUCKETS) {
                *links = vec![None; usize::from(BUCKETS)];
            }
            let living: HashSet<u64> = links.iter().flatten().map(|link| link.generation).collect();
            self.homes
                .retain(|_, (generation, _)| living.contains(generation));
        }
        let topology = topology_of(&mut found).await?;
        self.told = topology.addresses().cloned().collect();
        let missing: Vec<Shard> = {
            let links = connector.links();
            let is_missing = |shard: &Shard| matches!(links.get(shard.index()), Some(None));
            Shard::buckets().filter(is_missing).collect()
        };
        let mut by_home: HashMap<Address, Vec<Shard>> = HashMap::new();
        for shard in missing {
            if let Some(home) = topology.home(shard) {
                by_home.entry(home.clone()).or_default().push(shard);
            }
        }
        let mut refused = None;
        for server in found {
            if let Some(address) = server
                .target
                .address()
                .filter(|at| by_home.contains_key(at))
            {
                self.homes.entry(address).or_insert((0, server));
            }
        }
        let unknown = by_home
            .keys()
            .filter(|home| !self.homes.contains_key(*home));
        let first = connector.targets.first();
        let targets = first.map(|first| unknown.map(|home| first.at(home)).collect());
        for server in dial_all(targets.unwrap_or_default(), &connector.options).await {
            match server.map(|server| (server.target.address(), server)) {
                Ok((Some(address), server)) => drop(self.homes.insert(address, (0, server))),
                Ok((None, _)) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        for (home, shards) in by_home {
            let Some((_, mut server)) = self.homes.remove(&home) else {
                continue;
            };
            let links = self
                .open(connector, &mut server, &shards, TAKE_OVER_MS)
                .await;
            match links {
                Err(error) => refused = Some(error),
                Ok(links) => {
                    for link in links {
                        match link {
                            Ok(link) => {
                                if let Some(place) = connector.links().get_mut(link.shard.index()) {
                                    *place = Some(link);
                                }
                            }
                            Err(error) => refused = Some(error),
                        }
                    }
                    self.homes.insert(home, (self.generation, server));
                }
            }
        }
        if connector.is_complete() {
            return Ok(());
        }
        Err(refused.unwrap_or_else(|| malformed("some slots of the cluster have no server")))
    }

    /// Leaves the server in use when it is no master any more, or another one has taken over.
    async fn look(&mut self, connector: &Connector) {
        let Some(link) = connector.links().iter().flatten().next().cloned() else {
            return;
        };
        if link.shard != Shard::Whole {
            // A cluster says itself what moved.
            return;
        }
        self.looks.resize_with(connector.targets.len(), || None);
        let is_away = |at: &usize| matches!(self.looks.get(*at), Some(None));
        let away: Vec<usize> = (0..self.looks.len()).filter(is_away).collect();
        let targets = away.iter().map(|at| connector.targets[*at].clone());
        let dialled = dial_all(targets.collect(), &connector.options).await;
        for (at, server) in away.into_iter().zip(dialled) {
            self.looks[at] = server.ok();
        }
        for place in &mut self.looks {
            let Some(server) = place else { continue };
            let why = match server.standing(connector.prefix()).await {
                Err(_) => {
                    *place = None;
                    continue;
                }
                Ok(None) if server.run_id == self.run_id => "it is no master any more",
                Ok(Some(other))
                    if other.run_id != self.run_id && other > present(&link, &self.run_id) =>
                {
                    "another server has taken over"
                }
                Ok(_) => continue,
            };
            connector.drop_link(&link, Lost::Server, why);
            return;
        }
    }
}

fn present(link: &Link, run_id: &str) -> Standing {
    Standing {
        term: link.epoch.term,
        is_own: true,
        run_id: run_id.to_owned(),
    }
}

/// Dials all at once; the answers are in the order of the targets.
async fn dial_all(targets: Vec<Target>, options: &Options) -> Vec<RedisResult<Server>> {
    let mut dials = JoinSet::new();
    let count = targets.len();
    for (at, target) in targets.into_iter().enumerate() {
        let options = options.clone();
        dials.spawn(async move { (at, Server::dial(target, &options).await) });
    }
    let mut dialled: Vec<Option<RedisResult<Server>>> = Vec::new();
    dialled.resize_with(count, || None);
    while let Some(done) = dials.join_next().await {
        if let Ok((at, server)) = done {
            dialled[at] = Some(server);
        }
    }
    let failed = || Err(malformed("the connection was not tried"));
    let server = |server: Option<RedisResult<Server>>| server.unwrap_or_else(failed);
    dialled.into_iter().map(server).collect()
}

/// The one of them that is to be used; `None` when there is none at all. Fails when all are replicas.
async fn master_of(found: Vec<Server>, prefix: &str) -> RedisResult<Option<Server>> {
    let (mut best, mut failed) = (None, None);
    for mut server in found {
        match server.standing(prefix).await {
            Ok(Some(standing)) => {
                let is_better = |(before, _): &(Standing, Server)| standing > *before;
                if best.as_ref().is_none_or(is_better) {
                    best = Some((standing, server));
                }
            }
            Ok(None) => {
                let replica = RedisError::from((ErrorKind::Client, "the server is a replica"));
                failed = failed.or(Some(replica));
            }
            Err(error) => failed = Some(error),
        }
    }
    match (best, failed) {
        (Some((_, server)), _) => Ok(Some(server)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// That of the server which knows best.
async fn topology_of(found: &mut [Server]) -> RedisResult<Topology> {
    let (mut best, mut failed): (Option<Topology>, _) = (None, None);
    for server in found {
        match Topology::ask(server).await {
            Ok(topology) => {
                if best.as_ref().is_none_or(|best| topology.knows > best.knows) {
                    best = Some(topology);
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    best.ok_or_else(|| failed.unwrap_or_else(|| malformed("no server of the cluster answers")))
}
