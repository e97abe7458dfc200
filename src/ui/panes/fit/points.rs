//! Measures against the number of features, each series with its own mark: of saved fits, and of a
//! sweep.

use std::collections::BTreeMap;

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

/// The mark of a cell in which several series have a point.
const SEVERAL: char = '■';

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
    if !first.is_finite() || area.width < 20 {
        return;
    }
    let margin = ((high - low) * 0.08).max(1e-3);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    // Round numbers a little beyond the ends, so that nothing lies on an edge.
    let round = step(last - first);
    let pad = ((last - first) * 0.04).max(round / 4.0);
    let left = (((first - pad) / round).floor() * round).max(0.0);
    let right = ((last + pad) / round).ceil() * round;
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(|s| lowest(&s.points)).collect();
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
    let chart = |data| {
        Chart::new(data)
            .x_axis(x.clone())
            .y_axis(y.clone())
            .legend_position(None)
    };
    let below = |rows: usize| Rect {
        y: area.y + rows as u16,
        height: area.height.saturating_sub(rows as u16),
        ..area
    };
    // The legend may take a line more for the mark that several share, and the plot then moves.
    let mut several = false;
    let (heads, plot, marks) = loop {
        let heads = legend(title, series, several, usize::from(area.width), theme);
        let plot = below(heads.len()).intersection(buf.area);
        if plot.height < 3 {
            return;
        }
        let marks = marks(series, plot, |points| {
            chart(vec![dataset(points, GraphType::Scatter, theme.dim())])
        });
        if several || marks.iter().all(|(_, of)| of.is_some()) {
            break (heads, plot, marks);
        }
        several = true;
    };
    for (y, line) in heads.iter().enumerate() {
        put(buf, area, y, line);
    }
    let data = lines
        .iter()
        .map(|points| dataset(points, GraphType::Line, theme.dim()))
        .collect();
    chart(data).render(plot, buf);
    for ((x, y), of) in marks {
        let (mark, style) = of.map_or((SEVERAL, theme.heading()), |i| (mark(i), style(i, theme)));
        buf[(x, y)].set_char(mark).set_style(style);
    }
}

/// The cells of the points, each with the series that it is of; none where several have a point
/// there. A whole cell each: a few dots are not seen on a small screen. They are those that hold
/// the points' dots, so that a mark lies on its line, which is drawn in dots.
fn marks<'a>(
    series: &'a [Series],
    plot: Rect,
    chart: impl Fn(&'a [(f64, f64)]) -> Chart<'a>,
) -> BTreeMap<(u16, u16), Option<usize>> {
    let mut marks: BTreeMap<(u16, u16), Option<usize>> = BTreeMap::new();
    for (i, one) in series.iter().enumerate() {
        let mut dots = Buffer::empty(plot);
        chart(&one.points).render(plot, &mut dots);
        for y in plot.top()..plot.bottom() {
            for x in plot.left()..plot.right() {
                let is_dot = |c| matches!(c, '\u{2801}'..='\u{28ff}');
                if dots[(x, y)].symbol().starts_with(is_dot) {
                    let before = marks.get(&(x, y));
                    let of = before.map_or(Some(i), |_| None);
                    marks.insert((x, y), of);
                }
            }
        }
    }
    marks
}

fn dataset(points: &[(f64, f64)], kind: GraphType, style: Style) -> Dataset<'_> {
    Dataset::default()
        .data(points)
        .marker(Marker::Braille)
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
fn legend(
    title: &str,
    series: &[Series],
    several: bool,
    width: usize,
    theme: &Theme,
) -> Vec<Line<'static>> {
    let mut lines = vec![vec![Span::styled(title.to_owned(), theme.dim())]];
    let mut used = text::width(title);
    let own = series.iter().enumerate();
    let own = own.map(|(i, one)| (mark(i), style(i, theme), one.name.clone()));
    let shared = several.then(|| (SEVERAL, theme.heading(), "several".to_owned()));
    // That of several before what may be left out.
    let entries: Vec<_> = shared.into_iter().chain(own).collect();
    for (i, (mark, style, name)) in entries.iter().enumerate() {
        let cells = text::width(name) + 5;
        if used + cells > width {
            if lines.len() == 2 {
                let more = format!("   and {} more", entries.len() - i);
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
            l.push(Span::styled(format!("   {mark} "), *style));
            l.push(Span::styled(name.clone(), theme.dim()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::harness::Harness;
    use crate::ui::pane_id::PaneId;
    use crate::ui::theme::Profile;

    #[test]
    fn marks_lie_on_their_lines_and_where_two_meet_it_is_said() {
        let harness = Harness::opened(80, 24, Profile::Mono);
        let cx = harness.app.cx(PaneId::Fit);
        for height in 8..24 {
            let area = Rect::new(0, 0, 60, height);
            let one = |name: &str, shift: f64| Series {
                name: name.to_owned(),
                points: [(5.0, 0.9), (10.0, 0.61), (20.0, 0.33 + shift)].to_vec(),
            };
            let mut series = [one("error", 0.0), one("held-out", 0.3)];
            let mut buf = Buffer::empty(area);
            draw("against k", &mut series, &cx, area, &mut buf);
            let count = |mark: char| {
                let cells = buf.content.iter();
                cells.filter(|c| c.symbol() == mark.to_string()).count()
            };
            // In the legend and in the plot; the first two points are the same.
            let marks = [SEVERAL, '●', '○'].map(count);
            assert_eq!(marks, [3, 2, 2], "{height}");
        }
        // A flat line has all its marks in the row of its dots.
        let area = Rect::new(0, 0, 60, 13);
        let flat = |y: f64| vec![(5.0, y), (10.0, y), (20.0, y)];
        let mut series = [("low", 0.1), ("middle", 0.37), ("high", 0.9)].map(|(name, y)| Series {
            name: name.to_owned(),
            points: flat(y),
        });
        let mut buf = Buffer::empty(area);
        draw("flat", &mut series, &cx, area, &mut buf);
        for mark in ['●', '○', '◆'] {
            let row = |y: u16| (0..60).map(|x| buf[(x, y)].symbol()).collect::<String>();
            let marked = (1..13).map(row).find(|row| row.contains(mark)).unwrap();
            let is_dot = |c: char| matches!(c, '\u{2801}'..='\u{28ff}');
            assert!(marked.contains(is_dot), "{mark}: {marked}");
        }
    }
}
