use super::*;
use crate::engine::{Command, SteerPart};
use crate::steering::{Positions, SteerInfo, Strength};
use crate::ui::app::{Effect, Msg};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;
use proptest::prelude::*;

fn harness(width: u16, height: u16) -> Harness {
    Harness::opened_with(width, height, Profile::TrueColour, 40)
}

fn steer_requests(harness: &Harness) -> Vec<SteerSettings> {
    let request = |c: &Command| match c {
        Command::Steer(settings) => Some(settings.clone()),
        _ => None,
    };
    harness.sent.iter().filter_map(request).collect()
}

/// Finds a feature in the tree and steers with it in three ways for `seconds`.
fn steer_three_ways(harness: &mut Harness, seconds: f64) {
    harness
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2)
        .keys("b")
        .wait(seconds);
}

fn info() -> Event {
    let note = Some("KL 0.25 cannot be reached: 0.19 at most".to_owned());
    Event::SteerInfo(Box::new(SteerInfo {
        alpha: -3.5,
        kl: 0.19,
        note,
        risen: Vec::new(),
        fallen: Vec::new(),
    }))
}

fn text(sample: usize, steered: bool, text: &str) -> Event {
    Event::SteerText {
        sample,
        steered,
        text: text.to_owned(),
    }
}

#[test]
fn a_run_at_three_sizes() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = harness(width, height);
        harness.keys("a enter").wait(20.0);
        insta::assert_snapshot!(format!("steer_{width}x{height}"), harness.screen());
    }
}

#[test]
fn what_departs_and_what_rose_stand_out() {
    let mut harness = harness(120, 36);
    harness.keys("a enter").wait(20.0);
    insta::assert_snapshot!("steer_styles", harness.styles());
    let mut mono = Harness::opened_with(120, 36, Profile::Mono, 40);
    mono.keys("a enter").wait(20.0);
    assert!(
        mono.styles().contains("bold underlined |Sunday|"),
        "{}",
        mono.styles()
    );
}

#[test]
fn an_empty_pane_says_what_to_press_at_three_sizes() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = harness(width, height);
        harness.keys("3");
        insta::assert_snapshot!(format!("steer_empty_{width}x{height}"), harness.screen());
    }
}

#[test]
fn nothing_runs_without_a_model_or_a_feature_and_the_reason_is_said() {
    let mut none = Harness::new(80, 24, Profile::TrueColour);
    none.keys("3 enter");
    assert!(
        none.screen().contains("no model is open"),
        "{}",
        none.screen()
    );
    let mut harness = harness(80, 24);
    harness.keys("3 enter");
    assert!(
        harness.screen().contains("no feature to steer with"),
        "{}",
        harness.screen()
    );
    assert!(steer_requests(&harness).is_empty());
    harness.keys("a enter");
    assert_eq!(steer_requests(&harness).len(), 1);
}

#[test]
fn features_are_added_weighed_and_removed() {
    let mut harness = harness(80, 24);
    harness.keys("a 1 j A 3");
    assert_eq!(harness.app.focus(), PaneId::Steer);
    harness.keys("right enter");
    let request = steer_requests(&harness).pop().unwrap();
    // The second was to be suppressed while the first is promoted; one step up from −1.
    assert_eq!(
        request.features.iter().map(|f| f.1).collect::<Vec<_>>(),
        [1.0, -0.75]
    );
    assert!(!request.negative);
    harness.keys("d enter");
    assert_eq!(steer_requests(&harness).pop().unwrap().features.len(), 1);
    harness
        .keys("e ctrl-u")
        .type_text("2.5")
        .keys("enter enter");
    assert_eq!(steer_requests(&harness).pop().unwrap().features[0].1, 2.5);
}

#[test]
fn every_value_can_be_chosen_or_typed() {
    let mut harness = harness(120, 36);
    // Down from the feature: strength, amount, sign, neurons, mode, positions, samples, tokens,
    // temperature, seed.
    harness
        .keys("a j right j e ctrl-u")
        .type_text("12.5")
        .keys("enter");
    harness.keys("j right j right j j right j right j right j left j right enter");
    let request = steer_requests(&harness).pop().unwrap();
    assert_eq!(request.strength, Strength::Alpha(12.5));
    assert!(request.negative);
    assert_eq!(request.positions, Positions::Generated);
    assert_eq!((request.samples, request.sampling.max_tokens), (3, 80));
    assert_eq!(
        (request.sampling.temperature, request.sampling.seed),
        (0.8, 43)
    );
    // No cluster: no part of it.
    assert_eq!(request.part, SteerPart::Whole);
    harness
        .keys("g j j j e ctrl-u")
        .type_text("much")
        .keys("enter");
    assert!(
        harness.screen().contains("α is a number"),
        "{}",
        harness.screen()
    );
}

