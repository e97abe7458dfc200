//! `mlpeek describe`.

use serde_json::json;

use super::features::lens_model;
use super::json::merged;
use super::judge::cell;
use super::output::thousands;
use super::{Output, note_unfinished, open_study};
use crate::cli::DescribeArgs;
use crate::error::{Error, Result};
use crate::eval::judge::describe::{Description, estimate};
use crate::eval::judge::score::Score;
use crate::eval::judge::sentences::Sentences;
use crate::eval::judge::{AnswerCache, JudgeClient, TokenUsage};
use crate::interop::json;
use crate::jobs::describing::{Subject, Wanted, says_nothing};
use crate::jobs::directions::Reference;
use crate::model::source::data_dir;
use crate::study::Study;
use crate::text;

pub(super) fn run(args: &DescribeArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let no_judge =
        || Error::usage("describing needs a judge: give --endpoint URL and --judge-model NAME");
    let endpoint = args.judge.endpoint()?.ok_or_else(no_judge)?;
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
    let wanted = Wanted::find(&study, &wanted, &args.place.place(), &ctx)?;
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
    for (subject, description) in material.subjects.iter().zip(&described) {
        show(subject, description, out)?;
    }
    print_usage(judge.usage(), out)?;
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
    let said = |text: &Option<String>| text::clean(text.as_deref().unwrap_or("-"));
    let name = subject
        .title
        .as_ref()
        .map_or_else(|| id.to_string(), |title| text::clean(title));
    out.line(&format!(
        "{name:>5}  detection {:>4}  fuzzing {:>4}  fires on: {}  ·  promotes: {}",
        accuracy(&description.detection),
        accuracy(&description.fuzzing),
        said(&description.input),
        said(&description.output)
    ))?;
    for (of, found) in [
        ("inputs", &description.input_sentences),
        ("outputs", &description.output_sentences),
    ] {
        if let Some(found) = found {
            out.line(&format!("{:>5}  {}", "", sentences_line(of, found)))?;
        }
    }
    description
        .errors
        .iter()
        .for_each(|error| out.note(&format!("{} {id}: {error}", subject.set)));
    Ok(())
}

/// "S_CD +1.39 on sentences written for its inputs: 0.30 on 5 activating, 0.07 on 5 neutral".
fn sentences_line(of: &str, found: &Sentences) -> String {
    let s_cd = found
        .s_cd
        .map_or_else(|| "undefined".to_owned(), |s| format!("{s:+.2}"));
    let (activating, neutral) = found.means();
    let (more, less) = (found.activating.len(), found.neutral.len());
    format!(
        "S_CD {s_cd} on sentences written for its {of}: {activating:.3} on {more} activating, {neutral:.3} on {less} neutral"
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
