//! What a shell offers at the tab key: clap's own words, files, and the names in the study that
//! stands on the line.
//!
//! Knows no command: an argument is told by its name, so that `--fit` completes wherever there is
//! one. Invariant: a name that a shell or a terminal would take for more than a name is not
//! offered, since the names of files, models and notes may be anybody's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, ValueHint};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Elvish, Fish, Powershell, Shells, Zsh};

use crate::directions::{Baseline, SetKind};
use crate::error::{Error, Result};
use crate::guide::PAGES;
use crate::model::{HookSite, source};
use crate::study::{Study, newest};
use crate::text;

mod bash;

/// The shells that there is a script for.
const SHELLS: Shells<'static> = Shells(&[&bash::Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// The environment variable by which the script of `mlpeek completions` asks for candidates.
const VARIABLE: &str = "MLPEEK_COMPLETE";

/// Answers a shell that asks for candidates and ends the process then; returns where none asks.
pub fn answer_shell() {
    CompleteEnv::with_factory(completing)
        .var(VARIABLE)
        .shells(SHELLS)
        .complete();
}

/// The script that makes `shell` ask mlpeek at the tab key.
///
/// # Errors
/// A shell for which there is none.
pub fn script(shell: clap_complete::Shell) -> Result<String> {
    let name = shell.to_string();
    let writer = SHELLS
        .completer(&name)
        .ok_or_else(|| Error::usage(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    writer
        .write_registration(VARIABLE, "mlpeek", "mlpeek", "mlpeek", &mut script)
        .map_err(Error::io("write", "the completions"))?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// The command line with what completes its values.
fn completing() -> clap::Command {
    with_candidates(super::command())
}

fn with_candidates(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_id().as_str() {
            "fit" | "from" | "a" | "b" => names(arg, fits),
            "layer" => names(arg, layers),
            "hook" => arg.add(ArgValueCandidates::new(hooks)),
            "sae" if !arg.is_positional() => names(arg, saes),
            "directions" | "methods" => names(arg, sets),
            "id" | "features" if arg.is_positional() => names(arg, directions),
            "command" if arg.is_positional() => arg.add(ArgValueCandidates::new(commands)),
            "topic" => arg.add(ArgValueCandidates::new(|| {
                offered(PAGES.iter().map(|page| (page.topic, page.about)))
            })),
            "model" => arg.add(ArgValueCompleter::new(models)),
            _ if arg.get_value_hint() == ValueHint::AnyPath => {
                arg.add(ArgValueCompleter::new(paths))
            }
            _ => arg,
        })
        .mut_subcommands(with_candidates)
}

/// Reads names from a study, each with what is said of it.
type NamesOf = fn(&Study) -> Result<Vec<(String, String)>>;

/// Completes `arg` with names from the study on the line.
fn names(arg: Arg, names_of: NamesOf) -> Arg {
    arg.add(ArgValueCandidates::new(move || {
        // Where the study cannot be read there is nothing to offer; the command itself says why.
        let found = study_on_the_line().and_then(|study| names_of(&study).ok());
        offered(found.unwrap_or_default())
    }))
}

/// Candidates with what is said of them, without those that are no plain words.
fn offered<S: Into<String>, T: AsRef<str>>(
    names: impl IntoIterator<Item = (S, T)>,
) -> Vec<CompletionCandidate> {
    names
        .into_iter()
        .map(|(name, about)| (name.into(), text::clean(about.as_ref())))
        .filter(|(name, _)| is_plain(OsStr::new(name)))
        .map(|(name, about)| {
            let about = (!about.is_empty()).then(|| about.into());
            CompletionCandidate::new(name).help(about)
        })
        .collect()
}

/// Whether a word means itself in every shell and on every terminal: what is completed stands in
/// the line, and enter would run what a shell finds in it. A blank is escaped by the shells that ask,
/// or here where bash does.
fn is_plain(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        !word.starts_with(['-', '=', ' '])
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || "._-+:@/=,~".contains(c) || c == ' ' && blanks())
    })
}

/// Whether the shell that asks may be given a word with a blank: PowerShell, elvish and a bash whose
/// script is an older one would take it for two.
fn blanks() -> bool {
    let shell = std::env::var(VARIABLE).unwrap_or_default();
    matches!(shell.as_str(), "fish" | "zsh") || bash::line().is_some()
}

/// The words of the line that is completed, which a shell hands over behind `--`.
fn line() -> Vec<OsString> {
    if let Some(line) = bash::line() {
        return line.words;
    }
    std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .map(|word| bash::unquoted(&word))
        .collect()
}

/// The commands that may follow the words behind `man`: all, or those of the command named there.
fn commands() -> Vec<CompletionCandidate> {
    let root = super::command();
    let line = line();
    let mut words = line.iter().skip_while(|word| *word != "man").skip(1);
    let mut command = &root;
    while let Some(below) = words.next().and_then(|word| command.find_subcommand(word)) {
        command = below;
    }
    offered(command.get_subcommands().map(|below| {
        let about = below.get_about().map(ToString::to_string);
        (below.get_name().to_owned(), about.unwrap_or_default())
    }))
}

/// The sets of directions of the study: its fits, its autoencoders, and what is made of its rows.
fn sets(study: &Study) -> Result<Vec<(String, String)>> {
    let with = |kind: fn(Option<String>) -> SetKind| {
        move |(name, about)| (kind(Some(name)).to_string(), about)
    };
    let newest = (SetKind::FIT.to_string(), "the newest fit".to_owned());
    let mut sets = vec![newest];
    sets.extend(fits(study)?.into_iter().map(with(SetKind::Fit)));
    sets.extend(saes(study)?.into_iter().map(with(SetKind::Sae)));
    let baselines = Baseline::ALL.map(|kind| (kind.name().to_owned(), kind.what().to_owned()));
    sets.extend(baselines);
    let measured = SetKind::measured()
        .filter_map(|kind| Some((kind.to_string(), kind.measured_description()?.to_owned())));
    sets.extend(measured);
    Ok(sets)
}

