//! A batch of signatures.

use std::hint::black_box;

use pulp::NullaryFnOnce;

use crate::BATCH;
use crate::digits::{self, FULL, HALF};
use crate::key::{Key, Prime, WINDOW};
use crate::lanes::{Digit, Half, Lanes, Modulus, splat};

/// `DigestInfo` of a SHA-256 digest, up to the digest (RFC 8017 section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A lane for each job, at most [`BATCH`]; lanes without a job repeat the first.
pub(crate) fn batch(lanes: Lanes, jobs: &[(&Key, [u8; 32])]) -> Vec<Option<[u8; 256]>> {
    let job = |lane: usize| jobs.get(lane).unwrap_or(&jobs[0]);
    let keys: [&Key; BATCH] = std::array::from_fn(|lane| job(lane).0);
    let encoded: [[u64; FULL]; BATCH] = std::array::from_fn(|lane| encode(&job(lane).1));
    let message: [Digit; FULL] = gather(|lane| &encoded[lane]);

    let signature = combine(lanes, &keys, &message);
    let good = verify(lanes, &keys, &signature, &message);
    let signatures: [[u64; BATCH]; FULL] = signature.map(pulp::cast);
    let signature = |lane: usize| {
        let digits = std::array::from_fn(|index| signatures[index][lane]);
        good[lane].then(|| digits::to_bytes(&digits))
    };
    (0..jobs.len()).map(signature).collect()
}

/// EMSA-PKCS1-v1_5 (RFC 8017 section 9.2).
fn encode(digest: &[u8; 32]) -> [u64; FULL] {
    let mut bytes = [0xff; 256];
    bytes[0] = 0;
    bytes[1] = 1;
    bytes[204] = 0;
    bytes[205..224].copy_from_slice(&DIGEST_INFO);
    bytes[224..].copy_from_slice(digest);
    digits::from_bytes(&bytes).expect("256 octets fit 40 digits of 52 bits")
}

/// A number of each lane into one of vectors.
fn gather<'a, const K: usize>(number: impl Fn(usize) -> &'a [u64; K]) -> [Digit; K] {
    std::array::from_fn(|index| {
        pulp::cast::<[u64; BATCH], Digit>(std::array::from_fn(|lane| number(lane)[index]))
    })
}

fn each_lane(number: impl Fn(usize) -> u64) -> Digit {
    pulp::cast::<[u64; BATCH], Digit>(std::array::from_fn(number))
}

/// The signatures by the Chinese remainder theorem (RFC 8017 section 5.2.1), not verified yet.
fn combine(lanes: Lanes, keys: &[&Key; BATCH], message: &[Digit; FULL]) -> [Digit; FULL] {
    let p = modulus(|lane| &keys[lane].p);
    let q = modulus(|lane| &keys[lane].q);
    let mut by_p = power(lanes, |lane| &keys[lane].p, &p, message);
    let mut by_q = power(lanes, |lane| &keys[lane].q, &q, message);
    // (by_p - by_q) / q modulo p. As q < 2^1024 < 2 p, the difference and 2 p is not negative, and below 4 p.
    let mut difference: Half = std::array::from_fn(|index| {
        let twice = lanes.add(p.digits[index], p.digits[index]);
        lanes.sub(lanes.add(by_p[index], twice), by_q[index])
    });
    let inverse = gather(|lane| &keys[lane].q_inverse);
    lanes.vectorize(Finish(|| lanes.normalize(&mut difference)));
    let mut quotient = difference;
    lanes.multiply(&mut quotient, &difference, &inverse, &p);
    lanes.vectorize(Finish(|| lanes.subtract_once(&mut quotient, &p.digits)));
    // by_q + q · quotient is below n: by_q is below q, and the quotient below p.
    let columns = lanes.full_product(&q.digits, &quotient);
    let mut signature: [Digit; FULL] = std::array::from_fn(|index| {
        let low = by_q.get(index).copied().unwrap_or(splat(0));
        lanes.add(columns[index], low)
    });
    lanes.vectorize(Finish(|| lanes.normalize(&mut signature)));
    for secret in [&mut by_p, &mut by_q, &mut difference, &mut quotient] {
        erase(secret);
    }
    signature
}

