//! From features and clusters to directions that steer.
//!
//! This module alone knows at which hook a model is steered (method, section 4): its configuration
//! says what lies between the MLP and the residual stream.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::SteerTerm;
use crate::analysis::contexts::check_id;
use crate::analysis::{SharedNeurons, hierarchy};
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{Decoder, HookPoint, HookSite, Model};

/// Which of its neurons a feature steers with: the causal check of shared neurons (method, section
/// 7).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SteerPart {
    /// All neurons of its column.
    #[default]
    Whole,
    /// Those that more than half of these features have.
    CoreOf(Vec<usize>),
    /// Those that none of these other features has.
    ExclusiveOf(Vec<usize>),
}

/// The term that steers with feature `id`: z_j at `mlp.hook_post`; in a model that norms the MLP's
/// output (Gemma 2 and 3), norm(W_outᵀ z) at `hook_mlp_out` (method, section 4).
///
/// # Errors
/// [`Error::Usage`] for an unknown feature, a fit of another width, and a feature of zeros; what
/// the model returns.
pub fn feature_term(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    id: usize,
    weight: f32,
) -> Result<SteerTerm> {
    check_id(factors, id)?;
    direction_term(model, hook, &factors.features.dense_column(id), weight)
        .map_err(|e| name_subject(e, &format!("feature {id}")))
}

/// The term that steers with a part of feature `id`: its own weights on those neurons, at unit
/// norm.
///
/// # Errors
/// What [`part_direction`] and [`direction_term`] return.
pub fn part_term(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    id: usize,
    part: &SteerPart,
    weight: f32,
) -> Result<SteerTerm> {
    direction_term(model, hook, &part_direction(factors, id, part)?, weight)
        .map_err(|e| name_subject(e, &format!("feature {id}")))
}

/// The term that steers with what a cluster shares: its core neurons with their mean weights, at
/// unit norm.
///
/// # Errors
/// [`Error::Usage`] for features without a core; what [`direction_term`] returns.
pub fn core_term(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    shared: &SharedNeurons,
    weight: f32,
) -> Result<SteerTerm> {
    let mut direction = vec![0.0; factors.features.rows];
    if shared.core.is_empty() {
        return Err(Error::usage(
            "these features have no core: no neuron is in more than half of them",
        ));
    }
    for &(neuron, mean, _) in &shared.core {
        direction[neuron] = mean;
    }
    direction_term(model, hook, &direction, weight)
}

/// The term that steers with any direction of the hook's width: DiffMean vectors, decoder rows, one
/// neuron. Scaled to unit norm; in a model that norms the MLP's output a direction at
/// `mlp.hook_post` moves to `hook_mlp_out`.
///
/// # Errors
/// [`Error::Usage`] for a direction of another width, of zeros, or that is not finite; what the
/// model returns.
pub fn direction_term(
    model: &Model,
    hook: HookPoint,
    direction: &[f32],
    weight: f32,
) -> Result<SteerTerm> {
    decoder_term(model.decoder(), hook, direction, weight)
}

fn decoder_term(
    decoder: &Decoder,
    hook: HookPoint,
    direction: &[f32],
    weight: f32,
) -> Result<SteerTerm> {
    let width = decoder.width(hook)?;
    if direction.len() != width {
        let given = direction.len();
        return Err(Error::usage(format!(
            "the direction has {given} values, but {hook} is {width} wide: was it fitted on another model?"
        )));
    }
    let unit = unit(direction)?;
    if hook.site != HookSite::MlpPost || !decoder.config().norms_mlp_output() {
        return Ok(SteerTerm {
            hook,
            direction: unit,
            weight,
        });
    }
    let z = Tensor::from_vec(unit, (1, width), decoder.device())?;
    let added = decoder
        .residual_direction(hook, &z)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()?;
    Ok(SteerTerm {
        hook: HookPoint {
            layer: hook.layer,
            site: HookSite::MlpOut,
        },
        direction: added,
        weight,
    })
}

/// Column `id` with every neuron outside `part` at zero, before scaling. An empty part is an error
/// that says why.
///
/// # Errors
/// [`Error::Usage`] for an unknown feature, and says why the part has no neurons.
pub fn part_direction(factors: &Factors, id: usize, part: &SteerPart) -> Result<Vec<f32>> {
    check_id(factors, id)?;
    let features = &factors.features;
    let mut direction = features.dense_column(id);
    let (keep, why): (Vec<usize>, _) = match part {
        SteerPart::Whole => return Ok(direction),
        SteerPart::CoreOf(cluster) => {
            cluster
                .iter()
                .try_for_each(|&other| check_id(factors, other))?;
            let core = hierarchy::shared_neurons(features, cluster).core;
            (
                core.into_iter().map(|(neuron, ..)| neuron).collect(),
                "none that more than half of the cluster has",
            )
        }
        SteerPart::ExclusiveOf(others) => {
            others
                .iter()
                .try_for_each(|&other| check_id(factors, other))?;
            let all: Vec<usize> = std::iter::once(id).chain(others.iter().copied()).collect();
            let own = hierarchy::shared_neurons(features, &all)
                .exclusive
                .swap_remove(0)
                .1;
            (
                own.into_iter().map(|(neuron, _)| neuron).collect(),
                "none of its own beside the others'",
            )
        }
    };
    for (neuron, value) in direction.iter_mut().enumerate() {
        if !keep.contains(&neuron) {
            *value = 0.0;
        }
    }
    if direction.iter().all(|&v| v == 0.0) {
        return Err(Error::usage(format!(
            "feature {id} has no such neurons: {why}"
        )));
    }
    Ok(direction)
}

