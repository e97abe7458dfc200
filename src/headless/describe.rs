//! `mlpeek describe`.

use std::sync::Arc;

use serde_json::json;

use super::features::{LensModel, lens_model};
use super::json::merged;
use super::judge::cell;
use super::output::thousands;
use super::{Output, open_study};
use crate::analysis::{Notes, contexts, lens};
use crate::cli::DescribeArgs;
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::eval::judge::describe::{Description, FeatureMaterial, describe, estimate};
use crate::eval::judge::score::Score;
use crate::eval::judge::sentences::Sentences;
use crate::eval::judge::{AnswerCache, JudgeClient, TokenUsage};
use crate::factor::Factors;
use crate::interop::json;
use crate::jobs::directions::{self, Reference};
use crate::jobs::reading;
use crate::model::HookPoint;
use crate::model::source::data_dir;
use crate::study::Study;
use crate::task::TaskCtx;
use crate::text;

/// A direction that is described.
struct Subject {
    set: String,
    title: Option<String>,
    hook: HookPoint,
    column: Vec<f32>,
}

pub(super) fn run(args: &DescribeArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let no_judge =
        || Error::usage("describing needs a judge: give --endpoint URL and --judge-model NAME");
    let endpoint = args.judge.endpoint()?.ok_or_else(no_judge)?;
    let mut study = open_study(&args.study, out)?;
    if study.manifest().model.is_none() {
        return Err(Error::refused(format!(
            "{} was imported as a matrix and has no tokens: a description is made from texts; collect a study with a model",
            study.dir().display()
        )));
    }
    let (subjects, materials, model) = materials(&mut study, args, out, &ctx)?;
    let bos = study.manifest().bos;
    let scored = !args.no_score;
    let mut judge = JudgeClient::new(endpoint, AnswerCache::in_dir(&data_dir()?.join("answers")));
    let cost = estimate(&judge, &materials, scored, args.sentences);
    if out.is_json() {
        let about = json!({"event": "estimate", "feature_count": materials.len()});
        out.object(&merged([about, super::json::cost(&cost)]))?;
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
    let model = match (args.sentences, model) {
        (true, Err(why)) => {
            return Err(Error::refused(format!(
                "--sentences needs the study's model, which cannot be opened: {why}"
            )));
        }
        (wanted, model) => model.ok().filter(|_| wanted),
    };
    // Locked before anything is paid for, and only now: reading needs no lock.
    let study = Study::open(&args.study)?;
    let mut score = model.as_ref().map(|model| {
        |i: usize, texts: &[String]| {
            let subject: &Subject = &subjects[i];
            lens::best_cosines(model, subject.hook, &subject.column, texts, bos, &ctx)
        }
    });
    let score = score
        .as_mut()
        .map(|s| s as &mut dyn FnMut(usize, &[String]) -> Result<Vec<f64>>);
    let described = describe(&mut judge, &materials, scored, score, &ctx)?;
    let nothing = |d: &Description| d.input.is_none() && d.output.is_none();
    let all = || subjects.iter().zip(&materials).zip(&described);
    let mut sets: Vec<&str> = subjects.iter().map(|s| s.set.as_str()).collect();
    sets.sort_unstable();
    sets.dedup();
    for set in sets {
        let of = all().filter(|((s, _), d)| s.set == set && !nothing(d));
        study.add_descriptions(set, of.map(|((_, m), d)| (m.id, d.clone())).collect())?;
    }
    for ((subject, material), description) in all() {
        show(subject, material.id, description, out)?;
    }
    print_usage(judge.usage(), out)?;
    if described.iter().all(nothing) {
        let why = described.iter().flat_map(|d| &d.errors).next();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        return Err(Error::refused(format!("nothing was described{why}")));
    }
    Ok(())
}

/// A set with what is read of it, opened once.
struct Opened {
    kind: SetKind,
    set: Box<dyn DirectionSet>,
    factors: Arc<Factors>,
    notes: Notes,
}

impl Opened {
    fn new(study: &Study, kind: &SetKind, args: &DescribeArgs, ctx: &TaskCtx) -> Result<Self> {
        let set = directions::open(study, kind, &args.place.place(), ctx)?;
        let factors = set.factors_on(study.activations(set.hook())?.as_ref(), ctx)?;
        let notes = directions::names(study, set.as_ref())?;
        Ok(Self {
            kind: kind.clone(),
            set,
            factors,
            notes,
        })
    }
}

fn materials(
    study: &mut Study,
    args: &DescribeArgs,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<(Vec<Subject>, Vec<FeatureMaterial>, LensModel)> {
    let wanted = args
        .features
        .iter()
        .map(|text| Reference::parse(text))
        .collect::<Result<Vec<_>>>()?;
    if let Some(weighted) = wanted.iter().find(|r| r.weight != 1.0) {
        return Err(Error::usage(format!(
            "a direction is described without a weight: leave out :{}",
            weighted.weight
        )));
    }
    let mut sets: Vec<Opened> = Vec::new();
    let mut places: Vec<(usize, usize)> = Vec::new();
    for reference in &wanted {
        let at = match sets.iter().position(|s| s.kind == reference.kind) {
            Some(at) => at,
            None => {
                sets.push(Opened::new(study, &reference.kind, args, ctx)?);
                sets.len() - 1
            }
        };
        places.push((at, sets[at].set.find(&reference.id)?));
    }
    if wanted.is_empty() {
        sets.push(Opened::new(study, &SetKind::FIT, args, ctx)?);
        places.extend((0..sets[0].factors.features.columns()).map(|id| (0, id)));
    }
    let model = lens_model(study, args.model.model.as_deref(), args.device, out)?;
    let tokens = study.tokens()?;
    let (mut subjects, mut materials) = (Vec::new(), Vec::new());
    for (at, id) in places {
        let Opened {
            set,
            factors,
            notes,
            ..
        } = &sets[at];
        let (hook, column) = (set.hook(), factors.features.dense_column(id));
        let mut card = contexts::feature_card(factors, &tokens, notes, id)?;
        reading::add_lens(
            &mut card,
            hook,
            factors,
            model.as_ref().map_err(Clone::clone),
        );
        if card.contexts.is_empty() {
            out.note(&format!(
                "{} {id} fires nowhere: there is nothing to describe",
                set.name()
            ));
            continue;
        }
        materials.push(FeatureMaterial::of(&card, factors, &tokens));
        subjects.push(Subject {
            set: set.name().to_owned(),
            title: set.title(id).map(str::to_owned),
            hook,
            column,
        });
    }
    Ok((subjects, materials, model))
}

fn show(subject: &Subject, id: usize, description: &Description, out: &mut Output) -> Result<()> {
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
