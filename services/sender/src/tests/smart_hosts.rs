//! Smart hosts of sources: AUTH, over what it goes, and whose fault it is when it fails.

use proto::dispatch::sender_item::Kind;
use proto::dispatch::{
    Auth, AuthMechanism, AuthOver, Lane, OwnHost, Reach, Report, ReturnReason, TlsPolicy,
};
use tempfile::TempDir;

use super::host::{Host, authority};
use super::play::{
    CONTENT, EPOCH, Messages, Scheduler, Started, Stream, delivery, no_names, replies,
    start_trusting,
};

const BEFORE_TLS: &str =
    "> 220 smart\n< EHLO relay.example\n> 250-smart\n> 250 STARTTLS\n< STARTTLS\n> 220 go";
const GREETING: &str =
    "< EHLO relay.example\n> 250-smart\n> 250-PIPELINING\n> 250 AUTH PLAIN LOGIN XOAUTH2";
const REST: &str = "mail\n<data\n> 250 taken";

/// Of a host with a certificate for its address.
fn over_tls(then: &str) -> String {
    format!("{BEFORE_TLS}\ntls as 127.0.0.1\n{GREETING}\n{then}")
}

struct Net {
    stream: Stream,
    attempt: u32,
    folder: TempDir,
    _scheduler: Scheduler,
    _started: Started,
}

impl Net {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, authority().pem()).unwrap();
        let authorities = runtime::trusted_authorities(Some(&file)).unwrap();
        let mut messages = Messages::default();
        messages.add(1, &["b@dest.example"], CONTENT);
        let (scheduler, dispatch) = Scheduler::new();
        let started = start_trusting(
            messages,
            vec![dispatch],
            no_names(),
            Some(authorities),
            None,
        );
        let net = Self {
            stream: scheduler.stream(EPOCH).await,
            attempt: 0,
            folder,
            _scheduler: scheduler,
            _started: started,
        };
        net.write("password", "geheim\n");
        net.write("token", "old\n");
        net
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// A source with a smart host of its own, and what it says there.
    async fn lane(&self, port: u16, mechanism: AuthMechanism, change: impl FnOnce(&mut Lane)) {
        let file = match mechanism {
            AuthMechanism::Xoauth2 => "token",
            _ => "password",
        };
        let auth = Auth {
            mechanism: mechanism.into(),
            username: "app".into(),
            secret_file: self.folder.path().join(file).display().to_string(),
            over: AuthOver::VerifiedTls.into(),
        };
        self.stream
            .lane(0, |lane| {
                lane.source = "smart".into();
                lane.tls = TlsPolicy::Verified.into();
                lane.reach = Some(Reach {
                    port: port.into(),
                    own_host: Some(OwnHost {
                        implicit_tls: false,
                        auth: Some(auth),
                    }),
                    ..Reach::default()
                });
                change(lane);
            })
            .await;
    }

    /// Sends the message: its report, or why it came back.
    async fn send(&mut self) -> Result<Report, String> {
        self.attempt += 1;
        let mut delivery = delivery(1, &[0]);
        delivery.attempt = self.attempt;
        self.stream.assign_as(&delivery, 1, "dest.example").await;
        let report = match self.stream.next_of_delivery().await {
            Kind::Report(report) => report,
            Kind::Returned(returned) => {
                assert_eq!(returned.reason(), ReturnReason::Source);
                return Err(returned.detail);
            }
            Kind::Begin(_) => {
                self.stream.permit(&delivery).await;
                self.stream.report().await
            }
            other => panic!("{other:?}"),
        };
        self.stream.stored(&delivery).await;
        Ok(report)
    }

    /// One message to a host with one script: stage and code, or why it came back.
    async fn once(
        &mut self,
        script: &str,
        mechanism: AuthMechanism,
        change: impl FnOnce(&mut Lane),
    ) -> Result<(&'static str, u32), String> {
        let host = Host::start(&[script]).await;
        self.lane(host.port, mechanism, change).await;
        let sent = self.send().await;
        host.done().await;
        let report = sent?;
        let (_, stage, code, _) = replies(&report).remove(0);
        Ok((stage, code))
    }
}

fn own_host(lane: &mut Lane) -> &mut OwnHost {
    lane.reach.as_mut().unwrap().own_host.as_mut().unwrap()
}

fn may_go_over(lane: &mut Lane, over: AuthOver) {
    own_host(lane).auth.as_mut().unwrap().over = over.into();
}

const TAKEN: Result<(&str, u32), String> = Ok(("final_dot", 250));

