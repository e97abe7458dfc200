//! Coefficients while they are being fitted: by panel, so that a pass reads and writes them without a stride, and packed by
//! feature for the dense products. Knows nothing of solvers.

use rayon::prelude::*;

use crate::activations::Block;
use crate::matrix::dense;
use crate::matrix::panel::PANEL;

/// Coefficients by panel, `[panel][feature][row in panel]`: what a pass reads and writes without a stride.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panels {
    pub(crate) k: usize,
    pub(crate) rows: usize,
    pub(crate) data: Vec<f32>,
}

impl Panels {
    pub(crate) fn zeros(k: usize, rows: usize) -> Self {
        Self { k, rows, data: vec![0.0; rows.div_ceil(PANEL) * PANEL * k] }
    }

    /// From k × n values by feature.
    pub(crate) fn from_features(k: usize, rows: usize, by_feature: &[f32]) -> Self {
        let mut out = Self::zeros(k, rows);
        out.data.par_chunks_mut((k * PANEL).max(1)).enumerate().for_each(|(i, panel)| {
            let first = i * PANEL;
            let count = PANEL.min(rows - first);
            for (j, line) in panel.chunks_exact_mut(PANEL).enumerate() {
                let at = j * rows + first;
                line[..count].copy_from_slice(&by_feature[at..at + count]);
            }
        });
        out
    }

    /// k × n values by feature, feature j times `scales[j]`.
    pub(crate) fn to_features(&self, scales: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.k * self.rows];
        if self.rows == 0 {
            return out;
        }
        out.par_chunks_mut(self.rows).enumerate().for_each(|(j, line)| {
            for (i, piece) in line.chunks_mut(PANEL).enumerate() {
                let at = (i * self.k + j) * PANEL;
                for (o, v) in piece.iter_mut().zip(&self.data[at..at + PANEL]) {
                    *o = v * scales[j];
                }
            }
        });
        out
    }

    fn place(&self, row: usize, j: usize) -> usize {
        (row / PANEL * self.k + j) * PANEL + row % PANEL
    }

    /// The coefficient of feature `j` at `row`.
    pub(crate) fn get(&self, row: usize, j: usize) -> f32 {
        self.data[self.place(row, j)]
    }

    /// Sets the coefficient of feature `j` at `row`.
    pub(crate) fn set(&mut self, row: usize, j: usize, value: f32) {
        let place = self.place(row, j);
        self.data[place] = value;
    }
}

/// A block's coefficients by feature, for the dense products.
#[derive(Default)]
pub(crate) struct Packed {
    lines: Vec<f32>,
    stride: usize,
    gram: Vec<f32>,
}

impl Packed {
    /// Takes a block's panels, and adds each feature's sum to `totals`.
    pub(crate) fn fill(&mut self, panels: &[f32], k: usize, totals: &mut [f64]) {
        let rows = panels.len() / k.max(1);
        // Lines a power of two apart would share cache sets.
        self.stride = rows + 16;
        self.lines.resize(self.stride * k, 0.0);
        self.lines.par_chunks_mut(self.stride).zip(totals.par_iter_mut()).enumerate().for_each(|(j, (line, total))| {
            for (i, piece) in line[..rows].chunks_exact_mut(PANEL).enumerate() {
                let at = (i * k + j) * PANEL;
                piece.copy_from_slice(&panels[at..at + PANEL]);
                *total += f64::from(piece.iter().sum::<f32>());
            }
        });
    }

    /// The second half of a block: adds to YᵀY, and to AᵀY where it is wanted.
    pub(crate) fn accumulate(&mut self, block: &Block<'_>, products: Option<&mut [f32]>, gram: &mut [f64], k: usize) {
        let Packed { lines, stride, gram: scratch } = self;
        if let Some(products) = products {
            dense::accumulate_products(products, &block.data, block.cols, lines, *stride, k);
        }
        dense::accumulate_gram(gram, scratch, lines, *stride, block.rows, k);
    }
}
