//! `mlpeek eval steering`.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::super::json::{self, merged};
use super::super::layers::{self, LayerScore};
use super::super::{
    check_target, describe::print_usage, encoder, model_of, open_study, output::thousands,
};
use super::scores::table;
use super::{Output, check_place, free_text, holdout, measures};
use crate::cli::{OfflineArg, ProtocolArg, SteeringArgs};
use crate::error::{Error, Result};
use crate::eval::judge::{AnswerCache, Endpoint, JudgeClient};
use crate::eval::steering::endpoint::EndpointJudge;
use crate::eval::steering::judge::{Judgement, TextJudge};
use crate::eval::steering::report::{CellReport, SteeringReport, chart};
use crate::eval::steering::worded::NO_TARGET;
use crate::eval::steering::{Protocol, RunEvent, SteeringConfig, TextRecord};
use crate::jobs::causal::{Causal, CausalRequest, Judging, Prepared, beside, prepare};
use crate::jobs::choice::Choose;
use crate::jobs::evaluation::Method;
use crate::jobs::measured::EffectRequest;
use crate::model::source::data_dir;
use crate::steering::calibrate::SearchMethod;
use crate::study::Study;

pub(super) fn run(args: &SteeringArgs, out: &mut Output) -> Result<()> {
    let (place, mut asked) = (&args.common.place, args.clone());
    let several = place.layer.len() > 1;
    // Of one layer the plot is of score against KL.
    let svg = match several {
        true => asked.svg.take(),
        false => None,
    };
    let study = &args.common.study;
    layers::each(
        study,
        &place.layer,
        svg.as_deref(),
        out,
        &mut |layer, out| {
            asked.common = layers::asked_at(&args.common, layer)?;
            if let (true, Some(layer), Some(name)) = (several, layer, &args.name) {
                asked.name = Some(format!("{name}-{layer}"));
            }
            match args.by_descriptions() {
                true => super::described::at_layer(&asked, out),
                false => at_layer(&asked, out),
            }
        },
    )
}

fn at_layer(args: &SteeringArgs, out: &mut Output) -> Result<Vec<LayerScore>> {
    let ctx = out.task();
    // What cannot be asked is said before a model is loaded.
    let mut judge = args.judge.endpoint()?.map(endpoint_judge).transpose()?;
    check(args)?;
    let mut study = open_study(&args.common.study, out)?;
    check_place(&args.common, &study)?;
    let ask = CausalRequest {
        methods: args.common.methods.clone(),
        place: args.common.place.selection(),
        holdout: holdout(&args.common),
        unseen: args.common.unseen,
        labels: args.labels.clone(),
        choose: args.choose,
        effects: effects(args),
        config: config(args, &study)?,
        name: args.name.clone(),
        seed: args.common.seed,
        dry_run: args.dry_run,
    };
    ask.config.check()?;
    if let Some(name) = &args.name {
        study.evaluation_path(name)?;
    }
    // An encoder that cannot be had is said before a model is loaded.
    let reader = match (args.offline, args.dry_run && args.encoder.is_none()) {
        (Some(OfflineArg::Meaning), false) => {
            Some(encoder::open(args.encoder.as_deref(), out, &ctx)?)
        }
        _ => None,
    };
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    // Locked only now: what is refused, or only planned, writes no evaluation.
    if !args.dry_run {
        study = Study::open(&args.common.study)?;
    }
    let prepared = prepare(&study, &ask, &model, &ctx)?;
    if let Some(judge) = &judge {
        print_cost(&prepared, judge, out)?;
    } else if args.dry_run {
        print_plan(&prepared, out)?;
    }
    if args.dry_run {
        return Ok(Vec::new());
    }
    let shared = RefCell::new(&mut *out);
    let mut seen = |event: RunEvent<'_>| print_texts(&shared, event);
    let judging = match (judge.as_mut(), &reader) {
        (Some(judge), _) => Judging::Asked(judge),
        (None, Some(encoder)) => Judging::Meaning(encoder),
        (None, None) => Judging::Words,
    };
    let found = prepared.run(
        &model,
        judging,
        &mut |note| shared.borrow().note(note),
        &mut seen,
        &ctx,
    )?;
    let title = format!("Steering at {}, {} judge", found.place(), found.judge);
    let mut chart = chart(&found.methods, title, found.unsteered.map(|u| u.score));
    chart
        .series
        .iter_mut()
        .for_each(|s| s.name = found.shown(&s.name));
    if out.is_json() {
        lines(&found, out)?;
    } else {
        table(&found, out)?;
    }
    remarks(&found, out);
    if let Some(judge) = &judge {
        print_usage(judge.usage(), out)?;
    }
    // Without a rating there is nothing to plot.
    if !out.is_json() && !chart.is_empty() {
        chart.text().iter().try_for_each(|line| out.line(line))?;
    }
    // Last, so that a plot that cannot be written takes no table with it.
    if let Some(path) = &args.svg {
        crate::disk::write_atomic(path, chart.svg().as_bytes())?;
    }
    if found.stopped {
        return Err(Error::Cancelled);
    }
    let texts: usize = found.methods.iter().map(|r| r.texts).sum();
    match found.methods.iter().all(|r| r.unrated == r.texts) && texts > 0 {
        true => Err(Error::refused(format!(
            "none of {texts} texts was rated{}",
            because(found.unrated.as_deref())
        ))),
        false => Ok(scores(&found)),
    }
}

