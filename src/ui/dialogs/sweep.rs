//! What a sweep over the number of features is asked for: a small form over the Fit pane. Owns what
//! is typed in it.
//!
//! Invariant: it begins with what `mlpeek sweep` does when nothing is said.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Answer, dialog, frame, inside};
use crate::engine::{Command, SweepRequest};
use crate::factor::FitConfig;
use crate::study::newest;
use crate::text;
use crate::ui::app::App;
use crate::ui::describe::{seeds, settings};
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::world::World;

/// The fields: a name, and what it means.
const FIELDS: [(&str, &str); 3] = [
    ("features", "numbers, apart by spaces or commas"),
    ("seeds", "fits of each, which stability compares"),
    ("start", "warm goes on from fewer, cold anew"),
];
/// The field that is turned, not typed.
const START: usize = 2;

/// Cells of a field's name, and of its value.
const NAME: usize = 10;
const VALUE: usize = 24;
/// Of the whole, with its border.
const SIZE: (u16, u16) = (88, 9);
/// More fits of each than this say nothing new and take days.
const MOST_SEEDS: usize = 20;

/// Its state.
#[derive(Debug)]
pub struct SweepBox {
    typed: [LineInput; 2],
    cold: bool,
    at: usize,
    problem: Option<String>,
}

/// The settings that a sweep takes: those of the fit on show, else of the newest here, else the
/// defaults.
fn base(world: &World) -> FitConfig {
    let Some(study) = &world.study else {
        return FitConfig::default();
    };
    let shown = world
        .fit_name()
        .and_then(|name| study.fits.iter().find(|f| f.name == name));
    shown
        .or_else(|| newest(&study.fits, |hook| hook == study.hook))
        .map(|f| f.config.clone())
        .unwrap_or_default()
}

impl SweepBox {
    /// Begins with what was asked for last, or the defaults.
    pub fn new(world: &World) -> Self {
        let ask = world
            .swept
            .as_ref()
            .map(|(begun, _)| begun.ask.clone())
            .unwrap_or_default();
        let numbers: Vec<String> = ask.features.iter().map(usize::to_string).collect();
        let typed = [
            LineInput::new(&numbers.join(" ")),
            LineInput::new(&ask.seeds.to_string()),
        ];
        Self {
            typed,
            cold: ask.cold,
            at: 0,
            problem: None,
        }
    }

    /// The request as it is typed, or what is wrong with it.
    fn ask(&self, world: &World) -> Result<SweepRequest, String> {
        let mut features = Vec::new();
        for part in self.typed[0]
            .text()
            .split([',', ' ', ';'])
            .filter(|part| !part.is_empty())
        {
            let k = part.parse().ok().filter(|&k: &usize| k > 0);
            features.push(k.ok_or_else(|| {
                format!(
                    "features: '{}' is no whole number above 0",
                    text::clean(part)
                )
            })?);
        }
        features.sort_unstable();
        features.dedup();
        if features.is_empty() {
            return Err("features: at least one number, as 25 50 100".to_owned());
        }
        let seeds = self.typed[1]
            .text()
            .trim()
            .parse()
            .ok()
            .filter(|n| (1..=MOST_SEEDS).contains(n));
        let seeds = seeds.ok_or_else(|| format!("seeds: a whole number from 1 to {MOST_SEEDS}"))?;
        Ok(SweepRequest {
            fit: world.fit_name().map(str::to_owned),
            features,
            seeds,
            cold: self.cold,
        })
    }

    fn turn(&mut self) {
        self.cold = !self.cold;
    }

