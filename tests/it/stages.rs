//! A sender that is killed at every stage of a transaction.
//!
//! Each stage has a host that stays in it. The sender dies when all hosts are where they should be; what it had not begun goes out
//! by another at once, what it had begun is in doubt. In the long form (`SOAK_ROUNDS`) this is done round after round, for each
//! thing that a stream can do about doubt, and waited for.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kit::{
    Action, Documents, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones, free_port_on,
    message, metric, until,
};

/// Longer than anything that must happen takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a test.
const HOUR: Duration = Duration::from_secs(3_600);
/// In the long form an attempt is in doubt for 80 s more than this. The hosts must all be reached within it.
const FINAL_REPLY: &str = "40s";
/// So many rounds are over before what is in doubt since the first is settled, and could be cut off again.
const MOST_ROUNDS: u32 = 4;
/// Ample time for that, and what follows.
const DOUBT_SETTLES: Duration = Duration::from_secs(300);

/// Where a host stays, and whether the sender has reported a begin by then.
struct Place {
    name: &'static str,
    stage: Stage,
    begun: bool,
    /// The host has taken the message, and has not said so.
    takes: bool,
}

const fn place(name: &'static str, stage: Stage, begun: bool) -> Place {
    Place {
        name,
        stage,
        begun,
        takes: false,
    }
}

const PLACES: [Place; 9] = [
    place("banner", Stage::Connect, false),
    place("ehlo", Stage::Hello, false),
    place("starttls", Stage::StartTls, false),
    place("mail", Stage::Mail, true),
    place("rcpt", Stage::Recipient, true),
    place("data", Stage::Data, true),
    place("content", Stage::Content, true),
    place("dot", Stage::Dot, true),
    Place {
        name: "reply",
        stage: Stage::Dot,
        begun: true,
        takes: true,
    },
];
const BEGUN: usize = 6;

/// Addresses of a round are its own: what is in doubt since another round is not kept up again.
fn sender(round: u32) -> String {
    format!("app{round}@acme.example")
}

impl Place {
    fn recipient(&self, round: u32) -> String {
        format!("user{round}@{}.example", self.name)
    }

    /// Once, and then as hosts should.
    fn rules(&self, round: u32) -> Vec<Rule> {
        let action = match self.takes {
            true => Action::TakeAndDelay(HOUR),
            false => Action::Delay(HOUR),
        };
        let rule = Rule::at(self.stage, action).times(1);
        vec![match self.stage {
            Stage::Connect | Stage::Hello | Stage::StartTls => rule,
            // Of recipients nothing is known yet.
            Stage::Mail => rule.from(&sender(round)),
            _ => rule.to(&self.recipient(round)),
        }]
    }
}

struct Trial {
    relay: Relay,
    hosts: Vec<Sink>,
    home: Sink,
    /// What was sent so far: the place, and the token.
    sent: Vec<(usize, String)>,
}

impl Trial {
    /// Hosts at 127.32.`number`.x. `in_doubt` is what the stream does about doubt.
    async fn start(test: &str, number: u8, in_doubt: &str, is_soak: bool) -> Result<Self> {
        let address = |host: u8| IpAddr::from(Ipv4Addr::new(127, 32, number, host));
        let count = u8::try_from(PLACES.len())?;
        let addresses: Vec<IpAddr> = (1..=count + 1).map(address).collect();
        let port = free_port_on(&addresses)?;
        let mut zones = Zones::new();
        let mut hosts = Vec::new();
        for (place, address) in PLACES.iter().zip(&addresses) {
            let host = format!("mx.{}.example", place.name);
            zones = zones
                .mx(&format!("{}.example", place.name), 10, &host)
                .address(&host, *address);
            let at = SocketAddr::new(*address, port);
            hosts.push(match place.stage {
                Stage::StartTls => Sink::start_with_tls(at, &host, Vec::new()).await?,
                _ => Sink::start(at, Vec::new()).await?,
            });
        }
        // DSNs go there.
        let home_address = address(count + 1);
        let home = Sink::start(SocketAddr::new(home_address, port), Vec::new()).await?;
        zones = zones
            .mx("acme.example", 10, "mx.acme.example")
            .address("mx.acme.example", home_address);
        let mut documents = Documents::new(port);
        documents.in_doubt = in_doubt.to_owned();
        if is_soak {
            documents.shaping = format!(
                "[ {{ connections: 10, messagesPerConnection: 1, tls: opportunistic, finalReplyTimeout: {FINAL_REPLY} }} ]"
            );
        }
        let setup = Setup::new(test, zones, documents.yaml());
        Ok(Self {
            relay: Relay::start(setup).await?,
            hosts,
            home,
            sent: Vec::new(),
        })
    }

