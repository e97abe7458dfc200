use crossterm::event::MouseEventKind;

use super::*;
use crate::engine::{Event, Job, SweepBegun, SweepRow};
use crate::ui::fake_engine::FakeEngine;
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;

fn sweep_requests(harness: &Harness) -> Vec<&SweepRequest> {
    harness
        .sent
        .iter()
        .filter_map(|c| {
            if let Command::SweepK(request) = c {
                Some(request)
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

/// A harness where a sweep has `rows` of its five rows.
fn sweeping(width: u16, height: u16, profile: Profile, rows: usize) -> Harness {
    let mut harness = Harness::opened(width, height, profile);
    harness.keys("5 S enter");
    let request = sweep_requests(&harness)[0].clone();
    let config = harness.engine.study().fits[0].config.clone();
    harness.event(Event::Started(Job::Sweep));
    harness.event(Event::SweepBegun(Box::new(SweepBegun {
        hook: FakeEngine::hook(),
        config,
        request: request.clone(),
    })));
    for (at, k) in request.features.into_iter().enumerate().take(rows) {
        harness.event(row(k, at));
    }
    harness.event(FakeEngine::progress(
        Job::Sweep,
        "sweeping over k",
        525,
        2325,
        "features",
    ));
    harness
}

#[test]
fn the_form_begins_with_the_defaults_of_the_command_and_is_edited() {
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("5 S");
    assert!(
        harness
            .screen()
            .contains("15 fits of 5 numbers of features"),
        "{}",
        harness.screen()
    );
    assert!(
        harness
            .screen()
            .contains("λ 0.1, 5 % of 1,536 neurons, seeds 42 to 44"),
        "{}",
        harness.screen()
    );
    harness.type_text(" x").keys("enter");
    assert!(
        sweep_requests(&harness).is_empty() && harness.screen().contains("'x' is no whole number"),
        "{}",
        harness.screen()
    );
    harness
        .keys("backspace")
        .type_text("50,800")
        .keys("down backspace")
        .type_text("0")
        .keys("enter");
    assert!(
        sweep_requests(&harness).is_empty()
            && harness.screen().contains("seeds: a whole number from 1"),
        "{}",
        harness.screen()
    );
    harness
        .keys("backspace")
        .type_text("2")
        .keys("down space enter");
    let wanted = SweepRequest {
        fit: Some("bcd-k40".to_owned()),
        features: vec![25, 50, 100, 200, 400, 800],
        seeds: 2,
        cold: true,
    };
    assert_eq!(sweep_requests(&harness), [&wanted]);
    let usual = SweepRequest {
        fit: wanted.fit.clone(),
        ..SweepRequest::default()
    };
    let mut plain = Harness::opened(80, 24, Profile::Mono);
    plain.keys("5 S enter");
    assert_eq!(sweep_requests(&plain), [&usual]);
}

#[test]
fn a_sweep_is_watched_row_by_row() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = sweeping(width, height, Profile::TrueColour, 0);
        assert!(
            harness
                .screen()
                .contains("the curves appear with the first number"),
            "{}",
            harness.screen()
        );
        harness = sweeping(width, height, Profile::TrueColour, 4);
        let screen = harness.screen();
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
            insta::assert_snapshot!("sweep_styles", harness.styles());
        }
        harness.keys("S");
        assert!(
            harness.screen().contains("a sweep over k is under way"),
            "{}",
            harness.screen()
        );
        harness.keys("T");
        assert!(
            !harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::TrainSae(_)))
        );
        harness.keys("ctrl-c");
        assert!(harness.sent.contains(&Command::Cancel(Job::Sweep)));
        harness.event(Event::Cancelled(Job::Sweep));
        assert!(
            harness.screen().contains("S sweeps again"),
            "{}",
            harness.screen()
        );
        harness.keys("y");
        assert!(
            harness.screen().contains("Markdown"),
            "{}",
            harness.screen()
        );
        harness.keys("esc esc right left");
        assert!(
            !harness.screen().contains("seeds 42 to 44"),
            "esc leads back to the curve: {}",
            harness.screen()
        );
        harness.keys("left");
        assert!(
            harness.screen().contains("seeds 42 to 44"),
            "{}",
            harness.screen()
        );
        harness.event(Event::Closed);
        assert!(
            !harness.screen().contains("seeds 42 to 44"),
            "{}",
            harness.screen()
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
    let mut harness = Harness::opened(80, 24, Profile::Mono);
    harness.keys("5 S");
    let screen = harness.screen();
    let line = |word: &str| screen.lines().position(|l| l.contains(word)).unwrap() as u16;
    harness
        .click(20, line("fits of each"))
        .keys("backspace")
        .type_text("1");
    harness.click(20, line("warm goes on")).keys("enter");
    let request = sweep_requests(&harness)[0];
    assert_eq!((request.seeds, request.cold), (1, true));
    harness
        .event(Event::Done(Job::Sweep, String::new()))
        .keys("S")
        .mouse(MouseEventKind::ScrollDown, 20, line("fits of each"))
        .keys("backspace")
        .type_text("2");
    harness.keys("enter");
    assert_eq!(sweep_requests(&harness)[1].seeds, 2);
}

#[test]
fn a_sweep_and_its_form_are_drawn_at_any_size() {
    for (width, height) in [(40, 12), (30, 8), (20, 6), (3, 3), (1, 1), (200, 60)] {
        for rows in [1, 5] {
            let mut harness = sweeping(width, height, Profile::TrueColour, rows);
            harness.screen();
            harness.event(Event::Cancelled(Job::Sweep)).keys("S");
            harness.screen();
            harness
                .click(1, 1)
                .click(width / 2, height / 2)
                .mouse(MouseEventKind::ScrollUp, 0, 0)
                .keys("esc");
        }
    }
}
