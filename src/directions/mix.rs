//! Mixes of directions by what they do: the combination that raises a wish most at a given KL.
//!
//! Near the unsteered model a push by Σ c_j d_j, where d_j is direction j at the strength at which it
//! alone reaches the KL, changes the next token's log-probabilities by about Σ c_j J_j, and the KL by
//! ½ cᵀ F c with F the covariance of the J weighted by the unsteered probabilities. What gains most
//! of a wish with slopes b at one KL is c ∝ (F + ρ·tr(F)/k·I)⁻¹ b. Knows numbers only. Invariant:
//! a mix is the same whatever the length of b.

use super::Mix;
use crate::matrix::cholesky;

/// ρ of a mix of all directions, and of one of a few.
const RIDGE: [f64; 2] = [1.0, 0.1];
/// Of the directions only so many with the largest slopes are tried for a mix of a few.
const TRIED: usize = 60;
/// Directions of a mix of a few.
const FEW: usize = 5;

/// Makes mixes of the same directions for one wish after another.
pub struct Mixer<'a> {
    /// F, k × k.
    f: &'a [f64],
    k: usize,
    /// Of all directions the Cholesky factor of F with its ridge; `None` for a few.
    factor: Option<Vec<f64>>,
}

impl<'a> Mixer<'a> {
    /// For `k` directions whose covariance is `f`; `None` where that is not finite.
    pub fn new(f: &'a [f64], k: usize, mix: Mix) -> Option<Self> {
        if f.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let factor = (mix == Mix::All).then(|| factored(f, k, &Vec::from_iter(0..k), RIDGE[0]));
        Some(Self { f, k, factor })
    }

    /// The weights of all directions, or of the five that gain most, the others' 0.
    pub fn weights(&self, b: &[f64]) -> Vec<f64> {
        if b.iter().all(|&b| b == 0.0) {
            return vec![0.0; self.k];
        }
        let Some(factor) = &self.factor else {
            return of_few(self.f, b, FEW);
        };
        let mut c = b.to_vec();
        cholesky::solve(factor, self.k, &mut c);
        c
    }
}

/// The weights of at most `count` directions, chosen one after the other: each time the one with
/// which the set gains most.
fn of_few(f: &[f64], b: &[f64], count: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..b.len()).collect();
    order.sort_by(|&i, &j| b[j].abs().total_cmp(&b[i].abs()).then(i.cmp(&j)));
    order.truncate(TRIED);
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count.min(order.len()) {
        let mut best: Option<(usize, f64)> = None;
        for &j in order.iter().filter(|j| !chosen.contains(j)) {
            let with: Vec<usize> = chosen.iter().copied().chain([j]).collect();
            let c = solve(f, b, &with);
            let gain = c.iter().zip(b).map(|(c, b)| c * b).sum::<f64>();
            if best.is_none_or(|(_, most)| gain > most) {
                best = Some((j, gain));
            }
        }
        let Some((j, _)) = best else { break };
        chosen.push(j);
    }
    solve(f, b, &chosen)
}

/// The Cholesky factor of F with a ridge of `share` of its mean diagonal, of the directions of
/// `chosen`.
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

/// (F + ridge·I)⁻¹ b over the few directions of `chosen`, 0 for the others.
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
        let few = of_few(&f, &b, 2);
        assert!(
            few[0] != 0.0 && few[2] != 0.0 && few[1] == 0.0 && few[3] == 0.0,
            "{few:?}"
        );
        let longer: Vec<f64> = b.iter().map(|b| 10.0 * b).collect();
        for (a, b) in of_few(&f, &longer, 2).iter().zip(&few) {
            assert!((a - 10.0 * b).abs() < 1e-9);
        }
        assert_eq!(of_few(&f, &b, 1).iter().filter(|c| **c != 0.0).count(), 1);
        assert_eq!(of_few(&f, &b, 9).iter().filter(|c| **c != 0.0).count(), 4);
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