/// What is told of each method against layer: its best score, where texts were judged, and then what
/// becomes of own words.
fn scores(found: &Causal) -> Vec<LayerScore> {
    let best = |r: &SteeringReport| Some(LayerScore::new(&r.method, "score", r.best?));
    let mut out: Vec<LayerScore> = found.methods.iter().filter_map(best).collect();
    let one = found
        .measures
        .iter()
        .filter(|m| m.target != NO_TARGET)
        .map(|m| m.target)
        .collect::<Vec<_>>()
        .windows(2)
        .all(|two| two[0] == two[1]);
    out.extend(found.measures.iter().map(|m| {
        let at = match one || m.target == NO_TARGET {
            true => m.method.clone(),
            false => format!("{}, KL {}", m.method, m.target),
        };
        LayerScore::new(&at, m.measure.name(), m.value)
    }));
    out
}

fn effects(args: &SteeringArgs) -> EffectRequest {
    let mut ask = EffectRequest::default();
    if !args.choose_prompt.is_empty() {
        ask.prompts.clone_from(&args.choose_prompt);
    }
    ask
}

pub(super) fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}

fn endpoint_judge(endpoint: Endpoint) -> Result<EndpointJudge> {
    Ok(EndpointJudge::new(JudgeClient::new(
        endpoint,
        AnswerCache::in_dir(&data_dir()?.join("answers")),
    )))
}

/// What a judge will be asked at most, before it is asked anything.
fn print_cost(prepared: &Prepared, judge: &EndpointJudge, out: &mut Output) -> Result<()> {
    let (rated, cost) = prepared.estimate(judge)?;
    if out.is_json() {
        let about = json!({"event": "estimate", "judge": judge.name(), "rated_count": rated});
        return out.object(&merged([about, json::cost(&cost)]));
    }
    out.line(&format!(
        "{}: {} texts rated before, {} questions answered before; at most {} calls, about {} tokens of questions and at most {} of answers",
        judge.name(),
        thousands(rated as u64),
        thousands(cost.answered as u64),
        thousands(cost.calls as u64),
        thousands(cost.prompt_tokens as u64),
        thousands(cost.completion_tokens as u64)
    ))
}

/// How much there is to generate, of labels that no judge has left out yet.
fn print_plan(prepared: &Prepared, out: &mut Output) -> Result<()> {
    let plan = prepared.plan();
    if out.is_json() {
        return out.object(&json!({
            "event": "plan", "direction_count": plan.directions, "asked_count": plan.asked, "text_count": plan.texts,
            "written_count": plan.written, "max_token_count": plan.tokens,
        }));
    }
    out.line(&format!(
        "{} directions{}, up to {} texts of {} tokens, {} of them there; a judge that asks nobody leaves out labels that it cannot judge",
        plan.directions,
        beside(plan.asked),
        thousands(plan.texts as u64),
        plan.tokens,
        thousands(plan.written as u64)
    ))
}

