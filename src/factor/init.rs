//! The initialisation of a fit: coefficients Y, from which every solver computes its first
//! features. Knows nothing of sweeps.

use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64;
use rayon::prelude::*;

use super::bcd::one_hot_sums;
use super::device::Accelerator;
use super::panels::Panels;
use super::pass::{Columns, Gather, PassSums};
use super::state::State;
use super::stream::Stream;
use super::{Init, Solver};
use crate::activations::InMemory;
use crate::error::{Error, Result};
use crate::matrix::aligned::AlignedVec;
use crate::matrix::panel::PANEL;
use crate::matrix::{dense, gemm};
use crate::task::{Progress, TaskCtx};

/// The least initial coefficient for `mu`, whose multiplicative rule cannot leave zero.
const FLOOR: f32 = 1e-6;
/// The rounds of k-means for `mu`, as in the code of Shafran, Geiger, Geva, and for `bcd`, whose
/// final error is as low after 2 rounds as after 15. There is no rule to stop earlier: until at
/// least the 8th round each lowers the scatter within clusters by more than a thousandth (8,070
/// rows of 1,536 neurons; 20, 100 and 400 clusters, two seeds each), so a rule would save `bcd`
/// nothing and would make the start of `mu` differ from the paper's.
const KMEANS_ROUNDS: [usize; 2] = [15, 3];
/// The bytes of rows that k-means uses in its rounds; a larger source is sampled.
const KMEANS_BYTES: usize = 256 << 20;
/// The rounds of subspace iteration, and the dimensions that the subspace has beyond k.
const SUBSPACE_ROUNDS: usize = 4;
const OVERSAMPLING: usize = 10;

/// The initial coefficients and their sums; `rms` is the root mean square of the prepared rows.
pub(crate) fn initial_state(
    stream: &Stream<'_>,
    k: usize,
    init: Init,
    solver: Solver,
    seed: u64,
    rms: f64,
    device: Option<&Accelerator>,
    ctx: &TaskCtx,
) -> Result<State> {
    let mut rng = Pcg64::seed_from_u64(seed);
    let floor = if solver == Solver::Mu { FLOOR } else { 0.0 };
    let y = match init {
        Init::Random => random_coefficients(stream, k, &mut rng)?,
        Init::Kmeans => {
            let clusters = kmeans(
                stream,
                k,
                KMEANS_ROUNDS[usize::from(solver == Solver::Bcd)],
                &mut rng,
                device,
                ctx,
            )?;
            let y = clusters.one_hot(stream, floor)?;
            if solver == Solver::Bcd {
                let sums = one_hot_sums(
                    clusters.sums,
                    &clusters.counts,
                    stream.n.div_ceil(PANEL) * PANEL,
                );
                return Ok(State::new(y, sums));
            }
            y
        }
        Init::Svd => svd_coefficients(stream, k, floor, rms, &mut rng, ctx)?,
    };
    from_coefficients(stream, y, device, ctx)
}

/// A state with the coefficients `y` and no features; the sums are computed in one pass over A.
pub(crate) fn from_coefficients(
    stream: &Stream<'_>,
    y: Panels,
    device: Option<&Accelerator>,
    ctx: &TaskCtx,
) -> Result<State> {
    if let Some(device) = device {
        let mut state = State::new(y, PassSums::default());
        device.upload_coefficients(&mut state)?;
        let mut after = State::default();
        device.pass(stream, ctx, &state, &mut after, None, Gather::Dense)?;
        state.sums = after.sums;
        return Ok(state);
    }
    let mut copy = stream.zero_coefficients(y.k)?;
    let mut sums = PassSums::default();
    stream.pass(
        ctx,
        &y,
        &mut copy,
        &Columns::None,
        Gather::Dense,
        &mut sums,
        &|_, _| (),
    )?;
    Ok(State::new(y, sums))
}

/// Y uniform between 0 and 1, at least [`FLOOR`].
fn random_coefficients(stream: &Stream<'_>, k: usize, rng: &mut Pcg64) -> Result<Panels> {
    let mut y = stream.zero_coefficients(k)?;
    for row in 0..stream.n {
        for j in 0..k {
            y.set(row, j, rng.random::<f32>().max(FLOOR));
        }
    }
    Ok(y)
}

/// The clusters that rows are assigned to.
pub(super) struct Clusters {
    /// The cluster of each row.
    pub(super) labels: Vec<u32>,
    /// The sum of the rows of each cluster, `[k][d]`.
    pub(super) sums: Vec<f32>,
    /// The number of rows of each cluster.
    pub(super) counts: Vec<f64>,
}

impl Clusters {
    /// Y with 1 at each row's cluster and `floor` everywhere else.
    fn one_hot(&self, stream: &Stream<'_>, floor: f32) -> Result<Panels> {
        let k = self.counts.len();
        let mut y = stream.zero_coefficients(k)?;
        for (row, &label) in self.labels.iter().enumerate() {
            if floor > 0.0 {
                (0..k).for_each(|j| y.set(row, j, floor));
            }
            y.set(row, label as usize, 1.0);
        }
        Ok(y)
    }

