//! From keys to actions, and what the actions do that no pane owns.

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{App, Effect};
use crate::engine::{Command, Job, Level, OpenRequest, SteerPart};
use crate::factor::FitConfig;
use crate::study::newest;
use crate::ui::action::Action;
use crate::ui::dialogs::{Answer, Overlay, Question};
use crate::ui::keymap::Key;
use crate::ui::pane::Note;
use crate::ui::pane_id::PaneId;
use crate::ui::world::CutShort;

/// A second cancel key within this quits.
const CANCEL_AGAIN: Duration = Duration::from_secs(3);

impl App {
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let action = self.keymap.action(Key::of(key), self.place);
        if action == Some(Action::Cancel) {
            return self.cancel();
        }
        if self.closing.is_some() {
            return if action == Some(Action::Quit) {
                vec![Effect::Quit]
            } else {
                Vec::new()
            };
        }
        let alt = key.modifiers.contains(KeyModifiers::ALT) && action.is_none();
        if let Some(overlay) = &mut self.overlay {
            if alt {
                return self.esc_then(key);
            }
            let answer = overlay.key(key, &self.world, &self.keymap);
            return self.answer(answer);
        }
        let place = self.place;
        if self.pane(place).is_some_and(super::Pane::typing)
            && let Some(steps) = self.with(place, |pane, cx| pane.key(key, cx)).flatten()
        {
            return self.carry_out(steps);
        }
        if alt {
            return self.esc_then(key);
        }
        // While text is typed, only keys that are no text may be commands.
        if self.pane(place).is_some_and(super::Pane::typing) && !Key::of(key).is_command() {
            return Vec::new();
        }
        action
            .map(|action| self.perform(action))
            .unwrap_or_default()
    }

    /// Esc and a key in quick succession arrive as alt and the key.
    fn esc_then(&mut self, key: KeyEvent) -> Vec<Effect> {
        let mut effects = self.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        effects.extend(self.key(KeyEvent::new(key.code, key.modifiers - KeyModifiers::ALT)));
        effects
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        match answer {
            Answer::Stay => Vec::new(),
            Answer::Close => {
                self.overlay = None;
                Vec::new()
            }
            Answer::Do(action) => {
                self.overlay = None;
                self.perform(action)
            }
            Answer::Send(command) => {
                self.overlay = None;
                let request = self.requests.request(*command);
                self.with(self.place, |pane, _| pane.asked(&request));
                vec![Effect::Send(request)]
            }
            Answer::Note(note) => {
                self.overlay = None;
                self.note(note)
            }
            Answer::Copy(text, what) => {
                self.overlay = None;
                vec![Effect::Copy(text, what)]
            }
            Answer::Quit => self.close(),
        }
    }

    /// Why an action cannot be done now; `None` when it can.
    pub(crate) fn refusal(&self, action: Action) -> Option<String> {
        let world = &self.world;
        let key = |a| self.keymap.key(a);
        let no_feature = || {
            world.selected.is_none().then(|| match world.jobs.last() {
                Some(job) => format!("no features yet: {} goes on", job.job.label()),
                None => format!(
                    "no features yet: {} opens a model or a study",
                    key(Action::Start)
                ),
            })
        };
        let of_a_fit = || {
            let set = world.set()?;
            let back = set
                .fit
                .as_ref()
                .map(|_| format!(": {} goes back to the fit", key(Action::Sets)));
            Some(format!(
                "{} is on show, and this is of a fit's features{}",
                set.kind,
                back.unwrap_or_default()
            ))
        };
        let no_pane = |p: PaneId| {
            self.pane(p)
                .is_none()
                .then(|| format!("this build has no {} pane", p.title()))
        };
        let mine = match action {
            Action::Pause => (!world.fitting()).then(|| "no fit is running".to_owned()),
            Action::Continue => self.nothing_to_continue(),
            Action::ModelPlace => match (&world.study, &world.model) {
                (None, _) => Some("no study is open".to_owned()),
                (Some(study), _) if study.model.is_none() => {
                    Some("this study was imported without a model".to_owned())
                }
                (Some(_), Some(_)) => Some("the study's model is open".to_owned()),
                (Some(_), None) => world
                    .job(Job::Load)
                    .map(|_| "the model is on its way".to_owned()),
            },
            Action::OtherLayer => world.study.is_none().then(|| "no study is open".to_owned()),
            Action::Neurons => no_pane(PaneId::Feature).or_else(no_feature),
            Action::Export | Action::Mark | Action::Labels => no_feature(),
            Action::Rename
            | Action::Undo
            | Action::ExportNotes
            | Action::ImportNotes
            | Action::CompareStudy => of_a_fit().or_else(no_feature),
            Action::Sets if world.study.is_none() => Some("no study is open".to_owned()),
            Action::Sets if world.job(Job::Collect).is_some() => {
                Some("collecting goes on: directions are read on all rows".to_owned())
            }
            Action::Sets => world
                .fitting()
                .then(|| "a fit is running: its features are what is shown".to_owned()),
            Action::Compare if self.place == PaneId::Compare => Some("they are on show".to_owned()),
            Action::Compare => match world.marked.len() {
                0 | 1 => Some(format!(
                    "mark two features or more with {} first",
                    key(Action::Mark)
                )),
                2..=8 => None,
                n => Some(format!("{n} are marked; at most 8 fit side by side")),
            },
            Action::SteerWith | Action::SuppressWith => no_pane(PaneId::Steer).or_else(no_feature),
            Action::NextFeature | Action::PreviousFeature => no_feature(),
            Action::Tree => no_pane(PaneId::Tree).or_else(of_a_fit),
            Action::Steer => no_pane(PaneId::Steer),
            Action::Live | Action::Trace => no_pane(PaneId::Live),
            Action::Fit => no_pane(PaneId::Fit),
            _ => None,
        };
        mine.or_else(|| {
            self.pane(self.place)
                .and_then(|pane| pane.refusal(action, &self.cx(self.place)))
        })
    }

    pub(super) fn perform(&mut self, action: Action) -> Vec<Effect> {
        if let Some(reason) = self.refusal(action) {
            self.toast(Level::Warn, reason);
            return Vec::new();
        }
        let place = self.place;
        if let Some(steps) = self.with(place, |pane, cx| pane.act(action, cx)).flatten() {
            return self.carry_out(steps);
        }
        match action {
            Action::Evaluate => self.go_to(PaneId::Evaluate),
            Action::Explore => self.open_tab(PaneId::Features),
            Action::Tree => self.open_tab(PaneId::Tree),
            Action::Steer => self.open_tab(PaneId::Steer),
            Action::Live => self.open_tab(PaneId::Live),
            Action::Fit => self.open_tab(PaneId::Fit),
            Action::Start => self.open_tab(PaneId::Start),
            Action::Back => self.back(),
            Action::NextPane => self.neighbour(true, true),
            Action::PreviousPane => self.neighbour(false, true),
            Action::Left => self.neighbour(false, false),
            Action::Right => self.neighbour(true, false),
            Action::Zoom => {
                self.zoom = !self.zoom;
                self.after_select()
            }
            Action::Digits => {
                self.world.digits = !self.world.digits;
                Vec::new()
            }
            Action::Pause => {
                let command = if self.world.paused {
                    Command::Resume
                } else {
                    Command::Pause
                };
                vec![self.send(command)]
            }
            Action::Continue => match self.world.cut_short() {
                Some(CutShort::Collecting(_)) => vec![self.send(Command::Collect)],
                Some(CutShort::Fit(fit)) => {
                    let command = Command::GoOn(fit.name.clone());
                    vec![self.send(command)]
                }
                Some(CutShort::Importing(_)) | None => Vec::new(),
            },
            Action::ModelPlace => {
                self.ask_model_place();
                Vec::new()
            }
            Action::Help => self.show(Overlay::help(place)),
            Action::Palette => self.show(Overlay::palette(place)),
            Action::Log => self.show(Overlay::log()),
            Action::Sets => self.show(Overlay::sets(&self.world)),
            Action::Train => self.show(Overlay::train(&self.world)),
            Action::SweepK => self.show(Overlay::sweep(&self.world)),
            Action::Mouse => {
                self.mouse = !self.mouse;
                let state = if self.mouse {
                    "mouse on"
                } else {
                    "mouse off: the terminal selects text"
                };
                self.toast(Level::Info, state.to_owned());
                vec![Effect::Mouse(self.mouse)]
            }
            Action::Redraw => vec![Effect::Redraw],
            Action::Suspend => vec![Effect::Suspend],
            Action::Quit => self.quit(),
            Action::OtherLayer => self.other_layer(),
            Action::ExportNotes => {
                let path = self.notes_file();
                vec![self.send(Command::ExportNotes(path))]
            }
            Action::ImportNotes => {
                let file = self.notes_file().display().to_string();
                self.show(Overlay::ask(Question::Notes, &file))
            }
            Action::CompareStudy => {
                let fit = self.world.fit_name().unwrap_or_default().to_owned();
                let other = self.other_study().unwrap_or_default();
                self.show(Overlay::ask(Question::Study(fit), &other))
            }
            Action::Filter => {
                let mut effects = self.go_to(PaneId::Features);
                let steps = self
                    .with(PaneId::Features, |pane, cx| pane.act(action, cx))
                    .flatten();
                effects.extend(steps.map(|s| self.carry_out(s)).unwrap_or_default());
                effects
            }
            _ => self.on_feature(action),
        }
    }

    fn nothing_to_continue(&self) -> Option<String> {
        let running = [Job::Load, Job::Collect, Job::Fit]
            .into_iter()
            .find(|job| self.world.job(*job).is_some());
        match (running, self.world.cut_short()) {
            (Some(job), _) => Some(format!("{} goes on already", job.label())),
            (None, None) => Some("nothing here was cut short".to_owned()),
            (None, Some(cut @ CutShort::Importing(_))) => {
                Some(format!("this study is {cut}: {}", cut.remedy("")))
            }
            (None, Some(_)) => {
                let why = self
                    .world
                    .study
                    .as_ref()
                    .and_then(|study| study.read_only.as_ref())?;
                Some(format!("this study is open for reading alone: {why}"))
            }
        }
    }

    /// A line for the place of the study's model.
    pub(super) fn ask_model_place(&mut self) {
        let Some(study) = &self.world.study else {
            return;
        };
        let why = self.world.no_model.clone().unwrap_or_default();
        let now = study.model.clone().unwrap_or_default();
        self.overlay = Some(Overlay::ask(Question::Model(why), &now));
    }

    fn show(&mut self, overlay: Overlay) -> Vec<Effect> {
        self.overlay = Some(overlay);
        Vec::new()
    }

    /// Actions on the selected feature, from any reading pane.
    fn on_feature(&mut self, action: Action) -> Vec<Effect> {
        let Some(id) = self.world.selected else {
            return Vec::new();
        };
        match action {
            Action::NextFeature | Action::PreviousFeature => {
                let steps = self
                    .with(PaneId::Features, |pane, cx| pane.act(action, cx))
                    .flatten();
                steps.map(|s| self.carry_out(s)).unwrap_or_default()
            }
            Action::Neurons => {
                let mut effects = self.go_to(PaneId::Feature);
                if let Some(steps) = self
                    .with(PaneId::Feature, |pane, cx| pane.act(action, cx))
                    .flatten()
                {
                    effects.extend(self.carry_out(steps));
                }
                effects
            }
            Action::SteerWith | Action::SuppressWith => self.tell(
                PaneId::Steer,
                &Note::Steer {
                    features: vec![(id, 1.0)],
                    part: SteerPart::Whole,
                    negative: action == Action::SuppressWith,
                    replace: false,
                },
            ),
            Action::Mark => {
                match self.world.marked.iter().position(|m| *m == id) {
                    Some(at) => {
                        self.world.marked.remove(at);
                    }
                    None => self.world.marked.push(id),
                }
                let steps = self
                    .with(PaneId::Features, |pane, cx| {
                        pane.act(Action::NextFeature, cx)
                    })
                    .flatten();
                let here = self.place == PaneId::Features;
                steps
                    .filter(|_| here)
                    .map(|s| self.carry_out(s))
                    .unwrap_or_default()
            }
            Action::Compare => self.go_to(PaneId::Compare),
            Action::Labels => self.go_to(PaneId::Labels),
            Action::Undo => vec![self.send(Command::UndoNote)],
            Action::Rename => {
                self.ask_name(id);
                Vec::new()
            }
            Action::Export => {
                let Some(study) = &self.world.study else {
                    return Vec::new();
                };
                let what = self
                    .world
                    .set()
                    .map_or_else(|| "feature".to_owned(), |set| set.kind.to_string());
                let path = study
                    .dir
                    .join(format!("{}-{id}.md", what.replace(':', "-")));
                vec![self.send(Command::Export {
                    format: "markdown".to_owned(),
                    path,
                })]
            }
            _ => Vec::new(),
        }
    }

    /// Where the notes of the fit on show are written: `STUDY/notes-k100.json`.
    fn notes_file(&self) -> PathBuf {
        let fit = self
            .world
            .features
            .as_ref()
            .map_or("fit", |list| list.fit.as_str());
        let dir = self
            .world
            .study
            .as_ref()
            .map(|study| study.dir.clone())
            .unwrap_or_default();
        dir.join(format!("notes-{fit}.json"))
    }

    /// The most recent other study of the same hook.
    fn other_study(&self) -> Option<String> {
        let here = self.world.study.as_ref()?;
        let others = self
            .world
            .studies
            .as_ref()?
            .iter()
            .filter(|s| s.dir != here.dir && s.hooks.contains(&here.hook));
        others.map(|s| s.dir.display().to_string()).next()
    }

    /// The Start pane with what is open now, the cursor on the layer.
    fn other_layer(&mut self) -> Vec<Effect> {
        let Some(study) = &self.world.study else {
            return Vec::new();
        };
        let fit = newest(&study.fits, |_| true).or(study.fits.last());
        let fit = fit.map(|f| f.config.clone()).unwrap_or_default();
        // What the width gave is not what a person chose: another model may have another.
        let chosen = fit
            .sparsity
            .filter(|&p| p != FitConfig::default().sparsity_at(study.width));
        let fit = FitConfig {
            sparsity: chosen,
            ..fit
        };
        let corpus = std::path::PathBuf::from(&study.corpus);
        let request = OpenRequest {
            model: study.model.clone(),
            layer: Some(study.hook.layer),
            hook: study.hook.site,
            // A bundled corpus has a name, not a path.
            corpus: (corpus.components().count() > 1 || corpus.extension().is_some())
                .then_some(corpus),
            fit,
            ..OpenRequest::default()
        };
        self.tell(PaneId::Start, &Note::Open(request))
    }

    fn cancel(&mut self) -> Vec<Effect> {
        let now = self.world.now;
        let again = self.cancelled_at.is_some_and(|at| now < at + CANCEL_AGAIN);
        match self.world.cancellable() {
            Some(job) if !again && self.closing.is_none() => {
                self.cancelled_at = Some(now);
                for running in self.world.jobs.iter_mut().filter(|r| r.job == job) {
                    running.cancelling = true;
                }
                let key = self.keymap.key(Action::Cancel);
                self.toast(
                    Level::Info,
                    format!("cancelling {}; {key} again quits", job.label()),
                );
                vec![self.send(Command::Cancel(job))]
            }
            _ if matches!(self.overlay, Some(Overlay::Quit(_))) => self.close(),
            _ if self.unsaved_notes() > 0 && self.closing.is_none() => self.quit(),
            _ => self.close(),
        }
    }

    fn quit(&mut self) -> Vec<Effect> {
        let jobs: Vec<Job> = self
            .world
            .jobs
            .iter()
            .map(|r| r.job)
            .filter(|j| *j != Job::Trace)
            .collect();
        if jobs.is_empty() && self.unsaved_notes() == 0 {
            return self.close();
        }
        self.overlay = Some(Overlay::quit(&jobs));
        Vec::new()
    }
}
