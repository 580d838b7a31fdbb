//! A small server of HTTP/1.1 for strangers: every size, count and time is bounded, and nothing but the answers is served.
//!
//! | bound | |
//! |---|---|
//! | header section | 16 KiB, 64 fields, 10 s |
//! | body | 16 KiB, 10 s |
//! | handshake of TLS | 10 s |
//! | connection, whatever happens on it | 60 s |
//! | connections | as configured, in all and of one client |
//!
//! A client is an IPv4 address or an IPv6 /64. Proxies that are trusted are none: what they say in `X-Forwarded-For` is believed,
//! and their connections are counted in all only.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::bootstrap::WebListener;
use crate::clients::{ClientSlot, Clients};
use crate::{Shutdown, TlsError, TlsFiles};

/// Octets of a request's header section.
const MOST_HEADER: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;
/// Octets of a request's body.
const MOST_BODY: usize = 16 * 1024;
/// For a header section, a body, a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection is closed after so long.
const LIFE: Duration = Duration::from_secs(60);
/// What is being answered when the process is to end has so long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often certificates are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(60);

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is wanted.
    pub method: Method,
    /// As sent, without the query.
    pub path: String,
    /// `Content-Type`, as sent.
    pub content_type: Option<String>,
    /// `Accept-Language`, as sent.
    pub languages: Option<String>,
    /// Who asks.
    pub client: IpAddr,
    /// Of a POST; at most 16 KiB.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Fields besides `Content-Length` and `Date`: names in lower case, values of visible ASCII and spaces.
    pub fields: Vec<(&'static str, &'static str)>,
    /// The document; not sent where HEAD asks for it.
    pub body: String,
}

/// The server can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate is no good.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What becomes of connections: told to whoever counts it.
pub trait WebStats: Send + Sync + 'static {
    /// One more is open.
    fn opened(&self);
    /// One less is open.
    fn closed(&self);
    /// One was closed at once: there are too many.
    fn turned_away(&self);
}

/// A server, bound and not yet serving.
pub struct WebServer {
    listener: TcpListener,
    tls: Option<Arc<TlsFiles>>,
    limits: Limits,
}

#[derive(Debug, Clone)]
struct Limits {
    connections: Arc<Semaphore>,
    clients: Arc<Clients>,
    per_client: u32,
    proxies: Arc<[IpNet]>,
}

impl WebServer {
    /// Binds the address, and loads the certificates.
    ///
    /// # Errors
    /// When one of the two can't be done.
    pub async fn bind(configured: &WebListener) -> Result<Self, WebError> {
        let tls = match configured.certificates.as_slice() {
            [] => None,
            files => Some(Arc::new(TlsFiles::load(files, None)?)),
        };
        let address = configured.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| WebError::Listen { address, source })?;
        Ok(Self {
            listener,
            tls,
            limits: Limits {
                connections: Arc::new(Semaphore::new(configured.max_connections as usize)),
                clients: Arc::default(),
                per_client: configured.max_connections_per_client,
                proxies: configured.proxies.clone().into(),
            },
        })
    }

    /// Where it listens (for port 0).
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until shutdown; what is being answered then has 5 s. `answer` must not take longer than it may.
    pub async fn serve<A, F>(self, answer: A, stats: Arc<dyn WebStats>, shutdown: Shutdown)
    where
        A: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let serving = Arc::new(Serving {
            answer,
            limits: self.limits,
            shutdown: shutdown.clone(),
        });
        if let Some(tls) = &self.tls {
            tokio::spawn(follow(Arc::clone(tls), shutdown.clone()));
        }
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.requested() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: connections end, and then it goes on.
                    tracing::warn!(%error, "a connection of the web could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(slots) = serving.room_for(peer.ip()) else {
                stats.turned_away();
                continue;
            };
            let open = Open::begin(Arc::clone(&stats));
            let (serving, tls) = (Arc::clone(&serving), self.tls.clone());
            connections.spawn(async move {
                serving.converse(stream, peer.ip(), tls).await;
                drop((slots, open));
            });
        }
        drop(self.listener);
        connections.close();
        // Their connections end with the process.
        timeout(LAST_WORDS, connections.wait()).await.ok();
    }
}

/// One open connection, as it is counted.
struct Open(Arc<dyn WebStats>);

