//! Descriptions of directions by a judge: what the judge is shown, and what of its answers the study
//! keeps.
//!
//! Knows no endpoint. Invariant: a direction that fires nowhere is not asked about.

use std::sync::Arc;

use super::directions::{self, HookSelection, Reference};
use super::reading;
use crate::analysis::{Notes, contexts, lens};
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::eval::judge::JudgeClient;
use crate::eval::judge::describe::{self, Description, FeatureMaterial, direction_digest};
use crate::eval::phrases::Phrases;
use crate::factor::Factors;
use crate::model::{BosRule, HookPoint, Model};
use crate::study::Study;
use crate::task::TaskCtx;

/// A direction that is described.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The name of its set.
    pub set: String,
    /// Its number in the set.
    pub id: usize,
    /// What the set calls it, where it has names of its own.
    pub title: Option<String>,
    /// The hook that it lives in.
    pub hook: HookPoint,
    /// The direction itself, of the hook's width.
    pub column: Vec<f32>,
    /// What its description is kept with.
    pub digest: String,
}

/// A set with what is read of it, opened once.
struct Opened {
    kind: SetKind,
    set: Box<dyn DirectionSet>,
    factors: Arc<Factors>,
    notes: Notes,
}

impl Opened {
    fn new(study: &Study, kind: &SetKind, place: &HookSelection, ctx: &TaskCtx) -> Result<Self> {
        let set = directions::open(study, kind, place, ctx)?;
        let factors = set.factors_on(study.activations(set.hook())?.as_ref(), ctx)?;
        let notes = directions::names(study, set.as_ref())?;
        Ok(Self {
            kind: kind.clone(),
            set,
            factors,
            notes,
        })
    }
}

/// The directions that were asked for, found in their sets.
pub struct Wanted {
    sets: Vec<Opened>,
    /// The index of its set, and its number there, of each direction.
    found: Vec<(usize, usize)>,
}

impl Wanted {
    /// Finds what is `wanted`, or all features of the fit at `place` where nothing is.
    ///
    /// # Errors
    /// What [`directions::open`] returns; [`Error::Usage`] for a direction that a set does not have,
    /// one with a weight, and a `place` that nothing looks at.
    pub fn find(
        study: &Study,
        wanted: &[Reference],
        place: &HookSelection,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        if let Some(weighted) = wanted.iter().find(|r| r.weight != 1.0) {
            return Err(Error::usage(format!(
                "a direction is described without a weight: leave out :{}",
                weighted.weight
            )));
        }
        if wanted.is_empty() {
            let all = Opened::new(study, &SetKind::FIT, place, ctx)?;
            let count = all.factors.features.columns();
            return Ok(Self {
                sets: vec![all],
                found: (0..count).map(|id| (0, id)).collect(),
            });
        }
        place.check_effect(study, wanted.iter().map(|reference| &reference.kind))?;
        let mut out = Self {
            sets: Vec::new(),
            found: Vec::new(),
        };
        for reference in wanted {
            let known = out.sets.iter().position(|s| s.kind == reference.kind);
            let at = match known {
                Some(at) => at,
                None => {
                    let opened = Opened::new(study, &reference.kind, place, ctx)?;
                    out.sets.push(opened);
                    out.sets.len() - 1
                }
            };
            out.found.push((at, out.sets[at].set.find(&reference.id)?));
        }
        Ok(out)
    }

    /// What a judge is shown of each; `model` is the reason where there is none, and no promoted
    /// words are shown then.
    ///
    /// # Errors
    /// Tokens that cannot be read.
    pub fn material(self, study: &Study, model: Result<&Model, String>) -> Result<Material> {
        let tokens = study.tokens()?;
        let mut out = Material::default();
        for (at, id) in self.found {
            let Opened {
                set,
                factors,
                notes,
                ..
            } = &self.sets[at];
            let hook = set.hook();
            let mut card = contexts::feature_card(factors, &tokens, notes, id)?;
            reading::add_lens(&mut card, hook, factors, model.clone());
            if card.contexts.is_empty() {
                out.silent.push((set.name().to_owned(), id));
                continue;
            }
            out.features
                .push(FeatureMaterial::of(&card, factors, &tokens));
            out.subjects.push(Subject {
                set: set.name().to_owned(),
                id,
                title: set.title(id).map(str::to_owned),
                hook,
                column: factors.features.dense_column(id),
                digest: direction_digest(&set.directions().column(id)),
            });
        }
        Ok(out)
    }
}

/// What a judge is shown of directions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Material {
    /// The directions that fire anywhere, in the order asked for.
    pub subjects: Vec<Subject>,
    /// What the judge is shown of each of `subjects`, in the same order.
    pub features: Vec<FeatureMaterial>,
    /// Set and number of the directions that fire nowhere.
    pub silent: Vec<(String, usize)>,
}

impl Material {
    /// Asks the judge and keeps what it says in the study: a description of each of `subjects`, of
    /// which what could not be said is `None`. `scored`: whether descriptions are told from other
    /// texts. `model`, where there is one, scores sentences that the judge writes for them.
    ///
    /// # Errors
    /// What [`describe::describe`] returns; a study that cannot be written.
    pub fn describe(
        &self,
        study: &Study,
        judge: &mut JudgeClient,
        scored: bool,
        model: Option<&Model>,
        ctx: &TaskCtx,
    ) -> Result<Vec<Description>> {
        let bos: BosRule = study.manifest().bos;
        let mut score = model.map(|model| {
            |i: usize, texts: &[String]| {
                let subject = &self.subjects[i];
                lens::best_cosines(model, subject.hook, &subject.column, texts, bos, ctx)
            }
        });
        let score = score
            .as_mut()
            .map(|s| s as &mut dyn FnMut(usize, &[String]) -> Result<Vec<f64>>);
        let mut described = describe::describe(judge, &self.features, scored, score, ctx)?;
        self.keep(study, &mut described)?;
        Ok(described)
    }

    /// Finds the nearest of some phrases for each of `subjects`, and keeps them in the study.
    ///
    /// # Errors
    /// What [`Phrases::describe`] returns; a study that cannot be written.
    pub fn describe_offline(
        &self,
        study: &Study,
        phrases: &Phrases<'_>,
        scored: bool,
        ctx: &TaskCtx,
    ) -> Result<Vec<Description>> {
        let mut described = phrases.describe(&self.features, scored, ctx)?;
        self.keep(study, &mut described)?;
        Ok(described)
    }

    /// Adds descriptions of `subjects` to the study, those that say something.
    fn keep(&self, study: &Study, described: &mut [Description]) -> Result<()> {
        for (subject, description) in self.subjects.iter().zip(&mut *described) {
            description.direction = Some(subject.digest.clone());
        }
        let described = &*described;
        let all = || self.subjects.iter().zip(described);
        let mut sets: Vec<&str> = self.subjects.iter().map(|s| s.set.as_str()).collect();
        sets.sort_unstable();
        sets.dedup();
        for set in sets {
            let described = all().filter(|(s, d)| s.set == set && !says_nothing(d));
            study.add_descriptions(set, described.map(|(s, d)| (s.id, d.clone())).collect())?;
        }
        Ok(())
    }

    /// A part of it, by the places of `subjects`.
    pub fn part(&self, places: &[usize]) -> Self {
        Self {
            subjects: places.iter().map(|&i| self.subjects[i].clone()).collect(),
            features: places.iter().map(|&i| self.features[i].clone()).collect(),
            silent: Vec::new(),
        }
    }
}

/// Whether the judge said nothing at all.
pub fn says_nothing(description: &Description) -> bool {
    description.input.is_none() && description.output.is_none()
}
