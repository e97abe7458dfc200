//! Which features fire where: a row a feature, a column a token.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::tokens::largest;
use super::{LivePane, Shown};
use crate::text;
use crate::ui::describe::feature_in_list;
use crate::ui::draw::put;
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::theme::{Ramp, Theme};

/// Cells of a feature's name.
const NAME: usize = 18;

/// Most cells of a token.
const WIDEST: usize = 4;

/// The columns: cells a token, the first token, how many.
struct Columns {
    cells: usize,
    first: usize,
    count: usize,
}

fn columns(pane: &LivePane, area: Rect) -> Columns {
    let room = usize::from(area.width).saturating_sub(NAME + 1).max(1);
    let tokens = pane.tokens();
    let cells = (room / tokens.max(1)).clamp(1, WIDEST);
    let count = (room / cells).min(tokens);
    let first = scroll(
        pane.token.saturating_sub(count / 2),
        pane.token,
        tokens,
        count,
    );
    Columns {
        cells,
        first,
        count,
    }
}

/// The token at a column of `area`.
pub(super) fn token_at(pane: &LivePane, area: Rect, column: u16) -> Option<usize> {
    let columns = columns(pane, area);
    let at = usize::from(column.checked_sub(area.x)?).checked_sub(NAME)? / columns.cells;
    (at < columns.count).then_some(columns.first + at)
}

pub(super) fn draw(pane: &LivePane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    let Some(trace) = &pane.trace else { return };
    let theme = cx.theme;
    let columns = columns(pane, area);
    let cursor_cell = NAME + (pane.token - columns.first.min(pane.token)) * columns.cells;
    let more = columns.count < pane.tokens();
    let title = if more {
        format!(
            "tokens {}–{}",
            columns.first + 1,
            columns.first + columns.count
        )
    } else {
        "on this scale".to_owned()
    };
    let head = vec![
        Span::styled(text::pad(&title, cursor_cell), theme.dim()),
        Span::styled(text::pad("▾", columns.cells), theme.accent()),
    ];
    put(buf, area, 0, &Line::from(head));
    let largest = largest(pane);
    let height = usize::from(area.height).saturating_sub(1);
    let at = pane.position();
    for (y, i) in (pane.top(height)..pane.count()).take(height).enumerate() {
        let Some(shown) = pane.line(i) else { break };
        let (name, values, max) = match shown {
            Shown::Unexplained => ("unexplained".to_owned(), trace.unexplained.as_slice(), 1.0),
            Shown::Feature(id) => {
                let feature = trace.features.iter().find(|f| f.id == id);
                (
                    feature_in_list(id, 3, cx.world),
                    feature.map_or(&[][..], |f| &f.values),
                    largest,
                )
            }
        };
        let style = if i == at {
            theme.heading()
        } else {
            theme.dim()
        };
        let mut spans = vec![
            Span::styled(text::pad(&name, NAME - 1), style),
            Span::raw(" "),
        ];
        for token in columns.first..columns.first + columns.count {
            let value = values.get(token).copied().unwrap_or(0.0);
            spans.push(cell(value, max, columns.cells, token == pane.token, theme));
        }
        put(buf, area, y + 1, &Line::from(spans));
    }
}

/// A token's cell: a colour, or a mark where there are none.
fn cell(value: f32, max: f32, cells: usize, is_current: bool, theme: &Theme) -> Span<'static> {
    let style = theme.heat(Ramp::Sequential, value, max);
    if theme.marks() {
        let mark = Theme::mark(value, max).unwrap_or(if is_current { '╎' } else { ' ' });
        return Span::raw(text::pad(
            &mark.to_string().repeat(cells.saturating_sub(1).max(1)),
            cells,
        ));
    }
    if style == Style::new() {
        return Span::styled(
            text::pad(if is_current { "╎" } else { "·" }, cells),
            theme.rule(is_current),
        );
    }
    Span::styled(" ".repeat(cells), style)
}
