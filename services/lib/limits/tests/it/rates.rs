//! The rates of several schedulers as they are at the other side, with a clock that the test sets: the counting of the
//! schedulers and the script of Redis as they are shipped, and messages that are under way for different times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use egress::{Became, GrantNews, RateLimit, Rates, TakeAll, Taken, Unit, Window, Word};
use redis::Script;

use crate::server::Server;

const HOUR_MS: u64 = 3_600_000;
/// Of Redis' clock at the start; its memory is known from long before.
const START_MS: u64 = 1_000 * HOUR_MS;
const REPLICAS: usize = 3;

/// So long before grants begin again nobody uses a share any more.
const TELLS_MS: u64 = 1_500;
/// A word that nobody answers.
const TIME_OUT_MS: u64 = 250;
const ASK_AGAIN_MS: u64 = 1_000;

/// A script as it is shipped, but for where it gets the time from.
fn scripted_clock(shipped: &str, clock: &str) -> Script {
    let asks = "redis.call('TIME')";
    assert_eq!(shipped.matches(asks).count(), 1);
    Script::new(&shipped.replace(asks, clock))
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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A scheduler looks at what it can do.
    Look(usize),
    /// Its word comes to Redis, and the answer to it. With how often it was started before.
    Word(usize, u32, usize),
    News(usize, u32, usize),
    /// It hears that a message left.
    Left(usize, u32, usize),
    /// A message comes to the other side.
    Mail(usize, u32),
    Dot,
    /// It is killed, and started anew.
    Crash(usize),
    /// Redis hears it, if it reaches Redis.
    Heard(usize, u32),
}

/// What is tried.
struct Plan {
    key: &'static str,
    limit: u64,
    window_ms: u64,
    end_ms: u64,
    /// Messages take up to so long from scheduler to MAIL, and from there to the dot; one in 50 ten times as long.
    way_ms: u64,
    /// When a scheduler has mail.
    has_mail: fn(usize, u64) -> bool,
    /// One after the other is killed so often.
    crash_every_ms: Option<u64>,
    /// Redis' clock is set back by a fifth of a window.
    set_back_ms: Option<u64>,
    /// A replica does not reach Redis from a time until another.
    away: Vec<(usize, u64, u64)>,
}

impl Plan {
    fn new(key: &'static str, limit: u64, window_ms: u64, windows: u64) -> Self {
        Self {
            key,
            limit,
            window_ms,
            end_ms: windows * window_ms,
            way_ms: 20,
            has_mail: |_, _| true,
            crash_every_ms: None,
            set_back_ms: None,
            away: Vec::new(),
        }
    }

    fn is_away(&self, replica: usize, now_ms: u64) -> bool {
        let is_away = |(who, from_ms, until_ms): &(usize, u64, u64)| {
            *who == replica && (*from_ms..*until_ms).contains(&now_ms)
        };
        self.away.iter().any(is_away)
    }

    /// How often a replica is heard: as in production, but for windows of hours, so as not to take as long as they.
    fn heard_every_ms(&self) -> u64 {
        (self.window_ms / 1_000).max(500)
    }

    /// So long a replica must not be heard before others leave it its share.
    fn silence_ms(&self) -> u64 {
        4 * self.heard_every_ms()
    }

    /// What a replica may use by itself: each has one partition, and the first one what is left.
    fn share(&self, replica: usize) -> u64 {
        let replicas = REPLICAS as u64;
        let rest = self.limit % replicas;
        self.limit / replicas + if replica == 0 { rest } else { 0 }
    }
}

struct Run {
    plan: Plan,
    connection: redis::Connection,
    script: Script,
    presence: Script,
    /// When each was heard, last.
    heard_ms: [u64; REPLICAS],
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    turn: u64,
    dice: Dice,
    window: Window,
    replicas: Vec<Rates>,
    starts: [u32; REPLICAS],
    words: Vec<Word>,
    news: Vec<GrantNews>,
    taken: Vec<Taken>,
    mails: Vec<u64>,
    dots: Vec<u64>,
}

impl Run {
    fn at(&mut self, time_ms: u64, event: Event) {
        self.turn += 1;
        self.events.push(Reverse((time_ms, self.turn, event)));
    }

    fn play(&mut self) {
        for replica in 0..REPLICAS {
            self.at(0, Event::Heard(replica, 0));
            let first_ms = 1 + self.dice.below(10);
            self.at(first_ms, Event::Look(replica));
        }
        if let Some(every_ms) = self.plan.crash_every_ms {
            for (number, at_ms) in (every_ms..self.plan.end_ms)
                .step_by(every_ms as usize)
                .enumerate()
            {
                self.at(at_ms, Event::Crash(number % REPLICAS));
            }
        }
        while let Some(Reverse((now_ms, _, event))) = self.events.pop() {
            if now_ms >= self.plan.end_ms {
                return;
            }
            self.step(now_ms, event);
        }
    }

