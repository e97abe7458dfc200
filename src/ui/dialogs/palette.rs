//! The `:` palette: commands by fuzzy name, with their keys and what they do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::text;
use crate::ui::action::{ACTIONS, ActionInfo, ActionKind};
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred, inside};
use crate::ui::draw::{put, put_selected};
use crate::ui::input::LineInput;
use crate::ui::list::scroll;
use crate::ui::pane_id::PaneId;

/// The query and the command that the cursor is on.
#[derive(Debug)]
pub struct PaletteDialog {
    pane: PaneId,
    query: LineInput,
    selected: usize,
}

impl PaletteDialog {
    /// For the focused pane.
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
}

impl Dialog for PaletteDialog {
    fn title(&self, _: &DialogCx) -> String {
        "Commands".to_owned()
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        let height = cx.screen.height.saturating_sub(4).min(20);
        centred(cx.screen, 108, height)
    }

    fn key(&mut self, key: KeyEvent, _: &DialogCx) -> Answer {
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

    fn paste(&mut self, pasted: &str, _: &DialogCx) {
        self.query.paste(pasted);
        self.selected = 0;
    }

    fn scroll(&mut self, down: bool, _: &DialogCx) {
        let last = self.found().len().saturating_sub(1);
        self.selected = if down {
            (self.selected + 1).min(last)
        } else {
            self.selected.saturating_sub(1)
        };
    }

    fn click(&mut self, at: Position, cx: &DialogCx) -> Answer {
        let inner = inside(self.area(cx));
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let count = self.found().len();
        if !inner.contains(at) || at.y == inner.y {
            return Answer::Stay;
        }
        let hit = scroll(0, self.selected, count, height) + usize::from(at.y - inner.y) - 1;
        let again = hit == self.selected && hit < count;
        if hit < count {
            self.selected = hit;
        }
        if again {
            return self.key(KeyCode::Enter.into(), cx);
        }
        Answer::Stay
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let width = usize::from(inner.width);
        let mut head = vec![Span::styled(": ", cx.theme.accent())];
        head.extend(self.query.line(cx.theme, width.saturating_sub(2)).spans);
        put(buf, inner, 0, &Line::from(head));
        let found = self.found();
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let offset = scroll(0, self.selected, found.len(), height);
        for (i, info) in found.iter().skip(offset).take(height).enumerate() {
            let line = row(info, cx, width);
            match offset + i == self.selected {
                true => put_selected(buf, inner, 1 + i, line, cx.theme, true),
                false => put(buf, inner, 1 + i, &line),
            }
        }
        if found.is_empty() {
            put(
                buf,
                inner,
                1,
                &Line::styled("no command is called that", cx.theme.dim()),
            );
        }
    }
}

fn row(info: &ActionInfo, cx: &DialogCx, width: usize) -> Line<'static> {
    let refusal = (cx.refusal)(info.action);
    let style = if refusal.is_some() {
        cx.theme.dim()
    } else {
        cx.theme.text()
    };
    let doc = refusal.unwrap_or_else(|| info.doc.to_owned());
    Line::from(vec![
        Span::styled(text::pad(info.name, 18), style),
        Span::styled(
            text::pad(&cx.keymap.key(info.action), 10),
            cx.theme.accent(),
        ),
        Span::styled(
            text::truncate(&doc, width.saturating_sub(28)),
            cx.theme.dim(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::action::Action;
    use crate::ui::harness::Harness;
    use crate::ui::theme::Profile;

    fn typed(query: &str) -> PaletteDialog {
        PaletteDialog {
            query: LineInput::new(query),
            ..PaletteDialog::new(PaneId::Features)
        }
    }

    #[test]
    fn a_few_letters_find_a_command_and_enter_does_it() {
        assert_eq!(typed("revs").found()[0].action, Action::Reverse);
        let mut harness = Harness::opened(80, 24, Profile::Mono);
        let before = harness.screen();
        harness.keys(":").type_text("revs").keys("enter");
        assert!(harness.app.dialog.is_none() && harness.screen() != before);
        harness.keys(":").type_text("xyzzyq").keys("enter");
        assert!(harness.app.dialog.is_some(), "there is nothing to do");
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
        let mut harness = Harness::opened(80, 24, Profile::Mono);
        harness.keys(":");
        let (y, x) = harness.find("neurons ").expect("a command in sight");
        harness.click(x, y);
        let styles = harness.styles();
        let mut chosen = styles.lines().filter(|l| l.contains("reversed"));
        assert!(
            chosen.any(|l| l.starts_with(&format!("{y}:")) && l.contains("neurons")),
            "{styles}"
        );
        harness.click(x, y);
        assert!(
            harness.app.dialog.is_none() && harness.app.focus() == PaneId::Feature,
            "{}",
            harness.screen()
        );
    }
}
