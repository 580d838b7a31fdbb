//! NATS and Redis as children, with their data in the data folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use runtime::Bootstrap;
use runtime::bootstrap::Durability;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::child::{Child, Recipe};
use super::programs::{LEAST_NATS_R1, LEAST_NATS_R3, find_nats_server, find_redis_server};

/// A server may take so long to answer after its start (recovery of a large store).
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// The two servers.
pub(crate) struct Servers {
    nats: Child,
    redis: Child,
}

impl Servers {
    /// Starts both and waits until they answer.
    pub(crate) async fn start(bootstrap: &Bootstrap, data: &Path) -> anyhow::Result<Self> {
        let nats_address = socket_of(&bootstrap.nats.url).context("nats.url")?;
        let redis_address = socket_of(&bootstrap.redis.url).context("redis.url")?;
        for (what, address) in [("nats.url", nats_address), ("redis.url", redis_address)] {
            ensure!(
                address.ip().is_loopback(),
                "{what}: `up` starts this server itself, on a loopback address only"
            );
        }
        let monitor = match &bootstrap.nats.monitor {
            Some(url) => Some(socket_of(url).context("nats.monitor")?),
            None => None,
        };
        let nats = Child::start(nats_recipe(bootstrap, data, nats_address, monitor)?).await?;
        let redis = async { Child::start(redis_recipe(data, redis_address)?).await };
        let redis = match redis.await {
            Ok(redis) => redis,
            Err(error) => {
                nats.stop().await;
                return Err(error);
            }
        };
        let servers = Self { nats, redis };
        let answered = servers.wait(nats_address, redis_address).await;
        if let Err(error) = answered {
            servers.stop().await;
            return Err(error.context(format!("see the logs in {}", data.display())));
        }
        Ok(servers)
    }

