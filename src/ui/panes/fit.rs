//! The fit: its error curve, its rate, and the next one. Owns what the next fit is asked for.
//!
//! Invariant: nothing is fitted without an action of the user here.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};

use super::{Cx, Pane, PaneId, Step, empty, put};
use crate::engine::{Command, Event, Job, Level, SweepPoint};
use crate::factor::{FitConfig, Init, Solver, Stop};
use crate::ui::action::Action;
use crate::ui::text;

/// Numbers of features to step through.
const CHOICES: [usize; 12] = [10, 25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200];

/// Curve points drawn at most: what a wide terminal can show.
const POINTS: usize = 400;

/// The pane.
#[derive(Debug, Default)]
pub struct FitPane {
    /// Features of the next fit; `None` until the user chose.
    next: Option<usize>,
    /// Of the running fit.
    running: Option<FitConfig>,
}

impl FitPane {
    /// The configuration that the next fit starts from: the newest of the study.
    fn base(&self, cx: &Cx) -> FitConfig {
        let saved = cx.world.study.as_ref().and_then(|s| s.fits.last()).map(|f| f.config.clone());
        self.running.clone().or(saved).unwrap_or_default()
    }

    fn wanted(&self, cx: &Cx) -> usize {
        self.next.unwrap_or_else(|| self.base(cx).features)
    }

    fn turn(&mut self, more: bool, cx: &Cx) {
        let now = self.wanted(cx);
        let found = if more { CHOICES.iter().find(|c| **c > now) } else { CHOICES.iter().rev().find(|c| **c < now) };
        self.next = found.copied().or(Some(now));
    }

    fn refit(&mut self, cx: &Cx) -> Vec<Step> {
        let config = FitConfig { features: self.wanted(cx), ..self.base(cx) };
        self.running = Some(config.clone());
        let text = format!("fitting {} features", config.features);
        vec![Step::Send(Command::Fit(config)), Step::Say(Level::Info, text)]
    }

    fn facts(&self, cx: &Cx) -> Vec<(&'static str, String)> {
        let world = cx.world;
        let mut facts = Vec::new();
        let last = world.sweeps.last();
        if let Some(point) = last {
            facts.push(("sweep", point.sweep.to_string()));
            facts.push(("error", format!("{:.4}", point.relative_error)));
        }
        if let Some(list) = &world.features {
            facts.push(("explained", text::percent(list.explained_variance as f32)));
        }
        if let Some(job) = world.job(Job::Fit) {
            let rate = last.filter(|p| p.seconds > 0.0).map(|p| p.sweep as f64 / p.seconds);
            facts.extend(rate.map(|r| ("rate", format!("{} sweeps/s", text::number(r)))));
            facts.extend(job.eta.map(|eta| ("left", text::duration(eta))));
        } else if let Some(point) = last {
            facts.push(("took", text::duration(point.seconds)));
            facts.extend(point.stop.map(|stop| match stop {
                Stop::Converged => ("ended", "converged".to_owned()),
                Stop::MaxSweeps => ("ended", "most sweeps".to_owned()),
            }));
        }
        facts
    }

    fn summary(&self, cx: &Cx, width: usize) -> Vec<Line<'static>> {
        let theme = cx.theme;
        let config = self.base(cx);
        let mut first = vec![Span::raw(" ")];
        for (name, value) in self.facts(cx) {
            first.push(Span::styled(format!("{name} "), theme.dim()));
            first.push(Span::styled(format!("{value}   "), theme.heading()));
        }
        if cx.world.paused {
            first.push(Span::styled(format!("held: {} goes on", cx.key(Action::Pause)), theme.warning()));
        }
        let solver = match config.solver {
            Solver::Bcd => "block coordinate descent",
            Solver::Mu => "multiplicative updates",
        };
        let init = match config.init {
            Init::Random => "random",
            Init::Kmeans => "k-means",
            Init::Svd => "SVD",
        };
        let how = format!(
            " {} features · {solver} · {init} start · sparsity {} · penalty {} · seed {}",
            config.features, config.sparsity, config.l1, config.seed
        );
        let next = self.wanted(cx);
        let key = |a| Span::styled(cx.key(a), theme.accent());
        let again = Line::from(vec![
            Span::raw(" next fit "),
            Span::styled(format!("{next} features"), theme.heading()),
            Span::raw("   "),
            key(Action::Fewer),
            Span::raw("/"),
            key(Action::More),
            Span::styled(" fewer or more   ", theme.dim()),
            key(Action::Refit),
            Span::styled(" fits", theme.dim()),
        ]);
        vec![Line::from(first), Line::styled(text::fit(&how, width), theme.dim()), again]
    }

    fn fits(&self, cx: &Cx, width: usize) -> Vec<Line<'static>> {
        let Some(study) = cx.world.study.as_ref().filter(|s| !s.fits.is_empty()) else { return Vec::new() };
        let mut lines = vec![Line::styled(" fits of this study", cx.theme.heading())];
        for fit in study.fits.iter().rev() {
            let error = fit.relative_error.map_or_else(|| "unfinished".to_owned(), |e| format!("error {e:.4}"));
            let shown = cx.world.features.as_ref().is_some_and(|list| list.fit == fit.name);
            let line = format!(
                " {} {}  {} features  {error}  {} sweeps in {}",
                if shown { "▸" } else { " " },
                text::pad(&text::clean(&fit.name), 16),
                fit.config.features,
                fit.sweeps,
                text::duration(fit.seconds)
            );
            lines.push(Line::raw(text::fit(&line, width)));
        }
        lines
    }
}

