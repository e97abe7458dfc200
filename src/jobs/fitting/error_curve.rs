//! The error curve that a fit leaves on disk while it goes on.

use std::path::Path;

use super::FitObserver;
use crate::error::Result;
use crate::factor::Sweep;
use crate::jobs::curve::{self, Curve};
use crate::study::Study;

/// The error curve on disk, a sweep a line.
pub(super) struct ErrorCurve<'p> {
    /// `None` once it could not be written.
    curve: Option<Curve<'p>>,
}

impl<'p> ErrorCurve<'p> {
    /// A new curve, or that of a fit which goes on after `sweeps`: what a run did beyond its
    /// checkpoint comes again.
    pub(super) fn open(path: &'p Path, sweeps: Option<usize>) -> Result<Self> {
        let kept = sweeps.map_or(Ok(Vec::new()), |last| read_curve(path, last))?;
        Ok(Self {
            curve: Some(Curve::begin(path, &kept)?),
        })
    }

    /// Adds a sweep. That it cannot be written is told once, and no reason to give the fit up.
    pub(super) fn append(&mut self, sweep: Sweep, observer: &mut dyn FitObserver) {
        let Some(curve) = &mut self.curve else { return };
        if let Err(problem) = curve.append(&sweep) {
            observer.note(&format!(
                "the fit goes on, but its error curve is not kept: {problem}"
            ));
            self.curve = None;
        }
    }
}

/// The sweeps of a curve up to the one numbered `last`.
fn read_curve(path: &Path, last: usize) -> Result<Vec<Sweep>> {
    curve::read(path, |sweep: &Sweep| sweep.sweep <= last)
}

/// The error curve of a saved fit, as far as it was written whole.
///
/// # Errors
/// A curve that cannot be read.
pub fn saved_curve(study: &Study, name: &str) -> Result<Vec<Sweep>> {
    read_curve(&study.loss_path(name)?, usize::MAX)
}
