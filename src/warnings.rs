//! Passes the library's `tracing` warnings to a function that shows them to a person, one line
//! each.
//!
//! Knows no terminal and no log file. Invariant: the same line is shown once in a process, however
//! often a file is read.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::text;

/// Gives every further warning and error of this crate to `show`. Only the first call in a process
/// has an effect.
pub fn install(show: impl Fn(&str) + Send + Sync + 'static) {
    let warnings = Warnings {
        show,
        shown: Mutex::default(),
    };
    // A program that embeds the library may have installed a subscriber already.
    let _ = tracing::subscriber::set_global_default(warnings);
}

struct Warnings<F> {
    show: F,
    shown: Mutex<HashSet<String>>,
}

impl<F: Fn(&str) + Send + Sync + 'static> Subscriber for Warnings<F> {
    /// Warnings of other crates name nothing that a user could act on.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
        ours && metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let line = text::clean(line.finish().trim());
        if self
            .shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(line.clone())
        {
            (self.show)(&line);
        }
    }

    // Spans are ignored: a warning is understood without them.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Formats an event as "message (name value, name value)".
#[derive(Default)]
struct Line {
    message: String,
    values: Vec<String>,
}

impl Line {
    fn finish(self) -> String {
        if self.values.is_empty() {
            self.message
        } else {
            format!("{} ({})", self.message, self.values.join(", "))
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.values.push(format!("{} {value:?}", field.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_warning_is_one_line_told_once() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let show = move |line: &str| kept.lock().unwrap().push(line.to_owned());
        tracing::subscriber::with_default(
            Warnings {
                show,
                shown: Mutex::default(),
            },
            || {
                for _ in 0..2 {
                    tracing::warn!(rows = 3, "a file\nis short");
                }
                tracing::error!("worse");
                tracing::info!("of no concern");
                tracing::warn!(target: "another_crate", "not ours");
                tracing::info_span!("work").in_scope(|| tracing::warn!("inside"));
            },
        );
        assert_eq!(
            *seen.lock().unwrap(),
            ["a file⏎is short (rows 3)", "worse", "inside"]
        );
    }
}
