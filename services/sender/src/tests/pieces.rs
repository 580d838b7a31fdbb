//! Content that is read while it is sent.

use std::time::Duration;

use proto::dispatch::ReturnReason;
use proto::dispatch::sender_item::Kind as FromSender;

use super::host::Host;
use super::play::{ARRIVED, CONTENT, Messages, Scheduler, Started, Stream, replies, with};

async fn in_pieces_of(octets: usize) -> (Started, Scheduler, Stream) {
    let mut messages = Messages::default();
    messages.pieces = octets;
    messages.damaged = 2;
    messages.add(1, &["b@dest.example"], CONTENT);
    messages.add(2, &["b@dest.example"], CONTENT);
    with(messages).await
}

#[tokio::test]
async fn content_arrives_the_same_however_it_is_cut() {
    for octets in [1, 2, 3, 7, 41, 1000] {
        let host = Host::start(&["hello\n mail\n <data\n > 250 kept"]).await;
        let (_started, _scheduler, mut stream) = in_pieces_of(octets).await;
        stream.lane(host.port, |_| {}).await;
        let report = stream.carry(1, &[0]).await;
        assert_eq!(replies(&report), [(0, "final_dot", 250, "kept".into())]);
        assert_eq!(host.done().await, [ARRIVED], "{octets}");
    }
}

#[tokio::test]
async fn begin_is_reported_when_only_the_dot_is_left() {
    let script = "hello
        < MAIL
        < RCPT
        < DATA
        > 250 ok
        > 250 ok
        tell
        gate
        > 354 go on
        <until ...too
        tell
        < .
        > 250 kept";
    let host = Host::start(&[script]).await;
    let (_started, _scheduler, mut stream) = in_pieces_of(5).await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    host.told().await;
    let early = tokio::time::timeout(Duration::from_millis(200), stream.next_of_delivery()).await;
    assert!(early.is_err(), "{early:?}");
    host.open_gate();
    assert_eq!(stream.begin().await, delivery);
    host.told().await;
    stream.permit(&delivery).await;
    assert!(stream.report().await.dot_sent);
    host.done().await;
}

#[tokio::test]
async fn damaged_content_is_not_ended_and_given_back_as_damaged() {
    let host = Host::start(&["hello\n mail\n <end", "hello\n mail\n <data\n > 250 kept"]).await;
    let (_started, _scheduler, mut stream) = in_pieces_of(16).await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(2, &[0]).await;
    let left = stream.next_of_delivery().await;
    assert!(matches!(left, FromSender::Left(_)), "{left:?}");
    assert_eq!(stream.returned().await.0, ReturnReason::Damaged);
    // The next one goes over another connection.
    stream.carry(1, &[0]).await;
    let content = host.done().await;
    assert!(content[0].contains("Hello") && !content[0].contains("\r\n.\r\n"));
    assert_eq!(content[1], ARRIVED);
}

#[tokio::test]
async fn a_stop_before_the_dot_leaves_nothing_in_doubt() {
    let script = "hello
        < MAIL
        < RCPT
        < DATA
        > 250 ok
        > 250 ok
        tell
        <end";
    let host = Host::start(&[script]).await;
    let (started, _scheduler, mut stream) = in_pieces_of(16).await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0]).await;
    host.told().await;
    started.shutdown.request();
    let returned = loop {
        match stream.next_of_delivery().await {
            FromSender::Draining(_) => {}
            FromSender::Left(_) => break stream.returned().await.0,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(returned, ReturnReason::Draining);
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn a_refusal_before_the_begin_is_reported_and_the_message_counts_as_sent() {
    let host =
        Host::start(&["hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 550 no\n > 503 no"]).await;
    let (_started, _scheduler, mut stream) = in_pieces_of(16).await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0]).await;
    let left = stream.next_of_delivery().await;
    assert!(matches!(left, FromSender::Left(_)), "{left:?}");
    assert_eq!(replies(&stream.report().await)[0].1, "rcpt");
    host.done().await;
}
