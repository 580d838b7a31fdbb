use config::{Engine, HoldEnd, Mode, ShapingQuery, Snapshot, Spam, WhenDown};
use mail::Span;
use proptest::prelude::*;

use crate::{COMPLETE, document};

#[test]
fn a_snapshot_reads_back_from_its_json_with_the_same_hash() {
    let snapshot = Snapshot::from_documents(COMPLETE).unwrap();
    let json = snapshot.to_json();
    let read = Snapshot::from_json(json.as_bytes()).unwrap();
    assert_eq!(read.to_json(), json);
    assert_eq!(read.hash(), snapshot.hash());
    assert_eq!(read.len(), 6);
    assert_eq!(snapshot.hash().len(), 64);
    assert_ne!(snapshot.hash(), Snapshot::default().hash());
    assert_eq!(
        Snapshot::default().to_json(),
        r#"{"format":1,"resources":[]}"#
    );
}

#[test]
fn the_order_of_documents_and_the_spelling_of_units_do_not_change_the_hash() {
    let pool = document("EgressPool", "p", "{ sources: [ { name: a } ] }");
    let route = |age: &str| document("Route", "r", &format!("{{ pool: p, maxAge: {age} }}"));
    let first = Snapshot::from_documents(&(pool.clone() + &route("120m"))).unwrap();
    let second = Snapshot::from_documents(&(route("2h") + &pool)).unwrap();
    assert_eq!(first.hash(), second.hash());
}

#[test]
fn limits_of_tenants_and_credentials_read_back() {
    let limits = "{ maxRecipients: 20, sizes: [ { above: 0, size: 50MiB }, { above: 1, size: 5MiB } ], \
                  quotas: [ 300/m, 10000/12h ], networkQuotas: [ 60/60s ], monthly: 100000, \
                  overQuota: defer, queueUpTo: 30m }";
    let tenant = document(
        "Tenant",
        "t",
        &format!("{{ defaultStream: m, streams: [ {{ name: m }} ], limits: {limits} }}"),
    );
    let credential = document(
        "Credential",
        "c",
        &format!("{{ tenant: t, networks: [ \"192.0.2.0/24\" ], limits: {limits} }}"),
    );
    let snapshot = Snapshot::from_documents(&(tenant + &credential)).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let limits = &read.credential("c").unwrap().limits;
    assert_eq!(limits, &snapshot.tenant("t").unwrap().limits);
    assert_eq!(limits.quotas[1].to_string(), "10000/12h");
    assert_eq!(limits.network_quotas[0].to_string(), "60/m");
    assert_eq!(limits.max_recipients, Some(20));
}

#[test]
fn the_highest_priority_follows_from_that_of_the_stream_unless_it_is_said() {
    let streams = "[ { name: transactional }, { name: bulk }, { name: alarms, priority: high, mostPriority: 4 }, \
                   { name: news, mostPriority: 2 } ]";
    let tenant = document(
        "Tenant",
        "t",
        &format!("{{ defaultStream: bulk, streams: {streams} }}"),
    );
    let snapshot = Snapshot::from_documents(&tenant).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let most = |name| {
        read.tenant("t")
            .unwrap()
            .stream(name)
            .unwrap()
            .most_priority
    };
    assert_eq!(
        ["transactional", "bulk", "alarms", "news"].map(most),
        [9, 0, 4, 2]
    );
}

#[test]
fn streams_that_are_chosen_and_mail_that_is_held_read_back() {
    let documents = [
        document(
            "Tenant",
            "t",
            "{ defaultStream: m, streams: [ { name: m }, { name: news, mode: sandbox } ], mode: hold, \
             maxHold: 2d, whenHoldEnds: discard }",
        ),
        document(
            "Credential",
            "c",
            "{ tenant: t, networks: [ \"192.0.2.0/24\" ], stream: m, mayChoose: [ news ], mode: hold, idempotentFor: 1h }",
        ),
        document(
            "Credential",
            "d",
            "{ tenant: t, networks: [ \"198.51.100.0/24\" ], mayChoose: [], mode: send }",
        ),
        document(
            "SendingDomain",
            "t.example",
            "{ tenant: t, unsigned: true, stream: news }",
        ),
    ];
    let snapshot = Snapshot::from_documents(&documents.concat()).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let tenant = read.tenant("t").unwrap();
    assert_eq!(tenant.mode, Mode::Hold);
    assert_eq!(tenant.stream("news").unwrap().mode, Mode::Sandbox);
    assert_eq!(tenant.max_hold, Span::from_secs(2 * 86_400));
    assert_eq!(tenant.when_hold_ends, HoldEnd::Discard);
    let credential = |name| read.credential(name).unwrap();
    assert_eq!(credential("c").mode, Mode::Hold);
    assert_eq!(
        credential("c").may_choose.as_deref(),
        Some(&["news".to_owned()][..])
    );
    assert_eq!(credential("d").mode, Mode::Send);
    assert_eq!(credential("d").may_choose.as_deref(), Some(&[][..]));
    let domain = read.sending_domain("t.example").unwrap();
    assert_eq!(domain.stream.as_deref(), Some("news"));

    let wrong = [
        document(
            "Tenant",
            "t",
            "{ defaultStream: m, streams: [ { name: m } ], mode: keep, maxHold: 31d, whenHoldEnds: forget }",
        ),
        document(
            "Credential",
            "c",
            "{ tenant: t, networks: [ \"192.0.2.0/24\" ], mayChoose: [ m, news ] }",
        ),
        document(
            "SendingDomain",
            "t.example",
            "{ tenant: t, unsigned: true, stream: news }",
        ),
    ];
    let problems = Snapshot::from_documents(&wrong.concat()).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "spec.mode (line 5): one of send, hold, sandbox is expected, found \"keep\"",
        "spec.maxHold (line 5): 1s to 30d is expected, found 31d",
        "spec.whenHoldEnds (line 5): one of return, discard is expected, found \"forget\"",
        "Credential/c spec.mayChoose[1]",
        "SendingDomain/t.example spec.stream",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{expected}: {problems:#?}"
        );
    }
}

