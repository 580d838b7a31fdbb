//! What schedulers ask Redis, how its answers get lost, and what becomes of it.

use std::time::Duration;

use egress::{Whose, Window};
use limits::{
    Answer, Command, Epoch, GrantRequest, LeasedIn, SLOT_TTL, SlotRequest, Unavailable, Words,
};
use scheduler::lending::{grant_news, slot_news};

use super::super::redis::PREFIX;
use super::hosts::SPOKEN_MS;
use super::*;

/// How long an answer is waited for, milliseconds.
const PATIENCE_MS: u64 = 250;
/// How often a scheduler says that it is there.
const PRESENT_MS: u64 = 500;
/// After such a silence it is not known what others have opened.
const LONG_SILENCE_MS: u64 = 10_000;
const FIRST_BACKOFF_MS: u64 = 50;
const LONGEST_BACKOFF_MS: u64 = 2_000;

/// Redis and the way there.
pub(super) struct Redis {
    server: Server,
    words: Words,
    away_until: u64,
    slow_until: u64,
    /// When it lost what it knew last.
    lost_at: u64,
    /// When it heard of the connections of a limit last, by limit and scheduler.
    heard: BTreeMap<(String, String), u64>,
}

impl Redis {
    pub(super) fn new() -> Self {
        let words = Words::new(PREFIX);
        Self {
            server: Server::new(&words),
            words,
            away_until: 0,
            slow_until: 0,
            lost_at: 0,
            heard: BTreeMap::new(),
        }
    }

    /// Whether it knows all that schedulers have opened until now, but for who alone does not reach it.
    pub(super) fn has_heard_of_all(&self, now: u64) -> bool {
        now > self.lost_at.max(self.away_until) + SPOKEN_MS
    }

    /// When the lease of a scheduler ends, if nothing is heard of it any more; 0 = it has none.
    pub(super) fn lease_ends(&self, key: &str, scheduler: &str) -> u64 {
        let heard = self.heard.get(&(key.to_owned(), scheduler.to_owned()));
        heard.map_or(0, |at| at + SLOT_TTL.as_millis() as u64)
    }
}

/// A connection of a scheduler to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    epoch: Epoch,
    server_life: u64,
    opened_at: u64,
    /// Another one for each.
    number: u64,
}

/// What a scheduler knows of Redis, as `limits::Grants` does.
pub(super) struct Lending {
    link: Option<Link>,
    backoff_ms: u64,
    /// The last epoch.
    seen: Option<Epoch>,
    leased: LeasedIn,
    /// When Redis heard it last, or it joined, and since when without a long silence.
    heard_at: u64,
    heard_since: Option<u64>,
    /// What it said of how many partitions it has, and when it says so again.
    has: u32,
    says_at: u64,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Asks {
    Slots(Whose, SlotRequest),
    /// With the share that holds when there is no answer.
    Grant(Whose, Window, GrantRequest, u64),
    /// How many partitions a scheduler has, and for how long it was not heard.
    Present(String, u32, Duration),
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    asks: Asks,
    link: Option<Link>,
    /// Of the scheduler, when it asked.
    leased: LeasedIn,
    asked_at: u64,
    /// By the clock of the scheduler.
    asked_ms: u64,
}

impl World {
    pub(super) fn ask(&mut self, node: usize, mut asks: Asks) {
        let state = &self.nodes[node];
        if let Asks::Slots(_, request) = &mut asks {
            let heard_for = state.lending.heard_for(self.now);
            *request = self.redis.words.asks_for(request, heard_for);
        }
        let (life, link) = (state.life, state.lending.link);
        let question = Box::new(Question {
            asks,
            link,
            leased: state.lending.leased,
            asked_at: self.now,
            asked_ms: self.clock(node),
        });
        if link.is_none() {
            let answered = Event::Answered {
                node,
                life,
                question,
                answer: None,
            };
            return self.after(0, answered);
        }
        let way = self.way_to_redis();
        let asked = Event::Asked {
            node,
            life,
            question,
        };
        self.after(way, asked);
    }

    fn way_to_redis(&mut self) -> u64 {
        let slow = self.now < self.redis.slow_until;
        self.rng.random_range(1..if slow { 300 } else { 4 })
    }

