//! From what the Steer pane or the command asks to what `steering` needs.

use super::{SteerAsk, SteerPart};
use crate::error::{Error, Result};
use crate::factor::{Factors, SparseColumns};
use crate::model::{BosRule, HookPoint, Model};
use crate::steering::{self, SteerRequest};

/// Builds the request: a term for each feature, restricted to the part of its neurons that was asked for.
pub fn request(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    ask: &SteerAsk,
    bos: BosRule,
) -> Result<SteerRequest> {
    if ask.features.is_empty() {
        return Err(Error::usage("nothing to steer with: choose at least one feature"));
    }
    let mut terms = Vec::with_capacity(ask.features.len());
    for &(id, weight) in &ask.features {
        let k = factors.features.columns();
        if id >= k {
            return Err(Error::usage(format!(
                "there is no feature {id}: this fit has features 0 to {}",
                k.saturating_sub(1)
            )));
        }
        let restricted = restrict(factors, id, &ask.part)?;
        terms.push(steering::feature_term(model, hook, restricted.as_ref().unwrap_or(factors), id, weight)?);
    }
    Ok(SteerRequest {
        terms,
        strength: ask.strength,
        negative: ask.negative,
        positions: ask.positions,
        prompt: ask.prompt.clone(),
        samples: ask.samples,
        sampling: ask.sampling,
        bos,
    })
}

/// The same factors with feature `id` cut to a part of its neurons and scaled to unit norm; `None` for the whole.
fn restrict(factors: &Factors, id: usize, part: &SteerPart) -> Result<Option<Factors>> {
    let keep: Box<dyn Fn(usize) -> bool> = match part {
        SteerPart::Whole => return Ok(None),
        SteerPart::CoreOf(others) => {
            let shared = crate::analysis::hierarchy::shared(&factors.features, others);
            Box::new(move |neuron| shared.core.iter().any(|c| c.0 == neuron))
        }
        SteerPart::ExclusiveOf(others) => {
            let mut used = vec![false; factors.features.rows];
            for &other in others.iter().filter(|o| **o != id) {
                for &i in factors.features.column(other).0 {
                    used[i as usize] = true;
                }
            }
            Box::new(move |neuron| !used[neuron])
        }
    };
    let features = restrict_column(&factors.features, id, &*keep).ok_or_else(|| {
        Error::refused(format!("feature {id} has no neuron in that part: choose the whole feature or another cluster"))
    })?;
    Ok(Some(Factors { features, ..factors.clone() }))
}

fn restrict_column(features: &SparseColumns, id: usize, keep: &dyn Fn(usize) -> bool) -> Option<SparseColumns> {
    let mut out = SparseColumns { rows: features.rows, offsets: vec![0], ..SparseColumns::default() };
    for j in 0..features.columns() {
        let (indices, values) = features.column(j);
        let kept = indices.iter().zip(values).filter(|(i, _)| j != id || keep(**i as usize));
        let before = out.values.len();
        for (&i, &v) in kept {
            out.indices.push(i);
            out.values.push(v);
        }
        if j == id {
            let norm = out.values[before..].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if norm == 0.0 {
                return None;
            }
            out.values[before..].iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
        out.offsets.push(out.values.len());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_column_has_unit_norm_and_the_others_stay() {
        let z = SparseColumns {
            rows: 4,
            offsets: vec![0, 2, 4],
            indices: vec![0, 1, 1, 3],
            values: vec![0.6, 0.8, -0.6, 0.8],
        };
        let cut = restrict_column(&z, 1, &|n| n == 1).unwrap();
        assert_eq!(cut.column(0), z.column(0));
        assert_eq!(cut.column(1), (&[1u32][..], &[-1.0f32][..]));
        assert!(restrict_column(&z, 1, &|_| false).is_none());
    }
}
