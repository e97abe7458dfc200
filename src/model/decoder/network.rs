//! The network: embeddings, layers with their hooks, unembedding.
//!
//! Owns the order of a forward pass and the one place of each hook; knows nothing of tokenizers or
//! files.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::Logits;
use super::attention::{self, Attention};
use super::cache::KvCache;
use super::embed::Table;
use super::finite::Strict;
use super::linear::{Kernel, Linear, Placement};
use super::load;
use super::ops::{self, NormWeights};
use super::positions::RowPositions;
use super::spread::{Spread, device_of};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::config::{Config, LayerKind};
use crate::model::weights::{StoredTensor, Weights};
use crate::model::{Batch, HookPoint, HookSite, Pass, Phase, Tap, device};
use crate::task::TaskCtx;

/// A pass of at least so many token rows always dequantises the weights.
const DEQUANTISE_FROM: usize = 32;

pub(super) struct Layer {
    pub(super) kind: LayerKind,
    pub(super) attn_norm: NormWeights,
    pub(super) qkv: Linear,
    pub(super) q_norm: Option<NormWeights>,
    pub(super) k_norm: Option<NormWeights>,
    pub(super) out: Linear,
    pub(super) post_attn: Option<NormWeights>,
    pub(super) mlp_norm: NormWeights,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) post_mlp: Option<NormWeights>,
}

/// A network without a tokenizer: [`super::Model`] wraps it, and tests and tools open it alone where
/// they have token ids.
pub struct Decoder {
    pub(super) config: Config,
    pub(super) embed: StoredTensor,
    pub(super) table: Option<Table>,
    pub(super) positions: Option<StoredTensor>,
    pub(super) blocks: Vec<Layer>,
    pub(super) final_norm: Option<NormWeights>,
    pub(super) head: Option<Linear>,
    pub(super) spread: Spread,
    scores: usize,
}

/// The state of a forward pass.
pub(super) struct PassState<'a> {
    pass: Pass<'a>,
    row_positions: &'a RowPositions,
    kernel: Kernel,
    strict: Strict,
    tap: &'a mut dyn Tap,
    hooks: Vec<HookPoint>,
    /// The last hook that is needed, after which the pass ends; `None`: it runs to the end.
    last: Option<HookPoint>,
}

impl PassState<'_> {
    /// Calls the tap if it has this hook. Returns its replacement for `x` `[rows * tokens, width]`, or
    /// `x` itself.
    fn call_tap(&mut self, layer: usize, site: HookSite, x: Tensor) -> Result<Tensor> {
        let hook = HookPoint { layer, site };
        if !self.hooks.contains(&hook) {
            return Ok(x);
        }
        let ((count, width), positions) = (x.dims2()?, self.row_positions);
        let seen = x.reshape((positions.starts.len(), positions.tokens, width))?;
        let Some(new) = self.tap.intercept(&self.pass, hook, &seen)? else {
            return Ok(x);
        };
        if new.dims() != seen.dims() {
            let problem = format!(
                "the tap replaced {hook} {:?} by {:?}",
                seen.dims(),
                new.dims()
            );
            return Err(Error::usage(problem));
        }
        Ok(new
            .to_dtype(x.dtype())?
            .reshape((count, width))?
            .contiguous()?)
    }

    /// Whether the pass ends at this hook.
    fn ends(&self, layer: usize, site: HookSite) -> bool {
        self.last == Some(HookPoint { layer, site })
    }
}

impl Decoder {
    pub(super) fn assemble(
        config: Config,
        (embed, table): (StoredTensor, Option<Table>),
        positions: Option<StoredTensor>,
        blocks: Vec<Layer>,
        final_norm: Option<NormWeights>,
        head: Option<Linear>,
        spread: Spread,
    ) -> Self {
        Self {
            config,
            embed,
            table,
            positions,
            blocks,
            final_norm,
            head,
            spread,
            scores: attention::SCORES,
        }
    }

    /// Makes at most so many attention scores at a time, for tests of the tiles that long rows are
    /// computed in.
    #[doc(hidden)]
    pub fn with_scores(self, scores: usize) -> Self {
        Self { scores, ..self }
    }

    /// Builds the network from weights that stay mapped and are computed on the CPU in f32;
    /// `layers`: only the first n.
    ///
    /// # Errors
    /// Weights that do not fit the configuration, and [`Error::Cancelled`].
    pub fn on_cpu(
        config: Config,
        weights: &Weights,
        layers: Option<usize>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let spread = Spread::one(Placement::Mapped);
        load::load(config, weights, layers, (spread, &[], false), ctx)
    }

    /// Builds the network on a device with candle's operations, in a dtype. On the CPU this
    /// tests the operations of a GPU where there is none.
    ///
    /// # Errors
    /// As [`Decoder::on_cpu`], and a failure of the device.
    pub fn on_device(
        config: Config,
        weights: &Weights,
        layers: Option<usize>,
        device: &Device,
        dtype: DType,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let devices = std::slice::from_ref(device);
        Self::on_devices(config, weights, layers, (devices, &[0]), dtype, ctx)
    }

