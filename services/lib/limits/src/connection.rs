//! The connection to Redis, and the epoch of its memory.
//!
//! One connection leads to one server process, so its run id is read once, when it is opened; redis'
//! `ConnectionManager` reconnects unseen and stays with a demoted master for ever. Here any failure drops
//! the connection, and a task opens another one, resolving the name again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    TlsCertificates,
};
use tokio::sync::Notify;

use crate::Unavailable;
use crate::script::{Scripts, epoch_key, hex};

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// How Redis is reached.
#[derive(Clone)]
pub struct Options {
    /// `redis://[user:password@]host:port/database`, or `rediss://…` for TLS.
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

/// A span in which Redis forgot nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) id: u64,
    /// By Redis' clock.
    pub(crate) since_ms: u64,
}

/// An open connection.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) epoch: Epoch,
    /// Counts the connections.
    generation: u64,
}

/// Holds the connection and has it replaced.
pub(crate) struct Connector {
    client: Client,
    options: Options,
    pub(crate) scripts: Scripts,
    link: Mutex<Option<Link>>,
    lost: Notify,
}

impl Connector {
    /// Starts the task that connects; it ends when the connector is dropped.
    pub(crate) fn start(options: Options) -> RedisResult<Arc<Self>> {
        let client = client(&options)?;
        let connector = Arc::new(Self {
            client,
            options,
            scripts: Scripts::new(),
            link: Mutex::new(None),
            lost: Notify::new(),
        });
        tokio::spawn(keep_connected(Arc::downgrade(&connector)));
        Ok(connector)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.options.prefix
    }

    pub(crate) fn link(&self) -> Option<Link> {
        self.link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The connection is of no use any more; unless another one took its place already.
    pub(crate) fn drop_link(&self, link: &Link, why: &str) {
        let mut current = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|current| current.generation == link.generation)
        {
            *current = None;
            tracing::warn!(why, "connection to Redis dropped");
            self.lost.notify_one();
        }
    }

    async fn open(&self, generation: u64) -> RedisResult<Link> {
        let mut connection = connection(&self.client, &self.options).await?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let run_id = field(&info, "run_id").ok_or_else(|| malformed("INFO has no run_id"))?;
        let (id, since, fresh): (String, u64, u8) = self
            .scripts
            .epoch
            .key(epoch_key(self.prefix()))
            .arg(run_id)
            .arg(hex(random()))
            .invoke_async(&mut connection)
            .await?;
        let id = u64::from_str_radix(&id, 16)
            .map_err(|_| malformed("the epoch's id is not hexadecimal"))?;
        for script in [&self.scripts.grant, &self.scripts.slots] {
            script.prepare_invoke().load_async(&mut connection).await?;
        }
        if fresh == 1 {
            tracing::warn!(epoch = %hex(id), "Redis has no counts: the safe share holds for one window of each limit");
        } else {
            tracing::info!(epoch = %hex(id), "connected to Redis");
        }
        self.warn_about_eviction(&mut connection).await;
        Ok(Link {
            connection,
            epoch: Epoch {
                id,
                since_ms: since,
            },
            generation,
        })
    }

    /// Counts that are evicted are limits that are exceeded. Managed servers may refuse to tell.
    async fn warn_about_eviction(&self, connection: &mut MultiplexedConnection) {
        let info: RedisResult<String> = redis::cmd("INFO")
            .arg("memory")
            .query_async(connection)
            .await;
        match info.as_deref().map(|info| field(info, "maxmemory_policy")) {
            Ok(Some("noeviction")) => {}
            Ok(Some(policy)) => tracing::warn!(
                policy,
                "Redis may evict counts: set maxmemory-policy noeviction"
            ),
            Ok(None) | Err(_) => {
                tracing::info!("Redis does not tell its maxmemory-policy; noeviction is needed")
            }
        }
    }
}

async fn connection(client: &Client, options: &Options) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.response_timeout.saturating_mul(4)))
        .set_response_timeout(Some(options.response_timeout));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Connects once, and asks for the server's clock, Unix milliseconds. What it fails with holds no password.
pub async fn server_clock(options: &Options) -> Result<u64, Unavailable> {
    let asked = async {
        let mut connection = connection(&client(options)?, options).await?;
        redis::cmd("TIME").query_async(&mut connection).await
    };
    let (seconds, microseconds): (u64, u64) = asked
        .await
        .map_err(|error: RedisError| Unavailable(error.to_string()))?;
    Ok(seconds
        .saturating_mul(1000)
        .saturating_add(microseconds / 1000))
}

/// What is needed for a connection; none is made here.
fn client(options: &Options) -> RedisResult<Client> {
    let mut info = options.url.as_str().into_connection_info()?;
    if let Some((name, password)) = &options.login {
        let mut settings = info.redis_settings().clone().set_password(password);
        if !name.is_empty() {
            settings = settings.set_username(name);
        }
        info = info.set_redis_settings(settings);
    }
    match &options.authorities {
        None => Client::open(info),
        Some(authorities) => {
            let certificates = TlsCertificates {
                client_tls: None,
                root_cert: Some(authorities.clone()),
            };
            Client::build_with_tls(info, certificates)
        }
    }
}

async fn keep_connected(connector: Weak<Connector>) {
    let mut generation = 0;
    let mut backoff = FIRST_BACKOFF;
    while let Some(strong) = connector.upgrade() {
        if strong.link().is_none() {
            generation += 1;
            match strong.open(generation).await {
                Ok(link) => {
                    *strong.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
                    // Not reset at once: a demoted server answers the handshake and refuses the first request.
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?backoff, "Redis cannot be reached");
                    drop(strong);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
            continue;
        }
        // Not for ever, or the connector would never be dropped.
        let opened = tokio::time::Instant::now();
        let lost = tokio::time::timeout(LONGEST_BACKOFF, strong.lost.notified())
            .await
            .is_ok();
        drop(strong);
        if !lost {
            backoff = FIRST_BACKOFF;
        } else if opened.elapsed() < LONGEST_BACKOFF {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn malformed(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, what))
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
