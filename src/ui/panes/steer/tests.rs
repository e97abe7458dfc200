use super::*;
use crate::engine::{Command, SteerPart};
use crate::steering::{Positions, SteerInfo, Strength};
use crate::ui::app::{Effect, Msg};
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;
use proptest::prelude::*;

fn stage(width: u16, height: u16) -> Stage {
    Stage::opened_with(width, height, Profile::TrueColour, 40)
}

fn asks(stage: &Stage) -> Vec<SteerSettings> {
    let ask = |c: &Command| match c {
        Command::Steer(ask) => Some(ask.clone()),
        _ => None,
    };
    stage.sent.iter().filter_map(ask).collect()
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
        let mut stage = stage(width, height);
        stage.keys("a enter").wait(20.0);
        insta::assert_snapshot!(format!("steer_{width}x{height}"), stage.screen());
    }
}

#[test]
fn what_departs_and_what_rose_stand_out() {
    let mut stage = stage(120, 36);
    stage.keys("a enter").wait(20.0);
    insta::assert_snapshot!("steer_styles", stage.styles());
    let mut mono = Stage::opened_with(120, 36, Profile::Mono, 40);
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
        let mut stage = stage(width, height);
        stage.keys("3");
        insta::assert_snapshot!(format!("steer_empty_{width}x{height}"), stage.screen());
    }
}

#[test]
fn nothing_runs_without_a_model_or_a_feature_and_the_reason_is_said() {
    let mut none = Stage::new(80, 24, Profile::TrueColour);
    none.keys("3 enter");
    assert!(
        none.screen().contains("no model is open"),
        "{}",
        none.screen()
    );
    let mut stage = stage(80, 24);
    stage.keys("3 enter");
    assert!(
        stage.screen().contains("no feature to steer with"),
        "{}",
        stage.screen()
    );
    assert!(asks(&stage).is_empty());
    stage.keys("a enter");
    assert_eq!(asks(&stage).len(), 1);
}

#[test]
fn features_are_added_weighed_and_removed() {
    let mut stage = stage(80, 24);
    stage.keys("a 1 j A 3");
    assert_eq!(stage.app.focus(), PaneId::Steer);
    stage.keys("right enter");
    let ask = asks(&stage).pop().unwrap();
    // The second was to be suppressed while the first is promoted; one step up from −1.
    assert_eq!(
        ask.features.iter().map(|f| f.1).collect::<Vec<_>>(),
        [1.0, -0.75]
    );
    assert!(!ask.negative);
    stage.keys("d enter");
    assert_eq!(asks(&stage).pop().unwrap().features.len(), 1);
    stage.keys("e ctrl-u").type_text("2.5").keys("enter enter");
    assert_eq!(asks(&stage).pop().unwrap().features[0].1, 2.5);
}

#[test]
fn every_value_can_be_chosen_or_typed() {
    let mut stage = stage(120, 36);
    // Down from the feature: strength, amount, sign, neurons, mode, positions, samples, tokens,
    // temperature, seed.
    stage
        .keys("a j right j e ctrl-u")
        .type_text("12.5")
        .keys("enter");
    stage.keys("j right j right j j right j right j right j left j right enter");
    let ask = asks(&stage).pop().unwrap();
    assert_eq!(ask.strength, Strength::Alpha(12.5));
    assert!(ask.negative);
    assert_eq!(ask.positions, Positions::Generated);
    assert_eq!((ask.samples, ask.sampling.max_tokens), (3, 80));
    assert_eq!((ask.sampling.temperature, ask.sampling.seed), (0.8, 43));
    // No cluster: no part of it.
    assert_eq!(ask.part, SteerPart::Whole);
    stage
        .keys("g j j j e ctrl-u")
        .type_text("much")
        .keys("enter");
    assert!(
        stage.screen().contains("α is a number"),
        "{}",
        stage.screen()
    );
}

#[test]
fn another_fit_takes_its_features_out_of_the_form_and_the_same_fit_leaves_them() {
    let mut stage = stage(120, 36);
    stage
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2)
        .keys("b")
        .wait(30.0);
    assert!(stage.screen().contains("three ways"), "{}", stage.screen());
    let list = stage.demo.list(43, true);
    stage.event(Event::Features(std::sync::Arc::new(list.clone())));
    assert!(
        stage.screen().contains("three ways"),
        "a new look at the same fit: {}",
        stage.screen()
    );
    let other = crate::engine::FeatureList {
        fit: "k40-other".to_owned(),
        ..list
    };
    stage.event(Event::Features(std::sync::Arc::new(other)));
    let before = asks(&stage).len();
    stage.keys("esc esc 3 enter");
    assert!(
        stage.screen().contains("no feature to steer with"),
        "{}",
        stage.screen()
    );
    assert_eq!(asks(&stage).len(), before);
}

