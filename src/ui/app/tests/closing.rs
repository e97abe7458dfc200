//! Cancelling, quitting, and an engine that ends.

use super::*;

#[test]
fn ctrl_c_cancels_the_job_first_and_quits_second() {
    let mut app = opened().app;
    app.update(engine_event(Event::Started(Job::Fit)));
    let ctrl_c = || Msg::Key(Key::parse("ctrl-c").unwrap().event());
    let first = app.update(ctrl_c());
    assert_eq!(commands(&first), [&Command::Cancel(Job::Fit)]);
    let second = app.update(ctrl_c());
    assert!(
        matches!(
            commands(&second)[..],
            [Command::SaveSession(_), Command::Shutdown]
        ),
        "{second:?}"
    );
    assert_eq!(
        app.update(ctrl_c()),
        [Effect::Quit],
        "a third does not wait for the engine"
    );
}

#[test]
fn quitting_asks_while_a_job_runs_and_waits_for_the_engine() {
    let mut app = opened().app;
    app.update(engine_event(Event::Started(Job::Collect)));
    let key = |k: &str| Msg::Key(Key::parse(k).unwrap().event());
    assert!(app.update(key("q")).is_empty());
    assert!(app.dialog.is_some());
    app.update(key("esc"));
    assert!(app.dialog.is_none());
    app.update(key("q"));
    let effects = app.update(key("enter"));
    assert!(commands(&effects).contains(&&Command::Shutdown));
    assert_eq!(app.update(Msg::EngineGone), [Effect::Quit]);
}

#[test]
fn a_signal_saves_and_ends() {
    let mut app = opened().app;
    let effects = app.update(Msg::Terminate);
    assert!(
        matches!(commands(&effects)[..], [Command::SaveSession(s), Command::Shutdown]
        if s["feature"] == 0)
    );
}

#[test]
fn an_engine_that_dies_is_reported_and_quitting_still_works() {
    let mut app = opened().app;
    assert!(app.update(Msg::EngineGone).is_empty());
    assert!(app.toasts.iter().any(|t| t.level == Level::Error));
    assert_eq!(
        app.update(Msg::Key(Key::parse("q").unwrap().event())),
        [Effect::Quit]
    );
}
