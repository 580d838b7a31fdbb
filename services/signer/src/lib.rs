//! The service `signer`: holds the private keys and nothing else. Header sections and body hashes
//! come in, `DKIM-Signature` fields go out.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Signer`] | the service itself, to be called in the same process |
//! | `policy` | what is done with a message: signed, left unsigned, refused |
//! | `keyring` | the keys that sign as of one moment, and how all of them stand |
//! | `keys` | the key files: loading, reloading, the last good key |
//! | `rotation` | which keys of a domain sign, and which wait or were replaced |
//! | `publication` | what the DNS shows of them |
//! | `pool` | the threads that sign, behind a bounded queue |
//! | [`serve`], [`run`] | gRPC around it; start and stop |

mod keyring;
mod keys;
mod metrics;
mod policy;
mod pool;
mod publication;
mod rotation;
mod server;
mod service;

pub use server::{Error, resolver, run, serve};
pub use service::{Options, Signer};

/// Registers the metrics of the service, so that they can be described without running it.
pub fn register_metrics() {
    metrics::Metrics::new();
}
