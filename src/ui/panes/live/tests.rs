use super::*;
use crate::pieces;
use crate::ui::app::{Effect, Msg};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;
use proptest::prelude::*;

const TEXT: &str =
    "By Sunday the storm had passed, and on Monday seven red boats lay in the harbour.";

fn harness(width: u16, height: u16, profile: Profile) -> Harness {
    let mut harness = Harness::opened_with(width, height, profile, 40);
    harness.keys("4 e").type_text(TEXT).wait(0.2).keys("esc");
    harness
}

fn traces(harness: &Harness) -> Vec<String> {
    let trace = |c: &Command| match c {
        Command::Trace(text) => Some(text.clone()),
        _ => None,
    };
    harness.sent.iter().filter_map(trace).collect()
}

#[test]
fn a_text_at_three_sizes() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = harness(width, height, Profile::TrueColour);
        insta::assert_snapshot!(format!("live_{width}x{height}"), harness.screen());
        harness.keys("e");
        insta::assert_snapshot!(format!("live_typing_{width}x{height}"), harness.screen());
    }
}

#[test]
fn values_are_shown_by_colour_mark_or_digit() {
    insta::assert_snapshot!("live_styles", harness(80, 24, Profile::TrueColour).styles());
    let mut mono = harness(80, 24, Profile::Mono);
    insta::assert_snapshot!("live_mono", mono.screen());
    mono.keys("v");
    insta::assert_snapshot!("live_digits", mono.screen());
}

#[test]
fn a_context_is_looked_at_from_the_token_where_it_peaks() {
    let mut harness = Harness::opened_with(120, 36, Profile::Mono, 40);
    harness.keys("l j t").wait(0.2);
    let context = harness.app.world.selected_card().expect("a card").contexts[1].clone();
    assert_eq!(traces(&harness), [context.tokens.concat()]);
    let head = pieces::token_name(&context.tokens, context.peak);
    let screen = harness.screen();
    assert!(
        screen.contains(&format!("{} {head}", context.peak + 1)),
        "{screen}"
    );
}

#[test]
fn an_empty_pane_says_what_to_press() {
    let mut none = Harness::new(80, 24, Profile::TrueColour);
    none.keys("4");
    assert!(
        none.screen().contains("no model is open: 6 opens one"),
        "{}",
        none.screen()
    );
    let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
    harness.keys("4");
    insta::assert_snapshot!("live_empty", harness.screen());
    harness.keys("enter");
    assert!(
        harness.screen().contains("no text is traced yet"),
        "{}",
        harness.screen()
    );
}

#[test]
fn a_text_is_traced_after_a_pause_in_typing() {
    let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
    harness
        .keys("4 e")
        .type_text("By Sun")
        .wait(0.1)
        .type_text("day")
        .wait(0.1);
    assert!(traces(&harness).is_empty());
    harness.wait(0.1);
    assert_eq!(traces(&harness), ["By Sunday"]);
    harness.keys("left left").wait(1.0);
    assert_eq!(traces(&harness).len(), 1, "moving the cursor asks nothing");
    // An empty text has no trace, and an answer that comes late gives none.
    harness.answers = false;
    harness
        .type_text("x")
        .wait(0.2)
        .keys("ctrl-k ctrl-u")
        .wait(0.2);
    let late = harness.engine.trace("late");
    harness.reply(Event::Trace(Box::new(late)));
    assert!(
        harness.screen().contains("Type, or paste."),
        "{}",
        harness.screen()
    );
}

