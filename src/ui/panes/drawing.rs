//! What every pane draws with: a line in its place, and the few lines of an empty pane.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::Cx;
use crate::ui::action::Action;
use crate::ui::text;

/// Writes a line at row `row` of `area`, cut at its edge; nothing outside.
pub fn put(buf: &mut Buffer, area: Rect, row: usize, line: &Line) {
    put_at(buf, area, 0, row, line);
}

/// [`put`] from column `column` of `area` on.
pub fn put_at(buf: &mut Buffer, area: Rect, column: usize, row: usize, line: &Line) {
    let area = area.intersection(buf.area);
    if row < usize::from(area.height) && column < usize::from(area.width) {
        buf.set_line(area.x + column as u16, area.y + row as u16, line, area.width - column as u16);
    }
}

/// An empty pane's few lines, a third down and indented.
pub fn empty(buf: &mut Buffer, cx: &Cx, lines: &[String]) {
    let top = usize::from(cx.area.height / 4);
    let cells = usize::from(cx.area.width).saturating_sub(4);
    let mut row = top;
    for (i, text) in lines.iter().enumerate() {
        for wrapped in text::wrap(text, cells) {
            let style = if i == 0 { cx.theme.text() } else { cx.theme.dim() };
            put_at(buf, cx.area, 2, row, &Line::styled(wrapped, style));
            row += 1;
        }
    }
}

/// What a pane without features says: what is going on and what `comes` of it, or `what` it shows and what to press.
pub fn nothing_yet(cx: &Cx, what: &str, comes: &str) -> Vec<String> {
    match (cx.world.jobs.last(), &cx.world.study) {
        (Some(job), _) => vec![format!("{}…", text::clean(&job.progress.stage)), comes.to_owned()],
        (None, Some(_)) if cx.world.cut_short().is_some() => {
            let (cut, key) = (cx.world.cut_short().map(|cut| cut.to_string()), cx.key(Action::Continue));
            vec![what.to_owned(), format!("{}. {key} goes on.", cut.unwrap_or_default())]
        }
        (None, Some(_)) => {
            vec![
                what.to_owned(),
                format!("This study has no fit yet: {} opens the Fit pane; f there fits.", cx.key(Action::Fit)),
            ]
        }
        (None, None) => {
            vec![
                what.to_owned(),
                format!("Nothing is open: {} opens a model or a recent study.", cx.key(Action::Start)),
            ]
        }
    }
}
