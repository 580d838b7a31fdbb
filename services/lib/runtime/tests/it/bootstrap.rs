use std::path::Path;

use mail::{ByteSize, Span};
use runtime::Bootstrap;
use runtime::bootstrap::{Durability, ListenerTls, MtaSts, Transcripts};

const COMPLETE: &str = r#"
hostname: Relay.example.com
nats: { url: "nats://127.0.0.1:4222", monitor: "http://127.0.0.1:8222" }
redis: { url: "redis://127.0.0.1:6379" }
durability: relaxed
partitions: 8
storage: { volumeBytes: 10GiB, replicas: 3 }
resolvers: ["127.0.0.1:53"]
ingress:
  metrics: 127.0.0.1:9201
  listeners:
    - { name: submission, kind: submission, address: "0.0.0.0:2525", tls: starttls, certificate: tls/cert.pem, key: /etc/key.pem }
    - name: local
      kind: submission
      address: "127.0.0.1:2526"
      tls: none
      allowPlaintextAuthFrom: ["127.0.0.0/8", "::1/128"]
      maxMessageSize: 1MiB
      maxRecipients: 200
      simulatorDomain: Simulator.example
      commandTimeout: 10s
      dataTimeout: 20s
      maxConnections: 5
signer: { listen: 127.0.0.1:7202, metrics: 127.0.0.1:9202, threads: 2 }
scheduler: { listen: 127.0.0.1:7203, advertise: "scheduler.example:7203", metrics: 127.0.0.1:9203 }
sender: { signers: ["http://127.0.0.1:7202"], metrics: 127.0.0.1:9204, credit: 64, drainTimeout: 30s }
feedback: { metrics: 127.0.0.1:9205 }
all: { metrics: 127.0.0.1:9290 }
"#;

