//! What lies over the panes: help, palette, log, a name to type, a question before quitting. Owns
//! which one is open; while one is, keys go to it alone.
//!
//! Invariant: `esc` always closes it.

pub mod help;
pub mod log;
pub mod palette;
pub mod sets;
pub mod sweep;
pub mod train;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Widget};

use crate::disk;
use crate::engine::{Command, Job, TypedNote};
use crate::text;
use crate::ui::action::Action;
use crate::ui::app::App;
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::keymap::{Key, Keymap};
use crate::ui::pane::Copies;
use crate::ui::pane_id::PaneId;
use crate::ui::theme::Theme;
use crate::ui::world::World;

use help::HelpBox;
use log::LogDrawer;
use palette::PaletteBox;
use sets::SetsBox;
use sweep::SweepBox;
use train::TrainBox;

/// Lines of a reason for a question at most.
const WHY: usize = 6;

/// What lies over the panes.
#[derive(Debug)]
pub enum Overlay {
    /// All keys.
    Help(HelpBox),
    /// Commands by name.
    Palette(PaletteBox),
    /// The log.
    Log(LogDrawer),
    /// Sets of directions to choose from.
    Sets(SetsBox),
    /// What an autoencoder is trained with.
    Train(TrainBox),
    /// What a sweep over the number of features is asked for.
    Sweep(SweepBox),
    /// A line is asked for.
    Ask(Question, LineInput),
    /// Quit although these run, or notes are not kept yet?
    Quit(Vec<Job>),
    /// In which form to copy.
    Copy(Box<Copies>),
}

/// What a line is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A feature's name and notes, as they are now.
    Name(TypedNote),
    /// A file to take notes from.
    Notes,
    /// Another study, to hold this fit beside.
    Study(String),
    /// Where the study's model lies, with why that is asked.
    Model(String),
}

impl Question {
    fn title(&self) -> String {
        match self {
            Self::Name(note) => format!("Name and notes of feature #{}", note.id),
            Self::Notes => "Names and notes from a file".to_owned(),
            Self::Study(fit) => format!("Compare {} with another study", text::clean(fit)),
            Self::Model(_) => "Where is the study's model?".to_owned(),
        }
    }

    /// The lines below it, for `cells`.
    fn hints(&self, cells: usize) -> Vec<String> {
        let hints = match self {
            Self::Name(_) => [
                "months of the year #time *4 -- fires on years too",
                "a name, #tags, *1 to *5, -- a note; enter keeps, esc leaves",
            ],
            Self::Notes => [
                "a JSON file as export-notes writes it",
                "enter takes it, esc leaves",
            ],
            Self::Study(_) => [
                "STUDY takes its newest fit of this hook, STUDY/fits/NAME one",
                "enter compares, esc leaves",
            ],
            Self::Model(why) => {
                let mut lines = text::wrap(&text::clean(why), cells);
                lines.truncate(WHY);
                lines.push("a directory, a GGUF file or a Hub id: enter opens it,".to_owned());
                lines.push("esc reads on without lens, trace and steering".to_owned());
                return lines;
            }
        };
        hints.map(str::to_owned).to_vec()
    }

    fn answer(&self, line: &str) -> Answer {
        match self {
            Self::Name(note) => Answer::Note(TypedNote {
                line: line.to_owned(),
                ..note.clone()
            }),
            Self::Notes => Answer::Send(Box::new(Command::ImportNotes(disk::expand_home(line)))),
            Self::Study(fit) => Answer::Send(Box::new(Command::CompareStudy(
                fit.clone(),
                disk::expand_home(line),
            ))),
            Self::Model(_) => Answer::Send(Box::new(Command::ModelAt(line.to_owned()))),
        }
    }
}

/// What an overlay answers to a key.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// It stays open.
    Stay,
    /// It closes.
    Close,
    /// It closes, and this is done.
    Do(Action),
    /// It closes, and this is sent.
    Send(Box<Command>),
    /// It closes, and this is noted.
    Note(TypedNote),
    /// It closes, and this text goes to the clipboard: what it is comes second.
    Copy(String, String),
    /// The explorer ends.
    Quit,
}

impl Overlay {
    /// All keys, those of `pane` first.
    pub fn help(pane: PaneId) -> Self {
        Self::Help(HelpBox::new(pane))
    }

    /// Commands of `pane` by name.
    pub fn palette(pane: PaneId) -> Self {
        Self::Palette(PaletteBox::new(pane))
    }

    /// The log, at its end.
    pub fn log() -> Self {
        Self::Log(LogDrawer::default())
    }

