use super::*;
use crate::ui::demo::Demo;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

#[test]
fn scores_fill_in_at_every_size() {
    for profile in [Profile::TrueColour, Profile::Mono] {
        for (width, height) in [(120, 36), (80, 24), (60, 18), (30, 8)] {
            let mut stage = Stage::opened(width, height, profile);
            stage.answers = false;
            stage.keys("V");
            let asks = |stage: &Stage| {
                stage
                    .sent
                    .iter()
                    .filter(|c| matches!(c, Command::Evaluate(_)))
                    .count()
            };
            assert!(
                stage.screen().contains("Do features make") && asks(&stage) == 0,
                "{}",
                stage.screen()
            );
            stage.keys("enter");
            assert_eq!(asks(&stage), 1);
            stage.reply(Event::Started(Job::Evaluate));
            stage.reply(Event::Judged(Demo::reports(2)));
            assert!(stage.screen().contains("so far"), "{}", stage.screen());
            stage.keys("enter");
            assert_eq!(asks(&stage), 1, "it runs already");
            stage.reply(Event::Judged(Demo::reports(6)));
            stage.keys("j j pagedown g G k");
            let screen = stage.screen();
            assert!(
                screen.contains("0.62 [0.41, 0.80]") || width < 60,
                "{screen}"
            );
            assert_eq!(screen.contains('└'), height >= 24, "{screen}");
            stage.keys("y esc");
            assert!(!stage.screen().contains("so far"));
        }
    }
}

#[test]
fn a_study_that_is_closed_takes_its_evaluation_with_it() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage
        .keys("V enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(Demo::reports(3)));
    assert!(stage.screen().contains("diffmean"), "{}", stage.screen());
    stage.event(Event::Closed);
    assert!(!stage.screen().contains("diffmean"), "{}", stage.screen());
    // Its last texts are judged before it stops.
    stage
        .reply(Event::Judged(Demo::reports(3)))
        .reply(Event::Cancelled(Job::Evaluate));
    assert!(!stage.screen().contains("diffmean"), "{}", stage.screen());
    let opened = stage.demo.opened();
    opened.into_iter().for_each(|event| {
        stage.event(event);
    });
    stage
        .keys("V enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(Demo::reports(2)));
    assert!(stage.screen().contains("diffmean"), "{}", stage.screen());
}

#[test]
fn what_cannot_be_run_says_why() {
    let mut stage = Stage::new(80, 24, Profile::Mono);
    stage.keys("V enter");
    assert!(!stage.sent.iter().any(|c| matches!(c, Command::Evaluate(_))));
}

fn asked(stage: &Stage) -> Vec<&crate::jobs::causal::CausalRequest> {
    stage
        .sent
        .iter()
        .filter_map(|c| {
            if let Command::Evaluate(ask) = c {
                Some(&**ask)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn what_is_not_changed_is_asked_as_the_command_asks_it() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("V enter");
    let mut default = crate::jobs::causal::CausalRequest::default();
    default.place.fit = Some("bcd-k40".to_owned());
    default.methods = crate::jobs::evaluation::Method::usual();
    default.methods.push("sae:topk64".parse().unwrap());
    assert_eq!(asked(&stage), [&default]);
}

#[test]
fn methods_targets_and_labels_are_chosen_before_it_starts() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = Stage::opened(width, height, Profile::Mono);
        // k-means and the autoencoder are left out.
        stage.keys("V j j right G g j j j j j j j right");
        // KL, labels, samples.
        stage
            .keys("j e ctrl-u")
            .type_text("0.5, 0.1 0.5")
            .keys("enter");
        assert!(
            stage.screen().contains("is no KL above 0"),
            "{}",
            stage.screen()
        );
        stage
            .keys("ctrl-u")
            .type_text("0.5, 0.1, 0.5")
            .keys("enter");
        stage
            .keys("j e")
            .type_text("days, months")
            .keys("enter j right j right");
        assert!(
            stage.screen().contains("days, months"),
            "{}",
            stage.screen()
        );
        stage.keys("enter");
        let ask = asked(&stage)[0];
        let methods: Vec<String> = ask.methods.iter().map(ToString::to_string).collect();
        assert_eq!(
            methods.join(" "),
            "fit diffmean kmeans-cut random neuron shuffled"
        );
        assert_eq!(ask.config.targets, [0.1, 0.5]);
        assert_eq!(
            (ask.labels.join(" ").as_str(), ask.config.samples),
            ("days months", 2)
        );
        assert_eq!(ask.choose.to_string(), "output");
    }
}

#[test]
fn the_papers_numbers_are_one_word() {
    let mut stage = Stage::opened(120, 36, Profile::Mono);
    stage
        .keys("V G k k k e ctrl-u")
        .type_text("paper")
        .keys("enter");
    assert!(
        stage
            .screen()
            .contains("0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    let ask = asked(&stage)[0];
    assert_eq!(
        (ask.config.targets.len(), ask.config.sampling.max_tokens),
        (7, 50)
    );
    assert_eq!(ask.config.samples * ask.config.prompts.len(), 8);
}

#[test]
fn another_request_can_be_made_of_what_was_asked() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage
        .keys("V j right enter")
        .reply(Event::Started(Job::Evaluate))
        .reply(Event::Judged(Demo::reports(3)));
    stage.keys("e");
    assert!(
        stage.screen().contains("so far"),
        "not while it goes on: {}",
        stage.screen()
    );
    stage.reply(Event::Cancelled(Job::Evaluate)).keys("e");
    assert!(stage.screen().contains("at most"), "{}", stage.screen());
    stage.keys("esc");
    assert!(
        stage.screen().contains("e asks otherwise"),
        "{}",
        stage.screen()
    );
    stage.keys("e right enter");
    let all = asked(&stage);
    assert_eq!(
        (all.len(), all[1].methods.len()),
        (2, 8),
        "diffmean is chosen again: {all:?}"
    );
}

#[test]
fn nothing_chosen_is_no_request() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("V right j right j right j right j right j right j right j right enter");
    assert!(
        asked(&stage).is_empty() && stage.screen().contains("at least one method"),
        "{}",
        stage.screen()
    );
}
