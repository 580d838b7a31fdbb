//! Providers, and which rules hold for a lane.

use config::{ShapingQuery, Snapshot};

use crate::document;

const BASE: [(&str, &str, &str); 4] = [
    (
        "Tenant",
        "acme",
        "{ defaultStream: main, streams: [ { name: main }, { name: bulk } ] }",
    ),
    (
        "EgressPool",
        "default",
        "{ sources: [ { name: a }, { name: b } ] }",
    ),
    ("EgressPool", "warm", "{ sources: [ { name: c } ] }"),
    (
        "Provider",
        "big",
        "{ mx: [ .big.test, mx.small.test ], domains: [ big.example ] }",
    ),
];

fn with(more: &[(&str, &str, &str)]) -> String {
    let all = BASE.iter().chain(more);
    all.map(|(kind, name, spec)| document(kind, name, spec))
        .collect()
}

fn snapshot(more: &[(&str, &str, &str)]) -> Snapshot {
    Snapshot::from_documents(&with(more)).unwrap()
}

fn problem(more: &[(&str, &str, &str)]) -> String {
    let problems = Snapshot::from_documents(&with(more)).expect_err("the documents are bad");
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            // Without number, kind and name of the document.
            let at: Vec<&str> = problem.at.splitn(4, ' ').collect();
            let at = at.get(3).copied().unwrap_or_default();
            format!("{at}: {}", problem.what)
        })
        .collect();
    texts.join("\n")
}

/// A lane of source `a`.
fn lane<'a>(site: &'a str, domain: &'a str) -> ShapingQuery<'a> {
    ShapingQuery {
        site,
        domain,
        stream: "main",
        source: "a",
        pool: "default",
    }
}

#[test]
fn a_site_belongs_to_the_provider_of_the_longest_fitting_mx_and_a_domain_comes_before_it() {
    let snapshot = snapshot(&[("Provider", "part", "{ mx: [ .part.big.test ] }")]);
    let provider = |site, domain| {
        let found = snapshot.provider(site, domain);
        found.map(|provider| provider.name.as_str())
    };
    assert_eq!(provider("mx1.big.test,mx2.big.test", "x.test"), Some("big"));
    assert_eq!(provider("mx.small.test", "x.test"), Some("big"));
    assert_eq!(provider("other.small.test", "x.test"), None);
    assert_eq!(provider("big.test", "x.test"), None);
    assert_eq!(
        provider("a.big.test,mx.part.big.test", "x.test"),
        Some("part")
    );
    assert_eq!(provider("mx.elsewhere.test", "big.example"), Some("big"));
    // A name that was shortened tells its first host.
    assert_eq!(
        provider("mx1.big.test+25#0123456789abcdef", "x.test"),
        Some("big")
    );
}

