//! From features and clusters to directions that steer.
//!
//! The one room that knows at which hook a family is steered (method, section 4).

use candle_core::{DType, Tensor};

use super::SteerTerm;
use crate::analysis::SharedNeurons;
use crate::analysis::contexts::check_id;
use crate::error::{Error, Result};
use crate::factor::{Factors, SparseColumns};
use crate::model::{HookPoint, HookSite, Model};

/// A part of a cluster of features to steer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterPart {
    /// What most members share: the core neurons with their mean weights.
    Core,
    /// What one member has for itself.
    Exclusive(usize),
    /// One member whole.
    Whole(usize),
}

/// The term that steers with feature `id`: z_j at `mlp.hook_post`; for Gemma 2/3, post_ffw_norm(W_outᵀ z) at
/// `hook_mlp_out` (method, section 4).
pub fn feature_term(model: &Model, hook: HookPoint, factors: &Factors, id: usize, weight: f32) -> Result<SteerTerm> {
    check_id(factors, id)?;
    direction_term(model, hook, &factors.features.dense_column(id), weight)
        .map_err(|e| name_subject(e, &format!("feature {id}")))
}

/// The term that steers with feature `id` restricted to `neurons`, at unit norm.
pub fn restricted_term(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    id: usize,
    neurons: &[usize],
    weight: f32,
) -> Result<SteerTerm> {
    check_id(factors, id)?;
    direction_term(model, hook, &restricted(&factors.features, id, neurons), weight)
        .map_err(|e| name_subject(e, &format!("feature {id} on {} neurons", neurons.len())))
}

/// The term that steers with a part of a cluster alone, at unit norm: the causal check of shared neurons (method,
/// section 7).
pub fn part_term(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    shared: &SharedNeurons,
    part: ClusterPart,
    weight: f32,
) -> Result<SteerTerm> {
    direction_term(model, hook, &part_direction(&factors.features, shared, part)?, weight)
}

/// The term that steers with any direction of the hook's width: DiffMean vectors, decoder rows, one neuron. Scaled to
/// unit norm; for Gemma 2/3 a direction at `mlp.hook_post` moves to `hook_mlp_out`.
pub fn direction_term(model: &Model, hook: HookPoint, direction: &[f32], weight: f32) -> Result<SteerTerm> {
    let width = model.width(hook)?;
    if direction.len() != width {
        let given = direction.len();
        return Err(Error::usage(format!(
            "the direction has {given} values, but {hook} is {width} wide: was it fitted on another model?"
        )));
    }
    let unit = unit(direction)?;
    if hook.site != HookSite::MlpPost || !post_norm(&model.info().family) {
        return Ok(SteerTerm { hook, direction: unit, weight });
    }
    let z = Tensor::from_vec(unit, (1, width), model.device())?;
    let added = model.residual_direction(hook, &z)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(SteerTerm { hook: HookPoint { layer: hook.layer, site: HookSite::MlpOut }, direction: added, weight })
}

/// The neurons of a part as a dense direction, before scaling.
pub fn part_direction(features: &SparseColumns, shared: &SharedNeurons, part: ClusterPart) -> Result<Vec<f32>> {
    let member = |id: usize| {
        shared.exclusive.iter().find(|(f, _)| *f == id).ok_or_else(|| {
            Error::usage(format!("feature {id} is not in this cluster: its members are {:?}", shared.features))
        })
    };
    let mut direction = vec![0.0; features.rows];
    match part {
        ClusterPart::Core if shared.core.is_empty() => {
            return Err(Error::usage("these features have no core neurons: no neuron is in more than half of them"));
        }
        ClusterPart::Core => shared.core.iter().for_each(|&(neuron, mean, _)| direction[neuron] = mean),
        ClusterPart::Whole(id) => {
            member(id)?;
            direction = features.dense_column(id);
        }
        ClusterPart::Exclusive(id) => {
            let (_, own) = member(id)?;
            if own.is_empty() {
                return Err(Error::usage(format!("feature {id} has no neurons of its own in this cluster")));
            }
            own.iter().for_each(|&(neuron, weight)| direction[neuron] = weight);
        }
    }
    Ok(direction)
}

/// Column `id` with every neuron outside `neurons` at zero.
fn restricted(features: &SparseColumns, id: usize, neurons: &[usize]) -> Vec<f32> {
    let column = features.dense_column(id);
    let mut out = vec![0.0; column.len()];
    for &neuron in neurons.iter().filter(|&&n| n < column.len()) {
        out[neuron] = column[neuron];
    }
    out
}

/// z/‖z‖; an error for a direction that is zero or not finite.
fn unit(direction: &[f32]) -> Result<Vec<f32>> {
    let norm = direction.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    if !(norm.is_finite() && norm > 0.0) {
        return Err(Error::usage("the direction is zero or not finite: there is nothing to steer with"));
    }
    Ok(direction.iter().map(|&v| (f64::from(v) / norm) as f32).collect())
}

fn name_subject(error: Error, subject: &str) -> Error {
    match error {
        Error::Usage(problem) => Error::Usage(format!("{subject}: {problem}")),
        other => other,
    }
}

/// Whether the family norms the MLP's output before adding it to the residual stream.
fn post_norm(family: &str) -> bool {
    family.starts_with("gemma2") || family.starts_with("gemma3")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::hierarchy;
    use crate::analysis::tests::columns;

    fn cluster() -> (SparseColumns, SharedNeurons) {
        let features = columns(4, &[vec![0.6, 0.8, 0.0, 0.0], vec![0.8, 0.0, 0.0, 0.6], vec![1.0, 0.0, 0.0, 0.0]]);
        let shared = hierarchy::shared(&features, &[0, 1, 2]);
        (features, shared)
    }

    #[test]
    fn the_parts_of_a_cluster_do_not_overlap() {
        let (features, shared) = cluster();
        let core = part_direction(&features, &shared, ClusterPart::Core).unwrap();
        assert!((core[0] - 0.8).abs() < 1e-6 && core[1..] == [0.0; 3]);
        assert_eq!(part_direction(&features, &shared, ClusterPart::Exclusive(1)).unwrap(), [0.0, 0.0, 0.0, 0.6]);
        assert_eq!(part_direction(&features, &shared, ClusterPart::Whole(0)).unwrap(), [0.6, 0.8, 0.0, 0.0]);
        assert_eq!(restricted(&features, 0, &[1, 3, 9]), [0.0, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn an_empty_part_says_so() {
        let (features, shared) = cluster();
        let error = part_direction(&features, &shared, ClusterPart::Exclusive(2)).unwrap_err();
        assert_eq!(error.to_string(), "feature 2 has no neurons of its own in this cluster");
        let error = part_direction(&features, &shared, ClusterPart::Whole(7)).unwrap_err();
        assert_eq!(error.to_string(), "feature 7 is not in this cluster: its members are [0, 1, 2]");
        let apart = hierarchy::shared(&columns(2, &[vec![1.0, 0.0], vec![0.0, 1.0]]), &[0, 1]);
        assert!(part_direction(&features, &apart, ClusterPart::Core).is_err());
    }

    #[test]
    fn directions_are_scaled_to_unit_norm() {
        assert_eq!(unit(&[3.0, -4.0]).unwrap(), [0.6, -0.8]);
        assert!(unit(&[0.0, 0.0]).is_err());
        assert!(unit(&[f32::NAN]).is_err());
    }
}
