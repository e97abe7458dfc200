//! `mlpeek man`: a page for every command, in the language of man(1).
//!
//! Owns how a page is put together. It is made of clap's own tree, so that it says what `--help`
//! says; the sections of the text after a help ("Files:", "Examples:") become sections of the page,
//! and what holds for every command is added: formats of the output and exit codes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::Output;
use crate::cli::{self, ManArgs};
use crate::disk;
use crate::error::{Error, Result};

pub(super) fn run(args: &ManArgs, out: &mut Output) -> Result<()> {
    let root = tree();
    if let Some(dir) = &args.all {
        return write_all(&root, dir, out);
    }
    let mut command = &root;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let name = command.get_bin_name().unwrap_or("mlpeek");
            Error::usage(format!(
                "{name} has no command '{word}': {name} --help lists them"
            ))
        })?;
    }
    out.document(&page(command)?)
}

/// The whole tree of commands, each with its full name and without clap's `help`.
fn tree() -> Command {
    let no_help = |command: Command| command.disable_help_subcommand(true);
    let mut root = no_help(cli::command().mut_subcommands(no_help));
    root.build();
    root
}

fn write_all(root: &Command, dir: &Path, out: &Output) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let mut pages = Vec::new();
    gather(root, &mut pages)?;
    for (name, text) in &pages {
        disk::write_atomic(&dir.join(format!("{name}.1")), text.as_bytes())?;
    }
    out.note(&format!(
        "wrote {} pages to {}: man -l {}/mlpeek.1 shows the first",
        pages.len(),
        dir.display(),
        dir.display()
    ));
    Ok(())
}

/// The name and the page of `command` and of all below it.
fn gather(command: &Command, pages: &mut Vec<(String, String)>) -> Result<()> {
    pages.push((page_name(command), page(command)?));
    command
        .get_subcommands()
        .try_for_each(|below| gather(below, pages))
}

/// `mlpeek-sae-load`, as git names its pages.
fn page_name(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    name.replace(' ', "-")
}

/// The page of one command, in roff.
fn page(command: &Command) -> Result<String> {
    let man = Man::new(command.clone())
        .title(page_name(command).to_uppercase())
        .source(concat!("mlpeek ", env!("CARGO_PKG_VERSION")))
        .manual("mlpeek");
    let mut roff = Vec::new();
    let rendered = man
        .render_title(&mut roff)
        .and_then(|()| man.render_name_section(&mut roff))
        .and_then(|()| man.render_synopsis_section(&mut roff))
        .and_then(|()| man.render_description_section(&mut roff))
        .and_then(|()| man.render_options_section(&mut roff))
        .and_then(|()| match command.has_subcommands() {
            true => man.render_subcommands_section(&mut roff),
            false => Ok(()),
        });
    rendered.map_err(Error::io("render", "the manual page"))?;
    let mut page = String::from_utf8_lossy(&roff).into_owned();
    let after = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map_or_else(String::new, ToString::to_string);
    let (examples, others): (Vec<_>, Vec<_>) = sections(&after)
        .into_iter()
        .partition(|(heading, _)| heading == "Examples");
    others
        .iter()
        .for_each(|part| write_section(&mut page, part));
    section(&mut page, "OUTPUT", formats(command));
    section(&mut page, "EXIT STATUS", EXIT_CODES);
    examples
        .iter()
        .for_each(|part| write_section(&mut page, part));
    if command.get_name() != "mlpeek" {
        section(&mut page, "SEE ALSO", &["mlpeek(1), mlpeek guide"]);
    }
    Ok(page)
}

const EXIT_CODES: &[&str] = &[
    "0: done. 1: it failed, and one line on standard error says why. 2: the command line asks for \
     what cannot be. 130: it was cancelled (ctrl-c, SIGTERM); what was saved stays, and the same \
     command goes on from there.",
];

const COMMAND_FORMATS: &[&str] = &[
    "Text for a person on standard output, a line a result; progress and remarks on standard \
     error. What a terminal would obey in a label, a name or a generated text is shown as a mark.",
    "With --json one JSON object a line on standard output, with the exact texts; its fields are \
     on the page that `mlpeek guide json` shows.",
];

