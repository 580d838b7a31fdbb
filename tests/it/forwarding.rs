//! Mail of senders who are not of the tenant: forwarded, sealed, and led back when it bounces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dkim::{BodyHasher, Chain, ChainStatus, Key, Seal, Signer};
use kit::{Documents, Layout, Outcome, Received, Relay, Session, Setup, Sink, Zones, free_port_on};
use tokio::io::AsyncWriteExt;

const PATIENCE: Duration = Duration::from_secs(120);
/// From here the credential that forwards and seals, and the one that only forwards.
const SEALING: [u8; 4] = [127, 9, 3, 1];
const PLAIN: [u8; 4] = [127, 9, 4, 1];
const HOST: Ipv4Addr = Ipv4Addr::new(127, 25, 9, 1);

const MESSAGE: &str = "From: User <user@sender.example>\r\nTo: friend@acme.example\r\nSubject: a  walk\r\n\
    Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\n\
    Shall we  meet? \r\n\r\n.\r\n\r\n";

/// An installation with a credential that forwards, and where its mail goes.
struct Stage {
    relay: Relay,
    sink: Sink,
    /// Key of `sender.example`.
    author: PathBuf,
    /// Who forwarded before us.
    first: Signer,
    _folder: tempfile::TempDir,
}

fn key(folder: &Path, name: &str) -> Result<(PathBuf, Key)> {
    let pem = dkim::generate_rsa2048();
    let path = folder.join(name);
    std::fs::write(&path, &pem)?;
    Ok((path, Key::from_pem(pem.as_bytes())?))
}

impl Stage {
    async fn set(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (acme, acme_key) = key(folder.path(), "acme.pem")?;
        let (author, author_key) = key(folder.path(), "sender.pem")?;
        let (_, first_key) = key(folder.path(), "first.pem")?;
        let port = free_port_on(&[HOST.into()])?;
        let sink = Sink::start(SocketAddr::new(HOST.into(), port), Vec::new()).await?;
        let mut zones = Zones::new().address("mx.example", HOST.into());
        for domain in ["dest.example", "sender.example", "acme.example"] {
            zones = zones.mx(domain, 10, "mx.example");
        }
        for (domain, key) in [
            ("acme.example", &acme_key),
            ("sender.example", &author_key),
            ("first.example", &first_key),
        ] {
            zones = zones.text(&format!("s1._domainkey.{domain}"), &key.dns_record());
        }
        let mut documents = Documents::new(port);
        documents.tenant = ", mayForward: true".to_owned();
        documents.dkim = format!(
            "[ {{ selector: s1, algorithm: rsa-sha256, key: \"file:{}\" }} ]",
            acme.display()
        );
        let credential = |name: &str, network: &str, more: &str| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: {name} }}\n\
                 spec: {{ tenant: acme, networks: [\"{network}\"], foreignSenders: {{ domain: acme.example{more} }} }}\n"
            )
        };
        documents.more = credential(
            "sealing",
            "127.9.3.0/24",
            ", seal: true, resultsOf: mx.acme.example",
        ) + &credential("plain", "127.9.4.0/24", ", returnPath: keep");
        let setup = Setup::new(name, zones, documents.yaml()).layout(Layout::AllInOne);
        let mut relay = Relay::prepare(&setup).await?;
        let secrets = folder.path().join("srs.secrets");
        std::fs::write(&secrets, "the secret of the forwarder\n")?;
        relay.reconfigure(
            "all",
            "  listeners:\n",
            &format!(
                "  forwarding: {{ srsSecrets: \"{}\" }}\n  listeners:\n",
                secrets.display()
            ),
        )?;
        relay.start_all(&setup).await?;
        Ok(Self {
            relay,
            sink,
            author,
            first: Signer::new("first.example", "s1", first_key)?,
            _folder: folder,
        })
    }

    /// Sends to one recipient; gives the message as it arrived there, the `number`th of all.
    async fn forward(
        &self,
        from: [u8; 4],
        envelope: (&str, &str),
        content: &[u8],
        number: usize,
    ) -> Result<Received> {
        let (sender, recipient) = envelope;
        let from = IpAddr::V4(Ipv4Addr::from(from));
        let mut session = Session::open_from(from, self.relay.submission(), PATIENCE).await?;
        let recipients = [recipient.to_owned()];
        let outcome = session.submit(sender, &recipients, content).await?;
        ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        let mut received = self.sink.wait_for(number, PATIENCE).await?;
        received.pop().context("there is a last one")
    }

    /// What dkimpy says of the message: its chain, and its signature.
    async fn judge(&self, content: &[u8]) -> Result<(String, String)> {
        let dns = self.relay.dns.address();
        let (host, port) = (dns.ip().to_string(), dns.port().to_string());
        let said = witness(&["verify", &host, &port], content).await?;
        let said = String::from_utf8(said)?;
        let (chain, signature) = said.trim_end().split_once('\n').context("two lines")?;
        Ok((chain.to_owned(), signature.to_owned()))
    }

    /// The message with the set of a forwarder before us.
    fn forwarded_before(&self, content: &[u8]) -> Result<Vec<u8>> {
        let at = content
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("there is a body")?;
        let mut body = BodyHasher::new();
        body.update(&content[at + 4..]);
        let seal = Seal {
            instance: 1,
            status: ChainStatus::None,
            results: "first.example; dkim=pass header.d=sender.example",
        };
        let set = self
            .first
            .seal(&content[..at + 2], &body.finish(), &seal, 1_795_351_205)?;
        Ok([set, content.to_vec()].concat())
    }
}

