//! Fits and autoencoders of one hook beside each other: which, how much of the activations each
//! reconstructs, and what becomes of the model's predictions with the reconstruction in their place.
//!
//! Knows no table. Invariant: all that is compared is of one hook.

use crate::activations::ActivationSource;
use crate::directions::reconstruction::{
    Reconstruct, ReconstructionMetrics, reconstruction_metrics,
};
use crate::error::{Error, Result};
use crate::eval::recovered::{Recovered, Windows, recovered};
use crate::factor::encode::Encoder;
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::TaskCtx;

use super::directions::HookSelection;

/// What a compared subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// A semi-NMF fit, whose reconstruction has the best coefficients.
    Snmf,
    /// A sparse autoencoder.
    Sae,
}

impl SubjectKind {
    /// As tables and JSON show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snmf => "snmf",
            Self::Sae => "sae",
        }
    }
}

/// A fit or an autoencoder.
pub struct Subject {
    /// Which of the two it is.
    pub kind: SubjectKind,
    /// Its name among those of its kind.
    pub name: String,
    /// What reconstructs activations.
    pub model: Box<dyn Reconstruct>,
}

impl Subject {
    /// Its name among all sets of directions.
    pub fn set(&self) -> String {
        match self.kind {
            SubjectKind::Sae => format!("sae:{}", self.name),
            SubjectKind::Snmf => self.name.clone(),
        }
    }
}

/// What is to be compared.
#[derive(Debug, Clone, Default)]
pub struct ReconstructionRequest {
    /// Autoencoders by name.
    pub saes: Vec<String>,
    /// Fits by name; where neither is named, all of the hook are meant.
    pub fits: Vec<String>,
    /// The hook, where the study has several; its fit is not looked at.
    pub place: HookSelection,
}

impl ReconstructionRequest {
    /// The hook that is meant and what is compared there, fits first.
    ///
    /// # Errors
    /// [`Error::Usage`] for names that the study does not have or that are of several hooks, for a
    /// hook that is not theirs, and where there is nothing to compare.
    pub fn open(&self, study: &Study) -> Result<(HookPoint, Vec<Subject>)> {
        let hook = self.hook(study)?;
        let has_names = !self.saes.is_empty() || !self.fits.is_empty();
        let (mut saes, mut fits) = (self.saes.clone(), self.fits.clone());
        if !has_names {
            let trained = study.saes()?.into_iter();
            let trained = trained.filter(|e| e.hook == hook && e.figures.is_some());
            saes = trained.map(|e| e.name).collect();
            let saved = study.fits()?.into_iter();
            let saved = saved.filter(|f| f.hook == hook && f.relative_error.is_some());
            fits = saved.map(|f| f.name).collect();
        }
        let check = |name: &str, its: HookPoint| match its == hook {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "'{name}' is of {its}, not of {hook}: compare one hook at a time"
            ))),
        };
        let mut subjects = Vec::new();
        for name in fits {
            let (entry, factors) = study.load_fit(Some(&name))?;
            check(&name, entry.hook)?;
            subjects.push(Subject {
                kind: SubjectKind::Snmf,
                name,
                model: Box::new(Encoder::from_factors(&factors)),
            });
        }
        for name in saes {
            let (entry, sae) = study.load_sae(Some(&name))?;
            check(&name, entry.hook)?;
            subjects.push(Subject {
                kind: SubjectKind::Sae,
                name,
                model: Box::new(sae),
            });
        }
        if subjects.is_empty() {
            let dir = study.dir().display();
            return Err(Error::usage(format!(
                "{dir} has no fit and no SAE of {hook}: mlpeek fit {dir}, mlpeek sae train {dir}"
            )));
        }
        Ok((hook, subjects))
    }

    /// The hook of the first that is named, else the only one at the place.
    fn hook(&self, study: &Study) -> Result<HookPoint> {
        let place = &self.place;
        let named = match (self.saes.first(), self.fits.first()) {
            (Some(name), _) => study.load_sae(Some(name))?.0.hook,
            (None, Some(name)) => study.load_fit(Some(name))?.0.hook,
            (None, None) => return place.only_hook(study),
        };
        if !place.admits(named) {
            return Err(Error::usage(format!(
                "what is named is of {named}: leave out --layer and --hook"
            )));
        }
        Ok(named)
    }
}

/// How much of the rows of `source` each subject reconstructs.
///
/// # Errors
/// Rows of another width; what reading them returns; [`Error::Cancelled`].
pub fn measure(
    source: &dyn ActivationSource,
    subjects: &[Subject],
    ctx: &TaskCtx,
) -> Result<Vec<ReconstructionMetrics>> {
    let metrics_of =
        |subject: &Subject| reconstruction_metrics(source, subject.model.as_ref(), ctx);
    subjects.iter().map(metrics_of).collect()
}

/// What becomes of about `most` of the model's predictions on the texts of `rows` with each
/// subject's reconstruction in the place of the activation at `hook`.
///
/// # Errors
/// Tokens that cannot be read; what a pass returns; [`Error::Cancelled`].
pub fn predict(
    rows: &Study,
    model: &Model,
    hook: HookPoint,
    subjects: &[Subject],
    most: usize,
    ctx: &TaskCtx,
) -> Result<Vec<Recovered>> {
    let windows = Windows::of(
        rows.tokens()?.as_ref(),
        model.tokenizer().bos(),
        model.info().context,
        most,
    );
    let methods: Vec<&dyn Reconstruct> = subjects.iter().map(|s| s.model.as_ref()).collect();
    recovered(model, hook, &methods, &windows, ctx)
}
