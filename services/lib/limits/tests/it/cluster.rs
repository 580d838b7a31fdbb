//! Redis Cluster: counts are spread over its servers, and a slot that moves or a master that dies is a memory that is lost.

use std::time::{Duration, Instant};

use kit::RedisCluster;
use limits::{
    Charged, GrantReply, GrantRequest, Grants, Options, Quotas, Scope, SlotRequest, WindowLimit,
};
use tempfile::TempDir;

use crate::server::{PATIENCE, connected, once_known, request};

const WINDOW: Duration = Duration::from_millis(500);

async fn cluster(with_replicas: bool) -> (RedisCluster, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start(folder.path(), 3, with_replicas).await;
    (cluster.unwrap(), folder)
}

async fn client(urls: String) -> Grants {
    let options = Options {
        response_timeout: PATIENCE,
        ..Options::new(urls)
    };
    let grants = Grants::connect(options).unwrap();
    connected(&grants).await;
    grants
}

/// Takes all there is, and has it.
async fn take_all(
    (holder, grants): (&str, &Grants),
    key: &str,
    limit: u64,
    window: Duration,
) -> u64 {
    let mut wish = request(key, limit, window, limit);
    wish.holder = holder.into();
    while let GrantReply::Granted { amount, .. } = grants.ask(&wish).await.unwrap() {
        wish.have += amount;
    }
    wish.have
}

/// The name of a lane whose counts are in the first of the cluster's servers, and of one whose are not.
fn here_and_elsewhere(cluster: &RedisCluster) -> (String, String) {
    let here = |name: &&String| {
        let keys = cluster.masters[0].ask(&["KEYS", &format!("*:{name}:*")]);
        !keys.unwrap().is_empty()
    };
    let names: Vec<String> = (0..64).map(|n| format!("source|lane-{n}")).collect();
    let elsewhere = |name: &&String| !here(name);
    let here = names.iter().find(here).expect("some are there").clone();
    (here, names.iter().find(elsewhere).unwrap().clone())
}

async fn touch_lanes(grants: &Grants) {
    for n in 0..64 {
        let wish = request(&format!("source|lane-{n}"), 10, WINDOW * 4, 1);
        once_known(grants, &wish).await;
    }
}

#[tokio::test]
async fn the_counts_of_a_cluster_are_spread_and_each_limit_holds_in_the_sum() {
    let (cluster, _folder) = cluster(false).await;
    // One of them is enough to learn of the others.
    let (one, other) = (
        client(cluster.masters[2].url()).await,
        client(cluster.urls()).await,
    );
    // Long enough that no use leaves it meanwhile.
    let window = Duration::from_secs(20);
    let known = Instant::now() + window + GrantRequest::hold(window);
    for n in 0..24 {
        let shares = SlotRequest {
            key: format!("source|site-{n}"),
            holder: "a".into(),
            limit: 5,
            have: 0,
            want: 3,
            share: 5,
            ttl: PATIENCE,
        };
        assert_eq!(one.lease(&shares).await.unwrap().granted, 3);
        let more = SlotRequest {
            holder: "b".into(),
            ..shares
        };
        assert_eq!(other.lease(&more).await.unwrap().granted, 2);
        let pool = format!("pool-{n}");
        assert_eq!(one.turns(&pool, 7).await, Ok(0));
        assert_eq!(other.turns(&pool, 7).await, Ok(7));
    }
    for server in &cluster.masters {
        let keys: u32 = server.ask(&["DBSIZE"]).unwrap().parse().unwrap();
        assert!(keys > 20, "{keys}");
    }
    let rest = known.saturating_duration_since(Instant::now());
    tokio::time::sleep(rest).await;
    for n in 0..24 {
        let lane = format!("source|site-{n}");
        let mine = take_all(("one", &one), &lane, 40, window).await;
        let yours = take_all(("other", &other), &lane, 40, window).await;
        assert_eq!((mine, yours), (40, 0), "{lane}");
    }
}