    /// The mean of each cluster, `[k][d]`; an empty cluster takes a random row of the source.
    fn centroids(&self, stream: &Stream<'_>, rng: &mut Pcg64) -> Result<Vec<f32>> {
        let d = stream.d;
        let mut out = self.sums.clone();
        for (j, line) in out.chunks_exact_mut(d).enumerate() {
            if self.counts[j] == 0.0 {
                line.copy_from_slice(&stream.row(rng.random_range(0..stream.n))?);
            } else {
                let share = (1.0 / self.counts[j]) as f32;
                line.iter_mut().for_each(|v| *v *= share);
            }
        }
        Ok(out)
    }
}

/// Lloyd's algorithm from k random rows, on a sample of a large source; then assigns every row to
/// its nearest centroid.
fn kmeans(
    stream: &Stream<'_>,
    k: usize,
    rounds: usize,
    rng: &mut Pcg64,
    device: Option<&Accelerator>,
    ctx: &TaskCtx,
) -> Result<Clusters> {
    let (n, d) = (stream.n, stream.d);
    let sample = sampled_rows(n, d, k)
        .map(|count| gather_rows(stream, count, rng, ctx))
        .transpose()?;
    let sampled = sample.as_ref().map(|s| Stream::new(s));
    let part = sampled.as_ref().unwrap_or(stream);
    let sample_device = device
        .filter(|_| sampled.is_some())
        .map(Accelerator::for_sample);
    let part_device = sample_device.as_ref().or(device);
    let mut centroids = Vec::with_capacity(k * d);
    for row in index::sample(rng, part.n, k) {
        centroids.extend(part.row(row)?);
    }
    for round in 0..rounds {
        ctx.checkpoint(Progress::new(
            "k-means start",
            round as u64,
            rounds as u64,
            "rounds",
        ))?;
        let clusters = assign(part, &centroids, k, part_device, ctx)?;
        if sampled.is_none() && round + 1 == rounds {
            return Ok(clusters);
        }
        centroids = clusters.centroids(part, rng)?;
    }
    assign(stream, &centroids, k, device, ctx)
}

/// The number of rows that the rounds of k-means sample from n × d activations; `None`: they use
/// all rows.
pub(crate) fn sampled_rows(n: usize, d: usize, k: usize) -> Option<usize> {
    let most = (KMEANS_BYTES / (4 * d.max(1))).max(20 * k);
    (n > most).then_some(most)
}

/// `count` random rows, in their order in the source so that a file is read forwards.
fn gather_rows(
    stream: &Stream<'_>,
    count: usize,
    rng: &mut Pcg64,
    ctx: &TaskCtx,
) -> Result<InMemory> {
    let mut rows = index::sample(rng, stream.n, count).into_vec();
    rows.sort_unstable();
    let mut data = AlignedVec::with_capacity(count * stream.d);
    for row in rows {
        ctx.check()?;
        data.extend_from_slice(&stream.row(row)?);
    }
    Ok(InMemory::from_aligned(count, stream.d, data))
}

/// Assigns each row to its nearest centroid.
fn assign(
    stream: &Stream<'_>,
    centroids: &[f32],
    k: usize,
    device: Option<&Accelerator>,
    ctx: &TaskCtx,
) -> Result<Clusters> {
    const STRIP: usize = 256;
    let d = stream.d;
    let squares: Vec<f32> = centroids
        .chunks_exact(d)
        .map(|c| c.iter().map(|v| v * v).sum::<f32>() / 2.0)
        .collect();
    if let Some(device) = device {
        return device.assign(stream, centroids, &squares, ctx);
    }
    let mut out = Clusters {
        labels: Vec::with_capacity(stream.n),
        sums: vec![0.0; k * d],
        counts: vec![0.0; k],
    };
    stream.for_each_block(ctx, |_, block| {
        let nearest: Vec<Vec<u32>> = block
            .data
            .par_chunks(PANEL * d)
            .map(|rows| {
                stream.with_products(rows, centroids, |scores| {
                    nearest(scores, &squares, rows.len() / d)
                })
            })
            .collect();
        let first = out.labels.len();
        for label in nearest.into_iter().flatten() {
            out.labels.push(label);
            out.counts[label as usize] += 1.0;
        }
        let labels = &out.labels[first..];
        // Strips of neurons in parallel, each adding the rows in order: the sums do not depend on
        // the number of threads.
        gemm::for_each_strip(&mut out.sums, d, STRIP, |start, mut strip| {
            for (row, &label) in block.data.chunks_exact(d).zip(labels) {
                let sums = strip.row_mut(label as usize);
                sums.iter_mut()
                    .zip(&row[start..])
                    .for_each(|(v, a)| *v += a);
            }
        });
        Ok(())
    })?;
    Ok(out)
}