#[test]
fn another_fit_takes_its_features_out_of_the_form_and_the_same_fit_leaves_them() {
    let mut harness = harness(120, 36);
    steer_three_ways(&mut harness, 30.0);
    assert!(
        harness.screen().contains("three ways"),
        "{}",
        harness.screen()
    );
    let list = harness.engine.list(43, true);
    harness.event(Event::Features(std::sync::Arc::new(list.clone())));
    assert!(
        harness.screen().contains("three ways"),
        "a new look at the same fit: {}",
        harness.screen()
    );
    let other = crate::engine::FeatureList {
        fit: "k40-other".to_owned(),
        ..list
    };
    harness.event(Event::Features(std::sync::Arc::new(other)));
    let before = steer_requests(&harness).len();
    harness.keys("esc esc 3 enter");
    assert!(
        harness.screen().contains("no feature to steer with"),
        "{}",
        harness.screen()
    );
    assert_eq!(steer_requests(&harness).len(), before);
}

#[test]
fn the_tree_ablates_with_the_whole_the_core_and_the_own_neurons() {
    use crate::engine::Mode;
    let mut harness = harness(120, 36);
    harness
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2);
    assert!(harness.screen().contains("ablate"), "{}", harness.screen());
    for (key, part) in [("d", "Whole"), ("D", "CoreOf"), ("X", "ExclusiveOf")] {
        harness.keys(&format!("2 {key} enter")).wait(30.0);
        let request = steer_requests(&harness).pop().unwrap();
        assert!(
            request.mode == Mode::Ablate && format!("{:?}", request.part).starts_with(part),
            "{key}: {request:?}"
        );
        assert_eq!(request.strength, Strength::Alpha(1.0));
    }
    let before = steer_requests(&harness).len();
    harness.keys("2 B").wait(90.0);
    let three = steer_requests(&harness).split_off(before);
    assert!(
        three.len() == 3 && three.iter().all(|request| request.mode == Mode::Ablate),
        "{three:?}"
    );
    assert!(
        harness.screen().contains("ablated in three ways"),
        "{}",
        harness.screen()
    );
    // What is steered with next is added again.
    harness.keys("2 c enter").wait(30.0);
    assert_eq!(steer_requests(&harness).pop().unwrap().mode, Mode::Add);
}

#[test]
fn the_prompt_takes_lines_and_enter_runs() {
    let mut harness = harness(80, 24);
    harness
        .keys("a k e")
        .type_text(" today")
        .keys("ctrl-j")
        .type_text("is")
        .keys("enter");
    assert_eq!(
        steer_requests(&harness).pop().unwrap().prompt,
        "I think that today\nis"
    );
    harness.keys("e ctrl-r");
    assert_eq!(steer_requests(&harness).len(), 2);
}

#[test]
fn a_paste_of_megabytes_is_cut_with_a_word() {
    let mut harness = harness(80, 24);
    harness
        .keys("3 e")
        .msg(Msg::Paste("x\u{1b}[2J ".repeat(400_000)));
    assert!(harness.screen().contains("cut at"), "{}", harness.screen());
    harness.keys("enter");
    assert!(
        harness
            .screen()
            .chars()
            .all(|c| c == '\n' || !c.is_control())
    );
}

#[test]
fn text_streams_into_the_active_run_and_is_made_safe() {
    let mut harness = harness(120, 36);
    harness.answers = false;
    harness.keys("a enter");
    assert!(harness.screen().contains("waiting"), "{}", harness.screen());
    harness.reply(Event::Started(Job::Steer));
    assert!(
        harness.screen().contains("searching α"),
        "{}",
        harness.screen()
    );
    harness
        .reply(info())
        .reply(text(0, false, " the day"))
        .reply(text(0, true, " the \u{1b}[31mSun"));
    harness
        .reply(text(1, true, "\u{202e}evil"))
        .reply(text(0, true, "day"));
    let screen = harness.screen();
    assert!(
        screen.contains("‹U+001B›[31mSunday") && screen.contains("‹U+202E›evil"),
        "{screen}"
    );
    assert!(screen.contains("cannot be reached"), "{screen}");
    harness.reply(Event::Cancelled(Job::Steer));
    assert!(harness.screen().contains("cancelled"));
    // What comes late belongs to no run.
    harness.reply(text(0, true, "LATE"));
    assert!(!harness.screen().contains("LATE"));
}

#[test]
fn a_second_run_waits_for_the_first_to_stop() {
    let mut harness = harness(120, 36);
    harness.answers = false;
    harness.keys("a enter");
    harness
        .reply(Event::Started(Job::Steer))
        .reply(info())
        .reply(text(0, true, " first"));
    harness.keys("j j right enter");
    assert_eq!(steer_requests(&harness).len(), 1);
    assert_eq!(harness.sent.last(), Some(&Command::Cancel(Job::Steer)));
    harness.reply(text(0, true, " more"));
    harness.reply(Event::Cancelled(Job::Steer));
    assert_eq!(steer_requests(&harness).len(), 2);
    harness
        .reply(Event::Started(Job::Steer))
        .reply(info())
        .reply(text(0, true, " second"));
    let screen = harness.screen();
    assert!(
        screen.contains("second") && !screen.contains("first"),
        "{screen}"
    );
    harness.keys("[");
    assert!(
        harness.screen().contains("first more"),
        "{}",
        harness.screen()
    );
}

