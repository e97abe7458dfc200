use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::{Job, Level, Reply};
use crate::ui::action::{ACTIONS, Action};
use crate::ui::keymap::Key;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

/// Sorted by share, so that the made-up features stand in the order of their ids; the cursor on the
/// first.
fn opened() -> Stage {
    let mut stage = Stage::opened(120, 36, Profile::TrueColour);
    stage.keys("s g");
    stage.sent.clear();
    stage
}

/// What goes to the engine.
fn commands(effects: &[Effect]) -> Vec<&Command> {
    fn command(effect: &Effect) -> &Command {
        match effect {
            Effect::Send(request) => &request.command,
            other => panic!("not for the engine: {other:?}"),
        }
    }
    effects.iter().map(command).collect()
}

/// The engine tells something that nothing here asked for.
fn told(event: Event) -> Msg {
    Msg::Engine(Box::new(Reply { to: None, event }))
}

fn inspected(stage: &Stage) -> Vec<usize> {
    stage
        .sent
        .iter()
        .filter_map(|c| {
            if let Command::Inspect(id) = c {
                Some(*id)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn the_first_snapshot_selects_the_purest_feature_and_asks_for_its_card_once() {
    let stage = Stage::opened(120, 36, Profile::TrueColour);
    let purity = |id: usize| {
        stage
            .app
            .world
            .row(id)
            .and_then(|r| r.purity.as_ref())
            .map_or(0.0, |p| p.share)
    };
    let selected = stage.app.world.selected.expect("one is selected");
    assert!((0..40).all(|id| purity(id) <= purity(selected)));
    assert_eq!(inspected(&stage), [selected]);
    assert!(stage.app.world.selected_card().is_some());
}

#[test]
fn until_the_cursor_is_moved_it_stays_on_the_first_line() {
    let mut stage = Stage::opened(120, 36, Profile::TrueColour);
    let purest = |stage: &mut Stage, id: usize| {
        let mut list = stage.demo.list(42, false);
        list.rows[id].purity.as_mut().expect("has a label").share = 1.5;
        stage.event(Event::Features(Arc::new(list)));
    };
    purest(&mut stage, 7);
    assert_eq!(stage.app.world.selected, Some(7));
    stage.keys("tab");
    purest(&mut stage, 9);
    assert_eq!(
        stage.app.world.selected,
        Some(7),
        "its contexts are being read"
    );
}

#[test]
fn a_new_snapshot_keeps_the_selected_feature_wherever_it_moves() {
    let mut stage = opened();
    stage.keys("j j j");
    assert_eq!(stage.app.world.selected, Some(3));
    let mut list = stage.demo.list(42, false);
    list.rows[3].share = 0.9;
    stage.event(Event::Features(Arc::new(list)));
    assert_eq!(stage.app.world.selected, Some(3));
    stage.keys("j");
    assert_eq!(stage.app.world.selected, Some(0), "the one below it now");
}

#[test]
fn scrolling_fast_asks_for_the_newest_card_alone() {
    let mut app = opened().app;
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.extend(app.update(Msg::Key(Key::parse("j").unwrap().event())));
    }
    let [Effect::Send(request)] = &sent[..] else {
        panic!("one question at a time: {sent:?}")
    };
    assert_eq!(request.command, Command::Inspect(1));
    let card = crate::ui::demo::Demo::default().card(1);
    let event = Event::Card(Box::new(card));
    let stale = app.update(told(event.clone()));
    assert!(stale.is_empty(), "that of no open question answers none");
    let to = Some(request.id);
    let next = app.update(Msg::Engine(Box::new(Reply { to, event })));
    assert_eq!(commands(&next), [&Command::Inspect(10)], "then the newest");
}

#[test]
fn while_fitting_the_card_is_refreshed_about_once_a_second() {
    let mut stage = opened();
    stage.wait(10.0).event(Event::Started(Job::Fit));
    let before = inspected(&stage).len();
    for sweep in 1..=40 {
        stage.wait(0.1);
        let list = stage.demo.list(sweep, false);
        stage.event(Event::Features(Arc::new(list)));
    }
    let asked = inspected(&stage).len() - before;
    assert!((3..=5).contains(&asked), "{asked} times in 4 s");
}

#[test]
fn back_leads_along_the_way_that_was_come() {
    let mut stage = opened();
    stage.keys("j enter enter n enter");
    let neuron = stage.app.world.open_neuron.expect("a neuron is open");
    assert_eq!(stage.app.focus(), PaneId::Feature);
    assert!(stage.screen().contains(&format!("#1 › Neuron {neuron}")));
    stage.keys("enter");
    assert!(stage.app.world.open_neuron.is_none());
    let there = stage.app.world.selected;
    assert_ne!(there, Some(1));
    stage.keys("esc");
    assert_eq!(stage.app.world.open_neuron, Some(neuron));
    stage.keys("esc");
    assert_eq!(
        (stage.app.world.open_neuron, stage.app.world.selected),
        (None, Some(1))
    );
    stage.keys("esc");
    assert_eq!(stage.app.focus(), PaneId::Contexts);
    stage.keys("esc");
    assert_eq!(stage.app.focus(), PaneId::Features);
}

#[test]
fn ctrl_c_cancels_the_job_first_and_quits_second() {
    let mut app = opened().app;
    app.update(told(Event::Started(Job::Fit)));
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
    app.update(told(Event::Started(Job::Collect)));
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

#[test]
fn with_two_questions_open_a_refusal_reaches_the_pane_that_asked_and_the_other_waits_on() {
    let labels = |c: &Command| matches!(c, Command::Labels);
    let tree = |c: &Command| matches!(c, Command::Tree(..));
    for second_is_refused in [true, false] {
        let mut stage = opened();
        stage.answers = false;
        stage.keys("M 2").wait(0.5);
        assert_eq!(
            stage.sent.iter().filter(|c| labels(c) || tree(c)).count(),
            2
        );
        let (refused, why) = match second_is_refused {
            true => (tree as fn(&Command) -> bool, "no tree of these"),
            false => (labels as fn(&Command) -> bool, "no labels of these"),
        };
        // The toast says it too, for a while.
        stage.refuse(refused, why).wait(30.0);
        let on_tree = stage.screen();
        stage.keys("1 M");
        let on_labels = stage.screen();
        assert_eq!(
            (on_tree.contains(why), on_labels.contains(why)),
            (second_is_refused, !second_is_refused),
            "{on_tree}\n{on_labels}"
        );
        // The answer of the other is still taken.
        let request = stage.sent.iter().find(|c| **c == Command::Labels);
        assert!(request.is_some());
        if second_is_refused {
            let matrix = crate::analysis::LabelMatrix {
                labels: vec!["weekday".to_owned()],
                base: vec![0.1],
                shares: vec![vec![0.5]; 40],
            };
            stage.reply(Event::Labels(Arc::new(matrix)));
            assert!(stage.screen().contains("weekday"), "{}", stage.screen());
        } else {
            let answer = Event::Tree(Arc::new(stage.demo.tree()));
            stage.reply(answer).keys("2").wait(0.5);
            assert!(!stage.screen().contains("Comparing the neurons"));
        }
    }
}

#[test]
fn a_disabled_action_says_why() {
    let mut stage = Stage::new(120, 36, Profile::TrueColour);
    stage.keys("p");
    assert!(
        stage.screen().contains("no fit is running"),
        "{}",
        stage.screen()
    );
    stage.keys("r");
    assert!(
        stage.screen().contains("no features yet"),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_filter_finds_tokens_names_and_labels_and_esc_clears_it() {
    let mut stage = opened();
    stage.keys("/").type_text("counting");
    assert_eq!(stage.app.world.selected, Some(3), "by name");
    stage.keys("esc /").type_text("weather stor");
    let shown = stage.app.world.selected.expect("one is found");
    assert_eq!(shown % 12, 11, "by label and token");
    stage.keys("enter esc");
    assert!(stage.screen().contains("Features 40"));
    assert_eq!(
        stage.app.world.selected,
        Some(shown),
        "clearing keeps the selection"
    );
}

#[test]
fn a_name_is_sent_and_shown() {
    let mut stage = opened();
    stage.keys("r").type_text("weekdays").keys("enter");
    assert!(
        stage
            .sent
            .iter()
            .any(|c| matches!(c, Command::Note(n) if n.id == 0 && n.line == "weekdays"))
    );
    assert!(stage.screen().contains("Feature #0 weekdays"));
}

#[test]
fn the_session_comes_back() {
    let mut stage = opened();
    stage.keys("j j s v tab w");
    let session = stage.app.session();
    let mut again = Stage::new(120, 36, Profile::TrueColour);
    let mut study = again.demo.study();
    study.session = Some(session.clone());
    again.event(Event::Study(Box::new(study)));
    let list = again.demo.list(41, true);
    again.event(Event::Features(Arc::new(list)));
    assert_eq!(again.app.session(), session);
    assert_eq!(again.app.focus(), PaneId::Contexts);
    assert_eq!(inspected(&again), [2]);
}

/// A stage opened on `session`, with `fit` coming on show.
fn returned(session: serde_json::Value, fit: Option<&str>) -> Stage {
    let mut stage = Stage::new(120, 36, Profile::TrueColour);
    let mut study = stage.demo.study();
    study.session = Some(serde_json::from_str(&session.to_string()).unwrap());
    stage.event(Event::Study(Box::new(study)));
    let mut list = stage.demo.list(41, true);
    if let Some(fit) = fit {
        list.fit = fit.to_owned();
    }
    stage.event(Event::Features(Arc::new(list)));
    stage
}

#[test]
fn marks_the_way_and_the_open_neuron_come_back_with_their_fit_alone() {
    let mut stage = opened();
    stage.keys("j space j j enter enter n enter");
    let neuron = stage.app.world.open_neuron.expect("a neuron is open");
    let session = stage.app.session();
    let mut same = returned(session.clone(), None);
    assert_eq!(same.app.session(), session);
    assert!(
        same.sent.contains(&Command::Neuron(neuron)),
        "it is asked for again"
    );
    assert_eq!(same.app.world.marked, [1]);
    same.keys("esc");
    assert_eq!(
        (same.app.world.open_neuron, same.app.world.selected),
        (None, Some(4))
    );
    let other = returned(session, Some("k40-other"));
    assert_eq!(
        (
            other.app.world.open_neuron,
            other.app.world.marked.len(),
            other.app.trail.len()
        ),
        (None, 0, 0)
    );
    assert_ne!(
        other.app.world.selected,
        Some(4),
        "#4 is another feature there"
    );
}

#[test]
fn another_fit_on_show_is_read_from_its_own_first_line() {
    let mut stage = opened();
    stage.keys("j j j space enter enter");
    let mut list = stage.demo.list(41, true);
    list.fit = "k40-other".to_owned();
    stage.event(Event::Features(Arc::new(list)));
    assert_eq!(
        (stage.app.world.selected, stage.app.world.marked.len()),
        (Some(0), 0)
    );
    assert!(
        stage.app.trail.is_empty(),
        "the way led along features of the other fit"
    );
}

#[test]
fn a_fresh_start_shows_the_newest_fit() {
    let mut stage = Stage::new(120, 36, Profile::TrueColour);
    stage.app.fresh = true;
    let mut study = stage.demo.study();
    let newest = study.fits.last().expect("there are fits").name.clone();
    study.session = Some(serde_json::json!({ "fit": "an-older-one" }));
    stage.event(Event::Study(Box::new(study)));
    assert!(
        stage.sent.contains(&Command::ShowFit(newest)),
        "{:?}",
        stage.sent
    );
}

#[test]
fn what_is_copied_can_be_text_json_or_markdown() {
    let mut stage = opened();
    let mut copied = |keys: &str| {
        stage.effects.clear();
        stage.keys(keys);
        match &stage.effects[..] {
            [Effect::Copy(text, _)] => text.clone(),
            other => panic!("{keys}: {other:?}"),
        }
    };
    for pane in [
        "1",
        "1 enter enter",
        "1 enter enter n enter",
        "1 M",
        "g space space C",
    ] {
        let [text, json, markdown] =
            ["t", "j", "m"].map(|form| copied(&format!("1 esc {pane} y {form}")));
        assert!(
            serde_json::from_str::<serde_json::Value>(&json).is_ok(),
            "{pane}: {json}"
        );
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_err() && !text.is_empty(),
            "{pane}: {text}"
        );
        assert!(markdown.contains("| ---"), "{pane}: {markdown}");
    }
}

#[test]
fn a_session_of_nonsense_is_left_aside() {
    for session in [
        serde_json::json!(17),
        serde_json::json!({"pane": "Moon", "feature": -3, "panes": {"Features": 4}}),
    ] {
        let mut stage = Stage::new(120, 36, Profile::TrueColour);
        let mut study = stage.demo.study();
        study.session = Some(session);
        stage.event(Event::Study(Box::new(study)));
        assert_eq!(stage.app.focus(), PaneId::Features);
    }
}

#[test]
fn pausing_turns_into_going_on() {
    let mut stage = opened();
    stage.event(Event::Started(Job::Fit)).keys("p p");
    let tail = &stage.sent[stage.sent.len() - 2..];
    assert_eq!(tail, [Command::Pause, Command::Resume]);
}

#[test]
fn the_start_pane_runs_what_it_shows_and_asks_what_it_takes() {
    let mut stage = Stage::with(100, 30, Profile::TrueColour, true);
    stage.wait(0.01);
    assert!(stage.sent.iter().any(|c| matches!(c, Command::Estimate(_))));
    // To the layer, 15 → 16; to the features, typed.
    stage
        .keys("j right j j j e ctrl-u")
        .type_text("64")
        .keys("enter")
        .wait(0.2);
    assert!(stage.screen().contains("16 of 0–29"), "{}", stage.screen());
    stage.keys("enter");
    let Some(Command::Open(request)) = stage.sent.iter().find(|c| matches!(c, Command::Open(_)))
    else {
        panic!("nothing was opened: {:?}", stage.sent)
    };
    assert_eq!(
        (request.layer, request.fit.features, &request.model),
        (Some(16), 64, &None)
    );
    assert_eq!(stage.app.focus(), PaneId::Features);
}

#[test]
fn the_start_pane_refuses_with_the_engines_reason_and_names_bad_input() {
    let mut stage = Stage::with(100, 30, Profile::TrueColour, true);
    stage
        .keys("j j j j e ctrl-u")
        .type_text("400")
        .keys("enter")
        .wait(0.2);
    stage.keys("enter");
    assert!(!stage.sent.iter().any(|c| matches!(c, Command::Open(_))));
    assert!(
        stage.screen().contains("take 300 features or fewer"),
        "{}",
        stage.screen()
    );
    stage.keys("e ctrl-u").type_text("many").keys("enter");
    assert!(
        stage.screen().contains("a whole number from 1, not 'many'"),
        "{}",
        stage.screen()
    );
}

#[test]
fn toasts_go_away_by_themselves() {
    let mut stage = opened();
    stage.event(Event::Refused("there is no feature 4000".to_owned()));
    assert!(stage.screen().contains("there is no feature 4000"));
    let until = stage.app.deadline().expect("a toast has its time");
    stage.wait(until.as_secs_f64() + 0.1);
    assert!(!stage.screen().contains("there is no feature 4000"));
    assert_eq!(stage.app.deadline(), None, "nothing wakes the loop");
}

#[test]
fn esc_pressed_quickly_before_a_key_is_not_alt() {
    let mut stage = opened();
    stage.keys("? alt-j");
    assert!(stage.app.dialog.is_none());
    assert_eq!(stage.app.world.selected, Some(1));
}

#[test]
fn every_action_can_be_pressed_in_every_pane_without_a_study_and_with_one() {
    for stage in [&mut Stage::new(90, 28, Profile::Indexed), &mut opened()] {
        for pane in PaneId::ALL {
            for info in ACTIONS
                .iter()
                .filter(|i| i.lives_in(pane) && i.action != crate::ui::action::Action::Cancel)
            {
                stage.app.dialog = None;
                stage.app.closing = None;
                stage.app.focus = pane;
                let effects = stage.app.perform(info.action);
                stage.settle(effects);
                let _ = stage.screen();
            }
        }
    }
}

fn snapshot(name: &str, stage: &Stage) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, stage.screen()));
}

#[test]
fn looks() {
    for (width, height) in [(120, 36), (80, 24), (40, 12)] {
        let mut stage = Stage::opened(width, height, Profile::TrueColour);
        let at = |what: &str| format!("{what}-{width}x{height}");
        snapshot(&at("features"), &stage);
        stage.keys("enter");
        snapshot(&at("contexts"), &stage);
        stage.keys("enter");
        snapshot(&at("feature"), &stage);
        stage.keys("n enter");
        snapshot(&at("neuron"), &stage);
        stage.keys("5");
        snapshot(&at("fit"), &stage);
        let mut start = Stage::with(width, height, Profile::TrueColour, true);
        start.wait(0.2);
        snapshot(&at("start"), &start);
    }
}

#[test]
fn looks_in_every_profile() {
    for (name, profile) in [
        ("truecolour", Profile::TrueColour),
        ("indexed", Profile::Indexed),
        ("ansi", Profile::Ansi),
        ("mono", Profile::Mono),
    ] {
        let mut stage = Stage::opened(80, 24, profile);
        stage.keys("enter");
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(format!("styles-{name}"), stage.styles()));
    }
}

#[test]
fn in_ascii_nothing_else_is_drawn() {
    let mut stage = opened();
    stage.app.theme.ascii = true;
    for keys in ["enter", "w", "enter", "5", "?", "esc", "6"] {
        stage.keys(keys);
        let screen = stage.screen();
        assert!(screen.is_ascii(), "{screen}");
    }
}

#[test]
fn a_note_stays_in_the_header_until_it_is_waved_away() {
    let mut stage = opened();
    stage.app.notes = vec!["this build uses the CPU, and the machine has a GPU".to_owned()];
    assert!(stage.screen().contains("! this build uses the CPU"));
    stage.keys("esc");
    assert!(!stage.screen().contains("! this build uses the CPU"));
}

#[test]
fn looks_while_working() {
    let mut stage = Stage::new(80, 24, Profile::TrueColour);
    let mut study = stage.demo.study();
    study.fits.clear();
    stage
        .event(Event::Model(Box::new(crate::ui::demo::Demo::model())))
        .event(Event::Study(Box::new(study)));
    stage.event(crate::ui::demo::Demo::progress(
        Job::Collect,
        "collecting",
        10_712,
        17_204,
        "tokens",
    ));
    snapshot("collecting-80x24", &stage);
    stage.keys("ctrl-c");
    snapshot("cancelling-80x24", &stage);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_keys_make_it_panic(
        sizes in proptest::collection::vec((0u16..=200, 0u16..=200), 1..4),
        keys in proptest::collection::vec(0usize..1000, 0..60),
        mono: bool,
        opened: bool,
    ) {
        let profile = if mono { Profile::Mono } else { Profile::TrueColour };
        let (width, height) = sizes[0];
        let mut stage =
            if opened { Stage::opened(width, height, profile) } else { Stage::with(width, height, profile, true) };
        let spelt: Vec<&str> = ACTIONS.iter().flat_map(|i| i.keys).copied().filter(|k| *k != "ctrl-c").collect();
        for (i, key) in keys.iter().enumerate() {
            if let Some((w, h)) = sizes.get(i / 10) {
                stage.msg(Msg::Resize(*w, *h));
            }
            match key % 7 {
                0 => { stage.wait(0.3); }
                1 => { stage.type_text("日 a"); }
                2 => {
                    let at = crossterm::event::MouseEvent {
                        kind: crossterm::event::MouseEventKind::Down(crossterm::event::MouseButton::Left),
                        column: (*key as u16 * 7) % stage.app.size().0.max(1),
                        row: (*key as u16 * 3) % stage.app.size().1.max(1),
                        modifiers: crossterm::event::KeyModifiers::NONE,
                    };
                    stage.msg(Msg::Mouse(at));
                }
                _ => { stage.keys(spelt[key % spelt.len()]); }
            }
            let _ = stage.screen();
        }
        prop_assert!(stage.app.deadline().is_none_or(|at| at < Duration::from_secs(3600)));
    }
}

#[test]
fn a_note_is_of_what_was_on_show_when_it_was_asked_for() {
    let mut stage = opened();
    let dir = stage.app.world.study.as_ref().unwrap().dir.clone();
    let (fit, id) = (
        stage.app.world.fit_name().unwrap().to_owned(),
        stage.app.world.selected.unwrap(),
    );
    stage.keys("r").event(Event::Closed);
    stage.type_text(" kept").keys("enter");
    let noted = stage.sent.iter().find_map(|c| {
        if let Command::Note(note) = c {
            Some(note.clone())
        } else {
            None
        }
    });
    let noted = noted.expect("closing the study drops no line");
    assert_eq!((noted.study, noted.fit, noted.id), (dir, fit, id));
    assert!(noted.line.ends_with("kept"), "{}", noted.line);
}

#[test]
fn an_import_that_was_cut_short_is_not_offered_to_go_on() {
    let mut stage = opened();
    let mut study = stage.demo.study();
    study.unfinished = Some(crate::study::CollectState {
        samples: 3,
        of: 10,
        rows: 3,
    });
    study.model = None;
    stage.event(Event::Study(Box::new(study.clone())));
    let sent = stage.sent.len();
    let effects = stage.app.perform(Action::Continue);
    assert!(effects.is_empty() && stage.sent.len() == sent);
    let why = stage.app.refusal(Action::Continue).unwrap_or_default();
    assert!(why.contains("mlpeek import"), "{why}");
    study.model = Some("a model".to_owned());
    stage.event(Event::Study(Box::new(study)));
    assert_eq!(stage.app.refusal(Action::Continue), None);
}
