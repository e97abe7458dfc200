//! A linear probe, a supervised baseline: the weights of a logistic regression that separates a
//! label's tokens from all others.

use crate::activations::ActivationSource;
use crate::directions::Directions;
use crate::error::Result;
use crate::matrix::gemm::{View, product};
use crate::matrix::vector::squared_norm;
use crate::task::{Progress, TaskCtx};

const BLOCK_ROWS: usize = 1024;
/// The penalty on ½‖v‖², in units of the rows' mean squared norm.
const RIDGE: f64 = 1e-3;
/// The number of passes over the rows, one gradient step each.
const PASSES: usize = 150;

/// One direction per label: the v_l that minimises Σ w_i ln(1 + exp(−y_i (⟨x_i, v⟩ + b))) + ½λ‖v‖²,
/// y_i = 1 for the rows of label l and −1 for the others, with weights w_i that sum to ½ over
/// either side, and λ a thousandth of the rows' mean squared norm (logistic regression as in
/// AxBench, arXiv 2501.17148). All labels are fitted together by accelerated gradient steps
/// (Nesterov). A label that has no rows, or all rows, gets a column of zeros.
///
/// # Errors
/// What reading the rows returns; [`Error::Cancelled`](crate::Error::Cancelled).
pub fn directions(
    source: &dyn ActivationSource,
    labels: &[Option<u32>],
    count: usize,
    ctx: &TaskCtx,
) -> Result<Directions> {
    let (n, d) = source.shape();
    let label_counts = LabelCounts::count(labels, count, n);
    let mut norms = vec![0.0f64; n];
    for_each_block(source, ctx, |start, rows| {
        for (norm, row) in norms[start..].iter_mut().zip(rows.chunks_exact(d.max(1))) {
            *norm = squared_norm(row);
        }
    })?;
    let mean = norms.iter().sum::<f64>() / n.max(1) as f64;
    if mean == 0.0 || count == 0 {
        return Ok(zeros(d, count));
    }
    let ridge = RIDGE * mean;
    // The second derivative of the logistic loss is at most ¼; the offset is a coordinate with the
    // value √mean in every row. The step is the inverse of the resulting bound of the curvature.
    let curvature = |label: usize| {
        let terms = norms.iter().enumerate();
        let sum: f64 = terms
            .map(|(i, norm)| label_counts.weight(label, labels[i]) * (norm + mean))
            .sum();
        0.25 * sum + ridge
    };
    let steps: Vec<f64> = (0..count).map(|l| 1.0 / curvature(l)).collect();
    let width = d + 1;
    let loss = Loss {
        labels,
        label_counts,
        offset: mean.sqrt() as f32,
        d,
        count,
    };
    let (mut weights, mut extrapolated) =
        (vec![0.0f32; count * width], vec![0.0f32; count * width]);
    for pass in 0..PASSES {
        ctx.checkpoint(Progress::new(
            "fitting probes",
            pass as u64,
            PASSES as u64,
            "passes",
        ))?;
        let mut gradient = vec![0.0f32; count * width];
        for_each_block(source, ctx, |start, rows| {
            loss.add_gradient(start, rows, &extrapolated, &mut gradient);
        })?;
        for (l, step) in steps.iter().enumerate() {
            // Nesterov's momentum for a strongly convex objective of this condition number.
            let root = (step * ridge).sqrt();
            let momentum = ((1.0 - root) / (1.0 + root)) as f32;
            let (step, ridge) = (*step as f32, ridge as f32);
            for i in l * width..(l + 1) * width {
                let shrink = if i == l * width + d { 0.0 } else { ridge };
                let next = extrapolated[i] - step * (gradient[i] + shrink * extrapolated[i]);
                extrapolated[i] = next + momentum * (next - weights[i]);
                weights[i] = next;
            }
        }
    }
    let columns = weights.chunks_exact(width).flat_map(|v| &v[..d]).copied();
    Ok(Directions::Dense {
        d,
        columns: columns.collect(),
    })
}

/// The loss of all labels without the penalty. A point has d weights and the coefficient of the offset
/// for each label, `[count][d + 1]`.
struct Loss<'a> {
    labels: &'a [Option<u32>],
    label_counts: LabelCounts,
    /// The value of the offset's coordinate in every row.
    offset: f32,
    d: usize,
    count: usize,
}

impl Loss<'_> {
    /// Adds the gradient at `point` over the rows from index `start` on to `gradient`.
    fn add_gradient(&self, start: usize, rows: &[f32], point: &[f32], gradient: &mut [f32]) {
        let (d, count, width) = (self.d, self.count, self.d + 1);
        let row_count = rows.len() / d.max(1);
        let rows = View::rows(rows, d);
        let mut slopes = vec![0.0f32; row_count * count];
        let weights = View::transposed(point, width);
        let shape = (row_count, d, count);
        product(shape, rows, weights, &mut slopes, count, false, true);
        let mut sums = vec![0.0f32; count];
        // Each margin is replaced by the derivative of the loss by it.
        for (i, slopes) in slopes.chunks_exact_mut(count).enumerate() {
            let row_label = self.labels[start + i];
            for (l, slope) in slopes.iter_mut().enumerate() {
                let margin = f64::from(*slope + self.offset * point[l * width + d]);
                *slope = self.label_counts.slope(l, row_label, margin) as f32;
                sums[l] += *slope;
            }
        }
        let by_label = View::transposed(&slopes, count);
        let shape = (count, row_count, d);
        product(shape, by_label, rows, gradient, width, true, true);
        for (l, sum) in sums.iter().enumerate() {
            gradient[l * width + d] += self.offset * sum;
        }
    }
}

