//! Runs jobs for the explorer: each function takes what it needs from the session, calls the job,
//! and sends its events.
//!
//! Knows no thread: [`super::handling::Handling`] says where these run. Invariant: the study is locked only
//! while it is read or written, never while a job computes.

use super::session::{Session, lock};
use super::{Event, Job, Level, SweepBegun, SweepRequest};
use crate::directions::sae::Sae;
use crate::directions::sae::train::TrainConfig;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::split::Holdout;
use crate::eval::steering::offline::OFFLINE;
use crate::eval::steering::report::report;
use crate::eval::steering::{JudgedRecord, RunEvent};
use crate::eval::sweep::{SweepConfig, SweepRow, grid};
use crate::jobs::causal::{self, CausalRequest, Judging};
use crate::jobs::directions::HookSelection;
use crate::jobs::fitting::Resume;
use crate::jobs::saes;
use crate::jobs::sweeping::bases;
use crate::jobs::training::{self, TrainObserver, TrainPoint, TrainRun};
use crate::study::SaeEntry;
use crate::task::TaskCtx;

/// Judges the effects of directions; the study is locked only while directions are chosen.
pub(super) fn evaluate(
    session: &Session,
    request: &CausalRequest,
    ctx: &TaskCtx,
) -> Result<String> {
    let model = session.model()?;
    let prepared = match lock(&session.study).as_ref() {
        Some(study) => causal::prepare(study, request, &model, ctx)?,
        None => return Err(session.no_study()),
    };
    session.emit(Event::EvaluationBegun(prepared.name().to_owned()));
    let (methods, mut judged) = (prepared.reported().to_vec(), prepared.judged(OFFLINE)?);
    let report_so_far = |judged: &[JudgedRecord]| {
        session.emit(Event::Judged(report(judged, &methods, request.seed)))
    };
    report_so_far(&judged);
    let mut observe = |happened: RunEvent<'_>| {
        if let RunEvent::Texts(_, _, new) = happened {
            judged.extend_from_slice(new);
            report_so_far(&judged);
        }
        Ok(())
    };
    let found = prepared.run(
        &model,
        Judging::Words,
        &mut |note| session.log(Level::Info, note),
        &mut observe,
        ctx,
    )?;
    if found.stopped {
        return Err(Error::Cancelled);
    }
    let words = format!(
        "{} labels, {} methods",
        found.labels.len(),
        found.methods.len()
    );
    session.emit(Event::Evaluation(Box::new(found)));
    Ok(words)
}

/// Trains an autoencoder on the hook on show, or resumes a training; returns a summary.
pub(super) fn train(session: &Session, config: &TrainConfig, ctx: &TaskCtx) -> Result<String> {
    if session.is_lent() {
        return Err(session.no_study());
    }
    let _training = lock(&session.training);
    let shown = session.shown().ok().map(|shown| shown.hook);
    let (run, dir, source) = {
        let guard = lock(&session.study);
        let study = guard.as_ref().ok_or_else(|| session.no_study())?;
        let hook = shown.or(study.manifest().hooks.first().copied());
        let hook = hook.ok_or_else(|| Error::refused("the study has no hook: collect it again"))?;
        let name = saes::default_name(study, hook, config)?;
        if study
            .saes()?
            .iter()
            .any(|s| s.name == name && s.figures.is_some() && !s.resumable)
        {
            return Ok(format!(
                "'{name}' was trained before: it is among the sets of directions"
            ));
        }
        let run = TrainRun::new(study, &name, hook, config, Resume::IfThere)?;
        (run, study.dir().to_path_buf(), study.activations(hook)?)
    };
    let save = |entry: &SaeEntry, sae: Option<&Sae>| match lock(&session.study)
        .as_ref()
        .filter(|s| s.dir() == dir)
    {
        Some(study) => sae.map_or_else(|| study.start_sae(entry), |sae| study.save_sae(entry, sae)),
        // Another study was opened; the training can be resumed from its checkpoint.
        None => Err(Error::Cancelled),
    };
    let (entry, seconds) = training::run(
        source.as_ref(),
        &run,
        &save,
        &mut TrainingEvents(session),
        ctx,
    )?;
    let fvu = entry
        .figures
        .and_then(|f| f.fvu)
        .map_or_else(String::new, |fvu| format!(", FVU {fvu:.4}"));
    Ok(format!(
        "'{}'{fvu} in {}",
        entry.name,
        crate::amounts::duration(seconds)
    ))
}

