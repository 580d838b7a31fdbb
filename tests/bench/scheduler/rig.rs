//! The machine between simulated senders, journals and grants.
//!
//! Simulated time goes on by milliseconds. All that is due in one is given to the machine at once, as the task does
//! that runs it in production, and only what the machine does is counted.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::Snapshot;
use egress::{GrantNews, SiteNews, SlotNews};
use journal::{Tail, Writer, WriterEffect, WriterEvent};
use mail::PartitionId;
use prost::Message as _;
use proto::dispatch::scheduler_item::Kind as FromScheduler;
use proto::dispatch::{Hello, SenderItem, sender_item};
use proto::spool::BlockIndex;
use queue::{Intake, SessionId, Settings};
use scheduler::machine::{Input, Machine, Output};

use crate::connections::Connections;
use crate::traffic::{self, Destination, Mail};

/// Partitions, all of them owned.
pub const PARTITIONS: u32 = 4;
/// Deliveries that a sender takes; the default of the configuration.
const CREDIT: u32 = 512;
/// Milliseconds until a record of the journal is stored.
const STORING_MS: usize = 3;
/// Milliseconds until a sender, a resolver or Redis answers.
const ANSWER_MS: usize = 1;
/// The lease never ends here.
const LEASE_MS: u64 = 86_400_000_000;

/// The stores of a partition, when they are kept.
#[derive(Default)]
pub struct Stored {
    /// Records of the journal, the first of them with the sequence 1.
    pub records: Vec<Bytes>,
    /// Indexes of the blocks, the first of them with the sequence 1.
    pub blocks: Vec<Bytes>,
    blocks_stored: u64,
}

/// See the module.
pub struct Rig {
    machine: Machine,
    now_ms: u64,
    /// What the machine is told in the next milliseconds.
    due: VecDeque<Vec<Input>>,
    spare: Vec<Vec<Input>>,
    outputs: Vec<Output>,
    cpu: Duration,
    stored: Vec<Stored>,
    keeps: bool,
    answers: Destination,
    connections: Connections,
    /// Milliseconds from an assignment to its report.
    transaction_ms: usize,
    senders: u64,
    mail: Mail,
    per_block: u64,
    fed: u64,
    finished: u64,
    /// Ids of messages that are not delivered yet, of those that are to be waited for.
    watched: HashSet<Bytes>,
    /// Turns of rotations that were drawn.
    turns: u64,
}

impl Rig {
    /// A machine with its partitions and senders; `keeps` = what is stored can be read again.
    pub fn new(senders: u64, domains: u64, per_block: u64, keeps: bool) -> anyhow::Result<Self> {
        let mail = Mail {
            tenants: (0, 1),
            domains,
        };
        Self::with(&traffic::documents(1), senders, mail, per_block, keeps)
    }

    /// With this configuration, and messages like these.
    pub fn with(
        documents: &str,
        senders: u64,
        mail: Mail,
        per_block: u64,
        keeps: bool,
    ) -> anyhow::Result<Self> {
        let problems = |problems: Vec<config::Problem>| anyhow::anyhow!("{problems:?}");
        let snapshot = Snapshot::from_documents(documents).map_err(problems)?;
        let mut rig = Self {
            machine: Machine::new("scheduler-0", PARTITIONS).leasing_connections(),
            now_ms: 1_800_000_000_000,
            due: VecDeque::new(),
            spare: Vec::new(),
            outputs: Vec::new(),
            cpu: Duration::ZERO,
            stored: Vec::new(),
            keeps,
            answers: Destination::Fast,
            connections: Connections::default(),
            transaction_ms: 2 * ANSWER_MS,
            senders,
            mail,
            per_block,
            fed: 0,
            finished: 0,
            watched: HashSet::new(),
            turns: 0,
        };
        rig.machine
            .step(rig.now_ms, Input::Config(Arc::new(snapshot)));
        for partition in 0..PARTITIONS {
            let genesis = journal::genesis(rig.now_ms);
            let (mut intake, claim) = claim(rig.now_ms, PartitionId(partition), 1, genesis.clone());
            intake.caught_up();
            intake.activate(rig.now_ms);
            let lease_until_ms = rig.now_ms + LEASE_MS;
            rig.machine.step(
                rig.now_ms,
                Input::Owned {
                    intake: Box::new(intake),
                    lease_until_ms,
                },
            );
            rig.stored.push(Stored {
                records: vec![genesis, claim],
                ..Stored::default()
            });
        }
        for session in 0..senders {
            rig.machine
                .step(rig.now_ms, Input::Attached(SessionId(session)));
            let hello = Hello {
                sender_id: format!("sender-{session}"),
                sources: vec![],
                credit: CREDIT,
                inventory: vec![],
                answers_pings: false,
            };
            let item = SenderItem {
                kind: Some(sender_item::Kind::Hello(hello)),
            };
            rig.machine
                .step(rig.now_ms, Input::Sender(SessionId(session), item));
        }
        Ok(rig)
    }

