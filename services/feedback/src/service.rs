//! Start and stop.

use std::sync::Arc;
use std::time::Duration;

use mail::PartitionId;
use runtime::{Bootstrap, Readiness, Shutdown, TokenKeyring, serve_health};
use spool::Stores;
use tokio::task::JoinSet;

use crate::follower::Follower;
use crate::inbound;
use crate::metrics::Metrics;
use crate::tenants::Tenants;

/// Blocks of originals that are kept; bounces of one block come together.
const CACHE_BYTES: usize = 16 << 20;
/// How often readiness is renewed.
const TICK: Duration = Duration::from_secs(1);

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Health and metrics.
    #[error("feedback")]
    Health(#[from] runtime::HealthError),
    /// What return paths are known by is no good.
    #[error("feedback: {0}")]
    Tokens(#[from] runtime::TokenKeyringError),
    /// A bug: what follows a partition does so until shutdown.
    #[error("feedback: a partition is not followed any more")]
    Follower(#[source] tokio::task::JoinError),
    /// The stores are not those of an installation, or not what the bootstrap asks for.
    #[error("feedback: the stores can't be used")]
    Stores(#[from] spool::Error),
}

/// Runs the service until shutdown: one follower for each partition, one for what comes back; health and metrics on `feedback.metrics`.
/// `stores` are connected; they are opened here unless they are already.
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    stores: Stores,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let partitions = match stores.partitions() {
        Some(partitions) => partitions,
        None => stores.open().await?.partitions,
    };
    let tokens = bootstrap.tokens.as_ref().map(TokenKeyring::load);
    let tokens = tokens.transpose()?.map(Arc::new);
    let readiness = Readiness::new();
    readiness.set("nats", stores.is_connected());
    serve_health(
        bootstrap.feedback.metrics,
        readiness.clone(),
        shutdown.clone(),
    )
    .await?;
    let snapshots = tokio::select! {
        snapshots = stores.follow_snapshots() => snapshots?,
        () = shutdown.requested() => return Ok(()),
    };
    let tenants = Tenants::new(snapshots.clone());
    let messages = stores.message_reader(CACHE_BYTES);
    let mut followers = JoinSet::new();
    for partition in (0..partitions).map(PartitionId) {
        let follower = Follower {
            stores: stores.clone(),
            partition,
            messages: messages.clone(),
            tenants: tenants.clone(),
            hostname: bootstrap.hostname.as_str().to_owned(),
            metrics: Metrics::new(partition),
            shutdown: shutdown.clone(),
        };
        followers.spawn(follower.run());
    }
    if let Some(tokens) = tokens {
        tokio::spawn(Arc::clone(&tokens).follow(shutdown.clone()));
        let returns = inbound::Returns {
            stores: stores.clone(),
            partitions,
            snapshots,
            tokens,
            tenants,
            hostname: bootstrap.hostname.as_str().to_owned(),
            shutdown: shutdown.clone(),
        };
        followers.spawn(returns.run());
    }
    tracing::info!(partitions, "feedback started");
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => readiness.set("nats", stores.is_connected()),
            Some(ended) = followers.join_next() => ended.map_err(Error::Follower)?,
            () = shutdown.requested() => break,
        }
    }
    while let Some(ended) = followers.join_next().await {
        ended.map_err(Error::Follower)?;
    }
    tracing::info!("feedback stopped");
    Ok(())
}
