use super::*;
use crate::ui::app::{Effect, Msg};
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;
use proptest::prelude::*;

const TEXT: &str =
    "By Sunday the storm had passed, and on Monday seven red boats lay in the harbour.";

fn stage(width: u16, height: u16, profile: Profile) -> Stage {
    let mut stage = Stage::opened_with(width, height, profile, 40);
    stage.keys("4 e").type_text(TEXT).wait(0.2).keys("esc");
    stage
}

fn traces(stage: &Stage) -> Vec<String> {
    let trace = |c: &Command| match c {
        Command::Trace(text) => Some(text.clone()),
        _ => None,
    };
    stage.sent.iter().filter_map(trace).collect()
}

#[test]
fn a_text_at_three_sizes() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = stage(width, height, Profile::TrueColour);
        insta::assert_snapshot!(format!("live_{width}x{height}"), stage.screen());
        stage.keys("e");
        insta::assert_snapshot!(format!("live_typing_{width}x{height}"), stage.screen());
    }
}

#[test]
fn values_are_told_by_colour_by_mark_or_by_digit() {
    insta::assert_snapshot!("live_styles", stage(80, 24, Profile::TrueColour).styles());
    let mut mono = stage(80, 24, Profile::Mono);
    insta::assert_snapshot!("live_mono", mono.screen());
    mono.keys("v");
    insta::assert_snapshot!("live_digits", mono.screen());
}

