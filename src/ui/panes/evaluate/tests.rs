use super::*;
use crate::ui::fake_engine::FakeEngine;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

#[test]
fn scores_fill_in_at_every_size() {
    for profile in [Profile::TrueColour, Profile::Mono] {
        for (width, height) in [(120, 36), (80, 24), (60, 18), (30, 8)] {
            let mut harness = Harness::opened(width, height, profile);
            harness.answers = false;
            harness.keys("V");
            let request_count = |harness: &Harness| {
                harness
                    .sent
                    .iter()
                    .filter(|c| matches!(c, Command::Evaluate(_)))
                    .count()
            };
            assert!(
                harness.screen().contains("Do features make") && request_count(&harness) == 0,
                "{}",
                harness.screen()
            );
            harness.keys("enter");
            assert_eq!(request_count(&harness), 1);
            harness.reply(Event::Started(Job::Evaluate));
            harness.reply(Event::Judged(FakeEngine::reports(2)));
            assert!(harness.screen().contains("so far"), "{}", harness.screen());
            assert_eq!(harness.screen().contains('●'), width >= 60, "an axis");
            harness.keys("enter");
            assert_eq!(request_count(&harness), 1, "it runs already");
            harness.reply(Event::Judged(FakeEngine::reports(6)));
            harness.keys("j j pagedown g G k");
            let screen = harness.screen();
            assert!(
                screen.contains("0.62 [0.41, 0.80]") || width < 60,
                "{screen}"
            );
            assert_eq!(screen.contains('└'), height >= 24, "{screen}");
            harness.keys("y esc");
            assert!(!harness.screen().contains("so far"));
        }
    }
}

#[test]
fn a_study_that_is_closed_takes_its_evaluation_with_it() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness
        .keys("V enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(FakeEngine::reports(3)));
    assert!(
        harness.screen().contains("diffmean"),
        "{}",
        harness.screen()
    );
    harness.event(Event::Closed);
    assert!(
        !harness.screen().contains("diffmean"),
        "{}",
        harness.screen()
    );
    // Its last texts are judged before it stops.
    harness
        .reply(Event::Judged(FakeEngine::reports(3)))
        .reply(Event::Cancelled(Job::Evaluate));
    assert!(
        !harness.screen().contains("diffmean"),
        "{}",
        harness.screen()
    );
    let opened = harness.engine.opened();
    opened.into_iter().for_each(|event| {
        harness.event(event);
    });
    harness
        .keys("V enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(FakeEngine::reports(2)));
    assert!(
        harness.screen().contains("diffmean"),
        "{}",
        harness.screen()
    );
}

#[test]
fn what_cannot_be_run_says_why() {
    let mut harness = Harness::new(80, 24, Profile::Mono);
    harness.keys("V enter");
    assert!(
        !harness
            .sent
            .iter()
            .any(|c| matches!(c, Command::Evaluate(_)))
    );
}

fn evaluation_requests(harness: &Harness) -> Vec<&crate::jobs::causal::CausalRequest> {
    harness
        .sent
        .iter()
        .filter_map(|c| {
            if let Command::Evaluate(request) = c {
                Some(&**request)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn an_unchanged_form_requests_what_the_command_does_by_default() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("V enter");
    let mut default = crate::jobs::causal::CausalRequest::default();
    default.place.fit = Some("bcd-k40".to_owned());
    default.methods = crate::jobs::evaluation::Method::usual();
    default.methods.push("sae:topk64".parse().unwrap());
    assert_eq!(evaluation_requests(&harness), [&default]);
}

#[test]
fn methods_targets_and_labels_are_chosen_before_it_starts() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::opened(width, height, Profile::Mono);
        // k-means and the autoencoder are left out.
        harness.keys("V j j right G g j j j j j j j right");
        // KL, labels, samples.
        harness
            .keys("G k k k e ctrl-u")
            .type_text("0.5, 0.1 0.5")
            .keys("enter");
        assert!(
            harness.screen().contains("is no KL above 0"),
            "{}",
            harness.screen()
        );
        harness
            .keys("ctrl-u")
            .type_text("0.5, 0.1, 0.5")
            .keys("enter");
        harness
            .keys("j e")
            .type_text("days, months")
            .keys("enter j right j right");
        assert!(
            harness.screen().contains("days, months"),
            "{}",
            harness.screen()
        );
        harness.keys("enter");
        let request = evaluation_requests(&harness)[0];
        let methods: Vec<String> = request.methods.iter().map(ToString::to_string).collect();
        assert_eq!(
            methods.join(" "),
            "fit diffmean kmeans-cut random neuron shuffled"
        );
        assert_eq!(request.config.targets, [0.1, 0.5]);
        assert_eq!(
            (request.labels.join(" ").as_str(), request.config.samples),
            ("days months", 2)
        );
        assert_eq!(request.choose.to_string(), "output");
    }
}

#[test]
fn the_papers_numbers_are_one_word() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    harness
        .keys("V G k k k e ctrl-u")
        .type_text("paper")
        .keys("enter");
    assert!(
        harness
            .screen()
            .contains("0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5"),
        "{}",
        harness.screen()
    );
    harness.keys("enter");
    let request = evaluation_requests(&harness)[0];
    assert_eq!(
        (
            request.config.targets.len(),
            request.config.sampling.max_tokens
        ),
        (7, 50)
    );
    assert_eq!(request.config.samples * request.config.prompts.len(), 8);
}

#[test]
fn another_evaluation_begins_from_the_last_request() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness
        .keys("V j right enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(FakeEngine::reports(3)));
    harness.keys("e");
    assert!(
        harness.screen().contains("so far"),
        "not while it goes on: {}",
        harness.screen()
    );
    harness.reply(Event::Cancelled(Job::Evaluate)).keys("e");
    assert!(harness.screen().contains("at most"), "{}", harness.screen());
    harness.keys("esc");
    assert!(
        harness.screen().contains("e asks otherwise"),
        "{}",
        harness.screen()
    );
    harness.keys("e right enter");
    let all = evaluation_requests(&harness);
    assert_eq!(
        (all.len(), all[1].methods.len()),
        (2, 8),
        "diffmean is chosen again: {all:?}"
    );
}

#[test]
fn a_form_with_nothing_chosen_sends_no_request() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("V right j right j right j right j right j right j right j right enter");
    assert!(
        evaluation_requests(&harness).is_empty()
            && harness.screen().contains("at least one method"),
        "{}",
        harness.screen()
    );
}

