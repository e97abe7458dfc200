//! The order in which training sees rows: runs of neighbouring rows in random order, shuffled in
//! pools that fit into memory. Invariant: the order depends on the seed and the epoch alone.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::activations::ActivationSource;
use crate::error::Result;

/// The number of neighbouring rows that are read together, called a run.
const RUN: usize = 64;
/// The approximate number of bytes of a pool, whose rows are shuffled together.
pub(super) const POOL_BYTES: usize = 128 << 20;

/// The position of the next batch in the order of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPosition {
    /// The number of completed passes over all rows.
    pub epoch: usize,
    /// The number of completed pools of this pass.
    pub pool: usize,
    /// The number of completed rows of this pool.
    pub row: usize,
}

/// An endless sequence of batches of shuffled rows.
pub(super) struct Batches<'a> {
    source: &'a dyn ActivationSource,
    batch: usize,
    seed: u64,
    /// The factor that rows are multiplied by.
    pub(super) scale: f32,
    runs_per_pool: usize,
    position: BatchPosition,
    /// The rows of pool `position.pool` in order; empty when it is still to be read.
    pool: Vec<f32>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(
        source: &'a dyn ActivationSource,
        batch: usize,
        seed: u64,
        scale: f32,
    ) -> Self {
        let row_bytes = 4 * source.shape().1.max(1);
        // All pools but the last hold whole batches, so that an epoch has ⌈n / batch⌉ steps.
        let rows = (POOL_BYTES / row_bytes).max(batch).max(RUN);
        let step = batch / gcd(batch, RUN) * RUN;
        let runs_per_pool = rows.div_ceil(step) * step / RUN;
        Self {
            source,
            batch,
            seed,
            scale,
            runs_per_pool,
            position: BatchPosition::default(),
            pool: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.source.shape().0
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        self.source.shape()
    }

    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.rows().div_ceil(self.batch) as u64
    }

    /// Continues from a position.
    pub(super) fn seek(&mut self, position: BatchPosition) {
        (self.position, self.pool) = (position, Vec::new());
    }

    /// The next batch, scaled, row-major `[rows][d]`, and the position after it.
    pub(super) fn next(&mut self) -> Result<(Vec<f32>, BatchPosition)> {
        let d = self.source.shape().1;
        if self.pool.is_empty() {
            self.pool = self.read_pool()?;
        }
        let rows = self.pool.len() / d;
        let start = self.position.row.min(rows);
        let end = (start + self.batch).min(rows);
        let batch = self.pool[start * d..end * d].to_vec();
        self.position.row = end;
        if end == rows {
            self.pool.clear();
            self.position = BatchPosition {
                epoch: self.position.epoch,
                pool: self.position.pool + 1,
                row: 0,
            };
            if self.position.pool * self.runs_per_pool * RUN >= self.rows().next_multiple_of(RUN) {
                self.position = BatchPosition {
                    epoch: self.position.epoch + 1,
                    pool: 0,
                    row: 0,
                };
            }
        }
        Ok((batch, self.position))
    }

    fn read_pool(&self) -> Result<Vec<f32>> {
        let (n, d) = self.source.shape();
        let mut order: Vec<usize> = (0..n.div_ceil(RUN)).collect();
        // The short run at the end stays last, so that every pool but the last is whole.
        let whole = n / RUN;
        order[..whole].shuffle(&mut self.rng(u64::MAX));
        let first = (self.position.pool * self.runs_per_pool).min(order.len());
        let last = (first + self.runs_per_pool).min(order.len());
        let mut rows = Vec::with_capacity(self.runs_per_pool * RUN * d);
        for &run in &order[first..last] {
            let block = self.source.rows(run * RUN..n.min((run + 1) * RUN))?;
            rows.extend(block.data.iter().map(|v| v * self.scale));
        }
        let mut order: Vec<usize> = (0..rows.len() / d).collect();
        order.shuffle(&mut self.rng(self.position.pool as u64));
        let mut shuffled = Vec::with_capacity(rows.len());
        order
            .iter()
            .for_each(|&i| shuffled.extend_from_slice(&rows[i * d..(i + 1) * d]));
        Ok(shuffled)
    }

    /// The random number generator of this epoch for the order of runs, or of a pool's rows, which
    /// `purpose` tells apart.
    fn rng(&self, purpose: u64) -> Pcg64Mcg {
        let words = [self.seed, self.position.epoch as u64, purpose]
            .map(u64::to_le_bytes)
            .concat();
        Pcg64Mcg::seed_from_u64(xxhash_rust::xxh3::xxh3_64(&words))
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;

    #[test]
    fn a_pass_sees_every_row_once_in_another_order_each_time() {
        let n = 1000;
        let source = InMemory::new(n, 1, (0..n).map(|i| i as f32).collect());
        let mut batches = Batches::new(&source, 96, 1, 2.0);
        batches.runs_per_pool = 6; // pools of 4 batches
        let pass = |batches: &mut Batches<'_>| {
            let epoch = batches.position.epoch;
            let (mut seen, mut steps) = (Vec::new(), 0);
            while batches.position.epoch == epoch {
                seen.extend(batches.next().unwrap().0);
                steps += 1;
            }
            assert_eq!(steps, batches.steps_per_epoch());
            seen
        };
        let (first, second) = (pass(&mut batches), pass(&mut batches));
        assert_ne!(first, second);
        for mut seen in [first, second] {
            assert!(seen.windows(2).filter(|w| w[1] - w[0] == 2.0).count() < n / 10);
            seen.sort_by(f32::total_cmp);
            assert!((0..n).all(|i| seen[i] == 2.0 * i as f32));
        }
    }

    #[test]
    fn any_place_can_be_gone_on_from() {
        let source = InMemory::new(500, 2, (0..1000).map(|i| i as f32).collect());
        let mut whole = Batches::new(&source, 48, 3, 1.0);
        whole.runs_per_pool = 3;
        let mut position = BatchPosition::default();
        for _ in 0..40 {
            let mut again = Batches::new(&source, 48, 3, 1.0);
            again.runs_per_pool = 3;
            again.seek(position);
            let (expected, after) = whole.next().unwrap();
            assert_eq!(again.next().unwrap(), (expected, after));
            position = after;
        }
        assert!(position.epoch >= 2);
    }
}
