use super::*;
use crate::factor::FitConfig;
use crate::model::{HookPoint, HookSite};
use crate::study::Study;

#[test]
fn questions_do_not_wait_for_levels() {
    let (outbox, events) = unbounded();
    let engine = engine(outbox).unwrap();
    let (go_on, held) = unbounded::<()>();
    engine.levels.submit(move || {
        let _ = held.recv();
    });
    let soon = Duration::from_secs(20);
    engine.handle(Command::Levels(Growth::Growing, false, Vec::new()));
    for question in
        [Command::Find(Probe::Like(0)), Command::Labels, Command::ShowFit("k8".to_owned()), Command::ListStudies]
    {
        engine.handle(question);
        // Nothing is open, which is an answer.
        let answer = events.recv_timeout(soon).unwrap();
        assert!(matches!(answer, Event::Refused(_) | Event::Studies(_)), "{answer:?}");
    }
    go_on.send(()).unwrap();
    assert!(matches!(events.recv_timeout(soon).unwrap(), Event::Started(Job::Levels)));
    assert!(matches!(events.recv_timeout(soon).unwrap(), Event::Failed(Job::Levels, _)));
    engine.shutdown();
}

#[test]
fn a_layer_of_a_study_is_opened_and_one_that_it_lacks_is_refused_with_those_it_has() {
    let soon = Duration::from_secs(60);
    let dir = tempfile::tempdir().unwrap();
    let hook = HookPoint { layer: 3, site: HookSite::MlpPost };
    let data: Vec<f32> = (0..40 * 8).map(|i| (i * 37 % 23) as f32).collect();
    drop(Study::import(dir.path(), "x.npy", hook, 40, 8, &data).unwrap());
    let (outbox, events) = unbounded();
    let engine = engine(outbox).unwrap();
    let open = |layer| {
        let fit = FitConfig { features: 3, ..FitConfig::default() };
        engine.handle(Command::Open(OpenRequest {
            study: Some(dir.path().to_owned()),
            layer: Some(layer),
            fit,
            ..OpenRequest::default()
        }));
    };
    open(4);
    let refused = loop {
        if let Event::Failed(Job::Load, why) = events.recv_timeout(soon).unwrap() {
            break why;
        }
    };
    assert!(refused.contains("has blocks.3.mlp.hook_post, not blocks.4.mlp.hook_post"), "{refused}");
    open(3);
    let mut shown = None;
    loop {
        match events.recv_timeout(soon).unwrap() {
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
