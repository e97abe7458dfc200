mod open;
mod reading;
mod session;

use std::sync::Arc;

use super::*;
use crate::activations::InMemory;
use crate::error::Error;
use crate::factor::recursive::Growth;
use crate::factor::{Factors, FitConfig, MiniBatchFit, Stop, Sweep};
use crate::jobs::fitting::{Begin, FitObserver, FitRun, Resume, run_fit};
use crate::model::{HookPoint, HookSite};
use crate::study::Study;

#[test]
fn questions_do_not_wait_for_levels() {
    let (outbox, events) = unbounded();
    let engine = engine(outbox).unwrap();
    let ids = RequestCounter::default();
    let (go_on, held) = unbounded::<()>();
    engine.levels.submit(move || {
        let _ = held.recv();
    });
    let soon = Duration::from_secs(20);
    let levels = ids.request(Command::Levels(Growth::Growing, false, Vec::new()));
    let of_levels = Some(levels.id);
    engine.handle(levels);
    for question in [
        Command::Find(Probe::Like(0)),
        Command::Labels,
        Command::ShowFit("k8".to_owned()),
        Command::ListStudies,
    ] {
        let question = ids.request(question);
        let asked = Some(question.id);
        engine.handle(question);
        // Nothing is open, which is an answer.
        let answer = events.recv_timeout(soon).unwrap();
        assert!(
            matches!(answer.event, Event::Refused(_) | Event::Studies(_)),
            "{answer:?}"
        );
        assert_eq!(answer.to, asked);
    }
    go_on.send(()).unwrap();
    let (started, failed) = (events.recv().unwrap(), events.recv().unwrap());
    assert_eq!((started.to, failed.to), (of_levels, of_levels));
    assert_eq!(started.event, Event::Started(Job::Levels));
    assert!(matches!(failed.event, Event::Failed(Job::Levels, _)));
    engine.shutdown();
}

#[test]
fn a_layer_of_a_study_is_opened_and_one_that_it_lacks_is_refused_with_those_it_has() {
    let soon = Duration::from_secs(60);
    let dir = tempfile::tempdir().unwrap();
    let hook = HookPoint {
        layer: 3,
        site: HookSite::MlpPost,
    };
    let data: Vec<f32> = (0..40 * 8).map(|i| (i * 37 % 23) as f32).collect();
    drop(Study::import(dir.path(), "x.npy", hook, 40, 8, &data).unwrap());
    let (outbox, events) = unbounded();
    let engine = engine(outbox).unwrap();
    let ids = RequestCounter::default();
    let open = |layer| {
        let fit = FitConfig {
            features: 3,
            ..FitConfig::default()
        };
        engine.handle(ids.request(Command::Open(OpenRequest {
            study: Some(dir.path().to_owned()),
            layer: Some(layer),
            fit,
            ..OpenRequest::default()
        })));
    };
    open(4);
    let refused = loop {
        if let Event::Failed(Job::Load, why) = events.recv_timeout(soon).unwrap().event {
            break why;
        }
    };
    assert!(
        refused.contains("has blocks.3.mlp.hook_post, not blocks.4.mlp.hook_post"),
        "{refused}"
    );
    open(3);
    let mut shown = None;
    loop {
        match events.recv_timeout(soon).unwrap().event {
            Event::Study(study) => shown = Some((study.hook, study.fits.len())),
            Event::Done(Job::Fit, _) => {}
            Event::Failed(job, why) => panic!("{job:?}: {why}"),
            _ => {}
        }
        if shown == Some((hook, 1)) {
            break;
        }
    }
    engine.shutdown();
}

/// Asks to stop after so many batches.
struct Impatient {
    cancel: CancelToken,
    batches: usize,
    seen: Vec<Sweep>,
    notes: Vec<String>,
}

impl FitObserver for Impatient {
    fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
    fn started(&mut self, _: f64, _: bool) {}
    fn sweep(&mut self, sweep: Sweep) -> crate::error::Result<()> {
        self.seen.push(sweep);
        if self.seen.len() == self.batches {
            self.cancel.cancel();
        }
        Ok(())
    }
    fn snapshot(&mut self, _: &Arc<Factors>, _: bool) {}
}

