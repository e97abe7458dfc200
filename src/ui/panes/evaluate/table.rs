//! The table of an evaluation: a row a method with a dot and its interval on one axis, and the plot of
//! score against KL where there is room.

use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};

use super::EvaluatePane;
use crate::engine::Job;
use crate::eval::steering::measures::{Measure, MeasureReport};
use crate::eval::steering::report::{MeanInterval, SteeringReport, chart};
use crate::jobs::causal::Causal;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::list::scroll;
use crate::ui::pane::Cx;

/// Lines over the rows, and under them.
pub(super) const ABOVE: usize = 3;
const BELOW: usize = 1;
/// Cells of a mean with its interval.
const NUMBERS: usize = 22;
/// Fewest cells of an axis.
const MIN_AXIS: usize = 12;
/// Fewest lines of a plot, and those that its axes take.
const MIN_PLOT_LINES: usize = 5;
const AXIS_LINES: usize = 3;
/// Most lines of a plot.
const MAX_PLOT_LINES: usize = 14;
/// Columns between two KL of the plot at most.
const MAX_KL_STEP: usize = 16;
/// The highest score.
const TOP_SCORE: f64 = 2.0;

/// What the rows show of each method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shown {
    /// The score at each label's best KL and sign.
    Best,
    /// The score at a KL and sign.
    Score(f64, i8),
    /// What becomes of the labels' own words at a KL.
    Words(Measure, f64),
}

impl Shown {
    fn name(self) -> String {
        match self {
            Self::Best => "score at each label's best KL and sign".to_owned(),
            Self::Score(target, 1) => format!("score at KL {target}, promoting"),
            Self::Score(target, _) => format!("score at KL {target}, suppressing"),
            Self::Words(measure, target) => format!("{} at KL {target}", measure.name()),
        }
    }

    /// What it means, in a line.
    fn help(self) -> &'static str {
        match self {
            Self::Best | Self::Score(..) => {
                "harmonic mean of concept and fluency of a text, 0 to 2, mean over labels, 95 %"
            }
            Self::Words(Measure::Rise, _) => {
                "where the label's own words stand among all tokens' changes: 0.5 is nothing, 1 the top"
            }
            Self::Words(Measure::Calibrated, _) => {
                "rise minus that under random directions at the same KL: 0 is what chance gives"
            }
            Self::Words(Measure::Own, _) => {
                "rise minus that under the method's directions for other labels: 0 is nothing of its own"
            }
            Self::Words(Measure::New, _) => {
                "calibrated, of the words that the sentences that chose do not have"
            }
            Self::Words(Measure::Nats, _) => {
                "mean change of the log-probability of the label's own words, in nats"
            }
        }
    }

    fn of(self, report: &SteeringReport, measured: &[MeasureReport]) -> Option<MeanInterval> {
        match self {
            Self::Best => report.best,
            Self::Score(target, sign) => {
                let mut cells = report.cells.iter();
                let cell = cells.find(|c| c.target == target && c.sign == sign);
                cell.map(|c| c.score)
            }
            Self::Words(measure, target) => {
                let mut all = measured.iter();
                let of = |m: &&MeasureReport| {
                    m.method == report.method && m.measure == measure && m.target == target
                };
                all.find(of).map(|m| m.value)
            }
        }
    }
}