#[tokio::test]
async fn says_who_it_is_as_each_mechanism_has_it_and_sends_the_mail() {
    let mut net = Net::new().await;
    let plain = "< AUTH PLAIN AGFwcABnZWhlaW0=\n> 235 in";
    let login =
        "< AUTH LOGIN\n> 334 VXNlcm5hbWU6\n< YXBw\n> 334 UGFzc3dvcmQ6\n< Z2VoZWlt\n> 235 in";
    let token = "< AUTH XOAUTH2 dXNlcj1hcHABYXV0aD1CZWFyZXIgb2xkAQE=\n> 235 in";
    for (mechanism, dialogue) in [
        (AuthMechanism::Plain, plain),
        (AuthMechanism::Login, login),
        (AuthMechanism::Xoauth2, token),
    ] {
        let script = over_tls(&format!("{dialogue}\n{REST}"));
        assert_eq!(net.once(&script, mechanism, |_| {}).await, TAKEN);
    }
    // With TLS from the start.
    let script = format!("tls as 127.0.0.1\n> 220 smart\n{GREETING}\n{plain}\n{REST}");
    let implicit = |lane: &mut Lane| own_host(lane).implicit_tls = true;
    assert_eq!(
        net.once(&script, AuthMechanism::Plain, implicit).await,
        TAKEN
    );
}

#[tokio::test]
async fn a_long_token_goes_on_a_line_of_its_own_and_a_new_one_holds_from_the_next_connection_on() {
    let mut net = Net::new().await;
    let refused = "< AUTH XOAUTH2 dXNlcj1hcHABYXV0aD1CZWFyZXIgb2xkAQE=\n> 334 eyJzdGF0dXMiOiI0MDEifQ==\n<empty\n> 535 5.7.8 the token has expired\n< QUIT\n> 221 bye";
    let came_to = net
        .once(&over_tls(refused), AuthMechanism::Xoauth2, |_| {})
        .await;
    assert_eq!(
        came_to,
        Err("127.0.0.1: 535 5.7.8 the token has expired".into())
    );
    net.write("token", &"t".repeat(1500));
    let long =
        format!("< AUTH XOAUTH2\n> 334 \n< dXNlcj1hcHABYXV0aD1CZWFyZXIgdHR0\n> 235 in\n{REST}");
    let came_to = net
        .once(&over_tls(&long), AuthMechanism::Xoauth2, |_| {})
        .await;
    assert_eq!(came_to, TAKEN);
}

#[tokio::test]
async fn credentials_go_over_what_is_allowed_by_name_and_over_nothing_else() {
    let mut net = Net::new().await;
    // A certificate of somebody else, and one that nobody vouches for.
    let script = format!("{BEFORE_TLS}\nrefused tls as other.example");
    let came_to = net.once(&script, AuthMechanism::Plain, |_| {}).await;
    assert!(
        came_to
            .as_ref()
            .is_err_and(|why| why.starts_with("127.0.0.1: TLS handshake: invalid peer certificate")),
        "{came_to:?}"
    );
    let self_signed = format!("{BEFORE_TLS}\ntls\n{GREETING}");
    let bye = "< QUIT\n> 221 bye";
    let any = |lane: &mut Lane| lane.tls = TlsPolicy::Required.into();
    let unsafe_for_it = Err(
        "127.0.0.1: the connection is not as safe as it has to be for credentials to be sent"
            .into(),
    );
    let came_to = net
        .once(&format!("{self_signed}\n{bye}"), AuthMechanism::Plain, any)
        .await;
    assert_eq!(came_to, unsafe_for_it);
    let allowed = |lane: &mut Lane| {
        lane.tls = TlsPolicy::Required.into();
        may_go_over(lane, AuthOver::AnyTls);
    };
    let said = format!("< AUTH PLAIN AGFwcABnZWhlaW0=\n> 235 in\n{REST}");
    let came_to = net
        .once(
            &format!("{self_signed}\n{said}"),
            AuthMechanism::Plain,
            allowed,
        )
        .await;
    assert_eq!(came_to, TAKEN);
    // Without TLS.
    let clear = format!("> 220 smart\n{GREETING}");
    for over in [AuthOver::VerifiedTls, AuthOver::AnyTls] {
        let none = |lane: &mut Lane| {
            lane.tls = TlsPolicy::None.into();
            may_go_over(lane, over);
        };
        let script = format!("{clear}\n{bye}");
        let came_to = net.once(&script, AuthMechanism::Plain, none).await;
        assert_eq!(came_to, unsafe_for_it);
    }
    let none = |lane: &mut Lane| {
        lane.tls = TlsPolicy::None.into();
        may_go_over(lane, AuthOver::PlainText);
    };
    let script = format!("{clear}\n{said}");
    assert_eq!(net.once(&script, AuthMechanism::Plain, none).await, TAKEN);
}

