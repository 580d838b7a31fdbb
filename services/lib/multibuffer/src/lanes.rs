//! Arithmetic modulo eight primes of 1024 bits at once, a lane for each.
//!
//! A number is 20 digits of 52 bits, the lowest first; a digit is a vector with the digit of each lane. Between
//! operations every digit is below 2^52. With R = 2^1040 and a prime p < 2^1024, products are "almost Montgomery": for
//! a · b < R · p the result is (a · b + m · p) / R < p + p, so values below 4 p go in, values below 2 p come out, and no
//! subtraction is needed before the very end.
//!
//! Carries wait: a column of a product gets the lower halves of at most 20 products a·b and 20 products m·p, as many upper
//! halves, and one carry, each below 2^52 but for the carry below 2^12. That is less than 80 · 2^52 + 2^12 < 2^59, and
//! fits the 64 bits of a lane.

use std::arch::x86_64::__m512i;
use std::hint::black_box;

use pulp::NullaryFnOnce;

use crate::digits::{DIGIT_BITS, HALF, MAX_DIGIT};
use crate::key::WINDOW;

pulp::simd_type! {
    /// Proof that the processor has the instructions.
    pub(crate) struct Lanes {
        pub(crate) f: "avx512f",
        ifma: "avx512ifma",
    }
}

/// A digit of each lane.
pub(crate) type Digit = __m512i;
/// A number modulo a prime in each lane.
pub(crate) type Half = [Digit; HALF];
/// The powers of a number that a window chooses from.
pub(crate) type Powers = [Half; 1 << WINDOW];

/// What is multiplied modulo: an odd number for each lane.
pub(crate) struct Modulus<const K: usize> {
    pub digits: [Digit; K],
    /// -1 / `digits[0]`, modulo 2^52.
    pub inverse: Digit,
}

/// Repeats a block for each index of a half, as constant. A loop over registers has to be unrolled, and the compiler
/// does not promise to.
macro_rules! each {
    ($index:ident, $block:block) => {
        each!(@ $index, $block, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
    };
    (@ $index:ident, $block:block, $($number:literal)*) => {
        $( { const $index: usize = $number; $block } )*
    };
}

/// The same number in all lanes.
#[inline(always)]
pub(crate) fn splat(number: u64) -> Digit {
    pulp::cast([number; 8])
}

impl Lanes {
    /// `sum` and the lower 52 bits of `a · b`, whose operands are digits (higher bits are ignored).
    #[inline(always)]
    pub(crate) fn low(self, sum: Digit, a: Digit, b: Digit) -> Digit {
        self.ifma._mm512_madd52lo_epu64(sum, a, b)
    }

    /// `sum` and the upper 52 bits of `a · b`.
    #[inline(always)]
    pub(crate) fn high(self, sum: Digit, a: Digit, b: Digit) -> Digit {
        self.ifma._mm512_madd52hi_epu64(sum, a, b)
    }

    #[inline(always)]
    pub(crate) fn add(self, a: Digit, b: Digit) -> Digit {
        self.f._mm512_add_epi64(a, b)
    }

    #[inline(always)]
    pub(crate) fn sub(self, a: Digit, b: Digit) -> Digit {
        self.f._mm512_sub_epi64(a, b)
    }

    #[inline(always)]
    pub(crate) fn and(self, a: Digit, b: Digit) -> Digit {
        self.f._mm512_and_si512(a, b)
    }

    /// What a column hands on.
    #[inline(always)]
    pub(crate) fn carry(self, column: Digit) -> Digit {
        self.f._mm512_srli_epi64::<{ DIGIT_BITS as u32 }>(column)
    }

    /// The same of a column that may be negative.
    #[inline(always)]
    pub(crate) fn signed_carry(self, column: Digit) -> Digit {
        self.f._mm512_srai_epi64::<{ DIGIT_BITS as u32 }>(column)
    }

    /// `b` in the lanes of `mask`, `a` in the others.
    #[inline(always)]
    pub(crate) fn select(self, mask: u8, a: Digit, b: Digit) -> Digit {
        self.f._mm512_mask_blend_epi64(mask, a, b)
    }

    /// Columns, possibly negative, into digits below 2^52. The carry out of the last is lost.
    #[inline(always)]
    pub(crate) fn normalize<const K: usize>(self, columns: &mut [Digit; K]) {
        let mut carry = splat(0);
        for column in columns {
            let sum = self.add(*column, carry);
            *column = self.and(sum, splat(MAX_DIGIT));
            carry = self.signed_carry(sum);
        }
    }

    /// The rest of a number below `2 · modulus`, exactly.
    #[inline(always)]
    pub(crate) fn subtract_once<const K: usize>(
        self,
        number: &mut [Digit; K],
        modulus: &[Digit; K],
    ) {
        let mut difference = *number;
        let mut carry = splat(0);
        for (digit, subtrahend) in difference.iter_mut().zip(modulus) {
            let sum = self.add(self.sub(*digit, *subtrahend), carry);
            *digit = self.and(sum, splat(MAX_DIGIT));
            carry = self.signed_carry(sum);
        }
        // -1 where the number was smaller, otherwise 0.
        let smaller = self.f._mm512_test_epi64_mask(carry, carry);
        for (digit, difference) in number.iter_mut().zip(difference) {
            *digit = self.select(smaller, difference, *digit);
        }
    }

    /// `out` = a · b / R.
    pub(crate) fn multiply(self, out: &mut Half, a: &Half, b: &Half, modulus: &Modulus<HALF>) {
        self.vectorize(Multiply {
            lanes: self,
            out,
            a,
            b,
            modulus,
        });
    }

    /// `out` = `out` · powers[window] / R, with a window for each lane. All powers are read.
    pub(crate) fn multiply_by_power(
        self,
        out: &mut Half,
        powers: &Powers,
        window: Digit,
        modulus: &Modulus<HALF>,
    ) {
        self.vectorize(MultiplyByPower {
            lanes: self,
            out,
            powers,
            window,
            modulus,
        });
    }

    /// `number` = number² / R, so many times.
    pub(crate) fn square(self, number: &mut Half, times: usize, modulus: &Modulus<HALF>) {
        self.vectorize(Square {
            lanes: self,
            number,
            times,
            modulus,
        });
    }
}

/// The second factor of a product, asked for a digit at a time.
trait Factor {
    fn digit(&self, lanes: Lanes, index: usize) -> Digit;
}

impl Factor for &Half {
    #[inline(always)]
    fn digit(&self, _: Lanes, index: usize) -> Digit {
        self[index]
    }
}

struct Multiply<'a, B> {
    lanes: Lanes,
    out: &'a mut Half,
    a: &'a Half,
    b: B,
    modulus: &'a Modulus<HALF>,
}

