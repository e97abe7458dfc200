//! An intervention: what is done to activations along its directions, prepared once and applied at
//! any strength.
//!
//! Knows vectors; knows no tensors and no rows.

use serde::{Deserialize, Serialize};

use super::SteerTerm;
use crate::error::{Error, Result};
use crate::matrix::cholesky;
use crate::model::HookPoint;

/// Directions whose Gram matrix has a pivot below this count as linearly dependent.
const INDEPENDENT: f64 = 1e-6;

/// How activations x change along the directions v, each with its weight w, at strength α.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// x + α Σ w v.
    #[default]
    Add,
    /// x with its component along each unit direction made α·w, whatever it was.
    Set,
    /// x with α of its component in the span of the directions taken out: α = 1 projects them out.
    Ablate,
}

/// The terms of an intervention, by hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervention {
    mode: Mode,
    parts: Vec<(HookPoint, HookTerms)>,
}

/// The terms of an intervention at one hook: m directions of d values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HookTerms {
    mode: Mode,
    width: usize,
    weights: Vec<f32>,
    /// [`Mode::Add`]: Σ w v. Otherwise the unit directions, one after the other.
    values: Vec<f32>,
    /// The dual basis of the unit directions: u_i·dual_j = 1 where i = j, else 0, in their span.
    duals: Vec<f32>,
}

impl Intervention {
    /// Groups terms by their hook.
    ///
    /// # Errors
    /// [`Error::Usage`] for terms of one hook that differ in width, and, unless they are added, for
    /// directions that are zero or depend on each other.
    pub fn new(terms: &[SteerTerm], mode: Mode) -> Result<Self> {
        let mut hooks: Vec<HookPoint> = Vec::new();
        for term in terms {
            if !hooks.contains(&term.hook) {
                hooks.push(term.hook);
            }
        }
        let part = |hook: HookPoint| {
            let at_hook: Vec<&SteerTerm> = terms.iter().filter(|t| t.hook == hook).collect();
            Ok((hook, HookTerms::new(&at_hook, mode)?))
        };
        Ok(Self {
            mode,
            parts: hooks.into_iter().map(part).collect::<Result<_>>()?,
        })
    }

    /// What is done along the directions.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The hooks at which it acts, each once.
    pub fn hooks(&self) -> impl Iterator<Item = HookPoint> + '_ {
        self.parts.iter().map(|(hook, _)| *hook)
    }

    pub(super) fn terms_at(&self, hook: HookPoint) -> Option<&HookTerms> {
        self.parts
            .iter()
            .find(|(h, _)| *h == hook)
            .map(|(_, part)| part)
    }
}

