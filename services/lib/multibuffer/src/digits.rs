//! Numbers of one key as digits of 52 bits, the lowest first: what is computed once, when a key is loaded.

/// Bits of a digit: what the multiplier of AVX-512 IFMA takes.
pub(crate) const DIGIT_BITS: usize = 52;
/// The largest digit.
pub(crate) const MAX_DIGIT: u64 = (1 << DIGIT_BITS) - 1;
/// Digits of numbers modulo a prime of 1024 bits.
pub(crate) const HALF: usize = 20;
/// Digits of numbers modulo `n`, of 2048 bits.
pub(crate) const FULL: usize = 40;

/// Reads a big-endian number. `None` when it does not fit.
pub(crate) fn from_bytes<const K: usize>(bytes: &[u8]) -> Option<[u64; K]> {
    let mut digits = [0; K];
    for (position, byte) in bytes.iter().rev().enumerate() {
        let (digit, shift) = (position * 8 / DIGIT_BITS, position * 8 % DIGIT_BITS);
        let value = u64::from(*byte) << shift;
        let over = value >> DIGIT_BITS;
        if value & MAX_DIGIT != 0 {
            *digits.get_mut(digit)? |= value & MAX_DIGIT;
        }
        if over != 0 {
            *digits.get_mut(digit + 1)? |= over;
        }
    }
    Some(digits)
}

/// Writes a number of at most 2048 bits as 256 octets, big-endian.
pub(crate) fn to_bytes(digits: &[u64; FULL]) -> [u8; 256] {
    std::array::from_fn(|index| {
        let bit = (255 - index) * 8;
        let (digit, shift) = (bit / DIGIT_BITS, bit % DIGIT_BITS);
        let next = digits.get(digit + 1).copied().unwrap_or(0);
        let wide = u128::from(digits[digit]) | u128::from(next) << DIGIT_BITS;
        ((wide >> shift) & 0xff) as u8
    })
}

/// Whether the number has exactly so many bits.
pub(crate) fn has_bits<const K: usize>(digits: &[u64; K], bits: usize) -> bool {
    let top = (bits - 1) / DIGIT_BITS;
    digits[top] >> ((bits - 1) % DIGIT_BITS) == 1
        && digits[top + 1..].iter().all(|digit| *digit == 0)
}

/// `a - b`, and whether `a < b` (then the difference is modulo 2^(52 K)). Takes the same time for all numbers.
pub(crate) fn subtract<const K: usize>(a: &[u64; K], b: &[u64; K]) -> ([u64; K], bool) {
    let mut difference = [0; K];
    let mut borrow = 0;
    for index in 0..K {
        let digit = a[index].wrapping_sub(b[index]).wrapping_sub(borrow);
        difference[index] = digit & MAX_DIGIT;
        borrow = digit >> 63;
    }
    (difference, borrow == 1)
}

/// `2^times · x` modulo `modulus`, for `x` below it. The time depends on nothing but `times`.
pub(crate) fn double<const K: usize>(x: &[u64; K], times: usize, modulus: &[u64; K]) -> [u64; K] {
    let mut x = *x;
    for _ in 0..times {
        let mut carry = 0;
        for digit in &mut x {
            let twice = *digit << 1 | carry;
            *digit = twice & MAX_DIGIT;
            carry = twice >> DIGIT_BITS;
        }
        let (reduced, below) = subtract(&x, modulus);
        let keep = u64::from(below).wrapping_neg();
        for (digit, reduced) in x.iter_mut().zip(reduced) {
            *digit = *digit & keep | reduced & !keep;
        }
    }
    x
}

/// `2^exponent` modulo an odd `modulus` of exactly `bits` bits.
pub(crate) fn power_of_two<const K: usize>(
    exponent: usize,
    modulus: &[u64; K],
    bits: usize,
) -> [u64; K] {
    let mut x = [0; K];
    x[(bits - 1) / DIGIT_BITS] = 1 << ((bits - 1) % DIGIT_BITS);
    double(&x, exponent - (bits - 1), modulus)
}

/// `-1 / digit` modulo 2^52, for an odd digit.
pub(crate) fn negative_inverse(digit: u64) -> u64 {
    // Newton: right in the lowest 3 bits, and in twice as many after each step.
    let mut inverse = digit;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(digit.wrapping_mul(inverse)));
    }
    inverse.wrapping_neg() & MAX_DIGIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_numbers() {
        let bytes: [u8; 256] = std::array::from_fn(|index| (index * 37 + 11) as u8);
        assert_eq!(to_bytes(&from_bytes(&bytes).unwrap()), bytes);
        let long = [&[0; 30][..], &bytes].concat();
        assert_eq!(to_bytes(&from_bytes(&long).unwrap()), bytes);
        assert_eq!(to_bytes(&from_bytes(&[]).unwrap()), [0; 256]);
        assert!(from_bytes::<HALF>(&bytes).is_none());
        assert_eq!(from_bytes::<1>(&[0x1f; 7]), None);
        assert_eq!(from_bytes::<1>(&[0x0f; 7]), Some([0xf_0f0f_0f0f_0f0f]));
        assert_eq!(from_bytes::<1>(&[0xff; 6]), Some([0xffff_ffff_ffff]));
    }

    #[test]
    fn counts_bits() {
        let number: [u64; 3] = from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        for bits in 1..=156 {
            assert_eq!(has_bits(&number, bits), bits == 57);
        }
    }

    #[test]
    fn computes_modulo_small_numbers() {
        for modulus in [3u64, 5, 0x8000_0001, MAX_DIGIT] {
            let bits = (64 - modulus.leading_zeros()) as usize;
            let mut expected = 1u128 << (bits - 1);
            for exponent in bits - 1..200 {
                assert_eq!(
                    power_of_two(exponent, &[modulus, 0], bits),
                    [expected as u64, 0]
                );
                expected = expected * 2 % u128::from(modulus);
            }
            assert_eq!(
                modulus.wrapping_mul(negative_inverse(modulus)) & MAX_DIGIT,
                MAX_DIGIT
            );
        }
    }
}
