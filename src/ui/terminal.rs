//! The terminal: taken over, given back whatever happens, and the loop between it, the engine and the app. All I/O of
//! the explorer is here.
//!
//! Invariant: however the UI thread ends (return, error, panic, SIGTERM, SIGHUP), raw mode, alternate screen, mouse and
//! paste modes are undone exactly once. A panic on another thread leaves the screen alone.

use std::io::{self, BufRead, BufReader, Stdout, Write};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use crossterm::cursor::{SetCursorStyle, Show};
use crossterm::event::{self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, Event as TermEvent};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use signal_hook::consts::{SIGHUP, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use super::app::{App, Effect, Msg};
use super::clipboard;
use super::view::view;
use crate::engine::{Command, Event};

/// Least time between frames on a local terminal, and over SSH.
const FRAME: Duration = Duration::from_millis(16);
const FRAME_SSH: Duration = Duration::from_millis(33);

/// How long quitting waits for the engine to save.
const LAST_WORDS: Duration = Duration::from_secs(20);

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The real standard error, while ours leads into the log.
static STDERR: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Takes the terminal over; gives it back when dropped.
struct Screen {
    /// Never dropped: its own drop writes to the terminal, and panics when that has hung up.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    mouse: bool,
    stderr: Sender<String>,
}

fn enter(capture: bool) -> io::Result<()> {
    ACTIVE.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if capture { mouse(true) } else { Ok(()) }
}

/// Presses and the wheel alone: reports of every movement would fill an SSH line for nothing.
fn mouse(on: bool) -> io::Result<()> {
    if on {
        execute!(io::stdout(), Print("\x1b[?1000h\x1b[?1006h"))
    } else {
        execute!(io::stdout(), DisableMouseCapture)
    }
}

/// Leads standard error into `lines`: C libraries (CUDA's above all) write to it, and would tear the screen.
fn capture_stderr(lines: Sender<String>) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let real = rustix::io::dup(io::stderr())?;
    rustix::stdio::dup2_stderr(&writer)?;
    *STDERR.lock().unwrap_or_else(PoisonError::into_inner) = Some(real);
    thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn release_stderr() {
    if let Some(real) = STDERR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = rustix::stdio::dup2_stderr(&real);
    }
}

/// Gives the terminal back, once; errors have nowhere to go.
fn restore() {
    if !ACTIVE.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(out, EndSynchronizedUpdate, DisableMouseCapture, DisableBracketedPaste);
    let _ = execute!(out, Show, SetCursorStyle::DefaultUserShape, LeaveAlternateScreen);
    let _ = disable_raw_mode();
    let _ = out.flush();
    release_stderr();
}

/// Restores the terminal before the message of a panic on this thread; other threads' panics are the engine's affair.
fn hook_panics() {
    let ui = thread::current().id();
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().id() == ui {
            restore();
            previous(info);
        } else if ACTIVE.load(Ordering::SeqCst) {
            // The worker's own handler reports it; writing here would tear the screen.
            tracing::error!("{info}");
        } else {
            previous(info);
        }
    }));
}

