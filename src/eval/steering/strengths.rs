//! The strengths of a run: α for every target, and where words stand at them.
//!
//! Knows directions and the log. Invariant: what is measured at an α is in the log with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rise::Percentiles;
use super::run::{Run, SEARCHED_TOGETHER};
use super::{LabelDirection, StrengthRecord};
use crate::error::Result;
use crate::steering::calibrate::{SignedIntervention, calibrate_by, kls_of};
use crate::steering::change::for_each_change;
use crate::steering::tap::Steering;
use crate::steering::{Intervention, Positions};
use crate::task::{Progress, TaskCtx};

impl Run<'_> {
    /// Steers with random directions alone, where the log lacks them: what chance gives the words
    /// that are watched.
    ///
    /// # Errors
    /// What the model and the log return; [`Error::Cancelled`](crate::error::Error::Cancelled).
    pub fn chance(&mut self, directions: &[LabelDirection], ctx: &TaskCtx) -> Result<()> {
        let (quiet, all) = (ctx.without_progress(), directions.len());
        for (at, directions) in directions.chunks(SEARCHED_TOGETHER).enumerate() {
            let done = at * SEARCHED_TOGETHER;
            ctx.checkpoint(Progress::new(
                "random directions, for what chance gives",
                done as u64,
                all as u64,
                "directions",
            ))?;
            let interventions = directions
                .iter()
                .map(LabelDirection::intervention)
                .collect::<Result<Vec<_>>>()?;
            let signed: Vec<(&LabelDirection, i8)> = directions.iter().map(|d| (d, 1)).collect();
            self.strengths(&signed, &interventions, &quiet)?;
        }
        Ok(())
    }

    /// The α of every target of each direction and sign, searched where the log lacks them.
    pub(super) fn strengths(
        &mut self,
        signed: &[(&LabelDirection, i8)],
        interventions: &[Arc<Intervention>],
        ctx: &TaskCtx,
    ) -> Result<Vec<Vec<StrengthRecord>>> {
        let targets = &self.config.targets;
        let known = |(subject, sign): &(&LabelDirection, i8)| -> Option<Vec<StrengthRecord>> {
            let all = self.log.strengths().iter();
            let records = all.filter(|s| {
                s.method == subject.method && s.label == subject.label && s.sign == *sign
            });
            let records: Vec<StrengthRecord> = records.cloned().collect();
            targets
                .iter()
                .all(|t| records.iter().any(|k| k.target == *t))
                .then_some(records)
        };
        let mut out: Vec<Option<Vec<StrengthRecord>>> = signed.iter().map(known).collect();
        let missing: Vec<usize> = (0..signed.len()).filter(|&i| out[i].is_none()).collect();
        let (mirrored, missing): (Vec<usize>, Vec<usize>) = missing
            .into_iter()
            .partition(|&i| self.config.mirrored && signed[i].1 < 0);
        let wanted: Vec<SignedIntervention> = missing
            .iter()
            .map(|&i| SignedIntervention {
                intervention: interventions[i].clone(),
                negative: signed[i].1 < 0,
            })
            .collect();
        if !wanted.is_empty() {
            let found = calibrate_by(
                self.config.search,
                self.model,
                &wanted,
                &self.prompts,
                targets,
                Positions::All,
                ctx,
            )?;
            for (&i, found) in missing.iter().zip(found) {
                let (subject, sign) = signed[i];
                let records = found
                    .into_iter()
                    .zip(targets)
                    .map(|(c, &target)| subject.strength(sign, target, c));
                out[i] = Some(records.collect());
            }
            let fresh = out
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| missing.contains(i));
            let records = fresh.flat_map(|(i, strengths)| {
                strengths
                    .iter_mut()
                    .flatten()
                    .map(move |r| (signed[i].0, &interventions[i], r))
            });
            self.rises(records.collect(), ctx)?;
            for i in missing {
                self.log
                    .add_strengths(out[i].as_deref().unwrap_or_default())?;
            }
        }
        for i in mirrored {
            // Both signs of a direction stand together.
            let index = (0..signed.len()).find(|&j| {
                let (one, other) = (signed[i].0, signed[j].0);
                signed[j].1 > 0 && one.method == other.method && one.label == other.label
            });
            let positive = index.and_then(|j| out[j].clone()).unwrap_or_default();
            let records = self.mirror(&positive, &interventions[i], ctx)?;
            self.log.add_strengths(&records)?;
            out[i] = Some(records);
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// The strengths of the negative side with −α of the positive one, whatever KL they have.
    fn mirror(
        &self,
        positive: &[StrengthRecord],
        intervention: &Arc<Intervention>,
        ctx: &TaskCtx,
    ) -> Result<Vec<StrengthRecord>> {
        let steerings: Vec<Steering> = positive
            .iter()
            .map(|record| Steering {
                intervention: intervention.clone(),
                alpha: -record.alpha,
            })
            .collect();
        if steerings.is_empty() {
            return Ok(Vec::new());
        }
        let kls = kls_of(self.model, &steerings, &self.prompts, Positions::All, ctx)?;
        let record = |(positive, kl): (&StrengthRecord, f64)| StrengthRecord {
            sign: -1,
            alpha: -positive.alpha,
            kl,
            rise: None,
            nats: None,
            places: BTreeMap::new(),
            new_places: BTreeMap::new(),
            ..positive.clone()
        };
        Ok(positive.iter().zip(kls).map(record).collect())
    }

    /// Adds the percentile of each label's own words at the α that were found.
    fn rises(
        &self,
        found: Vec<(&LabelDirection, &Arc<Intervention>, &mut StrengthRecord)>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let mut found = found;
        let watched = self.watched;
        let asks =
            |subject: &LabelDirection| !(subject.words.is_empty() && watched.labels.is_empty());
        found.retain(|(subject, _, record)| record.reached && asks(subject));
        if found.is_empty() {
            return Ok(());
        }
        let steering = |intervention: &Arc<Intervention>, alpha| Steering {
            intervention: intervention.clone(),
            alpha,
        };
        let steerings: Vec<Steering> = found
            .iter()
            .map(|(_, intervention, record)| steering(intervention, record.alpha))
            .collect();
        for_each_change(
            self.model,
            &steerings,
            &self.prompts,
            Positions::All,
            ctx,
            |i, change| {
                let changes = &change.log_probs;
                let (subject, _, record) = &mut found[i];
                let ranks = Percentiles::of(changes);
                record.rise = ranks.mean(&subject.words);
                let own = subject
                    .words
                    .iter()
                    .filter_map(|&w| changes.get(w as usize));
                record.nats = record
                    .rise
                    .map(|_| own.sum::<f64>() / subject.words.len() as f64);
                record.places = watched.places(&watched.words, &ranks);
                record.new_places = watched.places(&watched.new, &ranks);
            },
        )
    }
}