/// Directions: features that are noted, and how those of the other sets begin.
fn directions(study: &Study) -> Result<Vec<(String, String)>> {
    let mut directions = noted_features(study)?;
    for (set, about) in sets(study)?.into_iter().skip(1) {
        let kind: SetKind = set.parse()?;
        match kind {
            kind if kind.supervised() => {
                let labels = study.tokens()?.labels.clone();
                directions.extend(
                    labels
                        .iter()
                        .map(|label| (format!("{set}:{label}"), about.clone())),
                );
            }
            SetKind::Baseline { .. } | SetKind::File { .. } => {
                directions.push((format!("{set}:"), about))
            }
            SetKind::Fit(_) | SetKind::Sae(_) => directions.push((format!("{set}/"), about)),
            // One a label, as above.
            SetKind::TextGradient { .. } | SetKind::Mixed { .. } => {}
        }
    }
    Ok(directions)
}

/// The study that the line names: its first word that is the directory of one.
fn study_on_the_line() -> Option<Study> {
    let dir = line()
        .iter()
        .skip(1)
        .map(|word| from_home(Path::new(word)))
        .find(|dir| dir.join("study.json").is_file())?;
    Study::open_read_only(&dir).ok()
}

/// A path whose `~` the shell has not replaced yet.
fn from_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

fn fits(study: &Study) -> Result<Vec<(String, String)>> {
    let describe = |fit: crate::study::FitEntry| {
        let about = format!(
            "{} features of {}, {}",
            fit.config.features,
            fit.hook,
            fit.status()
        );
        (fit.name, about)
    };
    Ok(study.fits()?.into_iter().map(describe).collect())
}

fn saes(study: &Study) -> Result<Vec<(String, String)>> {
    let describe = |sae: crate::study::SaeEntry| (sae.name, sae.hook.to_string());
    Ok(study.saes()?.into_iter().map(describe).collect())
}

fn layers(study: &Study) -> Result<Vec<(String, String)>> {
    let mut layers: Vec<usize> = study.manifest().hooks.iter().map(|h| h.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    Ok(layers
        .into_iter()
        .map(|layer| (layer.to_string(), String::new()))
        .collect())
}

/// The hooks of the study on the line, or all that there are.
fn hooks() -> Vec<CompletionCandidate> {
    let of_study = study_on_the_line().map(|study| {
        let hooks = &study.manifest().hooks;
        let is_held = |site: &HookSite| hooks.iter().any(|hook| hook.site == *site);
        HookSite::ALL.into_iter().filter(is_held).collect()
    });
    let sites: Vec<HookSite> = of_study.unwrap_or_else(|| HookSite::ALL.to_vec());
    offered(sites.iter().map(|site| (site.name(), "")))
}

/// Features that have a name or a note, of the fit that `--fit` names or of the newest.
fn noted_features(study: &Study) -> Result<Vec<(String, String)>> {
    let line = line();
    let named = line
        .windows(2)
        .find(|pair| pair[0] == "--fit")
        .and_then(|pair| pair[1].to_str().map(str::to_owned));
    let fits = study.fits()?;
    let fit = named.or_else(|| newest(&fits, |_| true).map(|fit| fit.name.clone()));
    let notes = match fit {
        Some(fit) => study.notes(&fit)?,
        None => return Ok(Vec::new()),
    };
    Ok(notes
        .names
        .iter()
        .map(|(id, name)| (id.to_string(), name.clone()))
        .collect())
}

/// Models on this machine, and files.
fn models(current: &OsStr) -> Vec<CompletionCandidate> {
    let local = source::list_local();
    let begins = |id: &str| current.to_str().is_some_and(|typed| id.starts_with(typed));
    let known = local
        .iter()
        .filter(|model| begins(&model.id) && !model.encoder)
        .map(|model| (model.id.as_str(), model.summary.as_str()));
    offered(known).into_iter().chain(paths(current)).collect()
}

/// Files and directories whose names are plain words.
fn paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = match bash::line() {
        Some(_) => current.to_owned(),
        None => bash::unquoted(current),
    };
    let mut found = PathCompleter::any().complete(&current);
    found.retain(|candidate| is_plain(candidate.get_value()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_offered() {
        let names = [
            "k100",
            "日本語",
            "a/b:7",
            "$(x)",
            "`x`",
            "a b", // Where no shell asks that would escape it.
            "a\u{1b}[2J",
            "\u{202e}a",
            "-rf",
            "a;b",
            "~/s",
        ];
        let offered = offered(names.map(|name| (name, "about\u{1b}[2J")));
        let values: Vec<_> = offered
            .iter()
            .map(|c| c.get_value().to_str().unwrap())
            .collect();
        assert_eq!(values, ["k100", "日本語", "a/b:7", "~/s"]);
        assert_eq!(
            offered[0].get_help().unwrap().to_string(),
            "about‹U+001B›[2J"
        );
    }

    #[test]
    fn every_shell_has_a_script() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            assert!(script(*shell).unwrap().contains(VARIABLE), "{shell}");
        }
    }

    #[test]
    fn what_names_a_fit_completes() {
        let command = completing();
        let trace = command.find_subcommand("trace").unwrap();
        let fit = trace.get_arguments().find(|arg| arg.get_id() == "fit");
        let fit = fit.unwrap();
        assert!(fit.get::<ArgValueCandidates>().is_some());
    }
}
