//! The stores against a real nats-server. The binary is found through STAFFETTA_NATS_SERVER, in
//! `.servers/bin` of this or a directory above, or in PATH.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod configuration;
mod journals;
mod opening;
mod ownership;
mod repeating;
mod server;
mod uploads;
