//! Sources with a way of their own: which lanes there are, and what becomes of what fails on it.

use proto::dispatch::{AuthMechanism, Lane, TlsPolicy};
use proto::operation::{Kind, Operation, Selector};

use super::pools::{assigned, count, desk, live, send, with_pool_and};
use super::*;

const SMART: &str = "{ name: smart, smartHost: { host: smart.example, port: 2525, allowPrivate: true, \
    auth: { mechanism: login, username: app, password: \"file:/secret\" } } }";

fn hybrid() -> String {
    format!("sources: [ {{ name: own, address: 192.0.2.1 }}, {SMART} ]")
}

/// The lanes that the sender was told of.
fn told(desk: &Desk) -> Vec<Lane> {
    let lane = |output: &Output| match output {
        Output::ToSender(_, item) => match item.kind.clone()? {
            ToSender::Lane(lane) => Some(lane),
            _ => None,
        },
        _ => None,
    };
    desk.seen.iter().filter_map(lane).collect()
}

#[test]
fn a_smart_host_has_one_lane_for_all_domains_with_a_way_that_earlier_senders_refuse() {
    let mut desk = desk(&hybrid(), 1000);
    let mut lanes: Vec<Lane> = Vec::new();
    for domain in ["one.example", "two.example"] {
        for _ in 0..20 {
            desk.message(domain);
            if desk.machine.site_of(domain).is_none() {
                desk.resolve(domain, SiteNews::Site(format!("mx.{domain}").into()));
            }
        }
        lanes.extend(told(&desk));
        let sent = assigned(&mut desk);
        let by_smart = count(&sent, "smart");
        assert!((8..=12).contains(&by_smart), "{by_smart} of 20");
    }
    lanes.sort_by(|a, b| (&a.source, &a.site).cmp(&(&b.source, &b.site)));
    lanes.dedup_by_key(|lane| lane.id);
    let sites: Vec<&str> = lanes.iter().map(|lane| lane.site.as_str()).collect();
    assert_eq!(sites, ["mx.one.example", "mx.two.example", "smart.example"]);
    let [own, _, smart] = &lanes[..] else {
        panic!("{lanes:?}")
    };
    assert_eq!((own.port, own.smart_host.as_str()), (25, ""));
    assert!(own.reach.is_none() && !own.allow_private);
    assert_eq!(
        (smart.port, smart.smart_host.as_str()),
        (0, "smart.example")
    );
    assert_eq!(smart.tls(), TlsPolicy::Verified);
    assert!(smart.allow_private);
    let reach = smart.reach.clone().unwrap();
    assert_eq!(reach.port, 2525);
    let auth = reach.own_host.unwrap().auth.unwrap();
    assert_eq!(auth.mechanism(), AuthMechanism::Login);
    assert_eq!((&*auth.username, &*auth.secret_file), ("app", "/secret"));
}

#[test]
fn a_pool_of_smart_hosts_asks_for_no_site_but_what_is_moved_to_another_pool_has_one() {
    let mut desk = desk(&format!("sources: [ {SMART} ]"), 1000);
    desk.message("nowhere.example");
    assert_eq!(count(&assigned(&mut desk), "smart"), 1);
    assert_eq!(desk.asked_sites(), 0);
    assert_eq!(desk.machine.site_of("nowhere.example"), None);

    let other = "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: other }\n\
                 spec: { sources: [ { name: b } ] }\n";
    let pool = format!("sources: [ {SMART} ]");
    desk.step(Input::Config(with_pool_and(&pool, other)));
    let moves = |selector| Operation {
        format: 1,
        id: "moves".into(),
        kind: Kind::Move.into(),
        selector: Some(selector),
        at_ms: START_MS,
        pool: "other".into(),
        ..Operation::default()
    };
    // For what the message is, and for where it would leave.
    for (number, selector) in [
        Selector {
            domains: vec!["one.example".into()],
            ..Selector::default()
        },
        Selector {
            sources: vec!["smart".into()],
            ..Selector::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        desk.step(Input::Operations(vec![moves(selector)]));
        desk.seen.clear();
        desk.message("one.example");
        if number == 0 {
            assert_eq!(assigned(&mut desk), []);
            assert_eq!(desk.asked_sites(), 1);
            desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
        }
        assert_eq!(count(&assigned(&mut desk), "b"), 1);
    }
    let sites: Vec<String> = told(&desk).into_iter().map(|lane| lane.site).collect();
    assert!(
        sites.iter().all(|site| site == "mx.one.example"),
        "{sites:?}"
    );
}

#[test]
fn what_a_smart_host_does_not_take_in_leaves_by_the_others_at_once_and_waits_when_there_are_none() {
    let mut desk = desk(&hybrid(), 1000);
    let give_back = |desk: &mut Desk, assignment: &Assignment| {
        desk.give_back(assignment.delivery.as_ref().unwrap(), ReturnReason::Source);
    };
    let sent = send(&mut desk, "one.example", 20);
    let of_smart = sent.iter().filter(|(source, _)| source == "smart");
    of_smart.for_each(|(_, assignment)| give_back(&mut desk, assignment));
    assert_eq!(desk.machine.sources_out(), (1, [0, 1]));
    let again = assigned(&mut desk);
    assert_eq!(again.len(), count(&sent, "smart"));
    assert_eq!(count(&again, "own"), again.len());
    // It is tried after a minute; when it takes mail, the next failure keeps it out for a minute again, and not for two.
    for _ in 0..2 {
        live(&mut desk, 64);
        let sent = send(&mut desk, "one.example", 20);
        let of_smart: Vec<_> = sent
            .iter()
            .filter(|(source, _)| source == "smart")
            .collect();
        assert!(!of_smart.is_empty());
        let (first, rest) = of_smart.split_first().unwrap();
        let delivery = first.1.delivery.as_ref().unwrap();
        desk.report(delivery, Stage::FinalDot, 250);
        assert_eq!(desk.machine.sources_out().0, 0);
        rest.iter()
            .for_each(|(_, assignment)| give_back(&mut desk, assignment));
        assert_eq!(desk.machine.sources_out().0, 1);
    }
}

#[test]
fn why_names_what_the_smart_host_said_and_the_lane_in_which_mail_waits() {
    let mut desk = desk(&format!("sources: [ {SMART} ]"), 1);
    let sent = send(&mut desk, "one.example", 2);
    assert_eq!(sent.len(), 1);
    let why = |desk: &Desk| {
        let which = queue::Which::Tenant("acme".into());
        let all = desk.machine.why(desk.now_ms, &which, 10).into_iter();
        all.map(|one| one.constraint.to_string())
            .collect::<Vec<_>>()
    };
    let waiting = why(&desk);
    assert!(
        waiting.iter().any(|text| text.contains("smart.example")),
        "{waiting:?}"
    );
    let returned = proto::dispatch::Returned {
        delivery: sent[0].1.delivery.clone(),
        reason: ReturnReason::Source.into(),
        detail: "smart.example: 535 5.7.8 wrong".into(),
    };
    desk.say(SESSION, FromSender::Returned(returned));
    let expected =
        "no source of the pool default can be used: smart: smart.example: 535 5.7.8 wrong";
    let kept = why(&desk);
    assert!(
        kept.len() == 2 && kept.iter().all(|text| text == expected),
        "{kept:?}"
    );
}