/// Points of the curve, thinned to what can be seen; the first and the last always stay.
fn curve(sweeps: &[SweepPoint]) -> Vec<(f64, f64)> {
    let step = sweeps.len().div_ceil(POINTS).max(1);
    let mut points: Vec<(f64, f64)> = sweeps.iter().step_by(step).map(|p| (p.sweep as f64, p.relative_error)).collect();
    if let Some(last) = sweeps.last() {
        let last = (last.sweep as f64, last.relative_error);
        if points.last() != Some(&last) {
            points.push(last);
        }
    }
    points
}

fn chart(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let points = curve(&cx.world.sweeps);
    let finite: Vec<f64> = points.iter().map(|p| p.1).filter(|v| v.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
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
    let marker = Marker::Braille;
    let data = Dataset::default().data(&points).marker(marker).graph_type(GraphType::Line).style(theme.accent());
    let x = Axis::default()
        .bounds([left, right])
        .labels([count(left), count((left + right) / 2.0), count(right)])
        .title(Span::styled("sweeps", theme.dim()))
        .style(theme.rule(false));
    let y = Axis::default()
        .bounds([low, high])
        .labels([tick(low), tick((low + high) / 2.0), tick(high)])
        .title(Span::styled("‖A − YZᵀ‖² / ‖A‖²", theme.dim()))
        .style(theme.rule(false));
    Chart::new(vec![data]).x_axis(x).y_axis(y).legend_position(None).render(area.intersection(buf.area), buf);
}

impl Pane for FitPane {
    fn id(&self) -> PaneId {
        PaneId::Fit
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        let name = cx.world.features.as_ref().map(|f| text::clean(&f.fit)).filter(|n| !n.is_empty());
        Line::raw(name.map_or_else(|| "Fit".to_owned(), |n| format!("Fit {n}")))
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        if !matches!(action, Action::Refit | Action::More | Action::Fewer) {
            return None;
        }
        match (&cx.world.study, action) {
            (None, _) => Some(format!("no study is open: {} opens one", cx.key(Action::Start))),
            (Some(_), Action::Refit) if cx.world.fitting() => {
                Some(format!("a fit is running: {} cancels it", cx.key(Action::Cancel)))
            }
            (Some(_), Action::Refit) if cx.world.job(Job::Collect).is_some() => {
                Some("collecting goes on: a fit needs all rows".to_owned())
            }
            _ => None,
        }
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::More => self.turn(true, cx),
            Action::Fewer => self.turn(false, cx),
            Action::Refit => return Some(self.refit(cx)),
            Action::Copy => {
                let lines: Vec<String> = cx
                    .world
                    .sweeps
                    .iter()
                    .map(|p| format!("{}\t{}\t{:.3}", p.sweep, p.relative_error, p.seconds))
                    .collect();
                return Some(vec![Step::Copy(lines.join("\n"), format!("{} sweeps", lines.len()))]);
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    fn event(&mut self, event: &Event, _: &Cx) -> Vec<Step> {
        if matches!(event, Event::Study(_) | Event::Failed(Job::Fit, _)) {
            self.running = None;
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let area = cx.area;
        let width = usize::from(area.width);
        if cx.world.study.is_none() && cx.world.sweeps.is_empty() {
            let open = format!("{} opens a model or a study.", cx.key(Action::Start));
            return empty(buf, cx, &["Nothing to fit yet.".to_owned(), open]);
        }
        let summary = self.summary(cx, width);
        let fits = self.fits(cx, width);
        for (i, line) in summary.iter().enumerate() {
            put(buf, area, i, line);
        }
        let top = (summary.len() as u16 + 1).min(area.height);
        let below = area.height - top;
        let listed = (fits.len() as u16).min(below / 3);
        let plot = Rect { x: area.x + 1, y: area.y + top, width: area.width.saturating_sub(2), height: below - listed };
        if cx.world.sweeps.is_empty() {
            put(buf, plot, 1, &Line::styled(" the curve appears with the first sweep", cx.theme.dim()));
        } else {
            chart(cx, plot, buf);
        }
        for (i, line) in fits.iter().take(usize::from(listed)).enumerate() {
            put(buf, area, usize::from(top + plot.height) + i, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::testing::Stage;
    use crate::ui::theme::Profile;

    fn point(sweep: usize, relative_error: f64) -> SweepPoint {
        SweepPoint { sweep, relative_error, seconds: sweep as f64, stop: None }
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let sweeps: Vec<SweepPoint> = (1..=10_007).map(|i| point(i, 1.0 / i as f64)).collect();
        let points = curve(&sweeps);
        assert!(points.len() <= POINTS + 1);
        assert_eq!((points[0].0, points[points.len() - 1].0), (1.0, 10_007.0));
    }

    #[test]
    fn a_curve_of_one_point_or_of_no_number_is_drawn_without_harm() {
        for error in [0.5, 0.0, f64::NAN, f64::INFINITY] {
            let mut stage = Stage::opened(80, 24, Profile::Mono);
            stage.event(Event::Started(Job::Fit)).event(Event::Sweep(point(1, error))).keys("5");
            assert!(stage.screen().contains("sweep 1"));
        }
    }

    #[test]
    fn more_features_are_asked_for_on_top_of_the_last_fits_choices() {
        let mut stage = Stage::opened(80, 24, Profile::Mono);
        stage.keys("5 + + f");
        let asked = stage.sent.iter().find_map(|c| if let Command::Fit(config) = c { Some(config) } else { None });
        let config = asked.expect("a fit was asked for");
        assert_eq!((config.features, config.seed), (75, 42));
    }

    #[test]
    fn a_second_fit_waits_for_the_first() {
        let mut stage = Stage::opened(80, 24, Profile::Mono);
        stage.event(Event::Started(Job::Fit)).keys("5 f");
        assert!(!stage.sent.iter().any(|c| matches!(c, Command::Fit(_))));
        assert!(stage.screen().contains("a fit is running"));
    }
}
