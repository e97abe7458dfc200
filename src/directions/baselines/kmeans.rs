//! Centroids of k-means (Lloyd's algorithm) as directions: an unsupervised baseline. Unlike the
//! start of a fit, it runs until it converges.

use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

use crate::activations::ActivationSource;
use crate::directions::Directions;
use crate::error::{Error, Result};
use crate::factor::safe_scale;
use crate::matrix::gemm::row_major_product;
use crate::matrix::vector::squared_norm;
use crate::task::{Progress, TaskCtx};

/// The number of rows that are read at a time, and that one parallel task assigns.
const BLOCK_ROWS: usize = 2048;
const TASK_ROWS: usize = 256;
/// The largest number of rounds.
const ROUNDS: usize = 50;
/// The algorithm ends when the scatter falls by less than this share in a round.
const TOLERANCE: f64 = 1e-4;

/// The means of k clusters, k columns of d values. The algorithm starts from k random rows; the
/// centroid of an empty cluster moves to a random row.
///
/// # Errors
/// [`Error::Refused`] when there are fewer rows than clusters; what reading the rows returns;
/// [`Error::Cancelled`].
pub fn directions(
    source: &dyn ActivationSource,
    k: usize,
    seed: u64,
    ctx: &TaskCtx,
) -> Result<Directions> {
    let (n, d) = source.shape();
    if k > n {
        return Err(Error::refused(format!(
            "{k} clusters of {n} rows: ask for {n} at most"
        )));
    }
    let mut rng = Pcg64::seed_from_u64(seed);
    let mut centroids = Vec::with_capacity(k * d);
    for row in index::sample(&mut rng, n, k) {
        centroids.extend_from_slice(&source.rows(row..row + 1)?.data);
    }
    let mut last = f64::INFINITY;
    let scale = safe_scale((squared_norm(&centroids) / (k * d).max(1) as f64).sqrt());
    for round in 0..ROUNDS {
        ctx.checkpoint(Progress::new(
            "k-means",
            round as u64,
            ROUNDS as u64,
            "rounds",
        ))?;
        let (sums, counts, scatter) = assign(source, &centroids, (k, scale), ctx)?;
        for (j, centroid) in centroids.chunks_exact_mut(d.max(1)).enumerate() {
            if counts[j] == 0 {
                let row = rng.random_range(0..n);
                centroid.copy_from_slice(&source.rows(row..row + 1)?.data);
            } else {
                for (c, &s) in centroid.iter_mut().zip(&sums[j * d..]) {
                    *c = (s / counts[j] as f64 / f64::from(scale)) as f32;
                }
            }
        }
        if last - scatter <= TOLERANCE * scatter.abs() {
            break;
        }
        last = scatter;
    }
    Ok(Directions::Dense {
        d,
        columns: centroids,
    })
}

/// Assigns each row to its nearest centroid. Returns the sum and the number of each cluster's rows,
/// and the scatter Σ‖a − c‖², for rows and centroids multiplied by `scale`, a power of two.
fn assign(
    source: &dyn ActivationSource,
    centroids: &[f32],
    (k, scale): (usize, f32),
    ctx: &TaskCtx,
) -> Result<(Vec<f64>, Vec<usize>, f64)> {
    let (n, d) = source.shape();
    let centroids: Vec<f32> = centroids.iter().map(|v| v * scale).collect();
    let by_neuron = transposed(&centroids, d);
    let squares: Vec<f32> = centroids
        .chunks_exact(d.max(1))
        .map(|c| squared_norm(c) as f32)
        .collect();
    let (mut sums, mut counts, mut scatter) = (vec![0.0f64; k * d], vec![0usize; k], 0.0);
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.check()?;
        let mut block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        if scale != 1.0 {
            block.data.to_mut().iter_mut().for_each(|v| *v *= scale);
        }
        let nearest: Vec<Vec<(usize, f32)>> = block
            .data
            .par_chunks(TASK_ROWS * d.max(1))
            .map(|rows| {
                let mut scores = vec![0.0; rows.len() / d * k];
                row_major_product(&mut scores, rows, d, &by_neuron, k);
                scores
                    .chunks_exact(k)
                    .map(|line| nearest(line, &squares))
                    .collect()
            })
            .collect();
        // The rows are added in their order, so that the sums do not depend on the number of
        // threads.
        for (i, (j, distance)) in nearest.into_iter().flatten().enumerate() {
            let row = block.row(i);
            counts[j] += 1;
            scatter += squared_norm(row) + f64::from(distance);
            for (s, &v) in sums[j * d..(j + 1) * d].iter_mut().zip(row) {
                *s += f64::from(v);
            }
        }
    }
    Ok((sums, counts, scatter))
}

/// The index of the nearest centroid, the first of equally near ones, and ‖c‖² − 2 a·c. `scores`
/// are the products a·c, `squares` the ‖c‖² of the centroids.
fn nearest(scores: &[f32], squares: &[f32]) -> (usize, f32) {
    let mut found = (0, f32::INFINITY);
    for (j, (&score, &square)) in scores.iter().zip(squares).enumerate() {
        let distance = square - 2.0 * score;
        if distance < found.1 {
            found = (j, distance);
        }
    }
    found
}

/// The centroids `[k][d]` as `[d][k]`.
fn transposed(centroids: &[f32], d: usize) -> Vec<f32> {
    let k = centroids.len() / d.max(1);
    let mut out = vec![0.0; centroids.len()];
    for (j, c) in centroids.chunks_exact(d.max(1)).enumerate() {
        for (i, &v) in c.iter().enumerate() {
            out[i * k + j] = v;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;

    #[test]
    fn separate_clouds_are_found_and_the_seed_decides() {
        let mut rng = Pcg64::seed_from_u64(1);
        let (n, d) = (600, 8);
        let mut data = vec![0.0f32; n * d];
        for (row, line) in data.chunks_exact_mut(d).enumerate() {
            line.iter_mut()
                .for_each(|v| *v = rng.random_range(-0.1..0.1));
            line[row % 3] += 5.0;
        }
        let source = InMemory::new(n, d, data);
        // Five clusters for three clouds: whatever rows they start from, each cloud has one.
        let found = directions(&source, 5, 3, &TaskCtx::silent()).unwrap();
        let Directions::Dense { columns, .. } = &found else {
            panic!("dense")
        };
        for cloud in 0..3 {
            let near = columns
                .chunks_exact(d)
                .any(|c| (c[cloud] - 5.0).abs() < 0.1);
            assert!(near, "no centroid in cloud {cloud}: {columns:?}");
        }
        assert_eq!(
            found,
            directions(&source, 5, 3, &TaskCtx::silent()).unwrap()
        );
        for by in [2f32.powi(-70), 2f32.powi(70)] {
            let data = source
                .rows(0..n)
                .unwrap()
                .data
                .iter()
                .map(|v| v * by)
                .collect();
            let Directions::Dense {
                columns: scaled, ..
            } = directions(&InMemory::new(n, d, data), 5, 3, &TaskCtx::silent()).unwrap()
            else {
                panic!("dense")
            };
            assert!(
                columns.iter().zip(&scaled).all(|(a, b)| a * by == *b),
                "times {by}"
            );
        }
        assert!(directions(&source, n + 1, 3, &TaskCtx::silent()).is_err());
    }
}
