//! `mlpeek fit`.

use std::sync::Arc;

use serde_json::json;

use super::json::concentrations;
use super::layers::{self, LayerScore};
use super::{Output, note_unfinished};
use crate::amounts::{chosen_percent, count};
use crate::cli::FitArgs;
use crate::directions::Directions;
use crate::directions::matching::{DUPLICATE, duplicates};
use crate::error::{Error, Result};
use crate::eval::contexts::activity;
use crate::factor::{Factors, FitConfig, Solver, Sweep};
use crate::jobs::directions::HookSelection;
use crate::jobs::fitting::{self, Begin, FitObserver, FitRun, Resume};
use crate::jobs::gpu::FitGpu;
use crate::model::HookPoint;
use crate::study::{FitEntry, FitState, Study};

pub(super) fn run(args: &FitArgs, out: &mut Output) -> Result<()> {
    let mut asked = args.clone();
    let several = args.layer.len() > 1;
    if let (true, Some(from)) = (several, &args.from) {
        return Err(Error::usage(format!(
            "--from {from} goes on from a fit of one layer: name that layer alone, or leave out --layer"
        )));
    }
    layers::each(
        &args.study,
        &args.layer,
        args.svg.as_deref(),
        out,
        &mut |layer, out| {
            asked.layer = layer.into_iter().collect();
            if let (true, Some(layer), Some(name)) = (several, layer, &args.name) {
                asked.name = Some(format!("l{layer}-{name}"));
            }
            at_layer(&asked, several, out).map(|score| vec![score])
        },
    )
}

/// Fits one layer; `several`: it is one of several, of which those that are fitted are left as they
/// are.
fn at_layer(args: &FitArgs, several: bool, out: &mut Output) -> Result<LayerScore> {
    let ctx = out.task();
    let study = Study::open(&args.study)?;
    note_unfinished(&study, out)?;
    let plan = Plan::of(&study, args)?;
    let hook = plan.hook;
    let features = plan.config.features;
    if let Some(cap) = args.objective.row_cap.filter(|&cap| cap >= features) {
        return Err(Error::usage(format!(
            "--row-cap {cap} has no effect on {features} features: give fewer than these, or leave it out"
        )));
    }
    let width = study.manifest().width(hook)?;
    if plan.config.solver == Solver::Mu && args.objective.l1.is_some_and(|l1| l1 != 0.0) {
        return Err(Error::usage(
            "the multiplicative updates know no penalty: leave out --l1, or use --solver bcd",
        ));
    }
    if plan.config.solver == Solver::Mu && !matches!(plan.begin, Begin::Anew) {
        let option = if plan.from.is_some() {
            "--from"
        } else {
            "--batch-rows"
        };
        return Err(Error::usage(format!(
            "the multiplicative updates know no {option}: use --solver bcd"
        )));
    }
    let config = plan.config.with_sparsity_at(width);
    if config.features > width {
        out.note("more features than neurons: that is an overcomplete basis");
    }
    let name = match (&args.name, &plan.from) {
        (Some(name), _) => name.clone(),
        (None, Some(entry)) => fitting::refined_name(&study, entry, &config)?,
        (None, None) => match plan.begin {
            Begin::Batches(_) if !args.fresh && !args.resume => {
                fitting::first_look_name(&study, hook, &config)?
            }
            _ => fitting::default_name(&study, hook, &config)?,
        },
    };
    // What cannot be fitted at all is said before whose name it would take.
    config.check(study.activations(hook)?.shape())?;
    if !args.fresh && !args.resume {
        let from = plan.from.as_ref().map(|entry| entry.name.as_str());
        fitting::check_name_is_free(&study, &name, hook, &config, from)?;
        if matches!(plan.begin, Begin::Batches(_)) {
            fitting::check_is_not_converged(&study, &name)?;
        }
    }
    if several && !args.fresh && !args.resume {
        let fits = study.fits()?;
        let there = fits.iter().find(|f| f.name == name && f.hook == hook);
        let there = there.filter(|f| f.state.is_finished() && f.config.same_fit(&config));
        if let Some(error) = there.and_then(|f| f.relative_error) {
            out.note(&format!(
                "fit '{name}' of {hook} is there: it stays (--fresh fits it anew)"
            ));
            return Ok(error_of(&name, error));
        }
    }
    let resume = match plan.begin {
        _ if args.resume => Resume::Must,
        _ if args.fresh => Resume::Never,
        Begin::Factors { .. } => Resume::Never,
        Begin::Anew | Begin::Batches(_) => Resume::IfCut,
    };
    let gpu = FitGpu::open(args.device)?;
    let place = FitRun {
        gpu,
        ..FitRun::new(&study, &name, hook, &config, resume, plan.begin)?
    };
    let source = study.activations(hook)?;
    let mut observer = Lines {
        out,
        init_seconds: 0.0,
        last: None,
    };
    let save =
        |factors: &Factors, ended| study.save_run(&name, hook, &config, factors, Some(ended));
    let end = fitting::run_fit(source.as_ref(), &config, &place, &mut observer, &save, &ctx)?;
    study.save_energy(hook, &end.energy);
    let (seconds, factors) = (observer.last.map_or(0.0, |s| s.seconds), &end.factors);
    let init_seconds = observer.init_seconds;
    let dead = activity(factors).1;
    let duplicates = duplicates(&Directions::Sparse(factors.features.clone()));
    if out.is_json() {
        out.object(&json!({
            "event": "fitted", "fit": name, "feature_count": factors.features.columns(),
            "relative_error": factors.relative_error, "weighted_error": factors.weighted_error,
            "explained_variance": factors.explained_variance, "sweep_count": factors.sweep,
            "elapsed_s": seconds, "init_s": init_seconds, "sparsity": config.sparsity, "l1": config.l1,
            "row_cap": config.row_cap, "scale_rows": config.scale_rows, "scale_neurons": config.scale_neurons,
            "centre": config.centre, "concentrated": concentrations(&end.concentrated),
            "from": plan.from.map(|entry| entry.name), "stop": end.stop, "state": FitState::from(end.stop),
            "dead_count": dead, "duplicate_count": duplicates, "device": end.place.device,
            "device_ratio": end.place.ratio,
        }))?;
    } else {
        out.line(&format!(
            "fit '{name}': {} features of {} of {} neurons, {}, explained variance {:.4}, {} sweeps in {seconds:.1} s (start {init_seconds:.1} s){}",
            factors.features.columns(),
            chosen_percent(config.sparsity_at(width)),
            count(width),
            fitting::error_words(factors),
            factors.explained_variance,
            factors.sweep,
            if end.stop.is_none() { "; stopped, the same command goes on" } else { "" }
        ))?;
        if dead + duplicates > 0 {
            let (away, dir) = (dead + duplicates, args.study.display());
            out.note(&format!(
                "{dead} features are used by no token and {duplicates} nearly repeat another (|cosine| above {DUPLICATE}): mlpeek fit {dir} --from {name} --merge {away}, and then --add {away}, puts them to use"
            ));
        }
    }
    if end.stop.is_none() {
        Err(Error::Cancelled)
    } else {
        Ok(error_of(&name, factors.relative_error))
    }
}

