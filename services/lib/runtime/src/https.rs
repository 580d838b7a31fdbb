//! Documents fetched over https: one GET with one deadline, and nothing that a server could make of it beyond that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mail::HttpsUrl;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{TlsError, init_tls, roots_of};

mod post;

pub use post::{Answer, Post, WebClient, WebConnection};

/// Addresses of a host that are tried.
const MOST_ADDRESSES: usize = 4;
/// Octets of a response's header section.
const MOST_HEADER: usize = 32 * 1024;

/// Fetches documents from servers whose certificates are signed by an authority that it trusts.
#[derive(Clone)]
pub struct HttpsClient {
    tls: TlsConnector,
}

/// What is fetched, and how much of the server is borne.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// The document. The certificate must be for its host.
    pub url: &'a HttpsUrl,
    /// Where to connect, in this order, whatever the URL's port; empty: what the system's resolver says of the host.
    pub addresses: &'a [SocketAddr],
    /// The version that we have: if the server still has the same, it says only so.
    pub etag: Option<&'a str>,
    /// For all of it, from the name's resolution to the last octet.
    pub patience: Duration,
    /// Octets of the longest document that is taken.
    pub most: usize,
}

/// What a server answered with 200 or 304.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The document; `None` when it is the version that we have (304).
    pub document: Option<Vec<u8>>,
    /// `Content-Type`, as sent.
    pub content_type: Option<String>,
    /// `ETag`, as sent.
    pub etag: Option<String>,
    /// For so long the server does not expect a change (`Cache-Control: max-age`; 0 for `no-cache` and `no-store`);
    /// `None` where it says nothing.
    pub max_age: Option<Duration>,
}

/// Why there is no document. The host's name is for whoever logs it to say.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The host has no address, or the resolver did not answer.
    #[error("the name of the host cannot be resolved: {0}")]
    Resolve(io::Error),
    /// Nobody takes the connection; the error of the last address that was tried.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// The last address.
        address: SocketAddr,
        /// Why not there.
        source: io::Error,
    },
    /// No TLS with the server, or its certificate is not what it should be.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// It is no HTTP, or it breaks off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The server has something else to say than the document. Redirections are not followed.
    #[error("the server answers {0}")]
    Status(u16),
    /// The document is in an encoding that nobody asked for.
    #[error("the server encodes the document as {0}, which was not asked for")]
    Encoding(String),
    /// Longer than what is taken.
    #[error("the document is longer than {0} octets")]
    TooLong(usize),
    /// The host has addresses, and none that may be connected to.
    #[error("the host has only addresses that are not public, such as {0}")]
    Private(IpAddr),
    /// A field of the request holds what no field may.
    #[error("a field of the request can't be written")]
    Field,
    /// The time is over.
    #[error("there was no time left while {0}")]
    Late(Stage),
}

/// What was going on when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// DNS.
    Resolving,
    /// TCP.
    Connecting,
    /// TLS.
    ShakingHands,
    /// HTTP.
    Reading,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving the name of the host",
            Self::Connecting => "connecting",
            Self::ShakingHands => "shaking hands for TLS",
            Self::Reading => "waiting for the answer",
        })
    }
}

impl HttpsClient {
    /// Trusts the authorities of the PEM file; without one, those that the system trusts (`SSL_CERT_FILE`,
    /// `/etc/ssl/certs`). Reads the files each time.
    pub fn trusting(authorities: Option<&Path>) -> Result<Self, TlsError> {
        init_tls();
        let mut config = ClientConfig::builder()
            .with_root_certificates(trusted_authorities(authorities)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Fetches a document. A connection is made for it and closed afterwards.
    pub async fn get(&self, get: Get<'_>) -> Result<Fetched, HttpsError> {
        let deadline = Instant::now() + get.patience;
        let found;
        let addresses = match get.addresses {
            [] => {
                found = resolve(get.url.host(), get.url.port(), deadline).await?;
                &found
            }
            given => given,
        };
        let stream = connect(addresses, deadline).await?;
        let handshake = self.tls.connect(server_name(get.url.host())?, stream);
        let stream = timeout_at(deadline, handshake)
            .await
            .map_err(|_| HttpsError::Late(Stage::ShakingHands))?
            .map_err(HttpsError::Tls)?;
        timeout_at(deadline, exchange(stream, get))
            .await
            .map_err(|_| HttpsError::Late(Stage::Reading))?
    }
}

impl std::fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpsClient(..)")
    }
}

