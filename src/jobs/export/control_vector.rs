//! Directions of a study as a control vector of llama.cpp.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};

use super::sets;
use crate::error::{Error, Result};
use crate::interop::control_vector::{self, ControlVector};
use crate::jobs::steering::SteeredDirection;
use crate::model::config::llama_cpp_architecture;
use crate::model::{HookPoint, Model};
use crate::study::Study;

/// Writes what steering with `directions` at strength `alpha` adds to the residual stream, and
/// returns the steered blocks. At `mlp.hook_post` a direction goes through the down projection; in a
/// model that norms the MLP's output it is what mlpeek steers with there, norm(W_outᵀ z).
///
/// # Errors
/// [`Error::Usage`] for a direction of block 0, for one of zeros, and for one of another width; a
/// file that cannot be written.
pub fn control_vector(
    study: &Study,
    model: &Model,
    directions: &[SteeredDirection],
    alpha: f64,
    path: &Path,
) -> Result<Vec<usize>> {
    let mut by_block: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    let mut said = Vec::new();
    for direction in directions {
        let term = direction.term(model)?;
        let added = added(model, term.hook, &term.direction)?;
        let scale = alpha * f64::from(term.weight);
        let total = by_block
            .entry(term.hook.layer)
            .or_insert_with(|| vec![0.0; added.len()]);
        for (total, &v) in total.iter_mut().zip(&added) {
            *total += (scale * f64::from(v)) as f32;
        }
        said.push(format!(
            "{} at {} × {}",
            direction.named(),
            direction.hook,
            direction.weight
        ));
    }
    if by_block.values().flatten().any(|v| !v.is_finite()) {
        return Err(Error::usage(format!(
            "α = {alpha} makes a vector that is not finite: choose a smaller one"
        )));
    }
    if by_block.values().flatten().all(|&v| v == 0.0) {
        return Err(Error::usage(
            "the vector would be all zeros: choose another α or direction",
        ));
    }
    let blocks = by_block.keys().copied().collect();
    let vector = ControlVector {
        model: Some(llama_cpp_architecture(&model.info().family).to_owned()),
        by_block,
    };
    let about = BTreeMap::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("directions".to_owned(), said.join(", ")),
        ("alpha".to_owned(), alpha.to_string()),
        (
            "model".to_owned(),
            sets::model_id(study).unwrap_or_default().to_owned(),
        ),
    ]);
    control_vector::write(path, &vector, &about)?;
    Ok(blocks)
}

/// What a direction at a hook adds to the residual stream.
fn added(model: &Model, hook: HookPoint, direction: &[f32]) -> Result<Vec<f32>> {
    let one = Tensor::from_slice(direction, (1, direction.len()), model.device())?;
    Ok(model
        .residual_direction(hook, &one)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()?)
}
