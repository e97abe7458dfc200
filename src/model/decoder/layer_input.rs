//! Passes that begin at a layer: rows that differ only from there on share the layers below.
//!
//! Owns the residual stream that such a pass begins with; knows nothing of why the rows differ.

use candle_core::Tensor;

use super::network::Decoder;
use super::{Logits, Model};
use crate::error::{Error, Result};
use crate::model::{Batch, NoTap, Phase, Portion, Tap};
use crate::task::TaskCtx;

/// The residual stream that a layer reads, for rows from position 0 on.
#[derive(Debug, Clone)]
pub struct LayerInput {
    /// The layer that reads it.
    pub(super) layer: usize,
    /// `[rows, tokens, d_model]`, padded on the right.
    pub(super) x: Tensor,
    /// Real tokens of each row.
    pub(super) lengths: Vec<usize>,
}

impl LayerInput {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The number of tokens of the longest row.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().max().copied().unwrap_or(0)
    }
}

impl LayerInput {
    /// Rows one after another, all padded to the longest.
    fn joined(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        let longest = parts.iter().map(Self::tokens).max().unwrap_or(0);
        let padded = |part: &Self| part.x.pad_with_zeros(1, 0, longest - part.tokens());
        let x = parts.iter().map(padded).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            layer: parts[0].layer,
            x: Tensor::cat(&x, 0)?,
            lengths: parts.into_iter().flat_map(|part| part.lengths).collect(),
        })
    }
}