fn error_of(name: &str, error: f64) -> LayerScore {
    LayerScore::of_number(name, "relative error", error)
}

/// What to fit and what to begin with.
struct Plan {
    hook: HookPoint,
    config: FitConfig,
    begin: Begin,
    /// The fit that it goes on from.
    from: Option<FitEntry>,
}

impl Plan {
    fn of(study: &Study, args: &FitArgs) -> Result<Self> {
        let place = HookSelection {
            fit: None,
            layer: args.layer.first().copied(),
            site: args.hook,
        };
        if let Some(refinement) = args.refinement() {
            let (entry, base, begin) = refinement.plan(study)?;
            if !place.admits(entry.hook) {
                let (name, hook) = (entry.name, entry.hook);
                return Err(Error::usage(format!(
                    "fit '{name}' is of {hook}: leave out --layer and --hook"
                )));
            }
            let config = args.config(base.clone());
            if config.scale_neurons != base.scale_neurons {
                let name = entry.name;
                return Err(Error::usage(if base.scale_neurons {
                    format!(
                        "fit '{name}' scales neurons, and its features go on only so: leave out --scale-neurons=false, or fit anew without --from"
                    )
                } else {
                    format!(
                        "fit '{name}' takes neurons as they are, and its features go on only so: fit anew with --scale-neurons and without --from"
                    )
                }));
            }
            return Ok(Self {
                hook: entry.hook,
                config,
                begin,
                from: Some(entry),
            });
        }
        if args.resume
            && let Some(name) = &args.name
        {
            let (hook, asked) = study.fit_request(name)?;
            if !place.admits(hook) {
                return Err(Error::usage(format!(
                    "fit '{name}' is of {hook}: leave out --layer and --hook"
                )));
            }
            let config = args.config(asked.clone());
            if !config.same_fit(&asked) {
                return Err(Error::usage(format!(
                    "fit '{name}' was begun with other settings: leave out all but --name and --resume, or give a new name without --resume"
                )));
            }
            return Ok(Self {
                hook,
                config,
                begin: Begin::Anew,
                from: None,
            });
        }
        let begin = args.batch_rows.map_or(Begin::Anew, Begin::Batches);
        Ok(Self {
            hook: place.only_hook(study)?,
            config: args.config(FitConfig::default()),
            begin,
            from: None,
        })
    }
}

struct Lines<'a> {
    out: &'a mut Output,
    init_seconds: f64,
    last: Option<Sweep>,
}

impl FitObserver for Lines<'_> {
    fn note(&mut self, note: &str) {
        self.out.note(note);
    }

    fn started(&mut self, init_seconds: f64, resumed: bool) {
        self.init_seconds = init_seconds;
        if resumed {
            self.out.note("going on from the checkpoint");
        }
    }

    fn sweep(&mut self, sweep: Sweep) -> Result<()> {
        self.last = Some(sweep);
        if !self.out.is_json() {
            return Ok(());
        }
        let error = Some(sweep.relative_error);
        let (relative, weighted) = match sweep.weighted {
            true => (None, error),
            false => (error, None),
        };
        self.out.object(&json!({
            "event": "progress", "sweep": sweep.sweep, "relative_error": relative, "weighted_error": weighted,
            "elapsed_s": sweep.seconds, "init_s": self.init_seconds,
        }))
    }

    fn wants_snapshots(&self) -> bool {
        false
    }

    fn snapshot(&mut self, _: &Arc<Factors>, _: bool) {}
}
