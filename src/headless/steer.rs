//! `mlpeek steer`.

use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Output, model_of, open_study};
use crate::analysis::ScoredToken;
use crate::cli::{ModeArg, SteerArgs};
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::jobs::directions::{self, Place, Reference};
use crate::model::generate::Sampling;
use crate::model::{HookPoint, Model};
use crate::steering::{
    SteerEvent, SteerPart, SteerRequest, SteerTerm, Strength, direction_term, part_direction, steer,
};
use crate::study::Study;
use crate::task::TaskCtx;

pub(super) fn run(args: &SteerArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let (strength, wanted) = (strength(args), Reference::parse_list(&args.features)?);
    let sampling = sampling(args)?;
    let mut study = open_study(&args.study, out)?;
    let mut chosen = Chosen::open(&study, &wanted, &args.place.place(), &ctx)?;
    take_part(&mut chosen, &wanted, &study, args)?;
    let model = model_of(
        &mut study,
        args.model.model.as_deref(),
        args.device,
        None,
        out,
        &ctx,
    )?;
    let request = SteerRequest {
        terms: chosen
            .iter()
            .map(|c| c.term(&model))
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
    if let Some(other) = chosen.iter().find(|c| c.hook != chosen[0].hook) {
        out.note(&format!(
            "these directions live in different spaces: {} and {}",
            chosen[0].hook, other.hook
        ));
    }
    let mut failed = None;
    let mut emit = |event: SteerEvent| {
        if out.is_json() {
            return;
        }
        if let Err(e) = tell(&event, out) {
            failed.get_or_insert(e);
        }
    };
    let done = steer(&model, &request, &mut emit, &ctx)?;
    if let Some(e) = failed {
        return Err(e);
    }
    let info = &done.info;
    if out.is_json() {
        let shifted = |tokens: &[ScoredToken]| -> Vec<_> {
            tokens
                .iter()
                .map(|t| json!({"token": t.token, "id": t.id, "delta": t.value}))
                .collect()
        };
        return out.object(&json!({"directions": chosen, "alpha": info.alpha, "kl": info.kl,
            "note": info.note, "prompt": one_or_all(&args.prompt), "baseline": one_or_all(&done.baseline),
            "steered": one_or_all(&done.steered), "risen": shifted(&info.risen), "fallen": shifted(&info.fallen)}));
    }
    for (i, (baseline, steered)) in done.baseline.iter().zip(&done.steered).enumerate() {
        let prompt = &args.prompt[i / args.samples];
        out.line("")?;
        out.line(&format!("baseline {}  {prompt}{baseline}", i + 1))?;
        out.line(&format!("steered  {}  {prompt}{steered}", i + 1))?;
    }
    Ok(())
}

/// Of features their core or their own neurons, where that is asked for.
fn take_part(
    chosen: &mut [Chosen],
    wanted: &[Reference],
    study: &Study,
    args: &SteerArgs,
) -> Result<()> {
    let part = match (args.core_of.as_slice(), args.exclusive_of.as_slice()) {
        ([], []) => return Ok(()),
        (core, []) => SteerPart::CoreOf(core.to_vec()),
        (_, others) => SteerPart::ExclusiveOf(others.to_vec()),
    };
    for (one, reference) in chosen.iter_mut().zip(wanted) {
        let SetKind::Fit(name) = &reference.kind else {
            let said = format!(
                "--core-of and --exclusive-of take features of a fit, not {}",
                one.set
            );
            return Err(Error::usage(said));
        };
        let place = args.place.place();
        let name = match name.clone().or(place.fit.clone()) {
            Some(name) => Some(name),
            None => place.resolve(study)?.1.map(|fit| fit.name),
        };
        let (_, factors) = study.load_fit(name.as_deref())?;
        one.column = part_direction(&factors, one.id, &part)?;
    }
    Ok(())
}

/// One text as a string, several as a list.
fn one_or_all(texts: &[String]) -> serde_json::Value {
    match texts {
        [one] => json!(one),
        all => json!(all),
    }
}

fn tell(event: &SteerEvent, out: &mut Output) -> Result<()> {
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

fn as_text<S: Serializer>(hook: &HookPoint, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(hook)
}

/// A direction that was asked for.
#[derive(Serialize)]
struct Chosen {
    set: String,
    id: usize,
    title: Option<String>,
    #[serde(serialize_with = "as_text")]
    hook: HookPoint,
    weight: f32,
    #[serde(skip)]
    column: Vec<f32>,
}

impl Chosen {
    /// Opens each set once.
    fn open(
        study: &Study,
        wanted: &[Reference],
        place: &Place,
        ctx: &TaskCtx,
    ) -> Result<Vec<Self>> {
        let mut sets: Vec<(SetKind, Box<dyn DirectionSet>)> = Vec::new();
        let mut out = Vec::new();
        for reference in wanted {
            let at = match sets.iter().position(|(kind, _)| *kind == reference.kind) {
                Some(at) => at,
                None => {
                    sets.push((
                        reference.kind.clone(),
                        directions::open(study, &reference.kind, place, ctx)?,
                    ));
                    sets.len() - 1
                }
            };
            let set = sets[at].1.as_ref();
            let id = set.find(&reference.id)?;
            out.push(Self {
                set: set.name().to_owned(),
                id,
                title: set.title(id).map(str::to_owned),
                hook: set.hook(),
                weight: reference.weight,
                column: set.directions().column(id),
            });
        }
        Ok(out)
    }

    fn term(&self, model: &Model) -> Result<SteerTerm> {
        direction_term(model, self.hook, &self.column, self.weight)
    }
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
