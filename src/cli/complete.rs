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
use clap_complete::env::{CompleteEnv, Shells};

use crate::error::{Error, Result};
use crate::guide::PAGES;
use crate::model::{HookSite, source};
use crate::study::{Study, newest};
use crate::text;

/// The environment variable by which the script of `mlpeek completions` asks for candidates.
const VARIABLE: &str = "MLPEEK_COMPLETE";

/// Answers a shell that asks for candidates and ends the process then; returns where none asks.
pub fn answer_shell() {
    CompleteEnv::with_factory(completing)
        .var(VARIABLE)
        .complete();
}

/// The script that makes `shell` ask mlpeek at the tab key.
///
/// # Errors
/// A shell for which there is none.
pub fn script(shell: clap_complete::Shell) -> Result<String> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let writer = shells
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
            "id" | "features" if arg.is_positional() => names(arg, noted_features),
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
fn names(arg: Arg, of: NamesOf) -> Arg {
    arg.add(ArgValueCandidates::new(move || {
        // Where the study cannot be read there is nothing to offer; the command itself says why.
        let found = study_on_the_line().and_then(|study| of(&study).ok());
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
/// the line as it is, and enter would run what a shell finds in it.
fn is_plain(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        !word.starts_with(['-', '='])
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || "._-+:@/=,~".contains(c))
    })
}

/// The words of the line that is completed, which a shell hands over behind `--`.
fn line() -> Vec<OsString> {
    std::env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect()
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
    let here = source::list_local();
    let begins = |id: &str| current.to_str().is_some_and(|typed| id.starts_with(typed));
    let known = here
        .iter()
        .filter(|model| begins(&model.id) && !model.encoder)
        .map(|model| (model.id.as_str(), model.summary.as_str()));
    offered(known).into_iter().chain(paths(current)).collect()
}

/// Files and directories whose names are plain words.
fn paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = PathCompleter::any().complete(current);
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
            "a b",
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
