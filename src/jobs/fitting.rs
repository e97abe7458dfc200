//! The one loop that runs a fit, for the explorer and for the command: sweeps, snapshots,
//! checkpoints, holding, stopping early with the best kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::gpu::{FitGpu, FitPlace, Placement};
use crate::activations::ActivationSource;
use crate::activations::energy::{Concentration, Energy};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::{Factoriser, Factors, FitConfig, MiniBatchFit, Stop, Sweep};
use crate::model::HookPoint;
use crate::study::{RunEnd, Study};
use crate::task::{Progress, TaskCtx};

mod error_curve;
mod first_look;
mod refinement;
mod timer;

use error_curve::ErrorCurve;
pub use error_curve::saved_curve;
pub use refinement::{
    Refinement, check_is_not_converged, check_name_is_free, default_name, first_look_name,
    refined_name,
};
use timer::{Timer, checkpoint_every};

/// A snapshot for the screen at most this often, and less often where it takes long.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);

/// What a shell sees of a running fit.
pub trait FitObserver {
    /// What the user should know of how the fit is run.
    fn note(&mut self, note: &str);
    /// What the user should know of what is fitted.
    fn warn(&mut self, words: &str) {
        self.note(words);
    }
    /// The start was made in `seconds`, or a checkpoint was read (`resumed`).
    fn started(&mut self, init_seconds: f64, resumed: bool);
    /// After every sweep, never thinned.
    ///
    /// # Errors
    /// When the observer cannot pass the sweep on (its output is closed): the fit ends with it.
    fn sweep(&mut self, sweep: Sweep) -> Result<()>;
    /// Whether it wants snapshots before the end: they take time.
    fn wants_snapshots(&self) -> bool {
        true
    }
    /// At most every 250 ms, and once more at the end.
    fn snapshot(&mut self, factors: &Arc<Factors>, finished: bool);
    /// Called between sweeps after a checkpoint when [`FitObserver::wants_hold`] says so; returns
    /// when the fit may go on.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] when the fit is cancelled while it is held.
    fn hold(&mut self, ctx: &TaskCtx) -> Result<()> {
        ctx.check()
    }
    /// Whether the fit shall be held now.
    fn wants_hold(&self) -> bool {
        false
    }
}

/// Whether to go on from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Start anew, whatever is there.
    Never,
    /// Go on where a checkpoint is, start anew where there is none.
    IfThere,
    /// Go on where a run was cut short, by ctrl-c or by a crash; start anew where it ended by
    /// itself.
    IfCut,
    /// Go on; an error when there is no checkpoint.
    Must,
}

/// What a fit begins with, where it does not go on from a checkpoint.
#[derive(Debug, Clone, Default)]
pub enum Begin {
    /// The start of its configuration.
    #[default]
    Anew,
    /// An earlier fit's factors; the features `locked` of them stay as they are.
    Factors {
        /// The factors of the earlier fit.
        factors: Arc<Factors>,
        /// Features of it, by number.
        locked: Vec<usize>,
    },
    /// A first look: batches of so many rows, then one pass over all; no full sweep.
    Batches(usize),
}

/// Where a fit of a study is kept and how it begins.
pub struct FitRun {
    /// The hook it factorises.
    pub hook: HookPoint,
    /// Its name in the study.
    pub name: String,
    /// Where its checkpoint lies.
    pub checkpoint: PathBuf,
    /// Where its error curve lies.
    pub losses: PathBuf,
    /// Whether it goes on from a checkpoint.
    pub resume: Resume,
    /// What it begins with where it does not.
    pub begin: Begin,
    /// A GPU that may take the sweeps.
    pub gpu: Option<FitGpu>,
}

impl FitRun {
    /// The place of the fit `name` in `study`. Nothing there changes before the request is known to
    /// be one that can be fitted.
    ///
    /// # Errors
    /// What cannot be fitted; a name that holds the checkpoint of another request, where it is not
    /// to start anew.
    pub fn new(
        study: &Study,
        name: &str,
        hook: HookPoint,
        config: &FitConfig,
        resume: Resume,
        begin: Begin,
    ) -> Result<Self> {
        config.check(study.activations(hook)?.shape())?;
        if resume != Resume::Never && study.checkpoint_path(name)?.is_file() {
            let (saved_hook, asked) = study.fit_request(name)?;
            if saved_hook != hook || !config.same_fit(&asked) {
                return Err(Error::usage(format!(
                    "fit '{name}' has a checkpoint of other settings: go on with it by --name {name} --resume alone, give another --name, or drop it by --fresh"
                )));
            }
        }
        study.start_fit(name, hook, config)?;
        if resume == Resume::Never {
            disk::remove_if_there(&study.checkpoint_path(name)?)?;
        }
        Ok(Self {
            hook,
            name: name.to_owned(),
            checkpoint: study.checkpoint_path(name)?,
            losses: study.loss_path(name)?,
            resume,
            begin,
            gpu: None,
        })
    }
}