#[test]
fn a_first_look_that_is_stopped_gives_every_row_its_coefficients() {
    let dir = tempfile::tempdir().unwrap();
    let (n, d) = (700, 24);
    let source = InMemory::new(n, d, (0..n * d).map(|i| (i * 7919 % 101) as f32).collect());
    let config = FitConfig {
        features: 5,
        sparsity: Some(0.25),
        ..FitConfig::default()
    };
    let hook = HookPoint {
        layer: 3,
        site: HookSite::MlpPost,
    };
    let place = |begin| FitRun {
        hook,
        name: "look".to_owned(),
        checkpoint: dir.path().join("checkpoint"),
        losses: dir.path().join("losses"),
        resume: Resume::Never,
        begin,
        gpu: None,
    };
    let run = |batches: usize| {
        let cancel = CancelToken::default();
        let ctx = TaskCtx::new(cancel.clone(), |_| {});
        if batches == 0 {
            cancel.cancel();
        }
        let mut observer = Impatient {
            cancel,
            batches,
            seen: Vec::new(),
            notes: Vec::new(),
        };
        let saved = std::cell::RefCell::new(None);
        let save = |factors: &Factors, _| {
            *saved.borrow_mut() = Some((factors.coefficients.rows, factors.relative_error));
            Ok(())
        };
        let ended = run_fit(
            &source,
            &config,
            &place(Begin::Batches(128)),
            &mut observer,
            &save,
            &ctx,
        );
        (ended.map(|end| end.stop), saved.into_inner(), observer)
    };
    let (ended, saved, observer) = run(2);
    assert!(matches!(ended, Ok(None)), "stopped by the user: {ended:?}");
    let (rows, error) = saved.expect("two batches are worth saving");
    assert_eq!((rows, observer.seen.len()), (n, 2));
    assert!(error > 0.0 && error < 1.0, "{error}");
    assert!(
        observer
            .notes
            .iter()
            .any(|note| note.contains("stopped after 2 batches")),
        "{:?}",
        observer.notes
    );
    let (ended, saved, _) = run(0);
    assert!(
        matches!(ended, Err(Error::Cancelled)) && saved.is_none(),
        "before the first batch there is nothing to save"
    );
}

#[test]
fn a_first_look_that_was_cut_goes_on_and_is_not_lost_to_another_request() {
    let dir = tempfile::tempdir().unwrap();
    let (n, d) = (700, 24);
    let source = InMemory::new(n, d, (0..n * d).map(|i| (i * 7919 % 101) as f32).collect());
    let config = FitConfig {
        features: 5,
        sparsity: Some(0.25),
        max_sweeps: Some(4),
        ..FitConfig::default()
    };
    let checkpoint = dir.path().join("checkpoint");
    let mut cut = MiniBatchFit::start(&source, config.clone(), 128).unwrap();
    cut.step(&TaskCtx::silent()).unwrap();
    cut.checkpoint(&checkpoint).unwrap();
    let run = |resume, begin| {
        let place = FitRun {
            hook: HookPoint {
                layer: 3,
                site: HookSite::MlpPost,
            },
            name: "look".to_owned(),
            checkpoint: checkpoint.clone(),
            losses: dir.path().join("losses"),
            resume,
            begin,
            gpu: None,
        };
        let cancel = CancelToken::default();
        let ctx = TaskCtx::new(cancel.clone(), |_| {});
        let mut observer = Impatient {
            cancel,
            batches: usize::MAX,
            seen: Vec::new(),
            notes: Vec::new(),
        };
        let end = run_fit(
            &source,
            &config,
            &place,
            &mut observer,
            &|_, _| Ok(()),
            &ctx,
        );
        (end.map(|end| end.stop), observer)
    };
    for begin in [Begin::Anew, Begin::Batches(256)] {
        let refused = run(Resume::IfCut, begin).0.unwrap_err().to_string();
        assert!(
            refused.contains("128 rows") && refused.contains("--fresh"),
            "{refused}"
        );
        assert!(
            MiniBatchFit::has_checkpoint(&checkpoint),
            "it is still there"
        );
    }
    let (ended, observer) = run(Resume::IfCut, Begin::Batches(128));
    assert!(matches!(ended, Ok(Some(Stop::MaxSweeps))), "{ended:?}");
    assert_eq!(
        observer.seen.iter().map(|s| s.sweep).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    assert!(
        !MiniBatchFit::has_checkpoint(&checkpoint),
        "what follows is a fit"
    );
    std::fs::write(&checkpoint, b"mlpeekfl").unwrap();
    assert!(
        run(Resume::Must, Begin::Anew)
            .0
            .unwrap_err()
            .to_string()
            .contains("truncated")
    );
    let (ended, observer) = run(Resume::IfCut, Begin::Batches(128));
    assert!(ended.is_ok() && observer.seen[0].sweep == 1);
    assert!(
        observer.notes.iter().any(|n| n.contains("fitting anew")),
        "{:?}",
        observer.notes
    );
}
