//! Schur-complement gain of adding a feature to a neuron's support, for all features at once.
//!
//! With G = YᵀY, S the features in the neuron's support and r_j the residual of feature j's entry
//! of AᵀY at the neuron (AᵀY − Z G), adding j to S and refitting lowers the squared error by r_j² /
//! (G_jj − G_jS G_SS⁻¹ G_Sj). The divisor is the Schur complement of G_SS: the part of ‖y_j‖² that
//! the columns of Y in S do not explain. Computed in f32, since it only selects the few candidates
//! that [`crate::factor`] then evaluates in f64.

use super::residual::GramRows;
use super::simd::{Vector, WIDTH, kernel};

/// The number of neurons of one call of [`transpose_neurons`]: a square of vectors is transposed in
/// registers.
pub const NEURONS_PER_BLOCK: usize = WIDTH;
/// The largest number of features in S: the intermediate vectors of the forward substitution are
/// kept in an array of this length.
pub const MAX_SUPPORT: usize = 24;
/// The smallest Schur complement of a candidate, relative to G_jj. Below it feature j is nearly a
/// combination of S, and its gain would be a small residual divided by a rounding error.
pub const MIN_SCHUR_SHARE: f64 = 0.1;

/// G, and the gain that each feature must exceed to become a candidate.
#[derive(Debug)]
pub struct SwapCriterion<'g> {
    gram: &'g GramRows,
    /// G_jj, padded with zeros.
    diagonal: Vec<f32>,
    /// The gain that feature j must exceed; `f32::MAX` for a feature that may not get new entries.
    threshold: Vec<f32>,
}

/// A feature whose addition to a neuron's support would lower the error by more than its threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Index j of the feature.
    pub feature: u32,
    /// r_j, the residual of AᵀY at the neuron.
    pub residual: f32,
    /// G_jj − G_jS G_SS⁻¹ G_Sj.
    pub schur: f32,
}

/// The entries of one neuron, each a feature and the position of its value, and the factor of G on
/// its support.
#[derive(Debug, Clone, Copy)]
pub struct NeuronSupport<'n> {
    /// All entries of the neuron, those of locked features included.
    pub entries: &'n [(u32, u32)],
    /// The values of all entries of Z, which the positions index.
    pub values: &'n [f32],
    /// The entries of S: those that may be refitted when a feature is added.
    pub support: &'n [(u32, u32)],
    /// L by rows with G_SS = LLᵀ; each row's diagonal is stored inverted, so that substitution
    /// multiplies where it would divide.
    pub factor: &'n [f64],
}

impl<'g> SwapCriterion<'g> {
    /// The criterion for k features; `threshold` holds the gain that each must exceed, infinite for
    /// a feature that may not get new entries.
    pub fn new(gram: &'g GramRows, threshold: &[f64]) -> Self {
        let mut diagonal: Vec<f32> = (0..threshold.len()).map(|j| gram.row(j)[j]).collect();
        // Finite, because the threshold is multiplied by a Schur complement that may be 0, and 0 times
        // infinity is not a number.
        let mut threshold: Vec<f32> = threshold
            .iter()
            .map(|&v| v.min(f64::from(f32::MAX)) as f32)
            .collect();
        diagonal.resize(gram.width(), 0.0);
        threshold.resize(gram.width(), f32::MAX);
        Self {
            gram,
            diagonal,
            threshold,
        }
    }

    /// k rounded up to whole vectors.
    pub fn width(&self) -> usize {
        self.gram.width()
    }
}

kernel! {
    /// Transposes the columns `first..first + WIDTH` of `products` `[k][d]` into `out`
    /// `[WIDTH][width]`, a line of features for each neuron; entries beyond d or k are zero.
    pub fn transpose_neurons(out: &mut [f32], products: &[f32], d: usize, first: usize) = transpose_neurons_body;
}

