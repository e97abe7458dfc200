//! How a fit's work on a device is cut, and what it takes of the device's memory. Knows no device.
//!
//! Products are taken of blocks of rows, whose values are widened to f32 one block at a time; sweeps
//! over the coefficients of strips of rows, since a sweep launches kernels for each feature whatever
//! the number of rows.

use std::ops::Range;

use crate::matrix::panel::PANEL;

/// The least rows of a strip, where there are so many.
pub(super) const STRIP_ROWS: usize = 1 << 17;
/// Bytes of a widened block.
const BLOCK_BYTES: usize = 256 << 20;
/// The most rows of a block: sums over its rows are taken in f32.
const MAX_BLOCK_ROWS: usize = 1 << 14;
/// The least rows that are worked on at once because memory is known to be short.
const LEAST_ROWS: usize = 1 << 13;
/// The most values of a tensor: candle's kernels count them in 32 bits.
const MAX_VALUES: usize = 1 << 31;
/// The percentage of the free memory that a fit takes; the rest is for the libraries' own needs.
const FREE_PERCENT: u64 = 90;
/// Tensors of k values a row that a strip needs at once: the coefficients before and after, their
/// projections, the targets of a sweep, and a product of two of them.
const STRIP_TENSORS: u64 = 5;
/// Tensors of k × d values: Z, the sums AᵀY, a block's part of them, and their total.
const FEATURE_TENSORS: u64 = 4;
/// Tensors of k × k values: ZᵀZ for the sweeps, once more for the errors of rows, and those of YᵀY.
const GRAM_TENSORS: u64 = 6;

/// What a fit's need of memory follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FitShape {
    pub(super) rows: usize,
    pub(super) neurons: usize,
    pub(super) features: usize,
    /// Bytes of an activation as it is stored.
    pub(super) value_bytes: usize,
    /// Whether rows are centred or scaled, which takes a second widened block.
    pub(super) prepared: bool,
}

/// What a fit takes of a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceBytes {
    /// The activations as they are stored: n · d values.
    pub activations: u64,
    /// The coefficients before and after a sweep: 2 · k · n values of f32.
    pub coefficients: u64,
    /// What a pass works in beside them.
    pub working: u64,
}

impl DeviceBytes {
    /// All of it.
    pub fn total(self) -> u64 {
        self.activations
            .saturating_add(self.coefficients)
            .saturating_add(self.working)
    }
}

impl FitShape {
    pub(super) fn block_rows(&self) -> usize {
        (BLOCK_BYTES / (4 * self.neurons.max(1))).clamp(PANEL, MAX_BLOCK_ROWS) / PANEL * PANEL
    }

    /// The bytes where every activation and coefficient stays on the device.
    pub(super) fn bytes(&self) -> DeviceBytes {
        let strip = strips(self.rows, self.block_rows(), STRIP_ROWS)
            .map(|s| s.len())
            .max();
        DeviceBytes {
            activations: product(&[self.value_bytes, self.rows, self.neurons]),
            coefficients: 2 * product(&[4, self.features, self.rows.next_multiple_of(PANEL)]),
            working: self.working(strip.unwrap_or(0)),
        }
    }

    /// The bytes that working on `rows` rows at once takes.
    fn working(&self, rows: usize) -> u64 {
        let Self {
            neurons: d,
            features: k,
            ..
        } = *self;
        let block = self.block_rows().min(rows);
        let widened = if self.prepared { 2 } else { 1 };
        FEATURE_TENSORS * product(&[4, k, d])
            + GRAM_TENSORS * product(&[4, k, k])
            + widened * product(&[4, block, d])
            + 2 * product(&[self.value_bytes, block, d])
            + STRIP_TENSORS * product(&[4, k, rows])
    }
}

fn product(factors: &[usize]) -> u64 {
    factors
        .iter()
        .fold(1, |all, &f| all.saturating_mul(f as u64))
}

/// How the work is cut and what stays on the device from one pass to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) block_rows: usize,
    /// The least rows of a strip.
    pub(super) strip_rows: usize,
    /// The most rows that are worked on at once.
    pub(super) portion_rows: usize,
    /// The number of blocks of A that stay.
    pub(super) kept_blocks: usize,
    pub(super) keeps_coefficients: bool,
}

