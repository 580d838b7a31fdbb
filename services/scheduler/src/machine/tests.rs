//! Tests of the machine with one partition, one sender, and a journal that stores at once.

use journal::{Tail, Writer, WriterEffect};
use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{
    Assignment, Begin, DeliveryRef, Hello, Lane, RecipientReport, Report, ReturnReason, Returned,
};
use proto::envelope::{Envelope, Recipient};
use proto::journal::{Disposition, Reply, Stage};
use proto::spool::IndexEntry;
use queue::Settings;

use super::*;

mod automation;
mod constraints;
mod fair;
mod holds;
mod isolation;
mod operations;
mod pools;
mod provider;
mod reach;
mod shaping;
mod simulator;
mod suppression;
mod used;
mod why;
mod windows;

const START_MS: u64 = 1_800_000_000_000;
const P0: PartitionId = PartitionId(0);
const SESSION: SessionId = SessionId(1);

/// The configuration, with this route.
fn documents(route: &str) -> Arc<Snapshot> {
    let text = format!(
        r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: mail, streams: [ {{ name: mail, inDoubt: retry }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, weight: 1 }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ match: {{}}, connections: 2 }} ] }}
{route}"#
    );
    Arc::new(Snapshot::from_documents(&text).unwrap())
}

fn route(spec: &str) -> String {
    format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Route\nmetadata: {{ name: default }}\nspec: {{ pool: default, {spec} }}\n"
    )
}

fn address_keys() -> suppress::Keys {
    suppress::Keys::new(b"of the keys of addresses")
}

struct Desk {
    machine: Machine,
    now_ms: u64,
    last_record: u64,
    blocks: u64,
    seen: Vec<Output>,
}

impl Desk {
    /// A machine that owns the partition, with a sender of this credit.
    fn new(credit: u32) -> Self {
        let mut desk = Self {
            machine: Machine::new("scheduler", 1),
            now_ms: START_MS,
            last_record: 1,
            blocks: 0,
            seen: Vec::new(),
        };
        desk.step(Input::Config(documents(&route("port: 25"))));
        desk.own();
        desk.attach(SESSION, credit);
        desk
    }

    fn own(&mut self) {
        let intake = self.recovering();
        self.owns(intake);
    }

    /// An intake that has claimed the partition and read what the journal begins with.
    fn recovering(&mut self) -> Intake {
        let mut writer = Writer::new("scheduler", format!("claim-{}", self.last_record));
        writer.claim();
        let tail = Tail {
            sequence: self.last_record,
            id: String::new(),
            record: journal::genesis(START_MS),
        };
        writer.step(self.now_ms, WriterEvent::Tail(Some(tail)));
        self.last_record += 1;
        writer.step(self.now_ms, WriterEvent::Stored(self.last_record));
        let settings = Settings {
            journal_linger_ms: 0,
            ..Settings::default()
        };
        let mut intake = Intake::new(P0, settings, writer).with_keys(address_keys());
        intake
            .replay(1, journal::decode(&journal::genesis(START_MS)).unwrap())
            .unwrap();
        intake
    }

    fn owns(&mut self, mut intake: Intake) {
        intake.caught_up();
        intake.activate(self.now_ms);
        self.step(Input::Owned {
            intake: Box::new(intake),
            lease_until_ms: self.now_ms + 7_000,
        });
    }

    fn attach(&mut self, session: SessionId, credit: u32) {
        self.step(Input::Attached(session));
        self.say(
            session,
            FromSender::Hello(Hello {
                sender_id: "sender".into(),
                credit,
                ..Hello::default()
            }),
        );
    }

    fn step(&mut self, input: Input) {
        self.machine.step(self.now_ms, input);
        self.run();
    }

