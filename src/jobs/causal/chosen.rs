//! The direction of each method for each label, and what is steered with.

use std::collections::HashMap;

use super::super::choice::by_output;
use super::super::evaluation::{Method, MethodDirections};
use crate::error::Result;
use crate::eval::steering::LabelDirection;
use crate::model::{HookPoint, Model};
use crate::steering::direction_term;
use crate::task::TaskCtx;

/// A direction that a method offers for a label, as it is in its set.
pub(super) struct ChosenDirection {
    pub method: String,
    pub label: String,
    pub direction: usize,
    pub hook: HookPoint,
    pub column: Vec<f32>,
}

/// The directions of a method that lift each label's words most; `None` for one that chooses by no
/// side: differences in means are their labels' own, and random directions are not chosen.
/// Shuffled: another label's words.
pub(super) fn lifted(
    offered: &MethodDirections,
    tokens: &[Vec<u32>],
    model: &Model,
    ctx: &TaskCtx,
) -> Result<ByOutput> {
    let mut tokens = tokens.to_vec();
    match &offered.method {
        Method::Set(kind) if kind.supervised() || !kind.ranked() => {
            return Ok(None);
        }
        Method::Shuffled => tokens.rotate_left(1),
        Method::Set(_) | Method::Mean(_) => {}
    }
    by_output(model, offered.set.as_ref(), &tokens, ctx).map(Some)
}

/// For each label a direction where it has words; `None` where the choice by input stands.
type ByOutput = Option<Vec<Option<usize>>>;

/// The direction of each method for each label. Random directions are not chosen: one a label, as
/// they come.
pub(super) fn chosen_directions(
    all: &[MethodDirections],
    chosen: &[ByOutput],
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
            let direction = match method.method {
                Method::Set(ref kind) if !kind.ranked() => i % directions.count().max(1),
                _ => match chosen {
                    None => found.feature,
                    Some(of) => match of[i] {
                        Some(direction) => direction,
                        // Without words of its own there is nothing to choose by.
                        None => continue,
                    },
                },
            };
            let (method, hook, column) = (
                method.name.clone(),
                method.set.hook(),
                directions.column(direction),
            );
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
