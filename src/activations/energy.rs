//! The energy (sum of squares) of each neuron and of the strongest rows, and whether few of them
//! have most of it.
//!
//! A fit lowers a sum of squares: if one neuron has most of ‖A‖², features are spent on that
//! neuron, and a small relative error says little about all others. Knows nothing of fits.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ActivationSource;
use crate::error::Result;
use crate::task::{Progress, TaskCtx};

/// A single neuron or row with at least this share of ‖A‖² is reported.
const SINGLE_SHARE: f64 = 0.1;
/// [`MAX_MEMBERS`] neurons or rows that have at least this share together are reported.
const JOINT_SHARE: f64 = 0.5;
/// The largest number of neurons or rows that are reported.
const MAX_MEMBERS: usize = 10;
/// A share is reported only if it is this many times what the same number of members would have if
/// the energy were uniform.
const UNIFORM_FACTOR: f64 = 5.0;
/// The number of rows that one task sums, and that are read at a time.
const PIECE_ROWS: usize = 256;
const BLOCK_ROWS: usize = 4096;

/// The sums of squares of an activation matrix.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Energy {
    /// The number of rows that were added.
    pub rows: usize,
    /// Σ a² of each neuron over the rows.
    pub neurons: Vec<f64>,
    /// The indices and ‖a‖² of the rows with the largest ‖a‖², largest first, at most ten.
    pub strongest: Vec<(usize, f64)>,
}

/// Whether neurons or rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The columns of A, which are neurons.
    Neurons,
    /// Rows of A, which are tokens.
    Rows,
}

/// A few neurons or rows that have much of ‖A‖².
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Concentration {
    /// Whether the members are neurons or rows.
    pub axis: Axis,
    /// The number of all neurons or rows.
    pub count: usize,
    /// The share of ‖A‖² that the members have together.
    pub share: f64,
    /// Each member with its share of ‖A‖², largest first.
    pub members: Vec<(usize, f64)>,
    /// The name of the first member.
    pub first: String,
}

impl Energy {
    /// Empty sums for `width` neurons.
    pub fn new(width: usize) -> Self {
        Self {
            neurons: vec![0.0; width],
            ..Self::default()
        }
    }

    /// Makes the sums from the known Σ a² of each neuron and ‖a‖² of each row.
    pub fn from_sums(neurons: Vec<f64>, row_squares: &[f64]) -> Self {
        let mut energy = Self {
            neurons,
            ..Self::default()
        };
        row_squares
            .iter()
            .for_each(|&square| energy.count_row(square));
        energy
    }

