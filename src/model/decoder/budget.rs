//! The memory that opening a model takes, compared with what is free before anything is read.

use std::ops::Range;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::LoadOptions;
use super::attention::SCORES;
use super::products::has_products;
use super::spread::divide;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::model::config::{Config, TensorNames};
use crate::model::weights::{StoredTensor, Weights};

/// Padded tokens of one pass of collecting: more would only make cancelling slower on the CPU;
/// fewer would starve a GPU.
const PASS_TOKENS: [usize; 2] = [512, 8192];
/// The fewest that a GPU is given where nobody asked for a number and its memory is small.
const LEAST_PASS_TOKENS: usize = 512;
/// The smallest batch that a refusal proposes, in padded tokens.
const LEAST_TOKENS: usize = 64;
/// Rows and tokens of the cache that generating begins with: a baseline and a steered text.
const CACHED_ROWS: u64 = 2;
const CACHED_TOKENS: usize = 2048;
/// Token rows whose logits are held at once.
const LOGIT_ROWS: usize = 512;
/// What a GPU's libraries take for themselves once a model computes.
const LIBRARIES: usize = 64 << 20;

/// Bytes that a model takes where it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The weights, as they are kept.
    pub weights: u64,
    /// Keys and values of two rows; 0 for a model that is only read up to a layer.
    pub cache: u64,
    /// Activations, scores and masks of one pass, logits, and the weights that are widened at a
    /// time.
    pub working: u64,
}

/// How a model is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many layers, from the first; `None`: all, for generating too.
    layers: Option<usize>,
    /// The compute dtype of a device; `None`: the CPU.
    device: Option<DType>,
    /// Padded tokens of one pass.
    pub(super) tokens: usize,
    /// Whether the number of tokens was asked for.
    asked: bool,
    /// Whether the embeddings are copied to the first device.
    pub(super) embedding: bool,
    /// Whether there are several devices: then the unembedding lies on another one.
    several: bool,
}

impl Plan {
    /// The plan that `options` ask for, on a device in its dtype or on the CPU.
    pub(super) fn new(options: &LoadOptions, device: Option<DType>) -> Self {
        let tokens = options
            .batch_tokens
            .unwrap_or(PASS_TOKENS[usize::from(device.is_some())]);
        Self {
            layers: options.layers,
            device,
            tokens,
            asked: options.batch_tokens.is_some(),
            embedding: false,
            several: false,
        }
    }

    fn on_cpu(layers: Option<usize>) -> Self {
        Self {
            layers,
            device: None,
            tokens: PASS_TOKENS[0],
            asked: true,
            embedding: false,
            several: false,
        }
    }
}

/// A model whose memory is reckoned; the types of blocks that are widened on a device when they are
/// loaded.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) config: &'a Config,
    pub(super) weights: &'a Weights,
    pub(super) widened: &'a [GgmlDType],
}

/// What each part of a model takes, in bytes.
struct Parts {
    /// The weights of each layer that is loaded.
    layers: Vec<u64>,
    /// The weights outside the layers: on a device the unembedding and its norm, on the CPU the
    /// embedding too, which a device leaves in the file.
    outside: u64,
    /// The embeddings and learned positions that are copied to the first device beside the unembedding.
    embedding: u64,
    /// Keys and values of one layer.
    cache: u64,
    working: u64,
}

