//! What everything is drawn with: a line in its place, a line cut to fit, a bar.
//!
//! Invariant: a grapheme has the cells in the buffer that [`text::width`] keeps for it, whatever
//! ratatui takes it for.

use std::num::NonZeroU16;

use ratatui::buffer::{Buffer, CellDiffOption, CellWidth};
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_segmentation::UnicodeSegmentation;

use super::theme::Theme;
use crate::text;

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

/// Empties the cells of `area` and takes their styles off, so that nothing beneath shines through
/// what is drawn there next.
pub fn clear(buf: &mut Buffer, area: Rect) {
    let area = area.intersection(buf.area);
    for y in area.top()..area.bottom() {
        // Half of a wide character is none: its other half goes too.
        if area.x > buf.area.x && text::width(buf[(area.x - 1, y)].symbol()) > 1 {
            buf[(area.x - 1, y)].set_symbol(" ").diff_option = CellDiffOption::None;
        }
        (area.left()..area.right()).for_each(|x| buf[(x, y)].reset());
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

/// A line cut to `cells`, ending in `…` when it was longer.
pub fn fit_line(line: Line<'static>, cells: usize) -> Line<'static> {
    if text::width(line.to_string().trim_end()) <= cells {
        return line;
    }
    let (style, mut room) = (line.style, cells.saturating_sub(1));
    let mut kept = Vec::new();
    for mut span in line.spans {
        let wide = text::width(&span.content);
        if wide > room {
            let cut = text::truncate(&span.content, room);
            span.content = format!("{}…", cut.trim_end_matches('…').trim_end()).into();
            kept.push(span);
            break;
        }
        room -= wide;
        kept.push(span);
    }
    Line::from(kept).style(style)
}

/// [`put`] for the row under the cursor, which takes the whole width of `area`; `focused` where keys
/// go to its list.
pub fn put_selected(
    buf: &mut Buffer,
    area: Rect,
    row: usize,
    line: Line<'static>,
    theme: &Theme,
    focused: bool,
) {
    if row >= usize::from(area.height) {
        return;
    }
    let cells = Rect {
        y: area.y + row as u16,
        height: 1,
        ..area
    };
    buf.set_style(cells.intersection(buf.area), theme.selected(focused));
    let line = if focused { shaded(line, theme) } else { line };
    put(buf, area, row, &line);
}

/// A line as it is drawn reversed, where the row under the cursor is: its bars are shaded, for a full
/// block would be a hole there, and it has no colours, for they would fill what is empty.
pub fn shaded(mut line: Line<'static>, theme: &Theme) -> Line<'static> {
    if theme.reverses_selection() {
        for span in &mut line.spans {
            span.content = span.content.replace('█', "▒").into();
            span.style.fg = span.style.fg.filter(|_| span.style.bg.is_some());
        }
    }
    line
}

/// A thin bar of `cells` cells in halves, for a column of many; something is always seen of a value
/// above zero.
pub fn thin_bar(value: f32, max: f32, cells: usize) -> String {
    let share = if max > 0.0 && value > 0.0 {
        (value / max).min(1.0)
    } else {
        0.0
    };
    let mut halves = (share * cells as f32 * 2.0).round() as usize;
    if share > 0.0 {
        halves = halves.max(1);
    }
    let bar = "━".repeat(halves / 2) + &"╸".repeat(halves % 2);
    text::pad(&bar, cells)
}

/// A bar of `cells` cells in eighths; something is always seen of a value above zero.
pub fn bar(value: f32, max: f32, cells: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = if max > 0.0 && value > 0.0 {
        (value / max).min(1.0)
    } else {
        0.0
    };
    let mut eighths = (share * cells as f32 * 8.0).round() as usize;
    if share > 0.0 {
        eighths = eighths.max(1);
    }
    (0..cells)
        .map(|i| match eighths.saturating_sub(i * 8) {
            0 => ' ',
            n if n >= 8 => '█',
            n => EIGHTHS[n],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_that_is_cut_fits(spans in proptest::collection::vec("[a-z 大]{0,12}", 0..6), cells in 1usize..40) {
            let line = Line::from(spans.iter().map(|s| ratatui::text::Span::raw(s.clone())).collect::<Vec<_>>());
            let (whole, cut) = (line.to_string(), fit_line(line, cells));
            let shown = cut.to_string();
            prop_assert!(text::width(shown.trim_end()) <= cells, "{:?}", cut);
            prop_assert!(shown == whole || cut.to_string().ends_with('…'), "{:?}", cut);
        }
    }
}
