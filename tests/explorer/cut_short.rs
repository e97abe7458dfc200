//! What was cut short or has moved: the explorer says so and goes on from there by a key.

use std::path::Path;

use crate::support;
use crate::terminal::{ENTER, ESC, Home, Terminal, home};

fn open(home: &Home, args: &[&str], cols: u16, rows: u16) -> Terminal {
    Terminal::open(home.dir.path(), args, cols, rows, &[])
}

#[test]
fn collecting_that_was_cut_short_is_shown_and_goes_on_by_a_key() {
    let home = home();
    let data = support::corpus(home.dir.path(), 400);
    let study = home.dir.path().join("study");
    support::half_collected(&study, Path::new(&home.model), &data);
    let state = mlpeek::study::Study::open_read_only(&study)
        .unwrap()
        .collected()
        .unwrap();
    let mut t = open(&home, &["study"], 120, 36);
    t.sees(&format!("collected {} %", state.percent()));
    t.sees(&format!("{} of 400 samples", state.samples));
    t.sees("goes on");
    t.until("the model", |s| s.contains("f32)"));
    assert!(!t.text().contains("failed"), "{}", t.text());
    t.keys("5");
    t.sees(&format!("{} of 400 samples", state.samples));
    t.keys("6");
    t.until("the state in the list", |s| {
        s.lines().any(|l| {
            l.contains("tiny-llama") && l.contains(&format!("collected {} %", state.percent()))
        })
    });
    t.keys("1R");
    // The first fit follows, as in a study that was never stopped.
    t.until("features", |s| {
        s.contains("Features 100") && s.contains("sweep ")
    });
    assert!(!t.text().contains("collected "), "{}", t.text());
    let whole = mlpeek::study::Study::open_read_only(&study)
        .unwrap()
        .collected()
        .unwrap();
    assert!(whole.is_complete());
    // What the user stops is shown as that.
    t.keys("\u{3}");
    t.sees("stopped at sweep");
    t.quits();
}

#[test]
fn another_layer_of_a_study_that_was_cut_short_goes_on_with_it_where_it_is_the_same() {
    let home = home();
    let data = support::corpus(home.dir.path(), 400);
    let study = home.dir.path().join("study");
    support::half_collected(&study, Path::new(&home.model), &data);
    let mut t = open(&home, &["study"], 120, 36);
    t.until("the model", |s| s.contains("f32)"));
    t.keys("L");
    t.sees("Open a model");
    t.keys(ENTER);
    t.until("features", |s| {
        s.contains("Features 100") && s.contains("sweep ")
    });
    assert!(
        mlpeek::study::Study::open_read_only(&study)
            .unwrap()
            .collected()
            .unwrap()
            .is_complete()
    );
    assert!(
        !home.dir.path().join("home/studies").exists(),
        "no other study was begun"
    );
    t.keys("\u{3}");
    t.sees("stopped at sweep");
    t.quits();
}

#[test]
fn a_fit_that_was_stopped_is_shown_as_that_and_goes_on_by_a_key() {
    let home = home();
    let study = home.study(&["12"]);
    let config = mlpeek::factor::FitConfig {
        features: 8,
        max_sweeps: Some(30),
        ..Default::default()
    };
    {
        // As after a kill at its second sweep: begun, two sweeps told, nothing saved.
        let study = mlpeek::study::Study::open(&study).unwrap();
        let hook = study.manifest().hooks[0];
        study
            .start_fit("cut", hook, &config.with_sparsity_at(support::D_MLP))
            .unwrap();
        let sweep = |n: usize| {
            format!("{{\"sweep\":{n},\"relative_error\":0.9,\"seconds\":0.1,\"stop\":null}}\n")
        };
        std::fs::write(study.loss_path("cut").unwrap(), sweep(1) + &sweep(2)).unwrap();
    }
    let mut t = home.explore(120, 36, &[]);
    // The finished one is what is shown.
    t.sees("fitted");
    t.keys("5");
    t.until("the fit in the list", |s| {
        s.lines()
            .any(|l| l.contains("cut ") && l.contains("stopped at sweep 2"))
    });
    t.keys("F");
    t.until("its end", |s| {
        s.contains("Fit cut") && s.contains("fitted") && !s.contains("stopped at sweep 2")
    });
    t.quits();
}

#[test]
fn a_fit_that_the_closing_of_the_explorer_stopped_is_not_shown_as_fitted() {
    let home = home();
    home.study(&[]);
    home.run(&[
        "fit",
        "study",
        "-k",
        "8",
        "--max-sweeps",
        "2",
        "--name",
        "early",
    ]);
    let config = home.dir.path().join("study/fits/early/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("max_sweeps"), "{text}");
    std::fs::write(&config, text.replacen("\"max_sweeps\",", "\"stopped\",", 1)).unwrap();
    let mut t = home.explore(120, 36, &[]);
    t.sees("stopped at sweep 2");
    assert!(!t.text().contains("fitted"), "{}", t.text());
    t.sees("goes on");
    t.keys("5");
    t.sees("stopped: R goes on");
    t.quits();
}

#[test]
fn the_place_of_a_model_that_moved_is_asked_for_and_kept() {
    let home = home();
    home.study(&["12"]);
    let moved = home.dir.path().join("moved");
    std::fs::rename(&home.model, &moved).unwrap();
    for (cols, rows) in [(80, 24), (60, 18)] {
        let mut t = open(&home, &["study"], cols, rows);
        t.sees("Where is the study's model?");
        t.keys(ESC);
        t.loses("Where is the study's model?");
        t.quits();
    }
    let mut t = open(&home, &["study"], 120, 36);
    t.sees("Where is the study's model?");
    t.sees("is not there");
    t.keys(ESC);
    // Reading goes on, and it can be said later.
    t.sees("Contexts of #");
    t.sees("(not found)");
    t.keys("W");
    t.sees("Where is the study's model?");
    t.keys("\u{15}nowhere");
    t.keys(ENTER);
    t.until("the question again", |s| {
        s.contains("Where is the study's model?") && s.contains("nowhere")
    });
    t.keys("\u{15}moved");
    t.keys(ENTER);
    t.until("the model", |s| {
        s.contains("f32)") && !s.contains("(not found)")
    });
    t.quits();
    let t = home.explore(120, 36, &[]);
    t.quits();
}

#[test]
fn a_study_is_opened_with_its_model_at_another_place_from_the_command_line() {
    let home = home();
    home.study(&["12"]);
    std::fs::rename(&home.model, home.dir.path().join("moved")).unwrap();
    let t = open(&home, &["study", "--model", "moved"], 120, 36);
    t.until("the study and its model", |s| {
        s.contains("Features ") && s.contains("moved (cpu, f32)")
    });
    t.quits();
    // Another model: the study is read without it.
    let other = support::tiny_model(&home.dir.path().join("other"));
    let config = other.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("silu", "relu")).unwrap();
    let mut t = open(
        &home,
        &["study", "--model", other.to_str().unwrap()],
        120,
        36,
    );
    t.sees("Where is the study's model?");
    t.sees("another configuration");
    t.keys(ESC);
    t.sees("Contexts of #");
    t.keys("4");
    t.quits();
}
