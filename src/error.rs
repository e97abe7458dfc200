//! The one error type of the library: what went wrong, where, and what to do next, in one line.

use std::io;
use std::path::{Path, PathBuf};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in terms that a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user stopped the work; never shown as an error (exit code 130).
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused an operation on a path.
    #[error("cannot {op} {}: {source}", shown(path))]
    Io {
        /// What was attempted, as a verb: "read", "create".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file whose content is not what it must be.
    #[error("{}: {problem}", shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it and what to do next.
        problem: String,
    },
    /// What was asked for cannot be (a layer out of range, an unknown name): exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A sound request that cannot be carried out here and now: it names the numbers and a remedy.
    #[error("{0}")]
    Refused(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// A problem as one line that can be read: a parser may quote a value of the file, as long as that
/// is, and what says why and what to do stands at the two ends.
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

/// A path for a person. One that came from a damaged file may be as long as that.
fn shown(path: &Path) -> String {
    one_line(path.display().to_string())
}

impl Error {
    /// An I/O error on `path` while trying to `op` ("read", "create", …).
    pub fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { op, path, source }
    }

    /// A file whose content is wrong.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            problem: one_line(problem.into()),
        }
    }

    /// A request that cannot be.
    pub fn usage(problem: impl Into<String>) -> Self {
        Self::Usage(problem.into())
    }

    /// A refusal with its numbers and remedy.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self::Refused(problem.into())
    }

    /// The process exit code that this error stands for.
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
