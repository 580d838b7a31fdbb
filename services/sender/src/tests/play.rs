//! The other services, played by the test.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{
    Assignment, DeliveryRef, Hello, Lane, Owns, PartitionEpoch, Permit, Report, ReportStored,
    ReturnReason, SchedulerFrame, SchedulerItem, SenderFrame, TlsPolicy, Welcome,
};
use proto::envelope::{Envelope, Recipient};
use proto::signer::{SignRequest, SignResult, sign_result};
use proto::spool::IndexEntry;
use proto::{Attached, Call, CallError, Dispatch, Sign};
use runtime::Shutdown;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::content::{Content, Loaded, Pieces, ReadMessage, Reading, Unreadable};
use crate::policies::Fetching;
use crate::run::{Settings, serve};
use crate::transcript::Keeping;
use crate::{Links, Schedulers};

pub const PARTITION: u32 = 3;
pub const EPOCH: u64 = 7;
/// No test waits longer for something that should come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Messages by the sequence of their block.
#[derive(Default)]
pub struct Messages {
    by_sequence: HashMap<u64, (IndexEntry, Bytes)>,
    /// Content comes in pieces of so many octets; 0 = whole.
    pub pieces: usize,
    /// Of this one the last piece is not what was stored.
    pub damaged: u64,
}

impl Messages {
    pub fn add(&mut self, sequence: u64, recipients: &[&str], content: &str) -> &mut IndexEntry {
        let header_length = content.find("\r\n\r\n").map_or(content.len(), |at| at + 4);
        let recipient = |address: &&str| Recipient {
            address: (*address).into(),
            ..Recipient::default()
        };
        let entry = IndexEntry {
            message_id: message_id(sequence).as_bytes().to_vec().into(),
            header_length: header_length as u32,
            envelope: Some(Envelope {
                return_path: "a@sender.example".into(),
                credential: "app".into(),
                from_domain: "sender.example".into(),
                recipients: recipients.iter().map(recipient).collect(),
                ..Envelope::default()
            }),
            ..IndexEntry::default()
        };
        &mut self
            .by_sequence
            .entry(sequence)
            .insert_entry((entry, Bytes::from(content.to_owned())))
            .into_mut()
            .0
    }
}

impl ReadMessage for Messages {
    fn read(&self, _: PartitionId, place: Place, _: MessageId) -> Reading<'_> {
        Box::pin(async move {
            let (entry, content) =
                self.by_sequence
                    .get(&place.sequence)
                    .cloned()
                    .ok_or(Unreadable {
                        reason: ReturnReason::NotFound,
                        detail: String::new(),
                    })?;
            let header = content.slice(..entry.header_length as usize);
            let content = match self.pieces {
                0 => Content::Whole(content),
                octets => Content::Pieces(self.in_pieces(place.sequence, &content, octets)),
            };
            Ok(Loaded {
                entry: Arc::new(entry),
                header,
                content,
                room: None,
            })
        })
    }
}

impl Messages {
    fn in_pieces(&self, sequence: u64, content: &[u8], octets: usize) -> Pieces {
        let pieces = content.chunks(octets).map(Bytes::copy_from_slice);
        let mut pieces: Vec<_> = pieces.map(Ok).collect();
        if sequence == self.damaged {
            *pieces.last_mut().unwrap() = Err(Unreadable {
                reason: ReturnReason::Damaged,
                detail: "checksum".into(),
            });
        }
        Pieces::new(content.len(), futures::stream::iter(pieces).boxed())
    }
}

pub fn message_id(sequence: u64) -> MessageId {
    MessageId::from_bytes(u128::from(sequence).to_be_bytes())
}

/// Signs with a mark.
pub struct Marker;

impl Sign for Marker {
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
        let signed = |request: SignRequest| SignResult {
            kind: Some(sign_result::Kind::Fields(
                format!("X-Signed: {}\r\n", request.domain).into(),
            )),
        };
        Box::pin(async move { Ok(requests.into_iter().map(signed).collect()) })
    }
}

impl proto::TellKeys for Marker {
    fn keys(&self, _: proto::signer::KeysRequest) -> Call<'_, proto::signer::KeysAnswer> {
        Box::pin(async { Ok(proto::signer::KeysAnswer::default()) })
    }
}

struct Ends {
    from_sender: mpsc::Receiver<SenderFrame>,
    to_sender: mpsc::Sender<SchedulerFrame>,
}

struct Played(mpsc::Sender<Ends>);

impl Dispatch for Played {
    fn attach(&self) -> Call<'_, Attached> {
        Box::pin(async move {
            let (frames, from_sender) = mpsc::channel(64);
            let (to_sender, events) = mpsc::channel(64);
            self.0
                .send(Ends {
                    from_sender,
                    to_sender,
                })
                .await
                .map_err(|_| CallError {
                    detail: "gone".into(),
                })?;
            Ok(Attached { frames, events })
        })
    }
}

