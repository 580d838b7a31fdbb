//! REQUIRETLS and MTA-STS from a client to hosts that prove who they are, and to those that don't.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Action, Authority, Documents, Layout, Relay, Rule, Setup, Sink, Stage, WebServer, Zones,
    free_port, free_port_on, until,
};

use crate::dialogs::client::Client;

const PATIENCE: Duration = Duration::from_secs(120);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SENDER: &str = "app@acme.example";
const DOMAINS: [&str; 4] = [
    "acme.example",
    "good.example",
    "unable.example",
    "clear.example",
];

/// Hosts with and without what is asked of them, and the policy that asks for it.
struct Hosts {
    /// Has everything; gets mail of the sender, too.
    good: Sink,
    /// Does not know REQUIRETLS.
    unable: Sink,
    /// Has no TLS.
    clear: Sink,
    policy: WebServer,
    authority: Authority,
    port: u16,
}

impl Hosts {
    async fn start() -> Result<Self> {
        let addresses: [IpAddr; 3] =
            [1, 2, 3].map(|number| Ipv4Addr::new(127, 25, 30, number).into());
        let port = free_port_on(&addresses)?;
        let [good, unable, clear] = addresses.map(|address| SocketAddr::new(address, port));
        let authority = Authority::new()?;
        let able =
            "250-sink.example\r\n250-STARTTLS\r\n250-DSN\r\n250-REQUIRETLS\r\n250 PIPELINING";
        let announces = Rule::at(Stage::Hello, Action::Reply(able.to_owned()));
        let good =
            Sink::start_certified(good, &authority, &["mx.good.example"], vec![announces]).await?;
        let unable =
            Sink::start_certified(unable, &authority, &["mx.unable.example"], Vec::new()).await?;
        let clear = Sink::start(clear, Vec::new()).await?;
        let names = DOMAINS.map(|domain| format!("mta-sts.{domain}"));
        let names = names.each_ref().map(String::as_str);
        let policy = WebServer::start(SocketAddr::new(LOOPBACK, 0), &names).await?;
        policy.show(
            "/.well-known/mta-sts.txt",
            "Content-Type: text/plain\r\n",
            "version: STSv1\nmode: enforce\nmx: mx.good.example\nmx: mx.unable.example\n\
             mx: mx.clear.example\nmax_age: 86400\n",
        );
        Ok(Self {
            good,
            unable,
            clear,
            policy,
            authority,
            port,
        })
    }

