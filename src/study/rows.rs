//! Adds rows to a study. The caches and the token log grow together, and agree again after a kill
//! at any instant.
//!
//! Order of a seal: every hook's shard, then the log's segment, then (once all is collected) the
//! manifest. After a kill in between, the next opening drops the incomplete part: the study is cut
//! to the last complete sample that every file holds.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::Study;
use super::energy;
use super::tokens::{Log, LogWriter, Segment};
use crate::activations::energy::Energy;
use crate::activations::store::{CacheWriter, convert_to_f32};
use crate::error::{Error, Result};
use crate::model::HookPoint;

/// `cache/<hook>/` of a study.
pub(super) fn cache_dir(dir: &Path, hook: HookPoint) -> PathBuf {
    caches_dir(dir).join(hook.to_string())
}

/// The caches of all hooks.
pub(super) fn caches_dir(dir: &Path) -> PathBuf {
    dir.join("cache")
}

/// Adds rows to a study, in the order of its samples.
pub struct Appender<'s> {
    study: &'s mut Study,
    caches: Vec<CacheWriter>,
    /// The energy of each hook's rows; `None` if that of the earlier rows is not known: it is then
    /// counted when it is needed.
    energies: Vec<Option<Energy>>,
    /// Memory for a hook's rows in f32.
    rows_f32: Vec<f32>,
    log: LogWriter,
    pending: Segment,
    known: HashSet<u32>,
    /// Rows of the sample whose end is still to come.
    unfinished: Vec<(u32, u32)>,
    /// Whether a cache has lost rows that the others have (on a full disk): sealed rows stay, and
    /// nothing more is sealed.
    broken: bool,
    /// Samples and rows that are safe on disk.
    samples: usize,
    rows: usize,
}