    /// Adds the rows that follow; `rows` is row-major and holds whole rows.
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.neurons.len().max(1)) {
            let mut row_square = 0.0;
            for (sum, &v) in self.neurons.iter_mut().zip(row) {
                let square = f64::from(v) * f64::from(v);
                *sum += square;
                row_square += square;
            }
            self.count_row(row_square);
        }
    }

    /// Adds the ‖a‖² of the next row.
    fn count_row(&mut self, square: f64) {
        if self.strongest.len() < MAX_MEMBERS
            || self.strongest.last().is_some_and(|last| square > last.1)
        {
            let at = self.strongest.partition_point(|s| s.1 >= square);
            self.strongest.insert(at, (self.rows, square));
            self.strongest.truncate(MAX_MEMBERS);
        }
        self.rows += 1;
    }

    /// Adds the sums of the rows that follow those of `self`.
    fn merge(&mut self, later: &Self) {
        self.neurons
            .iter_mut()
            .zip(&later.neurons)
            .for_each(|(sum, v)| *sum += v);
        let first = self.rows;
        self.strongest.extend(
            later
                .strongest
                .iter()
                .map(|&(row, square)| (first + row, square)),
        );
        self.strongest
            .sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        self.strongest.truncate(MAX_MEMBERS);
        self.rows += later.rows;
    }

    /// Computes the sums of a source in one pass.
    ///
    /// # Errors
    /// Errors of the source, [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn measure(source: &dyn ActivationSource, ctx: &TaskCtx) -> Result<Self> {
        let (n, d) = source.shape();
        let mut energy = Self::new(d);
        for first in (0..n).step_by(BLOCK_ROWS) {
            let range: Range<usize> = first..n.min(first + BLOCK_ROWS);
            ctx.checkpoint(Progress::new(
                "looking for outliers",
                first as u64,
                n as u64,
                "rows",
            ))?;
            source.advise_pass(range.clone());
            let block = source.rows(range)?;
            let pieces: Vec<Self> = block
                .data
                .par_chunks((PIECE_ROWS * d).max(1))
                .map(|rows| {
                    let mut piece = Self::new(d);
                    piece.add(rows);
                    piece
                })
                .collect();
            pieces.iter().for_each(|piece| energy.merge(piece));
        }
        Ok(energy)
    }

    /// The few neurons or rows, if any, that have much of the energy; `name` gives the name of a
    /// row.
    pub fn concentrations(&self, name: impl Fn(usize) -> String) -> Vec<Concentration> {
        let total: f64 = self.neurons.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Vec::new();
        }
        let mut neurons: Vec<(usize, f64)> = self.neurons.iter().copied().enumerate().collect();
        neurons.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let parts = [
            (Axis::Neurons, &neurons, self.neurons.len()),
            (Axis::Rows, &self.strongest, self.rows),
        ];
        let found = parts.into_iter().filter_map(|(axis, strongest, count)| {
            let shares: Vec<(usize, f64)> = strongest
                .iter()
                .take(MAX_MEMBERS)
                .map(|&(i, v)| (i, v / total))
                .collect();
            let members = reportable(&shares, count)?;
            let share = members.iter().map(|m| m.1).sum();
            let first = match axis {
                Axis::Neurons => format!("neuron {}", members[0].0),
                Axis::Rows => name(members[0].0),
            };
            Some(Concentration {
                axis,
                count,
                share,
                members: members.to_vec(),
                first,
            })
        });
        found.collect()
    }
}

/// The members whose share is reported: those with at least [`SINGLE_SHARE`] each, otherwise all of
/// `shares` if they have [`JOINT_SHARE`] together; `None` if neither holds. `shares` are the
/// largest ones, in descending order, of `count` members.
fn reportable(shares: &[(usize, f64)], count: usize) -> Option<&[(usize, f64)]> {
    let uniform_share = |members: usize| UNIFORM_FACTOR * members as f64 / count.max(1) as f64;
    let strong = shares
        .iter()
        .take_while(|(_, share)| *share >= SINGLE_SHARE.max(uniform_share(1)))
        .count();
    let together: f64 = shares.iter().map(|(_, share)| share).sum();
    if strong > 0 {
        return Some(&shares[..strong]);
    }
    (together >= JOINT_SHARE.max(uniform_share(shares.len()))).then_some(shares)
}

impl Concentration {
    /// The finding as a sentence: "1 neuron of 4,864 holds 72 % of the sum of squares (neuron
    /// 1234)".
    pub fn description(&self) -> String {
        let (what, one) = match self.axis {
            Axis::Neurons => ("neurons", "neuron"),
            Axis::Rows => ("rows", "row"),
        };
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let (members, all) = (self.members.len(), crate::amounts::count(self.count));
        match members {
            1 => format!(
                "1 {one} of {all} holds {} of the sum of squares ({})",
                percent(self.share),
                self.first
            ),
            _ => {
                let others: Vec<String> = self.members[1..]
                    .iter()
                    .map(|(i, share)| format!("{i}: {}", percent(*share)))
                    .collect();
                format!(
                    "{members} {what} of {all} hold {} of the sum of squares ({}: {}, {})",
                    percent(self.share),
                    self.first,
                    percent(self.members[0].1),
                    others.join(", ")
                )
            }
        }
    }

    /// The finding, its effect on a fit, and the option that avoids the effect.
    pub fn advice(&self) -> String {
        let each = if self.axis == Axis::Neurons {
            "neuron"
        } else {
            "token"
        };
        format!(
            "{}: features go there, and a small error says little of the rest; {} lets every {each} count the same",
            self.description(),
            self.remedy()
        )
    }

    /// A short form for a narrow line: "1 neuron holds 72 % of ‖A‖²: fit --scale-neurons (neuron
    /// 1234)".
    pub fn short_advice(&self) -> String {
        let (count, share) = (self.members.len(), 100.0 * self.share);
        let what = match (self.axis, count) {
            (Axis::Neurons, 1) => "neuron holds",
            (Axis::Neurons, _) => "neurons hold",
            (Axis::Rows, 1) => "row holds",
            (Axis::Rows, _) => "rows hold",
        };
        format!(
            "{count} {what} {share:.0} % of ‖A‖²: fit {} ({})",
            self.remedy(),
            self.first
        )
    }

