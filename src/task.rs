//! How long work reports and stops: one call, [`TaskCtx::checkpoint`], does both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where a piece of work stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for a person: "downloading model.safetensors", "collecting".
    pub stage: String,
    /// Units done.
    pub done: u64,
    /// Units in all, when known.
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

/// A flag that many threads watch; cloning shares it.
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

/// Handed to every long piece of work.
#[derive(Clone)]
pub struct TaskCtx {
    cancel: CancelToken,
    report: Arc<Report>,
}

impl TaskCtx {
    /// Reports to `report`; stops when `cancel` says so.
    pub fn new(cancel: CancelToken, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self {
            cancel,
            report: Arc::new(report),
        }
    }

    /// Reports to nobody and is never cancelled: tests and small work.
    pub fn silent() -> Self {
        Self::new(CancelToken::default(), |_| {})
    }

    /// The same work's parts, which report to nobody: the whole tells where it stands.
    pub fn without_progress(&self) -> Self {
        Self::new(self.cancel.clone(), |_| {})
    }

    /// Reports `progress`, then fails with [`Error::Cancelled`] when the user asked to stop.
    pub fn checkpoint(&self, progress: Progress) -> Result<()> {
        (self.report)(progress);
        self.check()
    }

    /// Fails with [`Error::Cancelled`] when the user asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// The flag itself, for work that must hand it on (a child process, a download).
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }
}
