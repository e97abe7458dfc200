//! Choosing the entries largest in magnitude.

/// The indices of the `count` entries of `values` largest in |value|, ascending; of equal ones the first are taken.
///
/// `guess` may name entries that were chosen before: when they are `count` different indices, every entry below the
/// least of them is passed over at once. It changes the time, never the result.
pub fn largest(values: &[f32], count: usize, guess: &[u32], scratch: &mut Vec<(u32, u32)>, out: &mut [u32]) {
    debug_assert!(count == out.len() && count <= values.len());
    // Magnitudes of finite floats compare as their bits do.
    let key = |v: f32| v.to_bits() & 0x7fff_ffff;
    let floor =
        if guess.len() == count { guess.iter().map(|&i| key(values[i as usize])).min().unwrap_or(0) } else { 0 };
    scratch.clear();
    scratch.extend(
        values.iter().enumerate().filter(|(_, v)| key(**v) >= floor).map(|(i, v)| (u32::MAX - key(*v), i as u32)),
    );
    if scratch.len() > count {
        scratch.select_nth_unstable(count);
    }
    for (o, (_, i)) in out.iter_mut().zip(scratch.iter()) {
        *o = *i;
    }
    out.sort_unstable();
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
        largest(&values, 3, &[2, 4, 5], &mut scratch, &mut out);
        assert_eq!(out, [0, 1, 3]);
    }
}
