//! What counts of what holders have: used, under way, given back, lost with a crash.

use std::time::{Duration, Instant};

use limits::{Dated, GrantReply, GrantRequest, Grants};

use crate::server::{Server, client, once_known, request};

/// Long enough that all is asked within it on a machine that is busy.
const WINDOW: Duration = Duration::from_millis(2_500);

async fn ready(limit: u64) -> (Server, Grants, GrantRequest) {
    let server = Server::start().await;
    let grants = client(&server).await;
    let wish = request("source|site", limit, WINDOW, limit);
    once_known(&grants, &request("source|site", limit, WINDOW, 0)).await;
    (server, grants, wish)
}

fn by(holder: &str, wish: &GrantRequest) -> GrantRequest {
    GrantRequest {
        holder: holder.to_owned(),
        ..wish.clone()
    }
}

/// Takes everything, in as many grants as it needs.
async fn take_all(grants: &Grants, wish: &GrantRequest) -> Vec<u64> {
    let (mut wish, mut amounts) = (wish.clone(), Vec::new());
    while let GrantReply::Granted { amount, .. } = grants.ask(&wish).await.unwrap() {
        wish.have += amount;
        amounts.push(amount);
    }
    amounts
}

async fn amount(grants: &Grants, wish: &GrantRequest) -> u64 {
    match grants.ask(wish).await.unwrap() {
        GrantReply::Granted { amount, .. } => amount,
        GrantReply::Nothing { .. } => 0,
        GrantReply::Unknown { .. } => panic!("nothing happened to Redis"),
    }
}

#[tokio::test]
async fn a_grant_is_a_small_part_and_all_of_them_are_the_limit() {
    let (_server, grants, wish) = ready(100).await;
    let amounts = take_all(&grants, &wish).await;
    assert!(amounts.iter().all(|amount| *amount <= 7), "{amounts:?}");
    assert_eq!(amounts.iter().sum::<u64>(), 100);
    assert_eq!(amount(&grants, &by("another", &wish)).await, 0);
}

#[tokio::test]
async fn what_a_crashed_holder_had_counts_until_its_silence_is_long_and_one_window_more() {
    let (_server, grants, wish) = ready(16).await;
    let before = Instant::now();
    assert_eq!(take_all(&grants, &wish).await.len(), 16);
    let (other, silence) = (by("another", &wish), GrantRequest::hold(WINDOW));
    loop {
        match grants.ask(&other).await.unwrap() {
            GrantReply::Granted { .. } => break,
            GrantReply::Nothing { retry_after } => tokio::time::sleep(retry_after).await,
            GrantReply::Unknown { .. } => panic!("nothing happened to Redis"),
        }
    }
    let waited = before.elapsed();
    assert!(waited >= WINDOW + silence, "{waited:?}");
}

#[tokio::test]
async fn what_is_under_way_counts_as_long_as_its_holder_has_it() {
    let (_server, grants, wish) = ready(16).await;
    take_all(&grants, &wish).await;
    let (mut mine, other) = (wish.clone(), by("another", &wish));
    (mine.have, mine.want) = (16, 0);
    let until = Instant::now() + WINDOW * 2 + GrantRequest::hold(WINDOW);
    while Instant::now() < until {
        grants.ask(&mine).await.unwrap();
        assert_eq!(amount(&grants, &other).await, 0);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Given back, it is free at once.
    mine.have = 0;
    grants.ask(&mine).await.unwrap();
    assert_eq!(amount(&grants, &other).await, 1);
}

#[tokio::test]
async fn what_has_a_date_counts_for_a_window_from_it() {
    let (_server, grants, mut wish) = ready(1).await;
    assert_eq!(amount(&grants, &wish).await, 1);
    let used_at = Instant::now();
    tokio::time::sleep(WINDOW / 4).await;
    wish.dated = vec![Dated {
        ago: used_at.elapsed(),
        count: 1,
    }];
    wish.batch = 1;
    let reply = grants.ask(&wish).await.unwrap();
    let GrantReply::Nothing { retry_after } = reply else {
        panic!("it was used less than a window ago");
    };
    assert!(retry_after <= WINDOW - WINDOW / 4 + Duration::from_millis(3));
    (wish.dated, wish.batch) = (Vec::new(), 2);
    tokio::time::sleep(retry_after).await;
    assert_eq!(amount(&grants, &wish).await, 1);
    assert!(used_at.elapsed() >= WINDOW);
}

#[tokio::test]
async fn dates_that_are_told_again_count_once() {
    let (_server, grants, mut wish) = ready(16).await;
    wish.dated = vec![Dated {
        ago: Duration::ZERO,
        count: 5,
    }];
    (wish.batch, wish.want) = (7, 0);
    for _ in 0..3 {
        grants.ask(&wish).await.unwrap();
    }
    wish.want = 16;
    wish.dated.clear();
    assert_eq!(take_all(&grants, &wish).await.iter().sum::<u64>(), 11);
}

#[tokio::test]
async fn those_who_wait_are_told_times_of_their_own() {
    let (_server, grants, mut wish) = ready(2).await;
    wish.want = 1;
    for (batch, ago) in [(1, 1_000), (2, 500)] {
        wish.batch = batch;
        wish.want = 0;
        wish.dated = vec![Dated {
            ago: Duration::from_millis(ago),
            count: 1,
        }];
        grants.ask(&wish).await.unwrap();
    }
    let mut times = Vec::new();
    for holder in ["one", "two"] {
        let mut wish = by(holder, &request("source|site", 2, WINDOW, 1));
        wish.want = 1;
        let asked = Instant::now();
        match grants.ask(&wish).await.unwrap() {
            // The earliest and the latest at which it may ask again.
            GrantReply::Nothing { retry_after } => {
                times.push((asked + retry_after, Instant::now() + retry_after));
            }
            reply => panic!("{reply:?}"),
        }
    }
    let apart = times[1].1.checked_duration_since(times[0].0);
    assert!(apart > Some(Duration::from_millis(200)), "{times:?}");
}

#[tokio::test]
async fn the_state_of_a_lane_stays_small_and_ends() {
    let (server, grants, mut wish) = ready(1_000_000).await;
    let until = Instant::now() + WINDOW * 3 / 2;
    let mut holders = 0;
    while Instant::now() < until {
        // Each is heard once, and has something.
        holders += 1;
        wish.holder = format!("holder-{holders}");
        wish.dated = vec![Dated {
            ago: Duration::ZERO,
            count: 1,
        }];
        wish.batch = 1;
        grants.ask(&wish).await.unwrap();
    }
    let mut keys = Vec::new();
    let mut connection = redis::Client::open(server.url())
        .unwrap()
        .get_connection()
        .unwrap();
    let names: Vec<String> = redis::cmd("KEYS")
        .arg("*grant*")
        .query(&mut connection)
        .unwrap();
    for name in &names {
        let length: u64 = redis::cmd("STRLEN")
            .arg(name)
            .query(&mut connection)
            .unwrap();
        let ttl: i64 = redis::cmd("PTTL").arg(name).query(&mut connection).unwrap();
        keys.push((length, ttl));
    }
    assert_eq!(keys.len(), 1);
    assert!(keys[0].0 < 6_000, "{keys:?}");
    let longest = WINDOW + GrantRequest::hold(WINDOW) + Duration::from_secs(2);
    let longest = i64::try_from(longest.as_millis()).unwrap();
    assert!((1..=longest).contains(&keys[0].1), "{keys:?}");
}
