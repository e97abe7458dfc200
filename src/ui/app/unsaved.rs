//! Notes that were typed and are not yet on disk: they stay, are reported and tried again until they
//! are kept.

use std::time::Duration;

use super::{App, Effect};
use crate::analysis::Notes;
use crate::engine::{Command, Level, TypedNote};
use crate::text;
use crate::ui::action::Action;
use crate::ui::dialogs::{Question, QuestionDialog};

/// How often keeping is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// The notes that are not kept yet, one a feature.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    notes: Vec<Typed>,
    retry_at: Option<Duration>,
}

#[derive(Debug)]
struct Typed {
    note: TypedNote,
    /// Why it could not be kept, once that was tried.
    problem: Option<String>,
}

impl Unsaved {
    fn insert(&mut self, note: TypedNote, problem: Option<String>) {
        self.remove_same(&note);
        self.notes.push(Typed { note, problem });
    }

    fn remove_same(&mut self, note: &TypedNote) {
        self.notes.retain(|n| {
            (&n.note.study, &n.note.fit, n.note.id) != (&note.study, &note.fit, note.id)
        });
    }

    /// When it is tried again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.retry_at.filter(|_| !self.notes.is_empty())
    }
}

impl App {
    /// Sends a note to be kept.
    pub(super) fn save_note(&mut self, note: TypedNote) -> Vec<Effect> {
        self.unsaved.insert(note.clone(), None);
        vec![self.send(Command::Note(note))]
    }

    /// How keeping a note went.
    pub(super) fn note_answered(&mut self, note: &TypedNote, problem: Option<&str>) {
        // A newer line for the feature is under way: its own answer counts.
        if !self.unsaved.notes.iter().any(|n| n.note == *note) {
            return;
        }
        match problem {
            None => self.unsaved.remove_same(note),
            Some(why) => {
                let told = self
                    .unsaved
                    .notes
                    .iter()
                    .any(|n| n.note == *note && n.problem.as_deref() == Some(why));
                self.unsaved.insert(note.clone(), Some(why.to_owned()));
                self.unsaved.retry_at = Some(self.world.now + RETRY_AFTER);
                if !told {
                    self.notify(
                        Level::Warn,
                        format!("the note on #{} is not kept yet: {why}", note.id),
                    );
                }
            }
        }
    }

    /// Tries again what is due.
    pub(super) fn retry_notes(&mut self) -> Vec<Effect> {
        if self.unsaved.deadline().is_none_or(|at| at > self.world.now) {
            return Vec::new();
        }
        self.unsaved.retry_at = None;
        self.send_unsaved()
    }

    pub(super) fn send_unsaved(&mut self) -> Vec<Effect> {
        let waiting: Vec<TypedNote> = self.unsaved.notes.iter().map(|n| n.note.clone()).collect();
        waiting
            .into_iter()
            .map(|note| self.send(Command::Note(note)))
            .collect()
    }

    /// The message about notes that are not kept, where there are any that could not be.
    pub(crate) fn unsaved_notice(&self) -> Option<String> {
        let (last, why) = self
            .unsaved
            .notes
            .iter()
            .rev()
            .find_map(|n| Some((&n.note, n.problem.as_deref()?)))?;
        let count = self.unsaved.notes.len();
        let what = if count == 1 {
            "a note is".to_owned()
        } else {
            format!("{count} notes are")
        };
        let key = self.keymap.key(Action::Rename);
        Some(format!(
            "{what} not kept yet and tried again; {key} on #{} shows it: {}",
            last.id,
            text::clean(why)
        ))
    }

    /// Whether any note would be lost by ending now.
    pub(crate) fn unsaved_notes(&self) -> usize {
        self.unsaved.notes.len()
    }

    /// Asks for name and notes, beginning with those that the feature has, or with a line that is
    /// not kept yet. Whose they are is settled here: another study or fit may be on show when the
    /// line is typed.
    pub(super) fn open_name_dialog(&mut self, id: usize) {
        let (Some(study), Some(fit)) = (self.world.study.as_ref(), self.world.fit_name()) else {
            return;
        };
        let mut note = TypedNote {
            study: study.dir.clone(),
            fit: fit.to_owned(),
            id,
            line: String::new(),
        };
        let saved = || {
            self.world
                .row(id)
                .map(|r| Notes::format_line(r.name.as_deref(), &r.note))
                .unwrap_or_default()
        };
        let waits = self
            .unsaved
            .notes
            .iter()
            .map(|n| &n.note)
            .find(|n| (&n.study, &n.fit, n.id) == (&note.study, &note.fit, id));
        note.line = waits.map_or_else(saved, |n| n.line.clone());
        let line = note.line.clone();
        self.open_dialog(QuestionDialog::new(Question::Name(note), &line));
    }
}
