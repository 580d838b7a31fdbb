//! Hosts that must prove who they are: MTA-STS (RFC 8461) and REQUIRETLS (RFC 8689), with a real DNS server, and policies from
//! a real https server.

use kit::{Dns, WebServer, Zones};
use proto::dispatch::{Lane, Report};
use tempfile::TempDir;

use super::host::{Host, authority};
use super::play::{
    CONTENT, EPOCH, Messages, Scheduler, Started, Stream, delivery, replies, start_trusting,
};
use crate::policies::{Clock, Fetching};

pub(super) const SITE: &str = "first.dest.example,second.dest.example";
pub(super) const FIRST: &str = "127.0.0.2";
pub(super) const SECOND: &str = "127.0.0.3";
const WELL_KNOWN: &str = "/.well-known/mta-sts.txt";
pub(super) const ENFORCE: &str =
    "version: STSv1\r\nmode: enforce\r\nmx: *.dest.example\r\nmax_age: 100000\r\n";

/// Numbers of the messages: what they want of TLS.
pub(super) const USUAL: u64 = 1;
pub(super) const ANOTHER: u64 = 2;
pub(super) const REQUIRED: u64 = 3;
pub(super) const OPTIONAL: u64 = 4;

fn zones() -> Zones {
    Zones::new()
        .only("example")
        .time_to_live(60)
        .mx("dest.example", 10, "first.dest.example")
        .mx("dest.example", 20, "second.dest.example")
        // The same hosts, and nothing said about them.
        .mx("single.example", 10, "first.dest.example")
        .mx("open.example", 20, "first.dest.example")
        .mx("open.example", 10, "second.dest.example")
        .address("first.dest.example", [127, 0, 0, 2].into())
        .address("second.dest.example", [127, 0, 0, 3].into())
        .text("_mta-sts.dest.example", "v=STSv1; id=1;")
        .address("mta-sts.dest.example", [127, 0, 0, 1].into())
        .mx("many.example", 1, "h1.dest.example")
        .mx("many.example", 2, "h2.dest.example")
        .mx("many.example", 3, "h3.dest.example")
        .mx("many.example", 4, "h4.dest.example")
        .mx("many.example", 5, "h5.dest.example")
        .mx("many.example", 6, "h6.dest.example")
        .address("h1.dest.example", [127, 0, 0, 2].into())
        .address("h2.dest.example", [127, 0, 0, 2].into())
        .address("h3.dest.example", [127, 0, 0, 2].into())
        .address("h4.dest.example", [127, 0, 0, 2].into())
        .address("h5.dest.example", [127, 0, 0, 2].into())
        .address("h6.dest.example", [127, 0, 0, 2].into())
        .text("_mta-sts.many.example", "v=STSv1; id=1;")
        .address("mta-sts.many.example", [127, 0, 0, 1].into())
        .text("_mta-sts.single.example", "v=STSv1; id=1;")
        .address("mta-sts.single.example", [127, 0, 0, 1].into())
}

/// A sender, and what it asks.
pub(super) struct Net {
    pub web: WebServer,
    clock: Clock,
    stream: Stream,
    attempt: u32,
    _scheduler: Scheduler,
    _started: Started,
    _dns: Box<dyn std::any::Any + Send>,
    _folder: TempDir,
}

impl Net {
    async fn with_policy(policy: &str) -> Self {
        let net = Self::without_policy().await;
        net.show(policy);
        net
    }

