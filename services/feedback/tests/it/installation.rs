//! A nats-server of a test's own, with a partition whose journal the test writes as its owner would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kit::NatsServer;
use mail::{MessageId, PartitionId, Place};
use proto::envelope::{Envelope, Recipient};
use proto::journal::entry::Kind;
use proto::journal::{Disposition, Outcome, RecipientOutcome, Reply};
use proto::spool::{BlockIndex, IndexEntry};
use runtime::{Bootstrap, Shutdown};
use spool::{Append, Durability, Followed, InitOptions, Options, Stores};
use tempfile::TempDir;
use tokio::task::JoinHandle;

pub const P0: PartitionId = PartitionId(0);
/// Longer than anything that must happen takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SENDER: &str = "me@sender.example";

/// Stopped and removed when dropped.
pub struct Installation {
    stores: Stores,
    journal_end: u64,
    nats: NatsServer,
    _directory: TempDir,
}

impl Installation {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let nats = NatsServer::start(directory.path()).await.unwrap();
        let options = Options {
            url: nats.url(),
            access: spool::Access::default(),
            monitor: None,
            name: "test".to_owned(),
            durability: Durability::Strict,
        };
        let stores = Stores::connect(&options).await.unwrap();
        stores
            .init(&InitOptions {
                partitions: 1,
                replicas: 1,
                volume_bytes: 512 << 20,
                transcripts: spool::TranscriptBounds::USUAL,
            })
            .await
            .unwrap();
        Self {
            stores,
            journal_end: 0,
            nats,
            _directory: directory,
        }
    }

    /// SIGKILL, and start again with what is stored.
    pub async fn restart_server(&mut self) {
        self.kill();
        self.nats.restart().await.unwrap();
    }

    pub fn kill(&mut self) {
        self.nats.kill9().unwrap();
    }

    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The service, as a process would run it.
    pub fn feedback(&self) -> Feedback {
        self.feedback_with("", "")
    }

    /// The same, with more in the section of feedback, and beside it.
    pub fn feedback_with(&self, section: &str, more: &str) -> Feedback {
        let bootstrap = format!(
            "hostname: relay.example.com\nfeedback: {{ metrics: \"127.0.0.1:0\", {section} }}\n{more}"
        );
        let bootstrap = Arc::new(Bootstrap::from_yaml(&bootstrap).unwrap());
        let shutdown = Shutdown::new();
        let task = tokio::spawn(feedback::run(
            bootstrap,
            self.stores().clone(),
            shutdown.clone(),
        ));
        Feedback { shutdown, task }
    }

    /// Applies resource documents, as the whole configuration.
    pub async fn apply(&self, documents: &str) {
        let snapshot = config::Snapshot::from_documents(documents).unwrap();
        let store = self.stores().config();
        let version = store
            .load()
            .await
            .unwrap()
            .map_or(0, |stored| stored.version);
        let json = Bytes::from(snapshot.to_json());
        store.put(json, snapshot.hash(), version).await.unwrap();
    }

    /// Appends a record as the owner would; tells its sequence.
    pub async fn write(&mut self, kinds: Vec<Kind>) -> u64 {
        self.write_at(1_795_351_206_000, kinds).await
    }

    /// The same at a time, Unix milliseconds.
    pub async fn write_at(&mut self, at_ms: u64, kinds: Vec<Kind>) -> u64 {
        let entries = kinds.into_iter().map(journal::entry).collect();
        let record = journal::encode(1, at_ms, 1, entries);
        let id = format!("record-{}", self.journal_end);
        let begun = Instant::now();
        loop {
            match self
                .stores()
                .journal(P0)
                .append(record.clone(), &id, self.journal_end)
                .await
            {
                Append::Stored(sequence) => {
                    self.journal_end = sequence;
                    return sequence;
                }
                other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Spools a message to `recipients` in a block of its own.
    pub async fn spool(&self, recipients: &[&str], content: &'static str) -> (MessageId, Place) {
        let id = MessageId::now();
        let content = Bytes::from_static(content.as_bytes());
        let place = self
            .publish(vec![(entry(id, recipients, &content), content)], 0)
            .await;
        (id, place)
    }

    pub async fn publish(&self, messages: Vec<(IndexEntry, Bytes)>, flags: u64) -> Place {
        let block_id = *MessageId::now().as_bytes();
        let sequence = self
            .stores()
            .publish_block(P0, block_id, messages, flags)
            .await
            .unwrap();
        Place { sequence, index: 0 }
    }

    /// The DSNs that are in the spool; waits until there are so many.
    pub async fn dsns(&self, at_least: usize) -> Vec<Dsn> {
        let begun = Instant::now();
        loop {
            let found = self.dsns_now().await;
            if found.len() >= at_least {
                return found;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {at_least} DSNs",
                found.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn dsns_now(&self) -> Vec<Dsn> {
        let messages = self.messages().await.into_iter();
        let dsns = messages.filter(|(entry, _)| entry.reports_on.is_some());
        let dsn = |(entry, text): (IndexEntry, String)| Dsn {
            id: MessageId::try_from(&entry.message_id[..]).unwrap(),
            entry,
            text,
        };
        dsns.map(dsn).collect()
    }

    /// All that is in the spool.
    pub async fn messages(&self) -> Vec<(IndexEntry, String)> {
        let mut messages = Vec::new();
        for (sequence, index) in self.blocks().await {
            for (entry, number) in index.entries.into_iter().zip(0..) {
                let id = MessageId::try_from(&entry.message_id[..]).unwrap();
                let place = Place {
                    sequence,
                    index: number,
                };
                let read = self
                    .stores()
                    .message_reader(1 << 20)
                    .read(P0, place, id)
                    .await
                    .unwrap();
                let text = String::from_utf8(read.content.to_vec()).unwrap();
                messages.push((entry, text));
            }
        }
        messages
    }

    async fn blocks(&self) -> Vec<(u64, BlockIndex)> {
        let mut follower = self.stores().follow_blocks(P0, 0);
        let mut blocks = Vec::new();
        loop {
            match follower.next().await {
                Ok(Followed::Block(block)) => blocks.push((block.sequence, block.result.unwrap())),
                Ok(Followed::CaughtUp { .. }) => return blocks,
                // The server is being restarted.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub async fn position(&self) -> Option<u64> {
        self.stores()
            .reader_positions()
            .get("feedback", P0)
            .await
            .unwrap()
    }

    /// As an older run would have left it.
    pub async fn set_position(&self, sequence: u64) {
        self.stores()
            .reader_positions()
            .set("feedback", P0, sequence)
            .await
            .unwrap();
    }
}

/// The service at work.
pub struct Feedback {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), feedback::Error>>,
}

impl Feedback {
    /// An orderly stop.
    pub async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap().unwrap();
    }

    /// Everything it had in memory is gone.
    pub async fn abort(self) {
        self.task.abort();
        self.task.await.unwrap_err();
    }
}

pub struct Dsn {
    pub id: MessageId,
    pub entry: IndexEntry,
    pub text: String,
}

pub fn entry(id: MessageId, recipients: &[&str], content: &[u8]) -> IndexEntry {
    let header_length = content
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    let recipient = |address: &&str| Recipient {
        address: (*address).to_owned(),
        ..Recipient::default()
    };
    IndexEntry {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        header_length: u32::try_from(header_length).unwrap(),
        envelope: Some(Envelope {
            tenant: "acme".into(),
            stream: "bulk".into(),
            return_path: SENDER.into(),
            recipients: recipients.iter().map(recipient).collect(),
            accepted_at_ms: 1_795_351_200_000,
            ..Envelope::default()
        }),
        ..IndexEntry::default()
    }
}

/// The outcome of an attempt that bounced; the DSN is owed for all ordinals.
pub fn bounce((id, place): (MessageId, Place), ordinals: &[u32]) -> Kind {
    let recipients = ordinals.iter().map(|ordinal| RecipientOutcome {
        ordinal: *ordinal,
        disposition: Disposition::Bounced.into(),
        reply: Some(Reply {
            code: 550,
            enhanced: "5.1.1".into(),
            text: "no such user".into(),
            ..Reply::default()
        }),
        dsn_owed: true,
        ..RecipientOutcome::default()
    });
    Kind::Outcome(Outcome {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        attempt: 1,
        recipients: recipients.collect(),
        mx_host: "mx.receiver.example".into(),
        started_at_ms: 1_795_351_205_000,
        finished_at_ms: 1_795_351_205_500,
        sequence: place.sequence,
        index: place.index,
        ..Outcome::default()
    })
}
