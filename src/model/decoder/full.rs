//! A device that is full, for tests: passes of more tokens than it holds fail as a card's do, after
//! their layers have written to the cache.

use std::cell::Cell;

use crate::error::Result;

thread_local! {
    static HOLDS: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Lets the passes of this thread hold at most so many tokens, padding included, while `work` runs.
pub(crate) fn with_room<T>(tokens: usize, work: impl FnOnce() -> T) -> T {
    let before = HOLDS.replace(tokens);
    let out = work();
    HOLDS.set(before);
    out
}

/// Fails where a pass has more tokens than there is room for.
pub(super) fn check(tokens: usize) -> Result<()> {
    if tokens <= HOLDS.get() {
        return Ok(());
    }
    let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
    Err(candle_core::Error::Msg(full.into()).into())
}