#[inline(always)]
fn transpose_neurons_body<V: Vector>(out: &mut [f32], products: &[f32], d: usize, first: usize) {
    let (k, width, count) = (products.len() / d, out.len() / WIDTH, WIDTH.min(d - first));
    for j in (0..k).step_by(WIDTH) {
        let mut square = [V::splat(0.0); WIDTH];
        for (t, line) in square.iter_mut().enumerate().take(k - j) {
            let from = &products[(j + t) * d + first..];
            if count == WIDTH {
                // Prefetches the values of the next call: the k lines are too many streams for the
                // hardware prefetcher.
                V::prefetch(from.as_ptr().wrapping_add(WIDTH));
                *line = V::load(from);
            } else {
                let mut padded = [0.0; WIDTH];
                padded[..count].copy_from_slice(&from[..count]);
                *line = V::load(&padded);
            }
        }
        for (i, line) in V::transpose(square).iter().enumerate() {
            line.store(&mut out[i * width + j..]);
        }
    }
}

kernel! {
    /// Appends to `found`, in ascending order, the features outside S whose gain exceeds their
    /// threshold and whose Schur complement is at least [`MIN_SCHUR_SHARE`] of G_jj; `r` is the
    /// neuron's line of AᵀY.
    pub fn find_candidates(found: &mut Vec<Candidate>, r: &[f32], neuron: NeuronSupport<'_>, criterion: &SwapCriterion<'_>) = find_candidates_body;
}

