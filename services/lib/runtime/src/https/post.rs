//! Posting to servers on the web, over connections that are kept.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use mail::WebUrl;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::{HttpsError, MOST_HEADER, Stage, connect, resolve, server_name, trusted_authorities};
use crate::tls::{TlsError, init_tls};

/// Octets of an answer's body that are read so that the connection can be kept; what is longer is not waited for.
const MOST_BODY: usize = 64 * 1024;

/// Connects to servers on the web: with TLS to those whose certificates are signed by an authority that it trusts,
/// without it where the URL says `http`.
#[derive(Clone)]
pub struct WebClient {
    tls: TlsConnector,
}

/// A connection to a server, for one post after the other. Closed when dropped.
#[derive(Debug)]
pub struct WebConnection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

/// What is posted.
#[derive(Debug)]
pub struct Post<'a> {
    /// Where to; that of the connection.
    pub url: &'a WebUrl,
    /// Beside those that every request has.
    pub fields: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Bytes,
    /// Until the answer is there.
    pub deadline: Instant,
}

/// What a server says to a post. Redirections are answers like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// RFC 9110 section 15.
    pub status: u16,
    /// `Retry-After` in seconds, where the server says one.
    pub retry_after: Option<Duration>,
    /// The connection takes another post.
    pub is_kept: bool,
}

impl WebClient {
    /// Trusts the authorities of the PEM file; without one, those that the system trusts. Reads the files each time.
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

    /// Connects to the host of the URL, at an address of it that `may` take: to the very address that was looked at, so
    /// that a name cannot be of another one in between.
    pub async fn connect(
        &self,
        url: &WebUrl,
        may: impl Fn(IpAddr) -> bool,
        deadline: Instant,
    ) -> Result<WebConnection, HttpsError> {
        let found = resolve(url.host(), url.port(), deadline).await?;
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|address| may(address.ip()))
            .collect();
        if let (true, Some(other)) = (allowed.is_empty(), found.first()) {
            return Err(HttpsError::Private(other.ip()));
        }
        let stream = connect(&allowed, deadline).await?;
        // Small posts go out at once. When it can't be set, they come a little later.
        stream.set_nodelay(true).ok();
        if url.is_plain() {
            return handshake(stream, deadline).await;
        }
        let handshaken = self.tls.connect(server_name(url.host())?, stream);
        let stream = timeout_at(deadline, handshaken)
            .await
            .map_err(|_| HttpsError::Late(Stage::ShakingHands))?
            .map_err(HttpsError::Tls)?;
        handshake(stream, deadline).await
    }
}

impl std::fmt::Debug for WebClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebClient(..)")
    }
}

async fn handshake<S>(stream: S, deadline: Instant) -> Result<WebConnection, HttpsError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    let made = builder
        .max_buf_size(MOST_HEADER)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = timeout_at(deadline, made)
        .await
        .map_err(|_| HttpsError::Late(Stage::Connecting))??;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection for posts broke");
        }
    });
    Ok(WebConnection { sender, task })
}

impl WebConnection {
    /// Whether the server has not closed it, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Posts, and waits for the answer. After an error the connection is of no use.
    pub async fn post(&mut self, post: Post<'_>) -> Result<Answer, HttpsError> {
        let deadline = post.deadline;
        let late = |_| HttpsError::Late(Stage::Reading);
        timeout_at(deadline, self.sender.ready())
            .await
            .map_err(late)??;
        let request = request_of(post)?;
        let response = timeout_at(deadline, self.sender.send_request(request))
            .await
            .map_err(late)??;
        let (head, body) = response.into_parts();
        let drained = timeout_at(deadline, drain(body)).await;
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers),
            // What it answered is known, whatever becomes of the rest.
            is_kept: drained.unwrap_or(false) && self.is_open(),
        })
    }
}

impl Drop for WebConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request_of(post: Post<'_>) -> Result<Request<Full<Bytes>>, HttpsError> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| HttpsError::Field);
    let mut request = Request::new(Full::new(post.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = post.url.path().parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::HOST, value(&post.url.authority())?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("staffetta"));
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    for (name, text) in post.fields {
        headers.insert(HeaderName::from_static(name), value(&text)?);
    }
    Ok(request)
}

/// Reads the body; `false` when it is too long or breaks off.
async fn drain(mut body: Incoming) -> bool {
    let mut octets = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        octets += frame.data_ref().map_or(0, Bytes::len);
        if octets > MOST_BODY {
            return false;
        }
    }
    true
}

fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
