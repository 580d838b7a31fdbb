//! The crate through its public face.

mod bootstrap;
mod tls;
