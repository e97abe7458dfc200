//! Products of rows with sparse columns, straight from the rows: a group of neurons is turned in registers, used while it is in
//! the first cache and forgotten, so that a panel is never written.

use super::panel::{PANEL, VECTORS, line, put};
use super::simd::{Vector, kernel};
use super::transpose::{GROUP, group_lines};

/// Sparse columns by neuron.
#[derive(Debug, Clone, Default)]
pub struct ByNeuron {
    /// Neuron i's entries are `offsets[i]..offsets[i + 1]`; one offset more than there are neurons.
    pub offsets: Vec<usize>,
    /// Each entry's column.
    pub columns: Vec<u32>,
    /// Each entry's value.
    pub values: Vec<f32>,
}

/// Groups between a cache line's being asked for and its use: rows are more streams than a processor follows by itself.
const AHEAD: usize = 8;

impl ByNeuron {
    fn neurons(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Lays the neurons from `first` on, [`GROUP`] at most, into `lines`; the number of them, 0 where none has an entry.
    #[inline(always)]
    fn group<V: Vector>(&self, first: usize, rows: &[f32], lines: &mut [f32]) -> usize {
        let d = self.neurons();
        let last = d.min(first + GROUP);
        if self.offsets[first] == self.offsets[last] {
            return 0;
        }
        for row in rows.chunks_exact(d) {
            V::prefetch(row.as_ptr().wrapping_add(first + AHEAD * GROUP));
        }
        group_lines::<V>(&mut lines[..(last - first) * PANEL], rows, d, first);
        last - first
    }
}

kernel! {
    /// `out[j] = Σ_i Z_ij · rows_i`, `[k][PANEL]`, of at most [`PANEL`] rows: P = A Z.
    pub fn project(out: &mut [f32], rows: &[f32], columns: &ByNeuron) = project_body;
}

#[inline(always)]
fn project_body<V: Vector>(out: &mut [f32], rows: &[f32], columns: &ByNeuron) {
    out.fill(0.0);
    let mut lines = [0.0; GROUP * PANEL];
    for first in (0..columns.neurons()).step_by(GROUP) {
        for i in 0..columns.group::<V>(first, rows, &mut lines) {
            let neuron = line::<V>(&lines, i);
            let span = columns.offsets[first + i]..columns.offsets[first + i + 1];
            for (&j, &v) in columns.columns[span.clone()].iter().zip(&columns.values[span]) {
                let (mut sum, v) = (line::<V>(out, j as usize), V::splat(v));
                for c in 0..VECTORS {
                    sum[c] = sum[c].add_product(neuron[c], v);
                }
                put(out, j as usize, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::simd::Portable;

    #[test]
    fn the_product_follows_the_formula() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        for (n, d, k) in [(PANEL, 53, 7), (13, 40, 3), (1, 5, 1)] {
            let rows: Vec<f32> = (0..n * d).map(value).collect();
            // No entry in the first 16 neurons, which are passed over.
            let places: Vec<(usize, usize)> = (0..d)
                .flat_map(|i| (0..k).map(move |j| (i, j)))
                .filter(|(i, j)| d == 5 || *i > 20 && (i + j) % 3 == 0)
                .collect();
            let mut columns = ByNeuron { offsets: vec![0], ..ByNeuron::default() };
            for i in 0..d {
                for (position, &(_, j)) in places.iter().enumerate().filter(|(_, p)| p.0 == i) {
                    columns.columns.push(j as u32);
                    columns.values.push(value(position + 3));
                }
                columns.offsets.push(columns.columns.len());
            }
            for portable in [false, true] {
                let mut p = vec![f32::NAN; k * PANEL];
                if portable {
                    project_body::<Portable>(&mut p, &rows, &columns);
                } else {
                    project(&mut p, &rows, &columns);
                }
                for j in 0..k {
                    for r in 0..PANEL {
                        let own = places.iter().enumerate().filter(|(_, p)| p.1 == j && r < n);
                        let want: f32 = own.map(|(q, p)| value(q + 3) * rows[r * d + p.0]).sum();
                        assert!((p[j * PANEL + r] - want).abs() < 1e-5, "{n} × {d}: ({r}, {j})");
                    }
                }
            }
        }
    }
}