    /// Builds the network on several devices, layers from `firsts[i]` on, up to the next device's,
    /// on device i.
    ///
    /// # Errors
    /// As [`Decoder::on_device`], and [`Error::Usage`] for devices that hold no layers in order.
    pub fn on_devices(
        config: Config,
        weights: &Weights,
        layers: Option<usize>,
        (devices, firsts): (&[Device], &[usize]),
        dtype: DType,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let spread = Spread::over(devices, dtype, firsts).ok_or_else(|| {
            Error::usage(format!(
                "layers from {firsts:?} on are no division for {} devices",
                devices.len()
            ))
        })?;
        load::load(config, weights, layers, (spread, &[], true), ctx)
    }

    /// The configuration that it was built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many layers were loaded, from the first.
    pub fn loaded_layers(&self) -> usize {
        self.blocks.len()
    }

    /// The device that its passes begin on.
    pub fn device(&self) -> &Device {
        device_of(self.spread.first())
    }

    /// The device that a layer lies on.
    pub fn device_of(&self, layer: usize) -> &Device {
        self.spread.device(layer)
    }

    /// The device that the unembedding lies on.
    pub fn last_device(&self) -> &Device {
        device_of(self.spread.last())
    }

    /// Bytes free where it computes, on the fullest of several cards; `None` where that is unknown.
    ///
    /// # Errors
    /// A limit of memory that cannot be read.
    pub fn memory_free(&self) -> Result<Option<u64>> {
        let mut least: Option<u64> = None;
        for place in self.spread.places() {
            let free = match place {
                Placement::Device(gpu, _) if !gpu.is_cpu() => {
                    device::card_of(gpu)?.and_then(|card| card.free())
                }
                _ => memory::available()?,
            };
            let Some(free) = free else { return Ok(None) };
            least = Some(least.map_or(free, |least| least.min(free)));
        }
        Ok(least)
    }

    /// The dtype of its activations.
    pub fn dtype(&self) -> DType {
        match self.spread.first() {
            Placement::Mapped => DType::F32,
            Placement::Device(_, dtype) => *dtype,
        }
    }

