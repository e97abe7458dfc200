//! The units of an evaluation by descriptions: directions with what describes them, sentences for each
//! description, and the directions that other methods offer for it.

use std::collections::{BTreeMap, HashMap};

use rand::SeedableRng;
use rand::seq::{SliceRandom, index};
use rand_pcg::Pcg64Mcg;

use super::super::describing::{Material, Wanted};
use super::super::directions::{self, Reference};
use super::super::evaluation::Method;
use super::DescribedRequest;
use crate::directions::{Baseline, DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::eval::judge::describe::Description;
use crate::eval::judge::sentences::WrittenSentences;
use crate::eval::steering::meaning::{score, unit_mean};
use crate::eval::steering::side::Side;
use crate::model::encoder::SentenceEncoder;
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::TaskCtx;

/// Texts of a corpus among which sentences for a description are looked for.
const CORPUS_TEXTS: usize = 4000;

/// Directions that are described, set after set, with the methods that are made for the first set's
/// descriptions.
pub struct Units {
    /// The sets' names, in the order of the methods.
    pub sets: Vec<String>,
    /// The directions with their material.
    pub gathered: Material,
    /// What the study has of each.
    pub descriptions: Vec<Option<Description>>,
    /// Descriptions that an earlier version stored without the direction they are of: not taken.
    pub unchecked: usize,
    /// Whether differences in means are made of each description's sentences.
    pub diffmean: bool,
    /// Random directions, where they are among the methods.
    pub random: Option<Box<dyn DirectionSet>>,
    /// Whether the model is also asked in words, for the first set's descriptions.
    pub asks: bool,
}

/// A description of one side that texts are judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    /// The place of its direction among the units.
    pub unit: usize,
    /// Which side it describes.
    pub side: Side,
    /// The description, one line as its author gave it.
    pub text: String,
}

impl Units {
    /// Opens the sets, draws a sample of their directions where one is asked for, and gathers what
    /// they are described by.
    ///
    /// # Errors
    /// [`Error::Usage`] for a method that has no description of its own, and without one that has;
    /// what [`Wanted::find`] returns.
    pub fn gather(
        study: &Study,
        ask: &DescribedRequest,
        model: &Model,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let asks = ask.methods.contains(&Method::Prompt);
        let (kinds, diffmean, random) = sort(&ask.methods)?;
        let mut wanted = Vec::new();
        for kind in &kinds {
            let count = directions::open(study, kind, &ask.place, ctx)?
                .directions()
                .count();
            let mut rng = Pcg64Mcg::seed_from_u64(ask.seed);
            let mut ids = match ask.sample.filter(|&n| n < count) {
                Some(n) => index::sample(&mut rng, count, n).into_vec(),
                None => (0..count).collect(),
            };
            ids.sort_unstable();
            wanted.extend(ids.into_iter().map(|id| Reference {
                kind: kind.clone(),
                id: id.to_string(),
                weight: 1.0,
            }));
        }
        let gathered = Wanted::find(study, &wanted, &ask.place, ctx)?.material(study, Ok(model))?;
        let mut sets: Vec<String> = Vec::new();
        for direction in &gathered.subjects {
            if !sets.contains(&direction.set) {
                sets.push(direction.set.clone());
            }
        }
        let random = random
            .map(|kind| directions::open(study, &kind, &ask.place, ctx))
            .transpose()?;
        let first = gathered.subjects.first().map(|d| d.hook);
        if let (Some(set), Some(hook)) = (&random, first)
            && set.hook() != hook
        {
            return Err(Error::usage(format!(
                "random directions are of {}, and the first set is of {hook}: name the fit with --fit, or leave out the hook",
                set.hook()
            )));
        }
        let mut known = BTreeMap::new();
        for set in &sets {
            let of_set = gathered.subjects.iter().filter(|d| d.set == *set);
            let digests = of_set.map(|d| (d.id, d.digest.as_str()));
            known.insert(set.clone(), study.descriptions(set, digests)?);
        }
        let subjects = gathered.subjects.iter();
        let found: Vec<Option<Description>> = subjects
            .map(|d| known.get_mut(&d.set)?.remove(&d.id))
            .collect();
        let unchecked = |d: &Description| d.direction.is_none();
        let old = found.iter().flatten().filter(|d| unchecked(d)).count();
        // It may be of a direction that had the number before.
        let descriptions = found
            .into_iter()
            .map(|d| d.filter(|d| !unchecked(d)))
            .collect();
        Ok(Self {
            sets,
            gathered,
            descriptions,
            unchecked: old,
            diffmean,
            random,
            asks,
        })
    }

    /// Units that nothing describes yet.
    pub fn undescribed(&self) -> Vec<usize> {
        let none = |i: &usize| self.descriptions[*i].is_none();
        (0..self.descriptions.len()).filter(none).collect()
    }

    /// The part of what was gathered that nothing describes yet.
    pub fn to_describe(&self) -> Material {
        self.gathered.part(&self.undescribed())
    }

    /// Takes descriptions of [`Units::undescribed`], in that order.
    pub fn take(&mut self, described: Vec<Description>) {
        for (i, description) in self.undescribed().into_iter().zip(described) {
            self.descriptions[i] = Some(description);
        }
    }

