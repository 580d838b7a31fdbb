//! Grants against a real redis-server.

mod failures;
mod holders;
mod server;
mod window;
