//! What an autoencoder is trained with: a small form over the Fit pane. Owns what is typed in it.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Answer, dialog, frame, inside};
use crate::engine::{Command, TrainConfig};
use crate::study::SaeEntry;
use crate::text;
use crate::ui::app::App;
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::world::World;

/// The fields: a name, and what it means.
const FIELDS: [(&str, &str); 3] = [
    ("latents", "how many directions it looks for"),
    ("active", "how many of them describe a token"),
    ("passes", "over all tokens"),
];

/// Cells of a field's name, and of its value.
const NAME: usize = 10;
const VALUE: usize = 10;
/// Of the whole, with its border.
const SIZE: (u16, u16) = (66, 8);

/// Its state.
#[derive(Debug)]
pub struct TrainBox {
    /// What is not asked for.
    base: TrainConfig,
    typed: [LineInput; 3],
    at: usize,
    problem: Option<String>,
}

/// Trainings of the hook on show, newest first.
fn here(world: &World) -> impl Iterator<Item = &SaeEntry> {
    let study = world.study.as_deref();
    study.into_iter().flat_map(|s| {
        s.saes
            .iter()
            .rev()
            .filter(|sae| sae.hook == s.hook && sae.trained.is_some())
    })
}

impl TrainBox {
    /// Begins with what was stopped, or the defaults.
    pub fn new(world: &World) -> Self {
        let stopped = here(world)
            .find(|sae| sae.resumable)
            .and_then(|sae| sae.trained.clone());
        let base = stopped.unwrap_or_default();
        let typed = [base.latents, base.top_k, base.epochs].map(|n| LineInput::new(&n.to_string()));
        Self {
            base,
            typed,
            at: 0,
            problem: None,
        }
    }

    /// The configuration as it is typed, or what is wrong with it.
    fn config(&self) -> Result<TrainConfig, String> {
        let number = |i: usize| {
            let plain: String = self.typed[i]
                .text()
                .chars()
                .filter(|c| !",_ ".contains(*c))
                .collect();
            let read = plain.parse::<usize>().ok().filter(|&n| n > 0);
            read.ok_or_else(|| format!("{}: a whole number above 0", FIELDS[i].0))
        };
        let (latents, top_k, epochs) = (number(0)?, number(1)?, number(2)?);
        if top_k > latents {
            return Err(format!(
                "of {} latents at most as many are active",
                text::count(latents)
            ));
        }
        Ok(TrainConfig {
            latents,
            top_k,
            epochs,
            ..self.base.clone()
        })
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Answer {
        match key.code {
            KeyCode::Up | KeyCode::BackTab => self.at = (self.at + FIELDS.len() - 1) % FIELDS.len(),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1) % FIELDS.len(),
            KeyCode::Enter => match self.config() {
                Ok(config) => return Answer::Send(Box::new(Command::TrainSae(config))),
                Err(problem) => self.problem = Some(problem),
            },
            _ => {
                self.typed[self.at].key(key);
                self.problem = None;
            }
        }
        Answer::Stay
    }

    pub(super) fn paste(&mut self, pasted: &str) {
        self.typed[self.at].paste(pasted);
        self.problem = None;
    }

    /// The wheel goes from field to field.
    pub(super) fn scroll(&mut self, down: bool) {
        self.at = if down {
            (self.at + 1).min(FIELDS.len() - 1)
        } else {
            self.at.saturating_sub(1)
        };
    }

    /// A click goes to a field.
    pub(super) fn click(&mut self, row: u16, screen: Rect) {
        let inner = inside(dialog(screen, SIZE.0, SIZE.1));
        let hit = usize::from(row.wrapping_sub(inner.y));
        if hit < FIELDS.len() && hit < usize::from(inner.height) {
            self.at = hit;
        }
    }

    /// What comes of it, in a line.
    fn outlook(&self, world: &World) -> Result<String, String> {
        let config = self.config()?;
        let same = here(world).find(|sae| sae.trained.as_ref() == Some(&config));
        let rows = world.study.as_ref().map_or(0, |s| s.rows);
        let steps = rows.div_ceil(config.batch.max(1)) * config.epochs;
        Ok(match same {
            Some(sae) if sae.resumable => {
                format!("{} goes on where it was stopped", text::clean(&sae.name))
            }
            Some(sae) if sae.figures.is_some() => {
                format!("{} is this already", text::clean(&sae.name))
            }
            _ => format!(
                "{} steps of {} of {} tokens",
                text::count(steps),
                config.batch,
                text::count(rows)
            ),
        })
    }

