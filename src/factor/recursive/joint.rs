//! Joint fine-tuning of all levels (recursive SNMF: Shafran, Geiger, Geva, arXiv 2506.10920;
//! `guide/method.md`): each level was fitted to the features below it alone; Adam then moves all of
//! them to lower the error of the activations themselves.
//!
//! With W_l = Y₂ ⋯ Y_l, level l leaves E_l = ‖A − Y₁ W_l Z_lᵀ‖² / ‖A‖². ΣE_l is lowered over Y₂ …
//! Y_L ≥ 0 and over the values of Z_l on their supports; Y₁ and Z₁, the fit itself, do not change.
//! Of A only Y₁ᵀA, Y₁ᵀY₁ and ‖A‖² are needed, so it is read once. Knows nothing of how levels were
//! found.

use std::borrow::Cow;

use rayon::prelude::*;

use super::Level;
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::stream::Stream;
use crate::factor::{Factors, SparseColumns, safe_scale};
use crate::matrix::adam::Adam;
use crate::matrix::dense;
use crate::matrix::gemm::{View, product};
use crate::matrix::vector::{dot, norm, squared_norm};
use crate::task::{Progress, TaskCtx};

/// The number of Adam steps, over which the learning rate falls linearly to zero.
const STEPS: u64 = 200;
/// The learning rate of the first step.
const RATE: f64 = 1e-3;

/// The products of the fit and its activations that all levels need.
struct FitProducts {
    /// k₁, the features of the fit.
    k: usize,
    /// Y₁ᵀY₁, k₁ × k₁; like the other fields multiplied by the square of a power of two.
    gram: Vec<f32>,
    /// AᵀY₁, d × k₁.
    products: Vec<f32>,
    /// ‖A − centre‖² (‖A‖² for a fit without a centre).
    centred_square: f64,
    /// ‖A‖².
    square: f64,
}

/// A level during the optimisation, with the product W_l of all coefficients up to it.
struct LevelState {
    z: SparseColumns,
    /// Y_l by feature: k_l × k_{l−1}.
    y: Vec<f32>,
    /// W_l by feature: k_l × k₁.
    w: Vec<f32>,
}

/// The gradient of ΣE_l with respect to W_l, Y_l and the values of Z_l, or a moment of it.
#[derive(Clone, Default)]
struct Gradient {
    w: Vec<f32>,
    y: Vec<f32>,
    z: Vec<f32>,
}

/// Moves all levels together; ΣE_l does not rise. Returns E_l of each level before and after.
///
/// # Errors
/// [`Error::Refused`] for activations that are not those of the fit; errors of the source;
/// [`Error::Cancelled`], after which the levels are as before.
pub fn tune(
    fit: &Factors,
    source: &dyn ActivationSource,
    levels: &mut [Level],
    ctx: &TaskCtx,
) -> Result<Vec<(f64, f64)>> {
    let target = FitProducts::read(fit, source, ctx)?;
    let mut states = level_states(levels);
    let mut moments = vec![(Gradient::default(), Gradient::default()); levels.len()];
    let mut best: Option<(f64, Vec<f64>, Vec<LevelState>)> = None;
    let mut before = Vec::new();
    for step in 0..=STEPS {
        ctx.checkpoint(Progress::new(
            "tuning the levels together",
            step,
            STEPS,
            "steps",
        ))?;
        let (gradients, errors) = gradients(&mut states, &target);
        let sum: f64 = errors.iter().sum();
        if best.as_ref().is_none_or(|b| sum < b.0) {
            let copy = states
                .iter()
                .map(|d| LevelState {
                    z: d.z.clone(),
                    y: d.y.clone(),
                    w: Vec::new(),
                })
                .collect();
            best = Some((sum, errors.clone(), copy));
        }
        if step == 0 {
            before = errors;
        }
        let adam = Adam::for_step(step + 1, (RATE * (1.0 - step as f64 / STEPS as f64)) as f32);
        for ((state, gradient), (first, second)) in
            states.iter_mut().zip(&gradients).zip(&mut moments)
        {
            state.adam_step(gradient, first, second, &adam);
        }
    }
    let (_, after, states) = best.ok_or_else(|| Error::refused("there are no levels to tune"))?;
    write_back(levels, states, &fit.features);
    Ok(before.into_iter().zip(after).collect())
}

