//! One connection to NATS: requests, publishes whose outcome is told apart, and the news of a reconnect.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{
    HeaderMap, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event, Request, RequestErrorKind, ServerAddr};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{Access, Error, Options};

/// Time for one request. Longer than the worst queue of fsyncs seen (about 1 s).
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a write that can't be sent yet waits for the connection: well below the life of a lease.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// JetStream: the stream's last sequence is not the expected one.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
const STREAM_NOT_FOUND: u64 = 10059;
const SEQUENCE_NOT_FOUND: u64 = 10_043;
const STREAM_STORE_FAILED: u64 = 10077;
/// Refusals that mean that a bound is reached: account resources, insufficient resources, storage
/// resources, the stream's bytes.
const BOUND_REACHED: [u64; 4] = [10002, 10023, 10047, 10122];

/// A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    client: Client,
    jetstream: jetstream::Context,
    state: watch::Receiver<LinkState>,
}

/// Changes with every loss of the connection and every new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Counts connections.
    pub generation: u64,
    pub connected: bool,
}

/// The acknowledgement of a publish.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Acknowledgement {
    #[serde(rename = "seq")]
    pub sequence: u64,
    #[serde(default)]
    pub duplicate: bool,
}

/// A publish without acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishFailure {
    /// JetStream did not store it, and says why.
    Refused { code: u64, detail: String },
    /// Not stored, for there was no stream to take it (or it has no leader).
    NoStream,
    /// Not sent, for there is no connection at the moment.
    NotSent,
    /// It may be stored or not.
    Unknown(String),
}

impl PublishFailure {
    /// The stream, the account or the volume is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Refused { code, detail } => {
                BOUND_REACHED.contains(code)
                    || *code == STREAM_STORE_FAILED && detail.contains("maximum")
            }
            _ => false,
        }
    }

    /// Certainly not stored. A failure of the server's disk (10077) leaves that open.
    pub fn is_explicit(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code != STREAM_STORE_FAILED || self.is_full(),
            Self::NoStream | Self::NotSent => true,
            Self::Unknown(_) => false,
        }
    }

    pub fn detail(&self) -> String {
        match self {
            Self::Refused { code, detail } => format!("{detail} (error {code})"),
            Self::NoStream => "no stream takes the subject".to_owned(),
            Self::NotSent => "not connected to NATS".to_owned(),
            Self::Unknown(detail) => detail.clone(),
        }
    }

    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Refused { code, detail } => Error::Refused {
                what: what.to_owned(),
                code,
                detail,
            },
            other => Error::Unavailable {
                what: what.to_owned(),
                detail: other.detail(),
            },
        }
    }
}

/// The servers of a cluster: URLs separated by commas.
fn servers(url: &str) -> Result<Vec<ServerAddr>, Error> {
    let server = |one: &str| {
        one.trim()
            .parse()
            .map_err(|error: std::io::Error| Error::Unreachable {
                url: without_credentials(one),
                detail: error.to_string(),
            })
    };
    url.split(',').map(server).collect()
}

