//! `mlpeek notes`: what a person noted of the features of a fit.

use serde_json::json;

use super::{Output, open_fit};
use crate::analysis::contexts;
use crate::cli::NotesArgs;
use crate::error::Result;
use crate::study::{Note, Notes, Study};
use crate::text;

pub(super) fn run(args: &NotesArgs, out: &mut Output) -> Result<()> {
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let mut notes = study.notes(&entry.name)?;
    if let Some(path) = &args.export {
        notes.write(path)?;
        out.note(&format!("wrote {}", path.display()));
        return Ok(());
    }
    let taken = match (&args.import, args.id) {
        (Some(path), _) => Notes::read(path)?,
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
    for id in taken.ids() {
        contexts::check_id(&factors, id)?;
    }
    notes.take(taken);
    drop(study);
    Study::open(&args.study)?.save_notes(&entry.name, &notes)?;
    list(&entry.name, &notes, out)
}

fn list(fit: &str, notes: &Notes, out: &mut Output) -> Result<()> {
    let nothing = Note::default();
    for id in notes.ids() {
        let (name, note) = (notes.names.get(&id), notes.details.get(&id).unwrap_or(&nothing));
        if out.is_json() {
            out.object(&json!({"fit": fit, "id": id, "name": name, "tags": note.tags, "rating": note.rating,
                "text": note.text, "doubtful": note.doubtful}))?;
        } else {
            let doubt = note.doubtful.map_or(String::new(), |c| format!("  (doubtful since a refit: cosine {c:.2})"));
            out.line(&format!("{id:>5}  {}{doubt}", text::clean(&Notes::line(name.map(String::as_str), note))))?;
        }
    }
    for line in &notes.unplaced {
        if out.is_json() {
            out.object(&json!({"fit": fit, "id": null, "unplaced": line}))?;
        } else {
            out.line(&format!("    –  {}  (its feature is gone since a refit)", text::clean(line)))?;
        }
    }
    Ok(())
}
