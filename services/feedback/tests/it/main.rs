//! The service against a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod dsns;
mod endpoint;
mod export;
mod installation;
mod recovery;
mod tls_reports;
mod webhooks;
