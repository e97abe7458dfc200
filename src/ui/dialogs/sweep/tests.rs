use crossterm::event::MouseEventKind;

use super::*;
use crate::engine::{Event, Job, SweepBegun, SweepRow};
use crate::ui::demo::Demo;
use crate::ui::stage::Stage;
use crate::ui::theme::Profile;

fn asked(stage: &Stage) -> Vec<&SweepRequest> {
    stage
        .sent
        .iter()
        .filter_map(|c| {
            if let Command::SweepK(ask) = c {
                Some(ask)
            } else {
                None
            }
        })
        .collect()
}

fn row(features: usize, at: usize) -> Event {
    let step = at as f64;
    Event::SweepRow(Box::new(SweepRow {
        features,
        sparsity: 0.05,
        l1: 0.1,
        row_cap: None,
        warm: at > 0,
        relative_error: Some(0.62 - 0.07 * step),
        held_out_error: Some(0.64 - 0.05 * step),
        active: Some(4.0 + step),
        dead: Some(0.0),
        duplicates: 0.0,
        stability: Some(0.91 - 0.06 * step),
        found_again: Some(0.8),
        auroc: Some(0.81 + 0.02 * step),
        auroc_error: Some(0.01),
        sweeps: Some(61.0 - 7.0 * step),
        seconds: 1.4 * (step + 1.0),
    }))
}

/// A stage where a sweep has `rows` of its five rows.
fn sweeping(width: u16, height: u16, profile: Profile, rows: usize) -> Stage {
    let mut stage = Stage::opened(width, height, profile);
    stage.keys("5 S enter");
    let ask = asked(&stage)[0].clone();
    let config = stage.demo.study().fits[0].config.clone();
    stage.event(Event::Started(Job::Sweep));
    stage.event(Event::SweepBegun(Box::new(SweepBegun {
        hook: Demo::hook(),
        config,
        ask: ask.clone(),
    })));
    for (at, k) in ask.features.into_iter().enumerate().take(rows) {
        stage.event(row(k, at));
    }
    stage.event(Demo::progress(
        Job::Sweep,
        "sweeping over k",
        525,
        2325,
        "features",
    ));
    stage
}

#[test]
fn it_begins_with_what_the_command_does_and_is_edited() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("5 S");
    assert!(
        stage.screen().contains("15 fits of 5 numbers of features"),
        "{}",
        stage.screen()
    );
    assert!(
        stage
            .screen()
            .contains("λ 0.1, 5 % of 1,536 neurons, seeds 42 to 44"),
        "{}",
        stage.screen()
    );
    stage.type_text(" x").keys("enter");
    assert!(
        asked(&stage).is_empty() && stage.screen().contains("'x' is no whole number"),
        "{}",
        stage.screen()
    );
    stage
        .keys("backspace")
        .type_text("50,800")
        .keys("down backspace")
        .type_text("0")
        .keys("enter");
    assert!(
        asked(&stage).is_empty() && stage.screen().contains("seeds: a whole number from 1"),
        "{}",
        stage.screen()
    );
    stage
        .keys("backspace")
        .type_text("2")
        .keys("down space enter");
    let wanted = SweepRequest {
        fit: Some("bcd-k40".to_owned()),
        features: vec![25, 50, 100, 200, 400, 800],
        seeds: 2,
        cold: true,
    };
    assert_eq!(asked(&stage), [&wanted]);
    let usual = SweepRequest {
        fit: wanted.fit.clone(),
        ..SweepRequest::default()
    };
    let mut plain = Stage::opened(80, 24, Profile::Mono);
    plain.keys("5 S enter");
    assert_eq!(asked(&plain), [&usual]);
}

#[test]
fn a_sweep_is_watched_row_by_row() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut stage = sweeping(width, height, Profile::TrueColour, 0);
        assert!(
            stage
                .screen()
                .contains("the curves appear with the first number"),
            "{}",
            stage.screen()
        );
        stage = sweeping(width, height, Profile::TrueColour, 4);
        let screen = stage.screen();
        assert!(
            screen.contains("4 of 5") && screen.contains("seeds 42 to 44, warm"),
            "{screen}"
        );
        assert!(
            screen.contains("0.4900"),
            "the held-out error at 200: {screen}"
        );
        insta::assert_snapshot!(format!("sweep_{width}x{height}"), screen);
        if width == 80 {
            insta::assert_snapshot!("sweep_styles", stage.styles());
        }
        stage.keys("S");
        assert!(
            stage.screen().contains("a sweep over k is under way"),
            "{}",
            stage.screen()
        );
        stage.keys("T");
        assert!(!stage.sent.iter().any(|c| matches!(c, Command::TrainSae(_))));
        stage.keys("ctrl-c");
        assert!(stage.sent.contains(&Command::Cancel(Job::Sweep)));
        stage.event(Event::Cancelled(Job::Sweep));
        assert!(
            stage.screen().contains("S sweeps again"),
            "{}",
            stage.screen()
        );
        stage.keys("y");
        assert!(stage.screen().contains("Markdown"), "{}", stage.screen());
        stage.keys("esc esc right left");
        assert!(
            !stage.screen().contains("seeds 42 to 44"),
            "esc leads back to the curve: {}",
            stage.screen()
        );
        stage.keys("left");
        assert!(
            stage.screen().contains("seeds 42 to 44"),
            "{}",
            stage.screen()
        );
        stage.event(Event::Closed);
        assert!(
            !stage.screen().contains("seeds 42 to 44"),
            "{}",
            stage.screen()
        );
    }
    let mono = sweeping(80, 24, Profile::Mono, 4);
    insta::assert_snapshot!(
        "sweep_mono",
        format!("{}\n{}", mono.screen(), mono.styles())
    );
}

#[test]
fn the_form_takes_clicks_and_the_wheel() {
    let mut stage = Stage::opened(80, 24, Profile::Mono);
    stage.keys("5 S");
    let screen = stage.screen();
    let line = |word: &str| screen.lines().position(|l| l.contains(word)).unwrap() as u16;
    stage
        .click(20, line("fits of each"))
        .keys("backspace")
        .type_text("1");
    stage.click(20, line("warm goes on")).keys("enter");
    let ask = asked(&stage)[0];
    assert_eq!((ask.seeds, ask.cold), (1, true));
    stage
        .event(Event::Done(Job::Sweep, String::new()))
        .keys("S")
        .mouse(MouseEventKind::ScrollDown, 20, line("fits of each"))
        .keys("backspace")
        .type_text("2");
    stage.keys("enter");
    assert_eq!(asked(&stage)[1].seeds, 2);
}

#[test]
fn a_sweep_and_its_form_are_drawn_at_any_size() {
    for (width, height) in [(40, 12), (30, 8), (20, 6), (3, 3), (1, 1), (200, 60)] {
        for rows in [1, 5] {
            let mut stage = sweeping(width, height, Profile::TrueColour, rows);
            stage.screen();
            stage.event(Event::Cancelled(Job::Sweep)).keys("S");
            stage.screen();
            stage
                .click(1, 1)
                .click(width / 2, height / 2)
                .mouse(MouseEventKind::ScrollUp, 0, 0)
                .keys("esc");
        }
    }
}