impl HookTerms {
    fn new(terms: &[&SteerTerm], mode: Mode) -> Result<Self> {
        let width = terms.first().map_or(0, |t| t.direction.len());
        if let Some(other) = terms.iter().find(|t| t.direction.len() != width) {
            return Err(Error::usage(format!(
                "two directions at {} have {width} and {} values: they must be of one width",
                other.hook,
                other.direction.len()
            )));
        }
        let weights: Vec<f32> = terms.iter().map(|t| t.weight).collect();
        if mode == Mode::Add {
            let mut values = vec![0.0; width];
            for term in terms {
                values
                    .iter_mut()
                    .zip(&term.direction)
                    .for_each(|(total, &v)| *total += term.weight * v);
            }
            return Ok(Self {
                mode,
                width,
                weights,
                values,
                duals: Vec::new(),
            });
        }
        let mut values = Vec::with_capacity(terms.len() * width);
        for term in terms {
            values.extend(super::terms::unit(&term.direction)?);
        }
        let duals = duals(&values, width).ok_or_else(|| {
            Error::usage("these directions depend on each other, so that they cannot be set or ablated one by one: leave one out")
        })?;
        Ok(Self {
            mode,
            width,
            weights,
            values,
            duals,
        })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// m, the number of directions.
    pub(super) fn count(&self) -> usize {
        self.weights.len()
    }

    /// The vector that α = 1 adds, where it does not depend on x ([`Mode::Add`]).
    pub(super) fn sum(&self) -> Option<&[f32]> {
        (self.mode == Mode::Add).then_some(&self.values)
    }

    /// The unit directions, `[m][d]`.
    pub(super) fn units(&self) -> &[f32] {
        &self.values
    }

    /// Their dual basis, `[m][d]`.
    pub(super) fn duals(&self) -> &[f32] {
        &self.duals
    }

    /// (gain, offset): gain·c + offset is added along direction j of an x whose component there is c.
    pub(super) fn change(&self, j: usize, alpha: f64) -> (f32, f32) {
        match self.mode {
            Mode::Add => (0.0, (alpha * f64::from(self.weights[j])) as f32),
            Mode::Set => (-1.0, (alpha * f64::from(self.weights[j])) as f32),
            Mode::Ablate => (-alpha as f32, 0.0),
        }
    }
}

/// The dual basis of m unit vectors: (V Vᵀ)⁻¹ V, in f64; `None` where they are not independent.
fn duals(units: &[f32], width: usize) -> Option<Vec<f32>> {
    let rows: Vec<&[f32]> = units.chunks_exact(width.max(1)).collect();
    let m = rows.len();
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum::<f64>()
    };
    let mut gram: Vec<f64> = (0..m * m)
        .map(|at| dot(rows[at / m], rows[at % m]))
        .collect();
    cholesky::factor(&mut gram, m, 0.0);
    if (0..m).any(|i| gram[i * m + i] <= INDEPENDENT.sqrt()) {
        return None;
    }
    let mut out = vec![0.0f32; units.len()];
    let mut column = vec![0.0f64; m];
    for t in 0..width {
        column
            .iter_mut()
            .zip(&rows)
            .for_each(|(c, row)| *c = f64::from(row[t]));
        cholesky::solve(&gram, m, &mut column);
        column
            .iter()
            .enumerate()
            .for_each(|(j, &c)| out[j * width + t] = c as f32);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HookSite;

    fn term(layer: usize, direction: &[f32]) -> SteerTerm {
        SteerTerm {
            hook: HookPoint {
                layer,
                site: HookSite::MlpPost,
            },
            direction: direction.to_vec(),
            weight: 1.0,
        }
    }

    #[test]
    fn the_dual_of_a_direction_is_orthogonal_to_the_others() {
        let units = [0.6, 0.8, 0.0, 1.0, 0.0, 0.0];
        let found = duals(&units, 3).unwrap();
        for (i, u) in units.chunks(3).enumerate() {
            for (j, d) in found.chunks(3).enumerate() {
                let dot: f32 = u.iter().zip(d).map(|(a, b)| a * b).sum();
                assert!((dot - f32::from(u8::from(i == j))).abs() < 1e-6);
            }
        }
        assert_eq!(duals(&[1.0, 0.0, -1.0, 0.0], 2), None);
    }

    #[test]
    fn terms_of_unequal_width_or_that_depend_on_each_other_are_refused() {
        let narrow = Intervention::new(&[term(1, &[1.0]), term(1, &[1.0, 2.0])], Mode::Add)
            .unwrap_err()
            .to_string();
        assert!(narrow.contains("1 and 2 values"), "{narrow}");
        let twice = [term(1, &[1.0, 1.0]), term(1, &[2.0, 2.0])];
        assert!(Intervention::new(&twice, Mode::Add).is_ok());
        assert!(
            Intervention::new(&twice, Mode::Ablate)
                .unwrap_err()
                .to_string()
                .contains("depend on each other")
        );
        assert!(Intervention::new(&[term(1, &[0.0, 0.0])], Mode::Set).is_err());
        // At two layers nothing depends on anything.
        let apart =
            Intervention::new(&[term(1, &[1.0, 1.0]), term(2, &[1.0, 1.0])], Mode::Ablate).unwrap();
        assert_eq!(apart.hooks().map(|h| h.layer).collect::<Vec<_>>(), [1, 2]);
    }
}