    /// The record is there, and its server answers 404.
    async fn without_policy() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dns = Dns::start(folder.path(), &zones()).await.unwrap();
        let resolver = dns::Resolver::new(&[dns.address()]).unwrap();
        Self::with_names(folder, resolver, Box::new(dns)).await
    }

    /// One that asks the resolver, while `dns` answers it.
    pub async fn with_names(
        folder: TempDir,
        resolver: dns::Resolver,
        dns: Box<dyn std::any::Any + Send>,
    ) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let names = ["dest", "single", "many"].map(|name| format!("mta-sts.{name}.example"));
        let names = names.each_ref().map(String::as_str);
        let web = WebServer::start(address, &names).await.unwrap();
        let file = web.write_authority(folder.path()).unwrap();
        let both = std::fs::read_to_string(&file).unwrap() + &authority().pem();
        std::fs::write(&file, both).unwrap();
        let clock = Clock::default();
        let fetching = Fetching {
            https: runtime::HttpsClient::trusting(Some(&file)).unwrap(),
            port: web.address().port(),
            allow_private: true,
            clock: clock.clone(),
        };
        let authorities = runtime::trusted_authorities(Some(&file)).unwrap();
        let (scheduler, dispatch) = Scheduler::new();
        let started = start_trusting(
            messages(),
            vec![dispatch],
            resolver,
            Some(authorities),
            Some(fetching),
        );
        let stream = scheduler.stream(EPOCH).await;
        Self {
            web,
            clock,
            stream,
            attempt: 100,
            _scheduler: scheduler,
            _started: started,
            _dns: dns,
            _folder: folder,
        }
    }

    pub fn show(&self, policy: &str) {
        self.web
            .show(WELL_KNOWN, "Content-Type: text/plain\r\n", policy);
    }

    pub async fn lane(&self, port: u16) {
        self.lane_with(port, |_| {}).await;
    }

    pub async fn lane_with(&self, port: u16, change: impl FnOnce(&mut Lane)) {
        self.stream
            .lane(port, |lane| {
                lane.smart_host.clear();
                lane.site = SITE.into();
                change(lane);
            })
            .await;
    }

    /// Sends a message over the one slot, and allows its dot.
    pub async fn send(&mut self, message: u64, domain: &str) -> Report {
        use proto::dispatch::sender_item::Kind;
        self.attempt += 1;
        let mut delivery = delivery(message, &[0]);
        delivery.attempt = self.attempt;
        self.stream.assign_as(&delivery, message, domain).await;
        let report = match self.stream.next_of_delivery().await {
            Kind::Report(report) => report,
            Kind::Begin(_) => {
                self.stream.permit(&delivery).await;
                self.stream.report().await
            }
            other => panic!("{other:?}"),
        };
        self.stream.stored(&delivery).await;
        report
    }

    /// Stage, code and enhanced code of what the message came to.
    pub async fn result(&mut self, message: u64, domain: &str) -> (&'static str, u32, String) {
        let report = self.send(message, domain).await;
        let enhanced = report.recipients[0].reply.clone().unwrap().enhanced;
        let (_, stage, code, _) = replies(&report).remove(0);
        (stage, code, enhanced)
    }
}

fn messages() -> Messages {
    let mut messages = Messages::default();
    for message in [USUAL, ANOTHER, REQUIRED, OPTIONAL] {
        let entry = messages.add(message, &["b@dest.example"], CONTENT);
        let envelope = entry.envelope.as_mut().unwrap();
        envelope.require_tls = message == REQUIRED;
        envelope.tls_optional = message == OPTIONAL;
    }
    messages
}

/// A host at the address, that follows the scripts.
pub(super) async fn host(address: &str, port: u16, scripts: &[String]) -> Host {
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    Host::start_at(&format!("{address}:{port}"), &scripts).await
}

/// Banner, EHLO and STARTTLS; then the handshake.
pub(super) fn begin_tls(handshake: &str) -> String {
    format!(
        "> 220 mx\n < EHLO\n > 250-mx\n > 250 STARTTLS\n < STARTTLS\n > 220 go on\n {handshake}\n"
    )
}

/// EHLO with extensions, and a message that is taken.
pub(super) fn takes(extensions: &[&str], mail: &str) -> String {
    let mut script = "< EHLO\n > 250-mx\n ".to_owned();
    for extension in extensions {
        script += &format!("> 250-{extension}\n ");
    }
    script + "> 250 PIPELINING\n" + &message(mail)
}

pub(super) fn message(mail: &str) -> String {
    format!("< {mail}\n < RCPT\n < DATA\n > 250 ok\n > 250 ok\n > 354 go on\n <data\n > 250 kept\n")
}

pub(super) const MAIL: &str = "MAIL FROM:<a@sender.example>";
pub(super) const GOOD: &str = "tls as first.dest.example";

/// The whole of a session without TLS.
pub(super) fn in_the_clear() -> String {
    "> 220 mx\n".to_owned() + &takes(&[], MAIL)
}

