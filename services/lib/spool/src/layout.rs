//! Names, subjects and bounds of everything that is stored.
//!
//! # Bounds
//! The volume's share for us is 80 %; of that share, over all partitions:
//!
//! | what | share |
//! |---|---|
//! | `SPOOL_<p>` | 55 % |
//! | `CHUNKS_<p>` | 18 %, less what `TRANSCRIPTS` has |
//! | `JOURNAL_<p>` | 20 % |
//! | `EVENTS` | 1 % |
//! | `INBOUND` | 1 % |
//! | `TRANSCRIPTS` | 1 %, or what is configured, at most 5 % |
//! | the five key-value buckets | 1 % each |
//!
//! An installation that is older than `EVENTS` has 20 % for its chunks, and the 1 % beside; one that is older than
//! `TRANSCRIPTS` has that beside, and what is configured later comes on top as well; one that is older than `INBOUND` has
//! that beside.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use mail::PartitionId;

/// Version of the layout of streams and buckets that this release writes.
pub const FORMAT_VERSION: u32 = 1;

/// Key of a stream's metadata that names the installation it belongs to.
pub(crate) const INSTALLATION: &str = "staffetta.installation";

/// Streams of which nothing depends: they discard what is old, and a lost one is made again.
pub(crate) const HISTORIES: [&str; 2] = [EVENTS, TRANSCRIPTS];

/// Streams that earlier releases made no installation with: `init` adds them.
pub(crate) const ADDED: [&str; 3] = [EVENTS, TRANSCRIPTS, INBOUND];

/// How long JetStream remembers message ids; a publish is repeated for half of that.
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// How long the marker of an expired or deleted key stays (at least 1 s on the server's side).
const MARKER_TTL: Duration = Duration::from_secs(60);

pub(crate) const BUCKETS: [&str; 5] = ["format", "config", "leases", "members", "readers"];

/// The smallest volume that `init` accepts, bytes per partition.
pub(crate) const MIN_VOLUME_PER_PARTITION: u64 = 16 << 20;

/// Partitions that an installation may have.
pub(crate) const MAX_PARTITIONS: u32 = 64;

pub(crate) fn spool_stream(partition: PartitionId) -> String {
    format!("SPOOL_{partition}")
}

pub(crate) fn chunks_stream(partition: PartitionId) -> String {
    format!("CHUNKS_{partition}")
}

/// How the names of journals begin.
pub(crate) const JOURNALS: &str = "JOURNAL_";

pub(crate) fn journal_stream(partition: PartitionId) -> String {
    format!("{JOURNALS}{partition}")
}

pub(crate) fn block_subject(partition: PartitionId) -> String {
    format!("spool.{partition}.block")
}

pub(crate) fn more_subject(partition: PartitionId) -> String {
    format!("spool.{partition}.more")
}

pub(crate) fn chunk_subject(partition: PartitionId, upload_id: &str) -> String {
    format!("chunks.{partition}.{upload_id}")
}

pub(crate) fn journal_subject(partition: PartitionId) -> String {
    format!("journal.{partition}")
}

/// What others than the owner of a partition have to say.
pub(crate) const EVENTS: &str = "EVENTS";

/// Events are discarded when they are so old, or when there is no room.
const EVENTS_AGE: Duration = Duration::from_secs(30 * 86_400);

pub(crate) fn events_subject(service: &str) -> String {
    format!("events.{service}")
}

/// What was said to and by mail hosts.
pub(crate) const TRANSCRIPTS: &str = "TRANSCRIPTS";

pub(crate) fn transcripts_subject(service: &str) -> String {
    format!("transcripts.{service}")
}

/// What came back and is not handled yet.
pub(crate) const INBOUND: &str = "INBOUND";

pub(crate) const INBOUND_SUBJECT: &str = "inbound.mail";

/// How much is kept of what was said to and by mail hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TranscriptBounds {
    /// Older ones are discarded. At least an hour.
    pub max_age: Duration,
    /// The oldest are discarded when there are more octets: 1 MiB to 4 % of the volume. `None`: 1 % of what is used of it.
    pub max_bytes: Option<u64>,
}

