//! The chooser of what the list shows: features of the fit, or another set of directions of the
//! study.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::engine::{Baseline, Command, Count, SetKind, StudyInfo};
use crate::text;
use crate::ui::action::Action;
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred, inside};
use crate::ui::draw::{put, put_selected};
use crate::ui::keymap::Key;
use crate::ui::list::{motion, scroll};
use crate::ui::pane_id::PaneId;
use crate::ui::world::World;

/// The line that the cursor is on, and why it could not be chosen.
#[derive(Debug)]
pub struct SetsDialog {
    cursor: usize,
    problem: Option<String>,
}

/// A set that can be chosen.
struct Entry {
    kind: SetKind,
    /// As it is typed after `--directions`.
    name: String,
    what: String,
    /// Why it cannot be.
    refused: Option<String>,
}

/// The sets of the open study: the fit first, then those made of labels, trained, and made as
/// controls.
fn entries(world: &World) -> Vec<Entry> {
    let Some(study) = &world.study else {
        return Vec::new();
    };
    let fit = world.fit_name();
    let of_fit = fit.and_then(|name| study.fits.iter().find(|f| f.name == name));
    let k = of_fit.map_or(0, |fit| fit.config.features);
    let entry = |kind: SetKind, what: String| Entry {
        name: kind.to_string(),
        kind,
        what,
        refused: None,
    };
    let baseline = |kind: Baseline| {
        let count = match kind.count() {
            Count::Labels => study.labels,
            Count::Features => k,
            Count::Neurons => study.width,
        };
        let what = match count {
            0 => kind.what().to_owned(),
            count => format!("{} {}", text::count(count), kind.what()),
        };
        let unlabelled = kind.supervised() && study.labels == 0;
        Entry {
            refused: unlabelled.then(|| "the corpus has no labels".to_owned()),
            ..entry(kind.into(), what)
        }
    };
    let (supervised, unsupervised): (Vec<_>, Vec<_>) = Baseline::ALL
        .into_iter()
        .filter(|b| b.usual())
        .partition(|b| b.supervised());
    let mut all = Vec::new();
    if let Some(name) = fit {
        let count = if world.set().is_none() {
            world.rows().len()
        } else {
            k
        };
        let what = format!("{} features of the fit", text::count(count));
        all.push(Entry {
            name: format!("fit:{name}"),
            ..entry(SetKind::FIT, what)
        });
    }
    all.extend(supervised.into_iter().map(baseline));
    all.extend(saes(study));
    all.extend(unsupervised.into_iter().map(baseline));
    all.extend(SetKind::measured().map(|kind| {
        let refused = match study.labels {
            0 => Some("the corpus has no labels"),
            _ if world.model.is_none() => Some("no model is open to ask"),
            _ => None,
        };
        let what = kind.measured_description().unwrap_or_default();
        Entry {
            refused: refused.map(str::to_owned),
            ..entry(kind, format!("{what}; takes minutes once"))
        }
    }));
    all
}

fn saes(study: &StudyInfo) -> impl Iterator<Item = Entry> + '_ {
    study.saes.iter().rev().map(|sae| {
        let kind = SetKind::Sae(Some(sae.name.clone()));
        let elsewhere = if sae.hook == study.hook {
            String::new()
        } else {
            format!(" at {}", sae.hook)
        };
        let (what, refused) = match &sae.figures {
            Some(f) => {
                let fvu = f
                    .fvu
                    .map_or_else(String::new, |fvu| format!(", FVU {fvu:.3}"));
                let latents = text::count(sae.latents);
                (
                    format!(
                        "{latents} latents of an autoencoder{elsewhere}{fvu}, L0 {:.0}",
                        f.l0
                    ),
                    None,
                )
            }
            None => {
                let what = format!(
                    "{} latents{elsewhere}, not trained to the end",
                    text::count(sae.latents)
                );
                (
                    what,
                    Some("it has no weights yet: train it on first".to_owned()),
                )
            }
        };
        Entry {
            name: kind.to_string(),
            kind,
            what,
            refused,
        }
    })
}

fn on_show(kind: &SetKind, world: &World) -> bool {
    world
        .set()
        .map_or(*kind == SetKind::FIT, |set| set.kind == *kind)
}

