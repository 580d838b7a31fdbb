//! DKIM signatures (RFC 6376, RFC 8463) over raw header fields and a body hash, relaxed/relaxed.
//!
//! [`BodyHasher`] runs where the body is, [`Signer`] where the keys are: a header section and 32
//! bytes are all that goes from one to the other.

mod batches;
mod body;
mod canonical;
mod key;
mod signature;
#[cfg(test)]
mod verifier;

pub use batches::{Batches, Signed, Way};
pub use body::BodyHasher;
pub use key::{Algorithm, Key, KeyError, generate_ed25519, generate_rsa2048};
pub use signature::{Draft, SignError, Signer, SignerError};