/// How a fit ended.
pub struct FitEnd {
    /// The best factors, with their error recomputed from the residual.
    pub factors: Arc<Factors>,
    /// Why; `None` when the user stopped it.
    pub stop: Option<Stop>,
    /// What neurons and rows hold of the activations as they are.
    pub energy: Energy,
    /// Where few of them hold much of what was fitted.
    pub concentrated: Vec<Concentration>,
    /// Where its passes ran.
    pub place: FitPlace,
}

/// Runs a fit to its end. `save` is called with the finished factors, how the fit ended, also when
/// the user stops it after a first sweep: then the best so far is saved, and [`FitEnd::stop`] is
/// `None`; before it, [`Error::Cancelled`] is returned.
///
/// # Errors
/// [`Error::Usage`] for what cannot be fitted or gone on with, [`Error::Refused`] where neither
/// memory nor disk holds it, [`Error::Cancelled`]; what `save` returns.
pub fn run_fit(
    source: &dyn ActivationSource,
    config: &FitConfig,
    place: &FitRun,
    observer: &mut dyn FitObserver,
    save: &dyn Fn(&Factors, RunEnd) -> Result<()>,
    ctx: &TaskCtx,
) -> Result<FitEnd> {
    config.check(source.shape())?;
    let checkpoint = &place.checkpoint;
    let scratch = super::budget::scratch(config, source.shape(), disk::parent(checkpoint))?;
    if scratch.is_some() {
        let bytes = disk::human_bytes(config.coefficient_bytes(source.shape().0));
        observer.note(&format!(
            "the coefficients ({bytes} while fitting) lie in files, not in memory"
        ));
    }
    let config = &FitConfig {
        scratch,
        ..config.clone()
    };
    let look = first_look::cut(source, config, place, observer)?;
    let is_look = look.is_some() || matches!(place.begin, Begin::Batches(_));
    let Placement {
        accelerator,
        place: computed,
        words,
    } = match &place.gpu {
        Some(gpu) => gpu.for_fit(config, source, is_look, ctx)?,
        None => Placement::default(),
    };
    words.iter().for_each(|words| observer.note(words));
    let earlier = if look.is_some() {
        None
    } else {
        earlier(source, config, place, observer, ctx)?
    };
    let resumed = earlier.is_some() || look.is_some();
    let sweeps_before = look
        .as_ref()
        .map(MiniBatchFit::batches)
        .or(earlier.as_ref().map(Factoriser::sweeps));
    let mut losses = ErrorCurve::open(&place.losses, sweeps_before)?;
    // Batches come to an end of their own.
    let mut looked = None;
    let mut whole = |look| {
        let (factoriser, stop) = first_look::run(
            look,
            resumed,
            config,
            checkpoint,
            &mut losses,
            observer,
            ctx,
        )?;
        looked = Some(stop);
        Ok::<_, Error>(factoriser)
    };
    let mut factoriser = match (earlier, look, &place.begin) {
        (Some(mut earlier), ..) => {
            accelerator.map_or(Ok(()), |device| earlier.compute_on(device))?;
            earlier
        }
        (None, Some(look), _) => whole(look)?,
        (None, None, Begin::Batches(rows)) => {
            whole(MiniBatchFit::start(source, config.clone(), *rows)?)?
        }
        (None, None, Begin::Anew) => {
            Factoriser::start_on(source, config.clone(), accelerator, ctx)?
        }
        (None, None, Begin::Factors { factors, locked }) => {
            let config = config.clone();
            Factoriser::warm_start_on(source, config, factors, locked, accelerator, ctx)?
        }
    };
    let (energy, concentrated) = (factoriser.energy().clone(), factoriser.concentrations());
    concentrated
        .iter()
        .for_each(|found| observer.warn(&found.advice()));
    if looked.is_none() {
        observer.started(factoriser.init_seconds(), resumed);
    }
    let (mut show, mut save_state) = (
        Timer::at_once(SNAPSHOT_EVERY),
        Timer::after(checkpoint_every()?),
    );
    let mut sweeps = 0;
    let stop = loop {
        if let Some(stop) = looked {
            break stop;
        }
        let sweep = match factoriser.step(ctx) {
            Ok(sweep) => sweep,
            Err(Error::Cancelled) => break None,
            Err(e) => return Err(e),
        };
        sweeps += 1;
        losses.append(sweep, observer);
        observer.sweep(sweep)?;
        // Patience usually ends a fit before its most sweeps, so a total would promise an end that
        // never comes.
        ctx.checkpoint(Progress::new(
            "fitting",
            sweep.sweep as u64,
            config.max_sweeps.map(|m| m as u64),
            "sweeps",
        ))
        .ok();
        if observer.wants_snapshots() && show.is_due() {
            show.during(|| {
                factoriser
                    .snapshot()
                    .map(|factors| observer.snapshot(&factors, false))
            })?;
        }
        if let Some(stop) = sweep.stop {
            break Some(stop);
        }
        let held = observer.wants_hold();
        if held || save_state.is_due() {
            save_state.during(|| checkpoint_or_note(factoriser.checkpoint(checkpoint), observer));
        }
        if held && observer.hold(ctx).is_err() {
            break None;
        }
    };
    if stop.is_none() && sweeps == 0 && !resumed && looked.is_none() {
        return Err(Error::Cancelled);
    }
    if stop != Some(Stop::Converged) {
        checkpoint_or_note(factoriser.checkpoint(checkpoint), observer);
    }
    // A user who stops a fit still wants its factors: finishing must not see the same request to
    // stop.
    let reached = factoriser.sweeps();
    let factors = factoriser.finish(&TaskCtx::silent())?;
    save(
        &factors,
        RunEnd {
            state: stop.into(),
            sweep: reached,
        },
    )?;
    if stop == Some(Stop::Converged) {
        // There is nothing left to go on with: a converged fit is shown, not resumed.
        disk::remove_if_there(checkpoint)?;
    }
    observer.snapshot(&factors, true);
    Ok(FitEnd {
        factors,
        stop,
        energy,
        concentrated,
        place: computed,
    })
}

