use std::sync::Arc;

use super::*;
use crate::engine::{Event, Job};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

fn shown(harness: &Harness) -> Option<&SetKind> {
    harness.sent.iter().rev().find_map(|c| {
        if let Command::ShowSet(kind) = c {
            Some(kind)
        } else {
            None
        }
    })
}

#[test]
fn a_set_is_chosen_listed_and_left_by_esc() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        harness.keys("j j space D");
        assert!(
            harness.screen().contains("fit:bcd-k40"),
            "{}",
            harness.screen()
        );
        harness.keys("j enter");
        assert_eq!(shown(&harness), Some(&Baseline::DiffMean.into()));
        let selected = harness.app.world.selected;
        assert!(
            harness.screen().contains("diffmean 12 at"),
            "{}",
            harness.screen()
        );
        assert!(harness.app.world.marked.is_empty(), "marks are of the fit");
        assert!(
            harness.app.world.selected_card().is_some(),
            "{selected:?} is read like a feature"
        );
        harness.keys("esc");
        assert_eq!(shown(&harness), Some(&SetKind::FIT));
        assert!(
            harness.screen().contains("Features 40"),
            "{}",
            harness.screen()
        );
        assert_eq!(harness.app.world.marked.len(), 1, "as it was left");
    }
}

#[test]
fn an_autoencoder_is_a_set_and_one_without_weights_says_why_it_is_none() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    let mut study = harness.engine.study();
    study.labels = 0;
    let mut half = study.saes[0].clone();
    (half.name, half.figures, half.resumable) = ("half".to_owned(), None, true);
    study.saes.push(half);
    harness
        .event(Event::Study(Box::new(study)))
        .keys("D j enter");
    assert!(
        harness.screen().contains("the corpus has no labels"),
        "{}",
        harness.screen()
    );
    harness.keys("j enter");
    assert!(
        harness.screen().contains("no weights yet"),
        "{}",
        harness.screen()
    );
    harness.keys("j enter");
    assert_eq!(
        shown(&harness),
        Some(&SetKind::Sae(Some("topk64".to_owned())))
    );
    // The same chooser leads back.
    harness.keys("D g enter");
    assert_eq!(shown(&harness), Some(&SetKind::FIT));
}

#[test]
fn actions_of_a_fit_say_why_they_are_off_for_a_set() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    harness.keys("D j enter");
    let before = harness.sent.len();
    for key in ["r", "U", "2"] {
        harness.keys(key);
        assert!(
            harness
                .screen()
                .contains("diffmean is on show, and this is of a fit's features"),
            "{}",
            harness.screen()
        );
    }
    assert_eq!(harness.sent.len(), before);
    harness.keys("backtab tab tab tab 5 F");
    assert!(
        !harness
            .sent
            .iter()
            .any(|c| matches!(c, Command::Tree(..) | Command::Refine(_) | Command::Note(_)))
    );
    assert!(
        harness.screen().contains("Fit bcd-k40"),
        "{}",
        harness.screen()
    );
}

#[test]
fn a_direction_is_steered_with_and_each_list_keeps_its_own() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("a 1 D j enter j a");
    let chosen = harness.app.world.selected;
    harness.keys("enter");
    let asked = harness.sent.iter().find_map(|c| {
        if let Command::Steer(ask) = c {
            Some(ask)
        } else {
            None
        }
    });
    let ids: Vec<usize> = asked.expect("a run").features.iter().map(|f| f.0).collect();
    assert_eq!(
        ids,
        chosen.into_iter().collect::<Vec<_>>(),
        "no feature of the fit is among them"
    );
    assert!(
        harness.screen().contains("diffmean #"),
        "{}",
        harness.screen()
    );
    harness.keys("1 esc 3");
    assert!(
        !harness.screen().contains("none: a adds"),
        "the fit's feature is there again: {}",
        harness.screen()
    );
    assert_eq!(
        harness.app.session()["panes"]["Steer"]["form"]["features"][0][1],
        1.0
    );
}

#[test]
fn a_session_remembers_the_fit_not_the_set_over_it() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("j j j");
    let before = harness.app.session();
    harness.keys("D j enter j a 1");
    let now = harness.app.session();
    assert_eq!(
        (&now["feature"], &now["panes"]["Steer"]["form"]["features"]),
        (&before["feature"], &serde_json::json!([]))
    );
}

#[test]
fn no_set_is_chosen_while_a_fit_runs() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.event(Event::Started(Job::Fit)).keys("D");
    assert!(
        harness.screen().contains("a fit is running"),
        "{}",
        harness.screen()
    );
    let list = harness.engine.list(3, false);
    harness
        .event(Event::Done(Job::Fit, String::new()))
        .keys("D j enter")
        .event(Event::Features(Arc::new(list)));
    assert!(
        harness.screen().contains("Features 40"),
        "a fit that begins takes the place of the set"
    );
}

#[test]
fn the_list_of_directions_is_changed_from_steer_and_live() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    harness
        .keys("4 e")
        .type_text("a dog")
        .keys("esc")
        .wait(1.0)
        .keys("D j enter")
        .wait(3.0)
        .wait(3.0);
    let traces = harness
        .sent
        .iter()
        .filter(|c| matches!(c, Command::Trace(_)))
        .count();
    assert!(
        traces >= 2 && harness.screen().contains("diffmean · D back to"),
        "{}",
        harness.screen()
    );
    harness.keys("3 D g enter");
    assert_eq!(shown(&harness), Some(&SetKind::FIT));
}

#[test]
fn a_set_is_clicked_and_a_second_click_lists_it() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("D");
    let (y, x) = harness.find("kmeans").expect("a set");
    harness.click(x, y).click(x, y);
    assert!(
        harness
            .sent
            .iter()
            .any(|c| *c == Command::ShowSet(Baseline::KMeans.into())),
        "{:?}",
        harness.sent
    );
}