fn problems(text: &str) -> Vec<String> {
    let problems = Bootstrap::from_yaml(text).expect_err("the text is bad");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_complete_file_has_the_values_that_were_written() {
    let bootstrap = Bootstrap::from_yaml_in(COMPLETE, Path::new("/conf")).unwrap();
    assert_eq!(bootstrap.hostname.as_str(), "relay.example.com");
    assert_eq!(
        bootstrap.nats.monitor.as_deref(),
        Some("http://127.0.0.1:8222")
    );
    assert_eq!(bootstrap.durability, Durability::Relaxed);
    assert_eq!((bootstrap.partitions, bootstrap.storage.replicas), (8, 3));
    assert_eq!(bootstrap.storage.volume, ByteSize::from_bytes(10 << 30));
    let [submission, local] = bootstrap.ingress.listeners.as_slice() else {
        panic!("two listeners")
    };
    let ListenerTls::StartTls(files) = &submission.tls else {
        panic!("STARTTLS")
    };
    assert_eq!(files[0].certificate, Path::new("/conf/tls/cert.pem"));
    assert_eq!(files[0].key, Path::new("/etc/key.pem"));
    assert_eq!(submission.max_message_size, ByteSize::from_mib(25));
    assert_eq!((local.max_recipients, local.max_connections), (200, 5));
    assert_eq!(local.command_timeout, Span::from_secs(10));
    assert_eq!(local.simulator_domain.as_str(), "simulator.example");
    let usual = submission.simulator_domain.as_str();
    assert_eq!(usual, "simulator.staffetta.invalid");
    assert_eq!(local.allow_plaintext_auth_from.len(), 2);
    assert_eq!(bootstrap.scheduler.advertise, "scheduler.example:7203");
    assert_eq!((bootstrap.sender.credit, bootstrap.signer.threads), (64, 2));
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let bootstrap = Bootstrap::from_yaml("").unwrap();
    assert_eq!(bootstrap.nats.url, "nats://127.0.0.1:4222");
    assert_eq!(bootstrap.durability, Durability::Strict);
    assert_eq!(bootstrap.scheduler.advertise, "127.0.0.1:7103");
    assert_eq!(bootstrap.sender.signers, ["http://127.0.0.1:7102"]);
    assert_eq!(bootstrap.sender.drain_timeout, Span::from_secs(660));
    assert!(bootstrap.ingress.listeners.is_empty() && bootstrap.resolvers.is_empty());
}

#[test]
fn all_problems_are_reported_at_once_with_their_paths() {
    let text = r#"
hostname: "a b"
nats: { url: "http://127.0.0.1" }
durability: none
partitions: 0
storage: { replicas: 2, volumeBytes: 20GB }
resolvers: ["127.0.0.1"]
ingress:
  listeners:
    - { name: a, address: "0.0.0.0:25", tls: starttls, key: k.pem }
    - { name: a, address: "0.0.0.0:25", tls: none, allowPlaintextAuthFrom: ["10.0.0.0/8", "127.0.0.0/7"], maxRecipients: 50 }
    - { name: b, address: "0.0.0.0:26", tls: none }
    - { name: b, address: "0.0.0.0:26", tls: none, dataTimeout: 0 }
signer: { listen: localhost, thread: 4 }
scheduler: { listen: "0.0.0.0:7103" }
sender: { signers: ["127.0.0.1:7102"], credit: many }
"#;
    assert_eq!(
        problems(text),
        [
            r#"storage.volumeBytes (line 6): a size such as 512B, 64KiB, 25MiB or 20GiB is expected, found "20GB""#,
            "storage.replicas (line 6): 1 or 3 is expected, found 2",
            r#"hostname (line 2): a domain is expected (the domain has an invalid label), found "a b""#,
            r#"nats.url (line 3): a URL nats://… or tls://… is expected, found "http://127.0.0.1""#,
            r#"durability (line 4): one of strict, relaxed is expected, found "none""#,
            "partitions (line 5): a whole number from 1 to 64 is expected, found the number 0",
            r#"resolvers[0] (line 7): an address IP:port is expected, found "127.0.0.1""#,
            "ingress.listeners[0].certificate (line 10): is missing: tls is starttls",
            r#"ingress.listeners[1].allowPlaintextAuthFrom[0] (line 11): only loopback networks are accepted, found "10.0.0.0/8""#,
            r#"ingress.listeners[1].allowPlaintextAuthFrom[1] (line 11): only loopback networks are accepted, found "127.0.0.0/7""#,
            "ingress.listeners[1].maxRecipients (line 11): a whole number from 100 to 10000 is expected, found the number 50",
            "ingress.listeners[3].dataTimeout (line 13): must not be 0",
            "ingress.listeners[3].name (line 13): \"b\" is used twice",
            "ingress.listeners[3].address (line 13): the listener \"b\" has the same",
            "signer.listen (line 14): an address IP:port is expected, found \"localhost\"",
            "signer.thread (line 14): unknown field; known: listen, metrics, threads",
            "scheduler.advertise (line 15): is missing: listen names no address that others could use",
            r#"sender.signers[0] (line 16): a URL http://host:port is expected, found "127.0.0.1:7102""#,
            r#"sender.credit (line 16): a whole number from 1 to 65536 is expected, found the text "many""#,
        ]
    );
}

#[test]
fn strangers_at_an_inbound_listener_get_less() {
    let text = "
tokens: { keys: tokens.keys, lifetime: 14d }
ingress: { listeners: [ { name: back, kind: inbound, tls: none } ] }
";
    let bootstrap = Bootstrap::from_yaml_in(text, Path::new("/conf")).unwrap();
    let inbound = &bootstrap.ingress.listeners[0];
    assert_eq!(inbound.data_timeout.as_millis(), 60_000);
    assert_eq!(inbound.max_recipients, 100);
    let too_much = text
        .replace("tls: none", "tls: none, maxRecipients: 101")
        .replace("14d", "13d");
    assert_eq!(
        problems(&too_much),
        [
            "tokens.lifetime (line 2): whole days from 14d to 365d are expected, found 13d",
            "ingress.listeners[0].maxRecipients (line 3): a whole number from 100 to 100 is expected, found the number 101",
        ]
    );
}

#[test]
fn mail_of_others_is_forwarded_where_the_file_says_so() {
    let forwarding = |text: &str| {
        let bootstrap = Bootstrap::from_yaml_in(text, Path::new("/conf")).unwrap();
        bootstrap.ingress.forwarding
    };
    assert_eq!(forwarding(""), None);
    let usual = forwarding("ingress: { forwarding: { srsSecrets: srs } }").unwrap();
    assert_eq!(usual.secrets, Path::new("/conf/srs"));
    assert_eq!((usual.hash_length, usual.max_age_days()), (4, 21));
    let other = forwarding(
        "ingress: { forwarding: { srsSecrets: /srs, srsHashLength: 8, srsMaxAge: 7d } }",
    )
    .unwrap();
    assert_eq!(other.secrets, Path::new("/srs"));
    assert_eq!((other.hash_length, other.max_age_days()), (8, 7));
    assert_eq!(
        problems("ingress: { forwarding: { srsHashLength: 3, srsMaxAge: 36h, srs: x } }"),
        [
            "ingress.forwarding.srsSecrets (line 1): is missing",
            "ingress.forwarding.srsHashLength (line 1): a whole number from 4 to 20 is expected, found the number 3",
            "ingress.forwarding.srsMaxAge (line 1): whole days from 1d to 365d are expected, found 36h",
            "ingress.forwarding.srs (line 1): unknown field; known: srsSecrets, srsHashLength, srsMaxAge",
        ]
    );
    assert_eq!(
        problems("ingress: { forwarding: {} }"),
        ["ingress.forwarding.srsSecrets (line 1): is missing"]
    );
}

#[test]
fn policies_of_domains_are_asked_for_unless_it_says_otherwise() {
    let read = |text: &str| Bootstrap::from_yaml_in(text, Path::new("/conf"));
    let sender = read("").unwrap().sender;
    assert_eq!(sender.authorities, None);
    let usual = MtaSts {
        enabled: true,
        port: 443,
        allow_private: false,
    };
    assert_eq!(sender.mta_sts, usual);
    // It asks for resolvers that not everybody has.
    assert!(
        !sender.dane
            && read("sender: { dane: { enabled: true } }")
                .unwrap()
                .sender
                .dane
    );
    let text = "sender: { authorities: ca.pem, mtaSts: { enabled: false, port: 8443, allowPrivate: true } }";
    let sender = read(text).unwrap().sender;
    assert_eq!(
        sender.authorities.as_deref(),
        Some(Path::new("/conf/ca.pem"))
    );
    let other = MtaSts {
        enabled: false,
        port: 8443,
        allow_private: true,
    };
    assert_eq!(sender.mta_sts, other);
    assert_eq!(
        problems(
            "sender: { mtaSts: { enabled: maybe, port: 65536, ca: x }, dane: { enabled: 1, resolvers: x } }"
        ),
        [
            r#"sender.mtaSts.port (line 1): a whole number from 1 to 65535 is expected, found the number 65536"#,
            r#"sender.mtaSts.enabled (line 1): true or false is expected, found the text "maybe""#,
            r#"sender.mtaSts.ca (line 1): unknown field; known: port, enabled, allowPrivate"#,
            r#"sender.dane.enabled (line 1): true or false is expected, found the number 1"#,
            r#"sender.dane.resolvers (line 1): unknown field; known: enabled"#,
        ]
    );
}

#[test]
fn transcripts_are_kept_as_long_and_as_far_as_is_said() {
    let read = |text| Bootstrap::from_yaml(text).unwrap();
    let usual = read("");
    let week = mail::Span::from_secs(7 * 86_400);
    assert_eq!(usual.storage.transcripts_age, week);
    assert_eq!(usual.storage.transcripts_size, None);
    let (enabled, one_in) = (true, 0);
    assert_eq!(usual.sender.transcripts, Transcripts { enabled, one_in });
    let said = read(
        "storage: { volumeBytes: 1GiB, transcripts: { maxAge: 1h, maxBytes: 40MiB } }\nsender: { transcripts: { sampleOneIn: 1000 } }",
    );
    assert_eq!(
        said.storage.transcripts_size,
        Some(mail::ByteSize::from_mib(40))
    );
    assert_eq!(said.sender.transcripts.one_in, 1000);
    assert_eq!(
        problems(
            "storage: { volumeBytes: 1GiB, transcripts: { maxAge: 59m, maxBytes: 1GiB, path: x } }\nsender: { transcripts: { enabled: false, sampleOneIn: 5 } }"
        ),
        [
            r#"storage.transcripts.maxAge (line 1): 1h to 365d is expected, found 59m"#,
            r#"storage.transcripts.maxBytes (line 1): 1MiB to 4 % of the volume (42949672 bytes) is expected, found 1GiB"#,
            r#"storage.transcripts.path (line 1): unknown field; known: maxAge, maxBytes"#,
            r#"sender.transcripts.sampleOneIn (line 2): has no use: enabled is false"#,
        ]
    );
}

#[test]
fn a_file_that_is_not_there_and_a_broken_one_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("staffetta.yaml");
    let error = Bootstrap::load(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: No such file", path.display())),
        "{error}"
    );
    std::fs::write(&path, "nats: { url: \n").unwrap();
    let error = Bootstrap::load(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: line ", path.display())),
        "{error}"
    );
    assert!(error.contains("not valid YAML"), "{error}");
}

