//! Mixes of directions by what they do: the combination that raises a wish most at a given KL.
//!
//! Near the unsteered model a push by Σ c_j d_j, where d_j is direction j at the strength at which it
//! alone reaches the KL, changes the next token's log-probabilities by about Σ c_j J_j, and the KL by
//! ½ cᵀ F c with F the covariance of the J weighted by the unsteered probabilities. What gains most
//! of a wish with slopes b at one KL is c ∝ (F + ρ·tr(F)/k·I)⁻¹ b. Knows numbers only. Invariant:
//! a mix is the same whatever the length of b.

use crate::matrix::cholesky;

/// ρ of a mix of all directions, and of one of a few.
const RIDGE: [f64; 2] = [1.0, 0.1];
/// Of the directions only so many with the largest slopes are tried for a mix of a few.
const TRIED: usize = 60;

/// The weights of all directions; `f` is k × k.
pub fn of_all(f: &[f64], b: &[f64]) -> Vec<f64> {
    solve(
        f,
        b,
        &(0..b.len()).collect::<Vec<_>>(),
        ridge(f, b.len(), RIDGE[0]),
    )
}

/// The weights of at most `count` directions, chosen one after the other: each time the one with
/// which the set gains most.
pub fn of_few(f: &[f64], b: &[f64], count: usize) -> Vec<f64> {
    let k = b.len();
    let ridge = ridge(f, k, RIDGE[1]);
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&i, &j| b[j].abs().total_cmp(&b[i].abs()).then(i.cmp(&j)));
    order.truncate(TRIED);
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count.min(order.len()) {
        let mut best: Option<(usize, f64)> = None;
        for &j in order.iter().filter(|j| !chosen.contains(j)) {
            let with: Vec<usize> = chosen.iter().copied().chain([j]).collect();
            let c = solve(f, b, &with, ridge);
            let gain = c.iter().zip(b).map(|(c, b)| c * b).sum::<f64>();
            if best.is_none_or(|(_, most)| gain > most) {
                best = Some((j, gain));
            }
        }
        let Some((j, _)) = best else { break };
        chosen.push(j);
    }
    solve(f, b, &chosen, ridge)
}

fn ridge(f: &[f64], k: usize, share: f64) -> f64 {
    let trace: f64 = (0..k).map(|i| f[i * k + i]).sum();
    share * trace / k.max(1) as f64
}

/// (F + ridge·I)⁻¹ b over the directions of `chosen`, 0 for the others.
fn solve(f: &[f64], b: &[f64], chosen: &[usize], ridge: f64) -> Vec<f64> {
    let (k, m) = (b.len(), chosen.len());
    let mut a: Vec<f64> = chosen
        .iter()
        .flat_map(|&i| chosen.iter().map(move |&j| f[i * k + j]))
        .collect();
    (0..m).for_each(|i| a[i * m + i] += ridge);
    let mut c: Vec<f64> = chosen.iter().map(|&j| b[j]).collect();
    cholesky::factor(&mut a, m, f64::MIN_POSITIVE);
    cholesky::solve(&a, m, &mut c);
    let mut out = vec![0.0; k];
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
        let c = of_all(&f, &b);
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
    }
}