    /// Sends so many messages through, until each is delivered or deferred. Gives the machine's CPU time.
    pub fn send(&mut self, messages: u64, to: Destination) -> Duration {
        self.answers = to;
        let before = self.cpu;
        let last = self.fed + messages;
        let under_way = self.senders * u64::from(CREDIT) + 64 * u64::from(PARTITIONS);
        while self.finished < last {
            while self.fed < last && self.fed - self.finished < under_way {
                self.feed(to, last);
            }
            self.tick();
        }
        self.cpu - before
    }

    /// Begins a snapshot of every partition and lets it be written.
    pub fn write_snapshots(&mut self) {
        for partition in 0..PARTITIONS {
            self.machine
                .step(self.now_ms, Input::ShortOfSpace(PartitionId(partition)));
        }
        (0..5_000).for_each(|_| self.tick());
    }

    /// Lets a while pass in which nothing happens, so that the allocator gives back what was used for a moment.
    pub fn rest(&mut self) {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1_100));
            (0..60_000).for_each(|_| self.tick());
        }
    }

    /// From now on messages are of this tenant, and a transaction takes so long.
    pub fn switch(&mut self, tenant: u64, transaction_ms: usize) {
        self.mail.tenants = (tenant, 1);
        self.transaction_ms = transaction_ms;
    }

    /// Lets so many messages come in, without waiting for them.
    pub fn submit(&mut self, messages: u64) {
        let last = self.fed + messages;
        while self.fed < last {
            // As many as a partition reads at once.
            for _ in 0..64 {
                if self.fed < last {
                    self.feed(Destination::Fast, last);
                }
            }
            self.tick();
        }
    }

    /// Lets so many messages come in; gives the milliseconds until all of them are delivered.
    pub fn deliver(&mut self, messages: u64) -> u64 {
        let began_ms = self.now_ms;
        let last = self.fed + messages;
        let ids = (self.fed..last).map(|number| traffic::id(number, began_ms));
        self.watched.extend(ids);
        while self.fed < last {
            self.feed(Destination::Fast, last);
        }
        while !self.watched.is_empty() {
            self.tick();
        }
        self.now_ms - began_ms
    }

    /// Messages that live.
    pub fn live(&self) -> u64 {
        self.machine
            .intakes()
            .map(|intake| intake.totals().messages)
            .sum()
    }

    /// Lanes that the machine knows.
    pub fn lanes(&self) -> usize {
        self.machine.lanes()
    }

    /// What is stored, by partition.
    pub fn into_stored(self) -> (u64, Vec<Stored>) {
        (self.now_ms, self.stored)
    }

    fn feed(&mut self, to: Destination, last: u64) {
        let end = last.min(self.fed + self.per_block);
        let number = (end / self.per_block) % u64::from(PARTITIONS);
        let index = traffic::block(self.fed..end, self.now_ms, to, self.mail);
        self.fed = end;
        let Some(stored) = self.stored.get_mut(number as usize) else {
            return;
        };
        stored.blocks_stored += 1;
        let sequence = stored.blocks_stored;
        if self.keeps {
            stored.blocks.push(index.encode_to_vec().into());
        }
        let input = Input::Block {
            partition: PartitionId(number as u32),
            first: sequence,
            sequence,
            index: Ok(index),
        };
        self.after(ANSWER_MS, input);
    }

    fn after(&mut self, milliseconds: usize, input: Input) {
        while self.due.len() < milliseconds {
            self.due.push_back(self.spare.pop().unwrap_or_default());
        }
        if let Some(inputs) = self.due.get_mut(milliseconds - 1) {
            inputs.push(input);
        }
    }

    /// A millisecond goes by.
    pub fn tick(&mut self) {
        self.now_ms += 1;
        let mut inputs = self.due.pop_front().unwrap_or_default();
        inputs.extend(self.connections.closed(self.now_ms));
        let began = cpu_time();
        for input in inputs.drain(..) {
            self.machine.step(self.now_ms, input);
        }
        while self.machine.run(self.now_ms) {}
        self.outputs.extend(self.machine.outputs());
        self.cpu += cpu_time() - began;
        // More would only be memory that is counted as the machine's.
        if self.spare.len() < 8 {
            self.spare.push(inputs);
        }
        for output in std::mem::take(&mut self.outputs) {
            self.answer(output);
        }
    }

    fn answer(&mut self, output: Output) {
        match output {
            Output::ToSender(session, item) => self.sender(session, item.kind),
            Output::Journal(partition, WriterEffect::Append { append, .. }) => {
                let sequence = append.expected_last + 1;
                if let Some(stored) = self
                    .stored
                    .get_mut(partition.0 as usize)
                    .filter(|_| self.keeps)
                {
                    stored.records.push(append.record);
                }
                self.after(
                    STORING_MS,
                    Input::Journal(partition, WriterEvent::Stored(sequence)),
                );
            }
            Output::Resolve(domain) => {
                let site = format!("mx.{domain}").into();
                self.after(ANSWER_MS, Input::Resolved(domain, SiteNews::Site(site)));
            }
            Output::AskGrant {
                whose,
                window,
                word,
                ..
            } => {
                let (now_ms, amount) = (self.now_ms, word.want);
                let news = match amount {
                    0 => GrantNews::Nothing { retry_ms: now_ms },
                    _ => GrantNews::Granted {
                        amount,
                        until_ms: now_ms + 1_000,
                    },
                };
                self.after(ANSWER_MS, Input::Grant(whose, window, news));
            }
            Output::AskSlots { whose, want, .. } => {
                let news = SlotNews::Leased {
                    granted: want,
                    excess: 0,
                    others_wait: false,
                    until_ms: self.now_ms + 20_000,
                };
                self.after(ANSWER_MS, Input::Slots(whose, news));
            }
            Output::AskTurns { pool, count } => {
                let first = Some(self.turns);
                self.turns += u64::from(count);
                self.after(ANSWER_MS, Input::Turns { pool, first, count });
            }
            _ => {}
        }
    }

    fn sender(&mut self, session: SessionId, item: Option<FromScheduler>) {
        match item {
            Some(FromScheduler::CloseSlot(close)) => {
                let closed = self.connections.close(session, close.lane, close.slot);
                self.after(ANSWER_MS, closed);
            }
            Some(FromScheduler::Assignment(assignment)) => {
                let (lane, slot) = (assignment.lane, assignment.slot);
                self.connections.used(self.now_ms, session, lane, slot);
                if let Some(delivery) = assignment.delivery {
                    self.after(ANSWER_MS, Input::Sender(session, traffic::begin(delivery)));
                }
            }
            Some(FromScheduler::Permit(permit)) => {
                if let Some(delivery) = permit.delivery {
                    let report = traffic::report(delivery, self.now_ms, self.answers);
                    let wait_ms = (self.transaction_ms - ANSWER_MS).max(1);
                    self.after(wait_ms, Input::Sender(session, report));
                }
            }
            Some(FromScheduler::ReportStored(stored)) => {
                self.finished += 1;
                if let Some(delivery) = stored.delivery {
                    self.watched.remove(&delivery.message_id);
                }
            }
            _ => {}
        }
    }
}

