//! The simulated installation: schedulers, senders, stores, a network that delays and breaks, and a ledger.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use config::Snapshot;
use egress::SiteNews;
use journal::{Tail, Writer, WriterEffect, WriterEvent};
use mail::{MessageId, PartitionId};
use proto::dispatch::sender_item::Kind as ToScheduler;
use proto::dispatch::{SchedulerItem, SenderItem};
use proto::envelope::{Envelope, Recipient};
use proto::journal::{Disposition, Stage, entry::Kind};
use proto::spool::{BlockIndex, IndexEntry};
use queue::{Intake, SessionId, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scheduler::machine::{Input, Machine, Output};

use super::sender::{Act, Holds, Key, Sender, key};
use super::store::{Appended, Log, Spool};

const PARTITIONS: u32 = 2;
const LEASE_MS: u64 = 7_000;
const DAY_MS: u64 = 86_400_000;

/// The configuration of the simulated installation.
const DOCUMENTS: &str = r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: mail, streams: [ { name: mail, inDoubt: retry } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, weight: 2 }, { name: b, weight: 1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: default, retry: { initial: 5s, factor: 2, max: 60s, jitter: 10 }, maxAge: 30d }
"#;

#[derive(Debug)]
enum Event {
    Wake {
        node: usize,
        life: u64,
    },
    JournalReply {
        node: usize,
        life: u64,
        partition: PartitionId,
        event: WriterEvent,
    },
    Resolved {
        node: usize,
        life: u64,
        domain: Arc<str>,
    },
    ToSender {
        stream: usize,
        item: SchedulerItem,
    },
    ToScheduler {
        stream: usize,
        item: ToScheduler,
    },
    Work {
        sender: usize,
        incarnation: u64,
        key: Key,
    },
    Reply {
        sender: usize,
        incarnation: u64,
        key: Key,
        code: u32,
    },
    Leases {
        node: usize,
    },
    Submit,
    Fault,
    Copied {
        node: usize,
        life: u64,
        partition: PartitionId,
        epoch: u64,
        copy: Option<(u64, Vec<MessageId>)>,
    },
    Connect {
        sender: usize,
        node: usize,
    },
}

/// A scheduler process.
struct Node {
    machine: Machine,
    /// Counts its starts; events of an earlier life are void.
    life: u64,
    paused_until: u64,
    /// What the node believes of its leases.
    leases: BTreeMap<PartitionId, u64>,
    /// Blocks read of each owned partition.
    read: BTreeMap<PartitionId, u64>,
}

struct Stream {
    sender: usize,
    node: usize,
    life: u64,
    open: bool,
    session: SessionId,
}

/// What became of a recipient.
#[derive(Default)]
struct Account {
    accepted_by_destination: u32,
    refused_by_destination: bool,
}

pub struct World {
    rng: StdRng,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    nodes: Vec<Node>,
    senders: Vec<Sender>,
    streams: Vec<Stream>,
    logs: Vec<Log>,
    spools: Vec<Spool>,
    leases: BTreeMap<PartitionId, (usize, u64)>,
    ledger: BTreeMap<(MessageId, u32), Account>,
    /// Who has which recipient under permit, and until when it may send the dot.
    under_permit: BTreeMap<(MessageId, u32), (usize, Key)>,
    journal_full_until: u64,
    faults_until: u64,
    pub duplicates: u32,
    pub in_doubt: u32,
    pub crashes: u32,
    pub copies: u32,
    submitted: u32,
    to_submit: u32,
    numbers: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 1_800_000_000_000,
            order: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            nodes: Vec::new(),
            senders: (0..2).map(|_| Sender::default()).collect(),
            streams: Vec::new(),
            logs: Vec::new(),
            spools: Vec::new(),
            leases: BTreeMap::new(),
            ledger: BTreeMap::new(),
            under_permit: BTreeMap::new(),
            journal_full_until: 0,
            faults_until: 0,
            duplicates: 0,
            in_doubt: 0,
            crashes: 0,
            copies: 0,
            submitted: 0,
            to_submit: 150,
            numbers: 0,
        };
        for _ in 0..PARTITIONS {
            let mut log = Log::default();
            log.append(journal::genesis(world.now), "genesis", 0);
            world.logs.push(log);
            world.spools.push(Spool::default());
        }
        world.faults_until = world.now + 120_000;
        for node in 0..2 {
            let machine = world.machine(node);
            world.nodes.push(Node {
                machine,
                life: 0,
                paused_until: 0,
                leases: BTreeMap::new(),
                read: BTreeMap::new(),
            });
            world.after(node as u64 * 100, Event::Leases { node });
            world.after(1, Event::Wake { node, life: 0 });
            for sender in 0..2 {
                world.after(10, Event::Connect { sender, node });
            }
        }
        world.after(50, Event::Submit);
        world.after(500, Event::Fault);
        world
    }

    fn machine(&mut self, node: usize) -> Machine {
        let mut machine = Machine::new(format!("scheduler-{node}"), PARTITIONS);
        let snapshot = Snapshot::from_documents(DOCUMENTS).expect("the documents are valid");
        machine.step(self.now, Input::Config(Arc::new(snapshot)));
        machine
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.bodies.insert(self.order, event);
        self.events.push(Reverse((self.now + delay, self.order)));
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn faulty(&self) -> bool {
        self.now < self.faults_until
    }

    /// Runs until everything is final, or a day has passed.
    pub fn run(&mut self) {
        let end = self.now + DAY_MS;
        while let Some(Reverse((at, order))) = self.events.pop() {
            assert!(
                at < end,
                "not everything became final within a day: {}",
                self.describe()
            );
            self.now = self.now.max(at);
            let event = self.bodies.remove(&order).expect("every event has a body");
            self.handle(event);
            let look = order % 256 == 0 && self.submitted == self.to_submit && !self.faulty();
            if look && self.all_final() {
                return;
            }
        }
    }

    fn all_final(&self) -> bool {
        let settled = |account: &Account| {
            account.accepted_by_destination > 0 || account.refused_by_destination
        };
        let empty = || {
            self.nodes.iter().all(|node| {
                node.machine
                    .intakes()
                    .all(|intake| intake.totals().messages == 0 && intake.is_settled())
            })
        };
        self.ledger.values().all(settled)
            && self.leases.len() == PARTITIONS as usize
            && empty()
            && self
                .senders
                .iter()
                .all(|s| s.holds.is_empty() && s.reports.is_empty())
    }

    fn describe(&self) -> String {
        let open = self
            .ledger
            .values()
            .filter(|a| a.accepted_by_destination == 0 && !a.refused_by_destination)
            .count();
        let totals: Vec<_> = self
            .nodes
            .iter()
            .flat_map(|node| node.machine.intakes())
            .map(|intake| (intake.partition(), intake.totals()))
            .collect();
        let held: Vec<usize> = self
            .senders
            .iter()
            .map(|sender| sender.holds.len() + sender.reports.len())
            .collect();
        format!(
            "{open} recipients open of {}, {totals:?}, senders hold {held:?}",
            self.ledger.len()
        )
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { node, life } => {
                if self.nodes[node].life == life && !self.is_paused(node) {
                    self.feed_blocks(node);
                    self.step(node, None);
                    self.after(20, Event::Wake { node, life });
                } else if self.nodes[node].life == life {
                    self.after(50, Event::Wake { node, life });
                }
            }
            Event::JournalReply {
                node,
                life,
                partition,
                event,
            } => {
                if self.nodes[node].life != life {
                    return;
                }
                if self.is_paused(node) {
                    let wait = self.nodes[node].paused_until - self.now;
                    self.after(
                        wait,
                        Event::JournalReply {
                            node,
                            life,
                            partition,
                            event,
                        },
                    );
                    return;
                }
                self.step(node, Some(Input::Journal(partition, event)));
            }
            Event::Resolved { node, life, domain } => {
                if self.nodes[node].life == life {
                    let site = format!("mx.{domain}").into();
                    self.step(node, Some(Input::Resolved(domain, SiteNews::Site(site))));
                }
            }
            Event::ToSender { stream, item } => {
                if self.streams[stream].open {
                    let sender = self.streams[stream].sender;
                    self.note_permit(sender, &item);
                    let acts = self.senders[sender].take(self.now, stream, item);
                    self.act(sender, acts);
                }
            }
            Event::ToScheduler { stream, item } => {
                let (node, life, session, open) = {
                    let s = &self.streams[stream];
                    (s.node, s.life, s.session, s.open)
                };
                if open && self.nodes[node].life == life {
                    if self.is_paused(node) {
                        let wait = self.nodes[node].paused_until - self.now;
                        self.after(wait, Event::ToScheduler { stream, item });
                        return;
                    }
                    self.step(
                        node,
                        Some(Input::Sender(session, SenderItem { kind: Some(item) })),
                    );
                }
            }
            Event::Work {
                sender,
                incarnation,
                key,
            } => self.work(sender, incarnation, key),
            Event::Reply {
                sender,
                incarnation,
                key,
                code,
            } => self.destination_replied(sender, incarnation, key, code),
            Event::Leases { node } => self.look_after_leases(node),
            Event::Submit => self.submit(),
            Event::Fault => self.fault(),
            Event::Copied {
                node,
                life,
                partition,
                epoch,
                copy,
            } => {
                if self.nodes[node].life == life {
                    self.step(
                        node,
                        Some(Input::Copied {
                            partition,
                            epoch,
                            copy,
                        }),
                    );
                }
            }
            Event::Connect { sender, node } => self.connect(sender, node),
        }
    }

    fn is_paused(&self, node: usize) -> bool {
        self.now < self.nodes[node].paused_until
    }

    /// Feeds the machine and carries out what it wants.
    fn step(&mut self, node: usize, input: Option<Input>) {
        let now = self.now;
        if let Some(input) = input {
            self.nodes[node].machine.step(now, input);
        }
        self.nodes[node].machine.run(now);
        let outputs: Vec<Output> = self.nodes[node].machine.outputs().collect();
        let life = self.nodes[node].life;
        for output in outputs {
            match output {
                Output::ToSender(session, item) => {
                    let stream = self.streams.iter().position(|s| {
                        s.node == node && s.life == life && s.session == session && s.open
                    });
                    if let Some(stream) = stream {
                        let delay = self.streams[stream].session.0 % 3 + 1;
                        self.after(delay, Event::ToSender { stream, item });
                    }
                }
                Output::Journal(partition, effect) => self.journal(node, partition, effect),
                Output::Resolve(domain) => self.after(5, Event::Resolved { node, life, domain }),
                Output::AskGrant { .. } => unreachable!("no lane has a rate here"),
                Output::TrimSpool(partition, below) => {
                    // A stale owner's purge is late, but what it purges was final by the journal.
                    self.spools[partition.0 as usize].purge_below(below);
                    self.check_trim(partition, below);
                }
                Output::TrimJournal(partition, below) => {
                    self.logs[partition.0 as usize].purge_below(below)
                }
                Output::DeleteUpload(..) => unreachable!("there are no uploads here"),
                Output::Copy(partition, copy) => {
                    let spool = &mut self.spools[partition.0 as usize];
                    let entries: Option<Vec<IndexEntry>> = copy
                        .messages
                        .iter()
                        .map(|(_, place)| {
                            Some(
                                spool.blocks.get(&place.sequence)?.entries[place.index as usize]
                                    .clone(),
                            )
                        })
                        .collect();
                    self.copies += u32::from(entries.is_some());
                    let copied = entries.map(|entries| {
                        let sequence = spool.store(BlockIndex {
                            format: 1,
                            flags: 1,
                            block_id: Default::default(),
                            entries,
                        });
                        (sequence, copy.messages.iter().map(|(id, _)| *id).collect())
                    });
                    self.after(
                        10,
                        Event::Copied {
                            node,
                            life,
                            partition,
                            epoch: copy.epoch,
                            copy: copied,
                        },
                    );
                }
                Output::Dropped(partition, _) => {
                    self.nodes[node].leases.remove(&partition);
                    if self
                        .leases
                        .get(&partition)
                        .is_some_and(|(holder, _)| *holder == node)
                    {
                        self.leases.remove(&partition);
                    }
                }
                Output::Alarm(partition, what) => panic!("partition {partition}: {what}"),
            }
        }
    }

    /// Invariant 2: what is not final is still in the spool.
    fn check_trim(&self, partition: PartitionId, below: u64) {
        let kept: BTreeSet<&[u8]> = self
            .spools
            .iter()
            .flat_map(|spool| spool.blocks.values())
            .flat_map(|block| &block.entries)
            .map(|entry| &entry.message_id[..])
            .collect();
        for ((id, ordinal), account) in &self.ledger {
            let is_open = account.accepted_by_destination == 0 && !account.refused_by_destination;
            assert!(
                !is_open || kept.contains(&id.as_bytes()[..]),
                "recipient {ordinal} of {id} was trimmed with partition {partition} below {below}"
            );
        }
    }

    /// Carries out what the writer wants; replies are sometimes lost, whether the record was stored or not.
    fn journal(&mut self, node: usize, partition: PartitionId, effect: WriterEffect) {
        let life = self.nodes[node].life;
        let faulty = self.faulty();
        let event = match effect {
            WriterEffect::Append { append, .. } => {
                if faulty && self.chance(3) {
                    WriterEvent::Unknown
                } else if self.now < self.journal_full_until {
                    WriterEvent::Full
                } else {
                    let appended = self.logs[partition.0 as usize].append(
                        append.record,
                        &append.id,
                        append.expected_last,
                    );
                    match appended {
                        _ if faulty && self.chance(3) => WriterEvent::Unknown,
                        Appended::Stored(sequence) => WriterEvent::Stored(sequence),
                        Appended::WrongLast => WriterEvent::WrongLastSequence,
                    }
                }
            }
            WriterEffect::ReadTail => WriterEvent::Tail(self.tail(partition)),
            WriterEffect::Claimed(_) | WriterEffect::Stored { .. } | WriterEffect::Lost(_) => {
                return;
            }
        };
        let delay = self.rng.random_range(1..15);
        self.after(
            delay,
            Event::JournalReply {
                node,
                life,
                partition,
                event,
            },
        );
    }

    fn tail(&self, partition: PartitionId) -> Option<Tail> {
        let (sequence, (id, record)) = self.logs[partition.0 as usize].records.last_key_value()?;
        Some(Tail {
            sequence: *sequence,
            id: id.clone(),
            record: record.clone(),
        })
    }

    fn feed_blocks(&mut self, node: usize) {
        let owned: Vec<PartitionId> = self.nodes[node]
            .machine
            .intakes()
            .map(Intake::partition)
            .collect();
        for partition in owned {
            let read = self.nodes[node].read.get(&partition).copied().unwrap_or(0);
            let next = self.spools[partition.0 as usize]
                .blocks
                .range(read + 1..)
                .next()
                .map(|(s, b)| (*s, b.clone()));
            if let Some((sequence, index)) = next {
                self.nodes[node].read.insert(partition, sequence);
                self.step(
                    node,
                    Some(Input::Block {
                        partition,
                        first: sequence,
                        sequence,
                        index: Ok(index),
                    }),
                );
            }
        }
    }

    fn look_after_leases(&mut self, node: usize) {
        if !self.is_paused(node) {
            let held: Vec<PartitionId> = self.nodes[node].leases.keys().copied().collect();
            for partition in held {
                let still = self
                    .leases
                    .get(&partition)
                    .is_some_and(|(holder, until)| *holder == node && *until > self.now);
                if still && !(self.faulty() && self.chance(2)) {
                    self.leases.insert(partition, (node, self.now + LEASE_MS));
                    self.nodes[node]
                        .leases
                        .insert(partition, self.now + LEASE_MS);
                    let input = Input::Renewed {
                        partition,
                        lease_until_ms: self.now + LEASE_MS,
                    };
                    self.step(node, Some(input));
                } else if !still {
                    self.nodes[node].leases.remove(&partition);
                    self.step(node, Some(Input::Drop(partition)));
                }
            }
            for partition in (0..PARTITIONS).map(PartitionId) {
                let free = self
                    .leases
                    .get(&partition)
                    .is_none_or(|(_, until)| *until <= self.now);
                if free && (self.nodes[node].leases.is_empty() || self.chance(20)) {
                    self.leases.insert(partition, (node, self.now + LEASE_MS));
                    self.nodes[node]
                        .leases
                        .insert(partition, self.now + LEASE_MS);
                    self.take_over(node, partition);
                }
            }
        }
        self.after(2_000, Event::Leases { node });
    }

    fn take_over(&mut self, node: usize, partition: PartitionId) {
        self.numbers += 1;
        let mut writer = Writer::new(
            format!("scheduler-{node}"),
            format!("claim-{}", self.numbers),
        );
        let mut effect = writer.claim();
        let claimed = loop {
            let event = match effect {
                WriterEffect::Claimed(claimed) => break claimed,
                WriterEffect::Append { append, .. } => {
                    let appended = self.logs[partition.0 as usize].append(
                        append.record,
                        &append.id,
                        append.expected_last,
                    );
                    match appended {
                        _ if self.faulty() && self.chance(20) => WriterEvent::Unknown,
                        Appended::Stored(sequence) => WriterEvent::Stored(sequence),
                        Appended::WrongLast => WriterEvent::WrongLastSequence,
                    }
                }
                _ => WriterEvent::Tail(self.tail(partition)),
            };
            effect = writer
                .step(self.now, event)
                .unwrap_or(WriterEffect::ReadTail);
        };
        let settings = Settings {
            snapshot_entries: 40,
            ..Settings::default()
        };
        let mut intake = Intake::new(partition, settings, writer);
        let log = &self.logs[partition.0 as usize];
        let (first, _) = log
            .records
            .first_key_value()
            .expect("a journal is never empty");
        assert!(
            *first <= claimed.replay_from,
            "the journal was trimmed past the start of the last snapshot"
        );
        for (sequence, (_, record)) in log.records.range(claimed.replay_from..=claimed.epoch) {
            intake
                .replay(
                    *sequence,
                    journal::decode(record).expect("records are readable"),
                )
                .expect("records can be replayed");
        }
        let spool = &self.spools[partition.0 as usize];
        let mut read = intake.cursor();
        for (sequence, index) in spool.blocks.range(intake.cursor() + 1..) {
            intake
                .block(self.now, *sequence, *sequence, index.clone())
                .expect("blocks are known");
            read = *sequence;
        }
        intake.caught_up();
        intake.activate(self.now);
        self.nodes[node].read.insert(partition, read);
        let lease_until_ms = self.now + LEASE_MS;
        self.step(
            node,
            Some(Input::Owned {
                intake: Box::new(intake),
                lease_until_ms,
            }),
        );
    }

    fn submit(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let mut entries = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            if self.submitted == self.to_submit {
                break;
            }
            self.submitted += 1;
            self.numbers += 1;
            let mut id = [0; 16];
            id[..6].copy_from_slice(&self.now.to_be_bytes()[2..]);
            id[8..].copy_from_slice(&self.numbers.to_be_bytes());
            let id = MessageId::from_bytes(id);
            let recipients: Vec<Recipient> = (0..self.rng.random_range(1..4_u32))
                .map(|ordinal| {
                    self.ledger.insert((id, ordinal), Account::default());
                    Recipient {
                        address: format!("r{ordinal}@d{}.example", self.rng.random_range(0..3)),
                        notify: 1,
                        ..Recipient::default()
                    }
                })
                .collect();
            let envelope = Envelope {
                tenant: "acme".into(),
                stream: "mail".into(),
                return_path: "s@acme.example".into(),
                recipients,
                ..Envelope::default()
            };
            entries.push(IndexEntry {
                message_id: id.as_bytes().to_vec().into(),
                length: 100,
                envelope: Some(envelope),
                ..IndexEntry::default()
            });
        }
        self.spools[partition as usize].store(BlockIndex {
            format: 1,
            entries,
            ..BlockIndex::default()
        });
        if self.submitted < self.to_submit {
            let delay = self.rng.random_range(100..1500);
            self.after(delay, Event::Submit);
        }
    }

    fn connect(&mut self, sender: usize, node: usize) {
        let life = self.nodes[node].life;
        let session = SessionId(self.streams.len() as u64 + 1);
        self.streams.push(Stream {
            sender,
            node,
            life,
            open: true,
            session,
        });
        let stream = self.streams.len() - 1;
        self.step(node, Some(Input::Attached(session)));
        let hello = self.senders[sender].hello(sender);
        self.after(
            1,
            Event::ToScheduler {
                stream,
                item: hello,
            },
        );
    }

    fn break_stream(&mut self, stream: usize) {
        let Stream {
            sender,
            node,
            life,
            session,
            open,
        } = self.streams[stream];
        if !open {
            return;
        }
        self.streams[stream].open = false;
        let acts = self.senders[sender].stream_broken(stream);
        self.act(sender, acts);
        if self.nodes[node].life == life {
            self.step(node, Some(Input::Detached(session)));
        }
        let delay = self.rng.random_range(10..3_000);
        self.after(delay, Event::Connect { sender, node });
    }

    fn act(&mut self, sender: usize, acts: Vec<Act>) {
        let incarnation = self.senders[sender].incarnation;
        for act in acts {
            match act {
                Act::Send(stream, item) => {
                    let delay = self.streams[stream].session.0 % 3 + 1;
                    self.after(delay, Event::ToScheduler { stream, item });
                }
                Act::Work(key) => {
                    let delay = self.rng.random_range(1..50);
                    self.after(
                        delay,
                        Event::Work {
                            sender,
                            incarnation,
                            key,
                        },
                    );
                }
            }
        }
    }

    /// The sender goes on with a delivery: MAIL FROM, or the dot.
    fn work(&mut self, sender: usize, incarnation: u64, key: Key) {
        if self.senders[sender].incarnation != incarnation {
            return;
        }
        let Some(holding) = self.senders[sender].holds.get(&key) else {
            return;
        };
        let delivery = holding.delivery.clone();
        match holding.stage {
            Holds::Assigned if self.rng.random_range(0..100) < 5 => {
                let acts = self.senders[sender].finish(key, Stage::Connect, 0, false);
                self.act(sender, acts);
            }
            Holds::Assigned => {
                let acts = self.senders[sender].begin(key);
                self.act(sender, acts);
            }
            Holds::Permitted(until) if self.now < until => {
                let code = match self.rng.random_range(0..100) {
                    0..10 => 451,
                    10..15 => 550,
                    15..18 if self.faulty() => 0,
                    _ => 250,
                };
                // The destination decides at the dot; whether the sender hears of it is another matter.
                let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
                let is_accepted = code == 250 || (code == 0 && self.chance(50));
                for ordinal in &delivery.ordinals {
                    let account = self
                        .ledger
                        .get_mut(&(id, *ordinal))
                        .expect("only what was submitted is delivered");
                    if is_accepted {
                        account.accepted_by_destination += 1;
                        if account.accepted_by_destination > 1 {
                            self.duplicates += 1;
                        }
                    }
                    account.refused_by_destination |= code == 550;
                }
                if let Some(holding) = self.senders[sender].holds.get_mut(&key) {
                    holding.stage = Holds::DotSent;
                }
                let delay = self.rng.random_range(1..200);
                self.after(
                    delay,
                    Event::Reply {
                        sender,
                        incarnation,
                        key,
                        code,
                    },
                );
            }
            Holds::Permitted(_) => {
                let acts = self.senders[sender].finish(key, Stage::Prepare, 0, false);
                self.act(sender, acts);
            }
            Holds::Begun | Holds::DotSent => {}
        }
    }

    fn destination_replied(&mut self, sender: usize, incarnation: u64, key: Key, code: u32) {
        if self.senders[sender].incarnation != incarnation {
            return;
        }
        self.end_permit(sender, key);
        if code == 0 {
            self.in_doubt += self.senders[sender]
                .holds
                .get(&key)
                .map_or(0, |holding| holding.delivery.ordinals.len() as u32);
        }
        let acts = self.senders[sender].finish(key, Stage::FinalDot, code, true);
        self.act(sender, acts);
    }

    /// Invariant 3: at most one attempt of a recipient is under permit in the whole installation.
    fn note_permit(&mut self, sender: usize, item: &SchedulerItem) {
        let Some(proto::dispatch::scheduler_item::Kind::Permit(permit)) = &item.kind else {
            return;
        };
        let Some(delivery) = &permit.delivery else {
            return;
        };
        let holds = self.senders[sender]
            .holds
            .get(&key(delivery))
            .is_some_and(|holding| holding.stage == Holds::Begun);
        if !holds {
            return;
        }
        let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
        for ordinal in &delivery.ordinals {
            let other = self
                .under_permit
                .insert((id, *ordinal), (sender, key(delivery)));
            assert!(
                other.is_none(),
                "two attempts of one recipient are under permit: {other:?} and {:?}",
                key(delivery)
            );
        }
    }

    fn end_permit(&mut self, sender: usize, key: Key) {
        self.under_permit
            .retain(|_, holder| *holder != (sender, key));
    }

    fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        match self.rng.random_range(0..100) {
            0..15 => self.crash_scheduler(),
            15..25 => self.crash_sender(),
            25..45 => {
                let open: Vec<usize> = (0..self.streams.len())
                    .filter(|stream| self.streams[*stream].open)
                    .collect();
                if !open.is_empty() {
                    let stream = open[self.rng.random_range(0..open.len())];
                    self.break_stream(stream);
                }
            }
            45..60 => {
                let node = self.rng.random_range(0..self.nodes.len());
                self.nodes[node].paused_until = self.now + self.rng.random_range(100..20_000);
            }
            60..70 => self.journal_full_until = self.now + self.rng.random_range(10..2_000),
            70..75 => {
                // Everything at once.
                self.crash_scheduler();
                self.crash_scheduler();
                self.crash_sender();
                self.crash_sender();
            }
            75..90 => {
                let node = self.rng.random_range(0..self.nodes.len());
                let owned: Vec<PartitionId> = self.nodes[node]
                    .machine
                    .intakes()
                    .map(Intake::partition)
                    .collect();
                for partition in owned {
                    self.step(node, Some(Input::ShortOfSpace(partition)));
                }
            }
            _ => {}
        }
        let delay = self.rng.random_range(100..6_000);
        self.after(delay, Event::Fault);
    }

    fn crash_scheduler(&mut self) {
        self.crashes += 1;
        let node = self.rng.random_range(0..self.nodes.len());
        let life = self.nodes[node].life;
        let streams: Vec<usize> = (0..self.streams.len())
            .filter(|s| {
                self.streams[*s].open
                    && self.streams[*s].node == node
                    && self.streams[*s].life == life
            })
            .collect();
        let machine = self.machine(node);
        self.nodes[node] = Node {
            machine,
            life: life + 1,
            paused_until: 0,
            leases: BTreeMap::new(),
            read: BTreeMap::new(),
        };
        // Its leases run out by themselves.
        for stream in streams {
            self.break_stream(stream);
        }
        self.after(
            20,
            Event::Wake {
                node,
                life: life + 1,
            },
        );
    }

    fn crash_sender(&mut self) {
        self.crashes += 1;
        let sender = self.rng.random_range(0..self.senders.len());
        // What was under permit, and reports that nobody has acknowledged, are in doubt.
        let lost: BTreeSet<Key> = self.senders[sender]
            .holds
            .values()
            .filter(|h| h.stage != Holds::Assigned)
            .map(|h| key(&h.delivery))
            .chain(self.senders[sender].reports.keys().copied())
            .collect();
        for key in &lost {
            let of_holds = self.senders[sender]
                .holds
                .get(key)
                .map(|holding| holding.delivery.ordinals.len());
            let of_reports = self.senders[sender]
                .reports
                .get(key)
                .and_then(|(report, _)| report.delivery.as_ref())
                .map(|d| d.ordinals.len());
            self.in_doubt += of_holds.or(of_reports).unwrap_or(0) as u32;
            self.end_permit(sender, *key);
        }
        let incarnation = self.senders[sender].incarnation + 1;
        self.senders[sender] = Sender {
            incarnation,
            ..Sender::default()
        };
        let streams: Vec<usize> = (0..self.streams.len())
            .filter(|s| self.streams[*s].open && self.streams[*s].sender == sender)
            .collect();
        for stream in streams {
            self.break_stream(stream);
        }
    }

    /// What must hold at the end, besides that everything became final.
    pub fn check(&self) {
        assert!(
            self.duplicates <= self.in_doubt,
            "{} duplicates, but only {} in doubt",
            self.duplicates,
            self.in_doubt
        );
        let expired = self.logs.iter().flat_map(|log| log.records.values()).flat_map(|(_, record)| journal::decode(record).expect("readable").entries).any(|entry| {
            matches!(entry.kind, Some(Kind::Outcome(outcome)) if outcome.recipients.iter().any(|r| r.disposition() == Disposition::Expired))
        });
        assert!(!expired, "nothing is old enough to expire");
    }
}
