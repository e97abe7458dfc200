//! Sets of directions for which the model itself is asked: what makes a label's sentences likelier,
//! and what each direction of a set does.
//!
//! Both are measured once and kept in the study; what is made of them for a choice of sentences
//! takes a moment. Knows no evaluation. Invariant: a set sees the sentences that it is given to
//! choose by, and no others.

mod effects;
mod gradients;
mod subject;
mod words;

use super::directions::{self, HookSelection};
use crate::corpus::TokenTable;
use crate::directions::mix::Mixer;
use crate::directions::{DirectionSet, Directions, Mix, PlainSet, SetKind, support_size};
use crate::error::{Error, Result};
use crate::eval::split::Split;
use crate::model::Model;
use crate::study::Study;
use crate::task::TaskCtx;

pub use effects::{EffectRequest, Effects};
pub use gradients::LabelGradients;
pub(super) use subject::{computed, identity as identity_of};
pub use words::{MOST_WORDS, own_tokens, poor_words};

/// The directions of a mix with their weights.
type Recipe = Vec<(usize, f32)>;

/// A mix of more directions is refused: F has this many rows.
const MOST_MIXED: usize = 4096;

/// The sentences that choose, with their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choosing {
    /// The labels, in the order of the directions.
    pub labels: Vec<String>,
    /// The place of a label, and a sample.
    pub sentences: Vec<(usize, u32)>,
}

impl Choosing {
    /// Every labelled sentence of a study that has rows.
    pub fn whole(tokens: &TokenTable) -> Self {
        let mut samples: Vec<u32> = tokens.rows.iter().map(|r| r.sample).collect();
        samples.dedup();
        let labelled = samples.into_iter().filter_map(|sample| {
            let label = tokens.sample_labels.get(sample as usize).copied().flatten();
            Some((label? as usize, sample))
        });
        Self {
            labels: tokens.labels.clone(),
            sentences: labelled.collect(),
        }
    }

    /// The sentences of a split that are not held out, of the labels that it scores.
    pub fn of_split(split: &Split, tokens: &TokenTable) -> Self {
        let sentences = split.sentences.iter().filter(|s| !s.held_out);
        let labelled = sentences.filter_map(|s| {
            let place = split.labels.binary_search(&s.label?).ok()?;
            Some((place, tokens.rows.get(s.rows.start)?.sample))
        });
        let name = |&l: &u32| tokens.labels[l as usize].clone();
        Self {
            labels: split.labels.iter().map(name).collect(),
            sentences: labelled.collect(),
        }
    }

    /// As (label, text).
    pub fn texts<'a>(&'a self, tokens: &'a TokenTable) -> Vec<(&'a str, &'a str)> {
        let text = |&(label, sample): &(usize, u32)| {
            let text = tokens.texts.get(sample as usize)?;
            Some((self.labels[label].as_str(), text.as_str()))
        };
        self.sentences.iter().filter_map(text).collect()
    }
}

/// Makes a measured set of the sentences that choose: one direction a label. `model` is asked for
/// what the study does not hold yet.
///
/// # Errors
/// [`Error::Usage`] for labels that there are none of, and for another kind of set;
/// [`Error::Refused`] without a model where it has to be asked, with the command that asks it, for
/// what memory does not hold, and for sets that are too large; [`Error::Cancelled`], after which what
/// was measured is kept.
pub fn open(
    study: &Study,
    kind: &SetKind,
    place: &HookSelection,
    choosing: &Choosing,
    ask: &EffectRequest,
    model: Option<&Model>,
    ctx: &TaskCtx,
) -> Result<PlainSet> {
    if choosing.labels.is_empty() {
        return Err(Error::usage(format!(
            "the corpus has no labels, which {kind} needs: collect one that has (JSON: label → list of texts)"
        )));
    }
    match kind {
        SetKind::TextGradient { cut, .. } => {
            let (hook, fit) = place.of(kind).resolve(study)?;
            let found = LabelGradients::of(study, hook, choosing, model, ctx)?;
            let d = found.hook_width();
            let columns = found.by_hook.concat();
            let whole = Directions::Dense { d, columns };
            let directions = if *cut {
                let config = fit.map(|f| f.config).unwrap_or_default();
                whole.cut(support_size(config.sparsity_at(d), d))
            } else {
                whole
            };
            let labels = choosing.labels.clone();
            Ok(PlainSet::new(kind.to_string(), hook, directions, labels))
        }
        SetKind::Mixed { mix, .. } => {
            let source = kind.source().unwrap_or(SetKind::FIT);
            let source = directions::open(study, &source, &place.of(kind), ctx)?;
            mixed(
                study,
                kind,
                *mix,
                source.as_ref(),
                choosing,
                ask,
                model,
                ctx,
            )
        }
        SetKind::Fit(_) | SetKind::Sae(_) | SetKind::File { .. } | SetKind::Baseline { .. } => Err(
            Error::usage(format!("{kind} is made without asking the model")),
        ),
    }
}

