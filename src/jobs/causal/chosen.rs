//! The direction of each method for each label, and what is steered with.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3;

use super::super::choice::by_output;
use super::super::evaluation::{Method, MethodDirections};
use super::super::measured::{EffectRequest, Effects};
use crate::directions::baselines::random;
use crate::directions::support_size;
use crate::error::Result;
use crate::eval::steering::report::ReportLine;
use crate::eval::steering::{CHANCE, LabelDirection, chance_at};
use crate::model::{HookPoint, Model};
use crate::steering::direction_term;
use crate::study::Study;
use crate::task::TaskCtx;

/// Random directions that tell what chance gives.
const CHANCE_DIRECTIONS: usize = 100;

/// A direction that a method offers for a label, as it is in its set.
pub(super) struct ChosenDirection {
    pub method: String,
    pub label: String,
    pub direction: usize,
    pub hook: HookPoint,
    pub column: Vec<f32>,
}

/// By what a direction is chosen for a label's words.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    /// By the logit lens.
    Output,
    /// By what it does, as this measures it.
    Effect(&'a Study, &'a EffectRequest),
}

/// The directions of a method that lift or raise each label's words most; `None` for one that
/// chooses by no side: differences in means are their labels' own, and random directions are not
/// chosen. Shuffled: another label's words.
pub(super) fn lifted(
    offered: &MethodDirections,
    side: Side<'_>,
    tokens: &[Vec<u32>],
    model: &Model,
    ctx: &TaskCtx,
) -> Result<ByWords> {
    let mut tokens = tokens.to_vec();
    match &offered.method {
        Method::Set(kind) if kind.supervised() || !kind.ranked() => {
            return Ok(None);
        }
        Method::Shuffled if !tokens.is_empty() => tokens.rotate_left(1),
        Method::Set(_) | Method::Shuffled | Method::Mean(_) | Method::Prompt => {}
    }
    let set = offered.set.as_ref();
    Ok(Some(match side {
        Side::Output => {
            let found = by_output(model, set, &tokens, ctx)?;
            found.into_iter().map(|found| Some((found?, 1.0))).collect()
        }
        Side::Effect(study, ask) => Effects::of(study, set, ask, Some(model), ctx)?.best(&tokens),
    }))
}

/// For each label a direction with its sign where it has words; `None` where the choice by input
/// stands.
pub(super) type ByWords = Option<Vec<Option<(usize, f32)>>>;

/// The direction of each method for each label. Random directions are not chosen: one a label, as
/// they come.
pub(super) fn chosen_directions(
    all: &[MethodDirections],
    chosen: &[ByWords],
    labels: &[String],
    names: &[String],
) -> Vec<ChosenDirection> {
    let mut out = Vec::new();
    for (i, label) in labels.iter().enumerate() {
        for (method, chosen) in all.iter().zip(chosen) {
            let Some(found) = method
                .found
                .iter()
                .find(|f| names[f.label as usize] == *label)
            else {
                continue;
            };
            let directions = method.set.directions();
            let (direction, sign) = match method.method {
                Method::Set(ref kind) if !kind.ranked() => (i % directions.count().max(1), 1.0),
                _ => match chosen {
                    None => (found.feature, 1.0),
                    Some(of) => match of[i] {
                        Some(signed) => signed,
                        // Without words of its own there is nothing to choose by.
                        None => continue,
                    },
                },
            };
            let (method, hook, column): (_, _, Vec<f32>) = (
                method.name.clone(),
                method.set.hook(),
                directions
                    .column(direction)
                    .iter()
                    .map(|v| sign * v)
                    .collect(),
            );
            // A label without words or sentences of its own has no direction in a set that is made
            // of them.
            if column.iter().all(|&v| v == 0.0) {
                continue;
            }
            out.push(ChosenDirection {
                method,
                label: label.clone(),
                direction,
                hook,
                column,
            });
        }
    }
    out
}

/// What is steered with for the labels that have an entry in `words`.
pub(super) fn subjects(
    directions: &[ChosenDirection],
    words: &HashMap<&str, Vec<u32>>,
    model: &Model,
) -> Result<Vec<LabelDirection>> {
    let subject = |o: &ChosenDirection| {
        let term = direction_term(model, o.hook, &o.column, 1.0)?;
        let words = words.get(o.label.as_str()).cloned().unwrap_or_default();
        Ok(LabelDirection {
            method: o.method.clone(),
            label: o.label.clone(),
            direction: o.direction,
            term,
            words,
        })
    };
    directions
        .iter()
        .filter(|o| words.contains_key(o.label.as_str()))
        .map(subject)
        .collect()
}

/// Of what is steered with: other directions are another evaluation.
pub(super) fn digest_of(directions: &[LabelDirection]) -> String {
    let mut digest = Xxh3::new();
    for direction in directions {
        digest.update(direction.term.hook.to_string().as_bytes());
        digest.update(bytemuck::cast_slice(&direction.term.direction));
    }
    format!("{:016x}", digest.digest())
}

/// The hooks at which methods live, each once, with what the random directions there are kept under.
pub(super) fn chance_hooks(lines: &[(String, HookPoint)]) -> Vec<(HookPoint, String)> {
    let mut out: Vec<(HookPoint, String)> = Vec::new();
    for (_, hook) in lines {
        if out.iter().all(|(known, _)| known != hook) {
            let name = match out.is_empty() {
                true => CHANCE.to_owned(),
                false => chance_at(*hook),
            };
            out.push((*hook, name));
        }
    }
    out
}

/// Under what the random directions of a line's hook are kept; nothing for a line that has no hook.
pub(super) fn chance_of(line: &str, lines: &[ReportLine], hooks: &[Option<HookPoint>]) -> String {
    let at = lines.iter().position(|l| l.name == line);
    let hook = at.and_then(|i| hooks.get(i).copied().flatten());
    let first = hooks.iter().flatten().next();
    match hook {
        None => String::new(),
        Some(hook) if first == Some(&hook) => CHANCE.to_owned(),
        Some(hook) => chance_at(hook),
    }
}

/// Random directions as sparse as a feature, which tell what chance gives words at a hook.
pub(super) fn chance_directions(
    model: &Model,
    (hook, name): (HookPoint, &str),
    sparsity: impl Fn(usize) -> f64,
    seed: u64,
) -> Result<Vec<LabelDirection>> {
    let d = model.width(hook)?;
    let keep = support_size(sparsity(d), d);
    // Another seed than the directions of the method that is called random.
    let all = random::directions(d, CHANCE_DIRECTIONS, keep, seed ^ 0x6368_616e_6365);
    let direction = |j: usize| {
        Ok(LabelDirection {
            method: name.to_owned(),
            label: j.to_string(),
            direction: j,
            term: direction_term(model, hook, &all.column(j), 1.0)?,
            words: Vec::new(),
        })
    };
    (0..CHANCE_DIRECTIONS).map(direction).collect()
}
