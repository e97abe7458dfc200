//! Measures against the number of features, each series with its own mark: of saved fits, and of a
//! sweep.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};

use crate::text;
use crate::ui::draw::{fit_line, put};
use crate::ui::pane::Cx;
use crate::ui::theme::Theme;

/// Marks that can be distinguished without colour; what comes after them shares the last.
const MARKS: [char; 6] = ['●', '○', '◆', '◇', '▲', '△'];

/// Points that a line joins.
pub(super) struct Series {
    /// The name of the series in the legend.
    pub name: String,
    /// Number of features and measure.
    pub points: Vec<(f64, f64)>,
}

fn mark(at: usize) -> char {
    MARKS[at.min(MARKS.len() - 1)]
}

fn style(at: usize, theme: &Theme) -> Style {
    [
        theme.accent(),
        theme.warning(),
        theme.good(),
        theme.heading(),
    ][at % 4]
}

/// The series under a legend of `title` and their names; of points with the same number of features
/// the line takes the lowest.
pub(super) fn draw(title: &str, series: &mut [Series], cx: &Cx, area: Rect, buf: &mut Buffer) {
    for one in series.iter_mut() {
        one.points.retain(|p| p.1.is_finite());
        one.points
            .sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    }
    let all = || series.iter().flat_map(|s| s.points.iter().copied());
    let fold = |coordinate: fn(&(f64, f64)) -> f64, start: f64, f: fn(f64, f64) -> f64| {
        all().map(|p| coordinate(&p)).fold(start, f)
    };
    let (first, last) = (
        fold(|p| p.0, f64::INFINITY, f64::min),
        fold(|p| p.0, f64::NEG_INFINITY, f64::max),
    );
    let (low, high) = (
        fold(|p| p.1, f64::INFINITY, f64::min),
        fold(|p| p.1, f64::NEG_INFINITY, f64::max),
    );
    let theme = cx.theme;
    let legend = legend(title, series, usize::from(area.width), theme);
    let rows = legend.len() as u16;
    if !first.is_finite() || area.height < 3 + rows || area.width < 20 {
        return;
    }
    for (y, line) in legend.iter().enumerate() {
        put(buf, area, y, line);
    }
    let area = Rect {
        y: area.y + rows,
        height: area.height - rows,
        ..area
    };
    let margin = ((high - low) * 0.08).max(1e-3);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    // Round numbers a little beyond the ends, so that nothing lies on an edge.
    let round = step(last - first);
    let pad = ((last - first) * 0.04).max(round / 4.0);
    let left = (((first - pad) / round).floor() * round).max(0.0);
    let right = ((last + pad) / round).ceil() * round;
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(|s| lowest(&s.points)).collect();
    let mut data: Vec<Dataset> = lines
        .iter()
        .map(|points| dataset(points, Marker::Braille, GraphType::Line, theme.dim()))
        .collect();
    // A whole cell each: a few dots are not seen on a small screen.
    data.extend(series.iter().enumerate().map(|(i, s)| {
        let marker = Marker::Custom(mark(i));
        dataset(&s.points, marker, GraphType::Scatter, style(i, theme))
    }));
    let label = |t: String| Span::styled(t, theme.dim());
    let count = |v: f64| label(text::count(v as usize));
    let x = Axis::default()
        .bounds([left, right])
        .labels([count(left), count((left + right) / 2.0), count(right)])
        .style(theme.rule(false));
    let y = Axis::default()
        .bounds([low, high])
        .labels([
            label(format!("{low:.3}")),
            label(format!("{:.3}", (low + high) / 2.0)),
            label(format!("{high:.3}")),
        ])
        .style(theme.rule(false));
    Chart::new(data)
        .x_axis(x)
        .y_axis(y)
        .legend_position(None)
        .render(area.intersection(buf.area), buf);
}

fn dataset(points: &[(f64, f64)], marker: Marker, kind: GraphType, style: Style) -> Dataset<'_> {
    Dataset::default()
        .data(points)
        .marker(marker)
        .graph_type(kind)
        .style(style)
}

/// The lowest of each number of features, of sorted points.
fn lowest(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut best: Vec<(f64, f64)> = Vec::new();
    for &point in points {
        if best.last().is_none_or(|b| b.0 < point.0) {
            best.push(point);
        }
    }
    best
}

/// What the marks mean: after the title where they fit there, else below it; those beyond two lines
/// are counted.
fn legend(title: &str, series: &[Series], width: usize, theme: &Theme) -> Vec<Line<'static>> {
    let mut lines = vec![vec![Span::styled(title.to_owned(), theme.dim())]];
    let mut used = text::width(title);
    for (i, one) in series.iter().enumerate() {
        let cells = text::width(&one.name) + 5;
        if used + cells > width {
            if lines.len() == 2 {
                let more = format!("   and {} more", series.len() - i);
                lines
                    .last_mut()
                    .into_iter()
                    .for_each(|l| l.push(Span::styled(more.clone(), theme.dim())));
                break;
            }
            lines.push(Vec::new());
            used = 0;
        }
        used += cells;
        let last = lines.last_mut().into_iter();
        last.for_each(|l| {
            l.push(Span::styled(format!("   {} ", mark(i)), style(i, theme)));
            l.push(Span::styled(one.name.clone(), theme.dim()));
        });
    }
    lines
        .into_iter()
        .map(|spans| fit_line(Line::from(spans), width))
        .collect()
}

/// A round step of which a span has about six.
fn step(span: f64) -> f64 {
    let rough = (span / 6.0).max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough)
        .unwrap_or(rough)
}
