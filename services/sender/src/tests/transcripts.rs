//! What is kept of dialogues: all of failed ones, and of others a sample.

use std::sync::Arc;

use proto::transcript::{Speaker, Transcript};
use tokio::sync::mpsc;

use super::host::Host;
use super::play::{CONTENT, EPOCH, Messages, PATIENCE, Scheduler, Started, Stream, start_keeping};
use crate::transcript::Keeping;

struct Played {
    stream: Stream,
    kept: mpsc::UnboundedReceiver<Transcript>,
    _started: Started,
    _scheduler: Scheduler,
}

async fn play(one_in: u32) -> Played {
    let mut messages = Messages::default();
    for sequence in 1..=4 {
        messages.add(sequence, &["b@dest.example", "c@dest.example"], CONTENT);
    }
    let (told, kept) = mpsc::unbounded_channel();
    let keeping = Keeping {
        keep: Arc::new(move |transcript| told.send(transcript).unwrap()),
        one_in,
    };
    let (scheduler, dispatch) = Scheduler::new();
    let started = start_keeping(messages, vec![dispatch], keeping);
    let stream = scheduler.stream(EPOCH).await;
    Played {
        stream,
        kept,
        _started: started,
        _scheduler: scheduler,
    }
}

impl Played {
    async fn kept(&mut self) -> Transcript {
        let kept = tokio::time::timeout(PATIENCE, self.kept.recv()).await;
        kept.expect("a transcript is kept").unwrap()
    }
}

/// One line for each line, with a mark of who says it. The port of the host is another each time.
fn lines(transcript: &Transcript, port: u16) -> Vec<String> {
    let mut lines = Vec::new();
    for passage in &transcript.passages {
        let mark = match passage.speaker() {
            Speaker::Unspecified => '-',
            Speaker::Client => '>',
            Speaker::Host => '<',
        };
        for line in passage.text.split('\n') {
            lines.push(format!("{mark} {line}").replace(&format!(":{port}"), ":25"));
        }
    }
    lines
}

const OPENING: [&str; 5] = [
    "- connecting to 127.0.0.1 127.0.0.1:25",
    "< 220 mx.example",
    "> EHLO relay.example",
    "< 250-mx.example",
    "< 250 PIPELINING",
];

