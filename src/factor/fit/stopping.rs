//! The stop rules, and the choice of the best state. Knows nothing of how a sweep works.

use super::Factoriser;
use crate::factor::panels::Panels;
use crate::factor::pass::PassSums;
use crate::factor::state::State;
use crate::factor::{Solver, Stop};

/// The default stop rules of each solver.
const BCD_SWEEPS: usize = 200;
const MU_SWEEPS: usize = 2000;
const BCD_PATIENCE: usize = 10;
const MU_PATIENCE: usize = 1500;
/// `bcd` stops when the objective, relative to the squared norm of the rows, falls by less than
/// this over the patience.
const BCD_TOLERANCE: f64 = 1e-5;
/// The least fall of the squared error that counts as an improvement for `mu`, as in Shafran,
/// Geiger, Geva (arXiv 2506.10920), for activations of unit root mean square.
const MU_TOLERANCE: f64 = 1e-4;

impl Factoriser<'_> {
    /// Records the present state if it is the best so far. The objective of `bcd` never rises, so
    /// its last state is its best; that of `mu` may, so a copy of its best state is kept; `buffer`
    /// is the memory for the coefficients of the first copy.
    pub(super) fn update_best(&mut self, buffer: Option<Panels>) {
        let progress = &mut self.progress;
        let least = MU_TOLERANCE * self.stats.rms.powi(2);
        let better = match self.config.solver {
            Solver::Bcd => true,
            Solver::Mu => self
                .best
                .as_ref()
                .is_none_or(|b| self.state.objective < b.objective - least),
        };
        if better {
            if self.config.solver == Solver::Mu {
                let empty = || State::new(buffer.unwrap_or_default(), PassSums::default());
                self.best.get_or_insert_with(empty).copy_from(&self.state);
            }
            progress.best_sweep = progress.sweep;
            progress.since_best = 0;
            progress.seconds[2] = progress.seconds[0];
        } else {
            progress.since_best += 1;
        }
    }

    /// The stop rule that holds after the last sweep, if any.
    pub(super) fn stop_reason(&self) -> Option<Stop> {
        let progress = &self.progress;
        let (max_sweeps, patience) = match self.config.solver {
            Solver::Bcd => (BCD_SWEEPS, BCD_PATIENCE),
            Solver::Mu => (MU_SWEEPS, MU_PATIENCE),
        };
        let patience = self.config.patience.unwrap_or(patience).max(1);
        let converged = match self.config.solver {
            Solver::Mu => progress.since_best >= patience,
            Solver::Bcd => {
                let objective_before = |back: usize| {
                    let i = progress.history.len().checked_sub(back + 1)?;
                    progress.history.get(i).map(|&b| f64::from_bits(b))
                };
                objective_before(patience)
                    .zip(objective_before(0))
                    .is_some_and(|(old, new)| {
                        (old - new) / self.stats.prepared_square < BCD_TOLERANCE
                    })
            }
        };
        if converged {
            return Some(Stop::Converged);
        }
        (progress.sweep >= self.config.max_sweeps.unwrap_or(max_sweeps)).then_some(Stop::MaxSweeps)
    }
}
