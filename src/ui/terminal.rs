//! The explorer's loop between the terminal, the engine and the app. All I/O of the explorer is in
//! this room.
//!
//! | file | owns |
//! | --- | --- |
//! | `screen` | the terminal's modes, taken over and given back |
//! | `paint` | buffers of cells as bytes |
//! | `signals` | what comes from outside: signals, and the end of the terminal |
//!
//! Invariant: whatever the terminal refuses, the engine is told to save and is waited for.

mod paint;
mod screen;
mod signals;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use crossterm::event::{self, Event as TermEvent};
use crossterm::terminal::{disable_raw_mode, size};
use signal_hook::consts::SIGHUP;

use self::screen::{Screen, Tty, restore_terminal};
use self::signals::{Notice, SignalListener, can_be_continued, in_foreground};
use super::app::{App, Effect, Msg};
use super::clipboard;
use crate::engine::{Reply, Request};

/// Least time between frames on a local terminal, and over SSH.
const FRAME: Duration = Duration::from_millis(16);
const FRAME_SSH: Duration = Duration::from_millis(33);

/// How long quitting waits for the engine to save.
const SAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the terminal on a thread of its own.
fn read_input(to: Sender<TermEvent>) -> io::Result<()> {
    let read = move || {
        // Ends with the process, or when nobody listens.
        while let Ok(event) = event::read() {
            if to.send(event).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map(drop)
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

/// Saves and ends the process while the UI thread is held by a terminal that takes nothing.
fn end_unacknowledged(requests: &Sender<Request>, replies: &Receiver<Reply>, signal: i32) {
    // A closed channel is an engine that has ended.
    let _ = requests.send(Request::shutdown());
    let until = Instant::now() + SAVE_TIMEOUT;
    while replies.recv_deadline(until).is_ok() {}
    let _ = disable_raw_mode();
    signal_hook::low_level::exit(i32::from(exit_code(signal)));
}

/// What a shell reports of a program that a signal ended.
fn exit_code(signal: i32) -> u8 {
    128 + signal as u8
}

/// The state of the loop between terminal, engine and app.
struct Loop<'a> {
    app: App,
    screen: Screen,
    signals: SignalListener,
    requests: &'a Sender<Request>,
    start: Instant,
    drawn: Option<Instant>,
    /// Least time between frames here.
    floor: Duration,
    /// The same, stretched on a line that cannot keep up.
    frame: Duration,
    /// The signal that ends the program: nothing is drawn any more, and only the engine is waited
    /// for.
    ended: Option<i32>,
    done: bool,
}

impl Loop<'_> {
    /// Gives the app a message with the time before it, and carries out what it wants done.
    fn handle(&mut self, msg: Msg) {
        let mut effects = self.app.update(Msg::Tick(self.start.elapsed()));
        effects.extend(self.app.update(msg));
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // A closed channel shows as the engine's end.
                Effect::Send(request) => drop(self.requests.send(request)),
                Effect::Copy(text, what) => {
                    let how = clipboard::copy(&mut Tty, &text, &what);
                    self.app.update(Msg::Outcome(how));
                }
                Effect::Mouse(on) => {
                    let result = self.screen.set_mouse(on);
                    self.or_end(result);
                }
                Effect::Redraw => self.screen.invalidate(),
                Effect::Suspend => self.suspend(),
                Effect::Quit => self.done = true,
            }
        }
    }

    /// A terminal that refuses to be written to is gone.
    fn or_end(&mut self, result: io::Result<()>) {
        if result.is_err() {
            self.end(SIGHUP);
        }
    }

    /// Saves and ends; asked for again, ends at once.
    fn end(&mut self, signal: i32) {
        self.signals.acknowledged();
        // The terminal's end comes twice or thrice: as a signal, as a refused write and as seen by
        // the one that watches.
        self.done |= self.ended.is_some_and(|_| signal != SIGHUP);
        if self.ended.is_none() {
            self.ended = Some(signal);
            self.handle(Msg::Terminate);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::End(signal) => self.end(signal),
            _ if self.ended.is_some() => {}
            Notice::Stop => self.suspend(),
            // Somebody stopped us without a word, and a shell has had the terminal since.
            Notice::Continued if in_foreground() => self.enter_again(),
            Notice::Continued => self.suspend(),
        }
    }

    /// To the shell and back, where a shell waits.
    fn suspend(&mut self) {
        if !can_be_continued() {
            let problem = "no shell waits behind the explorer, so it cannot be suspended: q quits";
            self.handle(Msg::Outcome(Err(problem.to_owned())));
            return;
        }
        restore_terminal();
        match self.signals.stop() {
            None => self.enter_again(),
            Some(signal) => self.end(signal),
        }
    }

    fn enter_again(&mut self) {
        let result = self.screen.enter_again();
        self.or_end(result);
        if let (None, Ok((width, height))) = (self.ended, size()) {
            self.handle(Msg::Resize(width, height));
        }
    }

    /// Draws when something changed and the last frame is old enough; else says when to.
    fn draw(&mut self) {
        let early = self.drawn.is_some_and(|at| at.elapsed() < self.frame);
        if self.ended.is_some() || early || !self.app.take_dirty() {
            return;
        }
        let begun = Instant::now();
        let result = self.screen.draw(&self.app);
        self.or_end(result);
        // On a line that cannot keep up, frames give way to keys.
        self.frame = self
            .floor
            .max((begun.elapsed() * 2).min(Duration::from_millis(250)));
        self.drawn = Some(Instant::now());
    }

    fn timeout(&self, dirty: bool) -> Duration {
        let frame = match (dirty, self.drawn) {
            (true, Some(at)) if self.ended.is_none() => self.frame.saturating_sub(at.elapsed()),
            _ => Duration::from_secs(3600),
        };
        let frame = if self.app.is_closing() {
            frame.min(Duration::from_millis(500))
        } else {
            frame
        };
        let wanted = self
            .app
            .deadline()
            .map_or(frame, |at| at.saturating_sub(self.start.elapsed()));
        frame.min(wanted)
    }
}

