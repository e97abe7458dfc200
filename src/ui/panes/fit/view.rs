//! How the Fit pane looks: the numbers of the fit, its settings and the next one, the plot, and the
//! list of fits.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{FitPane, Plot, curve, fits, sweep, training};
use crate::activations::energy::Axis;
use crate::engine::Job;
use crate::factor::{FitConfig, Init, Solver, Stop};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{fit_line, put};
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::panes::{draw_empty, no_features_lines};
use crate::ui::theme::Theme;
use crate::ui::world::CutShort;

/// Facts after one another, as many as fit: a name, and what it is.
pub(super) fn facts_line(
    facts: Vec<(&'static str, String)>,
    width: usize,
    theme: &Theme,
) -> Vec<Span<'static>> {
    let mut first = vec![Span::raw(" ")];
    let mut room = width.saturating_sub(1);
    for (name, value) in facts {
        let cells = text::width(name) + text::width(&value) + 1;
        if cells > room {
            break;
        }
        room = room.saturating_sub(cells + 3);
        first.push(Span::styled(format!("{name} "), theme.dim()));
        first.push(Span::styled(format!("{value}   "), theme.heading()));
    }
    first
}

/// " · scaled neurons": what is done to the rows before they are fitted.
fn preprocessing_words(config: &FitConfig) -> String {
    let options = [
        (config.centre, " · centred"),
        (config.scale_neurons, " · scaled neurons"),
        (config.scale_rows, " · scaled rows"),
    ];
    options
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, words)| *words)
        .collect()
}

/// What a fit of these settings should be read with: the first of few neurons or rows that hold
/// much of all.
fn concentration_advice(config: &FitConfig, cx: &Cx) -> Option<String> {
    let taken_out = |axis| {
        if axis == Axis::Neurons {
            config.scale_neurons
        } else {
            config.scale_rows
        }
    };
    let found = cx
        .world
        .study
        .as_ref()?
        .concentrated
        .iter()
        .find(|found| !taken_out(found.axis))?;
    Some(format!(" {}", text::clean(&found.short_advice())))
}

/// Where the parts of the pane are: the lines above, the middle, the list of fits.
pub(super) struct Parts {
    pub middle: Rect,
    pub list: Rect,
}

pub(super) fn parts(plot: Plot, count: usize, area: Rect) -> Parts {
    let top = 4.min(area.height);
    let below = area.height - top;
    let most = if plot == Plot::Compared {
        below / 4
    } else {
        below / 3
    };
    let list =
        (count as u16 + u16::from(count > 0)).min(most.max(u16::from(count > 0) * 2).min(below));
    let middle = Rect {
        x: area.x + 1,
        y: area.y + top,
        width: area.width.saturating_sub(2),
        height: below - list,
    };
    Parts {
        middle,
        list: Rect {
            y: area.y + top + middle.height,
            height: list,
            ..area
        },
    }
}

