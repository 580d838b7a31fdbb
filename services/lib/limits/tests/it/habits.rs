//! Habits: what is usual is the same for all processes, whatever order things happen in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use limits::{Bound, Bounds, Doings, Habits, Options, Picture, Quotas};

use crate::server::{PATIENCE, Server};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// 2026-11-22 12:00 UTC.
const START: u64 = 1_795_348_800_000;

#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn hands() -> Hands {
    Hands(Arc::new(AtomicU64::new(START)))
}

/// A process of its own, as far as Redis can tell.
async fn process(server: &Server, hands: &Hands) -> (Quotas, Habits) {
    let options = Options {
        response_timeout: PATIENCE,
        ..Options::new(server.url())
    };
    let hands = hands.clone();
    let quotas = Quotas::connect_with_clock(options, 2, Arc::new(move || hands.now())).unwrap();
    connected(&quotas).await;
    let habits = quotas.habits();
    (quotas, habits)
}

async fn connected(quotas: &Quotas) {
    let deadline = Instant::now() + PATIENCE;
    while !quotas.is_connected() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bounds(learn: u64) -> Bounds {
    let bound = |at_least, factor| Bound { at_least, factor };
    Bounds {
        networks: bound(10, 3),
        recipients: bound(100, 4),
        senders: bound(5, 2),
        learn: Duration::from_millis(learn),
        pardoned_ms: 0,
    }
}

fn message(network: u64, recipients: u64) -> Doings {
    Doings {
        networks: vec![format!("10.0.{network}.0/24")],
        recipients,
        ..Doings::default()
    }
}

async fn note(habits: &Habits, doings: &Doings, learn: u64) -> Picture {
    habits.note("shop", doings, &bounds(learn)).await.unwrap()
}

#[tokio::test]
async fn two_processes_have_one_picture_and_two_credentials_have_two() {
    let server = Server::start().await;
    let hands = hands();
    let (_one, one) = process(&server, &hands).await;
    let (_other, other) = process(&server, &hands).await;
    // Where it belongs.
    let first = note(&one, &message(0, 3), 0).await;
    assert_eq!((first.new_networks, first.recipients), (0, 3));
    hands.forward(1_000);
    for network in 1..=12 {
        let habits = if network % 2 == 0 { &one } else { &other };
        hands.forward(1);
        note(habits, &message(network, 1), 0).await;
        note(habits, &message(network, 1), 0).await;
    }
    let picture = note(&one, &Doings::default(), 0).await;
    assert_eq!((picture.new_networks, picture.recipients), (12, 27));
    assert_eq!(picture.new_networks_since_ms, START + 1_001);
    assert_eq!(picture.newest.len(), 8);
    assert_eq!(picture.newest[0], "10.0.12.0/24");
    assert_eq!(picture, note(&other, &Doings::default(), 0).await);
    let nobody = one.note("other", &Doings::default(), &bounds(0)).await;
    let nobody = nobody.unwrap();
    assert_eq!((nobody.new_networks, nobody.recipients), (0, 0));
    // After a day they are known, after 14 without it they are new again.
    hands.forward(DAY + 1);
    let picture = note(&one, &message(3, 1), 0).await;
    assert_eq!((picture.new_networks, picture.usual_new_networks), (0, 10));
    hands.forward(15 * DAY);
    assert_eq!(note(&one, &message(3, 1), 0).await.new_networks, 1);
}

#[tokio::test]
async fn what_was_done_while_it_is_learned_is_usual_and_a_wild_hour_is_not_at_once() {
    let server = Server::start().await;
    let hands = hands();
    let (_quotas, habits) = process(&server, &hands).await;
    for network in 0..30 {
        hands.forward(60_000);
        let picture = note(&habits, &message(network, 50), DAY).await;
        assert!(picture.learning && picture.new_networks == 0);
    }
    hands.forward(DAY + HOUR);
    // Learned in whole, though more than would be noticed.
    let picture = note(&habits, &message(0, 1), DAY).await;
    assert!(!picture.learning);
    assert_eq!((picture.usual_recipients, picture.new_networks), (1_500, 0));
    assert_eq!(picture.usual_new_networks, 30);

    // An hour of 100,000 counts as 4 × 1,500; the next as 4 times that: who grew is usual in a few hours.
    note(&habits, &message(0, 100_000), DAY).await;
    for expected in [6_000, 24_000, 96_000, 100_000] {
        hands.forward(HOUR);
        let picture = note(&habits, &message(0, 100_000), DAY).await;
        assert_eq!(
            (picture.recipients, picture.usual_recipients),
            (100_000, expected)
        );
    }
    // And forgotten after two weeks.
    hands.forward(15 * DAY);
    let picture = note(&habits, &message(0, 1), DAY).await;
    assert_eq!(picture.usual_recipients, 0);
}

#[tokio::test]
async fn a_login_from_a_new_network_after_failures_elsewhere_is_a_guess() {
    let server = Server::start().await;
    let hands = hands();
    let (_quotas, habits) = process(&server, &hands).await;
    let login = |network: &str| Doings {
        logins: vec![network.to_owned()],
        ..Doings::default()
    };
    let failed = |network: &str, count| Doings {
        failed: vec![(network.to_owned(), count)],
        ..Doings::default()
    };
    note(&habits, &login("home"), 0).await;
    note(&habits, &failed("bot-1", 3), 0).await;
    note(&habits, &failed("bot-2", 4), 0).await;
    // Whoever guesses from outside can't make the one at home look like a thief.
    assert_eq!(note(&habits, &login("home"), 0).await.guessed, 0);
    // Nor is it one who mistypes on the road.
    note(&habits, &failed("road", 9), 0).await;
    hands.forward(1);
    let picture = note(&habits, &login("road"), 0).await;
    assert_eq!(picture.guessed, 7);
    let picture = note(&habits, &login("bot-2"), 0).await;
    assert_eq!(
        (picture.guessed, picture.guessed_from.as_str()),
        (12, "bot-2")
    );
    assert_eq!(picture.guessed_ms, START + 1);
    hands.forward(HOUR);
    assert_eq!(note(&habits, &login("bot-2"), 0).await.guessed, 0);
    // Failures of more than an hour ago are over.
    assert_eq!(note(&habits, &login("bot-3"), 0).await.guessed, 0);
    // Also those of a client that fails once in a while.
    for _ in 0..8 {
        note(&habits, &failed("old-phone", 1), 0).await;
        hands.forward(50 * 60_000);
    }
    let guessed = note(&habits, &login("journey"), 0).await.guessed;
    assert!(guessed <= 2, "{guessed}");
}

#[tokio::test]
async fn a_pardon_makes_known_what_was_seen_and_forgets_what_was_counted_once() {
    let server = Server::start().await;
    let hands = hands();
    let (_quotas, habits) = process(&server, &hands).await;
    note(&habits, &message(0, 1), 0).await;
    hands.forward(1_000);
    for network in 1..=20 {
        note(&habits, &message(network, 10), 0).await;
    }
    hands.forward(1_000);
    let pardon = Bounds {
        pardoned_ms: hands.now(),
        ..bounds(0)
    };
    let picture = habits.note("shop", &Doings::default(), &pardon).await;
    let picture = picture.unwrap();
    assert_eq!((picture.new_networks, picture.recipients), (0, 0));
    hands.forward(1_000);
    // Also for who does not say it again, and what comes later counts.
    habits.note("shop", &message(21, 7), &pardon).await.unwrap();
    let picture = note(&habits, &message(22, 7), 0).await;
    assert_eq!((picture.new_networks, picture.recipients), (2, 14));
}

#[tokio::test]
async fn one_that_does_everything_at_once_stays_small() {
    let server = Server::start().await;
    let hands = hands();
    let (_quotas, habits) = process(&server, &hands).await;
    for round in 0..60_u64 {
        hands.forward(1);
        let numbers = round * 20..round * 20 + 20;
        let doings = Doings {
            networks: numbers
                .clone()
                .map(|n| format!("2001:db8:{n:x}::/48"))
                .collect(),
            failed: numbers
                .clone()
                .map(|n| (format!("10.{n}.0.0/24"), 1))
                .collect(),
            senders: numbers.map(|n| format!("sender{n:05}")).collect(),
            ..Doings::default()
        };
        note(&habits, &doings, 0).await;
    }
    let picture = note(&habits, &Doings::default(), 0).await;
    assert_eq!((picture.senders, picture.new_networks), (256, 256));
    let size = server
        .command(&["STRLEN", "staffetta:habits:{shop}"])
        .unwrap();
    let octets: u64 = size.trim().parse().unwrap();
    assert!((1_000..20_000).contains(&octets), "{octets}");
    let ttl = server
        .command(&["PTTL", "staffetta:habits:{shop}"])
        .unwrap();
    assert!(ttl.trim().parse::<u64>().unwrap() > 14 * DAY);
}

#[tokio::test]
async fn without_redis_nothing_is_noted_and_one_that_forgot_learns_anew() {
    let mut server = Server::start().await;
    let hands = hands();
    let (quotas, habits) = process(&server, &hands).await;
    note(&habits, &message(0, 500), 0).await;
    server.kill();
    assert!(
        habits
            .note("shop", &message(0, 1), &bounds(0))
            .await
            .is_err()
    );
    assert!(
        habits
            .note("shop", &message(0, 1), &bounds(0))
            .await
            .is_err()
    );
    server.restart().await;
    connected(&quotas).await;
    let picture = note(&habits, &message(7, 1), DAY).await;
    assert!(picture.learning);
    assert_eq!((picture.new_networks, picture.recipients), (0, 1));
}
