//! For tests: an app over the fake engine, keys by their spelling, and the screen as text with
//! its styles.

use std::collections::VecDeque;
use std::time::Duration;

use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::app::{App, AppOptions, Effect, Msg};
use super::fake_engine::FakeEngine;
use super::keymap::{Key, Keymap};
use super::theme::{Profile, Theme};
use super::view::view;
use crate::engine::{Command, Event, Reply, Request};

/// An app with its fake engine and what it asked for.
pub struct Harness {
    pub app: App,
    pub engine: FakeEngine,
    /// Everything sent to the engine so far.
    pub sent: Vec<Command>,
    /// The same with their numbers.
    requests: Vec<Request>,
    /// Every other effect so far.
    pub effects: Vec<Effect>,
    /// Questions are answered; else they wait for [`Harness::event`].
    pub answers: bool,
    now: Duration,
}

impl Harness {
    /// An app with nothing open.
    pub fn new(width: u16, height: u16, profile: Profile) -> Self {
        Self::with(width, height, profile, false)
    }

    /// Nothing open, in the Start pane or not.
    pub fn with(width: u16, height: u16, profile: Profile, show_start: bool) -> Self {
        let options = AppOptions {
            theme: Theme::new(profile, false),
            keymap: Keymap::default(),
            initial: None,
            show_start,
            notes: Vec::new(),
            fresh: false,
            mouse: true,
            problems: Vec::new(),
        };
        let app = App::new(options, (width, height));
        let mut harness = Self {
            app,
            engine: FakeEngine::default(),
            sent: Vec::new(),
            requests: Vec::new(),
            effects: Vec::new(),
            answers: true,
            now: Duration::ZERO,
        };
        let effects = harness.app.begin();
        harness.settle(effects);
        harness
    }

    /// A study with a finished fit of 40 features is open.
    pub fn opened(width: u16, height: u16, profile: Profile) -> Self {
        Self::opened_with(width, height, profile, 40)
    }

    /// A study with a finished fit of `features` is open.
    pub fn opened_with(width: u16, height: u16, profile: Profile, features: usize) -> Self {
        let mut harness = Self::new(width, height, profile);
        harness.engine.features = features;
        for event in harness.engine.opened() {
            harness.event(event);
        }
        harness
    }

