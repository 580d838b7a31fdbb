use config::Snapshot;

use crate::{COMPLETE, document};

fn problems(documents: &str) -> Vec<String> {
    let problems = Snapshot::from_documents(documents).expect_err("the documents are bad");
    problems.iter().map(ToString::to_string).collect()
}

/// A bad document that stands behind a complete configuration as document 7, line numbers removed.
fn problems_of(kind: &str, name: &str, spec: &str) -> Vec<String> {
    let documents = format!("{COMPLETE}{}", document(kind, name, spec));
    let mut texts = problems(&documents);
    for text in &mut texts {
        if let Some((before, after)) = text.split_once(" (line ") {
            let after = after.split_once(')').unwrap().1;
            *text = format!("{before}{after}");
        }
    }
    texts
}

#[test]
fn each_bad_document_gets_its_message() {
    let table: &[(&str, &str, &str, &[&str])] = &[
        (
            "Scanner",
            "b",
            "{ clamav: { address: \"127.0.0.1:3310\" }, milter: {}, deadline: 5m, connections: 0 }",
            &[
                "doc 7 Scanner/b spec.deadline: 1s to 2m is expected, found 5m",
                "doc 7 Scanner/b spec.connections: a whole number from 1 to 1000 is expected, found the number 0",
                "doc 7 Scanner/b spec: exactly one of clamav, rspamd, milter is expected, found clamav and milter",
            ],
        ),
        (
            "Scanner",
            "b",
            "{ rspamd: { address: \"localhost\", spam: delete }, maxSize: 1KiB, whenDown: open }",
            &[
                "doc 7 Scanner/b spec.maxSize: 64KiB to 512MiB is expected, found 1KiB",
                "doc 7 Scanner/b spec.whenDown: one of defer, accept is expected, found \"open\"",
                "doc 7 Scanner/b spec.rspamd.spam: one of mark, accept, hold, reject is expected, found \"delete\"",
                "doc 7 Scanner/b spec.rspamd.address: host:port or unix:/path is expected, found \"localhost\"",
            ],
        ),
        (
            "Tenant",
            "b",
            "{ streams: [], defaultStream: main }",
            &[
                "doc 7 Tenant/b spec.streams: at least one stream is expected",
                "doc 7 Tenant/b spec.defaultStream: no stream named \"main\"; known: ",
            ],
        ),
        (
            "Tenant",
            "b",
            "{ streams: [ { name: main, inDoubt: drop } ] }",
            &[
                "doc 7 Tenant/b spec.streams[0].inDoubt: one of retry, hold, giveUp is expected, found \"drop\"",
                "doc 7 Tenant/b spec.defaultStream: is missing",
            ],
        ),
        (
            "Tenant",
            "b",
            "{ defaultStream: a, streams: [ { name: a, window: { zone: Rome, open: [ \"09:00-09:00\", \"monday\" ] }, spread: 8d, delay: 31d }, \
             { name: b, window: { open: [] } }, { name: c, window: { zone: UTC, open: [ \"mon 09:00-10:00\" ], hours: 5 }, spread: 1h }, \
             { name: d, window: { zone: UTC }, expiresAfter: 0, delayNotices: [1d, 4h] } ] }",
            &[
                "doc 7 Tenant/b spec.streams[0].window.zone: the name of a time zone such as Europe/Rome or UTC is expected, found \"Rome\"",
                "doc 7 Tenant/b spec.streams[0].window.open[0]: it would never be open; 00:00-24:00 is the whole day, found \"09:00-09:00\"",
                "doc 7 Tenant/b spec.streams[0].window.open[1]: days and hours such as \"mon-fri 09:00-18:00\", \"sat,sun 22:00-02:00\", \"mon-fri\" or \"08:00-20:00\" are expected, found \"monday\"",
                "doc 7 Tenant/b spec.streams[0].delay: 0 to 30d is expected, found 31d",
                "doc 7 Tenant/b spec.streams[0].spread: 0 to 7d is expected, found 8d",
                "doc 7 Tenant/b spec.streams[1].window.zone: is missing: the name of a time zone such as Europe/Rome",
                "doc 7 Tenant/b spec.streams[1].window.open: is empty: it would never be open",
                "doc 7 Tenant/b spec.streams[2].window.hours: unknown field; known: zone, open",
                "doc 7 Tenant/b spec.streams[2].spread: must be shorter than the window is open in a week (1h), found 1h",
                "doc 7 Tenant/b spec.streams[3].expiresAfter: 1s to 30d is expected, found 0s",
                "doc 7 Tenant/b spec.streams[3].delayNotices: at most 8 ages above 0 are expected, the shortest first",
                "doc 7 Tenant/b spec.streams[3].window.open: is missing: it would never be open",
            ],
        ),
        (
            "Tenant",
            "B!",
            "{ defaultStream: main, streams: [ { name: main }, { name: main } ], colour: red }",
            &[
                "doc 7 Tenant/B! metadata.name: a name of at most 63 lower-case letters, digits, '-' and '.' is expected, found \"B!\"",
                "doc 7 Tenant/B! spec.streams[1].name: \"main\" is used twice",
                "doc 7 Tenant/B! spec.colour: unknown field; known: suppression, streams, weight, mode, mayForward, maxHold, whenHoldEnds, preflight, repair, scanners, limits, watch, defaultStream",
            ],
        ),
        (
            "Tenant",
            "b",
            "{ defaultStream: main, streams: [ { name: main } ], limits: { quotas: [ \"300/m\", \"200/h\", \"9/x\" ], overQuota: drop, sizes: [ { above: 1, size: 5MiB }, { above: 1, size: 9MiB } ], monthly: 0 } }",
            &[
                "doc 7 Tenant/b spec.limits.sizes[1].above: must be more than that of the entry before",
                "doc 7 Tenant/b spec.limits.quotas[2]: a quota such as 300/m, 2000/h or 10000/12h (1 second to 31 days) is expected, found \"9/x\"",
                "doc 7 Tenant/b spec.limits.quotas: 300/m has no effect beside 200/h",
                "doc 7 Tenant/b spec.limits.monthly: a whole number from 1 to 1000000000000 is expected, found the number 0",
                "doc 7 Tenant/b spec.limits.overQuota: one of queue, defer, reject is expected, found \"drop\"",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acmee, networks: [ \"10.0.0.0/8\" ] }",
            &["doc 7 Credential/b spec.tenant: no Tenant named \"acmee\"; known: acme"],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme }",
            &[
                "doc 7 Credential/b spec: username and passwordHash, or networks, or both are expected, or certificates, or tokens",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, networks: [ \"10.0.0.0/8\" ], idempotentFor: 5s }",
            &["doc 7 Credential/b spec.idempotentFor: 1m to 1d is expected, found 5s"],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, username: b }",
            &["doc 7 Credential/b spec.passwordHash: is missing: there is a username"],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, username: b, passwordHash: hunter2 }",
            &[
                "doc 7 Credential/b spec.passwordHash: an Argon2 hash \"$argon2id$v=19$…\" (see `staffetta hash-password`) or \"file:/path\" is expected",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, networks: [ \"10.0.0.0/8\" ], scram: \"SCRAM-SHA-1$x\" }",
            &[
                "doc 7 Credential/b spec.scram: SCRAM keys \"SCRAM-SHA-256$4096:…\" (see `staffetta hash-password --scram`) are expected",
                "doc 7 Credential/b spec.scram: needs passwordHash beside it, for the other mechanisms",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, username: b, passwordHash: \"secretKeyRef:x/y\" }",
            &[
                "doc 7 Credential/b spec.passwordHash: secretKeyRef is not available outside Kubernetes yet; use \"file:/path\"",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, username: app@acme.example, passwordHash: \"file:/h\", stream: nope }",
            &[
                "doc 7 Credential/b spec.stream: the tenant acme has no stream named \"nope\"; known: transactional, bulk",
                "doc 7 Credential/b spec.username: Credential/acme-app has the same",
            ],
        ),
        (
            "Credential",
            "b",
            "{ tenant: acme, networks: [ \"127.0.0.1/8\", \"10.0.0.0\" ] }",
            &[
                "doc 7 Credential/b spec.networks[1]: a network such as 192.0.2.0/24 is expected, found \"10.0.0.0\"",
                "doc 7 Credential/b spec.networks[0]: Credential/acme-app has the same network 127.0.0.0/8",
            ],
        ),
        (
            "SendingDomain",
            "b.example",
            "{ tenant: acme }",
            &[
                "doc 7 SendingDomain/b.example spec.dkim: is missing: give keys, or say `unsigned: true` to send without signatures",
            ],
        ),
        (
            "SendingDomain",
            "a..b",
            "{ tenant: acme, dkim: [ { selector: s, algorithm: rsa-sha1, key: \"-----BEGIN\" } ] }",
            &[
                "doc 7 SendingDomain/a..b metadata.name: a domain is expected (the domain has an invalid label), found \"a..b\"",
                "doc 7 SendingDomain/a..b spec.dkim[0].algorithm: one of rsa-sha256, ed25519-sha256 is expected, found \"rsa-sha1\"",
                "doc 7 SendingDomain/a..b spec.dkim[0].key: \"file:/path\" is expected; secrets are never written inline",
            ],
        ),
        (
            "SendingDomain",
            "b.example",
            "{ tenant: acme, unsigned: true, dkim: [ { selector: s, algorithm: rsa-sha256, key: \"file:k\" } ] }",
            &[
                "doc 7 SendingDomain/b.example spec.dkim[0].key: the path after \"file:\" must begin with \"/\"",
            ],
        ),
        (
            "EgressPool",
            "b",
            "{ sources: [ { name: a, address: 127.0.0.2 }, { name: c, address: localhost, weight: 0 } ] }",
            &[
                "doc 7 EgressPool/b spec.sources[1].address: an IP address is expected, found \"localhost\"",
                "doc 7 EgressPool/default spec.sources[0]: EgressPool/b has a source named \"a\" that is not the same in all but its weight",
            ],
        ),
        (
            "Route",
            "b",
            "{ match: { domains: [ a.example, \"a b\" ], tenants: [ who ], streams: [ slow ] }, pool: none, port: 0 }",
            &[
                "doc 7 Route/b spec.match.domains[1]: a domain such as example.com or .example.com is expected (the domain has an invalid label), found \"a b\"",
                "doc 7 Route/b spec.port: a whole number from 1 to 65535 is expected, found the number 0",
                "doc 7 Route/b spec.pool: no EgressPool named \"none\"; known: default",
                "doc 7 Route/b spec.match.tenants[0]: no Tenant named \"who\"; known: acme",
                "doc 7 Route/b spec.match.streams[0]: no matched tenant has a stream named \"slow\"; there is none",
            ],
        ),
        (
            "Route",
            "b",
            "{ pool: default, retry: { initial: 5, max: 1m, jitter: 60 }, maxAge: 60d }",
            &[
                "doc 7 Route/b spec.retry.initial: a text is expected, found the number 5: write it in quotes",
                "doc 7 Route/b spec.retry.max: must not be shorter than initial (5m), found 1m",
                "doc 7 Route/b spec.retry.jitter: a whole number from 0 to 50 is expected, found the number 60",
                "doc 7 Route/b spec.maxAge: 1s to 30d is expected, found 60d",
                "doc 7 Route/default spec.match: ties with Route/b for mail to any domain: neither is more specific",
            ],
        ),
        (
            "Route",
            "b",
            "{ match: { domains: [ b.example ] }, pool: default, retry: { waits: [], max: 1h, tryAgainIn: { least: 1h, most: 30m }, \
             classes: { greylisted: { waits: [ 5m, 0 ], maxAge: 40d }, mailboxFull: { factor: 11 }, full: {} } } }",
            &[
                "doc 7 Route/b spec.retry.max: is given together with waits: one of them is expected",
                "doc 7 Route/b spec.retry.waits: 1 to 64 durations are expected",
                "doc 7 Route/b spec.retry.classes.mailboxFull.factor: a whole number from 1 to 10 is expected, found the number 11",
                "doc 7 Route/b spec.retry.classes.greylisted.waits[1]: a text is expected, found the number 0",
                "doc 7 Route/b spec.retry.classes.greylisted.maxAge: 1s to 30d is expected, found 40d",
                "doc 7 Route/b spec.retry.classes.full: unknown field; known: recipient, mailboxFull, policy, throttled, greylisted, infrastructure, content, dns",
                "doc 7 Route/b spec.retry.tryAgainIn.most: must not be shorter than least (1h), found 30m; 0 = no reply is asked",
            ],
        ),
        (
            "Shaping",
            "b",
            "{ rules: [ { match: { pool: none, source: z }, connections: 5 }, {}, { connections: 1, rate: fast, commandTimeout: 0s, dataTimeout: 61m, finalReplyTimeout: 999ms } ] }",
            &[
                "doc 7 Shaping/b spec.rules[1]: the rule sets nothing",
                "doc 7 Shaping/b spec.rules[2].rate: a rate such as 100/s, 600/m, 5000/h or 20000/d is expected, or none, found \"fast\"",
                "doc 7 Shaping/b spec.rules[2].commandTimeout: 1s to 1h is expected, found 0s",
                "doc 7 Shaping/b spec.rules[2].dataTimeout: 1s to 1h is expected, found 61m",
                "doc 7 Shaping/b spec.rules[2].finalReplyTimeout: 1s to 1h is expected, found 999ms",
                "doc 7 Shaping/b spec.rules[0].match.pool: no EgressPool named \"none\"; known: default",
                "doc 7 Shaping/b spec.rules[0].match.source: no egress source named \"z\"; known: a",
                "doc 7 Shaping/default spec.rules[0]: has the same match as Shaping/b spec.rules[2], and both set connections",
            ],
        ),
        (
            "Tenant",
            "acme",
            "{ defaultStream: main, streams: [ { name: main } ] }",
            &["doc 7 Tenant/acme metadata.name: doc 1 Tenant/acme has the same kind and name"],
        ),
        (
            "SendingDomain",
            "ACME.example",
            "{ tenant: acme, unsigned: true }",
            &[
                "doc 7 SendingDomain/ACME.example metadata.name: doc 3 SendingDomain/Acme.example has the same kind and name",
            ],
        ),
        (
            "Gateway",
            "b",
            "{}",
            &[
                "doc 7 kind: one of Scanner, Tenant, TokenIssuer, Credential, SendingDomain, EgressPool, Route, Provider, Shaping, Automation, Webhook is expected, found \"Gateway\"",
            ],
        ),
    ];
    for (kind, name, spec, expected) in table {
        // What concerns a document of COMPLETE has its own number there.
        let found: Vec<String> = problems_of(kind, &format!("\"{name}\""), spec);
        let expected: Vec<String> = expected
            .iter()
            .map(|text| {
                text.replace("doc 7 EgressPool/default", "doc 4 EgressPool/default")
                    .replace("doc 7 Route/default", "doc 5 Route/default")
                    .replace("doc 7 Shaping/default", "doc 6 Shaping/default")
            })
            .collect();
        assert_eq!(found, expected, "{kind}/{name} {spec}");
    }
}

#[test]
fn a_document_that_cannot_be_understood_is_not_reported_again_by_what_refers_to_it() {
    let documents = document("Tenant", "t", "{ streams: [ { name: main } ] }")
        + &document(
            "Credential",
            "c",
            "{ tenant: t, stream: main, networks: [ \"10.0.0.0/8\" ] }",
        );
    assert_eq!(
        problems(&documents),
        ["doc 1 Tenant/t spec.defaultStream (line 5): is missing"]
    );
}

#[test]
fn every_problem_tells_its_line() {
    let documents = "apiVersion: staffetta.dev/v1\nkind: Route\nmetadata:\n  name: r\nspec:\n  pool: p\n  port: 70000\n";
    assert_eq!(
        problems(documents),
        [
            "doc 1 Route/r apiVersion (line 1): staffetta.dev/v1alpha1 is expected, found \"staffetta.dev/v1\"",
            "doc 1 Route/r spec.port (line 7): a whole number from 1 to 65535 is expected, found the number 70000",
            "doc 1 Route/r spec.pool (line 6): no EgressPool named \"p\"; there is none",
        ]
    );
}

#[test]
fn broken_yaml_gives_line_and_column() {
    for (text, expected) in [
        (
            "kind: Tenant\nmetadata: { name: acme\nspec: {}\n",
            "line 3: column 5",
        ),
        ("kind: Tenant\nkind: Tenant\n", "line 2: column 1"),
        ("a: &a [*a]\n", "line 1"),
        ("kind: \"Tenant\n", "line "),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{text:?}: {found:?}");
        assert!(found[0].contains("not valid YAML"), "{found:?}");
    }
}

#[test]
fn a_text_that_is_no_map_and_a_document_without_kind_are_refused() {
    assert_eq!(
        problems("just words\n"),
        [
            "doc 1 (line 1): a map is expected, found the text \"just words\"",
            "doc 1 kind (line 1): is missing",
            "doc 1 metadata.name (line 1): is missing",
        ]
    );
    assert_eq!(problems("- kind: Tenant\n").len(), 3);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(","));
    }
    assert!(problems(&text)[0].contains("not valid YAML"));
}