/// An intake whose claim follows this record; and the record of the claim.
pub fn claim(now_ms: u64, partition: PartitionId, sequence: u64, newest: Bytes) -> (Intake, Bytes) {
    let mut writer = Writer::new("scheduler-0", format!("claim-{sequence}"));
    writer.claim();
    let tail = Tail {
        sequence,
        id: "newest".into(),
        record: newest,
    };
    let effect = writer.step(now_ms, WriterEvent::Tail(Some(tail)));
    let record = match effect {
        Some(WriterEffect::Append { append, .. }) => append.record,
        _ => Bytes::new(),
    };
    writer.step(now_ms, WriterEvent::Stored(sequence + 1));
    (Intake::new(partition, Settings::default(), writer), record)
}

/// Takes a partition over: from its last snapshot, what the journal says since, and the blocks above. `owner` is the
/// machine that gets the intake. Gives the messages that live.
pub fn recover(
    now_ms: u64,
    number: u32,
    stored: &Stored,
    owner: &mut Machine,
) -> anyhow::Result<u64> {
    let last = stored.records.len() as u64;
    let newest = stored.records.last().cloned().unwrap_or_default();
    let replay_from = journal::decode(&newest)?.replay_from.max(1);
    let (mut intake, _) = claim(now_ms, PartitionId(number), last, newest);
    for (record, sequence) in stored
        .records
        .iter()
        .zip(1_u64..)
        .skip(replay_from as usize - 1)
    {
        intake.replay(sequence, journal::decode(record)?)?;
    }
    let cursor = intake.cursor();
    for (block, sequence) in stored.blocks.iter().zip(1_u64..).skip(cursor as usize) {
        intake.block(
            now_ms,
            sequence,
            sequence,
            BlockIndex::decode(block.clone())?,
        )?;
    }
    intake.caught_up();
    intake.activate(now_ms);
    let messages = intake.totals().messages;
    owner.step(
        now_ms,
        Input::Owned {
            intake: Box::new(intake),
            lease_until_ms: now_ms + LEASE_MS,
        },
    );
    owner.run(now_ms);
    Ok(messages)
}

/// CPU time of this thread.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