#[test]
fn at_least_twenty_providers_are_shipped_each_with_figures_and_can_be_replaced_or_switched_off() {
    let providers = [
        ("gmail-smtp-in.l.google.com", "google"),
        ("aspmx.l.google.com,aspmx2.googlemail.com", "google"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx1.mail.yahoo.co.jp", "yahoo-japan"),
        ("outlook-com.olc.protection.outlook.com", "outlook"),
        ("contoso-com.mail.protection.outlook.com", "microsoft365"),
        ("contoso-com.n-v1.mx.microsoft", "microsoft365"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx1.comcast.net", "comcast"),
        ("mx00.gmx.net", "gmx"),
        ("mx-ha02.web.de", "web-de"),
        ("mx00.mail.com", "mail-com"),
        ("smtp-in.orange.fr", "orange"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("d123.ess.barracudanetworks.com", "barracuda"),
        ("mx.kpnmail.nl", "kpn"),
        ("mx1.netvigator.com", "netvigator"),
        ("mx3.qq.com", "qq"),
        ("163mx01.mxmail.netease.com", "netease"),
        ("smtp-in.libero.it", "libero"),
        ("mxa-001.pphosted.com", "proofpoint"),
        ("mx.zoho.eu", "zoho"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("mail.protonmail.ch", "proton"),
        ("mx.yandex.ru", "yandex"),
        ("mxs.mail.ru", "mail-ru"),
        ("mx00.t-online.de", "t-online"),
        ("mx1.seznam.cz", "seznam"),
    ];
    let shipped = Snapshot::default();
    for (site, name) in providers {
        let explained = shipped.explain_shaping(&lane(site, "x.test"));
        assert_eq!(explained.provider.as_deref(), Some(name), "{site}");
        let all = explained.fields.iter().chain(&explained.shared);
        let set = all.filter(|field| field.rule.is_some());
        assert!(set.count() >= 2, "{name}");
    }
    let google = &lane("gmail-smtp-in.l.google.com", "gmail.com");
    assert_eq!(shipped.shaping(google).shared.connections, Some(5));
    assert!(
        shipped.is_empty(),
        "what is shipped is not in the installation's snapshot"
    );

    let replaced = snapshot(&[(
        "Shaping",
        "google",
        "{ rules: [ { match: { provider: google }, connections: 7 } ] }",
    )]);
    let shaping = replaced.shaping(google);
    assert_eq!(
        (shaping.connections, shaping.messages_per_connection),
        (7, 100)
    );

    let added = snapshot(&[(
        "Shaping",
        "mine",
        "{ rules: [ { match: { provider: google }, connections: 8 }, { connections: 3 } ] }",
    )]);
    let shaping = added.shaping(google);
    assert_eq!(
        (shaping.connections, shaping.messages_per_connection),
        (8, 50)
    );
    // It says nothing about the provider as a whole.
    assert_eq!(shaping.shared.connections, Some(5));
    // What both say is as the own one says, whatever its name.
    let own = snapshot(&[(
        "Shaping",
        "a-document-before",
        "{ rules: [ { match: { provider: google }, messagesPerConnection: 60 } ] }",
    )]);
    assert_eq!(own.shaping(google).messages_per_connection, 60);

    for off in [
        ("Shaping", "google", "{ disabled: true }"),
        ("Provider", "google", "{ disabled: true }"),
    ] {
        let shaping = snapshot(&[off]).shaping(google);
        assert_eq!(
            (shaping.connections, shaping.shared.connections),
            (10, None)
        );
    }
    let own = snapshot(&[("Provider", "mine", "{ mx: [ .google.com ] }")]);
    assert_eq!(
        own.provider(google.site, google.domain).unwrap().name,
        "mine"
    );
}

#[test]
fn each_field_comes_from_the_most_specific_rule_and_the_explanation_names_it() {
    let rules = "
  rules:
    - { connections: 1, messagesPerConnection: 1, rates: [ 1/s, 10/m ], connectionRate: 1/m, rampUp: 1s, tls: required, connectTimeout: 1s }
    - { match: { pool: default }, connections: 2, messagesPerConnection: 2, rate: 2/s, connectionRate: 2/m, rampUp: 2s, tls: none }
    - { match: { stream: main }, connections: 3, messagesPerConnection: 3, rate: 3/s, connectionRate: 3/m, rampUp: 3s }
    - { match: { provider: big }, connections: 4, messagesPerConnection: 4, rate: 4/s, connectionRate: none }
    - { match: { site: .big.test }, connections: 5, messagesPerConnection: 5, rate: none }
    - { match: { domain: .x.test }, connections: 6, messagesPerConnection: 6 }
    - { match: { source: a }, connections: 7 }
    - { match: { source: a, domain: other.test }, connections: 8 }";
    let snapshot = snapshot(&[("Shaping", "mine", rules)]);
    let explained = snapshot.explain_shaping(&lane("mx.big.test", "a.x.test"));
    let told: Vec<String> = explained
        .fields
        .iter()
        .map(|field| {
            let rule = field.rule.as_ref();
            let rule = rule.map_or("built in".to_owned(), ToString::to_string);
            format!("{} {} {rule}", field.name, field.value)
        })
        .collect();
    let expected = [
        "connections 7 Shaping/mine rules[6] {source: a}",
        "messagesPerConnection 6 Shaping/mine rules[5] {domain: .x.test}",
        "rate none Shaping/mine rules[4] {site: .big.test}",
        "connectionRate none Shaping/mine rules[3] {provider: big}",
        "rampUp 3s Shaping/mine rules[2] {stream: main}",
        "tls none Shaping/mine rules[1] {pool: default}",
        "connectTimeout 1s Shaping/mine rules[0] {}",
        "idleTimeout 5s built in",
        "commandTimeout 5m built in",
        "dataTimeout 3m built in",
        "finalReplyTimeout 10m built in",
    ];
    assert_eq!(told, expected);
    assert_eq!(explained.rules.len(), 7);
    // The explanation is what holds.
    let values: Vec<_> = explained
        .fields
        .iter()
        .map(|field| (field.name, field.value.clone()))
        .collect();
    assert_eq!(
        values,
        snapshot.shaping(&lane("mx.big.test", "a.x.test")).written()
    );
    let elsewhere = snapshot.shaping(&ShapingQuery {
        source: "c",
        pool: "warm",
        stream: "bulk",
        ..lane("mx.x.test", "y.test")
    });
    let rates: Vec<String> = elsewhere.rates.iter().map(ToString::to_string).collect();
    assert_eq!(rates, ["1/s", "10/m"]);
}

#[test]
fn what_is_for_a_provider_as_a_whole_stands_beside_what_is_for_each_site() {
    let rules = "
  rules:
    - { connections: 1, rate: 1/s }
    - { match: { provider: big }, connections: 2 }
    - { match: { provider: big }, scope: provider, connections: 3, rates: [ 10/s, 90/m ], connectionRate: 5/s }
    - { match: { provider: big, source: b }, scope: provider, connections: 4, connectionRate: none }
    - { match: { provider: google }, scope: provider, connections: 9 }
    - { match: { site: .big.test }, scope: site, rate: 7/s }";
    let snapshot = snapshot(&[("Shaping", "mine", rules)]);
    let of = |source| {
        let lane = ShapingQuery {
            source,
            ..lane("mx.big.test", "x.test")
        };
        let shaping = snapshot.shaping(&lane);
        assert_eq!(shaping.connections, 2);
        assert_eq!(shaping.rates.len(), 1);
        assert_eq!(shaping.shared, snapshot.shared_shaping(source, "big"));
        let told = snapshot.explain_shaping(&lane).shared;
        let told: Vec<String> = told
            .iter()
            .map(|field| {
                let rule = field.rule.as_ref().unwrap();
                format!("{} {} rules[{}]", field.name, field.value, rule.position)
            })
            .collect();
        told.join(", ")
    };
    assert_eq!(
        of("a"),
        "connections 3 rules[2], rate 10/s, 90/m rules[2], connectionRate 5/s rules[2]"
    );
    assert_eq!(
        of("b"),
        "connections 4 rules[3], rate 10/s, 90/m rules[2], connectionRate none rules[3]"
    );
    // By its domain mail belongs to a provider whatever its site is.
    let named = snapshot.shaping(&lane("mx.elsewhere.test", "big.example"));
    assert_eq!(named.shared.connections, Some(3));
    assert!(
        snapshot
            .shaping(&lane("mx.elsewhere.test", "x.test"))
            .shared
            .is_empty()
    );
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    assert_eq!(read.shared_shaping("b", "big").connections, Some(4));
}

#[test]
fn what_can_t_be_for_a_provider_as_a_whole_is_a_problem() {
    let rules = |rules| [("Shaping", "mine", rules)];
    let own = "{ rules: [ { scope: provider, connections: 3 } ] }";
    assert_eq!(
        problem(&rules(own)),
        "spec.rules[0].match: scope: provider needs a provider here"
    );
    let unknown = "{ rules: [ { match: { provider: huge }, scope: provider, connections: 3 } ] }";
    assert!(
        problem(&rules(unknown))
            .starts_with("spec.rules[0].match.provider: no Provider named \"huge\"")
    );
    let some = "{ rules: [ { match: { provider: big, source: a, stream: bulk, site: .big.test }, scope: provider, connections: 3 } ] }";
    assert_eq!(
        problem(&rules(some)),
        "spec.rules[0].match: scope: provider is for all mail from a source to a provider: only provider and source are expected, found site, stream"
    );
    let fields = "{ rules: [ { match: { provider: big }, scope: provider, connections: 3, tls: none, rampUp: 1s } ] }";
    assert_eq!(
        problem(&rules(fields)),
        "spec.rules[0].scope: only connections, rates and connectionRate can be for a provider as a whole: rampUp, tls belongs in a rule of scope site"
    );
    let word = "{ rules: [ { match: { provider: big }, scope: pool, connections: 3 } ] }";
    assert_eq!(
        problem(&rules(word)),
        "spec.rules[0].scope: one of site, provider is expected, found \"pool\""
    );
    let twice = "{ rules: [ { match: { provider: big }, scope: provider, connections: 3 }, { match: { provider: big }, connections: 4 }, { match: { provider: big }, scope: provider, connections: 5 } ] }";
    assert_eq!(
        problem(&rules(twice)),
        "spec.rules[2]: has the same match as Shaping/mine spec.rules[0], and both set connections"
    );
}

#[test]
fn mail_for_which_other_rules_hold_has_a_lane_of_its_own() {
    let rules = "
  rules:
    - { connections: 1 }
    - { match: { provider: big }, connections: 2 }
    - { match: { domain: .x.test }, connections: 3 }
    - { match: { domain: a.x.test, stream: bulk, source: b }, connections: 4 }
    - { match: { stream: bulk, site: mx.big.test }, connections: 5 }
    - { match: { pool: warm }, connections: 6 }";
    let snapshot = snapshot(&[("Shaping", "mine", rules)]);
    let class = |site, domain, stream, pool| {
        snapshot.lane_class(&ShapingQuery {
            stream,
            pool,
            source: "",
            ..lane(site, domain)
        })
    };
    assert_eq!(class("mx.big.test", "y.test", "main", "default"), None);
    assert_eq!(
        class("mx.y.test", "a.x.test", "main", "default").as_deref(),
        Some("domain=.x.test")
    );
    assert_eq!(
        class("mx.y.test", "a.x.test", "main", "default"),
        class("mx.y.test", "b.x.test", "main", "default")
    );
    assert_eq!(
        class("mx.y.test", "a.x.test", "bulk", "warm").as_deref(),
        Some("domain=.x.test%domain=a.x.test&stream=bulk%pool=warm")
    );
    assert_eq!(
        class("mx.big.test", "y.test", "bulk", "default").as_deref(),
        Some("stream=bulk")
    );
    assert_eq!(class("mx.y.test", "y.test", "bulk", "default"), None);
    // By its domain it is of another provider than its neighbours at the site.
    assert_eq!(
        class("mx.y.test", "big.example", "main", "default").as_deref(),
        Some("provider=big")
    );
    assert_eq!(class("mx.big.test", "big.example", "main", "default"), None);
}

#[test]
fn rules_that_can_never_match_and_unknown_names_are_reported() {
    let rule = |rule: &str| {
        let spec = format!("{{ rules: [ {{ match: {rule}, connections: 1 }} ] }}");
        problem(&[
            ("Shaping", "mine", &spec),
            ("Provider", "gone", "{ disabled: true }"),
        ])
    };
    let table = [
        (
            "{ source: c, pool: default }",
            "spec.rules[0].match: never matches: the pool default has no source c",
        ),
        ("{ provider: big, site: .elsewhere.test }", ""),
        (
            "{ provider: google, site: .yahoodns.net }",
            "spec.rules[0].match: never matches: no MX host of Provider/google fits .yahoodns.net",
        ),
        (
            "{ provider: gone }",
            "spec.rules[0].match: never matches: Provider/gone is disabled",
        ),
        (
            "{ stream: blk }",
            "spec.rules[0].match.stream: no tenant has a stream named \"blk\"; known: bulk, main",
        ),
        (
            "{ provider: gogle }",
            "spec.rules[0].match.provider: no Provider named \"gogle\"; known: apple, barracuda, big, comcast, fastmail and 25 more",
        ),
    ];
    for (matches, expected) in table {
        if expected.is_empty() {
            // Its domains may have any hosts.
            let spec = format!("{{ rules: [ {{ match: {matches}, connections: 1 }} ] }}");
            snapshot(&[("Shaping", "mine", &spec)]);
        } else {
            assert_eq!(rule(matches), expected);
        }
    }
    assert_eq!(
        problem(&[("Provider", "more", "{ mx: [ .big.test ] }")]),
        "spec.mx: Provider/big has .big.test too"
    );
    assert_eq!(
        problem(&[("Provider", "more", "{}")]),
        "spec: mx or domains are expected, or disabled: true"
    );
}

#[test]
fn windows_that_contradict_each_other_are_reported() {
    let rates = |rates: &str| {
        let spec = format!("{{ rules: [ {{ {rates} }} ] }}");
        problem(&[("Shaping", "mine", &spec)])
    };
    let table = [
        (
            "rates: [ 100/s, 50/m ]",
            "spec.rules[0].rates: 100/s has no effect beside 50/m",
        ),
        (
            "rates: [ 100/s, 5/m, 200/s ]",
            "spec.rules[0].rates: 100/s and 200/s are of the same window\nspec.rules[0].rates: 200/s has no effect beside 5/m",
        ),
        (
            "rate: 1/s, rates: [ 1/s ]",
            "spec.rules[0].rates: rate and rates are given: one of them is expected",
        ),
    ];
    for (given, expected) in table {
        assert_eq!(rates(given), expected);
    }
}

#[test]
fn a_site_of_two_providers_belongs_to_that_of_its_first_host() {
    let snapshot = snapshot(&[
        ("Provider", "z", "{ mx: [ mx1.shared.test ] }"),
        ("Provider", "a", "{ mx: [ mx2.shared.test ] }"),
    ]);
    let provider = snapshot.provider("mx1.shared.test,mx2.shared.test", "x.test");
    assert_eq!(provider.unwrap().name, "z");
}

#[test]
fn lanes_are_told_apart_also_where_all_rules_are_of_one_kind() {
    let class = |matches: &str| {
        let spec = format!("{{ rules: [ {{ match: {matches}, connections: 1 }} ] }}");
        let snapshot = snapshot(&[("Shaping", "mine", &spec)]);
        snapshot.lane_class(&lane("mx.x.test", "x.test"))
    };
    assert_eq!(
        class("{ domain: x.test }").as_deref(),
        Some("domain=x.test")
    );
    assert_eq!(class("{ stream: main }").as_deref(), Some("stream=main"));
    assert_eq!(class("{ stream: bulk }"), None);
    assert_eq!(class("{ domain: y.test }"), None);
}

#[test]
fn a_site_fits_a_provider_when_one_of_its_hosts_can_be_there() {
    for (mx, site, fits) in [
        (".part.test", ".part.test", true),
        (".part.test", ".test", true),
        (".part.test", ".a.part.test", true),
        (".part.test", "mx.part.test", true),
        (".part.test", "part.test", false),
        (".part.test", ".other.test", false),
        ("mx.part.test", "mx.part.test", true),
        ("mx.part.test", ".part.test", true),
        ("mx.part.test", ".mx.part.test", false),
        ("mx.part.test", "other.part.test", false),
    ] {
        let provider = format!("{{ mx: [ \"{mx}\" ] }}");
        let rule = format!("{{ provider: part, site: \"{site}\" }}");
        let shaping = format!("{{ rules: [ {{ match: {rule}, connections: 1 }} ] }}");
        let documents = with(&[
            ("Provider", "part", &provider),
            ("Shaping", "mine", &shaping),
        ]);
        let taken = Snapshot::from_documents(&documents);
        assert_eq!(taken.is_ok(), fits, "{mx} {site}");
    }
}