impl<B: Factor> NullaryFnOnce for Multiply<'_, B> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            lanes,
            out,
            a,
            b,
            modulus,
        } = self;
        let columns = product(lanes, a, &b, modulus);
        write(lanes, out, &columns);
    }
}

/// Row by row: adds a · b[i], then the multiple of the modulus that makes the lowest column 0, and drops that column. 21
/// columns stay in registers.
#[inline(always)]
fn product<B: Factor>(lanes: Lanes, a: &Half, b: &B, modulus: &Modulus<HALF>) -> [Digit; HALF + 1] {
    let zero = splat(0);
    let mut columns = [zero; HALF + 1];
    for index in 0..HALF {
        let factor = b.digit(lanes, index);
        // Only for speed: otherwise the compiler keeps what does not change in stack slots that cross cache lines.
        let (a, modulus) = (black_box(a), black_box(modulus));
        each!(J, {
            columns[J] = lanes.low(columns[J], a[J], factor);
            columns[J + 1] = lanes.high(columns[J + 1], a[J], factor);
        });
        let multiple = lanes.low(zero, columns[0], modulus.inverse);
        let carry = carry_of_cleared(lanes, columns[0]);
        columns[1] = lanes.high(columns[1], modulus.digits[0], multiple);
        each!(J, {
            if J != 0 {
                columns[J] = lanes.low(columns[J], modulus.digits[J], multiple);
                columns[J + 1] = lanes.high(columns[J + 1], modulus.digits[J], multiple);
            }
        });
        columns[1] = lanes.add(columns[1], carry);
        each!(J, {
            columns[J] = columns[J + 1];
        });
        columns[HALF] = zero;
    }
    columns
}

/// The carry of a column to which the lower half of a product is added that makes its lowest 52 bits 0. The product need
/// not be computed: there is a carry more than without unless the bits are 0 already, and then the product is 0.
#[inline(always)]
pub(crate) fn carry_of_cleared(lanes: Lanes, column: Digit) -> Digit {
    lanes.carry(lanes.add(column, splat(MAX_DIGIT)))
}

#[inline(always)]
fn write(lanes: Lanes, out: &mut Half, columns: &[Digit; HALF + 1]) {
    let mut carry = splat(0);
    for (digit, column) in out.iter_mut().zip(columns) {
        let sum = lanes.add(*column, carry);
        *digit = lanes.and(sum, splat(MAX_DIGIT));
        carry = lanes.carry(sum);
    }
}

struct MultiplyByPower<'a> {
    lanes: Lanes,
    out: &'a mut Half,
    powers: &'a Powers,
    window: Digit,
    modulus: &'a Modulus<HALF>,
}

impl NullaryFnOnce for MultiplyByPower<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            lanes,
            out,
            powers,
            window,
            modulus,
        } = self;
        let power = Chosen {
            powers,
            bits: [1, 2, 4, 8, 16].map(|bit| lanes.f._mm512_test_epi64_mask(window, splat(bit))),
        };
        let columns = product(lanes, out, &power, modulus);
        write(lanes, out, &columns);
    }
}