#[inline(always)]
fn find_candidates_body<V: Vector>(
    found: &mut Vec<Candidate>,
    r: &[f32],
    neuron: NeuronSupport<'_>,
    criterion: &SwapCriterion<'_>,
) {
    let (width, zero) = (criterion.diagonal.len(), V::splat(0.0));
    let mut x = [zero; MAX_SUPPORT];
    for at in (0..width).step_by(WIDTH) {
        // r − Gz over the neuron's entries.
        let mut residual = V::load(&r[at..]);
        for &(j, position) in neuron.entries {
            let z = V::splat(neuron.values[position as usize]);
            residual = residual.sub_product(V::load(&criterion.gram.row(j as usize)[at..]), z);
        }
        // Forward substitution with L for WIDTH right-hand sides G_Sj at once; the squares of the
        // solution are what S explains of G_jj.
        let diagonal = V::load(&criterion.diagonal[at..]);
        let (mut schur, mut row) = (diagonal, 0);
        for (i, &(j, _)) in neuron.support.iter().enumerate() {
            let mut v = V::load(&criterion.gram.row(j as usize)[at..]);
            for (l, x) in neuron.factor[row..row + i].iter().zip(&x) {
                v = v.sub_product(*x, V::splat(*l as f32));
            }
            x[i] = v.mul(V::splat(neuron.factor[row + i] as f32));
            schur = schur.sub_product(x[i], x[i]);
            row += i + 1;
        }
        // Both differences of a candidate are above zero. The gain is compared after multiplying by
        // the Schur complement, which spares a division for the many features that fail.
        let schur_excess = schur.sub_product(diagonal, V::splat(MIN_SCHUR_SHARE as f32));
        let gain_excess = residual
            .mul(residual)
            .sub_product(V::load(&criterion.threshold[at..]), schur);
        let shortfall = zero.sub(schur_excess).max(zero.sub(gain_excess));
        let mut values = [0.0; WIDTH];
        shortfall.store(&mut values);
        if values.iter().fold(false, |any, v| any | (*v < 0.0)) {
            let [mut residual_values, mut schur_values] = [[0.0; WIDTH]; 2];
            residual.store(&mut residual_values);
            schur.store(&mut schur_values);
            for t in (0..WIDTH).filter(|&t| values[t] < 0.0) {
                found.push(Candidate {
                    feature: (at + t) as u32,
                    residual: residual_values[t],
                    schur: schur_values[t],
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::simd::Portable;
    #[cfg(target_arch = "x86_64")]
    use crate::matrix::simd::x86::Avx2;

    type Transpose = fn(&mut [f32], &[f32], usize, usize);
    type Find = fn(&mut Vec<Candidate>, &[f32], NeuronSupport<'_>, &SwapCriterion<'_>);

    #[test]
    fn features_are_found_by_the_formula() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f64 / 1000.0 - 0.3;
        let (n, k, d) = (40, 19, 21);
        let (y, a): (Vec<f64>, Vec<f64>) = (
            (0..n * k).map(value).collect(),
            (0..n * d).map(|i| value(i + 3)).collect(),
        );
        let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
        let gram: Vec<f64> = (0..k * k)
            .map(|e| sum(&|r| y[r * k + e / k] * y[r * k + e % k]))
            .collect();
        let products: Vec<f32> = (0..k * d)
            .map(|e| sum(&|r| y[r * k + e / d] * a[r * d + e % d]) as f32)
            .collect();
        let mut threshold = vec![0.0; k];
        (threshold[2], threshold[5]) = (f64::INFINITY, 0.7);
        let weights = GramRows::new(&gram, k);
        let criterion = SwapCriterion::new(&weights, &threshold);
        let (entries, values) = ([(3, 2), (7, 0), (11, 1)], [-0.25f32, 0.125, 0.5]);
        // The factor of two features, and what they leave of a third.
        let g = |a: usize, b: usize| gram[a * k + b];
        let first = g(3, 3).sqrt();
        let below = g(11, 3) / first;
        let second = (g(11, 11) - below * below).sqrt();
        let (support, factor) = ([(3, 2), (11, 1)], [1.0 / first, below, 1.0 / second]);
        let mut forms: Vec<(Transpose, Find)> = vec![
            (transpose_neurons, find_candidates),
            (
                transpose_neurons_body::<Portable>,
                find_candidates_body::<Portable>,
            ),
        ];
        #[cfg(target_arch = "x86_64")]
        if crate::matrix::simd::has_avx2() {
            forms.push((transpose_neurons_body::<Avx2>, find_candidates_body::<Avx2>));
        }
        for (neuron, (transpose, find)) in [0, 13, 17, 20]
            .into_iter()
            .flat_map(|i| forms.iter().map(move |f| (i, *f)))
        {
            let begin = neuron / WIDTH * WIDTH;
            let mut r = vec![f32::NAN; WIDTH * criterion.width()];
            transpose(&mut r, &products, d, begin);
            let r = &r[(neuron - begin) * criterion.width()..][..criterion.width()];
            let support_of_neuron = NeuronSupport {
                entries: &entries,
                values: &values,
                support: &support,
                factor: &factor,
            };
            let mut found = Vec::new();
            find(&mut found, r, support_of_neuron, &criterion);
            let mut want = Vec::new();
            for j in 0..k {
                let taken: f64 = entries
                    .iter()
                    .map(|&(l, p): &(u32, u32)| f64::from(values[p as usize]) * g(l as usize, j))
                    .sum();
                let residual = f64::from(products[j * d + neuron]) - taken;
                let x = g(3, j) / first;
                let schur = g(j, j) - x * x - ((g(11, j) - below * x) / second).powi(2);
                if schur > MIN_SCHUR_SHARE * g(j, j) && residual * residual / schur > threshold[j] {
                    want.push((j as u32, residual, schur));
                }
            }
            assert!(
                want.len() > 5 && !want.iter().any(|w| [2, 3, 11].contains(&w.0)),
                "{want:?}"
            );
            assert_eq!(
                found.len(),
                want.len(),
                "neuron {neuron}: {found:?} {want:?}"
            );
            for (found, want) in found.iter().zip(&want) {
                let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-4 * (1.0 + b.abs());
                assert!(
                    found.feature == want.0
                        && close(found.residual, want.1)
                        && close(found.schur, want.2)
                );
            }
        }
    }
}
