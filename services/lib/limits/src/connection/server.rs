//! One server process: how it is reached, and what it says of itself.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisError, RedisResult, TlsCertificates, Value,
};

use super::{Epoch, Options};
use crate::keys::Shard;
use crate::script::{Scripts, epoch_answer};

/// Host and port.
pub(crate) type Address = (String, u16);

/// How a server is reached, with name and password.
#[derive(Clone)]
pub(crate) struct Target(ConnectionInfo);

impl Target {
    /// Those of the options; at least one.
    pub(crate) fn all(options: &Options) -> RedisResult<Vec<Self>> {
        options
            .url
            .split(',')
            .map(|url| Self::new(url.trim(), options))
            .collect()
    }

    fn new(url: &str, options: &Options) -> RedisResult<Self> {
        let mut info = url.into_connection_info()?;
        if let Some((name, password)) = &options.login {
            let mut settings = info.redis_settings().clone().set_password(password);
            if !name.is_empty() {
                settings = settings.set_username(name);
            }
            info = info.set_redis_settings(settings);
        }
        let target = Self(info);
        target.client(options)?;
        Ok(target)
    }

    /// `None` for a Unix socket.
    pub(crate) fn address(&self) -> Option<Address> {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.clone(), *port))
            }
            _ => None,
        }
    }

    /// Another server that is reached in the same way.
    pub(crate) fn at(&self, (host, port): &Address) -> Self {
        let mut address = self.0.addr().clone();
        match &mut address {
            ConnectionAddr::Tcp(old_host, old_port)
            | ConnectionAddr::TcpTls {
                host: old_host,
                port: old_port,
                ..
            } => {
                old_host.clone_from(host);
                *old_port = *port;
            }
            _ => {}
        }
        Self(self.0.clone().set_addr(address))
    }

    fn client(&self, options: &Options) -> RedisResult<Client> {
        match &options.authorities {
            None => Client::open(self.0.clone()),
            Some(authorities) => {
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(authorities.clone()),
                };
                Client::build_with_tls(self.0.clone(), certificates)
            }
        }
    }

    pub(crate) async fn connect(&self, options: &Options) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.response_timeout.saturating_mul(4)))
            .set_response_timeout(Some(options.response_timeout));
        self.client(options)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

/// A connection to a server process. The process behind it never changes, so its run id is read once.
pub(crate) struct Server {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) target: Target,
    pub(crate) run_id: String,
    /// Of Redis Cluster.
    pub(crate) is_cluster: bool,
}

/// What is known of a server that might be the master. The greatest of them is: everybody who sees the same servers
/// chooses the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    /// The term of the last epoch that it has seen, of its own or of the master before it.
    pub(crate) term: u64,
    /// Whether that epoch is its own.
    pub(crate) is_own: bool,
    /// To choose one of two that have never been in use.
    pub(crate) run_id: String,
}

/// An epoch that is open at a server.
pub(crate) struct Opened {
    pub(crate) epoch: Epoch,
    /// It has just begun.
    pub(crate) is_new: bool,
}

impl Server {
    pub(crate) async fn dial(target: Target, options: &Options) -> RedisResult<Self> {
        let mut connection = target.connect(options).await?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let run_id = field(&info, "run_id").ok_or_else(|| malformed("INFO has no run_id"))?;
        let is_cluster = field(&info, "redis_mode") == Some("cluster");
        Ok(Self {
            run_id: run_id.to_owned(),
            is_cluster,
            connection,
            target,
        })
    }

    /// `None` when it is a replica.
    pub(crate) async fn standing(&mut self, prefix: &str) -> RedisResult<Option<Standing>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("replication");
        pipeline
            .cmd("HMGET")
            .arg(Shard::Whole.epoch_key(prefix))
            .arg(&["run", "term", "id"]);
        pipeline.ignore_errors();
        type Record = (Option<String>, Option<u64>, Option<String>);
        let (info, record): (RedisResult<String>, RedisResult<Record>) =
            pipeline.query_async(&mut self.connection).await?;
        let info = info?;
        if field(&info, "role").is_some_and(|role| role != "master") {
            return Ok(None);
        }
        let (run, term, id) = match record {
            // The record of another server's slot.
            Err(error) if error.is_cluster_error() => Record::default(),
            record => record?,
        };
        Ok(Some(Standing {
            // A record without a term is of a release that knew none.
            term: term.unwrap_or(u64::from(id.is_some())),
            is_own: run.as_ref() == Some(&self.run_id),
            run_id: self.run_id.clone(),
        }))
    }

    pub(crate) async fn clock_ms(&mut self) -> RedisResult<u64> {
        let (seconds, microseconds): (u64, u64) =
            redis::cmd("TIME").query_async(&mut self.connection).await?;
        Ok(seconds
            .saturating_mul(1000)
            .saturating_add(microseconds / 1000))
    }

    /// Has the epochs of some shards opened, given the last ones that were seen of them. `margin_ms`: for how long another
    /// server may have gone on lending.
    pub(crate) async fn open(
        &mut self,
        scripts: &Scripts,
        prefix: &str,
        shards: &[(Shard, Option<Epoch>)],
        margin_ms: u64,
    ) -> RedisResult<Vec<RedisResult<Opened>>> {
        for script in scripts.all() {
            script
                .prepare_invoke()
                .load_async(&mut self.connection)
                .await?;
        }
        let mut pipeline = Pipeline::with_capacity(shards.len());
        for (shard, seen) in shards {
            let key = (prefix, *shard);
            let id = super::random();
            pipeline.add_command(scripts.open(key, &self.run_id, id, *seen, margin_ms));
        }
        pipeline.ignore_errors();
        let answers: Vec<RedisResult<Value>> = pipeline.query_async(&mut self.connection).await?;
        let opened = |answer| {
            let (epoch, is_new) = epoch_answer(answer)?;
            Ok(Opened { epoch, is_new })
        };
        Ok(answers
            .into_iter()
            .map(|answer| answer.and_then(opened))
            .collect())
    }

    /// Counts that are evicted are limits that are exceeded. Managed servers may refuse to tell.
    pub(crate) async fn warn_about_eviction(&mut self) {
        let info: RedisResult<String> = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut self.connection)
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

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

pub(super) fn malformed(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(term: u64, is_own: bool, run_id: &str) -> Standing {
        let run_id = run_id.to_owned();
        Standing {
            term,
            is_own,
            run_id,
        }
    }

    #[test]
    fn of_several_masters_the_last_that_was_taken_into_use_is_chosen() {
        let table = [
            // A promoted replica that is in use, before the old master that woke up.
            (standing(6, true, "b"), standing(5, true, "a")),
            // The old master, before a replica that was promoted and that nobody has taken into use.
            (standing(5, true, "a"), standing(5, false, "b")),
            // A promoted replica, before a master that was restarted empty.
            (standing(5, false, "b"), standing(0, false, "a")),
            // Two that are empty: any, but everybody the same.
            (standing(0, false, "b"), standing(0, false, "a")),
        ];
        for (chosen, other) in table {
            assert!(chosen > other, "{chosen:?} {other:?}");
        }
    }
}
