//! What is steered with for each description, and how its directions tell sentences: features, random
//! directions, and differences in means made from one half of the sentences.

use std::collections::HashMap;

use super::outcome::SideDetection;
use super::units::{Concept, Units};
use crate::analysis::lens::{best_cosine, text_rows};
use crate::error::Result;
use crate::eval::detection::s_cd;
use crate::eval::judge::sentences::WrittenSentences;
use crate::eval::steering::LabelDirection;
use crate::eval::steering::report::interval;
use crate::eval::steering::side::Side;
use crate::model::{BosRule, HookPoint, Model};
use crate::steering::direction_term;
use crate::task::{Progress, TaskCtx};

/// The name of the directions that are made from sentences.
pub(super) const DIFFMEAN: &str = "diffmean";

/// A direction that steers, and the side that it is for; `None`: for both.
pub(super) struct Offered {
    pub subject: LabelDirection,
    pub side: Option<Side>,
}

/// One half of sentences, and the other: they take turns.
pub(super) fn halves(
    sentences: &[String],
) -> (impl Iterator<Item = &String>, impl Iterator<Item = &String>) {
    let every_second = |which: usize| sentences.iter().skip(which).step_by(2);
    (every_second(0), every_second(1))
}

/// S_CD of a direction by method and side, in the order of the concepts.
type Measured = Vec<(String, Side, HookPoint, Option<f64>)>;

/// What methods offer for descriptions, and what their sentences tell of it.
pub(super) struct Offer {
    /// The directions of every method for each concept.
    pub offered: Vec<Offered>,
    /// S_CD by method and side.
    pub detections: Vec<SideDetection>,
    /// The S_CD of each concept's own feature.
    pub own: Vec<Option<f64>>,
}

/// The directions of every method for each concept, and how they tell its sentences.
pub(super) fn offer(
    units: &Units,
    concepts: &[Concept],
    written: &HashMap<String, WrittenSentences>,
    model: &Model,
    bos: BosRule,
    seed: u64,
    ctx: &TaskCtx,
) -> Result<Offer> {
    let quiet = ctx.without_progress();
    let mut offered: Vec<Offered> = Vec::new();
    let (mut measured, mut own): (Measured, Vec<Option<f64>>) = (Vec::new(), Vec::new());
    for (done, concept) in concepts.iter().enumerate() {
        ctx.checkpoint(Progress::new(
            "sentences of descriptions",
            done as u64,
            concepts.len() as u64,
            "descriptions",
        ))?;
        let (unit, side) = (concept.unit, concept.side);
        let (hook, key) = (units.hook(unit), units.key(unit));
        let direction = &units.gathered.subjects[unit];
        let rows = Rows::read(&written[&concept.text], hook, model, bos, &quiet)?;
        let mut add =
            |method: &str, label: String, id: usize, column: &[f32], side: Option<Side>| {
                let same = |o: &Offered| o.subject.method == method && o.subject.label == label;
                if !offered.iter().any(same) {
                    offered.push(Offered {
                        subject: LabelDirection {
                            method: method.to_owned(),
                            label,
                            direction: id,
                            term: direction_term(model, hook, column, 1.0)?,
                            words: Vec::new(),
                        },
                        side,
                    });
                }
                Ok::<(), crate::Error>(())
            };
        let found = rows.s_cd(&direction.column);
        own.push(found);
        measured.push((direction.set.clone(), side, hook, found));
        add(
            &direction.set,
            key.clone(),
            units.gathered.subjects[unit].id,
            &direction.column,
            None,
        )?;
        if !units.in_first(unit) {
            continue;
        }
        if let Some(column) = rows.difference().filter(|_| units.diffmean) {
            measured.push((DIFFMEAN.to_owned(), side, hook, rows.s_cd(&column)));
            let id = units.gathered.subjects[unit].id;
            add(
                DIFFMEAN,
                format!("{key}{}", side.suffix()),
                id,
                &column,
                Some(side),
            )?;
        }
        if let Some(set) = &units.random {
            let id = unit % set.directions().count().max(1);
            let column = set.directions().column(id);
            measured.push((set.name().to_owned(), side, hook, rows.s_cd(&column)));
            add(set.name(), key, id, &column, None)?;
        }
    }
    Ok(Offer {
        offered,
        detections: detections(&measured, seed),
        own,
    })
}

/// The activations of a description's sentences: those of the first halves, and of the second.
struct Rows {
    /// Activating, then neutral.
    made_from: [Vec<f32>; 2],
    tested: [Vec<Vec<f32>>; 2],
    width: usize,
}

impl Rows {
    fn read(
        written: &WrittenSentences,
        hook: HookPoint,
        model: &Model,
        bos: BosRule,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut out = Self {
            made_from: Default::default(),
            tested: Default::default(),
            width: model.width(hook)?,
        };
        for (kind, sentences) in [&written.activating, &written.neutral]
            .into_iter()
            .enumerate()
        {
            let (first, second) = halves(sentences);
            for text in first {
                out.made_from[kind].extend(text_rows(model, hook, text, bos, ctx)?);
            }
            for text in second {
                out.tested[kind].push(text_rows(model, hook, text, bos, ctx)?);
            }
        }
        Ok(out)
    }

