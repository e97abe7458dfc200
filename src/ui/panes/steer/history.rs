//! The list of the runs that were, beside their texts.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::SteerPane;
use super::view::marker;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::put;
use crate::ui::list::scroll;
use crate::ui::pane::Cx;

/// The runs that were, the newest first.
pub(super) fn draw(pane: &SteerPane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    if pane.runs.len() < 2 || area.height < 3 {
        return;
    }
    let keys = format!(
        "{} {}",
        cx.key(Action::PreviousRun),
        cx.key(Action::NextRun)
    );
    let head = Line::from(vec![
        Span::styled(" Runs  ", theme.heading()),
        Span::styled(keys, theme.dim()),
    ]);
    put(buf, area, 0, &head);
    let width = usize::from(area.width).saturating_sub(2);
    let rows = usize::from(area.height) - 1;
    let back = pane.runs.len() - 1 - pane.shown;
    let offset = scroll(0, back, pane.runs.len(), rows);
    for (y, (i, run)) in pane
        .runs
        .iter()
        .enumerate()
        .rev()
        .skip(offset)
        .take(rows)
        .enumerate()
    {
        let is_current = i == pane.shown;
        let found = run
            .info
            .as_ref()
            .map(|info| format!("α {:+.1} KL {:.3}", info.alpha, info.kl));
        let found = found.unwrap_or_else(|| {
            if run.is_active() {
                "…".to_owned()
            } else {
                "–".to_owned()
            }
        });
        let room = width.saturating_sub(text::width(&found) + 5);
        let line = Line::from(vec![
            marker(is_current, cx),
            Span::styled(text::pad_left(&(i + 1).to_string(), 2), theme.dim()),
            Span::styled(
                format!(" {} ", text::pad(&run.short_description(), room)),
                if is_current {
                    theme.heading()
                } else {
                    theme.text()
                },
            ),
            Span::styled(found, theme.dim()),
        ]);
        put(buf, area, y + 1, &line);
    }
}