    /// The option that gives every neuron or row the same weight.
    fn remedy(&self) -> &'static str {
        match self.axis {
            Axis::Neurons => "--scale-neurons",
            Axis::Rows => "--scale-rows",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;

    /// Rows of ±1, with neuron 3 and row 700 multiplied by the given factors.
    fn source(neuron: f32, row: f32) -> InMemory {
        let (n, d) = (1000, 200);
        let mut data: Vec<f32> = (0..n * d)
            .map(|i| if i * 7919 % 13 < 6 { 1.0 } else { -1.0 })
            .collect();
        data.chunks_exact_mut(d).for_each(|r| r[3] *= neuron);
        data[700 * d..701 * d].iter_mut().for_each(|v| *v *= row);
        InMemory::new(n, d, data)
    }

    fn found(source: &InMemory) -> Vec<Concentration> {
        Energy::measure(source, &TaskCtx::silent())
            .unwrap()
            .concentrations(|row| format!("row {row}"))
    }

    #[test]
    fn one_neuron_and_one_row_are_named_with_their_shares() {
        assert!(found(&source(1.0, 1.0)).is_empty());
        // 23² · 1000 of 23² · 1000 + 199 · 1000.
        let neuron = found(&source(23.0, 1.0));
        assert_eq!(
            (neuron.len(), neuron[0].axis, neuron[0].members.len()),
            (1, Axis::Neurons, 1)
        );
        assert!((neuron[0].share - 529.0 / 728.0).abs() < 1e-9 && neuron[0].members[0].0 == 3);
        assert_eq!(
            neuron[0].description(),
            "1 neuron of 200 holds 73 % of the sum of squares (neuron 3)"
        );
        assert!(
            neuron[0]
                .advice()
                .ends_with("--scale-neurons lets every neuron count the same")
        );
        let row = found(&source(1.0, 20.0));
        assert_eq!(
            (row.len(), row[0].axis, row[0].members[0].0),
            (1, Axis::Rows, 700)
        );
        assert!((row[0].share - 400.0 / 1399.0).abs() < 1e-9 && row[0].first == "row 700");
    }

    #[test]
    fn ten_that_hold_half_are_told_where_ten_are_few() {
        let shares: Vec<(usize, f64)> = (0..10).map(|i| (i, 0.055)).collect();
        assert_eq!(reportable(&shares, 5000).map(<[_]>::len), Some(10));
        assert!(
            reportable(&shares, 20).is_none(),
            "ten of twenty hold half by right"
        );
        assert!(reportable(&shares[..5], 5000).is_none());
        assert_eq!(
            reportable(&[(0, 0.3), (1, 0.12), (2, 0.05)], 5000).map(<[_]>::len),
            Some(2)
        );
        assert!(
            reportable(&[(0, 0.3), (1, 0.2)], 4).is_none(),
            "of four neurons one holds a quarter by right"
        );
    }

    #[test]
    fn counting_in_pieces_is_counting_at_once() {
        let source = source(5.0, 9.0);
        let whole = Energy::measure(&source, &TaskCtx::silent()).unwrap();
        let mut pieces = Energy::new(200);
        for range in [0..1, 1..333, 333..1000] {
            pieces.add(&source.rows(range).unwrap().data);
        }
        assert_eq!(pieces.strongest, whole.strongest);
        assert_eq!((pieces.rows, whole.rows), (1000, 1000));
        assert!(
            pieces
                .neurons
                .iter()
                .zip(&whole.neurons)
                .all(|(a, b)| (a - b).abs() < 1e-9 * b)
        );
        let squares: Vec<f64> = (0..1000)
            .map(|i| {
                source
                    .rows(i..i + 1)
                    .unwrap()
                    .data
                    .iter()
                    .map(|v| f64::from(v * v))
                    .sum()
            })
            .collect();
        assert_eq!(
            Energy::from_sums(whole.neurons.clone(), &squares).strongest,
            whole.strongest
        );
    }
}
