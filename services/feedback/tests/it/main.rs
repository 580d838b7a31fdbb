//! The service against a real nats-server. The binary is found through STAFFETTA_NATS_SERVER, in `.servers/bin`
//! of this or a directory above, or in PATH.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod dsns;
mod installation;
mod recovery;