#[tokio::test]
async fn quotas_of_several_scopes_are_charged_together_in_a_cluster() {
    let (cluster, _folder) = cluster(false).await;
    let process = || async {
        let options = Options {
            response_timeout: PATIENCE,
            ..Options::new(cluster.urls())
        };
        let quotas = Quotas::connect(options, 2).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !quotas.is_connected() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        quotas
    };
    let (one, other) = (process().await, process().await);
    let scope = |key: String, limit| Scope {
        key,
        windows: vec![WindowLimit {
            length_ms: 3_600_000,
            limit,
        }],
    };
    for n in 0..12 {
        let tenant = format!("tenant-{n}");
        let scopes = [
            scope(format!("tenant/{tenant}"), 10),
            scope(format!("credential/{tenant}"), 6),
        ];
        for process in [&one, &other] {
            let charged = process.charge(&tenant, &scopes, 3, Duration::ZERO).await;
            assert!(matches!(charged, Charged::Yes(_)), "{charged:?}");
        }
        assert!(!one.has_room(&tenant, &scopes, 1).await);
        assert!(other.has_room(&tenant, &scopes[..1], 4).await);
    }
}

#[tokio::test]
async fn the_replica_of_a_killed_master_knows_nothing_for_one_window_and_others_go_on() {
    let (mut cluster, _folder) = cluster(true).await;
    let grants = client(cluster.urls()).await;
    touch_lanes(&grants).await;
    let (here, elsewhere) = here_and_elsewhere(&cluster);
    cluster.masters[0].kill9().unwrap();
    let wish = |lane: &str| request(lane, 10, PATIENCE, 1);
    assert!(grants.ask(&wish(&here)).await.is_err());
    // Of the others nothing is forgotten.
    let other = grants.ask(&request(&elsewhere, 10, WINDOW * 4, 1)).await;
    assert!(
        !matches!(other, Ok(GrantReply::Unknown { .. }) | Err(_)),
        "{other:?}"
    );
    cluster.replicas[0].promote().unwrap();
    connected(&grants).await;
    let reply = grants.ask(&wish(&here)).await.unwrap();
    assert!(matches!(reply, GrantReply::Unknown { .. }), "{reply:?}");
    let reply = once_known(&grants, &request(&here, 10, WINDOW, 1)).await;
    assert!(matches!(reply, GrantReply::Granted { .. }), "{reply:?}");
}

#[tokio::test]
async fn a_slot_that_moves_to_another_server_is_followed() {
    let (cluster, _folder) = cluster(false).await;
    let grants = client(cluster.urls()).await;
    touch_lanes(&grants).await;
    let (here, elsewhere) = here_and_elsewhere(&cluster);
    let (from, to) = (&cluster.masters[0], &cluster.masters[1]);
    let keys = from.ask(&["KEYS", &format!("*:{here}:*")]).unwrap();
    let slot = from
        .ask(&["CLUSTER", "KEYSLOT", keys.lines().next().unwrap()])
        .unwrap();
    let (from_id, to_id) = (
        from.ask(&["CLUSTER", "MYID"]).unwrap(),
        to.ask(&["CLUSTER", "MYID"]).unwrap(),
    );
    to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])
        .unwrap();
    from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])
        .unwrap();
    let port = to.port().to_string();
    let keys = from
        .ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"])
        .unwrap();
    for key in keys.lines() {
        from.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])
            .unwrap();
    }
    // What is on its way (ASK) is not answered for.
    let wish = request(&here, 10, PATIENCE, 1);
    assert!(grants.ask(&wish).await.is_err());
    for server in [to, from] {
        server
            .ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])
            .unwrap();
    }
    connected(&grants).await;
    let reply = grants.ask(&wish).await.unwrap();
    assert!(matches!(reply, GrantReply::Unknown { .. }), "{reply:?}");
    let reply = once_known(&grants, &request(&here, 10, WINDOW, 1)).await;
    assert!(matches!(reply, GrantReply::Granted { .. }), "{reply:?}");
    let other = grants.ask(&request(&elsewhere, 10, WINDOW * 4, 1)).await;
    assert!(
        !matches!(other, Ok(GrantReply::Unknown { .. }) | Err(_)),
        "{other:?}"
    );
}