impl Plan {
    /// The plan for a device with `free` bytes of memory; unknown (`None`): nothing stays there.
    pub(super) fn new(shape: &FitShape, free: Option<u64>) -> Self {
        let block_rows = shape.block_rows();
        let longest = strips(shape.rows, block_rows, STRIP_ROWS)
            .map(|s| s.len())
            .max()
            .unwrap_or(PANEL);
        let most = MAX_VALUES / shape.features.max(1) / PANEL * PANEL;
        let mut plan = Self {
            block_rows,
            strip_rows: STRIP_ROWS,
            portion_rows: longest.min(most).max(PANEL),
            kept_blocks: 0,
            keeps_coefficients: false,
        };
        let Some(free) = free else { return plan };
        let usable = free / 100 * FREE_PERCENT;
        let bytes = shape.bytes();
        if bytes.total() <= usable && plan.portion_rows >= longest {
            (plan.kept_blocks, plan.keeps_coefficients) = (usize::MAX, true);
            return plan;
        }
        // Rows that are sent stay as they are stored until their strip is done.
        let working =
            |rows: usize| shape.working(rows) + product(&[shape.value_bytes, rows, shape.neurons]);
        while working(plan.portion_rows) > usable / 2 && plan.portion_rows > LEAST_ROWS {
            plan.portion_rows = (plan.portion_rows / 2).next_multiple_of(PANEL);
        }
        let mut left = usable.saturating_sub(working(plan.portion_rows));
        plan.keeps_coefficients = bytes.coefficients <= left / 2;
        if plan.keeps_coefficients {
            left -= bytes.coefficients;
        }
        let block = product(&[shape.value_bytes, block_rows, shape.neurons]).max(1);
        plan.kept_blocks = usize::try_from(left / block).unwrap_or(usize::MAX);
        plan
    }

    /// The strips of `n` rows.
    pub(super) fn strips(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        strips(n, self.block_rows, self.strip_rows)
    }
}

/// Strips of whole blocks, as even as blocks allow, of at least `strip_rows` rows where there are so
/// many.
fn strips(
    n: usize,
    block_rows: usize,
    strip_rows: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let blocks = n.div_ceil(block_rows);
    let count = (n / (strip_rows + block_rows)).max(1);
    let bound = move |i: usize| n.min(i * blocks / count * block_rows);
    (0..count)
        .map(move |i| bound(i)..bound(i + 1))
        .filter(|strip| !strip.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: FitShape = FitShape {
        rows: 1_000_000,
        neurons: 14_336,
        features: 400,
        value_bytes: 2,
        prepared: false,
    };

    #[test]
    fn strips_have_no_fewer_rows_than_they_should_and_cover_all() {
        for n in [
            1, 63, 64, 131_071, 131_072, 140_000, 262_144, 300_001, 1_000_000, 9_999_999,
        ] {
            for d in [1, 576, 14_336] {
                let block = FitShape {
                    rows: n,
                    neurons: d,
                    ..LARGE
                }
                .block_rows();
                let all: Vec<Range<usize>> = strips(n, block, STRIP_ROWS).collect();
                assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert_eq!((all[0].start, all[all.len() - 1].end), (0, n));
                let last = all.len() - 1;
                for strip in &all[..last] {
                    assert!(
                        strip.len() >= STRIP_ROWS && strip.end % block == 0,
                        "{n} {d}"
                    );
                }
                assert!(
                    all[last].len() >= STRIP_ROWS.min(n) && all[last].len() < 3 * STRIP_ROWS,
                    "{n} {d}: {}",
                    all[last].len()
                );
            }
        }
    }

    #[test]
    fn activations_take_what_they_are_stored_in_and_coefficients_twice_four_bytes() {
        let bytes = LARGE.bytes();
        assert_eq!(bytes.activations, 2 * 1_000_000 * 14_336);
        assert_eq!(bytes.coefficients, 2 * 4 * 400 * 1_000_000);
        // All of it on a card of 40 GB and not on one of 32; in f32 not on one of 64.
        let plan =
            |shape: &FitShape, gigabytes: u64| Plan::new(shape, Some(gigabytes * 1_000_000_000));
        let all = plan(&LARGE, 40);
        assert!(all.keeps_coefficients && all.kept_blocks == usize::MAX);
        let some = plan(&LARGE, 32);
        assert!(
            some.keeps_coefficients && (100..214).contains(&some.kept_blocks),
            "{some:?}"
        );
        let wide = FitShape {
            value_bytes: 4,
            ..LARGE
        };
        assert!(plan(&wide, 64).kept_blocks < usize::MAX);
        assert!(plan(&wide, 80).kept_blocks == usize::MAX);
    }

    #[test]
    fn little_memory_makes_portions_smaller_and_unknown_memory_keeps_nothing() {
        let small = Plan::new(&LARGE, Some(2 << 30));
        assert!(small.portion_rows < STRIP_ROWS && small.portion_rows.is_multiple_of(PANEL));
        let none = Plan::new(&LARGE, Some(0));
        assert_eq!((none.kept_blocks, none.keeps_coefficients), (0, false));
        assert!(none.portion_rows <= LEAST_ROWS);
        let unknown = Plan::new(&LARGE, None);
        assert_eq!(
            (unknown.kept_blocks, unknown.keeps_coefficients),
            (0, false)
        );
        assert!(unknown.portion_rows >= STRIP_ROWS);
        // Tensors whose values could not be counted are not made.
        let many = FitShape {
            features: 40_000,
            ..LARGE
        };
        assert!(Plan::new(&many, None).portion_rows * many.features <= MAX_VALUES);
    }
}
