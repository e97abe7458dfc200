//! Directions in activation space: what they add to the residual stream, and the tokens that they
//! promote.
//!
//! Knows nothing of where a direction comes from. Invariant: weights are always dequantised, so that
//! results compare.

use candle_core::{DType, Tensor};

use super::Decoder;
use super::linear::Kernel;
use crate::error::{Error, Result};
use crate::model::{HookPoint, HookSite, device};

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
        let mut f = along
            .to_device(self.device())?
            .to_dtype(self.dtype())?
            .contiguous()?;
        if let Some(norm) = &layer.post_mlp {
            let weight = Tensor::new(norm.weight(), self.device())?.to_dtype(self.dtype())?;
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
