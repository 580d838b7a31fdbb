//! Start and stop.

use std::sync::Arc;
use std::time::Duration;

use mail::PartitionId;
use runtime::{Bootstrap, Readiness, Shutdown, TokenKeyring, WebServer, serve_health};
use spool::Stores;
use tokio::task::JoinSet;

use crate::follower::Follower;
use crate::inbound;
use crate::links::Links;
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
    /// What return paths and links are known by is no good.
    #[error("feedback: {0}")]
    Tokens(#[from] runtime::TokenKeyringError),
    /// A bug: what follows a partition does so until shutdown.
    #[error("feedback: a partition is not followed any more")]
    Follower(#[source] tokio::task::JoinError),
    /// Links can't be answered where they should be.
    #[error("feedback.links: {0}")]
    Links(#[from] runtime::WebError),
    /// A bug: links are answered until shutdown.
    #[error("feedback: links are not answered any more")]
    LinksEnded,
    /// The stores are not those of an installation, or not what the bootstrap asks for.
    #[error("feedback: the stores can't be used")]
    Stores(#[from] spool::Error),
}

/// Runs the service until shutdown: one follower for each partition, one for what comes back; health and metrics on `feedback.metrics`,
/// links on `feedback.links`.
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
    let links = open_links(&bootstrap, &stores, tokens.as_ref()).await?;
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
        let handler = inbound::Handler {
            stores: stores.clone(),
            partitions,
            snapshots,
            tokens,
            tenants,
            hostname: bootstrap.hostname.as_str().to_owned(),
            shutdown: shutdown.clone(),
        };
        followers.spawn(handler.run());
    }
    let mut answering = JoinSet::new();
    if let Some((links, server)) = links {
        answering.spawn(links.serve(server, shutdown.clone()));
    }
    tracing::info!(partitions, "feedback started");
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => readiness.set("nats", stores.is_connected()),
            Some(ended) = followers.join_next() => ended.map_err(Error::Follower)?,
            Some(_) = answering.join_next() => {
                if !shutdown.is_requested() {
                    return Err(Error::LinksEnded);
                }
            }
            () = shutdown.requested() => break,
        }
    }
    while let Some(ended) = followers.join_next().await {
        ended.map_err(Error::Follower)?;
    }
    while answering.join_next().await.is_some() {}
    tracing::info!("feedback stopped");
    Ok(())
}

/// What answers links, listening already; `None` where nothing is configured.
async fn open_links(
    bootstrap: &Bootstrap,
    stores: &Stores,
    tokens: Option<&Arc<TokenKeyring>>,
) -> Result<Option<(Links, WebServer)>, Error> {
    let (Some(listener), Some(tokens)) = (&bootstrap.feedback.links, tokens) else {
        return Ok(None);
    };
    let server = WebServer::bind(listener).await?;
    tracing::info!(
        address = server.address().map(tracing::field::display),
        "listening for links"
    );
    let links = Links::new(Arc::clone(tokens), stores.events());
    Ok(Some((links, server)))
}