/// KL targets of the reports, ascending.
fn targets(reports: &[SteeringReport]) -> Vec<f64> {
    let cells = reports.iter().flat_map(|r| &r.cells);
    let mut all: Vec<f64> = cells.map(|c| c.target).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// What there is to show: scores where texts were judged, then what becomes of words.
pub(super) fn measures(reports: &[SteeringReport], whole: Option<&Causal>) -> Vec<Shown> {
    let mut all = Vec::new();
    if reports.iter().any(|r| r.texts > 0) {
        all.push(Shown::Best);
        let signs = |target: f64| [Shown::Score(target, 1), Shown::Score(target, -1)];
        all.extend(targets(reports).into_iter().flat_map(signs));
    }
    for m in whole.map_or(&[][..], |whole| &whole.measures) {
        let words = Shown::Words(m.measure, m.target);
        if !all.contains(&words) {
            all.push(words);
        }
    }
    if all.is_empty() {
        all.push(Shown::Best);
    }
    all
}

/// Rows that fit.
pub(super) fn height(cx: &Cx) -> usize {
    usize::from(cx.area.height)
        .saturating_sub(ABOVE + BELOW)
        .max(1)
}

/// A line over the table: how far it is, and what came of it.
fn state(pane: &EvaluatePane, cx: &Cx) -> String {
    let texts = text::count(pane.reports.iter().map(|r| r.texts).sum());
    if cx.world.job(Job::Evaluate).is_some() {
        let stop = cx.key(Action::Cancel);
        return format!("{texts} texts judged so far; {stop} stops, what is judged stays");
    }
    let (edit, goes_on) = (cx.key(Action::Edit), cx.key(Action::Run));
    let Some(whole) = &pane.evaluation else {
        return format!("{texts} texts judged; {edit} asks otherwise, and {goes_on} there goes on");
    };
    let left_out = match whole.not_judged.len() {
        0 => String::new(),
        n => format!(", {n} of no judgeable words"),
    };
    let unsteered = whole.unsteered.map_or_else(String::new, |u| {
        format!("; unsteered texts score {:.2}", u.score)
    });
    let state = if whole.stopped { "stopped: " } else { "" };
    format!(
        "{state}{} labels{left_out}, {texts} texts, {} judge{unsteered}; {edit} asks otherwise",
        whole.labels.len(),
        whole.judge
    )
}

/// The ends of the axis, and where its zero or level is.
fn axis(pane: &EvaluatePane, shown: Shown) -> (f64, f64, Option<f64>) {
    let measured = pane.evaluation.as_ref().map_or(&[][..], |w| &w.measures);
    match shown {
        Shown::Best | Shown::Score(..) => {
            let whole = pane.evaluation.as_ref();
            (
                0.0,
                TOP_SCORE,
                whole.and_then(|w| w.unsteered).map(|u| u.score),
            )
        }
        Shown::Words(Measure::Rise, _) => (0.0, 1.0, Some(0.5)),
        Shown::Words(measure, _) => {
            // One axis for all KL of a measure: it does not move under the eye.
            let all = measured.iter().filter(|m| m.measure == measure);
            let (low, high) = all.fold((0.0f64, 0.0f64), |(low, high), m| {
                (low.min(m.value.low), high.max(m.value.high))
            });
            (low, high.max(low + 1e-6), Some(0.0))
        }
    }
}

/// The dot and its interval on an axis of `cells`.
fn dot(value: MeanInterval, (low, high, level): (f64, f64, Option<f64>), cells: usize) -> String {
    let place = |v: f64| {
        let share = ((v - low) / (high - low)).clamp(0.0, 1.0);
        (share * (cells.saturating_sub(1)) as f64).round() as usize
    };
    let mut line = vec![' '; cells];
    if let Some(cell) = level.and_then(|level| line.get_mut(place(level))) {
        *cell = '┊';
    }
    let (from, to) = (place(value.low), place(value.high));
    line[from..=to.min(cells.saturating_sub(1))].fill('─');
    line[place(value.mean)] = '●';
    line.into_iter().collect()
}

/// "0.41 [0.30, 0.52]".
fn numbers(mean: Option<MeanInterval>) -> String {
    mean.map_or_else(
        || "–".to_owned(),
        |m| format!("{:.2} [{:.2}, {:.2}]", m.mean, m.low, m.high),
    )
}

/// The table as text, for a clipboard.
pub(super) fn as_text(reports: &[SteeringReport]) -> String {
    let targets = targets(reports);
    let heads: String = targets
        .iter()
        .map(|t| format!("\tKL {t} +\tKL {t} −"))
        .collect();
    let mut lines = vec![format!("method\tbest\tlow\thigh{heads}")];
    for r in reports {
        let number = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.4}"));
        let score_of = |target: f64, sign| {
            let mut cells = r.cells.iter();
            let cell = cells.find(|c| c.target == target && c.sign == sign);
            number(cell.map(|c| c.score.mean))
        };
        let cells: String = targets
            .iter()
            .map(|&t| format!("\t{}\t{}", score_of(t, 1), score_of(t, -1)))
            .collect();
        let [best, low, high] = [
            r.best.map(|b| b.mean),
            r.best.map(|b| b.low),
            r.best.map(|b| b.high),
        ]
        .map(number);
        lines.push(format!(
            "{}\t{best}\t{low}\t{high}{cells}",
            text::clean(&r.method)
        ));
    }
    lines.join("\n")
}