/// A scheduler in the hands of the test.
pub struct Scheduler {
    attached: Mutex<mpsc::Receiver<Ends>>,
}

/// An open stream, seen from the scheduler.
pub struct Stream {
    ends: Ends,
    items: std::collections::VecDeque<FromSender>,
    pub hello: Hello,
}

impl Scheduler {
    pub fn new() -> (Self, Arc<dyn Dispatch>) {
        let (sender, receiver) = mpsc::channel(1);
        (
            Self {
                attached: Mutex::new(receiver),
            },
            Arc::new(Played(sender)),
        )
    }

    /// The next stream, after Welcome, which owns the partition.
    pub async fn stream(&self, epoch: u64) -> Stream {
        let stream = self.bare_stream().await;
        stream.send(ToSender::Owns(owns(epoch))).await;
        stream
    }

    /// The next stream, after Welcome.
    pub async fn bare_stream(&self) -> Stream {
        let mut attached = self.attached.lock().await;
        let ends = tokio::time::timeout(PATIENCE, attached.recv())
            .await
            .expect("the sender attaches")
            .unwrap();
        let mut stream = Stream {
            ends,
            items: Default::default(),
            hello: Hello::default(),
        };
        let FromSender::Hello(hello) = stream.next().await else {
            panic!("Hello comes first")
        };
        stream.hello = hello;
        stream
            .send(ToSender::Welcome(Welcome {
                scheduler_id: "played".into(),
            }))
            .await;
        stream
    }
}

pub fn owns(epoch: u64) -> Owns {
    Owns {
        partitions: vec![PartitionEpoch {
            partition: PARTITION,
            epoch,
        }],
    }
}

impl Stream {
    pub async fn send(&self, kind: ToSender) {
        self.ends
            .to_sender
            .send(SchedulerFrame {
                items: vec![SchedulerItem { kind: Some(kind) }],
            })
            .await
            .unwrap();
    }

    /// The next item of the sender.
    pub async fn next(&mut self) -> FromSender {
        loop {
            if let Some(item) = self.items.pop_front() {
                return item;
            }
            let frame = tokio::time::timeout(PATIENCE, self.ends.from_sender.recv())
                .await
                .expect("an item comes")
                .expect("the stream stands");
            self.items
                .extend(frame.items.into_iter().filter_map(|item| item.kind));
        }
    }

    pub async fn begin(&mut self) -> DeliveryRef {
        self.begin_waiting().await.0
    }

    /// A begin, and how long the sender will wait for the final reply, milliseconds.
    pub async fn begin_waiting(&mut self) -> (DeliveryRef, u32) {
        match self.next_of_delivery().await {
            FromSender::Begin(begin) => (begin.delivery.unwrap(), begin.final_reply_timeout_ms),
            other => panic!("{other:?} instead of a begin"),
        }
    }

    pub async fn report(&mut self) -> Report {
        match self.next_of_delivery().await {
            FromSender::Report(report) => report,
            other => panic!("{other:?} instead of a report"),
        }
    }

    pub async fn returned(&mut self) -> (ReturnReason, String) {
        match self.next_of_delivery().await {
            FromSender::Returned(returned) => (returned.reason(), returned.detail),
            other => panic!("{other:?} instead of a return"),
        }
    }

    /// The next item, slots left out.
    pub async fn next_of_delivery(&mut self) -> FromSender {
        loop {
            match self.next().await {
                FromSender::SlotClosed(_) => {}
                other => return other,
            }
        }
    }

    pub async fn lane(&self, port: u16, change: impl FnOnce(&mut Lane)) {
        let mut lane = Lane {
            id: 1,
            ehlo: "relay.example".into(),
            smart_host: "127.0.0.1".into(),
            port: port.into(),
            allow_private: true,
            tls: TlsPolicy::Opportunistic.into(),
            connect_timeout_ms: 2_000,
            idle_timeout_ms: 60_000,
            ..Lane::default()
        };
        change(&mut lane);
        self.send(ToSender::Lane(lane)).await;
    }

    pub async fn assign(&self, sequence: u64, ordinals: &[u32]) -> DeliveryRef {
        let delivery = delivery(sequence, ordinals);
        self.assign_as(&delivery, sequence, "dest.example").await;
        delivery
    }

    pub async fn assign_as(&self, delivery: &DeliveryRef, sequence: u64, domain: &str) {
        let assignment = Assignment {
            delivery: Some(delivery.clone()),
            lane: 1,
            slot: 0,
            sequence,
            index: 0,
            domain: domain.into(),
        };
        self.send(ToSender::Assignment(assignment)).await;
    }

    pub async fn permit(&self, delivery: &DeliveryRef) {
        self.permit_for(delivery, 60_000).await;
    }

