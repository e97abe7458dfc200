//! How strongly each sentence expresses each direction: s = max over its tokens of cos(a_t, z).
//!
//! Reads the activations once for each strip of directions, sentence by sentence in parallel; holds
//! the scores of a strip and never the whole matrix. Knows no labels.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::split::Sentence;
use crate::activations::ActivationSource;
use crate::directions::Directions;
use crate::error::{Error, Result};
use crate::matrix::gemm::row_major_product;
use crate::task::{Progress, TaskCtx};

/// Rows that a task reads at a time.
const BLOCK_ROWS: usize = 512;
/// Rows of whole sentences that make a task.
const TASK_ROWS: usize = 256;
/// Bytes of scores, and of directions, that a strip may take.
const STRIP_BYTES: usize = 128 << 20;

/// The scores of all sentences on a strip of directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// The directions of the strip.
    pub columns: Range<usize>,
    /// `[sentence][column]`: the largest cosine over the sentence's tokens.
    best: Vec<f32>,
    /// The row of the source where it is; the first of equals.
    row: Vec<u64>,
}

impl Scores {
    /// Sentence `i`'s score on the strip's column `c`, and the row of the source that has it.
    pub fn at(&self, i: usize, c: usize) -> (f32, usize) {
        let at = i * self.columns.len() + c;
        (self.best[at], self.row[at] as usize)
    }
}

/// Gives the scores of `sentences` on all `directions` to `take`, a strip of directions at a time.
/// The scores are the same on any number of threads.
///
/// # Errors
/// [`Error::Usage`] when directions and rows differ in width, [`Error::Cancelled`], and what
/// `source` and `take` return.
pub fn each_strip(
    source: &dyn ActivationSource,
    sentences: &[Sentence],
    directions: &Directions,
    ctx: &TaskCtx,
    mut take: impl FnMut(&Scores) -> Result<()>,
) -> Result<()> {
    let (d, k) = (source.shape().1, directions.count());
    if directions.height() != d {
        return Err(Error::usage(format!(
            "directions of {} neurons on rows of {d}",
            directions.height()
        )));
    }
    let widest = (STRIP_BYTES / (12 * sentences.len()).max(4 * d).max(1)).max(1);
    let strips = k.div_ceil(widest);
    for strip in 0..strips {
        let columns = strip * widest..k.min((strip + 1) * widest);
        let width = columns.len();
        let by_neuron = match directions {
            Directions::Neurons(_) => Vec::new(),
            _ => directions.unit_by_neuron(columns.clone()),
        };
        let mut scores = Scores {
            columns: columns.clone(),
            best: vec![f32::NEG_INFINITY; sentences.len() * width],
            row: vec![0; sentences.len() * width],
        };
        let done = AtomicU64::new((strip * sentences.len()) as u64);
        let total = (strips * sentences.len()) as u64;
        tasks(sentences, width, &mut scores)
            .into_par_iter()
            .try_for_each(|task| {
                let count = task.sentences.len() as u64;
                task.run(source, columns.clone(), &by_neuron, ctx)?;
                let done = done.fetch_add(count, Ordering::Relaxed) + count;
                ctx.checkpoint(Progress::new("scoring sentences", done, total, "sentences"))
            })?;
        take(&scores)?;
    }
    Ok(())
}

/// Some whole sentences, with the slices that their scores are written to.
struct Task<'a> {
    sentences: &'a [Sentence],
    best: &'a mut [f32],
    row: &'a mut [u64],
}

fn tasks<'a>(mut sentences: &'a [Sentence], width: usize, scores: &'a mut Scores) -> Vec<Task<'a>> {
    let (mut best, mut row) = (scores.best.as_mut_slice(), scores.row.as_mut_slice());
    let mut out = Vec::new();
    while !sentences.is_empty() {
        let mut rows = 0;
        let count = sentences.iter().take_while(|s| {
            let more = rows < TASK_ROWS;
            rows += s.rows.len();
            more
        });
        let count = count.count();
        let (part, rest) = sentences.split_at(count);
        let (part_best, rest_best) = best.split_at_mut(count * width);
        let (part_row, rest_row) = row.split_at_mut(count * width);
        out.push(Task {
            sentences: part,
            best: part_best,
            row: part_row,
        });
        (sentences, best, row) = (rest, rest_best, rest_row);
    }
    out
}

