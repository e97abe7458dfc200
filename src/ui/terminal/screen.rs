//! The terminal taken over and given back: raw mode, the alternate screen, the modes of mouse and
//! paste, standard error, and the bytes of each frame.
//!
//! Invariant: however the UI thread ends, all of that is undone exactly once. Nothing is asked of
//! the terminal: its answer would come through the input, which another thread reads.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam_channel::Sender;
use crossterm::cursor::{Hide, SetCursorStyle, Show};
use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::stdout;

use super::paint::Painter;
use crate::panics;
use crate::ui::app::App;
use crate::ui::view::view;

/// How long giving back waits for a terminal that takes no output.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(2);

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The real standard error, while ours leads into the log.
static STDERR: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Standard output without a buffer. Another program may have made the terminal, which it shares,
/// refuse to wait: then we wait ourselves.
pub(super) struct Tty;

impl Write for Tty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(stdout(), bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => _ = takes_output(Duration::from_millis(100)),
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the terminal takes output within `time`.
fn takes_output(time: Duration) -> bool {
    let output = stdout();
    let mut fds = [PollFd::new(&output, PollFlags::OUT)];
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
}

/// Takes the terminal over; gives it back when dropped.
pub(super) struct Screen {
    painter: Painter,
    mouse: bool,
    stderr: Sender<String>,
}

impl Screen {
    /// Takes the terminal over. Lines of standard error go to `stderr` while it is ours.
    ///
    /// # Errors
    /// What the terminal or the system refuses.
    pub fn open(stderr: Sender<String>) -> anyhow::Result<Self> {
        // crossterm 0.29 under NO_COLOR writes resets that wipe bold and reverse; the theme strips
        // colours itself.
        crossterm::style::force_color_output(true);
        restore_before_panics();
        let screen = Self {
            painter: Painter::default(),
            mouse: false,
            stderr,
        };
        screen.enter().context("cannot take over the terminal")?;
        Ok(screen)
    }

    fn enter(&self) -> io::Result<()> {
        ACTIVE.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        // Without wrapping, a character that is wider than we think cannot push the last line up.
        execute!(
            Tty,
            EnterAlternateScreen,
            DisableLineWrap,
            Hide,
            EnableBracketedPaste
        )?;
        report_mouse(self.mouse)?;
        capture_stderr(self.stderr.clone())
    }

    /// Takes it over again after [`restore_terminal`], or where a shell may have changed its modes, and
    /// draws it afresh.
    ///
    /// # Errors
    /// What the terminal or the system refuses.
    pub fn enter_again(&mut self) -> io::Result<()> {
        // crossterm believes what it did itself; a shell may have undone it.
        disable_raw_mode()?;
        release_stderr();
        self.painter.invalidate();
        self.enter()
    }

    /// Draws everything afresh with the next frame.
    pub fn invalidate(&mut self) {
        self.painter.invalidate();
    }

    /// Reports of presses and of the wheel.
    ///
    /// # Errors
    /// What the terminal refuses.
    pub fn set_mouse(&mut self, on: bool) -> io::Result<()> {
        self.mouse = on;
        report_mouse(on)
    }

    /// Draws the app's screen, where it differs from what is on the terminal.
    ///
    /// # Errors
    /// What the terminal refuses: as a rule it is gone.
    pub fn draw(&mut self, app: &App) -> io::Result<()> {
        let (width, height) = app.size();
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        view(app, &mut buffer);
        let changes = self.painter.paint(buffer)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut frame = Vec::with_capacity(changes.len() + 16);
        queue!(frame, BeginSynchronizedUpdate)?;
        frame.extend(changes);
        queue!(frame, EndSynchronizedUpdate)?;
        Tty.write_all(&frame)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Presses and the wheel alone: reports of every movement would fill an SSH line for nothing.
fn report_mouse(on: bool) -> io::Result<()> {
    if on {
        execute!(Tty, Print("\x1b[?1000h\x1b[?1006h"))
    } else {
        execute!(Tty, DisableMouseCapture)
    }
}

/// Leads standard error into `lines`: C libraries (CUDA's above all) write to it, and would tear
/// the screen.
fn capture_stderr(lines: Sender<String>) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let real = rustix::io::dup(io::stderr())?;
    rustix::stdio::dup2_stderr(&writer)?;
    *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = Some(real);
    thread::Builder::new()
        .name("stderr".to_owned())
        .spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

fn release_stderr() {
    if let Some(real) = STDERR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = rustix::stdio::dup2_stderr(&real);
    }
}

/// Gives the terminal back, once; errors have nowhere to go.
pub(super) fn restore_terminal() {
    if !ACTIVE.swap(false, Ordering::SeqCst) {
        return;
    }
    // One that takes nothing (nobody reads it, or it was held) would keep the program for ever.
    if takes_output(RESTORE_TIMEOUT) {
        let _ = execute!(
            Tty,
            EndSynchronizedUpdate,
            DisableMouseCapture,
            DisableBracketedPaste,
            EnableLineWrap,
            Show,
            SetCursorStyle::DefaultUserShape,
            LeaveAlternateScreen
        );
    }
    let _ = disable_raw_mode();
    release_stderr();
}

/// Gives the terminal back before the UI thread's panic is told; other threads' panics are the
/// engine's affair, and go to the log.
fn restore_before_panics() {
    let ui = thread::current().id();
    panics::set_listener(move |words| {
        if thread::current().id() == ui {
            restore_terminal();
        } else if ACTIVE.load(Ordering::SeqCst) {
            tracing::error!("{words}");
        }
    });
}
