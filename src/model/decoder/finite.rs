//! Refusing activations that are not finite, with the cause where it can be found.
//!
//! Knows nothing of the order of a pass. Invariant: damaged weights are named, so that a user does
//! not look for the cause in a steering strength.

use std::ops::Range;

use candle_core::{D, Tensor};

use super::embed::DAMAGED;
use super::linear::{Linear, with_slice};
use super::network::Decoder;
use super::vector;
use crate::error::{Error, Result};
use crate::model::{Phase, Tap, host};

/// The rows of a pass that must be finite.
pub(super) struct Strict {
    rows: usize,
    /// Their indices; `None`: all of them.
    which: Option<Vec<u32>>,
}

impl Strict {
    /// All rows but those that the tap lets overflow.
    pub(super) fn of(tap: &dyn Tap, samples: &[usize]) -> Self {
        let strict =
            |(i, &sample): (usize, &usize)| (!tap.may_overflow(sample)).then_some(i as u32);
        let which: Vec<u32> = samples.iter().enumerate().filter_map(strict).collect();
        Self {
            rows: samples.len(),
            which: (which.len() < samples.len()).then_some(which),
        }
    }

    /// Whether the values of these rows are finite, on the CPU.
    pub(super) fn holds(&self, x: &[f32]) -> bool {
        let each = x.len() / self.rows.max(1);
        let row = |&r: &u32| vector::all_finite(&x[r as usize * each..][..each]);
        // The whole first: it is finite all but always.
        vector::all_finite(x)
            || self
                .which
                .as_ref()
                .is_some_and(|which| which.iter().all(row))
    }

    /// The same where a tensor lies; one number comes back.
    fn holds_on_device(&self, x: &Tensor) -> Result<bool> {
        let Some(which) = &self.which else {
            return host::all_finite(x);
        };
        if which.is_empty() {
            return Ok(true);
        }
        let rows = x.reshape((self.rows, x.elem_count() / self.rows))?;
        let which = Tensor::new(which.as_slice(), x.device())?;
        host::all_finite(&rows.index_select(&which, 0)?)
    }

    /// Makes NaN of a row's logits `[rows, vocab]` where one is not finite, which a soft-cap would
    /// hide.
    pub(super) fn mark(&self, logits: Tensor) -> Result<Tensor> {
        if self.which.is_none() {
            return Ok(logits);
        }
        let sums = (&logits * 0.0)?.sum_keepdim(D::Minus1)?;
        Ok(logits.broadcast_add(&sums)?)
    }
}

impl Decoder {
    /// Refuses a residual stream on a device that is not finite. It is checked once, at the end of a
    /// prompt's pass, because the check waits for the device.
    pub(super) fn check_device(&self, x: &Tensor, phase: Phase, strict: &Strict) -> Result<()> {
        if self.is_mapped() || phase != Phase::Prompt || strict.holds_on_device(x)? {
            return Ok(());
        }
        if self.embeddings_damaged() {
            return Err(Error::refused(DAMAGED));
        }
        Err(Error::refused(
            "a layer gave NaN or infinity: lower the steering strength, try --dtype f32, or check the weights",
        ))
    }

    /// Refuses the output of a layer on the CPU that is not finite, and names the weights if they are the
    /// cause.
    pub(super) fn check_finite(&self, x: &Tensor, layer: usize, strict: &Strict) -> Result<()> {
        if !self.is_mapped() || with_slice(x, |x| strict.holds(x))? {
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
        if self.embeddings_damaged() {
            return Some(DAMAGED.to_owned());
        }
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