impl Subject<'_> {
    fn parts(&self, plan: Plan) -> Parts {
        let c = self.config;
        let width = plan.device.map_or(4, |dtype| dtype.size_in_bytes());
        let depth = c.layers.len();
        let count = plan.layers.unwrap_or(depth).min(depth);
        let mut layers = vec![0; count];
        let (mut outside, mut embedding, mut blocks) = (0, 0, 0);
        for name in self.weights.names() {
            let Some(tensor) = self.weights.get(name) else {
                continue;
            };
            let bytes = self.bytes_of(tensor, plan);
            if plan.embedding && layer_of(c.names, name).is_none() && self.is_embedding(name) {
                let there = count == depth && !plan.several && self.is_at_the_end(name);
                // Learned positions stay in f32.
                embedding += match name.ends_with(&format!("{}.weight", c.names.positions)) {
                    true => 4 * (tensor.rows() * tensor.cols()) as u64,
                    false if there || tensor.is_quantised() => 0,
                    false => bytes,
                };
            }
            let place = match layer_of(c.names, name) {
                Some(layer) if layer < count => &mut layers[layer],
                None if plan.device.is_none() || count == depth && self.is_at_the_end(name) => {
                    &mut outside
                }
                _ => continue,
            };
            *place += bytes;
            if plan.device.is_some() && self.stays_in_blocks(tensor) {
                blocks = blocks.max(tensor.rows() * tensor.cols());
            }
        }
        let cache =
            c.kv_bytes_per_token(1, width) * CACHED_ROWS * c.context.min(CACHED_TOKENS) as u64;
        Parts {
            layers,
            outside,
            embedding,
            cache: if plan.layers.is_none() { cache } else { 0 },
            working: self.working(plan, width, blocks) as u64,
        }
    }

    /// Bytes beside weights and cache. `blocks`: values of the largest matrix of blocks.
    fn working(&self, plan: Plan, width: usize, blocks: usize) -> usize {
        let c = self.config;
        let values = 2 * c.d_mlp + c.q_width() + 2 * c.kv_width() + 4 * c.d_model;
        let pass = plan.tokens * values * width;
        if plan.device.is_none() {
            return pass + (16 << 20);
        }
        // Scores and their softmax in f32, and a mask that all heads share.
        let pairs = plan.tokens * plan.tokens.min(c.context);
        let scores = (c.heads * pairs).min(SCORES);
        let attention = scores * 8 + scores / c.heads.max(1) * 4;
        let logits = if plan.layers.is_none() {
            plan.tokens.min(LOGIT_ROWS) * c.vocab * 4
        } else {
            0
        };
        // Widened to f32 first, then to what is computed in.
        pass + attention.max(logits) + blocks * (4 + width) + LIBRARIES
    }

    fn stays_in_blocks(&self, tensor: &StoredTensor) -> bool {
        tensor.is_quantised()
            && has_products(tensor.dtype())
            && !self.widened.contains(&tensor.dtype())
    }

    fn bytes_of(&self, tensor: &StoredTensor, plan: Plan) -> u64 {
        match plan.device {
            Some(dtype) if !self.stays_in_blocks(tensor) => {
                (tensor.rows() * tensor.cols() * dtype.size_in_bytes()) as u64
            }
            _ => tensor.data().len() as u64,
        }
    }

    /// Whether a tensor outside the layers is copied to a device: not the embedding, which stays in
    /// the file, unless it is the unembedding too; nor learned positions.
    fn is_at_the_end(&self, name: &str) -> bool {
        let names = self.config.names;
        let is = |own: &str| name.ends_with(&format!("{own}.weight"));
        if is(names.embedding) {
            let stored = format!("{}.weight", names.unembedding);
            return !self.weights.names().any(|n| {
                layer_of(names, n).is_none() && (n == stored || n.ends_with(&format!(".{stored}")))
            });
        }
        !is(names.positions)
    }

    /// Whether a tensor outside the layers holds embeddings or learned positions: where a tied pair is
    /// stored as the unembedding alone, that one.
    fn is_embedding(&self, name: &str) -> bool {
        let c = self.config;
        let is = |own: &str| name.ends_with(&format!("{own}.weight"));
        let alone = || {
            let embedding = format!("{}.weight", c.names.embedding);
            !self.weights.names().any(|n| n.ends_with(&embedding))
        };
        is(c.names.embedding)
            || c.learned_positions && is(c.names.positions)
            || is(c.names.unembedding) && alone()
    }

    fn need(&self, plan: Plan) -> MemoryNeed {
        let parts = self.parts(plan);
        MemoryNeed {
            weights: parts.layers.iter().sum::<u64>() + parts.outside + parts.embedding,
            cache: parts.cache * self.config.layers.len() as u64,
            working: parts.working,
        }
    }
}

