//! The stream `EVENTS`: made by `init`, also for those who had none; written behind everybody's back, and read in order.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::DiscardPolicy;
use proto::event::event::Kind;
use proto::event::{Event, LoginFailed};
use spool::{Error, EventWriter, InitOptions, PackStats, Stores, decode_events};

use crate::server::{PATIENCE, Server, VOLUME};

const OPTIONS: InitOptions = InitOptions {
    partitions: 1,
    replicas: 1,
    volume_bytes: VOLUME,
    transcripts: spool::TranscriptBounds::USUAL,
};

fn event(user: &str) -> Event {
    Event {
        at_ms: 1_800_000_000_000,
        kind: Some(Kind::LoginFailed(LoginFailed { user: user.into() })),
        ..Event::default()
    }
}

/// The users of all events, by record.
async fn users(stores: &Stores) -> Vec<Vec<String>> {
    let mut reader = stores.events().read(1, false);
    let mut all = Vec::new();
    while let Some(record) = reader.next().await {
        let record = decode_events(&record.unwrap().bytes).unwrap();
        assert_eq!(record.id.len(), 16);
        let user = |event: Event| match event.kind {
            Some(Kind::LoginFailed(failed)) => failed.user,
            other => panic!("{other:?}"),
        };
        all.push(record.events.into_iter().map(user).collect());
    }
    all
}

async fn until_stats(writer: &EventWriter, wanted: impl Fn(&PackStats) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(&writer.stats()) {
        assert!(Instant::now() < deadline, "{:?}", writer.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_came_back_is_removed_one_by_one() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let inbound = stores.inbound();
    let store = async |number: u8| {
        let record = proto::inbound::Record {
            id: vec![number; 16].into(),
            ..Default::default()
        };
        inbound.store(record).await.unwrap();
    };
    for number in 1..=3 {
        store(number).await;
    }
    let first = inbound.info().await.unwrap().first;
    let handled = first + 2;
    inbound.remove(first + 1).await.unwrap();
    let before = inbound.info().await.unwrap();
    assert_eq!((before.first, before.count), (first, 2));
    // It is gone already, or was never there.
    inbound.remove(first + 1).await.unwrap();
    inbound.remove(first + 9).await.unwrap();
    inbound.remove(first).await.unwrap();
    assert_eq!(inbound.info().await.unwrap().first, handled);
}

#[tokio::test]
async fn events_are_packed_and_read_back_in_order() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    assert_eq!(users(&stores).await, Vec::<Vec<String>>::new());
    let writer = stores.event_writer("ingress");
    for number in 0..600 {
        assert!(writer.tell(event(&number.to_string())));
    }
    writer.flush().await;
    let stored = PackStats {
        stored: 600,
        ..PackStats::default()
    };
    assert_eq!(writer.stats(), stored);
    let records = users(&stores).await;
    assert!((3..20).contains(&records.len()), "{}", records.len());
    let expected: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    assert_eq!(records.concat(), expected);

    // Who follows gets what comes later.
    let (_, last) = stores.events().bounds().await.unwrap();
    let mut reader = stores.events().read(last + 1, true);
    stores
        .events()
        .store("scheduler", vec![event("later")])
        .await
        .unwrap();
    let next = tokio::time::timeout(PATIENCE, reader.next()).await;
    let record = decode_events(&next.unwrap().unwrap().unwrap().bytes).unwrap();
    assert_eq!(record.service, "scheduler");
}

#[tokio::test]
async fn without_nats_events_wait_and_those_that_find_no_room_are_dropped() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.event_writer("ingress");
    server.kill();
    let begun = Instant::now();
    let told = (0..20_000).filter(|number| writer.tell(event(&number.to_string())));
    let told = told.count() as u64;
    // It waits for nobody: a thousand times faster than a time-out.
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!((4_000..10_000).contains(&told), "{told}");
    assert_eq!(writer.stats().crowded_out, 20_000 - told);
    server.restart().await;
    until_stats(&writer, |stats| stats.stored == told).await;
    assert_eq!(users(&stores).await.concat().len() as u64, told);
    assert_eq!(writer.stats().given_up, 0);
}

#[tokio::test]
async fn an_older_installation_gets_the_stream_and_nothing_else_is_touched() {
    let server = Server::start().await;
    let stores = server.connect().await;
    stores.init(&OPTIONS).await.unwrap();
    let plain = server.plain().await;
    // As a release made it that did not know of events.
    plain.delete_stream("EVENTS").await.unwrap();
    let bucket = plain.get_key_value("format").await.unwrap();
    let record = bucket.get("installation").await.unwrap().unwrap();
    let mut installation: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let streams = installation["streams"].as_array_mut().unwrap();
    streams.retain(|name| name != "EVENTS");
    let value = installation.to_string();
    bucket.put("installation", value.into()).await.unwrap();
    let spool = async || {
        let mut stream = plain.get_stream("SPOOL_0").await.unwrap();
        stream.info().await.unwrap().created
    };
    let made_at = spool().await;

    // Services start; what they have to say waits until somebody has run `init`.
    stores.open().await.unwrap();
    let missing = stores.events().bounds().await;
    assert!(matches!(missing, Err(Error::MissingStream { .. })));
    let writer = stores.event_writer("ingress");
    assert!(writer.tell(event("early")));
    let report = stores.init(&OPTIONS).await.unwrap();
    assert_eq!(report.created, ["EVENTS"]);
    assert!(stores.init(&OPTIONS).await.unwrap().created.is_empty());
    stores.open().await.unwrap();
    until_stats(&writer, |stats| stats.stored == 1).await;
    assert_eq!(users(&stores).await.concat(), ["early"]);
    assert_eq!(spool().await, made_at);
    let config = plain.get_stream("EVENTS").await.unwrap();
    let config = &config.cached_info().config;
    assert_eq!(config.discard, DiscardPolicy::Old);
    assert!(config.max_bytes > 0 && !config.max_age.is_zero());

    // Lost, it is no lost mail: services go on, and `init` makes another.
    plain.delete_stream("EVENTS").await.unwrap();
    stores.open().await.unwrap();
    assert_eq!(stores.init(&OPTIONS).await.unwrap().created, ["EVENTS"]);
}

#[tokio::test]
async fn a_stream_of_somebody_else_is_not_taken_for_it() {
    let server = Server::start().await;
    let stores = server.connect().await;
    stores.init(&OPTIONS).await.unwrap();
    let plain = server.plain().await;
    plain.delete_stream("EVENTS").await.unwrap();
    let foreign = async_nats::jetstream::stream::Config {
        name: "EVENTS".into(),
        subjects: vec!["events.>".into()],
        ..Default::default()
    };
    plain.create_stream(foreign).await.unwrap();
    for result in [
        stores.open().await.map(drop),
        stores.init(&OPTIONS).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::ForeignStream { .. })));
    }
}