const TEXT_FORMAT: &[&str] = &["Text on standard output; there is no JSON, and --json is refused."];

const EXPLORER_FORMAT: &[&str] = &[
    "Without a command the explorer draws on the terminal. A command writes text on standard \
     output, or with --json one JSON object a line.",
];

/// What a command writes to standard output.
fn formats(command: &Command) -> &'static [&'static str] {
    let has_json = command
        .get_arguments()
        .any(|arg| arg.get_id() == "json" && !arg.is_hide_set());
    match (command.get_name(), has_json) {
        ("mlpeek", _) => EXPLORER_FORMAT,
        (_, true) => COMMAND_FORMATS,
        (_, false) => TEXT_FORMAT,
    }
}

/// The parts of the text after a help: a heading is a line of one word and a colon. What stands
/// before the first heading are notes.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut parts = vec![("Notes".to_owned(), Vec::new())];
    for line in text.lines() {
        match line
            .strip_suffix(':')
            .filter(|heading| !heading.contains(' '))
        {
            Some(heading) => parts.push((heading.to_owned(), Vec::new())),
            None => {
                if let Some((_, lines)) = parts.last_mut() {
                    lines.push(line);
                }
            }
        }
    }
    parts.retain(|(_, lines)| lines.iter().any(|line| !line.trim().is_empty()));
    parts
}

/// One part: indented lines keep their ends, others are a paragraph.
fn write_section(page: &mut String, (heading, lines): &(String, Vec<&str>)) {
    // Writing to a string does not fail.
    let _ = writeln!(page, ".SH {}", heading.to_uppercase());
    let mut kept = false;
    for line in lines {
        let indented = line.starts_with(' ');
        if indented != kept && !line.trim().is_empty() {
            page.push_str(if indented { ".nf\n" } else { ".fi\n" });
            kept = indented;
        }
        match line.trim() {
            "" => page.push_str(".PP\n"),
            words => {
                let _ = writeln!(page, "{}", escaped(words));
            }
        }
    }
    if kept {
        page.push_str(".fi\n");
    }
}

fn section(page: &mut String, heading: &str, paragraphs: &[&str]) {
    let _ = writeln!(page, ".SH {heading}");
    let paragraphs: Vec<String> = paragraphs.iter().map(|words| escaped(words)).collect();
    let _ = writeln!(page, "{}", paragraphs.join("\n.PP\n"));
}

/// Words that roff shows as they are: it reads backslashes everywhere, and a dot or a quote where a
/// line begins; a bare hyphen would become a typographic one, which cannot be pasted.
fn escaped(words: &str) -> String {
    let text = words.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_all_its_parts() {
        let mut pages = Vec::new();
        gather(&tree(), &mut pages).unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "mlpeek",
            "mlpeek-fit",
            "mlpeek-sae-load",
            "mlpeek-eval-reuse",
            "mlpeek-man",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for (name, text) in &pages {
            for part in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "OUTPUT",
                "EXIT STATUS",
                "EXAMPLES",
            ] {
                assert!(
                    text.contains(&format!(".SH {part}\n")),
                    "{name} lacks {part}"
                );
            }
            assert!(!text.contains(".SH EXTRA"), "{name}");
        }
        let fit = &pages
            .iter()
            .find(|(name, _)| name == "mlpeek-fit")
            .unwrap()
            .1;
        assert!(
            fit.contains("--json") || fit.contains("\\-\\-json"),
            "{fit}"
        );
        let guide = &pages
            .iter()
            .find(|(name, _)| name == "mlpeek-guide")
            .unwrap()
            .1;
        assert!(guide.contains("\\-\\-json is refused"), "{guide}");
    }

    #[test]
    fn what_roff_would_obey_is_shown() {
        assert_eq!(escaped(".TH a\\b -c"), "\\&.TH a\\eb \\-c");
        let mut page = String::new();
        for part in sections("Words of it:\n\nExamples:\n  mlpeek fit s\n") {
            write_section(&mut page, &part);
        }
        assert_eq!(
            page,
            ".SH NOTES\nWords of it:\n.PP\n.SH EXAMPLES\n.nf\nmlpeek fit s\n.fi\n"
        );
    }
}