/// z/‖z‖.
///
/// # Errors
/// [`Error::Usage`] for a direction that is zero or not finite.
pub fn unit(direction: &[f32]) -> Result<Vec<f32>> {
    let norm = direction
        .iter()
        .map(|&v| f64::from(v) * f64::from(v))
        .sum::<f64>()
        .sqrt();
    if !(norm.is_finite() && norm > 0.0) {
        return Err(Error::usage(
            "the direction is zero or not finite: there is nothing to steer with",
        ));
    }
    Ok(direction
        .iter()
        .map(|&v| (f64::from(v) / norm) as f32)
        .collect())
}

fn name_subject(error: Error, subject: &str) -> Error {
    match error {
        Error::Usage(problem) => Error::Usage(format!("{subject}: {problem}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use crate::analysis::tests::{columns, factors};
    use crate::model::config::Config;
    use crate::model::weights::Weights;
    use crate::task::TaskCtx;

    fn cluster() -> Factors {
        let dense = [
            vec![0.6, 0.8, 0.0, 0.0],
            vec![0.8, 0.0, 0.0, 0.6],
            vec![1.0, 0.0, 0.0, 0.0],
        ];
        factors(columns(4, &dense), 1, vec![0.0; 3])
    }

    #[test]
    fn core_and_exclusive_parts_split_a_feature() {
        let fit = cluster();
        let part = |id, part| part_direction(&fit, id, &part).unwrap();
        assert_eq!(part(0, SteerPart::Whole), [0.6, 0.8, 0.0, 0.0]);
        assert_eq!(
            part(0, SteerPart::CoreOf(vec![0, 1, 2])),
            [0.6, 0.0, 0.0, 0.0]
        );
        assert_eq!(
            part(0, SteerPart::ExclusiveOf(vec![1, 2])),
            [0.0, 0.8, 0.0, 0.0]
        );
        assert_eq!(
            part(1, SteerPart::ExclusiveOf(vec![0, 1])),
            [0.0, 0.0, 0.0, 0.6],
            "it is not among its others"
        );
    }

    #[test]
    fn an_empty_part_says_so() {
        let fit = cluster();
        let error = |id, part| part_direction(&fit, id, &part).unwrap_err().to_string();
        assert_eq!(
            error(2, SteerPart::ExclusiveOf(vec![0])),
            "feature 2 has no such neurons: none of its own beside the others'"
        );
        let others = SteerPart::CoreOf(vec![]);
        assert_eq!(
            error(2, others),
            "feature 2 has no such neurons: none that more than half of the cluster has"
        );
        assert_eq!(
            error(2, SteerPart::CoreOf(vec![7])),
            "feature 7 does not exist: this fit has features 0 to 2"
        );
        assert_eq!(
            error(9, SteerPart::Whole),
            "feature 9 does not exist: this fit has features 0 to 2"
        );
    }

    #[test]
    fn directions_are_scaled_to_unit_norm() {
        assert_eq!(unit(&[3.0, -4.0]).unwrap(), [0.6, -0.8]);
        assert!(unit(&[0.0, 0.0]).is_err());
        assert!(unit(&[f32::NAN]).is_err());
    }

    #[test]
    fn the_steered_hook_follows_the_configuration_and_not_the_name_of_the_family() {
        let ctx = TaskCtx::silent();
        for (fixture, moved) in [("gemma2", true), ("gemma", false), ("gpt2", false)] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/families")
                .join(fixture);
            let weights =
                Weights::open_safetensors(&[directory.join("model.safetensors")]).unwrap();
            let mut config = Config::from_hf(&directory.join("config.json")).unwrap();
            config.family = "a family of tomorrow".into();
            let decoder = Decoder::on_cpu(config, &weights, None, &ctx).unwrap();
            let hook = HookPoint {
                layer: 1,
                site: HookSite::MlpPost,
            };
            let mut z = vec![0.0; decoder.width(hook).unwrap()];
            z[3] = 2.0;
            let term = decoder_term(&decoder, hook, &z, 1.5).unwrap();
            if !moved {
                assert_eq!((term.hook, term.direction[3]), (hook, 1.0), "{fixture}");
                continue;
            }
            assert_eq!(term.hook.site, HookSite::MlpOut);
            z[3] = 1.0;
            let z = Tensor::from_vec(z.clone(), (1, z.len()), &Device::Cpu).unwrap();
            let added = decoder.residual_direction(hook, &z).unwrap();
            assert_eq!(
                term.direction,
                added.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            );
        }
    }
}
