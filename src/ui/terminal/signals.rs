//! What comes from outside: signals, and the end of the terminal itself. Owns the threads that
//! listen, stopping for a shell and going on, and the last resort when the explorer cannot hear;
//! knows no pane and no engine.
//!
//! Invariant: a signal that ends the program ends it, whatever its threads are doing, and no thread
//! reads a terminal that is gone: crossterm would spin on it for ever.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getsid, kill_current_process_group};
use rustix::stdio::{dup2_stdin, stdin};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

/// How long a signal may wait to be acknowledged before the last resort is taken.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(3);

/// How long a program that a shell continues may take to become the terminal's foreground.
const FOREGROUND: Duration = Duration::from_millis(300);

/// What happened outside the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// A signal that ends the program; the terminal's own end counts as SIGHUP.
    End(i32),
    /// Somebody asks it to stop, as ctrl-z does.
    Stop,
    /// It was stopped and goes on.
    Continued,
}

/// Listens to signals and to the terminal's end; what it hears arrives as notices.
pub(super) struct SignalListener {
    pub notices: Receiver<Notice>,
    acknowledged: Arc<AtomicBool>,
}

impl SignalListener {
    /// Begins to listen. `unacknowledged` is called with a signal that was not received for a while,
    /// when the thread that should is held by a terminal that takes nothing; it must end the process.
    ///
    /// # Errors
    /// What the system says where it allows no thread or no signal handler.
    pub fn listen(unacknowledged: impl FnOnce(i32) + Send + 'static) -> io::Result<Self> {
        let (to, notices) = unbounded();
        let acknowledged = Arc::new(AtomicBool::new(false));
        let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGCONT])?;
        let gone = to.clone();
        thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || watch_terminal(&gone))?;
        let (waits, mut unacknowledged) = (acknowledged.clone(), Some(unacknowledged));
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let notice = match signal {
                        SIGTSTP => Notice::Stop,
                        SIGCONT => Notice::Continued,
                        _ => Notice::End(signal),
                    };
                    // Nobody listens when the program ends anyway.
                    let _ = to.send(notice);
                    let Notice::End(signal) = notice else {
                        continue;
                    };
                    if let Some(unacknowledged) = unacknowledged.take() {
                        let acknowledged = waits.clone();
                        let resort = move || {
                            thread::sleep(ACKNOWLEDGE_WITHIN);
                            if !acknowledged.load(Ordering::SeqCst) {
                                unacknowledged(signal);
                            }
                        };
                        // Without a thread for it, the next signal of the kind that cannot be
                        // caught is left.
                        let _ = thread::Builder::new()
                            .name("last resort".to_owned())
                            .spawn(resort);
                    }
                }
            })?;
        Ok(Self {
            notices,
            acknowledged,
        })
    }

    /// Says that a signal was taken in.
    pub fn acknowledged(&self) {
        self.acknowledged.store(true, Ordering::SeqCst);
    }

    /// Stops the process group, as the terminal's own ctrl-z would: a script that waits for this
    /// program stops with it, and one `fg` continues both. Returns in the foreground, or with what
    /// ends the program.
    pub fn stop(&self) -> Option<i32> {
        loop {
            // Ours arrives as a notice of its own, which must not be taken for another.
            let _ = kill_current_process_group(Signal::TSTP);
            if let Some(end) = self.wait_for(Notice::Stop) {
                return Some(end);
            }
            // Here it stops, until SIGCONT.
            let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
            if let Some(end) = self.wait_for(Notice::Continued) {
                return Some(end);
            }
            for _ in 0..10 {
                if in_foreground() {
                    return None;
                }
                if let Ok(Notice::End(signal)) = self.notices.recv_timeout(FOREGROUND / 10) {
                    return Some(signal);
                }
            }
            // Continued in the background, where nothing can be drawn or typed.
        }
    }

    fn wait_for(&self, wanted: Notice) -> Option<i32> {
        loop {
            match self.notices.recv_timeout(Duration::from_secs(1)) {
                Ok(Notice::End(signal)) => return Some(signal),
                Ok(notice) if notice == wanted => return None,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Whether a shell in this terminal could continue the process once it is stopped. A shell with job
/// control gives each job a process group of its own. The group of the session's leader, as under
/// `ssh -t host mlpeek`, `xterm -e` or a container, has nobody to continue it: POSIX calls it
/// orphaned and lets it ignore ctrl-z, while a stop that we force would last for ever.
pub(super) fn can_be_continued() -> bool {
    getsid(None).map_or(true, |session| session != getpgrp())
}

/// Whether the terminal's input is ours; where that cannot be told, it is.
pub(super) fn in_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == getpgrp())
}

/// Waits until the terminal hangs up, then says so. crossterm takes the end of input for an empty
/// read and reads again at once, for ever: from then on its file is a pipe on which nothing ever
/// comes.
fn watch_terminal(to: &Sender<Notice>) {
    loop {
        let input = stdin();
        let mut fds = [PollFd::new(&input, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) => break,
            // Not a file that can be watched.
            Ok(_) => return,
        }
    }
    if let Ok((silent, writer)) = io::pipe() {
        let _ = dup2_stdin(&silent);
        // Closed, it would be another end of input.
        std::mem::forget(writer);
    }
    let _ = to.send(Notice::End(SIGHUP));
}
