//! Redis dies, forgets, or is not the master any more.

use std::time::{Duration, Instant};

use limits::{Dated, GrantReply, GrantRequest, Grants, Options, Unavailable};
use tokio::time::timeout;

use crate::server::{PATIENCE, Server, client, client_with, connected, once_known, request};

const WINDOW: Duration = Duration::from_millis(500);
/// Where something must be asked within the window, on a machine that may be busy.
const LONG_WINDOW: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_redis_that_is_not_there_is_unavailable_at_once() {
    let grants = Grants::connect(Options::new("redis://127.0.0.1:1/")).unwrap();
    let refused = grants.ask(&request("lane", 10, WINDOW, 1)).await;
    assert_eq!(refused, Err(Unavailable("not connected".into())));
}

#[tokio::test]
async fn a_wrong_url_is_refused_without_showing_it() {
    let error = Grants::connect(Options::new("nonsense://user:secret@host"))
        .err()
        .unwrap();
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_new_server_knows_nothing_for_one_window() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let wish = request("lane", 10, LONG_WINDOW, 1);
    let GrantReply::Unknown { safe_for } = grants.ask(&wish).await.unwrap() else {
        panic!("the use so far cannot be known");
    };
    assert!(safe_for <= LONG_WINDOW + GrantRequest::hold(LONG_WINDOW));
    tokio::time::sleep(safe_for).await;
    assert!(matches!(
        grants.ask(&wish).await.unwrap(),
        GrantReply::Granted { amount: 1, .. }
    ));
}

#[tokio::test]
async fn killed_is_unavailable_before_the_time_out_and_restarted_empty_is_unknown() {
    let mut server = Server::start().await;
    let grants = client(&server).await;
    let wish = request("lane", 10, WINDOW, 5);
    let reply = once_known(&grants, &wish).await;
    assert!(matches!(reply, GrantReply::Granted { .. }), "{reply:?}");
    server.kill();
    // Long before its response time-out.
    assert!(timeout(PATIENCE, grants.ask(&wish)).await.unwrap().is_err());

    server.restart().await;
    connected(&grants).await;
    let mut again = request("lane", 10, LONG_WINDOW, 5);
    again.have = 1;
    let GrantReply::Unknown { safe_for } = grants.ask(&again).await.unwrap() else {
        panic!("the use so far cannot be known");
    };
    tokio::time::sleep(safe_for.saturating_sub(LONG_WINDOW / 2)).await;
    // What is under way since before and the use under the safe share count in the new memory.
    again.batch = 1;
    again.dated = vec![Dated {
        ago: Duration::ZERO,
        count: 9,
    }];
    let GrantReply::Unknown { safe_for } = grants.ask(&again).await.unwrap() else {
        panic!("the window has not passed");
    };
    tokio::time::sleep(safe_for).await;
    assert!(matches!(
        grants
            .ask(&GrantRequest {
                holder: "another".into(),
                ..request("lane", 10, LONG_WINDOW, 5)
            })
            .await
            .unwrap(),
        GrantReply::Nothing { .. }
    ));
}

#[tokio::test]
async fn emptied_without_a_restart_is_unknown() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let wish = request("lane", 10, WINDOW, 1);
    once_known(&grants, &wish).await;
    assert_eq!(server.command(&["FLUSHALL"]).as_deref(), Some("OK"));
    // It answers that the counts are gone, and then that it does not know them.
    let reply = grants.ask(&wish).await;
    assert!(
        matches!(reply, Err(_) | Ok(GrantReply::Unknown { .. })),
        "{reply:?}"
    );
    assert!(matches!(
        once_known(&grants, &wish).await,
        GrantReply::Granted { .. }
    ));
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = Server::start().await;
    let grants = client(&server).await;
    let wish = request("lane", 10, WINDOW, 1);
    once_known(&grants, &wish).await;
    assert_eq!(server.command(&["SCRIPT", "FLUSH"]).as_deref(), Some("OK"));
    assert!(grants.ask(&wish).await.is_ok());
}

#[tokio::test]
async fn a_hanging_redis_is_unavailable_after_the_response_time_out() {
    let server = Server::start().await;
    let response_timeout = Options::new(server.url()).response_timeout;
    let grants = client_with(&server, response_timeout).await;
    let wish = request("lane", 10, WINDOW, 1);
    once_known(&grants, &wish).await;
    // A slow answer ends the connection too, before the server hangs.
    connected(&grants).await;
    server.suspend();
    let before = Instant::now();
    let refused = timeout(PATIENCE, grants.ask(&wish)).await;
    assert!(refused.unwrap().is_err());
    assert!(
        before.elapsed() >= response_timeout,
        "{:?}",
        before.elapsed()
    );
    server.resume();
    assert!(matches!(
        once_known(&grants, &wish).await,
        GrantReply::Granted { .. }
    ));
}

#[tokio::test]
async fn after_a_fail_over_the_demoted_master_is_left_and_the_use_is_unknown() {
    let (first, second) = (Server::start().await, Server::start().await);
    let grants = client(&first).await;
    let wish = request("lane", 10, WINDOW, 1);
    once_known(&grants, &wish).await;
    // The client stays connected to the demoted server, which refuses every write.
    let replicaof = ["REPLICAOF", "127.0.0.1", &second.port().to_string()];
    assert_eq!(first.command(&replicaof).as_deref(), Some("OK"));
    let refused: Unavailable = grants.ask(&wish).await.unwrap_err();
    assert!(refused.0.contains("ReadOnly"), "{refused}");
    assert!(
        !grants.is_connected(),
        "a connection to a demoted master is of no use"
    );
    assert!(grants.ask(&wish).await.is_err());
    let deadline = Instant::now() + PATIENCE;
    while first.command(&["DBSIZE"]).as_deref() != Some("0") {
        assert!(Instant::now() < deadline, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It becomes the master again, now with what the other one had: nothing of ours.
    assert_eq!(
        first.command(&["REPLICAOF", "NO", "ONE"]).as_deref(),
        Some("OK")
    );
    let wish = request("lane", 10, LONG_WINDOW, 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match grants.ask(&wish).await {
            Ok(reply) => {
                assert!(matches!(reply, GrantReply::Unknown { .. }), "{reply:?}");
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(Instant::now() < deadline);
    }
    assert!(matches!(
        once_known(&grants, &wish).await,
        GrantReply::Granted { .. }
    ));
}
