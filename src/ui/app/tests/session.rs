//! What comes back from one run to the next.

use super::*;

#[test]
fn a_saved_session_is_restored() {
    let mut harness = opened();
    harness.keys("j j s v tab w");
    let session = harness.app.session();
    let mut again = Harness::new(120, 36, Profile::TrueColour);
    let mut study = again.engine.study();
    study.session = Some(session.clone());
    again.event(Event::Study(Box::new(study)));
    let list = again.engine.list(41, true);
    again.event(Event::Features(Arc::new(list)));
    assert_eq!(again.app.session(), session);
    assert_eq!(again.app.focus(), PaneId::Contexts);
    assert_eq!(inspected_ids(&again), [2]);
}

/// A harness opened on `session`, with `fit` coming on show.
fn reopened(session: serde_json::Value, fit: Option<&str>) -> Harness {
    let mut harness = Harness::new(120, 36, Profile::TrueColour);
    let mut study = harness.engine.study();
    study.session = Some(serde_json::from_str(&session.to_string()).unwrap());
    harness.event(Event::Study(Box::new(study)));
    let mut list = harness.engine.list(41, true);
    if let Some(fit) = fit {
        list.fit = fit.to_owned();
    }
    harness.event(Event::Features(Arc::new(list)));
    harness
}

#[test]
fn marks_trail_and_open_neuron_are_restored_with_their_own_fit_only() {
    let mut harness = opened();
    harness.keys("j space j j enter enter n enter");
    let neuron = harness.app.world.open_neuron.expect("a neuron is open");
    let session = harness.app.session();
    let mut same = reopened(session.clone(), None);
    assert_eq!(same.app.session(), session);
    assert!(
        same.sent.contains(&Command::Neuron(neuron)),
        "it is asked for again"
    );
    assert_eq!(same.app.world.marked, [1]);
    same.keys("esc");
    assert_eq!(
        (same.app.world.open_neuron, same.app.world.selected),
        (None, Some(4))
    );
    let other = reopened(session, Some("k40-other"));
    assert_eq!(
        (
            other.app.world.open_neuron,
            other.app.world.marked.len(),
            other.app.trail.len()
        ),
        (None, 0, 0)
    );
    assert_ne!(
        other.app.world.selected,
        Some(4),
        "#4 is another feature there"
    );
}

#[test]
fn another_fit_on_show_is_read_from_its_own_first_line() {
    let mut harness = opened();
    harness.keys("j j j space enter enter");
    let mut list = harness.engine.list(41, true);
    list.fit = "k40-other".to_owned();
    harness.event(Event::Features(Arc::new(list)));
    assert_eq!(
        (harness.app.world.selected, harness.app.world.marked.len()),
        (Some(0), 0)
    );
    assert!(
        harness.app.trail.is_empty(),
        "the way led along features of the other fit"
    );
}

#[test]
fn a_fresh_start_shows_the_newest_fit() {
    let mut harness = Harness::new(120, 36, Profile::TrueColour);
    harness.app.fresh = true;
    let mut study = harness.engine.study();
    let newest = study.fits.last().expect("there are fits").name.clone();
    study.session = Some(serde_json::json!({ "fit": "an-older-one" }));
    harness.event(Event::Study(Box::new(study)));
    assert!(
        harness.sent.contains(&Command::ShowFit(newest)),
        "{:?}",
        harness.sent
    );
}

#[test]
fn a_damaged_session_is_ignored() {
    for session in [
        serde_json::json!(17),
        serde_json::json!({"pane": "Moon", "feature": -3, "panes": {"Features": 4}}),
    ] {
        let mut harness = Harness::new(120, 36, Profile::TrueColour);
        let mut study = harness.engine.study();
        study.session = Some(session);
        harness.event(Event::Study(Box::new(study)));
        assert_eq!(harness.app.focus(), PaneId::Features);
    }
}
