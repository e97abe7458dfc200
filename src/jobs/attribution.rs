//! What makes the next token what it is: each part of the activations at one token is taken away by
//! itself, and the model says what becomes of the token that follows.
//!
//! Knows no study on disk. Invariant: the parts sum to the activations, so that nothing that the hook
//! holds at the token is left out.

use candle_core::Tensor;

use crate::activations::Block;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::factor::encode::Encoder;
use crate::model::config::NormKind;
use crate::model::likelihood::{log_likelihoods, log_softmax};
use crate::model::{
    Batch, BosRule, HookPoint, HookSite, KvCache, Logits, Model, NoTap, Pass, Phase, Portion, Tap,
    host,
};
use crate::pieces;
use crate::task::{Progress, TaskCtx};

/// The most rows of a pass.
const ROWS: usize = 64;
/// Bytes of keys and values that the rows of a pass may copy from the prefix.
const PREFIX_BYTES: usize = 256 << 20;
/// How many of the likeliest next tokens are told.
const LIKELIEST: usize = 5;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributionRequest<'a> {
    /// The text that is read.
    pub text: &'a str,
    /// The token whose activations are taken apart, counted from 0 without BOS; `None`: the last.
    pub at: Option<usize>,
    /// The next token that is asked about, as text; `None`: the one that follows in the text, and after
    /// the last the likeliest.
    pub target: Option<&'a str>,
    /// Whether BOS comes first.
    pub bos: BosRule,
}

/// A token that may come next.
#[derive(Debug, Clone, PartialEq)]
pub struct NextToken {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub token: String,
    /// Its probability.
    pub probability: f64,
}

/// A part of the activations at the token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// A feature's column times its coefficient.
    Feature {
        /// Its number in the fit.
        id: usize,
        /// Its coefficient at the token, above 0.
        coefficient: f32,
    },
    /// The mean row that the fit subtracts.
    Centre,
    /// What the features leave.
    Unexplained,
}

/// What one part does for the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartEffect {
    /// Which part.
    pub part: Part,
    /// The log-probability of the next token, minus that without the part, in nats: above 0 where the
    /// part makes the token likelier.
    pub effect: f64,
    /// What the part adds to the token's logit by itself: through the output projection and the
    /// unembedding, the norms on the way scaled as they are with all parts (direct logit attribution).
    pub direct: f64,
}

/// What makes a next token as likely as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// The tokens of the text up to the one that is taken apart.
    pub tokens: Vec<String>,
    /// The next token that is asked about.
    pub target: NextToken,
    /// The likeliest next tokens, the likeliest first.
    pub likeliest: Vec<NextToken>,
    /// What each part does, the largest effect first.
    pub parts: Vec<PartEffect>,
    /// The effect of taking all features away at once, in nats. It is not the sum of their effects where
    /// they work together or stand in for each other.
    pub together: f64,
    /// The token's logit, without a soft-cap and without what a bias of the last norm adds.
    pub logit: f64,
    /// What all else than the hook adds to the logit: `logit` minus the direct contributions.
    pub rest: f64,
}

impl Attribution {
    /// The sum of the features' effects, each taken away alone.
    pub fn sum(&self) -> f64 {
        let features = self.parts.iter();
        features
            .filter(|part| matches!(part.part, Part::Feature { .. }))
            .map(|part| part.effect)
            .sum()
    }
}

