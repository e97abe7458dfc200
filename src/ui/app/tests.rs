mod closing;
mod running_fit;
mod session;
mod start;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::{Job, Level, Reply};
use crate::ui::action::{ACTIONS, Action};
use crate::ui::harness::Harness;
use crate::ui::keymap::Key;
use crate::ui::theme::Profile;

/// Sorted by share, so that the made-up features stand in the order of their ids; the cursor on the
/// first.
fn opened() -> Harness {
    let mut harness = Harness::opened(120, 36, Profile::TrueColour);
    harness.keys("s g");
    harness.sent.clear();
    harness
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
fn engine_event(event: Event) -> Msg {
    Msg::Engine(Box::new(Reply { to: None, event }))
}

fn inspected_ids(harness: &Harness) -> Vec<usize> {
    harness
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
    let harness = Harness::opened(120, 36, Profile::TrueColour);
    let purity = |id: usize| {
        harness
            .app
            .world
            .row(id)
            .and_then(|r| r.purity.as_ref())
            .map_or(0.0, |p| p.share)
    };
    let selected = harness.app.world.selected.expect("one is selected");
    assert!((0..40).all(|id| purity(id) <= purity(selected)));
    assert_eq!(inspected_ids(&harness), [selected]);
    assert!(harness.app.world.selected_card().is_some());
}

#[test]
fn until_the_cursor_is_moved_it_stays_on_the_first_line() {
    let mut harness = Harness::opened(120, 36, Profile::TrueColour);
    let purest = |harness: &mut Harness, id: usize| {
        let mut list = harness.engine.list(42, false);
        list.rows[id].purity.as_mut().expect("has a label").share = 1.5;
        harness.event(Event::Features(Arc::new(list)));
    };
    purest(&mut harness, 7);
    assert_eq!(harness.app.world.selected, Some(7));
    harness.keys("tab");
    purest(&mut harness, 9);
    assert_eq!(
        harness.app.world.selected,
        Some(7),
        "its contexts are being read"
    );
}

#[test]
fn a_new_snapshot_keeps_the_selected_feature_wherever_it_moves() {
    let mut harness = opened();
    harness.keys("j j j");
    assert_eq!(harness.app.world.selected, Some(3));
    let mut list = harness.engine.list(42, false);
    list.rows[3].share = 0.9;
    harness.event(Event::Features(Arc::new(list)));
    assert_eq!(harness.app.world.selected, Some(3));
    harness.keys("j");
    assert_eq!(harness.app.world.selected, Some(0), "the one below it now");
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
    let card = crate::ui::fake_engine::FakeEngine::default().card(1);
    let event = Event::Card(Box::new(card));
    let stale = app.update(engine_event(event.clone()));
    assert!(stale.is_empty(), "that of no open question answers none");
    let to = Some(request.id);
    let next = app.update(Msg::Engine(Box::new(Reply { to, event })));
    assert_eq!(commands(&next), [&Command::Inspect(10)], "then the newest");
}

#[test]
fn while_fitting_the_card_is_refreshed_about_once_a_second() {
    let mut harness = opened();
    harness.wait(10.0).event(Event::Started(Job::Fit));
    let before = inspected_ids(&harness).len();
    for sweep in 1..=40 {
        harness.wait(0.1);
        let list = harness.engine.list(sweep, false);
        harness.event(Event::Features(Arc::new(list)));
    }
    let asked = inspected_ids(&harness).len() - before;
    assert!((3..=5).contains(&asked), "{asked} times in 4 s");
}

#[test]
fn back_returns_along_the_trail() {
    let mut harness = opened();
    harness.keys("j enter enter n enter");
    let neuron = harness.app.world.open_neuron.expect("a neuron is open");
    assert_eq!(harness.app.focus(), PaneId::Feature);
    assert!(harness.screen().contains(&format!("#1 › Neuron {neuron}")));
    harness.keys("enter");
    assert!(harness.app.world.open_neuron.is_none());
    let selected = harness.app.world.selected;
    assert_ne!(selected, Some(1));
    harness.keys("esc");
    assert_eq!(harness.app.world.open_neuron, Some(neuron));
    harness.keys("esc");
    assert_eq!(
        (harness.app.world.open_neuron, harness.app.world.selected),
        (None, Some(1))
    );
    harness.keys("esc");
    assert_eq!(harness.app.focus(), PaneId::Contexts);
    harness.keys("esc");
    assert_eq!(harness.app.focus(), PaneId::Features);
}

#[test]
fn with_two_questions_open_a_refusal_reaches_the_pane_that_asked_and_the_other_waits_on() {
    let labels = |c: &Command| matches!(c, Command::Labels);
    let tree = |c: &Command| matches!(c, Command::Tree(..));
    for second_is_refused in [true, false] {
        let mut harness = opened();
        harness.answers = false;
        harness.keys("M 2").wait(0.5);
        assert_eq!(
            harness.sent.iter().filter(|c| labels(c) || tree(c)).count(),
            2
        );
        let (refused, why) = match second_is_refused {
            true => (tree as fn(&Command) -> bool, "no tree of these"),
            false => (labels as fn(&Command) -> bool, "no labels of these"),
        };
        // The toast says it too, for a while.
        harness.refuse(refused, why).wait(30.0);
        let on_tree = harness.screen();
        harness.keys("1 M");
        let on_labels = harness.screen();
        assert_eq!(
            (on_tree.contains(why), on_labels.contains(why)),
            (second_is_refused, !second_is_refused),
            "{on_tree}\n{on_labels}"
        );
        // The answer of the other is still taken.
        let request = harness.sent.iter().find(|c| **c == Command::Labels);
        assert!(request.is_some());
        if second_is_refused {
            let matrix = crate::analysis::LabelMatrix {
                labels: vec!["weekday".to_owned()],
                base: vec![0.1],
                shares: vec![vec![0.5]; 40],
            };
            harness.reply(Event::Labels(Arc::new(matrix)));
            assert!(harness.screen().contains("weekday"), "{}", harness.screen());
        } else {
            let answer = Event::Tree(Arc::new(harness.engine.tree()));
            harness.reply(answer).keys("2").wait(0.5);
            assert!(!harness.screen().contains("Comparing the neurons"));
        }
    }
}

#[test]
fn a_disabled_action_says_why() {
    let mut harness = Harness::new(120, 36, Profile::TrueColour);
    harness.keys("p");
    assert!(
        harness.screen().contains("no fit is running"),
        "{}",
        harness.screen()
    );
    harness.keys("r");
    assert!(
        harness.screen().contains("no features yet"),
        "{}",
        harness.screen()
    );
}

#[test]
fn the_filter_finds_tokens_names_and_labels_and_esc_clears_it() {
    let mut harness = opened();
    harness.keys("/").type_text("counting");
    assert_eq!(harness.app.world.selected, Some(3), "by name");
    harness.keys("esc /").type_text("weather stor");
    let shown = harness.app.world.selected.expect("one is found");
    assert_eq!(shown % 12, 11, "by label and token");
    harness.keys("enter esc");
    assert!(harness.screen().contains("Features 40"));
    assert_eq!(
        harness.app.world.selected,
        Some(shown),
        "clearing keeps the selection"
    );
}

#[test]
fn a_name_is_sent_and_shown() {
    let mut harness = opened();
    harness.keys("r").type_text("weekdays").keys("enter");
    assert!(
        harness
            .sent
            .iter()
            .any(|c| matches!(c, Command::Note(n) if n.id == 0 && n.line == "weekdays"))
    );
    assert!(harness.screen().contains("Feature #0 weekdays"));
}

#[test]
fn what_is_copied_can_be_text_json_or_markdown() {
    let mut harness = opened();
    let mut copied = |keys: &str| {
        harness.effects.clear();
        harness.keys(keys);
        match &harness.effects[..] {
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
fn the_pause_key_resumes_a_paused_fit() {
    let mut harness = opened();
    harness.event(Event::Started(Job::Fit)).keys("p p");
    let tail = &harness.sent[harness.sent.len() - 2..];
    assert_eq!(tail, [Command::Pause, Command::Resume]);
}

#[test]
fn toasts_go_away_by_themselves() {
    let mut harness = opened();
    harness.event(Event::Refused("there is no feature 4000".to_owned()));
    assert!(harness.screen().contains("there is no feature 4000"));
    let until = harness.app.deadline().expect("a toast has its time");
    harness.wait(until.as_secs_f64() + 0.1);
    assert!(!harness.screen().contains("there is no feature 4000"));
    assert_eq!(harness.app.deadline(), None, "nothing wakes the loop");
}

#[test]
fn esc_pressed_quickly_before_a_key_is_not_alt() {
    let mut harness = opened();
    harness.keys("? alt-j");
    assert!(harness.app.dialog.is_none());
    assert_eq!(harness.app.world.selected, Some(1));
}

#[test]
fn every_action_can_be_pressed_in_every_pane_without_a_study_and_with_one() {
    for harness in [&mut Harness::new(90, 28, Profile::Indexed), &mut opened()] {
        for pane in PaneId::ALL {
            for info in ACTIONS
                .iter()
                .filter(|i| i.lives_in(pane) && i.action != crate::ui::action::Action::Cancel)
            {
                harness.app.dialog = None;
                harness.app.closing = None;
                harness.app.focus = pane;
                let effects = harness.app.perform(info.action);
                harness.settle(effects);
                let _ = harness.screen();
            }
        }
    }
}

fn snapshot(name: &str, harness: &Harness) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, harness.screen()));
}

#[test]
fn every_pane_at_every_size() {
    for (width, height) in [(120, 36), (80, 24), (40, 12)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        let at = |what: &str| format!("{what}-{width}x{height}");
        snapshot(&at("features"), &harness);
        harness.keys("enter");
        snapshot(&at("contexts"), &harness);
        harness.keys("enter");
        snapshot(&at("feature"), &harness);
        harness.keys("n enter");
        snapshot(&at("neuron"), &harness);
        harness.keys("5");
        snapshot(&at("fit"), &harness);
        let mut start = Harness::with(width, height, Profile::TrueColour, true);
        start.wait(0.2);
        snapshot(&at("start"), &start);
    }
}

#[test]
fn styles_in_every_profile() {
    for (name, profile) in [
        ("truecolour", Profile::TrueColour),
        ("indexed", Profile::Indexed),
        ("ansi", Profile::Ansi),
        ("mono", Profile::Mono),
    ] {
        let mut harness = Harness::opened(80, 24, profile);
        harness.keys("enter");
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(format!("styles-{name}"), harness.styles()));
    }
}

