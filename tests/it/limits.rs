//! A limit of connections holds, in the eyes of the host that has it, while schedulers die in turn and Redis is stopped,
//! emptied and replaced by its replica; and nothing is lost. Rates are looked at in `tests/limits`.

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

/// Three schedulers, two senders, a master with its replica, and a host with a limit of connections, which is slow enough
/// that they are all wanted.
struct Trial {
    relay: Relay,
    second: RedisServer,
    narrow: Sink,
    load: Load,
}

const SCHEDULERS: [&str; 3] = ["scheduler", "scheduler-2", "scheduler-3"];

impl Trial {
    async fn start(test: &str, number: u8) -> Result<Self> {
        let host = IpAddr::from(Ipv4Addr::new(127, 34, number, 1));
        let port = free_port_on(&[host])?;
        let slow = Rule::at(Stage::Dot, Action::Delay(Duration::from_millis(50)));
        let narrow = Sink::start_counting(SocketAddr::new(host, port), vec![slow]).await?;
        let zones = Zones::new()
            .mx("narrow.example", 10, "mx.narrow.example")
            .address("mx.narrow.example", host);
        let mut documents = Documents::new(port);
        documents.shaping =
            format!("[ {{ connections: {CONNECTIONS}, messagesPerConnection: 20 }} ]");
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
            rate: Some(40.0),
            size: 1000,
            sender: "app@acme.example".to_owned(),
            domains: vec!["narrow.example".to_owned()],
            prefix: test.to_owned(),
            messages: 900,
        };
        let load = Load::start(relay.submission(), options);
        let trial = Self {
            relay,
            second,
            narrow,
            load,
        };
        trial.progress("in the beginning").await?;
        Ok(trial)
    }

    /// Waits until the host gets more mail.
    async fn progress(&self, when: &str) -> Result<()> {
        let before = self.narrow.count();
        let moved = || async { (self.narrow.count() > before + 20).then_some(()) };
        until(&format!("mail that moves {when}"), SETTLE, moved).await
    }

    /// Once everything is delivered: no limit was exceeded, and nothing is missing.
    async fn settle(self) -> Result<()> {
        let Self {
            relay,
            second,
            narrow,
            load,
        } = self;
        let ledger = load.stop().await?;
        until("all mail at the hosts", SETTLE, || async {
            let balance = ledger.balance(&[&narrow], &HashSet::new());
            let in_doubt = relay.queue().await.ok()?.in_doubt;
            (balance.missing.len() as u64 <= in_doubt).then_some(())
        })
        .await?;
        println!("{} connections", narrow.most_open_connections());
        ensure!(
            narrow.most_open_connections() <= CONNECTIONS,
            "{} connections",
            narrow.most_open_connections()
        );
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
