//! Who is heard is lent a rate, less what those may use by themselves that are not.

use std::time::{Duration, Instant};

use limits::{GrantReply, GrantRequest, Grants, SLOT_TTL, SlotRequest};
use tokio::sync::watch;

use crate::server::{PATIENCE, Server, client, request};

const WINDOW: Duration = Duration::from_millis(2_500);

/// Takes all there is, up to so many in all. What is had counts, however long it takes.
async fn take_up_to(grants: &Grants, wish: &mut GrantRequest, most: u64) {
    let deadline = Instant::now() + PATIENCE;
    while wish.have < most {
        assert!(Instant::now() < deadline, "only {}", wish.have);
        match grants.ask(wish).await.unwrap() {
            GrantReply::Granted { amount, .. } => wish.have += amount,
            GrantReply::Nothing { retry_after } => tokio::time::sleep(retry_after).await,
            GrantReply::Unknown { safe_for } => tokio::time::sleep(safe_for).await,
        }
    }
}

#[tokio::test]
async fn what_nobody_who_is_heard_has_is_not_lent() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let mut wish = request("source|site", 100, WINDOW, 100);
    let (has, told) = watch::channel(1);
    grants.join(2, told);
    take_up_to(&grants, &mut wish, 50).await;
    assert_eq!(wish.have, 50);
    let reply = grants.ask(&wish).await.unwrap();
    assert!(!matches!(reply, GrantReply::Granted { .. }), "{reply:?}");
    // It says at once that it has the other partition, too.
    has.send(2).unwrap();
    take_up_to(&grants, &mut wish, 100).await;
    assert_eq!(wish.have, 100);
}

#[tokio::test]
async fn a_scheduler_is_heard_though_the_server_forgets_its_scripts_and_not_when_it_stops() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let mut wish = request("source|site", 100, WINDOW, 100);
    let (has, told) = watch::channel(1);
    grants.join(1, told);
    take_up_to(&grants, &mut wish, 10).await;
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    // Longer than the silence that others notice.
    tokio::time::sleep(Duration::from_secs(3)).await;
    take_up_to(&grants, &mut wish, 20).await;
    drop(has);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(grants.ask(&wish).await, Ok(GrantReply::Unknown { .. })) {
        assert!(Instant::now() < deadline, "it is heard for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn who_asks_for_nothing_is_heard_by_a_memory_that_began_anew() {
    let server = Server::start().await;
    let (asks, idle) = (client(&server).await, client(&server).await);
    let mut wish = request("source|site", 100, WINDOW, 100);
    let (_has, told) = watch::channel(1);
    for grants in [&asks, &idle] {
        grants.join(2, told.clone());
    }
    take_up_to(&asks, &mut wish, 100).await;
    server.command(&["FLUSHALL"]).unwrap();
    wish.have = 0;
    let deadline = Instant::now() + PATIENCE;
    while wish.have < 100 {
        assert!(Instant::now() < deadline, "only {}", wish.have);
        // Until it has noticed, it gets no answer.
        if let Ok(GrantReply::Granted { amount, .. }) = asks.ask(&wish).await {
            wish.have += amount;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_is_not_heard_for_long_leases_no_more_than_its_share() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let (_has, told) = watch::channel(1);
    grants.join(4, told);
    let joined = Instant::now();
    let mut word = SlotRequest {
        key: "source|site".to_owned(),
        holder: "a".to_owned(),
        limit: 8,
        have: 0,
        want: 8,
        share: 2,
        ttl: SLOT_TTL,
    };
    assert_eq!(grants.lease(&word).await.unwrap().granted, 2);
    word.have = 2;
    // Others may have opened their shares before, and not have said so yet.
    while joined.elapsed() < Duration::from_secs(5) {
        assert_eq!(grants.lease(&word).await.unwrap().granted, 0);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    while grants.lease(&word).await.unwrap().granted < 6 {
        assert!(joined.elapsed() < PATIENCE, "it is not lent more");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
