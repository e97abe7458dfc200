//! Texts as the model reads them: ids, windows, and which tokens are rows.

use rayon::prelude::*;

use super::Runner;
use crate::corpus::Sample;
use crate::error::{Error, Result};
use crate::model::BosRule;
use crate::task::{Progress, TaskCtx};

/// Texts that are tokenised between two tests for cancelling.
const ENCODE_CHUNK: usize = 1024;

/// The token ids of a sample as the model reads them.
pub(super) struct Encoded {
    /// Ids of each window, its BOS included.
    pub windows: Vec<Vec<u32>>,
    /// Whether each window starts with BOS, which is no row.
    pub bos: bool,
}

impl Encoded {
    /// Rows that the sample gives.
    pub fn rows(&self) -> usize {
        (0..self.windows.len()).map(|w| self.window_rows(w)).sum()
    }

    /// Rows that a window gives.
    pub fn window_rows(&self, window: usize) -> usize {
        self.windows[window].len() - usize::from(self.bos)
    }

    /// Id and position of each row of a window. BOS counts once, whatever the windows.
    pub fn tokens(&self, window: usize) -> Vec<(u32, u32)> {
        let skip = usize::from(self.bos);
        // All windows but the last are of one length.
        let before = window * self.window_rows(0) + skip;
        self.windows[window][skip..]
            .iter()
            .enumerate()
            .map(|(i, &id)| (id, (before + i) as u32))
            .collect()
    }
}

/// Tokenises texts, testing for cancelling between chunks.
pub(super) fn encode(
    runner: &impl Runner,
    samples: &[Sample],
    rule: BosRule,
    ctx: &TaskCtx,
) -> Result<Vec<Encoded>> {
    let mut out = Vec::with_capacity(samples.len());
    for chunk in samples.chunks(ENCODE_CHUNK) {
        let first = out.len();
        let encoded: Result<Vec<_>> = chunk
            .par_iter()
            .enumerate()
            .map(|(i, s)| encode_one(runner, s, first + i, rule))
            .collect();
        out.extend(encoded?);
        ctx.checkpoint(Progress::new(
            "tokenising",
            out.len() as u64,
            samples.len() as u64,
            "samples",
        ))?;
    }
    Ok(out)
}

fn encode_one(
    runner: &impl Runner,
    sample: &Sample,
    number: usize,
    rule: BosRule,
) -> Result<Encoded> {
    let mut ids = runner.encode(&sample.text, rule)?;
    let bos = runner.bos().filter(|b| ids.first() == Some(b));
    if bos.is_some() {
        ids.remove(0);
    }
    let room = runner.context().saturating_sub(usize::from(bos.is_some()));
    if room == 0 {
        return Err(Error::refused(format!(
            "sample {number}: the model's context has no room for a token"
        )));
    }
    let mut windows: Vec<Vec<u32>> = ids
        .chunks(room)
        .map(|part| bos.iter().chain(part).copied().collect())
        .collect();
    if windows.is_empty() {
        // A text without tokens is still a sample: one window without rows.
        windows.push(bos.into_iter().collect());
    }
    Ok(Encoded {
        windows,
        bos: bos.is_some(),
    })
}
