//! Windows of 12 hours and of a day, over two days: the production script with a clock that the test sets.

use std::collections::VecDeque;

use redis::Script;

use crate::server::Server;

const HOUR_MS: u64 = 3_600_000;
const END_MS: u64 = 48 * HOUR_MS;
/// Of Redis' clock at the start; the memory is known from long before.
const START_MS: u64 = 1_000 * HOUR_MS;
/// As `GrantRequest::good_ttl` has it for long windows.
const TTL_MS: u64 = 30_000;
const REPLICAS: usize = 3;

/// The script as it is shipped, but for where it gets the time from.
fn scripted_clock() -> Script {
    let shipped = include_str!("../../src/grant.lua");
    let asks = "redis.call('TIME')";
    assert_eq!(shipped.matches(asks).count(), 1);
    Script::new(&shipped.replace(asks, "{ ARGV[11], ARGV[12] }"))
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// A scheduler that draws on slices of one limit.
#[derive(Default)]
struct Replica {
    slice: Option<(String, u64)>,
    used: u64,
    last_use_ms: u64,
    left: u64,
    ends_ms: u64,
    asks_at_ms: u64,
}

struct Run {
    connection: redis::Connection,
    script: Script,
    key: &'static str,
    limit: u64,
    window_ms: u64,
    slices: u64,
    /// How far Redis' clock was set back.
    behind_ms: u64,
    /// When something was used.
    uses: Vec<u64>,
}

impl Run {
    /// Reports what was used and asks for more.
    fn ask(&mut self, now_ms: u64, replica: &mut Replica) {
        self.slices += 1;
        let number = format!("{:016x}", self.slices);
        let clock_ms = START_MS + now_ms - self.behind_ms;
        let (previous, used) = replica.slice.take().unwrap_or_default();
        let (kind, amount, ms): (u8, u64, u64) = self
            .script
            .key(self.key)
            .arg(self.limit)
            .arg(self.window_ms)
            .arg(self.limit)
            .arg(TTL_MS)
            .arg(&number)
            .arg(0)
            .arg(previous)
            .arg(used.min(replica.used))
            .arg(now_ms.saturating_sub(replica.last_use_ms))
            .arg(0)
            .arg(clock_ms / 1_000)
            .arg(clock_ms % 1_000 * 1_000)
            .invoke(&mut self.connection)
            .unwrap();
        match kind {
            0 => {
                replica.slice = Some((number, amount));
                (replica.left, replica.used) = (amount, 0);
                replica.ends_ms = now_ms + ms;
            }
            1 => replica.asks_at_ms = now_ms + ms,
            _ => panic!("nothing happened to Redis"),
        }
    }

    fn use_one(&mut self, now_ms: u64, replica: &mut Replica) {
        self.uses.push(now_ms);
        replica.left -= 1;
        replica.used += 1;
        replica.last_use_ms = now_ms;
    }

    /// The most uses in any window.
    fn most_in_a_window(&self) -> u64 {
        let mut window: VecDeque<u64> = VecDeque::new();
        let mut most = 0;
        for at_ms in &self.uses {
            while window
                .front()
                .is_some_and(|first| first + self.window_ms <= *at_ms)
            {
                window.pop_front();
            }
            window.push_back(*at_ms);
            most = most.max(window.len() as u64);
        }
        most
    }
}

/// Replicas that always want more for two days. At `set_back_ms` Redis' clock is set back by ten minutes.
async fn two_days(key: &'static str, limit: u64, window_ms: u64, set_back_ms: Option<u64>) {
    let server = Server::start().await;
    let url = server.url();
    let run = tokio::task::spawn_blocking(move || {
        let client = redis::Client::open(url).unwrap();
        let mut run = Run {
            connection: client.get_connection().unwrap(),
            script: scripted_clock(),
            key,
            limit,
            window_ms,
            slices: 0,
            behind_ms: 0,
            uses: Vec::new(),
        };
        let mut dice = Dice(limit);
        let mut replicas: [Replica; REPLICAS] = Default::default();
        let mut now_ms = 0;
        while now_ms < END_MS {
            now_ms += 1 + dice.below(6_000);
            if set_back_ms.is_some_and(|at_ms| now_ms >= at_ms) {
                run.behind_ms = 600_000;
            }
            let replica = &mut replicas[dice.below(REPLICAS as u64) as usize];
            if replica.left > 0 && now_ms < replica.ends_ms {
                run.use_one(now_ms, replica);
            } else if now_ms >= replica.asks_at_ms {
                replica.left = 0;
                run.ask(now_ms, replica);
            }
        }
        run
    });
    let run = run.await.unwrap();
    let most = run.most_in_a_window();
    assert!(most <= limit, "{most} of {limit} in a window");
    let windows = END_MS / window_ms;
    let possible = windows * limit;
    let used = run.uses.len() as u64;
    assert!(
        used * 100 >= possible * 95,
        "only {used} of {possible} in {windows} windows"
    );
}

#[tokio::test]
async fn a_limit_for_twelve_hours_holds_for_two_days_and_is_used() {
    two_days("half-day", 1_000, 12 * HOUR_MS, None).await;
}

#[tokio::test]
async fn a_limit_for_a_day_holds_for_two_days_and_is_used() {
    two_days("day", 5_000, 24 * HOUR_MS, None).await;
}

#[tokio::test]
async fn a_limit_for_twelve_hours_holds_when_the_clock_is_set_back() {
    two_days("set-back", 1_000, 12 * HOUR_MS, Some(7 * HOUR_MS)).await;
}
