//! Panics, of ours and of the libraries below: caught where a caller can go on, and told in one
//! line.
//!
//! Knows no terminal. Invariant: once [`quiet`] was called, a panic writes nothing by itself.
//! Whoever catches it says what failed, and the last one's words and place are kept for that.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

type Listener = Box<dyn Fn(&str) + Send + Sync>;

static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps panics from writing to standard error; each is a line of the `debug` log.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info
                .location()
                .map(|at| format!(" ({}:{})", at.file(), at.line()))
                .unwrap_or_default();
            let words = one_line(&format!("{}{place}", words(info.payload())));
            tracing::debug!("panic: {words}");
            if let Some(listener) = LISTENER
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
            {
                listener(&words);
            }
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        }));
    });
}

/// [`quiet`], and `listener` hears each panic on its own thread before that unwinds.
pub fn tell(listener: impl Fn(&str) + Send + Sync + 'static) {
    quiet();
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(listener));
}

/// Runs `work`; a panic in it comes back as its words.
///
/// # Errors
/// The panic's words, on one line, with its place where [`quiet`] was called.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let words = one_line(&words(panic.as_ref()));
        last.filter(|last| last.starts_with(&words))
            .unwrap_or(words)
    })
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_one_line() {
        assert_eq!(caught(|| 7), Ok(7));
        let words = caught(|| panic!("left: 1\nright: {}", 2)).unwrap_err();
        assert!(
            words.starts_with("left: 1 right: 2") && !words.contains('\n'),
            "{words}"
        );
    }

    #[test]
    fn a_panic_without_words_is_told_too() {
        let words = caught(|| std::panic::resume_unwind(Box::new(1))).unwrap_err();
        assert_eq!(words, "a panic without words");
    }
}