/// The authorities of the PEM file; without one, those that the system trusts (`SSL_CERT_FILE`, `/etc/ssl/certs`). At
/// least one.
pub fn trusted_authorities(authorities: Option<&Path>) -> Result<RootCertStore, TlsError> {
    match authorities {
        Some(path) => roots_of("authorities", path),
        None => roots_of_the_system(),
    }
}

fn roots_of_the_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // One that can't be read is nobody's authority.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    Ok(roots)
}

fn server_name(host: &str) -> Result<ServerName<'static>, HttpsError> {
    ServerName::try_from(host.to_owned())
        .map_err(|error| HttpsError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, HttpsError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = timeout_at(deadline, tokio::net::lookup_host((host, port)));
    let found: Vec<SocketAddr> = found
        .await
        .map_err(|_| HttpsError::Late(Stage::Resolving))?
        .map_err(HttpsError::Resolve)?
        .collect();
    if found.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        return Err(HttpsError::Resolve(none));
    }
    Ok(found)
}

/// Tries the first few addresses; each has its share of the time that is left.
async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, HttpsError> {
    let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    let mut last = HttpsError::Late(Stage::Connecting);
    for address in addresses {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / left;
        left = left.saturating_sub(1).max(1);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => {
                last = HttpsError::Connect {
                    address: *address,
                    source,
                };
            }
            Err(_) => last = HttpsError::Late(Stage::Connecting),
        }
    }
    Err(last)
}

async fn exchange(stream: TlsStream<TcpStream>, get: Get<'_>) -> Result<Fetched, HttpsError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEADER)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = target(get.url);
    let fields = request.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).ok();
    // The octets of both were checked when they were read; one that is no header value is left out.
    fields.extend(value(&get.url.authority()).map(|host| (header::HOST, host)));
    fields.extend(
        get.etag
            .and_then(value)
            .map(|etag| (header::IF_NONE_MATCH, etag)),
    );
    let agent = HeaderValue::from_static("staffetta");
    fields.insert(header::USER_AGENT, agent);
    let identity = HeaderValue::from_static("identity");
    fields.insert(header::ACCEPT_ENCODING, identity);
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));

    let answer = async {
        let response = sender.send_request(request).await?;
        read(response, get.most).await
    };
    // Both in this task, so that nothing of the connection outlives the deadline. It may be over before the answer is
    // read, which then lies in memory.
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    let mut over = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            ended = &mut connection, if !over => {
                over = true;
                if let Err(error) = ended {
                    tracing::trace!(%error, "the connection of a document broke");
                }
            }
        }
    }
}

/// A path that hyper does not take can't come from [`HttpsUrl`]; it would be answered for `/`.
fn target(url: &HttpsUrl) -> hyper::Uri {
    url.path().parse().unwrap_or_default()
}

async fn read(response: Response<Incoming>, most: usize) -> Result<Fetched, HttpsError> {
    let (head, body) = response.into_parts();
    let text = |name| {
        let value: Option<&HeaderValue> = head.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let fetched = |document| Fetched {
        document,
        content_type: text(header::CONTENT_TYPE),
        etag: text(header::ETAG),
        max_age: max_age(&head.headers),
    };
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(fetched(None)),
        other => return Err(HttpsError::Status(other.as_u16())),
    }
    match text(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            let encoding = encoding.chars().take(40).collect();
            return Err(HttpsError::Encoding(encoding));
        }
        _ => {}
    }
    Ok(fetched(Some(read_body(body, most).await?)))
}

async fn read_body(mut body: Incoming, most: usize) -> Result<Vec<u8>, HttpsError> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |announced| announced > most) {
        return Err(HttpsError::TooLong(most));
    }
    let mut document = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else {
            continue;
        };
        if document.len() + piece.len() > most {
            return Err(HttpsError::TooLong(most));
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}

/// RFC 9111 section 5.2.2; the shortest time where there are several.
fn max_age(fields: &HeaderMap) -> Option<Duration> {
    let values = fields.get_all(header::CACHE_CONTROL).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|directive| {
            let directive = directive.trim().to_ascii_lowercase();
            if matches!(directive.as_str(), "no-cache" | "no-store") {
                return Some(Duration::ZERO);
            }
            let seconds = directive.strip_prefix("max-age=")?.trim_matches('"');
            seconds.parse().ok().map(Duration::from_secs)
        })
        .min()
}

#[cfg(test)]
mod tests;
