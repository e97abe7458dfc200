//! An evaluation as it fills: what each kind of direction makes the model say at equal KL, as a
//! judge rates it; those that the study keeps; a method's texts beside the unsteered ones. Owns the
//! newest reports and what is asked next.
//!
//! Invariant: the table is that of `mlpeek eval steering` for the texts judged so far.

mod form;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod values;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::engine::{Command, Event, Job, Level, Reply, RequestId, SavedEvaluation};
use crate::eval::steering::report::SteeringReport;
use crate::jobs::causal::Causal;
use crate::text;
use crate::ui::action::Action;
use crate::ui::list::motion;
use crate::ui::pane::{Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::{draw_empty, no_features_lines};
use form::EvaluationForm;
use table::Shown;
use texts::TextsView;

/// The form, the newest reports, and what is looked at of them.
#[derive(Debug, Default)]
pub struct EvaluatePane {
    form: EvaluationForm,
    /// The form is on show over what came of an earlier request.
    form_open: bool,
    reports: Vec<SteeringReport>,
    /// What it came to, once it has ended or was opened.
    evaluation: Option<Box<Causal>>,
    /// The name of the evaluation on show.
    name: Option<String>,
    /// What the study keeps, the newest first; `None` before it was listed.
    saved: Option<Vec<SavedEvaluation>>,
    /// The method under the cursor.
    cursor: usize,
    offset: usize,
    /// Which measure the rows show.
    measure: usize,
    /// The texts of a method, over the table.
    texts: Option<TextsView>,
    /// The request whose reports are shown; `None` once the study was closed: what is still judged
    /// is not of the one on show.
    open_request: Option<RequestId>,
    /// The request for an evaluation of the study that is on its way.
    opening: Option<RequestId>,
    /// The questions for the study's evaluations and for a method's texts.
    list_request: Option<RequestId>,
    texts_request: Option<RequestId>,
}

impl EvaluatePane {
    /// Whether the form is on show: before anything was asked, and where it is changed.
    fn shows_form(&self, cx: &Cx) -> bool {
        let nothing_else = !self.has_table() && self.opening.is_none();
        cx.world.job(Job::Evaluate).is_none() && (self.form_open || nothing_else)
    }

    /// Whether there is something to show of an evaluation.
    fn has_table(&self) -> bool {
        !self.reports.is_empty()
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

    /// Asks for the evaluations of the study, and for how fast texts are written here.
    fn list(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.study.is_none() || cx.world.job(Job::Evaluate).is_some() {
            return Vec::new();
        }
        let request = cx.request(Command::Evaluations);
        self.list_request = Some(request.id);
        let mut steps = vec![Step::Request(request)];
        let is_idle = cx.world.jobs.iter().all(|job| job.job == Job::Trace);
        if cx.world.model.is_some() && is_idle {
            steps.extend(self.form.measure_pace(cx));
        }
        steps
    }

    /// Opens an evaluation of the study.
    fn open(&mut self, name: &str, cx: &Cx) -> Vec<Step> {
        let request = cx.request(Command::OpenEvaluation(name.to_owned()));
        (self.open_request, self.opening) = (Some(request.id), Some(request.id));
        self.texts = None;
        vec![Step::Request(request)]
    }

    /// The evaluation before the one on show, or after it.
    fn browse(&mut self, older: bool, cx: &Cx) -> Option<Vec<Step>> {
        let all = self.saved.as_ref()?;
        let at = self.place();
        let to = match (at, older) {
            (Some(at), true) => at + 1,
            (Some(at), false) => at.checked_sub(1)?,
            (None, _) => 0,
        };
        let name = all.get(to)?.name.clone();
        Some(self.open(&name, cx))
    }

    /// Which of the study's evaluations is on show.
    fn place(&self) -> Option<usize> {
        let all = self.saved.as_ref()?;
        all.iter().position(|e| Some(&e.name) == self.name.as_ref())
    }

    /// Asks for the texts of the method under the cursor.
    fn open_texts(&mut self, cx: &Cx) -> Vec<Step> {
        let (Some(name), Some(report)) = (&self.name, self.reports.get(self.cursor)) else {
            return Vec::new();
        };
        let request = cx.request(Command::EvaluatedTexts(name.clone(), report.method.clone()));
        self.texts_request = Some(request.id);
        vec![Step::Request(request)]
    }

    /// What the rows can show.
    fn measures(&self) -> Vec<Shown> {
        table::measures(&self.reports, self.evaluation.as_deref())
    }

    /// Moves the cursor, and the measure on show.
    fn move_in_table(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let measures = self.measures().len().max(1);
        match action {
            Action::Left => self.measure = (self.measure + measures - 1) % measures,
            Action::Right => self.measure = (self.measure + 1) % measures,
            _ => {
                let height = table::height(cx);
                self.cursor = motion(action, self.cursor, self.reports.len(), height)?;
                self.offset =
                    crate::ui::list::scroll(self.offset, self.cursor, self.reports.len(), height);
            }
        }
        Some(Vec::new())
    }

    /// Takes in what an evaluation came to.
    fn show(&mut self, whole: &Causal) {
        self.opening = None;
        self.reports.clone_from(&whole.methods);
        self.name = Some(whole.name.clone());
        self.evaluation = Some(Box::new(whole.clone()));
        self.cursor = self.cursor.min(self.reports.len().saturating_sub(1));
        // Where no text was written there are measures alone.
        self.measure = self.measure.min(self.measures().len().saturating_sub(1));
    }
}

impl Pane for EvaluatePane {
    fn id(&self) -> PaneId {
        PaneId::Evaluate
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        let place = self
            .evaluation
            .as_ref()
            .filter(|_| !self.shows_form(cx))
            .map_or("equal KL", |whole| whole.place());
        let which = match (self.place(), &self.saved) {
            (Some(at), Some(all)) if all.len() > 1 && !self.shows_form(cx) => {
                format!(" · {} of {}", at + 1, all.len())
            }
            _ => String::new(),
        };
        Line::raw(match &self.texts {
            Some(texts) => format!("Evaluate: texts of {}", text::clean(texts.method())),
            None => format!("Evaluate: steering at {place}{which}"),
        })
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        if let Some(texts) = &mut self.texts {
            if action == Action::Back {
                self.texts = None;
                return Some(Vec::new());
            }
            return texts.act(action, cx);
        }
        match action {
            Action::Back if self.shows_form(cx) && self.form_open => {
                self.form_open = false;
                Some(Vec::new())
            }
            Action::PreviousRun => self.browse(true, cx),
            Action::NextRun => self.browse(false, cx),
            Action::Run if self.shows_form(cx) => Some(self.run(cx)),
            _ if self.shows_form(cx) => self.form.act(action, cx).map(|()| Vec::new()),
            // A table that is still filling, or was stopped, is read and gone on with.
            Action::Run if self.has_table() => Some(self.open_texts(cx)),
            // What comes is looked at before anything is begun.
            Action::Run if self.opening.is_some() => Some(Vec::new()),
            Action::Run => Some(self.run(cx)),
            Action::Edit => {
                self.form_open = true;
                Some(Vec::new())
            }
            Action::Copy if self.has_table() => Some(vec![Step::Copy(
                table::as_text(&self.reports),
                "the scores of all methods".to_owned(),
            )]),
            _ => self.move_in_table(action, cx),
        }
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        let (run, world) = (
            action == Action::Run && self.shows_form(cx) && self.texts.is_none(),
            cx.world,
        );
        match action {
            _ if run && world.features.is_none() => {
                Some("there are no features yet to evaluate".to_owned())
            }
            _ if run && world.model.is_none() => {
                Some("no model is open: steering needs one".to_owned())
            }
            _ if run && world.fitting() => {
                Some("the fit goes on: wait until its features stay".to_owned())
            }
            Action::Edit if world.job(Job::Evaluate).is_some() => Some(format!(
                "it is under way: {} stops it, and nothing is lost",
                cx.key(Action::Cancel)
            )),
            Action::PreviousRun | Action::NextRun if world.job(Job::Evaluate).is_some() => {
                Some("an evaluation is under way".to_owned())
            }
            Action::PreviousRun | Action::NextRun
                if self.saved.as_ref().is_none_or(Vec::is_empty) =>
            {
                Some("this study keeps no other evaluation".to_owned())
            }
            _ => None,
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

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        self.list(cx)
    }

    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        if self.texts.is_some() {
            return Vec::new();
        }
        if self.shows_form(cx) {
            self.form.click(row, double, cx);
            return Vec::new();
        }
        let line = usize::from(row.saturating_sub(cx.area.y)).checked_sub(table::ABOVE);
        let hit = line.map(|line| self.offset + line);
        if let Some(at) = hit.filter(|at| *at < self.reports.len()) {
            self.cursor = at;
            if double {
                return self.open_texts(cx);
            }
        }
        Vec::new()
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Closed => *self = Self::default(),
            Event::Pace(pace) => self.form.set_pace(*pace),
            Event::Evaluations(all) if reply.is_to(self.list_request) => {
                self.saved = Some(all.clone());
                // What was evaluated is opened, not asked for again: the newest of the layer on show.
                let hook = cx.world.study.as_ref().map(|study| study.hook.to_string());
                let own = all.iter().find(|e| Some(&e.hook) == hook.as_ref());
                let newest = own.map(|e| e.name.clone());
                if let Some(name) = newest.filter(|_| !self.has_table() && !self.form_open) {
                    return self.open(&name, cx);
                }
            }
            Event::EvaluatedTexts(texts) if reply.is_to(self.texts_request) => {
                let label = self.texts.as_ref().map_or(0, TextsView::cursor);
                self.texts = Some(TextsView::new((**texts).clone(), label));
            }
            Event::Refused(why) if reply.is_to(self.opening) => {
                self.opening = None;
                return vec![Step::Notify(Level::Warn, why.clone())];
            }
            Event::Refused(why) if reply.is_to(self.texts_request) => {
                self.texts_request = None;
                return vec![Step::Notify(Level::Warn, why.clone())];
            }
            _ if !reply.is_to(self.open_request) => {}
            Event::Started(Job::Evaluate) => {
                *self = Self {
                    form: std::mem::take(&mut self.form),
                    saved: self.saved.take(),
                    open_request: self.open_request,
                    ..Self::default()
                };
            }
            Event::EvaluationBegun(name) => self.name = Some(name.clone()),
            Event::Judged(reports) => self.reports.clone_from(reports),
            Event::Evaluation(whole) => self.show(whole),
            Event::Done(Job::Evaluate, _) | Event::Cancelled(Job::Evaluate) => {
                return self.list(cx);
            }
            _ => {}
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if let Some(texts) = &self.texts {
            return texts.view(cx, buf);
        }
        if self.shows_form(cx) && cx.world.features.is_none() {
            let what = "Do features make the model speak of what they stand for?";
            return draw_empty(
                buf,
                cx,
                &no_features_lines(cx, what, "It is asked of the features, once they stay."),
            );
        }
        if self.shows_form(cx) {
            return self
                .form
                .view(self.saved.as_deref().unwrap_or_default(), cx, buf);
        }
        if !self.has_table() && self.opening.is_some() {
            let asks = format!("{} asks for another one.", cx.key(Action::Edit));
            let what = "Opening what this study keeps…".to_owned();
            return draw_empty(buf, cx, &[what, asks]);
        }
        if !self.has_table() {
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
        table::draw(self, cx, buf);
    }
}
