//! `mlpeek notes`: what a person noted of the features of a fit.

use std::path::Path;

use serde_json::json;

use super::features::safe;
use super::{Output, open_fit};
use crate::analysis::contexts;
use crate::cli::NotesArgs;
use crate::disk;
use crate::error::{Error, Result};
use crate::study::{Note, Notes, Study};

pub(super) fn run(args: &NotesArgs, out: &mut Output) -> Result<()> {
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref())?;
    let mut notes = study.notes(&entry.name)?;
    if let Some(path) = &args.export {
        let text =
            serde_json::to_string_pretty(&notes).map_err(|e| Error::refused(format!("cannot write JSON: {e}")))?;
        disk::write_atomic(path, (text + "\n").as_bytes())?;
        out.note(&format!("wrote {}", path.display()));
        return Ok(());
    }
    let taken = match (&args.import, args.id) {
        (Some(path), _) => read(path)?,
        (None, Some(id)) => {
            let mut one = Notes::default();
            one.set(id, args.text.as_deref().unwrap_or_default());
            notes.names.remove(&id);
            notes.details.remove(&id);
            contexts::check_id(&factors, id)?;
            one
        }
        (None, None) => return list(&entry.name, &notes, out),
    };
    for &id in taken.names.keys().chain(taken.details.keys()) {
        contexts::check_id(&factors, id)?;
    }
    notes.names.extend(taken.names);
    notes.details.extend(taken.details);
    drop(study);
    Study::open(&args.study)?.save_notes(&entry.name, &notes)?;
    list(&entry.name, &notes, out)
}

fn read(path: &Path) -> Result<Notes> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(path, format!("not notes as `mlpeek notes --export` writes: {e}")))
}

fn list(fit: &str, notes: &Notes, out: &mut Output) -> Result<()> {
    let mut ids: Vec<usize> = notes.names.keys().chain(notes.details.keys()).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let nothing = Note::default();
    for id in ids {
        let (name, note) = (notes.names.get(&id), notes.details.get(&id).unwrap_or(&nothing));
        if out.is_json() {
            out.object(&json!({"fit": fit, "id": id, "name": name, "tags": note.tags, "rating": note.rating,
                "text": note.text, "doubtful": note.doubtful}))?;
        } else {
            let doubt = note.doubtful.map_or(String::new(), |c| format!("  (doubtful since a refit: cosine {c:.2})"));
            out.line(&format!("{id:>5}  {}{doubt}", safe(&Notes::line(name.map(String::as_str), note))))?;
        }
    }
    for line in &notes.unplaced {
        if out.is_json() {
            out.object(&json!({"fit": fit, "id": null, "unplaced": line}))?;
        } else {
            out.line(&format!("    –  {}  (its feature is gone since a refit)", safe(line)))?;
        }
    }
    Ok(())
}