    /// The sets of the study that is open.
    pub fn sets(world: &World) -> Self {
        Self::Sets(SetsBox::new(world))
    }

    /// What an autoencoder is trained with.
    pub fn train(world: &World) -> Self {
        Self::Train(TrainBox::new(world))
    }

    /// What a sweep over the number of features is asked for.
    pub fn sweep(world: &World) -> Self {
        Self::Sweep(SweepBox::new(world))
    }

    /// A line, which begins as `now`.
    pub fn ask(question: Question, now: &str) -> Self {
        Self::Ask(question, LineInput::new(now))
    }

    /// Quit although `jobs` run, or notes are not kept yet?
    pub fn quit(jobs: &[Job]) -> Self {
        Self::Quit(jobs.to_vec())
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, world: &World, keymap: &Keymap) -> Answer {
        if key.code == KeyCode::Esc {
            return Answer::Close;
        }
        match self {
            Self::Help(help) => help.key(key, keymap),
            Self::Palette(palette) => palette.key(key),
            Self::Sets(sets) => sets.key(key, world, keymap),
            Self::Train(train) => train.key(key),
            Self::Sweep(sweep) => sweep.key(key, world),
            Self::Log(log) => log.key(key, world, keymap),
            Self::Ask(question, input) => match key.code {
                KeyCode::Enter => question.answer(input.text().trim()),
                _ => {
                    input.key(key);
                    Answer::Stay
                }
            },
            Self::Copy(copies) => match form(key, keymap) {
                Some(Form::Text) => Answer::Copy(copies.text.clone(), copies.what.clone()),
                Some(Form::Json) => {
                    Answer::Copy(json(&copies.json), format!("{} as JSON", copies.what))
                }
                Some(Form::Markdown) => Answer::Copy(
                    copies.markdown.clone(),
                    format!("{} as Markdown", copies.what),
                ),
                None => Answer::Stay,
            },
            Self::Quit(_) => match key.code {
                KeyCode::Enter | KeyCode::Char('y' | 'q')
                    if key.modifiers == KeyModifiers::NONE =>
                {
                    Answer::Quit
                }
                KeyCode::Char('n') => Answer::Close,
                _ if keymap.action(Key::of(key), PaneId::Features) == Some(Action::Quit) => {
                    Answer::Quit
                }
                _ => Answer::Stay,
            },
        }
    }

    /// Pasted text.
    pub fn paste(&mut self, pasted: &str) {
        match self {
            Self::Help(help) => help.paste(pasted),
            Self::Palette(palette) => palette.paste(pasted),
            Self::Ask(_, input) => input.paste(pasted),
            Self::Train(train) => train.paste(pasted),
            Self::Sweep(sweep) => sweep.paste(pasted),
            Self::Log(_) | Self::Quit(_) | Self::Copy(_) | Self::Sets(_) => {}
        }
    }

    /// A turn of the wheel.
    pub fn scroll(&mut self, down: bool) {
        match self {
            Self::Help(help) => help.scroll(down),
            Self::Palette(palette) => palette.scroll(down),
            Self::Log(log) => log.scroll(down),
            Self::Sets(sets) => sets.scroll(down),
            Self::Train(train) => train.scroll(down),
            Self::Sweep(sweep) => sweep.scroll(down),
            Self::Ask(..) | Self::Quit(_) | Self::Copy(_) => {}
        }
    }

    /// A click: on a field or a line of a list it goes there, on the line that the cursor is on
    /// already it does what enter does.
    pub fn click(&mut self, at: Position, screen: Rect, world: &World, keymap: &Keymap) -> Answer {
        let enter = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
        let again = match self {
            Self::Palette(palette) => palette.click(at, screen),
            Self::Sets(sets) => sets.click(at, screen, world),
            Self::Train(train) => {
                train.click(at.y, screen);
                false
            }
            Self::Sweep(sweep) => {
                sweep.click(at.y, screen);
                false
            }
            Self::Copy(_) | Self::Help(_) | Self::Log(_) | Self::Ask(..) | Self::Quit(_) => false,
        };
        if again {
            self.key(enter, world, keymap)
        } else {
            Answer::Stay
        }
    }