/// Reports a running training to the explorer.
struct TrainingEvents<'a>(&'a Session);

impl TrainObserver for TrainingEvents<'_> {
    fn started(&mut self, entry: &SaeEntry, earlier: &[TrainPoint]) {
        self.0.emit(Event::Training(Box::new(entry.clone())));
        earlier
            .iter()
            .for_each(|point| self.0.emit(Event::TrainPoint(*point)));
    }

    fn point(&mut self, point: TrainPoint) -> Result<()> {
        self.0.emit(Event::TrainPoint(point));
        Ok(())
    }
}

/// Fits several numbers of features with the settings of a fit; sends each row when it is measured,
/// and returns a summary.
pub(super) fn sweep(session: &Session, request: &SweepRequest, ctx: &TaskCtx) -> Result<String> {
    let shown = session.shown().ok().map(|shown| shown.hook);
    let tokens = session.tokens()?;
    let (hook, base, source) = {
        let guard = lock(&session.study);
        let study = guard.as_ref().ok_or_else(|| session.no_study())?;
        let selection = HookSelection {
            fit: None,
            layer: shown.map(|h| h.layer),
            site: shown.map(|h| h.site),
        };
        let names: Vec<String> = request.fit.iter().cloned().collect();
        let (hook, mut bases) = bases(study, &names, &selection)?;
        (
            hook,
            bases
                .pop()
                .unwrap_or_default()
                .with_sparsity_at(study.manifest().width(hook)?),
            study.activations(hook)?,
        )
    };
    let fits = grid(
        &base,
        &request.features,
        &[base.sparsity],
        &[base.l1],
        &[base.row_cap],
    );
    let config = fits.first().cloned().unwrap_or(base);
    session.emit(Event::SweepBegun(Box::new(SweepBegun {
        hook,
        config,
        request: request.clone(),
    })));
    let config = SweepConfig {
        fits,
        seeds: request.seeds,
        holdout: Holdout::default(),
        cold: request.cold,
    };
    let mut observe = |row: &SweepRow| {
        session.emit(Event::SweepRow(Box::new(row.clone())));
        ctx.check()
    };
    let (_, rows) = eval::sweep::sweep(source.as_ref(), &tokens, &config, ctx, &mut observe)?;
    let fits = rows.len() * request.seeds;
    Ok(format!("{} numbers of features, {fits} fits", rows.len()))
}