impl<'s> Appender<'s> {
    /// Truncates the files of an open study to the last whole sample that all of them hold, where
    /// adding then continues.
    ///
    /// # Errors
    /// A study that is open for reading; [`Error::File`] for damaged caches or a damaged token log.
    pub fn open(study: &'s mut Study) -> Result<Self> {
        study.check_writable()?;
        let manifest = &study.manifest;
        let hooks = manifest.hooks.iter().zip(&manifest.widths);
        let mut caches = hooks
            .map(|(&hook, &width)| {
                CacheWriter::open(&cache_dir(&study.dir, hook), width, manifest.dtype)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut log = Log::read(&study.dir)?;
        let held = caches.iter().map(CacheWriter::rows).min().unwrap_or(0);
        let cut = log.cut_to_rows(held);
        let (samples, rows) = (log.samples(), log.rows());
        // The manifest is corrected before anything is cut, since a study that has lost rows must
        // not claim to have them.
        if rows < study.manifest.rows {
            tracing::warn!(
                "{}: {rows} of {} rows are whole; the rest will be collected again",
                study.dir.display(),
                study.manifest.rows
            );
            study.set_progress(rows, false)?;
        }
        let writer = LogWriter::open(&study.dir, &log, cut)?;
        caches
            .iter_mut()
            .try_for_each(|cache| cache.truncate(rows))?;
        let hooks = study.manifest.hooks.iter().zip(&study.manifest.widths);
        let energies = hooks
            .map(|(&hook, &width)| match rows {
                0 => Some(Energy::new(width)),
                _ => energy::read(&study.dir, hook, rows, width),
            })
            .collect();
        let known = log
            .segments
            .iter()
            .flat_map(|s| s.pieces.iter().map(|(id, _)| *id))
            .collect();
        let pending = Segment {
            first_sample: samples,
            ..Segment::default()
        };
        let (unfinished, broken) = (Vec::new(), false);
        Ok(Self {
            study,
            caches,
            energies,
            rows_f32: Vec::new(),
            log: writer,
            pending,
            known,
            unfinished,
            broken,
            samples,
            rows,
        })
    }

    /// The study that rows are added to.
    pub fn study(&self) -> &Study {
        self.study
    }

    /// The number of the sample that is due next.
    pub fn next_sample(&self) -> usize {
        self.pending.first_sample + self.pending.counts.len()
    }

    /// The number of rows of complete samples, including those that are not yet safe on disk.
    pub fn rows(&self) -> usize {
        self.rows + self.pending.rows.len()
    }

    /// The number of bytes in the largest cache that a kill would lose.
    pub fn pending_bytes(&self) -> usize {
        self.caches
            .iter()
            .map(CacheWriter::pending_bytes)
            .max()
            .unwrap_or(0)
    }

    /// Adds the next rows of the sample that is due: id and position of each, and for each hook its
    /// rows in the order of [`super::Manifest::hooks`], as bytes of the study's dtype; `ends` says
    /// that these are the last rows of the sample. `piece` gives the display piece of an id that is
    /// new to the study. A sample without its end is not yet in the study, however often it is
    /// sealed.
    ///
    /// # Errors
    /// [`Error::Usage`] for activations that do not fit the tokens and hooks; a cache that cannot
    /// be written.
    pub fn push(
        &mut self,
        tokens: &[(u32, u32)],
        data: &[&[u8]],
        ends: bool,
        piece: impl Fn(u32) -> String,
    ) -> Result<()> {
        let (widths, dtype) = (&self.study.manifest.widths, self.study.manifest.dtype);
        if data.len() != widths.len()
            || data
                .iter()
                .zip(widths)
                .any(|(d, w)| d.len() != tokens.len() * w * dtype.size())
        {
            return Err(Error::usage(format!(
                "sample {}: the activations do not fit its {} tokens and the study's hooks",
                self.next_sample(),
                tokens.len()
            )));
        }
        let pushed = self
            .caches
            .iter_mut()
            .zip(data)
            .try_for_each(|(cache, rows)| cache.push_stored(rows));
        self.broken |= pushed.is_err();
        pushed?;
        for (energy, rows) in self.energies.iter_mut().zip(data) {
            if let Some(energy) = energy {
                self.rows_f32.resize(rows.len() / dtype.size(), 0.0);
                convert_to_f32(dtype, rows, &mut self.rows_f32);
                energy.add(&self.rows_f32);
            }
        }
        self.unfinished.extend_from_slice(tokens);
        for &(id, _) in tokens {
            if self.known.insert(id) {
                self.pending.pieces.push((id, piece(id)));
            }
        }
        if ends {
            self.pending.counts.push(self.unfinished.len() as u32);
            self.pending.rows.append(&mut self.unfinished);
        }
        Ok(())
    }

    /// Saves the energies. A failure is only logged, since they can be counted again.
    fn save_energies(&self) {
        let manifest = &self.study.manifest;
        for (&hook, energy) in manifest.hooks.iter().zip(&self.energies) {
            let Some(energy) = energy else { continue };
            if let Err(problem) = energy::write(&self.study.dir, hook, energy) {
                tracing::warn!("the energy of the neurons is not saved: {problem}");
            }
        }
    }

    /// Writes all rows that were pushed to disk; marks the study complete after its last sample.
    ///
    /// # Errors
    /// A cache, the token log or the manifest that cannot be written.
    pub fn seal(&mut self) -> Result<()> {
        if self.broken {
            return Ok(());
        }
        if !self.pending.counts.is_empty() {
            let sealed = self.caches.iter_mut().try_for_each(CacheWriter::seal);
            self.broken = sealed.is_err();
            sealed?;
            self.log.append(&self.pending)?;
            self.samples = self.next_sample();
            self.rows = self.rows();
            self.pending = Segment {
                first_sample: self.samples,
                ..Segment::default()
            };
            self.study.clear_token_cache();
            self.save_energies();
        }
        let manifest = &self.study.manifest;
        let complete = self.samples == manifest.samples();
        if complete && (!manifest.complete || manifest.rows != self.rows) {
            self.study.set_progress(self.rows, true)?;
        }
        Ok(())
    }
}
