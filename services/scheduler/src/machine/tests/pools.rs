//! By which source of its pool a delivery leaves.

use super::*;

/// A machine with this pool and a lot of room, whose sites are all known.
fn desk(pool: &str, credit: u32) -> Desk {
    let mut desk = Desk::new(credit);
    configure(&mut desk, pool);
    desk
}

fn configure(desk: &mut Desk, pool: &str) {
    desk.step(Input::Config(with_pool(pool)));
}

/// The configuration with this pool.
fn with_pool(pool: &str) -> Arc<Snapshot> {
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
{}"#,
        route("retry: { waits: [1m], jitter: 0, tryAgainIn: { most: 0 } }")
    );
    Arc::new(Snapshot::from_documents(&text).unwrap())
}

const THREE: &str = "sources: [ { name: a, weight: 6 }, { name: b, weight: 3 }, { name: c } ]";

/// Sends so many messages to a domain; gives the assignments with their sources.
fn send(desk: &mut Desk, domain: &str, count: usize) -> Vec<(String, Assignment)> {
    (0..count).for_each(|_| desk.message(domain));
    if desk.machine.site_of(domain).is_none() {
        desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
    }
    assigned(desk)
}

/// What is assigned, each with its source.
fn assigned(desk: &mut Desk) -> Vec<(String, Assignment)> {
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

fn count(assigned: &[(String, Assignment)], source: &str) -> usize {
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
