//! The network: embeddings, layers with their hooks, unembedding.
//!
//! Owns the order of a forward pass and the one place of each hook; knows nothing of tokenizers or
//! files.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::Logits;
use super::attention::{Heads, Places};
use super::cache::KvCache;
use super::linear::{Linear, Path, Placement, with_slice};
use super::load;
use super::ops::{self, NormWeights};
use super::vector;
use crate::error::{Error, Result};
use crate::model::config::{Config, LayerKind};
use crate::model::weights::{Stored, Weights};
use crate::model::{Batch, HookPoint, HookSite, Pass, Phase, Tap};
use crate::task::TaskCtx;

/// Token rows from which a pass always dequantises.
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

/// A network without tokenizer: what [`super::Model`] wraps, and what tests and tools open when ids
/// are all they have.
pub struct Decoder {
    pub(super) config: Config,
    embed: Stored,
    positions: Option<Stored>,
    pub(super) blocks: Vec<Layer>,
    pub(super) final_norm: Option<NormWeights>,
    pub(super) head: Option<Linear>,
    placement: Placement,
}

/// A pass under way.
pub(super) struct Run<'a> {
    pass: Pass<'a>,
    places: &'a Places,
    path: Path,
    tap: &'a mut dyn Tap,
    hooks: Vec<HookPoint>,
    /// Nothing after this point is needed.
    last: Option<HookPoint>,
}

