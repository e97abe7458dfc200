//! A download on a thread of its own, so that the caller can report, cancel and time out.
//!
//! The network library cannot be interrupted: a cancelled or silent worker is abandoned. It unwinds
//! at its next report, and the part that it had fetched stays for a later resumption.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::task::{Progress, TaskCtx};

/// The interval in which the caller checks whether it was cancelled.
const TICK: Duration = Duration::from_millis(100);

/// How long the caller waits for a message of the worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// Before the first message.
    pub(super) first: Duration,
    /// After a message, for the next one.
    pub(super) between: Duration,
}

/// The worker's reports since the caller last took them: the latest of each stage.
type Messages = Arc<Mutex<Vec<Progress>>>;

/// The worker's side: it sends progress, and learns that the caller has gone.
#[derive(Clone)]
pub(super) struct Reporter {
    messages: Messages,
    abandoned: Arc<AtomicBool>,
}

/// The payload of an abandoned worker's unwinding.
struct Abandoned;

impl Reporter {
    /// Sends progress. Unwinds the worker's thread where the caller has gone.
    pub(super) fn report(&mut self, progress: Progress) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match messages.last_mut() {
            Some(last) if last.stage == progress.stage => *last = progress,
            _ => messages.push(progress),
        }
        drop(messages);
        // `resume_unwind` does not call the panic hook, so nothing is printed. The library calls this
        // in the middle of a transfer, which can only be left by unwinding.
        if self.abandoned.load(Ordering::Relaxed) {
            resume_unwind(Box::new(Abandoned));
        }
    }
}

/// Tells the worker that its caller has gone, however the caller goes.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread and waits for it; `peer` is what a silent worker was waiting for.
pub(super) fn run<T: Send + 'static>(
    ctx: &TaskCtx,
    peer: &str,
    timeouts: Timeouts,
    work: impl FnOnce(&mut Reporter) -> Result<T> + Send + 'static,
) -> Result<T> {
    let messages = Messages::default();
    let (done, result) = bounded(1);
    let abandoned = Arc::new(AtomicBool::new(false));
    let _guard = AbandonOnDrop(Arc::clone(&abandoned));
    let mut reporter = Reporter {
        messages: Arc::clone(&messages),
        abandoned,
    };
    let body = move || {
        if let Ok(outcome) = catch_panic(|| work(&mut reporter)) {
            let _ = done.send(outcome);
        }
    };
    let thread = std::thread::Builder::new()
        .name("download".to_owned())
        .spawn(body);
    thread.map_err(|e| Error::refused(format!("no thread for a download: {e}")))?;
    wait(ctx, peer, timeouts, &messages, &result)
}

/// Waits for the result, passing reports on to `ctx`.
fn wait<T>(
    ctx: &TaskCtx,
    peer: &str,
    timeouts: Timeouts,
    messages: &Messages,
    result: &Receiver<Result<T>>,
) -> Result<T> {
    let mut allowed = timeouts.first;
    let mut last_message = Instant::now();
    loop {
        let outcome = result.recv_timeout(TICK);
        let reports = std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner));
        if !reports.is_empty() {
            (last_message, allowed) = (Instant::now(), timeouts.between);
        }
        for progress in reports {
            ctx.checkpoint(progress)?;
        }
        ctx.check()?;
        match outcome {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::refused(format!(
                    "{peer} gave an answer that cannot be understood"
                )));
            }
            Err(RecvTimeoutError::Timeout) if last_message.elapsed() > allowed => {
                return Err(Error::refused(format!(
                    "{peer} was silent for {} s",
                    allowed.as_secs().max(1)
                )));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::CancelToken;

    const PATIENT: Timeouts = Timeouts {
        first: Duration::from_secs(60),
        between: Duration::from_secs(60),
    };

    #[test]
    fn progress_reaches_the_caller_and_the_result_comes_back() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let ctx = TaskCtx::new(CancelToken::default(), move |p| {
            sink.lock().unwrap().push(p.done)
        });
        let result = run(&ctx, "x", PATIENT, |reporter| {
            reporter.report(Progress::new("a", 1, 5, "bytes"));
            reporter.report(Progress::new("b", 3, 5, "bytes"));
            reporter.report(Progress::new("b", 5, 5, "bytes"));
            Ok(7)
        });
        assert_eq!(result.unwrap(), 7);
        assert_eq!(*seen.lock().unwrap(), [1, 5]);
    }

    #[test]
    fn a_cancelled_worker_is_left_and_unwinds() {
        let cancel = CancelToken::default();
        let from_report = cancel.clone();
        let ctx = TaskCtx::new(cancel, move |_| from_report.cancel());
        let (gone, unwound) = bounded::<()>(1);
        let result = run(&ctx, "x", PATIENT, move |reporter| {
            let _gone = gone; // dropped as the worker unwinds
            loop {
                reporter.report(Progress::new("s", 1, None, "bytes"));
                std::thread::sleep(Duration::from_millis(1));
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(
            unwound.recv_timeout(Duration::from_secs(60)),
            Err(RecvTimeoutError::Disconnected)
        );
    }

    #[test]
    fn a_silent_or_panicking_worker_is_an_error() {
        let hasty = Timeouts {
            first: Duration::ZERO,
            between: Duration::ZERO,
        };
        let (_keep, never) = bounded::<()>(1);
        let silent = run(&TaskCtx::silent(), "the Hub", hasty, move |_| {
            let _ = never.recv();
            Ok(())
        });
        assert!(
            silent
                .unwrap_err()
                .to_string()
                .contains("the Hub was silent")
        );
        let broken = run::<()>(&TaskCtx::silent(), "the Hub", PATIENT, |_| {
            resume_unwind(Box::new(1))
        });
        assert!(
            broken
                .unwrap_err()
                .to_string()
                .contains("cannot be understood")
        );
    }
}