    pub async fn permit_for(&self, delivery: &DeliveryRef, valid_ms: u32) {
        self.send(ToSender::Permit(Permit {
            delivery: Some(delivery.clone()),
            valid_ms,
        }))
        .await;
    }

    pub async fn stored(&self, delivery: &DeliveryRef) {
        self.send(ToSender::ReportStored(ReportStored {
            delivery: Some(delivery.clone()),
        }))
        .await;
    }

    /// Plays one delivery that goes well up to its report.
    pub async fn carry(&mut self, sequence: u64, ordinals: &[u32]) -> Report {
        let delivery = self.assign(sequence, ordinals).await;
        assert_eq!(self.begin().await, delivery);
        self.permit(&delivery).await;
        let report = self.report().await;
        self.stored(&delivery).await;
        report
    }
}

pub fn delivery(sequence: u64, ordinals: &[u32]) -> DeliveryRef {
    DeliveryRef {
        partition: PARTITION,
        epoch: EPOCH,
        message_id: message_id(sequence).as_bytes().to_vec().into(),
        ordinals: ordinals.to_vec(),
        attempt: sequence as u32,
    }
}

/// A sender at work.
pub struct Started {
    pub shutdown: Shutdown,
    pub task: JoinHandle<()>,
}

pub fn start(
    messages: Messages,
    schedulers: Vec<Arc<dyn Dispatch>>,
    resolver: dns::Resolver,
) -> Started {
    start_trusting(messages, schedulers, resolver, None, None)
}

/// One that keeps transcripts.
pub fn start_keeping(
    messages: Messages,
    schedulers: Vec<Arc<dyn Dispatch>>,
    keeping: Keeping,
) -> Started {
    start_with(messages, schedulers, no_names(), |settings| {
        settings.transcripts = Some(keeping);
    })
}

/// One that trusts these authorities, and fetches policies.
pub fn start_trusting(
    messages: Messages,
    schedulers: Vec<Arc<dyn Dispatch>>,
    resolver: dns::Resolver,
    authorities: Option<rustls::RootCertStore>,
    fetching: Option<Fetching>,
) -> Started {
    start_with(messages, schedulers, resolver, |settings| {
        settings.authorities = authorities;
        settings.fetching = fetching;
    })
}

pub fn start_with(
    messages: Messages,
    schedulers: Vec<Arc<dyn Dispatch>>,
    resolver: dns::Resolver,
    change: impl FnOnce(&mut Settings),
) -> Started {
    let shutdown = Shutdown::new();
    let mut settings = Settings {
        hostname: "relay.example".into(),
        credit: 64,
        sources: Vec::new(),
        drain_timeout: PATIENCE,
        authorities: None,
        fetching: None,
        transcripts: None,
        reporting: None,
    };
    change(&mut settings);
    let links = Links {
        signer: Arc::new(Marker),
        keys: Arc::new(Marker),
        schedulers: Schedulers::Fixed(schedulers),
    };
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        serve(settings, links, Arc::new(messages), resolver, None, stop)
            .await
            .unwrap()
    });
    Started { shutdown, task }
}

/// A resolver for tests that ask nothing.
pub fn no_names() -> dns::Resolver {
    dns::Resolver::new(&["127.0.0.1:9".parse().unwrap()]).unwrap()
}

/// One sender, one scheduler, one message of sequence 1 to b, c and d at dest.example.
pub async fn simple() -> (Started, Scheduler, Stream) {
    let mut messages = Messages::default();
    messages.add(
        1,
        &["b@dest.example", "c@dest.example", "d@dest.example"],
        CONTENT,
    );
    messages.add(2, &["b@dest.example"], CONTENT);
    with(messages).await
}

pub async fn with(messages: Messages) -> (Started, Scheduler, Stream) {
    let (scheduler, dispatch) = Scheduler::new();
    let started = start(messages, vec![dispatch], no_names());
    let stream = scheduler.stream(EPOCH).await;
    (started, scheduler, stream)
}

pub const CONTENT: &str = "From: a@sender.example\r\nSubject: x\r\n\r\nHello\r\n.dots\r\n..too\r\n";
/// As it arrives.
pub const ARRIVED: &str = "X-Signed: sender.example\r\nFrom: a@sender.example\r\nSubject: x\r\n\r\nHello\r\n..dots\r\n...too\r\n.\r\n";

/// Stage, code and text of each recipient.
pub fn replies(report: &Report) -> Vec<(u32, &'static str, u32, String)> {
    let of = |recipient: &proto::dispatch::RecipientReport| {
        let reply = recipient.reply.clone().unwrap();
        (
            recipient.ordinal,
            crate::metrics::stage_name(reply.stage()),
            reply.code,
            format!("{} {}", reply.enhanced, reply.text)
                .trim()
                .to_owned(),
        )
    };
    report.recipients.iter().map(of).collect()
}