#[tokio::test]
async fn what_fails_before_mail_is_the_source_s_failure_and_no_attempt_but_a_host_that_asks_for_patience_is_heard()
 {
    let mut net = Net::new().await;
    let bye = "< QUIT\n> 221 bye";
    for (script, why) in [
        (
            over_tls(&format!(
                "< AUTH PLAIN AGFwcABnZWhlaW0=\n> 535 5.7.8 wrong\n{bye}"
            )),
            "127.0.0.1: 535 5.7.8 wrong",
        ),
        (
            over_tls(&format!("< AUTH PLAIN AGFwcABnZWhlaW0=\n> 334 \n{bye}")),
            "127.0.0.1: the smart host asks for more than AUTH has to say",
        ),
        (
            over_tls("< AUTH PLAIN AGFwcABnZWhlaW0=\nclose"),
            "127.0.0.1: the connection broke: unexpected end of file",
        ),
        (
            format!(
                "{BEFORE_TLS}\ntls as 127.0.0.1\n< EHLO\n> 250-smart\n> 250 AUTH GSSAPI LOGIN\n{bye}"
            ),
            "127.0.0.1: the smart host does not offer AUTH PLAIN",
        ),
        (
            over_tls(&format!(
                "< AUTH PLAIN AGFwcABnZWhlaW0=\n> 454 4.7.0 not now\n{bye}"
            )),
            "127.0.0.1: 454 4.7.0 not now",
        ),
        ("> 554 go away".into(), "127.0.0.1: 554  go away"),
    ] {
        let came_to = net.once(&script, AuthMechanism::Plain, |_| {}).await;
        assert_eq!(came_to, Err(why.into()));
    }
    let script = "> 421 too many connections";
    let came_to = net.once(script, AuthMechanism::Plain, |_| {}).await;
    assert_eq!(came_to, Ok(("banner", 421)));
    std::fs::remove_file(net.folder.path().join("password")).unwrap();
    let script = over_tls(bye);
    let came_to = net.once(&script, AuthMechanism::Plain, |_| {}).await;
    let path = net.folder.path().join("password");
    let why = format!(
        "127.0.0.1: the file {} can't be read: entity not found",
        path.display()
    );
    assert_eq!(came_to, Err(why));
    // Nobody listens.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = bound.local_addr().unwrap().port();
    net.lane(port, AuthMechanism::Plain, |_| {}).await;
    assert_eq!(
        net.send().await.unwrap_err(),
        "127.0.0.1: no connection: connection refused"
    );
}

#[tokio::test]
async fn an_open_connection_serves_until_the_way_of_the_source_changes() {
    let mut net = Net::new().await;
    let plain = "< AUTH PLAIN AGFwcABnZWhlaW0=\n> 235 in";
    let login = "< AUTH LOGIN\n> 334 \n< YXBw\n> 334 \n< Z2VoZWlt\n> 235 in";
    let first = over_tls(&format!("{plain}\n{REST}\n{REST}\n< QUIT\n> 221 bye"));
    let second = over_tls(&format!("{login}\n{REST}"));
    let host = Host::start(&[&first, &second]).await;
    net.lane(host.port, AuthMechanism::Plain, |_| {}).await;
    net.send().await.unwrap();
    // The lane is told again, as it was.
    net.lane(host.port, AuthMechanism::Plain, |_| {}).await;
    net.send().await.unwrap();
    net.lane(host.port, AuthMechanism::Login, |_| {}).await;
    net.send().await.unwrap();
    assert_eq!(host.done().await.len(), 3);
}

#[tokio::test]
async fn a_source_shows_its_certificate_and_one_that_cannot_be_read_is_the_source_s_failure() {
    let mut net = Net::new().await;
    let files = authority().write_certificate(net.folder.path(), &["relay.example"]);
    let (chain, key) = files.unwrap();
    let files = proto::dispatch::ClientCertificate {
        chain_file: chain.display().to_string(),
        key_file: key.display().to_string(),
    };
    let shows = |lane: &mut Lane| {
        own_host(lane).auth = None;
        lane.reach.as_mut().unwrap().certificate = Some(files.clone());
    };
    let script = format!("{BEFORE_TLS}\ntls asking as 127.0.0.1\n{GREETING}\n{REST}");
    assert_eq!(net.once(&script, AuthMechanism::Plain, shows).await, TAKEN);
    std::fs::remove_file(&key).unwrap();
    let came_to = net.once(BEFORE_TLS, AuthMechanism::Plain, shows).await;
    let why = format!("the source's key {}: I/O error", key.display());
    assert!(
        came_to.as_ref().is_err_and(|said| said.starts_with(&why)),
        "{came_to:?}"
    );
}

#[tokio::test]
async fn a_way_that_is_not_known_is_refused_and_no_other_is_taken() {
    let mut net = Net::new().await;
    for change in [
        (|lane| own_host(lane).auth.as_mut().unwrap().mechanism = 77) as fn(&mut Lane),
        |lane| own_host(lane).auth.as_mut().unwrap().over = 77,
        |lane| lane.tls = 77,
        |lane| lane.reach.as_mut().unwrap().family = 77,
        |lane| {
            lane.reach.as_mut().unwrap().proxy = Some(proto::dispatch::Proxy {
                protocol: 77,
                address: "127.0.0.1:1".into(),
                ..Default::default()
            });
        },
        // What a sender of an earlier release sees of it.
        |lane| lane.reach = None,
    ] {
        net.lane(9, AuthMechanism::Plain, change).await;
        net.attempt += 1;
        let mut delivery = delivery(1, &[0]);
        delivery.attempt = net.attempt;
        net.stream.assign_as(&delivery, 1, "dest.example").await;
        let (_, detail) = net.stream.returned().await;
        assert_eq!(detail, "the lane is not known, or can't be used");
    }
}