#[tokio::test]
async fn a_host_that_proves_its_name_gets_the_mail_of_all_domains_of_its_site() {
    let script = begin_tls(GOOD) + &takes(&[], MAIL) + &message(MAIL) + &message(MAIL);
    let first = host(FIRST, 0, &[script]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane(first.port).await;
    let report = net.send(USUAL, "dest.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert!(report.tls);
    assert_eq!(report.mx_host, "first.dest.example");
    for domain in ["open.example", "dest.example"] {
        assert_eq!(net.result(ANOTHER, domain).await.1, 250);
    }
    first.done().await;
    assert_eq!(net.web.requests().len(), 1, "fetched once for all");
}

#[tokio::test]
async fn a_connection_to_whoever_it_may_be_does_not_serve_a_domain_with_a_policy() {
    let whoever = begin_tls("tls") + &takes(&[], MAIL) + "< QUIT\n > 221 bye\n";
    let second = host(SECOND, 0, &[whoever]).await;
    let proven = begin_tls(GOOD) + &takes(&[], MAIL);
    let first = host(FIRST, second.port, &[proven]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane(first.port).await;
    let report = net.send(USUAL, "open.example").await;
    assert_eq!(report.mx_host, "second.dest.example");
    let report = net.send(USUAL, "dest.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert_eq!(report.mx_host, "first.dest.example");
    first.done().await;
    second.done().await;
}

#[tokio::test]
async fn nothing_goes_to_hosts_that_do_not_prove_their_name() {
    let stripped = "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n".to_owned();
    let refuses = "> 220 mx\n < EHLO\n > 250-mx\n > 250 STARTTLS\n < STARTTLS\n > 502 what?\n";
    for script in [
        stripped,
        refuses.to_owned(),
        begin_tls("broken tls"),
        begin_tls("refused tls as second.dest.example"),
        begin_tls("refused tls as *.example"),
        begin_tls("refused tls as expired first.dest.example"),
    ] {
        let first = host(FIRST, 0, std::slice::from_ref(&script)).await;
        let second = begin_tls("tls as second.dest.example") + &takes(&[], MAIL);
        let second = host(SECOND, first.port, &[second]).await;
        let mut net = Net::with_policy(ENFORCE).await;
        net.lane(first.port).await;
        let report = net.send(USUAL, "dest.example").await;
        assert_eq!(replies(&report)[0].2, 250, "{script}");
        assert_eq!(report.mx_host, "second.dest.example");
        first.done().await;
        second.done().await;
    }
}

#[tokio::test]
async fn a_deferral_says_what_is_missing() {
    let stripped = "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n";
    let refuses = "> 220 mx\n < EHLO\n > 250-mx\n > 250 STARTTLS\n < STARTTLS\n > 502 what?\n";
    let other = ENFORCE.replace("*.dest", "mx.other");
    let unfit = begin_tls("refused tls as other.example");
    for (policy, script, expected, says) in [
        (
            ENFORCE,
            stripped,
            ("starttls", 0, "4.7.4"),
            "the host does not offer STARTTLS",
        ),
        (ENFORCE, refuses, ("starttls", 502, ""), "what?"),
        (
            ENFORCE,
            &unfit,
            ("starttls", 0, "4.7.5"),
            "TLS handshake: invalid peer certificate: ",
        ),
        (
            &other,
            "",
            ("dns", 0, "4.7.5"),
            "the domain does not name this host in what it enforces with MTA-STS",
        ),
    ] {
        let first = host(FIRST, 0, &[script.to_owned()]).await;
        let mut net = Net::with_policy(policy).await;
        net.lane_with(first.port, |lane| lane.site = "first.dest.example".into())
            .await;
        let report = net.send(USUAL, "single.example").await;
        let reply = report.recipients[0].reply.clone().unwrap();
        let stage = crate::metrics::stage_name(reply.stage());
        assert_eq!((stage, reply.code, reply.enhanced.as_str()), expected);
        assert!(reply.text.starts_with(says), "{reply:?}");
        assert_eq!(report.mx_host, "first.dest.example");
        if !script.is_empty() {
            first.done().await;
        }
    }
}

#[tokio::test]
async fn a_policy_in_testing_stops_nothing() {
    let testing = &ENFORCE.replace("enforce", "testing");
    // First it is seen whether the certificate would do.
    let refused = begin_tls("refused tls as other.example");
    let any = begin_tls("tls as other.example") + &takes(&[], MAIL);
    let first = host(FIRST, 0, &[refused, any]).await;
    let mut net = Net::with_policy(testing).await;
    net.lane(first.port).await;
    let report = net.send(USUAL, "dest.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert!(report.tls);
    first.done().await;

    let first = host(FIRST, 0, &[in_the_clear()]).await;
    let mut net = Net::with_policy(testing).await;
    net.lane(first.port).await;
    assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
    first.done().await;
}

#[tokio::test]
async fn a_policy_that_can_not_be_had_is_none() {
    let html = "Content-Type: text/html\r\n";
    let moved = b"HTTP/1.1 302 Found\r\nLocation: https://mta-sts.dest.example/policy\r\nContent-Length: 0\r\n\r\n";
    let long = format!("{ENFORCE}{}", "x: y\r\n".repeat(11_000));
    let nets = [
        Net::without_policy().await,
        Net::with_policy("mode: enforce").await,
        Net::with_policy(&long).await,
        Net::with_policy(ENFORCE).await,
        Net::with_policy(ENFORCE).await,
        Net::with_policy(ENFORCE).await,
    ];
    nets[3].web.show(WELL_KNOWN, html, ENFORCE);
    nets[4].web.answer(WELL_KNOWN, moved);
    nets[4]
        .web
        .show("/policy", "Content-Type: text/plain\r\n", ENFORCE);
    nets[5].web.set_away(true);
    for mut net in nets {
        let first = host(FIRST, 0, &[in_the_clear()]).await;
        net.lane(first.port).await;
        assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
        first.done().await;
    }
}

#[tokio::test]
async fn a_policy_that_does_not_come_holds_up_the_first_messages_for_a_while_only() {
    let mut net = Net::without_policy().await;
    net.web.answer(WELL_KNOWN, b"");
    net.web.set_lingering(true);
    let script = in_the_clear() + &message(MAIL);
    let first = host(FIRST, 0, &[script]).await;
    net.lane(first.port).await;
    for message in [USUAL, ANOTHER] {
        assert_eq!(net.result(message, "dest.example").await.1, 250);
    }
    // Without an answer nothing that requires one goes out, and nothing goes back.
    let expected = ("dns", 0, "4.7.5".to_owned());
    assert_eq!(net.result(REQUIRED, "dest.example").await, expected);
    first.done().await;
    assert_eq!(net.web.requests().len(), 1);
}

#[tokio::test]
async fn the_last_good_policy_holds_for_its_time_and_no_longer() {
    let good = begin_tls(GOOD) + &takes(&[], MAIL) + "<end";
    let stripped = "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n".to_owned();
    let scripts = [good, stripped.clone(), stripped, in_the_clear()];
    let first = host(FIRST, 0, &scripts).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane_with(first.port, |lane| lane.messages_per_connection = 1)
        .await;
    assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
    net.web.set_away(true);
    // It would have to be refreshed.
    net.clock.advance(60_000);
    assert_eq!(net.result(USUAL, "dest.example").await.1, 0);
    net.web.set_away(false);
    net.show("what is this?");
    net.clock.advance(39_000);
    assert_eq!(net.result(USUAL, "dest.example").await.1, 0);
    net.clock.advance(2_000);
    assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
    first.done().await;
}

#[tokio::test]
async fn a_policy_that_was_changed_is_found_within_its_time() {
    let good = begin_tls(GOOD) + &takes(&[], MAIL) + "<end";
    let first = host(FIRST, 0, &[good, in_the_clear()]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane_with(first.port, |lane| lane.messages_per_connection = 1)
        .await;
    assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
    net.show(&ENFORCE.replace("enforce", "none"));
    net.clock.advance(60_000);
    // Nobody waits for the look: what is sent meanwhile is held to the old one, here at a host that is not there.
    let patience = std::time::Instant::now() + super::play::PATIENCE;
    while net.web.requests().len() < 2 {
        net.lane_with(9, |lane| lane.connect_timeout_ms = 1).await;
        net.send(USUAL, "dest.example").await;
        assert!(std::time::Instant::now() < patience, "it is fetched again");
    }
    net.lane(first.port).await;
    let mut last = 0;
    while last != 250 && std::time::Instant::now() < patience {
        last = net.result(USUAL, "dest.example").await.1;
    }
    assert_eq!(last, 250);
    first.done().await;
}

#[tokio::test]
async fn what_need_not_be_secret_passes_where_a_policy_would_stop_it() {
    let first = host(FIRST, 0, &[in_the_clear()]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane(first.port).await;
    assert_eq!(net.result(OPTIONAL, "dest.example").await.1, 250);
    first.done().await;
    assert_eq!(net.web.requests().len(), 0, "nobody asked");

    // The operator's own rule holds.
    let stripped = "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n".to_owned();
    let first = host(FIRST, 0, std::slice::from_ref(&stripped)).await;
    let second = host(SECOND, first.port, &[stripped]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane_with(first.port, |lane| {
        lane.tls = proto::dispatch::TlsPolicy::Required.into();
    })
    .await;
    let result = net.result(OPTIONAL, "dest.example").await;
    assert_eq!(result, ("starttls", 0, "4.7.4".into()));
    first.done().await;
    second.done().await;
}

#[tokio::test]
async fn a_message_that_requires_tls_goes_to_a_host_that_keeps_it_and_says_so() {
    let unable = begin_tls(GOOD) + "< EHLO\n > 250-mx\n > 250 PIPELINING\n < QUIT\n > 221 bye\n";
    let first = host(FIRST, 0, &[unable]).await;
    let able = begin_tls("tls as second.dest.example")
        + &takes(&["REQUIRETLS"], "MAIL FROM:<a@sender.example> REQUIRETLS")
        // What does not require it is not said to.
        + &message("MAIL FROM:<a@sender.example>\r\n");
    let second = host(SECOND, first.port, &[able]).await;
    let mut net = Net::with_policy(ENFORCE).await;
    net.lane(first.port).await;
    let report = net.send(REQUIRED, "dest.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert_eq!(report.mx_host, "second.dest.example");
    assert_eq!(net.result(USUAL, "dest.example").await.1, 250);
    first.done().await;
    second.done().await;
}

#[tokio::test]
async fn a_message_that_requires_tls_goes_back_when_no_host_has_what_it_needs() {
    let unable =
        |handshake: &str| begin_tls(handshake) + "< EHLO\n > 250 mx\n < QUIT\n > 221 bye\n";
    let stripped = "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n".to_owned();
    for (first_says, second_says, expected) in [
        (
            unable(GOOD),
            Some(unable("tls as second.dest.example")),
            ("mail", 550, "5.7.30"),
        ),
        (
            unable(GOOD),
            Some(stripped.clone()),
            ("mail", 550, "5.7.30"),
        ),
        (
            begin_tls("refused tls as other.example"),
            Some(stripped),
            ("mail", 550, "5.7.10"),
        ),
        // Nobody knows what the second would have said.
        (unable(GOOD), None, ("connect", 0, "")),
    ] {
        let first = host(FIRST, 0, &[first_says]).await;
        let second = match second_says {
            Some(script) => Some(host(SECOND, first.port, &[script]).await),
            None => None,
        };
        let mut net = Net::with_policy(ENFORCE).await;
        net.lane(first.port).await;
        let (stage, code, enhanced) = net.result(REQUIRED, "dest.example").await;
        assert_eq!((stage, code, enhanced.as_str()), expected);
        first.done().await;
        if let Some(second) = second {
            second.done().await;
        }
    }
}

#[tokio::test]
async fn every_host_is_asked_before_a_message_that_requires_tls_goes_back() {
    let session = |number: u32| {
        begin_tls(&format!("tls as h{number}.dest.example"))
            + "< EHLO\n > 250 mx\n < QUIT\n > 221 bye\n"
    };
    let sessions: Vec<String> = (1..=6).map(session).collect();
    let all = host(FIRST, 0, &sessions).await;
    let mut net = Net::with_policy(ENFORCE).await;
    let site: Vec<String> = (1..=6)
        .map(|number| format!("h{number}.dest.example"))
        .collect();
    net.lane_with(all.port, |lane| lane.site = site.join(","))
        .await;
    let expected = ("mail", 550, "5.7.30".to_owned());
    assert_eq!(net.result(REQUIRED, "many.example").await, expected);
    all.done().await;
}

#[tokio::test]
async fn a_message_that_requires_tls_needs_a_domain_that_names_its_hosts() {
    // Nothing is opened: port 9 has nobody.
    let testing = Net::with_policy(&ENFORCE.replace("enforce", "testing")).await;
    for (mut net, domain, expected) in [
        (testing, "dest.example", ("dns", 550, "5.7.10")),
        (
            Net::with_policy(ENFORCE).await,
            "open.example",
            ("dns", 550, "5.7.10"),
        ),
        // It may be found out later.
        (
            Net::without_policy().await,
            "dest.example",
            ("dns", 0, "4.7.5"),
        ),
    ] {
        net.lane(9).await;
        let (stage, code, enhanced) = net.result(REQUIRED, domain).await;
        assert_eq!((stage, code, enhanced.as_str()), expected, "{domain}");
    }
}

#[tokio::test]
async fn a_smart_host_is_named_by_the_configuration_and_proves_that_it_is_it() {
    let mut net = Net::without_policy().await;
    for (handshake, expected) in [
        ("tls as 127.0.0.2", 250),
        ("refused tls as first.dest.example", 550),
    ] {
        let script = begin_tls(handshake)
            + &takes(&["REQUIRETLS"], "MAIL FROM:<a@sender.example> REQUIRETLS");
        let smart = host(FIRST, 0, &[script]).await;
        net.lane_with(smart.port, |lane| {
            lane.smart_host = FIRST.into();
            lane.messages_per_connection = 1;
        })
        .await;
        assert_eq!(net.result(REQUIRED, "dest.example").await.1, expected);
        smart.done().await;
    }
}