    /// ln of the mean over activating sentences of a sentence's largest cosine, over that of neutral
    /// ones.
    fn s_cd(&self, column: &[f32]) -> Option<f64> {
        let mean = |kind: usize| {
            let sentences = &self.tested[kind];
            let sum: f64 = sentences.iter().map(|rows| best_cosine(rows, column)).sum();
            sum / sentences.len().max(1) as f64
        };
        s_cd(mean(0), mean(1))
    }

    /// The mean activation of the activating sentences' tokens minus that of the neutral ones', at
    /// unit length; `None` where they do not differ.
    fn difference(&self) -> Option<Vec<f32>> {
        let mean = |kind: usize| -> Option<Vec<f64>> {
            let rows = self.made_from[kind].chunks_exact(self.width.max(1));
            let count = rows.len();
            let mut sum = vec![0.0f64; self.width];
            for row in rows {
                sum.iter_mut()
                    .zip(row)
                    .for_each(|(s, &v)| *s += f64::from(v));
            }
            sum.iter_mut().for_each(|s| *s /= count.max(1) as f64);
            (count > 0).then_some(sum)
        };
        let (more, less) = (mean(0)?, mean(1)?);
        let difference: Vec<f64> = more.iter().zip(&less).map(|(a, b)| a - b).collect();
        let norm = difference.iter().map(|v| v * v).sum::<f64>().sqrt();
        (norm > 0.0).then(|| difference.iter().map(|v| (v / norm) as f32).collect())
    }
}

/// A line a method and side, in the order in which they came.
fn detections(measured: &Measured, seed: u64) -> Vec<SideDetection> {
    let mut order: Vec<(&String, Side, HookPoint)> = Vec::new();
    for (method, side, hook, _) in measured {
        if !order.contains(&(method, *side, *hook)) {
            order.push((method, *side, *hook));
        }
    }
    order.sort_by_key(|(_, side, _)| *side);
    let line = |(method, side, hook): (&String, Side, HookPoint)| {
        let members = measured
            .iter()
            .filter(|m| (&m.0, m.1, m.2) == (method, side, hook));
        let all: Vec<Option<f64>> = members.map(|m| m.3).collect();
        let defined: Vec<f64> = all.iter().flatten().copied().collect();
        let above = defined.iter().filter(|s| **s > 0.0).count();
        SideDetection {
            method: method.clone(),
            side,
            hook: hook.to_string(),
            s_cd: interval(&defined, seed),
            above_0: (!defined.is_empty()).then(|| above as f64 / defined.len() as f64),
            undefined: all.len() - defined.len(),
            features: all.len(),
        }
    };
    order.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_difference_is_not_what_it_is_tested_on() {
        let sentences = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let (first, second) = halves(&sentences);
        assert_eq!(
            first.map(String::as_str).collect::<Vec<_>>(),
            ["a", "c", "e"]
        );
        assert_eq!(second.map(String::as_str).collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn a_difference_is_of_means_over_tokens_and_scores_by_the_largest_cosine() {
        let rows = Rows {
            made_from: [vec![2.0, 0.0, 4.0, 0.0], vec![0.0, 4.0]],
            tested: [
                vec![vec![1.0, 0.0, 0.0, 1.0]],
                vec![vec![1.0, 1.0], vec![0.0, 1.0]],
            ],
            width: 2,
        };
        // (3, 0) − (0, 4), of length 5.
        assert_eq!(rows.difference().unwrap(), [0.6, -0.8]);
        // Activating 1; neutral (1/√2 + 0) / 2.
        let wanted = (1.0f64 / (0.5f64.sqrt() / 2.0)).ln();
        assert!((rows.s_cd(&[1.0, 0.0]).unwrap() - wanted).abs() < 1e-6);
        assert_eq!(rows.s_cd(&[-1.0, 0.0]), None, "a mean is not above 0");
        let none = Rows {
            made_from: [vec![1.0, 1.0], vec![1.0, 1.0]],
            ..rows
        };
        assert_eq!(none.difference(), None);
    }

    #[test]
    fn shares_are_of_features_where_it_is_defined() {
        let hook = HookPoint {
            layer: 1,
            site: Default::default(),
        };
        let measured = [Some(1.0), Some(-0.5), None, Some(2.0)]
            .map(|s| ("k5".to_owned(), Side::Outputs, hook, s));
        let line = &detections(&measured.to_vec(), 1)[0];
        assert_eq!((line.features, line.undefined), (4, 1));
        assert!((line.above_0.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert!((line.s_cd.unwrap().mean - 2.5 / 3.0).abs() < 1e-12);
    }
}
