//! What dies under load: the ledger of the client and of the sinks must agree afterwards.
//!
//! Each test has one round by default. `SOAK_ROUNDS` asks for more, `SOAK_SEED` replays a soak; then
//! the end waits until attempts in doubt have been settled too (`make soak`).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use kit::{
    Action, Balance, Documents, Layout, Ledger, Load, LoadOptions, NatsServer, Queue, RedisServer,
    Relay, Rule, Setup, Signal, Sink, Stage, Zones, free_port_on, until,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longer than the lease of a partition (7 s) and than the pause before it is taken over.
const BEYOND_THE_LEASE: Duration = Duration::from_secs(12);
/// How long a soak lets the senders wait for a final reply: an attempt in doubt is settled 80 s later.
const FINAL_REPLY: &str = "10s";
/// Ample time for that, and for the attempts after it.
const DOUBT_SETTLES: Duration = Duration::from_secs(5 * 60);
/// Longer than anything that must happen takes, however busy the machine is.
const SETTLE: Duration = Duration::from_secs(180);

/// How long and with which dice.
struct Plan {
    rounds: u32,
    seed: u64,
    is_soak: bool,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let number = |name: &str| {
            std::env::var(name)
                .ok()
                .map(|text| text.parse::<u64>())
                .transpose()
        };
        let rounds = number("SOAK_ROUNDS")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let seed = number("SOAK_SEED")?.unwrap_or(u64::from(now.subsec_micros()));
        Ok(Self {
            rounds: u32::try_from(rounds.unwrap_or(1))?,
            seed,
            is_soak: rounds.is_some(),
        })
    }
}

/// An installation with two destinations, under load.
struct Trial {
    relay: Relay,
    sinks: [Sink; 2],
    load: Load,
    dice: StdRng,
}

impl Trial {
    /// Each trial has loopback addresses of its own: 127.30.`number`.x.
    async fn start(setup: Setup, plan: &Plan, number: u8, port: u16) -> Result<Self> {
        let sinks = sinks(number, port).await?;
        let relay = Relay::start(setup).await?;
        Self::over(relay, sinks, plan).await
    }

    /// Load on an installation that runs.
    async fn over(relay: Relay, sinks: [Sink; 2], plan: &Plan) -> Result<Self> {
        let options = LoadOptions {
            connections: 8,
            rate: Some(100.0),
            size: 5000,
            sender: "app@acme.example".to_owned(),
            domains: vec!["one.example".to_owned(), "two.example".to_owned()],
            prefix: "message".to_owned(),
            messages: u64::MAX,
        };
        let load = Load::start(relay.submission(), options);
        let trial = Self {
            relay,
            sinks,
            load,
            dice: StdRng::seed_from_u64(plan.seed),
        };
        trial.progress("before anything dies").await?;
        Ok(trial)
    }

