//! The stores against a real nats-server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod blocks;
mod configuration;
mod events;
mod journals;
mod measures;
mod opening;
mod operations;
mod ownership;
mod repeating;
mod server;
mod standings;
mod suppression;
mod transcripts;
mod uploads;
