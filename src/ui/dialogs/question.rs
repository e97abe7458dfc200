//! A line that is asked for: a name with notes, a file, a study, the place of a model.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::disk;
use crate::engine::{Command, TypedNote};
use crate::text;
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred, inside};
use crate::ui::draw::put;
use crate::ui::input::LineInput;

/// Lines of a reason for a question at most.
const WHY: usize = 6;
/// Cells of the dialog, its border among them.
const WIDTH: u16 = 68;

/// What a line is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A feature's name and notes, as they are now.
    Name(TypedNote),
    /// A file to take notes from.
    Notes,
    /// Another study, to hold this fit beside.
    Study(String),
    /// Where the study's model lies, with why that is asked.
    Model(String),
}

impl Question {
    fn title(&self) -> String {
        match self {
            Self::Name(note) => format!("Name and notes of feature #{}", note.id),
            Self::Notes => "Names and notes from a file".to_owned(),
            Self::Study(fit) => format!("Compare {} with another study", text::clean(fit)),
            Self::Model(_) => "Where is the study's model?".to_owned(),
        }
    }

    /// The lines below what is typed, for `cells`.
    fn hints(&self, cells: usize) -> Vec<String> {
        let hints = match self {
            Self::Name(_) => [
                "months of the year #time *4 -- fires on years too",
                "a name, #tags, *1 to *5, -- a note; enter keeps, esc leaves",
            ],
            Self::Notes => [
                "a JSON file as export-notes writes it",
                "enter takes it, esc leaves",
            ],
            Self::Study(_) => [
                "STUDY takes its newest fit of this hook, STUDY/fits/NAME one",
                "enter compares, esc leaves",
            ],
            Self::Model(why) => {
                let mut lines = text::wrap(&text::clean(why), cells);
                lines.truncate(WHY);
                lines.push("a directory, a GGUF file or a Hub id: enter opens it,".to_owned());
                lines.push("esc reads on without lens, trace and steering".to_owned());
                return lines;
            }
        };
        hints.map(str::to_owned).to_vec()
    }

    fn answer(&self, line: &str) -> Answer {
        match self {
            Self::Name(note) => Answer::Save(TypedNote {
                line: line.to_owned(),
                ..note.clone()
            }),
            Self::Notes => Answer::Send(Box::new(Command::ImportNotes(disk::expand_home(line)))),
            Self::Study(fit) => Answer::Send(Box::new(Command::CompareStudy(
                fit.clone(),
                disk::expand_home(line),
            ))),
            Self::Model(_) => Answer::Send(Box::new(Command::ModelAt(line.to_owned()))),
        }
    }
}

/// A question and what is typed in answer to it.
#[derive(Debug)]
pub struct QuestionDialog {
    question: Question,
    input: LineInput,
}

impl QuestionDialog {
    /// The line begins as `now`.
    pub fn new(question: Question, now: &str) -> Self {
        Self {
            question,
            input: LineInput::new(now),
        }
    }

    fn hints(&self, cx: &DialogCx) -> Vec<String> {
        let cells = inside(centred(cx.screen, WIDTH, 5)).width;
        self.question.hints(usize::from(cells))
    }
}

impl Dialog for QuestionDialog {
    fn title(&self, _: &DialogCx) -> String {
        self.question.title()
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        centred(cx.screen, WIDTH, 3 + self.hints(cx).len() as u16)
    }

    fn key(&mut self, key: KeyEvent, _: &DialogCx) -> Answer {
        if key.code == KeyCode::Enter {
            return self.question.answer(self.input.text().trim());
        }
        self.input.key(key);
        Answer::Stay
    }

    fn paste(&mut self, text: &str, _: &DialogCx) {
        self.input.paste(text);
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let width = usize::from(inner.width);
        put(buf, inner, 0, &self.input.line(cx.theme, width));
        for (i, hint) in self.hints(cx).iter().enumerate() {
            let line = Line::styled(text::truncate(hint, width), cx.theme.dim());
            put(buf, inner, i + 1, &line);
        }
    }
}
