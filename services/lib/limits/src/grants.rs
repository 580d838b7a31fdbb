//! Asking for parts of rates, and for leases of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::connection::{Connector, Link, Lost};
use crate::keys::{BUCKETS, Shard};
use crate::presence::{Presence, asks_for, be_heard, may_share};
use crate::script::{answer, slot_answer};
use crate::slot::LeasedIn;
use crate::{GrantReply, GrantRequest, Options, SlotReply, SlotRequest};

/// Lends parts of rates, and connections. Cheap to clone; one connection (to each server of a cluster) for all clones.
#[derive(Clone)]
pub struct Grants {
    connector: Arc<Connector>,
    /// By shard, the epoch in which connections were leased; 0 = in none.
    leased_in: Arc<[AtomicU64]>,
    presence: Arc<Presence>,
}

/// The options make no sense.
#[derive(Debug, thiserror::Error)]
#[error("the URL of Redis is not valid: {detail}")]
pub struct Error {
    /// What the URL's reader says; never the URL, which may hold a password.
    pub detail: String,
}

/// Redis did not answer in time, refused, is not connected or lost its memory: the safe share holds. The request may
/// have been carried out: what it granted counts until the holder's next word.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("Redis is unavailable: {0}")]
pub struct Unavailable(pub String);

impl Grants {
    /// Starts connecting and returns at once; until there is a connection [`Grants::ask`] fails without waiting.
    /// Must be called within a Tokio runtime.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let connector = Connector::start(options).map_err(|error| Error {
            detail: format!("{:?}", error.kind()),
        })?;
        Ok(Self {
            connector,
            leased_in: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            presence: Arc::default(),
        })
    }

    /// Takes part as a scheduler: says so, and how many of the `partitions` it `has`, twice a second until the sender of
    /// `has` is gone. Rates are lent to one that is heard, less what those may use by themselves that are not.
    ///
    /// To be called once, before anything is asked.
    pub fn join(&self, partitions: u32, has: watch::Receiver<u32>) {
        self.presence.join();
        tokio::spawn(be_heard(
            Arc::downgrade(&self.connector),
            self.presence.clone(),
            partitions,
            has,
        ));
    }

    /// Whether this scheduler was not heard for so long that all others leave it its share of what has this name.
    pub fn may_share(&self, name: &str) -> bool {
        may_share(self.presence.silent_for(self.connector.shard(name)))
    }

    /// Whether there is a connection; in a cluster, to the servers of all counts.
    pub fn is_connected(&self) -> bool {
        self.connector.is_complete()
    }

    /// Tells what a holder has and has used, and asks for more. Takes at most the response time-out. After
    /// [`Unavailable`] Redis may have heard it: what is said next replaces it.
    pub async fn ask(&self, request: &GrantRequest) -> Result<GrantReply, Unavailable> {
        let link = self.link(&request.key)?;
        let scripts = &self.connector.scripts;
        let member = self.presence.name();
        let to = (link.shard, link.epoch);
        let pipeline = scripts.ask(request, member, self.connector.prefix(), to);
        let granted = self.run(link.clone(), &pipeline, &scripts.grant).await?;
        let granted = granted.ok_or_else(|| Unavailable("the counts are gone".into()))?;
        answer(granted, request.window).map_err(|error| self.failed(&link, &error))
    }

    /// Says how many connections a holder has, which leases them anew, and asks for more; a scheduler that [joined] and is
    /// not heard for long asks for no more than its share. Takes at most the response time-out. After [`Unavailable`] Redis
    /// may have heard it: what is said next replaces it.
    ///
    /// [joined]: Grants::join
    pub async fn lease(&self, request: &SlotRequest) -> Result<SlotReply, Unavailable> {
        let link = self.link(&request.key)?;
        let scripts = &self.connector.scripts;
        let leased_in = self.leased_in(link.shard);
        let before = LeasedIn(leased_in.load(Ordering::Relaxed));
        let to = (link.shard, link.epoch);
        let heard_for = self.presence.heard_for(link.shard);
        let request = &asks_for(request, heard_for.unwrap_or(Duration::MAX));
        let pipeline = scripts.lease(request, self.connector.prefix(), to, before);
        let leased = self.run(link.clone(), &pipeline, &scripts.slots).await?;
        let leased = leased.ok_or_else(|| Unavailable("the counts are gone".into()))?;
        let reply = slot_answer(leased).map_err(|error| self.failed(&link, &error))?;
        leased_in.store(before.after(&link.epoch, &reply).0, Ordering::Relaxed);
        Ok(reply)
    }

    /// First part of every key.
    pub(crate) fn prefix(&self) -> &str {
        self.connector.prefix()
    }

    fn leased_in(&self, shard: Shard) -> &AtomicU64 {
        self.leased_in
            .get(shard.index())
            .unwrap_or(&self.leased_in[0])
    }

    /// To where what has this name is counted.
    pub(crate) fn link(&self, name: &str) -> Result<Link, Unavailable> {
        self.connector
            .link(name)
            .ok_or_else(|| Unavailable("not connected".into()))
    }

    /// The answer of a script; `None` when the memory is another one than the request assumes.
    async fn run(
        &self,
        mut link: Link,
        pipeline: &Pipeline,
        script: &Script,
    ) -> Result<Option<Value>, Unavailable> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let replies: RedisResult<(RedisResult<Value>, RedisResult<Value>)> =
                pipeline.query_async(&mut link.connection).await;
            let outcome = replies.and_then(|(answered, epoch)| Ok((answered?, epoch?)));
            match outcome {
                Ok((answered, epoch)) => {
                    if link.is_of(&epoch) {
                        return Ok(Some(answered));
                    }
                    self.connector
                        .drop_link(&link, Lost::Shard, "the counts are gone");
                    return Ok(None);
                }
                // The server forgot its scripts (SCRIPT FLUSH): nothing was carried out, so asking again is safe.
                Err(error) if is_no_script(&error) && attempts == 1 => {
                    let loaded = script
                        .prepare_invoke()
                        .load_async(&mut link.connection)
                        .await;
                    if let Err(error) = loaded {
                        return Err(self.failed(&link, &error));
                    }
                }
                Err(error) => return Err(self.failed(&link, &error)),
            }
        }
    }

    pub(crate) fn failed(&self, link: &Link, error: &RedisError) -> Unavailable {
        self.connector.failed(link, error)
    }
}

pub(crate) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
