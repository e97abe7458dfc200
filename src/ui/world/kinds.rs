//! What the world tells of: a job that runs, what was cut short, a line of the log.

use std::fmt;
use std::time::Duration;

use crate::engine::{Job, Level};
use crate::study::{CollectState, FitEntry};
use crate::task::Progress;
use crate::text;

/// A job that runs.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The kind of job.
    pub job: Job,
    /// Its stage, and how much of it is done.
    pub progress: Progress,
    /// Units of its progress per second; `None` until they can be told.
    pub rate: Option<f64>,
    /// Seconds to its end; `None` where the total or the rate is not known.
    pub eta: Option<f64>,
    /// When it began, since the start of the explorer.
    pub since: Duration,
    /// The user asked to cancel it.
    pub cancelling: bool,
}

/// What was cut short and can go on.
#[derive(Debug, Clone, Copy)]
pub enum CutShort<'a> {
    /// Collecting: samples of the corpus are missing.
    Collecting(&'a CollectState),
    /// Rows of a matrix that is imported are missing: only the same import goes on.
    Importing(&'a CollectState),
    /// A fit did not come to its end.
    Fit(&'a FitEntry),
}

impl CutShort<'_> {
    /// What goes on with it, where `key` is the explorer's own for that.
    pub fn remedy(&self, key: &str) -> String {
        match self {
            Self::Importing(_) => "mlpeek import, run again as before, goes on".to_owned(),
            Self::Collecting(_) | Self::Fit(_) => format!("{key} goes on"),
        }
    }
}

/// For a person, after the name of what is meant: "collected 53 %: …", "k24 stopped at sweep 2".
impl fmt::Display for CutShort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collecting(state) => state.fmt(f),
            Self::Importing(_) => f.write_str("imported in part"),
            Self::Fit(fit) => write!(f, "{} {}", text::clean(&fit.name), fit.status()),
        }
    }
}

/// A line of the log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// When it was written, since the start.
    pub at: Duration,
    /// How grave it is.
    pub level: Level,
    /// What happened, in a line.
    pub text: String,
}
