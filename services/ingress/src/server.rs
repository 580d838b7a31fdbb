//! Start, listeners, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{Quota, Snapshot};
use runtime::bootstrap::{Bootstrap, Listener, ListenerKind, ListenerTls, ProxyProtocol};
use runtime::{
    ClientSlot, Clients, Readiness, Shutdown, TlsError, TlsFiles, TokenKeyring, TokenKeyringError,
};
use spool::{BlockWriter, Opened, Stores};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::answer::{self, Answer};
use crate::connection::Connection;
use crate::events::Events;
use crate::forwarding::{self, Forwarding, ForwardingError};
use crate::inbound;
use crate::issuers::Issuers;
use crate::links;
use crate::memory::{self, BodyPool};
use crate::metrics::{ListenerMetrics, Metrics};
use crate::password::PasswordChecker;
use crate::proxy::{self, Client};
use crate::quota::{self, QuotaError};
use crate::scanning::Scanners;
use crate::session::{ListenerPolicy, Storage};
use crate::socket::{ContentBuffers, Socket};
use crate::suppression::Suppressed;
use crate::watch_stores;
use crate::watching::{Tools, Watcher};

/// Connections that the kernel keeps before we take them.
const BACKLOG: u32 = 1024;
/// A client that sends nothing for so long within a message is given up.
const STALL: Duration = Duration::from_secs(180);
/// The same of a client that is not known.
const STALL_OF_STRANGERS: Duration = Duration::from_secs(30);
/// How often certificates are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(60);

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No listener is configured.
    #[error("ingress: staffetta.yaml names no listener")]
    NoListener,
    /// An address is taken or not ours.
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate is no good.
    #[error("listener {name}: {source}")]
    Tls {
        /// The listener.
        name: String,
        /// Why.
        source: Box<TlsError>,
    },
    /// The stores are not those of an installation, or not durable enough.
    #[error("ingress: {0}")]
    Stores(#[from] spool::Error),
    /// What mail of foreign senders is forwarded with is no good.
    #[error("ingress: {0}")]
    Forwarding(#[from] ForwardingError),
    /// The keys of return paths and links are no good.
    #[error("ingress: {0}")]
    Tokens(#[from] TokenKeyringError),
    /// Redis, where quotas are counted, can't even be tried.
    #[error("ingress: {0}")]
    Quotas(#[from] QuotaError),
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) stores: Stores,
    pub(crate) writer: BlockWriter,
    pub(crate) pool: BodyPool,
    /// For what strangers send, so that they can't take the memory of clients.
    pub(crate) inbound_pool: BodyPool,
    pub(crate) content_buffers: ContentBuffers,
    pub(crate) passwords: PasswordChecker,
    pub(crate) issuers: Arc<Issuers>,
    pub(crate) quotas: limits::Quotas,
    pub(crate) claims: limits::Claims,
    pub(crate) scanners: Scanners,
    /// So many failed logins are allowed a network with one user name.
    pub(crate) failed_logins: Quota,
    pub(crate) events: Arc<Events>,
    pub(crate) watcher: Watcher,
    /// What return paths and links are made with and known by; `None`: there are none of ours.
    pub(crate) tokens: Option<Arc<TokenKeyring>>,
    pub(crate) suppressed: Suppressed,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

impl Shared {
    /// Whether messages can be stored now.
    pub(crate) fn storage(&self) -> Storage {
        if !self.stores.is_connected() {
            Storage::Away
        } else if !self.writer.is_accepting() {
            Storage::Full
        } else {
            Storage::Ready
        }
    }
}

/// What the connections of one listener share.
pub(crate) struct Listening {
    name: String,
    kind: ListenerKind,
    pub(crate) policy: Arc<ListenerPolicy>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) implicit_tls: bool,
    proxy_protocol: Option<ProxyProtocol>,
    pub(crate) command_timeout: Duration,
    pub(crate) data_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    slots: Arc<Semaphore>,
    clients: Arc<Clients>,
    max_connections_per_client: Option<u32>,
    metrics: ListenerMetrics,
}

/// The listeners, bound but closed: clients are refused until [`Listeners::serve`] is ready for them.
pub struct Listeners {
    bound: Vec<(TcpSocket, Arc<Listening>)>,
    forwarding: Option<Arc<Forwarding>>,
    tokens: Option<Arc<TokenKeyring>>,
}

impl Listeners {
    /// Loads the certificates and binds the addresses.
    pub fn bind(bootstrap: &Bootstrap) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let forwarding = bootstrap.ingress.forwarding.as_ref();
        let load = |configured| Forwarding::load(configured, &bootstrap.resolvers);
        let forwarding = forwarding.map(load).transpose()?.map(Arc::new);
        let tokens = bootstrap.tokens.as_ref().map(TokenKeyring::load);
        let tokens = tokens.transpose()?.map(Arc::new);
        let bound = bootstrap
            .ingress
            .listeners
            .iter()
            .map(|listener| {
                let listening = Listening::new(
                    listener,
                    bootstrap.hostname.as_str(),
                    forwarding.clone(),
                    &metrics,
                )?;
                let socket = bind(listener.address).map_err(|source| Error::Listen {
                    name: listener.name.clone(),
                    address: listener.address,
                    source,
                })?;
                Ok((socket, Arc::new(listening)))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if bound.is_empty() {
            return Err(Error::NoListener);
        }
        Ok(Self {
            bound,
            forwarding,
            tokens,
        })
    }

    /// Name and bound address of each (for port 0).
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let address = |socket: &TcpSocket| socket.local_addr().ok();
        self.bound
            .iter()
            .filter_map(|(socket, listening)| Some((listening.name.clone(), address(socket)?)))
            .collect()
    }

    /// Serves until shutdown; then finishes the messages that are under way.
    pub async fn serve(
        self,
        bootstrap: &Bootstrap,
        stores: Stores,
        opened: &Opened,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<(), Error> {
        readiness.set(READY, false);
        let Some(mut shared) = start(bootstrap, stores, opened, &shutdown).await? else {
            return Ok(());
        };
        shared.tokens = self.tokens.clone();
        let shared = Arc::new(shared);
        if !has_configuration(&shared, &readiness).await {
            return Ok(());
        }
        if let Some(forwarding) = self.forwarding {
            tokio::spawn(forwarding::follow(forwarding, shutdown.clone()));
        }
        match self.tokens {
            Some(tokens) => tokio::spawn(tokens.follow(shutdown.clone())),
            None => {
                let snapshot = shared.snapshot.clone();
                tokio::spawn(links::warn_without_keys(snapshot, shutdown.clone()))
            }
        };
        let connections = TaskTracker::new();
        let mut accepting = Vec::new();
        for (socket, listening) in self.bound {
            let address = socket.local_addr().ok();
            let listener = socket.listen(BACKLOG).map_err(|source| Error::Listen {
                name: listening.name.clone(),
                address: address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
                source,
            })?;
            tracing::info!(
                listener = listening.name,
                address = address.map(tracing::field::display),
                "listening"
            );
            if listening.tls.is_some() {
                tokio::spawn(follow_certificate(Arc::clone(&listening), shutdown.clone()));
            }
            let accept = accept_all(
                listener,
                listening,
                Arc::clone(&shared),
                connections.clone(),
            );
            accepting.push(tokio::spawn(accept));
        }
        watch_stores::until_shutdown(&shared, &readiness).await;
        for task in accepting {
            if let Err(error) = task.await {
                tracing::error!(%error, "a listener failed");
            }
        }
        connections.close();
        let patience = bootstrap.ingress.drain_timeout.duration();
        if tokio::time::timeout(patience, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "stopped with messages still coming in; their clients have no 250"
            );
        }
        shared.events.close().await;
        Ok(())
    }
}

/// Waits for the first configuration: before it every login would be refused for good. `false` when asked to stop
/// meanwhile.
async fn has_configuration(shared: &Shared, readiness: &Readiness) -> bool {
    let mut snapshots = shared.snapshot.clone();
    if snapshots.borrow().is_empty() {
        tracing::warn!("waiting for the first configuration (`staffetta apply`)");
        readiness.wait(READY, "there is no configuration yet");
    }
    tokio::select! {
        found = snapshots.wait_for(|snapshot| !snapshot.is_empty()) => found.is_ok(),
        () = shared.shutdown.requested() => false,
    }
}

/// Name of the condition of [`Readiness`].
pub(crate) const READY: &str = "ingress";

impl Listening {
    fn new(
        listener: &Listener,
        hostname: &str,
        forwarding: Option<Arc<Forwarding>>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let tls = match listener.tls.files() {
            [] => None,
            files => {
                let files = TlsFiles::load(files, listener.client_authorities.as_deref());
                Some(files.map_err(|source| Error::Tls {
                    name: listener.name.clone(),
                    source: Box::new(source),
                })?)
            }
        };
        let policy = ListenerPolicy {
            hostname: hostname.to_owned(),
            starttls: matches!(listener.tls, ListenerTls::StartTls(_)),
            allow_plaintext_auth_from: listener.allow_plaintext_auth_from.clone(),
            scram: listener.scram,
            xclient_trusted: listener.xclient_trusted.clone(),
            max_message_size: listener.max_message_size.as_u64(),
            max_recipients: listener.max_recipients as usize,
            forwarding,
            simulator: listener.simulator_domain.clone(),
        };
        let stall = match listener.kind {
            ListenerKind::Submission => STALL,
            ListenerKind::Inbound => STALL_OF_STRANGERS,
        };
        Ok(Self {
            name: listener.name.clone(),
            kind: listener.kind,
            policy: Arc::new(policy),
            tls,
            proxy_protocol: listener.proxy_protocol.clone(),
            implicit_tls: matches!(listener.tls, ListenerTls::Implicit(_)),
            command_timeout: listener.command_timeout.duration(),
            data_timeout: listener.data_timeout.duration(),
            stall_timeout: stall.min(listener.command_timeout.duration()),
            slots: Arc::new(Semaphore::new(listener.max_connections as usize)),
            clients: Arc::default(),
            max_connections_per_client: listener.max_connections_per_client,
            metrics: metrics.listener(&listener.name),
        })
    }
}

impl Listening {
    /// Counts a connection of the client; `None` where connections of one client are not limited.
    pub(crate) fn room_for(&self, client: Client) -> Result<Option<ClientSlot>, Answer> {
        let Some(most) = self.max_connections_per_client else {
            return Ok(None);
        };
        let slot = self.clients.enter(client.address, most);
        slot.map(Some).ok_or(answer::TOO_MANY_OF_CLIENT)
    }
}

/// Serves the listeners of `bootstrap` until `shutdown`. `readiness` gets the condition `ingress`.
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    stores: Stores,
    opened: Opened,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), Error> {
    Listeners::bind(&bootstrap)?
        .serve(&bootstrap, stores, &opened, readiness, shutdown)
        .await
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Reads the configuration; `None` when asked to stop meanwhile.
async fn start(
    bootstrap: &Bootstrap,
    stores: Stores,
    opened: &Opened,
    shutdown: &Shutdown,
) -> Result<Option<Shared>, Error> {
    let metrics = Arc::new(Metrics::new());
    metrics.durability(&opened.report);
    let snapshot = tokio::select! {
        followed = stores.follow_snapshots() => followed?,
        () = shutdown.requested() => return Ok(None),
    };
    let issuers = Issuers::follow(snapshot.clone(), &metrics, shutdown.clone());
    let known = tokio::select! {
        known = async { stores.measures().follow().await } => known,
        () = shutdown.requested() => return Ok(None),
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let quotas = quota::connect(&bootstrap.redis, bootstrap.ingress.replicas)?;
    let events = Arc::new(Events::new(
        stores.event_writer("ingress"),
        metrics.events(),
    ));
    let watcher = Watcher::start(Tools {
        habits: quotas.habits(),
        claims: quotas.claims(),
        measures: stores.measures(),
        known,
        snapshot: snapshot.clone(),
        events: Arc::clone(&events),
        metrics: metrics.watch(),
    });
    let suppressed = Suppressed::start(&stores, snapshot.clone(), shutdown.clone());
    let mut listeners = bootstrap.ingress.listeners.iter();
    let takes_inbound = listeners.any(|listener| listener.kind == ListenerKind::Inbound);
    let (of_clients, of_strangers) =
        memory::shares(bootstrap.ingress.body_memory.as_usize(), takes_inbound);
    Ok(Some(Shared {
        writer: stores.block_writer(opened.partitions, spool::WriterOptions::default()),
        snapshot,
        content_buffers: ContentBuffers::default(),
        pool: BodyPool::new(of_clients),
        inbound_pool: BodyPool::new(of_strangers),
        passwords: PasswordChecker::new(threads),
        issuers,
        claims: quotas.claims(),
        scanners: Scanners::new(),
        quotas,
        failed_logins: bootstrap.ingress.failed_logins,
        events,
        watcher,
        tokens: None,
        suppressed,
        stores,
        metrics,
        shutdown: shutdown.clone(),
    }))
}

async fn accept_all(
    listener: TcpListener,
    listening: Arc<Listening>,
    shared: Arc<Shared>,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.requested() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &listening, &shared, &connections),
            Err(error) => {
                // Out of file descriptors, most likely: connections end, and then it goes on.
                tracing::warn!(listener = listening.name, %error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    listening: &Arc<Listening>,
    shared: &Arc<Shared>,
    connections: &TaskTracker,
) {
    listening.metrics.connections_total.inc();
    let Ok(slot) = Arc::clone(&listening.slots).try_acquire_owned() else {
        turn_away(&stream, &answer::TOO_MANY_CONNECTIONS, listening, shared);
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the client left at once");
        return;
    }
    let open = listening.metrics.open();
    let (shared, listening) = (Arc::clone(shared), Arc::clone(listening));
    connections.spawn(async move {
        if let Some((stream, client)) = identify(stream, peer, &listening).await {
            // A proxy has the connections of many clients; each counts when it is named.
            let room = if client.is_proxy(&listening.policy.xclient_trusted) {
                Ok(None)
            } else {
                listening.room_for(client)
            };
            match room {
                Ok(of_client) => {
                    let socket = Socket::Plain(stream);
                    match listening.kind {
                        ListenerKind::Submission => {
                            Connection::new(shared, listening, socket, client, of_client)
                                .serve()
                                .await;
                        }
                        ListenerKind::Inbound => {
                            inbound::Connection::new(shared, listening, socket, client, of_client)
                                .serve()
                                .await;
                        }
                    }
                }
                Err(refusal) => turn_away(&stream, &refusal, &listening, &shared),
            }
        }
        drop((open, slot));
    });
}

/// Says why the connection is closed, where that can be said without TLS.
fn turn_away(stream: &TcpStream, why: &Answer, listening: &Listening, shared: &Shared) {
    shared.metrics.refused(why);
    if !listening.implicit_tls {
        let mut line = Vec::new();
        why.write(&mut line);
        // Best effort: the line fits into the buffer of a new connection, else it is closed without.
        drop(stream.try_write(&line));
    }
}

/// Who is there; `None` when the connection is to be closed without a word.
async fn identify(
    mut stream: TcpStream,
    peer: SocketAddr,
    listening: &Listening,
) -> Option<(TcpStream, Client)> {
    let client = match &listening.proxy_protocol {
        None => Ok(Client::connected(peer.ip())),
        Some(proxy) => proxy::read_header(&mut stream, peer.ip(), proxy).await,
    };
    match client {
        Ok(client) => Some((stream, client)),
        Err(refused) => {
            listening.metrics.proxy_refused(refused.reason());
            tracing::debug!(listener = listening.name, %refused, "connection closed");
            None
        }
    }
}

async fn follow_certificate(listening: Arc<Listening>, shutdown: Shutdown) {
    let Some(files) = &listening.tls else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
            () = shutdown.requested() => return,
        }
        match files.reload() {
            Ok(true) => tracing::info!(listener = listening.name, "new certificate"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(listener = listening.name, %error, "the changed certificate is no good; the old one stays");
            }
        }
    }
}
