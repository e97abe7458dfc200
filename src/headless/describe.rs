//! `mlpeek describe`.

use serde_json::json;

use super::features::{PROMOTED, lens_model};
use super::judge::cell;
use super::output::thousands;
use super::{Output, open_fit};
use crate::analysis::{contexts, lens};
use crate::cli::DescribeArgs;
use crate::error::{Error, Result};
use crate::eval::judge::describe::{Description, Material, describe, estimate};
use crate::eval::judge::score::Score;
use crate::eval::judge::{Answers, Judge, Tally};
use crate::model::source::data_dir;
use crate::study::Study;
use crate::text;

pub(super) fn run(args: &DescribeArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let no_judge = || Error::usage("describing needs a judge: give --endpoint URL and --judge-model NAME");
    let endpoint = args.judge.endpoint()?.ok_or_else(no_judge)?;
    let fit = open_fit(&args.study, args.fit.as_deref())?.1.name;
    let materials = materials(args, &fit, out)?;
    let scored = !args.no_score;
    let mut judge = Judge::new(endpoint, Answers::in_dir(&data_dir()?.join("answers")));
    let cost = estimate(&judge, &materials, scored);
    if out.is_json() {
        out.object(&json!({"event": "estimate", "features": materials.len(), "cost": cost}))?;
    } else {
        out.line(&format!(
            "{} features: {} calls of {} ({} answered before), about {} tokens of questions and at most {} of answers",
            materials.len(),
            thousands(cost.calls as u64),
            thousands((cost.calls + cost.answered) as u64),
            thousands(cost.answered as u64),
            thousands(cost.prompt_tokens as u64),
            thousands(cost.completion_tokens as u64)
        ))?;
    }
    if args.dry_run {
        return Ok(());
    }
    // Locked before anything is paid for, and only now: reading needs no lock.
    let study = Study::open(&args.study)?;
    let described = describe(&mut judge, &materials, scored, &ctx)?;
    let found = materials.iter().map(|m| m.id).zip(described.iter().cloned());
    study.add_descriptions(&fit, found.filter(|(_, d)| d.input.is_some() || d.output.is_some()).collect())?;
    for (material, description) in materials.iter().zip(&described) {
        show(material.id, &fit, description, out)?;
    }
    tell_usage(judge.tally(), out)
}

fn materials(args: &DescribeArgs, fit: &str, out: &Output) -> Result<Vec<Material>> {
    let (study, entry, factors) = open_fit(&args.study, Some(fit))?;
    let count = factors.features.columns();
    if let Some(id) = args.features.iter().find(|id| **id >= count) {
        return Err(Error::usage(format!("feature {id} does not exist: fit '{fit}' has 0 to {}", count - 1)));
    }
    let ids: Vec<usize> = if args.features.is_empty() { (0..count).collect() } else { args.features.clone() };
    let (tokens, notes) = (study.tokens()?, study.notes(fit)?);
    let directions: Vec<Vec<f32>> = ids.iter().map(|&id| factors.features.dense_column(id)).collect();
    let mut lenses = match lens_model(&study, args.device, out)? {
        Some(model) => lens::promoted(&model, entry.hook, &directions, PROMOTED)?,
        None => vec![(Vec::new(), Vec::new()); ids.len()],
    }
    .into_iter();
    let mut materials = Vec::with_capacity(ids.len());
    for id in ids {
        let mut card = contexts::feature_card(&factors, &tokens, &notes, id)?;
        (card.promoted, card.suppressed) = lenses.next().unwrap_or_default();
        if card.contexts.is_empty() {
            out.note(&format!("feature {id} fires nowhere: there is nothing to describe"));
        } else {
            materials.push(Material::of(&card, &factors, &tokens));
        }
    }
    Ok(materials)
}

fn show(id: usize, fit: &str, description: &Description, out: &mut Output) -> Result<()> {
    if out.is_json() {
        return out.object(&json!({"event": "described", "id": id, "fit": fit, "description": description}));
    }
    let accuracy = |score: &Option<Score>| cell(score.and_then(|s| s.balanced_accuracy), 2);
    let said = |text: &Option<String>| text::clean(text.as_deref().unwrap_or("-"));
    out.line(&format!(
        "{id:>5}  detection {:>4}  fuzzing {:>4}  fires on: {}  ·  promotes: {}",
        accuracy(&description.detection),
        accuracy(&description.fuzzing),
        said(&description.input),
        said(&description.output)
    ))?;
    description.errors.iter().for_each(|error| out.note(&format!("feature {id}: {error}")));
    Ok(())
}

/// What asking did cost.
pub(super) fn tell_usage(tally: Tally, out: &mut Output) -> Result<()> {
    if out.is_json() {
        return out.object(&json!({"event": "usage", "usage": tally}));
    }
    out.line(&format!(
        "{} calls ({} answered before, {} without an answer), {} tokens of questions, {} of answers",
        thousands(tally.calls),
        thousands(tally.answered),
        thousands(tally.failed),
        thousands(tally.prompt_tokens),
        thousands(tally.completion_tokens)
    ))
}
