//! Starting the scheduler.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Snapshot;
use limits::{Grants, Options as GrantOptions};
use proto::admin::admin_server::AdminServer;
use proto::dispatch::dispatch_server::DispatchServer;
use proto::journal::Acted;
use proto::operation::Operation;
use proto::standing::PoolStandings;
use proto::{Attached, Call, Dispatch};
use queue::Settings;
use runtime::bootstrap::{AdminListener, Redis};
use runtime::{Bootstrap, Readiness, Shutdown};
use spool::{Stores, SuppressionFollower};
use suppress::Table;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::Admin;
use crate::clock::Clock;
use crate::core::{Core, Event, Events, tell};
use crate::dispatch::Streams;
use crate::errands::Errands;
use crate::machine::{Input, Machine};
use crate::outside;
use crate::ownership::{Ownership, holder};

/// Events on their way to the core; then their makers wait.
const EVENTS: usize = 16 * 1024;

/// So long no partition is taken while it is not known whom nothing is sent to.
const SUPPRESSION_PATIENCE: Duration = Duration::from_secs(60);
const SUPPRESSION_LOOK: Duration = Duration::from_secs(5);

/// How often it is seen whether Redis is there.
const REDIS_LOOK: Duration = Duration::from_secs(1);

/// The scheduler can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resolver can't be set up.
    #[error("DNS: {0}")]
    Dns(#[from] dns::Error),
    /// The file with the authorities for Redis can't be read.
    #[error("redis.authorities {path}: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The Redis URL is no URL.
    #[error("Redis: {0}")]
    Limits(#[from] limits::Error),
    /// The gRPC address can't be served.
    #[error("serving {address}: {source}")]
    Serve {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The address for the command-line tool outside can't be listened at.
    #[error("scheduler.admin {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What is shown there, or asked of clients, can't be read.
    #[error("scheduler.admin: {0}")]
    Tls(#[from] runtime::TlsError),
    /// The health endpoint can't be served.
    #[error(transparent)]
    Health(#[from] runtime::HealthError),
}

/// A scheduler at work in this process.
pub struct Scheduler {
    streams: Streams,
    events: Events,
    stores: Stores,
    partitions: u32,
    ownership: JoinHandle<()>,
}

impl Dispatch for Scheduler {
    fn attach(&self) -> Call<'_, Attached> {
        self.streams.attach()
    }
}

impl Scheduler {
    /// Starts taking partitions. `partitions` as `Stores::open` told.
    pub fn start(
        bootstrap: &Bootstrap,
        stores: &Stores,
        partitions: u32,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let clock = Clock::new();
        let id: Arc<str> = uuid::Uuid::now_v7().to_string().into();
        let (events, inbox) = mpsc::channel(EVENTS);
        let (dropped, drops) = mpsc::unbounded_channel();
        let resolver = dns::Resolver::new(&bootstrap.resolvers)?;
        let grants = Grants::connect(grant_options(&bootstrap.redis)?)?;
        tokio::spawn(watch_redis(grants.clone(), shutdown.clone()));
        let errands = Errands::new(
            resolver,
            (grants, stores.acts(), stores.standings()),
            clock,
            events.clone(),
            partitions,
        );
        let mut machine = Machine::new(&*id, partitions).leasing_connections();
        let suppression = stores.suppression();
        let followed = suppression.as_ref().map(|store| {
            let table = Arc::new(Table::new(store.keys().clone()));
            (store.follow(Arc::clone(&table)), table)
        });
        if let Some((_, table)) = &followed {
            machine = machine.suppressing(Arc::clone(table));
        }
        tokio::spawn(Core::new(machine, clock, errands, dropped).run(inbox));
        tokio::spawn(follow_config(snapshots, events.clone()));
        tokio::spawn(follow_acts(stores.acts().follow(), events.clone()));
        let ownership = Ownership {
            stores: stores.clone(),
            holder: holder(&id, &bootstrap.scheduler.advertise),
            partitions,
            clock,
            settings: Settings::default(),
            keys: suppression.map(|store| store.keys().clone()),
            events: events.clone(),
            dropped: drops,
            takeovers: JoinSet::new(),
        };
        Ok(Self {
            streams: Streams::new(events.clone()),
            events: events.clone(),
            stores: stores.clone(),
            partitions,
            ownership: tokio::spawn(own_partitions(
                ownership,
                (stores.operations().follow(), stores.standings().follow()),
                followed,
                events,
                shutdown,
            )),
        })
    }

    /// Waits until everything is handed over after a shutdown.
    pub async fn stopped(self) {
        // A panic there is told by the runtime; there is nothing left to wait for.
        self.ownership.await.ok();
    }
}

fn grant_options(redis: &Redis) -> Result<GrantOptions, Error> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| Error::Authorities {
            path: path.clone(),
            source,
        })
    };
    Ok(GrantOptions {
        login: redis.login.clone(),
        authorities: redis.authorities.as_ref().map(read).transpose()?,
        ..GrantOptions::new(&redis.url)
    })
}