impl FitProducts {
    /// Computes the products in one pass over the rows of the fit.
    fn read(fit: &Factors, source: &dyn ActivationSource, ctx: &TaskCtx) -> Result<Self> {
        let (k, n, d) = (
            fit.features.columns(),
            fit.coefficients.rows,
            fit.features.rows,
        );
        if source.shape().0 < n || source.shape().1 != d {
            return Err(Error::refused(format!(
                "the fit has {n} rows of {d} neurons, the activations {:?}: levels are tuned on the fit's own rows",
                source.shape()
            )));
        }
        let mut stream = Stream::new(source);
        // Coefficients are as large as rows; both are multiplied by a power of two that keeps their
        // products in single precision.
        let y = fit.coefficients.as_slice();
        let lines: Vec<f64> = y.par_chunks(n.max(1)).map(squared_norm).collect();
        let scale = safe_scale((lines.iter().sum::<f64>() / n.max(1) as f64).sqrt());
        stream.preprocessing.scaling.scale = scale;
        let y: Cow<'_, [f32]> = if scale == 1.0 {
            Cow::Borrowed(y)
        } else {
            y.iter().map(|v| v * scale).collect::<Vec<_>>().into()
        };
        let (mut gram, mut scratch) = (vec![0f64; k * k], Vec::new());
        let (mut products, mut square) = (vec![0f32; k * d], 0f64);
        stream.for_each_block(ctx, |range, block| {
            let rows = range.end.min(n).saturating_sub(range.start);
            if rows == 0 {
                return Ok(());
            }
            let (a, y) = (&block.data[..rows * d], &y[range.start..]);
            square += a
                .par_chunks(d)
                .map(squared_norm)
                .collect::<Vec<f64>>()
                .iter()
                .sum::<f64>();
            dense::accumulate_products(&mut products, a, d, y, n, k);
            dense::accumulate_gram(&mut gram, &mut scratch, y, n, rows, k);
            Ok(())
        })?;
        dense::copy_upper_to_lower(&mut gram, k);
        let mut products: Vec<f32> = (0..d)
            .flat_map(|i| (0..k).map(move |j| (i, j)))
            .map(|(i, j)| products[j * d + i])
            .collect();
        let mut centred_square = square;
        if let Some(centre) = &fit.coding.centre {
            // The centre is the mean row, so ‖A − centre‖² = ‖A‖² − n‖centre‖².
            let centre: Vec<f32> = centre.iter().map(|c| c * scale).collect();
            centred_square -= n as f64 * squared_norm(&centre);
            let totals: Vec<f64> = y
                .chunks(n.max(1))
                .map(|line| line.iter().map(|&y| f64::from(y)).sum())
                .collect();
            for (line, &c) in products.chunks_exact_mut(k).zip(centre.iter()) {
                line.iter_mut()
                    .zip(&totals)
                    .for_each(|(p, t)| *p -= (f64::from(c) * t) as f32);
            }
        }
        let gram = gram.into_iter().map(|v| v as f32).collect();
        Ok(Self {
            k,
            gram,
            products,
            centred_square,
            square,
        })
    }
}

fn level_states(levels: &[Level]) -> Vec<LevelState> {
    levels
        .iter()
        .map(|l| LevelState {
            z: l.features.clone(),
            y: l.coefficients.clone(),
            w: Vec::new(),
        })
        .collect()
}

/// Computes W_l of every level, over the `first` features of the fit.
fn update_products(states: &mut [LevelState], first: usize) {
    for l in 0..states.len() {
        let (below, rest) = states.split_at_mut(l);
        let state = &mut rest[0];
        state.w = match below.last() {
            None => state.y.clone(),
            Some(below) => {
                let (k, finer) = (state.z.columns(), below.z.columns());
                let mut w = vec![0.0; k * first];
                let (y, from) = (View::rows(&state.y, finer), View::rows(&below.w, first));
                product((k, finer, first), y, from, &mut w, first, false, true);
                w
            }
        };
    }
}

