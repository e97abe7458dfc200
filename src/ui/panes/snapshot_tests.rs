//! How the panes that compare look, as text at three sizes and with their styles.

use crate::engine::Command;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

/// The screen after `keys` at every size, and its styles in colour and without.
fn assert_screens(name: &str, keys: &str) {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        harness.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), harness.screen());
        if width == 80 {
            insta::assert_snapshot!(format!("{name}_styles"), harness.styles());
        }
    }
    let mut mono = Harness::opened(80, 24, Profile::Mono);
    mono.keys(keys).wait(0.2).wait(10.0);
    insta::assert_snapshot!(
        format!("{name}_mono"),
        format!("{}\n{}", mono.screen(), mono.styles())
    );
}

#[test]
fn marked_features_side_by_side() {
    assert_screens("compare", "space space space C");
}

#[test]
fn features_by_labels() {
    assert_screens("labels", "M right j j");
}

#[test]
fn a_set_of_directions() {
    assert_screens("set", "D j enter");
}

#[test]
fn the_form_of_an_evaluation() {
    assert_screens("evaluate", "V j right j");
}

#[test]
fn levels() {
    assert_screens("levels", "2 t j right j");
}

#[test]
fn a_feature_and_a_neuron() {
    assert_screens("feature", "s g enter enter");
    assert_screens("neuron", "s g enter enter n enter");
}

#[test]
fn a_fit_and_its_error_against_the_number_of_features() {
    assert_screens("fit", "5");
    assert_screens("error_against_k", "5 right");
}

#[test]
fn three_ways() {
    assert_screens("three_ways", "2 / s c a r l e t enter b");
}

#[test]
fn another_study() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness.keys("5 C").type_text("/data/other");
    harness.keys("enter");
    let asked = |c: &Command| matches!(c, Command::CompareStudy(fit, dir) if fit == "bcd-k40" && dir.ends_with("other"));
    assert!(harness.sent.iter().any(asked), "{:?}", harness.sent.last());
    insta::assert_snapshot!("another_study", harness.screen());
    insta::assert_snapshot!("another_study_styles", harness.styles());
}

#[test]
fn notes_go_out_and_come_in() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness.keys(":").type_text("export-notes").keys("enter");
    assert!(
        matches!(harness.sent.last(), Some(Command::ExportNotes(path)) if path.ends_with("notes-bcd-k40.json"))
    );
    harness.keys(":").type_text("import-notes").keys("enter");
    assert!(
        harness.screen().contains("Names and notes from a file"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    let imported = |c: &Command| matches!(c, Command::ImportNotes(path) if path.ends_with("notes-bcd-k40.json"));
    assert!(
        harness.sent.iter().any(imported),
        "{:?}",
        harness.sent.last()
    );
}

#[test]
fn before_there_are_features_the_list_says_how_far_it_is() {
    use crate::engine::{Event, Job, OpenRequest};
    use crate::ui::fake_engine::FakeEngine;
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::with(width, height, Profile::TrueColour, true);
        harness.answers = false;
        harness.msg(crate::ui::app::Msg::Tick(std::time::Duration::ZERO));
        harness.keys("enter");
        assert!(
            harness
                .sent
                .contains(&Command::Open(OpenRequest::default())),
            "{:?}",
            harness.sent
        );
        harness.event(Event::Model(Box::new(FakeEngine::model())));
        harness
            .event(FakeEngine::progress(
                Job::Collect,
                "collecting",
                10_712,
                17_204,
                "tokens",
            ))
            .keys("1");
        insta::assert_snapshot!(format!("waiting_{width}x{height}"), harness.screen());
        harness.keys("5");
        assert!(
            harness.screen().contains("collecting…"),
            "{}",
            harness.screen()
        );
    }
}

#[test]
fn a_closed_study_is_taken_off_the_screen() {
    let mut harness = Harness::opened(80, 24, Profile::TrueColour);
    harness
        .keys("2")
        .wait(0.2)
        .keys("1")
        .event(crate::engine::Event::Closed);
    assert!(
        harness.screen().contains("Nothing is open"),
        "{}",
        harness.screen()
    );
    harness.keys("2");
    assert!(
        harness.screen().contains("Nothing is open"),
        "{}",
        harness.screen()
    );
}
