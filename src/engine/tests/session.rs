//! What is on show: a fit, a set of directions in its place, and the way back.

use crate::engine::testing::{Live, Workshop};
use crate::engine::{Baseline, Command, Event, Probe, SetKind};

/// Name of the list that is on show, the fit behind it, and its first name.
fn shown(events: &[Event]) -> (String, Option<String>) {
    let list = events.iter().rev().find_map(|event| match event {
        Event::Features(list) => Some(list.clone()),
        _ => None,
    });
    let list = list.expect("a list is sent");
    let behind = list.set.as_ref().and_then(|set| set.fit.clone());
    (list.fit.clone(), behind)
}

#[test]
fn with_nothing_open_every_question_says_what_is_missing() {
    let live = Live::new();
    for (command, words) in [
        (Command::Inspect(0), "no features yet"),
        (Command::Neuron(0), "no features yet"),
        (Command::Labels, "no features yet"),
        (Command::Find(Probe::Like(0)), "no features yet"),
        (Command::Trace("text".to_owned()), "no features yet"),
        (Command::ShowFit("k6".to_owned()), "no study is open"),
        (
            Command::ShowSet(Baseline::DiffMean.into()),
            "no study is open",
        ),
    ] {
        let why = live.refusal(command.clone());
        assert!(
            why.contains(words) || why.contains("there are no features"),
            "{command:?}: {why}"
        );
    }
    live.close();
}

#[test]
fn a_card_has_its_lens_and_a_neuron_the_features_that_use_it() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let events = live.ask(Command::Inspect(2));
    let [Event::Card(card)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((card.row.id, card.lens_note.as_deref()), (2, None));
    assert!(!card.promoted.is_empty() && !card.contexts.is_empty());
    let index = card.neurons[0].index;
    let events = live.ask(Command::Neuron(index));
    let [Event::Neuron(neuron)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(neuron.index, index);
    assert!(
        neuron.features.iter().any(|(id, ..)| *id == 2),
        "{neuron:?}"
    );
    let refused = live.refusal(Command::Inspect(6));
    assert!(refused.contains('6'), "{refused}");
    live.close();
}

#[test]
fn a_set_comes_in_place_of_the_fit_which_comes_back_as_it_was() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let set = live.ask(Command::ShowSet(Baseline::DiffMean.into()));
    let (name, behind) = shown(&set);
    assert_ne!(name, "k6");
    assert_eq!(behind.as_deref(), Some("k6"));
    // A second set has the same fit behind it, not the first set.
    let second = live.ask(Command::ShowSet(Baseline::Random.into()));
    assert_eq!(shown(&second).1.as_deref(), Some("k6"));
    let back = live.ask(Command::ShowSet(SetKind::FIT));
    assert_eq!(shown(&back), ("k6".to_owned(), None));
    assert!(
        live.ask(Command::ShowSet(SetKind::FIT)).is_empty(),
        "it is on show already"
    );
    live.close();
}

#[test]
fn where_the_explorer_stands_is_saved_with_the_study() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let view_state = serde_json::json!({"fit": "k6", "pane": "Tree"});
    assert!(
        live.ask(Command::SaveSession(view_state.clone()))
            .is_empty()
    );
    live.close();
    let live = Live::new();
    let opened = live.ask(Command::OpenStudy(workshop.study()));
    let saved = opened.into_iter().find_map(|event| match event {
        Event::Study(study) => study.session,
        _ => None,
    });
    assert_eq!(saved, Some(view_state));
    live.close();
}

#[test]
fn the_reader_of_a_fit_is_that_of_the_snapshot_on_show() {
    use std::sync::Arc;

    use crate::analysis::tests::{columns, factors, table};
    use crate::engine::session::Session;
    use crate::jobs::reading::Reader;
    use crate::model::{HookPoint, HookSite};

    let hook = HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    };
    let session = Session::new(crossbeam_channel::unbounded().0);
    session.set_tokens(Some(Arc::new(table(&[(&["a"], None)]))));
    let snapshot = |weight: f32| {
        let z = columns(2, &[vec![weight, 0.0], vec![0.0, 1.0]]);
        Arc::new(factors(z, 1, vec![1.0, 2.0]))
    };
    let encoder = || match session.reader().unwrap() {
        (shown, Reader::Fit(encoder)) => {
            assert_eq!(encoder.features(), &shown.factors.features);
            encoder
        }
        (_, Reader::Set(_)) => panic!("a fit is on show"),
    };
    let (first, second) = (snapshot(1.0), snapshot(-1.0));
    session.show(hook, "k2", first.clone(), false).unwrap();
    let made = encoder();
    assert!(Arc::ptr_eq(&made, &encoder()), "made once for a snapshot");
    session.show(hook, "k2", second, false).unwrap();
    assert!(!Arc::ptr_eq(&made, &encoder()));
    session.show(hook, "k2", first, true).unwrap();
    encoder();
}
