//! What is shown while a fit runs: cards that take their time, and no number of the fit before.

use super::*;

#[test]
fn a_card_that_takes_longer_than_many_snapshots_is_shown_and_says_of_which_sweep() {
    let mut harness = opened();
    harness.answers = false;
    harness.keys("j").event(Event::Started(Job::Fit));
    let before = inspected_ids(&harness).len();
    for sweep in 42..=60 {
        let list = harness.engine.list(sweep, false);
        harness.wait(2.0).event(Event::Features(Arc::new(list)));
    }
    assert_eq!(
        inspected_ids(&harness).len(),
        before,
        "one read is finished before another is asked for"
    );
    let card = harness.engine.card(1);
    harness.reply(Event::Card(Box::new(card)));
    assert!(
        harness.find("of sweep 41").is_some(),
        "{}",
        harness.screen()
    );
    assert_eq!(inspected_ids(&harness).len(), before + 1, "then the newest");
    let card = crate::analysis::FeatureCard {
        sweep: 60,
        ..harness.engine.card(1)
    };
    harness.reply(Event::Card(Box::new(card)));
    assert!(harness.find("of sweep").is_none(), "{}", harness.screen());
}

#[test]
fn a_card_of_the_fit_before_is_not_shown_as_one_of_this() {
    let mut harness = opened();
    harness.keys("j");
    harness.answers = false;
    harness.keys("j");
    let list = crate::engine::FeatureList {
        fit: "k600".to_owned(),
        ..harness.engine.list(1, false)
    };
    harness.event(Event::Features(Arc::new(list)));
    let card = harness.engine.card(2);
    harness.reply(Event::Card(Box::new(card)));
    assert!(harness.app.world.card.is_none());
}

#[test]
fn a_fit_that_is_being_started_has_no_numbers_of_the_one_before() {
    let mut harness = opened();
    harness.keys("5").event(Event::Started(Job::Fit));
    harness.event(Event::FitBegun("k600".to_owned()));
    harness.event(crate::ui::fake_engine::FakeEngine::progress(
        Job::Fit,
        "k-means start 2/3",
        2,
        10,
        "rows",
    ));
    let screen = harness.screen();
    for said in ["Fit k600", "starting k600", "k-means start 2/3: 5.3 s left"] {
        assert!(screen.contains(said), "{said}: {screen}");
    }
    for other in ["explained", "sweep 41", "Fit bcd"] {
        assert!(!screen.contains(other), "{other}: {screen}");
    }
    harness.event(Event::Sweep(crate::ui::fake_engine::FakeEngine::sweep(1)));
    let screen = harness.screen();
    assert!(
        screen.contains("fitting · sweep 1") && !screen.contains("explained"),
        "{screen}"
    );
}

#[test]
fn a_field_that_is_none_and_what_sorts_by_the_answer_are_told() {
    let mut harness = opened();
    harness.keys("/").type_text("purty>60");
    assert!(
        harness.find("no field purty").is_some(),
        "{}",
        harness.screen()
    );
    harness.keys("esc /").type_text("fires:Sunday").wait(1.0);
    assert!(
        harness.find("by the answer").is_some(),
        "{}",
        harness.screen()
    );
    assert!(harness.find("pure▾").is_none(), "{}", harness.screen());
}