impl Open {
    fn begin(stats: Arc<dyn WebStats>) -> Self {
        stats.opened();
        Self(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// What the connections share.
struct Serving<A> {
    answer: A,
    limits: Limits,
    shutdown: Shutdown,
}

impl<A, F> Serving<A>
where
    A: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    /// What a connection holds as long as it lives; `None`: there are too many.
    fn room_for(&self, peer: IpAddr) -> Option<(OwnedSemaphorePermit, Option<ClientSlot>)> {
        let limits = &self.limits;
        let of_all = Arc::clone(&limits.connections).try_acquire_owned().ok()?;
        let of_client = match limits.is_proxy(peer) {
            true => None,
            false => Some(limits.clients.enter(peer, limits.per_client)?),
        };
        Some((of_all, of_client))
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        tls: Option<Arc<TlsFiles>>,
    ) {
        let Some(tls) = tls else {
            return self.speak(stream, peer).await;
        };
        match timeout(PATIENCE, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.speak(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client of the web"),
            Err(_) => tracing::debug!("a client of the web is slow with TLS"),
        }
    }

    async fn speak<S>(self: Arc<Self>, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = Arc::clone(&self);
        let service = service_fn(move |request| {
            let serving = Arc::clone(&serving);
            async move { Ok::<_, Infallible>(serving.respond(request, peer).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(MOST_HEADER)
            .max_headers(MOST_FIELDS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = tokio::time::sleep(LIFE) => return,
            () = self.shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                match timeout(LAST_WORDS, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the web ended");
        }
    }

    async fn respond(
        &self,
        request: hyper::Request<Incoming>,
        peer: IpAddr,
    ) -> hyper::Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let method = match head.method {
            hyper::Method::GET => Method::Get,
            hyper::Method::HEAD => Method::Head,
            hyper::Method::POST => Method::Post,
            _ => Method::Other,
        };
        let body = match method {
            Method::Post => match read(body).await {
                Ok(body) => body,
                Err(status) => return refusal(status),
            },
            _ => Bytes::new(),
        };
        let text = |name| {
            let value: Option<&HeaderValue> = head.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let request = Request {
            method,
            path: head.uri.path().to_owned(),
            content_type: text(header::CONTENT_TYPE),
            languages: text(header::ACCEPT_LANGUAGE),
            client: self.limits.client(peer, &head.headers),
            body,
        };
        (self.answer)(request).await.into_hyper()
    }
}

impl Limits {
    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Who asks: of those whom proxies name, the last who is not a proxy of ours. What comes before is whatever that client wrote.
    fn client(&self, peer: IpAddr, fields: &HeaderMap) -> IpAddr {
        if !self.is_proxy(peer) {
            return peer.to_canonical();
        }
        let values = fields.get_all("x-forwarded-for").into_iter().rev();
        let named = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.rsplit(','))
            .map(|name| name.trim().parse::<IpAddr>().ok());
        for name in named {
            match name {
                Some(address) if self.is_proxy(address) => {}
                Some(address) => return address.to_canonical(),
                None => break,
            }
        }
        peer.to_canonical()
    }
}

/// The body, or the status of what is said instead.
async fn read(body: Incoming) -> Result<Bytes, u16> {
    let whole = Limited::new(body, MOST_BODY).collect();
    match timeout(PATIENCE, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(413),
        Ok(Err(_)) => Err(400),
        Err(_) => Err(408),
    }
}

/// Said where nobody is asked; the rest of the request is not read.
fn refusal(status: u16) -> hyper::Response<Full<Bytes>> {
    Response {
        status,
        fields: vec![("connection", "close")],
        body: String::new(),
    }
    .into_hyper()
}

impl Response {
    fn into_hyper(self) -> hyper::Response<Full<Bytes>> {
        let mut response = hyper::Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = hyper::StatusCode::from_u16(self.status)
            .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        let fields = self.fields.into_iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        response.headers_mut().extend(fields);
        response
    }
}

async fn follow(files: Arc<TlsFiles>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
            () = shutdown.requested() => return,
        }
        match files.reload() {
            Ok(true) => tracing::info!("new certificate for the web"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the changed certificate for the web is no good; the old one stays");
            }
        }
    }
}

#[cfg(test)]
mod tests;