/// Compiles what is in it for the processor that has the instructions.
struct Finish<F>(F);

impl<F: FnOnce()> NullaryFnOnce for Finish<F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        (self.0)();
    }
}

fn modulus<'a>(prime: impl Fn(usize) -> &'a Prime) -> Modulus<HALF> {
    Modulus {
        digits: gather(|lane| &prime(lane).modulus),
        inverse: each_lane(|lane| prime(lane).inverse),
    }
}

/// The message to the power of the prime's exponent, modulo the prime.
fn power<'a>(
    lanes: Lanes,
    prime: impl Fn(usize) -> &'a Prime,
    modulus: &Modulus<HALF>,
    message: &[Digit; FULL],
) -> Half {
    let (r2, r3) = (
        gather(|lane| &prime(lane).r2),
        gather(|lane| &prime(lane).r3),
    );
    let mut one = [splat(0); HALF];
    one[0] = splat(1);
    let mut powers = [one; 1 << WINDOW];
    // 1 in Montgomery form; then the message: its halves are below R, so products with R² and R³ are below R · p.
    lanes.multiply(&mut powers[0], &one, &r2, modulus);
    let (low, high) = message.split_at(HALF);
    let half = |digits: &[Digit]| -> Half { std::array::from_fn(|index| digits[index]) };
    let (mut lower, mut upper) = (one, one);
    lanes.multiply(&mut lower, &half(low), &r2, modulus);
    lanes.multiply(&mut upper, &half(high), &r3, modulus);
    powers[1] = std::array::from_fn(|index| lanes.add(lower[index], upper[index]));
    lanes.vectorize(Finish(|| lanes.normalize(&mut powers[1])));
    for exponent in 2..powers.len() {
        let (before, this) = powers.split_at_mut(exponent);
        if exponent % 2 == 0 {
            this[0] = before[exponent / 2];
            lanes.square(&mut this[0], 1, modulus);
        } else {
            lanes.multiply(&mut this[0], &before[exponent - 1], &before[1], modulus);
        }
    }
    let mut result = powers[0];
    for index in 0..prime(0).windows.len() {
        if index > 0 {
            lanes.square(&mut result, WINDOW, modulus);
        }
        let window = each_lane(|lane| prime(lane).windows[index].into());
        lanes.multiply_by_power(&mut result, &powers, window, modulus);
    }
    // Out of Montgomery form: at most p.
    let montgomery = result;
    lanes.multiply(&mut result, &montgomery, &one, modulus);
    lanes.vectorize(Finish(|| lanes.subtract_once(&mut result, &modulus.digits)));
    powers.iter_mut().for_each(erase);
    result
}

/// Overwrites what a key can be computed from.
fn erase(number: &mut Half) {
    *number = [splat(0); HALF];
    black_box(number);
}