#[test]
fn in_ascii_nothing_else_is_drawn() {
    let mut harness = opened();
    harness.app.theme.ascii = true;
    for keys in ["enter", "w", "enter", "5", "?", "esc", "6"] {
        harness.keys(keys);
        let screen = harness.screen();
        assert!(screen.is_ascii(), "{screen}");
    }
}

#[test]
fn a_note_stays_in_the_header_until_it_is_dismissed() {
    let mut harness = opened();
    harness.app.notes = vec!["this build uses the CPU, and the machine has a GPU".to_owned()];
    assert!(harness.screen().contains("! this build uses the CPU"));
    harness.keys("esc");
    assert!(!harness.screen().contains("! this build uses the CPU"));
}

#[test]
fn a_job_that_runs_is_shown() {
    let mut harness = Harness::new(80, 24, Profile::TrueColour);
    let mut study = harness.engine.study();
    study.fits.clear();
    harness
        .event(Event::Model(Box::new(
            crate::ui::fake_engine::FakeEngine::model(),
        )))
        .event(Event::Study(Box::new(study)));
    harness.event(crate::ui::fake_engine::FakeEngine::progress(
        Job::Collect,
        "collecting",
        10_712,
        17_204,
        "tokens",
    ));
    snapshot("collecting-80x24", &harness);
    harness.keys("ctrl-c");
    snapshot("cancelling-80x24", &harness);
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
        let mut harness =
            if opened { Harness::opened(width, height, profile) } else { Harness::with(width, height, profile, true) };
        let spelt: Vec<&str> = ACTIONS.iter().flat_map(|i| i.keys).copied().filter(|k| *k != "ctrl-c").collect();
        for (i, key) in keys.iter().enumerate() {
            if let Some((w, h)) = sizes.get(i / 10) {
                harness.msg(Msg::Resize(*w, *h));
            }
            match key % 7 {
                0 => { harness.wait(0.3); }
                1 => { harness.type_text("日 a"); }
                2 => {
                    let at = crossterm::event::MouseEvent {
                        kind: crossterm::event::MouseEventKind::Down(crossterm::event::MouseButton::Left),
                        column: (*key as u16 * 7) % harness.app.size().0.max(1),
                        row: (*key as u16 * 3) % harness.app.size().1.max(1),
                        modifiers: crossterm::event::KeyModifiers::NONE,
                    };
                    harness.msg(Msg::Mouse(at));
                }
                _ => { harness.keys(spelt[key % spelt.len()]); }
            }
            let _ = harness.screen();
        }
        prop_assert!(harness.app.deadline().is_none_or(|at| at < Duration::from_secs(3600)));
    }
}

#[test]
fn a_note_is_of_what_was_on_show_when_it_was_asked_for() {
    let mut harness = opened();
    let dir = harness.app.world.study.as_ref().unwrap().dir.clone();
    let (fit, id) = (
        harness.app.world.fit_name().unwrap().to_owned(),
        harness.app.world.selected.unwrap(),
    );
    harness.keys("r").event(Event::Closed);
    harness.type_text(" kept").keys("enter");
    let noted = harness.sent.iter().find_map(|c| {
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
    let mut harness = opened();
    let mut study = harness.engine.study();
    study.unfinished = Some(crate::study::CollectState {
        samples: 3,
        total: 10,
        rows: 3,
    });
    study.model = None;
    harness.event(Event::Study(Box::new(study.clone())));
    let sent = harness.sent.len();
    let effects = harness.app.perform(Action::Continue);
    assert!(effects.is_empty() && harness.sent.len() == sent);
    let why = harness.app.refusal(Action::Continue).unwrap_or_default();
    assert!(why.contains("mlpeek import"), "{why}");
    study.model = Some("a model".to_owned());
    harness.event(Event::Study(Box::new(study)));
    assert_eq!(harness.app.refusal(Action::Continue), None);
}
