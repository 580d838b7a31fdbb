//! How webhooks do, and what operators want of them. `feedback` posts; what it keeps is read here.

use config::Snapshot;
use mail::PartitionId;
use proto::admin::{SetWebhookRequest, StoredDeadLetter, WebhookSource, WebhookStatus};
use proto::webhook::Order;
use spool::{PackReader, Stores, WebhookStore, decode_dead_letter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admin::unavailable;

/// Dead letters that wait for the client; each is up to half a MiB.
const READ_AHEAD: usize = 8;

/// Those that are configured, or the one that is wanted.
pub(crate) async fn overview(
    stores: &Stores,
    partitions: u32,
    config: &Snapshot,
    wanted: &str,
) -> Result<Vec<WebhookStatus>, Status> {
    let mut hooks: Vec<_> = match wanted {
        "" => config.webhooks().collect(),
        name => vec![config.webhook(name).ok_or_else(|| unknown(name))?],
    };
    hooks.sort_by(|left, right| left.name.cmp(&right.name));
    let store = stores.webhooks();
    let mut sources = Vec::new();
    for partition in 0..partitions {
        let journal = stores.journal(PartitionId(partition));
        let info = journal.info().await.map_err(unavailable)?;
        sources.push((partition.to_string(), info.last));
    }
    match stores.events().bounds().await {
        Ok((_, last)) => sources.push(("events".to_owned(), last)),
        Err(spool::Error::MissingStream { .. }) => {}
        Err(error) => return Err(unavailable(error)),
    }
    let mut kept = Vec::new();
    for (source, last) in &sources {
        let positions = store.positions(source).await.map_err(unavailable)?;
        kept.push((source, *last, positions.positions));
    }
    let mut found = Vec::new();
    for hook in hooks {
        let sources = kept.iter().filter_map(|(source, last, positions)| {
            let mut of_hook = positions.iter().filter(|place| place.webhook == hook.name);
            let place = of_hook.next()?;
            Some(WebhookSource {
                source: (*source).clone(),
                sequence: place.sequence,
                last: *last,
                failing_since_ms: place.failing_since_ms,
            })
        });
        found.push(WebhookStatus {
            webhook: hook.name.clone(),
            tenant: hook.tenant.clone().unwrap_or_default(),
            url: hook.url.to_string(),
            disabled: hook.disabled,
            sources: sources.collect(),
            state: Some(store.state(&hook.name).await.map_err(unavailable)?),
        });
    }
    Ok(found)
}

/// Those of a webhook, which may be configured no more.
pub(crate) async fn dead_letters(
    store: &WebhookStore,
    webhook: &str,
) -> Result<ReceiverStream<Result<StoredDeadLetter, Status>>, Status> {
    let reader = store.dead_letters(webhook).await.map_err(no_stream)?;
    let (found, stream) = mpsc::channel(READ_AHEAD);
    tokio::spawn(send(reader, found));
    Ok(ReceiverStream::new(stream))
}

async fn send(mut reader: PackReader, found: mpsc::Sender<Result<StoredDeadLetter, Status>>) {
    while let Some(read) = reader.next().await {
        let item = match read {
            Ok(pack) => decode_dead_letter(&pack.bytes)
                .map(|letter| StoredDeadLetter {
                    sequence: pack.sequence,
                    letter: Some(letter),
                })
                .map_err(|error| Status::data_loss(error.to_string())),
            Err(error) => {
                tracing::debug!(%error, "DEADLETTERS can't be read at the moment");
                Err(Status::unavailable(
                    "DEADLETTERS can't be read at the moment",
                ))
            }
        };
        let is_over = item.is_err();
        if found.send(item).await.is_err() || is_over {
            return;
        }
    }
}

/// Stores what an operator wants.
pub(crate) async fn set(
    store: &WebhookStore,
    config: &Snapshot,
    request: &SetWebhookRequest,
) -> Result<Order, Status> {
    let name = &request.webhook;
    if config.webhook(name).is_none() {
        return Err(unknown(name));
    }
    if !request.enable && !request.replay {
        let what = "nothing is wanted: enable or replay is expected";
        return Err(Status::invalid_argument(what));
    }
    let mut order = store.order(name).await.map_err(unavailable)?;
    order.webhook.clone_from(name);
    let now_ms = runtime::now_ms();
    if request.enable {
        order.enabled_at_ms = now_ms;
    }
    if request.replay {
        order.replay_to = store.last_dead_letter().await.map_err(no_stream)?;
        order.replay_at_ms = now_ms;
    }
    store.set_order(order.clone()).await.map_err(unavailable)?;
    tracing::info!(
        webhook = name,
        enable = request.enable,
        replay = request.replay,
        "an operator decided about a webhook"
    );
    Ok(order)
}

fn unknown(webhook: &str) -> Status {
    Status::not_found(format!("there is no Webhook {webhook:?}"))
}

/// An installation that is older than the stream has none.
fn no_stream(error: spool::Error) -> Status {
    match error {
        spool::Error::MissingStream { .. } => Status::not_found(
            "this installation has no stream DEADLETTERS; `staffetta init` creates it and touches nothing else",
        ),
        error => unavailable(error),
    }
}
