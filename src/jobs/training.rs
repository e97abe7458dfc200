//! The one loop that trains an autoencoder, for the explorer and for the command: steps, the curve
//! on disk, checkpoints, stopping and going on.
//!
//! Invariant: the study is asked for nothing while steps are taken, so that nobody waits for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::curve::{self, Curve};
use super::fitting::Resume;
use super::saes::check_memory;
use crate::activations::ActivationSource;
use crate::directions::reconstruction::reconstruction_metrics;
use crate::directions::sae::Sae;
use crate::directions::sae::train::{TrainConfig, Trainer};
use crate::error::{Error, Result};
use crate::model::HookPoint;
use crate::study::{SaeEntry, Study};
use crate::task::TaskCtx;
use crate::{disk, memory};

/// At most this much work is lost to a kill.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// A point of the curve at every end of a pass, and where passes are long this often.
const POINT_EVERY: Duration = Duration::from_secs(2);

/// A point of a training's curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainPoint {
    /// Training steps so far.
    pub step: u64,
    /// Training steps of the whole training.
    pub total: u64,
    /// Passes over the rows so far.
    pub epoch: usize,
    /// Σ‖x − x̂‖² / Σ‖x − x̄‖² of the steps since the point before.
    pub fvu: f64,
    /// Latents that are silent now.
    pub dead: usize,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The same of the whole pass that ends here, if one does.
    pub pass: Option<f64>,
}

/// What a shell sees of a running training.
pub trait TrainObserver {
    /// It begins, or goes on from a checkpoint after these points.
    fn started(&mut self, _entry: &SaeEntry, _before: &[TrainPoint]) {}
    /// How far it has come.
    ///
    /// # Errors
    /// When the observer cannot pass the point on (its output is closed): the training ends with it.
    fn point(&mut self, point: TrainPoint) -> Result<()>;
}

/// Where a training of a study is kept and how it begins.
pub struct TrainRun {
    /// What is trained, before it has figures.
    pub entry: SaeEntry,
    config: TrainConfig,
    checkpoint: PathBuf,
    losses: PathBuf,
    resume: Resume,
}

impl TrainRun {
    /// A training of the autoencoder `name` of `study`; nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that no autoencoder can have.
    pub fn new(
        study: &Study,
        name: &str,
        hook: HookPoint,
        config: &TrainConfig,
        resume: Resume,
    ) -> Result<Self> {
        let entry = SaeEntry {
            name: name.to_owned(),
            hook,
            source: "trained here".to_owned(),
            format: "mlpeek".to_owned(),
            architecture: "topk".to_owned(),
            latents: config.latents,
            figures: None,
            trained: Some(config.clone()),
            resumable: false,
        };
        let (checkpoint, losses) = (study.sae_checkpoint(name)?, study.sae_losses(name)?);
        Ok(Self {
            entry,
            config: config.clone(),
            checkpoint,
            losses,
            resume,
        })
    }

    fn trainer<'a>(
        &self,
        source: &'a dyn ActivationSource,
        ctx: &TaskCtx,
    ) -> Result<(Trainer<'a>, bool)> {
        let has_checkpoint = self.checkpoint.exists();
        match (self.resume, has_checkpoint) {
            (Resume::Must | Resume::IfThere, true) => Ok((
                Trainer::resume(source, self.config.clone(), &self.checkpoint, ctx)?,
                true,
            )),
            (Resume::Must, false) => Err(Error::usage(format!(
                "SAE '{}' has no checkpoint to resume ({} is absent): train it without --resume",
                self.entry.name,
                self.checkpoint.display()
            ))),
            _ => Ok((Trainer::start(source, self.config.clone(), ctx)?, false)),
        }
    }
}

/// Trains to the end. `keep` notes in the study that it begins, and at the end saves what was
/// learnt; a stop before leaves a checkpoint to go on from. Gives the entry with its figures, and
/// the seconds of all runs.
///
/// # Errors
/// [`Error::Refused`] where memory does not hold it, [`Error::Cancelled`], a checkpoint that cannot
/// be written; what `keep` returns.
pub fn run(
    source: &dyn ActivationSource,
    place: &TrainRun,
    keep: &dyn Fn(&SaeEntry, Option<&Sae>) -> Result<()>,
    observer: &mut dyn TrainObserver,
    ctx: &TaskCtx,
) -> Result<(SaeEntry, f64)> {
    place.config.check(source.shape().1)?;
    check_memory(&place.config, source.shape(), memory::available()?)?;
    let (mut trainer, resumed) = place.trainer(source, ctx)?;
    keep(&place.entry, None)?;
    if !resumed {
        disk::remove_if_there(&place.checkpoint)?;
    }
    let before = if resumed {
        curve_until(&place.losses, trainer.steps())?
    } else {
        Vec::new()
    };
    let mut losses = Curve::begin(&place.losses, &before)?;
    observer.started(&place.entry, &before);
    let began = Instant::now();
    let mut point = |point: TrainPoint| losses.append(&point).and_then(|()| observer.point(point));
    steps(&mut trainer, &place.checkpoint, began, &mut point, ctx)?;
    let seconds = trainer.earlier_seconds() + began.elapsed().as_secs_f64();
    let sae = trainer.sae();
    // What is left to do needs the weights alone, and copies of them.
    drop(trainer);
    let entry = SaeEntry {
        figures: Some(reconstruction_metrics(source, &sae, ctx)?),
        ..place.entry.clone()
    };
    keep(&entry, Some(&sae))?;
    // There is nothing left to go on with.
    disk::remove_if_there(&place.checkpoint)?;
    Ok((entry, seconds))
}