async fn witness(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut process = tokio::process::Command::new(tests.join("../.servers/python/bin/python"))
        .arg(tests.join("it/forwarding/witness.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("`make servers` installs Python and dkimpy")?;
    let mut stdin = process.stdin.take().context("it is piped")?;
    stdin.write_all(input).await?;
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, process.wait_with_output()).await??;
    ensure!(output.status.success(), "{arguments:?}: {}", output.status);
    Ok(output.stdout)
}

/// The newest set's fields, as text.
fn newest_set(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content).into_owned();
    let end = text.find("\r\nReceived:").unwrap_or(text.len());
    text[..end].to_owned()
}

#[tokio::test]
async fn forwarded_mail_is_rewritten_and_sealed_and_its_bounces_find_back() -> Result<()> {
    let stage = Stage::set("forwarding").await?;
    let key = stage.author.to_string_lossy().into_owned();
    let signed = witness(&["sign", &key, "s1", "sender.example"], MESSAGE.as_bytes()).await?;
    let results = "Authentication-Results: mx.acme.example;\r\n\tspf=pass smtp.mailfrom=user@sender.example;\r\n\tarc=none\r\n";
    let content = [results.as_bytes(), &signed].concat();
    let envelope = ("user@sender.example", "friend@dest.example");

    // Without a chain: the first set says what was found.
    let first = stage.forward(SEALING, envelope, &content, 1).await?;
    ensure!(
        first.sender.starts_with("SRS0=")
            && first.sender.ends_with("=sender.example=user@acme.example"),
        "{}",
        first.sender
    );
    let led_back = stage
        .relay
        .command(&["srs", "decode", &first.sender])
        .await?;
    ensure!(led_back == "user@sender.example\n", "{led_back}");
    let set = newest_set(&first.content);
    for part in [
        "ARC-Seal: i=1; a=rsa-sha256; cv=none;\r\n\td=acme.example;",
        "ARC-Message-Signature: i=1;",
        "ARC-Authentication-Results: i=1; relay.example.com;\r\n\tarc=none;\r\n\tdkim=pass header.d=sender.example header.s=s1",
        "\r\n\tspf=pass smtp.mailfrom=user@sender.example",
    ] {
        ensure!(set.contains(part), "{part} in {set}");
    }
    ensure!(!set.contains("DKIM-Signature:"), "{set}");
    let pass = || "pass".to_owned();
    ensure!(stage.judge(&first.content).await? == (pass(), pass()));

    // With one that holds, and with one that does not.
    let again = stage.forwarded_before(&content)?;
    let second = stage.forward(SEALING, envelope, &again, 2).await?;
    let set = newest_set(&second.content);
    ensure!(
        set.contains("ARC-Seal: i=2; a=rsa-sha256; cv=pass;"),
        "{set}"
    );
    ensure!(set.contains("\r\n\tarc=pass (i=1);"), "{set}");
    ensure!(stage.judge(&second.content).await? == (pass(), pass()));

    let broken = String::from_utf8(again)?.replace("Shall we", "Shall they");
    let third = stage
        .forward(SEALING, envelope, broken.as_bytes(), 3)
        .await?;
    let set = newest_set(&third.content);
    ensure!(
        set.contains("ARC-Seal: i=2; a=rsa-sha256; cv=fail;"),
        "{set}"
    );
    ensure!(
        set.contains("\r\n\tarc=fail (i=1);\r\n\tdkim=fail (body hash did not verify)"),
        "{set}"
    );
    let (chain, signature) = stage.judge(&third.content).await?;
    ensure!(
        (chain.as_str(), signature.as_str()) == ("ended", "fail"),
        "{chain} {signature}"
    );

    // A chain that has ended is left alone.
    let ended = third.content.clone();
    let fourth = stage.forward(SEALING, envelope, &ended, 4).await?;
    let header = String::from_utf8_lossy(&fourth.content).into_owned();
    ensure!(header.starts_with("Received:"), "{header}");
    ensure!(matches!(
        Chain::of(&fourth.content),
        Chain::Ended { sets: 2 }
    ));

    // The host bounces: its notice comes in through us and goes to the author.
    let notice =
        b"From: MAILER-DAEMON@dest.example\r\nTo: x@acme.example\r\nSubject: Failure\r\n\r\nx\r\n";
    let bounce = stage
        .forward(SEALING, ("", &first.sender), notice, 5)
        .await?;
    ensure!(bounce.sender.is_empty() && bounce.recipients == ["user@sender.example"]);

    // Without seal and SRS: as it came.
    let plain = stage.forward(PLAIN, envelope, &content, 6).await?;
    ensure!(plain.sender == "user@sender.example");
    ensure!(plain.text().starts_with("Received:") && !plain.text().contains("ARC-"));
    ensure!(stage.judge(&plain.content).await? == ("none".to_owned(), pass()));

    let metrics = stage.relay.metrics("all").await;
    for (chain, number) in [
        ("none", 2.0),
        ("pass", 1.0),
        ("fail", 1.0),
        ("unsealed", 2.0),
    ] {
        let label = format!("chain=\"{chain}\"");
        let found = kit::metric(&metrics, "staffetta_ingress_forwarded_total", &label);
        ensure!(found == number, "{chain}: {found}");
    }
    stage.relay.finish()
}