impl Task<'_> {
    fn run(
        self,
        source: &dyn ActivationSource,
        columns: Range<usize>,
        by_neuron: &[f32],
        ctx: &TaskCtx,
    ) -> Result<()> {
        let width = columns.len();
        let mut cosines = Vec::new();
        let lines = self
            .best
            .chunks_exact_mut(width)
            .zip(self.row.chunks_exact_mut(width));
        // A block is multiplied once for all sentences in it; sentences may have gaps between them,
        // so a block begins at the first row that the last one does not hold.
        let mut block_start = 0;
        let mut block_rows = 0;
        let last = self.sentences.last().map_or(0, |s| s.rows.end);
        for (sentence, (best, at)) in self.sentences.iter().zip(lines) {
            for row in sentence.rows.clone() {
                if row >= block_start + block_rows || row < block_start {
                    ctx.check()?;
                    (block_start, block_rows) = (row, BLOCK_ROWS.min(last - row));
                    let block = source.rows(row..row + block_rows)?;
                    cosines.clear();
                    cosines.resize(block_rows * width, 0.0);
                    if by_neuron.is_empty() {
                        for (line, a) in cosines
                            .chunks_exact_mut(width)
                            .zip(block.data.chunks_exact(block.cols))
                        {
                            line.copy_from_slice(&a[columns.clone()]);
                        }
                    } else {
                        row_major_product(&mut cosines, &block.data, block.cols, by_neuron, width);
                    }
                    divide_by_norms(&mut cosines, width, &block.data, block.cols);
                }
                let line = &cosines[(row - block_start) * width..][..width];
                for ((b, r), &cosine) in best.iter_mut().zip(at.iter_mut()).zip(line) {
                    if cosine > *b {
                        (*b, *r) = (cosine, row as u64);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Divides each row's products by the row's norm; a row of zeros has cosine 0 with everything.
fn divide_by_norms(products: &mut [f32], width: usize, rows: &[f32], d: usize) {
    for (line, a) in products.chunks_exact_mut(width).zip(rows.chunks_exact(d)) {
        let square: f64 = a.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let scale = if square > 0.0 {
            (1.0 / square.sqrt()) as f32
        } else {
            0.0
        };
        line.iter_mut().for_each(|v| *v *= scale);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::activations::InMemory;
    use crate::directions::baselines::random;

    fn sentence(rows: Range<usize>) -> Sentence {
        Sentence {
            rows,
            label: None,
            held_out: false,
        }
    }

    #[test]
    fn a_score_is_the_largest_cosine_of_the_sentence() {
        let (n, d, k) = (1300, 20, 7);
        let mut rng = Pcg64::seed_from_u64(5);
        let mut data: Vec<f32> = (0..n * d).map(|_| rng.random_range(-1.0..1.0)).collect();
        data[..d].fill(0.0);
        let source = InMemory::new(n, d, data.clone());
        // A row of zeros alone, a sentence of several blocks, gaps.
        let sentences = vec![
            sentence(0..1),
            sentence(1..1200),
            sentence(1210..1211),
            sentence(1250..1300),
        ];
        let sparse = random::directions(d, k, 3, 1);
        let z = sparse.to_sparse();
        for directions in [sparse.clone(), Directions::Neurons(d)] {
            let mut seen = 0;
            each_strip(
                &source,
                &sentences,
                &directions,
                &TaskCtx::silent(),
                |scores| {
                    for c in scores.columns.clone() {
                        let column = match directions {
                            Directions::Neurons(_) => {
                                (0..d).map(|i| f32::from(u8::from(i == c))).collect()
                            }
                            _ => z.dense_column(c),
                        };
                        for (i, s) in sentences.iter().enumerate() {
                            let cosine = |row: usize| {
                                let a = &data[row * d..(row + 1) * d];
                                let norm = a.iter().map(|v| v * v).sum::<f32>().sqrt();
                                a.iter().zip(&column).map(|(a, z)| a * z).sum::<f32>()
                                    / norm.max(1e-9)
                            };
                            let expected =
                                s.rows.clone().map(cosine).fold(f32::NEG_INFINITY, f32::max);
                            let (score, row) = scores.at(i, c);
                            assert!((score - expected).abs() < 1e-5, "{score} {expected}");
                            assert!(s.rows.contains(&row) && (cosine(row) - expected).abs() < 1e-5);
                        }
                        seen += 1;
                    }
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(seen, directions.count());
        }
    }

    #[test]
    fn widths_that_differ_are_refused() {
        let source = InMemory::new(2, 3, vec![1.0; 6]);
        let error = each_strip(
            &source,
            &[sentence(0..2)],
            &Directions::Neurons(4),
            &TaskCtx::silent(),
            |_| Ok(()),
        );
        assert!(matches!(error, Err(Error::Usage(_))));
    }
}
