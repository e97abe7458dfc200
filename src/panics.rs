//! Panics of this crate and of the libraries that it calls: caught where a caller can go on, and
//! reported in one line.
//!
//! Knows no terminal. Invariant: after [`silence`] was called, a panic writes nothing by itself. The
//! code that catches a panic reports what failed; the messages and source locations of the last few
//! panics are kept for that report, since a panic is often caught on another thread than its own.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

type Listener = Box<dyn Fn(&str) + Send + Sync>;

static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

/// How many panics are kept until they are caught: threads may panic at once.
const KEPT: usize = 16;

/// Message and source location of the panics that no [`catch_panic`] has reported yet, each as one
/// line, the newest last.
static UNREPORTED: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Installs a panic hook that writes each panic to the `debug` log and nothing to standard error.
/// Only the first call in a process has an effect.
pub fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info
                .location()
                .map(|at| format!(" ({}:{})", at.file(), at.line()))
                .unwrap_or_default();
            let message = one_line(&format!("{}{place}", message_of(info.payload())));
            tracing::debug!("panic: {message}");
            if let Some(listener) = LISTENER
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
            {
                listener(&message);
            }
            let mut unreported = UNREPORTED.lock().unwrap_or_else(PoisonError::into_inner);
            if unreported.len() == KEPT {
                unreported.pop_front();
            }
            unreported.push_back(message);
        }));
    });
}

/// Calls [`silence`] and from then on calls `listener` with the message of each panic, on the thread
/// that panics and before it unwinds. A later listener replaces an earlier one.
pub fn set_listener(listener: impl Fn(&str) + Send + Sync + 'static) {
    silence();
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(listener));
}

/// Runs `work` and returns its result, or the message of the panic that ended it.
///
/// # Errors
/// The panic's message on one line, with its source location if [`silence`] was called before.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = one_line(&message_of(panic.as_ref()));
        let mut unreported = UNREPORTED.lock().unwrap_or_else(PoisonError::into_inner);
        let found = unreported
            .iter()
            .rposition(|known| known.starts_with(&message));
        found
            .and_then(|at| unreported.remove(at))
            .unwrap_or(message)
    })
}

/// The payload of a panic as text; `panic!` and `assert!` leave a `&str` or a `String`.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_one_line() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        let message = catch_panic(|| panic!("left: 1\nright: {}", 2)).unwrap_err();
        assert!(
            message.starts_with("left: 1 right: 2") && !message.contains('\n'),
            "{message}"
        );
    }

    #[test]
    fn panics_of_threads_at_once_keep_their_own_places() {
        silence();
        let caught: Vec<(String, String)> = std::thread::scope(|scope| {
            let panics = |i: usize| {
                scope.spawn(move || {
                    let words = format!("thread {i} of many");
                    (
                        words.clone(),
                        catch_panic(|| panic!("{words}")).unwrap_err(),
                    )
                })
            };
            let threads: Vec<_> = (0..KEPT / 2).map(panics).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (words, message) in caught {
            assert!(
                message.starts_with(&format!("{words} (")) && message.contains("panics.rs:"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_panic_without_a_message_is_reported() {
        let message = catch_panic(|| std::panic::resume_unwind(Box::new(1))).unwrap_err();
        assert_eq!(message, "a panic without words");
    }
}
