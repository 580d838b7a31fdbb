//! The connections to Redis, and the epochs of its memory.
//!
//! One connection leads to one server process, so its run id is read once, when it is opened; redis'
//! `ConnectionManager` reconnects unseen and stays with a demoted master for ever. Here any failure drops
//! the connection, and a task opens another one, resolving the names again.
//!
//! Several servers may be named: a master and its replicas, or some of a cluster's. Of a master and replicas the one that
//! says that it is the master is used. After a fail-over two may say so for a while; then the one whose epoch has
//! the higher term is (see `epoch.lua`), and who is at another one is told so by a look at all of them twice a second. In a
//! cluster each bucket of the counts ([`Shard`]) has a link of its own to the server that has it.

mod cluster;
mod search;
mod server;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;

use crate::Unavailable;
use crate::keys::Shard;
use crate::script::{Scripts, hex};
use search::keep_connected;
use server::{Server, Target};

/// How Redis is reached.
#[derive(Clone)]
pub struct Options {
    /// `redis://[user:password@]host:port/database`, or `rediss://…` for TLS; several, separated by commas, for a master
    /// with its replicas, or for some servers of a cluster, which tell of the others.
    pub url: String,
    /// Name (empty = the default user) and password, in place of what the URL says.
    pub login: Option<(String, String)>,
    /// The authorities that sign the server's certificate, in PEM form; the system's when there are none.
    pub authorities: Option<Vec<u8>>,
    /// First part of every key, to share a server with others.
    pub prefix: String,
    /// After this time without a reply the request has failed; about 250 ms.
    pub response_timeout: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URL and login hold passwords.
        f.debug_struct("Options")
            .field("prefix", &self.prefix)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The usual prefix and time-out.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            login: None,
            authorities: None,
            prefix: "staffetta".into(),
            response_timeout: Duration::from_millis(250),
        }
    }
}

/// A span in which a shard of the counts forgot nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Its name.
    pub id: u64,
    /// By Redis' clock, Unix milliseconds. Later than its beginning when another server may still have lent after it.
    pub since_ms: u64,
    /// Grows with every epoch, whichever server begins it; 1 when there was none before.
    pub term: u64,
}

/// An open connection to the server that has a shard.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) epoch: Epoch,
    pub(crate) shard: Shard,
    /// Counts the connections.
    generation: u64,
}

impl Link {
    /// Whether this is the answer to [`crate::script::same_epoch`] in its epoch.
    pub(crate) fn is_of(&self, id: &Value) -> bool {
        matches!(id, Value::BulkString(id) if *id == hex(self.epoch.id).into_bytes())
    }
}

/// How much is of no use any more after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection.
    Server,
    /// What it says of this shard: it is elsewhere, or was emptied.
    Shard,
}

/// Holds the connections and has them replaced.
pub(crate) struct Connector {
    targets: Vec<Target>,
    options: Options,
    pub(crate) scripts: Scripts,
    /// One, or one for each bucket of a cluster; empty until it is known which.
    links: Mutex<Vec<Option<Link>>>,
    lost: Notify,
}

impl Connector {
    /// Starts the task that connects; it ends when the connector is dropped.
    pub(crate) fn start(options: Options) -> RedisResult<Arc<Self>> {
        let connector = Arc::new(Self {
            targets: Target::all(&options)?,
            options,
            scripts: Scripts::new(),
            links: Mutex::default(),
            lost: Notify::new(),
        });
        tokio::spawn(keep_connected(Arc::downgrade(&connector)));
        Ok(connector)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.options.prefix
    }

    /// To where what has this name is counted.
    pub(crate) fn link(&self, name: &str) -> Option<Link> {
        let shard = self.shard(name);
        self.links().get(shard.index())?.clone()
    }

    /// Where what has this name is counted, as far as it is known whether there is a cluster.
    pub(crate) fn shard(&self, name: &str) -> Shard {
        match self.links().len() {
            0 | 1 => Shard::Whole,
            _ => Shard::in_cluster(name),
        }
    }

    /// All that is reached, by connection.
    pub(crate) fn reached(&self) -> Vec<Vec<Link>> {
        let mut links: Vec<Link> = self.links().iter().flatten().cloned().collect();
        links.sort_by_key(|link| link.generation);
        let by_connection = links.chunk_by(|one, next| one.generation == next.generation);
        by_connection.map(<[Link]>::to_vec).collect()
    }

    /// Whether all there is to be counted has its server.
    pub(crate) fn is_complete(&self) -> bool {
        let links = self.links();
        !links.is_empty() && links.iter().all(Option::is_some)
    }

    /// The link, or all over its connection, is of no use any more; unless another one took its place already.
    pub(crate) fn drop_link(&self, link: &Link, lost: Lost, why: &str) {
        let mut dropped = 0;
        for current in self.links().iter_mut() {
            let is_lost = current.as_ref().is_some_and(|current| {
                current.generation == link.generation
                    && (lost == Lost::Server || current.shard == link.shard)
            });
            if is_lost {
                *current = None;
                dropped += 1;
            }
        }
        if dropped > 0 {
            tracing::warn!(why, dropped, "connection to Redis dropped");
            self.lost.notify_one();
        }
    }

    /// Any failure ends the connection: a demoted master (READONLY), one that loads, one that hangs. A server of a cluster
    /// that does not have (all of) a slot is good for others.
    pub(crate) fn failed(&self, link: &Link, error: &RedisError) -> Unavailable {
        let lost = match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown,
            ) => Lost::Shard,
            _ => Lost::Server,
        };
        let detail = error.to_string();
        self.drop_link(link, lost, &detail);
        Unavailable(detail)
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Vec<Option<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub role: Role,
    /// Its clock, Unix milliseconds.
    pub clock_ms: u64,
}

/// What a server of Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It counts.
    Master,
    /// It follows another one, and counts nothing.
    Replica,
    /// One of Redis Cluster.
    OfCluster,
}

/// Looks at each of the servers once, for who looks at an installation. What it fails with holds no password.
pub async fn servers(options: &Options) -> Result<Vec<Result<Seen, Unavailable>>, Unavailable> {
    let unavailable = |error: RedisError| Unavailable(error.to_string());
    let targets = Target::all(options).map_err(unavailable)?;
    let mut all = Vec::new();
    for target in targets {
        let seen = async {
            let mut server = Server::dial(target, options).await?;
            let is_master = server.standing(&options.prefix).await?.is_some();
            let clock_ms = server.clock_ms().await?;
            let role = match (server.is_cluster, is_master) {
                (true, _) => Role::OfCluster,
                (false, true) => Role::Master,
                (false, false) => Role::Replica,
            };
            Ok(Seen { role, clock_ms })
        };
        all.push(seen.await.map_err(unavailable));
    }
    Ok(all)
}

/// A number that no other process draws, as good as the standard library's hash keys.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u128(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos()),
    );
    hasher.write_u32(std::process::id());
    hasher.finish()
}
