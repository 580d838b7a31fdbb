//! What schedulers ask Redis, how its answers get lost, and what becomes of it.

use egress::LaneId;
use limits::{Memory, SLOT_TTL, SlotReply, SlotRequest, Unavailable, Words};
use scheduler::slot_news;

use super::super::redis::{Answer, PREFIX};
use super::*;

/// How long an answer is waited for, milliseconds.
const PATIENCE_MS: u64 = 250;
const FIRST_BACKOFF_MS: u64 = 50;
const LONGEST_BACKOFF_MS: u64 = 2_000;

/// Redis and the way there.
pub(super) struct Redis {
    server: Server,
    words: Words,
    away_until: u64,
    slow_until: u64,
    /// When it lost what it knew.
    pub(super) lost_at: u64,
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
        }
    }
}

/// A connection of a scheduler to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    memory: Memory,
    server_life: u64,
    /// Another one for each.
    number: u64,
}

/// What a scheduler knows of Redis.
#[derive(Default)]
pub(super) struct Lending {
    link: Option<Link>,
    backoff_ms: u64,
    /// The memory in which connections were leased; 0 = in none.
    leased_in: u64,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Asks {
    Slots(LaneId, SlotRequest),
}

/// A question on its way.
#[derive(Debug)]
pub(super) struct Question {
    asks: Asks,
    link: Option<Link>,
    asked_at: u64,
    /// By the clock of the scheduler.
    asked_ms: u64,
}

impl World {
    pub(super) fn ask(&mut self, node: usize, asks: Asks) {
        let state = &self.nodes[node];
        let (life, link) = (state.life, state.lending.link);
        let question = Box::new(Question {
            asks,
            link,
            asked_at: self.now,
            asked_ms: self.clock(node),
        });
        if link.is_none() {
            let answer = None;
            let answered = Event::Answered {
                node,
                life,
                question,
                answer,
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

    /// A question comes to Redis.
    pub(super) fn asked(&mut self, node: usize, life: u64, question: Box<Question>) {
        let Some(link) = question.link else { return };
        let patience = (question.asked_at + PATIENCE_MS).saturating_sub(self.now);
        let is_other = link.server_life != self.redis.server.life;
        let (wait, answer) = if is_other {
            (1, None)
        } else if self.now < self.redis.away_until || (self.faulty() && self.chance(1)) {
            (patience, None)
        } else {
            let answer = self.answer_of(node, &question, link.memory);
            let back = self.way_to_redis();
            match back >= patience || (self.faulty() && self.chance(1)) {
                true => (patience, None),
                false => (back, Some(answer)),
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

    fn answer_of(&mut self, node: usize, question: &Question, memory: Memory) -> Vec<Answer> {
        let before = self.nodes[node].lending.leased_in;
        let commands = match &question.asks {
            Asks::Slots(_, request) => {
                // As `Grants::lease` does.
                let fresh = before == 0 || before == memory.id;
                self.redis.words.lease(request, memory, fresh)
            }
        };
        self.redis.server.run(self.now, &commands)
    }

    /// A scheduler has an answer, or none.
    pub(super) fn answered(
        &mut self,
        node: usize,
        question: Question,
        answer: Option<Vec<Answer>>,
    ) {
        let is_same = |link: Link| {
            let id = format!("{:016x}", link.memory.id);
            answer
                .as_ref()
                .is_some_and(|answers| answers[1] == Answer::Text(id.into()))
        };
        let trusted = question.link.filter(|link| is_same(*link));
        if trusted.is_none()
            && let Some(link) = question.link
        {
            self.drop_link(node, link);
        }
        let numbers = answer.map(|answers| answers[0].numbers());
        let numbers = numbers.filter(|_| trusted.is_some());
        match question.asks {
            Asks::Slots(lane, request) => {
                let reply = match (trusted, numbers) {
                    (Some(link), Some(numbers)) => {
                        let reply = Words::leased(&numbers).expect("the answer is one");
                        self.note_leased(node, link.memory.id, reply);
                        Ok(reply)
                    }
                    _ => Err(Unavailable("away".to_owned())),
                };
                let (_, news) = slot_news(&request, reply, question.asked_ms, self.clock(node));
                self.step(node, Some(Input::Slots(lane, news)));
            }
        }
    }

    /// As `Grants::lease` does.
    fn note_leased(&mut self, node: usize, memory: u64, reply: SlotReply) {
        let leased_in = &mut self.nodes[node].lending.leased_in;
        if reply.known || *leased_in == 0 {
            *leased_in = memory;
        }
    }

    fn drop_link(&mut self, node: usize, link: Link) {
        let life = self.nodes[node].life;
        let lending = &mut self.nodes[node].lending;
        if lending.link == Some(link) {
            lending.link = None;
            let wait = lending.backoff_ms;
            self.after(wait, Event::OpensRedis { node, life });
        }
    }

    /// A scheduler connects to Redis, or tries again later.
    pub(super) fn open_redis(&mut self, node: usize) {
        let life = self.nodes[node].life;
        if !self.nodes[node].up || self.nodes[node].lending.link.is_some() {
            return;
        }
        let lending = &mut self.nodes[node].lending;
        lending.backoff_ms = (lending.backoff_ms * 2).clamp(FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS);
        if self.now < self.redis.away_until {
            let wait = lending.backoff_ms;
            return self.after(wait, Event::OpensRedis { node, life });
        }
        let fresh = self.rng.random();
        let server = &mut self.redis.server;
        let command = self.redis.words.epoch(&server.run_id, fresh);
        let answers = server.run(self.now, &[command]);
        let Answer::Several(said) = &answers[0] else {
            panic!("{answers:?} is no epoch");
        };
        self.lost_counts += u32::from(said[2] == Answer::Number(1));
        let memory = Memory {
            id: u64::from_str_radix(&said[0].text(), 16).expect("hexadecimal"),
            since_ms: said[1].text().parse().expect("a number"),
        };
        self.numbers += 1;
        let link = Link {
            memory,
            server_life: self.redis.server.life,
            number: self.numbers,
        };
        self.nodes[node].lending.link = Some(link);
    }

    /// Something happens to Redis.
    pub(super) fn trouble_redis(&mut self) {
        let now = self.now;
        let redis = &mut self.redis;
        let lives = redis.server.lives();
        match self.rng.random_range(0..100) {
            0..25 => redis.away_until = now + self.rng.random_range(100..40_000),
            25..45 => redis.slow_until = now + self.rng.random_range(100..10_000),
            45..55 => redis.server.empty(),
            // A replica takes over, which may be behind, or has nothing yet.
            55..70 => {
                let from_copy = self.rng.random_range(0..4) > 0;
                redis.server.restart(from_copy);
                redis.away_until = now + self.rng.random_range(0..3_000);
            }
            70..85 => redis.server.set_back(self.rng.random_range(1..60_000)),
            _ => redis.server.copy(),
        }
        if redis.server.lives() != lives {
            redis.lost_at = now;
            self.nobody_knows_of_orphans();
        }
    }
}

const _: () = assert!(SLOT_TTL.as_secs() == 20, "what the simulation assumes");