/// The gradient of ΣE_l for every level, and every E_l.
fn gradients(states: &mut [LevelState], fit: &FitProducts) -> (Vec<Gradient>, Vec<f64>) {
    update_products(states, fit.k);
    let (mut gradients, errors): (Vec<Gradient>, Vec<f64>) =
        states.iter().map(|state| state.gradient(fit)).unzip();
    // W_l = Y_l W_{l−1} (by feature): the gradient with respect to W_l is passed on to both
    // factors.
    for l in (0..states.len()).rev() {
        let k = states[l].z.columns();
        let (finer, rest) = gradients.split_at_mut(l);
        let gradient = &mut rest[0];
        let Some(finer) = finer.last_mut() else {
            gradient.y.clone_from(&gradient.w);
            continue;
        };
        let below = &states[l - 1];
        let columns = below.z.columns();
        gradient.y = vec![0.0; k * columns];
        let by_w = View::rows(&gradient.w, fit.k);
        product(
            (k, fit.k, columns),
            by_w,
            View::transposed(&below.w, fit.k),
            &mut gradient.y,
            columns,
            false,
            true,
        );
        let y = View::transposed(&states[l].y, columns);
        product(
            (columns, k, fit.k),
            y,
            by_w,
            &mut finer.w,
            fit.k,
            true,
            true,
        );
    }
    (gradients, errors)
}

impl LevelState {
    /// The gradient of E_l with respect to W_l and to Z_l on its support, multiplied by k₁ so that
    /// Adam's ε stays far below it; and E_l.
    fn gradient(&self, fit: &FitProducts) -> (Gradient, f64) {
        let (k, first) = (self.z.columns(), fit.k);
        let scale = (2.0 * first as f64 / fit.square) as f32;
        let mut by_gram = vec![0.0; k * first];
        product(
            (k, first, first),
            View::rows(&self.w, first),
            View::rows(&fit.gram, first),
            &mut by_gram,
            first,
            false,
            true,
        );
        let mut square = vec![0.0; k * k];
        product(
            (k, first, k),
            View::rows(&by_gram, first),
            View::transposed(&self.w, first),
            &mut square,
            k,
            false,
            true,
        );
        // For each feature: z_jᵀZ, z_jᵀAᵀY₁, and the gradient with respect to z_j.
        let rows: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = (0..k)
            .into_par_iter()
            .map(|j| self.feature_gradient(j, fit, &square[j * k..(j + 1) * k]))
            .collect();
        let mut gradient = Gradient {
            w: vec![0.0; k * first],
            ..Gradient::default()
        };
        let (mut across, mut cosines) = (0f64, Vec::with_capacity(k * k));
        for (j, (cosine, projection, z)) in rows.iter().enumerate() {
            across += dot(&self.w[j * first..(j + 1) * first], projection);
            cosines.extend_from_slice(cosine);
            gradient.w[j * first..(j + 1) * first]
                .iter_mut()
                .zip(projection)
                .for_each(|(s, v)| *s = -v);
            gradient.z.extend(z.iter().map(|v| v * scale));
        }
        let (cosine, by_gram) = (View::rows(&cosines, k), View::rows(&by_gram, first));
        product(
            (k, k, first),
            cosine,
            by_gram,
            &mut gradient.w,
            first,
            true,
            true,
        );
        gradient.w.iter_mut().for_each(|v| *v *= scale);
        let error = (fit.centred_square - 2.0 * across + dot(&square, &cosines)) / fit.square;
        (gradient, error)
    }

