//! A limit of connections holds, in the eyes of the host that has it, while schedulers die in turn and Redis is stopped,
//! emptied and replaced by its replica; and nothing is lost. So does one that all sites of a provider have together. Rates
//! are looked at in `tests/limits`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Action, Documents, Load, LoadOptions, RedisServer, Relay, Rule, Setup, Signal, Sink, Stage,
    Zones, free_port_on, metric, until,
};

/// Longer than anything that must happen takes, however busy the machine is.
const SETTLE: Duration = Duration::from_secs(240);
const CONNECTIONS: u64 = 3;
/// Of the provider: each domain has an MX host of its own name, and all are one machine.
const SITES: u64 = 3;

/// Three schedulers, two senders, a master with its replica, a host with a limit of connections, and a provider with one for
/// all its sites, which are slow enough that they are all wanted.
struct Trial {
    relay: Relay,
    second: RedisServer,
    narrow: Sink,
    provider: Sink,
    load: Load,
}

const SCHEDULERS: [&str; 3] = ["scheduler", "scheduler-2", "scheduler-3"];

impl Trial {
    async fn start(test: &str, number: u8) -> Result<Self> {
        let host = IpAddr::from(Ipv4Addr::new(127, 34, number, 1));
        let other = IpAddr::from(Ipv4Addr::new(127, 34, number, 2));
        let port = free_port_on(&[host, other])?;
        let slow = || {
            vec![Rule::at(
                Stage::Dot,
                Action::Delay(Duration::from_millis(50)),
            )]
        };
        let narrow = Sink::start_counting(SocketAddr::new(host, port), slow()).await?;
        let provider = Sink::start_counting(SocketAddr::new(other, port), slow()).await?;
        let mut zones = Zones::new()
            .mx("narrow.example", 10, "mx.narrow.example")
            .address("mx.narrow.example", host);
        // Half of the mail is for each.
        let mut domains = Vec::new();
        for site in 0..SITES {
            let (domain, mx) = (
                format!("site{site}.example"),
                format!("mx{site}.big.example"),
            );
            zones = zones.mx(&domain, 10, &mx).address(&mx, other);
            domains.extend(["narrow.example".to_owned(), domain]);
        }
        let mut documents = Documents::new(port);
        documents.shaping = format!(
            "[ {{ connections: {CONNECTIONS}, messagesPerConnection: 20 }}, {{ match: {{ provider: big }}, scope: provider, connections: {CONNECTIONS} }} ]"
        );
        documents.more = "---
apiVersion: staffetta.dev/v1alpha1
kind: Provider
metadata: { name: big }
spec: { mx: [.big.example] }
"
        .to_owned();
        let mut setup = Setup::new(test, zones, documents.yaml())
            .with("scheduler-2")
            .with("scheduler-3")
            .with("sender-2");
        setup.partitions = 4;
        let mut relay = Relay::prepare(&setup).await?;
        let second = RedisServer::start(&relay.folder().join("redis-2")).await?;
        second.follow(&relay.redis).await?;
        let both = format!("{},{}", relay.redis.url(), second.url());
        for name in relay.names().to_vec() {
            relay.reconfigure(&name, &relay.redis.url(), &both)?;
        }
        relay.start_all(&setup).await?;
        let options = LoadOptions {
            connections: 4,
            rate: Some(80.0),
            size: 1000,
            sender: "app@acme.example".to_owned(),
            domains,
            prefix: test.to_owned(),
            messages: 1800,
        };
        let load = Load::start(relay.submission(), options);
        let trial = Self {
            relay,
            second,
            narrow,
            provider,
            load,
        };
        trial.progress("in the beginning").await?;
        Ok(trial)
    }

    /// Waits until both hosts get more mail.
    async fn progress(&self, when: &str) -> Result<()> {
        let counts = || (self.narrow.count(), self.provider.count());
        let before = counts();
        let moved = || async {
            let now = counts();
            (now.0 > before.0 + 20 && now.1 > before.1 + 20).then_some(())
        };
        until(&format!("mail that moves {when}"), SETTLE, moved).await
    }

    /// Once everything is delivered: no limit was exceeded, and nothing is missing.
    async fn settle(self) -> Result<()> {
        let Self {
            relay,
            second,
            narrow,
            provider,
            load,
        } = self;
        let ledger = load.stop().await?;
        until("all mail at the hosts", SETTLE, || async {
            let balance = ledger.balance(&[&narrow, &provider], &HashSet::new());
            let in_doubt = relay.queue().await.ok()?.in_doubt;
            (balance.missing.len() as u64 <= in_doubt).then_some(())
        })
        .await?;
        for host in [&narrow, &provider] {
            let most = host.most_open_connections();
            println!("{most} connections");
            ensure!(most <= CONNECTIONS, "{most} connections");
        }
        drop(second);
        relay.finish()
    }
}

#[tokio::test]
async fn no_limit_is_exceeded_when_schedulers_are_killed_in_turn() -> Result<()> {
    let mut trial = Trial::start("limits-kill", 1).await?;
    for victim in SCHEDULERS {
        trial.relay.kill9(victim)?;
        let owned = || async {
            let queue = trial.relay.queue().await.ok()?;
            (queue.unowned == 0).then_some(())
        };
        until("all partitions owned again", SETTLE, owned).await?;
        trial
            .progress(&format!("after {victim} was killed"))
            .await?;
        trial.relay.start_process(victim)?;
        trial.relay.wait_ready().await?;
    }
    trial.settle().await
}

#[tokio::test]
async fn no_limit_is_exceeded_when_redis_is_stopped_emptied_and_replaced_by_its_replica()
-> Result<()> {
    let mut trial = Trial::start("limits-redis", 2).await?;
    let redis = &trial.relay.redis;
    redis.process().context("it runs")?.signal(Signal::Stop)?;
    trial.progress("while Redis hangs").await?;
    redis
        .process()
        .context("it runs")?
        .signal(Signal::Continue)?;
    trial.progress("after Redis came to itself").await?;
    redis.ask(&["FLUSHALL"])?;
    trial.progress("after Redis was emptied").await?;
    trial.relay.redis.kill9()?;
    trial.second.promote()?;
    trial
        .progress("after Redis was replaced by its replica")
        .await?;
    for scheduler in SCHEDULERS {
        let connected = || async {
            let metrics = trial.relay.metrics(scheduler).await;
            (metric(&metrics, "staffetta_scheduler_redis_connected", "") == 1.0).then_some(())
        };
        until("the replica is used", SETTLE, connected).await?;
    }
    trial.settle().await
}
