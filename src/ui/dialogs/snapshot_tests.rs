//! How the dialogs look: the cells of each dialog alone, so that a change beneath it changes no
//! snapshot here.

use crate::engine::{Command, Event, Job};
use crate::ui::fake_engine::FakeEngine;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

/// The open dialog of a harness at every size, after `keys`.
fn assert_screens(name: &str, keys: &str) {
    for (width, height) in [(120, 36), (80, 24), (60, 18), (40, 12)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        harness.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), harness.dialog());
    }
}

/// The open dialog's styles after `keys`, in colour and without.
fn assert_styles(name: &str, keys: &str) {
    for (profile, colours) in [(Profile::TrueColour, "styles"), (Profile::Mono, "mono")] {
        let mut harness = Harness::opened(80, 24, profile);
        harness.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{colours}"), harness.dialog_styles());
    }
}

#[test]
fn all_keys() {
    assert_screens("help", "5 ?");
}

#[test]
fn commands_by_name() {
    assert_screens("palette", "5 : l o g");
}

#[test]
fn the_log() {
    assert_screens("log", "5 ~");
}

#[test]
fn sets_to_choose_from() {
    assert_screens("sets", "D j");
    assert_styles("sets", "D j");
}

#[test]
fn what_is_copied_is_chosen() {
    assert_screens("copy", "enter enter y");
    assert_styles("copy", "enter enter y");
}

#[test]
fn the_form_of_a_sweep() {
    assert_screens("sweep", "5 S down down");
    assert_styles("sweep", "5 S down down");
}

#[test]
fn the_form_of_a_training() {
    assert_screens("train", "5 T down x");
    assert_styles("train", "5 T down x");
}

#[test]
fn the_question_for_another_study() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness.keys("5 C").type_text("/data/other");
    insta::assert_snapshot!("another_study", harness.dialog());
}

#[test]
fn quitting_is_asked_for_while_a_job_runs() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness.event(FakeEngine::progress(
        Job::Collect,
        "collecting",
        10_712,
        17_204,
        "tokens",
    ));
    harness.keys("q");
    insta::assert_snapshot!("quit", harness.dialog());
    harness.event(Event::Done(Job::Collect, String::new()));
    harness.keys("enter");
    assert!(harness.sent.contains(&Command::Shutdown));
}
