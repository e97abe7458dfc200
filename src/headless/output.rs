//! Standard output as JSON lines or text, standard error for progress; signals to cancellation.
//!
//! Knows nothing of what is said. Invariant: whatever a command hands over, no control character,
//! escape sequence or character that reorders a line reaches a terminal, and nothing but
//! [`Output::line`] ends a line: labels, names, prompts and generated texts are other people's. It
//! holds here, at the one way out, so that no command can forget it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::amounts::{bytes, count, duration};
use crate::engine::Meter;
use crate::error::{Error, Result};
use crate::task::{CancelToken, Progress, TaskCtx};
use crate::{text, warnings};

/// A line of progress at most this often where standard error is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The newest task's progress, which remarks are written over.
type Newest = Mutex<Weak<Mutex<Screen>>>;

/// Where a command writes.
pub struct Output {
    json: bool,
    out: Box<dyn Write>,
    cancel: CancelToken,
    screen: Arc<Newest>,
}

impl Output {
    /// JSON lines or text on standard output. SIGINT and SIGTERM set the returned output's cancel
    /// flag; a second one ends the process at once. The library's warnings become remarks.
    ///
    /// # Errors
    /// Signals that cannot be listened to.
    pub fn stdout(json: bool) -> Result<Self> {
        let cancel = CancelToken::default();
        listen(&cancel).map_err(Error::io("listen to signals of", "this process"))?;
        let screen = Arc::<Newest>::default();
        let over = screen.clone();
        warnings::install(move |line| remark(&over, &format!("warning: {line}")));
        Ok(Self {
            json,
            out: Box::new(io::stdout()),
            cancel,
            screen,
        })
    }

    /// Whether JSON lines were asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// JSON lines from here on, for a command that has another option than `--json` to ask for them.
    pub fn ask_json(&mut self) {
        self.json = true;
    }

    /// One JSON object on a line of its own, at once.
    ///
    /// # Errors
    /// Standard output that cannot be written to.
    pub fn object(&mut self, value: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(value)
            .map_err(|e| Error::refused(format!("cannot write JSON: {e}")))?;
        self.write(&(text::escape_json(&line) + "\n"))
    }

    /// A line for a person. What a terminal would act on, and a line end inside it, is shown as a
    /// mark, also in a pipe: what comes out of `head` or `tee` is on a terminal too. `--json` gives
    /// the exact texts.
    ///
    /// # Errors
    /// Standard output that cannot be written to.
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.write(&(text::clean(line) + "\n"))
    }

    /// Lines in a format of their own, such as SVG or a shell's completions: exact in a file or a
    /// pipe, made safe on a terminal.
    ///
    /// # Errors
    /// Standard output that cannot be written to.
    pub fn document(&mut self, document: &str) -> Result<()> {
        if !io::stdout().is_terminal() {
            return self.write(document);
        }
        self.write(&on_terminal(document))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(Error::io("write to", "standard output"))
    }

    /// A remark for a person, on standard error.
    pub fn note(&self, note: &str) {
        remark(&self.screen, note);
    }

    /// A context that shows progress on standard error and stops at a signal.
    pub fn task(&self) -> TaskCtx {
        let screen = Arc::new(Mutex::new(Screen::new()));
        *self.screen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&screen);
        TaskCtx::new(self.cancel.clone(), move |progress| {
            screen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .show(&progress);
        })
    }
}

/// A document with its own line ends and tabs and nothing else that a terminal would act on.
fn on_terminal(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for piece in document.split_inclusive(['\n', '\t']) {
        let body = piece.trim_end_matches(['\n', '\t']);
        out.push_str(&text::clean(body));
        out.push_str(&piece[body.len()..]);
    }
    out
}

fn remark(screen: &Newest, words: &str) {
    let line = format!("mlpeek: {}", text::clean(words));
    let screen = screen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .upgrade();
    let screen = screen
        .as_ref()
        .map(|s| s.lock().unwrap_or_else(PoisonError::into_inner));
    match screen.as_ref().and_then(|s| s.bar.as_ref()) {
        Some(bar) => bar.println(line),
        // Nobody may be reading: a remark is not worth failing for.
        None => _ = writeln!(io::stderr(), "{line}"),
    }
}

