//! The one loop that runs a fit, for the explorer and for the command: sweeps, snapshots,
//! checkpoints, holding, stopping early with the best kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::curve::{self, Curve};
use super::gpu::FitGpu;
use crate::activations::ActivationSource;
use crate::activations::energy::{Concentration, Energy};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::{Factoriser, Factors, FirstLook, FitConfig, Stop, Sweep};
use crate::model::HookPoint;
use crate::study::{Ended, FitEntry, Study};
use crate::task::{Progress, TaskCtx};

mod first_look;

/// A snapshot for the screen at most this often, and less often where it takes long.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);
/// At most this much work is lost to a kill, or five times what a checkpoint takes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// The same in seconds, where the user says otherwise.
const CHECKPOINT: &str = "MLPEEK_CHECKPOINT";
/// What is done beside the sweeps waits this many times as long as it took.
const COST: u32 = 5;

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
    fn sweep(&mut self, sweep: Sweep) -> Result<()>;
    /// Whether it wants snapshots before the end: they take time.
    fn looks(&self) -> bool {
        true
    }
    /// At most every 250 ms, and once more at the end.
    fn snapshot(&mut self, factors: &Arc<Factors>, finished: bool);
    /// Called between sweeps after a checkpoint when [`FitObserver::wants_hold`] says so; returns
    /// when the fit may go on.
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
    /// Start anew.
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
        /// The earlier fit's.
        factors: Arc<Factors>,
        /// Ids in it.
        locked: Vec<usize>,
    },
    /// A first look: batches of so many rows, then one pass over all; no full sweep.
    Batches(usize),
}

/// How a fit goes on from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refinement {
    /// The earlier fit; `None`: the newest.
    pub fit: Option<String>,
    /// Features to add, where rows are explained worst.
    pub add: usize,
    /// Features to take away, by merging those most alike.
    pub merge: usize,
    /// Features of the earlier fit that stay as they are.
    pub lock: Vec<usize>,
}

impl Refinement {
    /// The earlier fit with its settings for the new number of features, and what to begin with.
    pub fn plan(&self, study: &Study) -> Result<(FitEntry, FitConfig, Begin)> {
        let (entry, factors) = study.load_fit(self.fit.as_deref())?;
        let k = factors.features.columns() + self.add;
        let features = k
            .checked_sub(self.merge)
            .filter(|&k| k > 0)
            .ok_or_else(|| {
                Error::usage(format!(
                    "fit '{}' has {k} features: {} of them cannot be merged away",
                    entry.name, self.merge
                ))
            })?;
        let there = factors.features.columns();
        if let Some(id) = self.lock.iter().find(|id| **id >= there) {
            return Err(Error::usage(format!(
                "feature {id} cannot be locked: fit '{}' has 0 to {}",
                entry.name,
                there - 1
            )));
        }
        let config = FitConfig {
            features,
            ..entry.config.clone()
        };
        Ok((
            entry,
            config,
            Begin::Factors {
                factors,
                locked: self.lock.clone(),
            },
        ))
    }
}

/// Where a fit of a study is kept and how it begins.
pub struct FitPlace {
    /// The hook it factorises.
    pub hook: HookPoint,
    /// Its name.
    pub name: String,
    /// Where its checkpoint lies.
    pub checkpoint: PathBuf,
    /// Where its error curve lies.
    pub losses: PathBuf,
    /// From a checkpoint?
    pub resume: Resume,
    /// Where not.
    pub begin: Begin,
    /// A GPU that may take the sweeps.
    pub gpu: Option<FitGpu>,
}

impl FitPlace {
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
            let (of, asked) = study.fit_request(name)?;
            if of != hook || !config.same_fit(&asked) {
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
}

/// Runs a fit to its end. `save` is called with the finished factors, how the fit ended, also when
/// the user stops it after a first sweep: then the best so far is saved, and [`FitEnd::stop`] is
/// `None`; before it, [`Error::Cancelled`] is returned.
pub fn run_fit(
    source: &dyn ActivationSource,
    config: &FitConfig,
    place: &FitPlace,
    observer: &mut dyn FitObserver,
    save: &dyn Fn(&Factors, Ended) -> Result<()>,
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
    let gpu = place
        .gpu
        .as_ref()
        .map(|gpu| gpu.for_fit(config, source.shape()))
        .transpose()?;
    let look = first_look::cut(source, config, place, observer)?;
    let earlier = if look.is_some() {
        None
    } else {
        earlier(source, config, place, observer, ctx)?
    };
    let resumed = earlier.is_some() || look.is_some();
    let sweeps_before = look
        .as_ref()
        .map(FirstLook::batches)
        .or(earlier.as_ref().map(Factoriser::sweeps));
    let mut losses = Losses::open(&place.losses, sweeps_before)?;
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
        (Some(earlier), ..) => earlier,
        (None, Some(look), _) => whole(look)?,
        (None, None, Begin::Batches(rows)) => {
            whole(FirstLook::start(source, config.clone(), *rows)?)?
        }
        (None, None, Begin::Anew) => Factoriser::start(source, config.clone(), ctx)?,
        (None, None, Begin::Factors { factors, locked }) => {
            Factoriser::warm(source, config.clone(), factors, locked, ctx)?
        }
    };
    let (energy, concentrated) = (factoriser.energy().clone(), factoriser.concentrations());
    concentrated
        .iter()
        .for_each(|found| observer.warn(&found.advice()));
    if let Some((device, words)) = gpu {
        observer.note(&words);
        device.map_or(Ok(()), |(device, free)| factoriser.compute_on(device, free))?;
    }
    if looked.is_none() {
        observer.started(factoriser.init_seconds(), resumed);
    }
    let (mut show, mut save_state) = (
        Rhythm::at_once(SNAPSHOT_EVERY),
        Rhythm::after(checkpoint_every()?),
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
        if observer.looks() && show.is_due() {
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
            save_state.during(|| keep_going(factoriser.checkpoint(checkpoint), observer));
        }
        if held && observer.hold(ctx).is_err() {
            break None;
        }
    };
    if stop.is_none() && sweeps == 0 && !resumed && looked.is_none() {
        return Err(Error::Cancelled);
    }
    if stop != Some(Stop::Converged) {
        keep_going(factoriser.checkpoint(checkpoint), observer);
    }
    // A user who stops a fit still wants its factors: finishing must not see the same request to
    // stop.
    let reached = factoriser.sweeps();
    let factors = factoriser.finish(&TaskCtx::silent())?;
    save(
        &factors,
        Ended {
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
    })
}