#[test]
fn the_tree_ablates_with_the_whole_the_core_and_the_own_neurons() {
    use crate::engine::Mode;
    let mut stage = stage(120, 36);
    stage
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2);
    assert!(stage.screen().contains("ablate"), "{}", stage.screen());
    for (key, part) in [("d", "Whole"), ("D", "CoreOf"), ("X", "ExclusiveOf")] {
        stage.keys(&format!("2 {key} enter")).wait(30.0);
        let ask = asks(&stage).pop().unwrap();
        assert!(
            ask.mode == Mode::Ablate && format!("{:?}", ask.part).starts_with(part),
            "{key}: {ask:?}"
        );
        assert_eq!(ask.strength, Strength::Alpha(1.0));
    }
    let before = asks(&stage).len();
    stage.keys("2 B").wait(90.0);
    let three = asks(&stage).split_off(before);
    assert!(
        three.len() == 3 && three.iter().all(|ask| ask.mode == Mode::Ablate),
        "{three:?}"
    );
    assert!(
        stage.screen().contains("ablated in three ways"),
        "{}",
        stage.screen()
    );
    // What is steered with next is added again.
    stage.keys("2 c enter").wait(30.0);
    assert_eq!(asks(&stage).pop().unwrap().mode, Mode::Add);
}

#[test]
fn the_prompt_takes_lines_and_enter_runs() {
    let mut stage = stage(80, 24);
    stage
        .keys("a k e")
        .type_text(" today")
        .keys("ctrl-j")
        .type_text("is")
        .keys("enter");
    assert_eq!(asks(&stage).pop().unwrap().prompt, "I think that today\nis");
    stage.keys("e ctrl-r");
    assert_eq!(asks(&stage).len(), 2);
}