#[test]
fn the_token_under_the_cursor_orders_the_list() {
    let mut harness = harness(120, 36, Profile::TrueColour);
    let order = |harness: &Harness| -> Vec<String> {
        let screen = harness.screen();
        screen
            .lines()
            .filter_map(|l| l.split_once('│'))
            .map(|(_, right)| right.to_owned())
            .collect()
    };
    let last = order(&harness);
    harness.keys("left left left");
    assert_ne!(order(&harness), last);
    harness.keys("s");
    let by_peak = order(&harness);
    harness.keys("left");
    let head = |lines: &[String]| {
        lines
            .iter()
            .skip(2)
            .map(|l| l[..12.min(l.len())].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(head(&order(&harness)), head(&by_peak));
}

#[test]
fn a_feature_is_opened_and_steered_with_and_back_returns() {
    let mut harness = harness(120, 36, Profile::TrueColour);
    harness.keys("g j j enter");
    let id = harness.app.world.selected.unwrap();
    assert_ne!(harness.app.focus(), PaneId::Live);
    harness.keys("esc");
    assert_eq!(harness.app.focus(), PaneId::Live);
    harness.keys("a enter");
    let Some(Command::Steer(ask)) = harness
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
    let mut harness = harness(80, 24, Profile::TrueColour);
    harness.keys("g");
    assert!(
        harness.screen().contains("· unexplained") && harness.screen().contains("100%"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    assert!(
        harness.screen().contains("the cursor is on no feature"),
        "{}",
        harness.screen()
    );
}

#[test]
fn a_paste_of_megabytes_is_cut_and_control_characters_are_marks() {
    let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
    harness
        .keys("4 e")
        .msg(Msg::Paste("day\u{1b}[2J\u{202e} ".repeat(200_000)));
    assert!(
        harness.screen().contains("pasted 2.2 MB, cut"),
        "{}",
        harness.screen()
    );
    harness.wait(0.2).wait(30.0);
    let screen = harness.screen();
    assert!(
        screen.contains("‹U+001B›") && screen.chars().all(|c| c == '\n' || !c.is_control()),
        "{screen}"
    );
    assert!(traces(&harness)[0].len() <= 16 * 1024);
}

#[test]
fn a_refusal_is_shown_and_the_next_text_is_tried() {
    let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
    harness.answers = false;
    harness.keys("4 e").type_text("day").wait(0.2);
    harness
        .reply(Event::Failed(
            Job::Trace,
            "the text is longer than the context".to_owned(),
        ))
        .wait(30.0);
    assert!(
        harness.screen().contains("longer than the context"),
        "{}",
        harness.screen()
    );
    harness.type_text("s").wait(0.2);
    assert_eq!(traces(&harness), ["day", "days"]);
}

#[test]
fn the_same_text_is_traced_again_as_the_fit_moves() {
    let mut harness = harness(80, 24, Profile::TrueColour);
    let list = std::sync::Arc::new(harness.engine.list(42, false));
    harness.event(Event::Features(list.clone())).wait(0.3);
    assert_eq!(traces(&harness).len(), 1, "too soon");
    harness.event(Event::Features(list)).wait(3.0);
    assert_eq!(traces(&harness).len(), 2);
}

#[test]
fn a_context_can_be_traced_and_the_text_is_restored() {
    let mut harness = harness(80, 24, Profile::TrueColour);
    let session = harness.app.session();
    assert_eq!(session["panes"]["Live"]["text"], TEXT);
    let mut other = Harness::new(80, 24, Profile::TrueColour);
    let mut study = other.engine.study();
    study.session = Some(session);
    let mut events = other.engine.opened();
    events[1] = Event::Study(Box::new(study));
    for event in events {
        other.event(event);
    }
    other.wait(5.0);
    assert_eq!(traces(&other), [TEXT]);
    assert_eq!(other.screen(), harness.wait(30.0).screen());
}

#[test]
fn copying_gives_every_token_with_what_fires() {
    let mut harness = harness(80, 24, Profile::TrueColour);
    harness.keys("y t");
    let Some(Effect::Copy(text, _)) = harness.effects.last() else {
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
        let mut harness = Harness::opened_with(width, height, Profile::Mono, 40);
        harness.keys("4 e").msg(Msg::Paste(typed)).wait(0.2);
        let _ = harness.screen();
        harness.keys("esc");
        for key in keys {
            let spelt = ["up", "down", "left", "right", "e", "enter", "esc", "d", "s", "v", "g", "4"];
            harness.keys(spelt[key]).wait(0.2);
            let _ = harness.screen();
        }
    }
}

#[test]
fn a_followed_run_can_show_its_baseline() {
    let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
    harness.keys("a ctrl-r").wait(0.1).keys("t").wait(0.3);
    let last = |harness: &Harness| traces(harness).pop();
    assert!(
        last(&harness).is_some_and(|t| t.contains("Sunday is the best day")),
        "{:?}",
        last(&harness)
    );
    assert!(
        harness.screen().contains("steered text"),
        "{}",
        harness.screen()
    );
    harness.keys("t").wait(0.3);
    assert!(
        last(&harness).is_some_and(|t| t.contains("ask questions")),
        "{:?}",
        last(&harness)
    );
    // A new run is followed as it comes.
    harness.keys("3 ctrl-r").wait(0.5);
    assert!(
        last(&harness).is_some_and(|t| t.ends_with("every day.")),
        "{:?}",
        last(&harness)
    );
    // What is typed is one's own text again.
    harness.keys("4 e").type_text("x").wait(0.3);
    assert!(
        !harness.screen().contains("baseline text"),
        "{}",
        harness.screen()
    );
}

#[test]
fn a_followed_run_goes_with_its_newest_token_beside_the_other_text() {
    let mut harness = Harness::opened_with(120, 36, Profile::TrueColour, 40);
    harness
        .keys("a ctrl-r")
        .wait(0.1)
        .keys("t")
        .wait(0.3)
        .wait(0.3);
    let screen = harness.screen();
    assert!(screen.contains("baseline: t shows it above"), "{screen}");
    assert!(
        screen.contains("Sunday is the best day") && screen.contains("ask questions"),
        "both texts: {screen}"
    );
    assert!(screen.contains("here▾ baseline"), "{screen}");
    let token = |harness: &Harness| {
        harness.app.session()["panes"]["Live"]["token"]
            .as_u64()
            .unwrap()
    };
    let last = token(&harness);
    assert!(last > 5, "the newest token: {last}");
    // Moved away, it stays where it is.
    harness.keys("left left").wait(0.3);
    let (steered, text) = (true, " and then some".to_owned());
    harness
        .event(Event::SteerText {
            sample: 0,
            steered,
            text,
        })
        .wait(0.3)
        .wait(0.3);
    assert_eq!(token(&harness), last - 2);
    harness.keys("right right right right right right right right right");
    let (steered, text) = (true, " more of it".to_owned());
    harness
        .event(Event::SteerText {
            sample: 0,
            steered,
            text,
        })
        .wait(0.3)
        .wait(0.3);
    assert!(
        token(&harness) > last + 2,
        "at the end again: {}",
        token(&harness)
    );
}

#[test]
fn a_trace_is_awaited_while_a_fit_goes_on() {
    let mut harness = harness(80, 24, Profile::Mono);
    harness.answers = false;
    harness
        .event(Event::Started(Job::Fit))
        .event(Event::Started(Job::Trace));
    harness.keys("e").type_text("x").wait(1.0);
    let before = traces(&harness).len();
    for sweep in 42..46 {
        let list = harness.engine.list(sweep, false);
        harness
            .event(Event::Features(std::sync::Arc::new(list)))
            .wait(1.0);
    }
    assert_eq!(
        traces(&harness).len(),
        before,
        "each sweep would give up the trace of the one before"
    );
    let trace = harness.engine.trace("x");
    harness.reply(Event::Trace(Box::new(trace))).wait(1.0);
    assert_eq!(
        traces(&harness).len(),
        before + 1,
        "the newest features once"
    );
    harness.keys("esc ctrl-c");
    assert!(
        matches!(harness.sent.last(), Some(Command::Cancel(Job::Fit))),
        "{:?}",
        harness.sent.last()
    );
}

#[test]
fn a_trace_never_stands_beside_the_names_of_another_fit() {
    let mut harness = harness(120, 36, Profile::TrueColour);
    assert!(harness.find("on this scale").is_some());
    // The first snapshot of another fit, whose trace takes its time.
    harness.answers = false;
    let other = |harness: &Harness, sweep| {
        let list = harness.engine.list(sweep, false);
        Event::Features(std::sync::Arc::new(crate::engine::FeatureList {
            fit: "k600".to_owned(),
            ..list
        }))
    };
    let event = other(&harness, 1);
    harness.event(event);
    assert!(
        harness.find("on this scale").is_none() && harness.find("Reading the text").is_some(),
        "{}",
        harness.screen()
    );
    harness.wait(3.0);
    let trace = || {
        Event::Trace(Box::new(
            crate::ui::fake_engine::FakeEngine::default().trace(TEXT),
        ))
    };
    harness.reply(trace());
    assert!(
        harness.find("on this scale").is_some(),
        "{}",
        harness.screen()
    );
    // What was asked of this fit and comes when a third is on show is not shown either.
    let event = other(&harness, 2);
    harness.event(event).wait(3.0);
    let list = harness.engine.list(1, false);
    harness.event(Event::Features(std::sync::Arc::new(list)));
    harness.reply(trace());
    assert!(
        harness.find("on this scale").is_none(),
        "{}",
        harness.screen()
    );
}
