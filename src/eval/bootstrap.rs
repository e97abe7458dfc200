//! Whether a difference is more than chance: paired over what two methods share, by the percentile
//! bootstrap, with few pairs by Student's t and with a p value by flipping signs; or unpaired over
//! what each has, by the bootstrap.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

/// How a difference compares with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The interval contains 0.
    NoDifference,
    /// The whole interval is above 0.
    Higher,
    /// The whole interval is below 0.
    Lower,
}

/// A mean difference with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean over the pairs.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Whether 0 lies in the interval, below or above it.
    pub verdict: Verdict,
}

/// The 97.5th percentile of Student's t for 1, 2, … degrees of freedom.
const T_QUANTILES: [f64; 18] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101,
];
/// The most pairs of which every choice of signs is counted: 2^15 sums.
const MOST_EXACT: usize = 15;

/// The mean of `pairs`' differences a − b and its interval: the percentiles of `resamples` draws of
/// as many pairs with replacement, and below 20 pairs mean ± t · s / √n, since there the
/// percentiles lie too close to the mean (with 5 pairs 17 % of such intervals leave the true mean
/// out, not 5 %). `None` with fewer than two pairs. The same seed gives the same interval.
pub fn paired(pairs: &[(f64, f64)], resamples: usize, seed: u64) -> Option<Difference> {
    let count = pairs.len();
    if count < 2 || resamples == 0 {
        return None;
    }
    let values: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    if let Some(quantile) = T_QUANTILES.get(count - 2) {
        let (mean, error) = mean_and_error(&values)?;
        return Some(Difference::within(
            mean,
            mean - quantile * error,
            mean + quantile * error,
        ));
    }
    let pool = Pool {
        values,
        draws: count,
    };
    let means = pool.means(resamples, &mut Pcg64::seed_from_u64(seed));
    Some(Difference::new(pool.mean(), means))
}

/// How often a mean difference as far from 0 would come of nothing, were the sign of each of
/// `pairs`' differences a toss of a coin (Fisher's randomisation test, two-sided): of all choices of
/// signs with at most 15 pairs, else of `draws` of them beside the one that was found. With n pairs
/// it is never below 2^(1 − n). `None` with fewer than two pairs.
pub fn paired_p(pairs: &[(f64, f64)], draws: usize, seed: u64) -> Option<f64> {
    if pairs.len() < 2 || draws == 0 {
        return None;
    }
    let values: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    // Sums that differ by rounding alone count as equal.
    let least =
        values.iter().sum::<f64>().abs() - 1e-12 * values.iter().map(|v| v.abs()).sum::<f64>();
    if values.len() <= MOST_EXACT {
        let all = 1u32 << values.len();
        let count = (0..all)
            .filter(|signs| signed_sum(&values, |i| (signs >> i) & 1 == 1).abs() >= least)
            .count();
        return Some(count as f64 / f64::from(all));
    }
    let mut rng = Pcg64::seed_from_u64(seed);
    let count = (0..draws)
        .filter(|_| signed_sum(&values, |_| rng.random()).abs() >= least)
        .count();
    Some((count + 1) as f64 / (draws + 1) as f64)
}

/// The sum of `values`, those whose index is flipped with the other sign.
fn signed_sum(values: &[f64], mut is_flipped: impl FnMut(usize) -> bool) -> f64 {
    let signed = values.iter().enumerate();
    signed
        .map(|(i, v)| if is_flipped(i) { -v } else { *v })
        .sum()
}

/// Holm's adjusted p values (Holm 1979), in the order of `p`: those below 0.05 hold together with an
/// error of 0.05 for all.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    let (mut out, mut most) = (vec![0.0; p.len()], 0.0f64);
    for (rank, &i) in order.iter().enumerate() {
        most = most.max((p[i] * (p.len() - rank) as f64).min(1.0));
        out[i] = most;
    }
    out
}

/// Values, and how many of them a resample draws with replacement.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The values to draw from.
    pub values: Vec<f64>,
    /// How many values a resample draws.
    pub draws: usize,
}

