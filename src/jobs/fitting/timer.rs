//! When a running fit saves itself and shows itself: now and then, and never so often that the work
//! beside the sweeps costs much.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// At most this much work is lost to a kill, or five times what a checkpoint takes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
/// The same in seconds, where the user says otherwise.
const CHECKPOINT: &str = "MLPEEK_CHECKPOINT";
/// What is done beside the sweeps waits this many times as long as it took.
const COST: u32 = 5;

/// The time between checkpoints, the user's own or the usual one.
pub(super) fn checkpoint_every() -> Result<Duration> {
    let Ok(text) = std::env::var(CHECKPOINT) else {
        return Ok(CHECKPOINT_EVERY);
    };
    let seconds = text
        .parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| {
        Error::usage(format!(
            "{CHECKPOINT} is '{text}': give seconds between checkpoints, as 10 or 0.5"
        ))
    })
}

/// When something is done again: not before `every`, nor before five times what it took.
pub(super) struct Timer {
    every: Duration,
    next: Instant,
}

impl Timer {
    /// A timer that is due at once, and then every so often.
    pub(super) fn at_once(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now(),
        }
    }

    /// A timer that is first due after `every`.
    pub(super) fn after(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
        }
    }

    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Runs `f` and waits anew, the longer the longer it took.
    pub(super) fn during<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = f();
        self.next = Instant::now() + self.every.max(COST * started.elapsed());
        result
    }
}
