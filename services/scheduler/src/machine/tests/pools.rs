//! By which source of its pool a delivery leaves.

use egress::LaneId;
use hashbrown::HashMap;

use super::*;

/// A machine with this pool and a lot of room, whose sites are all known.
pub(super) fn desk(pool: &str, credit: u32) -> Desk {
    let mut desk = Desk::new(credit);
    configure(&mut desk, pool);
    desk
}

fn configure(desk: &mut Desk, pool: &str) {
    desk.step(Input::Config(with_pool(pool)));
}

/// The configuration with this pool.
fn with_pool(pool: &str) -> Arc<Snapshot> {
    with_pool_and(pool, "")
}

/// The same and more documents.
pub(super) fn with_pool_and(pool: &str, more: &str) -> Arc<Snapshot> {
    let text = format!(
        r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: mail, streams: [ {{ name: mail }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ {pool} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ match: {{}}, connections: 1000 }} ] }}
{}{more}"#,
        route("retry: { waits: [1m], jitter: 0, tryAgainIn: { most: 0 } }")
    );
    Arc::new(Snapshot::from_documents(&text).unwrap())
}

const THREE: &str = "sources: [ { name: a, weight: 6 }, { name: b, weight: 3 }, { name: c } ]";

/// Sends so many messages to a domain; gives the assignments with their sources.
pub(super) fn send(desk: &mut Desk, domain: &str, count: usize) -> Vec<(String, Assignment)> {
    (0..count).for_each(|_| desk.message(domain));
    if desk.machine.site_of(domain).is_none() {
        desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
    assigned(desk)
}

/// What is assigned, each with its source.
pub(super) fn assigned(desk: &mut Desk) -> Vec<(String, Assignment)> {
    let of = |(_, kind)| match kind {
        ToSender::Assignment(assignment) => {
            let source = desk.machine.lane_infos.get(LaneId(assignment.lane));
            Some((source?.source().name.clone(), assignment))
        }
        _ => None,
    };
    let items = std::mem::take(&mut desk.seen);
    let (items, rest) = items
        .into_iter()
        .partition(|output| matches!(output, Output::ToSender(..)));
    desk.seen = rest;
    let items: Vec<Output> = items;
    let item = |output| match output {
        Output::ToSender(session, item) => Some((session, item.kind?)),
        _ => None,
    };
    items.into_iter().filter_map(item).filter_map(of).collect()
}

pub(super) fn count(assigned: &[(String, Assignment)], source: &str) -> usize {
    assigned.iter().filter(|(name, _)| name == source).count()
}

fn report(desk: &mut Desk, assignment: &Assignment, code: u32, text: &str) {
    let delivery = assignment.delivery.clone().unwrap();
    let reply = Reply {
        stage: Stage::Rcpt.into(),
        code,
        enhanced: "4.7.1".into(),
        text: text.into(),
    };
    let recipients = delivery.ordinals.iter().map(|ordinal| RecipientReport {
        ordinal: *ordinal,
        reply: Some(reply.clone()),
        ..RecipientReport::default()
    });
    let report = Report {
        recipients: recipients.collect(),
        delivery: Some(delivery),
        ..Report::default()
    };
    desk.say(SESSION, FromSender::Report(report));
}

#[test]
fn sources_have_their_shares_at_every_site_whatever_the_order_of_the_mail() {
    let mut desk = desk(THREE, 10_000);
    let mut all = Vec::new();
    for _ in 0..200 {
        for domain in ["one.example", "two.example"] {
            all.push((domain, send(&mut desk, domain, 1)));
        }
    }
    for of in ["one.example", "two.example"] {
        let at: Vec<_> = all.iter().filter(|(domain, _)| *domain == of).collect();
        let count = |source| at.iter().map(|(_, a)| count(a, source)).sum::<usize>();
        let shares = [count("a"), count("b"), count("c")];
        for (share, expected) in shares.into_iter().zip([120_usize, 60, 20]) {
            assert!(share.abs_diff(expected) <= 4, "{of}: {shares:?}");
        }
    }
}

#[test]
fn turns_are_asked_for_once_used_as_they_are_drawn_and_kept_over_a_change_of_the_configuration() {
    let mut desk = desk(THREE, 10_000);
    send(&mut desk, "one.example", 3);
    let asked = |desk: &mut Desk| {
        let of = |output: &Output| match output {
            Output::AskTurns { pool, count } => Some((pool.clone(), *count)),
            _ => None,
        };
        let asked: Vec<_> = desk.seen.iter().filter_map(of).collect();
        desk.seen.retain(|output| of(output).is_none());
        asked
    };
    let questions = asked(&mut desk);
    assert_eq!(questions.len(), 1);
    let (pool, turns) = questions[0].clone();
    assert_eq!(&*pool, "default");
    let first = Some(1_000_000);
    desk.step(Input::Turns {
        pool,
        first,
        count: turns,
    });
    let mut expected = egress::Rotation::new([6, 3, 1], 0);
    expected.lend(first, turns);
    let mut sources = || {
        let position = expected.next(|_| true).unwrap();
        ["a", "b", "c"][position].to_owned()
    };
    for round in 0..2 {
        for _ in 0..50 {
            let sent = send(&mut desk, "one.example", 1);
            assert_eq!(sent[0].0, sources(), "{round}");
        }
        configure(&mut desk, THREE);
    }
    assert!(asked(&mut desk).is_empty(), "there are enough");
}

#[test]
fn what_is_greylisted_comes_again_from_the_same_source_and_what_is_deferred_otherwise_does_not() {
    for (text, same) in [
        ("Greylisted, please come back later", true),
        ("too much mail from you", false),
    ] {
        let mut desk = desk(THREE, 10_000);
        let sent = send(&mut desk, "one.example", 60);
        let sources: HashMap<Vec<u8>, String> = sent
            .iter()
            .map(|(source, assignment)| (id_of(assignment), source.clone()))
            .collect();
        for (_, assignment) in &sent {
            report(&mut desk, assignment, 451, text);
        }
        desk.renew();
        for _ in 0..12 {
            desk.pass(5_000);
            desk.renew();
        }
        let again = assigned(&mut desk);
        assert_eq!(again.len(), 60, "{text}");
        let kept = again
            .iter()
            .filter(|(source, assignment)| sources[&id_of(assignment)] == *source)
            .count();
        assert_eq!(kept == 60, same, "{text}: {kept} of 60");
    }
}

fn id_of(assignment: &Assignment) -> Vec<u8> {
    let delivery = assignment.delivery.as_ref().unwrap();
    delivery.message_id.to_vec()
}

#[test]
fn with_sticky_always_a_delivery_has_one_source_whatever_was_replied_and_shares_hold() {
    let pool = format!("sticky: always, {THREE}");
    let mut desk = desk(&pool, 10_000);
    let sent = send(&mut desk, "one.example", 400);
    let shares = ["a", "b", "c"].map(|source| count(&sent, source));
    for (share, expected) in shares.into_iter().zip([240_usize, 120, 40]) {
        assert!(share.abs_diff(expected) <= 40, "{shares:?}");
    }
    let sources: HashMap<Vec<u8>, String> = sent
        .iter()
        .map(|(source, assignment)| (id_of(assignment), source.clone()))
        .collect();
    for (_, assignment) in &sent {
        report(&mut desk, assignment, 451, "too much mail from you");
    }
    desk.renew();
    for _ in 0..12 {
        desk.pass(5_000);
        desk.renew();
    }
    let again = assigned(&mut desk);
    assert_eq!(again.len(), 400);
    for (source, assignment) in &again {
        assert_eq!(sources[&id_of(assignment)], *source);
    }
}

fn refused(desk: &mut Desk, assignment: &Assignment) {
    desk.report(assignment.delivery.as_ref().unwrap(), Stage::Connect, 0);
}

fn accepted(desk: &mut Desk, assignment: &Assignment) {
    desk.report(assignment.delivery.as_ref().unwrap(), Stage::FinalDot, 250);
}

/// Lets time pass with the lease renewed.
pub(super) fn live(desk: &mut Desk, seconds: u64) {
    for _ in 0..seconds.div_ceil(4) {
        desk.pass(4_000);
        desk.renew();
        for domain in DOMAINS {
            desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
        }
    }
}

fn why(desk: &Desk) -> Constraint {
    let which = queue::Which::Tenant("acme".into());
    let all = desk.machine.why(desk.now_ms, &which, 10);
    all.into_iter()
        .map(|one| one.constraint)
        .next()
        .expect("something waits")
}

const DOMAINS: [&str; 3] = ["one.example", "two.example", "three.example"];
const TWO: &str = "sources: [ { name: a }, { name: b } ]";

/// Everything that is assigned now is answered: by `dead` no connection comes about, all else is taken.
fn answer_all(desk: &mut Desk, dead: Option<&str>) -> Vec<String> {
    let mut sources = Vec::new();
    for (source, assignment) in assigned(desk) {
        match dead == Some(source.as_str()) {
            true => refused(desk, &assignment),
            false => accepted(desk, &assignment),
        }
        sources.push(source);
    }
    sources
}

#[test]
fn a_source_from_which_nothing_is_reached_any_more_is_taken_out_and_comes_back_after_a_probe() {
    let mut desk = desk(TWO, 1000);
    let send_all = |desk: &mut Desk, dead| {
        for domain in DOMAINS {
            (0..4).for_each(|_| desk.message(domain));
            if desk.machine.site_of(domain).is_none() {
                desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
            }
        }
        answer_all(desk, dead)
    };
    let sources = send_all(&mut desk, None);
    assert!(["a", "b"].iter().all(|of| sources.iter().any(|s| s == of)));
    while desk.machine.sources_out().0 == 0 {
        assert!(send_all(&mut desk, Some("a")).len() >= 12, "all go on");
    }
    assert_eq!(desk.machine.sources_out(), (1, [1, 0]));
    let sources = send_all(&mut desk, Some("a"));
    assert!(sources.iter().all(|source| source == "b"), "{sources:?}");
    // It is tried after a minute, by one delivery; that fails, and then after two.
    live(&mut desk, 62);
    answer_all(&mut desk, Some("a"));
    let tried = |desk: &mut Desk, dead| {
        let sources = send_all(desk, dead);
        sources.iter().filter(|source| *source == "a").count()
    };
    live(&mut desk, 62);
    let mut probes = tried(&mut desk, Some("a"));
    assert!(probes <= 1, "{probes}");
    live(&mut desk, 900);
    answer_all(&mut desk, None);
    probes = tried(&mut desk, None);
    assert!(probes >= 1, "{probes}");
    assert_eq!(desk.machine.sources_out().0, 0);
    assert!(tried(&mut desk, None) > 1);
}

#[test]
fn one_site_that_is_down_takes_no_source_out() {
    let mut desk = desk(TWO, 1000);
    for _ in 0..100 {
        for (_, assignment) in send(&mut desk, "down.example", 2) {
            refused(&mut desk, &assignment);
        }
        let sent = send(&mut desk, "one.example", 2);
        sent.iter()
            .for_each(|(_, assignment)| accepted(&mut desk, assignment));
    }
    assert_eq!(desk.machine.sources_out(), (0, [0, 0]));
}

#[test]
fn a_pool_without_a_source_that_works_holds_its_mail_and_why_names_each_until_one_does() {
    let mut desk = desk("sources: [ { name: a } ]", 1000);
    for domain in DOMAINS {
        desk.message(domain);
        desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
    answer_all(&mut desk, None);
    DOMAINS.iter().for_each(|domain| desk.message(domain));
    answer_all(&mut desk, Some("a"));
    assert_eq!(desk.machine.sources_out(), (1, [1, 0]));
    live(&mut desk, 64);
    // One is let through at a time, and the others wait.
    let probes = assigned(&mut desk);
    assert_eq!(probes.len(), 1);
    let text = "no source of the pool default can be used: a: no connection comes about ()";
    assert!(
        desk.machine
            .why(desk.now_ms, &queue::Which::Tenant("acme".into()), 10)
            .iter()
            .any(|one| one.constraint.to_string() == text)
    );
    accepted(&mut desk, &probes[0].1);
    assert_eq!(desk.machine.sources_out().0, 0);
    assert_eq!(assigned(&mut desk).len(), 2, "the others follow at once");
}

#[test]
fn a_source_that_no_sender_can_bind_is_out_until_one_can() {
    let mut desk = desk(TWO, 1000);
    let sent = send(&mut desk, "one.example", 40);
    for (source, assignment) in &sent {
        let delivery = assignment.delivery.as_ref().unwrap();
        match source.as_str() {
            "a" => desk.give_back(delivery, ReturnReason::Source),
            _ => accepted(&mut desk, assignment),
        }
    }
    assert_eq!(desk.machine.sources_out(), (1, [0, 1]));
    // What came back is sent by the other one at once: no attempt was made.
    let again = assigned(&mut desk);
    assert!(!again.is_empty() && count(&again, "b") == again.len());
    // Another sender has it.
    desk.attach(SessionId(2), 1000);
    assert_eq!(desk.machine.sources_out().0, 0);
    let sent = send(&mut desk, "one.example", 40);
    assert!(count(&sent, "a") > 5);
    // Without that one it is tried again a minute later.
    desk.step(Input::Detached(SessionId(2)));
    assert_eq!(desk.machine.sources_out().0, 1);
    live(&mut desk, 64);
    assert_eq!(desk.machine.sources_out().0, 0);
}

#[test]
fn sources_that_no_attached_sender_names_are_out_and_the_mail_is_held() {
    let mut desk = desk(TWO, 1000);
    desk.step(Input::Detached(SESSION));
    let hello = |sources: &[&str]| {
        FromSender::Hello(Hello {
            sender_id: "sender".into(),
            credit: 100,
            sources: sources.iter().map(|name| (*name).to_owned()).collect(),
            ..Hello::default()
        })
    };
    desk.step(Input::Attached(SessionId(2)));
    desk.say(SessionId(2), hello(&["c"]));
    assert_eq!(desk.machine.sources_out(), (2, [0, 2]));
    assert_eq!(send(&mut desk, "one.example", 3), []);
    let Constraint::NoSource {
        pool,
        reasons,
        until_ms,
    } = why(&desk)
    else {
        panic!("{:?}", why(&desk));
    };
    let expected = "a: no attached sender has it; b: no attached sender has it";
    assert_eq!((&*pool, &*reasons, until_ms), ("default", expected, None));
    desk.step(Input::Attached(SessionId(3)));
    desk.say(SessionId(3), hello(&["b"]));
    let sent = assigned(&mut desk);
    assert_eq!((sent.len(), count(&sent, "b")), (3, 3));
}