impl MemoryNeed {
    /// The need of the first `layers` layers on the CPU (`None`: all, for generating too).
    pub fn on_cpu(config: &Config, weights: &Weights, layers: Option<usize>) -> Self {
        let widened = &[];
        Subject {
            config,
            weights,
            widened,
        }
        .need(Plan::on_cpu(layers))
    }

    /// Why all of a model does not fit in `free` bytes on the CPU, and what would; `None` when it
    /// does.
    pub fn refusal_on_cpu(config: &Config, weights: &Weights, free: u64) -> Option<String> {
        let widened = &[];
        let subject = Subject {
            config,
            weights,
            widened,
        };
        refusal(subject, Plan::on_cpu(None), free)
    }

    /// The sum of weights, cache and working memory, in bytes.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.working
    }
}

/// The layer that a tensor belongs to.
fn layer_of(names: &TensorNames, tensor: &str) -> Option<usize> {
    let (_, rest) = tensor.split_once(names.layers)?;
    rest.split('.').next()?.parse().ok()
}

/// What a model takes on one of several devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// The layers that lie there.
    pub(super) layers: Range<usize>,
    /// Whether the embeddings do.
    pub(super) start: bool,
    /// Whether the unembedding does.
    pub(super) end: bool,
    pub(super) bytes: u64,
}

impl Share {
    /// "layers 0 to 15 and the unembedding", "no layer".
    pub(super) fn described(&self) -> String {
        let layers = match self.layers.len() {
            0 => "no layer".to_owned(),
            1 => format!("layer {}", self.layers.start),
            _ => format!("layers {} to {}", self.layers.start, self.layers.end - 1),
        };
        let start = if self.start { "the embeddings, " } else { "" };
        let end = if self.end { " and the unembedding" } else { "" };
        format!("{start}{layers}{end}")
    }
}

/// Divides the layers over devices of which `free` bytes are free (`None`: unknown), and says what
/// each holds.
pub(super) fn shares(subject: Subject<'_>, plan: Plan, free: &[Option<u64>]) -> Vec<Share> {
    let parts = subject.parts(plan);
    let each: Vec<u64> = parts.layers.iter().map(|w| w + parts.cache).collect();
    let start = |i: usize| if i == 0 { parts.embedding } else { 0 };
    let room: Vec<Option<u64>> = free
        .iter()
        .enumerate()
        .map(|(i, free)| free.map(|bytes| bytes.saturating_sub(parts.working + start(i))))
        .collect();
    let firsts = divide(&each, parts.outside, &room);
    let ends = firsts[1..].iter().copied().chain([each.len()]);
    let last = firsts.len() - 1;
    firsts
        .iter()
        .zip(ends)
        .enumerate()
        .map(|(i, (&first, end))| {
            let outside = if i == last { parts.outside } else { 0 };
            Share {
                layers: first..end,
                start: start(i) > 0,
                end: i == last && parts.outside > 0,
                bytes: each[first..end].iter().sum::<u64>() + start(i) + outside + parts.working,
            }
        })
        .collect()
}

