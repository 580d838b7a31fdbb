//! Links to unsubscribe: signed, used by curl as mailbox providers do it, and not forgotten when a process is killed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{Documents, Layout, Outcome, Relay, Session, Setup, Sink, Zones, free_port_on, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const HOST: Ipv4Addr = Ipv4Addr::new(127, 25, 41, 1);
const LINK_HOST: &str = "u.acme.example";
const SENDER: &str = "jo@acme.example";

/// The keys of the domain, their records in a file for OpenDKIM, and what the document says of them.
fn dkim_keys(folder: &Path) -> Result<String> {
    let keys = [
        ("rsa", "rsa-sha256", dkim::generate_rsa2048()),
        ("ed25519", "ed25519-sha256", dkim::generate_ed25519()),
    ];
    let (mut document, mut records) = (Vec::new(), String::new());
    for (selector, algorithm, pem) in keys {
        let path = folder.join(format!("{selector}.pem"));
        std::fs::write(&path, &pem)?;
        let record = dkim::Key::from_pem(pem.as_bytes())?.dns_record();
        records += &format!("{selector}._domainkey.acme.example {record}\n");
        document.push(format!(
            "{{ selector: {selector}, algorithm: {algorithm}, key: \"file:{}\" }}",
            path.display()
        ));
    }
    std::fs::write(folder.join("keys"), records)?;
    Ok(format!("[ {} ]", document.join(", ")))
}

/// Answers links beside the process that has everything else.
async fn installation(folder: &Path, mx_port: u16, links: SocketAddr) -> Result<Relay> {
    let certified = rcgen::generate_simple_self_signed([LINK_HOST.to_owned()])?;
    let (certificate, key) = (folder.join("links.pem"), folder.join("links.key"));
    std::fs::write(&certificate, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, "1 a secret that only this test has\n")?;

    let mut documents = Documents::new(mx_port);
    let link_host = format!("{LINK_HOST}:{}", links.port());
    documents.dkim = format!("{}, linkHost: \"{link_host}\"", dkim_keys(folder)?);
    documents.in_doubt = "retry, headers: { unsubscribe: { validFor: 30d } }".to_owned();
    let zones = Zones::new()
        .mx("dest.example", 10, "mx.example")
        .address("mx.example", HOST.into());
    let setup = Setup::new("unsubscribe", zones, documents.yaml())
        .layout(Layout::AllInOne)
        .with("feedback-2");
    let mut relay = Relay::prepare(&setup).await?;
    let (tokens, certificate, key) = (tokens.display(), certificate.display(), key.display());
    relay.reconfigure(
        "all",
        "signer:",
        &format!("tokens: {{ keys: {tokens} }}\nsigner:"),
    )?;
    let answering = format!(
        "tokens: {{ keys: {tokens} }}\nfeedback: {{ links: {{ listen: \"{links}\", \
         certificates: [ {{ certificate: {certificate}, key: {key} }} ] }},"
    );
    relay.reconfigure("feedback-2", "feedback: {", &answering)?;
    relay.start_all(&setup).await?;
    Ok(relay)
}

/// Follows links.
struct Reader {
    links: SocketAddr,
    authority: PathBuf,
}

impl Reader {
    /// The status code, and all that was answered.
    async fn curl(&self, link: &str, arguments: &[&str]) -> Result<(String, String)> {
        let resolve = format!("{LINK_HOST}:{}:{}", self.links.port(), self.links.ip());
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--max-time", "60"])
            .args(["--write-out", "\n%{http_code} redirect=%{redirect_url}"])
            .args(["--resolve", &resolve, "--cacert"])
            .arg(&self.authority)
            .args(arguments)
            .arg(link)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output()
            .await
            .context("curl")?;
        let answer = String::from_utf8(output.stdout)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{complaint}{answer}");
        let (answer, last) = answer.rsplit_once('\n').context("a status")?;
        let (status, redirect) = last.split_once(" redirect=").context("a status")?;
        ensure!(redirect.is_empty(), "{answer}");
        let lower = answer.to_ascii_lowercase();
        ensure!(
            !lower.contains("set-cookie") && !lower.contains("location:"),
            "{answer}"
        );
        ensure!(lower.contains("referrer-policy: no-referrer"), "{answer}");
        Ok((status.to_owned(), answer.to_owned()))
    }
}

/// The link of a message, and whether the field of RFC 8058 is there.
fn link(message: &str) -> Result<String> {
    let header = message.split("\r\n\r\n").next().unwrap_or_default();
    ensure!(
        header.matches("List-Unsubscribe: ").count() == 1,
        "{header}"
    );
    let post = "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
    ensure!(
        format!("{header}\r\n").matches(post).count() == 1,
        "{header}"
    );
    let (_, rest) = header.split_once("List-Unsubscribe: <").context("a link")?;
    let (link, _) = rest.split_once('>').context("its end")?;
    ensure!(link.starts_with(&format!("https://{LINK_HOST}:")), "{link}");
    Ok(link.to_owned())
}

/// The unsubscribes so far: recipient and by what.
async fn unsubscribes(relay: &Relay) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in relay.events().await?.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["type"] == "Unsubscribe" {
            ensure!(event["tenant"] == "acme", "{event}");
            ensure!(event["stream"] == "transactional", "{event}");
            ensure!(event["network"] == "127.0.0.0/24", "{event}");
            ensure!(event["message_id"].is_string(), "{event}");
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            found.push((text("recipient"), text("by")));
        }
    }
    found.sort();
    Ok(found)
}

