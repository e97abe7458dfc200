//! Read-ahead for a pass over a cache: the next blocks are read while the pass computes, and the
//! memory of earlier blocks is released if the cache does not fit into memory. Both happen on a
//! separate thread, because the system calls would delay the pass.
//!
//! Invariant: these calls are only hints; if the kernel refuses them, a pass still reads the same
//! values.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::mapped;
use super::reader::Shard;
use crate::memory;

/// The number of blocks that are read ahead of a pass.
const BLOCKS_AHEAD: usize = 4;
/// The number of blocks before the present one that a pass may still read, in addition to one for
/// each thread.
const BLOCKS_BEHIND: usize = 2;
/// A cache stays in memory between passes if it needs at most the free memory divided by this.
const FREE_DIVISOR: u64 = 2;

/// The sending end of the read-ahead thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct ReadAhead {
    blocks: Sender<Range<usize>>,
}

impl ReadAhead {
    /// Starts the thread for a pass over these shards.
    pub(super) fn start(shards: Arc<[Shard]>) -> Self {
        let (blocks, passed) = mpsc::channel::<Range<usize>>();
        let bytes: u64 = shards.iter().map(|s| s.map.len() as u64).sum();
        // If the cache does not fit, its pages would only displace others that are used again, such
        // as the coefficients of a fit.
        let stays = memory::available()
            .ok()
            .flatten()
            .is_none_or(|free| bytes <= free / FREE_DIVISOR);
        let run = move || {
            passed
                .iter()
                .for_each(|block| advise(&shards, &block, stays))
        };
        let _ = thread::Builder::new().name("read-ahead".into()).spawn(run);
        Self { blocks }
    }

    /// Tells the thread which block the pass reads now.
    pub(super) fn advise_pass(&self, block: Range<usize>) {
        let _ = self.blocks.send(block);
    }
}

/// Prefetches the blocks after `block`; unless the cache `stays` in memory, releases an earlier one.
fn advise(shards: &[Shard], block: &Range<usize>, stays: bool) {
    let rows = block.len();
    let until = block.end + BLOCKS_AHEAD * rows;
    // The blocks before the last one were requested with the previous blocks.
    let from = if block.start == 0 {
        block.end
    } else {
        until - rows
    };
    for_each_shard(shards, from..until, |shard, bytes| {
        mapped::prefetch_pages(&shard.map, bytes)
    });
    let behind = BLOCKS_BEHIND + thread::available_parallelism().map_or(1, usize::from);
    if let Some(begin) = block.start.checked_sub(behind * rows).filter(|_| !stays) {
        for_each_shard(shards, begin..begin + rows, |shard, bytes| {
            mapped::release_pages(&shard.map, &shard.path, bytes)
        });
    }
}

/// Calls `f` with each shard that holds rows of `rows`, and their byte range in its file.
fn for_each_shard(shards: &[Shard], rows: Range<usize>, f: impl Fn(&Shard, Range<usize>)) {
    let first = shards.partition_point(|s| s.range().end <= rows.start);
    let overlapping = shards[first..]
        .iter()
        .take_while(|s| s.range().start < rows.end);
    overlapping.for_each(|shard| f(shard, shard.byte_range(&rows)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::ActivationSource;
    use crate::activations::store::{CacheDtype, CacheReader, CacheWriter};

    #[test]
    fn rows_whose_memory_was_released_are_read_again() {
        // Shards of whole pages and of parts of pages, and blocks that span them.
        let (n, d) = (3000, 16);
        let values: Vec<f32> = (0..n * d).map(|i| (i % 2048) as f32).collect();
        for dtype in [CacheDtype::F32, CacheDtype::F16] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = CacheWriter::open(dir.path(), d, dtype)
                .unwrap()
                .with_shard_rows(700);
            writer.push(&values).unwrap();
            writer.seal().unwrap();
            let reader = CacheReader::open(dir.path()).unwrap();
            for _ in 0..2 {
                for first in (0..n).step_by(256) {
                    let block = first..n.min(first + 256);
                    advise(reader.shards(), &block, false);
                    assert_eq!(
                        *reader.rows(block.clone()).unwrap().data,
                        values[block.start * d..block.end * d]
                    );
                }
            }
            reader.verify().unwrap();
        }
    }
}
