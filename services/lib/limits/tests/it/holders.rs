//! What becomes of slices: reported, lost, given back.

use std::time::{Duration, Instant};

use limits::{GrantReply, GrantRequest, Grants, SliceId, SliceUse};

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

/// Takes everything in as many slices as it needs.
async fn take_all(grants: &Grants, wish: &GrantRequest) -> Vec<(SliceId, u64)> {
    let mut slices = Vec::new();
    while let GrantReply::Granted {
        slice_id, amount, ..
    } = grants.ask(wish).await.unwrap()
    {
        slices.push((slice_id, amount));
    }
    slices
}

#[tokio::test]
async fn a_slice_is_a_small_part_and_all_of_them_are_the_limit() {
    let (_server, grants, wish) = ready(100).await;
    let slices = take_all(&grants, &wish).await;
    assert!(slices.iter().all(|(_, amount)| *amount <= 7), "{slices:?}");
    assert_eq!(slices.iter().map(|(_, amount)| amount).sum::<u64>(), 100);
}

#[tokio::test]
async fn the_slice_of_a_crashed_holder_counts_until_it_expires_and_one_window_more() {
    let (_server, grants, wish) = ready(16).await;
    let before = Instant::now();
    let slices = take_all(&grants, &wish).await;
    assert_eq!(slices.len(), 16);
    loop {
        let asked = before.elapsed();
        match grants.ask(&wish).await.unwrap() {
            GrantReply::Granted { .. } => break,
            GrantReply::Nothing { retry_after } => {
                // Redis dates by whole milliseconds, and the last slice came a little after the first.
                let free_at = asked + retry_after;
                assert!(
                    retry_after <= WINDOW + wish.ttl + Duration::from_millis(2),
                    "{asked:?}: free at {free_at:?}"
                );
                tokio::time::sleep(retry_after).await;
            }
            GrantReply::Unknown { .. } => panic!("nothing happened to Redis"),
        }
    }
    let waited = before.elapsed();
    assert!(waited >= WINDOW + wish.ttl, "{waited:?}");
}

#[tokio::test]
async fn what_was_not_used_is_free_at_once_and_what_was_used_counts_for_a_window() {
    let (_server, grants, mut wish) = ready(16).await;
    let slices = take_all(&grants, &wish).await;
    let used_at = Instant::now();
    wish.previous = Some(SliceUse {
        slice_id: slices[0].0,
        used: 0,
        last_use_ago: Duration::ZERO,
    });
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Granted { amount: 1, .. }
    ));
    for (slice_id, amount) in &slices[1..] {
        let mut report = wish.clone();
        report.want = 0;
        report.previous = Some(SliceUse {
            slice_id: *slice_id,
            used: *amount,
            last_use_ago: used_at.elapsed(),
        });
        assert_eq!(
            grants.ask(&report).await.unwrap(),
            GrantReply::Nothing {
                retry_after: Duration::ZERO
            }
        );
    }
    wish.previous = None;
    loop {
        let reply = grants.ask(&wish).await.unwrap();
        if used_at.elapsed() >= WINDOW {
            break;
        }
        assert!(
            matches!(reply, GrantReply::Nothing { .. }),
            "used a window ago at most"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A report that was long under way is dated by its arrival, though not after the end of the slice.
    let free_at = used_at + WINDOW + wish.ttl + Duration::from_millis(2);
    tokio::time::sleep(free_at.saturating_duration_since(Instant::now())).await;
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Granted { .. }
    ));
}

#[tokio::test]
async fn a_late_report_is_not_dated_after_the_end_of_the_slice() {
    let (_server, grants, mut wish) = ready(1).await;
    let used_at = Instant::now();
    let slices = take_all(&grants, &wish).await;
    assert_eq!(slices.len(), 1);
    tokio::time::sleep(WINDOW / 2).await;
    wish.previous = Some(SliceUse {
        slice_id: slices[0].0,
        used: 1,
        last_use_ago: Duration::ZERO,
    });
    let GrantReply::Nothing { retry_after } = grants.ask(&wish).await.unwrap() else {
        panic!("it was used less than a window ago");
    };
    // At the latest the slice was granted before the sleep and has ended a time to live later.
    assert!(
        retry_after <= WINDOW + wish.ttl - WINDOW / 2 + Duration::from_millis(2),
        "{retry_after:?}"
    );
    wish.previous = None;
    tokio::time::sleep(retry_after).await;
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Granted { .. }
    ));
    let waited = used_at.elapsed();
    assert!(waited >= WINDOW, "{waited:?}");
}

#[tokio::test]
async fn a_report_that_is_sent_again_frees_nothing_twice() {
    let (_server, grants, mut wish) = ready(16).await;
    let slices = take_all(&grants, &wish).await;
    wish.previous = Some(SliceUse {
        slice_id: slices[0].0,
        used: 0,
        last_use_ago: Duration::ZERO,
    });
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Granted { .. }
    ));
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Nothing { .. }
    ));
}

#[tokio::test]
async fn use_under_the_safe_share_counts_when_it_is_reported() {
    let (_server, grants, mut wish) = ready(16).await;
    wish.outside = 16;
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Nothing { .. }
    ));
}

#[tokio::test]
async fn the_state_of_a_lane_stays_small_and_ends() {
    let (server, grants, mut wish) = ready(1_000_000).await;
    wish.ttl = Duration::from_millis(1);
    let until = Instant::now() + WINDOW * 3 / 2;
    let mut last = None;
    while Instant::now() < until {
        // Every second slice is never reported about.
        wish.previous = last.take();
        if let GrantReply::Granted { slice_id, .. } = grants.ask(&wish).await.unwrap() {
            last = Some(SliceUse {
                slice_id,
                used: 1,
                last_use_ago: Duration::ZERO,
            });
        }
        wish.previous = None;
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
    assert!(keys[0].0 < 3000, "{keys:?}");
    let longest = i64::try_from(WINDOW.as_millis()).unwrap() + 2_000;
    assert!((1..=longest).contains(&keys[0].1), "{keys:?}");
}
