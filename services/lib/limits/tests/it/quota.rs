//! Quotas: several windows at once hold over the sum of all processes, with Redis, without it, and after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use limits::{Charged, Options, Quotas, Scope, WindowLimit};

use crate::server::{PATIENCE, Server};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// 2026-11-22 12:00 UTC.
const START: u64 = 1_795_348_800_000;

/// A clock that the test sets.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// A process of its own, as far as Redis can tell.
async fn process(server: &Server, hands: &Hands, replicas: u32) -> Quotas {
    let options = Options {
        response_timeout: PATIENCE,
        ..Options::new(server.url())
    };
    let hands = hands.clone();
    let clock = Arc::new(move || hands.now());
    let quotas = Quotas::connect_with_clock(options, replicas, clock).unwrap();
    connection(&quotas, true).await;
    quotas
}

async fn connection(quotas: &Quotas, wanted: bool) {
    let deadline = Instant::now() + PATIENCE;
    while quotas.is_connected() != wanted {
        assert!(Instant::now() < deadline, "Redis: {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn scope(key: &str, windows: &[(u64, u64)]) -> Scope {
    let window = |(length_ms, limit): &(u64, u64)| WindowLimit {
        length_ms: *length_ms,
        limit: *limit,
    };
    Scope {
        key: key.to_owned(),
        windows: windows.iter().map(window).collect(),
    }
}

async fn charge(quotas: &Quotas, scopes: &[Scope], uses: u64) -> bool {
    matches!(
        quotas.charge("acme", scopes, uses, Duration::ZERO).await,
        Charged::Yes(_)
    )
}

/// The most uses in any window of this length.
fn most(accepted: &[(u64, u64)], length: u64) -> u64 {
    let mut most = 0;
    let mut first = 0;
    let mut within = 0;
    for (at, uses) in accepted {
        within += uses;
        while accepted[first].0 + length <= *at {
            within -= accepted[first].1;
            first += 1;
        }
        most = most.max(within);
    }
    most
}

#[tokio::test]
async fn three_windows_hold_in_the_sum_of_two_processes_and_are_used_to_one_per_cent() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let processes = [
        process(&server, &hands, 2).await,
        process(&server, &hands, 2).await,
    ];
    let windows = [(MINUTE, 300), (HOUR, 2_000), (12 * HOUR, 10_000)];
    let scopes = [scope("credential/app", &windows)];
    let mut accepted: Vec<(u64, u64)> = Vec::new();
    let mut turn = 0;
    // Two messages of 1 to 20 recipients each wish to go every 7 seconds, for 26 hours.
    while hands.now() < START + 26 * HOUR {
        for _ in 0..2 {
            turn += 1;
            let uses = 1 + turn % 20;
            if charge(&processes[turn as usize % 2], &scopes, uses).await {
                accepted.push((hands.now(), uses));
            }
        }
        hands.forward(7_000);
    }
    for (length, limit) in windows {
        let most = most(&accepted, length);
        assert!(most <= limit, "{most} in {length} ms");
        // 160 to 190 in a minute are wished for; the longer ones bind.
        if length > MINUTE {
            assert!(most * 100 >= limit * 99, "{most} in {length} ms");
        }
    }
    // Over the whole time: 12 hours' worth comes again after 12 hours and 1 %.
    let all: u64 = accepted.iter().map(|(_, uses)| uses).sum();
    assert!(all >= 10_000 * 2 * 99 / 100, "{all}");
}

#[tokio::test]
async fn a_burst_uses_a_minute_and_nothing_until_it_is_over() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let quotas = process(&server, &hands, 2).await;
    let scopes = [scope("credential/app", &[(MINUTE, 300)])];
    assert!(charge(&quotas, &scopes, 299).await);
    assert!(!charge(&quotas, &scopes, 2).await);
    assert!(charge(&quotas, &scopes, 1).await);
    hands.forward(MINUTE - 1);
    let Charged::Over { retry_after } = quotas.charge("acme", &scopes, 1, Duration::ZERO).await
    else {
        panic!("the window is full");
    };
    assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
    hands.forward(MINUTE / 100);
    assert!(charge(&quotas, &scopes, 300).await);
    assert!(matches!(
        quotas.charge("acme", &scopes, 301, Duration::ZERO).await,
        Charged::Never
    ));
}

#[tokio::test]
async fn all_scopes_are_charged_or_none() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let quotas = process(&server, &hands, 1).await;
    let (tenant, app, web) = (
        scope("tenant", &[(HOUR, 10)]),
        scope("credential/app", &[(MINUTE, 6)]),
        scope("credential/web", &[(MINUTE, 6)]),
    );
    assert!(charge(&quotas, &[tenant.clone(), app.clone()], 6).await);
    assert!(!charge(&quotas, &[tenant.clone(), app.clone()], 1).await);
    // The refusal cost the tenant nothing.
    assert!(charge(&quotas, &[tenant.clone(), web.clone()], 4).await);
    assert!(!charge(&quotas, &[tenant.clone(), web.clone()], 1).await);
    // The refusal cost the credential nothing.
    assert!(charge(&quotas, &[web], 2).await);
}