    async fn wait(&self, nats: SocketAddr, redis: SocketAddr) -> anyhow::Result<()> {
        let both = async {
            while TcpStream::connect(nats).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
            while ping_redis(redis).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(START, both).await.with_context(|| {
            format!("nats-server at {nats} or redis-server at {redis} does not answer")
        })
    }

    /// Stops both.
    pub(crate) async fn stop(self) {
        tokio::join!(self.nats.stop(), self.redis.stop());
    }
}

/// The address of a URL `scheme://[user@]IP:port`.
pub(crate) fn socket_of(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let authority = authority.replace("localhost:", &format!("{}:", Ipv4Addr::LOCALHOST));
    authority
        .parse()
        .with_context(|| format!("{url:?}: an address IP:port is expected"))
}

fn nats_recipe(
    bootstrap: &Bootstrap,
    data: &Path,
    address: SocketAddr,
    monitor: Option<SocketAddr>,
) -> anyhow::Result<Recipe> {
    let Some(program) = find_nats_server() else {
        bail!("nats-server is not installed (see `staffetta doctor`; `make servers` gets it)");
    };
    let least = if bootstrap.storage.replicas == 1 {
        LEAST_NATS_R1
    } else {
        LEAST_NATS_R3
    };
    ensure!(
        program.version >= least,
        "{} is version {}; {}.{} or newer is needed",
        program.path.display(),
        program.version_text(),
        least[0],
        least[1],
    );
    let store = data.join("nats");
    fs::create_dir_all(&store).with_context(|| store.display().to_string())?;
    let configuration = data.join("nats.conf");
    let text = nats_configuration(bootstrap, &store, address, monitor);
    fs::write(&configuration, text).with_context(|| configuration.display().to_string())?;
    Ok(Recipe {
        name: "nats-server",
        program: program.path,
        arguments: vec!["-c".to_owned(), configuration.display().to_string()],
        log: data.join("nats.log"),
        pid_file: data.join("nats.pid"),
        addresses: [(address, "nats.url")]
            .into_iter()
            .chain(monitor.map(|monitor| (monitor, "nats.monitor")))
            .collect(),
    })
}

/// `sync_interval: always` is what makes a 250 mean something on one machine.
fn nats_configuration(
    bootstrap: &Bootstrap,
    store: &Path,
    address: SocketAddr,
    monitor: Option<SocketAddr>,
) -> String {
    let sync = match bootstrap.durability {
        Durability::Strict => "always",
        Durability::Relaxed => "2m",
    };
    let monitor = monitor.map_or(String::new(), |monitor| format!("http: \"{monitor}\"\n"));
    format!(
        "# Written by `staffetta up` at every start; change staffetta.yaml instead.\n\
         server_name: staffetta-local\n\
         listen: \"{address}\"\n\
         {monitor}\
         max_payload: 8MB\n\
         jetstream {{\n  \
           store_dir: {store:?}\n  \
           max_memory_store: 64MB\n  \
           max_file_store: {volume}\n  \
           sync_interval: {sync}\n\
         }}\n",
        volume = bootstrap.storage.volume.as_u64(),
    )
}

fn redis_recipe(data: &Path, address: SocketAddr) -> anyhow::Result<Recipe> {
    let Some(program) = find_redis_server() else {
        bail!("redis-server is not installed (see `staffetta doctor`; `make servers` gets it)");
    };
    let folder = data.join("redis");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let arguments = [
        ("--bind", address.ip().to_string()),
        ("--port", address.port().to_string()),
        ("--dir", folder.display().to_string()),
        ("--appendonly", "yes".to_owned()),
        ("--appendfsync", "everysec".to_owned()),
        ("--save", String::new()),
        // Counters must not vanish one by one.
        ("--maxmemory-policy", "noeviction".to_owned()),
        ("--daemonize", "no".to_owned()),
        // So that it is known again after we were killed.
        ("--set-proc-title", "no".to_owned()),
    ];
    Ok(Recipe {
        name: "redis-server",
        program: program.path,
        arguments: arguments
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect(),
        log: data.join("redis.log"),
        pid_file: data.join("redis.pid"),
        addresses: vec![(address, "redis.url")],
    })
}

/// Asks a Redis server for PING and TIME; gives its clock in Unix milliseconds.
pub(crate) async fn ping_redis(address: SocketAddr) -> anyhow::Result<u64> {
    let dialogue = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"PING\r\nTIME\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        connection.take(4096).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), dialogue)
        .await
        .context("no answer within 5 s")??;
    let unexpected = || {
        anyhow::anyhow!(
            "answers {:?} to PING",
            answer.lines().next().unwrap_or_default()
        )
    };
    // +PONG, *2, $10, seconds, $6, microseconds, +OK
    let lines: Vec<&str> = answer.lines().collect();
    let ["+PONG", "*2", _, seconds, _, microseconds, ..] = lines.as_slice() else {
        return Err(unexpected());
    };
    let seconds: u64 = seconds.parse().map_err(|_| unexpected())?;
    let microseconds: u64 = microseconds.parse().map_err(|_| unexpected())?;
    Ok(seconds * 1000 + microseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_urls() {
        for (url, expected) in [
            ("nats://127.0.0.1:4222", "127.0.0.1:4222"),
            ("redis://user:password@localhost:6379/0", "127.0.0.1:6379"),
            ("http://[::1]:8222/", "[::1]:8222"),
        ] {
            assert_eq!(socket_of(url).unwrap(), expected.parse().unwrap(), "{url}");
        }
        assert!(socket_of("nats://nats.example:4222").is_err());
    }

    #[test]
    fn nats_syncs_every_record_unless_less_was_asked_for() {
        let configuration = |text: &str| {
            let bootstrap = Bootstrap::from_yaml(text).unwrap();
            let address = "127.0.0.1:4222".parse().unwrap();
            nats_configuration(&bootstrap, Path::new("/data/nats"), address, None)
        };
        let strict = configuration("");
        assert!(
            strict.contains("sync_interval: always")
                && strict.contains("store_dir: \"/data/nats\""),
            "{strict}"
        );
        assert!(configuration("durability: relaxed").contains("sync_interval: 2m"));
    }
}
