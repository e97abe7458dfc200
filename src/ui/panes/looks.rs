//! How the panes that compare look, as text at three sizes and with their styles.

use crate::engine::Command;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

/// The screen after `keys` at every size, and its styles in colour and without.
fn looks(name: &str, keys: &str) {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = Stage::opened(width, height, Profile::TrueColour);
        stage.keys(keys).wait(0.2).wait(10.0);
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), stage.screen());
        if width == 80 {
            insta::assert_snapshot!(format!("{name}_styles"), stage.styles());
        }
    }
    let mut mono = Stage::opened(80, 24, Profile::Mono);
    mono.keys(keys).wait(0.2).wait(10.0);
    insta::assert_snapshot!(
        format!("{name}_mono"),
        format!("{}\n{}", mono.screen(), mono.styles())
    );
}

#[test]
fn marked_features_side_by_side() {
    looks("compare", "space space space C");
}

#[test]
fn features_by_labels() {
    looks("labels", "M right j j");
}

#[test]
fn a_set_of_directions() {
    looks("set", "D j enter");
}

#[test]
fn an_evaluation_asked_for() {
    looks("evaluate", "V j right j");
}

#[test]
fn levels() {
    looks("levels", "2 t j right j");
}

#[test]
fn a_feature_and_a_neuron() {
    looks("feature", "s g enter enter");
    looks("neuron", "s g enter enter n enter");
}

#[test]
fn a_fit_and_its_error_against_the_number_of_features() {
    looks("fit", "5");
    looks("error_against_k", "5 right");
}

#[test]
fn three_ways() {
    looks("three_ways", "2 / s c a r l e t enter b");
}

#[test]
fn another_study() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage.keys("5 C").type_text("/data/other");
    stage.keys("enter");
    let asked = |c: &Command| matches!(c, Command::CompareStudy(fit, dir) if fit == "bcd-k40" && dir.ends_with("other"));
    assert!(stage.sent.iter().any(asked), "{:?}", stage.sent.last());
    insta::assert_snapshot!("another_study", stage.screen());
    insta::assert_snapshot!("another_study_styles", stage.styles());
}

#[test]
fn notes_go_out_and_come_in() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage.keys(":").type_text("export-notes").keys("enter");
    assert!(
        matches!(stage.sent.last(), Some(Command::ExportNotes(path)) if path.ends_with("notes-bcd-k40.json"))
    );
    stage.keys(":").type_text("import-notes").keys("enter");
    assert!(
        stage.screen().contains("Names and notes from a file"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    let imported = |c: &Command| matches!(c, Command::ImportNotes(path) if path.ends_with("notes-bcd-k40.json"));
    assert!(stage.sent.iter().any(imported), "{:?}", stage.sent.last());
}

#[test]
fn before_there_are_features_the_list_says_how_far_it_is() {
    use crate::engine::{Event, Job, OpenRequest};
    use crate::ui::demo::Demo;
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = Stage::with(width, height, Profile::TrueColour, true);
        stage.answers = false;
        stage.msg(crate::ui::app::Msg::Tick(std::time::Duration::ZERO));
        stage.keys("enter");
        assert!(
            stage.sent.contains(&Command::Open(OpenRequest::default())),
            "{:?}",
            stage.sent
        );
        stage.event(Event::Model(Box::new(Demo::model())));
        stage
            .event(Demo::progress(
                Job::Collect,
                "collecting",
                10_712,
                17_204,
                "tokens",
            ))
            .keys("1");
        insta::assert_snapshot!(format!("waiting_{width}x{height}"), stage.screen());
        stage.keys("5");
        assert!(stage.screen().contains("collecting…"), "{}", stage.screen());
    }
}

#[test]
fn a_closed_study_is_taken_off_the_screen() {
    let mut stage = Stage::opened(80, 24, Profile::TrueColour);
    stage
        .keys("2")
        .wait(0.2)
        .keys("1")
        .event(crate::engine::Event::Closed);
    assert!(
        stage.screen().contains("Nothing is open"),
        "{}",
        stage.screen()
    );
    stage.keys("2");
    assert!(
        stage.screen().contains("Nothing is open"),
        "{}",
        stage.screen()
    );
}
