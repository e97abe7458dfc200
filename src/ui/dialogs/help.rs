//! The `?` overlay: every action with the keys that it has now, those of the focused pane first;
//! typing filters.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::text;
use crate::ui::action::{ACTIONS, Action, ActionInfo};
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred};
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::keymap::Key;
use crate::ui::pane_id::PaneId;

/// More than the rows can be: the view stops at the last.
const MOST_ROWS: usize = 4 * ACTIONS.len();

/// The filter and how far the rows are scrolled.
#[derive(Debug)]
pub struct HelpDialog {
    pane: PaneId,
    query: LineInput,
    offset: usize,
}

impl HelpDialog {
    /// For the focused pane.
    pub fn new(pane: PaneId) -> Self {
        Self {
            pane,
            query: LineInput::default(),
            offset: 0,
        }
    }

    fn rows(&self, cx: &DialogCx, width: usize) -> Vec<Line<'static>> {
        let query = self.query.text().to_lowercase();
        let shown = |info: &&ActionInfo| {
            let keys = cx.keymap.keys(info.action).join(" ");
            query.is_empty()
                || [info.name, info.doc, keys.as_str()]
                    .iter()
                    .any(|t| t.to_lowercase().contains(&query))
        };
        let mut groups: Vec<(String, Vec<&ActionInfo>)> = Vec::new();
        let own = |info: &&ActionInfo| !info.panes.is_empty() && info.lives_in(self.pane);
        groups.push((
            format!("{} (here)", self.pane.title()),
            ACTIONS.iter().filter(own).filter(shown).collect(),
        ));
        groups.push((
            "Everywhere".to_owned(),
            ACTIONS
                .iter()
                .filter(|i| i.panes.is_empty())
                .filter(shown)
                .collect(),
        ));
        for pane in PaneId::ALL {
            let first =
                |info: &&ActionInfo| info.panes.first() == Some(&pane) && !info.lives_in(self.pane);
            groups.push((
                pane.title().to_owned(),
                ACTIONS.iter().filter(first).filter(shown).collect(),
            ));
        }
        let mut rows = Vec::new();
        for (title, infos) in groups.into_iter().filter(|(_, infos)| !infos.is_empty()) {
            if !rows.is_empty() {
                rows.push(Line::raw(""));
            }
            rows.push(Line::styled(title, cx.theme.heading()));
            rows.extend(
                infos
                    .into_iter()
                    .flat_map(|info| lines(info, cx, self.pane, width)),
            );
        }
        rows
    }
}

impl Dialog for HelpDialog {
    fn title(&self, _: &DialogCx) -> String {
        "Keys".to_owned()
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        centred(cx.screen, 108, cx.screen.height.saturating_sub(2))
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        let page = 10;
        match key.code {
            KeyCode::Up => self.offset = self.offset.saturating_sub(1),
            KeyCode::Down => self.offset = (self.offset + 1).min(MOST_ROWS),
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(page),
            KeyCode::PageDown => self.offset = (self.offset + page).min(MOST_ROWS),
            KeyCode::Enter => return Answer::Close,
            _ if self.query.text().is_empty()
                && cx.keymap.action(Key::of(key), self.pane) == Some(Action::Help) =>
            {
                return Answer::Close;
            }
            _ => {
                if self.query.key(key) {
                    self.offset = 0;
                }
            }
        }
        Answer::Stay
    }

    fn paste(&mut self, pasted: &str, _: &DialogCx) {
        self.query.paste(pasted);
        self.offset = 0;
    }

    fn scroll(&mut self, down: bool, _: &DialogCx) {
        self.offset = if down {
            (self.offset + 3).min(MOST_ROWS)
        } else {
            self.offset.saturating_sub(3)
        };
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let width = usize::from(inner.width);
        let rows = self.rows(cx, width);
        let height = usize::from(inner.height).saturating_sub(1).max(1);
        let offset = self.offset.min(rows.len().saturating_sub(height));
        for (i, line) in rows.iter().skip(offset).take(height).enumerate() {
            put(buf, inner, i, line);
        }
        let mut foot = vec![Span::styled("/ ", cx.theme.accent())];
        foot.extend(self.query.line(cx.theme, width / 3).spans);
        let more = rows.len().saturating_sub(offset + height);
        let hint = if more > 0 {
            format!("   ↓ {more} more")
        } else {
            String::new()
        };
        foot.push(Span::styled(
            format!("   type to filter, esc closes{hint}"),
            cx.theme.dim(),
        ));
        put(buf, inner, height, &Line::from(foot));
    }
}

fn lines(info: &ActionInfo, cx: &DialogCx, pane: PaneId, width: usize) -> Vec<Line<'static>> {
    let keys = cx.keymap.keys(info.action).join(" ");
    let refusal = if info.lives_in(pane) {
        (cx.refusal)(info.action)
    } else {
        None
    };
    let (style, reason) = match refusal {
        Some(reason) => (cx.theme.dim(), format!(" ({reason})")),
        None => (cx.theme.text(), String::new()),
    };
    let named = width >= 60;
    let keys_width = 18.min(width / 2);
    let room = width.saturating_sub(keys_width + if named { 17 } else { 0 });
    let name = if named {
        text::pad(info.name, 17)
    } else {
        String::new()
    };
    // The reason stands where there is room; pressing the key gives it anyway.
    let whole = format!("{}{reason}", info.doc);
    let doc = if text::width(&whole) <= room {
        &whole
    } else {
        info.doc
    };
    let indent = " ".repeat(width - room);
    let head = [
        Span::styled(
            text::pad(&format!("  {keys}"), keys_width),
            cx.theme.accent(),
        ),
        Span::styled(name, cx.theme.dim()),
    ];
    let wrapped = text::wrap(doc, room).into_iter().enumerate();
    wrapped
        .map(|(i, part)| {
            let part = Span::styled(part, style);
            if i == 0 {
                Line::from([&head[..], &[part]].concat())
            } else {
                Line::from(vec![Span::raw(indent.clone()), part])
            }
        })
        .collect()
}
