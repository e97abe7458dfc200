//! `energy/<hook>.json`: how much of the sum of squares each neuron and the strongest rows of a
//! cache hold.
//!
//! Written while rows are collected, or after a pass over them; not in a cache's directory, where
//! every file is a shard. Invariant: a file that does not count exactly the study's rows and
//! neurons says nothing, and is made anew where it is needed.

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

/// What was counted of exactly `rows` rows of `width` values, where it was.
pub(super) fn read(dir: &Path, hook: HookPoint, rows: usize, width: usize) -> Option<Energy> {
    let bytes = crate::disk::read_regular(&path_of(dir, hook)).ok()?;
    let energy: Energy = serde_json::from_slice(&bytes).ok()?;
    let sound = energy
        .strongest
        .iter()
        .all(|(row, square)| *row < rows && square.is_finite())
        && energy.neurons.iter().all(|v| v.is_finite() && *v >= 0.0);
    (energy.rows == rows && energy.neurons.len() == width && sound).then_some(energy)
}

/// # Errors
/// What the disk says.
pub(super) fn write(dir: &Path, hook: HookPoint, energy: &Energy) -> Result<()> {
    disk::create_dir(&folder(dir))?;
    disk::write_atomic(&path_of(dir, hook), &json_bytes(energy)?)
}

/// Forgets what was counted of rows that are not the study's any more: others may be as many.
pub(super) fn forget(dir: &Path, hook: HookPoint) -> Result<()> {
    disk::remove_if_there(&path_of(dir, hook))
}

impl Study {
    /// The energy of a hook's rows as it was counted; `None` where it was not yet.
    ///
    /// # Errors
    /// A hook that the study does not have.
    pub fn saved_energy(&self, hook: HookPoint) -> Result<Option<Energy>> {
        let width = self.manifest.width(hook)?;
        Ok(read(&self.dir, hook, self.tokens()?.rows.len(), width))
    }

    /// The same, in a pass over the rows where it was not counted yet.
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

    /// Keeps what was counted of all rows of a hook. A study that is open for reading, or a disk
    /// that is full, only means that it is counted again.
    pub fn save_energy(&self, hook: HookPoint, energy: &Energy) {
        if self.is_writable()
            && self.saved_energy(hook).is_ok_and(|known| known.is_none())
            && let Err(problem) = write(&self.dir, hook, energy)
        {
            tracing::warn!("what each neuron holds is not kept: {problem}");
        }
    }

    /// Where few neurons or rows hold much of what was counted, rows named by their token.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn concentrations(&self, energy: &Energy) -> Result<Vec<Concentration>> {
        let tokens = self.tokens()?;
        Ok(energy.concentrations(|row| tokens.describe_row(row, self.manifest.model.is_none())))
    }
}
