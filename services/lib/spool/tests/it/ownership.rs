//! Leases, members and the positions of readers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::PartitionId;
use spool::{Holder, PartitionStatus, Renewal};

use crate::blocks::P0;
use crate::server::{PATIENCE, Server};

fn holder(id: &str) -> Holder {
    Holder {
        id: id.to_owned(),
        address: format!("127.0.0.1:7103/{id}"),
    }
}

#[tokio::test]
async fn a_lease_lasts_while_it_is_renewed_and_is_taken_over_when_not() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let leases = stores.leases();
    let ttl = Duration::from_secs(6);
    let before = Instant::now();
    let mut lease = leases
        .acquire(P0, &holder("first"), ttl)
        .await
        .unwrap()
        .expect("nobody has it");
    assert!(lease.asked_at() >= before && lease.valid_until() == lease.asked_at() + ttl);
    assert!(
        leases
            .acquire(P0, &holder("second"), ttl)
            .await
            .unwrap()
            .is_none()
    );
    // Renewed beyond its first time to live: the renewal carries one too.
    lease.set_epoch(17);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let asked_before = lease.asked_at();
        assert!(
            matches!(leases.renew(&mut lease).await.unwrap(), Renewal::Renewed(at) if at > asked_before)
        );
        assert!(
            leases
                .acquire(P0, &holder("second"), ttl)
                .await
                .unwrap()
                .is_none()
        );
    }
    let holders = leases.holders().await.unwrap();
    assert_eq!(holders.len(), 1);
    assert_eq!(
        (holders[0].partition, &holders[0].holder, holders[0].epoch),
        (P0, &holder("first"), 17)
    );

    let asleep = Instant::now();
    let taken = loop {
        if let Some(lease) = leases.acquire(P0, &holder("second"), ttl).await.unwrap() {
            break lease;
        }
        assert!(asleep.elapsed() < PATIENCE, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        Instant::now() >= lease.valid_until(),
        "taken over before it ran out"
    );
    assert_eq!(leases.renew(&mut lease).await.unwrap(), Renewal::Lost);
    // A release by who has lost it changes nothing.
    leases.release(lease).await.unwrap();
    assert_eq!(leases.holders().await.unwrap()[0].holder, holder("second"));

    leases.release(taken).await.unwrap();
    assert!(leases.holders().await.unwrap().is_empty());
    // Also after a release the lease expires.
    let again = leases
        .acquire(P0, &holder("third"), Duration::from_secs(1))
        .await
        .unwrap();
    assert!(again.is_some());
    let acquired = Instant::now();
    while !leases.holders().await.unwrap().is_empty() {
        assert!(acquired.elapsed() < PATIENCE, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn within<T: Future>(wait: T) -> tokio::time::Timeout<T> {
    tokio::time::timeout(PATIENCE, wait)
}

#[tokio::test]
async fn who_watches_sees_what_is_taken_given_back_and_expired_but_no_renewal() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let leases = stores.leases();
    let mut held = leases.watch_held();
    let sees = |wanted: &[PartitionId]| {
        let wanted: Option<BTreeSet<PartitionId>> = Some(wanted.iter().copied().collect());
        move |held: &Option<BTreeSet<PartitionId>>| *held == wanted
    };
    within(held.wait_for(sees(&[]))).await.unwrap().unwrap();
    let mut lease = leases
        .acquire(P0, &holder("first"), Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    within(held.wait_for(sees(&[P0]))).await.unwrap().unwrap();
    held.mark_unchanged();
    leases.renew(&mut lease).await.unwrap();
    let other = PartitionId(1);
    let expires = Duration::from_secs(6);
    let taken = leases.acquire(other, &holder("second"), expires).await;
    assert!(taken.unwrap().is_some());
    // The renewal came before, and was no change.
    within(held.changed()).await.unwrap().unwrap();
    assert!(sees(&[P0, other])(&held.borrow_and_update()));
    within(held.wait_for(sees(&[P0]))).await.unwrap().unwrap();
    leases.release(lease).await.unwrap();
    within(held.wait_for(sees(&[]))).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_known_again() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let leases = stores.leases();
    let mut lease = leases
        .acquire(P0, &holder("first"), Duration::from_secs(7))
        .await
        .unwrap()
        .unwrap();
    let mut copy = lease.clone();
    assert!(matches!(
        leases.renew(&mut copy).await.unwrap(),
        Renewal::Renewed(_)
    ));
    assert!(matches!(
        leases.renew(&mut lease).await.unwrap(),
        Renewal::Renewed(_)
    ));
}

#[tokio::test]
async fn only_one_of_many_gets_a_lease() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let attempts = (0..20).map(|number| {
        let leases = stores.leases();
        async move {
            leases
                .acquire(P0, &holder(&number.to_string()), Duration::from_secs(7))
                .await
                .unwrap()
        }
    });
    let got = futures::future::join_all(attempts).await;
    assert_eq!(got.iter().flatten().count(), 1);
}

#[tokio::test]
async fn members_come_and_go() {
    let mut server = Server::start().await;
    let stores = server.stores(2).await;
    let members = stores.members();
    let mut schedulers = members.watch("scheduler");
    let ttl = Duration::from_secs(6);
    let one = members
        .announce("scheduler", "one", Bytes::from_static(b"\"a:1\""), ttl)
        .await
        .unwrap();
    let two = members
        .announce("scheduler", "two", Bytes::from_static(b"\"a:2\""), ttl)
        .await
        .unwrap();
    let _other = members
        .announce("sender", "three", Bytes::from_static(b"{}"), ttl)
        .await
        .unwrap();
    let ids = |map: &Option<std::sync::Arc<spool::MemberMap>>| {
        map.as_ref()
            .map(|map| map.keys().cloned().collect::<Vec<_>>().join(" "))
            .unwrap_or_default()
    };
    tokio::time::timeout(PATIENCE, schedulers.wait_for(|map| ids(map) == "one two"))
        .await
        .unwrap()
        .unwrap();
    two.update(Bytes::from_static(b"\"a:22\""));
    let updated = |map: &Option<std::sync::Arc<spool::MemberMap>>| {
        map.as_ref().is_some_and(|map| map["two"] == "\"a:22\"")
    };
    tokio::time::timeout(PATIENCE, schedulers.wait_for(updated))
        .await
        .unwrap()
        .unwrap();
    // Renewed beyond the time to live, withdrawn at once, expired when forgotten, all across a restart.
    tokio::time::sleep(ttl + Duration::from_secs(1)).await;
    assert_eq!(ids(&schedulers.borrow()), "one two");
    server.kill();
    server.restart().await;
    two.withdraw()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    tokio::time::timeout(PATIENCE, schedulers.wait_for(|map| ids(map) == "one"))
        .await
        .unwrap()
        .unwrap();
    drop(one);
    tokio::time::timeout(PATIENCE, schedulers.wait_for(|map| ids(map).is_empty()))
        .await
        .unwrap()
        .unwrap();
    assert!(
        members
            .announce("no.kind", "x", Bytes::new(), ttl)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_owner_that_takes_no_more_turns_the_writer_to_others() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let writer = stores.block_writer(2, spool::WriterOptions::default());
    let status = PartitionStatus {
        accepting: false,
        fill_percent: 99,
    };
    let ttl = Duration::from_secs(6);
    let announced = stores
        .members()
        .announce_partition(P0, status, ttl)
        .await
        .unwrap();
    let mut watch = stores.members().watch_partitions();
    watch
        .wait_for(|map| map.get(&P0) == Some(&status))
        .await
        .unwrap();
    // The writer has a watch of its own, which may be a little behind.
    let turned = tokio::time::timeout(PATIENCE, async {
        let mut in_turn = 0;
        while in_turn < 4 {
            let (_, entry, content) = crate::blocks::message(10);
            let submission = spool::Submission::new(entry, content);
            let stored = writer.submit(submission).await.unwrap();
            in_turn = if stored.partition == PartitionId(1) {
                in_turn + 1
            } else {
                0
            };
        }
    });
    turned
        .await
        .expect("the writer turns to the other partition");
    announced.update_partition(PartitionStatus {
        accepting: true,
        fill_percent: 10,
    });
    watch
        .wait_for(|map| map.get(&P0).is_some_and(|status| status.accepting))
        .await
        .unwrap();
    announced.withdraw().await.unwrap();
    watch.wait_for(|map| map.is_empty()).await.unwrap();
}

#[tokio::test]
async fn positions_of_readers_are_kept() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let positions = stores.reader_positions();
    assert_eq!(positions.get("feedback", P0).await.unwrap(), None);
    positions.set("feedback", P0, 5).await.unwrap();
    positions.set("feedback", P0, 9).await.unwrap();
    positions.set("export", P0, 1).await.unwrap();
    positions.set("feedback", PartitionId(1), 3).await.unwrap();
    assert_eq!(positions.get("feedback", P0).await.unwrap(), Some(9));
    let listed: Vec<_> = positions
        .list(P0)
        .await
        .unwrap()
        .into_iter()
        .map(|position| (position.reader, position.sequence))
        .collect();
    assert_eq!(
        listed,
        [("export".to_owned(), 1), ("feedback".to_owned(), 9)]
    );
    positions.remove("export", P0).await.unwrap();
    assert_eq!(positions.list(P0).await.unwrap().len(), 1);
}
