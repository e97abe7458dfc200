//! Raw tensors of one text: activations at chosen hooks and the logits.
//!
//! Knows no file. Invariant: what comes out is f32, whatever the model computes in.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::model::decoder::Decoder;
use crate::model::{Batch, HookPoint, Logits, Pass, Phase, Tap};
use crate::task::TaskCtx;

/// A tensor by its name, with its shape and its values, row-major.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Keeps what it sees of a batch of one.
struct Recorder {
    hooks: Vec<HookPoint>,
    seen: BTreeMap<HookPoint, Tensor>,
}

impl Tap for Recorder {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.insert(hook, x.squeeze(0)?.to_dtype(DType::F32)?);
        Ok(None)
    }
}

/// The activations of the tokens `ids` at each of `hooks`, `[tokens][width]`, in the order of the
/// hooks, then `logits`, `[tokens][vocabulary]`.
///
/// # Errors
/// [`Error::Usage`] without a token, and for a hook that the model does not have; what the pass
/// returns; [`Error::Cancelled`].
pub fn forward(
    decoder: &Decoder,
    ids: &[u32],
    hooks: &[HookPoint],
    ctx: &TaskCtx,
) -> Result<Vec<NamedTensor>> {
    if ids.is_empty() {
        return Err(Error::usage(
            "there is no token to run: the text is empty and the model has no BOS",
        ));
    }
    let mut hooks = hooks.to_vec();
    hooks.sort_unstable();
    hooks.dedup();
    hooks.iter().try_for_each(|h| decoder.width(*h).map(drop))?;
    let mut tap = Recorder {
        hooks,
        seen: BTreeMap::new(),
    };
    let batch = Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    };
    let logits = decoder
        .forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, ctx)?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .squeeze(0)?
        .to_dtype(DType::F32)?;
    let mut named = Vec::with_capacity(tap.seen.len() + 1);
    for (hook, x) in &tap.seen {
        named.push(plain(hook.to_string(), x)?);
    }
    named.push(plain("logits".to_owned(), &logits)?);
    Ok(named)
}

fn plain(name: String, x: &Tensor) -> Result<NamedTensor> {
    Ok((name, x.dims().to_vec(), x.flatten_all()?.to_vec1()?))
}
