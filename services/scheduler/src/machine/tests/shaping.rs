//! Which lanes there are, and what limits them.

use super::*;

/// The configuration with these shaping rules instead of the usual one.
pub(super) fn with_rules(rules: &str) -> Arc<Snapshot> {
    let more = format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Shaping\nmetadata: {{ name: more }}\nspec: {{ rules: [ {rules} ] }}\n"
    );
    documents(&(route("port: 25") + &more))
}

/// A machine with credit, with these rules, that knows the site of some domains.
fn desk(rules: &str) -> Desk {
    let mut desk = Desk::new(100);
    desk.step(Input::Config(with_rules(rules)));
    for domain in ["a.example", "b.example"] {
        desk.resolve(domain, SiteNews::Site("mx.shared.example".into()));
    }
    desk
}

fn send(desk: &mut Desk, domain: &str, count: usize) -> usize {
    (0..count).for_each(|_| desk.message(domain));
    desk.assignments().len()
}

fn asked(desk: &mut Desk) -> Vec<(String, Window)> {
    let (asked, rest) = std::mem::take(&mut desk.seen)
        .into_iter()
        .partition(|output| matches!(output, Output::AskGrant { .. }));
    desk.seen = rest;
    let question = |output| match output {
        Output::AskGrant { key, window, .. } => Some((key, window)),
        _ => None,
    };
    asked.into_iter().filter_map(question).collect()
}

#[test]
fn a_rule_for_a_domain_holds_for_that_domain_only_at_a_shared_site() {
    let mut desk = desk("{ match: { domain: a.example }, connections: 1 }");
    assert_eq!(send(&mut desk, "a.example", 5), 1);
    assert_eq!(send(&mut desk, "b.example", 5), 2);
}

#[test]
fn a_rule_for_a_stream_or_a_pool_holds_only_there() {
    for (rule, expected) in [
        ("{ match: { stream: mail }, connections: 1 }", 1),
        ("{ match: { pool: default }, connections: 1 }", 1),
        ("{ match: { provider: google }, connections: 1 }", 2),
    ] {
        assert_eq!(send(&mut desk(rule), "a.example", 5), expected, "{rule}");
    }
}

#[test]
fn a_shipped_rule_holds_at_its_provider() {
    let mut desk = Desk::new(100);
    let none = "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: { name: acme }\nspec: { defaultStream: mail, streams: [ { name: mail } ] }\n---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: default }\nspec: { sources: [ { name: a } ] }\n";
    let text = none.to_owned() + &route("port: 25");
    desk.step(Input::Config(Arc::new(
        Snapshot::from_documents(&text).unwrap(),
    )));
    desk.resolve(
        "gmail.com",
        SiteNews::Site("gmail-smtp-in.l.google.com".into()),
    );
    (0..9).for_each(|_| desk.message("gmail.com"));
    let items = desk.items();
    let lanes: Vec<&Lane> = items
        .iter()
        .filter_map(|(_, kind)| match kind {
            ToSender::Lane(lane) => Some(lane),
            _ => None,
        })
        .collect();
    assert_eq!(lanes.len(), 1);
    assert_eq!(lanes[0].messages_per_connection, 50);
    assert_eq!(lanes[0].tls(), proto::dispatch::TlsPolicy::Required);
    let assigned = items
        .iter()
        .filter(|(_, kind)| matches!(kind, ToSender::Assignment(_)));
    assert_eq!(assigned.count(), 5);
}

#[test]
fn every_window_is_asked_for_under_a_name_of_its_own_and_a_message_needs_all() {
    let mut desk =
        desk("{ match: { site: mx.shared.example }, rates: [ 10/s, 90/h ], connectionRate: 5/m }");
    assert_eq!(send(&mut desk, "a.example", 3), 0);
    let questions = asked(&mut desk);
    let names: Vec<&str> = questions.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        names,
        [
            "a|mx.shared.example|m1000",
            "a|mx.shared.example|m3600000",
            "a|mx.shared.example|c60000",
        ]
    );
    let lane = desk.machine.lanes.find("a", "mx.shared.example").unwrap();
    for (answered, (_, window)) in questions.into_iter().enumerate() {
        assert_eq!(desk.assignments().len(), 0, "{answered} answers are enough");
        let news = GrantNews::Granted {
            amount: 3,
            until_ms: desk.now_ms + 60,
        };
        desk.step(Input::Grant(Whose::Lane(lane), window, news));
    }
    assert_eq!(desk.assignments().len(), 2);
}

#[test]
fn a_change_of_the_rules_makes_other_lanes_and_other_limits_for_what_waits() {
    let mut desk = desk("{ match: { site: mx.shared.example }, connections: 1 }");
    assert_eq!(send(&mut desk, "a.example", 5), 1);
    // A lane of its own for the domain: the present connection is that of the other lane.
    desk.step(Input::Config(with_rules(
        "{ match: { domain: a.example }, connections: 3 }, { match: { site: mx.shared.example }, connections: 1 }",
    )));
    assert_eq!(desk.assignments().len(), 3);
    // No rule any more: the shared lane has the two connections of the default, of which one is in use.
    desk.step(Input::Config(documents(&route("port: 25"))));
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(send(&mut desk, "b.example", 5), 0);
}

#[test]
fn a_domain_whose_dns_does_not_answer_waits_without_blocking_others_and_is_asked_for_once() {
    let mut desk = Desk::new(100);
    (0..50).for_each(|_| desk.message("silent.example"));
    assert_eq!(desk.asked_sites(), 1);
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    assert_eq!(desk.assignments().len(), 1);
    // The answer is that there is none for now: all are deferred, and what comes within the next moments too, without
    // asking again.
    desk.resolve("silent.example", SiteNews::Temporary("SERVFAIL".into()));
    let asked = desk.asked_sites();
    desk.message("silent.example");
    assert_eq!(desk.asked_sites(), asked);
    let totals = desk.machine.intakes().next().unwrap().totals();
    assert_eq!((totals.messages, totals.in_flight), (52, 1));
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1);
}
