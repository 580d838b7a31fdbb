//! Reads the monitoring endpoint of nats-server: the only place where it tells its `sync_interval`.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 1 << 20;

/// What `/varz` says that concerns us.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerVariables {
    pub server_id: String,
    #[serde(default)]
    pub cluster: Cluster,
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cluster {
    pub name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Debug, Deserialize)]
struct JetStreamConfig {
    /// Nanoseconds.
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

impl ServerVariables {
    /// Zero = `always`; `None` = JetStream is off.
    pub fn sync_interval(&self) -> Option<Duration> {
        let config = self.jetstream.config.as_ref()?;
        Some(if config.sync_always {
            Duration::ZERO
        } else {
            Duration::from_nanos(config.sync_interval)
        })
    }
}

/// Asks `http://host:port` for `/varz`.
pub(crate) async fn server_variables(url: &str) -> Result<ServerVariables, Error> {
    let failed = |detail: String| Error::Monitor {
        url: url.to_owned(),
        detail,
    };
    let authority = url
        .trim_end_matches('/')
        .strip_prefix("http://")
        .filter(|authority| !authority.contains('/'))
        .ok_or_else(|| failed("expected as http://host:port".to_owned()))?;
    let body = tokio::time::timeout(TIMEOUT, get(authority, "/varz"))
        .await
        .map_err(|_| failed("no answer within 5 s".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| failed(format!("/varz: {error}")))
}

/// HTTP/1.0, so that the body ends with the connection.
async fn get(authority: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let not_http = || std::io::Error::other("the answer is not HTTP");
    let head_end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(not_http)?;
    let status = answer
        .split(|byte| *byte == b' ')
        .nth(1)
        .ok_or_else(not_http)?;
    if status != b"200" {
        return Err(std::io::Error::other(format!(
            "status {}",
            String::from_utf8_lossy(status)
        )));
    }
    Ok(answer.split_off(head_end + 4))
}
