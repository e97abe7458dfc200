//! The Start pane with the app around it.

use super::*;

#[test]
fn the_start_pane_runs_what_it_shows_and_asks_what_it_takes() {
    let mut harness = Harness::with(100, 30, Profile::TrueColour, true);
    harness.wait(0.01);
    assert!(
        harness
            .sent
            .iter()
            .any(|c| matches!(c, Command::Estimate(_)))
    );
    // To the layer, 15 → 16; to the features, typed.
    harness
        .keys("j right j j j e ctrl-u")
        .type_text("64")
        .keys("enter")
        .wait(0.2);
    assert!(
        harness.screen().contains("16 of 0–29"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    let Some(Command::Open(request)) = harness.sent.iter().find(|c| matches!(c, Command::Open(_)))
    else {
        panic!("nothing was opened: {:?}", harness.sent)
    };
    assert_eq!(
        (request.layer, request.fit.features, &request.model),
        (Some(16), 64, &None)
    );
    assert_eq!(harness.app.focus(), PaneId::Features);
}

#[test]
fn the_start_pane_refuses_with_the_engines_reason_and_names_bad_input() {
    let mut harness = Harness::with(100, 30, Profile::TrueColour, true);
    harness
        .keys("j j j j e ctrl-u")
        .type_text("400")
        .keys("enter")
        .wait(0.2);
    harness.keys("enter");
    assert!(!harness.sent.iter().any(|c| matches!(c, Command::Open(_))));
    assert!(
        harness.screen().contains("take 300 features or fewer"),
        "{}",
        harness.screen()
    );
    harness.keys("e ctrl-u").type_text("many").keys("enter");
    assert!(
        harness
            .screen()
            .contains("a whole number from 1, not 'many'"),
        "{}",
        harness.screen()
    );
}
