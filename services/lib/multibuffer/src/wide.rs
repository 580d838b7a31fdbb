//! Products of any width, eight at once: the combination of the halves, and the check modulo `n`. Four rows at a time,
//! so that a column is loaded and stored once for 8 multiplications. A fortieth of the time of a signature is spent here.
//!
//! Columns get at most 4 · 40 halves of products below 2^52 and a carry: less than 2^60.

use pulp::NullaryFnOnce;

use crate::digits::FULL;
use crate::lanes::{Digit, Lanes, Modulus, carry_of_cleared, splat};

/// Columns of a product of numbers of up to 40 digits.
pub(crate) type Columns = [Digit; 2 * FULL];

impl Lanes {
    /// The columns of a · b, carries not handed on.
    pub(crate) fn full_product<const K: usize>(self, a: &[Digit; K], b: &[Digit; K]) -> Columns {
        let mut columns = [splat(0); 2 * FULL];
        self.vectorize(Product {
            lanes: self,
            columns: &mut columns,
            a,
            b,
        });
        columns
    }

    /// a · b / R modulo the modulus, where R = 2^(52 K); below twice the modulus if a · b is below R times the modulus.
    pub(crate) fn multiply_wide<const K: usize>(
        self,
        a: &[Digit; K],
        b: &[Digit; K],
        modulus: &Modulus<K>,
    ) -> [Digit; K] {
        let mut columns = self.full_product(a, b);
        self.vectorize(Reduce {
            lanes: self,
            columns: &mut columns,
            modulus,
        });
        let mut out = [splat(0); K];
        out.copy_from_slice(&columns[K..2 * K]);
        self.vectorize(Normalize {
            lanes: self,
            columns: &mut out,
        });
        out
    }
}

/// The rows of four digits `factors` over the digits of `a`, of which the first `done` columns are there already. Column
/// `first` is that of a[0] · factors[0].
#[inline(always)]
fn four_rows<const K: usize>(
    lanes: Lanes,
    columns: &mut Columns,
    first: usize,
    a: &[Digit; K],
    factors: &[Digit; 4],
    done: usize,
) {
    let digit = |index: usize| if index < K { a[index] } else { splat(0) };
    let before = |back: usize| {
        if back <= done {
            digit(done - back)
        } else {
            splat(0)
        }
    };
    let mut last = [before(1), before(2), before(3), before(4)];
    for index in done..K + 4 {
        let this = digit(index);
        let mut column = columns[first + index];
        column = lanes.low(column, this, factors[0]);
        column = lanes.low(column, last[0], factors[1]);
        column = lanes.low(column, last[1], factors[2]);
        column = lanes.low(column, last[2], factors[3]);
        column = lanes.high(column, last[0], factors[0]);
        column = lanes.high(column, last[1], factors[1]);
        column = lanes.high(column, last[2], factors[2]);
        column = lanes.high(column, last[3], factors[3]);
        columns[first + index] = column;
        last = [this, last[0], last[1], last[2]];
    }
}

struct Product<'a, const K: usize> {
    lanes: Lanes,
    columns: &'a mut Columns,
    a: &'a [Digit; K],
    b: &'a [Digit; K],
}

impl<const K: usize> NullaryFnOnce for Product<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for first in (0..K).step_by(4) {
            let factors = [
                self.b[first],
                self.b[first + 1],
                self.b[first + 2],
                self.b[first + 3],
            ];
            four_rows(self.lanes, self.columns, first, self.a, &factors, 0);
        }
    }
}

struct Reduce<'a, const K: usize> {
    lanes: Lanes,
    columns: &'a mut Columns,
    modulus: &'a Modulus<K>,
}

impl<const K: usize> NullaryFnOnce for Reduce<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            lanes,
            columns,
            modulus,
        } = self;
        let zero = splat(0);
        let mut carry = zero;
        for first in (0..K).step_by(4) {
            let mut multiples = [zero; 4];
            for row in 0..4 {
                let mut column = lanes.add(columns[first + row], carry);
                for (earlier, multiple) in multiples.iter().enumerate().take(row) {
                    column = lanes.low(column, modulus.digits[row - earlier], *multiple);
                    column = lanes.high(column, modulus.digits[row - earlier - 1], *multiple);
                }
                multiples[row] = lanes.low(zero, column, modulus.inverse);
                carry = carry_of_cleared(lanes, column);
            }
            four_rows(lanes, columns, first, &modulus.digits, &multiples, 4);
        }
        columns[K] = lanes.add(columns[K], carry);
    }
}

struct Normalize<'a, const K: usize> {
    lanes: Lanes,
    columns: &'a mut [Digit; K],
}

impl<const K: usize> NullaryFnOnce for Normalize<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.lanes.normalize(self.columns);
    }
}
