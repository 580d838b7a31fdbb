//! How tenants stand in pools, as it is stored.

use proto::standing::{PoolStandings, TenantStanding};
use spool::StandingsError;

use crate::server::Server;

fn none(pool: &str) -> PoolStandings {
    PoolStandings {
        format: 1,
        pool: pool.to_owned(),
        ..PoolStandings::default()
    }
}

/// Counts one more.
fn count(record: &mut PoolStandings) -> bool {
    record.moved += 1;
    true
}

#[tokio::test]
async fn changes_of_several_at_once_are_all_stored_and_followed() {
    let server = Server::start().await;
    let standings = server.stores(1).await.standings();
    let mut follow = standings.follow();
    let pool = none("shared.eu");
    let changes = (0..8).map(|_| standings.change(&pool, count));
    for changed in futures::future::join_all(changes).await {
        assert!(changed.unwrap().1);
    }
    let (record, changed) = standings.change(&pool, |_| false).await.unwrap();
    assert_eq!((record.moved, changed), (8, false));
    let is_there = |known: &Option<std::sync::Arc<Vec<PoolStandings>>>| {
        let known = known.as_ref();
        known.is_some_and(|known| {
            known
                .iter()
                .any(|of| of.pool == "shared.eu" && of.moved == 8)
        })
    };
    follow.wait_for(is_there).await.unwrap();
    assert_eq!(standings.load().await.unwrap(), [record]);
}

#[tokio::test]
async fn what_is_too_much_or_of_a_later_release_is_not_replaced() {
    let server = Server::start().await;
    let standings = server.stores(1).await.standings();
    let pool = none("shared");
    let fill = |record: &mut PoolStandings| {
        record.tenants = vec![
            TenantStanding {
                cause: "c".repeat(256),
                ..TenantStanding::default()
            };
            4_000
        ];
        true
    };
    let refused = standings.change(&pool, fill).await.unwrap_err();
    assert!(matches!(refused, StandingsError::Full { .. }), "{refused}");
    assert!(standings.load().await.unwrap().is_empty());

    let later = PoolStandings {
        format: 2,
        ..pool.clone()
    };
    standings.change(&later, count).await.unwrap();
    let refused = standings.change(&pool, count).await.unwrap_err();
    assert!(
        matches!(refused, StandingsError::Unreadable(_)),
        "{refused}"
    );

    // What is no record at all has its pool, and no format.
    let plain = server.plain().await;
    let stored = plain
        .publish("$KV.config.standing.a_b", "\u{1}".into())
        .await;
    stored.unwrap().await.unwrap();
    let all = standings.load().await.unwrap();
    let unread = all.iter().find(|record| record.pool == "a.b").unwrap();
    assert_eq!(unread.format, 0);
}
