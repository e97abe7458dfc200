//! The families of models: a file each, and the table that finds them by what a file calls itself.
//!
//! A family's file owns its tensor names and what its `config.json` and its GGUF metadata mean; it
//! knows nothing of tensors. Invariant: nothing outside this module decides by a family's name, so
//! that a family that is added here is right everywhere (a test reads the sources for it).

mod gemma;
mod gpt2;
mod llama;
mod neox;

use super::{Config, gguf, hf};
use crate::error::Result;

/// Reads a `config.json` whose `model_type` is the second argument.
type FromHf = fn(&hf::Reader<'_>, &str) -> Result<Config>;

/// Changes the switches of a Llama, which hold the sizes of a GGUF file already, into the family's.
type FromGguf = fn(&gguf::Reader<'_>, &mut Config) -> Result<()>;

/// What reads the files of a family.
struct Family {
    /// Values of `model_type` in a `config.json`.
    hf: &'static [(&'static str, FromHf)],
    /// Values of `general.architecture` in GGUF metadata.
    gguf: &'static [(&'static str, FromGguf)],
}

/// Every family, in the order in which an error lists them.
const FAMILIES: &[Family] = &[llama::FAMILY, gemma::FAMILY, gpt2::FAMILY, neox::FAMILY];

/// The reader of a `model_type`; for one that is not supported, those that are.
pub(super) fn from_hf(model_type: &str) -> Result<FromHf, String> {
    find(FAMILIES.iter().flat_map(|family| family.hf), model_type)
}

/// The reader of a GGUF architecture; for one that is not supported, those that are.
pub(super) fn from_gguf(architecture: &str) -> Result<FromGguf, String> {
    find(FAMILIES.iter().flat_map(|family| family.gguf), architecture)
}

/// The name of a `family` in llama.cpp (`MODEL_ARCH_NAMES` in its `gguf-py/gguf/constants.py`); most
/// families have the same name there.
pub fn llama_cpp_architecture(family: &str) -> &str {
    match family {
        "gemma3_text" => "gemma3",
        "gpt_neox" => "gptneox",
        "mistral" => "llama",
        other => other,
    }
}

fn find<'a, F: Copy + 'a>(
    readers: impl Iterator<Item = &'a (&'static str, F)> + Clone,
    name: &str,
) -> Result<F, String> {
    let found = readers.clone().find(|(own, _)| *own == name);
    found.map(|(_, reader)| *reader).ok_or_else(|| {
        let names: Vec<&str> = readers.map(|(own, _)| *own).collect();
        names.join(", ")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    /// Whether some lines of code compare what a family is called with a name of ours.
    fn decides_by_family(code: &str) -> bool {
        let names = FAMILIES.iter().flat_map(|f| {
            let (hf, gguf) = (f.hf.iter().map(|r| r.0), f.gguf.iter().map(|r| r.0));
            hf.chain(gguf)
        });
        ["family", "architecture", "model_type"]
            .iter()
            .any(|word| code.contains(word))
            && ["==", "!=", "starts_with", "contains", "matches!", "=>"]
                .iter()
                .any(|operator| code.contains(operator))
            && names
                .into_iter()
                .any(|name| code.contains(&format!("\"{name}")))
    }

    #[test]
    fn an_architecture_that_is_read_from_gguf_keeps_its_name() {
        for (name, _) in FAMILIES.iter().flat_map(|family| family.gguf) {
            assert_eq!(llama_cpp_architecture(name), *name);
        }
        assert_eq!(llama_cpp_architecture("gemma3_text"), "gemma3");
        assert_eq!(llama_cpp_architecture("mistral"), "llama");
        assert_eq!(llama_cpp_architecture("gpt_neox"), "gptneox");
    }

    #[test]
    fn nothing_outside_the_configuration_decides_by_the_name_of_a_family() {
        assert!(decides_by_family(
            r#"if info.family.starts_with("gemma2") {"#
        ));
        assert!(decides_by_family(
            r#"["gemma2", "gemma3"].contains(&family)"#
        ));
        assert!(decides_by_family(r#"match family { "gpt2" => 4,"#));
        assert!(!decides_by_family(r#"family: "llama".to_owned(),"#));
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut files, mut wrong) = (Vec::new(), Vec::new());
        sources(&src, &mut files);
        assert!(files.len() > 100, "only {} files", files.len());
        for file in files
            .iter()
            .filter(|f| !f.starts_with(src.join("model/config")))
        {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines: Vec<&str> = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            // A comparison that rustfmt broke into several lines still lies within four.
            wrong.extend(
                lines
                    .windows(4)
                    .map(|lines| lines.join(" "))
                    .find(|code| decides_by_family(code))
                    .map(|code| format!("{}: {code}", file.display())),
            );
        }
        assert!(
            wrong.is_empty(),
            "ask model::config::Config instead:\n{}",
            wrong.join("\n")
        );
    }
}