#[test]
fn a_paste_of_megabytes_is_cut_with_a_word() {
    let mut stage = stage(80, 24);
    stage
        .keys("3 e")
        .msg(Msg::Paste("x\u{1b}[2J ".repeat(400_000)));
    assert!(stage.screen().contains("cut at"), "{}", stage.screen());
    stage.keys("enter");
    assert!(stage.screen().chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn text_streams_into_the_active_run_and_is_made_safe() {
    let mut stage = stage(120, 36);
    stage.answers = false;
    stage.keys("a enter");
    assert!(stage.screen().contains("waiting"), "{}", stage.screen());
    stage.reply(Event::Started(Job::Steer));
    assert!(stage.screen().contains("searching α"), "{}", stage.screen());
    stage
        .reply(info())
        .reply(text(0, false, " the day"))
        .reply(text(0, true, " the \u{1b}[31mSun"));
    stage
        .reply(text(1, true, "\u{202e}evil"))
        .reply(text(0, true, "day"));
    let screen = stage.screen();
    assert!(
        screen.contains("‹U+001B›[31mSunday") && screen.contains("‹U+202E›evil"),
        "{screen}"
    );
    assert!(screen.contains("cannot be reached"), "{screen}");
    stage.reply(Event::Cancelled(Job::Steer));
    assert!(stage.screen().contains("cancelled"));
    // What comes late belongs to no run.
    stage.reply(text(0, true, "LATE"));
    assert!(!stage.screen().contains("LATE"));
}

#[test]
fn a_second_run_waits_for_the_first_to_stop() {
    let mut stage = stage(120, 36);
    stage.answers = false;
    stage.keys("a enter");
    stage
        .reply(Event::Started(Job::Steer))
        .reply(info())
        .reply(text(0, true, " first"));
    stage.keys("j j right enter");
    assert_eq!(asks(&stage).len(), 1);
    assert_eq!(stage.sent.last(), Some(&Command::Cancel(Job::Steer)));
    stage.reply(text(0, true, " more"));
    stage.reply(Event::Cancelled(Job::Steer));
    assert_eq!(asks(&stage).len(), 2);
    stage
        .reply(Event::Started(Job::Steer))
        .reply(info())
        .reply(text(0, true, " second"));
    let screen = stage.screen();
    assert!(
        screen.contains("second") && !screen.contains("first"),
        "{screen}"
    );
    stage.keys("[");
    assert!(stage.screen().contains("first more"), "{}", stage.screen());
}

#[test]
fn cancel_goes_to_the_engine_and_failure_is_told() {
    let mut stage = stage(80, 24);
    stage.answers = false;
    stage.keys("a enter");
    stage.reply(Event::Started(Job::Steer)).keys("ctrl-c");
    assert_eq!(stage.sent.last(), Some(&Command::Cancel(Job::Steer)));
    stage
        .reply(Event::Failed(
            Job::Steer,
            "no memory: take fewer samples".to_owned(),
        ))
        .wait(30.0);
    assert!(
        stage.screen().contains("no memory: take fewer samples"),
        "{}",
        stage.screen()
    );
    stage
        .keys("enter")
        .refuse(|c| matches!(c, Command::Steer(_)), "no model is open")
        .wait(30.0);
    assert!(stage.screen().contains("failed"), "{}", stage.screen());
}

#[test]
fn runs_are_kept_browsed_and_copied() {
    let mut stage = stage(120, 36);
    stage.keys("a enter j j right enter enter").wait(30.0);
    insta::assert_snapshot!("steer_history", stage.screen());
    stage.keys("[ [");
    assert!(stage.screen().contains("run 1 of 3"), "{}", stage.screen());
    stage.keys("[");
    assert!(
        stage.screen().contains("no run before"),
        "{}",
        stage.screen()
    );
    stage.keys("y");
    let Some(Effect::Copy(text, _)) = stage.effects.last() else {
        panic!("nothing copied")
    };
    assert!(
        text.contains("steered 1:\n Sunday is the best day") && text.contains("KL 0.2510"),
        "{text}"
    );
}

#[test]
fn long_texts_scroll() {
    let mut stage = stage(80, 24);
    stage
        .keys("a G k k k e ctrl-u")
        .type_text("8")
        .keys("enter enter")
        .wait(30.0);
    let top = stage.screen();
    assert!(top.contains("rows below: pagedown"), "{top}");
    stage.keys("pagedown pagedown pagedown pagedown pagedown pagedown pagedown pagedown pagedown");
    assert!(stage.screen().contains("\n 8 "), "{}", stage.screen());
}

#[test]
fn form_and_runs_are_remembered() {
    let mut stage = stage(120, 36);
    stage
        .keys("a k e")
        .type_text(" it")
        .keys("enter")
        .wait(30.0);
    let session = stage.app.session();
    let mut other = Stage::new(120, 36, Profile::TrueColour);
    let mut study = other.demo.study();
    study.session = Some(serde_json::from_str(&session.to_string()).unwrap());
    let mut events = other.demo.opened();
    events[1] = Event::Study(Box::new(study));
    for event in events {
        other.event(event);
    }
    let body = |s: &str| s.lines().skip(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(body(&other.screen()), body(&stage.screen()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_keys_draw_at_any_size(
        width in 1u16..140, height in 1u16..50, keys in proptest::collection::vec(0usize..18, 0..30), noise in ".{0,30}"
    ) {
        let mut stage = stage(width, height);
        stage.keys("a 1 j a");
        for key in keys {
            let spelt = [
                "up", "down", "left", "right", "e", "enter", "esc", "d", "[", "]", "pagedown", "g", "G", "ctrl-r",
                "ctrl-j", "x", "tab", "3",
            ];
            stage.keys(spelt[key]).wait(0.1);
            let _ = stage.screen();
        }
        stage.answers = false;
        stage.keys("3 esc ctrl-r");
        // The keys may have left nothing to steer with.
        if !asks(&stage).is_empty() {
            stage.reply(info()).reply(text(3, true, &noise)).reply(text(70, false, &noise));
        }
        let _ = stage.screen();
    }
}

#[test]
fn three_ways_show_tokens_and_text_and_scroll_at_every_size() {
    for (width, height) in [(120, 24), (80, 24), (60, 18)] {
        let mut stage = stage(width, height);
        stage
            .keys("2")
            .wait(0.2)
            .keys("/")
            .type_text("scarlet")
            .keys("enter")
            .wait(0.2)
            .keys("b")
            .wait(90.0);
        let screen = stage.screen();
        assert!(
            screen.contains('↑') && screen.contains("Sunday"),
            "{screen}"
        );
        stage.keys("pagedown pagedown pagedown");
        let below = stage.screen();
        assert!(
            below.contains("own neurons alone") && !below.contains("rows below"),
            "{below}"
        );
        stage.keys("pageup pageup pageup");
        assert_eq!(stage.screen(), screen);
    }
}

#[test]
fn enter_does_not_give_up_three_ways_under_way() {
    let mut stage = stage(80, 24);
    stage
        .keys("2")
        .wait(0.2)
        .keys("/")
        .type_text("scarlet")
        .keys("enter")
        .wait(0.2);
    stage.answers = false;
    stage.keys("b");
    let asked = asks(&stage).len();
    assert!(
        asked > 0 && stage.screen().contains("core alone"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert_eq!(asks(&stage).len(), asked);
    assert!(stage.screen().contains("core alone"), "{}", stage.screen());
}
