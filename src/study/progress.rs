//! How far a study has been collected. A collection may be interrupted at any sample, and continues
//! from there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Study, samples, tokens};
use crate::amounts::count;
use crate::corpus::Corpus;
use crate::error::Result;

/// How far the samples of a study have been collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectState {
    /// Samples whose rows are stored.
    pub samples: usize,
    /// Samples of all corpora of the study.
    pub total: usize,
    /// Token rows that are stored.
    pub rows: usize,
}

impl CollectState {
    /// The percentage of the samples, rounded down; 100 only if all are collected.
    pub fn percent(&self) -> usize {
        if self.is_complete() {
            return 100;
        }
        // The numbers of a damaged manifest may be too large for 64 bits after the multiplication.
        (self.samples as u128 * 100 / self.total as u128) as usize
    }

    /// Whether every sample is there.
    pub fn is_complete(&self) -> bool {
        self.samples >= self.total
    }
}

/// Displayed as "collected 53 %: 1,234 of 2,300 samples".
impl fmt::Display for CollectState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "collected {} %: {} of {} samples",
            self.percent(),
            count(self.samples),
            count(self.total)
        )
    }
}

impl Study {
    /// The command that continues an interrupted collection.
    pub fn collect_command(&self) -> String {
        match self.manifest().model {
            Some(_) => format!("mlpeek collect --out {}", self.dir().display()),
            None => "the same mlpeek import, run again,".to_owned(),
        }
    }

    /// How far it has been collected.
    ///
    /// # Errors
    /// A log of token rows that is damaged.
    pub fn collected(&self) -> Result<CollectState> {
        let (manifest, total) = (self.manifest(), self.manifest().samples());
        if manifest.complete {
            return Ok(CollectState {
                samples: total,
                total,
                rows: manifest.rows,
            });
        }
        let log = tokens::Log::read(self.dir())?;
        Ok(CollectState {
            samples: log.samples().min(total),
            total,
            rows: log.rows(),
        })
    }

    /// A corpus of the study as it was when it was added.
    ///
    /// # Errors
    /// A file of samples that is missing or damaged.
    pub fn corpus(&self, number: usize) -> Result<Corpus> {
        let entry = &self.manifest().corpora[number];
        let samples = samples::read(self.dir(), number, entry.samples)?;
        Ok(Corpus {
            name: entry.name.clone(),
            samples,
            sha256: entry.sha256.clone(),
        })
    }

    /// The index of the corpus of the next sample to collect; the last corpus if all are collected.
    ///
    /// # Errors
    /// What [`Self::collected`] returns.
    pub fn corpus_due(&self) -> Result<usize> {
        let done = self.collected()?.samples;
        let mut end = 0;
        let corpora = &self.manifest().corpora;
        let due = corpora.iter().position(|corpus| {
            end += corpus.samples;
            done < end
        });
        Ok(due.unwrap_or(corpora.len() - 1))
    }
}