#[test]
fn checks_and_repairs_read_back() {
    let tenant = |more: &str| {
        document(
            "Tenant",
            "t",
            &format!("{{ defaultStream: m, streams: [ {{ name: m }} ], {more} }}"),
        )
    };
    let snapshot = Snapshot::from_documents(&tenant(
        "preflight: { checks: [ { rule: noSubject, action: reject }, \
         { rule: noUnsubscribe, weight: 3, streams: [ m ] }, { rule: brokenMime, action: ignore, weight: 4 }, \
         { rule: manyLinks, most: 9 }, { rule: spamWords, words: [ casino, Grüße ], action: reject }, \
         { rule: tooLittleText, least: 7 }, { rule: tooLittleText }, { rule: genericText }, { rule: unalignedFrom } ], \
         rejectAt: 5, warnHeader: true }, \
         repair: { messageId: false, longLines: reject }",
    ))
    .unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let preflight = &read.tenant("t").unwrap().preflight;
    assert_eq!(preflight, &snapshot.tenant("t").unwrap().preflight);
    assert_eq!((preflight.checks.len(), preflight.reject_at), (9, Some(5)));
    assert_eq!(preflight.of_stream("m").count(), 8);
    assert_eq!(preflight.of_stream("other").count(), 7);
    assert!(preflight.looks_at_content("m"));
    let rules: Vec<&str> = preflight
        .checks
        .iter()
        .map(|check| check.rule.name())
        .collect();
    assert_eq!(rules[2..5], ["brokenMime", "manyLinks", "spamWords"]);
    let least = |rule: &config::CheckRule| match rule {
        config::CheckRule::TooLittleText { least } => Some(*least),
        _ => None,
    };
    assert_eq!(least(&preflight.checks[5].rule), Some(7));
    assert_eq!(least(&preflight.checks[6].rule), Some(40));
    let repair = read.tenant("t").unwrap().repair;
    assert!(repair.date && !repair.message_id);
    assert_eq!(repair.long_lines, config::LongLines::Reject);

    let problems = Snapshot::from_documents(&tenant(
        "preflight: { checks: [ { rule: noSense }, { action: warn }, \
         { rule: noSubject, action: reject, weight: 2, streams: [ other ] }, { rule: manyLinks }, \
         { rule: spamWords }, { rule: spamWords, words: [] }, { rule: spamWords, words: [ '!' ] }, \
         { rule: noSubject, most: 3 } ] }",
    ))
    .unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "checks[0].rule (line 5): one of noSubject,",
        "checks[1].rule",
        "checks[2].weight (line 5): has no meaning: what is found is refused",
        "checks[2].streams[0] (line 5): the name of a stream of the tenant is expected",
        "checks[3].most (line 5): is missing: how many links a message may have",
        "checks[4].words (line 5): is missing: the words and phrases that are looked for",
        "checks[5].words (line 5): 1 to 500 words or phrases are expected, found 0",
        "checks[6].words[0] (line 5): a word or phrase of at most 64 characters with a letter or digit is expected, found \"!\"",
        "checks[7].most (line 5): unknown field; known: rule, action, weight, streams",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for expected in expected {
        let found = problems.iter().any(|problem| problem.contains(expected));
        assert!(found, "{expected}: {problems:#?}");
    }
}

