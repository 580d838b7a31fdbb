//! Claims: one of many does it, and the others hear what came of it.

use std::time::{Duration, Instant};

use limits::{Claimed, Claims, Options, Quotas};

use crate::server::{PATIENCE, Server};

const LONG: Duration = Duration::from_secs(3600);

/// A process of its own, as far as Redis can tell.
async fn process(server: &Server) -> (Quotas, Claims) {
    let options = Options {
        response_timeout: PATIENCE,
        ..Options::new(server.url())
    };
    let quotas = Quotas::connect(options, 2).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !quotas.is_connected() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let claims = quotas.claims();
    (quotas, claims)
}

#[tokio::test]
async fn a_key_is_claimed_once_kept_and_freed_by_whoever_has_it() {
    let server = Server::start().await;
    let (_quotas, first) = process(&server).await;
    let (_quotas_too, second) = process(&server).await;
    assert_eq!(first.claim("a", "1").await, Claimed::Now);
    assert_eq!(second.claim("a", "2").await, Claimed::Underway);
    assert_eq!(second.claim("b", "2").await, Claimed::Now);
    // Not the owner's.
    second.give_up("a", "2").await;
    assert_eq!(second.claim("a", "3").await, Claimed::Underway);
    first.give_up("a", "1").await;
    assert_eq!(second.claim("a", "4").await, Claimed::Now);
    second.keep("a", "4", LONG).await;
    assert_eq!(first.claim("a", "5").await, Claimed::Done("4".into()));
    first.give_up("a", "5").await;
    assert_eq!(first.claim("a", "6").await, Claimed::Done("4".into()));
    first.give_up("a", "4").await;
    assert_eq!(first.claim("a", "7").await, Claimed::Now);
    first.keep("a", "7", Duration::from_millis(1)).await;
    let deadline = Instant::now() + PATIENCE;
    while second.claim("a", "8").await != Claimed::Now {
        assert!(Instant::now() < deadline, "it is known for ever");
    }
}

#[tokio::test]
async fn without_redis_nothing_is_known_and_a_new_one_knows_nothing() {
    let mut server = Server::start().await;
    let (quotas, claims) = process(&server).await;
    assert_eq!(claims.claim("a", "1").await, Claimed::Now);
    claims.keep("a", "1", LONG).await;
    server.kill();
    assert_eq!(claims.claim("a", "2").await, Claimed::Unknown);
    claims.keep("a", "2", LONG).await;
    claims.give_up("a", "2").await;
    server.restart().await;
    let deadline = Instant::now() + PATIENCE;
    while !quotas.is_connected() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(claims.claim("a", "3").await, Claimed::Now);
}
