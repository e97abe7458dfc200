//! The batches of a collection: windows of like length together, whole samples one after another.
//!
//! Knows no corpus file and no manifest. Invariant: batches depend on where a run begins and on
//! nothing else, so that a run that was stopped makes the same ones.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Runner;
use super::capture::Capture;
use super::encoded::Encoded;
use crate::activations::store::CacheDtype;
use crate::corpus::Sample;
use crate::error::{Error, Result};
use crate::model::{Batch, Portion};
use crate::study::Appender;
use crate::task::{Progress, TaskCtx};

/// A kill loses at most about this much collecting.
const SEAL_EVERY: Duration = Duration::from_secs(10);
/// Sealed earlier once a cache has this much that is not safe yet.
const SEAL_BYTES: usize = 64 << 20;
/// Activations of a batch, all hooks together, were they f32.
const BATCH_BYTES: usize = 512 << 20;
/// Batches whose samples are sorted by length together. Groups follow each other from the last seal
/// on whatever the clock says, so that a resumed run makes the same batches, to the bit, as one
/// that was never stopped.
const GROUP_BATCHES: usize = 4;

/// A corpus on its way through a model into the caches.
pub(super) struct Collector<'a, R> {
    pub(super) runner: &'a R,
    pub(super) samples: &'a [Sample],
    pub(super) encoded: &'a [Encoded],
    /// The number of the corpus's first sample in the study.
    pub(super) first: usize,
    /// Rows of the whole corpus.
    pub(super) total: usize,
    pub(super) ctx: &'a TaskCtx,
}

/// One window of a sample, and where its rows go among those of its group.
struct Piece {
    sample: usize,
    window: usize,
    first_row: usize,
}

/// Consecutive windows whose rows are in flight together.
struct Group {
    pieces: Vec<Piece>,
    rows: usize,
    /// The sample and window after them.
    next: (usize, usize),
}

impl Group {
    /// Adds a window, whose rows come behind those that are there.
    fn push(&mut self, sample: usize, window: usize, encoded: &Encoded) {
        self.pieces.push(Piece {
            sample,
            window,
            first_row: self.rows,
        });
        self.rows += encoded.window_rows(window);
        self.next = if window + 1 == encoded.windows.len() {
            (sample + 1, 0)
        } else {
            (sample, window + 1)
        };
    }
}

