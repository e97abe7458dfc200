//! Two fits held beside each other, of one study or of two.

use std::path::Path;

use crate::analysis::FeatureRow;
use crate::analysis::matching::FitComparison;
use crate::error::{Error, Result};
use crate::model::HookPoint;
use crate::study::compared_fits::{self, ComparedFit};
use crate::study::{self, CollectState, Study};

/// Matches the features of two fits, and says what the second one's are about.
///
/// # Errors
/// [`Error::Usage`] for fits of different hooks, widths or models.
pub fn compare(first: &ComparedFit, second: &ComparedFit) -> Result<FitComparison> {
    let mut found = compared_fits::compare(first, second)?;
    let words = |row: FeatureRow| {
        let tokens = || row.top_tokens.concat();
        row.name.clone().unwrap_or_else(tokens)
    };
    found.b_words = second.rows().into_iter().map(words).collect();
    Ok(found)
}

/// A fit of `hook` in another study: the newest, or the one whose own directory
/// (`STUDY/fits/NAME`) is given. With it how far that study is collected.
///
/// # Errors
/// A directory that is no study; [`Error::Usage`] where it has no fit of the hook.
pub fn side_elsewhere(dir: &Path, hook: HookPoint) -> Result<(ComparedFit, CollectState)> {
    let parent = dir
        .parent()
        .filter(|fits| fits.file_name().is_some_and(|name| name == "fits"));
    let (dir, name) = match (parent.and_then(Path::parent), dir.file_name()) {
        (Some(study), Some(name)) if study.join("study.json").exists() => (study, name.to_str()),
        _ => (dir, None),
    };
    let other = Study::open_read_only(dir)?;
    let newest = || {
        let fits = other.fits()?;
        let fit = study::newest(&fits, |at| at == hook);
        fit.map(|fit| fit.name.clone())
            .ok_or_else(|| Error::usage(format!("{} has no fit of {hook}", dir.display())))
    };
    let name = name.map_or_else(newest, |name| Ok(name.to_owned()))?;
    let mut side = other.compared_fit(Some(&name))?;
    let study = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
    side.name = format!("{study}/{}", side.name);
    Ok((side, other.collected()?))
}