/// dkimpy and OpenDKIM take the messages as they came, and none whose fields were changed.
async fn verify(folder: &Path, messages: &[String]) -> Result<()> {
    let changes: [fn(&str) -> String; 3] = [
        |message| message.replacen("/u/1", "/u/2", 1),
        |message| message.replacen("List-Unsubscribe-Post: ", "X-Post: ", 1),
        |message| format!("List-Unsubscribe: <https://other.example/>\r\n{message}"),
    ];
    for (number, (message, change)) in messages.iter().zip(changes).enumerate() {
        std::fs::write(folder.join(format!("{number}.good.eml")), message)?;
        std::fs::write(folder.join(format!("{number}.broken.eml")), change(message))?;
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let verifying = tokio::process::Command::new(tests.join("../.servers/python/bin/python"))
        .arg(tests.join("it/signatures/verify.py"))
        .arg(folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, verifying).await??;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}");
    ensure!(said.matches(": 3 good, 3 broken\n").count() == 4, "{said}");
    Ok(())
}

#[tokio::test]
async fn one_click_is_an_event_that_survives_a_kill_and_a_look_is_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = free_port_on(&[HOST.into()])?;
    let sink = Sink::start(SocketAddr::new(HOST.into(), port), Vec::new()).await?;
    let links = SocketAddr::new(HOST.into(), free_port_on(&[HOST.into()])?);
    let mut relay = installation(folder.path(), port, links).await?;
    let reader = Reader {
        links,
        authority: folder.path().join("links.pem"),
    };

    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    for recipients in [
        &["one@dest.example"][..],
        &["two@dest.example", "three@dest.example"],
    ] {
        let recipients: Vec<String> = recipients.iter().map(ToString::to_string).collect();
        let content = kit::message("U-1", SENDER, &recipients[0], 300);
        let outcome = session.submit(SENDER, &recipients, &content).await?;
        ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    }
    let received = sink.wait_for(3, PATIENCE).await?;
    let messages: Vec<String> = received.iter().map(kit::Received::text).collect();
    verify(folder.path(), &messages).await?;
    let link_of = |recipient: &str| {
        let of = received.iter().find(|one| one.recipients == [recipient]);
        link(&of.context("each has a copy of its own")?.text())
    };
    let (one, two) = (link_of("one@dest.example")?, link_of("two@dest.example")?);
    let three = link_of("three@dest.example")?;
    ensure!(one != two && two != three);

    // Scanners and curious people do nothing, and what is no link is none.
    let (status, page) = reader
        .curl(&one, &["--header", "Accept-Language: it"])
        .await?;
    ensure!(
        status == "200" && page.contains("<form method=\"post\">"),
        "{page}"
    );
    ensure!(
        page.contains("lang=\"it\"") && !page.contains("dest.example"),
        "{page}"
    );
    let one_click = ["--data", "List-Unsubscribe=One-Click"];
    let forged = format!(
        "{}{}",
        &one[..one.len() - 1],
        if one.ends_with('A') { 'B' } else { 'A' }
    );
    for (link, arguments, expected) in [
        (&one, &["--head"][..], "200"),
        (&one, &["--data", "x=y"], "400"),
        (&one, &["--request", "DELETE"], "405"),
        (&forged, &one_click, "404"),
    ] {
        let (status, answer) = reader.curl(link, arguments).await?;
        ensure!(status == expected, "{arguments:?}: {answer}");
    }
    ensure!(unsubscribes(&relay).await?.is_empty());

    // Where it can't be stored, it is not said to be; and when 200 is said, it is stored.
    relay.nats.kill9()?;
    let (status, answer) = reader.curl(&one, &one_click).await?;
    ensure!(
        status == "503" && answer.to_ascii_lowercase().contains("retry-after"),
        "{answer}"
    );
    relay.nats.restart().await?;
    until("the wish is stored", PATIENCE, || async {
        let (status, _) = reader.curl(&one, &one_click).await.ok()?;
        (status == "200").then_some(())
    })
    .await?;
    let (status, answer) = reader
        .curl(&two, &["--form", "List-Unsubscribe=One-Click"])
        .await?;
    ensure!(status == "200", "{answer}");
    let button = ["--data", "List-Unsubscribe=One-Click&by=page"];
    let (status, answer) = reader.curl(&three, &button).await?;
    ensure!(status == "200", "{answer}");
    relay.kill9("feedback-2")?;
    let expected = [
        ("one@dest.example", "one_click"),
        ("three@dest.example", "page"),
        ("two@dest.example", "one_click"),
    ]
    .map(|(recipient, by)| (recipient.to_owned(), by.to_owned()));
    let found = unsubscribes(&relay).await?;
    ensure!(found == expected, "{found:?}");

    // Another process takes it for the same.
    relay.start_process("feedback-2")?;
    until("another process answers", PATIENCE, || async {
        let (status, _) = reader.curl(&two, &one_click).await.ok()?;
        (status == "200").then_some(())
    })
    .await?;
    let found = unsubscribes(&relay).await?;
    ensure!(found == expected, "{found:?}");
    relay.finish()
}
