//! A simulated sender: it keeps the rules of the real one and delivers to a ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail::Place;
use proto::dispatch::scheduler_item::Kind as FromScheduler;
use proto::dispatch::sender_item::Kind as ToScheduler;
use proto::dispatch::{
    Assignment, Begin, DeliveryRef, Hello, InFlight, Left, RecipientReport, Report, ReturnReason,
    Returned, SchedulerItem,
};
use proto::journal::{Reply, Stage};

/// A delivery that the sender holds.
#[derive(Debug, Clone)]
pub struct Holding {
    pub delivery: DeliveryRef,
    pub place: Place,
    pub stream: usize,
    /// Its place for a connection.
    pub slot: SlotKey,
    /// How long its lane lets the sender wait for the final reply, milliseconds.
    pub final_reply_ms: u64,
    /// The scheduler wants to hear that the message has left, at the latest so long after MAIL FROM, milliseconds.
    pub left_within_ms: Option<u64>,
    pub stage: Holds,
    pub mail_at: u64,
    /// The host has not taken MAIL FROM; its reply is on its way.
    pub turned_down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Assigned,
    Begun,
    /// The permit is good until then.
    Permitted(u64),
    /// The dot is sent; the reply will come.
    DotSent,
}

pub type Key = (u32, u64, u32);

/// A place for a connection: stream, lane, slot.
pub type SlotKey = (usize, u32, u32);

/// What a scheduler says of a lane.
#[derive(Debug, Clone)]
pub struct LaneOf {
    pub source: Arc<str>,
    pub site: Arc<str>,
    pub final_reply_ms: u64,
    pub left_within_ms: Option<u64>,
    pub most_messages: u32,
    pub idle_ms: u64,
}

/// A connection to a host.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Another one for each.
    pub number: u64,
    pub source: Arc<str>,
    pub site: Arc<str>,
    pub state: Use,
    pub messages: u32,
    /// It is closed when what is under way over it is over.
    pub closes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Idle,
    Busy,
    /// QUIT is said.
    Closing,
}

pub fn key(delivery: &DeliveryRef) -> Key {
    (delivery.partition, delivery.epoch, delivery.attempt)
}

#[derive(Default)]
pub struct Sender {
    pub holds: BTreeMap<Key, Holding>,
    /// Reports not yet acknowledged, with the epoch and stream of the owner they were last sent to: a scheduler that
    /// takes the partition anew has lost what it had not stored.
    pub reports: BTreeMap<Key, (Report, Option<(u64, usize)>)>,
    /// Newest epoch seen of each partition, and the stream of its owner.
    pub owners: BTreeMap<u32, (u64, usize)>,
    pub incarnation: u64,
    /// A sender of a release that knows nothing of `finalReplyTimeout`: it waits for ten minutes, and does not say that a message has
    /// left.
    pub is_old: bool,
    /// By stream and number.
    pub lanes: BTreeMap<(usize, u32), LaneOf>,
    pub connections: BTreeMap<SlotKey, Connection>,
    /// It is there.
    pub up: bool,
    /// It takes nothing more.
    pub drains: bool,
}

/// How long an old sender waits for the final reply, milliseconds.
const TEN_MINUTES_MS: u64 = 600_000;

/// What the sender does next.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for a moment, and is nearly always the large one"
)]
pub enum Act {
    Send(usize, ToScheduler),
    /// Go on with a delivery after a while.
    Work(Key),
    /// Say that a slot without connection is free.
    Free(SlotKey),
}

impl Sender {
    pub fn hello(&self, id: usize) -> ToScheduler {
        let inventory = self.holds.values().map(|holding| InFlight {
            delivery: Some(holding.delivery.clone()),
            begun: holding.stage != Holds::Assigned,
        });
        ToScheduler::Hello(Hello {
            sender_id: format!("sender-{id}.{}", self.incarnation),
            sources: Vec::new(),
            credit: 50,
            inventory: inventory.collect(),
            answers_pings: false,
        })
    }

