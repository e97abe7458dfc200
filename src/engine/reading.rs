//! Commands that only read what is on show, and the notes on it.

use std::path::Path;
use std::sync::Arc;

use super::open::bos_rule;
use super::session::{NoteChange, Session, Shown, lock};
use super::sets::open_dir;
use super::{Event, Level, Probe, TypedNote};
use crate::analysis::hierarchy::{self, Linkage};
use crate::analysis::neurons::{self, Overlap};
use crate::analysis::{FeatureRow, Notes, compare as features, contexts, labels, lens};
use crate::error::{Error, Result};
use crate::interop::json;
use crate::jobs::export;
use crate::jobs::levels::{LevelsFit, LevelsRequest};
use crate::jobs::{self, comparing, reading};
use crate::study::{self, FitEntry, Study};
use crate::task::TaskCtx;

/// The number of changes of notes that can be undone.
const UNDO: usize = 100;

/// Writes the factors, or the card on show.
pub(super) fn export(session: &Session, format: &str, path: &Path) -> Result<()> {
    let shown = session.shown()?;
    if format == "safetensors" {
        let model = lock(&session.study).as_ref().and_then(|study| {
            let model = study.manifest().model.as_ref();
            model.map(|model| model.id.clone())
        });
        let notes = session.notes();
        let about = export::sets::about(model.as_deref(), &shown.fit, shown.hook, &notes);
        export::factors(path, &shown.factors, about)?;
    } else {
        let card = lock(&session.last_card).clone();
        let card = card.ok_or_else(|| Error::refused("no feature is on show: open one first"))?;
        export::feature_card(path, &card, &shown.fit, shown.hook, format)?;
    }
    session.emit(Event::Exported(path.to_path_buf()));
    Ok(())
}

/// Tells what is read of the study's files; it is opened beside the open one, so that no question
/// waits for it.
pub(super) fn of_study<T>(
    session: &Session,
    read: impl FnOnce(&Study) -> Result<T>,
    event: impl FnOnce(T) -> Event,
) -> Result<()> {
    let dir = open_dir(session).ok_or_else(|| session.no_study())?;
    let found = read(&Study::open_read_only(&dir)?)?;
    if open_dir(session).as_deref() == Some(&*dir) {
        session.emit(event(found));
    }
    Ok(())
}

/// Checks that all ids are below the number of features `k`.
fn check_ids(ids: &[usize], k: usize) -> Result<()> {
    match ids.iter().find(|id| **id >= k) {
        Some(id) => Err(Error::usage(format!(
            "there is no feature {id}: this fit has features 0 to {}",
            k.saturating_sub(1)
        ))),
        None => Ok(()),
    }
}

/// Computes the dendrogram of the features on show.
pub(super) fn tree(session: &Session, overlap: Overlap, linkage: Linkage) -> Result<()> {
    let tree = hierarchy::tree_by(&session.shown()?.factors.features, overlap, linkage);
    session.emit(Event::Tree(Arc::new(tree)));
    Ok(())
}

/// Finds the neurons that these features share.
pub(super) fn shared(session: &Session, ids: &[usize]) -> Result<()> {
    let features = &session.shown()?.factors.features;
    check_ids(ids, features.columns())?;
    session.emit(Event::Shared(Box::new(hierarchy::shared_neurons(
        features, ids,
    ))));
    Ok(())
}

/// Writes the dendrogram in the format of the extension of `path`.
pub(super) fn export_tree(
    session: &Session,
    overlap: Overlap,
    linkage: Linkage,
    path: &Path,
) -> Result<()> {
    let (shown, rows) = noted_rows(session)?;
    let tree = hierarchy::tree_by(&shown.factors.features, overlap, linkage);
    export::write(path, &export::tree(path, &tree, &rows, &shown.fit)?)?;
    session.emit(Event::Exported(path.to_path_buf()));
    Ok(())
}

/// Writes the clusters below a height, each with its features and their labels.
pub(super) fn export_clusters(
    session: &Session,
    overlap: Overlap,
    linkage: Linkage,
    height: f32,
    path: &Path,
) -> Result<()> {
    let (shown, rows) = noted_rows(session)?;
    let tree = hierarchy::tree_by(&shown.factors.features, overlap, linkage);
    let clusters = json::clusters(&tree, height, &rows, &shown.fit);
    export::write(path, &export::line(&clusters))?;
    session.emit(Event::Exported(path.to_path_buf()));
    Ok(())
}

/// What is on show, and its list with the present notes.
fn noted_rows(session: &Session) -> Result<(Shown, Vec<FeatureRow>)> {
    let shown = session.shown()?;
    let notes = session.notes();
    let mut rows = (*shown.rows).clone();
    rows.iter_mut()
        .for_each(|row| contexts::apply_notes(row, &notes));
    Ok((shown, rows))
}

