//! Difference in means, the supervised baseline: the mean over a concept's tokens minus the mean
//! over all others.

use crate::activations::ActivationSource;
use crate::directions::Directions;
use crate::error::Result;
use crate::task::TaskCtx;

const BLOCK_ROWS: usize = 1024;

/// One direction per label: w_l = mean of the rows of label l − mean of the other rows (AxBench,
/// arXiv 2501.17148). `labels[row]` is the label of a row of `source`; rows without a label count
/// as other rows for every label. Computed in one pass, with sums in f64. A label that has no rows,
/// or all rows, gets a column of zeros.
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
    let mut sums = vec![0.0f64; count * d];
    let mut total = vec![0.0f64; d];
    let mut counts = vec![0usize; count];
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.check()?;
        let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        for i in 0..block.rows {
            let row = block.row(i);
            add(&mut total, row);
            if let Some(label) = labels[start + i].map(|l| l as usize).filter(|&l| l < count) {
                counts[label] += 1;
                add(&mut sums[label * d..(label + 1) * d], row);
            }
        }
    }
    let mut columns = vec![0.0f32; count * d];
    for (label, column) in columns.chunks_exact_mut(d.max(1)).enumerate() {
        let (inside, outside) = (counts[label], n - counts[label]);
        if inside == 0 || outside == 0 {
            continue;
        }
        for ((w, &sum), &all) in column.iter_mut().zip(&sums[label * d..]).zip(&total) {
            *w = (sum / inside as f64 - (all - sum) / outside as f64) as f32;
        }
    }
    Ok(Directions::Dense { d, columns })
}

/// `sums += row`.
fn add(sums: &mut [f64], row: &[f32]) {
    for (s, &v) in sums.iter_mut().zip(row) {
        *s += f64::from(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;

    #[test]
    fn a_direction_is_the_difference_of_the_two_means() {
        let source = InMemory::new(4, 2, vec![1.0, 0.0, 3.0, 2.0, 0.0, 4.0, 2.0, 0.0]);
        let labels = [Some(0), Some(0), None, Some(1)];
        let Directions::Dense { columns, .. } =
            directions(&source, &labels, 3, &TaskCtx::silent()).unwrap()
        else {
            panic!("dense");
        };
        // Label 0: (2, 1) − (1, 2). Label 1: (2, 0) − (4/3, 2). Label 2 has no rows.
        assert_eq!(columns[..2], [1.0, -1.0]);
        assert!((columns[2] - 2.0 / 3.0).abs() < 1e-6 && (columns[3] + 2.0).abs() < 1e-6);
        assert_eq!(columns[4..], [0.0, 0.0]);
    }
}
