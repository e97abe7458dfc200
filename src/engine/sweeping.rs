//! A sweep over the number of features as a job of the explorer: the twin of `mlpeek sweep`, which measures by the same
//! function.

use serde::{Deserialize, Serialize};

use super::directions::Place;
use super::session::{Session, lock};
use super::{Event, Job};
use crate::error::{Error, Result};
use crate::eval::split::Holdout;
use crate::eval::sweep::{FEATURES, SEEDS, SweepConfig, SweepRow, grid, sweep};
use crate::factor::FitConfig;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

/// A sweep as the Fit pane asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepAsk {
    /// The fit whose settings it takes; `None`: the newest.
    pub fit: Option<String>,
    /// Numbers of features, in the order of fitting.
    pub features: Vec<usize>,
    /// Fits of each.
    pub seeds: usize,
    /// Whether each makes its own start.
    pub cold: bool,
}

impl Default for SweepAsk {
    fn default() -> Self {
        Self { fit: None, features: FEATURES.to_vec(), seeds: SEEDS, cold: false }
    }
}

/// A sweep that has begun: what its rows have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepBegun {
    /// The hook.
    pub hook: HookPoint,
    /// Its settings, with the first number of features and the first seed.
    pub config: FitConfig,
    /// What was asked for.
    pub ask: SweepAsk,
}

/// The hook and the settings to start from: those of the named fits, else of the newest at the wanted place, else the
/// defaults.
///
/// # Errors
/// [`Error::Usage`] where there is no such fit, or fits of several hooks are named.
pub fn bases(study: &Study, names: &[String], place: &Place) -> Result<(HookPoint, Vec<FitConfig>)> {
    let wanted = |h: &HookPoint| place.layer.is_none_or(|l| h.layer == l) && place.site.is_none_or(|s| h.site == s);
    let mut named = Vec::new();
    for name in names {
        named.push(study.fit_request(name)?);
    }
    if let Some((hook, _)) = named.first() {
        let hook = *hook;
        if let Some(at) = named.iter().position(|(h, _)| *h != hook) {
            return Err(Error::usage(format!(
                "fit '{}' is of {}, fit '{}' of {hook}: judge one hook at a time",
                names[at], named[at].0, names[0]
            )));
        }
        return if wanted(&hook) {
            Ok((hook, named.into_iter().map(|(_, config)| config).collect()))
        } else {
            Err(Error::usage(format!("fit '{}' is of {hook}: leave out --layer and --hook", names[0])))
        };
    }
    let (hook, fit) = place.resolve(study)?;
    Ok((hook, vec![fit.map(|f| f.config).unwrap_or_default()]))
}

/// Sweeps over the numbers of features with the settings of a fit; tells each row as it is there, and at the end how many.
pub(super) fn in_session(session: &Session, ask: &SweepAsk, ctx: &TaskCtx) -> Result<String> {
    let shown = session.shown().ok().map(|shown| shown.hook);
    let tokens = session.tokens()?;
    let (hook, base, source) = {
        let guard = lock(&session.study);
        let study = guard.as_ref().ok_or_else(|| Error::refused("no study is open yet"))?;
        let place = Place { fit: None, layer: shown.map(|h| h.layer), site: shown.map(|h| h.site) };
        let names: Vec<String> = ask.fit.iter().cloned().collect();
        let (hook, mut bases) = bases(study, &names, &place)?;
        (hook, bases.pop().unwrap_or_default().for_width(study.manifest().width(hook)?), study.activations(hook)?)
    };
    let fits = grid(&base, &ask.features, &[base.sparsity], &[base.l1], &[base.row_cap]);
    let config = fits.first().cloned().unwrap_or(base);
    session.emit(Event::SweepBegun(Box::new(SweepBegun { hook, config, ask: ask.clone() })));
    let config = SweepConfig { fits, seeds: ask.seeds, holdout: Holdout::default(), cold: ask.cold };
    let mut seen = |row: &SweepRow| {
        session.emit(Event::SweepRow(Box::new(row.clone())));
        ctx.check()
    };
    let (_, rows) = sweep(source.as_ref(), &tokens, &config, ctx, &mut seen)?;
    let fits = rows.len() * ask.seeds;
    Ok(format!("{} numbers of features, {fits} fits", rows.len()))
}

