//! What is published, by a real DNS server (dnsmasq) and a real https server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use kit::{Dns, WebServer, Zones};
use mail::Domain;
use records::{Doctor, Finding, Key, KeyUse, Source, Subject, Topic, Verdict};
use tempfile::TempDir;

const FIRST: &str = "192.0.2.10";
const SECOND: &str = "2001:db8::11";
const TYPE_PTR: u16 = 12;

/// A domain about which everything is right.
struct Good {
    zones: Zones,
    subject: Subject,
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn record() -> String {
    let pem = dkim::generate_ed25519();
    dkim::Key::from_pem(pem.as_bytes()).unwrap().dns_record()
}

fn key(selector: &str, record: &str, used: KeyUse) -> Key {
    Key {
        selector: selector.to_owned(),
        record: record.to_owned(),
        used,
        problem: String::new(),
    }
}

fn source(name: &str, address: &str, ehlo: &str) -> Source {
    Source {
        name: name.to_owned(),
        address: address.parse().ok(),
        ehlo: ehlo.to_owned(),
    }
}

impl Good {
    fn new() -> Self {
        let key_record = record();
        let mut zones = Zones::new()
            .text("acme.example", "v=spf1 include:_spf.relay.example -all")
            .text(
                "_spf.relay.example",
                "v=spf1 ip4:192.0.2.0/28 a:out2.relay.example ~all",
            )
            .text("s1._domainkey.acme.example", &key_record)
            .text(
                "_dmarc.acme.example",
                "v=DMARC1; p=reject; rua=mailto:dmarc@acme.example",
            )
            .mx("acme.example", 10, "mx.acme.example")
            .address("mx.acme.example", "192.0.2.80".parse().unwrap())
            .address("out1.relay.example", FIRST.parse().unwrap())
            .address("out2.relay.example", SECOND.parse().unwrap())
            .text("_mta-sts.acme.example", "v=STSv1; id=20261122")
            .address("mta-sts.acme.example", "127.0.0.1".parse().unwrap())
            .text(
                "_smtp._tls.acme.example",
                "v=TLSRPTv1; rua=mailto:tls@acme.example",
            );
        // A domain has more texts than ours.
        for number in 0..20 {
            zones = zones.text("acme.example", &format!("verification={number}"));
        }
        let subject = Subject {
            domain: domain("acme.example"),
            signed_by: domain("acme.example"),
            return_path: domain("acme.example"),
            keys: vec![key("s1", &key_record, KeyUse::Active)],
            unsigned: false,
            sources: vec![
                source("a", FIRST, "out1.relay.example"),
                source("b", SECOND, "out2.relay.example"),
            ],
        };
        Self { zones, subject }
    }
}

struct World {
    doctor: Doctor,
    web: WebServer,
    _dns: Dns,
    _folder: TempDir,
}

impl World {
    async fn with(zones: &Zones) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dns = Dns::start(folder.path(), zones).await.unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let web = WebServer::start(address, &["mta-sts.acme.example"])
            .await
            .unwrap();
        let authority = web.write_authority(folder.path()).unwrap();
        let mut doctor = Doctor::new(&[dns.address()]).unwrap();
        let port = web.address().port();
        doctor.fetch(Some(&authority), port).unwrap();
        let world = Self {
            doctor,
            web,
            _dns: dns,
            _folder: folder,
        };
        world.policy("version: STSv1\nmode: enforce\nmx: *.acme.example\nmax_age: 86400\n");
        world
    }

    fn policy(&self, policy: &str) {
        let path = "/.well-known/mta-sts.txt";
        self.web.show(path, "Content-Type: text/plain\r\n", policy);
    }
}

/// Findings about a topic that are worse than fine, with what is to be published.
fn bad(findings: &[Finding], topic: Topic) -> Vec<(Verdict, String, Option<String>)> {
    let of_topic = findings.iter().filter(|finding| finding.topic == topic);
    of_topic
        .filter(|finding| finding.verdict != Verdict::Fine)
        .map(|finding| {
            let publish = finding.publish.as_ref();
            let publish =
                publish.map(|record| format!("{} {} {}", record.name, record.kind, record.value));
            (finding.verdict, finding.what.clone(), publish)
        })
        .collect()
}

