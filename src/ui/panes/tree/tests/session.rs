//! What the Tree pane searches for, and what of it comes back from one run to the next.

use super::*;

#[test]
fn search_jumps_reveals_and_goes_round() {
    let mut harness = harness(80, 24, 400);
    harness.keys("/").type_text("scarlet");
    assert!(
        harness.screen().contains("34 features"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    let first = harness.app.world.selected.unwrap();
    assert_eq!(first % 12, 2);
    harness.keys("n");
    let second = harness.app.world.selected.unwrap();
    assert!(second != first && second % 12 == 2);
    harness.keys("N");
    assert_eq!(harness.app.world.selected, Some(first));
    harness.keys("esc");
    assert!(!harness.screen().contains("/ scarlet"));
}

#[test]
fn search_goes_to_a_name_or_a_token_before_a_label() {
    let mut harness = harness(80, 24, 400);
    // Every twelfth feature has the label; one of another label is called so.
    harness
        .engine
        .names
        .push((187, "months of the year".to_owned()));
    let list = harness.engine.list(42, true);
    harness.event(Event::Features(Arc::new(list))).wait(0.2);
    harness.keys("/").type_text("months").keys("enter");
    assert_eq!(harness.app.world.selected, Some(187));
    harness.keys("n");
    assert_eq!(harness.app.world.selected.map(|id| id % 12), Some(1));
}

#[test]
fn folds_and_cursor_are_restored() {
    let mut harness = harness(120, 36, 40);
    harness.keys("< <");
    let screen = harness.screen();
    let session = harness.app.session();
    let mut other = Harness::new(120, 36, Profile::TrueColour);
    let mut study = other.engine.study();
    study.session = Some(session);
    other.event(Event::Model(Box::new(
        crate::ui::fake_engine::FakeEngine::model(),
    )));
    other.event(Event::Study(Box::new(study)));
    let list = other.engine.list(41, true);
    other.event(Event::Features(Arc::new(list)));
    other.keys("2").wait(0.2);
    let tree = |s: &str| s.lines().skip(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(tree(&other.screen()), tree(&screen));
}

#[test]
fn measure_search_and_levels_are_remembered_and_folds_only_for_their_fit() {
    let mut harness = harness(120, 36, 40);
    harness.keys("K O < j j /").type_text("a").keys("enter");
    let cursor = |harness: &Harness| harness.app.session()["panes"]["Tree"].clone();
    let left = cursor(&harness);
    assert!(
        left["cursor"].is_u64() && left["linkage"] == "complete" && left["search"] == "a",
        "{left}"
    );
    harness.keys("t K O j enter j");
    let session = harness.app.session();
    let opened = |fit: Option<&str>| {
        let mut other = Harness::new(120, 36, Profile::TrueColour);
        let mut study = other.engine.study();
        study.session = Some(session.clone());
        other.event(Event::Study(Box::new(study)));
        let mut list = other.engine.list(41, true);
        list.fit = fit.map_or(list.fit, str::to_owned);
        other.event(Event::Features(Arc::new(list))).wait(0.2);
        other
    };
    let again = opened(None);
    assert!(
        again
            .sent
            .contains(&Command::Levels(Growth::Fixed, true, Vec::new())),
        "{:?}",
        again.sent
    );
    assert!(
        again
            .sent
            .iter()
            .any(|c| matches!(c, Command::Tree(Overlap::Jaccard, Linkage::Complete)))
    );
    assert_eq!(
        again.app.session()["panes"]["Tree"],
        session["panes"]["Tree"]
    );
    let elsewhere = opened(Some("k40-other"));
    assert_ne!(cursor(&elsewhere)["fit"], session["panes"]["Tree"]["fit"]);
    assert_ne!(
        cursor(&elsewhere)["fold_height"],
        session["panes"]["Tree"]["fold_height"]
    );
}