fn mixed(
    study: &Study,
    kind: &SetKind,
    mix: Mix,
    source: &dyn DirectionSet,
    choosing: &Choosing,
    ask: &EffectRequest,
    model: Option<&Model>,
    ctx: &TaskCtx,
) -> Result<PlainSet> {
    let (hook, count) = (source.hook(), source.directions().count());
    if count > MOST_MIXED {
        return Err(Error::refused(format!(
            "{} has {count} directions, and a mix takes {MOST_MIXED} at most: take a set of fewer",
            source.name()
        )));
    }
    let effects = Effects::of(study, source, ask, model, ctx)?;
    let recipes = match mix {
        Mix::One => {
            let tokens = words::chosen_tokens(study, choosing, model)?;
            effects
                .best(&tokens)
                .into_iter()
                .map(|best| best.map_or(Vec::new(), |(j, sign)| vec![(j, sign)]))
                .collect()
        }
        Mix::All | Mix::Five => {
            let gradients = LabelGradients::of(study, hook, choosing, model, ctx)?;
            let recipes = weighted(mix, &effects, &gradients, ctx)?;
            told(source, recipes)?
        }
    };
    Ok(of_recipes(kind, source, choosing, recipes))
}

/// Refuses weights that are no numbers: a direction whose change is not one.
fn told(source: &dyn DirectionSet, recipes: Option<Vec<Recipe>>) -> Result<Vec<Recipe>> {
    recipes.ok_or_else(|| {
        Error::refused(format!(
            "what the directions of {} do is not finite, so that they cannot be mixed: measure at a smaller KL (--kl), or compute in f32 (--dtype f32)",
            source.name()
        ))
    })
}

/// For each label the weights of the directions at unit length, the heaviest first; `None` where
/// what they do is not finite.
fn weighted(
    mix: Mix,
    effects: &Effects,
    gradients: &LabelGradients,
    ctx: &TaskCtx,
) -> Result<Option<Vec<Recipe>>> {
    let (ids, f) = effects.covariance(ctx)?;
    let pushes: Vec<Vec<f32>> = ids.iter().map(|&j| effects.push(j)).collect();
    let Some(mixer) = Mixer::new(&f, ids.len(), mix) else {
        return Ok(None);
    };
    let mut out = Vec::with_capacity(gradients.residual.len());
    for g in &gradients.residual {
        ctx.check()?;
        let slope = |(&j, push): (&usize, &Vec<f32>)| {
            let along: f64 = push.iter().zip(g).map(|(u, g)| f64::from(*u) * g).sum();
            effects.alpha(j) * along
        };
        let b: Vec<f64> = ids.iter().zip(&pushes).map(slope).collect();
        let weights = ids.iter().zip(mixer.weights(&b));
        let weights = weights.filter(|(_, c)| *c != 0.0);
        // What was measured is a push behind the norm of the MLP's output, what is summed lies
        // before it.
        let mut recipe: Vec<(usize, f32)> = weights
            .map(|(&j, c)| (j, (c * effects.alpha(j) * effects.scale(j)) as f32))
            .collect();
        recipe.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        out.push(recipe);
    }
    Ok(Some(out))
}

/// The set whose direction for a label is the sum of its recipe's directions at unit length, with
/// the recipe's weights scaled so that the sum has unit length.
fn of_recipes(
    kind: &SetKind,
    source: &dyn DirectionSet,
    choosing: &Choosing,
    mut recipes: Vec<Recipe>,
) -> PlainSet {
    let (units, d) = (
        source.directions().to_sparse(),
        source.directions().height(),
    );
    let mut columns = Vec::with_capacity(recipes.len() * d);
    for recipe in &mut recipes {
        let mut sum = vec![0.0f64; d];
        for &(j, weight) in recipe.iter() {
            let (rows, values) = units.column(j);
            for (&i, &v) in rows.iter().zip(values) {
                sum[i as usize] += f64::from(weight) * f64::from(v);
            }
        }
        let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        recipe
            .iter_mut()
            .for_each(|(_, weight)| *weight = (f64::from(*weight) * scale) as f32);
        columns.extend(sum.into_iter().map(|v| (v * scale) as f32));
    }
    let directions = Directions::Dense { d, columns };
    // A set of few neurons each is kept so.
    let directions = match source.directions() {
        Directions::Dense { .. } => directions,
        Directions::Sparse(_) | Directions::Neurons(_) => {
            Directions::Sparse(directions.to_sparse())
        }
    };
    let labels = choosing.labels.clone();
    PlainSet::new(kind.to_string(), source.hook(), directions, labels).with_recipes(recipes)
}

/// Refuses to go on without a model.
fn need<'a>(model: Option<&'a Model>, study: &Study, what: &str) -> Result<&'a Model> {
    model.ok_or_else(|| {
        let dir = study.dir().display();
        Error::refused(format!(
            "the model has not been asked for this yet: run mlpeek effects {dir} --directions {what}"
        ))
    })
}

#[cfg(test)]
mod tests;
