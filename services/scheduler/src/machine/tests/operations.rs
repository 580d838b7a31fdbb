//! What operators do, and what it changes.

use proto::journal::{Entry, Phase, Record, entry};
use proto::operation::{Kind, Lifted, Operation, Selector};
use queue::Which;

use super::*;

/// The configuration with a second pool.
fn with_pools() -> Arc<Snapshot> {
    let other = "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: other }\nspec: { sources: [ { name: b, weight: 1 } ] }\n";
    documents(&(route("port: 25") + other))
}

fn desk() -> Desk {
    let mut desk = Desk::new(100);
    desk.step(Input::Config(with_pools()));
    resolve_all(&mut desk);
    desk
}

fn resolve_all(desk: &mut Desk) {
    for domain in ["one.example", "two.example"] {
        desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
}

fn operation(kind: Kind, change: impl FnOnce(&mut Selector)) -> Operation {
    let mut selector = Selector::default();
    change(&mut selector);
    Operation {
        format: 1,
        id: format!("operation-{}", kind.as_str_name()),
        kind: kind.into(),
        selector: Some(selector),
        author: "alice".into(),
        reason: "listed".into(),
        at_ms: START_MS,
        ..Operation::default()
    }
}

fn to(domain: &str) -> impl FnOnce(&mut Selector) {
    let domain = domain.to_owned();
    move |selector| selector.domains = vec![domain]
}

/// Only what is there now.
fn present(desk: &Desk, mut operation: Operation) -> Operation {
    if let Some(selector) = &mut operation.selector {
        selector.accepted_before_ms = desk.now_ms + 1;
    }
    operation
}

fn operate(desk: &mut Desk, operations: &[Operation]) {
    desk.step(Input::Operations(operations.to_vec()));
}

fn why(desk: &Desk) -> Constraint {
    let which = Which::Tenant("acme".into());
    let mut all = desk.machine.why(desk.now_ms, &which, 100);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).constraint
}

fn phases(desk: &Desk) -> Vec<(Phase, u64)> {
    let operations = desk.machine.operations();
    let of = |(_, progress): (Arc<Operation>, Vec<Progress>)| {
        progress
            .into_iter()
            .map(|progress| (progress.phase, progress.recipients))
    };
    operations.into_iter().flat_map(of).collect()
}

fn totals(desk: &Desk) -> queue::Totals {
    desk.machine.intakes().next().unwrap().totals()
}

fn begin(desk: &mut Desk, delivery: &DeliveryRef) -> Vec<ToSender> {
    let begin = Begin {
        delivery: Some(delivery.clone()),
        ..Begin::default()
    };
    desk.items();
    desk.say(SESSION, FromSender::Begin(begin));
    desk.items().into_iter().map(|(_, kind)| kind).collect()
}

#[test]
fn what_is_suspended_is_named_and_lifting_it_and_only_it_moves_the_message() {
    let mut desk = desk();
    let mut suspend = operation(Kind::Suspend, to("one.example"));
    suspend.expires_at_ms = desk.now_ms + 3_600_000;
    let mut other = operation(Kind::Suspend, to("two.example"));
    other.id = "other".into();
    operate(&mut desk, &[suspend.clone(), other.clone()]);
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 0);
    let constraint = why(&desk);
    assert_eq!(constraint.kind(), "operation");
    assert_eq!(constraint.until_ms(), Some(suspend.expires_at_ms));
    let text = constraint.to_string();
    assert!(text.starts_with("suspended by alice: listed"), "{text}");
    // The other one has nothing to do with it.
    operate(&mut desk, std::slice::from_ref(&suspend));
    assert_eq!(desk.assignments().len(), 0);
    suspend.lifted = Some(Lifted::default());
    operate(&mut desk, &[suspend, other]);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn other_mail_goes_on_and_what_waits_in_a_lane_or_comes_back_is_suspended_too() {
    let mut desk = desk();
    (0..4).for_each(|_| desk.message("one.example"));
    let assigned = desk.assignments();
    assert_eq!(assigned.len(), 2, "two connections; two wait in the lane");
    let suspend = operation(Kind::Suspend, to("one.example"));
    operate(&mut desk, &[suspend]);
    // One is not begun yet, and is taken back when it is to begin.
    let delivery = assigned[0].delivery.clone().unwrap();
    let answer = begin(&mut desk, &delivery);
    assert!(matches!(answer[..], [ToSender::Refused(_)]), "{answer:?}");
    desk.give_back(
        assigned[1].delivery.as_ref().unwrap(),
        ReturnReason::Connection,
    );
    desk.message("two.example");
    let left = desk.assignments();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].domain, "two.example");
    let delivery = left[0].delivery.clone().unwrap();
    begin(&mut desk, &delivery);
    desk.report(&delivery, Stage::FinalDot, 250);
    operate(&mut desk, &[]);
    assert_eq!(desk.assignments().len(), 2);
    assert_nothing_leaked(&mut desk, 98);
}

