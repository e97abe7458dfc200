//! `mlpeek notes`: what a person noted of the features of a fit.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Output, check_target, open_fit};
use crate::analysis::contexts;
use crate::analysis::{FeatureNote, Notes};
use crate::cli::NotesArgs;
use crate::error::Result;
use crate::interop::json;
use crate::study;
use crate::text;

pub(super) fn run(args: &NotesArgs, out: &mut Output) -> Result<()> {
    args.export
        .as_deref()
        .map_or(Ok(()), |path| check_target(path, &["json"]))?;
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    if let Some(path) = &args.export {
        let notes = study.notes(&entry.name)?;
        study::write_notes(&notes, path)?;
        if out.is_json() {
            return out.object(
                &json!({"event": "exported", "fit": entry.name, "out": path, "noted_count": notes.ids().count()}),
            );
        }
        out.note(&format!("wrote {}", path.display()));
        return Ok(());
    }
    let taken = match (&args.import, args.id) {
        (Some(path), _) => study::read_notes(path)?,
        (None, Some(id)) => Notes::parse_line(id, args.text.as_deref().unwrap_or_default())?,
        (None, None) => return list(&entry.name, &study.notes(&entry.name)?, None, out),
    };
    // An empty line takes away what was noted: it names a feature all the same.
    let ids: Vec<usize> = args.id.into_iter().chain(taken.ids()).collect();
    ids.iter()
        .try_for_each(|&id| contexts::check_id(&factors, id))?;
    let (_, now) = study.change_notes(&entry.name, |notes| notes.replace(&ids, taken))?;
    list(&entry.name, &now, args.id, out)
}

/// Lists the notes, and the feature `asked` also where nothing is noted of it any more.
fn list(fit: &str, notes: &Notes, asked: Option<usize>, out: &mut Output) -> Result<()> {
    let nothing = FeatureNote::default();
    let ids: BTreeSet<usize> = notes.ids().chain(asked).collect();
    for id in ids {
        let (name, note) = (
            notes.names.get(&id),
            notes.details.get(&id).unwrap_or(&nothing),
        );
        if out.is_json() {
            out.object(&json::note(fit, id, name.map(String::as_str), note))?;
        } else {
            let doubt = note.doubtful.map_or(String::new(), |c| {
                format!("  (doubtful since a refit: cosine {c:.2})")
            });
            let line = Notes::format_line(name.map(String::as_str), note);
            let line = match line.is_empty() {
                true => "(no note)",
                false => &line,
            };
            out.line(&format!("{id:>5}  {}{doubt}", text::clean(line)))?;
        }
    }
    for line in &notes.unplaced {
        if out.is_json() {
            out.object(&json::unplaced_note(fit, line))?;
        } else {
            out.line(&format!(
                "    –  {}  (its feature is gone since a refit)",
                text::clean(line)
            ))?;
        }
    }
    Ok(())
}