/// Writes the levels that were found last.
pub(super) fn export_levels(session: &Session, path: &Path) -> Result<()> {
    let fit = session.shown()?.fit;
    let levels = lock(&session.last_levels)
        .clone()
        .filter(|(fit_name, _)| *fit_name == fit);
    let (_, levels) =
        levels.ok_or_else(|| Error::refused("the levels of this fit were not found yet"))?;
    export::write(path, &export::line(&json::levels(&levels, &fit)))?;
    session.emit(Event::Exported(path.to_path_buf()));
    Ok(())
}

/// Compares features; if a model is open, also in the residual stream.
pub(super) fn compare(session: &Session, ids: &[usize]) -> Result<()> {
    let shown = session.shown()?;
    let mut found = features::compare(&shown.factors, &*session.tokens()?, ids)?;
    if let Ok(model) = session.model() {
        let z = &shown.factors.features;
        let directions: Vec<Vec<f32>> = found
            .features
            .iter()
            .map(|&id| z.dense_column(id))
            .collect();
        found.residual = Some(lens::residual_cosines(&model, shown.hook, &directions)?);
    }
    session.emit(Event::Comparison(Box::new(found)));
    Ok(())
}

/// Computes the levels of features of features of the fit on show; returns a summary.
pub(super) fn levels(
    session: &Session,
    request: &LevelsRequest,
    joint: bool,
    ctx: &TaskCtx,
) -> Result<String> {
    let shown = session.shown()?;
    let (config, source) = {
        let guard = lock(&session.study);
        let study = guard.as_ref();
        let request = study.and_then(|study| study.fit_request(&shown.fit).ok());
        let source = match (joint, study) {
            (false, _) => None,
            (true, Some(study)) => Some(study.activations(shown.hook)?),
            (true, None) => return Err(session.no_study()),
        };
        (
            request.map(|(_, config)| config).unwrap_or_default(),
            source,
        )
    };
    let fit = LevelsFit {
        factors: &shown.factors,
        config: &config,
        hook: shown.hook,
        tokens: &*session.tokens()?,
        tune_on: source.as_deref().map(|source| source as _),
    };
    let model = session.model().ok();
    let levels = Arc::new(jobs::levels::levels(&fit, request, model.as_deref(), ctx)?);
    let counts: Vec<String> = levels
        .levels
        .iter()
        .skip(1)
        .map(|level| level.features.to_string())
        .collect();
    *lock(&session.last_levels) = Some((shown.fit, levels.clone()));
    session.emit(Event::Levels(levels));
    Ok(format!("levels of {} features", counts.join(", ")))
}

/// Matches the features of two fits of the open study.
pub(super) fn compare_fits(session: &Session, a: &str, b: &str) -> Result<()> {
    let guard = lock(&session.study);
    let study = guard.as_ref().ok_or_else(|| session.no_study())?;
    let (first, second) = (study.compared_fit(Some(a))?, study.compared_fit(Some(b))?);
    drop(guard);
    let found = comparing::compare(&first, &second)?;
    session.emit(Event::FitsCompared(Box::new(found)));
    Ok(())
}

/// Matches the features of a fit of the open study with those of another study's fit of the same
/// hook: the newest, or the one whose own directory (`STUDY/fits/NAME`) is given.
pub(super) fn compare_study(session: &Session, fit: &str, dir: &Path) -> Result<()> {
    let guard = lock(&session.study);
    let study = guard.as_ref().ok_or_else(|| session.no_study())?;
    let first = study.compared_fit(Some(fit))?;
    drop(guard);
    let (second, state) = comparing::side_elsewhere(dir, first.hook)?;
    if !state.is_complete() {
        session.log(
            Level::Warn,
            format!(
                "{} is {state}: its fits are compared as they are",
                dir.display()
            ),
        );
    }
    let found = comparing::compare(&first, &second)?;
    session.emit(Event::FitsCompared(Box::new(found)));
    Ok(())
}

/// Answers a question about every feature.
pub(super) fn find(session: &Session, probe: Probe) -> Result<()> {
    let (shown, reader) = session.reader()?;
    let factors = &shown.factors;
    let scores = match &probe {
        Probe::Like(id) => {
            check_ids(&[*id], factors.features.columns())?;
            neurons::cosines_with(&factors.features, *id)
        }
        Probe::Label(text) => labels::mass_shares(factors, &*session.tokens()?, text),
        Probe::Context(text) => contexts::context_shares(factors, &*session.tokens()?, text),
        Probe::Fires(text) => {
            let model = session.model()?;
            let bos = bos_rule(session);
            let silent = TaskCtx::silent();
            let trace = reading::trace(&model, shown.hook, &reader, factors, text, bos, &silent)?;
            let mut scores = vec![0.0; factors.features.columns()];
            for feature in &trace.features {
                let peak = contexts::peak_coefficient(factors, feature.id);
                let highest = feature.values.iter().copied().fold(0.0, f32::max);
                scores[feature.id] = if peak > 0.0 { highest / peak } else { 0.0 };
            }
            scores
        }
    };
    session.emit(Event::Found(probe, Arc::new(scores)));
    Ok(())
}