#[tokio::test]
async fn what_is_given_back_is_free_for_every_process() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let one = process(&server, &hands, 2).await;
    let other = process(&server, &hands, 2).await;
    let scopes = [scope("credential/app", &[(MINUTE, 10), (0, 10)])];
    let Charged::Yes(receipt) = one.charge("acme", &scopes, 10, Duration::ZERO).await else {
        panic!("there is room");
    };
    assert!(!charge(&other, &scopes, 1).await);
    one.give_back(receipt).await;
    assert!(charge(&other, &scopes, 10).await);
}

#[tokio::test]
async fn queued_mail_is_charged_later_in_order_up_to_the_bound() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let quotas = process(&server, &hands, 1).await;
    let scopes = [scope("credential/app", &[(MINUTE, 10), (HOUR, 25)])];
    let mut accepted: Vec<(u64, u64)> = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        match quotas
            .charge("acme", &scopes, 1, Duration::from_secs(5400))
            .await
        {
            Charged::Yes(receipt) => {
                accepted.push((hands.now() + receipt.wait.as_millis() as u64, 1));
            }
            Charged::Over { .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(accepted.is_sorted());
    assert_eq!(accepted[9].0, START);
    assert!((START + MINUTE..START + MINUTE + 1000).contains(&accepted[10].0));
    assert!(accepted[25].0 >= START + HOUR);
    assert!(accepted.last().unwrap().0 <= START + 5_400_000);
    // 25 in the first hour, and 25 in the next, of which the bound cuts nothing.
    assert_eq!((accepted.len(), refused), (50, 10));
    assert!(most(&accepted, MINUTE) <= 10 && most(&accepted, HOUR) <= 25);
}

#[tokio::test]
async fn a_month_ends_on_its_last_day() {
    let server = Server::start().await;
    // 2026-11-30 23:59:00 UTC
    let hands = Hands::at(1_796_083_140_000);
    let quotas = process(&server, &hands, 1).await;
    let scopes = [scope("tenant", &[(0, 100)])];
    assert!(charge(&quotas, &scopes, 100).await);
    let again = quotas
        .charge("acme", &scopes, 1, Duration::from_secs(3600))
        .await;
    assert_eq!(again, Charged::MonthUsedUp);
    hands.forward(MINUTE);
    assert!(charge(&quotas, &scopes, 100).await);
}

#[tokio::test]
async fn without_redis_the_share_holds_and_nothing_is_counted_twice_when_it_is_back() {
    let mut server = Server::start().await;
    let hands = Hands::at(START);
    let processes = [
        process(&server, &hands, 2).await,
        process(&server, &hands, 2).await,
    ];
    let scopes = [scope("credential/app", &[(MINUTE, 100), (HOUR, 150)])];
    // 30 by the first while Redis is there, 10 by the second.
    assert!(charge(&processes[0], &scopes, 30).await);
    assert!(charge(&processes[1], &scopes, 10).await);
    server.kill();
    // The first attempt finds out.
    for quotas in &processes {
        quotas.charge("acme", &scopes, 0, Duration::ZERO).await;
        connection(quotas, false).await;
    }
    // The share is 50 a minute for each, what it had before included.
    for (quotas, rest) in processes.iter().zip([20, 40]) {
        assert!(!charge(quotas, &scopes, rest + 1).await);
        assert!(charge(quotas, &scopes, rest).await);
        assert!(!charge(quotas, &scopes, 1).await);
    }
    server.restart().await;
    for quotas in &processes {
        connection(quotas, true).await;
    }
    settled(&processes[1], &scopes, 100).await;
    // All 100 are known to the new memory, once: after the minute there are 50 of the hour left.
    hands.forward(MINUTE + MINUTE / 64);
    assert!(!charge(&processes[0], &scopes, 51).await);
    assert!(charge(&processes[1], &scopes, 50).await);
    assert!(!charge(&processes[0], &scopes, 1).await);
}

/// Waits until Redis was told of all charges: then nothing fits any more.
async fn settled(quotas: &Quotas, scopes: &[Scope], limit: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match quotas.charge("acme", scopes, 1, Duration::ZERO).await {
            Charged::Over { .. } => return,
            Charged::Yes(receipt) => quotas.give_back(receipt).await,
            other => panic!("{other:?} of {limit}"),
        }
        assert!(Instant::now() < deadline, "Redis is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_redis_that_hangs_and_comes_back_counts_each_report_once() {
    let server = Server::start().await;
    let hands = Hands::at(START);
    let options = Options {
        response_timeout: Duration::from_millis(100),
        ..Options::new(server.url())
    };
    let clock = hands.clone();
    let quotas = Quotas::connect_with_clock(options, 1, Arc::new(move || clock.now())).unwrap();
    connection(&quotas, true).await;
    let scopes = [scope("credential/app", &[(HOUR, 100)])];
    assert!(charge(&quotas, &scopes, 10).await);
    server.suspend();
    // One whose reply is lost (it runs when Redis goes on), and some of which Redis hears later.
    assert!(charge(&quotas, &scopes, 10).await);
    assert!(!quotas.is_connected());
    assert!(charge(&quotas, &scopes, 30).await);
    assert!(charge(&quotas, &scopes, 25).await);
    server.resume();
    connection(&quotas, true).await;
    // 75 in all, whatever was sent how often: then 25 are left.
    let other = process(&server, &hands, 1).await;
    let deadline = Instant::now() + PATIENCE;
    while other.has_room("acme", &scopes, 26).await {
        assert!(Instant::now() < deadline, "Redis is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(charge(&other, &scopes, 25).await);
    assert!(!charge(&other, &scopes, 1).await);
}