#[tokio::test]
async fn a_failed_attempt_leaves_its_dialogue_and_one_that_succeeds_does_not() {
    let host = Host::start(&["hello
        mail
        <data
        > 250 kept
        < MAIL
        < RCPT
        < RCPT
        < DATA
        > 250 2.1.0 ok
        > 550-5.1.1 nobody
        > 550 5.1.1 of that name
        > 250 2.1.5 ok
        > 354 go on
        <data
        > 250 kept"])
    .await;
    let mut played = play(0).await;
    played.stream.lane(host.port, |_| {}).await;
    played.stream.carry(1, &[0]).await;
    let report = played.stream.carry(2, &[0, 1]).await;
    let transcript = played.kept().await;
    let delivery = report.delivery.unwrap();
    assert_eq!(transcript.message_id, delivery.message_id);
    assert_eq!(transcript.ordinals, [0, 1]);
    assert_eq!(
        (transcript.partition, transcript.attempt),
        (delivery.partition, delivery.attempt)
    );
    assert_eq!(
        (&*transcript.host, &*transcript.address, &*transcript.tls),
        ("127.0.0.1", "127.0.0.1", "")
    );
    assert!(!transcript.sampled && transcript.started_at_ms == report.started_at_ms);
    assert_eq!(
        lines(&transcript, host.port),
        [
            "- on a connection to 127.0.0.1 [127.0.0.1] without TLS that was open already, as transaction 2",
            "> MAIL FROM:<a@sender.example>",
            "> RCPT TO:<b@dest.example>",
            "> RCPT TO:<c@dest.example>",
            "> DATA",
            "< 250 2.1.0 ok",
            "< 550-5.1.1 nobody",
            "< 550 5.1.1 of that name",
            "< 250 2.1.5 ok",
            "< 354 go on",
            "- 90 of 90 octets of content sent",
            "< 250 kept",
        ]
    );
    let times: Vec<u32> = transcript.passages.iter().map(|said| said.at_ms).collect();
    assert!(times.is_sorted() && transcript.duration_ms >= *times.last().unwrap());
    // Nothing of the text, and nothing of the attempt that went well.
    let all = format!("{transcript:?}");
    assert!(!all.contains("Hello") && !all.contains("Subject"));
    host.done().await;
    assert!(played.kept.try_recv().is_err());
}

/// By script: what is kept after the opening.
#[tokio::test]
async fn how_it_ended_is_told_whoever_ended_it() {
    for (script, after_the_opening) in [
        (
            "hello\n < MAIL\n < RCPT\n < DATA\n close",
            &[
                "> MAIL FROM:<a@sender.example>",
                "> RCPT TO:<b@dest.example>",
                "> DATA",
                "- the host closed the connection",
            ][..],
        ),
        (
            "hello\n < MAIL\n < RCPT\n < DATA\n > 451 later\n > nonsense\n <end",
            &[
                "> MAIL FROM:<a@sender.example>",
                "> RCPT TO:<b@dest.example>",
                "> DATA",
                "< 451 later",
                "< nonsense",
                "- the host does not speak SMTP: a reply line that is not one",
            ],
        ),
        (
            "hello\n mail\n <data\n close",
            &[
                "> MAIL FROM:<a@sender.example>",
                "> RCPT TO:<b@dest.example>",
                "> DATA",
                "< 250 ok",
                "< 250 ok",
                "< 354 go on",
                "- 90 of 90 octets of content sent",
                "- the host closed the connection",
            ],
        ),
    ] {
        let host = Host::start(&[script]).await;
        let mut played = play(0).await;
        played.stream.lane(host.port, |_| {}).await;
        played.stream.carry(1, &[0]).await;
        let transcript = played.kept().await;
        let lines = lines(&transcript, host.port);
        assert_eq!(lines[..5], OPENING, "{script}");
        assert_eq!(lines[5..], *after_the_opening, "{script}");
        host.done().await;
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_and_a_permit_that_does_not_come_are_told() {
    let mut played = play(0).await;
    // Bound, and nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    played.stream.lane(port, |_| {}).await;
    let delivery = played.stream.assign(1, &[0]).await;
    played.stream.report().await;
    played.stream.stored(&delivery).await;
    let transcript = played.kept().await;
    let expected = [OPENING[0], "- no connection: connection refused"];
    assert_eq!(lines(&transcript, port), expected);
    assert_eq!(transcript.address, "127.0.0.1");

    let host = Host::start(&["hello\n mail\n <end"]).await;
    played.stream.lane(host.port, |_| {}).await;
    let delivery = played.stream.assign(2, &[0]).await;
    played.stream.begin().await;
    let refused = proto::dispatch::Refused {
        delivery: Some(delivery),
        reason: "unknown".into(),
    };
    let refused = proto::dispatch::scheduler_item::Kind::Refused(refused);
    played.stream.send(refused).await;
    let transcript = played.kept().await;
    let lines = lines(&transcript, host.port);
    assert_eq!(
        lines.last().unwrap(),
        "- the scheduler knows no such attempt"
    );
    host.done().await;
}

#[tokio::test]
async fn of_attempts_that_succeed_a_sample_is_kept_with_what_became_of_tls() {
    let host = Host::start(&["> 220 mx.example
        < EHLO
        > 250-mx.example
        > 250 STARTTLS
        < STARTTLS
        > 220 go on
        tls
        < EHLO
        > 250-mx.example
        > 250 PIPELINING
        mail
        <data
        > 250 kept"])
    .await;
    let mut played = play(1).await;
    played.stream.lane(host.port, |_| {}).await;
    played.stream.carry(1, &[0]).await;
    let transcript = played.kept().await;
    assert!(transcript.sampled);
    assert_eq!(transcript.tls, "1.3");
    let lines = lines(&transcript, host.port);
    assert!(lines.contains(&"- TLS 1.3, a certificate that was not checked".to_owned()));
    assert_eq!(lines.last().unwrap(), "< 250 kept");
    host.done().await;
}
