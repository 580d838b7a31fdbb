//! The simulated installation: schedulers, senders, stores, a network that delays and breaks, and a ledger.

mod beside;
mod clocks;
mod connections;
mod destinations;
mod faults;
mod feedback;
mod hosts;
mod lending;
mod limit;
mod members;
mod network;
mod nodes;
mod operators;
mod simulator;
mod submission;

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
use proto::journal::{Acted, Disposition, Stage, entry::Kind};
use proto::operation::Operation;
use proto::spool::{BlockIndex, IndexEntry};
use queue::{Intake, SessionId, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scheduler::machine::{Input, Machine, Output};

use super::redis::Server;
use super::sender::{Act, Connection, Holds, Key, Sender, SlotKey, Use, key};
use super::store::{Appended, Log, Spool};
use beside::Beside;
use hosts::{Host, RATES};
use lending::{Lending, Question, Redis};
use limit::Limit;

const PARTITIONS: u32 = 3;
/// Schedulers, and senders, that there may be at a time.
const MEMBERS: usize = 3;
const SITES: usize = 3;
/// So many of the sites are of one provider.
const OF_PROVIDER: usize = 2;
const LEASE_MS: u64 = 7_000;
const DAY_MS: u64 = 86_400_000;
/// Within this time everything becomes final.
const MOST_MS: u64 = 4 * 3_600_000;

/// Times for a final reply, one of which each site has.
const FINAL_REPLIES: [&str; 4] = ["1s", "20s", "10m", "15m"];

/// The configuration of the simulated installation, apart from its shaping.
const DOCUMENTS: &str = r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: mail, streams: [ { name: mail, inDoubt: retry, spread: 20s, delayNotices: [20s, 60s] } ], maxHold: 2m }
---
apiVersion: staffetta.dev/v1alpha1
kind: Provider
metadata: { name: big }
spec: { mx: [mx.d0.example, mx.d1.example] }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, weight: 2 }, { name: b, weight: 1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: other }
spec: { sources: [ { name: c } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: default, retry: { initial: 5s, factor: 2, max: 60s, jitter: 10, tryAgainIn: { least: 2s, most: 40s }, classes: { greylisted: { waits: [3s, 20s] } } }, maxAge: 30d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Automation
metadata: { name: throttled }
spec:
  rules:
    - { reply: { codes: [421] }, threshold: 3/m, action: limit, connections: 1, for: 20s }
    - { reply: { codes: [421] }, threshold: 9/m, action: suspend, for: 5s }
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
    /// So long after MAIL the scheduler wants to hear of the message.
    Left {
        sender: usize,
        incarnation: u64,
        key: Key,
    },
    /// The host does not want the message.
    Refused {
        sender: usize,
        incarnation: u64,
        key: Key,
        code: u32,
    },
    /// A connection was idle for its time.
    Idle {
        sender: usize,
        slot: SlotKey,
        number: u64,
        messages: u32,
    },
    /// QUIT is answered.
    Closed {
        sender: usize,
        slot: SlotKey,
        number: u64,
    },
    Leases {
        node: usize,
    },
    /// A question comes to Redis.
    Asked {
        node: usize,
        life: u64,
        question: Box<Question>,
    },
    /// Redis answered, or not.
    Answered {
        node: usize,
        life: u64,
        question: Box<Question>,
        answer: Option<Vec<limits::Answer>>,
    },
    /// A scheduler connects to Redis.
    OpensRedis {
        node: usize,
        life: u64,
    },
    /// A scheduler says that it is there.
    Present {
        node: usize,
        life: u64,
    },
    /// A scheduler hears what others do about replies.
    Told {
        node: usize,
        life: u64,
    },
    /// Somebody scales the installation.
    Scale,
    /// What a scheduler that goes has logged is stored, or its time is over.
    Leaves {
        node: usize,
        life: u64,
    },
    /// A sender that goes may have finished.
    SenderLeaves {
        sender: usize,
        incarnation: u64,
    },
    Submit,
    Fault,
    Feedback,
    Operate,
    Operations {
        node: usize,
        life: u64,
    },
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
    /// The scheduler of a stream has not been heard for too long.
    Unheard {
        stream: usize,
        since: u64,
    },
    SenderSees {
        stream: usize,
    },
    NodeSees {
        stream: usize,
    },
}

impl Event {
    /// Which life of which scheduler it is for, if it is for one.
    fn node(&self) -> Option<(usize, u64)> {
        match self {
            Self::JournalReply { node, life, .. }
            | Self::Resolved { node, life, .. }
            | Self::Answered { node, life, .. }
            | Self::OpensRedis { node, life }
            | Self::Present { node, life }
            | Self::Told { node, life }
            | Self::Operations { node, life }
            | Self::Copied { node, life, .. }
            | Self::Leaves { node, life } => Some((*node, *life)),
            _ => None,
        }
    }
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
    /// What it knows that operators want.
    operations: Vec<Operation>,
    /// It is there.
    up: bool,
    /// It hands over what it has.
    leaves: bool,
    /// By how much the clock of this life is ahead of the time, milliseconds.
    ahead: i64,
    lending: Lending,
}

#[derive(Clone, Copy)]
struct Stream {
    sender: usize,
    node: usize,
    life: u64,
    /// Something passes.
    open: bool,
    seen_by_sender: bool,
    /// Since when nothing passes.
    cut_at: u64,
    session: SessionId,
}

/// What became of a recipient.
#[derive(Default)]
struct Account {
    accepted_by_destination: u32,
    /// Attempts whose final reply got lost.
    in_doubt: u32,
    refused_by_destination: bool,
    /// The sender wants to know of a failure.
    wants_dsn: bool,
    /// Unix milliseconds; 0 = the message does not expire within the simulated time.
    expires_ms: u64,
    /// The journal says that it expired.
    expired: bool,
    /// The journal says that an operator ended it; with or without a DSN.
    ended: Option<bool>,
    /// It is a notice of delay, which may have come too late to be taken.
    may_be_dropped: bool,
    /// The simulator answers for it.
    simulated: bool,
    /// The journal says that the simulator accepted it, or refused it.
    answered: Option<bool>,
    /// It was accepted on hold, and may be so for too long.
    held: bool,
    /// DSNs about it that are in the spool; repetitions of one count once.
    dsns: BTreeSet<MessageId>,
}

impl Account {
    /// Nothing more will happen to it, as far as the destination and the journal say.
    fn is_settled(&self) -> bool {
        self.accepted_by_destination > 0
            || self.refused_by_destination
            || self.expired
            || self.ended.is_some()
            || self.answered.is_some()
            || self.may_be_dropped
    }

    /// Its message must still be in the spool.
    fn needs_spool(&self) -> bool {
        let wants_dsn = self.wants_dsn && self.ended != Some(false) && self.answered != Some(true);
        !self.is_settled()
            || (wants_dsn && self.accepted_by_destination == 0 && self.dsns.is_empty())
    }
}

/// Leases and acts are of a process, so its name is, too.
fn scheduler_id(node: usize, life: u64) -> String {
    format!("scheduler-{node}.{life}")
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
    /// By how much the wall clock of each scheduler's machine is ahead, milliseconds.
    walls: [i64; MEMBERS],
    redis: Redis,
    beside: Beside,
    hosts: BTreeMap<String, Host>,
    /// What the provider allows at its sites together.
    provider: Limit,
    /// When a scheduler gave up each partition, last.
    dropped_at: Vec<u64>,
    /// What schedulers told each other.
    acts: BTreeMap<u64, Acted>,
    opened: u32,
    throttled: u32,
    scaled: u32,
    lost_counts: u32,
    /// Which of [`FINAL_REPLIES`] each site has now.
    final_reply: [u8; 3],
    duplicates: u32,
    in_doubt: u32,
    crashes: u32,
    copies: u32,
    dsns: u32,
    delays: u32,
    expired: u32,
    not_found: u32,
    /// What operators want now.
    operations: Vec<Operation>,
    operated: u32,
    ended: u32,
    answered: u32,
    holds_ended: u32,
    released: u32,
    /// Journal records that the simulated feedback has read, by partition.
    fed_back: Vec<u64>,
    submitted: u32,
    to_submit: u32,
    numbers: u64,
    traces: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let host = |site: usize| {
            let name = format!("mx.d{site}.example");
            let host = Host::new(name.clone(), site < OF_PROVIDER, &mut rng);
            (name, host)
        };
        let hosts = (0..SITES).map(host).collect();
        let connections = [1, 2, 3, 4, 6][rng.random_range(0..5)];
        let rates = RATES[rng.random_range(0..RATES.len())];
        let provider = Limit::new("%provider=big".to_owned(), connections, rates);
        let mut world = Self {
            rng,
            now: 1_800_000_000_000,
            order: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            nodes: Vec::new(),
            senders: (0..MEMBERS).map(|_| Sender::default()).collect(),
            streams: Vec::new(),
            logs: Vec::new(),
            spools: Vec::new(),
            leases: BTreeMap::new(),
            ledger: BTreeMap::new(),
            under_permit: BTreeMap::new(),
            journal_full_until: 0,
            faults_until: 0,
            walls: [0; MEMBERS],
            redis: Redis::new(),
            beside: Beside::default(),
            hosts,
            provider,
            acts: BTreeMap::new(),
            opened: 0,
            throttled: 0,
            scaled: 0,
            lost_counts: 0,
            final_reply: [0, 1, 2],
            duplicates: 0,
            in_doubt: 0,
            crashes: 0,
            copies: 0,
            dsns: 0,
            delays: 0,
            expired: 0,
            not_found: 0,
            operations: Vec::new(),
            operated: 0,
            ended: 0,
            answered: 0,
            holds_ended: 0,
            released: 0,
            dropped_at: vec![0; PARTITIONS as usize],
            fed_back: vec![0; PARTITIONS as usize],
            submitted: 0,
            to_submit: 150,
            numbers: 0,
            traces: std::env::var_os("SIM_TRACE").is_some(),
        };
        for _ in 0..PARTITIONS {
            let mut log = Log::default();
            log.append(journal::genesis(world.now), "genesis", 0);
            world.logs.push(log);
            world.spools.push(Spool::default());
        }
        world.faults_until = world.now + 120_000;
        for node in 0..MEMBERS {
            let started = world.started(node, 0);
            world.nodes.push(started);
            world.after(node as u64 * 100, Event::Leases { node });
        }
        world.join_node(0);
        world.join_sender(0);
        world.after(50, Event::Submit);
        world.after(100, Event::Scale);
        world.after(500, Event::Fault);
        world.after(600, Event::Feedback);
        world.after(2_000, Event::Operate);
        world
    }

    /// A scheduler that starts, or will.
    fn started(&self, node: usize, life: u64) -> Node {
        let id = scheduler_id(node, life);
        let ahead = self.walls[node];
        let now = self.now.saturating_add_signed(ahead);
        let mut machine = Machine::new(id, PARTITIONS).leasing_connections();
        machine.step(now, Input::Config(self.configuration()));
        machine.step(now, Input::Operations(self.operations.clone()));
        machine.step(now, Input::Acts(self.acts.values().cloned().collect()));
        Node {
            machine,
            life,
            paused_until: 0,
            leases: BTreeMap::new(),
            read: BTreeMap::new(),
            operations: self.operations.clone(),
            up: false,
            leaves: false,
            ahead,
            lending: Lending::new(self.now),
        }
    }

    /// What is configured now.
    fn configuration(&self) -> Arc<Snapshot> {
        let limits = |limit: &Limit| {
            let rates = match limit.rates {
                "none" => "rate: none".to_owned(),
                rates => format!("rates: [{rates}]"),
            };
            format!("connections: {}, {rates}", limit.connections)
        };
        let rule = |(site, choice): (usize, &u8)| {
            let time = FINAL_REPLIES[usize::from(*choice) % FINAL_REPLIES.len()];
            let host = &self.hosts[&format!("mx.d{site}.example")];
            let (limits, messages) = (limits(&host.limit), host.messages_per_connection);
            format!(
                "{{ match: {{ site: mx.d{site}.example }}, finalReplyTimeout: {time}, messagesPerConnection: {messages}, \
                 idleTimeout: 2s, {limits} }}"
            )
        };
        let rules: Vec<String> = self.final_reply.iter().enumerate().map(rule).collect();
        let documents = format!(
            "{DOCUMENTS}---\napiVersion: staffetta.dev/v1alpha1\nkind: Shaping\nmetadata: {{ name: default }}\n\
             spec: {{ rules: [ {}, {{ match: {{ provider: big }}, scope: provider, {} }} ] }}\n",
            rules.join(", "),
            limits(&self.provider)
        );
        Arc::new(Snapshot::from_documents(&documents).expect("the documents are valid"))
    }

    /// How often what happened.
    pub fn counts(&self) -> [(&'static str, u32); 17] {
        [
            ("killed", self.crashes),
            ("copied forward", self.copies),
            ("recipients in doubt", self.in_doubt),
            ("delivered twice", self.duplicates),
            ("DSNs", self.dsns),
            ("notices of delay", self.delays),
            ("expired", self.expired),
            ("not found where they were", self.not_found),
            ("operations", self.operated),
            ("ended by operations", self.ended),
            ("answered by the simulator", self.answered),
            ("on hold for too long", self.holds_ended),
            ("released", self.released),
            ("connections", self.opened),
            ("throttled", self.throttled),
            ("asked to leave", self.scaled),
            ("Redis without counts", self.lost_counts),
        ]
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

    /// Says what happens, when `SIM_TRACE` is set.
    fn note(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{} {}", self.now, what());
        }
    }

    /// Runs until everything is final. That takes hours at most, as the slowest host takes 5 messages a minute.
    pub fn run(&mut self) {
        let end = self.now + MOST_MS;
        while let Some(Reverse((at, order))) = self.events.pop() {
            assert!(
                at < end,
                "not everything became final in time: {}",
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
        let empty = || {
            self.nodes.iter().all(|node| {
                node.machine
                    .intakes()
                    .all(|intake| intake.totals().messages == 0 && intake.is_settled())
            })
        };
        self.ledger.values().all(|account| !account.needs_spool())
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
            .filter(|account| account.needs_spool())
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
        let connections: Vec<usize> = self.senders.iter().map(|s| s.connections.len()).collect();
        format!(
            "{open} recipients open of {}, senders hold {held:?} over {connections:?} connections, {totals:?}",
            self.ledger.len()
        )
    }

    fn handle(&mut self, event: Event) {
        if let Some((node, life)) = event.node() {
            if self.nodes[node].life != life {
                return;
            }
            if self.is_paused(node) {
                let wait = self.nodes[node].paused_until - self.now;
                self.after(wait, event);
                return;
            }
        }
        match event {
            Event::Wake { node, life } => self.wake(node, life),
            Event::JournalReply {
                node,
                partition,
                event,
                ..
            } => self.step(node, Some(Input::Journal(partition, event))),
            Event::Resolved { node, domain, .. } => self.resolved(node, domain),
            Event::ToSender { stream, item } => self.hear(stream, item),
            Event::ToScheduler { stream, item } => self.hear_sender(stream, item),
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
            Event::Left {
                sender,
                incarnation,
                key,
            } => {
                if self.senders[sender].incarnation == incarnation {
                    let acts = self.senders[sender].left(key);
                    self.act(sender, acts);
                }
            }
            Event::Refused {
                sender,
                incarnation,
                key,
                code,
            } => self.refused(sender, incarnation, key, code),
            Event::Idle {
                sender,
                slot,
                number,
                messages,
            } => self.idle(sender, slot, number, messages),
            Event::Closed {
                sender,
                slot,
                number,
            } => self.closed(sender, slot, number),
            Event::Leases { node } => self.look_after_leases(node),
            Event::Asked {
                node,
                life,
                question,
            } => self.asked(node, life, question),
            Event::Answered {
                node,
                question,
                answer,
                ..
            } => self.answered(node, *question, answer),
            Event::OpensRedis { node, .. } => self.open_redis(node),
            Event::Present { node, .. } => self.be_present(node),
            Event::Told { node, .. } => {
                let acts = self.acts.values().cloned().collect();
                self.step(node, Some(Input::Acts(acts)));
            }
            Event::Scale => self.scale(),
            Event::Leaves { node, .. } => self.node_leaves(node),
            Event::SenderLeaves {
                sender,
                incarnation,
            } => self.sender_leaves(sender, incarnation),
            Event::Submit => self.submit(),
            Event::Fault => self.fault(),
            Event::Feedback => self.feed_back(),
            Event::Operate => self.operate(),
            Event::Operations { node, .. } => self.learn_operations(node),
            Event::Copied {
                node,
                partition,
                epoch,
                copy,
                ..
            } => {
                let copied = Input::Copied {
                    partition,
                    epoch,
                    copy,
                };
                self.step(node, Some(copied));
            }
            Event::Connect { sender, node } => self.connect(sender, node),
            Event::Unheard { stream, since } => self.unheard(stream, since),
            Event::SenderSees { stream } => self.sender_sees(stream),
            Event::NodeSees { stream } => self.node_sees(stream),
        }
    }

    fn wake(&mut self, node: usize, life: u64) {
        let state = &self.nodes[node];
        if state.life != life || !state.up {
            return;
        }
        if self.is_paused(node) {
            self.after(50, Event::Wake { node, life });
            return;
        }
        self.feed_blocks(node);
        self.step(node, None);
        let now = self.clock(node);
        let next = self.nodes[node].machine.next_wake();
        let delay = next.map_or(200, |at| at.saturating_sub(now).clamp(10, 200));
        self.after(delay, Event::Wake { node, life });
    }

    fn is_paused(&self, node: usize) -> bool {
        self.now < self.nodes[node].paused_until
    }
}
