//! `mlpeek describe`.

use std::path::Path;

use serde_json::json;

use super::features::lens_model;
use super::grid::cell;
use super::json::merged;
use super::output::thousands;
use super::{Output, note_unfinished, open_study};
use crate::cli::DescribeArgs;
use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::eval::judge::describe::{Description, direction_digest, estimate};
use crate::eval::judge::score::Score;
use crate::eval::judge::sentences::Sentences;
use crate::eval::judge::{AnswerCache, JudgeClient, TokenUsage};
use crate::eval::phrases::Phrases;
use crate::interop::{explanations, json};
use crate::jobs::describing::{Material, Subject, Wanted, says_nothing};
use crate::jobs::directions::{self, Reference};
use crate::model::source::data_dir;
use crate::study::{Descriptions, Study};
use crate::task::TaskCtx;
use crate::text;

pub(super) fn run(args: &DescribeArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let endpoint = args.judge.endpoint()?;
    check(args, endpoint.is_some())?;
    if let Some(path) = &args.import {
        return import(path, args, out, &ctx);
    }
    // What cannot be had is said before a model is loaded.
    let encoder = match endpoint {
        Some(_) => None,
        None => Some(super::encoder::open(args.encoder.as_deref(), out, &ctx)?),
    };
    let phrases = encoder
        .as_ref()
        .map(|encoder| Phrases::open(encoder, args.phrases.as_deref(), &ctx));
    let phrases = phrases.transpose()?;
    let wanted = args
        .features
        .iter()
        .map(|text| Reference::parse(text))
        .collect::<Result<Vec<_>>>()?;
    // Locked before anything is read: a fit that another process makes anew in between would get
    // the descriptions of the one before.
    let mut study = match args.dry_run {
        true => open_study(&args.study, out)?,
        false => {
            let study = Study::open(&args.study)?;
            note_unfinished(&study, out)?;
            study
        }
    };
    if study.manifest().model.is_none() {
        return Err(Error::refused(format!(
            "{} was imported as a matrix and has no tokens: a description is made from texts; collect a study with a model",
            study.dir().display()
        )));
    }
    let wanted = Wanted::find(&study, &wanted, &args.place.selection(), &ctx)?;
    let model = lens_model(
        &mut study,
        args.model.model.as_deref(),
        &args.model.compute,
        out,
    )?;
    let material = wanted.material(&study, model.as_ref().map_err(Clone::clone))?;
    for (set, id) in &material.silent {
        out.note(&format!(
            "{set} {id} fires nowhere: there is nothing to describe"
        ));
    }
    let scored = !args.no_score;
    if let Some(phrases) = &phrases {
        out.note(&format!(
            "each description is no more than the {}",
            phrases.name()
        ));
        let described = material.describe_offline(&study, phrases, scored, &ctx)?;
        return show_all(&material, &described, out);
    }
    let Some(endpoint) = endpoint else {
        return Err(Error::usage(
            "describing needs a judge: give --endpoint or --offline",
        ));
    };
    let mut judge = JudgeClient::new(endpoint, AnswerCache::in_dir(&data_dir()?.join("answers")));
    let count = material.features.len();
    let cost = estimate(&judge, &material.features, scored, args.sentences);
    if out.is_json() {
        let about = json!({"event": "estimate", "feature_count": count});
        out.object(&merged([about, super::json::cost(&cost)]))?;
    } else {
        out.line(&format!(
            "{count} features: {} calls of {} ({} answered before), about {} tokens of questions and at most {} of answers",
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
    let model = match (args.sentences, model) {
        (true, Err(why)) => {
            return Err(Error::refused(format!(
                "--sentences needs the study's model, which cannot be opened: {why}"
            )));
        }
        (wanted, model) => model.ok().filter(|_| wanted),
    };
    let described = material.describe(&study, &mut judge, scored, model.as_ref(), &ctx)?;
    let shown = show_all(&material, &described, out);
    print_usage(judge.usage(), out)?;
    shown
}

fn check(args: &DescribeArgs, endpoint: bool) -> Result<()> {
    if args.set.is_some() && args.import.is_none() {
        return Err(Error::usage(
            "--set has no effect without --import: name directions as SET:ID, or give both",
        ));
    }
    let of_phrases = [
        ("--phrases", args.phrases.is_some()),
        ("--encoder", args.encoder.is_some()),
    ];
    if let Some((option, _)) = of_phrases.iter().find(|(_, given)| *given && !args.offline) {
        return Err(Error::usage(format!(
            "{option} has no effect without --offline: give both, or neither"
        )));
    }
    if !endpoint && !args.offline && args.import.is_none() {
        return Err(Error::usage(
            "describing needs a judge: give --endpoint URL and --judge-model NAME, or --offline for the nearest of a list of \
             phrases",
        ));
    }
    Ok(())
}

/// Adds descriptions that someone published, as those of the features' inputs.
fn import(path: &Path, args: &DescribeArgs, out: &mut Output, ctx: &TaskCtx) -> Result<()> {
    let found = explanations::read(path)?;
    let study = Study::open(&args.study)?;
    let kind = args.set.clone().unwrap_or(SetKind::FIT);
    let set = directions::open(&study, &kind, &args.place.selection(), ctx)?;
    let count = set.directions().count();
    if let Some(&beyond) = found.texts.keys().find(|&&id| id >= count) {
        return Err(Error::usage(format!(
            "{} describes feature {beyond}, and {} has {count}: it is of another set",
            path.display(),
            set.name()
        )));
    }
    let judge = format!("imported from {}", path.display());
    let described = |(id, text): (usize, String)| {
        let description = Description {
            direction: Some(direction_digest(&set.directions().column(id))),
            input: Some(text),
            judge: judge.clone(),
            ..Description::default()
        };
        (id, description)
    };
    let described: Descriptions = found.texts.into_iter().map(described).collect();
    let taken = described.len();
    study.add_descriptions(set.name(), described)?;
    if found.further + found.empty > 0 {
        out.note(&format!(
            "left out: {} further explanations of a feature, {} that say nothing",
            found.further, found.empty
        ));
    }
    if out.is_json() {
        return out.object(&json!({
            "event": "imported", "set": set.name(), "feature_count": taken, "direction_count": count,
        }));
    }
    out.line(&format!(
        "{} of {} features of {} are described",
        thousands(taken as u64),
        thousands(count as u64),
        set.name()
    ))
}

fn show_all(material: &Material, described: &[Description], out: &mut Output) -> Result<()> {
    for (subject, description) in material.subjects.iter().zip(described) {
        show(subject, description, out)?;
    }
    if described.iter().all(says_nothing) {
        let why = described.iter().flat_map(|d| &d.errors).next();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return Err(Error::refused(format!("nothing was described{why}")));
    }
    Ok(())
}

fn show(subject: &Subject, description: &Description, out: &mut Output) -> Result<()> {
    let id = subject.id;
    if out.is_json() {
        return out.object(
            &json!({"event": "described", "feature": id, "set": subject.set, "title": subject.title,
            "hook": subject.hook.to_string(), "description": json::description(description)}),
        );
    }
    let accuracy = |score: &Option<Score>| cell(score.and_then(|s| s.balanced_accuracy), 2);
    let shown = |text: &Option<String>| text::clean(text.as_deref().unwrap_or("-"));
    let name = subject
        .title
        .as_ref()
        .map_or_else(|| id.to_string(), |title| text::clean(title));
    out.line(&format!(
        "{name:>5}  detection {:>4}  fuzzing {:>4}  fires on: {}  ·  promotes: {}",
        accuracy(&description.detection),
        accuracy(&description.fuzzing),
        shown(&description.input),
        shown(&description.output)
    ))?;
    for (side, found) in [
        ("inputs", &description.input_sentences),
        ("outputs", &description.output_sentences),
    ] {
        if let Some(found) = found {
            out.line(&format!("{:>5}  {}", "", sentences_line(side, found)))?;
        }
    }
    description
        .errors
        .iter()
        .for_each(|error| out.note(&format!("{} {id}: {error}", subject.set)));
    Ok(())
}

/// "S_CD +1.39 on sentences written for its inputs: 0.30 on 5 activating, 0.07 on 5 neutral".
fn sentences_line(side: &str, found: &Sentences) -> String {
    let s_cd = found
        .s_cd
        .map_or_else(|| "undefined".to_owned(), |s| format!("{s:+.2}"));
    let (activating, neutral) = found.means();
    let (more, less) = (found.activating.len(), found.neutral.len());
    format!(
        "S_CD {s_cd} on sentences written for its {side}: {activating:.3} on {more} activating, {neutral:.3} on {less} neutral"
    )
}

/// What asking did cost.
pub(super) fn print_usage(usage: TokenUsage, out: &mut Output) -> Result<()> {
    if out.is_json() {
        return super::json::usage(usage, out);
    }
    out.line(&format!(
        "{} calls ({} answered before, {} without an answer), {} tokens of questions, {} of answers",
        thousands(usage.calls),
        thousands(usage.answered),
        thousands(usage.failed),
        thousands(usage.prompt_tokens),
        thousands(usage.completion_tokens)
    ))
}