/// Refuses what would do nothing.
fn check(args: &SteeringArgs) -> Result<()> {
    let SteeringArgs {
        kl,
        samples,
        max_tokens,
        sampling,
        ..
    } = args;
    if args.protocol.is_some() && !kl.is_empty() && samples.is_some() && max_tokens.is_some() {
        let why = "--protocol has no effect beside --kl, --samples and --max-tokens, which are all that it stands for";
        return Err(Error::usage(format!("{why}: leave one of them out")));
    }
    let of_descriptions = [
        ("--sample", args.sample.is_some()),
        ("--sentences", args.sentences.is_some()),
        ("--phrases", args.phrases.is_some()),
    ];
    if let Some((option, _)) = of_descriptions.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!(
            "{option} has no effect without --concepts descriptions: give both, or neither"
        )));
    }
    if args.encoder.is_some() && args.offline != Some(OfflineArg::Meaning) {
        let why = "--encoder has no effect without --judge meaning, which alone reads with one";
        return Err(Error::usage(format!("{why}: give both, or neither")));
    }
    let chooses =
        args.choose == Choose::Effect || args.common.methods.iter().any(Method::is_by_effects);
    if !args.choose_prompt.is_empty() && !chooses {
        return Err(Error::usage(
            "--choose-prompt has no effect without --choose effect or a method that mixes by effects (mix, mix5, effect): leave it out",
        ));
    }
    let of_texts = [
        ("--svg", args.svg.is_some()),
        ("--judge", args.offline.is_some()),
        ("--endpoint", args.judge.endpoint.is_some()),
        ("--max-tokens", max_tokens.is_some()),
        ("--batch", args.batch.is_some()),
        ("--temperature", sampling.temperature.is_some()),
        ("--top-k", sampling.top_k.is_some()),
        ("--top-p", sampling.top_p.is_some()),
    ];
    if let Some((option, _)) = of_texts
        .iter()
        .find(|(_, given)| *given && *samples == Some(0))
    {
        return Err(Error::usage(format!(
            "{option} has no effect with --samples 0, which writes no texts: leave one out"
        )));
    }
    args.svg
        .as_deref()
        .map_or(Ok(()), |path| check_target(path, &["svg"]))
}

fn config(args: &SteeringArgs, study: &Study) -> Result<SteeringConfig> {
    let defaults = SteeringConfig::default();
    let prompts = if args.prompt.is_empty() {
        defaults.prompts
    } else {
        args.prompt.clone()
    };
    let (targets, samples, max_tokens) =
        Protocol::from(args.protocol.unwrap_or(ProtocolArg::Short)).numbers(prompts.len());
    let max_tokens = args.max_tokens.unwrap_or(max_tokens);
    Ok(SteeringConfig {
        targets: if args.kl.is_empty() {
            targets
        } else {
            args.kl.clone()
        },
        prompts,
        samples: args.samples.unwrap_or(samples),
        sampling: args.sampling.sampling(args.common.seed, max_tokens)?,
        bos: study.manifest().bos,
        search: SearchMethod::Curve,
        mirrored: false,
        batch: args.batch.unwrap_or(defaults.batch),
    })
}

/// A text with what the judge said of it.
/// Prints texts that were judged, each as an object of JSON; without JSON they are not shown.
pub(super) fn print_texts(out: &RefCell<&mut Output>, event: RunEvent<'_>) -> Result<()> {
    let RunEvent::Texts(judge, texts, judged) = event else {
        return Ok(());
    };
    if !out.borrow().is_json() {
        return Ok(());
    }
    texts.iter().zip(judged).try_for_each(|(text, judged)| {
        out.borrow_mut()
            .object(&text_event(judge, text, &judged.judgement))
    })
}