/// Takes the activations of `hook` at one token of a text apart by a fit, and each part away, one at a
/// time. The keys and values of the tokens before are computed once.
///
/// # Errors
/// [`Error::Usage`] for a text without tokens or longer than the model's context, a token that the text
/// does not have, a next token that is no single token, and a fit of another width; what the model
/// returns; [`Error::Cancelled`].
pub fn attribute(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    request: &AttributionRequest<'_>,
    ctx: &TaskCtx,
) -> Result<Attribution> {
    let (width, fitted) = (model.width(hook)?, factors.features.rows);
    if width != fitted {
        return Err(Error::usage(format!(
            "the fit has {fitted} neurons, but {hook} of this model is {width} wide: open the study's own model"
        )));
    }
    let (ids, lead, next) = read(model, request)?;
    let target = request.target.map(|t| single_token(model, t)).transpose()?;
    let moment = Moment::at(model, hook, &ids, ctx)?;
    let (base, likeliest) = moment.next_tokens(model)?;
    let target = target.or(next).unwrap_or(likeliest[0].id);
    let parts = parts(factors, &moment.activations, ctx)?;

    // All features at once are one more row.
    let features = |&(part, _): &&(Part, Vec<f32>)| matches!(part, Part::Feature { .. });
    let mut all = vec![0.0; width];
    for (_, values) in parts.iter().filter(features) {
        all.iter_mut().zip(values).for_each(|(a, v)| *a += v);
    }
    let taken: Vec<&[f32]> = parts.iter().map(|(_, values)| &values[..]).collect();
    let taken = [&taken[..], &[&all[..]]].concat();
    let effects = moment.effects(model, &taken, target, ctx)?;
    let (direct, logit) = moment.direct(model, &taken[..parts.len()], target)?;
    let mut found: Vec<PartEffect> = parts
        .iter()
        .zip(effects.iter().zip(&direct))
        .map(|((part, _), (&effect, &direct))| PartEffect {
            part: *part,
            effect,
            direct,
        })
        .collect();
    found.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    let pieces: Vec<String> = ids[lead..]
        .iter()
        .map(|&id| model.tokenizer().piece(id))
        .collect();
    Ok(Attribution {
        tokens: pieces::join_characters(&pieces),
        target: NextToken {
            id: target,
            token: model.tokenizer().piece(target),
            probability: f64::from(base[target as usize]).exp(),
        },
        likeliest,
        together: effects[parts.len()],
        parts: found,
        logit,
        rest: logit - direct.iter().sum::<f64>(),
    })
}

/// The ids up to the token that is asked about, how many of them come before the text, and the id that
/// follows in the text.
fn read(model: &Model, request: &AttributionRequest<'_>) -> Result<(Vec<u32>, usize, Option<u32>)> {
    let ids = model.tokenizer().encode(request.text, request.bos)?;
    let lead = usize::from(ids.first().copied() == model.tokenizer().bos() && !ids.is_empty());
    let count = ids.len() - lead;
    let at = match request.at {
        None if count == 0 => return Err(Error::usage("the text has no tokens: give a text")),
        None => count - 1,
        Some(at) if at < count => at,
        Some(at) => {
            return Err(Error::usage(format!(
                "token {at} is not in the text, which has tokens 0 to {}",
                count as i64 - 1
            )));
        }
    };
    let end = lead + at + 1;
    let context = model.info().context;
    if end > context {
        return Err(Error::usage(format!(
            "the text has {end} tokens up to the one that is asked about, the model's context {context}: give a later part of it"
        )));
    }
    Ok((ids[..end].to_vec(), lead, ids.get(end).copied()))
}

/// The id of a text that is one token.
fn single_token(model: &Model, text: &str) -> Result<u32> {
    let ids = model.tokenizer().encode(text, BosRule::Never)?;
    if let [id] = ids[..] {
        return Ok(id);
    }
    let pieces: Vec<String> = ids
        .iter()
        .map(|&id| format!("{:?}", model.tokenizer().piece(id)))
        .collect();
    Err(Error::usage(format!(
        "{text:?} is {} tokens ({}), and one is asked about: give one of them",
        ids.len(),
        pieces.join(", ")
    )))
}

/// The parts of a row: active features, the centre if there is one, and what is left. They sum to it.
fn parts(factors: &Factors, row: &[f32], ctx: &TaskCtx) -> Result<Vec<(Part, Vec<f32>)>> {
    let block = Block {
        rows: 1,
        cols: row.len(),
        data: row.into(),
    };
    let coefficients = Encoder::from_factors(factors).encode(&block, ctx)?;
    let mut parts = Vec::new();
    for (id, &coefficient) in coefficients.iter().enumerate().filter(|(_, y)| **y > 0.0) {
        let mut values = factors.features.dense_column(id);
        values.iter_mut().for_each(|v| *v *= coefficient);
        parts.push((Part::Feature { id, coefficient }, values));
    }
    if let Some(centre) = &factors.coding.centre {
        parts.push((Part::Centre, centre.to_vec()));
    }
    let residual = factors
        .coding
        .residual(&factors.features, row, &coefficients);
    let residual = residual.into_iter().map(|v| v as f32).collect();
    parts.push((Part::Unexplained, residual));
    Ok(parts)
}

