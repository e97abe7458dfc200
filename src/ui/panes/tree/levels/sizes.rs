//! How many features each level has, as it is typed: `200 100 50`, as `mlpeek tree --recursive
//! --levels` takes them.

use ratatui::text::{Line, Span};

use super::LevelsView;
use crate::factor::recursive::default_levels;
use crate::text;
use crate::ui::input::LineInput;
use crate::ui::pane::{Cx, Step};

/// The numbers that were typed, or what is wrong with them, over a fit of `k` features.
fn read(typed: &str, k: usize) -> Result<Vec<usize>, String> {
    let mut sizes = Vec::new();
    let mut below = k;
    for part in typed
        .split([',', ' ', '→', ';'])
        .filter(|part| !part.is_empty())
    {
        let size: usize = part
            .parse()
            .map_err(|_| format!("'{}' is no number of features", text::clean(part)))?;
        if size == 0 || size >= below {
            return Err(format!(
                "{size} over {below}: each level has fewer, and at least 1"
            ));
        }
        sizes.push(size);
        below = size;
    }
    Ok(sizes)
}

fn features(cx: &Cx) -> usize {
    cx.world.rows().len()
}

impl LevelsView {
    /// What is typed, where a fit has room for it; of a smaller one the levels go by halves.
    pub(super) fn fitting_sizes(&self, cx: &Cx) -> Vec<usize> {
        let fits = self
            .sizes
            .first()
            .is_some_and(|&first| first < features(cx));
        if fits { self.sizes.clone() } else { Vec::new() }
    }

    /// The line to begin with: the sizes as they are.
    pub fn sizes_input(&self, cx: &Cx) -> LineInput {
        let now = self.fitting_sizes(cx);
        let now = if now.is_empty() {
            default_levels(features(cx))
        } else {
            now
        };
        LineInput::new(
            &now.iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    /// Takes what was typed and asks for the levels anew; nothing typed: by halves again.
    pub fn set_sizes(&mut self, typed: &str, cx: &Cx) -> Result<Vec<Step>, String> {
        self.sizes = read(typed, features(cx))?;
        self.snapshot = None;
        Ok(self.request_levels(cx))
    }

    /// The line in which they are typed.
    pub fn sizes_line(&self, input: &LineInput, width: usize, cx: &Cx) -> Line<'static> {
        let theme = cx.theme;
        let (summary, style) = match read(input.text(), features(cx)) {
            Ok(sizes) if sizes.is_empty() => ("  by halves".to_owned(), theme.dim()),
            Ok(sizes) => {
                let levels = if sizes.len() == 1 { "level" } else { "levels" };
                (
                    format!("  {} {levels} over {} features", sizes.len(), features(cx)),
                    theme.dim(),
                )
            }
            Err(problem) => (format!("  {problem}"), theme.warning()),
        };
        let mut spans = vec![Span::styled("features of each level ", theme.accent())];
        spans.extend(input.line(theme, (width / 3).max(8)).spans);
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        spans.push(Span::styled(
            text::truncate(&summary, width.saturating_sub(used)),
            style,
        ));
        Line::from(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_from_level_to_level() {
        assert_eq!(read("200 100, 50", 400), Ok(vec![200, 100, 50]));
        assert_eq!(read("  ", 400), Ok(Vec::new()));
        for bad in [
            "400",
            "200 200",
            "0",
            "50 100",
            "x",
            "-3",
            "99999999999999999999999",
        ] {
            assert!(read(bad, 400).is_err(), "{bad}");
        }
    }
}
