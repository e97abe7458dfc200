//! Makes a study of an imported matrix, whose rows have numbers but no tokens.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::new_manifest;
use super::{CorpusEntry, Study, check_disk_space, rows, same_study};
use crate::activations::energy::Energy;
use crate::activations::store::{CacheDtype, CacheWriter};
use crate::error::{Error, Result};
use crate::model::{BosRule, HookPoint};

/// A function that calls its argument with all rows in order, in blocks of whole rows.
pub type EachBlock<'a> = dyn FnMut(&mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> + 'a;

impl Study {
    /// Makes a study of a row-major `rows` × `cols` matrix in memory, as [`Self::import_blocks`]
    /// does with one block.
    ///
    /// # Errors
    /// What [`Self::import_blocks`] returns.
    pub fn import(
        dir: &Path,
        source_name: &str,
        hook: HookPoint,
        rows: usize,
        cols: usize,
        data: &[f32],
    ) -> Result<Self> {
        Self::import_blocks(dir, source_name, hook, (rows, cols), &mut |store| {
            store(data)
        })
    }

    /// Makes a study of a matrix that is given block by block, so that it need not fit into memory;
    /// `blocks` is called twice, first to check the rows and then to store them, so that nothing of
    /// a refused matrix is written. `source_name` tells the user where the matrix comes from. NaN
    /// and infinity are refused with the number of the row.
    ///
    /// # Errors
    /// [`Error::Usage`] for values that are no such matrix; [`Error::Refused`] for a value that is
    /// not finite, another study in `dir`, or a full disk; what `blocks` returns.
    pub fn import_blocks(
        dir: &Path,
        source_name: &str,
        hook: HookPoint,
        (rows, cols): (usize, usize),
        blocks: &mut EachBlock<'_>,
    ) -> Result<Self> {
        let no_matrix = |values: usize| {
            let problem = format!("{source_name}: {values} values are no {rows} × {cols} matrix");
            Err(Error::usage(problem))
        };
        let Some(count) = rows
            .checked_mul(cols)
            .filter(|_| u32::try_from(rows).is_ok())
        else {
            return no_matrix(0);
        };
        let (mut count_read, mut hash) = (0, Sha256::new());
        blocks(&mut |block| {
            check_finite(source_name, block, count_read, cols)?;
            hash.update(bytemuck::cast_slice::<f32, u8>(block));
            count_read += block.len();
            Ok(())
        })?;
        if count_read != count || count == 0 {
            return no_matrix(count_read);
        }
        let sha256: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let entry = CorpusEntry {
            name: source_name.to_owned(),
            sha256,
            samples: rows,
        };
        let manifest = new_manifest(
            None,
            &[hook],
            &[cols],
            entry,
            CacheDtype::F32,
            BosRule::Never,
        )?;
        let lock = Self::create_and_lock(dir)?;
        same_study(dir, &manifest)?;
        check_disk_space(dir, (count as u64).saturating_mul(4), false)?;
        manifest.write(dir)?;
        let mut study = Self::from_parts(dir, manifest, Some(lock));
        let mut cache = CacheWriter::open(&rows::cache_dir(dir, hook), cols, CacheDtype::F32)?;
        cache.truncate(0)?;
        let (mut stored, mut energy) = (0, Energy::new(cols));
        blocks(&mut |block| {
            // The file may have changed since the first call.
            check_finite(source_name, block, stored, cols)?;
            stored += block.len();
            energy.add(block);
            cache.push(block)
        })?;
        if stored != count {
            return no_matrix(stored);
        }
        cache.seal()?;
        study.set_progress(rows, true)?;
        study.save_energy(hook, &energy);
        Ok(study)
    }
}

/// Refuses a block with a value that is not finite; `first` is the index of its first value in the
/// matrix.
fn check_finite(source_name: &str, block: &[f32], first: usize, cols: usize) -> Result<()> {
    let Some(at) = block.iter().position(|v| !v.is_finite()) else {
        return Ok(());
    };
    Err(Error::refused(format!(
        "{source_name}: row {}, column {} is {}: every value must be finite",
        (first + at) / cols.max(1),
        at % cols.max(1),
        block[at]
    )))
}
