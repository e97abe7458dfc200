//! From what the Steer pane or the command asks for to what `steering` needs.

use super::directions::{self, HookSelection, Reference};
use super::request::SteerSettings;
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{BosRule, HookPoint, Model};
use crate::steering::{self, SteerPart, SteerRequest, SteerTerm, direction_term, part_direction};
use crate::study::Study;
use crate::task::TaskCtx;

/// Builds the request: a term for each feature, of the part of its neurons that was asked for.
///
/// # Errors
/// [`Error::Usage`] without a feature, or for one that the fit does not have.
pub fn request(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    ask: &SteerSettings,
    bos: BosRule,
) -> Result<SteerRequest> {
    if ask.features.is_empty() {
        return Err(Error::usage(
            "nothing to steer with: choose at least one feature",
        ));
    }
    let terms = ask
        .features
        .iter()
        .map(|&(id, weight)| steering::part_term(model, hook, factors, id, &ask.part, weight))
        .collect::<Result<Vec<_>>>()?;
    Ok(SteerRequest {
        terms,
        strength: ask.strength,
        negative: ask.negative,
        positions: ask.positions,
        mode: ask.mode,
        prompts: vec![ask.prompt.clone()],
        samples: ask.samples,
        sampling: ask.sampling,
        bos,
    })
}

/// A direction of a study that is steered with.
#[derive(Debug, Clone, PartialEq)]
pub struct SteeredDirection {
    /// The name of its set.
    pub set: String,
    /// Its number in the set.
    pub id: usize,
    /// What the set calls it.
    pub title: Option<String>,
    /// The hook whose activations are moved.
    pub hook: HookPoint,
    /// Its share of the strength.
    pub weight: f32,
    /// Of a mix the directions that it is made of, with their weights.
    pub recipe: Vec<(usize, f32)>,
    column: Vec<f32>,
}

impl SteeredDirection {
    /// Its set with its name or number, as it is typed.
    pub fn named(&self) -> String {
        let id = self.title.clone().unwrap_or_else(|| self.id.to_string());
        format!("{}:{id}", self.set)
    }

    /// Opens what a person wrote, each set once; of features of a fit the `part` of their neurons.
    /// `model` is asked for what measured sets lack.
    ///
    /// # Errors
    /// What [`directions::open`] returns; [`Error::Usage`] for a direction that a set does not have,
    /// and for a part of directions that are no features of a fit.
    pub fn open_all(
        study: &Study,
        wanted: &[Reference],
        place: &HookSelection,
        part: &SteerPart,
        model: Option<&Model>,
        ctx: &TaskCtx,
    ) -> Result<Vec<Self>> {
        let mut sets: Vec<(SetKind, Box<dyn DirectionSet>)> = Vec::new();
        let mut out = Vec::new();
        for reference in wanted {
            reference.check_label(study)?;
        }
        for reference in wanted {
            let at = match sets.iter().position(|(kind, _)| *kind == reference.kind) {
                Some(at) => at,
                None => {
                    let set = directions::open_with(study, &reference.kind, place, model, ctx)?;
                    sets.push((reference.kind.clone(), set));
                    sets.len() - 1
                }
            };
            let set = sets[at].1.as_ref();
            let id = set.find(&reference.id)?;
            let mut direction = Self {
                set: set.name().to_owned(),
                id,
                title: set.title(id).map(str::to_owned),
                hook: set.hook(),
                weight: reference.weight,
                recipe: set.recipe(id).to_vec(),
                column: set.directions().column(id),
            };
            if *part != SteerPart::Whole {
                direction.column = direction.part(study, reference, place, part)?;
            }
            out.push(direction);
        }
        Ok(out)
    }

    /// The column of the `part` of a feature's neurons.
    fn part(
        &self,
        study: &Study,
        reference: &Reference,
        place: &HookSelection,
        part: &SteerPart,
    ) -> Result<Vec<f32>> {
        let SetKind::Fit(name) = &reference.kind else {
            return Err(Error::usage(format!(
                "--core-of and --exclusive-of take features of a fit, not {}",
                self.set
            )));
        };
        let name = match name.clone().or(place.fit.clone()) {
            Some(name) => Some(name),
            None => place.resolve(study)?.1.map(|fit| fit.name),
        };
        let (_, factors) = study.load_fit(name.as_deref())?;
        part_direction(&factors, self.id, part)
    }

    /// What `steering` adds to activations for it.
    ///
    /// # Errors
    /// A direction of another width than the model's.
    pub fn term(&self, model: &Model) -> Result<SteerTerm> {
        direction_term(model, self.hook, &self.column, self.weight)
    }
}
