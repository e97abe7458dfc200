//! What is done to a line before it is drawn.

use ratatui::text::Line;

use crate::ui::text;
use crate::ui::theme::Theme;

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

/// A line that is drawn reversed where there are no colours: its bars are shaded, for a full block
/// would be a hole there.
pub fn shaded(mut line: Line<'static>, theme: &Theme) -> Line<'static> {
    if theme.marks() {
        for span in &mut line.spans {
            span.content = span.content.replace('█', "▒").into();
        }
    }
    line
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
