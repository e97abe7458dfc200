//! What a pass over a cache needs next, read while it works; what lies behind it, let go where
//! memory cannot hold it all. Both on a thread of its own: asking the kernel takes time that a pass
//! has better use for.
//!
//! Only hints: whatever is refused, a pass reads the same values.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::mapped;
use super::reader::Shard;
use crate::memory;

/// Blocks that are read ahead of a pass.
const AHEAD: usize = 4;
/// Blocks behind one that a pass may still work on, beside one a thread.
const BEHIND: usize = 2;
/// Of the memory that is free, the part that a cache may fill from one pass to the next.
const SHARE: u64 = 2;

/// The thread; it ends with this.
#[derive(Debug)]
pub(super) struct Ahead {
    blocks: Sender<Range<usize>>,
}

impl Ahead {
    pub(super) fn start(shards: Arc<[Shard]>) -> Self {
        let (blocks, passed) = mpsc::channel::<Range<usize>>();
        let bytes: u64 = shards.iter().map(|s| s.map.len() as u64).sum();
        // A cache that does not stay would only push out what does: the coefficients of a fit.
        let stays = memory::available()
            .ok()
            .flatten()
            .is_none_or(|free| bytes <= free / SHARE);
        let follow = move || {
            passed
                .iter()
                .for_each(|block| follow(&shards, &block, stays))
        };
        let _ = thread::Builder::new()
            .name("read-ahead".into())
            .spawn(follow);
        Self { blocks }
    }

    pub(super) fn advise_pass(&self, block: Range<usize>) {
        let _ = self.blocks.send(block);
    }
}

fn follow(shards: &[Shard], block: &Range<usize>, stays: bool) {
    let rows = block.len();
    let until = block.end + AHEAD * rows;
    // Those before the last were asked for with the blocks before.
    let from = if block.start == 0 {
        block.end
    } else {
        until - rows
    };
    each(shards, from..until, |shard, bytes| {
        mapped::read_ahead(&shard.map, bytes)
    });
    let behind = BEHIND + thread::available_parallelism().map_or(1, usize::from);
    if let Some(begin) = block.start.checked_sub(behind * rows).filter(|_| !stays) {
        each(shards, begin..begin + rows, |shard, bytes| {
            mapped::let_go(&shard.map, &shard.path, bytes)
        });
    }
}

/// Calls `f` with each shard that holds some of these rows, and where in its file they lie.
fn each(shards: &[Shard], rows: Range<usize>, f: impl Fn(&Shard, Range<usize>)) {
    let first = shards.partition_point(|s| s.range().end <= rows.start);
    let overlapping = shards[first..]
        .iter()
        .take_while(|s| s.range().start < rows.end);
    overlapping.for_each(|shard| f(shard, shard.place(&rows)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::ActivationSource;
    use crate::activations::store::{CacheDtype, CacheReader, CacheWriter};

    #[test]
    fn rows_that_were_let_go_are_read_again() {
        // Shards of whole pages and of less, blocks that span them.
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
                    follow(reader.shards(), &block, false);
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