#[test]
fn cancel_goes_to_the_engine_and_failure_is_shown() {
    let mut harness = harness(80, 24);
    harness.answers = false;
    harness.keys("a enter");
    harness.reply(Event::Started(Job::Steer)).keys("ctrl-c");
    assert_eq!(harness.sent.last(), Some(&Command::Cancel(Job::Steer)));
    harness
        .reply(Event::Failed(
            Job::Steer,
            "no memory: take fewer samples".to_owned(),
        ))
        .wait(30.0);
    assert!(
        harness.screen().contains("no memory: take fewer samples"),
        "{}",
        harness.screen()
    );
    harness
        .keys("enter")
        .refuse(|c| matches!(c, Command::Steer(_)), "no model is open")
        .wait(30.0);
    assert!(harness.screen().contains("failed"), "{}", harness.screen());
}

#[test]
fn runs_are_kept_browsed_and_copied() {
    let mut harness = harness(120, 36);
    harness.keys("a enter j j right enter enter").wait(30.0);
    insta::assert_snapshot!("steer_history", harness.screen());
    harness.keys("[ [");
    assert!(
        harness.screen().contains("run 1 of 3"),
        "{}",
        harness.screen()
    );
    harness.keys("[");
    assert!(
        harness.screen().contains("no run before"),
        "{}",
        harness.screen()
    );
    harness.keys("y");
    let Some(Effect::Copy(text, _)) = harness.effects.last() else {
        panic!("nothing copied")
    };
    assert!(
        text.contains("steered 1:\n Sunday is the best day") && text.contains("KL 0.2510"),
        "{text}"
    );
}

#[test]
fn long_texts_scroll() {
    let mut harness = harness(80, 24);
    harness
        .keys("a G k k k e ctrl-u")
        .type_text("8")
        .keys("enter enter")
        .wait(30.0);
    let top = harness.screen();
    assert!(top.contains("rows below: pagedown"), "{top}");
    harness
        .keys("pagedown pagedown pagedown pagedown pagedown pagedown pagedown pagedown pagedown");
    assert!(harness.screen().contains("\n 8 "), "{}", harness.screen());
}

#[test]
fn form_and_runs_are_remembered() {
    let mut harness = harness(120, 36);
    harness
        .keys("a k e")
        .type_text(" it")
        .keys("enter")
        .wait(30.0);
    let session = harness.app.session();
    let mut other = Harness::new(120, 36, Profile::TrueColour);
    let mut study = other.engine.study();
    study.session = Some(serde_json::from_str(&session.to_string()).unwrap());
    let mut events = other.engine.opened();
    events[1] = Event::Study(Box::new(study));
    for event in events {
        other.event(event);
    }
    let body = |s: &str| s.lines().skip(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(body(&other.screen()), body(&harness.screen()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_keys_draw_at_any_size(
        width in 1u16..140, height in 1u16..50, keys in proptest::collection::vec(0usize..18, 0..30), noise in ".{0,30}"
    ) {
        let mut harness = harness(width, height);
        harness.keys("a 1 j a");
        for key in keys {
            let spelt = [
                "up", "down", "left", "right", "e", "enter", "esc", "d", "[", "]", "pagedown", "g", "G", "ctrl-r",
                "ctrl-j", "x", "tab", "3",
            ];
            harness.keys(spelt[key]).wait(0.1);
            let _ = harness.screen();
        }
        harness.answers = false;
        harness.keys("3 esc ctrl-r");
        // The keys may have left nothing to steer with.
        if !steer_requests(&harness).is_empty() {
            harness.reply(info()).reply(text(3, true, &noise)).reply(text(70, false, &noise));
        }
        let _ = harness.screen();
    }
}

#[test]
fn three_ways_show_tokens_and_text_and_scroll_at_every_size() {
    for (width, height) in [(120, 24), (80, 24), (60, 18)] {
        let mut harness = harness(width, height);
        steer_three_ways(&mut harness, 90.0);
        let screen = harness.screen();
        assert!(
            screen.contains('↑') && screen.contains("Sunday"),
            "{screen}"
        );
        harness.keys("pagedown pagedown pagedown");
        let below = harness.screen();
        assert!(
            below.contains("own neurons alone") && !below.contains("rows below"),
            "{below}"
        );
        harness.keys("pageup pageup pageup");
        assert_eq!(harness.screen(), screen);
    }
}

#[test]
fn enter_does_not_give_up_three_ways_under_way() {
    let mut harness = harness(80, 24);
    harness
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2);
    harness.answers = false;
    harness.keys("b");
    let asked = steer_requests(&harness).len();
    assert!(
        asked > 0 && harness.screen().contains("core alone"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    assert_eq!(steer_requests(&harness).len(), asked);
    assert!(
        harness.screen().contains("core alone"),
        "{}",
        harness.screen()
    );
}