impl Screen {
    fn open(stderr: Sender<String>) -> anyhow::Result<Self> {
        // crossterm 0.29 under NO_COLOR writes resets that wipe bold and reverse; the theme strips colours itself.
        crossterm::style::force_color_output(true);
        hook_panics();
        enter(false).context("cannot take over the terminal")?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).context("cannot draw on the terminal")?;
        let screen = Self { terminal: ManuallyDrop::new(terminal), mouse: false, stderr };
        capture_stderr(screen.stderr.clone()).context("cannot redirect standard error")?;
        Ok(screen)
    }

    fn draw(&mut self, app: &App) -> io::Result<()> {
        queue!(io::stdout(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| view(app, frame))?;
        execute!(io::stdout(), EndSynchronizedUpdate)
    }

    /// To the shell and back.
    fn suspend(&mut self) -> io::Result<()> {
        restore();
        // Stops here until SIGCONT.
        signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
        enter(self.mouse)?;
        capture_stderr(self.stderr.clone())?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Reads the terminal on a thread of its own.
fn read_input(to: Sender<TermEvent>) {
    thread::spawn(move || {
        // Ends with the process, or when nobody listens.
        while let Ok(event) = event::read() {
            if to.send(event).is_err() {
                return;
            }
        }
    });
}

fn read_signals(to: Sender<i32>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if to.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn message(event: TermEvent) -> Option<Msg> {
    Some(match event {
        TermEvent::Key(key) => Msg::Key(key),
        TermEvent::Mouse(mouse) => Msg::Mouse(mouse),
        TermEvent::Paste(text) => Msg::Paste(text),
        TermEvent::Resize(width, height) => Msg::Resize(width, height),
        TermEvent::FocusGained | TermEvent::FocusLost => return None,
    })
}

/// The loop's state.
struct Loop<'a> {
    app: App,
    screen: Screen,
    commands: &'a Sender<Command>,
    start: Instant,
    drawn: Option<Instant>,
    /// Least time between frames here.
    floor: Duration,
    /// The same, stretched on a line that cannot keep up.
    frame: Duration,
    /// The terminal is gone; only the engine is waited for.
    blind: bool,
    done: bool,
}

impl Loop<'_> {
    fn take(&mut self, msg: Msg) -> anyhow::Result<()> {
        let mut effects = self.app.update(Msg::Tick(self.start.elapsed()));
        effects.extend(self.app.update(msg));
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> anyhow::Result<()> {
        for effect in effects {
            match effect {
                // A closed channel shows as the engine's end.
                Effect::Send(command) => drop(self.commands.send(command)),
                Effect::Copy(text, what) => {
                    let how = clipboard::copy(&mut io::stdout(), &text, &what);
                    self.app.update(Msg::Copied(how));
                }
                Effect::Mouse(on) => {
                    self.screen.mouse = on;
                    mouse(on)?;
                }
                Effect::Redraw => self.screen.terminal.clear()?,
                Effect::Suspend => {
                    self.screen.suspend()?;
                    let size = self.screen.terminal.size()?;
                    self.app.update(Msg::Resize(size.width, size.height));
                }
                Effect::Quit => self.done = true,
            }
        }
        Ok(())
    }

    /// Draws when something changed and the last frame is old enough; else says when to.
    fn draw(&mut self) -> anyhow::Result<()> {
        if self.blind || self.drawn.is_some_and(|at| at.elapsed() < self.frame) || !self.app.take_dirty() {
            return Ok(());
        }
        let begun = Instant::now();
        if self.screen.draw(&self.app).is_err() {
            self.blind = true;
            return self.take(Msg::Terminate);
        }
        // On a line that cannot keep up, frames give way to keys.
        self.frame = self.floor.max((begun.elapsed() * 2).min(Duration::from_millis(250)));
        self.drawn = Some(Instant::now());
        Ok(())
    }

    fn timeout(&self, dirty: bool) -> Duration {
        let frame = match (dirty, self.drawn) {
            (true, Some(at)) if !self.blind => self.frame.saturating_sub(at.elapsed()),
            _ => Duration::from_secs(3600),
        };
        let frame = if self.app.is_closing() { frame.min(Duration::from_millis(500)) } else { frame };
        let wanted = self.app.deadline().map_or(frame, |at| at.saturating_sub(self.start.elapsed()));
        frame.min(wanted)
    }
}

/// Runs `app` on the terminal until it ends.
pub fn run(
    make: impl FnOnce((u16, u16)) -> App,
    commands: &Sender<Command>,
    events: &Receiver<Event>,
    debug_panic: bool,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let (stderr_tx, stderr) = unbounded();
    let screen = Screen::open(stderr_tx)?;
    let size = screen.terminal.size().context("cannot ask the terminal's size")?;
    let app = make((size.width, size.height));
    let ssh = std::env::var_os("SSH_CONNECTION").is_some();
    let floor = if ssh { FRAME_SSH } else { FRAME };
    let mut ui = Loop { app, screen, commands, start, drawn: None, floor, frame: floor, blind: false, done: false };
    ui.draw()?;
    assert!(!debug_panic, "asked to panic after the first frame");
    let mut effects = vec![Effect::Mouse(ui.app.mouse())];
    effects.extend(ui.app.begin());
    ui.carry_out(effects)?;
    let (input_tx, input) = unbounded();
    let (signal_tx, signals) = unbounded();
    read_input(input_tx);
    read_signals(signal_tx).context("cannot listen for signals")?;
    pump(&mut ui, &input, &signals, &stderr, events)
}

fn pump(
    ui: &mut Loop,
    input: &Receiver<TermEvent>,
    signals: &Receiver<i32>,
    stderr: &Receiver<String>,
    events: &Receiver<Event>,
) -> anyhow::Result<()> {
    let (never, deaf) = (crossbeam_channel::never(), crossbeam_channel::never());
    let (mut events, mut input) = (events, input);
    let mut closing_since = None;
    while !ui.done {
        let dirty = ui.app.is_dirty();
        select! {
            recv(input) -> event => match event {
                Ok(event) => {
                    if let Some(msg) = message(event) {
                        ui.take(msg)?;
                    }
                }
                // The terminal is gone.
                Err(_) => {
                    input = &deaf;
                    ui.blind = true;
                    ui.take(Msg::Terminate)?;
                }
            },
            recv(signals) -> signal => if signal.is_ok() {
                ui.take(Msg::Terminate)?;
            },
            recv(stderr) -> line => if let Ok(line) = line {
                ui.take(Msg::Stderr(line))?;
            },
            recv(events) -> event => match event {
                Ok(event) => ui.take(Msg::Engine(Box::new(event)))?,
                Err(_) => {
                    events = &never;
                    ui.take(Msg::EngineGone)?;
                }
            },
            default(ui.timeout(dirty)) => {
                let effects = ui.app.update(Msg::Tick(ui.start.elapsed()));
                ui.carry_out(effects)?;
            }
        }
        // What has queued up goes into the same frame, but not without end.
        let until = Instant::now() + ui.frame;
        while Instant::now() < until && !ui.done {
            if let Some(msg) = input.try_recv().ok().and_then(message) {
                ui.take(msg)?;
            } else if let Ok(event) = events.try_recv() {
                ui.take(Msg::Engine(Box::new(event)))?;
            } else {
                break;
            }
        }
        if ui.app.is_closing() {
            let since = *closing_since.get_or_insert_with(Instant::now);
            ui.done |= since.elapsed() > LAST_WORDS;
        }
        ui.draw()?;
    }
    Ok(())
}
