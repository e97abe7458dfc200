//! Selection of the entries of largest magnitude: the ℓ0 projection of a column. Knows nothing of
//! what the values mean.

use super::simd::{Vector, kernel};

/// The number of values whose maximum is compared with the floor at once, so that most chunks are
/// skipped.
const CHUNK: usize = 32;

/// Writes into `out` the indices, ascending, of the `count` entries of `values` with the largest
/// magnitudes; of equal magnitudes the lower indices are chosen.
///
/// `guess` may hold `count` indices that an earlier call selected: entries below the smallest of
/// those values are skipped, which saves time while the selection changes little. It never changes
/// the result. A slice of any other length means that there is no guess. `scratch` keeps its memory
/// between calls.
pub fn largest(
    values: &[f32],
    count: usize,
    guess: &[u32],
    scratch: &mut Vec<(u32, u32)>,
    out: &mut [u32],
) {
    debug_assert!(count == out.len() && count <= values.len());
    let floor = if guess.len() == count {
        guess
            .iter()
            .map(|&i| magnitude_bits(values[i as usize]))
            .min()
            .unwrap_or(0)
    } else {
        0
    };
    scratch.clear();
    push_above(values, floor, count, scratch);
    if scratch.len() < count {
        // The guess contained an index twice, so that too few entries reached its floor.
        scratch.clear();
        push_above(values, 0, count, scratch);
    }
    // The candidates are in the order of their indices; those after the count-th largest are left
    // out. (The copy is partitioned so that this order stays.)
    let last = if scratch.len() > count {
        let (found, order) = (scratch.len(), scratch.len()..2 * scratch.len());
        scratch.extend_from_within(..);
        let last = *scratch[order].select_nth_unstable(count - 1).1;
        scratch.truncate(found);
        last
    } else {
        (u32::MAX, u32::MAX)
    };
    for (o, (_, i)) in out.iter_mut().zip(scratch.iter().filter(|e| **e <= last)) {
        *o = *i;
    }
}

kernel! {
    /// Pushes (inverted magnitude bits, index) of the entries whose magnitude is at least `floor`, or
    /// of fewer, but always those of the `count` largest: inverted, so that an ascending order has the
    /// largest first and, of equal ones, the lowest index.
    fn push_above(values: &[f32], floor: u32, count: usize, out: &mut Vec<(u32, u32)>) = push_above_body;
}

#[inline(always)]
fn push_above_body<V: Vector>(values: &[f32], floor: u32, count: usize, out: &mut Vec<(u32, u32)>) {
    let limit = 2 * count + CHUNK;
    push_from_floor(values, floor, limit, out);
    if out.len() > limit {
        out.clear();
        push_from_floor(
            values,
            raise_floor(values, floor, count, limit),
            usize::MAX,
            out,
        );
    }
}

/// Pushes the entries whose magnitude is at least `floor`, and stops after more than `limit` of
/// them.
#[inline(always)]
fn push_from_floor(values: &[f32], floor: u32, limit: usize, out: &mut Vec<(u32, u32)>) {
    for (c, chunk) in values.chunks(CHUNK).enumerate() {
        // Most chunks hold no such entry: one vectorised maximum skips them.
        let largest_bits = chunk.iter().fold(0, |m, v| magnitude_bits(*v).max(m));
        if largest_bits >= floor {
            for (i, v) in chunk.iter().enumerate() {
                if magnitude_bits(*v) >= floor {
                    out.push((u32::MAX - magnitude_bits(*v), (c * CHUNK + i) as u32));
                }
            }
            if out.len() > limit {
                return;
            }
        }
    }
}

/// Raises `floor` by bisection until at most about `limit` values, but at least `count`, reach it:
/// counting is cheaper than collecting and partitioning all entries that reach a low floor.
#[inline(always)]
fn raise_floor(values: &[f32], mut floor: u32, count: usize, limit: usize) -> u32 {
    let count_from = |floor: u32| {
        values
            .iter()
            .map(|v| u32::from(magnitude_bits(*v) >= floor))
            .sum::<u32>() as usize
    };
    let mut above = values
        .iter()
        .fold(0, |m, v| magnitude_bits(*v).max(m))
        .saturating_add(1);
    let mut passed = usize::MAX;
    while passed > limit && above - floor > 1 {
        let middle = floor + (above - floor) / 2;
        match count_from(middle) {
            enough if enough >= count => (floor, passed) = (middle, enough),
            _ => above = middle,
        }
    }
    floor
}

/// The bits of |v|, which compare as the magnitudes of finite floats do.
#[inline(always)]
fn magnitude_bits(v: f32) -> u32 {
    v.to_bits() & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_largest_magnitudes_and_breaks_ties_by_index() {
        let values = [0.5, -3.0, 0.5, 2.0, -0.5, 0.0];
        let mut scratch = Vec::new();
        let mut out = [0; 3];
        largest(&values, 3, &[], &mut scratch, &mut out);
        assert_eq!(out, [0, 1, 3]);
        for guess in [[2, 4, 5], [1, 1, 1]] {
            largest(&values, 3, &guess, &mut scratch, &mut out);
            assert_eq!(out, [0, 1, 3]);
        }
    }

    #[test]
    fn many_values_with_ties_come_out_as_from_a_sort() {
        for (n, count) in [(1000, 3), (5000, 40), (4000, 1)] {
            for levels in [7, 100, 1 << 20] {
                let values: Vec<f32> = (0..n)
                    .map(|i: usize| ((i * 2_654_435_761) % levels) as f32 - levels as f32 / 2.0)
                    .collect();
                let mut want: Vec<u32> = (0..n as u32).collect();
                want.sort_by(|&a, &b| {
                    values[b as usize]
                        .abs()
                        .total_cmp(&values[a as usize].abs())
                        .then(a.cmp(&b))
                });
                want.truncate(count);
                want.sort_unstable();
                let mut out = vec![0; count];
                for guess in [vec![], (0..count as u32).collect(), want.clone()] {
                    largest(&values, count, &guess, &mut Vec::new(), &mut out);
                    assert_eq!(out, want, "{count} of {n}, {levels} levels");
                }
            }
        }
    }
}
