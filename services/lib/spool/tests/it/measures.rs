//! What is done about credentials: one of many takes a measure, and all know it.

use std::time::{Duration, Instant};

use proto::watch::{Action, Measure};

use crate::server::{PATIENCE, Server};

const NOW: u64 = 1_800_000_000_000;

fn measure(action: Action, lasts_ms: u64) -> Measure {
    Measure {
        credential: "acme.shop".to_owned(),
        action: action.into(),
        since_ms: NOW,
        until_ms: if lasts_ms == 0 { 0 } else { NOW + lasts_ms },
        ..Measure::default()
    }
}

#[tokio::test]
async fn one_of_many_takes_a_measure_all_know_it_and_it_ends_by_itself() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let others = server.connect().await;
    let mut known = others.measures().follow().await;
    let stronger_stays = |present: &Measure| present.action() >= Action::Hold;
    let hold = measure(Action::Hold, 3_600_000);
    let taking = [stores.measures(), others.measures()];
    let taken = futures::future::join_all(
        taking
            .iter()
            .map(|measures| measures.set(&hold, NOW, stronger_stays)),
    );
    let taken: Vec<bool> = taken.await.into_iter().map(|one| one.unwrap().1).collect();
    assert_eq!(taken.iter().filter(|by_us| **by_us).count(), 1);
    let wait =
        |action| move |now: &spool::MeasureMap| now.get("acme.shop").map(Measure::action) == action;
    let held = known.wait_for(wait(Some(Action::Hold)));
    tokio::time::timeout(PATIENCE, held).await.unwrap().unwrap();

    // An operator's word replaces it whatever it is; this one is over at once.
    let lock = measure(Action::Lock, 1);
    let (stored, by_us) = stores.measures().set(&lock, NOW, |_| false).await.unwrap();
    assert!(by_us && stored.action() == Action::Lock);
    assert_eq!(others.measures().load().await.unwrap().len(), 1);
    let gone = known.wait_for(wait(None));
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !others.measures().load().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
