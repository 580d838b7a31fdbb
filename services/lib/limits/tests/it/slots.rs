//! Leases of connections: never more than the limit, to nobody's disadvantage, whatever happens to holders and Redis.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use limits::{Grants, SlotReply, SlotRequest};

use crate::server::{PATIENCE, Server, client, connected};

const TTL: Duration = Duration::from_millis(1_500);
/// Where much must happen within the life of a lease, on a machine that may be busy.
const LONG_TTL: Duration = Duration::from_secs(8);

fn word(holder: &str, limit: u32, have: u32, want: u32) -> SlotRequest {
    SlotRequest {
        key: "source|site".into(),
        holder: holder.into(),
        limit,
        have,
        want,
        share: limit / 2,
        ttl: TTL,
    }
}

async fn granted(grants: &Grants, request: &SlotRequest) -> u32 {
    grants.lease(request).await.unwrap().granted
}

/// A server that knows what there is.
async fn ready(ttl: Duration) -> (Server, Grants) {
    let server = Server::start().await;
    let grants = client(&server).await;
    known(&grants, ttl).await;
    (server, grants)
}

async fn known(grants: &Grants, ttl: Duration) {
    let deadline = Instant::now() + PATIENCE;
    let look = SlotRequest {
        key: "another".into(),
        ttl,
        ..word("nobody", 1, 0, 0)
    };
    while !grants.lease(&look).await.unwrap().known {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_sum_of_all_holders_is_the_limit_and_what_is_given_back_is_free_at_once() {
    let (_server, grants) = ready(TTL).await;
    assert_eq!(granted(&grants, &word("a", 5, 0, 3)).await, 3);
    assert_eq!(granted(&grants, &word("b", 5, 0, 9)).await, 2);
    assert_eq!(granted(&grants, &word("c", 5, 0, 1)).await, 0);
    // `a` has closed two. One is for `c`, who waits and has less than its part; `b` has its own.
    assert_eq!(granted(&grants, &word("a", 5, 1, 0)).await, 0);
    assert_eq!(granted(&grants, &word("b", 5, 2, 9)).await, 1);
    assert_eq!(granted(&grants, &word("c", 5, 0, 9)).await, 1);
    assert_eq!(granted(&grants, &word("b", 5, 3, 9)).await, 0);
}

#[tokio::test]
async fn the_lease_of_a_dead_holder_counts_until_it_runs_out() {
    let (_server, grants) = ready(TTL).await;
    let before = Instant::now();
    assert_eq!(granted(&grants, &word("dead", 4, 0, 4)).await, 4);
    let deadline = before + PATIENCE;
    while granted(&grants, &word("living", 4, 0, 1)).await == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(before.elapsed() >= TTL, "{:?}", before.elapsed());
}

#[tokio::test]
async fn who_has_more_than_its_part_is_told_to_give_up_as_many_as_others_are_short_of() {
    let (_server, grants) = ready(LONG_TTL).await;
    let of = |holder, have, want| SlotRequest {
        ttl: LONG_TTL,
        ..word(holder, 16, have, want)
    };
    assert_eq!(granted(&grants, &of("a", 0, 16)).await, 16);
    assert_eq!(granted(&grants, &of("b", 0, 16)).await, 0);
    assert_eq!(granted(&grants, &of("c", 0, 1)).await, 0);
    let told = grants.lease(&of("a", 16, 0)).await.unwrap();
    assert_eq!(
        told,
        SlotReply {
            granted: 0,
            excess: 6,
            others_wait: true,
            known: true,
        }
    );
    assert_eq!(granted(&grants, &of("a", 10, 0)).await, 0);
    assert_eq!(granted(&grants, &of("b", 0, 16)).await, 5);
    assert_eq!(granted(&grants, &of("c", 0, 1)).await, 1);
}

#[tokio::test]
async fn when_there_are_more_than_the_limit_who_came_last_gives_up_what_is_too_much() {
    let (_server, grants) = ready(LONG_TTL).await;
    let of = |holder, have| SlotRequest {
        ttl: LONG_TTL,
        ..word(holder, 4, have, 0)
    };
    // Each had a share while nobody answered.
    for (holder, have) in [("a", 2), ("b", 2), ("c", 3)] {
        grants.lease(&of(holder, have)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let excess = async |holder, have| grants.lease(&of(holder, have)).await.unwrap().excess;
    assert_eq!((excess("a", 2).await, excess("b", 2).await), (0, 0));
    assert_eq!(excess("c", 3).await, 3);
    assert_eq!(excess("c", 1).await, 1);
    assert_eq!((excess("c", 0).await, excess("a", 2).await), (0, 0));
}

/// Holders that always want one: all but the one that has it ask again and again, and it gives up what it must.
#[tokio::test]
async fn a_limit_of_one_goes_round_among_all_who_want_it() {
    let (_server, grants) = ready(TTL).await;
    let mut had: BTreeMap<&str, u32> = BTreeMap::new();
    let mut have: BTreeMap<&str, u32> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while had.len() < 4 || had.values().any(|times| *times < 2) {
        assert!(Instant::now() < deadline, "{had:?}");
        for holder in ["a", "b", "c", "d"] {
            let mine = have.get(holder).copied().unwrap_or(0);
            let said = grants.lease(&word(holder, 1, mine, 1 - mine)).await;
            let SlotReply {
                granted, excess, ..
            } = said.unwrap();
            *had.entry(holder).or_default() += granted;
            have.insert(holder, mine + granted - excess);
            if excess > 0 {
                grants.lease(&word(holder, 1, 0, 1)).await.unwrap();
            }
            assert!(have.values().sum::<u32>() <= 1, "{have:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (least, most) = (had.values().min(), had.values().max());
    assert!(most.unwrap() - least.unwrap() <= 1, "{had:?}");
}

#[tokio::test]
async fn a_redis_that_was_emptied_learns_what_there_is_before_it_grants_again() {
    let (server, grants) = ready(LONG_TTL).await;
    let of = |holder, have, want| SlotRequest {
        ttl: LONG_TTL,
        ..word(holder, 4, have, want)
    };
    let newcomer = client(&server).await;
    assert_eq!(granted(&grants, &of("a", 0, 3)).await, 3);
    assert_eq!(server.command(&["FLUSHALL"]).as_deref(), Some("OK"));
    grants.lease(&of("a", 3, 0)).await.unwrap_err();
    connected(&grants).await;
    // Who had leases before takes nothing, and what it has counts at once.
    let told = grants.lease(&of("a", 3, 1)).await.unwrap();
    assert_eq!((told.granted, told.excess, told.known), (0, 1, false));
    newcomer.lease(&of("b", 0, 0)).await.unwrap_err();
    connected(&newcomer).await;
    // Nor does a newcomer, who can't know what others have, before all have said it.
    assert_eq!(granted(&newcomer, &of("b", 0, 4)).await, 0);
    let deadline = Instant::now() + PATIENCE;
    let share = loop {
        assert_eq!(granted(&grants, &of("a", 2, 0)).await, 0);
        match granted(&newcomer, &of("b", 0, 4)).await {
            0 => tokio::time::sleep(Duration::from_millis(50)).await,
            some => break some,
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!(share, 2);
    known(&grants, LONG_TTL).await;
    assert_eq!(granted(&grants, &of("a", 1, 0)).await, 0);
    assert_eq!(granted(&newcomer, &of("b", 2, 4)).await, 1);
}

#[tokio::test]
async fn a_new_installation_has_its_share_at_once() {
    let server = Server::start().await;
    for holder in ["a", "b"] {
        let word = SlotRequest {
            ttl: LONG_TTL,
            ..word(holder, 4, 0, 4)
        };
        assert_eq!(granted(&client(&server).await, &word).await, 2, "{holder}");
    }
}
