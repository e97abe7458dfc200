//! The state of a fit: finished, stopped, or interrupted before it saved anything. The state
//! decides which fit counts as the newest.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FitEntry;
use crate::factor::{Stop, Sweep};
use crate::model::HookPoint;

/// How the last run of a fit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FitState {
    /// The error no longer fell enough.
    Converged,
    /// The run did the largest number of sweeps.
    MaxSweeps,
    /// The user stopped it; the best factors until then were saved.
    Stopped,
    /// The run ended before it saved factors, or is still running in another process.
    Cut,
}

impl FitState {
    /// Whether it ran to its end.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Converged | Self::MaxSweeps)
    }
}

/// How a run that saved factors ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Whether it ended by itself or was stopped.
    pub state: FitState,
    /// The sweep that it had reached.
    pub sweep: usize,
}

/// `None` is a stop by the user.
impl From<Option<Stop>> for FitState {
    fn from(stop: Option<Stop>) -> Self {
        match stop {
            Some(Stop::Converged) => Self::Converged,
            Some(Stop::MaxSweeps) => Self::MaxSweeps,
            None => Self::Stopped,
        }
    }
}

impl FitEntry {
    /// Whether it ran to its end and its factors are saved.
    pub fn is_finished(&self) -> bool {
        self.has_factors() && self.state.is_finished()
    }

    /// Whether there are factors to show.
    pub fn has_factors(&self) -> bool {
        self.relative_error.is_some()
    }

    /// The state in words: "converged", "stopped at sweep 2".
    pub fn status(&self) -> FitStatus {
        FitStatus(self.state, self.reached)
    }
}

/// The state of a fit, displayed in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitStatus(FitState, usize);

impl fmt::Display for FitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (FitState::Converged, _) => f.write_str("converged"),
            (FitState::MaxSweeps, _) => f.write_str("most sweeps"),
            (FitState::Cut, 0) => f.write_str("stopped before its first sweep"),
            (FitState::Stopped | FitState::Cut, sweep) => write!(f, "stopped at sweep {sweep}"),
        }
    }
}

/// The newest of `fits` (sorted with the newest last) at the hooks that `at` accepts that ran to
/// its end; if none did, the newest that has factors.
pub fn newest(fits: &[FitEntry], at: impl Fn(HookPoint) -> bool) -> Option<&FitEntry> {
    let with_factors = || {
        fits.iter()
            .rev()
            .filter(|fit| fit.has_factors() && at(fit.hook))
    };
    with_factors()
        .find(|fit| fit.is_finished())
        .or_else(|| with_factors().next())
}

/// The last completely written sweep of the error curve at `path`.
pub(super) fn last_sweep(path: &Path) -> Option<Sweep> {
    let curve = std::fs::read_to_string(path).ok()?;
    curve
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
}
