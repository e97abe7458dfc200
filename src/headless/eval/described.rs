//! `mlpeek eval steering --concepts descriptions`: every feature by its own description.

use std::cell::RefCell;
use std::time::Instant;

use serde_json::json;

use super::super::json::{self, merged};
use super::super::layers::LayerScore;
use super::super::{describe::print_usage, encoder, model_of, open_study, output::thousands};
use super::scores::table;
use super::steering::{lines, print_texts, remarks};
use super::{Output, with_interval};
use crate::amounts;
use crate::cli::{ProtocolArg, SteeringArgs};
use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::eval::judge::{AnswerCache, JudgeClient};
use crate::eval::phrases::Phrases;
use crate::eval::steering::endpoint::EndpointJudge;
use crate::eval::steering::report::{SteeringReport, chart};
use crate::eval::steering::side::Side;
use crate::eval::steering::{RunEvent, SteeringConfig};
use crate::jobs::choice::Choose;
use crate::jobs::described::{
    Described, DescribedRequest, PreparedUnits, SENTENCES, SideDetection, Voice, prepare,
};
use crate::model::Model;
use crate::model::encoder::SentenceEncoder;
use crate::model::source::data_dir;
use crate::study::Study;
use crate::task::TaskCtx;
use crate::text;

pub(super) fn at_layer(args: &SteeringArgs, out: &mut Output) -> Result<Vec<LayerScore>> {
    let ctx = out.task();
    // What cannot be asked is said before a model is loaded.
    let endpoint = args.judge.endpoint()?;
    check(args, endpoint.is_some())?;
    let cache = AnswerCache::in_dir(&data_dir()?.join("answers"));
    let mut judge =
        endpoint.map(|endpoint| EndpointJudge::explaining(JudgeClient::new(endpoint, cache)));
    let mut study = open_study(&args.common.study, out)?;
    if study.manifest().model.is_none() {
        return Err(Error::refused(format!(
            "{} was imported as a matrix and has no tokens: a description is made from texts; collect a study with a model",
            study.dir().display()
        )));
    }
    let ask = request(args, &study)?;
    ask.config.check()?;
    if let Some(name) = &args.name {
        study.evaluation_path(name)?;
    }
    if let Some(path) = &args.phrases {
        Phrases::check(path)?;
    }
    let reader = match (&judge, args.dry_run && args.encoder.is_none()) {
        (None, false) => Some(encoder::open(args.encoder.as_deref(), out, &ctx)?),
        _ => None,
    };
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    // Locked only now: what is refused, or only planned, writes nothing.
    if !args.dry_run {
        study = Study::open(&args.common.study)?;
    }
    let prepared = prepare(&study, &ask, &model, &ctx)?;
    let begun = Instant::now();
    print_price(
        &prepared,
        judge.as_ref(),
        reader.as_ref(),
        &model,
        out,
        &ctx,
    )?;
    if args.dry_run {
        return Ok(Vec::new());
    }
    let shared = RefCell::new(&mut *out);
    let mut seen = |event: RunEvent<'_>| print_texts(&shared, event);
    let mut voice = match (&mut judge, &reader) {
        (Some(judge), _) => Voice::Endpoint(judge),
        (None, Some(encoder)) => Voice::Offline {
            encoder,
            phrases: Phrases::open(encoder, args.phrases.as_deref(), &ctx)?,
        },
        (None, None) => return Err(Error::usage("give --judge meaning or --endpoint")),
    };
    let found = prepared.run(
        &study,
        &model,
        &mut voice,
        &mut |note| shared.borrow().note(note),
        &mut seen,
        &ctx,
    )?;
    if out.is_json() {
        print_lines(&found, out)?;
    } else {
        print_tables(&found, out)?;
    }
    for side in &found.sides {
        remarks(side, out);
    }
    if let Some(path) = &args.svg {
        // A plot is of one table: that of the first side that is there.
        let first = found.sides.first();
        let chart = first.map(|table| {
            let title = format!("Steering at {}, {}", table.place(), table.judge);
            chart(&table.methods, title, table.unsteered.map(|u| u.score))
        });
        if let Some(chart) = chart {
            crate::disk::write_atomic(path, chart.svg().as_bytes())?;
        }
    }
    if let Some(judge) = &judge {
        print_usage(judge.usage(), out)?;
    }
    out.note(&format!(
        "it took {}",
        amounts::duration(begun.elapsed().as_secs_f64())
    ));
    match found.sides.iter().any(|side| side.stopped) {
        true => Err(Error::Cancelled),
        false => Ok(scores(&found)),
    }
}