impl super::Engine {
    /// One at a time with trainings: either takes all cores.
    pub(super) fn sweep(&self, ask: SweepAsk) {
        let token = crate::task::CancelToken::default();
        self.replace_token(Job::Sweep, &token);
        let session = self.session.clone();
        self.train.submit(move || {
            // A newer one has replaced this before it began.
            if token.is_cancelled() {
                return;
            }
            let work = |ctx: &TaskCtx| Ok(((), in_session(&session, &ask, ctx)?));
            let _ = super::run_job(&session, Job::Sweep, &token, work);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Command, Engine};
    use super::*;
    use crate::model::HookSite;

    const SOON: Duration = Duration::from_secs(60);

    /// An engine with a study of 60 rows open, and what it tells.
    fn engine(dir: &std::path::Path) -> (Engine, crossbeam_channel::Receiver<Event>) {
        let hook = HookPoint { layer: 0, site: HookSite::MlpPost };
        let data: Vec<f32> =
            (0..60 * 8).map(|i| ((i * 37 % 23) as f32 - 4.0).max(0.0) * 0.1 + (i % 8) as f32).collect();
        let study = Study::import(dir, "x.npy", hook, 60, 8, &data).unwrap();
        let (outbox, events) = crossbeam_channel::unbounded();
        let engine = super::super::engine(outbox).unwrap();
        engine.session.set_tokens(Some(study.tokens().unwrap()));
        *lock(&engine.session.study) = Some(study);
        (engine, events)
    }

    #[test]
    fn a_sweep_tells_its_rows_as_the_command_measures_them() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, events) = engine(dir.path());
        let ask = SweepAsk { features: vec![2, 4], seeds: 2, ..SweepAsk::default() };
        engine.handle(Command::SweepK(ask.clone()));
        let (mut rows, mut at, mut begun) = (Vec::new(), Vec::new(), None);
        loop {
            match events.recv_timeout(SOON).unwrap() {
                Event::SweepRow(row) => rows.push(*row),
                Event::SweepBegun(what) => begun = Some(what),
                Event::Progress { job: Job::Sweep, progress, .. } => at.push((progress.done, progress.total.unwrap())),
                Event::Done(Job::Sweep, words) => {
                    assert_eq!(words, "2 numbers of features, 4 fits");
                    break;
                }
                Event::Started(Job::Sweep) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(at.is_sorted() && at.last() == Some(&(12, 12)), "one stage from nothing to all: {at:?}");
        let begun = begun.expect("what the rows are of");
        assert_eq!((begun.config.features, begun.config.share(8), &begun.ask), (2, 0.05, &ask));
        let (source, tokens) = {
            let guard = lock(&engine.session.study);
            let study = guard.as_ref().unwrap();
            (study.activations(begun.hook).unwrap(), study.tokens().unwrap())
        };
        let fits = grid(&FitConfig::default(), &[2, 4], &[None], &[FitConfig::default().l1], &[None]);
        let config = SweepConfig { fits, seeds: 2, holdout: Holdout::default(), cold: false };
        let (_, direct) = sweep(source.as_ref(), &tokens, &config, &TaskCtx::silent(), &mut |_| Ok(())).unwrap();
        let bare = |rows: Vec<SweepRow>| rows.into_iter().map(|r| SweepRow { seconds: 0.0, ..r }).collect::<Vec<_>>();
        assert!(rows[1].warm && rows[1].stability.is_some() && rows[1].held_out_error.is_some());
        assert_eq!(bare(rows), bare(direct));
        engine.shutdown();
    }

    #[test]
    fn a_sweep_is_stopped_with_the_rows_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, events) = engine(dir.path());
        engine.handle(Command::SweepK(SweepAsk { features: (1..=7).collect(), seeds: 20, ..SweepAsk::default() }));
        let mut rows = 0;
        loop {
            match events.recv_timeout(SOON).unwrap() {
                Event::SweepRow(_) => {
                    rows += 1;
                    engine.handle(Command::Cancel(Job::Sweep));
                }
                Event::Cancelled(Job::Sweep) => break,
                Event::Done(..) | Event::Failed(..) => panic!("it was to be stopped"),
                _ => {}
            }
        }
        assert!((1..7).contains(&rows), "{rows}");
        engine.handle(Command::SweepK(SweepAsk { fit: Some("none".to_owned()), ..SweepAsk::default() }));
        let failed = events.iter().find(|e| matches!(e, Event::Failed(..)));
        assert!(matches!(failed, Some(Event::Failed(Job::Sweep, why)) if why.contains("none")));
        engine.shutdown();
    }
}