    /// Answers everything the app asks, and what it asks then.
    pub fn settle(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Send(request) => {
                    let answer = if self.answers {
                        self.engine.answer(&request)
                    } else {
                        Vec::new()
                    };
                    for reply in answer {
                        queue.extend(self.app.update(Msg::Engine(Box::new(reply))));
                    }
                    self.sent.push(request.command.clone());
                    self.requests.push(request);
                }
                other => self.effects.push(other),
            }
        }
    }

    /// Takes a message, answers, and lets every deadline pass.
    pub fn msg(&mut self, msg: Msg) -> &mut Self {
        let effects = self.app.update(msg);
        self.settle(effects);
        self
    }

    /// The engine tells something that nothing here asked for.
    pub fn event(&mut self, event: Event) -> &mut Self {
        self.msg(Msg::Engine(Box::new(Reply { to: None, event })))
    }

    /// The engine answers the newest request that this can come of.
    pub fn reply(&mut self, event: Event) -> &mut Self {
        let newest = self
            .requests
            .iter()
            .rfind(|r| comes_of(&event, &r.command))
            .unwrap_or_else(|| panic!("nothing asked for {event:?}"));
        let to = Some(newest.id);
        self.msg(Msg::Engine(Box::new(Reply { to, event })))
    }

    /// The engine refuses the newest of these requests.
    pub fn refuse(&mut self, which: fn(&Command) -> bool, why: &str) -> &mut Self {
        let newest = self.requests.iter().rfind(|r| which(&r.command));
        let to = Some(newest.expect("such a request was sent").id);
        let event = Event::Refused(why.to_owned());
        self.msg(Msg::Engine(Box::new(Reply { to, event })))
    }

    /// Lets so many seconds pass.
    pub fn wait(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self.msg(Msg::Tick(self.now))
    }

    /// Keys by their spelling, separated by spaces.
    pub fn keys(&mut self, keys: &str) -> &mut Self {
        for spelling in keys.split_whitespace() {
            let key = Key::parse(spelling).unwrap_or_else(|| panic!("no key '{spelling}'"));
            self.msg(Msg::Key(key.event()));
        }
        self
    }

    /// Text typed character by character.
    pub fn type_text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            self.msg(Msg::Key(crossterm::event::KeyCode::Char(c).into()));
        }
        self
    }

    /// A click of the left button.
    pub fn click(&mut self, column: u16, row: u16) -> &mut Self {
        self.mouse(MouseEventKind::Down(MouseButton::Left), column, row)
    }

    /// The line and the column where `word` begins on the screen.
    pub fn find(&self, word: &str) -> Option<(u16, u16)> {
        let screen = self.screen();
        let column = |line: &str| {
            line.find(word)
                .map(|at| crate::text::width(&line[..at]) as u16)
        };
        screen
            .lines()
            .enumerate()
            .find_map(|(y, line)| Some((y as u16, column(line)?)))
    }

    /// Something that the mouse does.
    pub fn mouse(&mut self, kind: MouseEventKind, column: u16, row: u16) -> &mut Self {
        self.msg(Msg::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }))
    }

    /// The screen as text.
    pub fn screen(&self) -> String {
        screen_of(&self.app)
    }

    /// The cells of the open dialog as text, its border among them.
    pub fn dialog(&self) -> String {
        let terminal = draw(&self.app);
        let buffer = terminal.backend().buffer();
        let area = self.app.dialog_area().expect("a dialog is open");
        let line = |y| {
            let mut line = String::new();
            let mut x = area.left();
            while x < area.right() {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                // The second cell of a wide character is empty.
                x += (crate::text::width(symbol) as u16).max(1);
            }
            line.trim_end().to_owned()
        };
        let lines: Vec<String> = (area.top()..area.bottom()).map(line).collect();
        lines.join("\n")
    }

    /// The styles of the open dialog's cells, its corner being 0, 0.
    pub fn dialog_styles(&self) -> String {
        self.styles_in(self.app.dialog_area().expect("a dialog is open"))
    }

    /// The cells of the screen with their styles.
    pub fn cells(&self) -> Buffer {
        draw(&self.app).backend().buffer().clone()
    }

    /// The screen's styles: a line for every run of cells that is not plain.
    pub fn styles(&self) -> String {
        let (width, height) = self.app.size();
        self.styles_in(Rect::new(0, 0, width, height))
    }

    fn styles_in(&self, area: Rect) -> String {
        let terminal = draw(&self.app);
        let buffer = terminal.backend().buffer();
        let mut out = String::new();
        for y in area.top()..area.bottom() {
            let mut x = area.left();
            while x < area.right() {
                let style = buffer[(x, y)].style();
                let from = x;
                let mut run = String::new();
                while x < area.right() && buffer[(x, y)].style() == style {
                    run.push_str(buffer[(x, y)].symbol());
                    x += 1;
                }
                let named = name(style);
                if !named.is_empty() && (!run.trim().is_empty() || named.contains("on")) {
                    let (y, from, to) = (y - area.y, from - area.x, x - 1 - area.x);
                    out.push_str(&format!("{y}:{from}-{to} {named} |{run}|\n"));
                }
            }
        }
        out
    }
}

fn draw(app: &App) -> Terminal<TestBackend> {
    let (width, height) = app.size();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend");
    terminal
        .draw(|frame| view(app, frame.buffer_mut()))
        .expect("drawing");
    terminal
}

/// The screen of an app as text.
pub fn screen_of(app: &App) -> String {
    let terminal = draw(app);
    // The test backend cannot print a screen without columns.
    if app.size().0 == 0 {
        return String::new();
    }
    let text = terminal.backend().to_string();
    text.lines()
        .map(|l| l.trim_matches('"').trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether an event of this kind is an answer to this command.
fn comes_of(event: &Event, command: &Command) -> bool {
    match (event, command) {
        (
            Event::Started(job)
            | Event::Done(job, _)
            | Event::Cancelled(job)
            | Event::Failed(job, _)
            | Event::Progress { job, .. },
            command,
        ) => command.job() == Some(*job),
        (Event::Found(found, _), Command::Find(probe)) => found == probe,
        (Event::Tree(_), Command::Tree(..))
        | (Event::Labels(_), Command::Labels)
        | (Event::Trace(_), Command::Trace(_))
        | (Event::SteerInfo(_) | Event::SteerText { .. }, Command::Steer(_))
        | (Event::Judged(_) | Event::Evaluation(_), Command::Evaluate(_))
        | (Event::Card(_), Command::Inspect(_)) => true,
        _ => false,
    }
}

fn name(style: Style) -> String {
    let colour = |c: Option<Color>| match c {
        None | Some(Color::Reset) => None,
        Some(Color::Rgb(r, g, b)) => Some(format!("{r:02x}{g:02x}{b:02x}")),
        Some(other) => Some(format!("{other:?}").to_lowercase()),
    };
    let mut parts: Vec<String> = colour(style.fg).into_iter().collect();
    parts.extend(colour(style.bg).map(|c| format!("on {c}")));
    for (flag, word) in [
        (Modifier::BOLD, "bold"),
        (Modifier::UNDERLINED, "underlined"),
        (Modifier::REVERSED, "reversed"),
    ] {
        if style.add_modifier.contains(flag) {
            parts.push(word.to_owned());
        }
    }
    parts.join(" ")
}
