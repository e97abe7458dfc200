//! What every pane draws with: a line in its place, and the few lines of an empty pane.
//!
//! Invariant: a grapheme has the cells in the buffer that [`text::width`] keeps for it, whatever
//! ratatui takes it for.

use std::num::NonZeroU16;

use ratatui::buffer::{Buffer, CellDiffOption, CellWidth};
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_segmentation::UnicodeSegmentation;

use super::Cx;
use crate::ui::action::Action;
use crate::ui::text;

/// Cells that a line takes.
pub fn line_cells(line: &Line) -> usize {
    line.spans
        .iter()
        .map(|span| text::width(&span.content))
        .sum()
}

/// Writes a line at row `row` of `area`, cut at its edge; nothing outside.
pub fn put(buf: &mut Buffer, area: Rect, row: usize, line: &Line) {
    put_at(buf, area, 0, row, line);
}

/// [`put`] from column `column` of `area` on.
pub fn put_at(buf: &mut Buffer, area: Rect, column: usize, row: usize, line: &Line) {
    let area = area.intersection(buf.area);
    if row < usize::from(area.height) && column < usize::from(area.width) {
        set_line(
            buf,
            area.x + column as u16,
            area.right(),
            area.y + row as u16,
            line,
        );
    }
}

/// Writes a line from column `x` on, as much of it as fits before column `right`.
fn set_line(buf: &mut Buffer, mut x: u16, right: u16, y: u16, line: &Line) {
    for span in &line.spans {
        let style = line.style.patch(span.style);
        for grapheme in span
            .content
            .graphemes(true)
            .filter(|g| !g.contains(char::is_control))
        {
            let cells = text::width(grapheme) as u16;
            let Some(kept) = NonZeroU16::new(cells) else {
                continue;
            };
            if cells > right - x {
                return;
            }
            let cell = &mut buf[(x, y)];
            cell.set_symbol(grapheme).set_style(style);
            cell.diff_option = match cells == grapheme.cell_width() {
                true => CellDiffOption::None,
                false => CellDiffOption::ForcedWidth(kept),
            };
            (x + 1..x + cells).for_each(|x| buf[(x, y)].reset());
            x += cells;
        }
    }
}

/// An empty pane's few lines, a third down and indented.
pub fn empty(buf: &mut Buffer, cx: &Cx, lines: &[String]) {
    let top = usize::from(cx.area.height / 4);
    let cells = usize::from(cx.area.width).saturating_sub(4);
    let mut row = top;
    for (i, text) in lines.iter().enumerate() {
        for wrapped in text::wrap(text, cells) {
            let style = if i == 0 {
                cx.theme.text()
            } else {
                cx.theme.dim()
            };
            put_at(buf, cx.area, 2, row, &Line::styled(wrapped, style));
            row += 1;
        }
    }
}

/// What a pane without features says: what is going on and what `comes` of it, or `what` it shows
/// and what to press.
pub fn nothing_yet(cx: &Cx, what: &str, comes: &str) -> Vec<String> {
    match (cx.world.jobs.last(), &cx.world.study) {
        (Some(job), _) => vec![
            format!("{}…", text::clean(&job.progress.stage)),
            comes.to_owned(),
        ],
        (None, Some(_)) if cx.world.cut_short().is_some() => {
            let key = cx.key(Action::Continue);
            let words = cx
                .world
                .cut_short()
                .map(|cut| format!("{cut}. {}.", cut.remedy(&key)));
            vec![what.to_owned(), words.unwrap_or_default()]
        }
        (None, Some(_)) => {
            vec![
                what.to_owned(),
                format!(
                    "This study has no fit yet: {} opens the Fit pane; f there fits.",
                    cx.key(Action::Fit)
                ),
            ]
        }
        (None, None) => {
            vec![
                what.to_owned(),
                format!(
                    "Nothing is open: {} opens a model or a recent study.",
                    cx.key(Action::Start)
                ),
            ]
        }
    }
}