#[test]
fn a_variable_of_the_environment_becomes_part_of_a_value_and_one_that_is_not_set_is_a_problem() {
    // Cargo sets it for every test.
    let expected = format!("{}:7103", env!("CARGO_PKG_NAME"));
    let bootstrap =
        Bootstrap::from_yaml("scheduler: { advertise: \"${CARGO_PKG_NAME}:7103\" }").unwrap();
    assert_eq!(bootstrap.scheduler.advertise, expected);
    let text = "redis: { url: \"redis://${STAFFETTA_TEST_UNSET}:1\" }\nnats: { url: \"${}\" }";
    assert_eq!(
        problems(text),
        [
            "redis.url (line 1): the environment variable STAFFETTA_TEST_UNSET is not set",
            r#"nats.url (line 2): the name of an environment variable is expected in ${…}, found """#,
        ]
    );
}

#[test]
fn the_admin_listener_has_certificates_for_both_sides() {
    let whole = "scheduler: { admin: { listen: \"0.0.0.0:7443\", certificate: c.pem, key: k.pem, clientAuthorities: /ca.pem } }";
    let bootstrap = Bootstrap::from_yaml_in(whole, Path::new("/conf")).unwrap();
    let admin = bootstrap.scheduler.admin.unwrap();
    assert_eq!(admin.listen.port(), 7443);
    assert_eq!(admin.files.certificate, Path::new("/conf/c.pem"));
    assert_eq!(admin.files.key, Path::new("/conf/k.pem"));
    assert_eq!(admin.client_authorities, Path::new("/ca.pem"));
    assert!(Bootstrap::from_yaml("").unwrap().scheduler.admin.is_none());
    assert_eq!(
        problems("scheduler: { admin: { listen: \"7443\", certificate: c.pem, key: k.pem } }"),
        [
            r#"scheduler.admin.listen (line 1): an address IP:port is expected, found "7443""#,
            "scheduler.admin.clientAuthorities (line 1): is missing",
        ]
    );
}

