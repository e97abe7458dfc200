//! An evaluation as it fills: what each kind of direction makes the model say at equal KL, as a
//! judge rates it. Owns the newest reports.
//!
//! Invariant: the table is that of `mlpeek eval steering` for the texts judged so far.

mod form;
#[cfg(test)]
mod tests;
mod values;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};

use crate::engine::{Command, Event, Job, Level, Reply, RequestId};
use crate::eval::steering::report::{MeanInterval, SteeringReport, chart};
use crate::jobs::causal::Causal;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at};
use crate::ui::list::scroll;
use crate::ui::pane::{Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::{draw_empty, no_features_lines};
use form::EvaluationForm;

/// Cells of the best score with its interval, and of the scores at one KL.
const BEST_CELLS: usize = 21;
const SCORE_CELLS: usize = 13;
/// Fewest lines of a plot, and those that its axes take.
const MIN_PLOT_LINES: usize = 5;
const AXIS_LINES: usize = 3;
/// Most lines of a plot.
const MAX_PLOT_LINES: usize = 14;
/// Columns between two KL of the plot at most.
const MAX_KL_STEP: usize = 16;

/// The form, and the newest reports.
#[derive(Debug, Default)]
pub struct EvaluatePane {
    form: EvaluationForm,
    /// The form is on show over what came of an earlier request.
    form_open: bool,
    reports: Vec<SteeringReport>,
    /// What it came to, once it has ended.
    evaluation: Option<Box<Causal>>,
    offset: usize,
    /// The request whose reports are shown; `None` once the study was closed: what is still judged
    /// is not of the one on show.
    open_request: Option<RequestId>,
}

impl EvaluatePane {
    /// Whether the form is on show: before anything was asked, and where it is changed.
    fn shows_form(&self, cx: &Cx) -> bool {
        cx.world.job(Job::Evaluate).is_none() && (self.form_open || self.reports.is_empty())
    }

    fn run(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.job(Job::Evaluate).is_some() {
            return vec![Step::Notify(
                Level::Info,
                format!("it goes on; {} stops it", cx.key(Action::Cancel)),
            )];
        }
        match self.form.request(cx) {
            Ok(evaluation) => {
                let request = cx.request(Command::Evaluate(Box::new(evaluation)));
                self.open_request = Some(request.id);
                vec![Step::Request(request)]
            }
            Err(problem) => vec![Step::Notify(Level::Warn, problem)],
        }
    }

    fn targets(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self
            .reports
            .iter()
            .flat_map(|r| r.cells.iter().map(|c| c.target))
            .collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    /// A line or two over the table.
    fn state(&self, cx: &Cx) -> Vec<String> {
        let texts: usize = self.reports.iter().map(|r| r.texts).sum();
        if cx.world.job(Job::Evaluate).is_some() {
            let stop = cx.key(Action::Cancel);
            return vec![format!(
                "{} texts judged so far; {stop} stops, what is judged stays",
                text::count(texts)
            )];
        }
        let Some(whole) = &self.evaluation else {
            let (run, edit) = (cx.key(Action::Run), cx.key(Action::Edit));
            return vec![format!(
                "{} texts judged; {run} goes on, {edit} asks otherwise",
                text::count(texts)
            )];
        };
        let left_out = match whole.not_judged.len() {
            0 => String::new(),
            n => format!(", {n} of no judgeable words"),
        };
        let unsteered = whole.unsteered.map_or_else(String::new, |u| {
            format!("; unsteered texts score {:.2}", u.score)
        });
        vec![format!(
            "{} labels{left_out}; {} judge{unsteered}",
            whole.labels.len(),
            whole.judge
        )]
    }

    fn names(&self, cx: &Cx) -> usize {
        let longest = self
            .reports
            .iter()
            .map(|r| text::width(&r.method))
            .max()
            .unwrap_or(0);
        longest.clamp(8, (usize::from(cx.area.width) / 3).max(8))
    }

    /// KL targets for which there is room.
    fn shown(&self, cx: &Cx) -> Vec<f64> {
        let room = usize::from(cx.area.width).saturating_sub(3 + self.names(cx) + BEST_CELLS);
        self.targets()
            .into_iter()
            .take(room / SCORE_CELLS)
            .collect()
    }

    fn row(
        &self,
        at: usize,
        report: &SteeringReport,
        targets: &[f64],
        names: usize,
    ) -> [String; 2] {
        let letter = char::from(b'a' + (at % 26) as u8);
        let cell = |target: &f64| {
            let score_of = |sign| {
                report
                    .cells
                    .iter()
                    .find(|c| c.target == *target && c.sign == sign)
                    .map(|c| c.score.mean)
            };
            let number =
                |v: Option<f64>| v.map_or_else(|| "  - ".to_owned(), |v| format!("{v:.2}"));
            let both = match (score_of(1), score_of(-1)) {
                (None, None) => "-".to_owned(),
                (up, down) => format!("+{} −{}", number(up), number(down)),
            };
            text::pad_left(&both, SCORE_CELLS)
        };
        let cells: String = targets.iter().map(cell).collect();
        let head = format!(
            "{letter} {} ",
            text::pad(&text::clean(&report.method), names)
        );
        [
            head,
            format!(
                "{}{cells}",
                text::pad_left(&interval(report.best), BEST_CELLS)
            ),
        ]
    }

    /// The table as text, for a clipboard.
    fn table(&self) -> String {
        let targets = self.targets();
        let heads: String = targets
            .iter()
            .map(|t| format!("\tKL {t} +\tKL {t} −"))
            .collect();
        let mut lines = vec![format!("method\tbest\tlow\thigh{heads}")];
        for r in &self.reports {
            let number = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.4}"));
            let score_of = |target: f64, sign| {
                number(
                    r.cells
                        .iter()
                        .find(|c| c.target == target && c.sign == sign)
                        .map(|c| c.score.mean),
                )
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

    /// Rows of the table that fit above the plot, or in all.
    fn height(&self, cx: &Cx) -> usize {
        usize::from(cx.area.height).saturating_sub(2).max(1)
    }
}

/// "0.41 [0.30, 0.52]".
fn interval(mean: Option<MeanInterval>) -> String {
    mean.map_or_else(
        || "-".to_owned(),
        |m| format!("{:.2} [{:.2}, {:.2}]", m.mean, m.low, m.high),
    )
}

impl Pane for EvaluatePane {
    fn id(&self) -> PaneId {
        PaneId::Evaluate
    }

    fn title(&self, _: &Cx) -> Line<'static> {
        Line::raw(match &self.evaluation {
            Some(whole) => format!("Evaluate: steering at {}, score 0 to 2", whole.place()),
            None => "Evaluate: steering at equal KL, score 0 to 2".to_owned(),
        })
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::Run => Some(self.run(cx)),
            Action::Back if self.shows_form(cx) && self.form_open => {
                self.form_open = false;
                Some(Vec::new())
            }
            _ if self.shows_form(cx) => self.form.act(action, cx).map(|()| Vec::new()),
            Action::Edit => {
                self.form_open = true;
                Some(Vec::new())
            }
            Action::Copy if !self.reports.is_empty() => Some(vec![Step::Copy(
                self.table(),
                "the scores of all methods".to_owned(),
            )]),
            _ => {
                self.offset = crate::ui::list::motion(
                    action,
                    self.offset,
                    self.reports.len(),
                    self.height(cx),
                )?;
                Some(Vec::new())
            }
        }
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        let (run, world) = (action == Action::Run, cx.world);
        match () {
            () if run && world.features.is_none() => {
                Some("there are no features yet to evaluate".to_owned())
            }
            () if run && world.model.is_none() => {
                Some("no model is open: steering needs one".to_owned())
            }
            () if run && world.fitting() => {
                Some("the fit goes on: wait until its features stay".to_owned())
            }
            () if action == Action::Edit && world.job(Job::Evaluate).is_some() => Some(format!(
                "it is under way: {} stops it, and nothing is lost",
                cx.key(Action::Cancel)
            )),
            () => None,
        }
    }

    fn typing(&self) -> bool {
        self.form.typing()
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        self.form.key(key, cx).then(Vec::new)
    }

    fn paste(&mut self, pasted: &str, _: &Cx) -> Vec<Step> {
        self.form.paste(pasted);
        Vec::new()
    }

    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        if self.shows_form(cx) {
            self.form.click(row, double, cx);
        }
        Vec::new()
    }

    fn event(&mut self, reply: &Reply, _: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Closed => *self = Self::default(),
            _ if !reply.is_to(self.open_request) => {}
            Event::Started(Job::Evaluate) => {
                *self = Self {
                    form: std::mem::take(&mut self.form),
                    open_request: self.open_request,
                    ..Self::default()
                };
            }
            Event::Judged(reports) => self.reports.clone_from(reports),
            Event::Evaluation(whole) => {
                self.reports.clone_from(&whole.methods);
                self.evaluation = Some(whole.clone());
            }
            _ => {}
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if self.shows_form(cx) && cx.world.features.is_none() {
            let what = "Do features make the model speak of what they stand for?";
            return draw_empty(
                buf,
                cx,
                &no_features_lines(cx, what, "It is asked of the features, once they stay."),
            );
        }
        if self.shows_form(cx) {
            return self.form.view(cx, buf);
        }
        if self.reports.is_empty() {
            let stage = cx
                .world
                .job(Job::Evaluate)
                .map(|job| text::clean(&job.progress.stage))
                .unwrap_or_default();
            let stop = cx.key(Action::Cancel);
            let then =
                format!("The table fills as texts are judged; {stop} stops, and nothing is lost.");
            return draw_empty(buf, cx, &[format!("{stage}…"), then]);
        }
        let (theme, names, targets) = (cx.theme, self.names(cx), self.shown(cx));
        let width = usize::from(cx.area.width);
        for (i, line) in self.state(cx).iter().enumerate() {
            put_at(
                buf,
                cx.area,
                1,
                i,
                &Line::styled(text::truncate(line, width.saturating_sub(2)), theme.dim()),
            );
        }
        let heads: String = targets
            .iter()
            .map(|t| text::pad_left(&format!("KL {t}"), SCORE_CELLS))
            .collect();
        let head = format!(
            " {}{}{heads}",
            " ".repeat(names + 3),
            text::pad_left("best KL and sign", BEST_CELLS)
        );
        put(buf, cx.area, 1, &Line::styled(head, theme.heading()));
        let (count, height) = (self.reports.len(), self.height(cx));
        let offset = scroll(self.offset, self.offset, count, height);
        for (y, (at, report)) in self
            .reports
            .iter()
            .enumerate()
            .skip(offset)
            .take(height)
            .enumerate()
        {
            let [name, numbers] = self.row(at, report, &targets, names);
            let line = vec![
                Span::raw(" "),
                Span::styled(name, theme.name()),
                Span::styled(numbers, theme.text()),
            ];
            put(buf, cx.area, 2 + y, &Line::from(line));
        }
        // A plot where there is room for one.
        let left = height.saturating_sub(count + 1);
        if left >= MIN_PLOT_LINES + AXIS_LINES && !self.targets().is_empty() {
            let step = (width.saturating_sub(12) / self.targets().len()).min(MAX_KL_STEP);
            let unsteered = self
                .evaluation
                .as_ref()
                .and_then(|whole| whole.unsteered)
                .map(|u| u.score);
            let lines = chart(&self.reports, String::new(), unsteered)
                .grid((left - AXIS_LINES).min(MAX_PLOT_LINES), step);
            for (i, line) in lines.into_iter().enumerate() {
                put_at(
                    buf,
                    cx.area,
                    1,
                    3 + count + i,
                    &Line::styled(text::truncate(&line, width - 1), theme.text()),
                );
            }
        }
    }
}
