//! What hosts say, and what is reported of it.

use proto::dispatch::Lane;

use super::host::Host;
use super::play::{ARRIVED, CONTENT, Messages, replies, simple, with};

#[tokio::test]
async fn a_message_arrives_signed_and_stuffed_and_its_connection_is_used_again() {
    let host = Host::start(&["hello
        mail
        <data
        > 250 2.0.0 kept as 1
        mail
        <data
        > 250 2.0.0 kept as 2
        < QUIT
        > 221 bye"])
    .await;
    let (started, _scheduler, mut stream) = simple().await;
    stream
        .lane(host.port, |lane| lane.messages_per_connection = 2)
        .await;
    let report = stream.carry(1, &[0]).await;
    assert_eq!(
        replies(&report),
        [(0, "final_dot", 250, "2.0.0 kept as 1".into())]
    );
    assert!(report.dot_sent && !report.tls);
    assert_eq!(
        (report.mx_host.as_str(), report.mx_address.as_str()),
        ("127.0.0.1", "127.0.0.1")
    );
    assert_eq!(report.recipients[0].address, "b@dest.example");
    let report = stream.carry(2, &[0]).await;
    assert_eq!(replies(&report)[0].3, "2.0.0 kept as 2");
    assert_eq!(host.done().await, [ARRIVED, ARRIVED]);
    assert!(matches!(
        stream.next().await,
        proto::dispatch::sender_item::Kind::SlotClosed(_)
    ));
    started.shutdown.request();
}

#[tokio::test]
async fn each_recipient_has_its_own_reply() {
    let host = Host::start(&["hello
        < MAIL FROM:
        < RCPT TO:<b@dest.example>
        < RCPT TO:<c@dest.example>
        < RCPT TO:<d@dest.example>
        < DATA
        > 250 ok
        > 550 5.1.1 no such user
        > 250 ok
        > 452-4.2.2 mailbox
        > 452 4.2.2 full
        > 354 go on
        <data
        > 250 kept"])
    .await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let report = stream.carry(1, &[0, 1, 2]).await;
    let expected = [
        (0, "rcpt", 550, "5.1.1 no such user".into()),
        (1, "final_dot", 250, "kept".into()),
        (2, "rcpt", 452, "4.2.2 mailbox full".into()),
    ];
    assert_eq!(replies(&report), expected);
    assert!(report.dot_sent);
    host.done().await;
}

/// Everything that ends before the content, by script: what each recipient gets, and what comes next on the connection.
#[tokio::test]
async fn refusals_before_the_content_are_reported_by_stage() {
    for (case, script, expected) in [
        (
            "MAIL refused: the connection stays",
            "hello
            < MAIL
            < RCPT
            < DATA
            > 451 4.7.1 later
            > 503 no MAIL
            > 503 no MAIL
            mail
            <data
            > 250 kept",
            ("mail", 451, "4.7.1 later"),
        ),
        (
            "RCPT refused, DATA too: RSET goes before the next one",
            "hello
            < MAIL
            < RCPT
            < DATA
            > 250 ok
            > 550 5.1.1 unknown
            > 554 no recipients
            < RSET
            < MAIL
            < RCPT
            < DATA
            > 250 reset
            > 250 ok
            > 250 ok
            > 354 go on
            <data
            > 250 kept",
            ("rcpt", 550, "5.1.1 unknown"),
        ),
        (
            "DATA refused",
            "hello
            < MAIL
            < RCPT
            < DATA
            > 250 ok
            > 250 ok
            > 552 5.3.4 too large
            < RSET
            < MAIL
            < RCPT
            < DATA
            > 250 reset
            > 250 ok
            > 250 ok
            > 354 go on
            <data
            > 250 kept",
            ("data", 552, "5.3.4 too large"),
        ),
    ] {
        let host = Host::start(&[script]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, |_| {}).await;
        let delivery = stream.assign(1, &[0]).await;
        assert_eq!(stream.begin().await, delivery);
        let report = stream.report().await;
        assert_eq!(
            replies(&report),
            [(0, expected.0, expected.1, expected.2.into())],
            "{case}"
        );
        assert!(!report.dot_sent, "{case}");
        stream.stored(&delivery).await;
        let next = stream.carry(2, &[0]).await;
        assert_eq!(replies(&next)[0].2, 250, "{case}");
        host.done().await;
    }
}

/// After these the connection is closed, and the next delivery opens another.
#[tokio::test]
async fn hosts_that_leave_or_talk_nonsense_lose_the_connection() {
    let next = "hello
        mail
        <data
        > 250 kept";
    for (case, script, expected, dot_sent) in [
        (
            "421 at RCPT",
            "hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 421 4.3.2 going down\n <end",
            ("rcpt", 421, "4.3.2 going down"),
            false,
        ),
        (
            "421 at MAIL",
            "hello\n < MAIL\n < RCPT\n < DATA\n > 421 4.7.0 too much\n <end",
            ("mail", 421, "4.7.0 too much"),
            false,
        ),
        (
            "421 at DATA",
            "hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 250 ok\n > 421 4.3.2 going down\n <end",
            ("data", 421, "4.3.2 going down"),
            false,
        ),
        (
            "354 without a recipient",
            "hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 550 no\n > 354 go on\n <end",
            ("rcpt", 550, "no"),
            false,
        ),
        (
            "closed at MAIL on a new connection",
            "hello\n < MAIL\n close",
            ("mail", 0, ""),
            false,
        ),
        (
            "garbage",
            "hello\n < MAIL\n > what do you mean\n <end",
            ("mail", 0, "the host does not speak SMTP"),
            false,
        ),
        (
            "closed after the dot",
            "hello\n mail\n <data\n close",
            ("final_dot", 0, ""),
            true,
        ),
        (
            "421 after the dot",
            "hello\n mail\n <data\n > 421 4.3.0 sorry\n <end",
            ("final_dot", 421, "4.3.0 sorry"),
            true,
        ),
    ] {
        let host = Host::start(&[script, next]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, |_| {}).await;
        let report = stream.carry(1, &[0]).await;
        let got = &replies(&report)[0];
        assert_eq!((got.1, got.2), (expected.0, expected.1), "{case}");
        assert!(got.3.starts_with(expected.2), "{case}: {}", got.3);
        assert_eq!(report.dot_sent, dot_sent, "{case}");
        let next = stream.carry(2, &[0]).await;
        assert_eq!(replies(&next)[0].2, 250, "{case}");
        let contents = host.done().await;
        assert!(
            contents
                .iter()
                .all(|content| content == ARRIVED || !content.contains("\r\n.\r\n")),
            "{case}: {contents:?}"
        );
    }
}

/// The other times are minutes: the test would not end within its own if one of them counted.
#[tokio::test]
async fn a_host_that_says_nothing_is_left_after_the_time_of_the_stage() {
    // Long enough for the stages before, on a machine that is busy.
    let command = |lane: &mut Lane| lane.command_timeout_ms = 5_000;
    let data = |lane: &mut Lane| lane.data_timeout_ms = 5_000;
    let final_reply = |lane: &mut Lane| lane.final_reply_timeout_ms = 5_000;
    type Change = fn(&mut Lane);
    let cases: [(&str, Change, &str); 6] = [
        ("<end", command, "banner"),
        ("> 220 mx\n < EHLO\n <end", command, "ehlo"),
        ("hello\n < MAIL\n <end", command, "mail"),
        ("hello\n < MAIL\n > 250 ok\n <end", command, "rcpt"),
        (
            "hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 250 ok\n <end",
            data,
            "data",
        ),
        ("hello\n mail\n <data\n <end", final_reply, "final_dot"),
    ];
    let plays = cases.map(|(script, change, stage)| async move {
        let host = Host::start(&[script]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, change).await;
        let delivery = stream.assign(1, &[0]).await;
        if !matches!(stage, "banner" | "ehlo") {
            assert_eq!(stream.begin().await, delivery);
            stream.permit(&delivery).await;
        }
        let report = stream.report().await;
        let got = &replies(&report)[0];
        assert_eq!(
            (got.1, got.2, got.3.as_str()),
            (stage, 0, "no answer in time"),
            "{script}"
        );
        assert_eq!(report.dot_sent, stage == "final_dot");
        host.done().await;
    });
    let [one, two, three, four, five, six] = plays;
    tokio::join!(one, two, three, four, five, six);
}

#[tokio::test]
async fn a_host_that_takes_no_content_is_left_after_the_time_for_data() {
    let host = Host::start(&["hello\n mail\n gate\n close"]).await;
    let mut messages = Messages::default();
    let content = format!(
        "From: a@sender.example\r\n\r\n{}",
        "0123456789 a line of text\r\n".repeat(1_000_000)
    );
    messages.add(1, &["b@dest.example"], &content);
    let (_started, _scheduler, mut stream) = with(messages).await;
    stream
        .lane(host.port, |lane| lane.data_timeout_ms = 5_000)
        .await;
    let delivery = stream.assign(1, &[0]).await;
    assert_eq!(stream.begin().await, delivery);
    stream.permit(&delivery).await;
    let report = stream.report().await;
    let got = &replies(&report)[0];
    assert_eq!(
        (got.1, got.2, got.3.as_str()),
        ("data", 0, "no answer in time")
    );
    assert!(!report.dot_sent);
    host.open_gate();
    host.done().await;
}

#[tokio::test]
async fn a_begin_says_how_long_the_final_reply_will_be_waited_for() {
    let host = Host::start(&["hello\n mail\n <data\n > 250 ok\n mail\n <data\n > 250 ok"]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let first = stream.assign(1, &[0]).await;
    // The lane as it was at the assignment counts.
    stream
        .lane(host.port, |lane| lane.final_reply_timeout_ms = 10_000)
        .await;
    assert_eq!(stream.begin_waiting().await, (first.clone(), 600_000));
    stream.permit(&first).await;
    stream.report().await;
    let second = stream.assign(2, &[0]).await;
    assert_eq!(stream.begin_waiting().await, (second.clone(), 10_000));
    stream.permit(&second).await;
    stream.report().await;
    host.done().await;
}

#[tokio::test]
async fn hosts_that_take_no_mail_at_all_are_told_apart_by_stage() {
    for (script, stage, code) in [
        ("> 554 5.7.1 your address is listed\n <end", "banner", 554),
        ("> 421 4.3.2 too busy\n <end", "banner", 421),
        ("close", "banner", 0),
        ("> 220 mx\n < EHLO\n > 450 not now\n <end", "ehlo", 450),
        (
            "> 220 mx\n < EHLO\n > 500 what\n < HELO relay.example\n > 550 go away\n <end",
            "ehlo",
            550,
        ),
    ] {
        let host = Host::start(&[script]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, |_| {}).await;
        stream.assign(1, &[0]).await;
        let report = stream.report().await;
        let got = &replies(&report)[0];
        assert_eq!((got.1, got.2), (stage, code), "{script}");
        assert!(!report.dot_sent);
        host.done().await;
    }
    let (_started, _scheduler, mut stream) = simple().await;
    // Bound, so that nobody else takes the port, and never listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    stream.lane(closed_port, |_| {}).await;
    stream.assign(1, &[0]).await;
    let report = stream.report().await;
    assert_eq!(
        (replies(&report)[0].1, replies(&report)[0].2),
        ("connect", 0)
    );
    assert!(matches!(
        stream.next().await,
        proto::dispatch::sender_item::Kind::SlotClosed(_)
    ));
}

#[tokio::test]
async fn a_host_without_extensions_is_spoken_to_step_by_step() {
    let host = Host::start(&["> 220 old
        < EHLO
        > 502 what
        < HELO relay.example
        > 250 old
        < MAIL FROM:<a@sender.example>\r
        > 250 ok
        < RCPT TO:<b@dest.example>\r
        > 550 no
        < RCPT TO:<c@dest.example>\r
        > 250 ok
        < DATA
        > 354 go on
        <data
        > 250 kept
        < MAIL
        > 250 ok
        < RCPT
        > 550 no
        < RSET
        > 250 ok
        < MAIL
        > 550 no"])
    .await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let report = stream.carry(1, &[0, 1]).await;
    assert_eq!(
        replies(&report),
        [
            (0, "rcpt", 550, "no".into()),
            (1, "final_dot", 250, "kept".into())
        ]
    );
    for (attempt, stage) in [(100, "rcpt"), (101, "mail")] {
        let mut delivery = super::play::delivery(2, &[0]);
        delivery.attempt = attempt;
        stream.assign_as(&delivery, 2, "dest.example").await;
        stream.begin().await;
        assert_eq!(replies(&stream.report().await)[0].1, stage);
    }
    host.done().await;
}

#[tokio::test]
async fn parameters_go_to_hosts_that_know_them_only() {
    let offered = "> 220 mx
        < EHLO
        > 250-mx
        > 250-SIZE 1000000
        > 250-8BITMIME
        > 250-DSN
        > 250-MT-PRIORITY
        > 250-DELIVERBY
        > 250 SMTPUTF8
        < MAIL FROM:<bounce+b@sender.example> SIZE=75 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=envelope1 MT-PRIORITY=-4 BY=-999999999;N\r
        > 250 ok
        < RCPT TO:<b@dest.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first@dest.example
        > 250 ok
        < DATA
        > 354 go on
        <data
        > 250 kept";
    let not_offered = "> 220 mx
        < EHLO
        > 250 mx
        < MAIL FROM:<bounce+b@sender.example>\r
        > 250 ok
        < RCPT TO:<b@dest.example>\r
        > 250 ok
        < DATA
        > 354 go on
        <data
        > 250 kept";
    let arrived =
        "X-Signed: sender.example\r\nX-Variant: b\r\nFrom: a@sender.example\r\n\r\nGrüße\r\n.\r\n";
    for (script, sender) in [
        (offered, "a@sender.example"),
        (not_offered, "a@sender.example"),
        (not_offered, ""),
    ] {
        let host = Host::start(&[script]).await;
        let mut messages = Messages::default();
        let entry = messages.add(
            1,
            &["b@dest.example"],
            "From: a@sender.example\r\n\r\nGrüße\r\n",
        );
        entry.header_variants = vec!["X-Variant: a\r\n".into(), "X-Variant: b\r\n".into()];
        let envelope = entry.envelope.as_mut().unwrap();
        envelope.return_path = sender.to_owned();
        envelope.set_body(proto::envelope::Body::EightBit);
        envelope.smtputf8 = true;
        envelope.set_ret(proto::envelope::DsnReturn::Headers);
        envelope.envid = "envelope1".into();
        envelope.priority = -4;
        // Over for longer than can be said.
        envelope.deliver_by_ms = 1;
        let recipient = &mut envelope.recipients[0];
        recipient.notify = 6;
        recipient.orcpt = "rfc822;first@dest.example".into();
        recipient.return_path = "bounce+b@sender.example".into();
        recipient.header_variant = 2;
        let (_started, _scheduler, mut stream) = with(messages).await;
        stream.lane(host.port, |_| {}).await;
        let report = stream.carry(1, &[0]).await;
        assert_eq!(replies(&report)[0].2, 250);
        // A host that does not know DSN tells nobody that it is delivered; nobody is told without a sender.
        assert_eq!(
            report.recipients[0].relayed,
            script == not_offered && !sender.is_empty()
        );
        assert_eq!(host.done().await, [arrived]);
    }
}

#[tokio::test]
async fn internationalized_mail_needs_a_host_for_it() {
    let host = Host::start(&["hello\n <end"]).await;
    let mut messages = Messages::default();
    messages
        .add(1, &["bé@dest.example"], CONTENT)
        .envelope
        .as_mut()
        .unwrap()
        .smtputf8 = true;
    let (_started, _scheduler, mut stream) = with(messages).await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0]).await;
    stream.begin().await;
    let report = stream.report().await;
    assert_eq!(
        (replies(&report)[0].1, replies(&report)[0].2),
        ("mail", 553)
    );
    assert!(replies(&report)[0].3.starts_with("5.6.7"));
}

#[tokio::test]
async fn a_connection_that_the_host_closed_while_idle_is_replaced_unnoticed() {
    let host = Host::start(&[
        "hello\n mail\n <data\n > 250 kept\n > 421 idle for too long\n close",
        "hello\n mail\n <data\n > 250 kept",
    ])
    .await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    stream.carry(1, &[0]).await;
    let report = stream.carry(2, &[0]).await;
    assert_eq!(replies(&report)[0].2, 250);
    host.done().await;
}

#[tokio::test]
async fn a_large_message_goes_out_before_its_permit_and_the_dot_after_it() {
    let host = Host::start(&["hello\n mail\n <data\n > 250 kept"]).await;
    let mut messages = Messages::default();
    let content = format!(
        "From: a@sender.example\r\n\r\n{}",
        "0123456789 a line of text\r\n".repeat(40_000)
    );
    messages.add(1, &["b@dest.example"], &content);
    let (_started, _scheduler, mut stream) = with(messages).await;
    stream.lane(host.port, |_| {}).await;
    let report = stream.carry(1, &[0]).await;
    assert_eq!(replies(&report)[0].2, 250);
    assert_eq!(
        host.done().await,
        [format!("X-Signed: sender.example\r\n{content}.\r\n")]
    );
}

#[tokio::test]
async fn tls_is_used_when_offered_and_left_out_when_broken() {
    let under_tls = "hello_tls
        < STARTTLS
        > 220 go on
        tls
        < EHLO
        > 250-mx
        > 250 PIPELINING
        mail
        <data
        > 250 kept";
    let broken = "hello_tls\n < STARTTLS\n > 220 go on\n broken tls\n <end";
    let refused = "hello_tls\n < STARTTLS\n > 454 4.7.0 not now\n mail\n <data\n > 250 kept";
    let plain = "hello_tls\n mail\n <data\n > 250 kept";
    let hello_tls = "> 220 mx\n < EHLO\n > 250-mx\n > 250-PIPELINING\n > 250 STARTTLS";
    for (case, scripts, tls) in [
        ("works", vec![under_tls], true),
        ("breaks", vec![broken, plain], false),
        ("is refused", vec![refused], false),
    ] {
        let scripts: Vec<String> = scripts
            .iter()
            .map(|script| script.replace("hello_tls", hello_tls))
            .collect();
        let host = Host::start(&scripts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream.lane(host.port, |_| {}).await;
        let report = stream.carry(1, &[0]).await;
        assert_eq!((replies(&report)[0].2, report.tls), (250, tls), "{case}");
        assert_eq!(host.done().await.pop().unwrap(), ARRIVED, "{case}");
    }
}

#[tokio::test]
async fn required_tls_is_never_left_out() {
    for (script, code) in [
        ("hello\n <end", 0),
        (
            "> 220 mx\n < EHLO\n > 250-mx\n > 250 STARTTLS\n < STARTTLS\n > 454 not now\n <end",
            454,
        ),
    ] {
        let host = Host::start(&[script]).await;
        let (_started, _scheduler, mut stream) = simple().await;
        stream
            .lane(host.port, |lane| {
                lane.set_tls(proto::dispatch::TlsPolicy::Required)
            })
            .await;
        stream.assign(1, &[0]).await;
        let report = stream.report().await;
        assert_eq!(
            (replies(&report)[0].1, replies(&report)[0].2),
            ("starttls", code)
        );
    }
}
