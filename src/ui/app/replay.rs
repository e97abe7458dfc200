//! A session with the engine itself, written down once and played to the app again: keys go in, what
//! the app asks is what it asked then, and what the engine answered then brings it to the same end.
//!
//! `MLPEEK_RECORD=1 cargo test replay` writes `session.jsonl` anew, on a small random model.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{App, AppOptions, Effect, Msg};
use crate::engine::testing::{Live, Workshop};
use crate::engine::{Command, Reply, Request};
use crate::ui::harness::screen_of;
use crate::ui::keymap::{Key, Keymap};
use crate::ui::pane_id::PaneId;
use crate::ui::theme::{Profile, Theme};

/// What the user does: keys by their spelling, text in quotes, seconds to wait.
const SCRIPT: &str = "j wait:0.5 enter enter 2 wait:0.5 1 M wait:0.5 esc space j space C wait:0.5 \
                      4 e 'river' wait:0.5 esc left wait:0.5";

/// A request and all that came of it.
#[derive(Serialize, Deserialize)]
struct Exchange {
    request: Request,
    replies: Vec<Reply>,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/ui/app/session.jsonl")
}

/// Plays the script to an app that begins with `initial`; `answer` is the engine.
fn play(initial: Command, mut answer: impl FnMut(Request) -> Vec<Reply>) -> App {
    let options = AppOptions {
        theme: Theme::new(Profile::Mono, false),
        keymap: Keymap::default(),
        initial: Some(initial),
        show_start: false,
        notes: Vec::new(),
        fresh: false,
        mouse: true,
        problems: Vec::new(),
    };
    let mut app = App::new(options, (100, 30));
    let mut settle = |app: &mut App, effects: Vec<Effect>| {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            if let Effect::Send(request) = effect {
                for reply in answer(request) {
                    queue.extend(app.update(Msg::Engine(Box::new(reply))));
                }
            }
        }
    };
    let begin = app.begin();
    settle(&mut app, begin);
    let mut now = Duration::ZERO;
    for step in SCRIPT.split_whitespace() {
        if let Some(seconds) = step.strip_prefix("wait:") {
            now += Duration::from_secs_f64(seconds.parse().unwrap());
            let effects = app.update(Msg::Tick(now));
            settle(&mut app, effects);
        } else if let Some(text) = step.strip_prefix('\'') {
            for c in text.trim_end_matches('\'').chars() {
                let effects = app.update(Msg::Key(crossterm::event::KeyCode::Char(c).into()));
                settle(&mut app, effects);
            }
        } else {
            let effects = app.update(Msg::Key(Key::parse(step).unwrap().event()));
            settle(&mut app, effects);
        }
    }
    app
}

/// Asks the engine, and writes down what it answers.
fn record() {
    let workshop = Workshop::new(6);
    Live::opened(&workshop, 4).close();
    let live = Live::new();
    let mut lines = String::new();
    play(Command::OpenStudy(workshop.study()), |request| {
        let replies = live.handle(request.clone());
        let exchange = Exchange { request, replies };
        lines += &(serde_json::to_string(&exchange).unwrap() + "\n");
        exchange.replies
    });
    // Where it was recorded is nobody's business.
    let directory = workshop.path("").display().to_string();
    let lines = lines.replace(directory.trim_end_matches('/'), "/home/someone");
    std::fs::write(file(), lines).unwrap();
}

#[test]
fn a_recorded_session_comes_to_the_same_end() {
    if std::env::var_os("MLPEEK_RECORD").is_some() {
        record();
    }
    let text = std::fs::read_to_string(file()).unwrap();
    let mut exchanges: VecDeque<Exchange> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let initial = exchanges[0].request.command.clone();
    let app = play(initial, |request| {
        let next = exchanges.pop_front();
        let next = next.unwrap_or_else(|| panic!("was not asked then: {request:?}"));
        assert_eq!(request, next.request, "the same is asked as then");
        next.replies
    });
    assert!(exchanges.is_empty(), "{} are not asked", exchanges.len());
    // Where one stands: of a comparison of two marked features to a text in Live.
    assert_eq!(app.focus(), PaneId::Live);
    assert_eq!(app.world.marked.len(), 2);
    assert!(app.world.selected_card().is_some() && app.world.jobs.is_empty());
    assert_eq!(app.session()["panes"]["Live"]["text"], "river");
    let fit = app.world.fit_name().map(str::to_owned);
    assert_eq!(fit.as_deref(), Some("k4"));
    insta::assert_snapshot!(screen_of(&app));
}
