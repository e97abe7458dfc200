//! `mlpeek info`, `models`, `keys`, `completions`.

use serde_json::json;

use super::{Output, json};
use crate::amounts::{bytes, count};
use crate::cli::{self, CompletionsArgs, InfoArgs, KeysArgs, ModelsArgs};
use crate::error::Result;
use crate::model::source;
use crate::study::{FitEntry, Study, newest};
use crate::text;

/// Needs no model. A study that was cut short is no error: its state is printed.
pub(super) fn study(args: &InfoArgs, out: &mut Output) -> Result<()> {
    let study = Study::open_read_only(&args.study)?;
    let (manifest, state, fits) = (study.manifest(), study.collected()?, study.fits()?);
    let newest = newest(&fits, |_| true).map(|fit| fit.name.as_str());
    if out.is_json() {
        let fit = |fit: &FitEntry| json::fit(fit, Some(fit.name.as_str()) == newest);
        let hooks: Vec<String> = manifest.hooks.iter().map(ToString::to_string).collect();
        return out.object(&json!({
            "study": args.study, "model": manifest.model.as_ref().map(json::model), "hooks": hooks,
            "widths": manifest.widths, "dtype": manifest.dtype.name(), "bos": manifest.bos,
            "corpora": json::corpora(manifest), "complete": state.is_complete(),
            "collected": {
                "sample_count": state.samples, "total_sample_count": state.total, "row_count": state.rows,
            },
            "fits": fits.iter().map(fit).collect::<Vec<_>>(),
        }));
    }
    let model = manifest
        .model
        .as_ref()
        .map_or("none (an imported matrix)", |model| model.id.as_str());
    out.line(&format!("model    {}", text::clean(model)))?;
    for (hook, width) in manifest.hooks.iter().zip(&manifest.widths) {
        out.line(&format!(
            "hook     {hook}, {} wide, {}",
            count(*width),
            manifest.dtype.name()
        ))?;
    }
    for corpus in &manifest.corpora {
        out.line(&format!(
            "corpus   {}, {} samples",
            text::clean(&corpus.name),
            count(corpus.samples)
        ))?;
    }
    let go_on = if state.is_complete() {
        String::new()
    } else {
        format!("; {} goes on", study.collect_command())
    };
    out.line(&format!("rows     {}, {state}{go_on}", count(state.rows)))?;
    for fit in &fits {
        let error = fit
            .relative_error
            .map_or_else(|| "no features yet".to_owned(), |e| format!("error {e:.4}"));
        let mark = if Some(fit.name.as_str()) == newest {
            " (the newest)"
        } else {
            ""
        };
        let features = count(fit.config.features);
        out.line(&format!(
            "fit      {}: {features} features of {}, {error}, {}{mark}",
            fit.name,
            fit.hook,
            fit.status()
        ))?;
    }
    Ok(())
}

pub(super) fn models(_: &ModelsArgs, out: &mut Output) -> Result<()> {
    let models = source::list_local();
    if out.is_json() {
        return models.iter().try_for_each(|m| {
            out.object(&json!({
                "id": m.id, "origin": m.place, "file_bytes": m.bytes, "summary": m.summary, "encoder": m.encoder, "problem": m.problem,
            }))
        });
    }
    if models.is_empty() {
        out.note("no model is on this machine yet: `mlpeek` opens (and fetches) the default one, `--model owner/name` one of the Hub");
    }
    models.iter().try_for_each(|m| {
        let problem = m
            .problem
            .as_ref()
            .map_or(String::new(), |p| format!("  [cannot be opened: {p}]"));
        out.line(&format!(
            "{:<48} {:>10}  {}  ({}){problem}",
            m.id,
            bytes(m.bytes),
            m.summary,
            m.place
        ))
    })
}

#[cfg(feature = "tui")]
pub(super) fn keys(args: &KeysArgs, out: &mut Output) -> Result<()> {
    let (table, problems) = crate::ui::configured_key_table();
    problems.iter().for_each(|problem| out.note(problem));
    if out.is_json() {
        return table.iter().try_for_each(|row| out.object(row));
    }
    if args.markdown {
        return out.document(&crate::ui::key_table_markdown(&table));
    }
    table.iter().try_for_each(|r| {
        out.line(&format!(
            "{:<18} {:<17} {}  [{}]",
            r.keys.join(" "),
            r.action,
            r.doc,
            r.place
        ))
    })
}

#[cfg(not(feature = "tui"))]
pub(super) fn keys(_: &KeysArgs, _: &mut Output) -> Result<()> {
    Err(crate::error::Error::refused(
        "this mlpeek was built without the explorer (feature `tui`), so it has no keys",
    ))
}

pub(super) fn completions(args: &CompletionsArgs, out: &mut Output) -> Result<()> {
    out.document(&cli::script(args.shell)?)
}

#[cfg(all(test, feature = "tui"))]
mod tests {
    use std::path::Path;

    use crate::ui::key_table_markdown;
    use crate::ui::keymap::Keymap;

    const BEGIN: &str = "<!-- keys: written by MLPEEK_UPDATE_KEYS=1 cargo test --release --lib the_guide_lists_the_keys -->\n";
    const END: &str = "<!-- end of keys -->\n";

    #[test]
    fn the_guide_lists_the_keys() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/using.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let table = key_table_markdown(&Keymap::default().table());
        let wanted = format!("{before}{BEGIN}{table}{END}{after}");
        if std::env::var_os("MLPEEK_UPDATE_KEYS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        } else {
            assert!(
                page == wanted,
                "src/guide/using.md lists other keys: its comment says what writes it"
            );
        }
    }
}