impl Pool {
    fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    fn means(&self, resamples: usize, rng: &mut Pcg64) -> Vec<f64> {
        let count = self.values.len();
        let draw = |rng: &mut Pcg64| {
            (0..self.draws)
                .map(|_| self.values[rng.random_range(0..count)])
                .sum::<f64>()
        };
        (0..resamples)
            .map(|_| draw(rng) / self.draws as f64)
            .collect()
    }
}

/// The mean of `a` minus that of `b`, whose values are not paired, and its percentile interval: both
/// are resampled independently. `None` where there is nothing to draw.
pub fn unpaired(a: &Pool, b: &Pool, resamples: usize, seed: u64) -> Option<Difference> {
    if resamples == 0
        || [a, b]
            .iter()
            .any(|pool| pool.values.is_empty() || pool.draws == 0)
    {
        return None;
    }
    let mut rng = Pcg64::seed_from_u64(seed);
    let (ours, theirs) = (a.means(resamples, &mut rng), b.means(resamples, &mut rng));
    Some(Difference::new(
        a.mean() - b.mean(),
        ours.iter().zip(theirs).map(|(a, b)| a - b).collect(),
    ))
}

impl Difference {
    fn new(mean: f64, mut means: Vec<f64>) -> Self {
        means.sort_unstable_by(f64::total_cmp);
        Self::within(mean, percentile(&means, 0.025), percentile(&means, 0.975))
    }

    fn within(mean: f64, low: f64, high: f64) -> Self {
        let verdict = match (low > 0.0, high < 0.0) {
            (true, _) => Verdict::Higher,
            (_, true) => Verdict::Lower,
            _ => Verdict::NoDifference,
        };
        Self {
            mean,
            low,
            high,
            verdict,
        }
    }
}

/// The quantile at `share`, interpolated linearly between the two nearest of the sorted values.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

