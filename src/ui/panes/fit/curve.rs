//! The error of each sweep as a curve.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::Marker;
use ratatui::text::Span;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};

use crate::engine::{SweepPoint, TrainPoint};
use crate::text;
use crate::ui::pane::Cx;

/// Curve points drawn at most: what a wide terminal can show.
const POINTS: usize = 400;

/// Points of the curve, thinned to what can be seen; the first and the last always stay.
fn curve(sweeps: &[SweepPoint]) -> Vec<(f64, f64)> {
    thinned(
        sweeps
            .iter()
            .map(|p| (p.sweep as f64, p.relative_error))
            .collect(),
    )
}

fn thinned(all: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = all.len().div_ceil(POINTS).max(1);
    let mut points: Vec<(f64, f64)> = all.iter().copied().step_by(step).collect();
    if let Some(last) = all.last()
        && points.last() != Some(last)
    {
        points.push(*last);
    }
    points
}

/// The error of the fit's sweeps.
pub(super) fn chart(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let weighted = cx.world.sweeps.last().is_some_and(|point| point.weighted);
    let name = if weighted {
        "squared error as weighed"
    } else {
        "‖A − YZᵀ‖² / ‖A‖²"
    };
    draw(&curve(&cx.world.sweeps), ["sweeps", name], cx, area, buf);
}

/// What is left unexplained of a training, by its passes.
pub(super) fn training(
    points: &[TrainPoint],
    epochs: usize,
    cx: &Cx,
    area: Rect,
    buf: &mut Buffer,
) {
    let passes = |p: &TrainPoint| p.step as f64 * epochs as f64 / p.total.max(1) as f64;
    let points: Vec<(f64, f64)> = points.iter().map(|p| (passes(p), p.fvu)).collect();
    draw(&thinned(points), ["passes", "FVU"], cx, area, buf);
}

fn draw(points: &[(f64, f64)], titles: [&'static str; 2], cx: &Cx, area: Rect, buf: &mut Buffer) {
    let finite: Vec<f64> = points
        .iter()
        .map(|p| p.1)
        .filter(|v| v.is_finite())
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return;
    };
    let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if area.height < 4 || area.width < 20 || finite.is_empty() {
        return;
    }
    // A flat curve still needs a scale.
    let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let (low, high) = ((low - margin).max(0.0), high + margin);
    let (left, right) = (first.0, last.0.max(first.0 + 1.0));
    let theme = cx.theme;
    let tick = |v: f64| Span::styled(format!("{v:.3}"), theme.dim());
    let count = |v: f64| Span::styled(text::count(v.round() as usize), theme.dim());
    // As a title it would lie on the end of the curve.
    let last_label = Span::styled(
        format!("{} {}", text::count(right.round() as usize), titles[0]),
        theme.dim(),
    );
    let marker = Marker::Braille;
    let data = Dataset::default()
        .data(points)
        .marker(marker)
        .graph_type(GraphType::Line)
        .style(theme.accent());
    let x = Axis::default()
        .bounds([left, right])
        .labels([count(left), count((left + right) / 2.0), last_label])
        .style(theme.rule(false));
    let y = Axis::default()
        .bounds([low, high])
        .labels([tick(low), tick((low + high) / 2.0), tick(high)])
        .title(Span::styled(titles[1], theme.dim()))
        .style(theme.rule(false));
    Chart::new(vec![data])
        .x_axis(x)
        .y_axis(y)
        .legend_position(None)
        .render(area.intersection(buf.area), buf);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let sweeps: Vec<SweepPoint> = (1..=10_007)
            .map(|i| SweepPoint {
                sweep: i,
                relative_error: 1.0 / i as f64,
                weighted: false,
                seconds: i as f64,
                stop: None,
            })
            .collect();
        let points = curve(&sweeps);
        assert!(points.len() <= POINTS + 1);
        assert_eq!((points[0].0, points[points.len() - 1].0), (1.0, 10_007.0));
    }
}
