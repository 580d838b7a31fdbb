//! Many messages to Postfix's smtp-sink.

use std::collections::{HashMap, HashSet};

use kit::SmtpSink;
use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{Assignment, DeliveryRef};

use super::play::{Messages, delivery, replies, with};

const MESSAGES: u64 = 500;
const SLOTS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_delivered_once_over_few_connections() {
    let folder = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start(folder.path()).await.unwrap();
    let mut messages = Messages::default();
    let content = format!(
        "From: a@sender.example\r\nSubject: x\r\n\r\n{}",
        "A line of seventy characters or so, as they are found in messages.\r\n".repeat(150)
    );
    for sequence in 0..MESSAGES {
        messages.add(sequence, &["b@dest.example"], &content);
    }
    let (started, _scheduler, mut stream) = with(messages).await;
    stream
        .lane(sink.address().port(), |lane| {
            lane.messages_per_connection = 100
        })
        .await;
    let mut waiting: Vec<u64> = (0..MESSAGES).collect();
    let mut slot_of: HashMap<u32, u32> = HashMap::new();
    let mut reported = HashSet::new();
    let assign = async |stream: &super::play::Stream, sequence: u64, slot: u32| {
        let assignment = Assignment {
            delivery: Some(delivery(sequence, &[0])),
            lane: 1,
            slot,
            sequence,
            index: 0,
            domain: "dest.example".into(),
        };
        stream.send(ToSender::Assignment(assignment)).await;
    };
    for slot in 0..SLOTS {
        let sequence = waiting.pop().unwrap();
        slot_of.insert(sequence as u32, slot);
        assign(&stream, sequence, slot).await;
    }
    let mut closed = 0;
    while reported.len() < MESSAGES as usize {
        match stream.next().await {
            FromSender::Begin(begin) => stream.permit(&begin.delivery.unwrap()).await,
            FromSender::Report(report) => {
                assert_eq!(replies(&report)[0].2, 250, "{report:?}");
                let done: DeliveryRef = report.delivery.unwrap();
                assert!(reported.insert(done.attempt));
                stream.stored(&done).await;
                if let Some(sequence) = waiting.pop() {
                    let slot = slot_of[&done.attempt];
                    slot_of.insert(sequence as u32, slot);
                    assign(&stream, sequence, slot).await;
                }
            }
            FromSender::SlotClosed(_) => closed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        closed <= SLOTS,
        "a connection carries 100 messages: {closed}"
    );
    started.shutdown.request();
    started.task.await.unwrap();
}
