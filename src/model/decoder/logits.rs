//! From the residual stream after the last layer to logits.
//!
//! Knows nothing of layers. Invariant: the logits of a prompt's last token, which KL is measured on,
//! are f32 throughout.

use candle_core::{DType, Tensor};

use super::Logits;
use super::finite::{self, Strict};
use super::linear::{Kernel, with_slice};
use super::network::Decoder;
use super::ops;
use super::positions::RowPositions;
use crate::error::{Error, Result};
use crate::model::Phase;

impl Decoder {
    /// The logits of the residual stream after the last layer; `None` where none are asked for.
    pub(super) fn logits(
        &self,
        x: &Tensor,
        row_positions: &RowPositions,
        which: Logits,
        (phase, kernel): (Phase, Kernel),
        strict: &Strict,
    ) -> Result<Option<Tensor>> {
        let (Some(norm), Some(head)) = (&self.final_norm, &self.head) else {
            return Ok(None);
        };
        let rows = row_positions.starts.len();
        let x = match which {
            Logits::None => return Ok(None),
            Logits::All => x.clone(),
            Logits::Last if row_positions.tokens == 1 => x.clone(),
            Logits::Last => {
                let ids: Vec<u32> = row_positions
                    .lengths
                    .iter()
                    .enumerate()
                    .map(|(r, n)| (r * row_positions.tokens + n - 1) as u32)
                    .collect();
                x.index_select(&Tensor::new(ids.as_slice(), x.device())?, 0)?
            }
        };
        let exact = which == Logits::Last && phase == Phase::Prompt;
        let mut out = if exact && self.dtype() != DType::F32 {
            // In bf16 the logits near 20 lie 0.125 apart, far more than the KL that is searched for.
            head.apply_in_f32(&norm.apply(&x.to_dtype(DType::F32)?)?)?
        } else {
            head.apply(&norm.apply(&x)?, kernel)?.to_dtype(DType::F32)?
        };
        if self.is_mapped() && !with_slice(&out, |out| strict.holds(out))? {
            return Err(Error::refused(match head.damaged() {
                Some(name) => finite::damaged(name),
                None => "the logits are NaN or infinite: lower the steering strength, or check the weights".to_owned(),
            }));
        }
        if let Some(cap) = self.config.final_softcap {
            out = ops::softcap(&strict.mark(out)?, cap)?;
        }
        Ok(Some(if which == Logits::All {
            out.reshape((rows, row_positions.tokens, head.out()))?
        } else {
            out
        }))
    }
}