#[test]
fn a_suspension_ends_by_itself() {
    let mut desk = desk();
    let mut suspend = operation(Kind::Suspend, |selector| selector.all = true);
    suspend.expires_at_ms = desk.now_ms + 3_000;
    operate(&mut desk, &[suspend]);
    desk.message("one.example");
    assert_eq!(
        desk.machine.next_wake().map(|at| at <= START_MS + 3_000),
        Some(true)
    );
    desk.pass(2_999);
    assert_eq!(desk.assignments().len(), 0);
    desk.pass(1);
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(phases(&desk), [(Phase::Expired, 0)]);
}

#[test]
fn suspended_messages_hold_up_no_other_of_their_line() {
    let mut desk = desk();
    for _ in 0..150 {
        desk.message("one.example");
    }
    let ids: Vec<String> = desk
        .machine
        .why(desk.now_ms, &Which::Tenant("acme".into()), 1000)
        .into_iter()
        .filter(|one| one.constraint.kind() != "at-sender")
        .map(|one| one.id.to_string())
        .collect();
    assert_eq!(ids.len(), 148);
    desk.assignments();
    let suspend = operation(Kind::Suspend, |selector| {
        selector.messages = ids[..147].to_vec()
    });
    operate(&mut desk, &[suspend]);
    let delivery = |desk: &Desk| {
        let all = desk
            .machine
            .why(desk.now_ms, &Which::Tenant("acme".into()), 1000);
        let kinds = all.iter().map(|one| one.constraint.kind());
        kinds.filter(|kind| *kind == "operation").count()
    };
    assert_eq!(delivery(&desk), 147);
    assert_eq!(
        desk.machine.lane_totals().0,
        1,
        "the last one waits for a connection only"
    );
}

#[test]
fn a_source_that_is_suspended_is_passed_over_and_with_no_other_the_mail_waits() {
    let mut desk = Desk::new(100);
    let two = "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: two }\nspec: { sources: [ { name: a, weight: 1 }, { name: b, weight: 1 } ] }\n";
    let spec = route("port: 25").replace("pool: default", "pool: two");
    desk.step(Input::Config(documents(&(spec + two))));
    resolve_all(&mut desk);
    let by = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        operation(Kind::Suspend, |selector| selector.sources = names)
    };
    operate(&mut desk, &[by(&["a"])]);
    (0..2).for_each(|_| desk.message("one.example"));
    let lanes = desk.lanes_told();
    let sources: Vec<&str> = lanes.iter().map(|lane| lane.source.as_str()).collect();
    assert_eq!(sources, ["b"]);
    operate(&mut desk, &[by(&["a", "b"])]);
    desk.message("two.example");
    assert_eq!(desk.assignments().len(), 0);
    let which = Which::Domain("two.example".into());
    let kept = desk.machine.why(desk.now_ms, &which, 1).remove(0);
    assert_eq!(kept.constraint.kind(), "operation");
    operate(&mut desk, &[]);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn moved_mail_leaves_by_the_other_pool_and_later_mail_only_when_that_is_meant() {
    let mut desk = desk();
    operate(
        &mut desk,
        &[operation(Kind::Suspend, |selector| selector.all = true)],
    );
    desk.message("one.example");
    let mut moves = present(&desk, operation(Kind::Move, to("one.example")));
    moves.pool = "other".into();
    operate(&mut desk, std::slice::from_ref(&moves));
    let source = |desk: &mut Desk| {
        let lanes = desk.lanes_told();
        lanes.first().map(|lane| lane.source.clone())
    };
    assert_eq!(source(&mut desk).as_deref(), Some("b"));
    desk.now_ms += 10;
    desk.message("one.example");
    assert_eq!(source(&mut desk).as_deref(), Some("a"));
    if let Some(selector) = &mut moves.selector {
        selector.accepted_before_ms = 0;
    }
    operate(&mut desk, std::slice::from_ref(&moves));
    desk.message("two.example");
    assert_eq!(
        source(&mut desk).as_deref(),
        Some("a"),
        "another destination"
    );
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1, "by the lane that is known");
    // To a pool that is gone nothing leaves.
    moves.pool = "gone".into();
    operate(&mut desk, &[moves]);
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 0);
}

