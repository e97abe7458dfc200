//! `descriptions.json`: judges' descriptions of features, stored apart from the user's names and never
//! in place of them.

use std::collections::BTreeMap;

use super::Study;
use super::manifest::json_bytes;
use crate::disk;
use crate::error::{Error, Result};
use crate::eval::judge::describe::Description;

const FILE: &str = "descriptions.json";

/// The descriptions of the features of a fit, by feature id.
pub type Descriptions = BTreeMap<usize, Description>;

impl Study {
    /// The descriptions of a fit's features.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not mlpeek's.
    pub fn descriptions(&self, fit: &str) -> Result<Descriptions> {
        Ok(self.all_descriptions()?.remove(fit).unwrap_or_default())
    }

    /// Adds descriptions of features of a fit, over those that a judge gave to the same features
    /// earlier. Atomic.
    ///
    /// # Errors
    /// A study that is open for reading; a file that cannot be read or written.
    pub fn add_descriptions(&self, fit: &str, new: Descriptions) -> Result<()> {
        self.check_writable()?;
        let mut all = self.all_descriptions()?;
        all.entry(fit.to_owned()).or_default().extend(new);
        disk::write_atomic(&self.dir().join(FILE), &json_bytes(&all)?)
    }

    fn all_descriptions(&self) -> Result<BTreeMap<String, Descriptions>> {
        let path = self.dir().join(FILE);
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        // Never overwritten when it cannot be read: it was paid for.
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::file(
                &path,
                format!("not mlpeek's descriptions: {e}; mend or move it"),
            )
        })
    }
}