/// Whether signature^65537 is the message modulo `n`, in each lane. With this, a fault in one half of a signature does not
/// give the primes away (Boneh, DeMillo, Lipton 1997).
fn verify(
    lanes: Lanes,
    keys: &[&Key; BATCH],
    signature: &[Digit; FULL],
    message: &[Digit; FULL],
) -> [bool; BATCH] {
    let modulus = Modulus {
        digits: gather(|lane| &keys[lane].n),
        inverse: each_lane(|lane| keys[lane].n_inverse),
    };
    let r2 = gather(|lane| &keys[lane].n_r2);
    let mut power = lanes.multiply_wide(signature, &r2, &modulus);
    for _ in 0..16 {
        power = lanes.multiply_wide(&power, &power, &modulus);
    }
    power = lanes.multiply_wide(&power, signature, &modulus);
    lanes.vectorize(Finish(|| lanes.subtract_once(&mut power, &modulus.digits)));
    let (power, message): ([[u64; BATCH]; FULL], [[u64; BATCH]; FULL]) =
        (power.map(pulp::cast), message.map(pulp::cast));
    std::array::from_fn(|lane| (0..FULL).all(|index| power[index][lane] == message[index][lane]))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::Processor;

    struct Both {
        pair: RsaKeyPair,
        key: Key,
        der: Vec<u8>,
    }

    fn generate() -> Both {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let der = der.as_ref().to_vec();
        let key = Key::from_der(&der).unwrap();
        Both { pair, key, der }
    }

    fn one_by_one(pair: &RsaKeyPair, text: &[u8]) -> [u8; 256] {
        let mut signature = [0; 256];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            text,
            &mut signature,
        )
        .unwrap();
        signature
    }

    fn hash(text: &[u8]) -> [u8; 32] {
        digest(&SHA256, text).as_ref().try_into().unwrap()
    }

    /// `None` on a machine without the instructions, where there is nothing to test.
    fn processor() -> Option<Processor> {
        let processor = Processor::detect();
        if processor.is_none() {
            println!("this processor has no AVX-512 IFMA");
        }
        processor
    }

    #[test]
    fn makes_the_signatures_of_the_library_with_any_mix_of_keys() {
        let Some(processor) = processor() else { return };
        let keys: Vec<Both> = (0..6).map(|_| generate()).collect();
        let mut random = SmallRng::seed_from_u64(17);
        for round in 0..250 {
            let jobs: Vec<(&Both, [u8; 8])> = (0..round % 11)
                .map(|_| (&keys[random.random_range(0..keys.len())], random.random()))
                .collect();
            let asked: Vec<_> = jobs
                .iter()
                .map(|(both, text)| (&both.key, hash(text)))
                .collect();
            let signatures = processor.sign(&asked);
            assert_eq!(signatures.len(), jobs.len());
            for ((both, text), signature) in jobs.iter().zip(signatures) {
                assert_eq!(signature, Some(one_by_one(&both.pair, text)));
            }
        }
    }

    #[test]
    fn takes_the_primes_in_either_order() {
        let Some(processor) = processor() else { return };
        for _ in 0..3 {
            let both = generate();
            let mut exchanged = Key::from_der(&both.der).unwrap();
            let key = &mut exchanged;
            std::mem::swap(&mut key.p, &mut key.q);
            key.q_inverse = inverse_in_montgomery_form(&key.p, &key.q);
            let signatures = processor.sign(&[(&both.key, [9; 32]), (&exchanged, [9; 32])]);
            assert!(signatures[0].is_some());
            assert_eq!(signatures[0], signatures[1]);
        }
    }

    /// q^(p-2) · R modulo p, slowly.
    fn inverse_in_montgomery_form(p: &Prime, q: &Prime) -> [u64; HALF] {
        let mut base = q.modulus;
        let (reduced, below) = digits::subtract(&base, &p.modulus);
        if !below {
            base = reduced;
        }
        let (exponent, _) = digits::subtract(&p.modulus, &{
            let mut two = [0; HALF];
            two[0] = 2;
            two
        });
        let mut result = [0; HALF];
        result[0] = 1;
        for bit in (0..1024).rev() {
            result = times(&result, &result, &p.modulus);
            if exponent[bit / 52] >> (bit % 52) & 1 == 1 {
                result = times(&result, &base, &p.modulus);
            }
        }
        digits::double(&result, 1040, &p.modulus)
    }

    /// a · b modulo the modulus by doubling and adding; both below it.
    fn times(a: &[u64; HALF], b: &[u64; HALF], modulus: &[u64; HALF]) -> [u64; HALF] {
        let mut sum = [0; HALF];
        for bit in (0..1040).rev() {
            sum = digits::double(&sum, 1, modulus);
            if b[bit / 52] >> (bit % 52) & 1 == 1 {
                let mut carry = 0;
                for (digit, other) in sum.iter_mut().zip(a) {
                    carry += *digit + other;
                    *digit = carry & digits::MAX_DIGIT;
                    carry >>= 52;
                }
                let (reduced, below) = digits::subtract(&sum, modulus);
                if !below {
                    sum = reduced;
                }
            }
        }
        sum
    }

    #[test]
    fn never_gives_out_what_a_damaged_key_makes() {
        let Some(processor) = processor() else { return };
        let good = generate();
        let damage: [fn(&mut Key); 7] = [
            |key| key.p.windows[100] ^= 1,
            |key| key.q.windows[204] ^= 16,
            |key| key.q_inverse[3] ^= 1,
            |key| key.p.modulus[7] ^= 4,
            |key| key.q.r2[0] ^= 1,
            |key| key.p.r3[19] ^= 1,
            |key| key.q.inverse ^= 2,
        ];
        for (number, damage) in damage.into_iter().enumerate() {
            let mut damaged = Key::from_der(&good.der).unwrap();
            damage(&mut damaged);
            let jobs = [
                (&good.key, [1; 32]),
                (&damaged, [1; 32]),
                (&good.key, [2; 32]),
            ];
            let signatures = processor.sign(&jobs);
            assert!(
                signatures[0].is_some() && signatures[2].is_some(),
                "{number}"
            );
            assert_eq!(signatures[1], None, "{number}");
        }
    }

    #[test]
    fn takes_only_keys_that_fit() {
        let good = generate();
        assert!(Key::from_der(&good.der[..good.der.len() - 1]).is_none());
        assert!(Key::from_der(&[]).is_none());
        let large = RsaKeyPair::generate(KeySize::Rsa3072).unwrap();
        let der: Pkcs8V1Der<'_> = large.as_der().unwrap();
        assert!(Key::from_der(der.as_ref()).is_none());
        // Another public exponent: 65537 is the only `02 03 01 00 01`.
        let exponent = b"\x02\x03\x01\x00\x01";
        let position = good
            .der
            .windows(exponent.len())
            .position(|bytes| bytes == exponent)
            .unwrap();
        let mut other = good.der.clone();
        other[position + 4] = 3;
        assert!(Key::from_der(&other).is_none());
        assert_eq!(format!("{:?}", good.key), "Key(RSA-2048)");
    }

    /// Numbers at which carries and reductions change, for a modulus.
    fn edges(modulus: &[u64; HALF], random: &mut SmallRng) -> Vec<[u64; HALF]> {
        let one = std::array::from_fn(|index| u64::from(index == 0));
        let add = |a: &[u64; HALF], b: &[u64; HALF]| {
            let mut carry = 0;
            std::array::from_fn(|index| {
                carry += a[index] + b[index];
                let digit = carry & digits::MAX_DIGIT;
                carry >>= 52;
                digit
            })
        };
        let twice = add(modulus, modulus);
        let four_times = add(&twice, &twice);
        let mut all_ones = [digits::MAX_DIGIT; HALF];
        all_ones[19] = (1 << 36) - 1;
        let mut sparse = [0; HALF];
        sparse[19] = 1 << 35;
        vec![
            [0; HALF],
            one,
            digits::subtract(modulus, &one).0,
            *modulus,
            add(modulus, &one),
            digits::subtract(&twice, &one).0,
            digits::subtract(&four_times, &one).0,
            all_ones,
            sparse,
            std::array::from_fn(|index| if index % 2 == 0 { digits::MAX_DIGIT } else { 0 })
                .map(|digit: u64| digit >> 1),
            std::array::from_fn(|index| {
                random.random::<u64>() >> if index == 19 { 28 } else { 12 }
            }),
        ]
    }

    fn lane<const K: usize>(number: &[Digit; K], lane: usize) -> [u64; K] {
        number.map(|digit| pulp::cast::<Digit, [u64; 8]>(digit)[lane])
    }

    #[test]
    fn multiplies_right_at_the_edges_of_digits_and_moduli() {
        let Some(Processor(lanes)) = processor() else {
            return;
        };
        let mut random = SmallRng::seed_from_u64(4);
        let mut all_ones = [digits::MAX_DIGIT; HALF];
        all_ones[19] = (1 << 36) - 1;
        let mut least = [0; HALF];
        (least[0], least[19]) = (1, 1 << 35);
        let mut moduli = vec![all_ones, least];
        moduli.extend((0..6).map(|_| {
            let mut modulus: [u64; HALF] = std::array::from_fn(|_| random.random::<u64>() >> 12);
            modulus[0] |= 1;
            modulus[19] = modulus[19] >> 16 | 1 << 35;
            modulus
        }));
        let modulus = Modulus {
            digits: gather(|lane| &moduli[lane]),
            inverse: each_lane(|lane| digits::negative_inverse(moduli[lane][0])),
        };
        let edges: Vec<_> = moduli
            .iter()
            .map(|modulus| edges(modulus, &mut random))
            .collect();
        let one = std::array::from_fn(|index| u64::from(index == 0));
        for first in 0..edges[0].len() {
            let a = gather(|lane| &edges[lane][first]);
            let mut squared = a;
            lanes.square(&mut squared, 1, &modulus);
            for second in 0..edges[0].len() {
                let b = gather(|lane| &edges[lane][second]);
                let mut narrow = a;
                lanes.multiply(&mut narrow, &a, &b, &modulus);
                let wide = lanes.multiply_wide(&a, &b, &modulus);
                for (number, modulus) in moduli.iter().enumerate() {
                    let product = lane(&narrow, number);
                    assert_eq!(product, lane(&wide, number), "{first} {second} {number}");
                    if first == second {
                        assert_eq!(product, lane(&squared, number), "{first} {number}");
                    }
                    // product · R = a · b, as residues; the product is below twice the modulus.
                    let residue =
                        |number: &[u64; HALF]| times(&one, &reduced(number, modulus), modulus);
                    let once = reduced_once(&product, modulus);
                    let (_, below) = digits::subtract(&once, modulus);
                    assert!(below, "{first} {second} {number}");
                    let (a, b) = (
                        residue(&edges[number][first]),
                        residue(&edges[number][second]),
                    );
                    assert_eq!(digits::double(&once, 1040, modulus), times(&a, &b, modulus));
                }
            }
        }
    }

    fn reduced_once(number: &[u64; HALF], modulus: &[u64; HALF]) -> [u64; HALF] {
        let (reduced, below) = digits::subtract(number, modulus);
        if below { *number } else { reduced }
    }

    /// Of a number below 4 times the modulus.
    fn reduced(number: &[u64; HALF], modulus: &[u64; HALF]) -> [u64; HALF] {
        (0..4).fold(*number, |number, _| reduced_once(&number, modulus))
    }

    #[test]
    fn chooses_any_power_in_any_lane() {
        let Some(Processor(lanes)) = processor() else {
            return;
        };
        let key = generate().key;
        let modulus = modulus(|_| &key.p);
        // Power w is w · R, so that multiplying 1 by it gives w.
        let powers = std::array::from_fn(|window| {
            let mut number = [0; HALF];
            number[0] = window as u64;
            let number = digits::double(&number, 1040, &key.p.modulus);
            gather(|_| &number)
        });
        for shift in 0..32 {
            let window = |lane: usize| (lane as u64 * 5 + shift) % 32;
            let mut out = [splat(0); HALF];
            out[0] = splat(1);
            lanes.multiply_by_power(&mut out, &powers, each_lane(window), &modulus);
            lanes.subtract_once(&mut out, &modulus.digits);
            for number in 0..8 {
                let mut expected = [0; HALF];
                expected[0] = window(number);
                assert_eq!(lane(&out, number), expected);
            }
        }
    }
}