    /// Lets the load go on for a while, 0.5 to 3 s.
    async fn a_while(&mut self) {
        let pause = self.dice.random_range(500..3000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Waits until messages are accepted and delivered again.
    async fn progress(&self, when: &str) -> Result<()> {
        // What the journal trims later is read now.
        self.relay.events().await.map(drop).unwrap_or_default();
        let (accepted, delivered) = (self.load.accepted(), self.delivered());
        let moved = || async {
            (self.load.accepted() > accepted + 20 && self.delivered() > delivered + 20)
                .then_some(())
        };
        until(&format!("mail that moves {when}"), SETTLE, moved).await
    }

    fn delivered(&self) -> usize {
        self.sinks.iter().map(Sink::count).sum()
    }

    /// Ends the load, waits until all that was accepted is accounted for, and checks the ledger.
    async fn settle(self, plan: &Plan) -> Result<()> {
        let Self {
            relay, sinks, load, ..
        } = self;
        let ledger = load.stop().await?;
        let limit = if plan.is_soak { DOUBT_SETTLES } else { SETTLE };
        let start = Instant::now();
        let (balance, queue) = loop {
            let (balance, queue) = match account(&relay, &sinks, &ledger).await {
                Ok(accounts) => accounts,
                // An owner that is just gone does not answer.
                Err(error) if start.elapsed() > limit => return Err(error),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            // A partition that is being handed over is in nobody's queue for a moment: what is missing and not
            // in doubt may still come, and is lost only when it has not come in the end.
            let accounted = balance.missing.len() as u64 <= queue.in_doubt;
            if queue.is_still() && accounted && (!plan.is_soak || queue.in_doubt == 0) {
                break (balance, queue);
            }
            if start.elapsed() > limit {
                break (balance, queue);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let ever_in_doubt = relay.settled_in_doubt().await? + queue.in_doubt;
        println!(
            "seed {}: {balance} in_doubt={ever_in_doubt} settled in {:?}",
            plan.seed,
            start.elapsed()
        );
        ensure!(
            balance.missing.len() as u64 <= queue.in_doubt,
            "lost: {balance}, and only {queue:?} is waiting: {:?}",
            balance.missing.iter().take(10).collect::<Vec<_>>()
        );
        ensure!(
            balance.duplicates <= ever_in_doubt,
            "{balance}, but only {ever_in_doubt} were ever in doubt"
        );
        ensure!(
            balance.refused_delivered.is_empty(),
            "refused and delivered all the same: {:?}",
            balance.refused_delivered
        );
        ensure!(
            sinks
                .iter()
                .all(|sink| sink.received().iter().all(|received| received.intact)),
            "a body was changed"
        );
        relay.finish()
    }
}

async fn account(relay: &Relay, sinks: &[Sink; 2], ledger: &Ledger) -> Result<(Balance, Queue)> {
    // The queue first: what leaves it in between is at a sink already.
    let queue = relay.queue().await?;
    Ok((
        ledger.balance(&[&sinks[0], &sinks[1]], &HashSet::new()),
        queue,
    ))
}

/// Slow enough that there is always something in the middle of a transaction.
async fn sinks(number: u8, port: u16) -> Result<[Sink; 2]> {
    let slow = || {
        vec![Rule::at(
            Stage::Dot,
            Action::Delay(Duration::from_millis(20)),
        )]
    };
    let [one, two] = hosts(number);
    Ok([
        Sink::start_counting(SocketAddr::new(one, port), slow()).await?,
        Sink::start_counting(SocketAddr::new(two, port), slow()).await?,
    ])
}

fn hosts(number: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(127, 30, number, 1).into(),
        Ipv4Addr::new(127, 30, number, 2).into(),
    ]
}

/// An installation whose destinations are those of trial `number`.
fn setup(plan: &Plan, test: &str, number: u8) -> Result<(Setup, u16)> {
    let [one, two] = hosts(number);
    let port = free_port_on(&[one, two])?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .mx("two.example", 10, "mx.two.example")
        .address("mx.one.example", one)
        .address("mx.two.example", two);
    let mut documents = Documents::new(port);
    if plan.is_soak {
        documents.shaping = format!(
            "[ {{ connections: 10, messagesPerConnection: 100, finalReplyTimeout: {FINAL_REPLY} }} ]"
        );
    }
    Ok((Setup::new(test, zones, documents.yaml()), port))
}

/// One service is killed and started again, round after round.
async fn kill_service(test: &str, number: u8, service: &str, layout: Layout) -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, test, number)?;
    let mut trial = Trial::start(setup.layout(layout), &plan, number, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        trial.relay.kill9(service)?;
        trial.a_while().await;
        trial.relay.start_process(service)?;
        trial.relay.wait_ready().await?;
        trial
            .progress(&format!("after {service} was killed (round {round})"))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn kill_ingress() -> Result<()> {
    kill_service("kill-ingress", 1, "ingress", Layout::Separate).await
}

#[tokio::test]
async fn kill_signer() -> Result<()> {
    kill_service("kill-signer", 2, "signer", Layout::Separate).await
}

#[tokio::test]
async fn kill_scheduler() -> Result<()> {
    kill_service("kill-scheduler", 3, "scheduler", Layout::Separate).await
}

#[tokio::test]
async fn kill_sender() -> Result<()> {
    kill_service("kill-sender", 4, "sender", Layout::Separate).await
}

#[tokio::test]
async fn kill_feedback() -> Result<()> {
    kill_service("kill-feedback", 5, "feedback", Layout::Separate).await
}

#[tokio::test]
async fn kill_all_in_one() -> Result<()> {
    kill_service("kill-all-in-one", 6, "all", Layout::AllInOne).await
}

#[tokio::test]
async fn kill_all_services_at_once() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "kill-all", 7)?;
    let mut trial = Trial::start(setup, &plan, 7, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        let names = trial.relay.names().to_vec();
        for name in &names {
            trial.relay.signal(name, Signal::Kill)?;
        }
        for name in &names {
            trial.relay.kill9(name)?;
        }
        for name in &names {
            trial.relay.start_process(name)?;
        }
        trial.relay.wait_ready().await?;
        trial
            .progress(&format!("after all were killed (round {round})"))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn kill_nats() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "kill-nats", 8)?;
    let mut trial = Trial::start(setup, &plan, 8, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        trial.relay.nats.kill9()?;
        trial.a_while().await;
        trial.relay.nats.restart().await?;
        trial.relay.wait_ready().await?;
        trial
            .progress(&format!("after nats-server was killed (round {round})"))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn kill_one_of_three_nats_servers() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (mut setup, port) = setup(&plan, "kill-nats-of-three", 13)?;
    setup.nats_servers = 3;
    let mut trial = Trial::start(setup, &plan, 13, port).await?;
    let mut victim = trial.dice.random_range(0..3);
    for round in 0..plan.rounds {
        // One, and another when the first is back with all it has missed.
        for _ in 0..2 {
            trial.a_while().await;
            nats_server(&mut trial.relay, victim)?.kill9()?;
            trial
                .progress(&format!("with two of three nats-servers (round {round})"))
                .await?;
            let server = nats_server(&mut trial.relay, victim)?;
            server.restart().await?;
            server.wait_healthy().await?;
            trial
                .progress(&format!(
                    "with all three nats-servers again (round {round})"
                ))
                .await?;
            victim = (victim + trial.dice.random_range(1..3)) % 3;
        }
    }
    trial.settle(&plan).await
}

/// One of the three by its number.
fn nats_server(relay: &mut Relay, number: usize) -> Result<&mut NatsServer> {
    std::iter::once(&mut relay.nats)
        .chain(&mut relay.nats_peers)
        .nth(number)
        .context("there are three")
}

#[tokio::test]
async fn kill_redis() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "kill-redis", 9)?;
    let mut trial = Trial::start(setup, &plan, 9, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        trial.relay.redis.kill9()?;
        // Mail moves on without it, within the safe share.
        trial
            .progress(&format!("without redis-server (round {round})"))
            .await?;
        trial.relay.redis.restart().await?;
        trial
            .progress(&format!(
                "after redis-server came back empty (round {round})"
            ))
            .await?;
    }
    trial.settle(&plan).await
}

/// A master and its replica, of which the master dies and comes back as a replica of the other one.
#[tokio::test]
async fn replace_redis_by_its_replica() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "replace-redis", 14)?;
    let sinks = sinks(14, port).await?;
    let mut relay = Relay::prepare(&setup).await?;
    let mut second = RedisServer::start(&relay.folder().join("redis-2")).await?;
    second.follow(&relay.redis).await?;
    let both = format!("{},{}", second.url(), relay.redis.url());
    for name in relay.names().to_vec() {
        relay.reconfigure(&name, &relay.redis.url(), &both)?;
    }
    relay.start_all(&setup).await?;
    let mut trial = Trial::over(relay, sinks, &plan).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        let (master, replica) = match round % 2 {
            0 => (&mut trial.relay.redis, &second),
            _ => (&mut second, &trial.relay.redis),
        };
        master.kill9()?;
        replica.promote()?;
        until("a scheduler at the replica", SETTLE, || async {
            let run = replica.ask(&["HGET", "staffetta:epoch", "run"]).ok()?;
            let info = replica.ask(&["INFO", "server"]).ok()?;
            info.contains(&format!("run_id:{run}")).then_some(())
        })
        .await?;
        master.restart().await?;
        master.follow(replica).await?;
        trial
            .progress(&format!(
                "after redis-server was replaced by its replica (round {round})"
            ))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn stop_sender_in_the_middle_of_transactions() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "stop-sender", 10)?;
    let mut trial = Trial::start(setup.with("sender-2"), &plan, 10, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        trial.relay.signal("sender", Signal::Stop)?;
        // The other sender goes on.
        trial
            .progress(&format!("with one sender stopped (round {round})"))
            .await?;
        tokio::time::sleep(Duration::from_secs(30)).await;
        trial.relay.signal("sender", Signal::Continue)?;
        trial
            .progress(&format!("after the sender came to itself (round {round})"))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn stop_scheduler_beyond_its_lease() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "stop-scheduler", 11)?;
    let mut trial = Trial::start(setup.with("scheduler-2"), &plan, 11, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        let victim = if round % 2 == 0 {
            "scheduler"
        } else {
            "scheduler-2"
        };
        trial.relay.signal(victim, Signal::Stop)?;
        tokio::time::sleep(BEYOND_THE_LEASE).await;
        trial
            .progress(&format!("with {victim} stopped (round {round})"))
            .await?;
        // It wakes up and believes that it still owns its partitions; its first record is refused.
        trial.relay.signal(victim, Signal::Continue)?;
        trial
            .progress(&format!("after {victim} came to itself (round {round})"))
            .await?;
    }
    trial.settle(&plan).await
}

#[tokio::test]
async fn kill_a_scheduler_and_its_partitions_are_taken_over() -> Result<()> {
    let plan = Plan::from_environment()?;
    let (setup, port) = setup(&plan, "take-over", 12)?;
    let mut trial = Trial::start(setup.with("scheduler-2"), &plan, 12, port).await?;
    for round in 0..plan.rounds {
        trial.a_while().await;
        let victim = if round % 2 == 0 {
            "scheduler"
        } else {
            "scheduler-2"
        };
        trial.relay.kill9(victim)?;
        let killed_at = Instant::now();
        until("all partitions owned again", SETTLE, || async {
            trial
                .relay
                .queue()
                .await
                .is_ok_and(|queue| queue.unowned == 0)
                .then_some(())
        })
        .await?;
        println!("the take-over took {:?}", killed_at.elapsed());
        trial
            .progress(&format!("after the take-over (round {round})"))
            .await?;
        trial.relay.start_process(victim)?;
        trial.relay.wait_ready().await?;
    }
    trial.settle(&plan).await
}
