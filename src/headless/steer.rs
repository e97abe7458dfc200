//! `mlpeek steer`.

use serde_json::{Value, json};

use super::features::{recipe_json, recipe_words};
use super::{Output, model_of, open_study};
use crate::analysis::ScoredToken;
use crate::cli::{ModeArg, SteerArgs};
use crate::error::{Error, Result};
use crate::jobs::directions::Reference;
use crate::jobs::steering::SteeredDirection;
use crate::model::generate::Sampling;
use crate::steering::{SteerEvent, SteerPart, SteerRequest, Strength, steer};

pub(super) fn run(args: &SteerArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let (strength, wanted) = (strength(args), Reference::parse_list(&args.features)?);
    let sampling = sampling(args)?;
    let mut study = open_study(&args.study, out)?;
    let part = match (args.core_of.as_slice(), args.exclusive_of.as_slice()) {
        ([], []) => SteerPart::Whole,
        (core, []) => SteerPart::CoreOf(core.to_vec()),
        (_, others) => SteerPart::ExclusiveOf(others.to_vec()),
    };
    let place = args.place.selection();
    place.check_effect(&study, wanted.iter().map(|reference| &reference.kind))?;
    let measured = wanted.iter().any(|reference| reference.kind.is_measured());
    // What cannot be steered with is said before a model is loaded, where that can be known.
    let opened = match measured {
        true => None,
        false => Some(SteeredDirection::open_all(
            &study, &wanted, &place, &part, None, &ctx,
        )?),
    };
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    let directions = match opened {
        Some(directions) => directions,
        None => SteeredDirection::open_all(&study, &wanted, &place, &part, Some(&model), &ctx)?,
    };
    let request = SteerRequest {
        terms: directions
            .iter()
            .map(|direction| direction.term(&model))
            .collect::<Result<_>>()?,
        mode: args.mode.into(),
        strength,
        negative: args.sign == "-",
        positions: args.positions,
        prompts: args.prompt.clone(),
        samples: args.samples,
        sampling,
        bos: study.manifest().bos,
    };
    if let Some(other) = directions.iter().find(|d| d.hook != directions[0].hook) {
        out.note(&format!(
            "these directions live in different spaces: {} and {}",
            directions[0].hook, other.hook
        ));
    }
    let text = !out.is_json();
    for direction in directions.iter().filter(|_| text) {
        if let Some(words) = recipe_words(&direction.recipe) {
            out.line(&format!("{} is {words}", direction.named()))?;
        }
    }
    let mut failed = None;
    let mut emit = |event: SteerEvent| {
        if out.is_json() {
            return;
        }
        if let Err(e) = print_info(&event, out) {
            failed.get_or_insert(e);
        }
    };
    let done = steer(&model, &request, &mut emit, &ctx)?;
    if let Some(e) = failed {
        return Err(e);
    }
    let info = &done.info;
    if out.is_json() {
        return out.object(&json!({
            "directions": directions.iter().map(direction_json).collect::<Vec<_>>(), "alpha": info.alpha, "kl": info.kl,
            "remark": info.note, "prompts": args.prompt, "baseline": done.baseline, "steered": done.steered,
            "risen": info.risen, "fallen": info.fallen,
        }));
    }
    for (i, (baseline, steered)) in done.baseline.iter().zip(&done.steered).enumerate() {
        let prompt = &args.prompt[i / args.samples];
        out.line("")?;
        out.line(&format!("baseline {}  {prompt}{baseline}", i + 1))?;
        out.line(&format!("steered  {}  {prompt}{steered}", i + 1))?;
    }
    Ok(())
}

fn print_info(event: &SteerEvent, out: &mut Output) -> Result<()> {
    let SteerEvent::Info(info) = event else {
        return Ok(());
    };
    let list = |tokens: &[ScoredToken]| {
        tokens
            .iter()
            .map(|t| format!("{} {:+.2}", t.token.trim(), t.value))
            .collect::<Vec<_>>()
            .join("  ")
    };
    out.line(&format!("α {:.3}  KL {:.4}", info.alpha, info.kl))?;
    if let Some(note) = &info.note {
        out.note(note);
    }
    out.line(&format!("risen   {}", list(&info.risen)))?;
    out.line(&format!("fallen  {}", list(&info.fallen)))
}

fn direction_json(direction: &SteeredDirection) -> Value {
    json!({
        "set": direction.set, "feature": direction.id, "title": direction.title,
        "hook": direction.hook.to_string(), "weight": direction.weight, "recipe": recipe_json(&direction.recipe),
    })
}

fn strength(args: &SteerArgs) -> Strength {
    match (args.alpha, args.kl) {
        (Some(alpha), _) => Strength::Alpha(alpha),
        (None, None) if args.mode == ModeArg::Ablate => Strength::Alpha(1.0),
        (None, kl) => Strength::Kl(kl.unwrap_or(0.25)),
    }
}

fn sampling(args: &SteerArgs) -> Result<Sampling> {
    let sampling = args.sampling.sampling(
        args.seed.unwrap_or(Sampling::default().seed),
        args.max_tokens,
    )?;
    if sampling.temperature == 0.0 && (args.seed.is_some() || args.samples > 1) {
        let option = if args.seed.is_some() {
            "--seed"
        } else {
            "--samples"
        };
        return Err(Error::usage(format!(
            "{option} has no effect with --temperature 0, whose texts are all the same: leave one of them out"
        )));
    }
    Ok(sampling)
}
