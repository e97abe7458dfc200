//! Adds corpora to a complete study, and removes the last one again while it is not completely
//! collected.
//!
//! Invariant: until the last sample of an added corpus is collected, the study can be restored to
//! its state before.

use super::manifest::CorpusEntry;
use super::rows::Appender;
use super::tokens::{Log, LogWriter};
use super::{Study, energy, samples};
use crate::corpus::Corpus;
use crate::error::{Error, Result};

impl Study {
    /// Checks that a corpus can be added: the study must be complete, and not imported.
    ///
    /// # Errors
    /// [`Error::Usage`] for an imported study; [`Error::Refused`] for one that is not complete.
    pub fn check_append(&self, corpus: &Corpus) -> Result<()> {
        let dir = self.dir.display();
        if self.manifest.model.is_none() {
            return Err(Error::usage(format!(
                "{dir} holds an imported matrix: no corpus can be added"
            )));
        }
        if self.manifest.complete || self.manifest.first_sample(&corpus.sha256).is_some() {
            return Ok(());
        }
        let due = &self.manifest.corpora[self.corpus_due()?].name;
        let alternative = if self.manifest.corpora.len() > 1 {
            ", or take it out again by --withdraw"
        } else {
            ""
        };
        Err(Error::refused(format!(
            "{dir} is not yet complete ({}): finish {due} first by mlpeek collect --out {dir}{alternative}",
            self.collected()?
        )))
    }

    /// Adds a corpus to a complete study, for collecting to continue with; see
    /// [`Self::check_append`].
    /// Adding one that it has already changes nothing.
    ///
    /// # Errors
    /// What [`Self::check_append`] returns; a study that is open for reading; files that cannot be
    /// written.
    pub fn append(&mut self, corpus: &Corpus) -> Result<()> {
        self.check_writable()?;
        self.check_append(corpus)?;
        if self.manifest.first_sample(&corpus.sha256).is_some() {
            return Ok(());
        }
        samples::write(&self.dir, self.manifest.corpora.len(), &corpus.samples)?;
        let mut manifest = self.manifest.clone();
        manifest.corpora.push(CorpusEntry::new(corpus));
        manifest.complete = false;
        manifest.write(&self.dir)?;
        self.manifest = manifest;
        self.clear_token_cache();
        Ok(())
    }

    /// Removes the corpus that was added last, with the rows that were collected of it, if
    /// collecting it was interrupted. Returns its name.
    ///
    /// # Errors
    /// A study without such a corpus, and one with a fit to rows of it.
    pub fn withdraw(&mut self) -> Result<String> {
        self.check_writable()?;
        let (dir, manifest) = (self.dir.display().to_string(), &self.manifest);
        let added = manifest
            .corpora
            .last()
            .filter(|_| !manifest.complete && manifest.corpora.len() > 1);
        let Some(name) = added.map(|corpus| corpus.name.clone()) else {
            return Err(Error::usage(format!(
                "{dir} has no added corpus that was cut short: there is nothing to withdraw"
            )));
        };
        if let Some(fit) = self.fit_with_more_rows(manifest.rows)? {
            return Err(Error::refused(format!(
                "fit '{fit}' of {dir} is of rows of {name}: remove {dir}/fits/{fit} first"
            )));
        }
        if self.collected()?.samples < self.samples_before_last() {
            return Err(Error::refused(format!(
                "rows that were there before {name} are missing from {dir}: mlpeek collect --out {dir} collects them again first"
            )));
        }
        let mut log = Log::read(&self.dir)?;
        let cut = log.cut_to_samples(self.samples_before_last());
        LogWriter::open(&self.dir, &log, cut)?;
        for &hook in &self.manifest.hooks {
            energy::remove(&self.dir, hook)?;
        }
        self.clear_token_cache();
        self.withdraw_if_empty()?;
        // The caches go back to the rows of the log.
        Appender::open(self)?;
        Ok(name)
    }

    /// The number of samples of all corpora but the last.
    fn samples_before_last(&self) -> usize {
        self.manifest
            .corpora
            .iter()
            .rev()
            .skip(1)
            .map(|c| c.samples)
            .fold(0, usize::saturating_add)
    }

    /// Removes the corpus that was added last if none of its samples is collected, so that a
    /// collection that could not begin leaves the study unchanged.
    pub(crate) fn withdraw_if_empty(&mut self) -> Result<()> {
        let nothing_to_withdraw =
            self.manifest.corpora.len() < 2 || self.manifest.complete || !self.is_writable();
        // If an earlier corpus lost rows, nothing is withdrawn.
        if nothing_to_withdraw || self.collected()?.samples != self.samples_before_last() {
            return Ok(());
        }
        let mut manifest = self.manifest.clone();
        manifest.corpora.pop();
        manifest.complete = true;
        manifest.write(&self.dir)?;
        samples::remove(&self.dir, manifest.corpora.len())?;
        self.manifest = manifest;
        self.clear_token_cache();
        Ok(())
    }
}
