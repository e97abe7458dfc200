//! `mlpeek models`, `keys`, `completions`, `man`.

use clap::CommandFactory;

use super::Output;
use crate::amounts::bytes;
use crate::cli::{Cli, JsonArgs, KeysArgs};
use crate::error::{Error, Result};
use crate::model::source;

pub(super) fn models(_: JsonArgs, out: &mut Output) -> Result<()> {
    let models = source::list_local();
    if out.is_json() {
        return models.iter().try_for_each(|m| out.object(m));
    }
    if models.is_empty() {
        out.note("no model is on this machine yet: `mlpeek` opens (and fetches) the default one, `--model owner/name` one of the Hub");
    }
    models.iter().try_for_each(|m| {
        let problem = m.problem.as_ref().map_or(String::new(), |p| format!("  [cannot be opened: {p}]"));
        out.line(&format!("{:<48} {:>10}  {}  ({}){problem}", m.id, bytes(m.bytes), m.summary, m.place))
    })
}

#[cfg(feature = "tui")]
pub(super) fn keys(args: KeysArgs, out: &mut Output) -> Result<()> {
    let (table, problems) = crate::ui::configured_key_table();
    problems.iter().for_each(|problem| out.note(problem));
    if args.json {
        return table.iter().try_for_each(|row| out.object(row));
    }
    if args.markdown {
        return out.document(&crate::ui::key_table_markdown(&table));
    }
    table
        .iter()
        .try_for_each(|r| out.line(&format!("{:<18} {:<17} {}  [{}]", r.keys.join(" "), r.action, r.doc, r.place)))
}

#[cfg(not(feature = "tui"))]
pub(super) fn keys(_: KeysArgs, _: &mut Output) -> Result<()> {
    Err(Error::refused("this mlpeek was built without the explorer (feature `tui`), so it has no keys"))
}

pub(super) fn completions(shell: clap_complete::Shell, out: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mlpeek", &mut script);
    out.document(&String::from_utf8_lossy(&script))
}

pub(super) fn man(out: &mut Output) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Error::io("render", "the manual page"))?;
    out.document(&String::from_utf8_lossy(&page))
}
