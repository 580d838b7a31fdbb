//! The configuration snapshot.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spool::{ConfigConflict, StoredConfig};

use crate::server::{PATIENCE, Server};

fn hash(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn only_who_knows_the_present_version_replaces_it() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let config = stores.config();
    assert_eq!(config.load().await.unwrap(), None);
    let mut followed = config.follow();
    let mut version = 0;
    // More bodies than are kept, of several chunks each.
    for number in 0..4_u8 {
        let body = Bytes::from(vec![number; 700_000]);
        let stored = config
            .put(body.clone(), &hash(&body), version)
            .await
            .unwrap();
        assert!(stored > version);
        let stale = config.put(body.clone(), &hash(&body), version).await;
        assert!(
            matches!(stale, Err(ConfigConflict::Changed { .. })),
            "{stale:?}"
        );
        version = stored;
        let loaded = config.load().await.unwrap().unwrap();
        assert_eq!((loaded.version, &loaded.body), (version, &body));
        let is_it = |known: &Option<Arc<StoredConfig>>| {
            known.as_ref().is_some_and(|config| **config == loaded)
        };
        tokio::time::timeout(PATIENCE, followed.wait_for(is_it))
            .await
            .unwrap()
            .unwrap();
    }
    let kept = server
        .plain()
        .await
        .get_stream("KV_config")
        .await
        .unwrap()
        .cached_info()
        .state
        .messages;
    assert_eq!(kept, 1 + 2 * 3, "the present body and the one before");
    let wrong = config
        .put(Bytes::from_static(b"x"), &hash(b"y"), version)
        .await;
    assert!(matches!(wrong, Err(ConfigConflict::Invalid(_))));
}

#[tokio::test]
async fn followers_see_changes_after_a_restart_and_keep_the_last_good_one() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let config = stores.config();
    let body = Bytes::from_static(b"{}");
    let version = config.put(body.clone(), &hash(&body), 0).await.unwrap();
    let mut followed = config.follow();
    tokio::time::timeout(PATIENCE, followed.wait_for(|known| known.is_some()))
        .await
        .unwrap()
        .unwrap();
    server.kill();
    server.restart().await;
    assert_eq!(followed.borrow().as_ref().unwrap().version, version);
    let body = Bytes::from_static(b"{\"a\":1}");
    let second = tokio::time::timeout(PATIENCE, async {
        loop {
            match config.put(body.clone(), &hash(&body), version).await {
                Ok(version) => return version,
                Err(ConfigConflict::Store(_)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let second = second.await.unwrap();
    let is_second = |known: &Option<Arc<StoredConfig>>| {
        known
            .as_ref()
            .is_some_and(|config| config.version == second)
    };
    tokio::time::timeout(PATIENCE, followed.wait_for(is_second))
        .await
        .unwrap()
        .unwrap();
    // A body that does not fit its hash is not followed.
    let plain = server.plain().await;
    let key = format!("$KV.config.body.{}.0", hash(&body));
    plain
        .publish(key, "{\"a\":2}".into())
        .await
        .unwrap()
        .await
        .unwrap();
    assert!(matches!(
        config.load().await,
        Err(spool::Error::Damaged { .. })
    ));
    assert_eq!(followed.borrow().as_ref().unwrap().body, body);
}