/// What is told of each method against layer, of the descriptions of each side.
fn scores(found: &Described) -> Vec<LayerScore> {
    let mut out = Vec::new();
    for (causal, side) in found.sides.iter().zip(Side::ALL) {
        let best = |r: &SteeringReport| {
            Some(LayerScore::new(
                &r.method,
                &format!("score by {side}"),
                r.best?,
            ))
        };
        out.extend(causal.methods.iter().filter_map(best));
    }
    for d in &found.detections {
        let (method, side) = (&d.method, d.side);
        let s_cd = d
            .s_cd
            .map(|s| LayerScore::new(method, &format!("S_CD of {side}"), s));
        let above = |share| LayerScore::of_number(method, &format!("above 0, {side}"), share);
        out.extend(s_cd.into_iter().chain(d.above_0.map(above)));
    }
    out
}

/// Refuses what would do nothing, and a judge that cannot read descriptions.
fn check(args: &SteeringArgs, endpoint: bool) -> Result<()> {
    let of_labels = [
        ("--labels", !args.labels.is_empty()),
        ("--choose", args.choose != Choose::Input),
        ("--choose-prompt", !args.choose_prompt.is_empty()),
        ("--unseen", args.common.unseen),
        ("--holdout", args.common.holdout.is_some()),
        ("--holdout-seed", args.common.holdout_seed.is_some()),
        (
            "--protocol short",
            args.protocol == Some(ProtocolArg::Short),
        ),
    ];
    if let Some((option, _)) = of_labels.iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!(
            "{option} is of --concepts labels, and here every feature has its own description, by the paper's protocol: leave it out, or give --concepts labels"
        )));
    }
    if args.samples == Some(0) {
        return Err(Error::usage(
            "descriptions are judged by texts, which --samples 0 does not write: give one or more",
        ));
    }
    if let Some(path) = args.svg.as_deref() {
        super::super::check_target(path, &["svg"])?;
    }
    let of_encoder = [
        ("--encoder", args.encoder.is_some()),
        ("--phrases", args.phrases.is_some()),
    ];
    match (endpoint, args.offline) {
        (false, Some(crate::cli::OfflineArg::Meaning)) => Ok(()),
        (false, _) => Err(Error::usage(
            "descriptions are judged by --judge meaning (offline) or by a language model (--endpoint URL --judge-model NAME): \
             words know labels alone",
        )),
        (true, _) => match of_encoder.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Error::usage(format!(
                "{option} has no effect beside --endpoint, which describes and judges: leave it out"
            ))),
            None => Ok(()),
        },
    }
}

fn request(args: &SteeringArgs, study: &Study) -> Result<DescribedRequest> {
    let mut config = SteeringConfig::paper();
    if !args.prompt.is_empty() {
        config.prompts.clone_from(&args.prompt);
        config.by(crate::eval::steering::Protocol::Paper);
    }
    if !args.kl.is_empty() {
        config.targets.clone_from(&args.kl);
    }
    config.samples = args.samples.unwrap_or(config.samples);
    let tokens = args.max_tokens.unwrap_or(config.sampling.max_tokens);
    config.sampling = args.sampling.sampling(args.common.seed, tokens)?;
    (config.bos, config.batch) = (study.manifest().bos, args.batch.unwrap_or(config.batch));
    let mut methods = args.common.methods.clone();
    if methods.is_empty() {
        methods = DescribedRequest::usual();
        let place = args.common.place.selection();
        let (hook, _) = place.resolve(study)?;
        let explained = |name: &str| study.has_descriptions(name);
        for sae in study
            .saes()?
            .into_iter()
            .filter(|s| s.hook == hook && s.figures.is_some())
        {
            // One without explanations of its own is evaluated where it is named.
            let kind = SetKind::Sae(Some(sae.name.clone()));
            if explained(&sae.name)? || explained(&kind.to_string())? {
                methods.insert(1, crate::jobs::evaluation::Method::Set(kind));
            }
        }
    }
    Ok(DescribedRequest {
        methods,
        place: args.common.place.selection(),
        sample: args.sample,
        sentences: args.sentences.unwrap_or(SENTENCES),
        config,
        name: args.name.clone(),
        seed: args.common.seed,
    })
}

