//! Webhooks whose endpoints accept, fail, refuse and are gone.

use std::time::{Duration, Instant};

use mail::MessageId;
use proto::journal::entry::Kind;
use proto::journal::{Disposition, Outcome, RecipientOutcome};
use proto::webhook::{Order, Position, Positions};
use tempfile::TempDir;

use crate::endpoint::{Endpoint, secret};
use crate::installation::{Installation, PATIENCE};

const TENANTS: &str = "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
";

fn webhook(folder: &TempDir, endpoint: &Endpoint, more: &str) -> String {
    let path = folder.path().join("secret");
    std::fs::write(&path, secret()).unwrap();
    format!(
        "{TENANTS}---
apiVersion: staffetta.dev/v1alpha1
kind: Webhook
metadata: {{ name: acme.events }}
spec:
  tenant: acme
  url: http://{}/hook?x=1
  secrets: [ \"file:{}\" ]
  allowHttp: true
  allowPrivate: true
  linger: 50ms
  timeout: 2s
  {more}
",
        endpoint.address,
        path.display()
    )
}

/// An attempt at so many recipients of a tenant's message.
fn outcome(tenant: &str, recipients: u32) -> Kind {
    let recipient = |ordinal| RecipientOutcome {
        ordinal,
        address: format!("r{ordinal}@receiver.example"),
        disposition: Disposition::Delivered.into(),
        ..RecipientOutcome::default()
    };
    Kind::Outcome(Outcome {
        message_id: MessageId::now().as_bytes().to_vec().into(),
        attempt: 1,
        tenant: tenant.to_owned(),
        stream: "bulk".to_owned(),
        recipients: (0..recipients).map(recipient).collect(),
        ..Outcome::default()
    })
}

/// Waits until the webhook has its place in the journal; gives it.
async fn begun(installation: &Installation) -> Position {
    let store = installation.stores().webhooks();
    let begun = Instant::now();
    loop {
        let positions = store.positions("0").await.unwrap().positions;
        if let Some(position) = positions.into_iter().next() {
            return position;
        }
        assert!(begun.elapsed() < PATIENCE, "the webhook has not begun");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ids(records: std::ops::RangeInclusive<u64>, events: u64) -> Vec<String> {
    let of_record = |record| (0..events).map(move |event| format!("0-{record}-0-{event}"));
    records.flat_map(of_record).collect()
}

#[tokio::test]
async fn events_come_signed_and_in_order_whatever_the_endpoint_answers_and_whoever_dies() {
    let mut installation = Installation::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start().await;
    installation.write(vec![outcome("acme", 1)]).await;
    installation
        .apply(&webhook(&folder, &endpoint, "batch: 7"))
        .await;
    let feedback = installation.feedback();
    // What was before is not posted.
    assert_eq!(begun(&installation).await.sequence, 1);
    // A redirection, then a cut connection: posted again as it was.
    let mut answers = vec![204, 0, 302];
    endpoint.answer(move |_| answers.pop().unwrap_or(204));
    installation.write(vec![outcome("acme", 10)]).await;
    installation.write(vec![outcome("other", 10)]).await;
    let mut expected = ids(2..=2, 10);
    assert_eq!(endpoint.wait_for(10).await, expected);
    let posts = endpoint.posts();
    assert_eq!(posts[0].status, 302);
    assert!(
        posts[..3]
            .iter()
            .all(|post| post.id == posts[0].id && post.events.len() == 7)
    );

    // Nobody takes anything when the process dies; what comes then is behind what waits.
    endpoint.answer(|_| 503);
    installation.write(vec![outcome("acme", 10)]).await;
    feedback.abort().await;
    installation.write(vec![outcome("acme", 10)]).await;
    endpoint.answer(|_| 204);
    let feedback = installation.feedback();
    expected.extend(ids(4..=5, 10));
    assert_eq!(endpoint.wait_for(30).await, expected);

    // What is too much at once comes in pieces.
    endpoint.answer(|events| if events > 2 { 413 } else { 200 });
    installation.write(vec![outcome("acme", 7)]).await;
    expected.extend(ids(6..=6, 7));
    assert_eq!(endpoint.wait_for(37).await, expected);
    feedback.stop().await;
    assert_eq!(begun(&installation).await.sequence, 6);
}

#[tokio::test]
async fn what_is_given_up_is_kept_told_and_posted_again_and_who_is_gone_is_left_alone() {
    let mut installation = Installation::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start().await;
    installation
        .apply(&webhook(&folder, &endpoint, "batch: 4"))
        .await;
    let store = installation.stores().webhooks();
    let name = "acme.events";
    // It has failed for four days, and the events are older.
    let failing_since_ms = runtime::now_ms() - 4 * 86_400_000;
    let place = Position {
        webhook: name.to_owned(),
        sequence: 0,
        failing_since_ms,
    };
    let positions = Positions {
        positions: vec![place],
        ..Positions::default()
    };
    store.set_positions("0", positions).await.unwrap();
    endpoint.answer(|_| 500);
    installation.write(vec![outcome("acme", 10)]).await;
    let feedback = installation.feedback();
    let started = Instant::now();
    let mut events = Vec::new();
    while events.len() < 10 {
        assert!(started.elapsed() < PATIENCE, "{events:?}");
        events.clear();
        let mut reader = store.dead_letters(name).await.unwrap();
        while let Some(pack) = reader.next().await {
            let letter = spool::decode_dead_letter(&pack.unwrap().bytes).unwrap();
            assert_eq!(letter.reason, "the endpoint answered 500");
            events.extend(letter.events);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One post was enough to know.
    assert_eq!(endpoint.posts().len(), 1);

    endpoint.answer(|_| 200);
    let order = Order {
        webhook: name.to_owned(),
        replay_to: store.last_dead_letter().await.unwrap(),
        replay_at_ms: runtime::now_ms(),
        ..Order::default()
    };
    let replay_at_ms = order.replay_at_ms;
    store.set_order(order.clone()).await.unwrap();
    let mut accepted = endpoint.wait_for(10).await;
    let mut expected = ids(1..=1, 10);
    accepted.retain(|id| id.starts_with("0-"));
    assert_eq!(accepted, expected);

    // What is new is worth a try, however long it has failed.
    endpoint.answer(|_| 410);
    let before = endpoint.posts().len();
    let now_ms = runtime::now_ms();
    installation
        .write_at(now_ms, vec![outcome("acme", 3)])
        .await;
    let started = Instant::now();
    while store.state(name).await.unwrap().gone_since_ms == 0 {
        assert!(started.elapsed() < PATIENCE, "it is not gone");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(endpoint.posts().len(), before + 1);
    endpoint.answer(|_| 200);
    let enabled = Order {
        enabled_at_ms: runtime::now_ms(),
        ..order
    };
    store.set_order(enabled).await.unwrap();
    let accepted = endpoint.wait_for(13).await;
    expected.extend(ids(2..=2, 3));
    assert_eq!(accepted, expected);
    feedback.stop().await;
    let mut left = store.dead_letters(name).await.unwrap();
    assert!(left.next().await.is_none());
    let state = store.state(name).await.unwrap();
    assert_eq!((state.gone_since_ms, state.attempts[0].status), (0, 500));
    assert_eq!(state.replayed_ms, replay_at_ms);
}