    /// Draws over `screen`.
    pub fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        match self {
            Self::Help(help) => help.view(app, screen, buf),
            Self::Palette(palette) => palette.view(app, screen, buf),
            Self::Sets(sets) => sets.view(app, screen, buf),
            Self::Train(train) => train.view(app, screen, buf),
            Self::Sweep(sweep) => sweep.view(app, screen, buf),
            Self::Log(log) => log.view(app, screen, buf),
            Self::Ask(question, input) => {
                let cells = usize::from(inside(dialog(screen, 68, 5)).width);
                let hints = question.hints(cells);
                let area = dialog(screen, 68, 3 + hints.len() as u16);
                let inner = frame(&question.title(), area, &app.theme, buf);
                put(
                    buf,
                    inner,
                    0,
                    &input.line(&app.theme, usize::from(inner.width)),
                );
                for (i, hint) in hints.iter().enumerate() {
                    put(
                        buf,
                        inner,
                        i + 1,
                        &Line::styled(text::truncate(hint, cells), app.theme.dim()),
                    );
                }
            }
            Self::Quit(jobs) => quit_view(jobs, app, screen, buf),
            Self::Copy(copies) => copy_view(copies, app, screen, buf),
        }
    }
}

/// In which form something is copied.
enum Form {
    Text,
    Json,
    Markdown,
}

/// The form that a key means; the key that copies, pressed again, means text.
fn form(key: KeyEvent, keymap: &Keymap) -> Option<Form> {
    match key.code {
        KeyCode::Enter | KeyCode::Char('t') => Some(Form::Text),
        KeyCode::Char('j') => Some(Form::Json),
        KeyCode::Char('m') => Some(Form::Markdown),
        _ => (keymap.action(Key::of(key), PaneId::Features) == Some(Action::Copy))
            .then_some(Form::Text),
    }
}

/// JSON to be read by a person too.
fn json(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn copy_view(copies: &Copies, app: &App, screen: Rect, buf: &mut Buffer) {
    let area = dialog(screen, 52, 4);
    let inner = frame("Copy", area, &app.theme, buf);
    let what = text::truncate(&text::clean(&copies.what), usize::from(inner.width));
    put(buf, inner, 0, &Line::raw(what));
    let accent = app.theme.accent();
    let forms = [
        ("t", " text   "),
        ("j", " JSON   "),
        ("m", " Markdown   "),
        ("esc", " leaves"),
    ];
    let spans = forms
        .into_iter()
        .flat_map(|(key, what)| [Span::styled(key, accent), Span::raw(what)]);
    put(buf, inner, 1, &Line::from(spans.collect::<Vec<_>>()));
}

fn quit_view(jobs: &[Job], app: &App, screen: Rect, buf: &mut Buffer) {
    let area = dialog(screen, 60, 5);
    let inner = frame("Quit?", area, &app.theme, buf);
    let running: Vec<&str> = jobs.iter().map(|j| j.label()).collect();
    let accent = app.theme.accent();
    let lines = match (app.unsaved_notes(), running.is_empty()) {
        (0, _) => [
            format!(
                "Still {}. It stops at the next checkpoint;",
                running.join(" and ")
            ),
            "what was saved stays, and the next run goes on.".to_owned(),
        ],
        (notes, is_idle) => [
            format!("Notes not kept yet: {notes}. Tried once more, then lost."),
            if is_idle {
                String::new()
            } else {
                format!("Still {}; what was saved stays.", running.join(" and "))
            },
        ],
    };
    for (i, line) in lines.iter().enumerate() {
        put(
            buf,
            inner,
            i,
            &Line::raw(text::truncate(line, usize::from(inner.width))),
        );
    }
    put(
        buf,
        inner,
        2,
        &Line::from(vec![
            Span::styled("enter", accent),
            Span::raw(" quits   "),
            Span::styled("esc", accent),
            Span::raw(" stays"),
        ]),
    );
}

/// A box of at most `width` × `height`, in the middle of the screen.
pub fn dialog(screen: Rect, width: u16, height: u16) -> Rect {
    let width = width.min(screen.width);
    let height = height.min(screen.height);
    Rect::new(
        screen.x + (screen.width - width) / 2,
        screen.y + (screen.height - height) / 3,
        width,
        height,
    )
}

/// What [`frame`] returns for `area`: where its lines are.
pub fn inside(area: Rect) -> Rect {
    let inner = Block::bordered().inner(area);
    Rect {
        x: inner.x + u16::from(inner.width > 2),
        width: inner.width.saturating_sub(2),
        ..inner
    }
}

/// Clears `area`, draws a titled border and returns the inside.
pub fn frame(title: &str, area: Rect, theme: &Theme, buf: &mut Buffer) -> Rect {
    let area = area.intersection(buf.area);
    Clear.render(area, buf);
    let block = Block::bordered()
        .border_set(border::ROUNDED)
        .border_style(theme.accent())
        .title(Span::styled(format!(" {title} "), theme.title(true)));
    block.render(area, buf);
    inside(area)
}