/// A power for each lane, as a tree of selections: the digit of every power is read.
struct Chosen<'a> {
    powers: &'a Powers,
    /// Of the window, from the lowest: the lanes in which it is set.
    bits: [u8; WINDOW],
}

impl Chosen<'_> {
    #[inline(always)]
    fn of_2(&self, lanes: Lanes, index: usize, first: usize) -> Digit {
        let (even, odd) = (self.powers[first][index], self.powers[first + 1][index]);
        lanes.select(self.bits[0], even, odd)
    }

    #[inline(always)]
    fn of_4(&self, lanes: Lanes, index: usize, first: usize) -> Digit {
        let lower = self.of_2(lanes, index, first);
        lanes.select(self.bits[1], lower, self.of_2(lanes, index, first + 2))
    }

    #[inline(always)]
    fn of_8(&self, lanes: Lanes, index: usize, first: usize) -> Digit {
        let lower = self.of_4(lanes, index, first);
        lanes.select(self.bits[2], lower, self.of_4(lanes, index, first + 4))
    }

    #[inline(always)]
    fn of_16(&self, lanes: Lanes, index: usize, first: usize) -> Digit {
        let lower = self.of_8(lanes, index, first);
        lanes.select(self.bits[3], lower, self.of_8(lanes, index, first + 8))
    }
}

impl Factor for Chosen<'_> {
    #[inline(always)]
    fn digit(&self, lanes: Lanes, index: usize) -> Digit {
        let lower = self.of_16(lanes, index, 0);
        lanes.select(self.bits[4], lower, self.of_16(lanes, index, 16))
    }
}

struct Square<'a> {
    lanes: Lanes,
    number: &'a mut Half,
    times: usize,
    modulus: &'a Modulus<HALF>,
}

impl NullaryFnOnce for Square<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for _ in 0..self.times {
            square_once(self.lanes, self.number, self.modulus);
        }
    }
}

/// As [`product`], but each pair of different digits once: row i adds a[i] · (a[i] + 2 (a[i+1], …)). The doubled part
/// has digits of 52 bits again: those of 2 a, without the bit that a[i] hands to a[i+1]. The highest digit of a number
/// below 4 p has 38 bits, so that doubling loses nothing. Column c is in slot c mod 21.
#[inline(always)]
fn square_once(lanes: Lanes, number: &mut Half, modulus: &Modulus<HALF>) {
    const SLOTS: usize = HALF + 1;
    let zero = splat(0);
    let mut doubled = [zero; HALF];
    each!(J, {
        let twice = lanes.f._mm512_slli_epi64::<1>(number[J]);
        doubled[J] = lanes.and(twice, splat(MAX_DIGIT));
        if J != 0 {
            let bit = lanes
                .f
                ._mm512_srli_epi64::<{ DIGIT_BITS as u32 - 1 }>(number[J - 1]);
            doubled[J] = lanes.add(doubled[J], bit);
        }
    });
    let mut slots = [zero; SLOTS];
    each!(I, {
        // Only for speed, as above.
        let (a, doubled, modulus) = (black_box(&*number), black_box(&doubled), black_box(modulus));
        let factor = a[I];
        slots[(I + I) % SLOTS] = lanes.low(slots[(I + I) % SLOTS], factor, factor);
        slots[(I + I + 1) % SLOTS] = lanes.high(slots[(I + I + 1) % SLOTS], factor, factor);
        each!(J, {
            if J.checked_sub(I + 1).is_some() {
                let digit = if J == I + 1 {
                    lanes.and(doubled[J], splat(MAX_DIGIT - 1))
                } else {
                    doubled[J]
                };
                slots[(I + J) % SLOTS] = lanes.low(slots[(I + J) % SLOTS], factor, digit);
                slots[(I + J + 1) % SLOTS] = lanes.high(slots[(I + J + 1) % SLOTS], factor, digit);
            }
        });
        let multiple = lanes.low(zero, slots[I % SLOTS], modulus.inverse);
        let carry = carry_of_cleared(lanes, slots[I % SLOTS]);
        slots[(I + 1) % SLOTS] = lanes.high(slots[(I + 1) % SLOTS], modulus.digits[0], multiple);
        each!(J, {
            if J != 0 {
                let (low, high) = ((I + J) % SLOTS, (I + J + 1) % SLOTS);
                slots[low] = lanes.low(slots[low], modulus.digits[J], multiple);
                slots[high] = lanes.high(slots[high], modulus.digits[J], multiple);
            }
        });
        slots[(I + 1) % SLOTS] = lanes.add(slots[(I + 1) % SLOTS], carry);
        slots[I % SLOTS] = zero;
    });
    let mut columns = [zero; SLOTS];
    each!(J, {
        columns[J] = slots[(J + HALF) % SLOTS];
    });
    write(lanes, number, &columns);
}
