//! What `init` makes, and what `open` refuses.

use spool::{Durability, DurabilityMode, Error, InitOptions, Stores, Verification};

use crate::server::{Server, VOLUME};

const OPTIONS: InitOptions = InitOptions {
    partitions: 2,
    replicas: 1,
    volume_bytes: VOLUME,
    transcripts: spool::TranscriptBounds::USUAL,
};

#[tokio::test]
async fn init_creates_once_and_open_finds_it() {
    let server = Server::start().await;
    let stores = server.connect().await;
    assert!(matches!(
        stores.open().await,
        Err(Error::NotInitialized { .. })
    ));
    let report = stores.init(&OPTIONS).await.unwrap();
    assert_eq!(report.created.len(), 5 + 2 * 3 + 5);
    let again = stores.init(&OPTIONS).await.unwrap();
    assert!(again.created.is_empty());
    let opened = stores.open().await.unwrap();
    assert_eq!((opened.partitions, stores.partitions()), (2, Some(2)));
    assert_eq!(opened.report.mode, DurabilityMode::Strict);
    assert_eq!(opened.report.verified, Verification::Checked);
    assert_eq!(opened.report.sync_interval, Some(std::time::Duration::ZERO));
}

#[tokio::test]
async fn the_number_of_partitions_is_for_life() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let other = stores
        .init(&InitOptions {
            partitions: 4,
            ..OPTIONS
        })
        .await;
    assert!(
        matches!(
            other,
            Err(Error::PartitionCount {
                existing: 2,
                asked: 4
            })
        ),
        "{other:?}"
    );
}

#[tokio::test]
async fn a_lost_stream_is_never_replaced() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let plain = server.plain().await;
    plain.delete_stream("SPOOL_1").await.unwrap();
    for result in [
        stores.open().await.map(drop),
        stores.init(&OPTIONS).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::MissingStream { stream } if stream == "SPOOL_1"),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("missing although this installation has it"),
            "{error}"
        );
    }
    // One made by hand in its place is not taken for it.
    let by_hand = async_nats::jetstream::stream::Config {
        name: "SPOOL_1".into(),
        subjects: vec!["spool.1.block".into(), "spool.1.more".into()],
        ..Default::default()
    };
    plain.create_stream(by_hand).await.unwrap();
    assert!(matches!(
        stores.open().await,
        Err(Error::ForeignStream { .. })
    ));
    assert!(matches!(
        stores.init(&OPTIONS).await,
        Err(Error::ForeignStream { .. })
    ));
}

#[tokio::test]
async fn a_stream_that_forgets_is_refused() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let plain = server.plain().await;
    let mut config = plain
        .get_stream("SPOOL_0")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    plain.update_stream(config).await.unwrap();
    let error = stores.open().await.unwrap_err();
    assert!(
        matches!(&error, Error::StreamConfiguration { stream, .. } if stream == "SPOOL_0"),
        "{error}"
    );
}

#[tokio::test]
async fn weaker_durability_must_be_asked_for_by_name() {
    let server = Server::start_with_sync("1s").await;
    let strict = server.connect().await;
    strict.init(&OPTIONS).await.unwrap();
    let error = strict.open().await.unwrap_err();
    assert!(matches!(error, Error::NotDurable { .. }), "{error}");
    assert!(
        error.to_string().contains("sync_interval: always")
            && error.to_string().contains("relaxed"),
        "{error}"
    );

    let relaxed = Stores::connect(&server.options(Durability::Relaxed))
        .await
        .unwrap();
    let opened = relaxed.open().await.unwrap();
    assert_eq!(opened.report.mode, DurabilityMode::Relaxed);
    assert_eq!(
        opened.report.sync_interval,
        Some(std::time::Duration::from_secs(1))
    );

    // Without a monitoring endpoint it can only be believed.
    let options = spool::Options {
        access: spool::Access::default(),
        monitor: None,
        ..server.options(Durability::Strict)
    };
    let opened = Stores::connect(&options)
        .await
        .unwrap()
        .open()
        .await
        .unwrap();
    assert_eq!(
        (opened.report.mode, opened.report.verified),
        (DurabilityMode::Strict, Verification::Declared)
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let options = spool::Options {
        url: "nats://user:secret@127.0.0.1:1".into(),
        access: spool::Access::default(),
        monitor: None,
        name: "test".into(),
        durability: Durability::Strict,
    };
    let error = Stores::connect(&options).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert!(!error.to_string().contains("secret"), "{error}");
}