/// Saves a note on a feature of the fit on show, whose list is then sent again, or of a fit that
/// was on show when the note was typed.
pub(super) fn note_feature(session: &Session, note: &TypedNote) -> Result<()> {
    let typed = Notes::parse_line(note.id, &note.line)?;
    let is_open = session.is_open(&note.study);
    let shown = session
        .shown()
        .ok()
        .filter(|shown| is_open && shown.set.is_none() && shown.fit == note.fit);
    let Some(shown) = shown else {
        return Study::open_read_only(&note.study)?
            .change_notes(&note.fit, |notes| notes.replace(&[note.id], typed))
            .map(drop);
    };
    check_ids(&[note.id], shown.factors.features.columns())?;
    check_still_saved(session, &shown)?;
    change_notes_with_undo(session, &[note.id], |notes| {
        notes.replace(&[note.id], typed);
    })
}

/// Refuses a note on a fit that another process has made anew since it was read, since its ids now
/// belong to other features.
fn check_still_saved(session: &Session, shown: &Shown) -> Result<()> {
    let guard = lock(&session.study);
    let Some(study) = guard
        .as_ref()
        .filter(|study| !study.is_writable() && shown.finished)
    else {
        return Ok(());
    };
    let now = study.fits()?.into_iter().find(|fit| fit.name == shown.fit);
    let as_read = |fit: &FitEntry| (fit.sweeps, fit.relative_error);
    match now.as_ref().map(as_read) {
        Some(now) if now == (shown.factors.sweep, Some(shown.factors.relative_error)) => Ok(()),
        _ => Err(Error::refused(format!(
            "fit '{}' was made anew by another process since it was opened: open the study again to note its features",
            shown.fit
        ))),
    }
}

/// Changes the notes on these features of the fit on show, saves them, and records the previous
/// notes for undo.
fn change_notes_with_undo(
    session: &Session,
    ids: &[usize],
    change: impl FnOnce(&mut Notes),
) -> Result<()> {
    let shown = session.shown()?;
    if shown.set.is_some() {
        return Err(Error::refused(
            "names and notes are of a fit's features: go back to the fit first",
        ));
    }
    let fit = shown.fit;
    let before = save(session, &fit, change)?.subset(ids);
    let mut undo = lock(&session.undo);
    if undo.len() == UNDO {
        undo.remove(0);
    }
    undo.push(NoteChange {
        fit,
        ids: ids.to_vec(),
        before,
    });
    drop(undo);
    session.emit_features()
}

/// Undoes the last change of notes on the fit on show.
pub(super) fn undo_note(session: &Session) -> Result<()> {
    let shown = session.shown()?;
    let last = {
        let mut undo = lock(&session.undo);
        let at = undo.iter().rposition(|change| change.fit == shown.fit);
        at.map(|at| undo.remove(at))
    };
    let Some(NoteChange { fit, ids, before }) = last else {
        return Err(Error::refused(
            "nothing was noted on this fit since it was opened",
        ));
    };
    save(session, &fit, |notes| notes.replace(&ids, before))?;
    session.emit_features()
}

/// Writes the notes on the fit on show as JSON. They are read from disk, since another process may
/// have changed them.
pub(super) fn export_notes(session: &Session, path: &Path) -> Result<()> {
    let shown = session.shown()?;
    if shown.set.is_some() {
        return Err(Error::refused(
            "names and notes are of a fit's features: go back to the fit first",
        ));
    }
    let notes = session.with_study_on_disk(|study| study.notes(&shown.fit))?;
    study::write_notes(&notes, path)?;
    session.emit(Event::Exported(path.to_path_buf()));
    Ok(())
}

/// Imports notes from such a file; they replace the notes on the features that it contains. This is
/// one step of undo.
pub(super) fn import_notes(session: &Session, path: &Path) -> Result<()> {
    let imported = study::read_notes(path)?;
    let ids: Vec<usize> = imported.ids().collect();
    check_ids(&ids, session.shown()?.factors.features.columns())?;
    change_notes_with_undo(session, &ids, |notes| notes.merge(imported))?;
    session.log(
        Level::Info,
        format!(
            "notes of {} features taken from {}",
            ids.len(),
            path.display()
        ),
    );
    Ok(())
}

/// Changes the notes on a fit as they are on disk, since they may have been edited there. Returns
/// the notes before the change.
fn save(session: &Session, fit: &str, change: impl FnOnce(&mut Notes)) -> Result<Notes> {
    let (before, now) = session.with_study_on_disk(|study| study.change_notes(fit, change))?;
    session.set_notes(now);
    Ok(before)
}
