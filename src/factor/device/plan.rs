//! How the rows of a fit are divided on a device, and the memory that a fit takes there. It only
//! calculates: it knows no device.
//!
//! Products are taken block by block, since the values of a block are converted to f32 in memory.
//! Sweeps over the coefficients run on longer strips of rows: a sweep launches kernels for each
//! feature, whatever the number of rows.

use std::ops::Range;

use crate::matrix::panel::PANEL;

/// The smallest number of rows of a strip, if the source has that many.
pub(super) const STRIP_ROWS: usize = 1 << 17;
/// Bytes of a block converted to f32.
const BLOCK_BYTES: usize = 256 << 20;
/// The largest number of rows of a block: sums over its rows are taken in f32, so longer blocks
/// would lose digits.
const MAX_BLOCK_ROWS: usize = 1 << 14;
/// The number of rows below which portions are not made smaller in advance, however little memory
/// is free.
const LEAST_ROWS: usize = 1 << 13;
/// The largest number of values of a tensor: candle's kernels index them with 32 bits.
const MAX_VALUES: usize = 1 << 31;
/// The percentage of the free memory that a fit may use; the rest is left to the GPU libraries.
const FREE_PERCENT: u64 = 90;
/// The number of tensors of k values per row that a strip needs at the same time: the coefficients
/// before and after, their projections, the targets of a sweep, and a product of two of them.
const STRIP_TENSORS: u64 = 5;
/// The number of tensors of k × d values: Z, the sums AᵀY, a block's part of them, and their total.
const FEATURE_TENSORS: u64 = 4;
/// The number of tensors of k × k values: ZᵀZ for the sweeps and once more for the errors of rows,
/// and the sums of YᵀY.
const GRAM_TENSORS: u64 = 6;

/// The sizes that determine the memory of a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FitShape {
    pub(super) rows: usize,
    pub(super) neurons: usize,
    pub(super) features: usize,
    /// Bytes of an activation as it is stored.
    pub(super) value_bytes: usize,
    /// Whether rows are centred or scaled, which needs a second block in f32.
    pub(super) prepared: bool,
}

/// The device memory of a fit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceBytes {
    /// The activations as they are stored: n · d values.
    pub activations: u64,
    /// The coefficients before and after a sweep: 2 · k · n values of f32.
    pub coefficients: u64,
    /// The temporary memory of a pass.
    pub working: u64,
}

impl DeviceBytes {
    /// The sum of the three.
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

    /// The memory if every activation and coefficient stays on the device.
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

    /// The temporary memory in bytes of a pass that processes `rows` rows at a time.
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

/// How the rows are divided, and which data stay on the device from one pass to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) block_rows: usize,
    /// The smallest number of rows of a strip.
    pub(super) strip_rows: usize,
    /// The largest number of rows that are processed at a time.
    pub(super) portion_rows: usize,
    /// The number of blocks of A that stay.
    pub(super) kept_blocks: usize,
    pub(super) keeps_coefficients: bool,
}

impl Plan {
    /// The plan for a device with `free` bytes of memory; if that is unknown (`None`), nothing
    /// stays there.
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
        // Rows that are copied to the device also lie there in their stored type until their strip
        // is done.
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
