//! From the log of an evaluation by descriptions to its tables: one a side.

use super::super::causal::{Causal, Unreached};
use super::units::Concept;
use super::{ConceptLine, PreparedUnits, subjects};
use crate::error::Result;
use crate::eval::steering::judge::Judgement;
use crate::eval::steering::log::Log;
use crate::eval::steering::report::{ReportLine, compare, report};
use crate::eval::steering::side::Side;
use crate::eval::steering::worded::PROMPT;
use crate::eval::steering::{JudgedRecord, unreached};

/// What is known of one side when its texts are rated.
pub(super) struct SideOf {
    pub side: Side,
    pub judge: String,
    pub meaning: String,
    /// The descriptions of this side.
    pub labels: Vec<String>,
    pub not_judged: Vec<(String, String)>,
    pub stopped: bool,
}

impl PreparedUnits {
    /// The table of one side.
    pub(super) fn side(
        &self,
        name: &str,
        log: &Log,
        judged_side: SideOf,
        aurocs: &[(String, f64)],
    ) -> Result<Causal> {
        let mut judged: Vec<JudgedRecord> = log.judged(&judged_side.judge)?;
        for record in &mut judged {
            record.key.label = Side::strip(&record.key.label).to_owned();
        }
        let unrated = judged.iter().find_map(|record| match &record.judgement {
            Judgement::Unrated { unrated } => Some(unrated.clone()),
            Judgement::Rated { .. } => None,
        });
        let mut names: Vec<(String, String)> = Vec::new();
        for (i, direction) in self.units.gathered.subjects.iter().enumerate() {
            if !names.iter().any(|(n, _)| *n == direction.set) {
                names.push((direction.set.clone(), self.units.hook(i).to_string()));
            }
        }
        let first = names
            .first()
            .map(|(_, hook)| hook.clone())
            .unwrap_or_default();
        if self.units.diffmean {
            names.push((subjects::DIFFMEAN.to_owned(), first.clone()));
        }
        if let Some(set) = &self.units.random {
            names.push((set.name().to_owned(), first.clone()));
        }
        if self.units.asks {
            names.push((PROMPT.to_owned(), String::new()));
        }
        let lines: Vec<ReportLine> = names.iter().map(|(n, _)| ReportLine::one(n)).collect();
        let methods = report(&judged, &lines, self.ask.seed);
        let strengths = log.strengths().iter().filter(|s| {
            Side::ALL
                .iter()
                .all(|side| *side == judged_side.side || !s.label.ends_with(&side.suffix()))
        });
        let strengths: Vec<_> = strengths.cloned().collect();
        Ok(Causal {
            name: name.to_owned(),
            dir: log.dir().to_path_buf(),
            hook: first,
            judge: judged_side.judge,
            meaning: judged_side.meaning,
            not_judged: judged_side.not_judged,
            aurocs: aurocs
                .iter()
                .filter(|(l, _)| judged_side.labels.contains(l))
                .cloned()
                .collect(),
            labels: judged_side.labels,
            unrated,
            compared: compare(&methods, self.ask.seed),
            methods,
            hooks: names.into_iter().map(|(_, hook)| hook).collect(),
            unseen: Vec::new(),
            free_texts: Vec::new(),
            rises: Vec::new(),
            measures: Vec::new(),
            stopped: judged_side.stopped,
            unsteered: None,
            unreached: Unreached::of(unreached(&strengths)),
        })
    }

    /// What each feature was judged by, with the S_CD of its own direction.
    pub(super) fn lines(&self, concepts: &[Concept], own: &[Option<f64>]) -> Vec<ConceptLine> {
        let line = |(concept, s_cd): (&Concept, &Option<f64>)| {
            let described = self.units.descriptions[concept.unit].as_ref();
            ConceptLine {
                set: self.units.gathered.subjects[concept.unit].set.clone(),
                feature: self.units.gathered.subjects[concept.unit].id,
                side: concept.side,
                description: concept.text.clone(),
                described_by: described.map(|d| d.judge.clone()).unwrap_or_default(),
                s_cd: *s_cd,
            }
        };
        concepts.iter().zip(own).map(line).collect()
    }
}