/// What it will take at most, before anything is asked or written.
fn print_price(
    prepared: &PreparedUnits,
    judge: Option<&EndpointJudge>,
    encoder: Option<&SentenceEncoder>,
    model: &Model,
    out: &mut Output,
    ctx: &TaskCtx,
) -> Result<()> {
    let price = prepared.price(judge);
    let seconds = prepared.seconds(&price, model, encoder, ctx)?;
    if out.is_json() {
        if let (Some(cost), Some(judge)) = (&price.asked, judge) {
            let about = json!({"event": "estimate", "judge": judge.client_ref().endpoint().name(), "rated_count": 0});
            out.object(&merged([about, json::cost(cost)]))?;
        }
        return out.object(&json!({
            "event": "priced", "feature_count": price.features, "undescribed_count": price.undescribed,
            "direction_count": price.directions, "text_count": price.texts, "max_token_count": price.tokens,
            "estimated_s": seconds,
        }));
    }
    out.line(&format!(
        "{} features, {} of them without a description; {} directions, up to {} texts of {} tokens",
        thousands(price.features as u64),
        thousands(price.undescribed as u64),
        thousands(price.directions as u64),
        thousands(price.texts as u64),
        price.tokens
    ))?;
    let beside = match encoder {
        Some(_) => "ratings by the encoder among them",
        None => "beside the ratings",
    };
    out.line(&format!(
        "at most about {}, {beside}, as fast as a few of them were just now",
        amounts::duration(seconds)
    ))?;
    match &price.asked {
        None => out.line("nobody is asked"),
        Some(cost) => out.line(&format!(
            "at most {} calls, about {} tokens of questions and at most {} of answers",
            thousands(cost.calls as u64),
            thousands(cost.prompt_tokens as u64),
            thousands(cost.completion_tokens as u64)
        )),
    }
}

fn print_lines(found: &Described, out: &mut Output) -> Result<()> {
    for c in &found.concepts {
        out.object(&json!({
            "event": "concept", "set": c.set, "feature": c.feature, "side": c.side, "concept_text": c.description,
            "described_by": c.described_by, "s_cd": c.s_cd,
        }))?;
    }
    for d in &found.detections {
        out.object(&json!({
            "event": "sentences", "method": d.method, "side": d.side, "hook": d.hook,
            "s_cd_interval": d.s_cd.map(json::interval), "above_0": d.above_0, "undefined_count": d.undefined,
            "feature_count": d.features,
        }))?;
    }
    found.sides.iter().try_for_each(|side| lines(side, out))
}

fn print_tables(found: &Described, out: &mut Output) -> Result<()> {
    for side in Side::ALL {
        let rows: Vec<&SideDetection> =
            found.detections.iter().filter(|d| d.side == side).collect();
        if rows.is_empty() {
            continue;
        }
        out.line(&format!(
            "{:24}  {:>22}  {:>8}  {:>9}",
            format!("descriptions of {side}"),
            "S_CD [95 %]",
            "above 0",
            "undefined"
        ))?;
        for d in rows {
            let above = d
                .above_0
                .map_or_else(|| "-".to_owned(), |a| format!("{:.0} %", 100.0 * a));
            out.line(&format!(
                "{:24}  {:>22}  {above:>8}  {:>9}",
                text::clean(&d.method),
                with_interval(d.s_cd),
                format!("{} of {}", d.undefined, d.features)
            ))?;
        }
        out.line("")?;
    }
    found.sides.iter().try_for_each(|side| table(side, out))
}
