//! The one loop that runs a fit, for the explorer and for the command: sweeps, snapshots, checkpoints, holding, stopping
//! early with the best kept.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::{Factoriser, Factors, FitConfig, Stop, Sweep};
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::{Progress, TaskCtx};

/// A snapshot for the screen at most this often.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);
/// At most this much work is lost to a kill.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// What a shell sees of a running fit.
pub trait FitObserver {
    /// The start was made in `seconds`, or a checkpoint was read (`resumed`).
    fn started(&mut self, init_seconds: f64, resumed: bool);
    /// After every sweep, never thinned.
    fn sweep(&mut self, sweep: Sweep) -> Result<()>;
    /// At most every 250 ms, and once more at the end.
    fn snapshot(&mut self, factors: &Arc<Factors>, finished: bool);
    /// Called between sweeps after a checkpoint when [`FitObserver::wants_hold`] says so; returns when the fit may go
    /// on.
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
    /// Go on; an error when there is no checkpoint.
    Must,
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
}

impl FitPlace {
    /// The place of the fit `name` in `study`. A checkpoint of another request under that name is dropped.
    pub fn new(study: &Study, name: &str, hook: HookPoint, config: &FitConfig, resume: Resume) -> Result<Self> {
        study.start_fit(name, hook, config)?;
        Ok(Self {
            hook,
            name: name.to_owned(),
            checkpoint: study.checkpoint_path(name)?,
            losses: study.loss_path(name)?,
            resume,
        })
    }
}

/// How a fit ended.
pub struct FitEnd {
    /// The best factors, with their error recomputed from the residual.
    pub factors: Arc<Factors>,
    /// Why; `None` when the user stopped it.
    pub stop: Option<Stop>,
}

/// Runs a fit to its end. `save` is called with the finished factors, also when the user stops it after a first sweep:
/// then the best so far is saved and [`Error::Cancelled`] is returned.
pub fn run_fit(
    source: &dyn ActivationSource,
    config: &FitConfig,
    place: &FitPlace,
    observer: &mut dyn FitObserver,
    save: &dyn Fn(&Factors) -> Result<()>,
    ctx: &TaskCtx,
) -> Result<FitEnd> {
    super::estimate::check_fit(source.shape().0, config.features)?;
    let checkpoint = &place.checkpoint;
    let resumed = match place.resume {
        Resume::Never => false,
        Resume::IfThere => checkpoint.exists(),
        Resume::Must if checkpoint.exists() => true,
        Resume::Must => {
            return Err(Error::usage(format!(
                "fit '{}' has no checkpoint to resume ({} is absent): run it without --resume",
                place.name,
                checkpoint.display()
            )));
        }
    };
    let mut factoriser = if resumed {
        Factoriser::resume(source, config.clone(), checkpoint, ctx)?
    } else {
        Factoriser::start(source, config.clone(), ctx)?
    };
    observer.started(factoriser.init_seconds(), resumed);
    let mut losses = open_losses(&place.losses, resumed)?;
    let mut last_snapshot = None::<Instant>;
    let mut last_checkpoint = Instant::now();
    let mut sweeps = 0;
    let stop = loop {
        let sweep = match factoriser.step(ctx) {
            Ok(sweep) => sweep,
            Err(Error::Cancelled) => break None,
            Err(e) => return Err(e),
        };
        sweeps += 1;
        writeln!(losses, "{}", serde_json::to_string(&sweep).unwrap_or_default())
            .map_err(Error::io("append to", &place.losses))?;
        observer.sweep(sweep)?;
        // Patience usually ends a fit before its most sweeps, so a total would promise an end that never comes.
        ctx.checkpoint(Progress::new("fitting", sweep.sweep as u64, config.max_sweeps.map(|m| m as u64), "sweeps"))
            .ok();
        if last_snapshot.is_none_or(|t| t.elapsed() >= SNAPSHOT_EVERY) {
            observer.snapshot(&factoriser.snapshot(), false);
            last_snapshot = Some(Instant::now());
        }
        if let Some(stop) = sweep.stop {
            break Some(stop);
        }
        if observer.wants_hold() {
            factoriser.checkpoint(checkpoint)?;
            last_checkpoint = Instant::now();
            if observer.hold(ctx).is_err() {
                break None;
            }
        } else if last_checkpoint.elapsed() >= CHECKPOINT_EVERY {
            factoriser.checkpoint(checkpoint)?;
            last_checkpoint = Instant::now();
        }
    };
    if stop.is_none() && sweeps == 0 && !resumed {
        return Err(Error::Cancelled);
    }
    factoriser.checkpoint(checkpoint)?;
    // A user who stops a fit still wants its factors: finishing must not see the same request to stop.
    let factors = factoriser.finish(&TaskCtx::silent())?;
    save(&factors)?;
    if stop == Some(Stop::Converged) {
        // There is nothing left to go on with: a converged fit is shown, not resumed.
        std::fs::remove_file(checkpoint).map_err(Error::io("remove", checkpoint))?;
    }
    observer.snapshot(&factors, true);
    Ok(FitEnd { factors, stop })
}

fn open_losses(path: &std::path::Path, append: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    if append {
        options.append(true)
    } else {
        options.truncate(true)
    };
    options.open(path).map_err(Error::io("open", path))
}

/// The error curve of a saved fit, as far as it was written whole.
pub fn saved_curve(study: &Study, name: &str) -> Result<Vec<Sweep>> {
    let path = study.loss_path(name)?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("read", &path)(e)),
    }
}

/// The name that a fit gets when the user gives none: `k100`, or `k100-2` … when that name holds another configuration.
pub fn default_name(study: &Study, hook: HookPoint, config: &FitConfig) -> Result<String> {
    let fits = study.fits()?;
    let base = format!(
        "{}k{}",
        if study.manifest().hooks.len() > 1 { format!("l{}-", hook.layer) } else { String::new() },
        config.features
    );
    let taken = |name: &str| fits.iter().find(|f| f.name == name);
    for attempt in 1.. {
        let name = if attempt == 1 { base.clone() } else { format!("{base}-{attempt}") };
        match taken(&name) {
            Some(fit) if fit.hook == hook && fit.config.same_fit(config) => return Ok(name),
            Some(_) => {}
            None => return Ok(name),
        }
    }
    Ok(base)
}