#[test]
fn mail_is_moved_away_from_a_source() {
    let mut desk = desk();
    let mut moves = operation(Kind::Move, |selector| selector.sources = vec!["a".into()]);
    moves.pool = "other".into();
    operate(&mut desk, &[moves]);
    desk.message("one.example");
    let lanes = desk.lanes_told();
    let sources: Vec<&str> = lanes.iter().map(|lane| lane.source.as_str()).collect();
    assert_eq!(sources, ["b"]);
}

#[test]
fn what_is_bounced_or_cancelled_ends_wherever_it_is_and_only_what_was_there() {
    let mut desk = desk();
    (0..5).for_each(|_| desk.message("one.example"));
    desk.message("two.example");
    let assigned = desk.assignments();
    assert_eq!(assigned.len(), 3);
    let delivery = assigned[0].delivery.clone().unwrap();
    assert_eq!(assigned[0].domain, "one.example");
    begin(&mut desk, &delivery);
    let cancel = present(&desk, operation(Kind::Cancel, to("one.example")));
    operate(&mut desk, std::slice::from_ref(&cancel));
    // All but the one that is begun: its attempt goes on.
    assert_eq!(desk.machine.counts().with(Disposition::Cancelled), 4);
    assert_eq!(phases(&desk), [(Phase::Begun, 4)]);
    assert_eq!(desk.machine.operations()[0].1[0].in_flight, 1);
    desk.report(&delivery, Stage::Rcpt, 451);
    desk.pass(200);
    assert_eq!(desk.machine.counts().with(Disposition::Cancelled), 5);
    assert_eq!(phases(&desk), [(Phase::Done, 5)]);
    // Sent again it does nothing more, and later mail is not meant.
    operate(&mut desk, &[cancel]);
    desk.items();
    desk.now_ms += 10;
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1);
    let second = assigned
        .iter()
        .find(|other| other.domain == "one.example" && other.delivery.as_ref() != Some(&delivery));
    let second = second.and_then(|other| other.delivery.clone()).unwrap();
    let answer = begin(&mut desk, &second);
    assert!(
        matches!(answer[..], [ToSender::Refused(_), ..]),
        "{answer:?}"
    );
    assert_eq!(totals(&desk).messages, 2);
}

#[test]
fn a_large_index_is_gone_through_in_slices() {
    let mut desk = Desk::new(100);
    for _ in 0..3_000 {
        desk.message_with("one.example", |envelope| envelope.hold = true);
    }
    let mut bounce = present(
        &desk,
        operation(Kind::Bounce, |selector| selector.all = true),
    );
    bounce.reason = "a mistake".into();
    desk.machine
        .step(desk.now_ms, Input::Operations(vec![bounce]));
    assert!(desk.machine.run(desk.now_ms), "it has more to do");
    let first = desk.machine.counts().with(Disposition::Bounced);
    assert!((1..3_000).contains(&first), "{first} in one pass");
    desk.run();
    desk.pass(1_000);
    assert_eq!(desk.machine.counts().with(Disposition::Bounced), 3_000);
    assert_eq!(phases(&desk), [(Phase::Done, 3_000)]);
    assert_eq!(totals(&desk).dsn_owed, 3_000);
}