    /// Runs, and stores what the journal is given.
    fn run(&mut self) {
        loop {
            while self.machine.run(self.now_ms) {}
            let outputs: Vec<Output> = self.machine.outputs().collect();
            let mut stored = None;
            for output in outputs {
                match output {
                    Output::Journal(partition, WriterEffect::Append { .. }) => {
                        stored = Some(partition)
                    }
                    other => self.seen.push(other),
                }
            }
            let Some(partition) = stored else { return };
            self.last_record += 1;
            self.machine.step(
                self.now_ms,
                Input::Journal(partition, WriterEvent::Stored(self.last_record)),
            );
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.run();
        self.run();
    }

    fn renew(&mut self) {
        self.step(Input::Renewed {
            partition: P0,
            lease_until_ms: self.now_ms + 7_000,
        });
    }

    fn say(&mut self, session: SessionId, kind: FromSender) {
        self.step(Input::Sender(session, SenderItem { kind: Some(kind) }));
    }

    fn message(&mut self, domain: &str) {
        self.message_with(domain, |_| {});
    }

    /// A message whose envelope is changed first.
    fn message_with(&mut self, domain: &str, change: impl FnOnce(&mut Envelope)) {
        let index = self.index_of(domain, change);
        self.step(Input::Block {
            partition: P0,
            first: self.blocks,
            sequence: self.blocks,
            index: Ok(index),
        });
    }

    /// The next block, with one message.
    fn index_of(&mut self, domain: &str, change: impl FnOnce(&mut Envelope)) -> BlockIndex {
        self.blocks += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&self.now_ms.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&self.blocks.to_be_bytes());
        let recipient = Recipient {
            address: format!("user@{domain}"),
            ..Recipient::default()
        };
        let mut envelope = Envelope {
            tenant: "acme".into(),
            stream: "mail".into(),
            return_path: "sender@acme.example".into(),
            recipients: vec![recipient],
            ..Envelope::default()
        };
        change(&mut envelope);
        let entry = IndexEntry {
            message_id: id.to_vec().into(),
            envelope: Some(envelope),
            ..IndexEntry::default()
        };
        BlockIndex {
            format: 1,
            entries: vec![entry],
            ..BlockIndex::default()
        }
    }

    fn resolve(&mut self, domain: &str, news: SiteNews) {
        self.step(Input::Resolved(domain.into(), news));
    }

    /// A message to a domain with a site of its own, assigned.
    fn assigned(&mut self) -> Assignment {
        self.message("one.example");
        self.resolve("one.example", SiteNews::Site("mx.one.example".into()));
        self.assignments().pop().expect("the message is assigned")
    }

    fn items(&mut self) -> Vec<(SessionId, ToSender)> {
        let (items, rest) = std::mem::take(&mut self.seen)
            .into_iter()
            .partition(|output| matches!(output, Output::ToSender(..)));
        self.seen = rest;
        let item = |output| match output {
            Output::ToSender(session, item) => Some((session, item.kind?)),
            _ => None,
        };
        items.into_iter().filter_map(item).collect()
    }

    fn assignments(&mut self) -> Vec<Assignment> {
        let assignment = |(_, kind)| match kind {
            ToSender::Assignment(assignment) => Some(assignment),
            _ => None,
        };
        self.items().into_iter().filter_map(assignment).collect()
    }

    fn lanes_told(&mut self) -> Vec<Lane> {
        let lane = |(_, kind)| match kind {
            ToSender::Lane(lane) => Some(lane),
            _ => None,
        };
        self.items().into_iter().filter_map(lane).collect()
    }

    fn report(&mut self, delivery: &DeliveryRef, stage: Stage, code: u32) {
        let reply = Reply {
            stage: stage.into(),
            code,
            ..Reply::default()
        };
        let recipients = delivery.ordinals.iter().map(|ordinal| RecipientReport {
            ordinal: *ordinal,
            address: String::new(),
            reply: Some(reply.clone()),
            relayed: false,
        });
        let report = Report {
            delivery: Some(delivery.clone()),
            recipients: recipients.collect(),
            ..Report::default()
        };
        self.say(SESSION, FromSender::Report(report));
    }

    fn give_back(&mut self, delivery: &DeliveryRef, reason: ReturnReason) {
        let returned = Returned {
            delivery: Some(delivery.clone()),
            reason: reason.into(),
            detail: String::new(),
        };
        self.say(SESSION, FromSender::Returned(returned));
    }

    fn asked_sites(&mut self) -> usize {
        self.seen
            .iter()
            .filter(|output| matches!(output, Output::Resolve(_)))
            .count()
    }
}