    fn zones(&self) -> Zones {
        let host = |sink: &Sink| sink.address().ip();
        let mut zones = Zones::new()
            .mx("acme.example", 10, "mx.good.example")
            .mx("good.example", 10, "mx.good.example")
            .mx("unable.example", 10, "mx.unable.example")
            .mx("clear.example", 10, "mx.clear.example")
            .address("mx.good.example", host(&self.good))
            .address("mx.unable.example", host(&self.unable))
            .address("mx.clear.example", host(&self.clear));
        for domain in DOMAINS {
            zones = zones
                .text(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;")
                .address(&format!("mta-sts.{domain}"), LOOPBACK);
        }
        zones
    }
}

/// An installation that takes mail under TLS at the address, too.
async fn installation(test: &str, hosts: &Hosts) -> Result<(Relay, SocketAddr)> {
    let documents = Documents::new(hosts.port).yaml();
    let setup = Setup::new(test, hosts.zones(), documents).layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    let folder = relay.folder().to_owned();
    let submissions = SocketAddr::new(LOOPBACK, free_port(LOOPBACK)?);
    let (certificate, key) = hosts
        .authority
        .write_certificate(&folder, &["relay.example.com"])?;
    let file = hosts.policy.write_authority(&folder)?;
    let trusted = std::fs::read_to_string(&file)? + &hosts.authority.pem();
    std::fs::write(&file, trusted)?;
    let sender = format!(
        "drainTimeout: 20s, authorities: {file:?}, mtaSts: {{ port: {}, allowPrivate: true }} }}",
        hosts.policy.address().port()
    );
    relay.reconfigure("all", "drainTimeout: 20s }", &sender)?;
    let listener = format!(
        "listeners:\n    - {{ name: submissions, address: \"{submissions}\", tls: implicit, \
         certificate: {certificate:?}, key: {key:?} }}"
    );
    relay.reconfigure("all", "listeners:", &listener)?;
    relay.start_all(&setup).await?;
    Ok((relay, submissions))
}

/// Submits under TLS; `parameters` of MAIL, and `fields` of the header, each with its CRLF.
async fn submit(
    hosts: &Hosts,
    at: SocketAddr,
    parameters: &str,
    fields: &str,
    recipients: &[&str],
) -> Result<()> {
    let client = Client::connect(LOOPBACK, at).await?;
    let authority = hosts.authority.der();
    let mut client = client
        .start_tls("relay.example.com", &authority, None)
        .await?;
    client.read_reply().await?;
    let mut lines = vec![
        "EHLO client.example".to_owned(),
        format!("MAIL FROM:<{SENDER}>{parameters}"),
    ];
    lines.extend(
        recipients
            .iter()
            .map(|recipient| format!("RCPT TO:<{recipient}>")),
    );
    lines.push("DATA".to_owned());
    let content = format!("From: {SENDER}\r\n{fields}Subject: s\r\n\r\nThe secret.\r\n.");
    lines.push(content);
    for line in lines {
        client.write(format!("{line}\r\n").as_bytes()).await?;
        let reply = client.read_reply().await?;
        ensure!(reply.starts_with(['2', '3']), "{line}: {reply}");
    }
    Ok(())
}

#[tokio::test]
async fn mail_that_requires_tls_arrives_so_or_comes_back_so() -> Result<()> {
    let hosts = Hosts::start().await?;
    let (relay, submissions) = installation("requiretls", &hosts).await?;
    let recipients = [
        "user@good.example",
        "user@unable.example",
        "user@clear.example",
    ];
    submit(&hosts, submissions, " REQUIRETLS RET=FULL", "", &recipients).await?;

    // The message, and a notice for each of the others.
    let arrived = hosts.good.wait_for(3, PATIENCE).await?;
    for received in &arrived {
        ensure!(received.tls, "{}", received.parameters);
        let parameters = &received.parameters;
        ensure!(parameters.contains("REQUIRETLS"), "{parameters}");
    }
    let message = arrived.iter().find(|received| received.sender == SENDER);
    let message = message.context("one of the three is the message")?;
    ensure!(message.recipients == ["user@good.example"]);
    for (recipient, status) in [
        ("user@unable.example", "5.7.30"),
        ("user@clear.example", "5.7.10"),
    ] {
        let mut texts = arrived.iter().map(kit::Received::text);
        let about = format!("Final-Recipient: rfc822; {recipient}\r\n");
        let notice = texts.find(|text| text.contains(&about));
        let notice = notice.with_context(|| format!("a notice about {recipient}"))?;
        ensure!(
            notice.contains(&format!("Status: {status}\r\n")),
            "{notice}"
        );
        // No more than the header comes back.
        ensure!(notice.contains("Subject: s\r\n"), "{notice}");
        ensure!(!notice.contains("The secret."), "{notice}");
    }
    ensure!(hosts.unable.count() == 0 && hosts.clear.count() == 0);
    relay.finish()
}

#[tokio::test]
async fn what_need_not_be_secret_goes_where_a_policy_would_stop_it() -> Result<()> {
    let hosts = Hosts::start().await?;
    let (relay, submissions) = installation("mta-sts", &hosts).await?;
    submit(&hosts, submissions, "", "", &["stopped@clear.example"]).await?;
    let metric = "staffetta_sender_tls_policy_total";
    let labels = r#"policy="mta_sts_enforce",result="no_tls""#;
    let stopped = async || (relay.metric(metric, labels).await > 0.0).then_some(());
    until("the policy stops it", PATIENCE, stopped).await?;
    let field = "TLS-Required: No\r\n";
    submit(&hosts, submissions, "", field, &["passes@clear.example"]).await?;
    let arrived = hosts.clear.wait_for(1, PATIENCE).await?;
    ensure!(arrived[0].recipients == ["passes@clear.example"]);
    ensure!(!arrived[0].tls && arrived[0].text().contains(field));
    // The others go on as ever, under the policy.
    submit(&hosts, submissions, "", "", &["user@good.example"]).await?;
    let arrived = hosts.good.wait_for(1, PATIENCE).await?;
    ensure!(arrived[0].tls && arrived[0].recipients == ["user@good.example"]);
    ensure!(hosts.clear.count() == 1);
    relay.finish()
}