/// The fit at its checkpoint, where it goes on from one.
fn earlier<'a>(
    source: &'a dyn ActivationSource,
    config: &FitConfig,
    place: &FitPlace,
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
fn keep_going(saved: Result<()>, observer: &mut dyn FitObserver) {
    if let Err(e) = saved {
        observer.note(&format!("the fit goes on, but a crash would lose it: {e}"));
    }
}

fn checkpoint_every() -> Result<Duration> {
    let Ok(text) = std::env::var(CHECKPOINT) else {
        return Ok(CHECKPOINT_EVERY);
    };
    let seconds = text
        .parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| {
        Error::usage(format!(
            "{CHECKPOINT} is '{text}': give seconds between checkpoints, as 10 or 0.5"
        ))
    })
}

/// When something is done again: not before `every`, nor before five times what it took.
struct Rhythm {
    every: Duration,
    next: Instant,
}

impl Rhythm {
    fn at_once(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now(),
        }
    }

    fn after(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
        }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn during<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = f();
        self.next = Instant::now() + self.every.max(COST * started.elapsed());
        result
    }
}

/// The error curve on disk, a sweep a line.
struct Losses<'p> {
    /// `None` once it could not be written.
    curve: Option<Curve<'p>>,
}

impl<'p> Losses<'p> {
    /// A new curve, or that of a fit which goes on after `sweeps`: what a run did beyond its
    /// checkpoint comes again.
    fn open(path: &'p Path, sweeps: Option<usize>) -> Result<Self> {
        let kept = sweeps.map_or(Ok(Vec::new()), |last| read_curve(path, last))?;
        Ok(Self {
            curve: Some(Curve::begin(path, &kept)?),
        })
    }

    /// Adds a sweep. That it cannot be written is told once, and no reason to give the fit up.
    fn append(&mut self, sweep: Sweep, observer: &mut dyn FitObserver) {
        let Some(curve) = &mut self.curve else { return };
        if let Err(problem) = curve.append(&sweep) {
            observer.note(&format!(
                "the fit goes on, but its error curve is not kept: {problem}"
            ));
            self.curve = None;
        }
    }
}

/// The sweeps of a curve up to the one numbered `last`.
fn read_curve(path: &Path, last: usize) -> Result<Vec<Sweep>> {
    curve::read(path, |sweep: &Sweep| sweep.sweep <= last)
}

/// The error curve of a saved fit, as far as it was written whole.
pub fn saved_curve(study: &Study, name: &str) -> Result<Vec<Sweep>> {
    read_curve(&study.loss_path(name)?, usize::MAX)
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

/// The name of a fit that goes on from `entry`: the same while its settings are, as with new rows.
pub fn refined_name(study: &Study, entry: &FitEntry, config: &FitConfig) -> Result<String> {
    if config.same_fit(&entry.config) {
        Ok(entry.name.clone())
    } else {
        default_name(study, entry.hook, config)
    }
}

/// The name that a fit gets when the user gives none: `k100`, or `k100-2` … when that name holds
/// another configuration.
pub fn default_name(study: &Study, hook: HookPoint, config: &FitConfig) -> Result<String> {
    let fits = study.fits()?;
    let base = format!(
        "{}k{}",
        if study.manifest().hooks.len() > 1 {
            format!("l{}-", hook.layer)
        } else {
            String::new()
        },
        config.features
    );
    let taken = |name: &str| fits.iter().find(|f| f.name == name);
    for attempt in 1.. {
        let name = if attempt == 1 {
            base.clone()
        } else {
            format!("{base}-{attempt}")
        };
        match taken(&name) {
            Some(fit) if fit.hook == hook && fit.config.same_fit(config) => return Ok(name),
            Some(_) => {}
            None => return Ok(name),
        }
    }
    Ok(base)
}