    /// A question comes to Redis, also when who asked is gone by now.
    pub(super) fn asked(&mut self, node: usize, life: u64, question: Box<Question>) {
        let Some(link) = question.link else { return };
        let patience = (question.asked_at + PATIENCE_MS).saturating_sub(self.now);
        let is_other = link.server_life != self.redis.server.life;
        let (wait, answer) = if is_other {
            (1, None)
        } else if self.now < self.redis.away_until || (self.faulty() && self.chance(1)) {
            (patience, None)
        } else {
            let commands = self.commands(&question, link.epoch);
            let answers = self.redis.server.run(self.now, &commands);
            if let Asks::Slots(_, request) = &question.asks {
                self.hear_of(&request.key, &request.holder);
            }
            if !matches!(question.asks, Asks::Present(..)) {
                self.note(|| format!("scheduler {node}.{life}: {:?}: {answers:?}", question.asks));
            }
            let back = self.way_to_redis();
            match back >= patience || (self.faulty() && self.chance(1)) {
                true => (patience, None),
                false => (back, Some(answers)),
            }
        };
        let answered = Event::Answered {
            node,
            life,
            question,
            answer,
        };
        self.after(wait, answered);
    }

    /// A scheduler says that it is there, as `limits::Grants::join` does: twice a second, and when it has more
    /// partitions or fewer.
    pub(super) fn be_present(&mut self, node: usize) {
        let (now, life) = (self.now, self.nodes[node].life);
        let state = &mut self.nodes[node];
        if !state.up || now < state.lending.says_at {
            return;
        }
        state.lending.says_at = now + PRESENT_MS;
        let (name, has) = (state.machine.scheduler_id().to_owned(), state.lending.has);
        if state.lending.link.is_some() {
            let silent_for = Duration::from_millis(now - state.lending.heard_at);
            self.ask(node, Asks::Present(name, has, silent_for));
        }
        self.after(PRESENT_MS, Event::Present { node, life });
    }

    /// After each step: how many partitions it has.
    pub(super) fn note_owned(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let has = state.machine.intakes().count() as u32;
        if std::mem::replace(&mut state.lending.has, has) != has {
            let (life, now) = (state.life, self.now);
            state.lending.says_at = now;
            self.after(0, Event::Present { node, life });
        }
    }

    fn commands(&self, question: &Question, epoch: Epoch) -> Vec<Command> {
        let words = &self.redis.words;
        match &question.asks {
            Asks::Present(name, has, silent_for) => {
                words.present(name, (*has, PARTITIONS), *silent_for, epoch)
            }
            Asks::Slots(_, request) => words.lease(request, epoch, question.leased),
            Asks::Grant(_, _, request, _) => words.ask(request, &request.holder, epoch),
        }
    }

    /// A scheduler has an answer, or none.
    pub(super) fn answered(
        &mut self,
        node: usize,
        question: Question,
        answer: Option<Vec<Answer>>,
    ) {
        let heard = question.link.zip(answer).map(|(link, answers)| {
            let answers: [Answer; 2] = answers.try_into().expect("two questions are asked");
            (link.epoch, answers)
        });
        if let Asks::Present(..) = question.asks {
            let is_heard = heard.is_some_and(|(epoch, answers)| {
                let words = &self.redis.words;
                words.was_heard(answers, epoch).expect("the answer is one")
            });
            match (is_heard, question.link) {
                (true, _) => self.nodes[node].lending.is_heard(self.now),
                (false, Some(link)) => self.drop_link(node, link),
                _ => {}
            }
            return;
        }
        let (asked_ms, now_ms) = (question.asked_ms, self.clock(node));
        let words = &self.redis.words;
        let silent_for = Duration::from_millis(self.now - self.nodes[node].lending.heard_at);
        let (input, is_trusted) = match question.asks {
            Asks::Present(..) => return,
            Asks::Slots(whose, request) => {
                let reply = heard.and_then(|(epoch, answers)| {
                    let reply = words.leased(answers, epoch).expect("the answer is one")?;
                    self.nodes[node].lending.leased = question.leased.after(&epoch, &reply);
                    Some(reply)
                });
                let is_trusted = reply.is_some();
                let reply = reply.ok_or_else(away);
                let (_, news) = slot_news(&request, reply, asked_ms, now_ms);
                (Input::Slots(whose, news), is_trusted)
            }
            Asks::Grant(whose, window, request, share) => {
                let reply = heard.and_then(|(epoch, answers)| {
                    let reply = words.granted(answers, &request, epoch);
                    reply.expect("the answer is one")
                });
                let is_trusted = reply.is_some();
                // Else others may be lent it.
                let has_share = is_trusted || words.may_share(silent_for);
                let share = if has_share { share } else { 0 };
                let news = grant_news(reply.ok_or_else(away), asked_ms, now_ms, share);
                let limit = (&*request.key, window.limit.per_ms);
                self.beside.note(self.now, limit, &request.holder, news);
                (Input::Grant(whose, window, news), is_trusted)
            }
        };
        if !is_trusted && let Some(link) = question.link {
            self.drop_link(node, link);
        }
        self.step(node, Some(input));
    }