#[test]
fn domains_are_looked_at_when_it_is_asked_for() {
    let every = |text: &str| Bootstrap::from_yaml(text).unwrap().sender.domain_checks;
    assert_eq!(every(""), None);
    let hours = |hours: u64| Some(Span::from_secs(hours * 3_600));
    assert_eq!(every("sender: { domainChecks: {} }"), hours(6));
    assert_eq!(every("sender: { domainChecks: { every: 1h } }"), hours(1));
    assert_eq!(
        problems("sender: { domainChecks: { every: 1m } }"),
        ["sender.domainChecks.every (line 1): 10m to 30d is expected, found 1m"]
    );
}

#[test]
fn who_reports_about_tls_says_who_it_is() {
    let whole =
        "tlsReports: { organization: Relay, contact: a@b.example, from: tls@b.example, tenant: t }";
    let reports = Bootstrap::from_yaml(whole).unwrap().tls_reports.unwrap();
    assert_eq!(reports.organization, "Relay");
    assert_eq!(reports.from.as_str(), "tls@b.example");
    assert!(Bootstrap::from_yaml("").unwrap().tls_reports.is_none());
    assert_eq!(
        problems("tlsReports: { organization: \"a\\nb\", from: x, tenant: t, every: 1d }"),
        [
            "tlsReports.organization (line 1): one line of 1 to 200 characters is expected",
            "tlsReports.contact (line 1): is missing",
            r#"tlsReports.from (line 1): an ASCII address local@domain is expected, found "x""#,
            "tlsReports.every (line 1): unknown field; known: organization, contact, tenant, from",
        ]
    );
}

