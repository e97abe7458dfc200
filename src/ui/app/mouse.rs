//! Pastes and the mouse, and where the tabs are that it clicks.

use std::time::Duration;

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::{App, Effect};
use crate::engine::Level;
use crate::ui::action::Action;
use crate::ui::dialog::Answer;
use crate::ui::pane_id::PaneId;

/// Two clicks in place within this are a double click.
const DOUBLE_CLICK: Duration = Duration::from_millis(400);

/// Lines that a turn of the wheel moves.
const WHEEL: usize = 3;

impl App {
    pub(super) fn paste(&mut self, text: &str) -> Vec<Effect> {
        if self
            .with_dialog(|dialog, cx| dialog.paste(text, cx))
            .is_some()
        {
            return Vec::new();
        }
        let focus = self.focus;
        if !self.pane(focus).is_some_and(crate::ui::pane::Pane::typing) {
            self.toast(Level::Info, "nothing here takes text".to_owned());
            return Vec::new();
        }
        let steps = self
            .with(focus, |pane, cx| pane.paste(text, cx))
            .unwrap_or_default();
        self.carry_out(steps)
    }

    pub(super) fn mouse_event(&mut self, mouse: MouseEvent) -> Vec<Effect> {
        let at = Position::new(mouse.column, mouse.row);
        let answer = self.with_dialog(|dialog, cx| match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => dialog.click(at, cx),
            MouseEventKind::ScrollUp | MouseEventKind::ScrollDown => {
                dialog.scroll(mouse.kind == MouseEventKind::ScrollDown, cx);
                Answer::Stay
            }
            _ => Answer::Stay,
        });
        if let Some(answer) = answer {
            return self.answer(answer);
        }
        let layout = self.layout();
        let under = layout
            .panes
            .iter()
            .find(|p| p.inner.contains(at) || p.title.contains(at))
            .copied();
        match mouse.kind {
            MouseEventKind::ScrollUp | MouseEventKind::ScrollDown => {
                let Some(placed) = under else {
                    return Vec::new();
                };
                let action = if mouse.kind == MouseEventKind::ScrollUp {
                    Action::Up
                } else {
                    Action::Down
                };
                let mut effects = Vec::new();
                for _ in 0..WHEEL {
                    let steps = self
                        .with(placed.pane, |pane, cx| pane.act(action, cx))
                        .flatten();
                    effects.extend(steps.map(|s| self.carry_out(s)).unwrap_or_default());
                }
                effects
            }
            MouseEventKind::Down(MouseButton::Left) => {
                if layout.tabs.contains(at) {
                    return self.click_tab(mouse.column);
                }
                let Some(placed) = under else {
                    return Vec::new();
                };
                self.click_pane(placed.pane, at, placed.inner.contains(at))
            }
            _ => Vec::new(),
        }
    }

    fn click_pane(&mut self, pane: PaneId, at: Position, inside: bool) -> Vec<Effect> {
        let now = self.world.now;
        let double = self.last_click.is_some_and(|(x, y, when)| {
            (x, y) == (at.x, at.y) && now.saturating_sub(when) < DOUBLE_CLICK
        });
        self.last_click = (!double).then_some((at.x, at.y, now));
        if self.focus != pane {
            self.focus = pane;
        }
        if !inside {
            return Vec::new();
        }
        let steps = self
            .with(pane, |p, cx| p.click(at.x, at.y, double, cx))
            .unwrap_or_default();
        self.carry_out(steps)
    }

    fn click_tab(&mut self, column: u16) -> Vec<Effect> {
        let hit = self
            .tab_spans()
            .into_iter()
            .find(|(_, from, to)| (*from..*to).contains(&column));
        // As its key does, with the same refusals.
        hit.map(|(tab, ..)| self.perform(Self::tab_action(tab)))
            .unwrap_or_default()
    }

    /// The tabs with the columns that they take.
    pub(crate) fn tab_spans(&self) -> Vec<(PaneId, u16, u16)> {
        let mut x = 1;
        self.tabs()
            .into_iter()
            .map(|tab| {
                let from = x;
                x += self.tab_text(tab).chars().count() as u16 + 2;
                (tab, from, x - 2)
            })
            .collect()
    }

    /// The action that goes to a tab.
    pub(super) fn tab_action(tab: PaneId) -> Action {
        // Every tab has one (tested); the first tab's stands in for none.
        tab.action()
            .and_then(Action::by_name)
            .unwrap_or(Action::Explore)
    }

    /// The words of a tab: `1 Explore`.
    pub(crate) fn tab_text(&self, tab: PaneId) -> String {
        let name = if tab == PaneId::Features {
            "Explore"
        } else {
            tab.title()
        };
        format!("{} {name}", self.keymap.key(Self::tab_action(tab)))
    }
}
