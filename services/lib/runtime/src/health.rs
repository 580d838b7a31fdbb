//! `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;

use crate::Shutdown;

/// Named conditions that must all hold before a service takes work; clones share them. Without any
/// condition it is ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<BTreeMap<&'static str, Condition>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Holds,
    /// With what is waited for, when that is known.
    Waits(Option<String>),
}

impl Readiness {
    /// With no condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether the condition `name` holds; the first call adds it.
    pub fn set(&self, name: &'static str, holds: bool) {
        let condition = if holds {
            Condition::Holds
        } else {
            Condition::Waits(None)
        };
        self.note(name, condition);
    }

    /// Says that the condition `name` does not hold, and what it waits for (no secrets: it is shown).
    pub fn wait(&self, name: &'static str, reason: impl Into<String>) {
        self.note(name, Condition::Waits(Some(reason.into())));
    }

    fn note(&self, name: &'static str, condition: Condition) {
        self.conditions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, condition);
    }

    /// Whether the condition `name` is there and holds.
    pub fn holds(&self, name: &str) -> bool {
        let conditions = self
            .conditions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        conditions.get(name) == Some(&Condition::Holds)
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.conditions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .all(|condition| *condition == Condition::Holds)
    }

    /// One line for each condition: `nats: ok`, `nats: not ready` or `nats: not ready: <reason>`.
    pub fn describe(&self) -> String {
        let line = |(name, condition): (&&str, &Condition)| match condition {
            Condition::Holds => format!("{name}: ok\n"),
            Condition::Waits(None) => format!("{name}: not ready\n"),
            Condition::Waits(Some(reason)) => format!("{name}: not ready: {reason}\n"),
        };
        self.conditions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(line)
            .collect()
    }
}

/// The health endpoint could not be served.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address is taken or not ours.
    #[error("health and metrics: cannot listen on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds `address` and then serves `/metrics` (Prometheus text), `/livez` (200 as long as the
/// process can answer) and `/readyz` (200 or 503, with the conditions) in the background until
/// shutdown. Returns the bound address (for port 0).
pub async fn serve_health(
    address: SocketAddr,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<SocketAddr, HealthError> {
    let listen_error = |source| HealthError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(listen_error)?;
    let bound = listener.local_addr().map_err(listen_error)?;
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(readiness);
    tokio::spawn(async move {
        let stop = async move { shutdown.requested().await };
        if let Err(error) = axum::serve(listener, routes)
            .with_graceful_shutdown(stop)
            .await
        {
            tracing::error!(%address, %error, "the health endpoint ended");
        }
    });
    Ok(bound)
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, readiness.describe())
}

async fn metrics() -> ([(header::HeaderName, &'static str); 1], String) {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, telemetry::gather())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readyz_names_what_is_not_ready() {
        let readiness = Readiness::new();
        let shutdown = Shutdown::new();
        let address = serve_health(
            "127.0.0.1:0".parse().unwrap(),
            readiness.clone(),
            shutdown.clone(),
        )
        .await
        .unwrap();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        readiness.set("nats", false);
        readiness.set("redis", true);
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("nats: not ready\nredis: ok\n"), "{answer}");
        readiness.wait("nats", "no server answers");
        let answer = get(address, "/readyz").await;
        assert!(
            answer.ends_with("nats: not ready: no server answers\nredis: ok\n"),
            "{answer}"
        );
        assert!(readiness.holds("redis") && !readiness.holds("nats") && !readiness.holds("other"));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        telemetry::counter("staffetta_runtime_test_total", "Test.").inc();
        assert!(
            get(address, "/metrics")
                .await
                .contains("staffetta_runtime_test_total 1")
        );
        shutdown.request();
    }

    #[tokio::test]
    async fn says_which_address_is_taken() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve_health(address, Readiness::new(), Shutdown::new())
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("health and metrics: cannot listen on {address}")
        );
    }
}
