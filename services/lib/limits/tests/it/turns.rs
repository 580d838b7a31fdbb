//! Turns of a rotation: each is drawn once, whoever draws, and Redis may be lost.

use limits::{Grants, Options};

use crate::server::{Server, client};

#[tokio::test]
async fn every_turn_is_drawn_once_by_all_who_share_a_rotation() {
    let server = Server::start().await;
    let replicas = [
        client(&server).await,
        client(&server).await,
        client(&server).await,
    ];
    let mut drawn: Vec<u64> = Vec::new();
    for round in 0..10 {
        let draw = |replica: &Grants| {
            let replica = replica.clone();
            tokio::spawn(async move { replica.turns("pool", 7 + round).await })
        };
        let draws: Vec<_> = replicas.iter().map(draw).collect();
        for first in draws {
            let first = first.await.unwrap().unwrap();
            drawn.extend(first..first + u64::from(7 + round));
        }
    }
    drawn.sort_unstable();
    let all: Vec<u64> = (0..drawn.len() as u64).collect();
    assert_eq!(drawn, all);
    assert_eq!(replicas[0].turns("another", 5).await, Ok(0));
}

#[tokio::test]
async fn a_count_that_is_lost_begins_anew_and_without_redis_there_is_none() {
    let server = Server::start().await;
    let grants = client(&server).await;
    assert_eq!(grants.turns("pool", 100).await, Ok(0));
    assert_eq!(grants.turns("pool", 100).await, Ok(100));
    server.command(&["FLUSHALL"]).unwrap();
    assert_eq!(grants.turns("pool", 100).await, Ok(0));
    let url = server.url();
    drop(server);
    assert!(grants.turns("pool", 100).await.is_err());
    let nobody = Grants::connect(Options::new(url)).unwrap();
    assert!(nobody.turns("pool", 100).await.is_err());
}