fn zeros(d: usize, count: usize) -> Directions {
    Directions::Dense {
        d,
        columns: vec![0.0; count * d],
    }
}

/// The number of rows of each label, and of all rows.
struct LabelCounts {
    inside: Vec<usize>,
    rows: usize,
}

impl LabelCounts {
    fn count(labels: &[Option<u32>], count: usize, rows: usize) -> Self {
        let mut inside = vec![0; count];
        for label in labels.iter().take(rows).flatten() {
            if let Some(count) = inside.get_mut(*label as usize) {
                *count += 1;
            }
        }
        Self { inside, rows }
    }

    /// The weight of a row in the loss of a label: each side weighs one half.
    fn weight(&self, label: usize, row_label: Option<u32>) -> f64 {
        let inside = self.inside[label];
        let own = row_label == Some(label as u32);
        let side = if own { inside } else { self.rows - inside };
        if inside == 0 || inside == self.rows {
            0.0
        } else {
            0.5 / side as f64
        }
    }

    /// The derivative of the row's loss by its margin: −w y / (1 + exp(y · margin)).
    fn slope(&self, label: usize, row_label: Option<u32>, margin: f64) -> f64 {
        let y = if row_label == Some(label as u32) {
            1.0
        } else {
            -1.0
        };
        -self.weight(label, row_label) * y / (1.0 + (y * margin).exp())
    }
}

/// Calls `f` with the index of the first row and the values of each block of rows.
fn for_each_block(
    source: &dyn ActivationSource,
    ctx: &TaskCtx,
    mut f: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let n = source.shape().0;
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.check()?;
        let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        f(start, &block.data);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;
    use crate::activations::InMemory;

    const D: usize = 5;

    fn rows(n: usize) -> (Vec<f32>, Vec<Option<u32>>) {
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let labels: Vec<Option<u32>> = (0..n).map(|i| [Some(0), Some(1), None][i % 3]).collect();
        let value = |i: usize, j: usize, rng: &mut Pcg64Mcg| {
            let own = if labels[i] == Some(j as u32) {
                1.5
            } else {
                0.0
            };
            own + rng.random_range(-1.0f32..1.0) + 0.5
        };
        let data = (0..n)
            .flat_map(|i| (0..D).map(move |j| (i, j)))
            .map(|(i, j)| value(i, j, &mut rng));
        (data.collect(), labels.clone())
    }

    /// The gradient of the penalised loss by the plain formula in f64, at v and the best offset, which
    /// is found by bisection.
    fn gradient(data: &[f32], labels: &[Option<u32>], label: u32, v: &[f64]) -> Vec<f64> {
        let n = labels.len();
        let inside = labels.iter().filter(|l| **l == Some(label)).count();
        let mean = data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
        let slope = |i: usize, b: f64| {
            let (y, w) = match labels[i] == Some(label) {
                true => (1.0, 0.5 / inside as f64),
                false => (-1.0, 0.5 / (n - inside) as f64),
            };
            let row = &data[i * D..(i + 1) * D];
            let margin: f64 = row
                .iter()
                .zip(v)
                .map(|(&x, v)| f64::from(x) * v)
                .sum::<f64>()
                + b;
            -w * y / (1.0 + (y * margin).exp())
        };
        let (mut low, mut high) = (-50.0, 50.0);
        for _ in 0..100 {
            let b = (low + high) / 2.0;
            match (0..n).map(|i| slope(i, b)).sum::<f64>() < 0.0 {
                true => low = b,
                false => high = b,
            }
        }
        let by = |j: usize| {
            let loss: f64 = (0..n)
                .map(|i| slope(i, low) * f64::from(data[i * D + j]))
                .sum();
            loss + RIDGE * mean * v[j]
        };
        (0..D).map(by).collect()
    }

    #[test]
    fn the_gradient_of_the_penalised_loss_is_zero_at_the_probe() {
        let (data, labels) = rows(300);
        let source = InMemory::new(300, D, data.clone());
        let Directions::Dense { columns, .. } =
            directions(&source, &labels, 3, &TaskCtx::silent()).unwrap()
        else {
            panic!("dense");
        };
        for label in 0..2u32 {
            let v: Vec<f64> = columns[label as usize * D..][..D]
                .iter()
                .map(|&v| f64::from(v))
                .collect();
            let flat = |v: &[f64]| {
                let g = gradient(&data, &labels, label, v);
                g.iter().map(|g| g * g).sum::<f64>().sqrt()
            };
            let at_zero = flat(&[0.0; D]);
            assert!(flat(&v) < 0.01 * at_zero, "{} of {at_zero}", flat(&v));
            let largest = (0..D).max_by(|&a, &b| v[a].total_cmp(&v[b])).unwrap();
            assert_eq!(largest, label as usize, "{v:?}");
        }
        // A label without rows has no probe.
        assert_eq!(columns[2 * D..], [0.0; D]);
    }
}
