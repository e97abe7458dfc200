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
        if !self.pane(focus).typing() {
            self.toast(Level::Info, "nothing here takes text".to_owned());
            return Vec::new();
        }
        let steps = self.with(focus, |pane, cx| pane.paste(text, cx));
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
                    effects.extend(self.act_of(placed.pane, action));
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
        let steps = self.with(pane, |p, cx| p.click(at.x, at.y, double, cx));
        self.carry_out(steps)
    }

    fn click_tab(&mut self, column: u16) -> Vec<Effect> {
        let hit = self
            .tab_spans()
            .into_iter()
            .find(|(_, from, to)| (*from..*to).contains(&column));
        let Some((tab, ..)) = hit else {
            return Vec::new();
        };
        match Action::to_pane(tab) {
            // As its key does, with the same refusals.
            Some(action) => self.perform(action),
            None => self.open_tab(tab),
        }
    }

    /// The tabs with the columns that they take.
    pub(crate) fn tab_spans(&self) -> Vec<(PaneId, u16, u16)> {
        let mut x = 1;
        Self::tabs()
            .into_iter()
            .map(|tab| {
                let from = x;
                let to = from + self.tab_text(tab).chars().count() as u16;
                x = to + self.tab_gap();
                (tab, from, to)
            })
            .collect()
    }

    /// Cells between two tabs: what the fit's state beside them leaves.
    pub(crate) fn tab_gap(&self) -> u16 {
        match self.layout().tabs.width {
            100.. => 2,
            _ => 1,
        }
    }

    /// The words of a tab: its key, where it has one, and the name of the action that goes to it.
    pub(crate) fn tab_text(&self, tab: PaneId) -> String {
        let action = Action::to_pane(tab);
        let name = tab.action().unwrap_or(tab.title());
        let name = name[..1].to_uppercase() + &name[1..];
        let keys = action.map_or_else(Vec::new, |action| self.keymap.keys(action));
        match keys.first() {
            Some(key) => format!("{key} {name}"),
            None => name,
        }
    }
}
