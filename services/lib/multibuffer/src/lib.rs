//! RSA-2048 signatures (RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017 section 8.2), eight at once with different keys, in the
//! eight lanes of AVX-512 IFMA: half of the time per signature that one after the other takes.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Key`] | a private key with its Montgomery constants |
//! | [`Processor`] | the signatures: padding, CRT, exponents, and the check of each result |
//! | `lanes` | multiplication modulo eight primes at once; the only user of processor instructions |
//! | `wide` | the same for the 2048 bits of `n`, where speed matters less |
//! | `digits` | numbers as digits of 52 bits |
//! | `der` | keys as they are in files |
//!
//! What depends on a secret is neither branched on nor used as an address: exponents have windows of a fixed size, each
//! look into the table of powers reads the whole of it, and subtractions are selected by mask. The decision record on
//! multi-buffer RSA says how this was checked. Reading a key is not of this kind. Keys come from files that a cryptographic library has validated; making
//! and checking keys is not part of it.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "nothing is signed with the keys")
)]

mod der;
mod digits;
mod key;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sign;
#[cfg(target_arch = "x86_64")]
mod wide;

#[cfg(target_arch = "x86_64")]
use lanes::Lanes;

pub use der::modulus_bits;
pub use key::Key;

/// Most signatures that are made together.
pub const BATCH: usize = 8;

/// A signature is as long as the modulus.
pub const SIGNATURE_BYTES: usize = 256;

/// A processor that has the instructions.
#[derive(Clone, Copy, Debug)]
pub struct Processor(Lanes);

/// Another architecture: nothing can be made of it.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug)]
enum Lanes {}

impl Processor {
    /// `None` where AVX-512 IFMA is missing, or is not to be used as the operating system says.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Lanes::try_new().map(Self);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Signs up to [`BATCH`] SHA-256 digests, each with its key, in the order given. One costs as much as eight.
    ///
    /// Each signature has been verified with the public key. `None` in place of one that did not verify: the key's parts
    /// do not belong together, or the processor has erred.
    pub fn sign(self, jobs: &[(&Key, [u8; 32])]) -> Vec<Option<[u8; SIGNATURE_BYTES]>> {
        #[cfg(target_arch = "x86_64")]
        return jobs
            .chunks(BATCH)
            .flat_map(|jobs| sign::batch(self.0, jobs))
            .collect();
        #[cfg(not(target_arch = "x86_64"))]
        match (self.0, jobs) {}
    }
}