#[tokio::test]
async fn finds_nothing_where_everything_is_right() {
    let Good { zones, subject } = Good::new();
    let world = World::with(&zones).await;
    let findings = world.doctor.examine(&subject).await;
    for finding in &findings {
        assert_eq!(finding.verdict, Verdict::Fine, "{finding:?}");
        assert_eq!(finding.publish, None);
    }
    let topics: Vec<&str> = findings
        .iter()
        .map(|finding| finding.topic.as_str())
        .collect();
    assert_eq!(
        topics,
        [
            "spf",
            "spf",
            "dkim",
            "dmarc",
            "dmarc",
            "return-path",
            "names",
            "names",
            "mta-sts",
            "tls-rpt"
        ]
    );
}

#[tokio::test]
async fn says_what_to_publish_where_there_is_nothing() {
    let Good { subject, .. } = Good::new();
    let world = World::with(&Zones::new()).await;
    let findings = world.doctor.examine(&subject).await;
    let record = &subject.keys[0].record;
    for (topic, what, publish) in [
        (
            Topic::Spf,
            "there is no SPF record",
            "acme.example TXT v=spf1 ip4:192.0.2.10 ip6:2001:db8::11 -all".to_owned(),
        ),
        (
            Topic::Dkim,
            "there is no record of the key; it signs",
            format!("s1._domainkey.acme.example TXT {record}"),
        ),
        (
            Topic::Dmarc,
            "there is no DMARC record",
            "_dmarc.acme.example TXT v=DMARC1; p=none; rua=mailto:dmarc@acme.example".to_owned(),
        ),
        (
            Topic::Names,
            "source a: the address has no name (PTR)",
            "10.2.0.192.in-addr.arpa PTR out1.relay.example.".to_owned(),
        ),
    ] {
        let found = bad(&findings, topic);
        let (verdict, said, wanted) = &found[0];
        assert_eq!(
            (*verdict, wanted.as_deref()),
            (Verdict::Wrong, Some(publish.as_str()))
        );
        assert!(said.starts_with(what), "{said}");
    }
    let back = bad(&findings, Topic::ReturnPath);
    assert!(
        back[0].1.starts_with("there is no MX: bounces can't"),
        "{back:?}"
    );
    for topic in [Topic::MtaSts, Topic::TlsRpt] {
        assert_eq!(bad(&findings, topic)[0].0, Verdict::Note);
    }
}

#[tokio::test]
async fn tells_which_source_spf_leaves_out() {
    let mut good = Good::new();
    good.subject
        .sources
        .push(source("c", "198.51.100.7", "out3.relay.example"));
    good.subject
        .sources
        .push(source("d", "any", "out4.relay.example"));
    let world = World::with(&good.zones).await;
    let findings = world.doctor.examine(&good.subject).await;
    let found = bad(&findings, Topic::Spf);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[0].1,
        "198.51.100.7 (source c) is not among those that may send (fail)"
    );
    let publish = "acme.example TXT v=spf1 include:_spf.relay.example ip4:198.51.100.7 -all";
    assert_eq!(found[0].2.as_deref(), Some(publish));
    assert_eq!(found[1].0, Verdict::Note);
    assert!(
        found[1].1.contains("the source d has no address"),
        "{found:?}"
    );
}

