//! A fit or an autoencoder of a study as a directory that SAELens opens.

use std::path::Path;

use serde_json::{Value, json};

use super::sets;
use crate::directions::SetKind;
use crate::directions::reconstruction::{ReconstructionMetrics, reconstruction_metrics};
use crate::directions::sae::Sae;
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::encode::Encoder;
use crate::interop;
use crate::interop::sae::saelens::{CONFIG, WEIGHTS};
use crate::jobs::directions::{HookSelection, names, open};
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

/// What was written.
#[derive(Debug, Clone)]
pub struct SaelensExport {
    /// The name of the set.
    pub set: String,
    /// The hook that it reads.
    pub hook: HookPoint,
    /// The number of latents.
    pub latents: usize,
    /// How well what was written reconstructs the study's rows.
    pub written: ReconstructionMetrics,
    /// Of a fit how well its own coefficients do.
    pub own: Option<ReconstructionMetrics>,
}

/// Writes the fit or the autoencoder that `kind` names into `dir`, which is made.
///
/// # Errors
/// [`Error::Usage`] for another set; one that is not there; a file that cannot be written.
pub fn saelens(
    study: &Study,
    kind: &SetKind,
    place: &HookSelection,
    dir: &Path,
    ctx: &TaskCtx,
) -> Result<SaelensExport> {
    let set = open(study, kind, place, ctx)?;
    let (hook, name) = (set.hook(), set.name().to_owned());
    let source = study.activations(hook)?;
    let mut about = json!(sets::about(
        sets::model_id(study),
        &name,
        hook,
        &names(study, set.as_ref())?
    ));
    let mut say = |key: &str, value: Value| {
        if let Some(about) = about.as_object_mut() {
            about.insert(key.to_owned(), value);
        }
    };
    let (sae, own) = match kind {
        SetKind::Fit(_) => {
            let (_, factors) = study.load_fit(Some(&name))?;
            let (sae, ridge) = Sae::of_fit(&factors, source.as_ref(), ctx)?;
            let encoder = Encoder::from_factors(&factors);
            let own = reconstruction_metrics(source.as_ref(), &encoder, ctx)?;
            say(
                "encoder",
                json!(
                    "ReLU of a ridge regression on the features, which only comes near the fit's own coefficients"
                ),
            );
            say("ridge", json!(ridge));
            say("fvu_of_the_fit", json!(own.fvu));
            (sae, Some(own))
        }
        SetKind::Sae(_) => {
            let sae = name.strip_prefix("sae:").unwrap_or(&name);
            (study.load_sae(Some(sae))?.1, None)
        }
        other => {
            return Err(Error::usage(format!(
                "SAELens has no form for {other}: a fit or an autoencoder is due"
            )));
        }
    };
    let written = reconstruction_metrics(source.as_ref(), &sae, ctx)?;
    say("fvu", json!(written.fvu));
    say("l0", json!(written.l0));
    disk::create_dir(dir)?;
    check_own(dir)?;
    let model = sets::model_id(study);
    interop::sae::write(
        dir,
        &sae,
        model,
        &hook.to_string(),
        json!({"mlpeek": about}),
    )?;
    Ok(SaelensExport {
        set: name,
        hook,
        latents: sae.latents(),
        written,
        own,
    })
}

/// The files of an autoencoder of SAELens.
const FILES: [&str; 2] = [CONFIG, WEIGHTS];

/// Refuses a directory that holds files of something else, a model's above all.
fn check_own(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        if !FILES.iter().any(|own| name == *own) {
            return Err(Error::usage(format!(
                "{} holds {}, which is no part of an autoencoder: name an empty directory",
                dir.display(),
                name.display()
            )));
        }
    }
    Ok(())
}
