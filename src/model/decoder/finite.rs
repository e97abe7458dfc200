//! Refusing activations that are not finite, with the cause where it can be found.
//!
//! Knows nothing of the order of a pass. Invariant: damaged weights are named, so that a user does
//! not look for the cause in a steering strength.

use std::ops::Range;

use candle_core::Tensor;

use super::linear::{Linear, with_slice};
use super::network::Decoder;
use super::vector;
use crate::error::{Error, Result};
use crate::model::{Phase, host};

impl Decoder {
    /// Refuses a residual stream on a device that is not finite. It is checked once, at the end of a
    /// prompt's pass, because the check waits for the device.
    pub(super) fn check_device(&self, x: &Tensor, phase: Phase) -> Result<()> {
        if self.is_mapped() || phase != Phase::Prompt || host::all_finite(x)? {
            return Ok(());
        }
        Err(Error::refused(
            "a layer gave NaN or infinity: lower the steering strength, try --dtype f32, or check the weights",
        ))
    }

    /// Refuses the output of a layer on the CPU that is not finite, and names the weights if they are the
    /// cause.
    pub(super) fn check_finite(&self, x: &Tensor, layer: usize) -> Result<()> {
        if !self.is_mapped() || with_slice(x, vector::all_finite)? {
            return Ok(());
        }
        let damage = self.damage(layer..layer + 1);
        Err(Error::refused(damage.unwrap_or_else(|| {
            format!("layer {layer} gave NaN or infinity: lower the steering strength, or check the weights")
        })))
    }

    /// An error message if a mapped tensor of these layers holds NaN or infinity. It reads all of them,
    /// so it is only called to name the cause of a failure.
    pub(crate) fn damage(&self, layers: Range<usize>) -> Option<String> {
        let blocks = self.blocks.get(layers).unwrap_or_default();
        blocks
            .iter()
            .flat_map(|b| [&b.qkv, &b.out, &b.up, &b.down])
            .find_map(Linear::damaged)
            .map(damaged)
    }
}

/// The message for a tensor of a checkpoint that is not finite.
pub(super) fn damaged(tensor: &str) -> String {
    format!("tensor {tensor} holds NaN or infinity: the weights are damaged, download them again")
}