    fn step(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Look(replica) => self.look(now_ms, replica),
            Event::Word(replica, start, word) => {
                let news = self.ask(now_ms, replica, start, word);
                self.news.push(news);
                let back_ms = match self.plan.is_away(replica, now_ms) {
                    true => now_ms + TIME_OUT_MS,
                    false => now_ms + self.dice.below(3),
                };
                self.at(back_ms, Event::News(replica, start, self.news.len() - 1));
            }
            Event::News(replica, start, news) if start == self.starts[replica] => {
                self.replicas[replica].news(now_ms, self.window, self.news[news]);
                self.look(now_ms, replica);
            }
            Event::Left(replica, start, taken) if start == self.starts[replica] => {
                let (taken, over) = (self.taken[taken], Became::Over(now_ms + 1));
                self.replicas[replica].settle(now_ms, taken, Unit::Messages, over);
                self.look(now_ms, replica);
            }
            // What was with a scheduler that is gone has not begun.
            Event::Mail(replica, start) if start == self.starts[replica] => {
                self.mails.push(now_ms);
                let way_ms = self.way();
                self.at(now_ms + way_ms, Event::Dot);
                self.taken_left(now_ms + way_ms, replica, start);
            }
            Event::Dot => self.dots.push(now_ms),
            Event::Crash(replica) => {
                self.starts[replica] += 1;
                self.replicas[replica] = Rates::new([self.window]);
                self.heard_ms[replica] = now_ms + 500;
                self.at(now_ms + 500, Event::Heard(replica, self.starts[replica]));
                self.at(now_ms + 500, Event::Look(replica));
            }
            Event::Heard(replica, start) if start == self.starts[replica] => {
                if !self.plan.is_away(replica, now_ms) {
                    self.hear(now_ms, replica);
                }
                self.at(
                    now_ms + self.plan.heard_every_ms(),
                    Event::Heard(replica, start),
                );
            }
            Event::News(..) | Event::Left(..) | Event::Mail(..) | Event::Heard(..) => {}
        }
    }

    fn taken_left(&mut self, dot_ms: u64, replica: usize, start: u32) {
        let heard_ms = dot_ms + self.dice.below(4);
        // All uses are alike.
        self.at(heard_ms, Event::Left(replica, start, self.taken.len() - 1));
    }

    fn way(&mut self) -> u64 {
        let way_ms = self.dice.below(self.plan.way_ms + 1);
        match self.dice.below(50) {
            0 => way_ms * 10,
            _ => way_ms,
        }
    }

    fn look(&mut self, now_ms: u64, replica: usize) {
        let start = self.starts[replica];
        while (self.plan.has_mail)(replica, now_ms) {
            match self.replicas[replica].take(now_ms, false, 50) {
                TakeAll::Yes(taken) => {
                    self.taken.push(taken);
                    let mail_ms = now_ms + self.way();
                    self.at(mail_ms, Event::Mail(replica, start));
                }
                TakeAll::Ask { word, .. } => self.say(now_ms, replica, word),
                TakeAll::Wait(until_ms) => {
                    self.at(until_ms, Event::Look(replica));
                    break;
                }
                TakeAll::Asked => break,
            }
        }
        if !(self.plan.has_mail)(replica, now_ms) {
            self.at(now_ms + self.plan.window_ms / 40 + 1, Event::Look(replica));
        }
        if let Some((_, word)) = self.replicas[replica].tell(now_ms) {
            self.say(now_ms, replica, word);
        } else if let Some(at_ms) = self.replicas[replica].tells_at(now_ms) {
            self.at(at_ms.max(now_ms + 1), Event::Look(replica));
        }
    }

    fn say(&mut self, now_ms: u64, replica: usize, word: Word) {
        self.words.push(word);
        let there_ms = now_ms + self.dice.below(3);
        let start = self.starts[replica];
        self.at(there_ms, Event::Word(replica, start, self.words.len() - 1));
    }

    /// Redis' clock: seconds, and microseconds.
    fn clock(&self, now_ms: u64) -> (u64, u64) {
        let behind_ms = match self.plan.set_back_ms {
            Some(at_ms) if now_ms >= at_ms => self.plan.window_ms / 5,
            _ => 0,
        };
        let clock_ms = START_MS + now_ms - behind_ms;
        (clock_ms / 1_000, clock_ms % 1_000 * 1_000)
    }

    /// As `limits` has schedulers be heard.
    fn hear(&mut self, now_ms: u64, replica: usize) {
        let (seconds, microseconds) = self.clock(now_ms);
        let mut call = self.presence.key("present");
        call.key(seconds)
            .key(microseconds)
            .arg(format!("{replica}-{}", self.starts[replica]))
            .arg(1)
            .arg(REPLICAS)
            .arg(now_ms - self.heard_ms[replica])
            .arg(self.plan.silence_ms());
        let _: u64 = call.invoke(&mut self.connection).unwrap();
        self.heard_ms[replica] = now_ms;
    }

    /// As `limits::Scripts::ask` sends it and the scheduler understands the answer.
    fn ask(&mut self, now_ms: u64, replica: usize, start: u32, word: usize) -> GrantNews {
        let share = self.plan.share(replica);
        if self.plan.is_away(replica, now_ms) {
            let failed_ms = now_ms + TIME_OUT_MS;
            let may_share = failed_ms >= self.heard_ms[replica] + 2 * self.plan.silence_ms();
            return GrantNews::Share {
                share: if may_share { share } else { 0 },
                until_ms: failed_ms + ASK_AGAIN_MS,
                heard: false,
            };
        }
        let (seconds, microseconds) = self.clock(now_ms);
        let (word, window_ms) = (&self.words[word], self.plan.window_ms);
        let life_ms = (window_ms / 16).clamp(50, 30_000);
        let mut call = self.script.key(self.plan.key);
        call.key("present")
            .key(seconds)
            .key(microseconds)
            .arg(self.plan.limit)
            .arg(window_ms)
            .arg(window_ms.clamp(2_000, 30_000))
            .arg(life_ms)
            .arg(0)
            .arg(format!("{replica}-{start}"))
            .arg(word.batch)
            .arg(word.have)
            .arg(word.want)
            .arg(format!("{replica}-{start}"))
            .arg(self.plan.silence_ms());
        for (at_ms, count) in &word.dated {
            call.arg(now_ms.saturating_sub(*at_ms)).arg(count);
        }
        let (kind, amount, ms): (u8, u64, u64) = call.invoke(&mut self.connection).unwrap();
        match kind {
            0 => GrantNews::Granted {
                amount,
                until_ms: now_ms + life_ms,
            },
            1 => GrantNews::Nothing {
                retry_ms: now_ms + ms,
            },
            _ if ms <= TELLS_MS => GrantNews::Nothing {
                retry_ms: now_ms + ms,
            },
            _ => GrantNews::Share {
                share,
                until_ms: now_ms + ms - TELLS_MS,
                heard: true,
            },
        }
    }
}