/// Runs `app` on the terminal until it ends. Returns the exit code: that of a signal, where one
/// ended it.
///
/// # Errors
/// What the terminal or the system refuses at the start.
pub fn run(
    make: impl FnOnce((u16, u16)) -> App,
    requests: &Sender<Request>,
    replies: &Receiver<Reply>,
    debug_panic: bool,
) -> anyhow::Result<u8> {
    let start = Instant::now();
    let (to, from) = (requests.clone(), replies.clone());
    let signals = SignalListener::listen(move |signal| end_unacknowledged(&to, &from, signal))
        .context("cannot listen for signals")?;
    let (stderr_tx, stderr) = unbounded();
    let screen = Screen::open(stderr_tx)?;
    let app = make(size().context("cannot ask the terminal's size")?);
    let ssh = std::env::var_os("SSH_CONNECTION").is_some();
    let floor = if ssh { FRAME_SSH } else { FRAME };
    let mut ui = Loop {
        app,
        screen,
        signals,
        requests,
        start,
        drawn: None,
        floor,
        frame: floor,
        ended: None,
        done: false,
    };
    ui.draw();
    assert!(!debug_panic, "asked to panic after the first frame");
    let mut effects = vec![Effect::Mouse(ui.app.mouse())];
    effects.extend(ui.app.begin());
    ui.carry_out(effects);
    let (input_tx, input) = unbounded();
    read_input(input_tx).context("cannot read the terminal")?;
    run_loop(&mut ui, &input, &stderr, replies);
    Ok(ui.ended.map_or(0, exit_code))
}

fn run_loop(
    ui: &mut Loop,
    input: &Receiver<TermEvent>,
    stderr: &Receiver<String>,
    replies: &Receiver<Reply>,
) {
    let (never, deaf) = (crossbeam_channel::never(), crossbeam_channel::never());
    let (mut replies, mut input) = (replies, input);
    let notices = ui.signals.notices.clone();
    let mut closing_since = None;
    while !ui.done {
        let dirty = ui.app.is_dirty();
        select! {
            recv(notices) -> notice => if let Ok(notice) = notice {
                ui.notice(notice);
            },
            recv(input) -> event => match event {
                Ok(event) => {
                    if let Some(msg) = message(event) {
                        ui.handle(msg);
                    }
                }
                // The terminal is gone.
                Err(_) => {
                    input = &deaf;
                    ui.end(SIGHUP);
                }
            },
            recv(stderr) -> line => if let Ok(line) = line {
                ui.handle(Msg::Stderr(line));
            },
            recv(replies) -> reply => match reply {
                Ok(reply) => ui.handle(Msg::Engine(Box::new(reply))),
                Err(_) => {
                    replies = &never;
                    ui.handle(Msg::EngineGone);
                }
            },
            default(ui.timeout(dirty)) => {
                let effects = ui.app.update(Msg::Tick(ui.start.elapsed()));
                ui.carry_out(effects);
            }
        }
        // What has queued up goes into the same frame, but not without end.
        let until = Instant::now() + ui.frame;
        while Instant::now() < until && !ui.done {
            if let Some(msg) = input.try_recv().ok().and_then(message) {
                ui.handle(msg);
            } else if let Ok(reply) = replies.try_recv() {
                ui.handle(Msg::Engine(Box::new(reply)));
            } else {
                break;
            }
        }
        if ui.app.is_closing() {
            let since = *closing_since.get_or_insert_with(Instant::now);
            ui.done |= since.elapsed() > SAVE_TIMEOUT;
        }
        ui.draw();
    }
}