impl TranscriptBounds {
    /// When nothing is said.
    pub const USUAL: Self = Self {
        max_age: Duration::from_secs(7 * 86_400),
        max_bytes: None,
    };
}

/// The largest bound of `TRANSCRIPTS` in bytes.
pub(crate) fn most_transcripts(volume_bytes: u64) -> u64 {
    volume_bytes / 100 * 4
}

pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// All streams of an installation, buckets included, as `init` makes them.
pub(crate) fn streams(
    partitions: u32,
    replicas: u32,
    volume_bytes: u64,
    installation: &str,
    transcripts: &TranscriptBounds,
) -> Vec<Config> {
    let share = volume_bytes / 10 * 8;
    let of_each = |all: u64| all / u64::from(partitions.max(1));
    let per_partition = |percent: u64| of_each(share / 100 * percent);
    let transcript_bytes = transcripts
        .max_bytes
        .unwrap_or(share / 100)
        .min(most_transcripts(volume_bytes));
    let chunk_bytes = of_each((share / 100 * 18).saturating_sub(transcript_bytes));
    let mut all: Vec<Config> = BUCKETS
        .iter()
        .map(|bucket| bucket_config(bucket, replicas, share / 100, installation))
        .collect();
    for partition in (0..partitions).map(PartitionId) {
        let spool_subjects = vec![block_subject(partition), more_subject(partition)];
        let chunk_subjects = vec![format!("chunks.{partition}.>")];
        all.extend([
            log_config(
                spool_stream(partition),
                spool_subjects,
                replicas,
                per_partition(55),
                installation,
            ),
            log_config(
                chunks_stream(partition),
                chunk_subjects,
                replicas,
                chunk_bytes,
                installation,
            ),
            log_config(
                journal_stream(partition),
                vec![journal_subject(partition)],
                replicas,
                per_partition(20),
                installation,
            ),
        ]);
    }
    let history = |name: &str, subjects: &str, bytes, max_age| Config {
        discard: DiscardPolicy::Old,
        max_age,
        ..log_config(
            name.to_owned(),
            vec![subjects.to_owned()],
            replicas,
            bytes,
            installation,
        )
    };
    all.push(history(EVENTS, "events.>", share / 100, EVENTS_AGE));
    all.push(log_config(
        INBOUND.to_owned(),
        vec!["inbound.>".to_owned()],
        replicas,
        share / 100,
        installation,
    ));
    all.push(history(
        TRANSCRIPTS,
        "transcripts.>",
        transcript_bytes,
        transcripts.max_age,
    ));
    all
}

fn log_config(
    name: String,
    subjects: Vec<String>,
    replicas: u32,
    max_bytes: u64,
    installation: &str,
) -> Config {
    Config {
        name,
        subjects,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas as usize,
        max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        metadata: HashMap::from([(INSTALLATION.to_owned(), installation.to_owned())]),
        ..Default::default()
    }
}

/// A key-value bucket, as `nats kv` makes it, with one value per key and values that can expire.
pub(crate) fn bucket_config(
    bucket: &str,
    replicas: u32,
    max_bytes: u64,
    installation: &str,
) -> Config {
    Config {
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MARKER_TTL),
        duplicate_window: Duration::from_secs(120),
        ..log_config(
            bucket_stream(bucket),
            vec![format!("$KV.{bucket}.>")],
            replicas,
            max_bytes,
            installation,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_sum_to_at_most_eighty_percent_of_the_volume() {
        for (partitions, volume) in [(1, 16_u64 << 20), (4, 20 << 30), (7, 1_000_000_007)] {
            for max_bytes in [None, Some(1 << 20), Some(u64::MAX)] {
                let transcripts = TranscriptBounds {
                    max_bytes,
                    ..TranscriptBounds::USUAL
                };
                let sum: i64 = streams(partitions, 1, volume, "i", &transcripts)
                    .iter()
                    .map(|stream| stream.max_bytes)
                    .sum();
                assert!(sum as u64 <= volume / 10 * 8, "{partitions} {volume} {sum}");
                assert!(sum as u64 >= volume / 10 * 7, "{partitions} {volume} {sum}");
            }
        }
    }
}