    pub(super) fn key(&mut self, key: KeyEvent, world: &World) -> Answer {
        match key.code {
            KeyCode::Up | KeyCode::BackTab => self.at = (self.at + FIELDS.len() - 1) % FIELDS.len(),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1) % FIELDS.len(),
            KeyCode::Enter => match self.ask(world) {
                Ok(ask) => return Answer::Send(Box::new(Command::SweepK(ask))),
                Err(problem) => self.problem = Some(problem),
            },
            KeyCode::Left | KeyCode::Right | KeyCode::Char(' ') if self.at == START => self.turn(),
            _ => {
                if let Some(field) = self.typed.get_mut(self.at) {
                    field.key(key);
                    self.problem = None;
                }
            }
        }
        Answer::Stay
    }

    pub(super) fn paste(&mut self, pasted: &str) {
        if let Some(field) = self.typed.get_mut(self.at) {
            field.paste(pasted);
            self.problem = None;
        }
    }

    /// The wheel goes from field to field.
    pub(super) fn scroll(&mut self, down: bool) {
        self.at = if down {
            (self.at + 1).min(FIELDS.len() - 1)
        } else {
            self.at.saturating_sub(1)
        };
    }

    /// A click goes to a field; on the one that is turned, it turns it.
    pub(super) fn click(&mut self, row: u16, screen: Rect) {
        let inner = inside(dialog(screen, SIZE.0, SIZE.1));
        let hit = usize::from(row.wrapping_sub(inner.y));
        if hit < FIELDS.len() && hit < usize::from(inner.height) {
            if hit == START {
                self.turn();
            }
            self.at = hit;
        }
    }

    /// What comes of it, in a line.
    fn outlook(&self, world: &World) -> Result<String, String> {
        let ask = self.ask(world)?;
        let (count, fits) = (ask.features.len(), ask.features.len() * ask.seeds);
        let fits = format!("{fits} {}", if fits == 1 { "fit" } else { "fits" });
        let rows = world.study.as_ref().map_or(0, |s| s.rows);
        let numbers = if count == 1 { "number" } else { "numbers" };
        Ok(format!(
            "{fits} of {count} {numbers} of features, on about four fifths of {} tokens",
            text::count(rows)
        ))
    }

    pub(super) fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        let (theme, world) = (&app.theme, &app.world);
        let hook = world
            .study
            .as_ref()
            .map_or_else(String::new, |study| format!(" at {}", study.hook));
        let inner = frame(
            &format!("Sweep over k{hook}"),
            dialog(screen, SIZE.0, SIZE.1),
            theme,
            buf,
        );
        let width = usize::from(inner.width);
        for (i, (name, what)) in FIELDS.into_iter().enumerate() {
            let here = i == self.at;
            let mut spans = vec![
                Span::styled(if here { "▌" } else { " " }, theme.accent()),
                Span::styled(text::pad(name, NAME - 1), theme.dim()),
            ];
            match self.typed.get(i) {
                Some(typed) if here => spans.extend(typed.line(theme, VALUE).spans),
                Some(typed) => {
                    spans.push(Span::styled(
                        text::truncate(&text::clean(typed.text()), VALUE),
                        theme.heading(),
                    ));
                }
                None => {
                    let value = if self.cold { "cold" } else { "warm" };
                    let style = if here {
                        theme.selected(true)
                    } else {
                        theme.heading()
                    };
                    spans.push(Span::styled(
                        if here {
                            format!("◂ {value} ▸")
                        } else {
                            value.to_owned()
                        },
                        style,
                    ));
                }
            }
            let used: usize = spans.iter().map(Span::width).sum();
            spans.push(Span::raw(
                " ".repeat((NAME + VALUE + 2).saturating_sub(used)),
            ));
            spans.push(Span::styled(
                text::truncate(what, width.saturating_sub(NAME + VALUE + 2)),
                theme.dim(),
            ));
            put(buf, inner, i, &Line::from(spans));
        }
        let (said, style) = match (&self.problem, self.outlook(world)) {
            (Some(problem), _) => (problem.clone(), theme.warning()),
            (None, Err(problem)) => (problem, theme.warning()),
            (None, Ok(outlook)) => (outlook, theme.text()),
        };
        let config = base(world);
        let first = config.seed;
        let count = self.ask(world).map_or(1, |ask| ask.seeds);
        let neurons = world.study.as_ref().map_or(0, |s| s.width);
        let how = format!("{}, {}", settings(&config, neurons), seeds(first, count));
        put(
            buf,
            inner,
            4,
            &Line::styled(text::truncate(&said, width), style),
        );
        put(
            buf,
            inner,
            5,
            &Line::styled(text::truncate(&how, width), theme.dim()),
        );
        let keys = "enter sweeps, up and down go, esc leaves";
        put(
            buf,
            inner,
            6,
            &Line::styled(text::truncate(keys, width), theme.dim()),
        );
    }
}

#[cfg(test)]
mod tests;
