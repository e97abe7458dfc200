//! How the dialogs look: the cells of each dialog alone, so that a change beneath it changes no
//! snapshot here.

use crate::engine::{Command, Event, Job};
use crate::ui::demo::Demo;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

/// The open dialog of a stage at every size, after `keys`.
fn looks(name: &str, keys: &str) {
    for (width, height) in [(120, 36), (80, 24), (60, 18), (40, 12)] {
        let mut stage = Stage::opened(width, height, Profile::TrueColour);
        stage.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), stage.dialog());
    }
}

/// The open dialog's styles after `keys`, in colour and without.
fn looks_in_colour(name: &str, keys: &str) {
    for (profile, colours) in [(Profile::TrueColour, "styles"), (Profile::Mono, "mono")] {
        let mut stage = Stage::opened(80, 24, profile);
        stage.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{colours}"), stage.dialog_styles());
    }
}

#[test]
fn all_keys() {
    looks("help", "5 ?");
}

#[test]
fn commands_by_name() {
    looks("palette", "5 : l o g");
}

#[test]
fn the_log() {
    looks("log", "5 ~");
}

#[test]
fn sets_to_choose_from() {
    looks("sets", "D j");
    looks_in_colour("sets", "D j");
}

#[test]
fn what_is_copied_is_chosen() {
    looks("copy", "enter enter y");
    looks_in_colour("copy", "enter enter y");
}

#[test]
fn a_sweep_is_asked_for() {
    looks("sweep", "5 S down down");
    looks_in_colour("sweep", "5 S down down");
}

#[test]
fn a_training_is_asked_for() {
    looks("train", "5 T down x");
    looks_in_colour("train", "5 T down x");
}

#[test]
fn another_study_is_asked_for() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage.keys("5 C").type_text("/data/other");
    insta::assert_snapshot!("another_study", stage.dialog());
}

#[test]
fn quitting_is_asked_for_while_a_job_runs() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage.event(Demo::progress(
        Job::Collect,
        "collecting",
        10_712,
        17_204,
        "tokens",
    ));
    stage.keys("q");
    insta::assert_snapshot!("quit", stage.dialog());
    stage.event(Event::Done(Job::Collect, String::new()));
    stage.keys("enter");
    assert!(stage.sent.contains(&Command::Shutdown));
}
