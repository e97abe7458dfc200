//! The order in which rows are seen: stretches of rows at random, shuffled in pools that fit into
//! memory.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::activations::ActivationSource;
use crate::error::Result;

/// Neighbouring rows that are read together.
const STRETCH: usize = 64;
/// About this many bytes of rows are shuffled together.
pub(super) const POOL_BYTES: usize = 128 << 20;

/// Where in the rows a training stands: the next batch begins there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Passes done.
    pub epoch: usize,
    /// Pools of this pass that are done.
    pub pool: usize,
    /// Rows of this pool that are done.
    pub row: usize,
}

/// Batches of shuffled rows, without end.
pub(super) struct Batches<'a> {
    source: &'a dyn ActivationSource,
    batch: usize,
    seed: u64,
    /// What rows are multiplied by.
    pub(super) scale: f32,
    /// Stretches a pool.
    stretches: usize,
    at: Place,
    /// The rows of pool `at.pool` in order; empty when it is still to be read.
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
        // Whole batches in all pools but the last, so that a pass has as many steps as it must.
        let rows = (POOL_BYTES / row_bytes).max(batch).max(STRETCH);
        let step = batch / gcd(batch, STRETCH) * STRETCH;
        let stretches = rows.div_ceil(step) * step / STRETCH;
        Self {
            source,
            batch,
            seed,
            scale,
            stretches,
            at: Place::default(),
            pool: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.source.shape().0
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        self.source.shape()
    }

    pub(super) fn steps_an_epoch(&self) -> u64 {
        self.rows().div_ceil(self.batch) as u64
    }

    /// Goes on from a place.
    pub(super) fn seek(&mut self, place: Place) -> Result<()> {
        (self.at, self.pool) = (place, Vec::new());
        Ok(())
    }

    /// The next batch, scaled, row-major, and the place after it.
    pub(super) fn next(&mut self) -> Result<(Vec<f32>, Place)> {
        let d = self.source.shape().1;
        if self.pool.is_empty() {
            self.pool = self.read_pool()?;
        }
        let rows = self.pool.len() / d;
        let start = self.at.row.min(rows);
        let end = (start + self.batch).min(rows);
        let batch = self.pool[start * d..end * d].to_vec();
        self.at.row = end;
        if end == rows {
            self.pool.clear();
            self.at = Place {
                epoch: self.at.epoch,
                pool: self.at.pool + 1,
                row: 0,
            };
            if self.at.pool * self.stretches * STRETCH >= self.rows().next_multiple_of(STRETCH) {
                self.at = Place {
                    epoch: self.at.epoch + 1,
                    pool: 0,
                    row: 0,
                };
            }
        }
        Ok((batch, self.at))
    }

    fn read_pool(&self) -> Result<Vec<f32>> {
        let (n, d) = self.source.shape();
        let mut order: Vec<usize> = (0..n.div_ceil(STRETCH)).collect();
        // The short stretch at the end stays last, so that every pool but the last is whole.
        let whole = n / STRETCH;
        order[..whole].shuffle(&mut self.rng(u64::MAX));
        let first = (self.at.pool * self.stretches).min(order.len());
        let last = (first + self.stretches).min(order.len());
        let mut rows = Vec::with_capacity(self.stretches * STRETCH * d);
        for &stretch in &order[first..last] {
            let block = self
                .source
                .rows(stretch * STRETCH..n.min((stretch + 1) * STRETCH))?;
            rows.extend(block.data.iter().map(|v| v * self.scale));
        }
        let mut places: Vec<usize> = (0..rows.len() / d).collect();
        places.shuffle(&mut self.rng(self.at.pool as u64));
        let mut shuffled = Vec::with_capacity(rows.len());
        places
            .iter()
            .for_each(|&i| shuffled.extend_from_slice(&rows[i * d..(i + 1) * d]));
        Ok(shuffled)
    }

    /// Draws of this pass for one purpose.
    fn rng(&self, purpose: u64) -> Pcg64Mcg {
        let words = [self.seed, self.at.epoch as u64, purpose]
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
        batches.stretches = 6; // pools of 4 batches
        let pass = |batches: &mut Batches<'_>| {
            let epoch = batches.at.epoch;
            let (mut seen, mut steps) = (Vec::new(), 0);
            while batches.at.epoch == epoch {
                seen.extend(batches.next().unwrap().0);
                steps += 1;
            }
            assert_eq!(steps, batches.steps_an_epoch());
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
        whole.stretches = 3;
        let mut place = Place::default();
        for _ in 0..40 {
            let mut again = Batches::new(&source, 48, 3, 1.0);
            again.stretches = 3;
            again.seek(place).unwrap();
            let (expected, after) = whole.next().unwrap();
            assert_eq!(again.next().unwrap(), (expected, after));
            place = after;
        }
        assert!(place.epoch >= 2);
    }
}