    /// One message for each stage; the sender is killed when all are there, and started again.
    async fn kill_at_every_stage(&mut self, round: u32) -> Result<()> {
        let mut ids = Vec::new();
        for (number, (place, host)) in PLACES.iter().zip(&self.hosts).enumerate() {
            host.set_rules(place.rules(round));
            let token = format!("{}-{round}", place.name);
            let (from, to) = (sender(round), place.recipient(round));
            let content = message(&token, &from, &to, 3_000);
            let mut session = Session::open(self.relay.submission(), PATIENCE).await?;
            let outcome = session.submit(&from, &[to], &content).await?;
            let Outcome::Accepted(reply) = outcome else {
                bail!("{outcome:?}");
            };
            let id = reply.rsplit(' ').next().context("the reply has an id")?;
            ids.push(format!("\"message_id\":\"{id}\""));
            self.sent.push((number, token));
        }
        let delayed_before = u64::from(round);
        until(
            "hosts that all keep the sender waiting",
            PATIENCE,
            || async {
                let all_wait = self
                    .hosts
                    .iter()
                    .all(|host| host.delayed() > delayed_before);
                (all_wait && self.attempts(&ids).await.ok()? == BEGUN).then_some(())
            },
        )
        .await?;

        self.relay.kill9("sender")?;
        let killed_at = Instant::now();
        self.relay.start_process("sender")?;
        let not_begun = PLACES.len() - BEGUN;
        until("what was not begun", PATIENCE, || async {
            let of_hosts = self
                .hosts
                .iter()
                .zip(&PLACES)
                .filter(|(_, place)| !place.begun);
            let arrived = of_hosts.map(|(host, _)| host.count()).sum::<usize>();
            (arrived == not_begun * (round as usize + 1)).then_some(())
        })
        .await?;
        println!(
            "round {round}: what was not begun is delivered {:?} after the kill",
            killed_at.elapsed()
        );
        Ok(())
    }

    /// Attempts of these messages that are in the journal.
    async fn attempts(&self, ids: &[String]) -> Result<usize> {
        let events = self.relay.events().await?;
        let is_one = |line: &&str| {
            line.contains("\"type\":\"Attempt\"") && ids.iter().any(|id| line.contains(id))
        };
        Ok(events.lines().filter(is_one).count())
    }

    /// What the hosts have of each token.
    fn arrived(&self) -> HashMap<&str, usize> {
        let mut arrived: HashMap<&str, usize> = HashMap::new();
        for (number, token) in &self.sent {
            let received = self.hosts[*number].received();
            let count = received.iter().filter(|received| received.token == *token);
            arrived.insert(token, count.count());
        }
        arrived
    }
}