fn steps(
    trainer: &mut Trainer<'_>,
    checkpoint: &Path,
    began: Instant,
    seen: &mut dyn FnMut(TrainPoint) -> Result<()>,
    ctx: &TaskCtx,
) -> Result<()> {
    let (mut saved, mut told) = (Instant::now(), Instant::now());
    while !trainer.is_done() {
        let spent = || began.elapsed().as_secs_f64();
        let ended = match trainer.step(ctx) {
            Ok(ended) => ended,
            Err(Error::Cancelled) => {
                trainer.checkpoint(checkpoint, spent())?;
                return Err(Error::Cancelled);
            }
            Err(e) => return Err(e),
        };
        if ended.is_some() || told.elapsed() >= POINT_EVERY {
            told = Instant::now();
            seen(TrainPoint {
                step: trainer.steps(),
                total: trainer.total_steps(),
                epoch: trainer.passes(),
                fvu: trainer.recent(),
                dead: trainer.dead().len(),
                seconds: trainer.earlier_seconds() + spent(),
                pass: ended.map(|e| e.fvu),
            })?;
        }
        if saved.elapsed() >= CHECKPOINT_EVERY {
            trainer.checkpoint(checkpoint, spent())?;
            saved = Instant::now();
        }
    }
    // Measuring what was learnt takes a while too: a kill then loses none of the training.
    trainer.checkpoint(checkpoint, began.elapsed().as_secs_f64())
}

/// The points of a curve on disk up to a step: what came after the checkpoint is trained anew.
fn curve_until(path: &Path, step: u64) -> Result<Vec<TrainPoint>> {
    curve::read(path, |point: &TrainPoint| point.step <= step)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use std::fs;

    use super::*;
    use crate::activations::InMemory;
    use crate::model::HookSite;
    use crate::task::CancelToken;

    fn place(dir: &Path, resume: Resume) -> TrainRun {
        let config = TrainConfig {
            latents: 6,
            top_k: 2,
            epochs: 5,
            batch: 8,
            ..TrainConfig::default()
        };
        TrainRun {
            entry: SaeEntry {
                name: "t".to_owned(),
                hook: HookPoint {
                    layer: 0,
                    site: HookSite::MlpPost,
                },
                source: String::new(),
                format: String::new(),
                architecture: String::new(),
                latents: 6,
                figures: None,
                trained: None,
                resumable: false,
            },
            config,
            checkpoint: dir.join("checkpoint"),
            losses: dir.join("loss.jsonl"),
            resume,
        }
    }

    struct Seen<'a> {
        points: Vec<TrainPoint>,
        before: usize,
        stop: Option<(&'a CancelToken, usize)>,
    }

    impl TrainObserver for Seen<'_> {
        fn started(&mut self, _: &SaeEntry, before: &[TrainPoint]) {
            self.before = before.len();
        }

        fn point(&mut self, point: TrainPoint) -> Result<()> {
            self.points.push(point);
            if let Some((token, _)) = self.stop.filter(|(_, after)| point.epoch == *after) {
                token.cancel();
            }
            Ok(())
        }
    }

    #[test]
    fn a_training_that_was_stopped_goes_on_with_its_curve_and_ends_the_same() {
        let data: Vec<f32> = (0..40 * 4)
            .map(|i| ((i * 37 % 23) as f32 - 9.0) * 0.1 + (i % 4) as f32)
            .collect();
        let source = InMemory::new(40, 4, data);
        let kept: RefCell<Vec<Sae>> = RefCell::default();
        let begun = Cell::new(0);
        let keep = |_: &SaeEntry, sae: Option<&Sae>| {
            sae.map_or_else(
                || begun.set(begun.get() + 1),
                |sae| kept.borrow_mut().push(sae.clone()),
            );
            Ok(())
        };
        let dir = tempfile::tempdir().unwrap();
        let mut whole = Seen {
            points: Vec::new(),
            before: 0,
            stop: None,
        };
        run(
            &source,
            &place(dir.path(), Resume::Never),
            &keep,
            &mut whole,
            &TaskCtx::silent(),
        )
        .unwrap();
        assert!(
            !place(dir.path(), Resume::Never).checkpoint.exists(),
            "nothing is left to go on with"
        );

        let dir = tempfile::tempdir().unwrap();
        let token = CancelToken::default();
        let mut first = Seen {
            points: Vec::new(),
            before: 0,
            stop: Some((&token, 2)),
        };
        let ctx = TaskCtx::new(token.clone(), |_| {});
        let stopped = run(
            &source,
            &place(dir.path(), Resume::IfThere),
            &keep,
            &mut first,
            &ctx,
        );
        assert!(matches!(stopped, Err(Error::Cancelled)));
        // A line that a kill cut short, and one of a step that is trained anew.
        let path = place(dir.path(), Resume::IfThere).losses;
        let after = TrainPoint {
            step: 99,
            ..first.points[0]
        };
        let text = fs::read_to_string(&path).unwrap()
            + &serde_json::to_string(&after).unwrap()
            + "\n{\"st";
        fs::write(&path, text).unwrap();
        let mut second = Seen {
            points: Vec::new(),
            before: 0,
            stop: None,
        };
        run(
            &source,
            &place(dir.path(), Resume::IfThere),
            &keep,
            &mut second,
            &TaskCtx::silent(),
        )
        .unwrap();
        assert_eq!((second.before, second.points.len(), begun.get()), (2, 3, 3));
        let fvus =
            |points: &[TrainPoint]| points.iter().map(|p| (p.step, p.fvu)).collect::<Vec<_>>();
        assert_eq!(
            [fvus(&first.points), fvus(&second.points)].concat(),
            fvus(&whole.points)
        );
        assert_eq!(
            fvus(&curve_until(&path, u64::MAX).unwrap()),
            fvus(&whole.points)
        );
        assert_eq!(kept.borrow()[0], kept.borrow()[1]);
    }
}
