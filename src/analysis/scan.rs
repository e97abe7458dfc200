//! Statistics of a feature's coefficients in one pass: peaks, sums, quantiles, histograms. Knows
//! numbers, no tokens.
//!
//! Invariant: every result is that of a full sort by (value descending, row ascending), whatever
//! the number of threads.

/// Coefficients at or below this share of a feature's maximum count as zero: multiplicative updates
/// never reach 0.
const NUMERICAL_ZERO: f32 = 1e-6;

/// A row and its coefficient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peak {
    pub(super) value: f32,
    pub(super) row: usize,
}

/// The sum (in f64) and the maximum of non-negative values; (0, 0) for none. NaN never becomes the
/// maximum.
pub(super) fn sum_and_max(values: &[f32]) -> (f64, f32) {
    const LANES: usize = 8;
    let (mut sums, mut maxima) = ([0f64; LANES], [0f32; LANES]);
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f64::from(chunk[lane]);
            maxima[lane] = maxima[lane].max(chunk[lane]);
        }
    }
    let sum = sums.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v)).sum::<f64>();
    let max = maxima.iter().chain(rest).fold(0f32, |m, &v| m.max(v));
    (sum, max)
}

/// The value above which a coefficient of a feature with the maximum `peak` counts as non-zero.
pub(super) fn zero_threshold(peak: f32) -> f32 {
    peak * NUMERICAL_ZERO
}

/// The share of `values` above `threshold`; 0 for no values.
pub(super) fn share_above(values: &[f32], threshold: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let above: u64 = values
        .chunks(4096)
        .map(|c| u64::from(c.iter().map(|&v| u32::from(v > threshold)).sum::<u32>()))
        .sum();
    (above as f64 / values.len() as f64) as f32
}

/// The strongest row above `floor` of each group, for the `count` strongest groups, in descending
/// order. One scan keeps a list of `count` peaks; only a row above the weakest of them is compared
/// with the list.
pub(super) fn group_peaks(
    values: &[f32],
    floor: f32,
    count: usize,
    group: impl Fn(usize) -> usize,
) -> Vec<Peak> {
    let mut kept: Vec<(usize, Peak)> = Vec::with_capacity(count);
    let mut threshold = floor;
    let mut weakest = 0;
    if count == 0 {
        return Vec::new();
    }
    for (row, &value) in values.iter().enumerate() {
        if value > threshold {
            let (group, peak) = (group(row), Peak { value, row });
            match kept.iter().position(|(g, _)| *g == group) {
                Some(at) if value > kept[at].1.value => kept[at].1 = peak,
                Some(_) => continue,
                None if kept.len() < count => kept.push((group, peak)),
                None => kept[weakest] = (group, peak),
            }
            if kept.len() == count {
                weakest = (0..count)
                    .max_by(|&a, &b| strongest_first(&kept[a].1, &kept[b].1))
                    .unwrap_or(0);
                threshold = kept[weakest].1.value;
            }
        }
    }
    let mut peaks: Vec<Peak> = kept.into_iter().map(|(_, peak)| peak).collect();
    peaks.sort_by(strongest_first);
    peaks
}

/// Adds the strongest rows to those already chosen until there are `count`, such that no two rows
/// of one group are within `apart` rows of each other.
pub(super) fn spread_peaks(
    chosen: &mut Vec<Peak>,
    values: &[f32],
    floor: f32,
    count: usize,
    apart: usize,
    group: impl Fn(usize) -> usize,
) {
    // A chosen row rules out at most 2·apart + 1 rows, so the result lies within this many of the
    // strongest rows.
    let candidates_needed = count * (2 * apart + 1);
    let mut keys = active_keys(values, floor);
    if keys.len() > candidates_needed {
        let cut = keys.len() - candidates_needed;
        keys.select_nth_unstable_by_key(cut, ascending);
        keys.drain(..cut);
    }
    let mut candidates: Vec<Peak> = keys.into_iter().map(|key| peak_of(key, values)).collect();
    candidates.sort_by(strongest_first);
    for candidate in candidates {
        if chosen.len() >= count {
            break;
        }
        let near = |p: &Peak| {
            p.row.abs_diff(candidate.row) <= apart && group(p.row) == group(candidate.row)
        };
        if !chosen.iter().any(near) {
            chosen.push(candidate);
        }
    }
    chosen.sort_by(strongest_first);
}

/// The row at each quantile (descending, in 0..=1) of the values above `floor`: the row with index
/// round(q·(m − 1)) of these m values in ascending order. A row that two quantiles share is
/// returned once.
pub(super) fn quantile_rows(values: &[f32], floor: f32, quantiles: &[f32]) -> Vec<(f32, usize)> {
    let mut keys = active_keys(values, floor);
    let mut out: Vec<(f32, usize)> = Vec::with_capacity(quantiles.len());
    let Some(last) = keys.len().checked_sub(1) else {
        return out;
    };
    let mut end = keys.len();
    for &quantile in quantiles {
        let index = (f64::from(quantile) * last as f64).round() as usize;
        // All values below the previous quantile's index already lie to its left, so each selection
        // is smaller.
        if index >= end {
            continue;
        }
        let (_, key, _) = keys[..end].select_nth_unstable_by_key(index, ascending);
        out.push((quantile, peak_of(*key, values).row));
        end = index;
    }
    out
}