/// One token of a text in the model: what it holds at the hook, and what stands before it.
struct Moment {
    hook: HookPoint,
    id: u32,
    /// Keys and values of the tokens before, one row.
    prefix: KvCache,
    /// The activations at the hook.
    activations: Vec<f32>,
    /// The residual stream after the last layer.
    last: Vec<f32>,
    /// The logits of the next token.
    logits: Tensor,
}

impl Moment {
    fn at(model: &Model, hook: HookPoint, ids: &[u32], ctx: &TaskCtx) -> Result<Self> {
        let (&id, before) = ids
            .split_last()
            .ok_or_else(|| Error::usage("the text has no tokens: give a text"))?;
        let stage = |done| Progress::new("reading the text", done, 2, "passes");
        ctx.checkpoint(stage(0))?;
        let mut prefix = model.new_cache(1).widened();
        if !before.is_empty() {
            let batch = Batch {
                rows: vec![before.to_vec()],
                samples: vec![0],
            };
            let cache = Some(&mut prefix);
            model.forward(&batch, Phase::Prompt, cache, &mut NoTap, Logits::None, ctx)?;
        }
        ctx.checkpoint(stage(1))?;
        let last = HookPoint {
            layer: model.info().layers - 1,
            site: HookSite::ResidPost,
        };
        let mut tap = Reading {
            hooks: vec![hook, last],
            seen: vec![None; 2],
        };
        let logits = one_token(model, &prefix, id, 1, &mut tap, ctx)?;
        let mut seen = tap.seen.into_iter().map(|row| {
            row.ok_or_else(|| Error::refused("the pass did not reach a hook that it should"))
        });
        let activations = seen.next().unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(Self {
            hook,
            id,
            prefix,
            last: match hook == last {
                true => activations.clone(),
                false => seen.next().unwrap_or_else(|| Ok(Vec::new()))?,
            },
            activations,
            logits,
        })
    }

    /// The log-probabilities of all tokens, and the likeliest of them.
    fn next_tokens(&self, model: &Model) -> Result<(Vec<f32>, Vec<NextToken>)> {
        let all = host::values(&log_softmax(&self.logits)?.flatten_all()?)?;
        // Ids beyond the tokenizer are padding of the embedding matrix.
        let known = model.tokenizer().vocab_size().min(all.len());
        let mut ids: Vec<u32> = (0..known as u32).collect();
        let order = |&a: &u32, &b: &u32| all[b as usize].total_cmp(&all[a as usize]);
        if known > LIKELIEST {
            ids.select_nth_unstable_by(LIKELIEST, order);
            ids.truncate(LIKELIEST);
        }
        ids.sort_unstable_by(order);
        let likeliest = ids.into_iter().map(|id| NextToken {
            id,
            token: model.tokenizer().piece(id),
            probability: f64::from(all[id as usize]).exp(),
        });
        let likeliest: Vec<NextToken> = likeliest.collect();
        if likeliest.is_empty() {
            return Err(Error::refused("the model's tokenizer has no tokens"));
        }
        Ok((all, likeliest))
    }

    /// By how much the log-probability of `target` falls without each of `taken`, in nats.
    fn effects(
        &self,
        model: &Model,
        taken: &[&[f32]],
        target: u32,
        ctx: &TaskCtx,
    ) -> Result<Vec<f64>> {
        let config = model.decoder().config();
        let held = 8 * config.layers.len() * config.kv_width() * self.prefix.lengths()[0];
        let rows = (PREFIX_BYTES / held.max(1)).clamp(2, ROWS);
        let (mut portion, mut out) = (Portion::new(rows), Vec::new());
        while out.len() < taken.len() {
            let progress = (out.len() as u64, taken.len() as u64);
            ctx.checkpoint(Progress::new(
                "taking parts away",
                progress.0,
                progress.1,
                "parts",
            ))?;
            // A row beside them keeps all parts, so that both sides are computed alike.
            let now = (portion.most() - 1).clamp(1, taken.len() - out.len());
            let mut tap = Removal {
                hook: [self.hook],
                parts: &taken[out.len()..][..now],
            };
            let found = one_token(model, &self.prefix, self.id, now + 1, &mut tap, ctx)
                .and_then(|logits| log_likelihoods(&log_softmax(&logits)?, &vec![target; now + 1]));
            match found {
                Ok(found) => out.extend(found[1..].iter().map(|without| found[0] - without)),
                Err(error) => portion.shrink(error, model.device(), (now + 1, 2), "rows")?,
            }
        }
        Ok(out)
    }

