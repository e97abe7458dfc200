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
    /// The stored descriptions of the given directions of a set: pairs of an id and the digest of
    /// the direction that has it now. A description that was made for another direction under the
    /// same id is left out; one without a digest, as earlier versions wrote, is included.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not mlpeek's.
    pub fn descriptions<'a>(
        &self,
        set: &str,
        directions: impl IntoIterator<Item = (usize, &'a str)>,
    ) -> Result<Descriptions> {
        let mut stored = self.all_descriptions()?.remove(set).unwrap_or_default();
        let describes = |found: &Description, digest: &str| {
            let made_for = found.direction.as_deref();
            made_for.is_none_or(|made_for| made_for == digest)
        };
        Ok(directions
            .into_iter()
            .filter_map(|(id, digest)| {
                Some((id, stored.remove(&id).filter(|d| describes(d, digest))?))
            })
            .collect())
    }

    /// Whether any description of a set is stored.
    ///
    /// # Errors
    /// What [`Study::descriptions`] returns.
    pub fn has_descriptions(&self, set: &str) -> Result<bool> {
        Ok(self.all_descriptions()?.contains_key(set))
    }

    /// Adds descriptions of features of a fit; they replace earlier descriptions of the same
    /// features. The file is written atomically.
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
        let bytes = disk::read_regular(&path).map_err(Error::io("read", &path))?;
        // A file that cannot be read is never overwritten, since descriptions may have cost money.
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::file(
                &path,
                format!("not mlpeek's descriptions: {e}; mend or move it"),
            )
        })
    }
}
