//! Invariant 5: over any window, the sum of all replicas is at most the limit, and nearly all of it is used.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use limits::{Dated, GrantReply, Grants};

use crate::server::{Server, client, once_known, request};

const WINDOW: Duration = Duration::from_secs(1);

/// Uses what it is granted, as fast as it can or one use every `pace`, and writes down every use.
async fn use_up(
    (holder, grants): (&'static str, Grants),
    key: &'static str,
    limit: u64,
    window: Duration,
    pace: Duration,
    until: Instant,
    uses: Arc<Mutex<Vec<Instant>>>,
) {
    let (mut batch, mut last_uses): (u64, Vec<Instant>) = (0, Vec::new());
    while Instant::now() < until {
        let asked = Instant::now();
        let mut wish = request(key, limit, window, limit);
        batch += 1;
        (wish.holder, wish.batch) = (holder.to_owned(), batch);
        let dated = |used: Instant| Dated {
            ago: used.elapsed(),
            count: 1,
        };
        wish.dated = last_uses.drain(..).map(dated).collect();
        match grants.ask(&wish).await.unwrap() {
            GrantReply::Granted { amount, expires } => {
                while (last_uses.len() as u64) < amount {
                    let now = Instant::now();
                    if now >= asked + expires {
                        break;
                    }
                    uses.lock().unwrap().push(now);
                    // Known to have happened a moment later.
                    last_uses.push(Instant::now());
                    if !pace.is_zero() {
                        tokio::time::sleep(pace).await;
                    }
                }
            }
            GrantReply::Nothing { retry_after } => tokio::time::sleep(retry_after).await,
            GrantReply::Unknown { .. } => panic!("nothing happened to Redis"),
        }
    }
}

/// The most uses in any window, and the part of the limit that was used.
fn measure(uses: &mut [Instant], limit: u64, window: Duration) -> (usize, f64) {
    uses.sort_unstable();
    let mut most = 0;
    let mut first = 0;
    for last in 0..uses.len() {
        while uses[last] - uses[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    // So many limits' worth of uses can't take less than so many windows; how much more did they take?
    let whole = (uses.len() - 1) / limit as usize - 1;
    let last = uses.len() - 1;
    let took = uses[last] - uses[last - whole * limit as usize];
    let rate = whole as f64 * window.as_secs_f64() / took.as_secs_f64();
    (most, rate)
}

/// Two replicas share a limit: it is never exceeded, and this part of it is used.
async fn two_replicas(limit: u64, pace: Duration, windows: u32, least: f64) {
    let mut rate = 0.0;
    // On a busy machine replicas wake up late, and use less than they may. The longer the window, the less that counts.
    for stretch in [1, 1, 3, 6] {
        let (most, found) =
            run_two_replicas(limit, WINDOW * stretch, pace * stretch, windows).await;
        assert!(most as u64 <= limit, "{most} uses in a window");
        if found >= least {
            return;
        }
        rate = found;
    }
    panic!("only {rate:.3} of the limit was used");
}

async fn run_two_replicas(
    limit: u64,
    window: Duration,
    pace: Duration,
    windows: u32,
) -> (usize, f64) {
    let server = Server::start().await;
    let (one, other) = (client(&server).await, client(&server).await);
    once_known(&one, &request("lane", limit, window, 0)).await;
    let uses = Arc::new(Mutex::new(Vec::new()));
    let until = Instant::now() + window * windows;
    tokio::join!(
        use_up(
            ("one", one),
            "lane",
            limit,
            window,
            pace,
            until,
            uses.clone()
        ),
        use_up(
            ("other", other),
            "lane",
            limit,
            window,
            pace,
            until,
            uses.clone()
        ),
    );
    let mut uses = uses.lock().unwrap();
    measure(&mut uses, limit, window)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hammering_replicas_never_exceed_a_limit_and_use_nearly_all_of_it() {
    two_replicas(200, Duration::ZERO, 8, 0.95).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_use_their_slices_slowly_never_exceed_the_limit_either() {
    two_replicas(100, Duration::from_millis(8), 8, 0.90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_is_one() {
    two_replicas(1, Duration::ZERO, 5, 0.90).await;
}
