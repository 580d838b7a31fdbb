//! What all sites of a provider share.

use egress::SlotNews;

use super::*;

/// The configuration with a provider to which the sites `mx.a.example` and `mx.b.example` belong, and these rules.
fn config(rules: &str) -> Arc<Snapshot> {
    let more = format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Provider\nmetadata: {{ name: big }}\nspec: {{ mx: [ .a.example, .b.example ] }}\n---\napiVersion: staffetta.dev/v1alpha1\nkind: Shaping\nmetadata: {{ name: more }}\nspec: {{ rules: [ {rules} ] }}\n"
    );
    documents(&(route("port: 25") + &more))
}

fn desk(machine: Machine, rules: &str) -> Desk {
    let mut desk = Desk {
        machine,
        now_ms: START_MS,
        last_record: 1,
        blocks: 0,
        seen: Vec::new(),
    };
    desk.step(Input::Config(config(rules)));
    desk.own();
    desk.attach(SESSION, 100);
    for domain in ["a.example", "b.example", "c.example"] {
        let site = format!("mx.{domain}");
        desk.resolve(domain, SiteNews::Site(site.as_str().into()));
    }
    desk
}

fn send(desk: &mut Desk, domain: &str, count: usize) -> usize {
    (0..count).for_each(|_| desk.message(domain));
    desk.assignments().len()
}

/// The names under which something is said, and whose they are.
fn said(desk: &mut Desk) -> Vec<(String, Whose)> {
    let seen = std::mem::take(&mut desk.seen);
    let of = |output: Output| match output {
        Output::AskSlots { key, whose, .. } | Output::AskGrant { key, whose, .. } => {
            Some((key, whose))
        }
        _ => None,
    };
    seen.into_iter().filter_map(of).collect()
}

#[test]
fn sites_of_the_provider_share_its_limit_and_others_do_not() {
    let rule = "{ match: { provider: big }, scope: provider, connections: 3 }";
    let mut desk = desk(Machine::new("scheduler", 1), rule);
    assert_eq!(send(&mut desk, "a.example", 5), 2);
    assert_eq!(send(&mut desk, "b.example", 5), 1);
    assert_eq!(send(&mut desk, "c.example", 5), 2);
    // It changes for all at once, and is gone with the rule.
    let more = "{ match: { provider: big }, scope: provider, connections: 4 }";
    desk.step(Input::Config(config(more)));
    assert_eq!(desk.assignments().len(), 1);
    desk.step(Input::Config(config(
        "{ match: { provider: big }, connections: 9 }",
    )));
    assert_eq!(desk.assignments().len(), 6);
    // What was open counts when it is back.
    desk.step(Input::Config(config(more)));
    assert_eq!(send(&mut desk, "a.example", 5), 0);
}

#[test]
fn a_lane_has_a_lease_of_its_own_only_when_it_may_have_less() {
    let leased = |granted, desk: &Desk| SlotNews::Leased {
        granted,
        excess: 0,
        others_wait: false,
        until_ms: desk.now_ms + 19_000,
    };
    let machine = || Machine::new("scheduler", 1).leasing_connections();
    // Each lane may have two.
    let rule = "{ match: { provider: big }, scope: provider, connections: 2 }";
    let mut less = desk(machine(), rule);
    assert_eq!(send(&mut less, "a.example", 1), 0);
    let words = said(&mut less);
    let [(key, whose @ Whose::Shared(_))] = words.as_slice() else {
        panic!("{words:?}");
    };
    assert_eq!(key, "a|%provider=big");
    let news = leased(1, &less);
    less.step(Input::Slots(*whose, news));
    assert_eq!(less.assignments().len(), 1);

    let rule = "{ match: { provider: big }, scope: provider, connections: 3 }";
    let mut more = desk(machine(), rule);
    assert_eq!(send(&mut more, "b.example", 1), 0);
    let words = said(&mut more);
    let [(key, whose @ Whose::Lane(_))] = words.as_slice() else {
        panic!("{words:?}");
    };
    assert_eq!(key, "a|mx.b.example");
    let news = leased(1, &more);
    more.step(Input::Slots(*whose, news));
    let words = said(&mut more);
    let names: Vec<&str> = words.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["a|%provider=big"]);
    let news = leased(1, &more);
    more.step(Input::Slots(words[0].1, news));
    assert_eq!(more.assignments().len(), 1);
}

#[test]
fn windows_of_the_provider_have_names_of_their_own_and_count_the_mail_to_all_its_sites() {
    let rule = "{ match: { provider: big }, scope: provider, rate: 4/m, connectionRate: 90/s }";
    let mut desk = desk(Machine::new("scheduler", 1), rule);
    desk.message("a.example");
    desk.message("b.example");
    let seen = std::mem::take(&mut desk.seen);
    let asked = |output: Output| match output {
        Output::AskGrant {
            key, whose, window, ..
        } => Some((key, whose, window)),
        _ => None,
    };
    let asked: Vec<_> = seen.into_iter().filter_map(asked).collect();
    let names: Vec<&str> = asked.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(names, ["a|%provider=big|m60000", "a|%provider=big|c1000"]);
    for (_, whose, window) in asked {
        let news = GrantNews::Granted {
            amount: 2,
            until_ms: desk.now_ms + 60,
        };
        desk.step(Input::Grant(whose, window, news));
    }
    let told = desk.lanes_told();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|lane| lane.left_within_ms == 60_000));
}