#[tokio::test]
async fn knows_records_that_receivers_can_not_evaluate() {
    for (records, verdict, what) in [
        (
            &["v=spf1 include:none.example -all"][..],
            Verdict::Wrong,
            "can't be evaluated",
        ),
        (
            &["v=spf1 ip4:999 -all"],
            Verdict::Wrong,
            "can't be evaluated",
        ),
        (
            &["v=spf1 include:acme.example -all"],
            Verdict::Wrong,
            "can't be evaluated",
        ),
        (
            &["v=spf1 -all", "v=spf1 ~all"],
            Verdict::Wrong,
            "there are 2 SPF records",
        ),
        (
            &["v=spf1 +all"],
            Verdict::Note,
            "lets every address of the world send",
        ),
    ] {
        let zones = records.iter().fold(Zones::new(), |zones, record| {
            zones.text("acme.example", record)
        });
        let world = World::with(&zones).await;
        let subject = Good::new().subject;
        let found = bad(&world.doctor.examine(&subject).await, Topic::Spf);
        let fits = found
            .iter()
            .any(|(found, said, _)| *found == verdict && said.contains(what));
        assert!(fits, "{records:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_key_is_judged_by_what_is_done_with_it() {
    let (own, other) = (record(), record());
    let zones = Zones::new()
        .text("shown._domainkey.acme.example", &own)
        .text("other._domainkey.acme.example", &other)
        .text("test._domainkey.acme.example", &format!("{own}; t=y"))
        .text("revoked._domainkey.acme.example", "v=DKIM1; k=ed25519; p=");
    let world = World::with(&zones).await;
    use KeyUse::{Active, Missing, Pending, Retired, Retiring};
    for (selector, used, verdict, what) in [
        (
            "shown",
            Active,
            Verdict::Fine,
            "the DNS shows the public key",
        ),
        ("absent", Active, Verdict::Wrong, "there is no record"),
        ("other", Active, Verdict::Wrong, "is of another key"),
        ("revoked", Active, Verdict::Wrong, "is revoked"),
        ("test", Active, Verdict::Note, "as a test"),
        ("absent", Pending, Verdict::Note, "waits for its record"),
        (
            "absent",
            Retiring,
            Verdict::Note,
            "its record is still needed",
        ),
        ("shown", Retired, Verdict::Note, "its record can go"),
        ("absent", Retired, Verdict::Fine, "its record can go"),
    ] {
        let mut subject = Good::new().subject;
        subject.keys = vec![key(selector, &own, used)];
        let findings = world.doctor.examine(&subject).await;
        let name = format!("{selector}._domainkey.acme.example");
        let found = findings.iter().find(|finding| finding.at == name).unwrap();
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.what.contains(what), "{found:?}");
        let no_key = bad(&findings, Topic::Dkim);
        let none_signs = no_key
            .iter()
            .any(|(_, what, _)| what == "no key of the domain signs");
        assert_eq!(none_signs, used != Active);
    }
    let mut subject = Good::new().subject;
    subject.keys = vec![Key {
        problem: "/k: No such file".to_owned(),
        ..key("s1", "", Missing)
    }];
    let found = bad(&world.doctor.examine(&subject).await, Topic::Dkim);
    assert!(
        found[1].1.contains("can't be used: /k: No such file"),
        "{found:?}"
    );
}

#[tokio::test]
async fn alignment_is_relaxed_or_strict_as_the_record_says() {
    for (record, return_path, signed_by, unsigned, verdict) in [
        (
            "v=DMARC1; p=reject; rua=mailto:a@b.example",
            "bounce.acme.example",
            "acme.example",
            false,
            Verdict::Fine,
        ),
        (
            "v=DMARC1; p=reject; aspf=s; rua=mailto:a@b.example",
            "bounce.acme.example",
            "acme.example",
            true,
            Verdict::Wrong,
        ),
        (
            "v=DMARC1; p=reject; rua=mailto:a@b.example",
            "bounce.acme.example",
            "acme.example",
            true,
            Verdict::Note,
        ),
        (
            "v=DMARC1; p=reject; rua=mailto:a@b.example",
            "relay.example",
            "acme.example",
            false,
            Verdict::Fine,
        ),
        (
            "v=DMARC1; p=reject; rua=mailto:a@b.example",
            "relay.example",
            "acme.example",
            true,
            Verdict::Wrong,
        ),
        (
            "v=DMARC1; p=reject; adkim=s; rua=mailto:a@b.example",
            "relay.example",
            "example",
            false,
            Verdict::Wrong,
        ),
        (
            "v=DMARC1; p=none; rua=mailto:a@b.example",
            "acme.example",
            "acme.example",
            false,
            Verdict::Note,
        ),
        (
            "v=DMARC1; p=reject",
            "acme.example",
            "acme.example",
            false,
            Verdict::Note,
        ),
        (
            "v=DMARC1; nonsense",
            "acme.example",
            "acme.example",
            false,
            Verdict::Wrong,
        ),
    ] {
        let zones = Zones::new().text("_dmarc.acme.example", record);
        let world = World::with(&zones).await;
        let subject = Subject {
            return_path: domain(return_path),
            signed_by: domain(signed_by),
            unsigned,
            ..Good::new().subject
        };
        let findings = world.doctor.examine(&subject).await;
        let found = bad(&findings, Topic::Dmarc);
        let worst = found.iter().map(|(verdict, ..)| *verdict).max();
        assert_eq!(
            worst.unwrap_or(Verdict::Fine),
            verdict,
            "{record} {return_path}: {findings:?}"
        );
    }
    // A record above holds for what is below.
    let above = "v=DMARC1; p=reject; sp=none; rua=mailto:a@b.example";
    let world = World::with(&Zones::new().text("_dmarc.acme.example", above)).await;
    let below = Subject {
        domain: domain("news.acme.example"),
        ..Good::new().subject
    };
    let found = bad(&world.doctor.examine(&below).await, Topic::Dmarc);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].1.starts_with("that of acme.example holds, p=none"),
        "{found:?}"
    );
}

