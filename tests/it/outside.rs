//! The command-line tool from outside: over TLS with certificates on both sides, and at servers that want a password.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use kit::{Documents, RedisServer, Relay, Setup, Zones, free_port};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// What the certificate says, unlike the address that a port-forward gives.
const NAME: &str = "relay-scheduler-admin.example";

/// An authority, and what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        std::fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            folder,
        })
    }

    fn sign(&self, whom: &str, folder: &Path) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec![whom.to_owned()])?.signed_by(&key, &self.issuer)?;
        std::fs::write(folder.join("tls.crt"), certificate.pem())?;
        Ok(std::fs::write(folder.join("tls.key"), key.serialize_pem())?)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// `staffetta queue` over TLS: whom we trust, and who we say we are.
async fn queue(
    relay: &Relay,
    address: SocketAddr,
    trusted: &Authority,
    ours: Option<&Authority>,
) -> Result<Value> {
    let (server, ca) = (format!("https://{address}"), trusted.file("ca.crt"));
    let mut arguments = vec!["queue", "--output", "json", "--server", &server];
    arguments.extend(["--tls-ca", &ca, "--tls-name", NAME]);
    let files = ours.map(|ours| (ours.file("tls.crt"), ours.file("tls.key")));
    if let Some((certificate, key)) = &files {
        arguments.extend(["--tls-certificate", certificate, "--tls-key", key]);
    }
    Ok(serde_json::from_str(&relay.command(&arguments).await?)?)
}

#[tokio::test]
async fn a_scheduler_answers_outside_over_tls_to_who_has_a_certificate() -> Result<()> {
    let setup = Setup::new("outside", Zones::new(), Documents::new(25).yaml());
    let mut relay = Relay::prepare(&setup).await?;
    relay.command(&["init"]).await?;

    let folder = relay.folder().to_owned();
    let operators = Authority::new(&folder, "operators")?;
    operators.sign("alice", &operators.folder)?;
    let strangers = Authority::new(&folder, "strangers")?;
    strangers.sign("alice", &strangers.folder)?;
    let [first, second] = ["first", "second"].map(|name| Authority::new(&folder, name));
    let (first, second) = (first?, second?);
    first.sign(NAME, &folder)?;
    let address = SocketAddr::new(LOOPBACK, free_port(LOOPBACK)?);
    let admin = format!(
        "scheduler: {{ admin: {{ listen: \"{address}\", certificate: tls.crt, key: tls.key, clientAuthorities: {:?} }}, ",
        operators.file("ca.crt")
    );
    relay.reconfigure("scheduler", "scheduler: { ", &admin)?;
    relay.start_process("scheduler")?;
    relay.wait_ready().await?;
    relay.apply(&setup.documents).await?;

    let answer = queue(&relay, address, &first, Some(&operators)).await?;
    ensure!(answer["waiting"] == 0, "{answer}");
    for (why, trusted, ours) in [
        ("no certificate", &first, None),
        ("another's certificate", &first, Some(&strangers)),
        ("a server that is not ours", &second, Some(&operators)),
    ] {
        let refused = queue(&relay, address, trusted, ours).await;
        ensure!(refused.is_err(), "{why}: {refused:?}");
    }
    let plain = ["queue", "--server", &format!("http://{address}")];
    ensure!(relay.command(&plain).await.is_err(), "without TLS");

    // Renewed by another authority, with no restart.
    second.sign(NAME, &folder)?;
    ensure!(
        queue(&relay, address, &first, Some(&operators))
            .await
            .is_err()
    );
    queue(&relay, address, &second, Some(&operators)).await?;
    relay.finish()
}

#[tokio::test]
async fn the_doctor_gets_into_a_redis_that_wants_a_password_and_shows_none() -> Result<()> {
    let setup = Setup::new("doctor", Zones::new(), Documents::new(25).yaml());
    let mut relay = Relay::prepare(&setup).await?;
    relay.command(&["init"]).await?;
    let url = relay.redis.url();
    let host = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut redis = TcpStream::connect(host)?;
    redis.write_all(b"CONFIG SET requirepass s3cret-word\r\n")?;
    let mut answer = [0; 5];
    redis.read_exact(&mut answer)?;
    ensure!(&answer == b"+OK\r\n");

    let without = doctor(&relay).await;
    ensure!(
        without.contains("\"missing\"") && without.contains("NOAUTH"),
        "{without}"
    );
    let with = url.replace("redis://", "redis://:s3cret-word@");
    relay.reconfigure("scheduler", &url, &with)?;
    let let_in = doctor(&relay).await;
    ensure!(
        let_in.contains("its clock differs by") && !let_in.contains("s3cret-word"),
        "{let_in}"
    );
    // With a replica whose master can't be reached.
    let replica = RedisServer::start(&relay.folder().join("redis-2")).await?;
    replica.ask(&["REPLICAOF", "127.0.0.1", "1"])?;
    relay.reconfigure("scheduler", &with, &format!("{},{with}", replica.url()))?;
    let both = doctor(&relay).await;
    ensure!(
        both.contains("(a replica)") && both.matches("its clock differs by").count() == 2,
        "{both}"
    );
    relay.reconfigure("scheduler", &format!(",{with}"), "")?;
    let none = doctor(&relay).await;
    ensure!(none.contains("none is the master"), "{none}");
    relay.finish()
}

/// What it says about Redis; other things may be missing on this machine.
async fn doctor(relay: &Relay) -> String {
    let said = match relay.command(&["doctor", "--output", "json"]).await {
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    let of_redis = said.lines().filter(|line| line.contains("\"Redis\""));
    of_redis.collect()
}