    /// Redis hears of the connections of a scheduler.
    fn hear_of(&mut self, key: &str, scheduler: &str) {
        let lease_ends = self.redis.lease_ends(key, scheduler);
        let whose = (key.to_owned(), scheduler.to_owned());
        self.redis.heard.insert(whose, self.now);
        if lease_ends > self.now {
            return;
        }
        let limits = self.hosts.values_mut().map(|host| &mut host.limit);
        let (source, name) = key.split_once('|').expect("a source and a name");
        let limit = limits
            .chain([&mut self.provider])
            .find(|limit| limit.name == name);
        let limit = limit.expect("what is leased is a limit");
        limit.lapsed(source, scheduler, lease_ends);
    }

    fn drop_link(&mut self, node: usize, link: Link) {
        let (now, life) = (self.now, self.nodes[node].life);
        let lending = &mut self.nodes[node].lending;
        if lending.link != Some(link) {
            return;
        }
        lending.link = None;
        let wait = match link.opened_at + LONGEST_BACKOFF_MS <= now {
            true => 0,
            false => lending.next_backoff(),
        };
        self.after(wait, Event::OpensRedis { node, life });
    }

    /// A scheduler connects to Redis, or tries again later.
    pub(super) fn open_redis(&mut self, node: usize) {
        let (now, life) = (self.now, self.nodes[node].life);
        let is_up = self.nodes[node].up;
        let lending = &mut self.nodes[node].lending;
        if !is_up || lending.link.is_some() {
            return;
        }
        if now < self.redis.away_until {
            let wait = lending.next_backoff();
            return self.after(wait, Event::OpensRedis { node, life });
        }
        let (server, words) = (&mut self.redis.server, &self.redis.words);
        let open = words.open(&server.run_id, self.rng.random(), lending.seen);
        let mut answers = server.run(now, &[open]);
        let answer = answers.pop().expect("it was asked");
        let (epoch, is_new) = words.opened(answer).expect("the answer is one");
        self.lost_counts += u32::from(is_new);
        if self.traces {
            println!("{now} scheduler {node}.{life} at {epoch:?}, new: {is_new}");
        }
        self.numbers += 1;
        let link = Link {
            epoch,
            server_life: server.life,
            opened_at: now,
            number: self.numbers,
        };
        let lending = &mut self.nodes[node].lending;
        (lending.link, lending.seen) = (Some(link), Some(epoch));
    }

    /// Something happens to Redis.
    pub(super) fn trouble_redis(&mut self) {
        let now = self.now;
        let redis = &mut self.redis;
        match self.rng.random_range(0..100) {
            0..25 => redis.away_until = now + self.rng.random_range(100..40_000),
            25..45 => redis.slow_until = now + self.rng.random_range(100..10_000),
            45..55 => {
                redis.server.empty();
                redis.lost_at = now;
            }
            // A replica takes over, which may be behind, or has nothing yet.
            55..70 => {
                let from_copy = self.rng.random_range(0..4) > 0;
                redis.server.restart(from_copy);
                redis.away_until = now + self.rng.random_range(0..3_000);
                redis.lost_at = now;
            }
            70..85 => redis.server.set_back(self.rng.random_range(1..60_000)),
            _ => redis.server.copy(),
        }
        if redis.lost_at == now {
            self.redis.heard.clear();
        }
        let redis = &self.redis;
        let (life, away, slow) = (redis.server.life, redis.away_until, redis.slow_until);
        self.note(|| format!("Redis of life {life}, away until {away}, slow until {slow}"));
    }
}

impl Lending {
    /// Of a scheduler that starts now.
    pub(super) fn new(now: u64) -> Self {
        Self {
            link: None,
            backoff_ms: 0,
            seen: None,
            leased: LeasedIn::default(),
            heard_at: now,
            heard_since: None,
            has: 0,
            says_at: 0,
        }
    }

    fn is_heard(&mut self, now: u64) {
        if now - self.heard_at >= LONG_SILENCE_MS {
            self.heard_since = None;
        }
        self.heard_since.get_or_insert(now);
        self.heard_at = now;
    }

    fn heard_for(&self, now: u64) -> Duration {
        let since = self.heard_since;
        let since = since.filter(|_| now - self.heard_at < LONG_SILENCE_MS);
        Duration::from_millis(now - since.unwrap_or(now))
    }

    fn next_backoff(&mut self) -> u64 {
        self.backoff_ms = (self.backoff_ms * 2).clamp(FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS);
        self.backoff_ms
    }
}

fn away() -> Unavailable {
    Unavailable("away".to_owned())
}

const _: () = assert!(SLOT_TTL.as_secs() == 20, "what the simulation assumes");