#[test]
fn headers_of_streams_read_back_and_name_addresses_of_the_tenant() {
    let documents = |headers: &str| {
        let tenant =
            format!("{{ defaultStream: m, streams: [ {{ name: m, headers: {headers} }} ] }}");
        let domain = "{ tenant: t, unsigned: true, includeSubdomains: true }";
        document("Tenant", "t", &tenant) + &document("SendingDomain", "t.example", domain)
    };
    let snapshot = Snapshot::from_documents(&documents(
        "{ feedbackId: sender, cfblAddress: c@fbl.t.example, listUnsubscribe: [ \"https://u.t.example/{message}\" ] }",
    ))
    .unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let stream = read.tenant("t").unwrap().stream("m").unwrap().clone();
    let headers = stream.headers.unwrap();
    assert!(headers.one_click);
    assert_eq!(headers.feedback_id.as_deref(), Some("sender"));

    let problems = Snapshot::from_documents(&documents(
        "{ feedbackId: a, cfblAddress: c@other.example, oneClick: true, \
         listUnsubscribe: [ \"mailto:l@t.example\", \"http://t.example\", \"https://t.example/{x}\" ] }",
    ))
    .unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        "headers.feedbackId (line 5): 5 to 15 letters",
        "headers.oneClick (line 5): listUnsubscribe has no https URI",
        "headers.listUnsubscribe[1] (line 5): a URI that begins with https:// or mailto:",
        "headers.listUnsubscribe[2] (line 5): {x} is not known; known: {message}",
        "headers.cfblAddress (line 5): other.example is no SendingDomain of the tenant",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for expected in expected {
        let found = problems.iter().any(|problem| problem.contains(expected));
        assert!(found, "{expected}: {problems:#?}");
    }
}

#[test]
fn links_to_unsubscribe_read_back_and_lead_somewhere() {
    let documents = |headers: &str, domain: &str| {
        let tenant =
            format!("{{ defaultStream: m, streams: [ {{ name: m, headers: {headers} }} ] }}");
        let domain = format!("{{ tenant: t, unsigned: true{domain} }}");
        document("Tenant", "t", &tenant) + &document("SendingDomain", "t.example", &domain)
    };
    let host = ", linkHost: \"U.t.example:8443\"";
    let snapshot = Snapshot::from_documents(&documents(
        "{ unsubscribe: { validFor: 90d }, listUnsubscribe: [ \"mailto:l@t.example\" ] }",
        host,
    ))
    .unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let stream = read.tenant("t").unwrap().stream("m").unwrap().clone();
    assert_eq!(
        stream.headers.unwrap().unsubscribe,
        Some(mail::Span::from_secs(90 * 86_400))
    );
    let domain = read.sending_domain("t.example").unwrap();
    assert_eq!(domain.link_host.as_deref(), Some("u.t.example:8443"));
    let usual = Snapshot::from_documents(&documents("{ unsubscribe: {} }", host)).unwrap();
    let stream = usual.tenant("t").unwrap().stream("m").unwrap().clone();
    assert_eq!(
        stream.headers.unwrap().unsubscribe,
        Some(mail::Span::from_secs(365 * 86_400))
    );

    let bad = documents(
        "{ unsubscribe: { validFor: 7d }, oneClick: true, listUnsubscribe: [ \"https://t.example/\" ] }",
        ", linkHost: https://u.t.example/",
    );
    for (text, expected) in [
        (
            &bad,
            "headers.unsubscribe.validFor (line 5): 30d to 3650d is expected, found 7d",
        ),
        (
            &bad,
            "headers.oneClick (line 5): goes without saying with unsubscribe",
        ),
        (
            &bad,
            "headers.listUnsubscribe (line 5): has an https URI, and so has unsubscribe",
        ),
        (
            &bad,
            "spec.linkHost (line 10): a host such as u.acme.example is expected",
        ),
        (
            &documents("{ unsubscribe: {} }", ""),
            "headers.unsubscribe (line 5): no SendingDomain of the tenant has a linkHost",
        ),
    ] {
        let problems = Snapshot::from_documents(text).unwrap_err();
        let found = problems
            .iter()
            .any(|problem| problem.to_string().contains(expected));
        assert!(found, "{expected}: {problems:#?}");
    }
}

