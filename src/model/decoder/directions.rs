//! Directions in activation space: what they add to the residual stream, and the tokens that they
//! promote.
//!
//! Knows nothing of where a direction comes from. Invariant: weights are always dequantised, so that
//! results compare.

use candle_core::{DType, Tensor};

use super::Decoder;
use super::linear::Kernel;
use crate::error::{Error, Result};
use crate::model::config::NormKind;
use crate::model::{HookPoint, HookSite, device, host};

impl Decoder {
    /// What directions at a hook add to the residual stream; see
    /// [`super::Model::residual_direction`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a hook that does not exist, and for directions of another width than its
    /// own.
    pub fn residual_direction(&self, hook: HookPoint, directions: &Tensor) -> Result<Tensor> {
        let width = self.width(hook)?;
        let (_, given) = directions.dims2()?;
        if given != width {
            return Err(Error::usage(format!(
                "directions of width {given} at {hook}, which has width {width}"
            )));
        }
        if hook.site != HookSite::MlpPost {
            return Ok(directions.clone());
        }
        let layer = &self.blocks[hook.layer];
        let z = device::carry(directions, self.device_of(hook.layer))?
            .to_dtype(self.dtype())?
            .contiguous()?;
        let mut f = layer.down.apply_without_bias(&z)?;
        if let Some(norm) = &layer.post_mlp {
            f = norm.apply(&f)?;
        }
        Ok(f.to_dtype(DType::F32)?)
    }

    /// By what the norm of the MLP's output multiplies each of the directions `[m, width]` at a hook,
    /// beside its weights: 1/rms(W z). A sum of [`Decoder::residual_direction`]s is that of the
    /// directions multiplied so; 1 where nothing is normed between the hook and the residual stream.
    ///
    /// # Errors
    /// As [`Decoder::residual_direction`].
    pub fn output_scales(&self, hook: HookPoint, directions: &Tensor) -> Result<Vec<f64>> {
        let width = self.width(hook)?;
        let (count, given) = directions.dims2()?;
        if given != width {
            return Err(Error::usage(format!(
                "directions of width {given} at {hook}, which has width {width}"
            )));
        }
        let layer = &self.blocks[hook.layer];
        let norm = match (&layer.post_mlp, hook.site) {
            (Some(norm), HookSite::MlpPost) => norm,
            _ => return Ok(vec![1.0; count]),
        };
        let z = device::carry(directions, self.device_of(hook.layer))?
            .to_dtype(self.dtype())?
            .contiguous()?;
        let rows = host::rows(&layer.down.apply_without_bias(&z)?)?;
        let scale = |row: &Vec<f32>| {
            let mean = |of: &dyn Fn(f64) -> f64| {
                row.iter().map(|&v| of(f64::from(v))).sum::<f64>() / row.len() as f64
            };
            let middle = match norm.kind() {
                NormKind::Rms => 0.0,
                NormKind::Layer => mean(&|v| v),
            };
            1.0 / (mean(&|v| (v - middle).powi(2)) + norm.eps()).sqrt()
        };
        Ok(rows.iter().map(scale).collect())
    }

    /// The transpose of [`Decoder::residual_direction`]: how strongly a push of each value of the
    /// hook's space moves the residual stream along `[m, d_model]`, as `[m, width]`. Where the MLP's
    /// output is normed, through the norm's weights: its scale depends on the direction and is
    /// left out.
    ///
    /// # Errors
    /// [`Error::Usage`] for a hook that does not exist, and for vectors of another width than the
    /// residual stream.
    pub fn residual_adjoint(&self, hook: HookPoint, along: &Tensor) -> Result<Tensor> {
        self.width(hook)?;
        let (_, given) = along.dims2()?;
        if given != self.config.d_model {
            let width = self.config.d_model;
            return Err(Error::usage(format!(
                "vectors of width {given} along a residual stream of width {width}"
            )));
        }
        if hook.site != HookSite::MlpPost {
            return Ok(along.clone());
        }
        let layer = &self.blocks[hook.layer];
        let device = self.device_of(hook.layer);
        let mut f = device::carry(along, device)?
            .to_dtype(self.dtype())?
            .contiguous()?;
        if let Some(norm) = &layer.post_mlp {
            let weight = Tensor::new(norm.weight(), device)?.to_dtype(self.dtype())?;
            f = f.broadcast_mul(&weight)?;
        }
        Ok(layer.down.transposed(&f)?.to_dtype(DType::F32)?)
    }

    /// Logit lens of residual directions; see [`super::Model::logit_lens`].
    ///
    /// # Errors
    /// [`Error::Usage`] unless all layers were loaded.
    pub fn logit_lens(&self, residual: &Tensor) -> Result<Tensor> {
        let (Some(norm), Some(head)) = (&self.final_norm, &self.head) else {
            let (have, all) = (self.blocks.len(), self.config.layers.len());
            return Err(Error::usage(format!(
                "the logit lens needs all {all} layers, only {have} were loaded"
            )));
        };
        let f = device::carry(residual, self.last_device())?
            .to_dtype(self.dtype())?
            .contiguous()?;
        let out = head
            .apply(&norm.apply(&f)?, Kernel::Dequantised)?
            .to_dtype(DType::F32)?;
        if !norm.has_bias() {
            return Ok(out);
        }
        let zero = Tensor::zeros((1, self.config.d_model), self.dtype(), self.last_device())?;
        let offset = head
            .apply(&norm.apply(&zero)?, Kernel::Dequantised)?
            .to_dtype(DType::F32)?;
        Ok(out.broadcast_sub(&offset)?)
    }
}
