use config::{Scope, ShapingQuery};

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn automation(rules: &str) -> Automation {
    let mut automation = Automation::default();
    automation.configure(&snapshot(rules));
    automation
}

fn snapshot(rules: &str) -> Snapshot {
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
        )
    };
    let text = document("Automation", "mine", &format!("{{ rules: [ {rules} ] }}"))
        // The general rules that are shipped would be in the way.
        + &document("Automation", "any", "{ disabled: true }")
        + &document("Provider", "big", "{ mx: [ .big.test ] }");
    Snapshot::from_documents(&text).unwrap()
}

fn heard<'a>(code: u16, text: &'a str) -> Heard<'a> {
    Heard {
        lane: ShapingQuery {
            site: "mx.big.test",
            domain: "big.example",
            stream: "main",
            source: "a",
            pool: "default",
        },
        name: "mx.big.test",
        provider: Some("big"),
        tenant: "acme",
        code,
        enhanced: "4.7.28",
        text,
    }
}

fn reply(automation: &mut Automation, now_ms: u64, code: u16, text: &str) -> Vec<Change> {
    automation.reply(now_ms, &heard(code, text), || 100)
}

#[test]
fn acts_when_a_threshold_is_reached_within_its_window_and_for_its_time() {
    let mut automation = automation(
        "{ match: { provider: big }, reply: { codes: [421], text: 'too many' }, threshold: 3/h, action: suspend, for: 2h }",
    );
    assert_eq!(reply(&mut automation, 0, 421, "Too MANY mails"), []);
    assert_eq!(reply(&mut automation, 1, 421, "too many mails"), []);
    // Others do not count: another code, another text.
    assert_eq!(reply(&mut automation, 2, 450, "too many mails"), []);
    assert_eq!(reply(&mut automation, 2, 421, "busy"), []);
    // The first one is an hour old.
    assert_eq!(reply(&mut automation, HOUR, 421, "too many mails"), []);
    let changes = reply(&mut automation, HOUR, 421, "too many mails");
    let [Change::Begun(act)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((&*act.rule, act.until_ms), ("mine/0", 3 * HOUR));
    assert_eq!(&*act.cause, "421 4.7.28 too many mails");
    assert_eq!(act.subject.to_string(), "lane a|mx.big.test");
    let restraint = automation.on_lane(HOUR, &heard(0, ""));
    assert_eq!(restraint.suspended_until_ms, Some(3 * HOUR));
    assert_eq!(automation.next_wake(), Some(3 * HOUR));
    // Of another lane nothing was said.
    let other = Heard {
        name: "mx.other.test",
        ..heard(0, "")
    };
    assert_eq!(automation.on_lane(HOUR, &other), Restraint::default());
    assert_eq!(automation.tick(3 * HOUR - 1), []);
    assert_eq!(automation.tick(3 * HOUR), [Change::Ended(act.clone())]);
    assert_eq!(
        automation.on_lane(3 * HOUR, &heard(0, "")),
        Restraint::default()
    );
    assert_eq!(
        (automation.acts().count(), automation.next_wake()),
        (0, None)
    );
}

#[test]
fn a_reply_during_an_action_makes_it_last_longer() {
    let mut automation = automation("{ reply: { codes: [421] }, action: suspend, for: 1h }");
    reply(&mut automation, 0, 421, "");
    let changes = reply(&mut automation, 30 * MINUTE, 421, "");
    assert!(matches!(&changes[..], [Change::Begun(act)] if act.until_ms == 90 * MINUTE));
    assert_eq!(automation.acts().count(), 1);
    assert_eq!(automation.tick(HOUR), []);
    assert_eq!(automation.tick(90 * MINUTE).len(), 1);
}

#[test]
fn a_slowed_lane_is_cut_by_its_share_and_comes_back_by_tenths() {
    let mut automation =
        automation("{ reply: { text: rate }, action: slow, to: 50, recover: 10m, least: 20/m }");
    let pace = |automation: &Automation, now_ms| {
        let restraint = automation.on_lane(now_ms, &heard(0, ""));
        restraint.pace.map(|limit| (limit.count, limit.per_ms))
    };
    let begun = reply(&mut automation, 0, 421, "rate");
    assert!(matches!(&begun[..], [Change::Begun(act)] if act.until_ms == 50 * MINUTE));
    assert_eq!(pace(&automation, 0), Some((50, MINUTE)));
    // What was on its way meanwhile is told the same and counts for nothing.
    assert_eq!(reply(&mut automation, MINUTE - 1, 421, "rate"), []);
    reply(&mut automation, MINUTE, 421, "rate");
    assert_eq!(pace(&automation, MINUTE), Some((25, MINUTE)));
    reply(&mut automation, 2 * MINUTE, 421, "rate");
    assert_eq!(
        pace(&automation, 2 * MINUTE),
        Some((20, MINUTE)),
        "not below the least"
    );
    // Additive increase: ten of the hundred every ten minutes, from the last cut.
    let mut at = 2 * MINUTE;
    for expected in [30, 40, 50, 60, 70, 80, 90] {
        at += 10 * MINUTE;
        assert!(automation.next_wake().is_some_and(|wake| wake <= at));
        assert!(matches!(&automation.tick(at)[..], [Change::Stepped(_)]));
        assert_eq!(pace(&automation, at), Some((expected, MINUTE)));
    }
    // A cut on the way back begins from where it is.
    reply(&mut automation, at, 421, "rate");
    assert_eq!(pace(&automation, at), Some((45, MINUTE)));
    let over = at + 60 * MINUTE;
    let changes = automation.tick(over);
    assert!(matches!(&changes[..], [Change::Ended(_)]), "{changes:?}");
    assert_eq!(pace(&automation, over), None);
}

#[test]
fn a_slowed_lane_wakes_for_each_of_its_steps_and_for_its_end() {
    let mut automation =
        automation("{ reply: { text: rate }, action: slow, to: 75, recover: 10m, least: 1/m }");
    let since = 7 * MINUTE;
    reply(&mut automation, since, 421, "rate");
    let wakes = |automation: &Automation| automation.next_wake().map(|at| at - since);
    assert_eq!(wakes(&automation), Some(10 * MINUTE));
    automation.tick(since + 10 * MINUTE);
    assert_eq!(wakes(&automation), Some(20 * MINUTE));
    // Late, and still the step after it is not.
    automation.tick(since + 23 * MINUTE);
    assert_eq!(wakes(&automation), Some(30 * MINUTE));
    assert!(matches!(
        &automation.tick(since + 30 * MINUTE)[..],
        [Change::Ended(_)]
    ));
    assert_eq!(automation.next_wake(), None);
}

#[test]
fn the_least_of_all_limits_on_a_lane_and_its_pool_holds() {
    let mut automation = automation(
        "{ reply: { codes: [421] }, action: limit, rate: 60/h, connections: 3, for: 1h },
         { reply: { codes: [421] }, action: limit, rate: 2/m, connections: 2, messagesPerConnection: 5, scope: pool, for: 1h }",
    );
    assert_eq!(reply(&mut automation, 0, 421, "").len(), 2);
    let restraint = automation.on_lane(1, &heard(0, ""));
    let rate = restraint.rate.map(|rate| (rate.count, rate.per_ms));
    assert_eq!(rate, Some((60, HOUR)));
    assert_eq!(restraint.connections, Some(2));
    assert_eq!(restraint.messages_per_connection, Some(5));
    // The pool's limit holds for its other lanes at the provider, the lane's does not.
    let mut other = heard(0, "");
    other.name = "mx2.big.test";
    let restraint = automation.on_lane(1, &other);
    assert_eq!(restraint.rate.map(|rate| rate.count), Some(2));
    other.provider = None;
    other.lane.site = "mx.elsewhere.test";
    assert_eq!(automation.on_lane(1, &other), Restraint::default());
}

#[test]
fn the_slower_of_two_rates_and_of_two_paces_holds_whichever_is_known_first() {
    for (lane, pool) in [("100/h", "5/m"), ("5/m", "100/h")] {
        let mut automation = automation(&format!(
            "{{ reply: {{ codes: [421] }}, action: limit, rate: {lane}, for: 1h }},
             {{ reply: {{ codes: [421] }}, action: limit, rate: {pool}, scope: pool, for: 1h }}"
        ));
        reply(&mut automation, 0, 421, "");
        let rate = automation.on_lane(1, &heard(0, "")).rate;
        let rate = rate.map(|rate| (rate.count, rate.per_ms));
        assert_eq!(rate, Some((100, HOUR)), "{lane} {pool}");
    }
    for (lane, pool) in [(20, 70), (70, 20)] {
        let mut automation = automation(&format!(
            "{{ reply: {{ codes: [421] }}, action: slow, to: {lane}, recover: 10m, least: 1/m }},
             {{ reply: {{ codes: [421] }}, action: slow, to: {pool}, recover: 10m, least: 1/m, scope: pool }}"
        ));
        reply(&mut automation, 0, 421, "");
        let pace = automation.on_lane(1, &heard(0, "")).pace;
        assert_eq!(pace.map(|pace| pace.count), Some(20), "{lane} {pool}");
    }
}

#[test]
fn what_is_over_holds_no_more_and_makes_room_before_and_after_it_is_ended() {
    let mut automation = automation(
        "{ reply: { codes: [421] }, action: suspend, for: 1h },
         { reply: { codes: [421] }, action: suspend, scope: tenant, for: 1h }",
    );
    reply(&mut automation, 0, 421, "");
    let at = heard(0, "");
    let suspended = |automation: &Automation, now_ms| {
        let lane = automation.on_lane(now_ms, &at).suspended_until_ms;
        (lane.is_some(), automation.on_tenant(now_ms, &at).is_some())
    };
    assert_eq!(suspended(&automation, HOUR - 1), (true, true));
    assert_eq!(suspended(&automation, HOUR), (false, false));
    let act = automation.acts().next().unwrap().clone();
    automation.tick(HOUR);
    assert_eq!(suspended(&automation, HOUR), (false, false));
    let of_lane = |number: usize, since_ms| Act {
        subject: Subject::Lane {
            source: "a".into(),
            lane: number.to_string().into(),
        },
        since_ms,
        until_ms: since_ms + HOUR,
        ..act.clone()
    };
    for number in 0..ACTIONS {
        assert!(automation.restore(0, of_lane(number, 0)));
    }
    assert!(!automation.restore(0, of_lane(ACTIONS, 0)), "no more");
    automation.tick(HOUR);
    assert!(automation.restore(HOUR, of_lane(ACTIONS, HOUR)));
}

#[test]
fn a_later_act_takes_the_place_of_an_earlier_one_and_never_the_other_way() {
    let mut automation = automation("{ reply: { codes: [421] }, action: suspend, for: 1h }");
    reply(&mut automation, 10, 421, "");
    let present = automation.acts().next().unwrap().clone();
    for (since_ms, is_taken) in [(9, false), (10, false), (11, true)] {
        let until_ms = since_ms + HOUR;
        let act = Act {
            since_ms,
            until_ms,
            ..present.clone()
        };
        assert_eq!(automation.restore(20, act), is_taken, "{since_ms}");
    }
    let held = automation.on_lane(20, &heard(0, "")).suspended_until_ms;
    assert_eq!(held, Some(11 + HOUR));
}

#[test]
fn a_text_is_cut_before_the_character_that_has_no_room() {
    let table = [
        ("aé", 3, "aé"),
        ("aé", 2, "a"),
        ("aé", 1, "a"),
        ("a€b", 3, "a"),
        ("", 5, ""),
    ];
    for (text, most, cut) in table {
        assert_eq!(shortened(text, most), cut, "{text} {most}");
    }
}

#[test]
fn a_tenant_is_suspended_at_the_provider_or_everywhere_and_nobody_else() {
    let mut automation = automation(
        "{ reply: { text: listed }, action: suspend, scope: tenantAtProvider, for: 1h },
         { reply: { text: abuse }, action: suspend, scope: tenant, for: 2h }",
    );
    assert!(!automation.concerns_tenants());
    reply(&mut automation, 0, 550, "your domain is listed");
    assert!(automation.concerns_tenants());
    let mut at = heard(0, "");
    assert_eq!(automation.on_tenant(1, &at), Some(HOUR));
    assert_eq!(automation.on_lane(1, &at), Restraint::default());
    at.provider = Some("small");
    assert_eq!(automation.on_tenant(1, &at), None);
    reply(&mut automation, 0, 550, "abuse");
    assert_eq!(automation.on_tenant(1, &at), Some(2 * HOUR));
    at.tenant = "other";
    assert_eq!(automation.on_tenant(1, &at), None);
    automation.tick(2 * HOUR);
    assert!(!automation.concerns_tenants());
}

#[test]
fn what_was_begun_before_is_taken_over_unless_it_is_over_or_known_better() {
    let rule = "{ reply: { codes: [421] }, action: suspend, for: 1h }";
    let mut before = automation(rule);
    reply(&mut before, 0, 421, "");
    let act = before.acts().next().unwrap().clone();
    let mut after = automation(rule);
    assert!(after.restore(10, act.clone()));
    assert!(
        !after.restore(10, act.clone()),
        "a second journal tells the same"
    );
    assert_eq!(
        after.on_lane(10, &heard(0, "")).suspended_until_ms,
        Some(HOUR)
    );
    assert!(!automation(rule).restore(HOUR, act.clone()));
    // A rule that is gone: what it began goes on to its end.
    after.configure(&snapshot(
        "{ reply: { codes: [500] }, action: suspend, for: 1h }",
    ));
    assert_eq!(after.tick(HOUR), [Change::Ended(act)]);
}

#[test]
fn a_changed_rule_counts_anew_and_others_go_on() {
    let rules = |threshold| {
        format!(
            "{{ reply: {{ text: one }}, threshold: {threshold}, action: suspend, for: 1h }},
             {{ reply: {{ text: two }}, threshold: 2/h, action: suspend, for: 1h }}"
        )
    };
    let mut automation = automation(&rules("2/h"));
    reply(&mut automation, 0, 421, "one");
    reply(&mut automation, 0, 421, "two");
    automation.configure(&snapshot(&rules("2/m")));
    assert_eq!(reply(&mut automation, 1, 421, "one"), []);
    assert_eq!(reply(&mut automation, 1, 421, "two").len(), 1);
}

#[test]
fn long_replies_are_looked_at_and_kept_in_part() {
    let mut automation = automation("{ reply: { text: needle }, action: suspend, for: 1h }");
    let hidden = format!("{}needle", "é".repeat(TEXT));
    assert_eq!(reply(&mut automation, 0, 421, &hidden), []);
    let seen = format!("needle {}", "é".repeat(TEXT));
    let changes = reply(&mut automation, 0, 421, &seen);
    assert!(matches!(&changes[..], [Change::Begun(act)] if act.cause.len() <= CAUSE));
}

#[test]
fn every_shipped_rule_fits_the_reply_that_it_was_written_for() {
    let table = [
        (
            "google",
            421,
            "Our system has detected an unusual rate of unsolicited mail",
            2,
            "slow",
        ),
        (
            "google",
            550,
            "5.7.1 Our system has detected that this message is likely unsolicited",
            5,
            "suspend",
        ),
        (
            "yahoo",
            421,
            "4.7.0 [TSS04] Messages from 192.0.2.1 delayed due to user complaints",
            2,
            "suspend",
        ),
        (
            "yahoo",
            421,
            "[IPTS04] Messages from 192.0.2.1 delayed",
            2,
            "suspend",
        ),
        (
            "yahoo",
            553,
            "5.7.1 [BL21] Connections will not be accepted",
            5,
            "suspend",
        ),
        (
            "outlook",
            550,
            "Unfortunately, messages from [192.0.2.1] weren't accepted, since part of their network is on our block list (S3150)",
            5,
            "suspend",
        ),
        (
            "microsoft365",
            421,
            "Connection refused due to exceed max concurrent connections. IB007",
            2,
            "limit",
        ),
        (
            "apple",
            451,
            "[BS02] Temporary server error. Please try again later.",
            5,
            "suspend",
        ),
        ("gmx", 421, "Too many connections", 3, "limit"),
        (
            "orange",
            421,
            "Trop de connexions, veuillez verifier votre configuration.",
            2,
            "limit",
        ),
        (
            "qq",
            550,
            "Ip frequency limited. https://service.mail.qq.com",
            5,
            "suspend",
        ),
        ("netease", 550, "RP:ORQ 163 smtp12", 2, "suspend"),
        ("libero", 421, "Too many messages, slow down", 2, "slow"),
        (
            "unknown",
            451,
            "messages from 192.0.2.1 temporarily deferred",
            1,
            "limit",
        ),
    ];
    for (provider, code, text, times, measure) in table {
        let mut automation = Automation::default();
        automation.configure(&Snapshot::default());
        let heard = Heard {
            provider: Some(provider),
            ..heard(code, text)
        };
        let changes: Vec<Change> = (0..times)
            .flat_map(|n| automation.reply(n, &heard, || 100))
            .collect();
        let words: Vec<&str> = changes
            .iter()
            .map(|change| match change {
                Change::Begun(act) => act.measure.word(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(words, [measure], "{provider}: {text}");
    }
}

#[test]
fn a_subject_is_as_wide_as_its_scope() {
    let heard = heard(421, "");
    let told = [
        Scope::Lane,
        Scope::Pool,
        Scope::TenantAtProvider,
        Scope::Tenant,
    ]
    .map(|scope| heard.subject(scope).to_string());
    assert_eq!(
        told,
        [
            "lane a|mx.big.test",
            "pool default at big",
            "tenant acme at big",
            "tenant acme"
        ]
    );
}

#[test]
fn a_tenant_is_convicted_when_its_replies_reach_the_threshold() {
    let mut automation =
        automation("{ reply: { text: spam }, threshold: 2/h, action: quarantine, for: 1h }");
    assert_eq!(reply(&mut automation, 0, 554, "this is spam"), []);
    let other = Heard {
        tenant: "bravo",
        ..heard(554, "this is spam")
    };
    assert_eq!(automation.reply(1, &other, || 100), [], "each for itself");
    let convicted = Change::Convicted {
        rule: "mine/0".into(),
        tenant: "acme".into(),
        until_ms: HOUR + 2,
        cause: "554 4.7.28 this is spam".into(),
    };
    assert_eq!(reply(&mut automation, 2, 554, "this is spam"), [convicted]);
    // What becomes of it is a matter of its pool.
    assert_eq!(automation.acts().count(), 0);
    assert!(!automation.concerns_tenants());
}
