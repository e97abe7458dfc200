//! What a result over one layer depends on: whoever keeps it goes on with it only where all of this is as
//! it was.
//!
//! Knows a study and requests, no files of results.

use serde::Serialize;
use serde_json::{Value, json};

use super::detection::DetectionRequest;
use super::directions::HookSelection;
use super::evaluation::{Method, usual_of};
use super::measured::identity_of;
use crate::directions::SetKind;
use crate::error::Result;
use crate::eval::quality::QualityConfig;
use crate::eval::split::Holdout;
use crate::eval::sweep::SweepConfig;
use crate::model::HookPoint;
use crate::study::{Kept, Study};

/// Of how results are computed; another number computes them anew.
const VERSION: u32 = 1;

/// The result of `mlpeek eval detection`.
///
/// # Errors
/// A set of directions that the study lacks.
pub fn detection(
    study: &Study,
    request: &DetectionRequest,
    holdout: &Holdout,
    unseen: bool,
) -> Result<Kept> {
    let methods = match request.methods.is_empty() {
        true => usual_of(study, &request.place)?,
        false => request.methods.clone(),
    };
    let names: Vec<String> = methods.iter().map(ToString::to_string).collect();
    let hook = request.place.resolve(study).ok().map(|(hook, _)| hook);
    let about = json!({"version": VERSION, "study": rows(study)?, "hook": hook, "methods": names, "place": request.place,
        "rivals": request.rivals, "seed": request.seed, "holdout": holdout, "unseen": unseen,
        "sets": sets(study, &methods, &request.place)?});
    study.kept("detection", about)
}

/// The result of `mlpeek quality`.
///
/// # Errors
/// A study that cannot be read.
pub fn quality(study: &Study, config: &QualityConfig) -> Result<Kept> {
    fitted(study, "quality", config.hook, config)
}

/// The result of `mlpeek sweep`.
///
/// # Errors
/// A study that cannot be read.
pub fn sweep(study: &Study, hook: HookPoint, config: &SweepConfig) -> Result<Kept> {
    fitted(study, "sweep", hook, config)
}

fn fitted(study: &Study, command: &str, hook: HookPoint, config: &impl Serialize) -> Result<Kept> {
    let about = json!({"version": VERSION, "study": rows(study)?, "hook": hook, "config": config});
    study.kept(command, about)
}

/// What decides a study's rows and labels.
fn rows(study: &Study) -> Result<Value> {
    let manifest = study.manifest();
    let model = manifest.model.as_ref();
    let corpora: Vec<&str> = manifest.corpora.iter().map(|c| c.sha256.as_str()).collect();
    Ok(
        json!({"model": model.map(|m| identity_of(m, &m.compute_dtype)), "corpora": corpora, "bos": manifest.bos,
        "dtype": manifest.dtype, "rows": study.tokens()?.rows.len(), "created": manifest.created}),
    )
}

/// The fits and autoencoders that the methods read, or are made after, with what is in each.
fn sets(study: &Study, methods: &[Method], place: &HookSelection) -> Result<Vec<Value>> {
    let (mut fits, mut saes) = (Vec::new(), Vec::new());
    // Hard negatives are taken by differences in means there.
    let here = place.resolve(study).ok();
    fits.extend(here.and_then(|(_, fit)| Some(fit?.name)));
    for kind in Method::sets(methods) {
        match kind.source().unwrap_or_else(|| kind.clone()) {
            SetKind::Fit(Some(name)) => fits.push(name),
            SetKind::Sae(Some(name)) => saes.push(name),
            SetKind::Sae(None) => {
                let all = study.saes()?.into_iter();
                saes.extend(all.filter(|s| place.admits(s.hook)).map(|s| s.name));
            }
            _ => fits.extend(place.of(kind).resolve(study)?.1.map(|fit| fit.name)),
        }
    }
    for names in [&mut fits, &mut saes] {
        names.sort_unstable();
        names.dedup();
    }
    let fits = fits
        .iter()
        .map(|name| Ok(json!(["fit", name, study.fit_digest(name)?])));
    let saes = saes
        .iter()
        .map(|name| Ok(json!(["sae", name, study.sae_digest(name)?])));
    fits.chain(saes).collect()
}