fn listen(cancel: &CancelToken) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let cancel = cancel.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if cancel.is_cancelled() {
                    std::process::exit(130);
                }
                cancel.cancel();
            }
        })?;
    Ok(())
}

/// Progress on standard error: a bar on a terminal, a line now and then elsewhere.
struct Screen {
    bar: Option<ProgressBar>,
    stage: String,
    meter: Meter,
    last_line: Option<Instant>,
}

impl Screen {
    fn new() -> Self {
        Self {
            bar: None,
            stage: String::new(),
            meter: Meter::default(),
            last_line: None,
        }
    }

    fn show(&mut self, progress: &Progress) {
        let Some((rate, eta)) = self.meter.measure(progress) else {
            return;
        };
        let is_share = progress.unit == "%";
        let words = format!(
            "{}{}",
            rate.filter(|_| !is_share)
                .map_or(String::new(), |r| amount(r, &progress.unit) + "/s"),
            eta.map_or(String::new(), |s| format!(", {} to go", duration(s)))
        );
        if io::stderr().is_terminal() {
            let bar = self.bar_for(progress);
            bar.set_position(progress.done);
            bar.set_message(words);
            if progress.total.is_some_and(|t| progress.done >= t) {
                bar.finish_and_clear();
                self.bar = None;
            }
        } else if self.last_line.is_none_or(|t| t.elapsed() >= PLAIN_EVERY) {
            self.last_line = Some(Instant::now());
            let _ = writeln!(
                io::stderr(),
                "{}: {} {words}",
                text::clean(&progress.stage),
                done_of(progress)
            );
        }
    }

    fn bar_for(&mut self, progress: &Progress) -> &ProgressBar {
        if self.stage != progress.stage {
            self.stage.clone_from(&progress.stage);
            if let Some(old) = self.bar.take() {
                old.finish_and_clear();
            }
        }
        self.bar.get_or_insert_with(|| {
            let bar = progress
                .total
                .map_or_else(ProgressBar::no_length, ProgressBar::new);
            // The template is a constant: a wrong one would leave indicatif's own, which is
            // readable too.
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3} %  {msg}")
            {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_prefix(text::clean(&progress.stage));
            bar
        })
    }
}

/// "12.3 MB" for bytes, "1,234 tokens" for all else.
pub fn amount(value: f64, unit: &str) -> String {
    if unit == "bytes" {
        return bytes(value.max(0.0) as u64);
    }
    if value < 10.0 && value.fract() != 0.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{} {unit}", thousands(value as u64))
    }
}

/// "1 of 90 features": the unit once.
fn done_of(progress: &Progress) -> String {
    let (done, unit) = (progress.done as f64, &progress.unit);
    match progress.total.filter(|_| unit != "%") {
        Some(total) if unit == "bytes" => {
            format!("{} of {}", amount(done, unit), amount(total as f64, unit))
        }
        Some(total) => format!(
            "{} of {}",
            thousands(progress.done),
            amount(total as f64, unit)
        ),
        None => amount(done, unit),
    }
}

/// A whole number with thousands set apart, as in "12,345".
pub fn thousands(value: u64) -> String {
    count(value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_get_their_unit() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(12), "12");
        assert_eq!(amount(98_362_432.0, "bytes"), "98.4 MB");
        assert_eq!(amount(2.5, "sweeps"), "2.5 sweeps");
        let of = |unit, total| done_of(&Progress::new("reading", 1, total, unit));
        assert_eq!(of("features", Some(90)), "1 of 90 features");
        assert_eq!(of("%", Some(100)), "1 %");
        assert_eq!(of("tokens", None), "1 tokens");
    }

    #[test]
    fn a_document_keeps_its_layout_and_loses_what_a_terminal_obeys() {
        assert_eq!(
            on_terminal("a\tb\n\u{1b}[2Jc\r\nd\u{202e}"),
            "a\tb\n‹U+001B›[2Jc⏎\nd‹U+202E›"
        );
        assert_eq!(on_terminal(""), "");
    }
}
