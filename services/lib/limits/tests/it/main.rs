//! Grants against a real redis-server.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod access;
mod claims;
mod cluster;
mod failover;
mod failures;
mod habits;
mod holders;
mod presence;
mod quota;
mod rates;
mod server;
mod slots;
mod turns;
mod window;
