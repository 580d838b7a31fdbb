use smtp::CommandDecoder;

use super::*;
use crate::policy::By;

const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-net }
spec: { tenant: acme, networks: [ 192.0.2.0/24 ], certificates: [ app.acme.example ], tokens: [ { issuer: corp, subject: app-1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: { name: corp }
spec: { issuer: corp, audiences: [ relay ], jwksFile: file:/keys.json }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
";

const NOW_MS: u64 = 1_795_351_205_000;

struct Client {
    session: Session,
    snapshot: Snapshot,
    measures: MeasureMap,
    storage: Storage,
    suppressed: Option<Table>,
    out: Vec<u8>,
    effect: Effect,
}

fn client(tls: bool) -> Client {
    let listener = ListenerPolicy {
        hostname: "relay.example".to_owned(),
        starttls: true,
        allow_plaintext_auth_from: Vec::new(),
        scram: false,
        xclient_trusted: vec!["198.51.100.0/24".parse().unwrap()],
        max_message_size: 1000,
        max_recipients: 2,
        forwarding: None,
        simulator: Domain::parse("simulator.example").unwrap(),
    };
    Client {
        session: Session::new(
            Arc::new(listener),
            Arc::new(Metrics::new()),
            crate::proxy::Client::connected([192, 0, 2, 1].into()),
            tls,
        ),
        snapshot: Snapshot::from_documents(DOCUMENTS).unwrap(),
        measures: MeasureMap::default(),
        storage: Storage::Ready,
        suppressed: None,
        out: Vec::new(),
        effect: Effect::Continue,
    }
}

impl Client {
    /// Says a line; gives what is answered to it.
    fn say(&mut self, line: &str) -> String {
        self.out.clear();
        let command = CommandDecoder::new()
            .decode(format!("{line}\r\n").as_bytes())
            .item
            .unwrap();
        let moment = Moment {
            snapshot: &self.snapshot,
            measures: &self.measures,
            storage: self.storage,
            suppressed: self.suppressed.as_ref(),
            now_ms: NOW_MS,
        };
        self.effect = self.session.command(command, moment, &mut self.out);
        if let Effect::NewClient = self.effect {
            self.session.greet(&mut self.out);
        }
        String::from_utf8(self.out.clone()).unwrap()
    }

    /// The code of the answer.
    fn code(&mut self, line: &str) -> String {
        self.say(line).chars().take(3).collect()
    }
}

#[test]
fn data_is_received_only_with_a_recipient() {
    let mut client = client(false);
    for (line, code) in [
        ("DATA", "503"),
        ("EHLO c.example", "250"),
        ("RCPT TO:<a@d.example>", "503"),
        ("MAIL FROM:<x@acme.example>", "250"),
        ("DATA", "554"),
        ("RCPT TO:<a@[127.0.0.1]>", "550"),
        ("DATA", "554"),
        ("RCPT TO:<a@d.example>", "250"),
    ] {
        assert_eq!(client.code(line), code, "{line}");
    }
    assert_eq!(client.say("DATA"), "");
    assert!(matches!(client.effect, Effect::Receive));
    let transaction = client.session.take_transaction().unwrap();
    assert_eq!(transaction.sender.credential, "acme-net");
    assert_eq!(client.code("DATA"), "503");
}

#[test]
fn recipients_are_counted_once_and_up_to_the_limit() {
    let mut client = client(false);
    client.say("EHLO c.example");
    client.say("MAIL FROM:<x@acme.example>");
    for (recipient, code) in [
        ("a", "250"),
        ("a", "250"),
        ("b", "250"),
        ("c", "452"),
        ("b", "250"),
    ] {
        assert_eq!(
            client.code(&format!("RCPT TO:<{recipient}@d.example>")),
            code,
            "{recipient}"
        );
    }
    assert_eq!(
        client.session.take_transaction().unwrap().recipients.len(),
        2
    );
}

#[test]
fn storage_is_asked_for_at_mail() {
    let mut client = client(false);
    client.say("EHLO c.example");
    for (storage, answer) in [
        (Storage::Away, "451 4.3.0"),
        (Storage::Full, "452 4.3.1"),
        (Storage::Ready, "250"),
    ] {
        client.storage = storage;
        assert!(
            client.say("MAIL FROM:<x@acme.example>").starts_with(answer),
            "{storage:?}"
        );
    }
}

#[test]
fn tls_makes_everything_before_it_forgotten() {
    let mut client = client(false);
    client.say("EHLO c.example");
    client.say("MAIL FROM:<x@acme.example>");
    client.say("STARTTLS");
    assert!(matches!(client.effect, Effect::StartTls));
    client.session.tls_started(Vec::new());
    assert!(client.session.take_transaction().is_none());
    assert_eq!(client.code("MAIL FROM:<x@acme.example>"), "503");
    assert_eq!(client.code("STARTTLS"), "503");
    assert!(!client.say("EHLO c.example").contains("STARTTLS"));
    assert_eq!(client.session.protocol(), Protocol::Esmtps);
}

#[test]
fn a_proxy_says_whose_connection_it_is_and_is_nobody_itself() {
    let mut client = client(false);
    assert!(!client.say("EHLO c.example").contains("XCLIENT"));
    assert_eq!(client.code("XCLIENT ADDR=192.0.2.9"), "550");

    let proxy = crate::proxy::Client::connected([198, 51, 100, 1].into());
    client.session = Session::new(
        Arc::clone(&client.session.listener),
        Arc::clone(&client.session.metrics),
        proxy,
        false,
    );
    let ehlo = client.say("EHLO proxy.example");
    assert!(ehlo.contains("250 XCLIENT NAME ADDR PORT PROTO"), "{ehlo}");
    assert_eq!(client.code("MAIL FROM:<x@acme.example>"), "530");
    for (line, code) in [
        ("XCLIENT", "501"),
        ("XCLIENT ADDR=nowhere", "501"),
        ("XCLIENT ADDR=127.0.0.1", "501"),
        ("XCLIENT ADDR=192.0.2.9 LOGIN=app", "501"),
        ("XCLIENT ADDR=192.0.2.9 NAME=c.example", "220"),
        // As after the banner.
        ("MAIL FROM:<x@acme.example>", "503"),
        ("EHLO c.example", "250"),
        ("MAIL FROM:<x@acme.example>", "250"),
        ("XCLIENT ADDR=192.0.2.9", "503"),
        ("RSET", "250"),
        ("XCLIENT PROTO=ESMTP", "220"),
        ("EHLO c.example", "250"),
        ("MAIL FROM:<x@acme.example>", "250"),
        ("RSET", "250"),
        ("XCLIENT ADDR=[UNAVAILABLE]", "220"),
        ("EHLO c.example", "250"),
        ("MAIL FROM:<x@acme.example>", "530"),
    ] {
        assert_eq!(client.code(line), code, "{line}");
    }
}

#[test]
fn a_message_is_held_until_its_client_wants_it_to_be_released() {
    const NOW_MS: u64 = 1_795_351_205_000;
    let mut client = client(false);
    let ehlo = client.say("EHLO c.example");
    let announced = "FUTURERELEASE 2592000 2026-12-22T12:40:05Z";
    assert!(ehlo.contains(announced), "{ehlo}");
    for (parameter, not_before_ms) in [
        ("HOLDFOR=60", NOW_MS + 60_000),
        ("HOLDFOR=2592000", NOW_MS + 2_592_000_000),
        ("HOLDUNTIL=2026-11-22T12:40:06Z", NOW_MS + 1000),
        ("HOLDUNTIL=2026-11-22T12:40:05Z", 0),
        ("HOLDUNTIL=2020-01-01T00:00:00Z", 0),
        ("SIZE=1", 0),
    ] {
        let line = format!("MAIL FROM:<x@acme.example> {parameter}");
        assert_eq!(client.code(&line), "250", "{parameter}");
        let transaction = client.session.take_transaction().unwrap();
        assert_eq!(transaction.not_before_ms, not_before_ms, "{parameter}");
    }
    for parameter in [
        "HOLDFOR=2592001",
        "HOLDUNTIL=2026-12-22T12:40:06Z",
        "HOLDFOR=x",
    ] {
        let line = format!("MAIL FROM:<x@acme.example> {parameter}");
        assert!(client.say(&line).starts_with("501 5.5.4 "), "{parameter}");
    }
}

#[test]
fn a_certificate_speaks_for_its_client_and_not_for_whom_it_hands_on() {
    let mut client = client(false);
    let proxy = crate::proxy::Client::connected([198, 51, 100, 1].into());
    client.session = Session::new(
        Arc::clone(&client.session.listener),
        Arc::clone(&client.session.metrics),
        proxy,
        false,
    );
    client
        .session
        .tls_started(vec!["other.example".into(), "app.acme.example".into()]);
    for (line, code) in [
        ("EHLO c.example", "250"),
        ("MAIL FROM:<x@acme.example>", "250"),
        ("RSET", "250"),
        ("MAIL FROM:<x@other.example>", "550"),
        ("XCLIENT ADDR=203.0.113.1", "220"),
        ("EHLO c.example", "250"),
        ("MAIL FROM:<x@acme.example>", "530"),
    ] {
        assert_eq!(client.code(line), code, "{line}");
    }
}

#[test]
fn auth_in_the_clear_is_neither_offered_nor_taken() {
    let mut client = client(false);
    assert!(!client.say("EHLO c.example").contains("AUTH"));
    assert!(client.say("AUTH PLAIN AGEAYg==").starts_with("538 5.7.11"));
    assert!(!client.session.in_exchange());
}

#[test]
fn an_exchange_ends_in_a_claim_or_is_cancelled() {
    let mut client = client(true);
    assert!(client.say("EHLO c.example").contains("AUTH PLAIN LOGIN"));
    assert_eq!(client.say("AUTH LOGIN"), "334 VXNlcm5hbWU6\r\n");
    assert!(client.session.in_exchange());
    client.out.clear();
    client
        .session
        .auth_line(Ok(AuthLine::Cancel), &client.snapshot, &mut client.out);
    assert!(client.out.starts_with(b"501 5.7.0"));
    assert!(!client.session.in_exchange());
    client.say("AUTH PLAIN AGEAYg==");
    assert!(matches!(&client.effect, Effect::Login(claim) if claim.username == "a"));
    let identity = Identity {
        credential: "x".to_owned(),
        username: "a".to_owned(),
        by: By::Password,
    };
    client.session.logged_in(identity, &mut client.out);
    assert_eq!(client.code("AUTH PLAIN AGEAYg=="), "503");
    assert_eq!(client.session.protocol(), Protocol::Esmtpsa);
    // That credential is not in the configuration any more.
    assert_eq!(client.code("MAIL FROM:<x@acme.example>"), "550");
}

#[test]
fn a_login_by_token_lasts_as_long_as_the_token() {
    let mut client = client(true);
    client.say("EHLO c.example");
    let identity = |over_ms| Identity {
        credential: "acme-net".to_owned(),
        username: "app-1".to_owned(),
        by: By::Token {
            issuer: "corp".to_owned(),
            over_ms,
        },
    };
    let session = &mut client.session;
    session.logged_in(identity(NOW_MS + 1), &mut client.out);
    assert_eq!(client.code("MAIL FROM:<x@acme.example>"), "250");
    client.say("RSET");
    client.session.identity = Some(identity(NOW_MS));
    let reply = client.say("MAIL FROM:<x@acme.example>");
    assert!(reply.starts_with("421 4.7.0"), "{reply}");
    assert!(matches!(client.effect, Effect::Close));
    // Nor any longer than the credential has its subject.
    let session = &mut client.session;
    let mut other = identity(NOW_MS + 1);
    other.username = "app-2".to_owned();
    session.identity = Some(other);
    assert_eq!(client.code("MAIL FROM:<x@acme.example>"), "550");
}

#[test]
fn what_is_offered_depends_on_credentials_and_on_the_certificate() {
    let mut client = client(true);
    assert!(
        client
            .say("EHLO c.example")
            .contains("AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2\r\n")
    );
    assert_eq!(client.code("AUTH EXTERNAL ="), "504");
    client
        .session
        .tls_started(vec!["other.example".into(), "app.acme.example".into()]);
    assert!(
        client
            .say("EHLO c.example")
            .contains("XOAUTH2 EXTERNAL\r\n")
    );
    client.say("AUTH EXTERNAL =");
    assert!(matches!(&client.effect, Effect::Login(claim) if claim.username == "app.acme.example"));
    // Of a proxy that has named another client it says nothing.
    client.session.proxy = Some([198, 51, 100, 1].into());
    client.say("XCLIENT ADDR=203.0.113.1");
    assert!(!client.say("EHLO c.example").contains("EXTERNAL"));
    client.snapshot = Snapshot::default();
    assert!(
        client
            .say("EHLO c.example")
            .contains("AUTH PLAIN LOGIN\r\n")
    );
    assert_eq!(client.code("AUTH XOAUTH2"), "504");
}

#[test]
fn a_client_is_told_what_is_wrong_with_its_token_before_the_login_fails() {
    let mut client = client(true);
    client.say("EHLO c.example");
    for (line, expected) in [("", "535 5.7.8"), ("AQ==", "535 5.7.8"), ("*", "501 5.7.0")] {
        client.out.clear();
        client
            .session
            .token_refused("e30=".to_owned(), &mut client.out);
        assert_eq!(client.out, b"334 e30=\r\n");
        assert!(client.session.in_exchange());
        client.out.clear();
        let decoded = smtp::AuthLineDecoder::new().decode(format!("{line}\r\n").as_bytes());
        client
            .session
            .auth_line(decoded.item.unwrap(), &client.snapshot, &mut client.out);
        assert!(client.out.starts_with(expected.as_bytes()), "{line}");
        assert!(!client.session.in_exchange());
    }
}

#[test]
fn ten_errors_end_the_session_and_a_message_forgives_them() {
    let mut client = client(false);
    for round in 0..3 {
        for _ in 0..9 {
            assert_eq!(client.code("BOGUS"), "500", "{round}");
        }
        client.session.message_accepted();
    }
    for _ in 0..9 {
        client.say("BOGUS");
        assert!(matches!(client.effect, Effect::Continue));
    }
    assert!(
        client
            .say("BOGUS")
            .ends_with("421 4.7.0 Too many errors; closing the connection\r\n")
    );
    assert!(matches!(client.effect, Effect::Close));
}

#[test]
fn what_is_refused_of_somebody_who_is_known_can_be_told() {
    let mut client = client(false);
    // Out of order: nothing was refused that anybody wanted.
    client.say("MAIL FROM:<a@acme.example>");
    assert!(client.session.take_refusal().is_none());
    client.say("EHLO client.example");
    assert!(client.say("MAIL FROM:<a@bank.example>").starts_with("550"));
    let refusal = client.session.take_refusal().unwrap();
    assert_eq!(refusal.stage, proto::event::Stage::Mail);
    assert_eq!(
        (refusal.answer.code, refusal.credential.name.as_str()),
        (550, "acme-net")
    );
    assert!(client.session.take_refusal().is_none());
    client.say("MAIL FROM:<a@acme.example>");
    client.say("RCPT TO:<b@[192.0.2.1]>");
    let refusal = client.session.take_refusal().unwrap();
    assert_eq!(refusal.recipient, "b@[192.0.2.1]");
    assert!(client.say("RCPT TO:<b@dest.example>").starts_with("250"));
    assert!(client.session.take_refusal().is_none());
}

#[test]
fn a_lock_and_a_hold_are_looked_up_at_mail() {
    use proto::watch::{Action, Measure};
    let mut client = client(false);
    client.say("EHLO client.example");
    for (action, until_ms, expected, held) in [
        (
            Action::Lock,
            0,
            "550 5.7.1 This credential is locked",
            false,
        ),
        (Action::Lock, 1, "250", false),
        (Action::Hold, 0, "250", true),
        (Action::Pardon, 0, "250", false),
    ] {
        let measure = Measure {
            action: action.into(),
            until_ms,
            ..Measure::default()
        };
        client.measures = Arc::new([("acme-net".to_owned(), measure)].into());
        let reply = client.say("MAIL FROM:<a@acme.example>");
        assert!(
            reply.starts_with(expected),
            "{action:?} {until_ms}: {reply}"
        );
        let transaction = client.session.take_transaction();
        let is_held = transaction.is_some_and(|transaction| transaction.sender.is_on_hold(""));
        assert_eq!(is_held, held, "{action:?}");
    }
}

#[test]
fn a_suppressed_recipient_is_refused_where_every_stream_refuses_it() {
    use proto::suppression::change::Kind;
    use proto::suppression::{Change, Entry, Reason};
    let change = |table: &Table, stream: &str, reason: Reason| Change {
        key: table.keys().of("gone@d.example").unwrap().to_vec().into(),
        tenant: "acme".to_owned(),
        stream: stream.to_owned(),
        kind: Some(Kind::Entry(Entry {
            reason: reason.into(),
            ..Entry::default()
        })),
        ..Change::default()
    };
    let refuses = "suppression: { atRecipient: reject }";
    for (streams, scope, reason, expected) in [
        (
            format!("[ {{ name: bulk, {refuses} }} ]"),
            "bulk",
            Reason::Hard,
            "550",
        ),
        ("[ { name: bulk } ]".to_owned(), "bulk", Reason::Hard, "250"),
        (
            format!("[ {{ name: bulk, {refuses} }}, {{ name: news }} ]"),
            "",
            Reason::Hard,
            "250",
        ),
        (
            format!("[ {{ name: bulk, {refuses} }}, {{ name: news, {refuses} }} ]"),
            "bulk",
            Reason::Hard,
            "250",
        ),
        (
            format!("[ {{ name: bulk, {refuses} }}, {{ name: news, {refuses} }} ]"),
            "",
            Reason::Hard,
            "550",
        ),
        (
            format!("[ {{ name: bulk, transactional: true, {refuses} }} ]"),
            "bulk",
            Reason::Complaint,
            "250",
        ),
    ] {
        let mut client = client(false);
        let documents = DOCUMENTS.replace("[ { name: bulk } ]", &streams);
        client.snapshot = Snapshot::from_documents(&documents).unwrap();
        let table = Table::new(suppress::Keys::new(&[1; 32]));
        table.apply(&change(&table, scope, reason), NOW_MS);
        client.suppressed = Some(table);
        client.say("EHLO c.example");
        client.say("MAIL FROM:<x@acme.example>");
        let reply = client.say("RCPT TO:<Gone@d.example>");
        assert!(reply.starts_with(expected), "{streams}: {reply}");
        let told = client
            .session
            .take_refusal()
            .map(|refusal| refusal.recipient);
        assert_eq!(told.is_some(), expected == "550", "{streams}");
        assert_eq!(client.code("RCPT TO:<b@d.example>"), "250");
    }
}
