//! The error type of the library: what went wrong, where, and what to do next, in one line.

mod device;

use std::io;
use std::path::{Path, PathBuf};

pub use device::DeviceFailure;

/// A result with the library's error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of the library, in terms that a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user stopped the work; not shown as an error (exit code 130).
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused an operation on a path.
    #[error("cannot {op} {}: {source}", display_path(path))]
    Io {
        /// The operation as a verb: "read", "create".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content of a file is not what it must be.
    #[error("{}: {problem}", display_path(path))]
    File {
        /// The file whose content it is.
        path: PathBuf,
        /// What is wrong in it, and what to do next.
        problem: String,
    },
    /// The request is invalid (a layer out of range, an unknown name): exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The request is valid but cannot be carried out here and now; the text names the numbers and
    /// a remedy.
    #[error("{0}")]
    Refused(String),
    /// A GPU failed in a way that a user can do something about.
    #[error("{}", .0.sentence(.1))]
    Device(DeviceFailure, String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {}", first_line(.0))]
    Tensor(candle_core::Error),
}

/// What failed, without the backtrace that candle appends.
fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    one_line(text.lines().next().unwrap_or_default().to_owned())
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let line = first_line(&error);
        match DeviceFailure::of(&line) {
            Some(kind) => Self::Device(kind, line),
            None => Self::Tensor(error),
        }
    }
}

/// Shortens a problem to one readable line. A parser may quote a value of the file of any length;
/// the reason and the remedy stand at the two ends, so the middle is cut.
fn one_line(problem: String) -> String {
    const MOST: usize = 500;
    let problem = if problem.contains('\n') {
        problem.replace('\n', " ")
    } else {
        problem
    };
    let long = problem.chars().count();
    if long <= MOST {
        return problem;
    }
    let (begin, end) = (
        problem.chars().take(MOST / 2),
        problem.chars().skip(long - MOST / 2),
    );
    begin.chain(['…']).chain(end).collect()
}

/// A path for a message, shortened: one that was read from a damaged file may have any length.
fn display_path(path: &Path) -> String {
    one_line(path.display().to_string())
}

impl Error {
    /// Returns a constructor of [`Error::Io`] for `map_err`: the operation `op` ("read", "create",
    /// …) failed on `path`.
    pub fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { op, path, source }
    }

    /// An [`Error::File`] about `path`, with the problem as one line.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            problem: one_line(problem.into()),
        }
    }

    /// A request that cannot be met as it was asked, as an [`Error::Usage`]: exit code 2.
    pub fn usage(problem: impl Into<String>) -> Self {
        Self::Usage(problem.into())
    }

    /// An [`Error::Refused`], which names the numbers and a remedy.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self::Refused(problem.into())
    }

    /// Whether the memory of a GPU was full: less at once may fit.
    pub fn is_device_full(&self) -> bool {
        matches!(self, Self::Device(DeviceFailure::Full, _))
    }

    /// The exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Cancelled => 130,
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_quotes_a_long_value_keeps_its_ends() {
        let error = Error::file(
            "a.json",
            format!("not a list: \"{}\"\n; mend or move it", "é".repeat(70_000)),
        )
        .to_string();
        assert!(
            error.starts_with("a.json: not a list: \"éé")
                && error.ends_with("é\" ; mend or move it"),
            "{error}"
        );
        assert!(error.chars().count() < 520 && !error.contains('\n'));
    }
}
