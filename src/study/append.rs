//! Corpora that are added to a complete study, and taken out again while collecting them has not
//! come to its end.
//!
//! Invariant: until the last sample of an added corpus is there, the study can go back to what it
//! was before it.

use super::manifest::CorpusEntry;
use super::rows::Appender;
use super::tokens::{Log, LogWriter};
use super::{Study, energy, samples};
use crate::corpus::Corpus;
use crate::error::{Error, Result};

impl Study {
    /// Whether a corpus can be added: to a complete study, which was not imported.
    ///
    /// # Errors
    /// Why it cannot.
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
        let or = if self.manifest.corpora.len() > 1 {
            ", or take it out again by --withdraw"
        } else {
            ""
        };
        Err(Error::refused(format!(
            "{dir} is not yet complete ({}): finish {due} first by mlpeek collect --out {dir}{or}",
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
        manifest.corpora.push(CorpusEntry::of(corpus));
        manifest.complete = false;
        manifest.write(&self.dir)?;
        self.manifest = manifest;
        self.clear_token_cache();
        Ok(())
    }

    /// Takes the corpus that was added last out again, with those of its rows that are there, where
    /// collecting it was cut short; its name.
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
            energy::forget(&self.dir, hook)?;
        }
        self.clear_token_cache();
        self.withdraw_if_empty()?;
        // The caches go back to the rows of the log.
        Appender::open(self)?;
        Ok(name)
    }

    fn samples_before_last(&self) -> usize {
        self.manifest
            .corpora
            .iter()
            .rev()
            .skip(1)
            .map(|c| c.samples)
            .sum()
    }

    /// Takes the corpus that was added last back while none of its samples is there: one that could
    /// not be begun leaves the study as it was.
    pub(crate) fn withdraw_if_empty(&mut self) -> Result<()> {
        let alone =
            self.manifest.corpora.len() < 2 || self.manifest.complete || !self.is_writable();
        // An earlier corpus that lost rows is another matter.
        if alone || self.collected()?.samples != self.samples_before_last() {
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