/// An answer of the JetStream API: the value, or an error.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: ApiError },
    Value(T),
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Link {
    /// Connects; later reconnects by itself for ever.
    pub async fn connect(options: &Options, name: String) -> Result<Self, Error> {
        let url = &options.url;
        let (changes, state) = watch::channel(LinkState {
            generation: 0,
            connected: true,
        });
        let changes = Arc::new(changes);
        let client = identified(&options.access)
            .await
            .map_err(|error| Error::Access {
                detail: error.to_string(),
            })?
            .name(&name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(50 << attempts.min(5)).min(MAX_RECONNECT_DELAY)
            })
            .event_callback(move |event| {
                let changes = changes.clone();
                let name = name.clone();
                async move { note_event(&changes, &name, &event) }
            })
            .connect(servers(url)?)
            .await
            .map_err(|error| Error::Unreachable {
                url: without_credentials(url),
                detail: error.to_string(),
            })?;
        let jetstream = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            state,
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// To see reconnects; what was asked for before one may never be answered.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Waits for a connection, at most so long.
    pub async fn connected_within(&self, limit: Duration) {
        let mut state = self.state.clone();
        tokio::select! {
            _ = state.wait_for(|now| now.connected) => {}
            () = tokio::time::sleep(limit) => {}
        }
    }

    /// One attempt, for which a connection is waited for a little while.
    pub async fn publish_connected(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Acknowledgement, PublishFailure> {
        self.connected_within(CONNECTION_PATIENCE).await;
        self.publish(subject, headers, payload).await
    }

    /// One attempt. Ends with `Unknown` as soon as the connection is lost, since the acknowledgement
    /// can't come any more.
    pub async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Acknowledgement, PublishFailure> {
        let mut state = self.state.clone();
        let before = *state.borrow_and_update();
        if !before.connected {
            // The client would keep it and send it at some later time.
            return Err(PublishFailure::NotSent);
        }
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(REQUEST_TIMEOUT));
        let answer = tokio::select! {
            answer = self.client.send_request(subject, request) => answer,
            _ = state.wait_for(|now| *now != before) => {
                return Err(PublishFailure::Unknown("the connection to NATS was lost".to_owned()));
            }
        };
        let message = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => PublishFailure::NoStream,
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                PublishFailure::Refused {
                    code: 0,
                    detail: error.to_string(),
                }
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                PublishFailure::Unknown(error.to_string())
            }
        })?;
        match serde_json::from_slice(&message.payload) {
            Ok(Answer::Value(acknowledgement)) => Ok(acknowledgement),
            Ok(Answer::Error { error }) => Err(PublishFailure::Refused {
                code: error.err_code,
                detail: error.description,
            }),
            Err(error) => Err(PublishFailure::Unknown(format!(
                "unexpected answer: {error}"
            ))),
        }
    }

    /// A request to the JetStream API; `subject` without the prefix `$JS.API.`.
    pub async fn api<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &serde_json::Value,
    ) -> Result<T, Error> {
        let unavailable = |detail: String| Error::Unavailable {
            what: subject.to_owned(),
            detail,
        };
        let request = Request::new().payload(Bytes::from(body.to_string()));
        let message = self
            .client
            .send_request(format!("$JS.API.{subject}"), request)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        match serde_json::from_slice(&message.payload) {
            Ok(Answer::Value(value)) => Ok(value),
            Ok(Answer::Error { error }) => Err(Error::Refused {
                what: subject.to_owned(),
                code: error.err_code,
                detail: error.description,
            }),
            Err(error) => Err(unavailable(format!("unexpected answer: {error}"))),
        }
    }

    /// Configuration and state of a stream; `None` when there is no such stream.
    pub async fn stream_info(
        &self,
        stream: &str,
    ) -> Result<Option<jetstream::stream::Info>, Error> {
        match self
            .api(&format!("STREAM.INFO.{stream}"), &serde_json::json!({}))
            .await
        {
            Ok(info) => Ok(Some(info)),
            Err(Error::Refused {
                code: STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The stream's state; an error when there is no such stream.
    pub async fn stream_state(&self, stream: &str) -> Result<jetstream::stream::Info, Error> {
        self.stream_info(stream)
            .await?
            .ok_or_else(|| Error::MissingStream {
                stream: stream.to_owned(),
            })
    }

    /// Removes one message; one that is gone is no error.
    pub async fn delete(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        let body = serde_json::json!({ "seq": sequence, "no_erase": true });
        let deleted: Result<serde_json::Value, Error> = self
            .api(&format!("STREAM.MSG.DELETE.{stream}"), &body)
            .await;
        match deleted {
            Err(Error::Refused {
                code: SEQUENCE_NOT_FOUND,
                ..
            }) => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// Removes what is below a sequence; of one subject only when it is given.
    pub async fn purge(
        &self,
        stream: &str,
        below: Option<u64>,
        subject: Option<&str>,
    ) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(default)]
            purged: u64,
        }
        let mut body = serde_json::Map::new();
        body.extend(below.map(|sequence| ("seq".to_owned(), sequence.into())));
        body.extend(subject.map(|subject| ("filter".to_owned(), subject.into())));
        let answer: Purged = self
            .api(&format!("STREAM.PURGE.{stream}"), &body.into())
            .await?;
        Ok(answer.purged)
    }
}

/// A time that the server tells, Unix milliseconds; 0 for those before 1970.
pub(crate) fn unix_ms(at: async_nats::datetime::DateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// With what the server wants to see.
async fn identified(access: &Access) -> std::io::Result<ConnectOptions> {
    let mut options = ConnectOptions::new();
    if let Some((name, password)) = &access.login {
        options = options.user_and_password(name.clone(), password.clone());
    }
    if let Some(path) = &access.credentials {
        let named = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        options = options.credentials_file(path).await.map_err(named)?;
    }
    if let Some(path) = &access.authorities {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &access.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// The header by which a stream refuses what another writer has overtaken.
pub(crate) fn expect_last_sequence(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, sequence.to_string());
}

/// As [`expect_last_sequence`], of the record's subject.
pub(crate) fn expect_last_subject_sequence(headers: &mut HeaderMap, sequence: u64) {
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
}

fn note_event(changes: &watch::Sender<LinkState>, name: &str, event: &Event) {
    match event {
        // The first connection is told too, and changes nothing.
        Event::Connected => {
            changes.send_if_modified(|state| {
                let again = !state.connected;
                state.generation += u64::from(again);
                state.connected = true;
                again
            });
        }
        Event::Disconnected => {
            tracing::warn!(connection = name, "lost the connection to NATS");
            changes.send_modify(|state| state.connected = false);
        }
        Event::Closed => changes.send_modify(|state| state.connected = false),
        Event::SlowConsumer(_) => tracing::warn!(
            connection = name,
            "messages from NATS were dropped: slow consumer"
        ),
        Event::ServerError(error) => {
            tracing::warn!(connection = name, %error, "NATS reports an error")
        }
        Event::ClientError(error) => tracing::debug!(connection = name, %error, "NATS client"),
        Event::LameDuckMode | Event::Draining => tracing::info!(connection = name, %event, "NATS"),
    }
}

/// `nats://user:password@host` without the part that must not be in a log.
fn without_credentials(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_full_stream_from_a_failing_disk() {
        let refused = |code, detail: &str| PublishFailure::Refused {
            code,
            detail: detail.to_owned(),
        };
        for failure in [
            refused(10077, "maximum bytes exceeded"),
            refused(10047, "insufficient storage resources available"),
        ] {
            assert!(failure.is_full() && failure.is_explicit(), "{failure:?}");
        }
        let disk = refused(10077, "write: input/output error");
        assert!(!disk.is_full() && !disk.is_explicit());
        assert!(!PublishFailure::Unknown(String::new()).is_explicit());
    }

    #[test]
    fn keeps_credentials_out_of_the_text() {
        assert_eq!(without_credentials("nats://a:b@c:4222"), "nats://c:4222");
        assert_eq!(without_credentials("a:b@c"), "c");
        assert_eq!(without_credentials("nats://c:4222"), "nats://c:4222");
    }
}