impl<R: Runner> Collector<'_, R> {
    /// Collects the samples from number `from` of the corpus on: while a group is computed, a second
    /// thread writes the one before and syncs it.
    pub(super) fn fill(&self, appender: &mut Appender<'_>, from: usize) -> Result<()> {
        let hooks = appender.study().manifest().hooks.clone();
        let widths = appender.study().manifest().widths.clone();
        let dtype = appender.study().manifest().dtype;
        let row_bytes = 4 * widths.iter().sum::<usize>();
        let budget = self
            .runner
            .batch_tokens()
            .min(BATCH_BYTES / row_bytes.max(1))
            .max(1);
        let mut done: usize = self.encoded[..from].iter().map(Encoded::rows).sum();
        thread::scope(|scope| {
            // A group is handed over when the one before is written: two are in memory at most.
            let (computed, groups) = mpsc::sync_channel(0);
            let (written, spare) = mpsc::channel();
            let writer = scope.spawn(move || self.write(appender, &groups, &written));
            let (mut next, mut portion) = ((from, 0), Portion::new(budget));
            let mut compute = || {
                while next.0 < self.encoded.len() {
                    let group = self.group(next, GROUP_BATCHES * budget);
                    // The memory of a group that is written serves for the next.
                    let mut tap = spare
                        .try_recv()
                        .unwrap_or_else(|_| Capture::new(&hooks, &widths, dtype));
                    tap.begin(group.rows);
                    self.forward(&group, &mut portion, &mut tap, &mut done)?;
                    next = group.next;
                    if computed.send((group, tap)).is_err() {
                        // The writer has ended, and tells why.
                        break;
                    }
                }
                Ok(())
            };
            let outcome = compute();
            drop(computed);
            let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
            // What could not be written came first.
            written.and(outcome)
        })
    }

    /// Stores groups as they come, hands their memory back, and seals them from time to time.
    fn write(
        &self,
        appender: &mut Appender<'_>,
        groups: &mpsc::Receiver<(Group, Capture)>,
        written: &mpsc::Sender<Capture>,
    ) -> Result<()> {
        let mut sealed = Instant::now();
        for (group, tap) in groups {
            self.store(appender, &group, &tap)?;
            // Nobody takes it after the last group.
            let _ = written.send(tap);
            if sealed.elapsed() >= SEAL_EVERY || appender.pending_bytes() >= SEAL_BYTES {
                appender.seal()?;
                sealed = Instant::now();
            }
        }
        Ok(())
    }

    /// Windows from `next` on that together give at most `most` rows, at least one. Whole samples,
    /// or windows of one long sample alone: so the batches after a sample's end do not depend on
    /// what came before it.
    fn group(&self, next: (usize, usize), most: usize) -> Group {
        let mut group = Group {
            pieces: Vec::new(),
            rows: 0,
            next,
        };
        let (first, window) = next;
        let long = &self.encoded[first];
        if long.rows() > most {
            for window in window..long.windows.len() {
                if group.rows > 0 && group.rows + long.window_rows(window) > most {
                    break;
                }
                group.push(first, window, long);
            }
            return group;
        }
        for (sample, encoded) in self.encoded.iter().enumerate().skip(first) {
            if group.rows + encoded.rows() > most {
                break;
            }
            (0..encoded.windows.len()).for_each(|window| group.push(sample, window, encoded));
        }
        group
    }

    /// The tokens of a piece, BOS included.
    fn ids(&self, piece: &Piece) -> &[u32] {
        &self.encoded[piece.sample].windows[piece.window]
    }

    /// Tokens at the start of a piece that are no rows.
    fn skip(&self, piece: &Piece) -> usize {
        usize::from(self.encoded[piece.sample].bos)
    }

    /// Runs a group's windows through the model, batch by batch.
    fn forward(
        &self,
        group: &Group,
        portion: &mut Portion,
        tap: &mut Capture,
        done: &mut usize,
    ) -> Result<()> {
        let mut pieces: Vec<&Piece> = group
            .pieces
            .iter()
            .filter(|p| self.ids(p).len() > self.skip(p))
            .collect();
        // Like lengths together, the longest first: little padding, and memory is met at once.
        // Stable, so repeatable.
        pieces.sort_by_key(|p| std::cmp::Reverse(self.ids(p).len()));
        let mut rest = pieces.as_slice();
        while let Some(longest) = rest.first() {
            let length = self.ids(longest).len();
            let (now, later) = rest.split_at((portion.most() / length).clamp(1, rest.len()));
            let batch = Batch {
                rows: now.iter().map(|p| self.ids(p).to_vec()).collect(),
                samples: now.iter().map(|p| self.first + p.sample).collect(),
            };
            tap.places = now.iter().map(|p| (p.first_row, self.skip(p))).collect();
            tap.seen = 0;
            if let Err(error) = self.runner.forward(&batch, tap, self.ctx) {
                // Rows that the tap has from a part of the pass are written again.
                let taken = (now.len() * length, length);
                portion.shrink(error, self.runner.device(), taken, "tokens")?;
                continue;
            }
            if tap.seen != tap.hooks.len() {
                return Err(Error::refused(format!(
                    "the model called {} of {} hooks",
                    tap.seen,
                    tap.hooks.len()
                )));
            }
            *done += now
                .iter()
                .map(|p| self.ids(p).len() - self.skip(p))
                .sum::<usize>();
            self.ctx.checkpoint(Progress::new(
                "collecting",
                *done as u64,
                self.total as u64,
                "tokens",
            ))?;
            rest = later;
        }
        Ok(())
    }

    /// Hands a group's rows to the study, in order.
    fn store(&self, appender: &mut Appender<'_>, group: &Group, tap: &Capture) -> Result<()> {
        let dtype = appender.study().manifest().dtype;
        for piece in &group.pieces {
            let encoded = &self.encoded[piece.sample];
            let tokens = encoded.tokens(piece.window);
            if let Some(problem) = self.unstorable(piece, &tokens, dtype, tap) {
                return Err(problem);
            }
            let data: Vec<&[u8]> = (0..tap.hooks.len())
                .map(|hook| tap.stored(hook, piece.first_row, tokens.len()))
                .collect();
            let ends = piece.window + 1 == encoded.windows.len();
            appender.push(&tokens, &data, ends, |id| self.runner.piece(id))?;
        }
        Ok(())
    }

    /// Why a window cannot be stored: activations that are not finite, by sample, token and neuron,
    /// since a study would hold them for good, or that are beyond the range of the dtype.
    fn unstorable(
        &self,
        piece: &Piece,
        tokens: &[(u32, u32)],
        dtype: CacheDtype,
        tap: &Capture,
    ) -> Option<Error> {
        let rows = piece.first_row..piece.first_row + tokens.len();
        let of_piece = tap.unstorable.iter().filter(|u| rows.contains(&u.row));
        let first = of_piece.min_by_key(|u| (u.value.is_finite(), u.hook, u.row, u.neuron))?;
        if first.value.is_finite() {
            return Some(dtype.too_large(first.value, first.neuron));
        }
        let (id, position) = tokens[first.row - piece.first_row];
        let text: String = self.samples[piece.sample].text.chars().take(40).collect();
        let hook = tap.hooks[first.hook];
        Some(Error::refused(format!(
            "sample {} ({text:?}): neuron {} of {hook} is {} at token {:?} (position {position}): {}",
            self.first + piece.sample,
            first.neuron,
            first.value,
            self.runner.piece(id),
            self.runner.remedy(hook.layer)
        )))
    }
}
