//! The dialog that is open: opening it, what it may look at, and where its answers go.

use ratatui::layout::Rect;

use super::{App, Effect};
use crate::ui::dialog::{Answer, Dialog, DialogCx};

impl App {
    /// Opens a dialog, in place of the one that is open.
    pub(super) fn open_dialog(&mut self, dialog: impl Dialog + 'static) {
        self.dialog = Some(Box::new(dialog));
    }

    /// Runs `f` on what the dialogs may look at.
    pub(crate) fn with_dialog_cx<R>(&self, f: impl FnOnce(&DialogCx) -> R) -> R {
        f(&DialogCx {
            world: &self.world,
            theme: &self.theme,
            keymap: &self.keymap,
            screen: self.dialog_screen(),
            refusal: &|action| self.refusal(action),
            unsaved_notes: self.unsaved_notes(),
        })
    }

    /// Runs `f` on the dialog that is open, with what it may look at.
    pub(super) fn with_dialog<R>(
        &mut self,
        f: impl FnOnce(&mut dyn Dialog, &DialogCx) -> R,
    ) -> Option<R> {
        // Taken out for the time being, for the rest of the app is lent to it.
        let mut dialog = self.dialog.take()?;
        let result = self.with_dialog_cx(|cx| f(dialog.as_mut(), cx));
        self.dialog = Some(dialog);
        Some(result)
    }

    /// The cells of the dialog that is open.
    #[cfg(test)]
    pub(crate) fn dialog_area(&self) -> Option<Rect> {
        let dialog = self.dialog.as_ref()?;
        Some(self.with_dialog_cx(|cx| dialog.area(cx)))
    }

    /// Where dialogs are drawn: over all but the footer.
    fn dialog_screen(&self) -> Rect {
        let (width, height) = self.size;
        Rect::new(
            0,
            0,
            width,
            height.saturating_sub(self.layout().footer.height),
        )
    }

    /// Does what the open dialog answered.
    pub(super) fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        if answer != Answer::Stay {
            self.dialog = None;
        }
        match answer {
            Answer::Stay | Answer::Close => Vec::new(),
            Answer::Do(action) => self.perform(action),
            Answer::Send(command) => {
                let request = self.requests.request(*command);
                self.with(self.focus, |pane, _| pane.request_sent(&request));
                vec![Effect::Send(request)]
            }
            Answer::Save(note) => self.save_note(note),
            Answer::Copy(text, what) => vec![Effect::Copy(text, what)],
            Answer::Quit => self.close(),
        }
    }
}