    /// What each part adds to the logit of `target` on the straight way, and the logit. Norms are linear
    /// where their scale is held: a part's logit lens times its own scale over that of the sum.
    fn direct(&self, model: &Model, parts: &[&[f32]], target: u32) -> Result<(Vec<f64>, f64)> {
        let norm = model.decoder().config().norm;
        let scale = |x: &[f32]| {
            let mean = |of: &dyn Fn(f64) -> f64| {
                x.iter().map(|&v| of(f64::from(v))).sum::<f64>() / x.len().max(1) as f64
            };
            let centre = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => mean(&|v| v),
            };
            (mean(&|v| (v - centre).powi(2)) + norm.eps).sqrt()
        };
        let lens = |residual: &Tensor| -> Result<Vec<f32>> {
            let column = model
                .logit_lens(residual)?
                .narrow(1, target as usize, 1)?
                .flatten_all()?;
            host::values(&column)
        };
        let tensor = |rows: &[&[f32]]| -> Result<Tensor> {
            let width = rows[0].len();
            Ok(Tensor::from_vec(
                rows.concat(),
                (rows.len(), width),
                model.device(),
            )?)
        };
        let whole = scale(&self.last);
        let logit = f64::from(lens(&tensor(&[&self.last])?)?[0]);
        let decoder = model.decoder();
        let all = decoder.output_scales(self.hook, &tensor(&[&self.activations])?)?[0];
        let mut out = Vec::with_capacity(parts.len());
        for chunk in parts.chunks(ROWS) {
            let x = tensor(chunk)?;
            let own = decoder.output_scales(self.hook, &x)?;
            let residual = model.residual_direction(self.hook, &x)?;
            let lens = lens(&residual)?;
            for ((row, lens), own) in host::rows(&residual)?.iter().zip(lens).zip(own) {
                out.push(f64::from(lens) * scale(row) / whole * all / own);
            }
        }
        Ok((out, logit))
    }
}

/// The logits `[rows, vocab]` after one token in `rows` rows that share what came before.
fn one_token(
    model: &Model,
    prefix: &KvCache,
    id: u32,
    rows: usize,
    tap: &mut dyn Tap,
    ctx: &TaskCtx,
) -> Result<Tensor> {
    let mut cache = prefix.fan_out(0, rows)?;
    let batch = Batch {
        rows: vec![vec![id]; rows],
        samples: (0..rows).collect(),
    };
    let logits = model.forward(
        &batch,
        Phase::Prompt,
        Some(&mut cache),
        tap,
        Logits::Last,
        ctx,
    )?;
    logits.ok_or_else(|| Error::refused("the pass gave no logits"))
}

/// Keeps what one row of one token holds at its hooks.
struct Reading {
    hooks: Vec<HookPoint>,
    seen: Vec<Option<Vec<f32>>>,
}

impl Tap for Reading {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let values = host::values(&x.flatten_all()?)?;
        if let Some(at) = self.hooks.iter().position(|h| *h == hook) {
            self.seen[at] = Some(values);
        }
        Ok(None)
    }
}

/// Takes part i from row i + 1; row 0 stays whole.
struct Removal<'a> {
    hook: [HookPoint; 1],
    parts: &'a [&'a [f32]],
}

impl Tap for Removal<'_> {
    fn hooks(&self) -> &[HookPoint] {
        &self.hook
    }

    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let (rows, tokens, width) = x.dims3()?;
        let mut removed = vec![0.0; width];
        removed.extend(self.parts.concat());
        let removed = Tensor::from_vec(removed, (rows, tokens, width), x.device())?;
        Ok(Some((x - removed.to_dtype(x.dtype())?)?))
    }
}
