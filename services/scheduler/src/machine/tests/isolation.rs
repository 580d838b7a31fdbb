//! Tenants that leave by another pool than their own, or by none.

use std::collections::BTreeMap;

use egress::{Decided, LaneId, StandingEvent, no_standings, standing_of, step_standings};
use proto::journal::{Record, entry};
use proto::operation::{Kind, Operation, Selector};
use proto::standing::{Move, PoolStandings, Standing};
use queue::Which;

use super::*;

const DAY_MS: u64 = 86_400_000;

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
    )
}

/// Tenants acme and bravo in the pool `default` (source a), with more about that pool; `fresh` (b), `bad` (c), and `vip` (v),
/// which is dedicated to bravo and to which no route leads.
fn config(more: &str, rest: &str) -> Arc<Snapshot> {
    let tenants = ["acme", "bravo"].map(|name| {
        document(
            "Tenant",
            name,
            "defaultStream: mail, streams: [ { name: mail } ]",
        )
    });
    let text = [
        tenants.concat(),
        document(
            "EgressPool",
            "default",
            &format!("sources: [ {{ name: a }} ]{more}"),
        ),
        document(
            "EgressPool",
            "fresh",
            "sources: [ { name: b } ], maxTenants: 1",
        ),
        document("EgressPool", "bad", "sources: [ { name: c } ]"),
        document(
            "EgressPool",
            "vip",
            "sources: [ { name: v } ], dedicatedTo: bravo",
        ),
        document(
            "Shaping",
            "default",
            "rules: [ { match: {}, connections: 1000 } ]",
        ),
        document("Route", "default", "pool: default"),
        rest.to_owned(),
    ];
    Arc::new(Snapshot::from_documents(&text.concat()).unwrap())
}

const PROBATION: &str = ", probation: { pool: fresh, days: 2, delivered: 2, except: [ bravo ] }";
const BOTH: &str = ", probation: { pool: fresh, days: 2, delivered: 2 }, quarantine: bad";

/// A machine, and the store of how tenants stand.
struct Office {
    desk: Desk,
    stored: BTreeMap<String, PoolStandings>,
}

impl Office {
    fn new(more: &str) -> Self {
        Self::with(config(more, ""))
    }

    fn with(config: Arc<Snapshot>) -> Self {
        let mut desk = Desk::new(1_000);
        desk.step(Input::Config(config));
        desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
        Self {
            desk,
            stored: BTreeMap::new(),
        }
    }

    /// Stores what the machine told, and tells it so; gives what it told.
    fn store(&mut self) -> Vec<StandingEvent> {
        let mut all = Vec::new();
        let (told, rest) = std::mem::take(&mut self.desk.seen)
            .into_iter()
            .partition(|output| matches!(output, Output::TellStandings { .. }));
        self.desk.seen = rest;
        let told: Vec<Output> = told;
        for output in told {
            let Output::TellStandings { pool, events } = output else {
                continue;
            };
            let name = pool.name.clone();
            let record = self.stored.entry(name.clone());
            let record = record.or_insert_with(|| no_standings(&name));
            for event in &events {
                step_standings(record, &pool, self.desk.now_ms, event);
            }
            all.extend(events);
            self.tell();
            self.desk.step(Input::StandingsTold(name));
        }
        all
    }

    fn tell(&mut self) {
        let records = self.stored.values().cloned().collect();
        self.desk.step(Input::Standings(records));
    }

    /// As an operator does by any scheduler.
    fn decide(&mut self, tenant: &str, decision: Decided) {
        let event = StandingEvent::Decided {
            tenant: tenant.to_owned(),
            decision,
            author: "alice".to_owned(),
            cause: "complaints".to_owned(),
        };
        let pool = self.desk.machine.config.pool("default").unwrap().clone();
        let record = self.stored.entry("default".to_owned());
        let record = record.or_insert_with(|| no_standings("default"));
        assert!(step_standings(record, &pool, self.desk.now_ms, &event));
        self.tell();
    }

    fn message(&mut self, tenant: &str) {
        let tenant = tenant.to_owned();
        self.desk
            .message_with("one.example", |envelope| envelope.tenant = tenant);
    }

    /// What is assigned: source and delivery.
    fn assigned(&mut self) -> Vec<(String, DeliveryRef)> {
        let assignments = self.desk.assignments();
        let infos = &self.desk.machine.lane_infos;
        let source = |lane| infos.get(LaneId(lane)).unwrap().source().name.clone();
        let of = |of: Assignment| (source(of.lane), of.delivery.unwrap());
        assignments.into_iter().map(of).collect()
    }