    /// The stream is broken: what is not under permit is broken off and reported to the next owner.
    pub fn stream_broken(&mut self, stream: usize) -> Vec<Act> {
        let broken: Vec<Key> = self
            .holds
            .iter()
            .filter(|(_, h)| {
                h.stream == stream && matches!(h.stage, Holds::Assigned | Holds::Begun)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in broken {
            let Some(holding) = self.holds.remove(&key) else {
                continue;
            };
            if holding.stage == Holds::Begun {
                self.reports.insert(
                    key,
                    (report(&holding.delivery, Stage::Prepare, 0, false), None),
                );
            }
        }
        self.owners.retain(|_, (_, owner)| *owner != stream);
        for (_, sent) in self.reports.values_mut() {
            if sent.is_some_and(|(_, to)| to == stream) {
                *sent = None;
            }
        }
        Vec::new()
    }

    pub fn take(&mut self, now: u64, stream: usize, item: SchedulerItem) -> Vec<Act> {
        match item.kind {
            Some(FromScheduler::Owns(owns)) => {
                self.owners.retain(|_, (_, owner)| *owner != stream);
                for of in owns.partitions {
                    let newest = self
                        .owners
                        .get(&of.partition)
                        .map_or(0, |(epoch, _)| *epoch);
                    if of.epoch >= newest {
                        self.owners.insert(of.partition, (of.epoch, stream));
                    }
                }
                self.break_off_stale();
                self.send_reports()
            }
            Some(FromScheduler::Lane(lane)) => {
                let final_reply_ms = u64::from(lane.final_reply_timeout_ms);
                assert!(final_reply_ms > 0, "the scheduler says how long");
                let of = LaneOf {
                    source: lane.source.into(),
                    site: lane.site.into(),
                    final_reply_ms,
                    left_within_ms: Some(lane.left_within_ms.into()).filter(|ms| *ms > 0),
                    most_messages: lane.messages_per_connection,
                    idle_ms: lane.idle_timeout_ms.into(),
                };
                self.lanes.insert((stream, lane.id), of);
                Vec::new()
            }
            Some(FromScheduler::Assignment(assignment)) => self.assigned(stream, assignment),
            Some(FromScheduler::Permit(permit)) => {
                let Some(delivery) = permit.delivery else {
                    return Vec::new();
                };
                match self.holds.get_mut(&key(&delivery)) {
                    Some(holding) if holding.stage == Holds::Begun => {
                        holding.stage = Holds::Permitted(now + u64::from(permit.valid_ms));
                        vec![Act::Work(key(&delivery))]
                    }
                    _ => Vec::new(),
                }
            }
            Some(FromScheduler::ReportStored(stored)) => {
                if let Some(delivery) = stored.delivery {
                    self.reports.remove(&key(&delivery));
                }
                Vec::new()
            }
            Some(FromScheduler::Refused(refused)) => {
                if let Some(delivery) = refused.delivery {
                    self.holds.remove(&key(&delivery));
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What a former owner assigned will get no permit any more.
    fn break_off_stale(&mut self) {
        let is_stale = |holding: &Holding| {
            let newest = self.owners.get(&holding.delivery.partition);
            newest.is_some_and(|(epoch, _)| holding.delivery.epoch < *epoch)
        };
        let waiting = |holding: &Holding| matches!(holding.stage, Holds::Assigned | Holds::Begun);
        let stale: Vec<Key> = self
            .holds
            .iter()
            .filter(|(_, h)| waiting(h) && is_stale(h))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            let Some(holding) = self.holds.remove(&key) else {
                continue;
            };
            if holding.stage == Holds::Begun {
                self.reports.insert(
                    key,
                    (report(&holding.delivery, Stage::Prepare, 0, false), None),
                );
            }
        }
    }

    fn assigned(&mut self, stream: usize, assignment: Assignment) -> Vec<Act> {
        let Some(delivery) = assignment.delivery else {
            return Vec::new();
        };
        let newest = self
            .owners
            .get(&delivery.partition)
            .map_or(0, |(epoch, _)| *epoch);
        let slot = (stream, assignment.lane, assignment.slot);
        let refused = match self.drains {
            true => Some(ReturnReason::Draining),
            false => (delivery.epoch < newest).then_some(ReturnReason::StaleEpoch),
        };
        if let Some(reason) = refused {
            let returned = Returned {
                delivery: Some(delivery),
                reason: reason.into(),
                detail: String::new(),
            };
            let returned = Act::Send(stream, ToScheduler::Returned(returned));
            return vec![returned, Act::Free(slot)];
        }
        let key = key(&delivery);
        let lane = &self.lanes[&(stream, assignment.lane)];
        self.holds.insert(
            key,
            Holding {
                delivery,
                place: Place {
                    sequence: assignment.sequence,
                    index: assignment.index,
                },
                stream,
                slot,
                final_reply_ms: match self.is_old {
                    true => TEN_MINUTES_MS,
                    false => lane.final_reply_ms,
                },
                left_within_ms: lane.left_within_ms.filter(|_| !self.is_old),
                stage: Holds::Assigned,
                mail_at: 0,
                turned_down: false,
            },
        );
        vec![Act::Work(key)]
    }

    pub fn begin(&mut self, now: u64, key: Key) -> Vec<Act> {
        let Some(holding) = self.holds.get_mut(&key) else {
            return Vec::new();
        };
        holding.stage = Holds::Begun;
        holding.mail_at = now;
        vec![Act::Send(
            holding.stream,
            ToScheduler::Begin(Begin {
                delivery: Some(holding.delivery.clone()),
                final_reply_timeout_ms: if self.is_old {
                    0
                } else {
                    u32::try_from(holding.final_reply_ms).expect("an hour at most")
                },
            }),
        )]
    }

    /// The message counts as sent from now on; said once.
    pub fn left(&mut self, key: Key) -> Vec<Act> {
        let Some(holding) = self.holds.get_mut(&key) else {
            return Vec::new();
        };
        if holding.left_within_ms.take().is_none() {
            return Vec::new();
        }
        let left = Left {
            delivery: Some(holding.delivery.clone()),
        };
        vec![Act::Send(holding.stream, ToScheduler::Left(left))]
    }

    /// The assignment goes back unbegun.
    pub fn give_back(&mut self, key: Key, reason: ReturnReason) -> Vec<Act> {
        let Some(holding) = self.holds.remove(&key) else {
            return Vec::new();
        };
        let returned = Returned {
            delivery: Some(holding.delivery),
            reason: reason.into(),
            detail: String::new(),
        };
        vec![Act::Send(holding.stream, ToScheduler::Returned(returned))]
    }

    /// All that is not begun goes back.
    pub fn give_back_all(&mut self) -> Vec<Act> {
        let is_assigned = |(_, holding): &(&Key, &Holding)| holding.stage == Holds::Assigned;
        let keys = self
            .holds
            .iter()
            .filter(is_assigned)
            .map(|(key, holding)| (*key, holding.slot));
        let keys: Vec<(Key, SlotKey)> = keys.collect();
        let mut acts = Vec::new();
        for (key, slot) in keys {
            acts.extend(self.give_back(key, ReturnReason::Draining));
            acts.push(Act::Free(slot));
        }
        acts
    }

    /// The attempt is over.
    pub fn finish(&mut self, key: Key, stage: Stage, code: u32, dot_sent: bool) -> Vec<Act> {
        let Some(holding) = self.holds.remove(&key) else {
            return Vec::new();
        };
        self.reports.insert(
            key,
            (report(&holding.delivery, stage, code, dot_sent), None),
        );
        self.send_reports()
    }

    fn send_reports(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for ((partition, ..), (report, sent)) in &mut self.reports {
            let Some(owner) = self.owners.get(partition) else {
                continue;
            };
            if *sent != Some(*owner) {
                *sent = Some(*owner);
                acts.push(Act::Send(owner.1, ToScheduler::Report(report.clone())));
            }
        }
        acts
    }
}

fn report(delivery: &DeliveryRef, stage: Stage, code: u32, dot_sent: bool) -> Report {
    let recipient = |ordinal: &u32| RecipientReport {
        ordinal: *ordinal,
        address: String::new(),
        reply: Some(Reply {
            stage: stage.into(),
            code,
            enhanced: String::new(),
            text: if code == 451 && ordinal % 2 == 1 {
                "Greylisted, try again in 30 seconds".to_owned()
            } else {
                String::new()
            },
        }),
    };
    Report {
        delivery: Some(delivery.clone()),
        recipients: delivery.ordinals.iter().map(recipient).collect(),
        dot_sent,
        ..Report::default()
    }
}
