//! The stream `SUPPRESSION`: a log of changes, followed by tables and written anew when it is mostly history.

use std::sync::Arc;
use std::time::Instant;

use proto::suppression::change::Kind;
use proto::suppression::{Change, Entry, Reason, Removal};
use spool::{Error, InitOptions, Stores, SuppressionStore};
use suppress::{SHARDS, Table};

use crate::server::{PATIENCE, Server, VOLUME};

const NOW_MS: u64 = 1_800_000_000_000;

fn change(store: &SuppressionStore, number: u32, kind: Kind) -> Change {
    let address = format!("a{number}@x.example");
    Change {
        key: store.keys().of(&address).unwrap().to_vec().into(),
        address,
        tenant: "acme".to_owned(),
        stream: "bulk".to_owned(),
        at_ms: NOW_MS,
        kind: Some(kind),
    }
}

fn entry() -> Kind {
    Kind::Entry(Entry {
        reason: Reason::Hard.into(),
        ..Entry::default()
    })
}

fn removal() -> Kind {
    Kind::Removal(Removal::default())
}

fn is_hit(table: &Table, number: u32) -> bool {
    let address = format!("a{number}@x.example");
    table
        .lookup("acme", "bulk", false, &address, NOW_MS)
        .is_some()
}

async fn loaded(store: &SuppressionStore) -> (Arc<Table>, spool::SuppressionFollower) {
    let table = Arc::new(Table::new(store.keys().clone()));
    let follower = store.follow(Arc::clone(&table));
    assert!(follower.loaded_within(PATIENCE).await);
    (table, follower)
}

async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it takes too long");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Writes all shards anew; gives what is kept and removed.
async fn rewrite(store: &SuppressionStore, now_ms: u64) -> (usize, u64) {
    let (mut kept, mut removed) = (0, 0);
    for shard in 0..SHARDS {
        let rewritten = store.rewrite(shard, 0, now_ms).await.unwrap().unwrap();
        kept += rewritten.kept;
        removed += rewritten.removed;
    }
    (kept, removed)
}

#[tokio::test]
async fn tables_follow_the_log_and_find_the_same_after_it_is_written_anew() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let store = stores.suppression().unwrap();
    let (early, _following) = loaded(&store).await;
    assert!(early.is_empty());
    let added = (0..5_000).map(|number| change(&store, number, entry()));
    store.store(added.collect()).await.unwrap();
    let removed = (0..1_000).map(|number| change(&store, number, removal()));
    store.store(removed.collect()).await.unwrap();
    // In order, also in one call.
    let both = vec![
        change(&store, 7, entry()),
        change(&store, 8, entry()),
        change(&store, 8, removal()),
    ];
    store.store(both).await.unwrap();
    until(|| early.len() == 4_001).await;
    assert!(is_hit(&early, 7) && !is_hit(&early, 8) && is_hit(&early, 4_999));

    // Removals are repeated for a while, and then not any more.
    let (kept, gone) = rewrite(&store, NOW_MS).await;
    assert_eq!(kept, 5_000);
    assert!(gone >= u64::from(SHARDS));
    let (kept, _) = rewrite(&store, NOW_MS + suppress::KEPT_MS).await;
    assert_eq!(kept, 4_001);
    // Where nothing is history nothing is written: a second replica finds it so.
    let again = store.rewrite(0, 100, NOW_MS).await.unwrap().unwrap();
    assert!(again.read == again.kept && again.kept > 0 && !again.is_written);
    assert_eq!(again.left(), again.read);
    let (late, _following) = loaded(&store).await;
    assert_eq!(late.len(), 4_001);
    assert!(is_hit(&late, 7) && !is_hit(&late, 8));

    // Through a restart of the server, too.
    server.kill();
    server.restart().await;
    let (again, _following) = loaded(&store).await;
    assert_eq!(again.len(), 4_001);
    let more = vec![change(&store, 8, entry())];
    store.store(more).await.unwrap();
    until(|| is_hit(&early, 8) && is_hit(&late, 8) && is_hit(&again, 8)).await;
    let mut found = Vec::new();
    for shard in 0..SHARDS {
        let fold = store.shard(shard, |_| true).await.unwrap();
        found.extend(fold.entries(NOW_MS).map(|change| change.address.clone()));
    }
    assert_eq!(found.len(), 4_002);
    assert!(found.contains(&"a8@x.example".to_owned()));
}

/// Two write shards anew while a third changes them: what it says holds.
#[tokio::test]
async fn what_changes_while_a_shard_is_written_anew_is_not_lost() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let store = stores.suppression().unwrap();
    for _ in 0..3 {
        let added = (0..3_000).map(|number| change(&store, number, entry()));
        store.store(added.collect()).await.unwrap();
    }
    let rewriting = |store: SuppressionStore| async move {
        for shard in 0..SHARDS {
            // Being overtaken is no failure.
            store.rewrite(shard, 100, NOW_MS).await.unwrap();
        }
    };
    let changing = async {
        for round in 0..20_u32 {
            let removed = (round * 100..round * 100 + 100).map(|n| change(&store, n, removal()));
            store.store(removed.collect()).await.unwrap();
            let added = [change(&store, 10_000 + round, entry())];
            store.store(added.to_vec()).await.unwrap();
        }
    };
    tokio::join!(rewriting(store.clone()), rewriting(store.clone()), changing);
    let (table, _following) = loaded(&store).await;
    assert_eq!(table.len(), 1_020);
    assert!(
        (2_000..3_000)
            .chain(10_000..10_020)
            .all(|number| is_hit(&table, number))
    );
}

#[tokio::test]
async fn an_older_installation_gets_the_stream_and_a_lost_one_is_not_made_again() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let plain = server.plain().await;
    plain.delete_stream("SUPPRESSION").await.unwrap();
    let bucket = plain.get_key_value("format").await.unwrap();
    let record = bucket.get("installation").await.unwrap().unwrap();
    let mut installation: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(installation["address_secret"].as_str().unwrap().len(), 64);
    // As a release made it that did not know of suppression.
    installation
        .as_object_mut()
        .unwrap()
        .remove("address_secret");
    let streams = installation["streams"].as_array_mut().unwrap();
    streams.retain(|name| name != "SUPPRESSION");
    let value = installation.to_string();
    bucket.put("installation", value.into()).await.unwrap();

    let older = server.connect().await;
    older.open().await.unwrap();
    assert!(older.suppression().is_none());
    let options = InitOptions {
        partitions: 1,
        replicas: 1,
        volume_bytes: VOLUME,
        transcripts: spool::TranscriptBounds::USUAL,
    };
    let report = older.init(&options).await.unwrap();
    assert_eq!(report.created, ["SUPPRESSION"]);
    let newer: Stores = server.connect().await;
    newer.open().await.unwrap();
    let store = newer.suppression().unwrap();
    store.store(vec![change(&store, 1, entry())]).await.unwrap();

    // An empty one in its place would write to those who want no mail.
    plain.delete_stream("SUPPRESSION").await.unwrap();
    for result in [
        newer.open().await.map(drop),
        newer.init(&options).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::MissingStream { .. })));
    }
    drop(stores);
}