/// Shows whether limits are counted by Redis, or kept to the safe share.
async fn watch_redis(grants: Grants, shutdown: Shutdown) {
    let connected = crate::metrics::redis_connected();
    while !shutdown.is_requested() {
        connected.set(i64::from(grants.is_connected()));
        tokio::select! {
            () = tokio::time::sleep(REDIS_LOOK) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// All of what is stored of a kind, as it is now; `None` until it is known.
type Followed<T> = watch::Receiver<Option<Arc<Vec<T>>>>;

/// Waits until it is known whom nothing is sent to, but not for ever: mail to all others must not wait for a store.
async fn load_suppression(follower: SuppressionFollower, table: Arc<Table>) {
    let (loaded, entries) = crate::metrics::suppression();
    let begun = Instant::now();
    if follower.loaded_within(SUPPRESSION_PATIENCE).await {
        tracing::info!(
            entries = table.len(),
            milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "it is known whom nothing is sent to"
        );
    } else {
        tracing::error!(
            "it is not known yet whom nothing is sent to; mail leaves without being held back for that"
        );
    }
    tokio::spawn(async move {
        loop {
            loaded.set(i64::from(follower.is_loaded()));
            entries.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
            tokio::time::sleep(SUPPRESSION_LOOK).await;
        }
    });
}

/// Takes partitions as soon as it is known what operators have suspended and how tenants stand in pools, not before:
/// nothing of that may leave.
async fn own_partitions(
    ownership: Ownership,
    (mut operations, mut standings): (Followed<Operation>, Followed<PoolStandings>),
    suppressed: Option<(SuppressionFollower, Arc<Table>)>,
    events: Events,
    shutdown: Shutdown,
) {
    if let Some((follower, table)) = suppressed {
        tokio::select! {
            () = load_suppression(follower, table) => {}
            () = shutdown.requested() => {}
        }
    }
    let known = async {
        // The tasks that follow them live as long as the receivers.
        operations.wait_for(Option::is_some).await.is_ok()
            && standings.wait_for(Option::is_some).await.is_ok()
    };
    tokio::select! {
        true = known => {}
        () = shutdown.requested() => {}
    }
    tell_standings(&mut standings, &events).await;
    let to = events.clone();
    tokio::spawn(async move {
        while standings.changed().await.is_ok() {
            tell_standings(&mut standings, &to).await;
        }
    });
    tell_operations(&mut operations, &events).await;
    tokio::spawn(async move {
        while operations.changed().await.is_ok() {
            tell_operations(&mut operations, &events).await;
        }
    });
    ownership.run(shutdown).await;
}

async fn tell_standings(standings: &mut Followed<PoolStandings>, events: &Events) {
    let present = standings.borrow_and_update().clone();
    if let Some(present) = present {
        tell(events, Input::Standings((*present).clone())).await;
    }
}

async fn tell_operations(operations: &mut Followed<Operation>, events: &Events) {
    let present = operations.borrow_and_update().clone();
    if let Some(present) = present {
        tell(events, Input::Operations((*present).clone())).await;
    }
}

/// Until the stores answer, and while they don't, each scheduler acts on what it hears itself.
async fn follow_acts(mut acts: Followed<Acted>, events: Events) {
    while acts.changed().await.is_ok() {
        let present = acts.borrow_and_update().clone();
        if let Some(present) = present {
            tell(&events, Input::Acts((*present).clone())).await;
        }
    }
}

async fn follow_config(mut snapshots: watch::Receiver<Arc<Snapshot>>, events: Events) {
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if events
            .send(Event::Machine(Input::Config(snapshot)))
            .await
            .is_err()
            || snapshots.changed().await.is_err()
        {
            return;
        }
    }
}

/// Serves the gRPC services of a scheduler until shutdown: to the services and, as far as it is asked for, the admin
/// service to the command-line tool outside.
pub async fn serve(
    bootstrap: &Bootstrap,
    scheduler: &Scheduler,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let address = bootstrap.scheduler.listen;
    let admin = Admin {
        address: bootstrap.scheduler.advertise.clone(),
        stores: scheduler.stores.clone(),
        events: scheduler.events.clone(),
        partitions: scheduler.partitions,
    };
    let admin = Arc::new(admin);
    let dispatch = DispatchServer::new(scheduler.streams.clone())
        .max_decoding_message_size(proto::MAX_DISPATCH_FRAME_BYTES)
        .max_encoding_message_size(proto::MAX_DISPATCH_FRAME_BYTES);
    let inside = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(3)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .add_service(dispatch)
        .add_service(AdminServer::from_arc(admin.clone()))
        .serve_with_shutdown(address, ended(shutdown.clone()));
    let inside = async {
        inside
            .await
            .map_err(|source| Error::Serve { address, source })
    };
    match &bootstrap.scheduler.admin {
        None => inside.await,
        Some(listener) => {
            let outside = serve_outside(listener, admin, shutdown);
            tokio::try_join!(inside, outside).map(|_| ())
        }
    }
}

/// Streams are open for ever: what they carry is handed over by then, and they break with the process.
async fn ended(shutdown: Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The admin service alone, for who shows a certificate.
async fn serve_outside(
    listener: &AdminListener,
    admin: Arc<Admin>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let address = listener.listen;
    // Files that are no good are told now, and not to the first client.
    outside::server_config(listener)?;
    let socket = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let connections = outside::connections(socket, listener.clone());
    tonic::transport::Server::builder()
        .add_service(AdminServer::from_arc(admin))
        .serve_with_incoming_shutdown(connections, ended(shutdown))
        .await
        .map_err(|source| Error::Serve { address, source })
}

/// Runs the scheduler with its health endpoint until shutdown, then hands its partitions over.
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    stores: Stores,
    partitions: u32,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let readiness = Readiness::new();
    readiness.set("started", true);
    runtime::serve_health(bootstrap.scheduler.metrics, readiness, shutdown.clone()).await?;
    let scheduler = Scheduler::start(&bootstrap, &stores, partitions, snapshots, shutdown.clone())?;
    let served = {
        let serving = serve(&bootstrap, &scheduler, shutdown.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => served,
            () = shutdown.requested() => Ok(()),
        }
    };
    shutdown.request();
    scheduler.stopped().await;
    served
}
