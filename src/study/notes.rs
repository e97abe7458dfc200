//! What a person adds: names of features (`notes.json`) and where the explorer stood (`session.json`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Study;
use super::manifest::json_bytes;
use crate::disk;
use crate::error::{Error, Result};

const NOTES: &str = "notes.json";
const SESSION: &str = "session.json";

/// Names of features by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Feature id → name.
    pub names: BTreeMap<usize, String>,
}

impl Study {
    /// Names that a person gave to features of a fit.
    pub fn notes(&self, fit: &str) -> Result<Notes> {
        Ok(self.all_notes()?.remove(fit).unwrap_or_default())
    }

    /// Saves them, atomically.
    pub fn save_notes(&self, fit: &str, notes: &Notes) -> Result<()> {
        self.check_writable()?;
        let mut all = self.all_notes()?;
        all.insert(fit.to_owned(), notes.clone());
        disk::write_atomic(&self.dir.join(NOTES), &json_bytes(&all)?)
    }

    fn all_notes(&self) -> Result<BTreeMap<String, Notes>> {
        let path = self.dir.join(NOTES);
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        // Never overwritten when it cannot be read: a person wrote it.
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::file(&path, format!("not mlpeek's notes: {e}; mend or move it")))
    }

    /// `session.json`, when there is one that can be read.
    pub fn session(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.dir.join(SESSION)).ok()?).ok()
    }

    /// Saves where the explorer stands.
    pub fn save_session(&self, session: &serde_json::Value) -> Result<()> {
        self.check_writable()?;
        disk::write_atomic(&self.dir.join(SESSION), &json_bytes(session)?)
    }
}