/// The fit at its checkpoint, where it goes on from one.
fn earlier<'a>(
    source: &'a dyn ActivationSource,
    config: &FitConfig,
    place: &FitRun,
    observer: &mut dyn FitObserver,
    ctx: &TaskCtx,
) -> Result<Option<Factoriser<'a>>> {
    let (name, checkpoint) = (&place.name, &place.checkpoint);
    match (place.resume, checkpoint.exists()) {
        (Resume::Never, _) | (Resume::IfThere | Resume::IfCut, false) => Ok(None),
        (Resume::Must, false) => Err(Error::usage(format!(
            "fit '{name}' has no checkpoint to resume ({} is absent): run it without --resume",
            checkpoint.display()
        ))),
        (Resume::Must | Resume::IfThere, true) => {
            Factoriser::resume(source, config.clone(), checkpoint, ctx).map(Some)
        }
        (Resume::IfCut, true) => {
            match Factoriser::resume(source, config.clone(), checkpoint, ctx) {
                Ok(fit) if fit.has_ended() => {
                    let sweeps = fit.sweeps();
                    observer.note(&format!(
                    "'{name}' ended after {sweeps} sweeps: fitting it anew (--resume goes on from there)"
                ));
                    Ok(None)
                }
                Ok(fit) => Ok(Some(fit)),
                Err(Error::Cancelled) => Err(Error::Cancelled),
                Err(e) => {
                    observer.note(&format!(
                        "fitting anew, since the checkpoint of '{name}' cannot be used: {e}"
                    ));
                    Ok(None)
                }
            }
        }
    }
}

/// Saves where a fit stands. That it could not is told, and no reason to give the fit up.
fn checkpoint_or_note(saved: Result<()>, observer: &mut dyn FitObserver) {
    if let Err(e) = saved {
        observer.note(&format!("the fit goes on, but a crash would lose it: {e}"));
    }
}

/// "relative error 0.2130", and where the fit weighs neurons or rows, which is which.
pub fn error_words(factors: &Factors) -> String {
    let error = factors.relative_error;
    match factors.weighted_error {
        None => format!("relative error {error:.4}"),
        Some(weighted) => format!(
            "relative error {weighted:.4} as weighed, {error:.4} of the activations as they are"
        ),
    }
}