/// The whole credit can be used: two sites have two connections each.
fn assert_nothing_leaked(desk: &mut Desk, credit: usize) {
    desk.assignments();
    for n in 0..credit {
        let domain = format!("leak{n}.example");
        desk.message(&domain);
        desk.resolve(&domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
    assert_eq!(desk.assignments().len(), credit, "a credit leaked");
}

#[test]
fn stops_assigning_two_seconds_before_the_lease_may_end_and_goes_on_with_the_renewal() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", SiteNews::Site("mx".into()));
    desk.pass(5_000 - 1);
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1);
    desk.pass(1);
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 0);
    desk.renew();
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn drops_the_partition_when_the_lease_ends() {
    let mut desk = Desk::new(10);
    desk.pass(6_999);
    assert_eq!(desk.machine.intakes().count(), 1);
    desk.pass(1);
    assert_eq!(desk.machine.intakes().count(), 0);
    assert!(
        desk.seen
            .iter()
            .any(|output| matches!(output, Output::Dropped(P0, _)))
    );
    let owns = |(_, kind)| match kind {
        ToSender::Owns(owns) => Some(owns.partitions.len()),
        _ => None,
    };
    let told: Vec<usize> = desk.items().into_iter().filter_map(owns).collect();
    assert_eq!(told, [1, 0]);
}

#[test]
fn slots_and_credit_come_back_on_every_way_out_of_an_assignment() {
    type WayOut = fn(&mut Desk, &DeliveryRef);
    let ways: [(&str, WayOut); 8] = [
        ("reported", |desk, delivery| {
            desk.report(delivery, Stage::FinalDot, 250)
        }),
        ("deferred", |desk, delivery| {
            desk.report(delivery, Stage::Rcpt, 451)
        }),
        ("not found", |desk, delivery| {
            desk.give_back(delivery, ReturnReason::NotFound)
        }),
        ("stale epoch", |desk, delivery| {
            desk.give_back(delivery, ReturnReason::StaleEpoch)
        }),
        ("site changed", |desk, delivery| {
            desk.give_back(delivery, ReturnReason::SiteChanged)
        }),
        ("refused", |desk, delivery| {
            let other = DeliveryRef {
                message_id: vec![9; 16].into(),
                ..delivery.clone()
            };
            desk.say(
                SESSION,
                FromSender::Begin(Begin {
                    delivery: Some(other),
                    ..Begin::default()
                }),
            );
        }),
        ("dropped and taken again", |desk, _| {
            desk.step(Input::Drop(P0));
            desk.own();
        }),
        ("taken again without a drop", |desk, _| desk.own()),
    ];
    for (name, way_out) in ways {
        println!("{name}");
        let mut desk = Desk::new(1);
        let delivery = desk.assigned().delivery.unwrap();
        way_out(&mut desk, &delivery);
        assert_nothing_leaked(&mut desk, 1);
        assert_eq!(desk.machine.lanes.slots_in_use(), 2, "{name}");
    }
}

#[test]
fn a_permit_follows_a_begin_and_a_begin_of_a_partition_of_others_is_refused() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    desk.say(
        SESSION,
        FromSender::Begin(Begin {
            delivery: Some(delivery.clone()),
            ..Begin::default()
        }),
    );
    assert!(
        desk.items()
            .iter()
            .any(|(_, kind)| matches!(kind, ToSender::Permit(permit) if permit.valid_ms == 60_000))
    );
    desk.step(Input::Drop(P0));
    desk.say(
        SESSION,
        FromSender::Begin(Begin {
            delivery: Some(delivery.clone()),
            ..Begin::default()
        }),
    );
    assert!(
        desk.items()
            .iter()
            .any(|(_, kind)| matches!(kind, ToSender::Refused(_)))
    );
    // Its report is for the next owner: nobody acknowledges it here.
    desk.report(&delivery, Stage::FinalDot, 250);
    assert!(
        !desk
            .items()
            .iter()
            .any(|(_, kind)| matches!(kind, ToSender::ReportStored(_)))
    );
}

#[test]
fn a_delivery_without_route_or_pool_waits_and_is_never_bounced() {
    let mut desk = Desk::new(10);
    desk.step(Input::Config(documents("")));
    desk.message("one.example");
    assert_eq!(desk.machine.counts().unroutable, 1);
    for _ in 0..12 {
        desk.pass(5_000);
        desk.renew();
    }
    assert_eq!(desk.machine.counts().unroutable, 2);
    desk.step(Input::Config(documents(&route("port: 25"))));
    for _ in 0..12 {
        desk.pass(5_000);
        desk.renew();
    }
    desk.resolve("one.example", SiteNews::Site("mx".into()));
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(desk.machine.counts().with(Disposition::Bounced), 0);
}

