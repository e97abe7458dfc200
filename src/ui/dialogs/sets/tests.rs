use std::sync::Arc;

use super::*;
use crate::engine::{Event, Job};
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

fn shown(stage: &Stage) -> Option<&SetKind> {
    stage.sent.iter().rev().find_map(|c| {
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
        let mut stage = Stage::opened(width, height, Profile::TrueColour);
        stage.keys("j j space D");
        assert!(stage.screen().contains("fit:bcd-k40"), "{}", stage.screen());
        stage.keys("j enter");
        assert_eq!(shown(&stage), Some(&Baseline::DiffMean.into()));
        let selected = stage.app.world.selected;
        assert!(
            stage.screen().contains("diffmean 12 at"),
            "{}",
            stage.screen()
        );
        assert!(stage.app.world.marked.is_empty(), "marks are of the fit");
        assert!(
            stage.app.world.selected_card().is_some(),
            "{selected:?} is read like a feature"
        );
        stage.keys("esc");
        assert_eq!(shown(&stage), Some(&SetKind::FIT));
        assert!(stage.screen().contains("Features 40"), "{}", stage.screen());
        assert_eq!(stage.app.world.marked.len(), 1, "as it was left");
    }
}

#[test]
fn an_autoencoder_is_a_set_and_one_without_weights_says_why_it_is_none() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    let mut study = stage.demo.study();
    study.labels = 0;
    let mut half = study.saes[0].clone();
    (half.name, half.figures, half.resumable) = ("half".to_owned(), None, true);
    study.saes.push(half);
    stage.event(Event::Study(Box::new(study))).keys("D j enter");
    assert!(
        stage.screen().contains("the corpus has no labels"),
        "{}",
        stage.screen()
    );
    stage.keys("j enter");
    assert!(
        stage.screen().contains("no weights yet"),
        "{}",
        stage.screen()
    );
    stage.keys("j enter");
    assert_eq!(
        shown(&stage),
        Some(&SetKind::Sae(Some("topk64".to_owned())))
    );
    // The same chooser leads back.
    stage.keys("D g enter");
    assert_eq!(shown(&stage), Some(&SetKind::FIT));
}

#[test]
fn what_is_of_a_fit_alone_says_so() {
    let mut stage = Stage::opened(120, 36, Profile::Mono);
    stage.keys("D j enter");
    let before = stage.sent.len();
    for key in ["r", "U", "2"] {
        stage.keys(key);
        assert!(
            stage
                .screen()
                .contains("diffmean is on show, and this is of a fit's features"),
            "{}",
            stage.screen()
        );
    }
    assert_eq!(stage.sent.len(), before);
    stage.keys("backtab tab tab tab 5 F");
    assert!(
        !stage
            .sent
            .iter()
            .any(|c| matches!(c, Command::Tree(..) | Command::Refine(_) | Command::Note(_)))
    );
    assert!(stage.screen().contains("Fit bcd-k40"), "{}", stage.screen());
}

#[test]
fn a_direction_is_steered_with_and_each_list_keeps_its_own() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("a 1 D j enter j a");
    let chosen = stage.app.world.selected;
    stage.keys("enter");
    let asked = stage.sent.iter().find_map(|c| {
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
    assert!(stage.screen().contains("diffmean #"), "{}", stage.screen());
    stage.keys("1 esc 3");
    assert!(
        !stage.screen().contains("none: a adds"),
        "the fit's feature is there again: {}",
        stage.screen()
    );
    assert_eq!(
        stage.app.session()["panes"]["Steer"]["form"]["features"][0][1],
        1.0
    );
}

#[test]
fn a_session_remembers_the_fit_not_the_set_over_it() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("j j j");
    let before = stage.app.session();
    stage.keys("D j enter j a 1");
    let now = stage.app.session();
    assert_eq!(
        (&now["feature"], &now["panes"]["Steer"]["form"]["features"]),
        (&before["feature"], &serde_json::json!([]))
    );
}

#[test]
fn no_set_is_chosen_while_a_fit_runs() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.event(Event::Started(Job::Fit)).keys("D");
    assert!(
        stage.screen().contains("a fit is running"),
        "{}",
        stage.screen()
    );
    let list = stage.demo.list(3, false);
    stage
        .event(Event::Done(Job::Fit, String::new()))
        .keys("D j enter")
        .event(Event::Features(Arc::new(list)));
    assert!(
        stage.screen().contains("Features 40"),
        "a fit that begins takes the place of the set"
    );
}

#[test]
fn from_steer_and_live_the_list_under_them_is_turned() {
    let mut stage = Stage::opened(120, 36, Profile::Mono);
    stage
        .keys("4 e")
        .type_text("a dog")
        .keys("esc")
        .wait(1.0)
        .keys("D j enter")
        .wait(3.0)
        .wait(3.0);
    let traces = stage
        .sent
        .iter()
        .filter(|c| matches!(c, Command::Trace(_)))
        .count();
    assert!(
        traces >= 2 && stage.screen().contains("diffmean · D back to"),
        "{}",
        stage.screen()
    );
    stage.keys("3 D g enter");
    assert_eq!(shown(&stage), Some(&SetKind::FIT));
}

#[test]
fn a_set_is_clicked_and_a_second_click_lists_it() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("D");
    let (y, x) = stage.find("kmeans").expect("a set");
    stage.click(x, y).click(x, y);
    assert!(
        stage
            .sent
            .iter()
            .any(|c| *c == Command::ShowSet(Baseline::KMeans.into())),
        "{:?}",
        stage.sent
    );
}
