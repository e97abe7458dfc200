use super::*;
use crate::engine::SweepPoint;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

fn point(sweep: usize, relative_error: f64) -> SweepPoint {
    SweepPoint {
        sweep,
        relative_error,
        weighted: false,
        seconds: sweep as f64,
        stop: None,
    }
}

#[test]
fn a_curve_of_one_point_or_of_no_number_is_drawn_without_harm() {
    for error in [0.5, 0.0, f64::NAN, f64::INFINITY] {
        let mut harness = Harness::opened(80, 24, Profile::Mono);
        harness
            .event(Event::Started(Job::Fit))
            .event(Event::Sweep(point(1, error)))
            .keys("5");
        assert!(harness.screen().contains("sweep 1"));
    }
}

#[test]
fn more_features_are_asked_for_on_top_of_the_last_fits_choices() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("5 + + f");
    let asked = harness.sent.iter().find_map(|c| {
        if let Command::Fit(config) = c {
            Some(config)
        } else {
            None
        }
    });
    let config = asked.expect("a fit was asked for");
    assert_eq!((config.features, config.seed), (75, 42));
}

#[test]
fn the_fit_on_show_goes_on_with_more_features_and_marked_ones_stay() {
    let mut harness = Harness::opened(60, 18, Profile::Mono);
    harness.keys("space 5 +");
    assert!(
        harness.screen().contains("F goes on"),
        "{}",
        harness.screen()
    );
    harness.keys("F");
    let asked = harness.sent.iter().find_map(|c| {
        if let Command::Refine(wanted) = c {
            Some(wanted)
        } else {
            None
        }
    });
    let asked = asked.expect("a fit that goes on");
    assert_eq!(
        (
            asked.fit.as_deref(),
            asked.add,
            asked.merge,
            asked.lock.len()
        ),
        (Some("bcd-k40"), 10, 0, 1)
    );
    harness.event(Event::Started(Job::Fit)).keys("F");
    assert_eq!(
        harness
            .sent
            .iter()
            .filter(|c| matches!(c, Command::Refine(_)))
            .count(),
        1,
        "one at a time"
    );
}

#[test]
fn a_second_fit_waits_for_the_first() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.event(Event::Started(Job::Fit)).keys("5 f");
    assert!(!harness.sent.iter().any(|c| matches!(c, Command::Fit(_))));
    assert!(harness.screen().contains("a fit is running"));
}

/// A harness whose study has three fits of two sizes.
fn three_fits(width: u16, height: u16) -> Harness {
    let mut harness = Harness::opened(width, height, Profile::TrueColour);
    let mut study = harness.engine.study();
    for (name, features, error) in [("k20", 20, 0.41), ("k80", 80, 0.25)] {
        let mut fit = study.fits[0].clone();
        (fit.name, fit.config.features, fit.relative_error) =
            (name.to_owned(), features, Some(error));
        study.fits.push(fit);
    }
    harness.event(Event::Study(Box::new(study))).keys("5");
    harness
}

#[test]
fn fits_are_listed_plotted_compared_and_switched() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = three_fits(width, height);
        assert!(harness.screen().contains("k80"), "{}", harness.screen());
        harness.keys("right");
        assert!(
            harness.screen().contains("features"),
            "{}",
            harness.screen()
        );
        harness.keys("c");
        let asked =
            |c: &Command| matches!(c, Command::CompareFits(a, b) if a == "bcd-k40" && b == "k80");
        assert!(harness.sent.iter().any(asked), "{:?}", harness.sent.last());
        assert!(
            harness.screen().contains("5 only in bcd-k40"),
            "{}",
            harness.screen()
        );
        harness.keys("pagedown esc enter");
        assert!(
            harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::ShowFit(name) if name == "k80"))
        );
        harness.keys("j j c");
        assert!(
            harness.screen().contains("it is the one on show"),
            "{}",
            harness.screen()
        );
    }
}

#[test]
fn fits_of_other_settings_are_another_line_with_its_name() {
    let mut harness = three_fits(120, 36);
    harness.keys("right");
    assert!(
        harness.screen().contains("● λ 0.1, 5 % of 1,536 neurons")
            && !harness.screen().contains('○'),
        "one line"
    );
    let mut study = harness.engine.study();
    let mut fit = study.fits[0].clone();
    (
        fit.name,
        fit.config.features,
        fit.config.l1,
        fit.relative_error,
    ) = ("sparse".to_owned(), 80, 0.3, Some(0.5));
    study.fits.push(fit);
    harness.event(Event::Study(Box::new(study)));
    let screen = harness.screen();
    assert!(
        screen.contains("λ 0.1, 5 % of 1,536") && screen.contains("λ 0.3, 5 % of 1,536"),
        "{screen}"
    );
    assert!(screen.contains('○'), "a mark of its own: {screen}");
}

#[test]
fn a_fit_is_clicked_and_shown() {
    for (width, height) in [(120, 36), (60, 18)] {
        let mut harness = three_fits(width, height);
        let (y, x) = harness
            .find("bcd-k40   ")
            .or_else(|| harness.find("k20"))
            .expect("a fit of the list");
        harness.click(x, y);
        let line = harness
            .screen()
            .lines()
            .nth(usize::from(y))
            .unwrap_or_default()
            .to_owned();
        assert!(line.starts_with('▌'), "{}", harness.screen());
        assert!(
            !harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::ShowFit(_)))
        );
        let (y, x) = harness.find("k20").expect("another fit");
        harness.click(x, y).click(x, y);
        assert!(
            harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::ShowFit(name) if name == "k20")),
            "{:?}",
            harness.sent
        );
    }
}

#[test]
fn an_outlier_is_named_until_the_fit_takes_it_out() {
    use crate::activations::energy::{Axis, Concentration};
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = Harness::opened(width, height, Profile::TrueColour);
        let mut study = harness.engine.study();
        let members = vec![(1234, 0.72)];
        study.concentrated = vec![Concentration {
            axis: Axis::Neurons,
            count: 1536,
            share: 0.72,
            members,
            first: "neuron 1234".to_owned(),
        }];
        harness
            .event(Event::Study(Box::new(study.clone())))
            .keys("5");
        assert!(
            harness
                .screen()
                .contains("1 neuron holds 72 % of ‖A‖²: fit --scale-neurons"),
            "{}",
            harness.screen()
        );
        assert!(!harness.screen().contains("scaled neurons"));
        study.fits[0].config.scale_neurons = true;
        let last = SweepPoint {
            weighted: true,
            ..point(3, 0.4)
        };
        harness
            .event(Event::Study(Box::new(study)))
            .event(Event::Sweep(last));
        let screen = harness.screen();
        assert!(
            !screen.contains("holds 72 %") && screen.contains("weighted error 0.4000"),
            "{screen}"
        );
        assert!(width < 100 || screen.contains("scaled neurons"), "{screen}");
    }
}