impl super::handling::Handling<'_> {
    /// Sweeps and trainings run one at a time, since either uses all cores.
    pub(super) fn sweep(&self, request: SweepRequest) {
        let token = crate::task::CancelToken::default();
        self.replace_token(Job::Sweep, &token);
        let session = self.session.clone();
        self.train.submit(move || {
            // A newer request has replaced this one before it started.
            if token.is_cancelled() {
                return;
            }
            let work = |ctx: &TaskCtx| Ok(((), sweep(&session, &request, ctx)?));
            let _ = super::run_job(&session, Job::Sweep, &token, work);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Command, Engine, Reply, RequestCounter};
    use super::*;
    use crate::factor::FitConfig;
    use crate::model::{HookPoint, HookSite};
    use crate::study::Study;

    const SOON: Duration = Duration::from_secs(60);

    /// An engine with a study of 60 rows open, and what it tells.
    fn engine(dir: &std::path::Path) -> (Engine, crossbeam_channel::Receiver<Reply>) {
        let hook = HookPoint {
            layer: 0,
            site: HookSite::MlpPost,
        };
        let data: Vec<f32> = (0..60 * 8)
            .map(|i| ((i * 37 % 23) as f32 - 4.0).max(0.0) * 0.1 + (i % 8) as f32)
            .collect();
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
        let ids = RequestCounter::default();
        let ask = SweepRequest {
            features: vec![2, 4],
            seeds: 2,
            ..SweepRequest::default()
        };
        engine.handle(ids.request(Command::SweepK(ask.clone())));
        let (mut rows, mut at, mut begun) = (Vec::new(), Vec::new(), None);
        loop {
            match events.recv_timeout(SOON).unwrap().event {
                Event::SweepRow(row) => rows.push(*row),
                Event::SweepBegun(what) => begun = Some(what),
                Event::Progress {
                    job: Job::Sweep,
                    progress,
                    ..
                } => at.push((progress.done, progress.total.unwrap())),
                Event::Done(Job::Sweep, words) => {
                    assert_eq!(words, "2 numbers of features, 4 fits");
                    break;
                }
                Event::Started(Job::Sweep) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(
            at.is_sorted() && at.last() == Some(&(12, 12)),
            "one stage from nothing to all: {at:?}"
        );
        let begun = begun.expect("what the rows are of");
        assert_eq!(
            (
                begun.config.features,
                begun.config.sparsity_at(8),
                &begun.request
            ),
            (2, 0.05, &ask)
        );
        let (source, tokens) = {
            let guard = lock(&engine.session.study);
            let study = guard.as_ref().unwrap();
            (
                study.activations(begun.hook).unwrap(),
                study.tokens().unwrap(),
            )
        };
        let fits = grid(
            &FitConfig::default(),
            &[2, 4],
            &[None],
            &[FitConfig::default().l1],
            &[None],
        );
        let config = SweepConfig {
            fits,
            seeds: 2,
            holdout: Holdout::default(),
            cold: false,
        };
        let (_, direct) = eval::sweep::sweep(
            source.as_ref(),
            &tokens,
            &config,
            &TaskCtx::silent(),
            &mut |_| Ok(()),
        )
        .unwrap();
        let bare = |rows: Vec<SweepRow>| {
            rows.into_iter()
                .map(|r| SweepRow { seconds: 0.0, ..r })
                .collect::<Vec<_>>()
        };
        assert!(rows[1].warm && rows[1].stability.is_some() && rows[1].held_out_error.is_some());
        assert_eq!(bare(rows), bare(direct));
        engine.shutdown();
    }

    #[test]
    fn a_sweep_is_stopped_with_the_rows_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (engine, events) = engine(dir.path());
        let ids = RequestCounter::default();
        engine.handle(ids.request(Command::SweepK(SweepRequest {
            features: (1..=7).collect(),
            seeds: 20,
            ..SweepRequest::default()
        })));
        let mut rows = 0;
        loop {
            match events.recv_timeout(SOON).unwrap().event {
                Event::SweepRow(_) => {
                    rows += 1;
                    engine.handle(ids.request(Command::Cancel(Job::Sweep)));
                }
                Event::Cancelled(Job::Sweep) => break,
                Event::Done(..) | Event::Failed(..) => panic!("it was to be stopped"),
                _ => {}
            }
        }
        assert!((1..7).contains(&rows), "{rows}");
        engine.handle(ids.request(Command::SweepK(SweepRequest {
            fit: Some("none".to_owned()),
            ..SweepRequest::default()
        })));
        let failed = events
            .iter()
            .map(|r| r.event)
            .find(|e| matches!(e, Event::Failed(..)));
        assert!(matches!(failed, Some(Event::Failed(Job::Sweep, why)) if why.contains("none")));
        engine.shutdown();
    }
}