/// Mean and standard error of the mean; 0 for fewer than two values.
pub fn mean_and_error(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((
        mean,
        if values.len() < 2 {
            0.0
        } else {
            (square / (count - 1.0) / count).sqrt()
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_small_where_the_interval_is_off_0_and_holm_adjusts_them() {
        let far: Vec<(f64, f64)> = (0..20).map(|i| (1.0 + 0.01 * f64::from(i), 0.0)).collect();
        let near: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i % 2), 0.5)).collect();
        let p = |pairs: &[(f64, f64)]| paired_p(pairs, 1000, 3).unwrap();
        assert!(
            p(&far) < 0.003 && p(&near) > 0.3,
            "{} {}",
            p(&far),
            p(&near)
        );
        // By hand: the 8 choices of signs of 1, 2 and 3 have the sums ±6, ±4, ±2 and twice 0.
        let few = |values: &[f64]| {
            let pairs: Vec<(f64, f64)> = values.iter().map(|&v| (v, 0.0)).collect();
            paired_p(&pairs, 1000, 3).unwrap()
        };
        assert_eq!(few(&[-2.0, 1.0, 3.0]), 6.0 / 8.0);
        assert_eq!(few(&[1.0, 2.0, 3.0]), 2.0 / 8.0);
        assert_eq!(few(&[0.1, 0.1]), 0.5);
        assert_eq!(paired_p(&far[..1], 1000, 3), None);
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (a, b) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((a - b).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }

    #[test]
    fn nothing_is_called_a_difference_about_once_in_twenty_times() {
        // Differences of no effect: the sum of twelve uniform values, less 6, is about normal.
        let mut rng = Pcg64::seed_from_u64(5);
        for count in [2, 3, 5, 8, 19, 20, 50] {
            let (mut intervals, mut tests) = (0, 0);
            for trial in 0..600 {
                let pairs: Vec<(f64, f64)> = (0..count)
                    .map(|_| ((0..12).map(|_| rng.random::<f64>()).sum::<f64>(), 6.0))
                    .collect();
                let found = paired(&pairs, 400, trial).unwrap();
                intervals += usize::from(found.verdict != Verdict::NoDifference);
                tests += usize::from(paired_p(&pairs, 400, trial).unwrap() < 0.05);
            }
            // 30 are expected, with a standard deviation of 5.3; percentiles of 20 pairs give 44.
            assert!((10..=66).contains(&intervals), "{count}: {intervals}");
            assert!(tests <= 52, "{count}: {tests}");
            assert!(count > 5 || tests == 0, "{count}: never below 2^(1 − n)");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let pairs: Vec<_> = (0..30)
            .map(|i| (0.5 + 0.01 * f64::from(i % 7), 0.5))
            .collect();
        let one = paired(&pairs, 2000, 9).unwrap();
        assert_eq!(one, paired(&pairs, 2000, 9).unwrap());
        assert_ne!(one, paired(&pairs, 2000, 10).unwrap());
        assert!(one.low <= one.mean && one.mean <= one.high);
        assert_eq!(one.verdict, Verdict::Higher);
    }

    #[test]
    fn a_difference_whose_interval_contains_0_is_not_significant() {
        let noise: Vec<_> = (0..20)
            .map(|i| {
                (
                    0.8 + 0.1 * f64::from(i % 2),
                    0.8 + 0.1 * f64::from((i + 1) % 2),
                )
            })
            .collect();
        assert_eq!(
            paired(&noise, 2000, 1).unwrap().verdict,
            Verdict::NoDifference
        );
        let same = vec![(0.7, 0.7); 5];
        assert_eq!(
            paired(&same, 100, 1).unwrap().verdict,
            Verdict::NoDifference
        );
        let lower: Vec<_> = noise.iter().map(|(a, b)| (a - 0.3, *b)).collect();
        assert_eq!(paired(&lower, 2000, 1).unwrap().verdict, Verdict::Lower);
        assert_eq!(
            paired(&noise[..1], 2000, 1),
            None,
            "one pair says nothing of chance"
        );
    }

    #[test]
    fn the_interval_is_as_wide_as_theory_says() {
        // Differences of ±1 in equal numbers: the mean of 400 has standard deviation 1/20, so
        // ±1.96/20.
        let pairs: Vec<_> = (0..400)
            .map(|i| (if i % 2 == 0 { 1.0 } else { -1.0 }, 0.0))
            .collect();
        let interval = paired(&pairs, 10_000, 4).unwrap();
        assert!(
            (interval.high - 0.098).abs() < 0.006 && (interval.low + 0.098).abs() < 0.006,
            "{interval:?}"
        );
    }

    #[test]
    fn values_of_two_methods_are_drawn_apart() {
        // ±1 in equal numbers on both sides: standard deviation √(1/400 + 1/100) of the difference.
        let pool = |count: usize, draws: usize, mean: f64| {
            let values = (0..count)
                .map(|i| mean + if i % 2 == 0 { 1.0 } else { -1.0 })
                .collect();
            Pool { values, draws }
        };
        let found = unpaired(&pool(400, 400, 0.5), &pool(100, 100, 0.25), 10_000, 3).unwrap();
        let half = 1.96 * (1.0f64 / 400.0 + 1.0 / 100.0).sqrt();
        assert!((found.mean - 0.25).abs() < 1e-12);
        assert!(
            (found.high - 0.25 - half).abs() < 0.02 && (0.25 - found.low - half).abs() < 0.02,
            "{found:?}"
        );
        // Three seeds of the same features are no more certain than one.
        let three = unpaired(&pool(1200, 400, 0.5), &pool(300, 100, 0.25), 10_000, 3).unwrap();
        assert!((three.high - found.high).abs() < 0.02);
        assert_eq!(unpaired(&pool(0, 0, 0.0), &pool(4, 4, 0.0), 100, 1), None);
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        assert_eq!(mean_and_error(&[]), None);
        assert_eq!(mean_and_error(&[2.0]), Some((2.0, 0.0)));
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((mean - 2.5).abs() < 1e-12 && (error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
