//! Progress and cancellation of long work: [`TaskCtx::checkpoint`] does both in one call. Knows
//! nothing of the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The progress of a piece of work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The present work, as shown to the user: "downloading model.safetensors", "collecting".
    pub stage: String,
    /// The units that are done.
    pub done: u64,
    /// The units in all, if known.
    pub total: Option<u64>,
    /// The unit: "tokens", "bytes", "sweeps".
    pub unit: String,
}

impl Progress {
    /// `done` of `total` units of `stage`.
    pub fn new(
        stage: impl Into<String>,
        done: u64,
        total: impl Into<Option<u64>>,
        unit: &str,
    ) -> Self {
        Self {
            stage: stage.into(),
            done,
            total: total.into(),
            unit: unit.to_owned(),
        }
    }
}

/// A cancellation flag; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the work to stop at its next checkpoint.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

type Report = dyn Fn(Progress) + Send + Sync;

/// The context of a long piece of work: where it reports its progress, and whether it is cancelled.
#[derive(Clone)]
pub struct TaskCtx {
    cancel: CancelToken,
    report: Arc<Report>,
}

impl TaskCtx {
    /// A context that reports to `report` and stops when `cancel` is set.
    pub fn new(cancel: CancelToken, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self {
            cancel,
            report: Arc::new(report),
        }
    }

    /// A context that reports nothing and is never cancelled, for tests and short work.
    pub fn silent() -> Self {
        Self::new(CancelToken::default(), |_| {})
    }

    /// A context for a part of the same work that is cancelled with it and reports no progress.
    pub fn without_progress(&self) -> Self {
        Self::new(self.cancel.clone(), |_| {})
    }

    /// Reports `progress` and checks for cancellation.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the user asked to stop.
    pub fn checkpoint(&self, progress: Progress) -> Result<()> {
        (self.report)(progress);
        self.check()
    }

    /// Checks for cancellation without a report.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the user asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// The cancellation flag, for work that has to pass it on (to a child process, a download).
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }
}
