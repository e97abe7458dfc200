//! Mixes of directions by their effects: the combination that raises wanted tokens most at a given
//! KL divergence.
//!
//! Near the unsteered model, adding Σ c_j d_j, where d_j is direction j at the strength at which it
//! alone reaches the KL, changes the next token's log-probabilities by about Σ c_j J_j, and the KL
//! by ½ cᵀ F c with F the covariance of the J weighted by the unsteered probabilities. If direction
//! j changes the wanted quantity by b_j at its strength, the largest change at a fixed KL has c ∝
//! (F + ρ·tr(F)/k·I)⁻¹ b, with a ridge ρ. Knows numbers only. Invariant: multiplying b by a
//! positive number multiplies the weights by it.

use super::Mix;
use crate::matrix::cholesky;

/// ρ for a mix of all directions, and for a mix of a few.
const RIDGE: [f64; 2] = [1.0, 0.1];
/// The number of directions, those with the largest slopes, that are tried for a mix of a few.
const CANDIDATES: usize = 60;
/// The number of directions of a mix of a few.
const FEW: usize = 5;

/// Computes mixes of the same k directions for several b.
pub struct Mixer<'a> {
    /// F, k × k.
    f: &'a [f64],
    k: usize,
    /// The Cholesky factor of F with its ridge, for a mix of all directions; `None` for a mix of a
    /// few.
    factor: Option<Vec<f64>>,
}

impl<'a> Mixer<'a> {
    /// A mixer of `k` directions with the covariance `f` (k × k); `None` if `f` is not finite.
    pub fn new(f: &'a [f64], k: usize, mix: Mix) -> Option<Self> {
        if f.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let factor = (mix == Mix::All).then(|| factored(f, k, &Vec::from_iter(0..k), RIDGE[0]));
        Some(Self { f, k, factor })
    }

    /// The weights of the k directions for the slopes `b`; in a mix of a few they are 0 except for
    /// the five that gain most.
    pub fn weights(&self, b: &[f64]) -> Vec<f64> {
        if b.iter().all(|&b| b == 0.0) {
            return vec![0.0; self.k];
        }
        let Some(factor) = &self.factor else {
            return greedy_weights(self.f, b, FEW);
        };
        let mut c = b.to_vec();
        cholesky::solve(factor, self.k, &mut c);
        c
    }
}

/// The weights of at most `count` directions, chosen greedily: each time the direction with which
/// the set gains most is added.
fn greedy_weights(f: &[f64], b: &[f64], count: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..b.len()).collect();
    order.sort_by(|&i, &j| b[j].abs().total_cmp(&b[i].abs()).then(i.cmp(&j)));
    order.truncate(CANDIDATES);
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count.min(order.len()) {
        let mut best: Option<(usize, f64)> = None;
        for &j in order.iter().filter(|j| !chosen.contains(j)) {
            let with: Vec<usize> = chosen.iter().copied().chain([j]).collect();
            let c = solve(f, b, &with);
            let gain = c.iter().zip(b).map(|(c, b)| c * b).sum::<f64>();
            if best.is_none_or(|(_, largest)| gain > largest) {
                best = Some((j, gain));
            }
        }
        let Some((j, _)) = best else { break };
        chosen.push(j);
    }
    solve(f, b, &chosen)
}

/// The Cholesky factor of F restricted to the directions `chosen`, with a ridge of `share` times
/// F's mean diagonal.
fn factored(f: &[f64], k: usize, chosen: &[usize], share: f64) -> Vec<f64> {
    let m = chosen.len();
    let trace: f64 = (0..k).map(|i| f[i * k + i]).sum();
    let ridge = share * trace / k.max(1) as f64;
    let rows = chosen.iter();
    let mut a: Vec<f64> = rows
        .flat_map(|&i| chosen.iter().map(move |&j| f[i * k + j]))
        .collect();
    (0..m).for_each(|i| a[i * m + i] += ridge);
    cholesky::factor(&mut a, m, f64::MIN_POSITIVE);
    a
}

/// (F + ridge·I)⁻¹ b restricted to the directions `chosen`; 0 for the others.
fn solve(f: &[f64], b: &[f64], chosen: &[usize]) -> Vec<f64> {
    let factor = factored(f, b.len(), chosen, RIDGE[1]);
    let mut c: Vec<f64> = chosen.iter().map(|&j| b[j]).collect();
    cholesky::solve(&factor, chosen.len(), &mut c);
    let mut out = vec![0.0; b.len()];
    chosen.iter().zip(c).for_each(|(&j, c)| out[j] = c);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_solves_its_equation_and_a_few_gain_most() {
        // Directions 0 and 1 do the same; 2 does something else; 3 nothing that is wanted.
        let f = [
            1.0, 0.99, 0.0, 0.1, 0.99, 1.0, 0.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.1, 0.1, 0.0, 1.0,
        ];
        let b = [1.0, 0.98, 0.7, 0.0];
        let all = Mixer::new(&f, 4, Mix::All).unwrap();
        let c = all.weights(&b);
        for i in 0..4 {
            let row: f64 = (0..4).map(|j| f[i * 4 + j] * c[j]).sum();
            assert!(
                (row + c[i] - b[i]).abs() < 1e-12,
                "row {i}: ridge is the mean of F's diagonal"
            );
        }
        let few = greedy_weights(&f, &b, 2);
        assert!(
            few[0] != 0.0 && few[2] != 0.0 && few[1] == 0.0 && few[3] == 0.0,
            "{few:?}"
        );
        let longer: Vec<f64> = b.iter().map(|b| 10.0 * b).collect();
        for (a, b) in greedy_weights(&f, &longer, 2).iter().zip(&few) {
            assert!((a - 10.0 * b).abs() < 1e-9);
        }
        assert_eq!(
            greedy_weights(&f, &b, 1)
                .iter()
                .filter(|c| **c != 0.0)
                .count(),
            1
        );
        assert_eq!(
            greedy_weights(&f, &b, 9)
                .iter()
                .filter(|c| **c != 0.0)
                .count(),
            4
        );
        assert_eq!(all.weights(&[0.0; 4]), [0.0; 4]);
    }

    #[test]
    fn a_covariance_that_is_not_finite_gives_no_weights() {
        for bad in [f64::NAN, f64::INFINITY] {
            for kind in [Mix::All, Mix::Five] {
                assert!(Mixer::new(&[1.0, bad, bad, 1.0], 2, kind).is_none());
            }
        }
    }
}