/// The most uses in any window.
fn fullest(times: &mut [u64], window_ms: u64) -> u64 {
    times.sort_unstable();
    let mut window: VecDeque<u64> = VecDeque::new();
    let mut most = 0;
    for at_ms in times {
        while window
            .front()
            .is_some_and(|first| first + window_ms <= *at_ms)
        {
            window.pop_front();
        }
        window.push_back(*at_ms);
        most = most.max(window.len() as u64);
    }
    most
}

/// Neither when MAIL is counted nor when the dot is does a window see more than the limit; this part of it is used, and
/// at most so many calls are made in a window.
async fn holds(plan: Plan, least: f64, most_calls: u64) {
    let server = Server::start().await;
    let url = server.url();
    let run = tokio::task::spawn_blocking(move || {
        let limit = RateLimit {
            count: plan.limit,
            per_ms: plan.window_ms,
        };
        let window = Window {
            unit: Unit::Messages,
            limit,
        };
        let client = redis::Client::open(url).unwrap();
        let mut run = Run {
            connection: client.get_connection().unwrap(),
            script: scripted_clock(include_str!("../../src/grant.lua"), "{ KEYS[3], KEYS[4] }"),
            presence: scripted_clock(
                include_str!("../../src/presence.lua"),
                "{ KEYS[2], KEYS[3] }",
            ),
            heard_ms: [0; REPLICAS],
            events: BinaryHeap::new(),
            turn: 0,
            dice: Dice(plan.limit),
            window,
            replicas: (0..REPLICAS).map(|_| Rates::new([window])).collect(),
            starts: [0; REPLICAS],
            words: Vec::new(),
            news: Vec::new(),
            taken: Vec::new(),
            mails: Vec::new(),
            dots: Vec::new(),
            plan,
        };
        run.play();
        run
    });
    let mut run = run.await.unwrap();
    let (limit, window_ms) = (run.plan.limit, run.plan.window_ms);
    let by_mail = fullest(&mut run.mails, window_ms);
    let by_dot = fullest(&mut run.dots, window_ms);
    let windows = run.plan.end_ms / window_ms;
    // The first window's worth may come at once.
    let used =
        (run.dots.len() as u64).saturating_sub(limit) as f64 / ((windows - 1) * limit) as f64;
    let calls = run.words.len() as u64 / windows;
    let key = run.plan.key;
    println!("{key}: {by_mail} and {by_dot} of {limit}, {used:.3} used, {calls} calls in a window");
    assert!(
        by_mail <= limit && by_dot <= limit,
        "{key}: {by_mail} and {by_dot} of {limit} in a window"
    );
    assert!(used >= least, "{key}: only {used:.3} was used");
    assert!(calls <= most_calls, "{key}: {calls} calls in a window");
}

