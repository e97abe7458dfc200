//! `fits/<name>/config.json`: the request of a fit and the record of its saved factors.
//!
//! Knows the directory of one fit, not the study. Invariant: factors are returned only if their
//! lengths, shapes and checksums are those of the record (for large coefficients all but the
//! checksum).

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::factor_files::{self, StoredFile};
use super::fits::{CHECKPOINT, LOSS};
use super::{FitEntry, FitState, RunEnd, fit_state};
use crate::activations::store::MappedF32;
use crate::error::{Error, Result};
use crate::factor::{Coding, Coefficients, Factors, FitConfig};
use crate::model::HookPoint;

/// The name of the file.
pub(super) const CONFIG: &str = "config.json";
/// The checksum of coefficients up to this many bytes is verified when they are loaded, that of
/// larger ones only by [`super::Study::verify`].
const CHECKED_ON_LOAD: u64 = 256 << 20;

/// The contents of `fits/<name>/config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FitFile {
    /// Grows with every start and save in the study: the largest is the newest.
    pub(super) order: u64,
    pub(super) hook: HookPoint,
    /// The configuration of the present or last run.
    pub(super) config: FitConfig,
    pub(super) saved: Option<Saved>,
}

/// Saved factors; their hook and configuration may be an earlier run's than [`FitFile::config`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) hook: HookPoint,
    pub(super) config: FitConfig,
    pub(super) relative_error: Option<f64>,
    #[serde(default)]
    pub(super) weighted_error: Option<f64>,
    pub(super) explained_variance: Option<f64>,
    pub(super) sweeps: usize,
    pub(super) seconds: f64,
    /// How the run ended; earlier versions did not record it, and it follows from the error curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<RunEnd>,
    /// n, k and d.
    pub(super) rows: usize,
    pub(super) features: usize,
    pub(super) neurons: usize,
    pub(super) z: StoredFile,
    pub(super) y: StoredFile,
}

impl Saved {
    /// The [`FitFile::order`] of the save, which is part of the names of its files.
    fn order(&self) -> Option<u64> {
        self.z
            .file
            .strip_prefix("Z-")?
            .split('.')
            .next()?
            .parse()
            .ok()
    }
}

impl FitFile {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
        Self::parse(&bytes).map_err(|problem| Error::file(&path, problem))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| {
            format!("not a fit's configuration: {e}; remove the fit's directory and fit again")
        })
    }

    /// The fit's entry in a list; `dir` is the directory of the fit.
    pub(super) fn entry(&self, name: &str, dir: &Path) -> FitEntry {
        let saved = self.saved.as_ref();
        let resumable = dir.join(CHECKPOINT).is_file();
        let last = || fit_state::last_sweep(&dir.join(LOSS));
        // A run that was started after the save and has not ended either.
        let begun_again = saved.is_some_and(|s| s.order() < Some(self.order))
            && resumable
            && last().is_some_and(|sweep| sweep.stop.is_none());
        let (state, reached) = match saved.map(|s| (s.ended, s.sweeps)) {
            Some((Some(ended), _)) if !begun_again => (ended.state, ended.sweep),
            ended => {
                let last = last();
                let reached = last
                    .map_or(0, |sweep| sweep.sweep)
                    .max(ended.map_or(0, |(_, sweeps)| sweeps));
                let state = match (ended, last.and_then(|sweep| sweep.stop)) {
                    (None, _) => FitState::Cut,
                    (Some(_), stop @ Some(_)) => stop.into(),
                    (Some(_), None) if resumable => FitState::Stopped,
                    // Only a fit that converged leaves no checkpoint to continue from.
                    (Some(_), None) => FitState::Converged,
                };
                (state, reached)
            }
        };
        FitEntry {
            name: name.to_owned(),
            hook: saved.map_or(self.hook, |s| s.hook),
            config: saved.map_or(&self.config, |s| &s.config).clone(),
            relative_error: saved.and_then(|s| s.relative_error),
            weighted_error: saved.and_then(|s| s.weighted_error),
            explained_variance: saved.and_then(|s| s.explained_variance),
            sweeps: saved.map_or(0, |s| s.sweeps),
            seconds: saved.map_or(0.0, |s| s.seconds),
            resumable,
            state,
            reached,
        }
    }
}

impl Saved {
    pub(super) fn load(&self, dir: &Path) -> Result<Factors> {
        let z_path = dir.join(&self.z.file);
        let (features, coding) = factor_files::decode_features(&self.z.read_checked(dir)?)
            .map_err(|problem| Error::file(&z_path, problem))?;
        let y_path = self.y.check_length(dir)?;
        let values = self.rows.checked_mul(self.features);
        if values
            .and_then(|v| v.checked_mul(4))
            .is_none_or(|bytes| bytes as u64 != self.y.bytes)
            || features.columns() != self.features
            || features.rows != self.neurons
        {
            return Err(Error::file(
                dir.join(CONFIG),
                "its sizes do not fit the saved factors; fit again",
            ));
        }
        let mapped = MappedF32::open(&y_path, 0, values.unwrap_or(0))?;
        if self.y.bytes <= CHECKED_ON_LOAD {
            self.y
                .check(&y_path, xxh3_64(bytemuck::cast_slice(mapped.as_slice())))?;
        }
        Ok(Factors {
            features,
            coefficients: Coefficients::mapped(self.rows, mapped),
            coding: Coding {
                row_cap: self.config.row_cap,
                ..coding
            },
            relative_error: self.relative_error.unwrap_or(f64::NAN),
            weighted_error: self.weighted_error,
            explained_variance: self.explained_variance.unwrap_or(f64::NAN),
            sweep: self.sweeps,
            seconds: self.seconds,
        })
    }
}
