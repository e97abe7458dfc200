//! `energy/<hook>.json`: the share of the sum of squares that each neuron and the strongest rows of
//! a cache have.
//!
//! Written while rows are collected, or after a pass over them; not in a cache's directory, where
//! every file is a shard. Invariant: a file that was not counted over exactly the study's rows and
//! neurons is ignored, and counted again when it is needed.

use std::path::{Path, PathBuf};

use super::Study;
use super::manifest::json_bytes;
use crate::activations::energy::{Concentration, Energy};
use crate::disk;
use crate::error::Result;
use crate::model::HookPoint;
use crate::task::TaskCtx;

/// The files of all hooks of the study in `dir`.
pub(super) fn folder(dir: &Path) -> PathBuf {
    dir.join("energy")
}

fn path_of(dir: &Path, hook: HookPoint) -> PathBuf {
    folder(dir).join(format!("{hook}.json"))
}

/// Reads the energy that was counted over exactly `rows` rows of `width` values; `None` if there is
/// none.
pub(super) fn read(dir: &Path, hook: HookPoint, rows: usize, width: usize) -> Option<Energy> {
    let bytes = crate::disk::read_regular(&path_of(dir, hook)).ok()?;
    let energy: Energy = serde_json::from_slice(&bytes).ok()?;
    let values_valid = energy
        .strongest
        .iter()
        .all(|(row, square)| *row < rows && square.is_finite())
        && energy.neurons.iter().all(|v| v.is_finite() && *v >= 0.0);
    (energy.rows == rows && energy.neurons.len() == width && values_valid).then_some(energy)
}

/// Writes the energy of a hook's rows.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(dir: &Path, hook: HookPoint, energy: &Energy) -> Result<()> {
    disk::create_dir(&folder(dir))?;
    disk::write_atomic(&path_of(dir, hook), &json_bytes(energy)?)
}

/// Removes the energy of a hook whose rows have changed, since other rows may have the same number.
pub(super) fn remove(dir: &Path, hook: HookPoint) -> Result<()> {
    disk::remove_if_there(&path_of(dir, hook))
}

impl Study {
    /// The saved energy of a hook's rows; `None` if it was not counted yet.
    ///
    /// # Errors
    /// A hook that the study does not have.
    pub fn saved_energy(&self, hook: HookPoint) -> Result<Option<Energy>> {
        let width = self.manifest.width(hook)?;
        Ok(read(&self.dir, hook, self.tokens()?.rows.len(), width))
    }

    /// The energy of a hook's rows, counted in a pass over them if it is not saved yet.
    ///
    /// # Errors
    /// A hook that the study does not have, rows that cannot be read,
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn energy(&self, hook: HookPoint, ctx: &TaskCtx) -> Result<Energy> {
        if let Some(known) = self.saved_energy(hook)? {
            return Ok(known);
        }
        let energy = Energy::measure(self.activations(hook)?.as_ref(), ctx)?;
        self.save_energy(hook, &energy);
        Ok(energy)
    }

    /// Saves the energy of all rows of a hook. If the study is open for reading, or the disk is
    /// full, it is not saved and counted again later.
    pub fn save_energy(&self, hook: HookPoint, energy: &Energy) {
        if self.is_writable()
            && self.saved_energy(hook).is_ok_and(|known| known.is_none())
            && let Err(problem) = write(&self.dir, hook, energy)
        {
            tracing::warn!("the energy of the neurons is not saved: {problem}");
        }
    }

    /// The few neurons or rows, if any, that have much of `energy`; rows are named by their token.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn concentrations(&self, energy: &Energy) -> Result<Vec<Concentration>> {
        let tokens = self.tokens()?;
        Ok(energy.concentrations(|row| tokens.describe_row(row, self.manifest.model.is_none())))
    }
}