    fn sources(&mut self) -> Vec<String> {
        self.assigned()
            .into_iter()
            .map(|(source, _)| source)
            .collect()
    }

    fn why(&self, tenant: &str) -> Explained {
        let which = Which::Tenant(tenant.into());
        let mut all = self.desk.machine.why(self.desk.now_ms, &which, 100);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn standing(&self, tenant: &str) -> Standing {
        let record = self.stored.get("default");
        let standing = record.and_then(|record| standing_of(record, tenant));
        standing.map_or(Standing::Unspecified, |standing| standing.standing())
    }
}

#[test]
fn a_new_tenant_waits_until_that_is_stored_and_leaves_by_the_pool_for_probation() {
    let mut office = Office::new(PROBATION);
    office.message("bravo");
    assert_eq!(office.sources(), ["a"], "it is not new");
    office.message("acme");
    assert_eq!(office.sources(), [""; 0]);
    let kept = office.why("acme");
    assert_eq!(kept.constraint.kind(), "standing");
    let told = office.store();
    assert_eq!(told, [StandingEvent::Seen("acme".to_owned())]);
    let assigned = office.assigned();
    assert_eq!(assigned.len(), 1);
    assert_eq!(assigned[0].0, "b");
    let elsewhere = office.why("acme").elsewhere.unwrap();
    assert_eq!(
        elsewhere,
        "acme is on probation in the pool default (its first mail for the pool): its mail leaves by the pool fresh"
    );
    office.message("acme");
    assert_eq!(office.sources(), ["b"]);
    assert!(office.store().is_empty(), "told once");
}

#[test]
fn what_is_not_stored_is_told_again() {
    let mut office = Office::new(PROBATION);
    office.message("acme");
    let is_told = |output: &Output| matches!(output, Output::TellStandings { .. });
    assert_eq!(office.desk.seen.iter().filter(|o| is_told(o)).count(), 1);
    // It was lost on the way.
    office.desk.seen.clear();
    office.desk.pass(9_999);
    office.desk.own();
    assert!(!office.desk.seen.iter().any(is_told));
    office.desk.pass(1);
    assert_eq!(office.store(), [StandingEvent::Seen("acme".to_owned())]);
}

#[test]
fn deliveries_are_counted_and_with_them_and_the_days_it_becomes_a_member() {
    let mut office = Office::new(PROBATION);
    office.message("acme");
    office.store();
    for (_, delivery) in office.assigned() {
        office.desk.report(&delivery, Stage::FinalDot, 250);
    }
    assert!(office.store().is_empty(), "told with others");
    for code in [550, 451] {
        office.message("acme");
        let (_, delivery) = office.assigned().pop().unwrap();
        office.desk.report(&delivery, Stage::Rcpt, code);
    }
    office.desk.pass(5_000);
    assert_eq!(
        office.store(),
        [StandingEvent::Delivered("acme".to_owned(), 1)]
    );
    office.desk.now_ms += 3 * DAY_MS;
    office.desk.own();
    assert!(office.store().is_empty());
    assert_eq!(office.standing("acme"), Standing::Probation);
    let site = SiteNews::Site("mx.one.example".into());
    office.desk.resolve("one.example", site);
    office.message("acme");
    let delivered = office.assigned();
    assert_eq!(delivered.len(), 1);
    for (source, delivery) in &delivered {
        assert_eq!(source, "b");
        office.desk.report(delivery, Stage::FinalDot, 250);
    }
    office.desk.pass(5_000);
    office.store();
    assert_eq!(office.standing("acme"), Standing::Member);
    office.desk.renew();
    office.message("acme");
    assert_eq!(office.sources().last().unwrap(), "a");
}

#[test]
fn a_culprit_leaves_by_the_pool_for_quarantine_with_what_waits_and_what_is_not_begun() {
    let mut office = Office::new(", quarantine: bad");
    office.message("acme");
    office.message("bravo");
    let assigned = office.assigned();
    assert_eq!(assigned.len(), 2);
    office.decide("acme", Decided::Quarantine { until_ms: 0 });
    for (source, delivery) in &assigned {
        assert_eq!(source, "a");
        let begin = Begin {
            delivery: Some(delivery.clone()),
            ..Begin::default()
        };
        office.desk.say(SESSION, FromSender::Begin(begin));
    }
    // One of them was refused and went the other way.
    let items = office.desk.items();
    let permits = items
        .iter()
        .filter(|(_, kind)| matches!(kind, ToSender::Permit(_)));
    assert_eq!(permits.count(), 1);
    let refused = items
        .iter()
        .filter(|(_, kind)| matches!(kind, ToSender::Refused(_)));
    assert_eq!(refused.count(), 1);
    let assignments = items.iter().filter_map(|(_, kind)| match kind {
        ToSender::Assignment(of) => office.desk.machine.lane_infos.get(LaneId(of.lane)),
        _ => None,
    });
    let sources: Vec<&str> = assignments.map(|info| &*info.source().name).collect();
    assert_eq!(sources, ["c"]);
    let elsewhere = office.why("acme").elsewhere.unwrap();
    assert!(
        elsewhere.starts_with("acme is in quarantine in the pool default by alice (complaints)"),
        "{elsewhere}"
    );
    assert_eq!(office.why("bravo").elsewhere, None);
    office.decide("acme", Decided::Release);
    office.message("acme");
    assert_eq!(office.sources(), ["a"]);
}

#[test]
fn a_source_in_two_pools_takes_what_leaves_by_either() {
    let other = document("EgressPool", "other", "sources: [ { name: c } ]")
        + &document(
            "Route",
            "other",
            "match: { tenants: [ bravo ] }, pool: other",
        );
    let mut office = Office::with(config(", quarantine: bad", &other));
    office.decide("acme", Decided::Quarantine { until_ms: 0 });
    // The lane is made for the one pool, and used for the other.
    for tenant in ["bravo", "acme"] {
        office.message(tenant);
        let (source, delivery) = office.assigned().pop().unwrap();
        assert_eq!(source, "c");
        let begin = Begin {
            delivery: Some(delivery),
            ..Begin::default()
        };
        office.desk.say(SESSION, FromSender::Begin(begin));
        let items = office.desk.items();
        let is_permit = |(_, kind): &(SessionId, ToSender)| matches!(kind, ToSender::Permit(_));
        assert!(items.iter().any(is_permit), "{tenant}: {items:?}");
    }
}

#[test]
fn without_a_pool_for_quarantine_the_mail_waits_and_release_and_only_it_moves_it() {
    let mut office = Office::new("");
    office.decide(
        "acme",
        Decided::Quarantine {
            until_ms: office_end(),
        },
    );
    office.message("acme");
    office.message("bravo");
    assert_eq!(office.sources(), ["a"]);
    let kept = office.why("acme").constraint;
    assert_eq!(
        (kept.kind(), kept.until_ms()),
        ("tenant-quarantine", Some(office_end()))
    );
    assert_eq!(
        kept.to_string(),
        "acme is in quarantine in the pool default by alice (complaints), and the pool names none for that"
    );
    // Other documents let nothing of it go, as long as they name no pool for it.
    office
        .desk
        .step(Input::Config(config(", sticky: always", "")));
    assert_eq!(office.sources(), [""; 0]);
    office.decide("acme", Decided::Release);
    assert_eq!(office.sources(), ["a"]);
}

fn office_end() -> u64 {
    START_MS + 5_000
}

#[test]
fn quarantine_ends_by_time_and_the_moves_are_told_once() {
    let mut office = Office::new(", quarantine: bad");
    office.decide(
        "acme",
        Decided::Quarantine {
            until_ms: office_end(),
        },
    );
    office.desk.pass(4_999);
    assert!(office.store().is_empty());
    office.desk.pass(1);
    assert_eq!(office.store(), [StandingEvent::Passed]);
    assert_eq!(office.standing("acme"), Standing::Member);
    office.desk.pass(60_000);
    office.desk.own();
    assert!(office.store().is_empty());
    let last = |office: &Office| {
        let mut intakes = office.desk.machine.intakes();
        intakes.next().unwrap().last_move("default")
    };
    assert_eq!(last(&office), 2);
}

#[test]
fn a_later_owner_tells_the_moves_that_the_journal_does_not_have() {
    let mut office = Office::new(BOTH);
    for decision in [Decided::Quarantine { until_ms: 0 }, Decided::Release] {
        office.decide("acme", decision);
    }
    let moved = |number| Move {
        number,
        pool: "default".to_owned(),
        ..Move::default()
    };
    // Another owner begins where the journal's last move was.
    let mut intake = office.desk.recovering();
    let entry = proto::journal::Entry {
        kind: Some(entry::Kind::StandingMoved(moved(1))),
    };
    let record = Record {
        format: 1,
        entries: vec![entry],
        ..Record::default()
    };
    intake.replay(2, record).unwrap();
    assert_eq!(intake.last_move("default"), 1);
    office.desk.owns(intake);
    let mut intakes = office.desk.machine.intakes();
    assert_eq!(intakes.next().unwrap().last_move("default"), 2);
}

#[test]
fn the_pool_for_probation_takes_as_many_as_may_share_it() {
    let mut office = Office::new(BOTH);
    office.message("acme");
    office.store();
    office.desk.now_ms += 1;
    office.message("bravo");
    office.store();
    assert_eq!(office.sources(), ["b"]);
    let kept = office.why("bravo").constraint;
    assert_eq!(kept.kind(), "pool-full");
    assert_eq!(
        kept.to_string(),
        "bravo is to leave by the pool fresh, and 1 tenants share it, which is its maxTenants"
    );
    // The place is free when the other one is a member.
    office.decide("acme", Decided::Admit);
    assert_eq!(office.sources(), ["b"]);
}

#[test]
fn a_move_takes_nobody_out_of_quarantine_and_nobody_into_a_pool_of_somebody_else() {
    let mut office = Office::new(", quarantine: bad");
    let moved = |pool: &str| Operation {
        format: 1,
        id: format!("to-{pool}"),
        kind: Kind::Move.into(),
        pool: pool.to_owned(),
        author: "alice".to_owned(),
        selector: Some(Selector {
            domains: vec!["one.example".to_owned()],
            ..Selector::default()
        }),
        ..Operation::default()
    };
    office.decide("acme", Decided::Quarantine { until_ms: 0 });
    office.desk.step(Input::Operations(vec![moved("fresh")]));
    office.message("acme");
    office.message("bravo");
    assert_eq!(office.sources(), ["c", "b"]);
    // A pool that was dedicated after the operation was stored.
    office.desk.step(Input::Operations(vec![moved("vip")]));
    office.decide("acme", Decided::Release);
    office.message("bravo");
    assert_eq!(office.sources(), ["v"]);
    office.message("acme");
    assert_eq!(office.sources(), [""; 0]);
    let which = Which::Tenant("acme".into());
    let all = office.desk.machine.why(office.desk.now_ms, &which, 100);
    let kept: Vec<String> = all
        .iter()
        .filter(|one| one.constraint.kind() == "pool-closed")
        .map(|one| one.constraint.to_string())
        .collect();
    assert_eq!(kept, ["moved to the pool vip, which is dedicated to bravo"]);
    office.desk.step(Input::Operations(Vec::new()));
    assert_eq!(office.sources(), ["a"]);
}

#[test]
fn a_rule_sends_a_tenant_into_quarantine_from_the_pool_of_its_route() {
    let rules = document(
        "Automation",
        "mine",
        "rules: [ { reply: { text: spam }, threshold: 2/h, action: quarantine, for: 1h } ]",
    );
    let mut office = Office::with(config(", quarantine: bad", &rules));
    for _ in 0..2 {
        office.message("acme");
        let (_, delivery) = office.assigned().pop().unwrap();
        let reply = Reply {
            stage: Stage::Rcpt.into(),
            code: 550,
            enhanced: "5.7.1".into(),
            text: "this is spam".into(),
        };
        let recipients = delivery.ordinals.iter().map(|ordinal| RecipientReport {
            ordinal: *ordinal,
            reply: Some(reply.clone()),
            ..RecipientReport::default()
        });
        let report = Report {
            recipients: recipients.collect(),
            delivery: Some(delivery.clone()),
            ..Report::default()
        };
        office.desk.say(SESSION, FromSender::Report(report));
    }
    let now_ms = office.desk.now_ms;
    let told = office.store();
    let convicted = StandingEvent::Convicted {
        tenant: "acme".to_owned(),
        until_ms: now_ms + 3_600_000,
        cause: "mine/0: 550 5.7.1 this is spam".to_owned(),
    };
    assert_eq!(told, [convicted]);
    assert_eq!(office.desk.machine.counts().convicted, 1);
    office.message("acme");
    office.message("bravo");
    assert_eq!(office.sources(), ["c", "a"]);
}

#[test]
fn what_a_later_release_stored_lets_nothing_leave() {
    let mut office = Office::new(BOTH);
    office.decide("acme", Decided::Admit);
    let record = office.stored.get_mut("default").unwrap();
    record.format += 1;
    office.tell();
    office.message("acme");
    assert_eq!(office.sources(), [""; 0]);
    assert_eq!(office.why("acme").constraint.kind(), "standing");
}
