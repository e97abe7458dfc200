//! The coefficients during a fit, stored by panel, so that a pass reads and writes them without a
//! stride. Knows nothing of solvers.

use std::path::Path;

use rayon::prelude::*;

use super::value_buffer::ValueBuffer;
use crate::error::Result;
use crate::matrix::panel::PANEL;

/// The number of panels that are converted together to the layout by feature: enough for long
/// writes to a file, few enough for the processor's cache.
const RUN_PANELS: usize = 256;

/// Coefficients stored as `[panel][feature][row in panel]`; the last panel is filled up with rows
/// of zeros.
#[derive(Debug, Default)]
pub(crate) struct Panels {
    /// k, the number of features.
    pub(crate) k: usize,
    /// n, the number of rows.
    pub(crate) rows: usize,
    pub(crate) data: ValueBuffer,
}

impl Panels {
    /// Zeros for `k` features and `rows` rows, in a file of the folder `scratch` if one is given.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for a folder without space or permission.
    pub(crate) fn zeros(k: usize, rows: usize, scratch: Option<&Path>) -> Result<Self> {
        Ok(Self {
            k,
            rows,
            data: ValueBuffer::zeros(rows.div_ceil(PANEL) * PANEL * k, scratch)?,
        })
    }

    /// Overwrites the coefficients of the first features at the first `rows` rows with those of
    /// `by_feature`, which holds `rows` values for each feature.
    pub(crate) fn fill_features(&mut self, by_feature: &[f32], rows: usize) {
        let k = self.k;
        self.data
            .par_chunks_mut((k * PANEL).max(1))
            .take(rows.div_ceil(PANEL))
            .enumerate()
            .for_each(|(i, panel)| {
                let first = i * PANEL;
                let count = PANEL.min(rows - first);
                for (to, from) in panel
                    .chunks_exact_mut(PANEL)
                    .zip(by_feature.chunks_exact(rows))
                {
                    to[..count].copy_from_slice(&from[first..first + count]);
                }
            });
    }

    /// Writes the coefficients, those of feature j multiplied by `scales[j]`, by feature (k × n)
    /// into `by_feature`.
    pub(crate) fn write_by_feature(&self, scales: &[f32], by_feature: &mut [f32]) {
        if self.rows == 0 {
            return;
        }
        for (run, panels) in self
            .data
            .chunks((RUN_PANELS * PANEL * self.k).max(1))
            .enumerate()
        {
            by_feature
                .par_chunks_mut(self.rows)
                .enumerate()
                .for_each(|(j, line)| {
                    let rows = line
                        .chunks_mut(RUN_PANELS * PANEL)
                        .nth(run)
                        .unwrap_or_default();
                    for (i, piece) in rows.chunks_mut(PANEL).enumerate() {
                        let at = (i * self.k + j) * PANEL;
                        for (o, v) in piece.iter_mut().zip(&panels[at..at + PANEL]) {
                            *o = v * scales[j];
                        }
                    }
                });
        }
    }

    /// Overwrites the first features with those of `other`, which has the same rows.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let (to, from) = ((self.k * PANEL).max(1), (other.k * PANEL).max(1));
        let panels = self
            .data
            .par_chunks_mut(to)
            .zip(other.data.par_chunks(from));
        panels.for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
    }

    fn index(&self, row: usize, j: usize) -> usize {
        (row / PANEL * self.k + j) * PANEL + row % PANEL
    }

    /// The coefficient of feature `j` at row `row`.
    pub(crate) fn get(&self, row: usize, j: usize) -> f32 {
        self.data[self.index(row, j)]
    }

    /// Sets the coefficient of feature `j` at row `row`.
    pub(crate) fn set(&mut self, row: usize, j: usize, value: f32) {
        let index = self.index(row, j);
        self.data[index] = value;
    }
}
