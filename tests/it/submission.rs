//! What clients may ask for in SMTP, seen at the other end; and what they may send, in the sum of several processes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::ScramKeys;
use kit::{
    Action, Documents, Layout, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones,
    free_port_on,
};

const PATIENCE: Duration = Duration::from_secs(120);
const SENDER: &str = "app@acme.example";

#[tokio::test]
async fn smtputf8_and_chunks_arrive_or_are_returned() -> Result<()> {
    let (able, unable): (IpAddr, IpAddr) = (
        Ipv4Addr::new(127, 25, 1, 1).into(),
        Ipv4Addr::new(127, 25, 1, 2).into(),
    );
    let port = free_port_on(&[able, unable])?;
    let taking = Sink::start(SocketAddr::new(able, port), Vec::new()).await?;
    let old = "250-sink.example\r\n250-8BITMIME\r\n250 PIPELINING".to_owned();
    let rules = vec![Rule::at(Stage::Hello, Action::Reply(old))];
    let refusing = Sink::start(SocketAddr::new(unable, port), rules).await?;
    let zones = Zones::new()
        .mx("xn--bcher-kva.example", 10, "mx.able.example")
        .address("mx.able.example", able)
        .mx("old.example", 10, "mx.old.example")
        .address("mx.old.example", unable)
        .mx("acme.example", 10, "mx.able.example");
    let documents = Documents::new(port).yaml();
    let relay =
        Relay::start(Setup::new("smtputf8", zones, documents).layout(Layout::AllInOne)).await?;

    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    session
        .command(&format!("MAIL FROM:<{SENDER}> SMTPUTF8 BODY=8BITMIME"))
        .await?;
    for recipient in [
        "jürgen@bücher.example",
        "jürgen@old.example",
        "plain@old.example",
    ] {
        let reply = session.command(&format!("RCPT TO:<{recipient}>")).await?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    // In chunks, and with a line that DATA must stuff; the last line has no end.
    let content = "From: app@acme.example\r\nSubject: Grüße\r\nX-Token: U-1\r\n\r\n.\r\n.ä\r\nende";
    let (first, last) = content.as_bytes().split_at(40);
    session
        .write(&[format!("BDAT {}\r\n", first.len()).as_bytes(), first].concat())
        .await?;
    ensure!(session.reply().await?.starts_with("250"));
    session
        .write(&[format!("BDAT {} LAST\r\n", last.len()).as_bytes(), last].concat())
        .await?;
    ensure!(session.reply().await?.starts_with("250"));

    // The message for those who can be reached so, and the notice about the one who can't.
    let arrived = taking.wait_for(2, PATIENCE).await?;
    let message = arrived
        .iter()
        .find(|received| received.sender == SENDER)
        .expect("one of the two is the message");
    ensure!(message.recipients == ["jürgen@bücher.example"]);
    ensure!(
        message.parameters.contains("SMTPUTF8"),
        "{}",
        message.parameters
    );
    let text = message.text();
    ensure!(text.ends_with("\r\n\r\n.\r\n.ä\r\nende\r\n"), "{text}");
    ensure!(
        text.contains("Subject: Grüße\r\n") && text.contains("with UTF8SMTP\r\n"),
        "{text}"
    );
    let notice = arrived
        .iter()
        .find(|received| received.sender.is_empty())
        .expect("the other is the notice");
    ensure!(notice.recipients == [SENDER]);
    ensure!(notice.text().contains("5.6.7"), "{}", notice.text());
    ensure!(
        notice.text().contains("j=C3=BCrgen@old.example")
            || notice.text().contains("jürgen@old.example")
            || notice.text().contains("\\x{FC}rgen@old.example"),
        "{}",
        notice.text()
    );
    ensure!(
        refusing.received().is_empty(),
        "the header needs SMTPUTF8 as well"
    );
    relay.finish()
}

#[tokio::test]
async fn a_message_that_is_late_is_told_of_and_tried_on() -> Result<()> {
    let host: IpAddr = Ipv4Addr::new(127, 25, 4, 1).into();
    let port = free_port_on(&[host])?;
    let offered = "250-sink.example\r\n250-DSN\r\n250-DELIVERBY\r\n250 PIPELINING".to_owned();
    let offers = Rule::at(Stage::Hello, Action::Reply(offered));
    let defers = Rule::reply(Stage::Recipient, "451 4.7.1 later").to("user@one.example");
    let sink = Sink::start(SocketAddr::new(host, port), vec![offers.clone(), defers]).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .mx("acme.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let setup = Setup::new("late", zones, Documents::new(port).yaml()).layout(Layout::AllInOne);
    let relay = Relay::start(setup).await?;

    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    for command in [
        &format!("MAIL FROM:<{SENDER}> BY=1;N"),
        "RCPT TO:<user@one.example>",
    ] {
        let reply = session.command(command).await?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    ensure!(session.command("DATA").await?.starts_with("354"));
    let content = b"From: app@acme.example\r\nX-Token: L-1\r\n\r\nx\r\n.\r\n";
    session.write(content).await?;
    ensure!(session.reply().await?.starts_with("250"));

    let notice = sink.wait_for(1, PATIENCE).await?.remove(0);
    ensure!(notice.recipients == [SENDER] && notice.sender.is_empty());
    for part in [
        "Action: delayed",
        "Status: 4.4.7",
        "Final-Recipient: rfc822; user@one.example",
        "Will-Retry-Until: ",
    ] {
        ensure!(notice.text().contains(part), "{}", notice.text());
    }
    sink.set_rules(vec![offers]);
    let message = sink.wait_for(2, PATIENCE).await?.remove(1);
    ensure!(message.text().contains("L-1"));
    // What is left of the time.
    ensure!(message.parameters.contains("BY=") && message.parameters.contains(";N"));
    relay.finish()
}

/// A message to one recipient from a client at this address: the reply that decides.
async fn submit(from: [u8; 4], to: SocketAddr) -> Result<String> {
    let from = IpAddr::V4(Ipv4Addr::from(from));
    let mut session = Session::open_from(from, to, PATIENCE).await?;
    let content = kit::message("Q-1", SENDER, "user@one.example", 300);
    let recipients = ["user@one.example".to_owned()];
    Ok(match session.submit(SENDER, &recipients, &content).await? {
        Outcome::Accepted(reply) | Outcome::Refused(reply) | Outcome::Unknown(reply) => reply,
    })
}

/// How many of so many messages each of the two takes, in turns.
async fn accepted(
    from: [u8; 4],
    ingresses: [SocketAddr; 2],
    messages: usize,
) -> Result<[usize; 2]> {
    let mut counts = [0; 2];
    for number in 0..messages {
        let reply = submit(from, ingresses[number % 2]).await?;
        if reply.starts_with("250") {
            counts[number % 2] += 1;
        } else {
            ensure!(
                reply.starts_with("451 4.7.28 Quota exceeded; try again in "),
                "{reply}"
            );
        }
    }
    Ok(counts)
}

#[tokio::test]
async fn a_quota_holds_in_the_sum_of_two_ingresses_with_and_without_redis() -> Result<()> {
    let host: IpAddr = Ipv4Addr::new(127, 25, 2, 1).into();
    let port = free_port_on(&[host])?;
    let _sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let credential = |name: &str, network: &str| {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: {name} }}\n\
             spec: {{ tenant: acme, networks: [\"{network}\"], limits: {{ quotas: [ 6/h ], overQuota: defer }} }}\n"
        )
    };
    let mut documents = Documents::new(port);
    documents.more = credential("first", "127.9.1.0/24") + &credential("second", "127.9.2.0/24");
    let setup = Setup::new("quotas", zones, documents.yaml()).with("ingress-2");
    let mut relay = Relay::start(setup).await?;
    let ingresses = [
        relay.submission_of("ingress")?,
        relay.submission_of("ingress-2")?,
    ];

    let both = accepted([127, 9, 1, 1], ingresses, 10).await?;
    ensure!(both[0] + both[1] == 6, "{both:?}");

    // Without Redis each has half, and what it had before counts.
    relay.redis.kill9()?;
    ensure!(accepted([127, 9, 1, 2], ingresses, 4).await? == [0, 0]);
    ensure!(accepted([127, 9, 2, 1], ingresses, 10).await? == [3, 3]);

    // A new Redis is told; then nothing is left, also for whoever has charged nothing yet.
    relay.redis.restart().await?;
    for ingress in ["ingress", "ingress-2"] {
        let relay = &relay;
        kit::until("a connection to Redis", PATIENCE, || async move {
            let metrics = relay.metrics(ingress).await;
            let connected = kit::metric(&metrics, "staffetta_ingress_redis_connected", "");
            (connected == 1.0).then_some(())
        })
        .await?;
    }
    kit::until("what was charged without Redis", PATIENCE, || async {
        let counts = relay_counts(ingresses).await.ok()?;
        (counts == [0, 0]).then_some(())
    })
    .await?;
    relay.finish()
}

async fn relay_counts(ingresses: [SocketAddr; 2]) -> Result<[usize; 2]> {
    let first = accepted([127, 9, 1, 3], ingresses, 2).await?;
    let second = accepted([127, 9, 2, 3], ingresses, 2).await?;
    Ok([first[0] + first[1], second[0] + second[1]])
}

/// A login with SCRAM-SHA-256 as a client does it (RFC 5802 section 3): the last reply.
async fn scram_login(to: SocketAddr, username: &str, password: &[u8]) -> Result<String> {
    let mut session = Session::open(to, PATIENCE).await?;
    let bare = format!("n={username},r=fyko+d2lbbFgONRv9qkxdawL");
    let first = STANDARD.encode(format!("n,,{bare}"));
    let reply = session
        .command(&format!("AUTH SCRAM-SHA-256 {first}"))
        .await?;
    let challenge = reply.strip_prefix("334 ").context("no challenge")?;
    let challenge = String::from_utf8(STANDARD.decode(challenge)?)?;
    let mut fields = challenge.split(',');
    let mut field = |name: &str| {
        fields
            .next()
            .and_then(|field| field.strip_prefix(name))
            .map(str::to_owned)
    };
    let nonce = field("r=").context("no nonce")?;
    let salt = STANDARD.decode(field("s=").context("no salt")?)?;
    let iterations: u32 = field("i=").context("no iterations")?.parse()?;
    let mut salted = [0; 32];
    let rounds = iterations.try_into()?;
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        &salt,
        password,
        &mut salted,
    );
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let without_proof = format!("c=biws,r={nonce}");
    let covered = format!("{bare},{challenge},{without_proof}");
    let signature = sign(stored_key.as_ref(), covered.as_bytes());
    let proof: Vec<u8> = client_key
        .as_ref()
        .iter()
        .zip(signature.as_ref())
        .map(|(key, signature)| key ^ signature)
        .collect();
    let last = format!("{without_proof},p={}", STANDARD.encode(proof));
    let reply = session.command(&STANDARD.encode(last)).await?;
    let Some(verifier) = reply.strip_prefix("334 ") else {
        return Ok(reply);
    };
    let server_key = sign(&salted, b"Server Key");
    let expected = format!(
        "v={}",
        STANDARD.encode(sign(server_key.as_ref(), covered.as_bytes()))
    );
    ensure!(
        STANDARD.decode(verifier)? == expected.as_bytes(),
        "the server does not know the keys"
    );
    let reply = session.command("").await?;
    ensure!(
        session
            .command(&format!("MAIL FROM:<{SENDER}>"))
            .await?
            .starts_with("250")
    );
    Ok(reply)
}

#[tokio::test]
async fn scram_proves_both_sides_and_lets_nobody_else_in() -> Result<()> {
    let keys = ScramKeys::derive(b"pencil", b"salt of the test", 4096);
    let mut documents = Documents::new(25);
    documents.more = format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: scram }}\n\
         spec: {{ tenant: acme, username: user, passwordHash: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\", scram: \"{keys}\" }}\n"
    );
    let setup = Setup::new("scram", Zones::new(), documents.yaml()).layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let listener = SocketAddr::new(local, free_port_on(&[local])?);
    relay.reconfigure(
        "all",
        "  listeners:\n",
        &format!(
            "  listeners:\n    - {{ name: scram, address: \"{listener}\", tls: none, scram: true, allowPlaintextAuthFrom: [\"127.0.0.0/8\"] }}\n"
        ),
    )?;
    relay.start_all(&setup).await?;
    ensure!(
        scram_login(listener, "user", b"pencil")
            .await?
            .starts_with("235 2.7.0")
    );
    for (username, password) in [("user", &b"pen"[..]), ("nobody", b"pencil")] {
        let reply = scram_login(listener, username, password).await?;
        ensure!(reply.starts_with("535 5.7.8"), "{reply}");
    }
    relay.finish()
}
