//! Quotas: uses in sliding windows of several lengths at once, over all replicas.
//!
//! # How it counts
//!
//! Each charge is one atomic script over the states of all its scopes (a credential, its tenant, a client's
//! network): either all have room and all are charged, or none is. A use counts from its time for the length of the
//! window, and up to 1/128 of the length longer; never shorter. A charge may be accepted for a later time, up to a
//! bound: then it is charged there, after everything that is charged before, and the caller waits until then.
//!
//! # Without Redis
//!
//! Each process keeps a book of what it charged itself. While Redis can't be asked, a process charges up to its
//! share, limit / replicas, counting what it had charged before. Redis is told what was charged without it when it is
//! back, by numbered reports that count once however often they arrive; a Redis whose memory is lost is told
//! everything that still counts, by each process. A charge whose reply is lost is not told again: it counts at most
//! once, and not at all if it never arrived.

mod book;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};

use crate::connection::{Connector, Link, Lost, random};
use crate::script::{hex, same_epoch};
use crate::{Claims, Error, Habits, Options};
use book::{Book, Told, month};

/// How often Redis is told what it does not know.
const SETTLING: Duration = Duration::from_millis(500);

/// One window of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimit {
    /// Milliseconds; 0 is the calendar month (UTC).
    pub length_ms: u64,
    /// Uses in it.
    pub limit: u64,
}

/// One thing whose uses are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Names it in the whole installation.
    pub key: String,
    /// All hold.
    pub windows: Vec<WindowLimit>,
}

/// What became of a wish to charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charged {
    /// In all scopes. Drop it, or give it back.
    Yes(Receipt),
    /// Some scope has no room.
    Over {
        /// When it would fit as things are; at least a second.
        retry_after: Duration,
    },
    /// A month is used up.
    MonthUsedUp,
    /// More at once than a whole window takes.
    Never,
}

/// Proof of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is not used should be given back"]
pub struct Receipt {
    /// How long the caller has to wait; zero mostly.
    pub wait: Duration,
    group: String,
    keys: Vec<String>,
    at_ms: u64,
    uses: u64,
    alone: bool,
}

/// Charges quotas. Cheap to clone; one connection for all clones.
#[derive(Clone)]
pub struct Quotas {
    shared: Arc<Shared>,
}

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

struct Shared {
    connector: Arc<Connector>,
    book: Mutex<Book>,
    /// Names this process's book.
    name: String,
    replicas: u32,
    /// `None` = that of Redis, and of the system.
    clock: Option<Clock>,
    charge: Script,
    give_back: Script,
}

impl Quotas {
    /// Starts connecting and returns at once. Without Redis each of `replicas` processes has that part of every
    /// limit. Must be called within a Tokio runtime.
    pub fn connect(options: Options, replicas: u32) -> Result<Self, Error> {
        Self::start(options, replicas, None)
    }

    /// As [`Quotas::connect`], with a clock in Unix milliseconds in place of those of Redis and of the system: to
    /// see in seconds what days bring.
    pub fn connect_with_clock(
        options: Options,
        replicas: u32,
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::start(options, replicas, Some(clock))
    }