#[test]
fn an_ipv6_address_gets_brackets_and_a_password_is_not_shown() {
    let bootstrap = Bootstrap::from_yaml("scheduler: { advertise: \"fd00::1:7103\" }").unwrap();
    assert_eq!(bootstrap.scheduler.advertise, "[fd00::1]:7103");
    assert_eq!(
        problems("nats: { url: \"http://me:secret@host\" }"),
        [r#"nats.url (line 1): a URL nats://… or tls://… is expected, found "…@host""#]
    );
}

#[test]
fn a_listener_behind_a_load_balancer_trusts_it_alone() {
    let listener = |more: &str| {
        format!(
            "ingress: {{ listeners: [ {{ name: p, address: \"0.0.0.0:2526\", tls: none, {more} }} ] }}"
        )
    };
    let text = listener("proxyProtocol: { trusted: [\"10.0.0.0/8\", \"fd00::/8\"] }");
    let bootstrap = Bootstrap::from_yaml(&text).unwrap();
    let proxy = bootstrap.ingress.listeners[0]
        .proxy_protocol
        .clone()
        .unwrap();
    assert_eq!(proxy.trusted.len(), 2);
    assert_eq!(proxy.header_timeout, Span::from_secs(5));
    let text = listener(
        "proxyProtocol: { headerTimeout: 0, network: x }, allowPlaintextAuthFrom: [\"127.0.0.0/8\"]",
    );
    assert_eq!(
        problems(&text),
        [
            "ingress.listeners[0].proxyProtocol.trusted (line 1): is missing: the networks of the load balancers",
            "ingress.listeners[0].proxyProtocol.headerTimeout (line 1): must not be 0",
            "ingress.listeners[0].proxyProtocol.network (line 1): unknown field; known: trusted, headerTimeout",
            "ingress.listeners[0].allowPlaintextAuthFrom (line 1): is not possible with proxyProtocol: who is on this machine is not known",
        ]
    );
}

#[test]
fn a_listener_has_certificates_for_several_names() {
    let listener = |more: &str| {
        format!("ingress: {{ listeners: [ {{ name: s, address: \"0.0.0.0:2526\", {more} }} ] }}")
    };
    let text = listener(
        "tls: implicit, certificate: a.pem, key: a.key, certificates: [ { certificate: b.pem, key: /k/b.key } ]",
    );
    let bootstrap = Bootstrap::from_yaml_in(&text, Path::new("/conf")).unwrap();
    let [first, second] = bootstrap.ingress.listeners[0].tls.files() else {
        panic!("two certificates")
    };
    assert_eq!(first.certificate, Path::new("/conf/a.pem"));
    assert_eq!(second.key, Path::new("/k/b.key"));
    assert_eq!(
        problems(&listener(
            "tls: starttls, certificates: [ { certificate: b.pem }, { key: c.key, name: x } ]"
        )),
        [
            "ingress.listeners[0].certificates[0].key (line 1): is missing: each certificate has both",
            "ingress.listeners[0].certificates[1].certificate (line 1): is missing: each certificate has both",
            "ingress.listeners[0].certificates[1].name (line 1): unknown field; known: certificate, key",
            "ingress.listeners[0].certificate (line 1): is missing: tls is starttls",
        ]
    );
    assert_eq!(
        problems(&listener(
            "tls: none, certificates: [ { certificate: b.pem, key: b.key } ], clientAuthorities: ca.pem"
        )),
        [
            "ingress.listeners[0].certificates (line 1): have no use: tls is none",
            "ingress.listeners[0].clientAuthorities (line 1): have no use: tls is none",
        ]
    );
}

#[test]
fn a_listener_believes_proxies_that_say_xclient() {
    let listener = |more: &str| {
        format!(
            "ingress: {{ listeners: [ {{ name: x, address: \"0.0.0.0:2526\", tls: none, {more} }} ] }}"
        )
    };
    let bootstrap =
        Bootstrap::from_yaml(&listener("xclient: { trusted: [\"10.0.0.0/8\"] }")).unwrap();
    assert_eq!(bootstrap.ingress.listeners[0].xclient_trusted.len(), 1);
    assert_eq!(
        problems(&listener(
            "xclient: { trusted: [] }, proxyProtocol: { trusted: [x] }"
        )),
        [
            "ingress.listeners[0].proxyProtocol.trusted[0] (line 1): a network such as 10.0.0.0/8 is expected, found \"x\"",
            "ingress.listeners[0].proxyProtocol.trusted (line 1): is missing: the networks of the load balancers",
            "ingress.listeners[0].xclient.trusted (line 1): is missing: the networks of the proxies",
        ]
    );
    assert_eq!(
        problems(&listener(
            "xclient: { trusted: [\"::1/128\"] }, proxyProtocol: { trusted: [\"::1/128\"] }"
        )),
        ["ingress.listeners[0].xclient (line 1): is not possible with proxyProtocol"]
    );
}

#[test]
fn servers_and_we_know_each_other() {
    let text = r#"
nats: { url: "tls://nats:4222", credentials: nats.creds, authorities: ca.pem, certificate: /c.pem, key: k.pem }
redis: { url: "rediss://redis:6379", username: staffetta, password: "p/@:", authorities: ca.pem }
"#;
    let bootstrap = Bootstrap::from_yaml_in(text, Path::new("/conf")).unwrap();
    let (nats, redis) = (&bootstrap.nats, &bootstrap.redis);
    assert_eq!(
        nats.credentials.as_deref(),
        Some(Path::new("/conf/nats.creds"))
    );
    assert_eq!(nats.authorities.as_deref(), Some(Path::new("/conf/ca.pem")));
    let files = nats.certificate.clone().unwrap();
    assert_eq!(files.certificate, Path::new("/c.pem"));
    assert_eq!(
        redis.login,
        Some(("staffetta".to_owned(), "p/@:".to_owned()))
    );
    assert!(!format!("{bootstrap:?}").contains("p/@:"));
    // A variable that is empty is no password.
    let none = Bootstrap::from_yaml("redis: { username: \"\", password: \"\" }").unwrap();
    assert_eq!(none.redis.login, None);
    let several = "redis: { url: 'redis://a:6379,redis://b:6379' }";
    let several = Bootstrap::from_yaml(several).unwrap();
    assert_eq!(several.redis.url, "redis://a:6379,redis://b:6379");
    assert_eq!(
        problems("redis: { url: 'redis://a:6379,b:6379' }"),
        [
            "redis.url (line 1): a URL redis://… or rediss://… is expected, found \"redis://a:6379,b:6379\""
        ]
    );
    let text = r#"
nats: { username: a, password: b, credentials: c, key: k }
redis: { username: a, authorities: ca.pem }
"#;
    assert_eq!(
        problems(text),
        [
            "nats.certificate (line 2): is missing: there is a key",
            "nats.credentials (line 2): either credentials or username and password",
            "redis.password (line 3): is missing: there is a username",
            "redis.authorities (line 3): has no use without TLS: url is redis://…",
        ]
    );
}

#[test]
fn links_are_answered_where_it_is_said_and_only_with_keys() {
    let text = "tokens: { keys: token.keys }\nfeedback:\n  links:\n    listen: 0.0.0.0:8443\n    proxies: [ 10.0.0.0/8 ]\n    maxConnections: 7\n    \
                certificates: [ { certificate: u.pem, key: /etc/u.key } ]\n";
    let bootstrap = Bootstrap::from_yaml_in(text, Path::new("/conf")).unwrap();
    let links = bootstrap.feedback.links.unwrap();
    assert_eq!(links.listen.port(), 8443);
    assert_eq!(links.certificates[0].certificate, Path::new("/conf/u.pem"));
    assert_eq!(links.certificates[0].key, Path::new("/etc/u.key"));
    assert_eq!(
        (links.max_connections, links.max_connections_per_client),
        (7, 50)
    );
    assert_eq!(links.proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert!(Bootstrap::from_yaml("").unwrap().feedback.links.is_none());

    let found = problems(
        "feedback: { links: { port: 1, maxConnections: 0, proxies: [ x ], certificates: [ { key: k } ] } }",
    );
    let expected = [
        "feedback.links.listen (line 1): is missing",
        "feedback.links.certificates[0].certificate (line 1): is missing: each certificate has both",
        "feedback.links.maxConnections (line 1): a whole number from 1 to 100000",
        "feedback.links.proxies[0] (line 1): a network such as 10.0.0.0/8 is expected",
        "feedback.links.port (line 1): unknown field",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for expected in expected {
        let is_there = found.iter().any(|problem| problem.contains(expected));
        assert!(is_there, "{expected}: {found:#?}");
    }
    let found = problems("feedback: { links: { listen: \"127.0.0.1:80\" } }");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("feedback.links (line 1): can't be read without tokens"),
        "{found:#?}"
    );
}