    pub(super) fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        let theme = &app.theme;
        let hook = app
            .world
            .study
            .as_ref()
            .map_or_else(String::new, |study| format!(" at {}", study.hook));
        let area = dialog(screen, SIZE.0, SIZE.1);
        let inner = frame(&format!("Train an autoencoder{hook}"), area, theme, buf);
        let width = usize::from(inner.width);
        for (i, (name, what)) in FIELDS.into_iter().enumerate() {
            let here = i == self.at;
            let mut spans = vec![
                Span::styled(if here { "▌" } else { " " }, theme.accent()),
                Span::styled(text::pad(name, NAME - 1), theme.dim()),
            ];
            if here {
                spans.extend(self.typed[i].line(theme, VALUE).spans);
            } else {
                spans.push(Span::styled(
                    text::truncate(&text::clean(self.typed[i].text()), VALUE),
                    theme.heading(),
                ));
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
        let (said, style) = match (&self.problem, self.outlook(&app.world)) {
            (Some(problem), _) => (problem.clone(), theme.warning()),
            (None, Err(problem)) => (problem, theme.warning()),
            (None, Ok(outlook)) => (outlook, theme.text()),
        };
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
            &Line::styled(
                text::truncate("enter trains, up and down go, esc leaves", width),
                theme.dim(),
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Event, Job, TrainPoint};
    use crate::ui::demo::Demo;
    use crate::ui::stage::Stage;
    use crate::ui::theme::Profile;

    fn asked(stage: &Stage) -> Vec<&TrainConfig> {
        stage
            .sent
            .iter()
            .filter_map(|c| {
                if let Command::TrainSae(config) = c {
                    Some(config)
                } else {
                    None
                }
            })
            .collect()
    }

    fn point(epoch: usize) -> Event {
        Event::TrainPoint(TrainPoint {
            step: epoch as u64 * 34,
            total: 60 * 34,
            epoch,
            fvu: 0.2 + 0.8 / epoch as f64,
            dead: 3 * epoch,
            seconds: epoch as f64 * 2.5,
            pass: None,
        })
    }

    /// A stage where a training runs.
    fn training(width: u16, height: u16, profile: Profile) -> Stage {
        let mut stage = Stage::opened(width, height, profile);
        stage.keys("5 T enter");
        let mut entry = stage.demo.study().saes[0].clone();
        let config = asked(&stage)[0].clone();
        (entry.name, entry.latents, entry.figures, entry.trained) =
            ("topk2048".into(), 2048, None, Some(config));
        stage
            .event(Event::Started(Job::Train))
            .event(Event::Training(Box::new(entry)));
        stage
    }

    #[test]
    fn the_defaults_are_there_to_be_edited() {
        let mut stage = Stage::opened(80, 24, Profile::Mono);
        stage.keys("5 T");
        assert!(
            stage
                .screen()
                .contains("2,040 steps of 512 of 17,204 tokens"),
            "{}",
            stage.screen()
        );
        stage
            .keys("backspace backspace backspace backspace")
            .type_text("512")
            .keys("down")
            .type_text("x")
            .keys("enter");
        assert!(
            asked(&stage).is_empty() && stage.screen().contains("active: a whole number"),
            "{}",
            stage.screen()
        );
        stage.keys("backspace enter");
        let defaults = TrainConfig::default();
        assert_eq!(
            asked(&stage),
            [&TrainConfig {
                latents: 512,
                ..defaults
            }]
        );
        stage.keys("T esc");
        assert_eq!(asked(&stage).len(), 1);
    }

    #[test]
    fn a_training_is_watched_like_a_fit() {
        for (width, height) in [(120, 36), (80, 24), (60, 18)] {
            let mut stage = training(width, height, Profile::TrueColour);
            assert!(
                stage
                    .screen()
                    .contains("the curve appears with the first pass"),
                "{}",
                stage.screen()
            );
            for epoch in 1..=12 {
                stage.event(point(epoch));
            }
            stage.event(Demo::progress(Job::Train, "training", 408, 2040, "steps"));
            let screen = stage.screen();
            assert!(
                screen.contains("pass 12 of 60") && screen.contains("dead 1.8%"),
                "{screen}"
            );
            insta::assert_snapshot!(format!("training_{width}x{height}"), screen);
            if width == 80 {
                insta::assert_snapshot!("training_styles", stage.styles());
            }
            stage.keys("T");
            assert!(
                stage.screen().contains("one is being trained"),
                "{}",
                stage.screen()
            );
            stage.keys("ctrl-c");
            assert!(stage.sent.contains(&Command::Cancel(Job::Train)));
            assert!(
                stage.screen().contains("T goes on where it was stopped"),
                "{}",
                stage.screen()
            );
            stage.event(Event::Closed);
            assert!(!stage.screen().contains("topk2048"), "{}", stage.screen());
        }
    }

    #[test]
    fn what_was_stopped_is_offered_again() {
        let mut stage = training(80, 24, Profile::Mono);
        let mut study = stage.demo.study();
        let config = TrainConfig {
            latents: 777,
            ..TrainConfig::default()
        };
        let mut half = study.saes[0].clone();
        (half.name, half.resumable, half.figures, half.trained) =
            ("topk777".into(), true, None, Some(config.clone()));
        study.saes.push(half);
        stage
            .event(Event::Cancelled(Job::Train))
            .event(Event::Study(Box::new(study)))
            .keys("T");
        assert!(
            stage
                .screen()
                .contains("topk777 goes on where it was stopped"),
            "{}",
            stage.screen()
        );
        stage.keys("enter");
        assert_eq!(asked(&stage)[1], &config);
    }
}
