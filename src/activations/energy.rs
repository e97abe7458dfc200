//! How much of ‖A‖² each neuron holds, and the rows that hold most of it: whether few carry the
//! whole.
//!
//! A fit lowers a sum of squares: where one neuron holds most of it, features are spent on that
//! neuron and a small relative error says little of all others. Knows nothing of fits.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ActivationSource;
use crate::error::Result;
use crate::task::{Progress, TaskCtx};

/// One that holds this share of ‖A‖² is told, and so are [`FEW`] that hold [`SHARES`]`[1]`
/// together.
const SHARES: [f64; 2] = [0.1, 0.5];
const FEW: usize = 10;
/// But only where they hold so many times what as many of them would hold if all held the same.
const BEYOND_FAIR: f64 = 5.0;
/// Rows of a pass whose sums are taken together.
const PIECE: usize = 256;
const BLOCK_ROWS: usize = 4096;

/// Sums of squares of activations.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Energy {
    /// Rows that are counted.
    pub rows: usize,
    /// Σ a² of each neuron.
    pub neurons: Vec<f64>,
    /// The rows with the largest ‖a‖² and that, the largest first, ten at most.
    pub strongest: Vec<(usize, f64)>,
}

/// What is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Columns of A.
    Neurons,
    /// Rows of A.
    Rows,
}

/// Few that hold much of ‖A‖².
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Concentration {
    /// Neurons or rows.
    pub of: Axis,
    /// How many there are in all.
    pub count: usize,
    /// What they hold together.
    pub share: f64,
    /// Each with its share of ‖A‖², the largest first.
    pub members: Vec<(usize, f64)>,
    /// What a person calls the first.
    pub first: String,
}

impl Energy {
    /// Of no rows yet, of so many neurons.
    pub fn new(width: usize) -> Self {
        Self {
            neurons: vec![0.0; width],
            ..Self::default()
        }
    }

    /// From sums that were taken elsewhere.
    pub fn of_sums(neurons: Vec<f64>, row_squares: &[f64]) -> Self {
        let mut energy = Self {
            neurons,
            ..Self::default()
        };
        row_squares.iter().for_each(|&square| energy.count(square));
        energy
    }

    /// Counts the rows that follow, whole and row-major.
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.neurons.len().max(1)) {
            let mut whole = 0.0;
            for (sum, &v) in self.neurons.iter_mut().zip(row) {
                let square = f64::from(v) * f64::from(v);
                *sum += square;
                whole += square;
            }
            self.count(whole);
        }
    }

    /// Counts the next row.
    fn count(&mut self, square: f64) {
        if self.strongest.len() < FEW || self.strongest.last().is_some_and(|last| square > last.1) {
            let at = self.strongest.partition_point(|s| s.1 >= square);
            self.strongest.insert(at, (self.rows, square));
            self.strongest.truncate(FEW);
        }
        self.rows += 1;
    }

    /// Takes over what was counted of the rows that follow.
    fn append(&mut self, later: &Self) {
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
        self.strongest.truncate(FEW);
        self.rows += later.rows;
    }

    /// Of a source, in one pass.
    ///
    /// # Errors
    /// What the source returns, [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn of(source: &dyn ActivationSource, ctx: &TaskCtx) -> Result<Self> {
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
                .par_chunks((PIECE * d).max(1))
                .map(|rows| {
                    let mut piece = Self::new(d);
                    piece.add(rows);
                    piece
                })
                .collect();
            pieces.iter().for_each(|piece| energy.append(piece));
        }
        Ok(energy)
    }

    /// Where few neurons or rows hold much; `name` says what a person calls a row.
    pub fn concentrations(&self, name: impl Fn(usize) -> String) -> Vec<Concentration> {
        let whole: f64 = self.neurons.iter().sum();
        if !(whole > 0.0 && whole.is_finite()) {
            return Vec::new();
        }
        let mut neurons: Vec<(usize, f64)> = self.neurons.iter().copied().enumerate().collect();
        neurons.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let parts = [
            (Axis::Neurons, &neurons, self.neurons.len()),
            (Axis::Rows, &self.strongest, self.rows),
        ];
        let found = parts.into_iter().filter_map(|(of, strongest, count)| {
            let shares: Vec<(usize, f64)> = strongest
                .iter()
                .take(FEW)
                .map(|&(i, v)| (i, v / whole))
                .collect();
            let members = few(&shares, count)?;
            let share = members.iter().map(|m| m.1).sum();
            let first = match of {
                Axis::Neurons => format!("neuron {}", members[0].0),
                Axis::Rows => name(members[0].0),
            };
            Some(Concentration {
                of,
                count,
                share,
                members: members.to_vec(),
                first,
            })
        });
        found.collect()
    }
}