/// For each row of a panel the index of the nearest centroid, that with the largest a·c − ‖c‖²/2;
/// of equal ones the first. `scores` are the products `[k][PANEL]`, `squares` the k values ‖c‖²/2.
fn nearest(scores: &[f32], squares: &[f32], rows: usize) -> Vec<u32> {
    let mut best = vec![(0u32, f32::NEG_INFINITY); rows];
    for (j, line) in scores.chunks_exact(PANEL).enumerate() {
        for (b, &s) in best.iter_mut().zip(line) {
            let score = s - squares[j];
            if score > b.1 {
                *b = (j as u32, score);
            }
        }
    }
    best.into_iter().map(|(label, _)| label).collect()
}

/// Y = max(U√Σ, `floor`) of the truncated SVD A = UΣVᵀ, of A scaled to unit root mean square.
/// Computed by randomised subspace iteration (Halko, Martinsson, Tropp 2011); the sign of each pair
/// is chosen such that the heavier half of U's column is positive.
fn svd_coefficients(
    stream: &Stream<'_>,
    k: usize,
    floor: f32,
    rms: f64,
    rng: &mut Pcg64,
    ctx: &TaskCtx,
) -> Result<Panels> {
    let (n, d) = (stream.n, stream.d);
    let rank = k.min(d).min(n);
    let dimensions = (rank + OVERSAMPLING).min(d).min(n);
    let mut basis: Vec<f32> = (0..dimensions * d)
        .map(|_| rng.sample::<f32, _>(StandardNormal))
        .collect();
    let diverged = || Error::refused("the SVD start did not converge; start with --init kmeans");
    dense::orthonormalise(&mut basis, dimensions, d).ok_or_else(diverged)?;
    let zeros = stream.zero_coefficients(dimensions)?;
    let mut projected = stream.zero_coefficients(dimensions)?;
    let mut sums = PassSums::default();
    let copy = |y: &mut [f32], p: &[f32]| y.copy_from_slice(p);
    for round in 0..=SUBSPACE_ROUNDS {
        ctx.checkpoint(Progress::new(
            "SVD start",
            round as u64,
            SUBSPACE_ROUNDS as u64 + 1,
            "rounds",
        ))?;
        stream.pass(
            ctx,
            &zeros,
            &mut projected,
            &Columns::Dense(&basis),
            Gather::Dense,
            &mut sums,
            &copy,
        )?;
        if round < SUBSPACE_ROUNDS {
            basis.copy_from_slice(&sums.products);
            dense::orthonormalise(&mut basis, dimensions, d).ok_or_else(diverged)?;
        }
    }
    let (values, vectors) = dense::eigen_symmetric(&sums.gram, dimensions).ok_or_else(diverged)?;
    let mut y = stream.zero_coefficients(k)?;
    left_singular_coefficients(&mut y, &projected, &values[..rank], &vectors, (floor, rms));
    Ok(y)
}

/// Writes U√Σ = (A·basis) v / √σ into `y`, clamped to at least `floor`. `projected` is A·basis,
/// `squares` and `vectors` are the eigenpairs (σ², v) of its Gram matrix, and A is taken in units
/// of `rms`.
fn left_singular_coefficients(
    y: &mut Panels,
    projected: &Panels,
    squares: &[f64],
    vectors: &[f64],
    (floor, rms): (f32, f64),
) {
    let (k, dimensions, n) = (y.k, projected.k, projected.rows);
    // Columns beyond the rank have no vector and stay at the floor.
    let mut columns = vec![0.0f32; k * dimensions];
    for (j, &square) in squares.iter().enumerate() {
        let scale = if square > 0.0 {
            (square / (rms * rms)).powf(-0.25) / rms
        } else {
            0.0
        };
        let vector = &vectors[j * dimensions..(j + 1) * dimensions];
        columns[j * dimensions..(j + 1) * dimensions]
            .iter_mut()
            .zip(vector)
            .for_each(|(c, v)| *c = (v * scale) as f32);
    }
    let halves: Vec<Vec<f64>> = y
        .data
        .par_chunks_mut(k * PANEL)
        .zip(projected.data.par_chunks(dimensions * PANEL))
        .map(|(y, p)| {
            dense::project(y, p, &columns, dimensions);
            // The squared norm of the positive half minus that of the negative half.
            let signed = |line: &[f32]| {
                line.iter()
                    .map(|&v| f64::from(v) * f64::from(v.abs()))
                    .sum()
            };
            y.chunks_exact(PANEL).map(signed).collect()
        })
        .collect();
    let mut balance = vec![0.0f64; k];
    halves
        .iter()
        .for_each(|half| balance.iter_mut().zip(half).for_each(|(b, v)| *b += v));
    y.data
        .par_chunks_mut(k * PANEL)
        .enumerate()
        .for_each(|(i, panel)| {
            let rows = PANEL.min(n - i * PANEL);
            for (line, &b) in panel.chunks_exact_mut(PANEL).zip(&balance) {
                let sign = if b < 0.0 { -1.0 } else { 1.0 };
                line[..rows]
                    .iter_mut()
                    .for_each(|v| *v = (*v * sign).max(floor));
            }
        });
}