#[tokio::test]
async fn names_must_lead_back_and_be_said() {
    let address = || FIRST.parse().unwrap();
    let reverse = "10.2.0.192.in-addr.arpa";
    let pointer = |labels: &[&str]| {
        let mut data = Vec::new();
        for label in labels {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        data
    };
    let other = pointer(&["other", "relay", "example"]);
    for (zones, verdict, what) in [
        (
            Zones::new().address("out1.relay.example", address()),
            Verdict::Fine,
            "its name is out1.relay.example, which leads back",
        ),
        (
            Zones::new().record(reverse, TYPE_PTR, &other),
            Verdict::Wrong,
            "the name that it says in EHLO, out1.relay.example, does not lead to it",
        ),
        (
            Zones::new()
                .address("other.relay.example", address())
                .alias("out1.relay.example", "other.relay.example"),
            Verdict::Note,
            "its name is other.relay.example, and it says out1.relay.example in EHLO",
        ),
    ] {
        let world = World::with(&zones).await;
        let mut subject = Good::new().subject;
        subject.sources.truncate(1);
        let findings = world.doctor.examine(&subject).await;
        let found = findings
            .iter()
            .find(|finding| finding.topic == Topic::Names)
            .unwrap();
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.what.contains(what), "{found:?}");
    }
}

#[tokio::test]
async fn a_policy_must_be_there_and_name_the_hosts() {
    let Good { zones, subject } = Good::new();
    let world = World::with(&zones).await;
    for (policy, verdict, what) in [
        (
            "version: STSv1\nmode: enforce\nmx: mx.other.example\nmax_age: 1\n",
            Verdict::Wrong,
            "does not name mx.acme.example",
        ),
        (
            "version: STSv1\nmode: testing\nmx: mx.other.example\nmax_age: 1\n",
            Verdict::Note,
            "does not name mx.acme.example",
        ),
        (
            "version: STSv1\nmode: none\nmax_age: 1\n",
            Verdict::Fine,
            "mode none",
        ),
        ("nothing", Verdict::Wrong, "can't be fetched: line 1"),
    ] {
        world.policy(policy);
        let findings = world.doctor.examine(&subject).await;
        let found = findings
            .iter()
            .find(|finding| finding.topic == Topic::MtaSts)
            .unwrap();
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.what.contains(what), "{found:?}");
    }
}

/// A server that refuses to answer says nothing about a domain.
#[tokio::test]
async fn what_is_not_answered_is_not_known() {
    let Good { subject, .. } = Good::new();
    let world = World::with(&Zones::new().only("elsewhere.example")).await;
    let findings = world.doctor.examine(&subject).await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Unknown)
    );
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::Unknown, "{finding:?}");
    }
}