impl Decoder {
    /// Computes rows of ids from position 0 up to the input of `layer`, fewer at a time where the
    /// device was full.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer that was not loaded, and for rows that [`Decoder::forward`]
    /// refuses.
    pub fn layer_input(
        &self,
        rows: &[Vec<u32>],
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<LayerInput> {
        if layer >= self.loaded_layers() {
            return Err(Error::usage(format!(
                "layer {layer} was not loaded: there are {}",
                self.loaded_layers()
            )));
        }
        let (mut portion, mut rest, mut parts) = (Portion::unlimited(), rows, Vec::new());
        loop {
            let now = portion.most().min(rest.len());
            match self.layer_input_at_once(&rest[..now], layer, ctx) {
                Ok(part) => {
                    parts.push(part);
                    rest = &rest[now..];
                    if rest.is_empty() {
                        return LayerInput::joined(parts);
                    }
                }
                Err(error) => portion.shrink(error, self.device(), (now, 1), "rows")?,
            }
        }
    }

    fn layer_input_at_once(
        &self,
        rows: &[Vec<u32>],
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<LayerInput> {
        let batch = Batch {
            rows: rows.to_vec(),
            samples: (0..rows.len()).collect(),
        };
        let row_positions = self.positions_of(&batch, None)?;
        let x = self.embed(&batch, &row_positions)?;
        let mut tap = NoTap;
        let mut state = self.begin(
            &row_positions,
            &batch.samples,
            Phase::Prompt,
            false,
            &mut tap,
            None,
        )?;
        let x = self.layers(x, 0..layer, &mut state, None, ctx)?;
        let x = x.ok_or_else(|| Error::refused("the pass ended before the layer that goes on"))?;
        let (count, width) = x.dims2()?;
        let x = x.reshape((rows.len(), count / rows.len(), width))?;
        Ok(LayerInput {
            layer,
            x,
            lengths: row_positions.lengths,
        })
    }

    /// Continues from a layer's input: row i of the pass is row `rows[i]` of the input, and is number
    /// `i` for the tap. The result is that of [`Decoder::forward`] over those rows without a cache, and
    /// the layers below are not computed again.
    ///
    /// # Errors
    /// [`Error::Usage`] for a tap with a hook below the layer, and for a row that the input does not
    /// have; what [`Decoder::forward`] refuses.
    pub fn forward_from(
        &self,
        input: &LayerInput,
        rows: &[usize],
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        if let Some(hook) = tap.hooks().iter().find(|h| h.layer < input.layer) {
            return Err(Error::usage(format!(
                "{hook} lies below layer {}, where the pass begins",
                input.layer
            )));
        }
        let lengths = rows
            .iter()
            .map(|&r| input.lengths.get(r).copied())
            .collect::<Option<Vec<usize>>>();
        let lengths = lengths
            .filter(|l| !l.is_empty())
            .ok_or_else(|| Error::usage("a row that the layer's input does not have"))?;
        let tokens = lengths.iter().max().copied().unwrap_or(0);
        let ids = Tensor::new(
            rows.iter().map(|&r| r as u32).collect::<Vec<_>>(),
            input.x.device(),
        )?;
        let x = input
            .x
            .narrow(1, 0, tokens)?
            .contiguous()?
            .index_select(&ids, 0)?;
        let x = x.reshape((rows.len() * tokens, input.x.dim(2)?))?;
        let row_positions = self.positions_of_rows(vec![0; rows.len()], lengths);
        let samples: Vec<usize> = (0..rows.len()).collect();
        self.pass(
            (x, input.layer),
            &row_positions,
            (&samples, Phase::Prompt),
            None,
            tap,
            logits,
            ctx,
        )
    }
}

impl Model {
    /// [`Decoder::layer_input`] of the model's decoder.
    ///
    /// # Errors
    /// As [`Decoder::layer_input`].
    pub fn layer_input(
        &self,
        rows: &[Vec<u32>],
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<LayerInput> {
        self.decoder().layer_input(rows, layer, ctx)
    }

    /// [`Decoder::forward_from`] of the model's decoder.
    ///
    /// # Errors
    /// As [`Decoder::forward_from`].
    pub fn forward_from(
        &self,
        input: &LayerInput,
        rows: &[usize],
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        self.decoder().forward_from(input, rows, tap, logits, ctx)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device};

    use super::*;
    use crate::model::config::Config;
    use crate::model::weights::Weights;
    use crate::model::{HookPoint, HookSite, Pass};

    /// Adds a constant times the row's number.
    struct Push(Vec<HookPoint>);

    impl Tap for Push {
        fn hooks(&self) -> &[HookPoint] {
            &self.0
        }
        fn intercept(
            &mut self,
            pass: &Pass<'_>,
            _: HookPoint,
            x: &Tensor,
        ) -> Result<Option<Tensor>> {
            let each: Vec<f32> = pass.samples.iter().map(|&s| 0.1 * s as f32).collect();
            Ok(Some(x.broadcast_add(&Tensor::from_vec(
                each,
                (pass.samples.len(), 1, 1),
                x.device(),
            )?)?))
        }
    }

    /// The fixture of a family by this crate's kernels, and by the operations of a card.
    fn decoders(family: &str) -> [Decoder; 2] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/families")
            .join(family);
        let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
        let config = || Config::from_hf(&dir.join("config.json")).unwrap();
        let (ctx, cpu) = (TaskCtx::silent(), Device::Cpu);
        [
            Decoder::on_cpu(config(), &weights, None, &ctx).unwrap(),
            Decoder::on_device(config(), &weights, None, &cpu, DType::F32, &ctx).unwrap(),
        ]
    }

    #[test]
    fn a_pass_from_a_layer_equals_the_full_pass() {
        let (a, b) = (vec![5, 6, 7], vec![9, 10]);
        let ctx = TaskCtx::silent();
        let families = ["llama", "gpt2", "gemma2", "gemma3"];
        for (family, decoder) in families
            .into_iter()
            .flat_map(|f| decoders(f).map(|d| (f, d)))
        {
            for (layer, site) in [
                (0, HookSite::MlpPost),
                (1, HookSite::MlpOut),
                (1, HookSite::ResidPost),
            ] {
                let mut tap = Push(vec![HookPoint { layer, site }]);
                let batch = Batch {
                    rows: vec![b.clone(), a.clone(), b.clone()],
                    samples: Vec::new(),
                };
                let full = decoder
                    .forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, &ctx)
                    .unwrap()
                    .unwrap();
                let input = decoder
                    .layer_input(&[a.clone(), b.clone()], layer, &ctx)
                    .unwrap();
                let part = decoder
                    .forward_from(&input, &[1, 0, 1], &mut tap, Logits::All, &ctx)
                    .unwrap()
                    .unwrap();
                let bits = |x: Tensor| x.to_vec3::<f32>().unwrap();
                let (full, part) = (bits(full), bits(part));
                // The values of padding have no meaning.
                for (row, real) in [(0, 2), (1, 3), (2, 2)] {
                    let (full, part) = (&full[row][..real], &part[row][..real]);
                    if decoder.is_mapped() {
                        assert_eq!(full, part, "{family}, row {row}");
                    }
                    // candle's products depend on how many rows there are, to the last digit.
                    let pairs = full.iter().flatten().zip(part.iter().flatten());
                    let gap = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(gap < 1e-5, "{family}, row {row}: {gap}");
                }
                assert_ne!(full[0][..2], full[2][..2], "the tap was called");
            }
        }
    }

    #[test]
    fn hooks_and_rows_that_the_input_does_not_have_are_refused() {
        let ([decoder, _], ctx) = (decoders("llama"), TaskCtx::silent());
        let input = decoder.layer_input(&[vec![5, 6]], 1, &ctx).unwrap();
        let mut below = Push(vec![HookPoint {
            layer: 0,
            site: HookSite::MlpPost,
        }]);
        assert!(
            decoder
                .forward_from(&input, &[0], &mut below, Logits::Last, &ctx)
                .is_err()
        );
        for rows in [&[][..], &[1]] {
            assert!(
                decoder
                    .forward_from(&input, rows, &mut NoTap, Logits::Last, &ctx)
                    .is_err()
            );
        }
        assert!(decoder.layer_input(&[vec![5]], 99, &ctx).is_err());
    }
}