#[test]
fn scanners_read_back_and_must_be_there() {
    let tenant = |more: &str| {
        document(
            "Tenant",
            "t",
            &format!(
                "{{ defaultStream: m, streams: [ {{ name: m }}, {{ name: q, scanners: [] }} ], {more} }}"
            ),
        )
    };
    let viruses = document(
        "Scanner",
        "viruses",
        "{ clamav: { address: \"unix:/run/clamd.ctl\" }, whenDown: accept, whenTooLarge: scanHead, maxSize: 1MiB }",
    );
    let spam = document(
        "Scanner",
        "spam",
        "{ rspamd: { address: \"rspamd.mail.svc:11333\", spam: hold }, deadline: 5s, connections: 3 }",
    );
    let policy = document(
        "Scanner",
        "policy",
        "{ milter: { address: \"[::1]:8891\" } }",
    );
    let documents = tenant("scanners: [ viruses, spam, policy ]") + &viruses + &spam + &policy;
    let snapshot = Snapshot::from_documents(&documents).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    for name in ["viruses", "spam", "policy"] {
        assert_eq!(read.scanner(name), snapshot.scanner(name));
    }
    let spam = read.scanner("spam").unwrap();
    assert_eq!(spam.engine, Engine::Rspamd { spam: Spam::Hold });
    assert_eq!((spam.connections, spam.when_down), (3, WhenDown::Defer));
    let tenant_read = read.tenant("t").unwrap();
    assert_eq!(tenant_read.scanners_of("m"), ["viruses", "spam", "policy"]);
    assert!(tenant_read.scanners_of("q").is_empty());

    let problems =
        Snapshot::from_documents(&(tenant("scanners: [ gone, viruses, viruses ]") + &viruses));
    let problems: Vec<String> = problems
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = [
        "doc 1 Tenant/t spec.scanners (line 5): \"viruses\" is there twice",
        "doc 1 Tenant/t spec.scanners[0] (line 5): no Scanner named \"gone\"; known: viruses",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn names_in_certificates_read_back_and_are_of_one_credential() {
    let tenant = document(
        "Tenant",
        "t",
        "{ defaultStream: m, streams: [ { name: m } ] }",
    );
    let credential = |name: &str, names: &str| {
        document(
            "Credential",
            name,
            &format!("{{ tenant: t, certificates: [ {names} ] }}"),
        )
    };
    let documents = tenant.clone() + &credential("c", "App.Example, b.example");
    let snapshot = Snapshot::from_documents(&documents).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let found = read.credential_by_certificate("app.example").unwrap();
    assert_eq!(found.name, "c");
    assert!(read.credential_by_certificate("c.example").is_none());
    let wrong = tenant + &credential("c", "a.example, \"*.b\"") + &credential("d", "A.example");
    let problems = Snapshot::from_documents(&wrong).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("spec.certificates[1]") && problems[0].contains("a host name"));
    assert!(
        problems[1].contains("has the same name a.example"),
        "{problems:#?}"
    );
}

#[test]
fn json_of_another_format_is_refused() {
    for (json, expected) in [
        (
            "{",
            "snapshot: not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            r#"{"format":2,"resources":[]}"#,
            "snapshot: format 1 is expected: the snapshot is of another release",
        ),
        (
            r#"{"format":1}"#,
            "snapshot: a list of resources is expected",
        ),
    ] {
        let problems = Snapshot::from_json(json.as_bytes()).unwrap_err();
        assert_eq!(problems[0].to_string(), expected);
    }
}

proptest! {
    #[test]
    fn any_valid_configuration_reads_back(
        streams in proptest::collection::btree_set("[a-z][a-z0-9]{0,8}", 1..5),
        domains in proptest::collection::btree_set("[.]?[a-z]{1,8}[.](example|test)", 0..5),
        port in 1_u16..,
        factor in 1_u32..=10,
        seconds in 1_u64..2_000_000,
        rate in 1_u32..,
    ) {
        let default = streams.iter().next().unwrap();
        let names: Vec<String> = streams.iter().map(|name| format!("{{ name: \"{name}\" }}")).collect();
        let domains: Vec<String> = domains.iter().map(|domain| format!("\"{domain}\"")).collect();
        let documents = [
            document("Tenant", "t", &format!("{{ defaultStream: \"{default}\", streams: [ {} ] }}", names.join(", "))),
            document("EgressPool", "p", "{ sources: [ { name: a } ] }"),
            document("Route", "r", &format!(
                "{{ match: {{ domains: [ {} ] }}, pool: p, port: {port}, retry: {{ factor: {factor} }}, maxAge: {seconds}s }}",
                domains.join(", "),
            )),
            document("Shaping", "s", &format!(
                "{{ rules: [ {{ rate: {rate}/h, commandTimeout: {0}s, dataTimeout: {0}s, finalReplyTimeout: {0}s }} ] }}",
                seconds.min(3600),
            )),
        ].concat();
        let snapshot = Snapshot::from_documents(&documents).unwrap();
        let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
        prop_assert_eq!(read.hash(), snapshot.hash());
        prop_assert_eq!(read.routes(), snapshot.routes());
        let lane = ShapingQuery { site: "mx.example", domain: "", stream: "", source: "a", pool: "p" };
        prop_assert_eq!(read.shaping(&lane), snapshot.shaping(&lane));
        prop_assert_eq!(read.shaping(&lane).final_reply_timeout, Span::from_secs(seconds.min(3600)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        drop(Snapshot::from_documents(&text));
        drop(Snapshot::from_json(text.as_bytes()));
    }
}