/// Counts of values above `floor` in `bins` equal bins from 0 to `peak`.
pub(super) fn histogram(values: &[f32], floor: f32, peak: f32, bins: usize) -> Vec<u32> {
    let mut counts = vec![0; bins];
    if bins > 0 && peak > 0.0 {
        let scale = bins as f32 / peak;
        for &value in values.iter().filter(|&&v| v > floor) {
            counts[((value * scale) as usize).min(bins - 1)] += 1;
        }
    }
    counts
}

/// (bits of the value, row) of every value above `floor` ≥ 0: for positive floats the order of bits
/// is that of values.
fn active_keys(values: &[f32], floor: f32) -> Vec<(u32, u32)> {
    let active =
        |(row, &value): (usize, &f32)| (value > floor).then(|| (value.to_bits(), row as u32));
    values.iter().enumerate().filter_map(active).collect()
}

/// The sort key for weakest first; of equal values the later row comes first.
fn ascending(&(bits, row): &(u32, u32)) -> (u32, u32) {
    (bits, u32::MAX - row)
}

fn peak_of((_, row): (u32, u32), values: &[f32]) -> Peak {
    Peak {
        value: values[row as usize],
        row: row as usize,
    }
}

fn strongest_first(a: &Peak, b: &Peak) -> std::cmp::Ordering {
    b.value.total_cmp(&a.value).then(a.row.cmp(&b.row))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every group's first maximum by a full sort.
    fn reference_peaks(
        values: &[f32],
        floor: f32,
        count: usize,
        group: impl Fn(usize) -> usize,
    ) -> Vec<Peak> {
        let mut all: Vec<Peak> = values
            .iter()
            .enumerate()
            .filter(|(_, v)| **v > floor)
            .map(|(row, &value)| Peak { value, row })
            .collect();
        all.sort_by(strongest_first);
        let mut seen = std::collections::HashSet::new();
        all.retain(|p| seen.insert(group(p.row)));
        all.truncate(count);
        all
    }

    fn levels() -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values, so that ties are common.
        proptest::collection::vec((0u8..12).prop_map(|v| f32::from(v) * 0.5), 0..400)
    }

    proptest! {
        #[test]
        fn one_scan_finds_what_a_sort_finds(values in levels(), width in 1usize..30, count in 1usize..12) {
            let group = |row: usize| row / width;
            prop_assert_eq!(group_peaks(&values, 0.0, count, group), reference_peaks(&values, 0.0, count, group));
        }

        #[test]
        fn groups_need_not_be_contiguous(values in levels(), groups in 1usize..9) {
            let group = |row: usize| row % groups;
            prop_assert_eq!(group_peaks(&values, 0.0, 5, group), reference_peaks(&values, 0.0, 5, group));
        }

        #[test]
        fn sums_and_shares_match_plain_loops(values in levels()) {
            let (sum, max) = sum_and_max(&values);
            let plain: f64 = values.iter().map(|&v| f64::from(v)).sum();
            prop_assert!((sum - plain).abs() <= 1e-9 * plain.max(1.0));
            prop_assert_eq!(max, values.iter().copied().fold(0.0, f32::max));
            let above = values.iter().filter(|&&v| v > 2.0).count();
            prop_assert!((share_above(&values, 2.0) - above as f32 / values.len().max(1) as f32).abs() < 1e-6);
        }

        #[test]
        fn quantile_rows_are_those_of_a_sort(values in levels()) {
            let mut active: Vec<f32> = values.iter().copied().filter(|&v| v > 0.0).collect();
            active.sort_by(f32::total_cmp);
            let found = quantile_rows(&values, 0.0, &[0.9, 0.5, 0.1]);
            prop_assert_eq!(found.is_empty(), active.is_empty());
            for (quantile, row) in found {
                let index = (f64::from(quantile) * (active.len() - 1) as f64).round() as usize;
                prop_assert_eq!(values[row], active[index]);
            }
        }

        #[test]
        fn spread_peaks_never_touch_and_never_skip_a_stronger_row(values in levels(), apart in 0usize..6) {
            let mut chosen = Vec::new();
            spread_peaks(&mut chosen, &values, 0.0, 5, apart, |_| 0);
            let mut plain: Vec<Peak> = Vec::new();
            for p in reference_peaks(&values, 0.0, usize::MAX, |row| row) {
                if plain.len() < 5 && plain.iter().all(|q| q.row.abs_diff(p.row) > apart) {
                    plain.push(p);
                }
            }
            prop_assert_eq!(chosen, plain);
        }

        #[test]
        fn a_histogram_counts_every_active_value_once(values in levels()) {
            let (_, peak) = sum_and_max(&values);
            let counts = histogram(&values, 0.0, peak, 24);
            prop_assert_eq!(counts.iter().sum::<u32>() as usize, values.iter().filter(|&&v| v > 0.0).count());
            prop_assert_eq!(counts.len(), 24);
        }
    }

    #[test]
    fn a_scan_of_no_rows_finds_nothing() {
        assert_eq!(sum_and_max(&[]), (0.0, 0.0));
        assert!(group_peaks(&[0.0; 9], 0.0, 3, |r| r).is_empty());
        assert!(group_peaks(&[1.0; 9], 0.0, 0, |r| r).is_empty());
        assert!(quantile_rows(&[0.0; 9], 0.0, &[0.5]).is_empty());
        assert_eq!(histogram(&[0.0; 9], 0.0, 0.0, 3), [0, 0, 0]);
        assert_eq!(share_above(&[], 0.0), 0.0);
    }

    #[test]
    fn the_peak_falls_in_the_last_bin() {
        assert_eq!(histogram(&[0.1, 0.9, 1.0], 0.0, 1.0, 2), [1, 2]);
    }
}
