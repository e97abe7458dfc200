//! Choosing the entries largest in magnitude.

use super::simd::{Vector, kernel};

/// The indices of the `count` entries of `values` largest in |value|, ascending; of equal ones the first are taken.
///
/// `guess` may name `count` entries that were chosen before: what lies below the least of them is passed over at once. It
/// changes the time, never the result.
pub fn largest(values: &[f32], count: usize, guess: &[u32], scratch: &mut Vec<(u32, u32)>, out: &mut [u32]) {
    debug_assert!(count == out.len() && count <= values.len());
    let floor =
        if guess.len() == count { guess.iter().map(|&i| key(values[i as usize])).min().unwrap_or(0) } else { 0 };
    scratch.clear();
    above(values, floor, scratch);
    if scratch.len() < count {
        // The guess named an entry twice.
        scratch.clear();
        above(values, 0, scratch);
    }
    if scratch.len() > count {
        scratch.select_nth_unstable(count);
    }
    for (o, (_, i)) in out.iter_mut().zip(scratch.iter()) {
        *o = *i;
    }
    out.sort_unstable();
}

kernel! {
    /// Pushes (inverted magnitude, index) of every entry whose magnitude's bits reach `floor`.
    fn above(values: &[f32], floor: u32, out: &mut Vec<(u32, u32)>) = above_body;
}

#[inline(always)]
fn above_body<V: Vector>(values: &[f32], floor: u32, out: &mut Vec<(u32, u32)>) {
    const CHUNK: usize = 32;
    for (c, chunk) in values.chunks(CHUNK).enumerate() {
        // Most chunks hold nothing: one vectorised maximum passes over them.
        let most = chunk.iter().fold(0, |m, v| key(*v).max(m));
        if most >= floor {
            for (i, v) in chunk.iter().enumerate() {
                if key(*v) >= floor {
                    out.push((u32::MAX - key(*v), (c * CHUNK + i) as u32));
                }
            }
        }
    }
}

/// Magnitudes of finite floats compare as these bits do.
#[inline(always)]
fn key(v: f32) -> u32 {
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
}
