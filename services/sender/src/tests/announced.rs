//! What hosts announce and what follows from it: SIZE (RFC 1870) and LIMITS (RFC 9422).

use super::host::Host;
use super::play::{CONTENT, Messages, delivery, replies, simple, with};

fn hello(announced: &str) -> String {
    format!("> 220 mx\n< EHLO relay.example\n> 250-mx\n> 250-PIPELINING\n> 250 {announced}")
}

#[tokio::test]
async fn what_is_larger_than_a_host_takes_is_refused_here_and_the_connection_serves_the_next() {
    let size = "X-Signed: sender.example\r\n".len() + CONTENT.len();
    let mut messages = Messages::default();
    messages.add(1, &["b@dest.example"], CONTENT);
    messages.add(2, &["b@dest.example"], &format!("{CONTENT}\r\n"));
    let script = format!(
        "{}\n< MAIL FROM:<a@sender.example> SIZE={size}\n< RCPT\n< DATA\n> 250 ok\n> 250 ok\n> 354 go on\n<data\n> 250 kept",
        hello(&format!("SIZE {size}"))
    );
    let host = Host::start(&[&script]).await;
    let (_started, _scheduler, mut stream) = with(messages).await;
    stream.lane(host.port, |_| {}).await;
    let large = stream.assign(2, &[0]).await;
    stream.begin().await;
    let report = stream.report().await;
    stream.stored(&large).await;
    let text = format!(
        "5.3.4 the message has {} octets, and the host takes {size} at most",
        size + 2
    );
    assert_eq!(replies(&report), [(0, "mail", 552, text)]);
    assert!(!report.dot_sent);
    let report = stream.carry(1, &[0]).await;
    assert_eq!(replies(&report)[0].2, 250);
    host.done().await;
}

#[tokio::test]
async fn recipients_that_a_host_does_not_take_at_a_time_come_back_without_an_attempt() {
    for pipelining in [true, false] {
        let hello = match pipelining {
            true => hello("LIMITS RCPTMAX=2"),
            false => "> 220 mx\n< EHLO\n> 250-mx\n> 250 LIMITS rcptmax=2 OTHER=9".to_owned(),
        };
        let rest = match pipelining {
            true => {
                "< MAIL\n< RCPT TO:<b@\n< RCPT TO:<c@\n< DATA\n> 250 ok\n> 550 5.1.1 no\n> 250 ok\n> 354 go on"
            }
            false => {
                "< MAIL\n> 250 ok\n< RCPT TO:<b@\n> 550 5.1.1 no\n< RCPT TO:<c@\n> 250 ok\n< DATA\n> 354 go on"
            }
        };
        let host = Host::start(&[&format!("{hello}\n{rest}\n<data\n> 250 kept")]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, |_| {}).await;
        let report = stream.carry(1, &[0, 1, 2]).await;
        let expected = [
            (0, "rcpt", 550, "5.1.1 no".into()),
            (1, "final_dot", 250, "kept".into()),
            (
                2,
                "prepare",
                0,
                "the host takes no more recipients at a time".into(),
            ),
        ];
        assert_eq!(replies(&report), expected);
        assert!(report.dot_sent);
        host.done().await;
    }
}

#[tokio::test]
async fn when_mail_is_refused_that_is_so_for_all_recipients() {
    let script = format!(
        "{}\n< MAIL\n< RCPT\n< DATA\n> 550 5.7.1 not from you\n> 503 no\n> 503 no",
        hello("LIMITS RCPTMAX=1")
    );
    let host = Host::start(&[&script]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0, 1, 2]).await;
    stream.begin().await;
    let report = stream.report().await;
    let all = replies(&report);
    assert!(
        all.iter().all(|reply| (reply.1, reply.2) == ("mail", 550)) && all.len() == 3,
        "{all:?}"
    );
    host.done().await;
}

#[tokio::test]
async fn a_connection_carries_as_many_messages_and_domains_as_the_host_allows() {
    let mail = "< MAIL\n< RCPT\n< DATA\n> 250 ok\n> 250 ok\n> 354 go on\n<data\n> 250 kept";
    let bye = "< QUIT\n> 221 bye";
    let once = format!("{}\n{mail}\n{bye}", hello("LIMITS MAILMAX=1"));
    let host = Host::start(&[&once, &once]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    stream.carry(1, &[0]).await;
    stream.carry(2, &[0]).await;
    assert_eq!(host.done().await.len(), 2);

    let twice = format!(
        "{}\n{mail}\n{mail}\n{mail}\n{bye}",
        hello("LIMITS RCPTDOMAINMAX=2")
    );
    let rest = format!("{}\n{mail}", hello("LIMITS RCPTDOMAINMAX=2"));
    let host = Host::start(&[&twice, &rest]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    for (attempt, domain) in
        (1..).zip(["one.example", "two.example", "one.example", "three.example"])
    {
        let mut delivery = delivery(2, &[0]);
        delivery.attempt = attempt;
        stream.assign_as(&delivery, 2, domain).await;
        assert_eq!(stream.begin().await, delivery);
        stream.permit(&delivery).await;
        stream.report().await;
        stream.stored(&delivery).await;
    }
    assert_eq!(host.done().await.len(), 4);
}
