//! Short messages over the panes, and how long they stand.

use std::time::Duration;

use super::App;
use crate::engine::Level;

/// A message stays this long at least, however fast one types on.
const MIN_SHOWN: Duration = Duration::from_secs(1);

/// A short message over the panes.
#[derive(Debug, Clone)]
pub struct Toast {
    /// How grave it is.
    pub level: Level,
    /// The message, for a person.
    pub text: String,
    /// When it appeared, since the start.
    pub since: Duration,
    /// When it disappears, since the start.
    pub until: Duration,
}

impl App {
    /// Shows a toast and adds a log line.
    pub(crate) fn notify(&mut self, level: Level, text: String) {
        self.world.add_log_line(level, text.clone());
        self.toast(level, text);
    }

    pub(super) fn toast(&mut self, level: Level, text: String) {
        let life = match level {
            Level::Info => 4,
            Level::Warn => 7,
            Level::Error => 15,
        };
        self.toasts.retain(|t| t.text != text);
        if self.toasts.len() == 3 {
            self.toasts.remove(0);
        }
        let since = self.world.now;
        self.toasts.push(Toast {
            level,
            text,
            since,
            until: since + Duration::from_secs(life),
        });
    }

    /// A key was pressed: what was read no longer stands over the panes. Errors stay.
    pub(super) fn clear_toasts(&mut self) {
        let now = self.world.now;
        self.toasts
            .retain(|t| t.level == Level::Error || now < t.since + MIN_SHOWN);
    }
}