/// A record with a note about an operation.
fn noted(operation: &Operation, phase: Phase) -> Record {
    let action = proto::journal::AdminAction {
        operation: Some(operation.clone()),
        phase: phase.into(),
        ..Default::default()
    };
    Record {
        format: 1,
        written_at_ms: START_MS,
        entries: vec![Entry {
            kind: Some(entry::Kind::AdminAction(action)),
        }],
        ..Record::default()
    }
}

#[test]
fn what_the_owner_did_not_finish_the_next_one_does() {
    for (phase, cancelled) in [(Phase::Begun, 1), (Phase::Done, 0)] {
        let mut desk = Desk::new(0);
        let cancel = present(&desk, operation(Kind::Cancel, to("one.example")));
        operate(&mut desk, std::slice::from_ref(&cancel));
        let mut intake = desk.recovering();
        intake.replay(2, noted(&cancel, phase)).unwrap();
        let index = desk.index_of("one.example", |envelope| envelope.hold = true);
        intake.block(desk.now_ms, 1, 1, index).unwrap();
        let before = desk.machine.counts().with(Disposition::Cancelled);
        desk.owns(intake);
        let after = desk.machine.counts().with(Disposition::Cancelled);
        assert_eq!(after - before, cancelled, "{phase:?}");
        assert_eq!(phases(&desk)[0].0, Phase::Done);
    }
}

#[test]
fn what_was_over_before_its_partition_had_an_owner_again_is_told_so() {
    let mut desk = desk();
    let suspend = operation(Kind::Suspend, to("one.example"));
    let mut lifted = suspend.clone();
    lifted.lifted = Some(Lifted::default());
    for (present, phase) in [(vec![lifted], Phase::Lifted), (vec![], Phase::Unspecified)] {
        operate(&mut desk, &present);
        let mut intake = desk.recovering();
        intake.replay(2, noted(&suspend, Phase::Begun)).unwrap();
        desk.owns(intake);
        let notes = desk.machine.intakes().next().unwrap().operations();
        let last = notes
            .first()
            .map_or(Phase::Unspecified, |note| note.phase());
        assert_eq!(last, phase, "one that is gone is forgotten with its end");
        desk.message("one.example");
        assert!(!desk.assignments().is_empty());
        let delivery = desk
            .machine
            .why(desk.now_ms, &Which::Tenant("acme".into()), 9);
        assert!(
            delivery
                .iter()
                .all(|one| one.constraint.kind() != "operation")
        );
    }
}

#[test]
fn retries_are_due_at_once_and_a_failed_domain_is_asked_for_again() {
    let mut desk = desk();
    let delivery = {
        desk.message("one.example");
        desk.assignments().remove(0).delivery.unwrap()
    };
    begin(&mut desk, &delivery);
    desk.report(&delivery, Stage::Rcpt, 451);
    desk.message("three.example");
    desk.resolve("three.example", SiteNews::Temporary("SERVFAIL".into()));
    desk.items();
    let asked = desk.asked_sites();
    let retry = present(
        &desk,
        operation(Kind::Retry, |selector| selector.all = true),
    );
    operate(&mut desk, &[retry]);
    assert_eq!(phases(&desk), [(Phase::Done, 2)]);
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(desk.asked_sites(), asked + 1);
    desk.resolve("three.example", SiteNews::Site("mx.three.example".into()));
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn held_mail_is_released() {
    let mut desk = desk();
    desk.message_with("one.example", |envelope| envelope.hold = true);
    let held = Constraint::Held {
        until_ms: Some(desk.now_ms + 7 * 86_400_000),
        refusal: None,
    };
    assert_eq!(why(&desk), held);
    let release = present(&desk, operation(Kind::Release, to("one.example")));
    operate(&mut desk, &[release]);
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(phases(&desk), [(Phase::Done, 1)]);
}

#[test]
fn an_operation_of_a_later_release_is_left_alone() {
    let mut desk = desk();
    let mut later = operation(Kind::Suspend, |selector| selector.all = true);
    later.format = 2;
    operate(&mut desk, &[later]);
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1);
}
