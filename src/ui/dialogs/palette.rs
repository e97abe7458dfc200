//! The `:` palette: commands by fuzzy name, with their keys and what they do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use super::{Answer, dialog, frame, inside};
use crate::text;
use crate::ui::action::{ACTIONS, ActionInfo, ActionKind};
use crate::ui::app::App;
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::list::scroll;
use crate::ui::pane_id::PaneId;

/// Its state.
#[derive(Debug)]
pub struct PaletteBox {
    pane: PaneId,
    query: LineInput,
    selected: usize,
}

impl PaletteBox {
    /// For the pane at hand.
    pub fn new(pane: PaneId) -> Self {
        Self {
            pane,
            query: LineInput::default(),
            selected: 0,
        }
    }

    /// What the query finds, best first.
    fn found(&self) -> Vec<&'static ActionInfo> {
        let live = ACTIONS
            .iter()
            .filter(|info| info.lives_in(self.pane) && info.kind == ActionKind::Named);
        if self.query.text().trim().is_empty() {
            return live.collect();
        }
        let pattern = Pattern::parse(
            self.query.text(),
            CaseMatching::Ignore,
            Normalization::Smart,
        );
        let mut matcher = Matcher::new(Config::DEFAULT);
        let mut buffer = Vec::new();
        let mut scored: Vec<(u32, &ActionInfo)> = live
            .filter_map(|info| {
                let mut score =
                    |text: &str| pattern.score(Utf32Str::new(text, &mut buffer), &mut matcher);
                // A name counts for more than a word of the description.
                let best = score(info.name).map(|s| s * 2).max(score(info.doc));
                best.map(|s| (s, info))
            })
            .collect();
        scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        scored.into_iter().map(|(_, info)| info).collect()
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Answer {
        let last = self.found().len().saturating_sub(1);
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::Char('p') if ctrl => self.selected = self.selected.saturating_sub(1),
            KeyCode::Char('n') if ctrl => self.selected = (self.selected + 1).min(last),
            KeyCode::Enter => {
                return self
                    .found()
                    .get(self.selected)
                    .map_or(Answer::Stay, |info| Answer::Do(info.action));
            }
            _ => {
                if self.query.key(key) {
                    self.selected = 0;
                }
            }
        }
        Answer::Stay
    }

    pub(super) fn paste(&mut self, pasted: &str) {
        self.query.paste(pasted);
        self.selected = 0;
    }

    pub(super) fn scroll(&mut self, down: bool) {
        let last = self.found().len().saturating_sub(1);
        self.selected = if down {
            (self.selected + 1).min(last)
        } else {
            self.selected.saturating_sub(1)
        };
    }

    fn area(screen: Rect) -> Rect {
        dialog(screen, 108, screen.height.saturating_sub(4).min(20))
    }

    /// A click on a command goes to it; true where it was there already.
    pub(super) fn click(&mut self, at: Position, screen: Rect) -> bool {
        let inner = inside(Self::area(screen));
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let count = self.found().len();
        if !inner.contains(at) || at.y == inner.y {
            return false;
        }
        let hit = scroll(0, self.selected, count, height) + usize::from(at.y - inner.y) - 1;
        let again = hit == self.selected && hit < count;
        if hit < count {
            self.selected = hit;
        }
        again
    }

    pub(super) fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        let inner = frame("Commands", Self::area(screen), &app.theme, buf);
        let width = usize::from(inner.width);
        let mut head = vec![Span::styled(": ", app.theme.accent())];
        head.extend(self.query.line(&app.theme, width.saturating_sub(2)).spans);
        put(buf, inner, 0, &Line::from(head));
        let found = self.found();
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let offset = scroll(0, self.selected, found.len(), height);
        for (i, info) in found.iter().skip(offset).take(height).enumerate() {
            let y = inner.y + 1 + i as u16;
            if offset + i == self.selected {
                let line = Rect::new(inner.x, y, inner.width, 1).intersection(buf.area);
                buf.set_style(line, app.theme.selected(true));
            }
            put(buf, inner, 1 + i, &row(info, app, width));
        }
        if found.is_empty() {
            put(
                buf,
                inner,
                1,
                &Line::styled("no command is called that", app.theme.dim()),
            );
        }
    }
}

fn row(info: &ActionInfo, app: &App, width: usize) -> Line<'static> {
    let refusal = app.refusal(info.action);
    let style = if refusal.is_some() {
        app.theme.dim()
    } else {
        app.theme.text()
    };
    let doc = refusal.unwrap_or_else(|| info.doc.to_owned());
    Line::from(vec![
        Span::styled(text::pad(info.name, 18), style),
        Span::styled(
            text::pad(&app.keymap.key(info.action), 10),
            app.theme.accent(),
        ),
        Span::styled(
            text::truncate(&doc, width.saturating_sub(28)),
            app.theme.dim(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::action::Action;

    fn typed(query: &str) -> PaletteBox {
        PaletteBox {
            query: LineInput::new(query),
            ..PaletteBox::new(PaneId::Features)
        }
    }

    #[test]
    fn a_few_letters_find_a_command_and_enter_does_it() {
        let mut palette = typed("revs");
        assert_eq!(palette.found()[0].action, Action::Reverse);
        let enter = KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE);
        assert_eq!(palette.key(enter), Answer::Do(Action::Reverse));
        assert_eq!(typed("xyzzyq").key(enter), Answer::Stay);
    }

    #[test]
    fn only_what_lives_here_is_offered() {
        assert!(
            typed("")
                .found()
                .iter()
                .all(|info| info.lives_in(PaneId::Features))
        );
    }

    #[test]
    fn a_command_is_clicked_and_a_second_click_does_it() {
        let mut stage = crate::ui::stage::Stage::opened(80, 24, crate::ui::theme::Profile::Mono);
        stage.keys(":");
        let (y, x) = stage.find("neurons ").expect("a command in sight");
        stage.click(x, y);
        let chosen = match &stage.app.overlay {
            Some(crate::ui::dialogs::Overlay::Palette(p)) => p.found()[p.selected].name,
            other => panic!("the palette stays: {other:?}"),
        };
        assert_eq!(chosen, "neurons");
        stage.click(x, y);
        assert!(
            stage.app.overlay.is_none() && stage.app.focus() == PaneId::Feature,
            "{}",
            stage.screen()
        );
    }
}