/// A study that keeps evaluations, opened at the tab of them.
fn kept(width: u16, height: u16, profile: Profile) -> Harness {
    let mut harness = Harness::opened(width, height, profile);
    harness.engine.evaluations = FakeEngine::kept_evaluations();
    harness.keys("7");
    harness
}

#[test]
fn an_evaluation_that_is_there_is_opened_and_not_run_again() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = kept(width, height, Profile::TrueColour);
        insta::assert_snapshot!(format!("kept_{width}x{height}"), harness.screen());
        assert!(evaluation_requests(&harness).is_empty());
        let opened = |harness: &Harness| match harness.sent.last() {
            Some(Command::OpenEvaluation(name)) => name.clone(),
            other => panic!("{other:?}"),
        };
        harness.keys("[");
        assert_eq!(opened(&harness), "steering-old");
        harness.keys("]");
        assert_eq!(opened(&harness), "steering-new");
        // Scores, then what becomes of words.
        let mut seen = harness.screen();
        for _ in 0..14 {
            harness.keys("right");
            seen.push_str(&harness.screen());
        }
        for measure in ["KL 0.25, promoting", "calibrated", "own", "new", "nats"] {
            assert!(
                seen.contains(&format!(" {measure}")) || width < 80,
                "{measure}: {seen}"
            );
        }
    }
}

#[test]
fn nothing_begins_while_an_evaluation_is_being_opened() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.answers = false;
    harness.keys("7");
    let at = harness
        .sent
        .iter()
        .rposition(|c| *c == Command::Evaluations);
    assert!(at.is_some(), "{:?}", harness.sent);
    harness.answers = true;
    harness.engine.evaluations = FakeEngine::kept_evaluations();
    harness.keys("1 7 enter");
    assert!(evaluation_requests(&harness).is_empty());
}

#[test]
fn a_methods_texts_stand_beside_the_unsteered_ones() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = kept(width, height, Profile::Mono);
        harness.keys("j enter");
        let asked = Command::EvaluatedTexts("steering-new".to_owned(), "diffmean".to_owned());
        assert_eq!(harness.sent.last(), Some(&asked));
        insta::assert_snapshot!(format!("texts_{width}x{height}"), harness.screen());
        harness.keys("j right");
        assert!(
            harness.screen().contains("KL 0.25, promoting"),
            "{}",
            harness.screen()
        );
        harness.keys("y");
        assert!(!harness.effects.is_empty());
        harness.keys("esc");
        assert!(harness.screen().contains('●'), "{}", harness.screen());
    }
}

#[test]
fn a_label_that_is_none_is_told_before_anything_is_asked() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness
        .keys("7 G k k e ctrl-u")
        .type_text("day")
        .keys("enter");
    assert!(
        harness.screen().contains("did you mean days?"),
        "{}",
        harness.screen()
    );
    harness.keys("esc enter");
    assert_eq!(
        evaluation_requests(&harness).len(),
        1,
        "all labels, as before"
    );
}

#[test]
fn what_it_takes_is_told_in_texts_and_time() {
    let mut harness = Harness::opened(120, 36, Profile::Mono);
    harness.keys("7");
    assert!(
        harness.screen().contains("as measured here"),
        "{}",
        harness.screen()
    );
}

#[test]
fn what_the_model_is_asked_for_is_among_the_methods() {
    let mut harness = Harness::opened(80, 40, Profile::Mono);
    harness.keys("7");
    let screen = harness.screen();
    for method in ["textgrad", "textgrad-cut", "mix", "mix5", "effect"] {
        assert!(
            screen.contains(&format!(" {method} ")),
            "{method}: {screen}"
        );
    }
    harness.keys("G k k k k right enter");
    let methods = &evaluation_requests(&harness)[0].methods;
    assert_eq!(methods.last().unwrap().to_string(), "effect");
}