/// The short form: doubt is counted and shown, and not waited for.
#[tokio::test]
async fn what_was_begun_is_in_doubt_and_the_rest_goes_out_at_once() -> Result<()> {
    let mut trial = Trial::start("kill-at-stages", 1, "retry", false).await?;
    trial.kill_at_every_stage(0).await?;
    let doubtful = until("all that is in doubt", PATIENCE, || async {
        let queue = trial.relay.queue().await.ok()?;
        (queue.is_still()).then_some(queue.in_doubt)
    })
    .await?;
    ensure!(doubtful == BEGUN as u64, "{doubtful} in doubt");
    let shown = "staffetta_scheduler_in_doubt_deliveries";
    // The gauge is set from time to time.
    until("all of it counted", PATIENCE, || async {
        let counted = metric(&trial.relay.metrics("scheduler").await, shown, "");
        (counted == BEGUN as f64).then_some(())
    })
    .await?;
    let arrived = trial.arrived();
    for place in &PLACES {
        let expected = usize::from(!place.begun || place.takes);
        let token = format!("{}-0", place.name);
        let found = arrived.get(&*token).copied();
        ensure!(found == Some(expected), "{token}: {found:?}");
    }
    trial.relay.finish()
}

/// The long form. Without `SOAK_ROUNDS` there is nothing to do here.
#[tokio::test]
async fn kill_sender_at_every_stage() -> Result<()> {
    let Ok(rounds) = std::env::var("SOAK_ROUNDS") else {
        return Ok(());
    };
    let rounds: u32 = rounds.parse().context("SOAK_ROUNDS")?;
    let rounds = rounds.min(MOST_ROUNDS);
    for (number, in_doubt) in (2..).zip(["retry", "hold", "giveUp"]) {
        let test = format!("kill-at-stages-{in_doubt}");
        let mut trial = Trial::start(&test, number, in_doubt, true).await?;
        for round in 0..rounds {
            trial.kill_at_every_stage(round).await?;
        }
        settle(trial, in_doubt, rounds as usize).await?;
    }
    Ok(())
}

/// Waits until nothing is in doubt any more, and looks at what has become of it.
async fn settle(trial: Trial, in_doubt: &str, rounds: usize) -> Result<()> {
    let doubtful = BEGUN * rounds;
    let on_hold = if in_doubt == "hold" { doubtful } else { 0 };
    until("the end of doubt", DOUBT_SETTLES, || async {
        let queue = trial.relay.queue().await.ok()?;
        let left = queue.in_flight + queue.in_doubt + queue.dsn_owed + queue.unowned;
        (left == 0 && queue.waiting == on_hold as u64).then_some(())
    })
    .await?;
    let arrived = trial.arrived();
    for (number, token) in &trial.sent {
        let place = &PLACES[*number];
        let expected = match (place.begun, in_doubt) {
            (false, _) => 1,
            // The only ones that come twice: they were taken, and nobody heard of it.
            (true, "retry") => 1 + usize::from(place.takes),
            (true, _) => usize::from(place.takes),
        };
        let found = arrived.get(&**token).copied();
        ensure!(found == Some(expected), "{in_doubt}: {token}: {found:?}");
    }
    let events = trial.relay.events().await?;
    let settled = events.matches("\"type\":\"InDoubt\"").count();
    let bounced = events.matches("\"type\":\"Bounce\"").count();
    match in_doubt {
        "giveUp" => {
            ensure!((settled, bounced) == (0, doubtful), "{settled} {bounced}");
            let reports = trial.home.wait_for(doubtful, PATIENCE).await?;
            let tokens: HashSet<String> = reports.iter().map(kit::Received::text).collect();
            ensure!(tokens.len() == doubtful, "a DSN for each");
        }
        _ => ensure!((settled, bounced) == (doubtful, 0), "{settled} {bounced}"),
    }
    let rows = trial.relay.command(&["queue", "--output", "json"]).await?;
    let rows: serde_json::Value = serde_json::from_str(&rows)?;
    let held = rows["rows"].as_array().into_iter().flatten();
    let held: u64 = held.filter_map(|row| row["held"].as_u64()).sum();
    ensure!(held == on_hold as u64, "{held} on hold: {rows}");
    println!(
        "seed -: {in_doubt}: {} messages, {doubtful} in doubt",
        trial.sent.len()
    );
    trial.relay.finish()
}
