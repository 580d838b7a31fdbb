//! DKIM signatures (RFC 6376, RFC 8463) over raw header fields and a body hash, relaxed/relaxed.
//!
//! [`BodyHasher`] runs where the body is, [`Signer`] where the keys are: a header section and 32
//! bytes are all that goes from one to the other. [`Claim`] and [`Chain`] are what others have signed, [`Signer::seal`] adds
//! to a chain (RFC 8617).

mod batches;
mod body;
mod canonical;
mod chain;
mod claim;
mod key;
mod public_key;
mod seal;
mod signature;
mod simple_body;
mod tags;
#[cfg(test)]
mod verifier;

pub use batches::{Batches, Signed, Way};
pub use body::BodyHasher;
pub use chain::{Chain, ChainStatus, MOST_SETS};
pub use claim::{BodyHashes, Broken, Claim, ClaimError, claims};
pub use key::{
    Algorithm, Key, KeyError, RsaBits, generate_ed25519, generate_rsa, generate_rsa2048,
};
pub use public_key::{PublicKey, PublicKeyError};
pub use seal::{Seal, SealError};
pub use signature::{Draft, SignError, Signer, SignerError};
pub use simple_body::SimpleBodyHasher;