pub(super) fn draw(pane: &EvaluatePane, cx: &Cx, buf: &mut Buffer) {
    let (theme, width) = (cx.theme, usize::from(cx.area.width));
    let line = |t: &str, style| Line::styled(text::truncate(t, width.saturating_sub(2)), style);
    let measures = pane.measures();
    let shown = measures[pane.measure.min(measures.len() - 1)];
    let measured = pane.evaluation.as_ref().map_or(&[][..], |w| &w.measures);
    put_at(buf, cx.area, 1, 0, &line(&state(pane, cx), theme.dim()));
    let longest = pane.reports.iter().map(|r| text::width(&r.method)).max();
    let names = longest.unwrap_or(0).clamp(8, (width / 3).max(8));
    let left = 3 + names + NUMBERS;
    let cells = width.saturating_sub(left + 2);
    let cells = if cells < MIN_AXIS { 0 } else { cells.min(72) };
    let ends = axis(pane, shown);
    let name = format!("‹ {} ›", shown.name());
    put_at(buf, cx.area, 1, 1, &line(&name, theme.heading()));
    let names_head = format!(
        "{}{:>w$}  ",
        text::pad("   method", names + 3),
        "mean [95 %]",
        w = NUMBERS - 2
    );
    let mut head = vec![Span::styled(names_head, theme.dim())];
    if cells > 0 {
        let (low, high) = (format!("{:.2}", ends.0), format!("{:.2}", ends.1));
        let gap = cells.saturating_sub(low.len() + high.len());
        let scale = format!("{low}{}{high}", " ".repeat(gap));
        head.push(Span::styled(scale, theme.dim()));
    }
    put(buf, cx.area, 2, &Line::from(head));
    let (count, height) = (pane.reports.len(), height(cx));
    let offset = scroll(pane.offset, pane.cursor, count, height);
    let rows = pane.reports.iter().enumerate().skip(offset).take(height);
    for (y, (at, report)) in rows.enumerate() {
        let current = at == pane.cursor;
        let value = shown.of(report, measured);
        let letter = char::from(b'a' + (at % 26) as u8);
        let name = text::pad(&text::clean(&report.method), names);
        let mut spans = vec![
            Span::styled(if current { "▌" } else { " " }, theme.accent()),
            Span::styled(format!("{letter} {name}"), theme.name()),
            Span::styled(
                text::pad_left(&numbers(value), NUMBERS - 2) + "  ",
                theme.text(),
            ),
        ];
        if let Some(value) = value.filter(|_| cells > 0) {
            spans.push(Span::styled(dot(value, ends, cells), theme.positive()));
        }
        match current {
            true => put_selected(
                buf,
                cx.area,
                ABOVE + y,
                Line::from(spans),
                theme,
                cx.focused,
            ),
            false => put(buf, cx.area, ABOVE + y, &Line::from(spans)),
        }
    }
    let mut foot = ABOVE + count.min(height);
    put_at(buf, cx.area, 1, foot, &line(shown.help(), theme.dim()));
    foot += 1;
    let left = usize::from(cx.area.height).saturating_sub(foot + 1);
    let targets = targets(&pane.reports);
    if left >= MIN_PLOT_LINES + AXIS_LINES && !targets.is_empty() {
        let step = (width.saturating_sub(12) / targets.len()).min(MAX_KL_STEP);
        let whole = pane.evaluation.as_ref();
        let unsteered = whole.and_then(|whole| whole.unsteered).map(|u| u.score);
        let plot = chart(&pane.reports, String::new(), unsteered)
            .grid((left - AXIS_LINES).min(MAX_PLOT_LINES), step);
        for (i, row) in plot.iter().enumerate() {
            put_at(buf, cx.area, 1, foot + 1 + i, &line(row, theme.text()));
        }
    }
}