impl SetsDialog {
    /// The cursor is on what is shown.
    pub fn new(world: &World) -> Self {
        let cursor = entries(world)
            .iter()
            .position(|e| on_show(&e.kind, world))
            .unwrap_or(0);
        Self {
            cursor,
            problem: None,
        }
    }
}

impl Dialog for SetsDialog {
    fn title(&self, cx: &DialogCx) -> String {
        let study = cx.world.study.as_ref();
        let hook = study.map_or_else(String::new, |study| format!(" at {}", study.hook));
        format!("Directions{hook}")
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        let height = entries(cx.world).len() as u16 + 4;
        centred(cx.screen, 96, height.min(cx.screen.height))
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        let all = entries(cx.world);
        let action = cx.keymap.action(Key::of(key), PaneId::Features);
        if key.code == KeyCode::Enter {
            let Some(entry) = all.get(self.cursor) else {
                return Answer::Close;
            };
            if let Some(reason) = &entry.refused {
                self.problem = Some(reason.clone());
                return Answer::Stay;
            }
            return match on_show(&entry.kind, cx.world) {
                true => Answer::Close,
                false => Answer::Send(Box::new(Command::ShowSet(entry.kind.clone()))),
            };
        }
        match action {
            Some(Action::Sets | Action::Quit) => return Answer::Close,
            Some(action) => {
                if let Some(to) = motion(action, self.cursor, all.len(), all.len()) {
                    (self.cursor, self.problem) = (to, None);
                }
            }
            None => {}
        }
        Answer::Stay
    }

    fn scroll(&mut self, down: bool, _: &DialogCx) {
        // The view stops at the last line.
        self.cursor = if down {
            self.cursor + 1
        } else {
            self.cursor.saturating_sub(1)
        };
    }

    fn click(&mut self, at: Position, cx: &DialogCx) -> Answer {
        let count = entries(cx.world).len();
        let inner = inside(self.area(cx));
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let cursor = self.cursor.min(count.saturating_sub(1));
        if !inner.contains(at) || usize::from(at.y - inner.y) >= height {
            return Answer::Stay;
        }
        let hit = scroll(0, cursor, count, height) + usize::from(at.y - inner.y);
        if hit < count {
            (self.cursor, self.problem) = (hit, None);
        }
        if hit == cursor && hit < count {
            return self.key(KeyCode::Enter.into(), cx);
        }
        Answer::Stay
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let (world, theme) = (cx.world, cx.theme);
        let all = entries(world);
        let width = usize::from(inner.width);
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let cursor = self.cursor.min(all.len().saturating_sub(1));
        let names = all
            .iter()
            .map(|e| text::width(&e.name))
            .max()
            .unwrap_or(0)
            .clamp(8, (width / 3).max(8));
        let offset = scroll(0, cursor, all.len(), height);
        for (y, (i, entry)) in all.iter().enumerate().skip(offset).take(height).enumerate() {
            let style = if entry.refused.is_some() {
                theme.dim()
            } else {
                theme.name()
            };
            let what = match &entry.refused {
                Some(reason) => format!("{}: {reason}", entry.what),
                None => entry.what.clone(),
            };
            let marker = if on_show(&entry.kind, world) {
                "▸ "
            } else {
                "  "
            };
            let line = Line::from(vec![
                Span::styled(marker, theme.good()),
                Span::styled(text::pad(&text::clean(&entry.name), names), style),
                Span::styled(
                    format!(
                        "  {}",
                        text::truncate(&what, width.saturating_sub(names + 4))
                    ),
                    theme.dim(),
                ),
            ]);
            match i == cursor {
                true => put_selected(buf, inner, y, line, theme, true),
                false => put(buf, inner, y, &line),
            }
        }
        let foot = match &self.problem {
            Some(problem) => Line::styled(text::truncate(problem, width), theme.warning()),
            None => Line::styled(
                text::truncate("enter lists it; esc leaves it as it is", width),
                theme.dim(),
            ),
        };
        put(
            buf,
            inner,
            usize::from(inner.height).saturating_sub(1),
            &foot,
        );
    }
}

#[cfg(test)]
mod tests;