    /// Every description, a concept a side.
    pub fn concepts(&self) -> Vec<Concept> {
        let mut out = Vec::new();
        for (unit, description) in self.descriptions.iter().enumerate() {
            let Some(description) = description else {
                continue;
            };
            let sides = [
                (Side::Inputs, &description.input),
                (Side::Outputs, &description.output),
            ];
            for (side, text) in sides {
                if let Some(text) = text.clone() {
                    out.push(Concept { unit, side, text });
                }
            }
        }
        out
    }

    /// The hook of a unit.
    pub fn hook(&self, unit: usize) -> HookPoint {
        self.gathered.subjects[unit].hook
    }

    /// What the texts of a unit are kept under.
    pub fn key(&self, unit: usize) -> String {
        let subject = &self.gathered.subjects[unit];
        let (set, id) = (&subject.set, subject.id);
        format!("{set} {id}")
    }

    /// Whether a unit is of the first set, which the other methods are made for.
    pub fn in_first(&self, unit: usize) -> bool {
        self.sets.first() == Some(&self.gathered.subjects[unit].set)
    }
}

/// Sets with descriptions of their own; whether differences in means are asked for; random
/// directions.
fn sort(methods: &[Method]) -> Result<(Vec<SetKind>, bool, Option<SetKind>)> {
    let (mut kinds, mut diffmean, mut random) = (Vec::new(), false, None);
    for method in methods {
        match method {
            Method::Set(SetKind::Baseline {
                kind: Baseline::DiffMean,
                hook: None,
            }) => diffmean = true,
            Method::Set(kind) if kind.supervised() => {
                return Err(Error::usage(format!(
                    "{kind} is made from labels: with --concepts descriptions give diffmean, which is made from sentences for \
                     each description"
                )));
            }
            Method::Set(kind) if !kind.ranked() => random = Some(kind.clone()),
            Method::Set(kind) => kinds.push(kind.clone()),
            Method::Prompt => {}
            Method::Shuffled | Method::Mean(_) => {
                return Err(Error::usage(format!(
                    "{method} has no descriptions of its own: with --concepts descriptions give fit, fit:NAME, sae:NAME, kmeans, \
                     neuron, diffmean, random or prompt"
                )));
            }
        }
    }
    if kinds.is_empty() {
        return Err(Error::usage(
            "nothing has a description of its own: name a set of features first, such as fit or sae:NAME",
        ));
    }
    Ok((kinds, diffmean, random))
}

/// A corpus's sentences in place of written ones: those nearest to a description, and others.
pub struct CorpusSentences<'a> {
    encoder: &'a SentenceEncoder,
    texts: Vec<String>,
    embeddings: Vec<Vec<f32>>,
    middle: Vec<f64>,
    seed: u64,
}

impl<'a> CorpusSentences<'a> {
    /// Reads a study's texts, of many a sample.
    ///
    /// # Errors
    /// What the encoder returns; a study that cannot be read.
    pub fn read(
        encoder: &'a SentenceEncoder,
        study: &Study,
        seed: u64,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut texts: Vec<String> = study.tokens()?.texts.to_vec();
        texts.retain(|t| !t.trim().is_empty());
        texts.sort_unstable();
        texts.dedup();
        texts.shuffle(&mut Pcg64Mcg::seed_from_u64(seed));
        texts.truncate(CORPUS_TEXTS);
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embeddings = encoder.embed(&all, ctx)?;
        let middle = unit_mean(embeddings.iter().map(Vec::as_slice), encoder.width());
        Ok(Self {
            encoder,
            texts,
            embeddings,
            middle,
            seed,
        })
    }

    /// For each description the `count` sentences nearest to it, and as many of the further half.
    ///
    /// # Errors
    /// What the encoder returns.
    pub fn find(
        &self,
        descriptions: &[&str],
        count: usize,
        ctx: &TaskCtx,
    ) -> Result<Vec<WrittenSentences>> {
        let embeddings = self.encoder.embed(descriptions, ctx)?;
        let find = |embedding: &Vec<f32>| {
            let apart = embedding.iter().zip(&self.middle);
            let direction: Vec<f64> = apart.map(|(&x, m)| f64::from(x) - m).collect();
            let scores: Vec<f64> = self
                .embeddings
                .iter()
                .map(|x| score(x, &direction))
                .collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut far = order[order.len() / 2..].to_vec();
            far.shuffle(&mut Pcg64Mcg::seed_from_u64(self.seed));
            let texts_of = |ids: &[usize]| -> Vec<String> {
                ids.iter()
                    .take(count)
                    .map(|&i| self.texts[i].clone())
                    .collect()
            };
            let near = &order[..order.len() / 2];
            WrittenSentences {
                activating: texts_of(near),
                neutral: texts_of(&far),
                errors: Vec::new(),
            }
        };
        Ok(embeddings.iter().map(find).collect())
    }
}

/// The distinct descriptions of concepts, in the order of their first place.
pub fn distinct(concepts: &[Concept]) -> Vec<&str> {
    let mut seen = HashMap::new();
    let mut out = Vec::new();
    for concept in concepts {
        if seen.insert(concept.text.as_str(), ()).is_none() {
            out.push(concept.text.as_str());
        }
    }
    out
}
