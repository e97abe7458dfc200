//! Whether a difference is more than chance: the percentile bootstrap, paired over what two methods
//! share, or unpaired over what each has.

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
    /// 2.5th percentile of the resampled means.
    pub low: f64,
    /// 97.5th percentile of the resampled means.
    pub high: f64,
    /// Whether 0 lies in the interval, below or above it.
    pub verdict: Verdict,
}

/// The mean of `pairs`' differences a − b and its percentile interval over `resamples` draws of as
/// many pairs with replacement. `None` with fewer than two pairs. The same seed gives the same
/// interval.
pub fn paired(pairs: &[(f64, f64)], resamples: usize, seed: u64) -> Option<Difference> {
    let count = pairs.len();
    if count < 2 || resamples == 0 {
        return None;
    }
    let pool = Pool {
        values: pairs.iter().map(|(a, b)| a - b).collect(),
        draws: count,
    };
    let means = pool.means(resamples, &mut Pcg64::seed_from_u64(seed));
    Some(Difference::new(pool.mean(), means))
}

/// How often a difference as large would come of nothing: twice the smaller share of the resampled
/// means of `pairs` on a side of 0, of the draws that [`paired`] makes its interval of. `None` with
/// fewer than two pairs.
pub fn paired_p(pairs: &[(f64, f64)], resamples: usize, seed: u64) -> Option<f64> {
    if pairs.len() < 2 || resamples == 0 {
        return None;
    }
    let pool = Pool {
        values: pairs.iter().map(|(a, b)| a - b).collect(),
        draws: pairs.len(),
    };
    let means = pool.means(resamples, &mut Pcg64::seed_from_u64(seed));
    let share = |on: &dyn Fn(&f64) -> bool| {
        let count = means.iter().filter(|m| on(m)).count();
        (count + 1) as f64 / (resamples + 1) as f64
    };
    let smaller = share(&|&m| m <= 0.0).min(share(&|&m| m >= 0.0));
    Some((2.0 * smaller).min(1.0))
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
        let (low, high) = (percentile(&means, 0.025), percentile(&means, 0.975));
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
        assert_eq!(paired_p(&far[..1], 1000, 3), None);
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (a, b) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((a - b).abs() < 1e-12, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
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
