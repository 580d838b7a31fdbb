//! What is done about replies.

use proto::journal::{Record, entry};

use super::*;
use crate::machine::outcomes::Results;

const MINUTE_MS: u64 = 60_000;

/// The configuration with this rule, and none that is shipped for any provider.
fn with_rule(rule: &str) -> Arc<Snapshot> {
    let document = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: Automation\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
        )
    };
    let more = document("any", "{ disabled: true }")
        + &document("mine", &format!("{{ rules: [ {rule} ] }}"));
    documents(&(route("port: 25") + &more))
}

/// A machine that knows the sites of some domains, each its own.
fn desk(rule: &str) -> Desk {
    let mut desk = Desk::new(100);
    desk.step(Input::Config(with_rule(rule)));
    resolve_all(&mut desk);
    desk
}

fn resolve_all(desk: &mut Desk) {
    for domain in ["a.example", "b.example"] {
        desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
}

/// Sends so many, and has the host answer this to each that is assigned.
fn send(desk: &mut Desk, domain: &str, count: usize, code: u32, text: &str) -> usize {
    (0..count).for_each(|_| desk.message(domain));
    let assigned = desk.assignments();
    for assignment in &assigned {
        answer(desk, assignment.delivery.as_ref().unwrap(), code, text);
    }
    assigned.len()
}

fn answer(desk: &mut Desk, delivery: &DeliveryRef, code: u32, text: &str) {
    let stage = if code < 300 {
        Stage::FinalDot
    } else {
        Stage::Rcpt
    };
    let reply = Reply {
        stage: stage.into(),
        code,
        text: text.to_owned(),
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
    desk.say(SESSION, FromSender::Report(report));
}

/// Lets time pass with the lease renewed.
fn pass(desk: &mut Desk, ms: u64) -> usize {
    let mut assigned = 0;
    for _ in 0..ms / 4_000 {
        desk.pass(4_000);
        desk.renew();
        resolve_all(desk);
        assigned += desk.assignments().len();
    }
    assigned
}

#[test]
fn results_are_counted_by_provider_and_pool() {
    let provider = "---\napiVersion: staffetta.dev/v1alpha1\nkind: Provider\nmetadata: { name: big }\nspec: { mx: [ mx.a.example ] }\n";
    let mut desk = Desk::new(100);
    desk.step(Input::Config(documents(&(route("port: 25") + provider))));
    resolve_all(&mut desk);
    assert_eq!(send(&mut desk, "a.example", 1, 250, ""), 1);
    assert_eq!(send(&mut desk, "a.example", 1, 451, "later"), 1);
    assert_eq!(send(&mut desk, "b.example", 1, 550, "never"), 1);
    let outcomes = desk.machine.take_outcomes();
    let mut seen: Vec<_> = outcomes.iter().collect();
    seen.sort();
    let expected: [(Option<&str>, &str, &Results); 2] = [
        (None, "default", &[0, 0, 0, 1, 0, 0]),
        (Some("big"), "default", &[1, 1, 0, 0, 0, 0]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(desk.machine.take_outcomes().iter().count(), 0, "taken once");
}

#[test]
fn a_lane_is_suspended_for_what_it_heard_and_others_go_on() {
    let mut desk = desk(
        "{ reply: { codes: [421], text: 'slow down' }, threshold: 2/m, action: suspend, for: 20m }",
    );
    assert_eq!(send(&mut desk, "a.example", 1, 421, "slow down"), 1);
    assert_eq!(send(&mut desk, "a.example", 1, 421, "slow down"), 1);
    assert_eq!(send(&mut desk, "a.example", 3, 250, ""), 0);
    assert_eq!(send(&mut desk, "b.example", 1, 250, ""), 1);
    assert_eq!(desk.machine.counts().acted, [1, 0, 0]);
    // The two that were refused are due within the time, and wait too.
    assert_eq!(pass(&mut desk, 19 * MINUTE_MS), 0);
    assert_eq!(pass(&mut desk, 2 * MINUTE_MS), 2, "two connections");
    assert_eq!(desk.machine.acts().count(), 0);
}

#[test]
fn a_limited_lane_has_fewer_connections_and_messages_per_connection_and_a_slower_rate() {
    let mut desk = desk(
        "{ reply: { codes: [421] }, action: limit, connections: 1, messagesPerConnection: 3, for: 1h }",
    );
    assert_eq!(send(&mut desk, "a.example", 1, 421, "busy"), 1);
    desk.items();
    (0..5).for_each(|_| desk.message("a.example"));
    let items = desk.items();
    let told = items.iter().find_map(|(_, kind)| match kind {
        ToSender::Lane(lane) => Some(lane.messages_per_connection),
        _ => None,
    });
    assert_eq!(told, Some(3));
    let assigned = items
        .iter()
        .filter(|(_, kind)| matches!(kind, ToSender::Assignment(_)));
    assert_eq!(assigned.count(), 1);

    let mut slowed =
        self::desk("{ reply: { codes: [421] }, action: slow, to: 50, recover: 1h, least: 1/m }");
    assert_eq!(send(&mut slowed, "a.example", 1, 421, "busy"), 1);
    assert_eq!(send(&mut slowed, "a.example", 1, 421, "busy"), 0);
    let asked = slowed.seen.iter().find_map(|output| match output {
        Output::AskGrant { key, window, .. } => Some((key.as_str(), window.limit.count)),
        _ => None,
    });
    assert_eq!(asked, Some(("a|mx.a.example|m60000", 1)));
}

#[test]
fn a_suspended_tenants_mail_waits_wherever_it_is_and_only_at_that_provider() {
    let mut desk =
        desk("{ reply: { text: listed }, action: suspend, scope: tenantAtProvider, for: 10m }");
    // Two connections: the third waits in the lane.
    (0..3).for_each(|_| desk.message("a.example"));
    let assigned = desk.assignments();
    assert_eq!(assigned.len(), 2);
    answer(
        &mut desk,
        assigned[0].delivery.as_ref().unwrap(),
        421,
        "your domain is listed",
    );
    assert_eq!(desk.assignments().len(), 0);
    assert_eq!(send(&mut desk, "a.example", 1, 250, ""), 0);
    assert_eq!(send(&mut desk, "b.example", 1, 250, ""), 1);
    answer(&mut desk, assigned[1].delivery.as_ref().unwrap(), 250, "");
    assert_eq!(pass(&mut desk, 9 * MINUTE_MS), 0);
    assert!(pass(&mut desk, 2 * MINUTE_MS) > 0);
}

#[test]
fn what_is_done_goes_on_at_the_next_owner() {
    let rule = "{ reply: { codes: [421] }, action: suspend, for: 1h }";
    let mut before = desk(rule);
    assert_eq!(send(&mut before, "a.example", 1, 421, "no more"), 1);
    let intake = before.machine.intakes().next().unwrap();
    let acted = intake.acts().to_vec();
    assert_eq!(acted.len(), 1);
    assert_eq!(
        (&*acted[0].rule, &*acted[0].cause),
        ("mine/0", "421 no more")
    );

    let mut after = Desk::new(100);
    after.step(Input::Config(with_rule(rule)));
    let entry = |kind| proto::journal::Entry { kind: Some(kind) };
    let record = Record {
        format: 1,
        written_at_ms: START_MS,
        entries: acted
            .into_iter()
            .map(|acted| entry(entry::Kind::Acted(acted)))
            .collect(),
        ..Record::default()
    };
    let mut intake = after.recovering();
    intake.replay(2, record).unwrap();
    after.owns(intake);
    resolve_all(&mut after);
    assert_eq!(send(&mut after, "a.example", 1, 250, ""), 0);
    assert_eq!(send(&mut after, "b.example", 1, 250, ""), 1);
    assert!(pass(&mut after, 61 * MINUTE_MS) > 0);
}

/// What others are to be told.
fn told(desk: &mut Desk) -> Vec<proto::journal::Acted> {
    let act = |output: &Output| match output {
        Output::TellAct { act, .. } => Some(act.clone()),
        _ => None,
    };
    let told = desk.seen.iter().filter_map(act).collect();
    desk.seen.retain(|output| act(output).is_none());
    told
}

#[test]
fn others_are_told_what_is_done_not_of_each_renewal_and_what_they_tell_holds() {
    let rule = "{ reply: { text: too much }, action: suspend, for: 1h }";
    let mut one = desk(rule);
    send(&mut one, "a.example", 2, 451, "too much");
    let acts = told(&mut one);
    assert_eq!(acts.len(), 1, "the second reply renewed it");
    let mut other = desk(rule);
    other.step(Input::Acts(acts.clone()));
    assert_eq!(send(&mut other, "a.example", 3, 250, ""), 0);
    assert_eq!(send(&mut other, "b.example", 1, 250, ""), 1);
    assert_eq!(told(&mut other), [], "it is no news");
    // What is known already changes nothing, and it ends in time.
    other.step(Input::Acts(acts));
    assert_eq!(other.machine.acts().count(), 1);
    assert_eq!(pass(&mut other, 59 * MINUTE_MS), 0);
    assert!(pass(&mut other, 2 * MINUTE_MS) > 0);
}
