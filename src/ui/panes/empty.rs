//! The few lines of a pane that has nothing to show yet.

use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::put_at;
use crate::ui::pane::Cx;

/// An empty pane's few lines, a third down and indented.
pub fn draw_empty(buf: &mut Buffer, cx: &Cx, lines: &[String]) {
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
pub fn no_features_lines(cx: &Cx, what: &str, comes: &str) -> Vec<String> {
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
