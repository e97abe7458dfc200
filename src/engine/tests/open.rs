//! What opening does of what is not there already, and in which order it is told.

use crate::engine::testing::{Live, Workshop};
use crate::engine::{Command, Event, Job, OpenRequest};
use crate::factor::{FitConfig, Stop};

/// How the jobs of these events began and ended, and when the study and its features came.
fn outline(events: &[Event]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for event in events {
        let line = match event {
            Event::Started(job) => format!("{job:?}"),
            Event::Done(job, _) => format!("{job:?} done"),
            Event::Failed(job, _) => format!("{job:?} failed"),
            Event::Closed => "closed".to_owned(),
            Event::Study(_) => "study".to_owned(),
            Event::NoModel(_) => "no model".to_owned(),
            Event::Features(_) if !out.iter().any(|line| line == "features") => {
                "features".to_owned()
            }
            _ => continue,
        };
        out.push(line);
    }
    out
}

fn sweeps(events: &[Event]) -> Vec<(usize, Option<Stop>)> {
    let point = |event: &Event| match event {
        Event::Sweep(point) => Some((point.sweep, point.stop)),
        _ => None,
    };
    events.iter().filter_map(point).collect()
}

#[test]
fn a_request_loads_collects_and_fits_once_and_shows_what_is_there_the_second_time() {
    let workshop = Workshop::new(20);
    let live = Live::new();
    let made = live.ask(Command::Open(workshop.request(3)));
    assert_eq!(
        outline(&made),
        [
            "Load",
            "Load done",
            "Collect",
            "study",
            "Collect done",
            "Fit",
            "features",
            "Fit done",
            "study"
        ]
    );
    let collected = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::Done(Job::Collect, words) => Some(words.clone()),
            _ => None,
        })
    };
    assert!(collected(&made).is_some_and(|words| words.contains("of 20 samples")));
    live.close();
    let live = Live::new();
    let again = live.ask(Command::Open(workshop.request(3)));
    assert!(collected(&again).is_some_and(|words| words.contains("were collected before")));
    let fitted = |event: &Event| matches!(event, Event::Done(Job::Fit, words) if words.contains("was fitted before"));
    assert!(again.iter().any(fitted), "{again:?}");
    assert_eq!(sweeps(&again), sweeps(&made), "the curve is the saved one");
    live.close();
}

#[test]
fn another_study_is_closed_only_when_the_next_is_there() {
    let workshop = Workshop::new(20);
    let live = Live::opened(&workshop, 3);
    let missing = live.ask(Command::OpenStudy(workshop.path("nothing")));
    assert_eq!(outline(&missing), ["Load", "Load failed"]);
    assert!(
        live.ask(Command::Inspect(0))
            .iter()
            .any(|event| matches!(event, Event::Card(_))),
        "the one before is still open"
    );
    let again = live.ask(Command::OpenStudy(workshop.study()));
    assert_eq!(
        outline(&again),
        ["Load", "closed", "study", "features", "Load done"]
    );
    live.close();
}

#[test]
fn a_study_whose_model_is_gone_is_read_and_takes_the_model_from_where_it_lies_now() {
    let workshop = Workshop::new(20);
    Live::opened(&workshop, 3).close();
    let elsewhere = workshop.path("elsewhere");
    std::fs::rename(&workshop.model, &elsewhere).unwrap();
    let live = Live::new();
    let opened = live.ask(Command::OpenStudy(workshop.study()));
    assert_eq!(
        outline(&opened),
        ["Load", "study", "features", "no model", "Load done"]
    );
    let refused = live.refusal(Command::Trace("a river".to_owned()));
    assert!(refused.contains("no model is open"), "{refused}");
    let nowhere = live.ask(Command::ModelAt("/nowhere/at/all".to_owned()));
    assert_eq!(outline(&nowhere), ["Load", "no model", "Load failed"]);
    let place = elsewhere.display().to_string();
    let found = live.ask(Command::ModelAt(place));
    assert!(found.iter().any(|event| matches!(event, Event::Model(_))));
    let traced = live.ask(Command::Trace("a river".to_owned()));
    assert!(traced.iter().any(|event| matches!(event, Event::Trace(_))));
    live.close();
}

#[test]
fn a_fit_that_did_its_most_sweeps_is_made_anew_and_not_a_sweep_longer() {
    let workshop = Workshop::new(20);
    let live = Live::new();
    let config = FitConfig {
        features: 3,
        max_sweeps: Some(2),
        ..FitConfig::default()
    };
    let request = OpenRequest {
        fit: config.clone(),
        ..workshop.request(3)
    };
    let first = sweeps(&live.ask(Command::Open(request)));
    assert_eq!(first.last(), Some(&(2, Some(Stop::MaxSweeps))), "{first:?}");
    let again = sweeps(&live.ask(Command::Fit(config)));
    assert_eq!(again, first, "the same fit once more, from its beginning");
    live.close();
}

#[test]
fn what_was_cut_short_waits_until_it_is_to_go_on() {
    let workshop = Workshop::new(400);
    let half = workshop.path("half");
    workshop.half_collected(&half);
    let live = Live::new();
    let opened = live.ask(Command::OpenStudy(half));
    assert_eq!(outline(&opened), ["Load", "study", "Load done"]);
    let unfinished = |events: &[Event]| {
        let study = events.iter().rev().find_map(|event| match event {
            Event::Study(study) => Some(study.unfinished.is_some()),
            _ => None,
        });
        study.expect("the study is told of")
    };
    assert!(unfinished(&opened));
    let collected = live.ask(Command::Collect);
    assert_eq!(
        outline(&collected)[..3],
        ["Collect", "Collect done", "study"]
    );
    assert!(!unfinished(&collected));
    live.close();
}