impl FitPane {
    fn facts(&self, cx: &Cx) -> Vec<(&'static str, String)> {
        let world = cx.world;
        let mut facts = Vec::new();
        let last = world.sweeps.last();
        if let (Some(name), Some(job)) = (world.starting_fit(), world.job(Job::Fit)) {
            facts.push(("starting", text::clean(name)));
            let left = job.eta.map(|eta| format!(": {} left", text::duration(eta)));
            let stage = text::clean(&job.progress.stage);
            facts.push(("now", format!("{stage}{}", left.unwrap_or_default())));
            return facts;
        }
        if let Some(point) = last {
            facts.push(("sweep", point.sweep.to_string()));
            let name = if point.weighted {
                "weighted error"
            } else {
                "error"
            };
            facts.push((name, format!("{:.4}", point.relative_error)));
            let plain = world
                .snapshot()
                .filter(|list| point.weighted && list.sweep > 0);
            facts.extend(plain.map(|list| ("plain error", format!("{:.4}", list.relative_error))));
        }
        if let Some(list) = world.snapshot() {
            facts.push(("explained", text::percent(list.explained_variance as f32)));
        }
        if let Some(job) = world.job(Job::Fit) {
            let rate = last
                .filter(|p| p.seconds > 0.0)
                .map(|p| p.sweep as f64 / p.seconds);
            facts.extend(rate.map(|r| ("rate", format!("{} sweeps/s", text::number(r)))));
            facts.extend(job.eta.map(|eta| ("left", text::duration(eta))));
        } else if let Some(point) = last {
            // With the initialisation, as in the list below; the curve's seconds are of sweeps alone.
            let saved = fits::listed(cx)
                .into_iter()
                .find(|fit| fits::is_shown(fit, cx));
            facts.push(match saved.filter(|fit| fit.is_finished()) {
                Some(fit) => ("took", text::duration(fit.seconds)),
                None => ("sweeps took", text::duration(point.seconds)),
            });
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
        let mut first = facts_line(self.facts(cx), width, theme);
        if let (Some(cut), false) = (cx.world.cut_short(), cx.world.fitting()) {
            let key = cx.key(Action::Continue);
            let state = match cut {
                CutShort::Collecting(_) | CutShort::Importing(_) => cut.to_string(),
                // At which sweep stands before it.
                CutShort::Fit(_) => "stopped".to_owned(),
            };
            first.push(Span::styled(
                format!("{state}: {}", cut.remedy(&key)),
                theme.warning(),
            ));
        }
        if cx.world.paused {
            first.push(Span::styled(
                format!("held: {} goes on", cx.key(Action::Pause)),
                theme.warning(),
            ));
        }
        let roomy = width >= 100;
        let solver = match config.solver {
            Solver::Bcd if roomy => "block coordinate descent",
            Solver::Mu if roomy => "multiplicative updates",
            Solver::Bcd => "bcd",
            Solver::Mu => "mu",
        };
        let init = match config.init {
            Init::Random => "random",
            Init::Kmeans => "k-means",
            Init::Svd => "SVD",
        };
        let share = |d| {
            format!(
                "{} of {} neurons",
                text::chosen_percent(config.sparsity_at(d)),
                text::count(d)
            )
        };
        let share = cx
            .world
            .study
            .as_ref()
            .map_or_else(|| "sparsity auto".to_owned(), |study| share(study.width));
        let how = format!(
            " {} features · {solver} · {init} start · {share}{} · λ {} · seed {}",
            config.features,
            preprocessing_words(&config),
            config.l1,
            config.seed
        );
        let next = self.next_count(cx);
        let key = |a| Span::styled(cx.key(a), theme.accent());
        let again = Line::from(vec![
            Span::raw(" next fit "),
            Span::styled(format!("{next} features"), theme.heading()),
            Span::raw("   "),
            key(Action::Fewer),
            Span::raw("/"),
            key(Action::More),
            Span::styled(
                if width < 70 {
                    " number   "
                } else {
                    " fewer or more   "
                },
                theme.dim(),
            ),
            key(Action::Refit),
            Span::styled(" fits anew   ", theme.dim()),
            key(Action::GoOn),
            Span::styled(
                if roomy {
                    " goes on from the fit on show"
                } else {
                    " goes on"
                },
                theme.dim(),
            ),
        ]);
        let mut lines = vec![
            Line::from(first),
            Line::styled(text::truncate(&how, width), theme.dim()),
            again,
        ];
        lines.extend(
            concentration_advice(&config, cx)
                .map(|words| Line::styled(text::truncate(&words, width), theme.warning())),
        );
        lines
    }

    /// The list of fits with its cursor.
    fn list(&self, area: Rect, cx: &Cx, buf: &mut Buffer) {
        let all = fits::listed(cx);
        let height = usize::from(area.height).saturating_sub(1);
        let key = |a| cx.key(a);
        let width = usize::from(area.width);
        let (show, compare) = (key(Action::ShowFit), key(Action::CompareFit));
        let title = match width {
            100.. => format!(
                " fits of this layer   {show} shows one   {compare} compares it with the one on show   ←/→ error against features"
            ),
            _ => format!(" fits   {show} shows one   {compare} compares it   ←/→ other plots"),
        };
        let title = if all.len() > 1 {
            title
        } else {
            " fits of this layer".to_owned()
        };
        put(
            buf,
            area,
            0,
            &Line::styled(text::truncate(&title, width), cx.theme.dim()),
        );
        let cursor = self.cursor.min(all.len().saturating_sub(1));
        let from = scroll(0, cursor, all.len(), height);
        for (y, (i, fit)) in all.iter().enumerate().skip(from).take(height).enumerate() {
            put(buf, area, y + 1, &fits::line(fit, i == cursor, width, cx));
        }
    }

    pub(super) fn draw(&self, cx: &Cx, buf: &mut Buffer) {
        let area = cx.area;
        let width = usize::from(area.width);
        if cx.world.study.is_none() && cx.world.sweeps.is_empty() {
            let what = "Here the error of a fit falls while you watch.";
            return draw_empty(
                buf,
                cx,
                &no_features_lines(
                    cx,
                    what,
                    "The error curve appears here with the first sweep of the fit.",
                ),
            );
        }
        let summary = match (self.plot, &cx.world.training, &cx.world.k_sweep) {
            (Plot::Training, Some((entry, points)), _) => {
                training::summary(entry, points, width, cx)
            }
            (Plot::Sweep, _, Some((begun, rows))) => sweep::summary(begun, rows, width, cx),
            _ => self.summary(cx, width),
        };
        for (i, line) in summary.iter().enumerate() {
            put(buf, area, i, &fit_line(line.clone(), width));
        }
        let parts = parts(self.plot, fits::listed(cx).len(), area);
        match (self.plot, &self.compared) {
            (Plot::Compared, Some(found)) => {
                fits::compared(found, self.scrolled, parts.middle, cx, buf)
            }
            (Plot::AgainstK, _) => fits::against_k(cx, parts.middle, buf),
            (Plot::Training, _) => training::curve(parts.middle, cx, buf),
            (Plot::Sweep, _) => sweep::view(parts.middle, cx, buf),
            _ if cx.world.sweeps.is_empty() => {
                put(
                    buf,
                    parts.middle,
                    1,
                    &Line::styled(" the curve appears with the first sweep", cx.theme.dim()),
                );
            }
            _ => curve::chart(cx, parts.middle, buf),
        }
        if parts.list.height > 1 {
            self.list(parts.list, cx, buf);
        }
    }
}