impl Run<'_> {
    /// Calls the tap where it wants to be called.
    fn at(&mut self, layer: usize, site: HookSite, x: Tensor) -> Result<Tensor> {
        let hook = HookPoint { layer, site };
        if !self.hooks.contains(&hook) {
            return Ok(x);
        }
        let (count, width) = x.dims2()?;
        let shape = (self.places.starts.len(), self.places.tokens, width);
        let seen = x.reshape(shape)?;
        let Some(new) = self.tap.at(&self.pass, hook, &seen)? else {
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

    fn ends(&self, layer: usize, site: HookSite) -> bool {
        self.last == Some(HookPoint { layer, site })
    }
}

impl Decoder {
    pub(super) fn assemble(
        config: Config,
        embed: Stored,
        positions: Option<Stored>,
        blocks: Vec<Layer>,
        final_norm: Option<NormWeights>,
        head: Option<Linear>,
        placement: Placement,
    ) -> Self {
        Self {
            config,
            embed,
            positions,
            blocks,
            final_norm,
            head,
            placement,
        }
    }

    /// Builds the network from weights that stay mapped and are computed on the CPU in f32;
    /// `layers`: only the first n.
    pub fn on_cpu(
        config: Config,
        weights: &Weights,
        layers: Option<usize>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        load::load(config, weights, layers, &Placement::Mapped, ctx)
    }

    /// Builds the network on a device with candle's operations, in a dtype. On the CPU this is the
    /// second opinion that tests the operations of a GPU where there is none.
    pub fn on_device(
        config: Config,
        weights: &Weights,
        layers: Option<usize>,
        device: &Device,
        dtype: DType,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        load::load(
            config,
            weights,
            layers,
            &Placement::Device(device.clone(), dtype),
            ctx,
        )
    }

    /// Its switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Layers that were loaded.
    pub fn loaded_layers(&self) -> usize {
        self.blocks.len()
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        match &self.placement {
            Placement::Mapped => &Device::Cpu,
            Placement::Device(device, _) => device,
        }
    }

    /// What it computes in.
    pub fn dtype(&self) -> DType {
        match &self.placement {
            Placement::Mapped => DType::F32,
            Placement::Device(_, dtype) => *dtype,
        }
    }

    fn is_mapped(&self) -> bool {
        matches!(self.placement, Placement::Mapped)
    }

    /// The width of a hook; an error names the range when its layer does not exist.
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

    /// Which arithmetic a pass uses: see [`super::Model::forward`].
    fn path(&self, phase: Phase, rows: usize) -> Path {
        if phase == Phase::Generated && rows < DEQUANTISE_FROM {
            Path::Quantised
        } else {
            Path::Dequantised
        }
    }

    /// One forward pass; see [`super::Model::forward`].
    pub fn forward(
        &self,
        batch: &Batch,
        phase: Phase,
        cache: Option<&mut KvCache>,
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        let places = self.places(batch, cache.as_deref())?;
        let numbered: Vec<usize>;
        let samples = if batch.samples.is_empty() {
            numbered = (0..batch.rows.len()).collect();
            &numbered
        } else {
            &batch.samples
        };
        let x = self.embed(batch, &places)?;
        self.pass((x, 0), &places, (samples, phase), cache, tap, logits, ctx)
    }

    /// From the residual stream that a layer reads to what was asked for.
    pub(super) fn pass(
        &self,
        (x, from): (Tensor, usize),
        places: &Places,
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
        let mut run = self.run(places, samples, phase, widened, tap, last)?;
        if stops && last.is_none() {
            return Ok(None);
        }
        let path = run.path;
        let result = self.layers(
            x,
            from..self.blocks.len(),
            &mut run,
            cache.as_deref_mut(),
            ctx,
        );
        match (&result, cache) {
            (Ok(_), Some(cache)) => {
                cache
                    .lengths
                    .iter_mut()
                    .zip(&places.lengths)
                    .for_each(|(held, new)| *held += new);
            }
            (Err(_), Some(cache)) => cache.truncate(self.config.kv_width()),
            (_, None) => {}
        }
        let Some(x) = result? else { return Ok(None) };
        self.logits(&x, places, logits, path)
    }

    /// A pass to be; an error for a hook that does not exist.
    pub(super) fn run<'a>(
        &self,
        places: &'a Places,
        samples: &'a [usize],
        phase: Phase,
        widened: bool,
        tap: &'a mut dyn Tap,
        last: Option<HookPoint>,
    ) -> Result<Run<'a>> {
        let hooks = tap.hooks().to_vec();
        hooks
            .iter()
            .try_for_each(|&hook| self.width(hook).map(drop))?;
        let rows = places.starts.len() * places.tokens;
        let path = if widened {
            Path::Dequantised
        } else {
            self.path(phase, rows)
        };
        let pass = Pass {
            starts: &places.starts,
            lengths: &places.lengths,
            samples,
            phase,
        };
        Ok(Run {
            pass,
            places,
            path,
            tap,
            hooks,
            last,
        })
    }

    /// Starts and lengths of a batch's rows, checked.
    pub(super) fn places(&self, batch: &Batch, cache: Option<&KvCache>) -> Result<Places> {
        let rows = batch.rows.len();
        if rows == 0 {
            return Err(Error::usage("a batch of no rows"));
        }
        if !batch.samples.is_empty() && batch.samples.len() != rows {
            return Err(Error::usage(format!(
                "{} sample numbers for {rows} rows",
                batch.samples.len()
            )));
        }
        let starts = match cache {
            Some(cache) if cache.lengths.len() != rows => {
                return Err(Error::usage(format!(
                    "a cache of {} rows for a batch of {rows}",
                    cache.lengths.len()
                )));
            }
            Some(cache) => cache.lengths.clone(),
            None => vec![0; rows],
        };
        for (r, (row, start)) in batch.rows.iter().zip(&starts).enumerate() {
            if row.is_empty() {
                return Err(Error::usage(format!("row {r} of the batch has no tokens")));
            }
            let end = start + row.len();
            if end > self.config.context {
                let problem = format!(
                    "row {r} has {end} tokens, the model's context is {}",
                    self.config.context
                );
                return Err(Error::usage(problem));
            }
            if let Some(id) = row.iter().find(|&&id| id as usize >= self.config.vocab) {
                let last = self.config.vocab - 1;
                let problem = format!(
                    "token id {id} does not exist: this model has embeddings for ids 0 to {last} (a token that was \
                     added to its tokenizer alone has none)"
                );
                return Err(Error::usage(problem));
            }
        }
        let lengths = batch.rows.iter().map(Vec::len).collect();
        Ok(self.places_of(starts, lengths))
    }

    pub(super) fn places_of(&self, starts: Vec<usize>, lengths: Vec<usize>) -> Places {
        Places::new(&self.config, starts, lengths)
    }

    pub(super) fn embed(&self, batch: &Batch, places: &Places) -> Result<Tensor> {
        let (width, tokens) = (self.config.d_model, places.tokens);
        let mut x = vec![0.0f32; batch.rows.len() * tokens * width];
        for (r, row) in batch.rows.iter().enumerate() {
            for t in 0..tokens {
                // Padding repeats id 0: no real token sees it, and it computes like any other.
                let id = row.get(t).copied().unwrap_or(0) as usize;
                let out = &mut x[(r * tokens + t) * width..][..width];
                self.embed.dequantise(id..id + 1, out);
                if let Some(scale) = self.config.embed_scale {
                    out.iter_mut().for_each(|v| *v *= scale as f32);
                }
            }
        }
        if let Some(positions) = &self.positions {
            let mut at = vec![0.0f32; width];
            for (i, out) in x.chunks_exact_mut(width).enumerate() {
                let position =
                    (places.starts[i / tokens] + i % tokens).min(self.config.context - 1);
                positions.dequantise(position..position + 1, &mut at);
                vector::axpy(out, 1.0, &at);
            }
        }
        if !vector::all_finite(&x) {
            return Err(Error::refused(
                "the embeddings hold NaN or infinity: the weights are damaged, download them again",
            ));
        }
        let x = Tensor::from_vec(x, (batch.rows.len() * tokens, width), &Device::Cpu)?;
        Ok(x.to_device(self.device())?.to_dtype(self.dtype())?)
    }

    /// The residual stream x after `layers`, or `None` when the pass stopped at the last hook.
    pub(super) fn layers(
        &self,
        mut x: Tensor,
        layers: Range<usize>,
        run: &mut Run<'_>,
        mut cache: Option<&mut KvCache>,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        for (i, layer) in self
            .blocks
            .iter()
            .enumerate()
            .take(layers.end)
            .skip(layers.start)
        {
            ctx.check()?;
            let held = cache.as_deref_mut().map(|c| &mut c.layers[i]);
            let a = layer.qkv.apply(&layer.attn_norm.apply(&x)?, run.path)?;
            let heads = Heads {
                config: &self.config,
                kind: layer.kind,
                q_norm: layer.q_norm.as_ref().map(NormWeights::weight),
                k_norm: layer.k_norm.as_ref().map(NormWeights::weight),
            };
            let a = if self.is_mapped() {
                heads.on_cpu(&a, run.places, held)?
            } else {
                heads.on_device(&a, run.places, held)?
            };
            let mut a = layer.out.apply(&a, run.path)?;
            if let Some(norm) = &layer.post_attn {
                a = norm.apply(&a)?;
            }
            let middle = ops::add(&x, &a, self.is_mapped())?;
            let read = if self.config.parallel { &x } else { &middle };
            let Some(m) = self.mlp(i, layer, read, run)? else {
                return Ok(None);
            };
            x = ops::add(&middle, &m, self.is_mapped())?;
            self.check_finite(&x, i)?;
            x = run.at(i, HookSite::ResidPost, x)?;
            if run.ends(i, HookSite::ResidPost) {
                return Ok(None);
            }
        }
        self.check_device(&x, run.pass.phase)?;
        Ok(Some(x))
    }

    /// What the MLP adds; `None` when the pass ends inside it.
    fn mlp(
        &self,
        i: usize,
        layer: &Layer,
        x: &Tensor,
        run: &mut Run<'_>,
    ) -> Result<Option<Tensor>> {
        let c = &self.config;
        let h = layer.up.apply(&layer.mlp_norm.apply(x)?, run.path)?;
        let h = ops::activate(&h, c.activation, c.gated, c.d_mlp, self.is_mapped())?;
        let h = run.at(i, HookSite::MlpPost, h)?;
        if run.ends(i, HookSite::MlpPost) {
            return Ok(None);
        }
        let mut m = layer.down.apply(&h, run.path)?;
        if let Some(norm) = &layer.post_mlp {
            m = norm.apply(&m)?;
        }
        let m = run.at(i, HookSite::MlpOut, m)?;
        Ok(if run.ends(i, HookSite::MlpOut) {
            None
        } else {
            Some(m)
        })
    }

    /// A device is asked once, at the end of a prompt's pass: each question makes it wait.
    fn check_device(&self, x: &Tensor, phase: Phase) -> Result<()> {
        if self.is_mapped()
            || phase != Phase::Prompt
            || x.to_dtype(DType::F32)?
                .sum_all()?
                .to_scalar::<f32>()?
                .is_finite()
        {
            return Ok(());
        }
        Err(Error::refused(
            "a layer gave NaN or infinity: lower the steering strength, try --dtype f32, or check the weights",
        ))
    }

    /// When a layer's output is not finite, says whether its weights are to blame.
    fn check_finite(&self, x: &Tensor, layer: usize) -> Result<()> {
        if !self.is_mapped() || with_slice(x, vector::all_finite)? {
            return Ok(());
        }
        let damage = self.damage(layer..layer + 1);
        Err(Error::refused(damage.unwrap_or_else(|| {
            format!("layer {layer} gave NaN or infinity: lower the steering strength, or check the weights")
        })))
    }

    /// What is wrong with some loaded layers where one of their tensors, mapped, holds NaN or
    /// infinity. Reads all of them: for naming the cause of a failure.
    pub(crate) fn damage(&self, layers: Range<usize>) -> Option<String> {
        let blocks = self.blocks.get(layers).unwrap_or_default();
        blocks
            .iter()
            .flat_map(|b| [&b.qkv, &b.out, &b.up, &b.down])
            .find_map(Linear::damaged)
            .map(damaged)
    }

    fn logits(
        &self,
        x: &Tensor,
        places: &Places,
        which: Logits,
        path: Path,
    ) -> Result<Option<Tensor>> {
        let (Some(norm), Some(head)) = (&self.final_norm, &self.head) else {
            return Ok(None);
        };
        let rows = places.starts.len();
        let x = match which {
            Logits::None => return Ok(None),
            Logits::All => x.clone(),
            Logits::Last if places.tokens == 1 => x.clone(),
            Logits::Last => {
                let ids: Vec<u32> = places
                    .lengths
                    .iter()
                    .enumerate()
                    .map(|(r, n)| (r * places.tokens + n - 1) as u32)
                    .collect();
                x.index_select(&Tensor::new(ids.as_slice(), x.device())?, 0)?
            }
        };
        let mut out = head.apply(&norm.apply(&x)?, path)?.to_dtype(DType::F32)?;
        if self.is_mapped() && !with_slice(&out, vector::all_finite)? {
            return Err(Error::refused(match head.damaged() {
                Some(name) => damaged(name),
                None => "the logits are NaN or infinite: lower the steering strength, or check the weights".to_owned(),
            }));
        }
        if let Some(cap) = self.config.final_softcap {
            out = ops::softcap(&out, cap)?;
        }
        Ok(Some(if which == Logits::All {
            out.reshape((rows, places.tokens, head.out()))?
        } else {
            out
        }))
    }
}

fn damaged(tensor: &str) -> String {
    format!("tensor {tensor} holds NaN or infinity: the weights are damaged, download them again")
}