fn text_event(judge: &str, text: &TextRecord, judgement: &Judgement) -> Value {
    let (rating, unrated) = match judgement {
        Judgement::Rated { concept, fluency } => (Some((concept, fluency)), None),
        Judgement::Unrated { unrated } => (None, Some(unrated)),
    };
    json!({
        "event": "text", "method": text.key.method, "label": text.key.label, "kl_target": text.key.target,
        "sign": text.key.sign, "prompt_index": text.key.prompt, "text_index": text.key.sample, "feature": text.direction,
        "alpha": text.alpha, "kl": text.kl, "text": text.text, "token_count": text.tokens, "nll": text.nll,
        "distinct": text.distinct, "concept": rating.map(|r| r.0), "fluency": rating.map(|r| r.1),
        "unrated": unrated, "judge": judge,
    })
}

/// A method's scores, over all cells and in each.
fn method_event(report: &SteeringReport, found: &Causal) -> Value {
    let cell = |c: &CellReport| {
        json!({
            "kl_target": c.target, "sign": c.sign, "score_interval": json::interval(c.score),
            "concept": c.concept, "fluency": c.fluency, "label_count": c.labels,
        })
    };
    let label = |(label, score): (&String, &f64)| json!({"label": label, "score": score});
    json!({
        "event": "method", "method": report.method, "judge": found.judge, "hook": found.hook_of(&report.method),
        "cells": report.cells.iter().map(cell).collect::<Vec<_>>(),
        "best_interval": report.best.map(json::interval),
        "best_promoting_interval": report.best_promoting.map(json::interval),
        "label_scores": report.labels.iter().map(label).collect::<Vec<_>>(),
        "text_count": report.texts, "unrated_count": report.unrated,
    })
}

pub(super) fn lines(found: &Causal, out: &mut Output) -> Result<()> {
    for report in &found.methods {
        out.object(&method_event(report, found))?;
    }
    for c in &found.compared {
        let about = json!({
            "event": "difference", "method": c.method, "hook": found.hook_of(&c.method), "against": c.against,
            "against_hook": found.hook_of(&c.against), "measure": "best", "by": null,
        });
        out.object(&merged([about, json::difference(&c.difference)]))?;
    }
    for r in &found.rises {
        out.object(&json!({
            "event": "rise", "method": r.method, "hook": found.hook_of(&r.method), "kl_target": r.target,
            "rise_interval": json::interval(r.rise), "label_count": r.labels,
            "first_minus": r.first_minus.as_ref().map(json::difference),
        }))?;
    }
    free_text::lines(found, out)?;
    measures::lines(found, out)?;
    let not_judged: Vec<Value> = found
        .not_judged
        .iter()
        .map(|(label, why)| json!({"label": label, "reason": why}))
        .collect();
    let unreached: Vec<Value> = found
        .unreached
        .iter()
        .map(|u| {
            json!({
                "method": u.method, "unreached_count": u.unreached, "target_count": u.targets, "largest_kl": u.largest_kl,
            })
        })
        .collect();
    let told = |(label, auroc): &(String, f64)| json!({"label": label, "auroc": auroc});
    let unsteered = found
        .unsteered
        .map(|u| json!({"score": u.score, "concept": u.concept, "fluency": u.fluency}));
    out.object(&json!({
        "event": "steering", "stopped": found.stopped, "evaluation": found.name, "judge": found.judge,
        "hook": found.hook, "hooks": found.hooks, "label_names": found.labels, "not_judged": not_judged,
        "judge_aurocs": found.aurocs.iter().map(told).collect::<Vec<_>>(), "unseen_members": found.unseen,
        "unsteered": unsteered, "unreached": unreached,
    }))
}

pub(super) fn remarks(found: &Causal, out: &Output) {
    if found.stopped {
        let texts: usize = found.methods.iter().map(|r| r.texts).sum();
        let texts = thousands(texts as u64);
        out.note(&format!(
            "stopped: this is what {texts} judged texts say; the same command goes on where it was"
        ));
    }
    for u in found.unreached.iter().filter(|u| u.unreached > 0) {
        out.note(&format!(
            "{}: {} of {} KL targets were out of reach (largest KL there {:.3}); they have no texts",
            u.method, u.unreached, u.targets, u.largest_kl
        ));
    }
    for r in found.methods.iter().filter(|r| r.unrated > 0) {
        out.note(&format!(
            "{}: {} of {} texts have no rating and are in no mean{}; run again to ask again",
            r.method,
            r.unrated,
            r.texts,
            because(found.unrated.as_deref())
        ));
    }
}