#[test]
fn an_empty_pane_says_what_to_press() {
    let mut none = Stage::new(80, 24, Profile::TrueColour);
    none.keys("4");
    assert!(
        none.screen().contains("no model is open: 6 opens one"),
        "{}",
        none.screen()
    );
    let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
    stage.keys("4");
    insta::assert_snapshot!("live_empty", stage.screen());
    stage.keys("enter");
    assert!(
        stage.screen().contains("no text is traced yet"),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_engine_is_asked_when_typing_rests() {
    let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
    stage
        .keys("4 e")
        .type_text("By Sun")
        .wait(0.1)
        .type_text("day")
        .wait(0.1);
    assert!(traces(&stage).is_empty());
    stage.wait(0.1);
    assert_eq!(traces(&stage), ["By Sunday"]);
    stage.keys("left left").wait(1.0);
    assert_eq!(traces(&stage).len(), 1, "moving the cursor asks nothing");
    // An empty text has no trace, and an answer that comes late gives none.
    stage.answers = false;
    stage
        .type_text("x")
        .wait(0.2)
        .keys("ctrl-k ctrl-u")
        .wait(0.2);
    let late = stage.demo.trace("late");
    stage.reply(Event::Trace(Box::new(late)));
    assert!(
        stage.screen().contains("Type, or paste."),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_token_under_the_cursor_orders_the_list() {
    let mut stage = stage(120, 36, Profile::TrueColour);
    let order = |stage: &Stage| -> Vec<String> {
        let screen = stage.screen();
        screen
            .lines()
            .filter_map(|l| l.split_once('│'))
            .map(|(_, right)| right.to_owned())
            .collect()
    };
    let last = order(&stage);
    stage.keys("left left left");
    assert_ne!(order(&stage), last);
    stage.keys("s");
    let by_peak = order(&stage);
    stage.keys("left");
    let head = |lines: &[String]| {
        lines
            .iter()
            .skip(2)
            .map(|l| l[..12.min(l.len())].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(head(&order(&stage)), head(&by_peak));
}

#[test]
fn a_feature_is_opened_steered_with_and_come_back_from() {
    let mut stage = stage(120, 36, Profile::TrueColour);
    stage.keys("g j j enter");
    let id = stage.app.world.selected.unwrap();
    assert_ne!(stage.app.focus(), PaneId::Live);
    stage.keys("esc");
    assert_eq!(stage.app.focus(), PaneId::Live);
    stage.keys("a enter");
    let Some(Command::Steer(ask)) = stage
        .sent
        .iter()
        .rev()
        .find(|c| matches!(c, Command::Steer(_)))
    else {
        panic!("no run")
    };
    assert_eq!(ask.features, [(id, 1.0)]);
}

#[test]
fn what_is_unexplained_is_a_map_too() {
    let mut stage = stage(80, 24, Profile::TrueColour);
    stage.keys("g");
    assert!(
        stage.screen().contains("· unexplained") && stage.screen().contains("100%"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert!(
        stage.screen().contains("the cursor is on no feature"),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_paste_of_megabytes_is_cut_and_control_characters_are_marks() {
    let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
    stage
        .keys("4 e")
        .msg(Msg::Paste("day\u{1b}[2J\u{202e} ".repeat(200_000)));
    assert!(
        stage.screen().contains("pasted 2.2 MB, cut"),
        "{}",
        stage.screen()
    );
    stage.wait(0.2).wait(30.0);
    let screen = stage.screen();
    assert!(
        screen.contains("‹U+001B›") && screen.chars().all(|c| c == '\n' || !c.is_control()),
        "{screen}"
    );
    assert!(traces(&stage)[0].len() <= 16 * 1024);
}

#[test]
fn a_refusal_is_shown_and_the_next_text_is_tried() {
    let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
    stage.answers = false;
    stage.keys("4 e").type_text("day").wait(0.2);
    stage
        .reply(Event::Failed(
            Job::Trace,
            "the text is longer than the context".to_owned(),
        ))
        .wait(30.0);
    assert!(
        stage.screen().contains("longer than the context"),
        "{}",
        stage.screen()
    );
    stage.type_text("s").wait(0.2);
    assert_eq!(traces(&stage), ["day", "days"]);
}

#[test]
fn the_same_text_is_traced_again_as_the_fit_moves() {
    let mut stage = stage(80, 24, Profile::TrueColour);
    let list = std::sync::Arc::new(stage.demo.list(42, false));
    stage.event(Event::Features(list.clone())).wait(0.3);
    assert_eq!(traces(&stage).len(), 1, "too soon");
    stage.event(Event::Features(list)).wait(3.0);
    assert_eq!(traces(&stage).len(), 2);
}

#[test]
fn a_context_can_be_looked_at_and_text_is_remembered() {
    let mut stage = stage(80, 24, Profile::TrueColour);
    let session = stage.app.session();
    assert_eq!(session["panes"]["Live"]["text"], TEXT);
    let mut other = Stage::new(80, 24, Profile::TrueColour);
    let mut study = other.demo.study();
    study.session = Some(session);
    let mut events = other.demo.opened();
    events[1] = Event::Study(Box::new(study));
    for event in events {
        other.event(event);
    }
    other.wait(5.0);
    assert_eq!(traces(&other), [TEXT]);
    assert_eq!(other.screen(), stage.wait(30.0).screen());
}

#[test]
fn copying_gives_every_token_with_what_fires() {
    let mut stage = stage(80, 24, Profile::TrueColour);
    stage.keys("y t");
    let Some(Effect::Copy(text, _)) = stage.effects.last() else {
        panic!("nothing copied")
    };
    assert_eq!(text.lines().count(), 18, "{text}");
    assert!(text.contains("·Sunday\t0."), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_text_and_any_keys_draw_at_any_size(
        width in 1u16..140, height in 1u16..50, typed in "(.|\n){0,60}",
        keys in proptest::collection::vec(0usize..12, 0..20)
    ) {
        let mut stage = Stage::opened_with(width, height, Profile::Mono, 40);
        stage.keys("4 e").msg(Msg::Paste(typed)).wait(0.2);
        let _ = stage.screen();
        stage.keys("esc");
        for key in keys {
            let spelt = ["up", "down", "left", "right", "e", "enter", "esc", "d", "s", "v", "g", "4"];
            stage.keys(spelt[key]).wait(0.2);
            let _ = stage.screen();
        }
    }
}

#[test]
fn a_run_is_followed_and_turned_to_its_baseline() {
    let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
    stage.keys("a ctrl-r").wait(0.1).keys("t").wait(0.3);
    let last = |stage: &Stage| traces(stage).pop();
    assert!(
        last(&stage).is_some_and(|t| t.contains("Sunday is the best day")),
        "{:?}",
        last(&stage)
    );
    assert!(
        stage.screen().contains("steered text"),
        "{}",
        stage.screen()
    );
    stage.keys("t").wait(0.3);
    assert!(
        last(&stage).is_some_and(|t| t.contains("ask questions")),
        "{:?}",
        last(&stage)
    );
    // A new run is followed as it comes.
    stage.keys("3 ctrl-r").wait(0.5);
    assert!(
        last(&stage).is_some_and(|t| t.ends_with("every day.")),
        "{:?}",
        last(&stage)
    );
    // What is typed is one's own text again.
    stage.keys("4 e").type_text("x").wait(0.3);
    assert!(
        !stage.screen().contains("baseline text"),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_followed_run_goes_with_its_newest_token_beside_the_other_text() {
    let mut stage = Stage::opened_with(120, 36, Profile::TrueColour, 40);
    stage
        .keys("a ctrl-r")
        .wait(0.1)
        .keys("t")
        .wait(0.3)
        .wait(0.3);
    let screen = stage.screen();
    assert!(screen.contains("baseline: t shows it above"), "{screen}");
    assert!(
        screen.contains("Sunday is the best day") && screen.contains("ask questions"),
        "both texts: {screen}"
    );
    assert!(screen.contains("here▾ baseline"), "{screen}");
    let token = |stage: &Stage| {
        stage.app.session()["panes"]["Live"]["token"]
            .as_u64()
            .unwrap()
    };
    let last = token(&stage);
    assert!(last > 5, "the newest token: {last}");
    // Moved away, it stays where it is.
    stage.keys("left left").wait(0.3);
    let (steered, text) = (true, " and then some".to_owned());
    stage
        .event(Event::SteerText {
            sample: 0,
            steered,
            text,
        })
        .wait(0.3)
        .wait(0.3);
    assert_eq!(token(&stage), last - 2);
    stage.keys("right right right right right right right right right");
    let (steered, text) = (true, " more of it".to_owned());
    stage
        .event(Event::SteerText {
            sample: 0,
            steered,
            text,
        })
        .wait(0.3)
        .wait(0.3);
    assert!(
        token(&stage) > last + 2,
        "at the end again: {}",
        token(&stage)
    );
}

#[test]
fn a_trace_is_awaited_while_a_fit_goes_on() {
    let mut stage = stage(80, 24, Profile::Mono);
    stage.answers = false;
    stage
        .event(Event::Started(Job::Fit))
        .event(Event::Started(Job::Trace));
    stage.keys("e").type_text("x").wait(1.0);
    let before = traces(&stage).len();
    for sweep in 42..46 {
        let list = stage.demo.list(sweep, false);
        stage
            .event(Event::Features(std::sync::Arc::new(list)))
            .wait(1.0);
    }
    assert_eq!(
        traces(&stage).len(),
        before,
        "each sweep would give up the trace of the one before"
    );
    let trace = stage.demo.trace("x");
    stage.reply(Event::Trace(Box::new(trace))).wait(1.0);
    assert_eq!(traces(&stage).len(), before + 1, "the newest features once");
    stage.keys("esc ctrl-c");
    assert!(
        matches!(stage.sent.last(), Some(Command::Cancel(Job::Fit))),
        "{:?}",
        stage.sent.last()
    );
}