#[test]
fn a_domain_that_does_not_exist_bounces_one_that_has_no_answer_is_deferred() {
    let mut desk = Desk::new(10);
    desk.message("none.example");
    desk.message("none.example");
    assert_eq!(desk.asked_sites(), 1);
    desk.resolve(
        "none.example",
        SiteNews::Permanent("5.1.2", "no such domain".into()),
    );
    assert_eq!(desk.machine.counts().with(Disposition::Bounced), 2);
    desk.message("slow.example");
    desk.resolve("slow.example", SiteNews::Temporary("SERVFAIL".into()));
    assert_eq!(desk.machine.counts().with(Disposition::Deferred), 1);
    // Others are not held up meanwhile.
    assert_nothing_leaked(&mut desk, 10);
}

#[test]
fn a_changed_site_is_resolved_again_after_a_moment() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    assert_eq!(desk.asked_sites(), 1);
    desk.give_back(&delivery, ReturnReason::SiteChanged);
    assert_eq!(desk.asked_sites(), 1, "not at once");
    desk.pass(2_000);
    assert_eq!(desk.asked_sites(), 2);
    desk.resolve("one.example", SiteNews::Site("other".into()));
    assert_eq!(desk.lanes_told().pop().unwrap().site, "other");
}

#[test]
fn what_waits_in_lanes_follows_a_change_of_the_route() {
    let mut desk = Desk::new(1);
    desk.assigned();
    desk.message("one.example");
    assert_eq!(desk.machine.lane_totals().0, 1);
    let smart = "smartHost: smart.example, port: 2525, allowPrivate: true";
    desk.step(Input::Config(documents(&route(smart))));
    assert_eq!(desk.machine.lane_totals().0, 1);
    desk.attach(SessionId(2), 1);
    let lane = desk.lanes_told().pop().unwrap();
    assert_eq!(
        (lane.smart_host.as_str(), lane.port, lane.allow_private),
        ("smart.example", 2525, true)
    );
}

#[test]
fn a_smart_host_and_a_site_of_the_same_name_are_two_lanes() {
    let mut desk = Desk::new(10);
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("smart.example".into()));
    assert_eq!(desk.lanes_told().pop().unwrap().smart_host, "");
    desk.step(Input::Config(documents(&route("smartHost: smart.example"))));
    desk.message("two.example");
    assert_eq!(desk.lanes_told().pop().unwrap().smart_host, "smart.example");
}

#[test]
fn lanes_forget_a_dropped_partition() {
    let mut desk = Desk::new(1);
    desk.assigned();
    for _ in 0..5 {
        desk.message("one.example");
    }
    assert_eq!(desk.machine.lane_totals().0, 5);
    desk.step(Input::Drop(P0));
    assert_eq!(desk.machine.lane_totals().0, 0);
    // Keys of the former ownership may be those of other deliveries now.
    desk.own();
    desk.blocks = 0;
    desk.message("waiting.example");
    desk.resolve(
        "waiting.example",
        SiteNews::Site("mx.waiting.example".into()),
    );
    let domains: Vec<String> = desk
        .assignments()
        .into_iter()
        .map(|assignment| assignment.domain)
        .collect();
    assert_eq!(domains, ["waiting.example"]);
}

#[test]
fn a_draining_machine_assigns_nothing_and_settles() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    desk.machine.drain();
    desk.message("one.example");
    desk.renew();
    assert_eq!(desk.assignments().len(), 0);
    desk.report(&delivery, Stage::FinalDot, 250);
    assert!(desk.machine.is_settled());
    assert!(
        desk.items()
            .iter()
            .any(|(_, kind)| matches!(kind, ToSender::ReportStored(_)))
    );
}

#[test]
fn a_sender_that_drains_gets_no_more_and_its_connections_go_to_others() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    desk.say(SESSION, FromSender::Draining(proto::dispatch::Draining {}));
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 0);
    desk.give_back(&delivery, ReturnReason::Draining);
    desk.attach(SessionId(2), 10);
    let to: Vec<SessionId> = desk
        .items()
        .into_iter()
        .filter(|(_, kind)| matches!(kind, ToSender::Assignment(_)))
        .map(|(session, _)| session)
        .collect();
    // The second connection of the site is free; the first is still open at the sender that drains.
    assert_eq!(to, [SessionId(2)]);
    desk.say(
        SESSION,
        FromSender::SlotClosed(proto::dispatch::SlotClosed { lane: 0, slot: 0 }),
    );
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn what_a_gone_sender_had_not_begun_goes_to_another_at_once() {
    let mut desk = Desk::new(10);
    desk.assigned();
    desk.step(Input::Detached(SESSION));
    desk.attach(SessionId(2), 10);
    assert_eq!(desk.assignments().len(), 1);
}