    fn start(options: Options, replicas: u32, clock: Option<Clock>) -> Result<Self, Error> {
        let connector = Connector::start(options).map_err(|error| Error {
            detail: format!("{:?}", error.kind()),
        })?;
        let shared = Arc::new(Shared {
            connector,
            book: Mutex::default(),
            name: hex(random()),
            replicas: replicas.max(1),
            clock,
            charge: Script::new(include_str!("quota/charge.lua")),
            give_back: Script::new(include_str!("quota/give_back.lua")),
        });
        let settling = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while let Some(shared) = settling.upgrade() {
                shared.settle().await;
                drop(shared);
                tokio::time::sleep(SETTLING).await;
            }
        });
        Ok(Self { shared })
    }

    /// Claims over the same connection.
    pub fn claims(&self) -> Claims {
        Claims::new(self.shared.connector.clone())
    }

    /// Habits over the same connection, by the same clock.
    pub fn habits(&self) -> Habits {
        Habits::new(self.shared.connector.clone(), self.shared.clock.clone())
    }

    /// Whether there is a connection; in a cluster, to the servers of all counts.
    pub fn is_connected(&self) -> bool {
        self.shared.connector.is_complete()
    }

    /// Charges `uses` in all scopes or in none; not more than `latest` in the future. With `uses` 0 nothing is
    /// charged. `group` names what the scopes have in common (a tenant). Takes at most the response time-out, and
    /// then decides alone.
    pub async fn charge(
        &self,
        group: &str,
        scopes: &[Scope],
        uses: u64,
        latest: Duration,
    ) -> Charged {
        self.shared.charge(group, scopes, uses, latest).await
    }

    /// Whether a charge would succeed now, without making it.
    pub async fn has_room(&self, group: &str, scopes: &[Scope], uses: u64) -> bool {
        match self
            .shared
            .charge(group, scopes, uses, Duration::ZERO)
            .await
        {
            Charged::Yes(receipt) => {
                self.give_back(receipt).await;
                true
            }
            _ => false,
        }
    }

    /// What was charged is not used after all. When the connection breaks meanwhile, it counts until it ends by
    /// itself.
    pub async fn give_back(&self, receipt: Receipt) {
        self.shared.give_back(receipt).await;
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        match &self.clock {
            Some(clock) => clock(),
            None => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn charge(&self, group: &str, scopes: &[Scope], uses: u64, latest: Duration) -> Charged {
        let Some(link) = self.connector.link(group) else {
            return self.charge_alone(group, scopes, uses, false);
        };
        match self.run(&link, group, scopes, uses, latest).await {
            Ok((kind, at_ms, now_ms)) => {
                let wait = Duration::from_millis(at_ms.saturating_sub(now_ms));
                match kind {
                    0 => {
                        let mut book = self.book();
                        for scope in scopes {
                            book.charged(group, scope, at_ms, uses);
                        }
                        Charged::Yes(receipt(group, scopes, at_ms, uses, wait, false))
                    }
                    1 => Charged::Over {
                        retry_after: wait.max(Duration::from_secs(1)),
                    },
                    2 => Charged::MonthUsedUp,
                    _ => Charged::Never,
                }
            }
            Err(Failed { unsure }) => self.charge_alone(group, scopes, uses, unsure),
        }
    }

    fn charge_alone(&self, group: &str, scopes: &[Scope], uses: u64, unsure: bool) -> Charged {
        let now_ms = self.now_ms();
        let charged = self
            .book()
            .charge_alone(group, scopes, uses, self.replicas, now_ms, unsure);
        match charged {
            Ok(()) => Charged::Yes(receipt(
                group,
                scopes,
                now_ms,
                uses,
                Duration::ZERO,
                !unsure,
            )),
            Err(fits_at) => {
                // A share is no whole limit: what does not fit into it may fit when Redis is back.
                let at_ms = fits_at.unwrap_or(now_ms + 60_000);
                let wait = Duration::from_millis(at_ms.saturating_sub(now_ms));
                Charged::Over {
                    retry_after: wait.max(Duration::from_secs(1)),
                }
            }
        }
    }

    /// Runs the script; gives kind, time of the charge, time.
    async fn run(
        &self,
        link: &Link,
        group: &str,
        scopes: &[Scope],
        uses: u64,
        latest: Duration,
    ) -> Result<(u8, u64, u64), Failed> {
        let now_ms = self.now_ms();
        let told: Vec<Told> = {
            let mut book = self.book();
            scopes
                .iter()
                .map(|scope| book.tell(group, scope, link.epoch.id, now_ms))
                .collect()
        };
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.charge.get_hash())
            .arg(scopes.len());
        for scope in scopes {
            pipeline.arg(self.key(link, group, &scope.key));
        }
        pipeline
            .arg(self.clock.as_ref().map_or(0, |_| now_ms))
            .arg(uses)
            .arg(u64::try_from(latest.as_millis()).unwrap_or(u64::MAX))
            .arg(month(now_ms))
            .arg(&self.name);
        for told in &told {
            pipeline.arg(&told.json);
        }
        // Memory that was emptied before the script ran is emptied of the epoch's record too.
        same_epoch(&mut pipeline, self.connector.prefix(), link.shard);
        let value = self.query(link, &pipeline, &self.charge).await?;
        let (kind, at_ms, answered_ms, _): (u8, u64, u64, u64) = redis::from_redis_value(value)
            .map_err(|error| self.failed(link, &RedisError::from(error)))?;
        let mut book = self.book();
        for (scope, told) in scopes.iter().zip(&told) {
            book.told(&scope.key, told.report);
        }
        Ok((kind, at_ms, answered_ms))
    }

    /// The script's answer, if the memory is still the one that the link is for.
    async fn query(
        &self,
        link: &Link,
        pipeline: &redis::Pipeline,
        script: &Script,
    ) -> Result<Value, Failed> {
        let mut connection = link.connection.clone();
        for attempt in 0..2 {
            let replies: RedisResult<(RedisResult<Value>, RedisResult<Value>)> =
                pipeline.query_async(&mut connection).await;
            match replies.and_then(|(answer, epoch)| Ok((answer?, epoch?))) {
                Ok((answer, epoch)) => {
                    let expected = hex(link.epoch.id);
                    if matches!(&epoch, Value::BulkString(id) if id == expected.as_bytes()) {
                        return Ok(answer);
                    }
                    self.connector
                        .drop_link(link, Lost::Shard, "the counts are gone");
                    return Err(Failed { unsure: false });
                }
                // The server does not have the script (yet, or any more): nothing was carried out.
                Err(error) if is_no_script(&error) && attempt == 0 => {
                    let loaded = script.prepare_invoke().load_async(&mut connection).await;
                    if let Err(error) = loaded {
                        return Err(self.failed(link, &error));
                    }
                }
                Err(error) => return Err(self.failed(link, &error)),
            }
        }
        Err(Failed { unsure: false })
    }

    fn failed(&self, link: &Link, error: &RedisError) -> Failed {
        self.connector.failed(link, error);
        Failed { unsure: true }
    }

    async fn give_back(&self, receipt: Receipt) {
        {
            let mut book = self.book();
            for key in &receipt.keys {
                book.give_back(key, receipt.at_ms, receipt.uses, receipt.alone);
            }
        }
        let link = self.connector.link(&receipt.group);
        let Some(link) = link.filter(|_| !receipt.alone) else {
            return;
        };
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVALSHA")
            .arg(self.give_back.get_hash())
            .arg(receipt.keys.len());
        for key in &receipt.keys {
            pipeline.arg(self.key(&link, &receipt.group, key));
        }
        pipeline
            .arg(receipt.at_ms)
            .arg(receipt.uses)
            .arg(month(receipt.at_ms));
        same_epoch(&mut pipeline, self.connector.prefix(), link.shard);
        // It ends by itself.
        if self.query(&link, &pipeline, &self.give_back).await.is_err() {
            tracing::debug!("a quota was not given back");
        }
    }

    /// Tells Redis what it does not know.
    async fn settle(&self) {
        let epoch_of = |group: &str| Some(self.connector.link(group)?.epoch.id);
        let untold = self.book().untold(epoch_of, self.now_ms());
        for (group, scope) in untold {
            let Some(link) = self.connector.link(&group) else {
                continue;
            };
            let scopes = [scope];
            let told = self.run(&link, &group, &scopes, 0, Duration::ZERO).await;
            if told.is_err() {
                return;
            }
        }
    }

    fn key(&self, link: &Link, group: &str, key: &str) -> String {
        let state = link
            .shard
            .state_key(self.connector.prefix(), "quota", group, link.epoch.id);
        format!("{state}:{key}")
    }
}

/// Redis did not answer.
struct Failed {
    /// It may have carried the script out.
    unsure: bool,
}

fn receipt(
    group: &str,
    scopes: &[Scope],
    at_ms: u64,
    uses: u64,
    wait: Duration,
    alone: bool,
) -> Receipt {
    Receipt {
        wait,
        group: group.to_owned(),
        keys: scopes.iter().map(|scope| scope.key.clone()).collect(),
        at_ms,
        uses,
        alone,
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