/// Refuses what cannot fit, before anything is read, and makes a batch smaller that nobody asked
/// for. `free`: bytes free on each device that the model computes on, where that is known; `names`:
/// what they are called.
pub(super) fn check(
    subject: Subject<'_>,
    plan: Plan,
    free: &[Option<u64>],
    names: &[String],
) -> Result<Plan> {
    let fits = |plan: Plan| match free {
        [free] => free.is_none_or(|free| subject.need(plan).total() <= free),
        _ => shares(subject, plan, free)
            .iter()
            .zip(free)
            .all(|(share, free)| free.is_none_or(|free| share.bytes <= free)),
    };
    let halves = std::iter::successors(Some(plan), |plan| {
        let tokens = plan.tokens / 2;
        (!plan.asked && tokens >= LEAST_PASS_TOKENS).then_some(Plan { tokens, ..*plan })
    });
    // The embeddings only where that is known to fit, and never for fewer tokens at once.
    let embedded = Plan {
        embedding: true,
        several: free.len() > 1,
        ..plan
    };
    let known = plan.device.is_some() && free.iter().all(Option::is_some);
    let embedded = known.then_some(embedded);
    if let Some(plan) = embedded.into_iter().chain(halves).find(|&plan| fits(plan)) {
        return Ok(plan);
    }
    let problem = match free {
        [Some(free)] => refusal(subject, plan, *free),
        [None] => None,
        _ => Some(refusal_of_shares(subject, plan, free, names)),
    };
    match problem {
        Some(problem) => Err(Error::refused(problem)),
        None => Ok(plan),
    }
}

/// Why a model does not fit on several devices, with what each would hold.
fn refusal_of_shares(
    subject: Subject<'_>,
    plan: Plan,
    free: &[Option<u64>],
    names: &[String],
) -> String {
    let each: Vec<String> = shares(subject, plan, free)
        .iter()
        .zip(free)
        .zip(names)
        .map(|((share, free), name)| {
            format!(
                "{} on {name} take {} and {} is free",
                share.described(),
                human_bytes(share.bytes),
                free.map_or_else(|| "an unknown amount".to_owned(), human_bytes)
            )
        })
        .collect();
    format!(
        "this model does not fit: {}: name another card, take a smaller batch (collect --batch-tokens), or open a \
         smaller or a quantised model",
        each.join("; ")
    )
}

/// Why a model does not fit in `free` bytes, and what would.
fn refusal(subject: Subject<'_>, plan: Plan, free: u64) -> Option<String> {
    let need = |plan| subject.need(plan);
    let fits = |plan: &Plan| need(*plan).total() <= free;
    let needed = need(plan);
    if fits(&plan) {
        return None;
    }
    let depth = subject.config.layers.len();
    let mut remedies = Vec::new();
    let halved = std::iter::successors(Some(plan.tokens / 2), |n| Some(n / 2))
        .take_while(|&n| n >= LEAST_TOKENS);
    if let Some(smaller) = halved.map(|tokens| Plan { tokens, ..plan }).find(fits) {
        remedies.push(format!(
            "a smaller batch would fit (collect --batch-tokens {})",
            smaller.tokens
        ));
    }
    let fewer = (1..=plan.layers.unwrap_or(depth)).rev();
    if let Some(n) = fewer.into_iter().find(|&n| {
        fits(&Plan {
            layers: Some(n),
            ..plan
        })
    }) {
        remedies.push(format!(
            "the first {n} of {depth} layers would fit (collect --layer {} or below)",
            n - 1
        ));
    }
    let half = Plan {
        device: plan.device.map(|_| DType::BF16),
        ..plan
    };
    if plan.device == Some(DType::F32) && fits(&half) {
        remedies.push(format!(
            "--dtype bf16 would take {}",
            human_bytes(need(half).total())
        ));
    }
    if plan.device.is_some() {
        remedies.push("layers on several cards would hold more (--device cuda:0,1)".into());
    }
    remedies.push("open a smaller or a quantised model".into());
    Some(format!(
        "this model{} takes {} (weights {}, KV cache {}, working memory {}) and {} of {} is free: {}",
        plan.layers.map_or(String::new(), |n| format!(
            " up to layer {}",
            n.saturating_sub(1)
        )),
        human_bytes(needed.total()),
        human_bytes(needed.weights),
        human_bytes(needed.cache),
        human_bytes(needed.working),
        human_bytes(free),
        if plan.device.is_some() {
            "the device's memory"
        } else {
            "memory"
        },
        remedies.join(", or ")
    ))
}

#[cfg(test)]
mod tests;
