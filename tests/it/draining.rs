//! A stop in order cuts nothing off: what is begun is finished, the rest is handed to others at once.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kit::{
    Action, Documents, Relay, Rule, Session, Setup, Signal, Sink, Stage, Zones, free_port_on,
    message, metric, until,
};

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(30);

/// An installation with one destination `one.example`, and its MX host.
async fn start(test: &str, number: u8, rules: Vec<Rule>, more: &[&str]) -> Result<(Relay, Sink)> {
    let host: IpAddr = Ipv4Addr::new(127, 24, 3, number).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), rules).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let mut setup = Setup::new(test, zones, Documents::new(port).yaml());
    for instance in more {
        setup = setup.with(instance);
    }
    Ok((Relay::start(setup).await?, sink))
}

async fn submit(relay: &Relay, token: &str, recipient: &str) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let content = message(token, SENDER, recipient, 2000);
    let outcome = session
        .submit(SENDER, &[recipient.to_owned()], &content)
        .await?;
    ensure!(matches!(outcome, kit::Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

/// Waits until the process has ended, and that it ended well; the sink goes on meanwhile.
async fn ended(relay: &mut Relay, name: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while relay.is_running(name)? {
        ensure!(Instant::now() < end, "{name} does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    relay.ended(name, PATIENCE)
}

#[tokio::test]
async fn ingress_takes_what_is_in_data_to_its_reply_and_sends_the_others_away() -> Result<()> {
    let (mut relay, sink) = start("drain_ingress", 1, Vec::new(), &[]).await?;
    let to = relay.submission();
    let mut idle = Session::open(to, PATIENCE).await?;
    let mut between = Session::open(to, PATIENCE).await?;
    let mut busy = Session::open(to, PATIENCE).await?;
    for session in [&mut between, &mut busy] {
        session.command(&format!("MAIL FROM:<{SENDER}>")).await?;
        session.command("RCPT TO:<user@one.example>").await?;
    }
    ensure!(busy.command("DATA").await?.starts_with("354"));
    let content = message("D-1", SENDER, "user@one.example", 2000);
    let (first, second) = content.split_at(1000);
    busy.write(first).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;

    relay.signal("ingress", Signal::Term)?;
    ensure!(idle.reply().await?.starts_with("421 4.3.2"));
    ensure!(between.reply().await?.starts_with("421 4.3.2"));
    ensure!(
        Session::open(to, PATIENCE).await.is_err(),
        "nobody new is taken"
    );
    ensure!(relay.is_running("ingress")?);
    let (status, body) = relay.health("ingress", "/readyz").await?;
    ensure!(
        status == 503 && body.contains("stopping"),
        "{status} {body}"
    );
    let (alive, _) = relay.health("ingress", "/livez").await?;
    ensure!(alive == 200);

    busy.write(second).await?;
    busy.write(b".\r\n").await?;
    ensure!(busy.reply().await?.starts_with("250"));
    ended(&mut relay, "ingress").await?;
    sink.wait_for(1, PATIENCE).await?;
    relay.finish()
}

#[tokio::test]
async fn a_sender_waits_for_final_replies_and_another_does_the_rest() -> Result<()> {
    let slow = Rule::at(Stage::Dot, Action::Delay(Duration::from_secs(12))).to("slow@");
    let (mut relay, sink) = start("drain_sender", 2, vec![slow], &["sender-2"]).await?;
    relay.stop("sender-2", PATIENCE)?;
    submit(&relay, "W-slow", "slow@one.example").await?;
    let in_flight = "staffetta_sender_deliveries_in_flight";
    until("the slow transaction", PATIENCE, || async {
        (metric(&relay.metrics("sender").await, in_flight, "") > 0.0).then_some(())
    })
    .await?;
    // It reaches its dot.
    tokio::time::sleep(Duration::from_secs(1)).await;

    relay.start_process("sender-2")?;
    relay.wait_ready().await?;
    let stopped = Instant::now();
    relay.signal("sender", Signal::Term)?;
    for number in 0..10 {
        submit(&relay, &format!("W-{number}"), "fast@one.example").await?;
    }
    sink.wait_for(10, PATIENCE).await?;
    ensure!(relay.is_running("sender")?, "it waits for the final reply");
    ended(&mut relay, "sender").await?;
    ensure!(
        stopped.elapsed() < Duration::from_secs(20),
        "{:?}",
        stopped.elapsed()
    );
    let received = sink.wait_for(11, PATIENCE).await?;
    let tokens: HashSet<_> = received.iter().map(|received| &received.token).collect();
    ensure!(tokens.len() == 11);
    until("the end of all deliveries", PATIENCE, || async {
        relay
            .queue()
            .await
            .is_ok_and(|queue| queue.is_still())
            .then_some(())
    })
    .await?;
    ensure!(sink.received().len() == 11, "nothing came twice");
    ensure!(relay.settled_in_doubt().await? == 0);
    relay.finish()
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_in_doubt_and_what_is_not_begun_is_handed_on()
-> Result<()> {
    let hour = Duration::from_secs(3_600);
    let rules = vec![
        Rule::at(Stage::Dot, Action::Delay(hour)).to("slow@"),
        Rule::at(Stage::Recipient, Action::Delay(hour)).to("mute@"),
    ];
    let host: IpAddr = Ipv4Addr::new(127, 24, 3, 5).into();
    // It takes connections, and says nothing on the first one.
    let shy: IpAddr = Ipv4Addr::new(127, 24, 3, 6).into();
    let port = free_port_on(&[host, shy])?;
    let sink = Sink::start(SocketAddr::new(host, port), rules).await?;
    let says_nothing = vec![Rule::at(Stage::Connect, Action::Delay(hour)).times(1)];
    let shy_sink = Sink::start(SocketAddr::new(shy, port), says_nothing).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host)
        .mx("shy.example", 10, "mx.shy.example")
        .address("mx.shy.example", shy);
    let setup = Setup::new("drain_cut", zones, Documents::new(port).yaml()).with("sender-2");
    let mut relay = Relay::prepare(&setup).await?;
    relay.reconfigure("sender", "drainTimeout: 20s", "drainTimeout: 3s")?;
    relay.start_all(&setup).await?;
    relay.stop("sender-2", PATIENCE)?;
    submit(&relay, "C-slow", "slow@one.example").await?;
    submit(&relay, "C-mute", "mute@one.example").await?;
    submit(&relay, "C-shy", "user@shy.example").await?;
    until("three that are kept waiting", PATIENCE, || async {
        (sink.delayed() == 2 && shy_sink.delayed() == 1).then_some(())
    })
    .await?;

    relay.start_process("sender-2")?;
    relay.wait_ready().await?;
    let stopped = Instant::now();
    relay.signal("sender", Signal::Term)?;
    // Long before the grace period is over.
    shy_sink.wait_for(1, PATIENCE).await?;
    println!("handed on after {:?}", stopped.elapsed());
    ended(&mut relay, "sender").await?;
    let took = stopped.elapsed();
    ensure!(took >= Duration::from_secs(3), "{took:?}");
    ensure!(took < Duration::from_secs(20), "{took:?}");
    until("the two in doubt", PATIENCE, || async {
        let queue = relay.queue().await.ok()?;
        (queue.is_still() && queue.in_doubt == 2).then_some(())
    })
    .await?;
    ensure!(shy_sink.count() == 1 && sink.count() == 0);
    relay.finish()
}

#[tokio::test]
async fn a_scheduler_that_stops_hands_its_partitions_over_without_waiting_for_its_leases()
-> Result<()> {
    let (mut relay, sink) = start("drain_scheduler", 3, Vec::new(), &["scheduler-2"]).await?;
    let owned = "staffetta_scheduler_owned_partitions";
    until("one partition for each", PATIENCE, || async {
        let first = metric(&relay.metrics("scheduler").await, owned, "");
        let second = metric(&relay.metrics("scheduler-2").await, owned, "");
        ((first, second) == (1.0, 1.0)).then_some(())
    })
    .await?;
    let stopped = Instant::now();
    relay.signal("scheduler", Signal::Term)?;
    until("the hand-over", PATIENCE, || async {
        (metric(&relay.metrics("scheduler-2").await, owned, "") == 2.0).then_some(())
    })
    .await?;
    let took = stopped.elapsed();
    println!("the hand-over took {took:?}");
    // A lease that has to expire takes 7 s; on an idle machine it is below 2 s.
    ensure!(took < Duration::from_secs(4), "{took:?}");
    ended(&mut relay, "scheduler").await?;
    for number in 0..8 {
        submit(&relay, &format!("H-{number}"), "user@one.example").await?;
    }
    sink.wait_for(8, PATIENCE).await?;
    relay.finish()
}

#[tokio::test]
async fn a_scheduler_ends_in_time_although_nats_is_gone() -> Result<()> {
    let (mut relay, _sink) = start("drain_without_nats", 4, Vec::new(), &[]).await?;
    relay.nats.kill9()?;
    let stopped = Instant::now();
    relay.signal("scheduler", Signal::Term)?;
    ended(&mut relay, "scheduler").await?;
    // 2 s for what it was asking, 1.5 s for the journals, 2 s for what it can't give back; the rest is the machine's.
    ensure!(
        stopped.elapsed() < Duration::from_secs(10),
        "{:?}",
        stopped.elapsed()
    );
    relay.nats.restart().await?;
    relay.start_process("scheduler")?;
    relay.wait_ready().await?;
    relay.finish()
}