    /// Returns z_jᵀZ (k values), z_jᵀAᵀY₁ (k₁ values), and the gradient with respect to z_j on its
    /// support, for row j of WᵀY₁ᵀY₁W (`square`).
    fn feature_gradient(
        &self,
        j: usize,
        fit: &FitProducts,
        square: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let first = fit.k;
        let (indices, values) = self.z.column(j);
        let column = self.z.dense_column(j);
        let mut sum = vec![0.0f32; self.z.rows];
        let mut cosine = Vec::with_capacity(square.len());
        for (m, &s) in square.iter().enumerate() {
            let (at, v) = self.z.column(m);
            cosine.push(at.iter().zip(v).map(|(&i, v)| column[i as usize] * v).sum());
            at.iter()
                .zip(v)
                .for_each(|(&i, v)| sum[i as usize] += s * v);
        }
        let mut projection = vec![0.0f32; first];
        let w = &self.w[j * first..(j + 1) * first];
        let entry_gradient = |(&i, &v): (&u32, &f32)| {
            let line = &fit.products[i as usize * first..(i as usize + 1) * first];
            projection
                .iter_mut()
                .zip(line)
                .for_each(|(t, p)| *t += v * p);
            sum[i as usize] - dot(w, line) as f32
        };
        let gradient = indices.iter().zip(values).map(entry_gradient).collect();
        (cosine, projection, gradient)
    }

    /// One Adam step on Y_l, projected on Y_l ≥ 0, and on the values of Z_l; `first` and `second` are
    /// the moments.
    fn adam_step(
        &mut self,
        gradient: &Gradient,
        first: &mut Gradient,
        second: &mut Gradient,
        adam: &Adam,
    ) {
        for moment in [&mut *first, &mut *second] {
            moment.y.resize(self.y.len(), 0.0);
            moment.z.resize(self.z.values.len(), 0.0);
        }
        adam.update(&mut self.y, &mut first.y, &mut second.y, &gradient.y);
        self.y.iter_mut().for_each(|y| *y = y.max(0.0));
        adam.update(&mut self.z.values, &mut first.z, &mut second.z, &gradient.z);
    }
}

/// Stores the levels with unit features, whose norms are moved into Y_l and out of Y_{l+1}, and
/// with the relative error that each level now has on the features below it.
fn write_back(levels: &mut [Level], states: Vec<LevelState>, first: &SparseColumns) {
    let mut scales = vec![1.0f32; first.columns()];
    for (l, state) in states.into_iter().enumerate() {
        let LevelState { mut z, mut y, .. } = state;
        let below = scales.len();
        let mut norms = Vec::with_capacity(z.columns());
        for j in 0..z.columns() {
            let span = z.offsets[j]..z.offsets[j + 1];
            let norm = norm(&z.values[span.clone()]) as f32;
            // A feature without weights keeps its scale.
            let norm = if norm > 0.0 { norm } else { 1.0 };
            z.values[span].iter_mut().for_each(|v| *v /= norm);
            y[j * below..(j + 1) * below]
                .iter_mut()
                .zip(&scales)
                .for_each(|(y, s)| *y *= norm / s);
            norms.push(norm);
        }
        scales = norms;
        levels[l].features = z;
        levels[l].coefficients = y;
        let finer = if l == 0 {
            first
        } else {
            &levels[l - 1].features
        };
        levels[l].relative_error = relative_error(finer, &levels[l]);
    }
}

/// ‖Z_{l−1}ᵀ − Y_l Z_lᵀ‖² / ‖Z_{l−1}‖², in f64.
fn relative_error(finer: &SparseColumns, level: &Level) -> f64 {
    let squared_residual = |i: usize| {
        let mut residual: Vec<f64> = finer.dense_column(i).into_iter().map(f64::from).collect();
        for j in 0..level.features.columns() {
            let y = f64::from(level.column(j)[i]);
            let (indices, values) = level.features.column(j);
            indices
                .iter()
                .zip(values)
                .for_each(|(&at, &v)| residual[at as usize] -= y * f64::from(v));
        }
        residual.iter().map(|v| v * v).sum::<f64>()
    };
    let parts: Vec<f64> = (0..finer.columns())
        .into_par_iter()
        .map(squared_residual)
        .collect();
    parts.iter().sum::<f64>() / squared_norm(&finer.values).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests;