#[tokio::test]
async fn ten_a_second_hold_and_are_used() {
    holds(Plan::new("ten", 10, 1_000, 120), 0.95, 60).await;
}

#[tokio::test]
async fn two_hundred_a_second_hold_and_are_used() {
    holds(Plan::new("two-hundred", 200, 1_000, 60), 0.95, 500).await;
}

#[tokio::test]
async fn ten_thousand_a_second_hold_and_are_used_with_few_calls() {
    holds(Plan::new("ten-thousand", 10_000, 1_000, 8), 0.93, 700).await;
}

#[tokio::test]
async fn one_a_minute_holds_and_is_used() {
    holds(Plan::new("minute", 1, 60_000, 60), 0.95, 80).await;
}

#[tokio::test]
async fn one_a_minute_goes_to_who_has_mail() {
    let plan = Plan {
        has_mail: |replica, now_ms| now_ms / 150_000 % REPLICAS as u64 == replica as u64,
        ..Plan::new("moving-minute", 1, 60_000, 60)
    };
    holds(plan, 0.90, 80).await;
}

#[tokio::test]
async fn slow_ways_cost_use_and_break_nothing() {
    let plan = Plan {
        way_ms: 400,
        ..Plan::new("slow", 50, 1_000, 60)
    };
    holds(plan, 0.45, 300).await;
}

#[tokio::test]
async fn rates_hold_when_schedulers_are_killed() {
    let plan = Plan {
        crash_every_ms: Some(3_700),
        ..Plan::new("killed", 100, 1_000, 90)
    };
    holds(plan, 0.80, 500).await;
}

#[tokio::test]
async fn a_second_s_rate_holds_when_nobody_reaches_redis_for_a_while() {
    let all = |from_ms, until_ms| (0..REPLICAS).map(move |who| (who, from_ms, until_ms));
    let plan = Plan {
        // The last one comes back later than the others.
        away: all(10_000, 22_000)
            .chain([(2, 22_000, 23_500)])
            .chain(all(40_000, 41_500))
            .collect(),
        ..Plan::new("nobody-reaches", 100, 1_000, 60)
    };
    holds(plan, 0.70, 500).await;
}

#[tokio::test]
async fn a_second_s_rate_holds_when_one_of_three_does_not_reach_redis() {
    let plan = Plan {
        away: vec![(1, 10_000, 30_000), (0, 40_000, 47_000)],
        ..Plan::new("one-does-not-reach", 100, 1_000, 60)
    };
    holds(plan, 0.80, 500).await;
}

#[tokio::test]
async fn a_minute_s_rate_holds_when_one_of_three_does_not_reach_redis_for_longer() {
    let plan = Plan {
        away: vec![(1, 100_000, 400_000), (2, 600_000, 630_000)],
        ..Plan::new("one-does-not-reach-minute", 60, 60_000, 20)
    };
    holds(plan, 0.70, 500).await;
}

#[tokio::test]
async fn a_limit_for_twelve_hours_holds_for_two_days_and_is_used() {
    holds(Plan::new("half-day", 1_000, 12 * HOUR_MS, 4), 0.95, 8_000).await;
}

#[tokio::test]
async fn a_limit_for_a_day_holds_for_two_days_and_is_used() {
    holds(Plan::new("day", 5_000, 24 * HOUR_MS, 2), 0.95, 16_000).await;
}

#[tokio::test]
async fn a_limit_for_twelve_hours_holds_when_the_clock_is_set_back() {
    let plan = Plan {
        set_back_ms: Some(7 * HOUR_MS),
        ..Plan::new("set-back", 1_000, 12 * HOUR_MS, 4)
    };
    holds(plan, 0.90, 8_000).await;
}
