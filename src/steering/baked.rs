//! An intervention at every token as a change of a down projection y = W a + b, which any program
//! that runs the model then makes.
//!
//! Knows numbers; knows no files. A direction at `mlp.hook_post` changes a, one at `hook_mlp_out`
//! changes y, and one that is added at `hook_resid_post` is added to y: what depends on the residual
//! stream itself is no matter of W.

use super::Intervention;
use super::intervention::Mode;
use crate::error::{Error, Result};
use crate::model::HookSite;

/// A down projection: W row-major `[outputs][inputs]`, and b.
#[derive(Debug, Clone, PartialEq)]
pub struct DownProjection {
    /// The width of a, the number of neurons.
    pub inputs: usize,
    /// W, a row an output.
    pub weight: Vec<f64>,
    /// b, zeros where the model has none.
    pub bias: Vec<f64>,
}

impl DownProjection {
    /// W v.
    fn through(&self, v: &[f32]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(self.inputs);
        rows.map(|row| row.iter().zip(v).map(|(w, &v)| w * f64::from(v)).sum())
            .collect()
    }

    /// vᵀ W and v·b.
    fn along(&self, v: &[f32]) -> (Vec<f64>, f64) {
        let mut out = vec![0.0; self.inputs];
        for (row, &v) in self.weight.chunks_exact(self.inputs).zip(v) {
            let v = f64::from(v);
            out.iter_mut().zip(row).for_each(|(o, w)| *o += v * w);
        }
        let bias = self
            .bias
            .iter()
            .zip(v)
            .map(|(b, &v)| b * f64::from(v))
            .sum();
        (out, bias)
    }

    /// W + c u vᵀ.
    fn add_outer(&mut self, c: f64, u: &[f64], v: &[f64]) {
        for (row, u) in self.weight.chunks_exact_mut(self.inputs).zip(u) {
            row.iter_mut().zip(v).for_each(|(w, v)| *w += c * u * v);
        }
    }

    /// b + c v.
    fn shift(&mut self, c: f64, v: &[f64]) {
        self.bias.iter_mut().zip(v).for_each(|(b, v)| *b += c * v);
    }
}

impl Intervention {
    /// The layers at which it acts, each once, in order.
    pub fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.hooks().map(|hook| hook.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// The down projection of `layer` that does at every token what this does at strength `alpha`.
    ///
    /// # Errors
    /// [`Error::Usage`] for setting or ablating at `hook_resid_post`, and for directions of another
    /// width.
    pub fn bake(&self, layer: usize, alpha: f64, down: &DownProjection) -> Result<DownProjection> {
        let mut out = down.clone();
        let mut hooks: Vec<_> = self.hooks().filter(|hook| hook.layer == layer).collect();
        // In the order in which a pass comes to them.
        hooks.sort_by_key(|hook| match hook.site {
            HookSite::MlpPost => 0,
            HookSite::MlpOut => 1,
            HookSite::ResidPost => 2,
        });
        for hook in hooks {
            let Some(terms) = self.terms_at(hook) else {
                continue;
            };
            let width = match hook.site {
                HookSite::MlpPost => out.inputs,
                HookSite::MlpOut | HookSite::ResidPost => out.bias.len(),
            };
            if terms.width() != width {
                return Err(Error::usage(format!(
                    "directions at {hook} have {} values, the model {width}",
                    terms.width()
                )));
            }
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
            if let Some(sum) = terms.sum() {
                let added = match hook.site {
                    HookSite::MlpPost => out.through(sum),
                    HookSite::MlpOut | HookSite::ResidPost => wide(sum),
                };
                out.shift(alpha, &added);
                continue;
            }
            if hook.site == HookSite::ResidPost {
                let what = match self.mode() {
                    Mode::Ablate => "ablated",
                    Mode::Set | Mode::Add => "set",
                };
                return Err(Error::usage(format!(
                    "a direction at {hook} cannot be {what} by a layer's weights, since the residual stream passes them by: choose one at mlp.hook_post or hook_mlp_out"
                )));
            }
            let before = out.clone();
            for j in 0..terms.count() {
                let part = j * width..(j + 1) * width;
                let (unit, dual) = (&terms.units()[part.clone()], &terms.duals()[part]);
                let (gain, offset) = terms.change(j, alpha);
                let (gain, offset) = (f64::from(gain), f64::from(offset));
                if hook.site == HookSite::MlpPost {
                    let u = before.through(dual);
                    out.add_outer(gain, &u, &wide(unit));
                    out.shift(offset, &u);
                } else {
                    let (row, bias) = before.along(unit);
                    let u = wide(dual);
                    out.add_outer(gain, &u, &row);
                    out.shift(gain * bias + offset, &u);
                }
            }
        }
        Ok(out)
    }
}
