//! A private key with what is computed from it once.

use zeroize::Zeroize;

use crate::der::PrivateKey;
use crate::digits::{self, DIGIT_BITS, FULL, HALF};

/// Bits of the exponent that are looked at together. 5 needs the least multiplications; with 6, the table would not fit
/// the first level of the cache by far.
pub(crate) const WINDOW: usize = 5;
/// Windows of an exponent of 1024 bits.
pub(crate) const WINDOWS: usize = 1024usize.div_ceil(WINDOW);

/// An RSA key of 2048 bits with two primes of 1024 bits and the public exponent 65537, ready to sign in a batch. Erased
/// when it is dropped.
pub struct Key {
    pub(crate) p: Prime,
    pub(crate) q: Prime,
    /// The inverse of `q` modulo `p`, times R modulo `p`.
    pub(crate) q_inverse: [u64; HALF],
    pub(crate) n: [u64; FULL],
    pub(crate) n_inverse: u64,
    /// R² modulo `n`, where R = 2^2080.
    pub(crate) n_r2: [u64; FULL],
}

/// One of the primes. R = 2^1040.
pub(crate) struct Prime {
    pub modulus: [u64; HALF],
    /// -1 / `modulus`, modulo 2^52.
    pub inverse: u64,
    /// R² modulo the prime.
    pub r2: [u64; HALF],
    /// R³ modulo the prime.
    pub r3: [u64; HALF],
    /// The exponent, `dp` or `dq`, from its highest bits down.
    pub windows: [u8; WINDOWS],
}

impl Key {
    /// Takes a key in DER (PKCS#1, or PKCS#8 version 0) that a cryptographic library has found to be good. `None` when it
    /// is of another kind than batches are for.
    ///
    /// A key that is wrong in itself does no harm: its signatures are found to be wrong and are not given out.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let key = PrivateKey::read(der)?;
        if key.e != [1, 0, 1] {
            return None;
        }
        let n = digits::from_bytes(key.n)?;
        if !digits::has_bits(&n, 2048) || n[0].is_multiple_of(2) {
            return None;
        }
        let (p, q) = (Prime::new(key.p, key.dp)?, Prime::new(key.q, key.dq)?);
        let mut q_inverse = digits::from_bytes(key.qinv)?;
        let (_, below) = digits::subtract(&q_inverse, &p.modulus);
        if !below {
            return None;
        }
        q_inverse = digits::double(&q_inverse, HALF * DIGIT_BITS, &p.modulus);
        Some(Self {
            p,
            q,
            q_inverse,
            n_inverse: digits::negative_inverse(n[0]),
            n_r2: digits::power_of_two(2 * FULL * DIGIT_BITS, &n, 2048),
            n,
        })
    }
}

impl Prime {
    fn new(prime: &[u8], exponent: &[u8]) -> Option<Self> {
        let modulus: [u64; HALF] = digits::from_bytes(prime)?;
        if !digits::has_bits(&modulus, 1024) || modulus[0].is_multiple_of(2) {
            return None;
        }
        let mut bits: [u64; HALF] = digits::from_bytes(exponent)?;
        if exponent.len() > 128 {
            return None;
        }
        let bit = |index: usize| (bits[index / DIGIT_BITS] >> (index % DIGIT_BITS) & 1) as u8;
        let windows = std::array::from_fn(|window| {
            let lowest = (WINDOWS - 1 - window) * WINDOW;
            (0..WINDOW).fold(0, |value, index| value | bit(lowest + index) << index)
        });
        bits.zeroize();
        let r = HALF * DIGIT_BITS;
        Some(Self {
            inverse: digits::negative_inverse(modulus[0]),
            r2: digits::power_of_two(2 * r, &modulus, 1024),
            r3: digits::power_of_two(3 * r, &modulus, 1024),
            modulus,
            windows,
        })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.q_inverse.zeroize();
    }
}

impl Drop for Prime {
    fn drop(&mut self) {
        self.modulus.zeroize();
        self.inverse.zeroize();
        self.r2.zeroize();
        self.r3.zeroize();
        self.windows.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(RSA-2048)")
    }
}