    /// Whether weights stay in the mapped file and this crate's kernels compute; otherwise candle's
    /// operations do, on tensors.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.spread.first(), Placement::Mapped)
    }

    /// The width of a hook: d_mlp or d_model.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer that does not exist, with those that do, or that was not loaded.
    pub fn width(&self, hook: HookPoint) -> Result<usize> {
        let depth = self.config.layers.len();
        if hook.layer >= depth {
            return Err(Error::usage(format!(
                "layer {} does not exist: the model has layers 0 to {}",
                hook.layer,
                depth - 1
            )));
        }
        if hook.layer >= self.blocks.len() {
            let problem = format!(
                "layer {} was not loaded: only the first {} were",
                hook.layer,
                self.blocks.len()
            );
            return Err(Error::usage(problem));
        }
        Ok(match hook.site {
            HookSite::MlpPost => self.config.d_mlp,
            HookSite::MlpOut | HookSite::ResidPost => self.config.d_model,
        })
    }

    /// An empty cache for `rows` rows.
    pub fn new_cache(&self, rows: usize) -> KvCache {
        KvCache::new(rows, self.blocks.len(), !self.is_mapped())
    }

    /// Which kernel a pass uses: see [`super::Model::forward`].
    fn kernel(&self, phase: Phase, rows: usize) -> Kernel {
        if phase == Phase::Generated && rows < DEQUANTISE_FROM {
            Kernel::Quantised
        } else {
            Kernel::Dequantised
        }
    }

    /// One forward pass; see [`super::Model::forward`].
    ///
    /// # Errors
    /// As [`super::Model::forward`].
    pub fn forward(
        &self,
        batch: &Batch,
        phase: Phase,
        cache: Option<&mut KvCache>,
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        let row_positions = self.positions_of(batch, cache.as_deref())?;
        let numbered: Vec<usize>;
        let samples = if batch.samples.is_empty() {
            numbered = (0..batch.rows.len()).collect();
            &numbered
        } else {
            &batch.samples
        };
        let x = self.embed(batch, &row_positions)?;
        self.pass(
            (x, 0),
            &row_positions,
            (samples, phase),
            cache,
            tap,
            logits,
            ctx,
        )
    }

    /// Runs the layers from `from` on, which reads the residual stream `x` `[rows * tokens, d_model]`, and
    /// returns the logits that were asked for.
    pub(super) fn pass(
        &self,
        (x, from): (Tensor, usize),
        row_positions: &RowPositions,
        (samples, phase): (&[usize], Phase),
        mut cache: Option<&mut KvCache>,
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        if logits != Logits::None && self.head.is_none() {
            let (have, all) = (self.blocks.len(), self.config.layers.len());
            return Err(Error::usage(format!(
                "logits need all {all} layers, only {have} were loaded"
            )));
        }
        let stops = logits == Logits::None && cache.is_none();
        let last = if stops {
            tap.hooks().iter().max().copied()
        } else {
            None
        };
        let widened = cache.as_deref().is_some_and(|c| c.widened);
        let mut state = self.begin(row_positions, samples, phase, widened, tap, last)?;
        if stops && last.is_none() {
            return Ok(None);
        }
        let kernel = state.kernel;
        let result = self.layers(
            x,
            from..self.blocks.len(),
            &mut state,
            cache.as_deref_mut(),
            ctx,
        );
        match (&result, cache) {
            (Ok(_), Some(cache)) => {
                cache
                    .lengths
                    .iter_mut()
                    .zip(&row_positions.lengths)
                    .for_each(|(held, new)| *held += new);
            }
            (Err(_), Some(cache)) => cache.truncate(self.config.kv_width()),
            (_, None) => {}
        }
        let Some(x) = result? else { return Ok(None) };
        self.logits(&x, row_positions, logits, (phase, kernel), &state.strict)
    }

    /// The state at the start of a pass; an error for a hook that does not exist.
    pub(super) fn begin<'a>(
        &self,
        row_positions: &'a RowPositions,
        samples: &'a [usize],
        phase: Phase,
        widened: bool,
        tap: &'a mut dyn Tap,
        last: Option<HookPoint>,
    ) -> Result<PassState<'a>> {
        let hooks = tap.hooks().to_vec();
        hooks
            .iter()
            .try_for_each(|&hook| self.width(hook).map(drop))?;
        let rows = row_positions.starts.len() * row_positions.tokens;
        let kernel = if widened {
            Kernel::Dequantised
        } else {
            self.kernel(phase, rows)
        };
        let pass = Pass {
            starts: &row_positions.starts,
            lengths: &row_positions.lengths,
            samples,
            phase,
        };
        Ok(PassState {
            pass,
            row_positions,
            kernel,
            strict: Strict::of(tap, samples),
            tap,
            hooks,
            last,
        })
    }

    /// The residual stream x after `layers`, or `None` when the pass stopped at the last hook.
    pub(super) fn layers(
        &self,
        mut x: Tensor,
        layers: Range<usize>,
        state: &mut PassState<'_>,
        mut cache: Option<&mut KvCache>,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        for i in layers.clone() {
            let layer = &self.blocks[i];
            ctx.check()?;
            if self.spread.crosses(i, &layers) {
                x = self.spread.carry(x, i)?;
            }
            let held = cache.as_deref_mut().map(|c| &mut c.layers[i]);
            let read = layer.attn_norm.apply(&x)?;
            let (attention, positions) = (self.attention(layer), state.row_positions);
            let a = if self.is_mapped() {
                attention.on_cpu(&layer.qkv.apply(&read, state.kernel)?, positions, held)?
            } else {
                attention.of_parts(
                    &layer.qkv.apply_apart(&read, state.kernel, false)?,
                    positions,
                    held,
                )?
            };
            let mut a = layer.out.apply(&a, state.kernel)?;
            if let Some(norm) = &layer.post_attn {
                a = norm.apply(&a)?;
            }
            let middle = ops::add(&x, &a, self.is_mapped())?;
            let read = if self.config.parallel { &x } else { &middle };
            let Some(m) = self.mlp(i, layer, read, state)? else {
                return Ok(None);
            };
            x = ops::add(&middle, &m, self.is_mapped())?;
            self.check_finite(&x, i, &state.strict)?;
            x = state.call_tap(i, HookSite::ResidPost, x)?;
            if state.ends(i, HookSite::ResidPost) {
                return Ok(None);
            }
        }
        #[cfg(test)]
        super::full::check(x.dim(0)?)?;
        self.check_device(&x, state.pass.phase, &state.strict)?;
        Ok(Some(x))
    }

    /// The attention of a layer.
    pub(super) fn attention<'a>(&'a self, layer: &'a Layer) -> Attention<'a> {
        Attention {
            config: &self.config,
            kind: layer.kind,
            q_norm: layer.q_norm.as_ref(),
            k_norm: layer.k_norm.as_ref(),
            scores: self.scores,
        }
    }

    /// What the MLP adds to the residual stream, `[rows * tokens, d_model]`; `None` when the pass ends
    /// inside it.
    fn mlp(
        &self,
        i: usize,
        layer: &Layer,
        x: &Tensor,
        state: &mut PassState<'_>,
    ) -> Result<Option<Tensor>> {
        let c = &self.config;
        let read = layer.mlp_norm.apply(x)?;
        let h = if self.is_mapped() {
            let h = layer.up.apply(&read, state.kernel)?;
            ops::activate(&h, c.activation, c.gated, c.d_mlp, true)?
        } else {
            let wide = layer.up.has_bias();
            let parts = layer.up.apply_apart(&read, state.kernel, wide)?;
            ops::activate_apart(&parts, c.activation)?.to_dtype(self.dtype())?
        };
        let h = state.call_tap(i, HookSite::MlpPost, h)?;
        if state.ends(i, HookSite::MlpPost) {
            return Ok(None);
        }
        let mut m = layer.down.apply(&h, state.kernel)?;
        if let Some(norm) = &layer.post_mlp {
            m = norm.apply(&m)?;
        }
        let m = state.call_tap(i, HookSite::MlpOut, m)?;
        Ok((!state.ends(i, HookSite::MlpOut)).then_some(m))
    }
}