/// Those of the strongest, of `count` in all, that are worth a word.
fn few(shares: &[(usize, f64)], count: usize) -> Option<&[(usize, f64)]> {
    let fair = |members: usize| BEYOND_FAIR * members as f64 / count.max(1) as f64;
    let strong = shares
        .iter()
        .take_while(|(_, share)| *share >= SHARES[0].max(fair(1)))
        .count();
    let together: f64 = shares.iter().map(|(_, share)| share).sum();
    if strong > 0 {
        return Some(&shares[..strong]);
    }
    (together >= SHARES[1].max(fair(shares.len()))).then_some(shares)
}

impl Concentration {
    /// "1 neuron of 4,864 holds 72 % of the sum of squares (neuron 1234)".
    pub fn description(&self) -> String {
        let (what, one) = match self.of {
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

    /// The fact, what it does to a fit, and the option that takes it out.
    pub fn advice(&self) -> String {
        let each = if self.of == Axis::Neurons {
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

    /// The same where there is little room: "1 neuron holds 72 % of ‖A‖²: fit --scale-neurons
    /// (neuron 1234)".
    pub fn short_advice(&self) -> String {
        let (count, share) = (self.members.len(), 100.0 * self.share);
        let what = match (self.of, count) {
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

    fn remedy(&self) -> &'static str {
        match self.of {
            Axis::Neurons => "--scale-neurons",
            Axis::Rows => "--scale-rows",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;

    /// Rows of ±1, but neuron 3 and row 700 as large as is asked.
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
        Energy::of(source, &TaskCtx::silent())
            .unwrap()
            .concentrations(|row| format!("row {row}"))
    }

    #[test]
    fn one_neuron_and_one_row_are_named_with_their_shares() {
        assert!(found(&source(1.0, 1.0)).is_empty());
        // 23² · 1000 of 23² · 1000 + 199 · 1000.
        let neuron = found(&source(23.0, 1.0));
        assert_eq!(
            (neuron.len(), neuron[0].of, neuron[0].members.len()),
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
            (row.len(), row[0].of, row[0].members[0].0),
            (1, Axis::Rows, 700)
        );
        assert!((row[0].share - 400.0 / 1399.0).abs() < 1e-9 && row[0].first == "row 700");
    }

    #[test]
    fn ten_that_hold_half_are_told_where_ten_are_few() {
        let shares: Vec<(usize, f64)> = (0..10).map(|i| (i, 0.055)).collect();
        assert_eq!(few(&shares, 5000).map(<[_]>::len), Some(10));
        assert!(
            few(&shares, 20).is_none(),
            "ten of twenty hold half by right"
        );
        assert!(few(&shares[..5], 5000).is_none());
        assert_eq!(
            few(&[(0, 0.3), (1, 0.12), (2, 0.05)], 5000).map(<[_]>::len),
            Some(2)
        );
        assert!(
            few(&[(0, 0.3), (1, 0.2)], 4).is_none(),
            "of four neurons one holds a quarter by right"
        );
    }

    #[test]
    fn counting_in_pieces_is_counting_at_once() {
        let source = source(5.0, 9.0);
        let whole = Energy::of(&source, &TaskCtx::silent()).unwrap();
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
            Energy::of_sums(whole.neurons.clone(), &squares).strongest,
            whole.strongest
        );
    }
}
