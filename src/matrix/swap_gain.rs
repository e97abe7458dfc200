//! Worth of features at a neuron beside those that are there: of all features at once, a vector of
//! them at a time.
//!
//! With G = YᵀY, S the features of a neuron and r what is left of its AᵀY, feature j beside S
//! lowers the squared error by r_j² / (G_jj − G_jS G_SS⁻¹ G_Sj): the divisor is what of j is its
//! own. In f32, to find the few that are worth an exact look.

use super::residual::GramRows;
use super::simd::{Vector, WIDTH, kernel};

/// Neurons that [`transpose_neurons`] turns at once.
pub const NEURONS_PER_BLOCK: usize = WIDTH;
/// Features in S at most.
pub const MAX_SUPPORT: usize = 24;
/// An entry of which no more than this share of G_jj is its own is not looked at.
pub const MIN_SCHUR_SHARE: f64 = 0.1;

/// G, and what a feature must gain at least.
#[derive(Debug)]
pub struct SwapCriterion<'g> {
    gram: &'g GramRows,
    /// The diagonal of G.
    own: Vec<f32>,
    /// What entries must gain more than; the largest number for features that take none.
    least: Vec<f32>,
}

/// A feature that a neuron would gain from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The feature.
    pub feature: u32,
    /// What is left of its AᵀY at the neuron.
    pub left: f32,
    /// What of G_jj is its own.
    pub own: f32,
}

/// One neuron: what it has. Entries are features and the positions of their values.
#[derive(Debug, Clone, Copy)]
pub struct NeuronSupport<'n> {
    /// All its entries.
    pub entries: &'n [(u32, u32)],
    /// The values of all neurons.
    pub values: &'n [f32],
    /// The entries of S, those of its features that others stand beside.
    pub beside: &'n [(u32, u32)],
    /// L by rows with G_SS = LLᵀ, each row's diagonal inverted.
    pub factor: &'n [f64],
}

impl<'g> SwapCriterion<'g> {
    /// Of a gain for each feature.
    pub fn new(gram: &'g GramRows, least: &[f64]) -> Self {
        let mut own: Vec<f32> = (0..least.len()).map(|j| gram.row(j)[j]).collect();
        // Finite, so that nothing of nothing stays nothing.
        let mut least: Vec<f32> = least
            .iter()
            .map(|&v| v.min(f64::from(f32::MAX)) as f32)
            .collect();
        own.resize(gram.width(), 0.0);
        least.resize(gram.width(), f32::MAX);
        Self { gram, own, least }
    }

    /// Values of a line of features.
    pub fn width(&self) -> usize {
        self.gram.width()
    }
}

kernel! {
    /// Turns [`WIDTH`] neurons from `first` on of `products` `[k][d]` to lines of features,
    /// `[WIDTH][width]`; what is beyond the neurons or the features is zero.
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
                // The next call's, of so many lines that nothing else foresees them.
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
    /// Pushes the features outside S that would gain more than is asked, in order; `r` is the
    /// neuron's AᵀY.
    pub fn find_candidates(found: &mut Vec<Candidate>, r: &[f32], neuron: NeuronSupport<'_>, field: &SwapCriterion<'_>) = find_candidates_body;
}

#[inline(always)]
fn find_candidates_body<V: Vector>(
    found: &mut Vec<Candidate>,
    r: &[f32],
    neuron: NeuronSupport<'_>,
    field: &SwapCriterion<'_>,
) {
    let (width, zero) = (field.own.len(), V::splat(0.0));
    let mut x = [zero; MAX_SUPPORT];
    for at in (0..width).step_by(WIDTH) {
        let mut left = V::load(&r[at..]);
        for &(j, position) in neuron.entries {
            let z = V::splat(neuron.values[position as usize]);
            left = left.sub_product(V::load(&field.gram.row(j as usize)[at..]), z);
        }
        let whole = V::load(&field.own[at..]);
        let (mut own, mut row) = (whole, 0);
        for (i, &(j, _)) in neuron.beside.iter().enumerate() {
            let mut v = V::load(&field.gram.row(j as usize)[at..]);
            for (l, x) in neuron.factor[row..row + i].iter().zip(&x) {
                v = v.sub_product(*x, V::splat(*l as f32));
            }
            x[i] = v.mul(V::splat(neuron.factor[row + i] as f32));
            own = own.sub_product(x[i], x[i]);
            row += i + 1;
        }
        // Both must be above zero: what is its own beyond a share, and what it gains beyond what is
        // asked, times its own.
        let enough = own.sub_product(whole, V::splat(MIN_SCHUR_SHARE as f32));
        let beyond = left.mul(left).sub_product(V::load(&field.least[at..]), own);
        let short = zero.sub(enough).max(zero.sub(beyond));
        let mut values = [0.0; WIDTH];
        short.store(&mut values);
        if values.iter().fold(false, |any, v| any | (*v < 0.0)) {
            let [mut left_values, mut own_values] = [[0.0; WIDTH]; 2];
            left.store(&mut left_values);
            own.store(&mut own_values);
            for t in (0..WIDTH).filter(|&t| values[t] < 0.0) {
                found.push(Candidate {
                    feature: (at + t) as u32,
                    left: left_values[t],
                    own: own_values[t],
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
        let mut least = vec![0.0; k];
        (least[2], least[5]) = (f64::INFINITY, 0.7);
        let weights = GramRows::new(&gram, k);
        let field = SwapCriterion::new(&weights, &least);
        let (entries, values) = ([(3, 2), (7, 0), (11, 1)], [-0.25f32, 0.125, 0.5]);
        // The factor of two features, and what they leave of a third.
        let g = |a: usize, b: usize| gram[a * k + b];
        let first = g(3, 3).sqrt();
        let below = g(11, 3) / first;
        let second = (g(11, 11) - below * below).sqrt();
        let (beside, factor) = ([(3, 2), (11, 1)], [1.0 / first, below, 1.0 / second]);
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
            let mut r = vec![f32::NAN; WIDTH * field.width()];
            transpose(&mut r, &products, d, begin);
            let r = &r[(neuron - begin) * field.width()..][..field.width()];
            let neuron_of = NeuronSupport {
                entries: &entries,
                values: &values,
                beside: &beside,
                factor: &factor,
            };
            let mut found = Vec::new();
            find(&mut found, r, neuron_of, &field);
            let mut want = Vec::new();
            for j in 0..k {
                let taken: f64 = entries
                    .iter()
                    .map(|&(l, p): &(u32, u32)| f64::from(values[p as usize]) * g(l as usize, j))
                    .sum();
                let left = f64::from(products[j * d + neuron]) - taken;
                let x = g(3, j) / first;
                let own = g(j, j) - x * x - ((g(11, j) - below * x) / second).powi(2);
                if own > MIN_SCHUR_SHARE * g(j, j) && left * left / own > least[j] {
                    want.push((j as u32, left, own));
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
                        && close(found.left, want.1)
                        && close(found.own, want.2)
                );
            }
        }
    }
}
