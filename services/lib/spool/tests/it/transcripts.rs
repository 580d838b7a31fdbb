//! The stream `TRANSCRIPTS`: bounded as it is configured, and written behind everybody's back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use proto::transcript::{Passage, Transcript};
use spool::{Error, InitOptions, PackUnreadable, Stores, TranscriptBounds, decode_transcripts};

use crate::server::{PATIENCE, Server, VOLUME};

const OPTIONS: InitOptions = InitOptions {
    partitions: 1,
    replicas: 1,
    volume_bytes: VOLUME,
    transcripts: TranscriptBounds::USUAL,
};

fn transcript(attempt: u32, octets: usize) -> Transcript {
    Transcript {
        attempt,
        passages: vec![Passage {
            text: "x".repeat(octets),
            ..Passage::default()
        }],
        ..Transcript::default()
    }
}

/// Numbers of the attempts, by record.
async fn attempts(stores: &Stores, since_ms: u64) -> Vec<Vec<u32>> {
    let mut reader = stores.transcripts().read(since_ms).await.unwrap();
    let mut all = Vec::new();
    while let Some(record) = reader.next().await {
        let record = decode_transcripts(&record.unwrap().bytes).unwrap();
        assert_eq!((record.id.len(), &*record.service), (16, "sender"));
        let transcripts = record.transcripts.iter();
        all.push(transcripts.map(|transcript| transcript.attempt).collect());
    }
    all
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test]
async fn transcripts_are_packed_and_read_from_a_time_on() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.transcript_writer("sender");
    for attempt in 0..300 {
        assert!(writer.tell(transcript(attempt, 2_000)));
    }
    writer.flush().await;
    assert_eq!(writer.stats().stored, 300);
    let records = attempts(&stores, 0).await;
    assert_eq!(records.concat(), (0..300).collect::<Vec<_>>());
    assert!((3..12).contains(&records.len()), "{}", records.len());

    // Reading begins at whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let later_ms = now_ms();
    assert!(writer.tell(transcript(300, 10)));
    writer.flush().await;
    assert_eq!(attempts(&stores, later_ms).await, [[300]]);
    let never = attempts(&stores, later_ms + 3_600_000).await;
    assert_eq!(never, Vec::<Vec<u32>>::new());
}

#[tokio::test]
async fn without_nats_those_that_find_no_room_are_dropped_and_nobody_waits() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.transcript_writer("sender");
    server.kill();
    let begun = Instant::now();
    let told = (0..20_000).filter(|attempt| writer.tell(transcript(*attempt, 100)));
    let told = told.count() as u64;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!((2_000..6_000).contains(&told), "{told}");
    assert_eq!(writer.stats().crowded_out, 20_000 - told);
    server.restart().await;
    let deadline = Instant::now() + PATIENCE;
    while writer.stats().stored < told {
        assert!(Instant::now() < deadline, "{:?}", writer.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(attempts(&stores, 0).await.concat().len() as u64, told);
}

#[tokio::test]
async fn bounds_are_those_that_are_configured_last_and_mail_keeps_its_own() {
    let server = Server::start().await;
    let stores = server.connect().await;
    stores.init(&OPTIONS).await.unwrap();
    let plain = server.plain().await;
    let config = async |name: &str| -> Config {
        let stream = plain.get_stream(name).await.unwrap();
        stream.cached_info().config.clone()
    };
    let usual = config("TRANSCRIPTS").await;
    assert_eq!(usual.max_bytes, (VOLUME / 10 * 8 / 100) as i64);
    assert_eq!(usual.max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(usual.discard, DiscardPolicy::Old);
    let chunks = config("CHUNKS_0").await;

    let bounds = TranscriptBounds {
        max_age: Duration::from_secs(3_600),
        max_bytes: Some(2 << 20),
    };
    let options = InitOptions {
        transcripts: bounds,
        ..OPTIONS
    };
    let report = stores.init(&options).await.unwrap();
    assert_eq!(report.changed, ["TRANSCRIPTS"]);
    assert!(report.created.is_empty());
    assert!(stores.init(&options).await.unwrap().changed.is_empty());
    let changed = config("TRANSCRIPTS").await;
    assert_eq!(changed.max_bytes, 2 << 20);
    assert_eq!(changed.max_age, Duration::from_secs(3_600));
    assert_eq!(config("CHUNKS_0").await, chunks);

    // The oldest go when there is no room.
    stores.open().await.unwrap();
    let writer = stores.transcript_writer("sender");
    for attempt in 0..400 {
        assert!(writer.tell(transcript(attempt, 10_000)));
    }
    let deadline = Instant::now() + PATIENCE;
    while writer.stats().stored < 400 {
        assert!(Instant::now() < deadline, "{:?}", writer.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = attempts(&stores, 0).await.concat();
    assert!((100..250).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), Some(&399));

    let too_many = InitOptions {
        transcripts: TranscriptBounds {
            max_bytes: Some(VOLUME / 10),
            ..bounds
        },
        ..OPTIONS
    };
    let refused = stores.init(&too_many).await;
    assert!(
        matches!(refused, Err(Error::InvalidOption(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_older_installation_gets_the_stream_and_a_lost_one_is_made_again() {
    let server = Server::start().await;
    let stores = server.connect().await;
    stores.init(&OPTIONS).await.unwrap();
    let plain = server.plain().await;
    plain.delete_stream("TRANSCRIPTS").await.unwrap();
    let bucket = plain.get_key_value("format").await.unwrap();
    let record = bucket.get("installation").await.unwrap().unwrap();
    let mut installation: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let streams = installation["streams"].as_array_mut().unwrap();
    streams.retain(|name| name != "TRANSCRIPTS");
    let value = installation.to_string();
    bucket.put("installation", value.into()).await.unwrap();

    stores.open().await.unwrap();
    let missing = stores.transcripts().read(0).await;
    assert!(matches!(missing, Err(Error::MissingStream { .. })));
    assert_eq!(
        stores.init(&OPTIONS).await.unwrap().created,
        ["TRANSCRIPTS"]
    );
    plain.delete_stream("TRANSCRIPTS").await.unwrap();
    stores.open().await.unwrap();
    assert_eq!(
        stores.init(&OPTIONS).await.unwrap().created,
        ["TRANSCRIPTS"]
    );
}

#[test]
fn a_record_of_a_later_release_is_not_guessed_at() {
    use prost::Message as _;
    let record = proto::transcript::Record {
        format: 2,
        ..Default::default()
    };
    let known = PackUnreadable::Format { found: 2, known: 1 };
    assert_eq!(decode_transcripts(&record.encode_to_vec()), Err(known));
    let malformed = decode_transcripts(&[0xff]);
    assert!(matches!(malformed, Err(PackUnreadable::Malformed(_))));
}
