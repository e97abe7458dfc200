//! The models that are on this machine already.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    DEFAULT_ENCODER, DEFAULT_MODEL, ModelEntry, SourceSettings, encoder, entries, local, package,
};
use crate::error::Result;
use crate::model::ModelLayout;
use crate::model::config::Config;
use crate::model::gguf::Header;

/// Every model that could be opened now: first those in mlpeek's data directory, then the Hub
/// cache's.
pub(super) fn models(settings: &SourceSettings) -> Vec<ModelEntry> {
    let mut out = own_models(settings);
    out.extend(hub_models(settings));
    out
}

fn own_models(settings: &SourceSettings) -> Vec<ModelEntry> {
    let visible = |p: &PathBuf| {
        !p.file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
    };
    let mut out = Vec::new();
    for path in entries(&settings.models()).into_iter().filter(visible) {
        let layout = match path.is_dir() {
            true => local::layout(&path),
            false if local::has_extension(&path, "gguf") => local::gguf_file(&path),
            false => continue,
        };
        let name = path.file_name().unwrap_or_default();
        let id = if name == package::FILE {
            DEFAULT_MODEL.to_owned()
        } else if name == encoder::FOLDER {
            DEFAULT_ENCODER.to_owned()
        } else {
            path.display().to_string()
        };
        out.push(entry(id, "mlpeek cache", &path, layout));
    }
    out
}

/// The repositories of the Hub cache: each revision that has a name, and each commit that has none.
fn hub_models(settings: &SourceSettings) -> Vec<ModelEntry> {
    let mut out = Vec::new();
    for repo in entries(&settings.hub_cache) {
        let Some(name) = repo
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_prefix("models--"))
        else {
            continue;
        };
        // An owner's name has no "--", so the first one stands for the slash.
        let id = name.replacen("--", "/", 1);
        let mut refs = Vec::new();
        collect_refs(&repo.join("refs"), "", &mut refs);
        // A model that was fetched by its commit has no other name. Older commits of a branch stay
        // in the cache as well; only a complete one is of use.
        for snapshot in entries(&repo.join("snapshots"))
            .into_iter()
            .filter(|dir| local::layout(dir).is_ok())
        {
            let commit = snapshot
                .file_name()
                .and_then(|n| n.to_str())
                .map(str::to_owned);
            let named = |commit: &String| refs.iter().any(|(_, own)| own == commit);
            refs.extend(
                commit
                    .filter(|c| !named(c))
                    .map(|commit| (commit.clone(), commit)),
            );
        }
        for (revision, commit) in refs {
            let snapshot = repo.join("snapshots").join(&commit);
            if commit.contains(['/', '.']) || !may_be_model(&snapshot) {
                continue;
            }
            let typed = if revision == "main" {
                id.clone()
            } else {
                format!("{id}@{revision}")
            };
            out.push(entry(
                typed,
                "Hub cache",
                &snapshot,
                local::layout(&snapshot),
            ));
        }
    }
    out
}

/// Names and commits below `refs`; a revision such as `refs/pr/1` has folders of its own.
fn collect_refs(dir: &Path, prefix: &str, out: &mut Vec<(String, String)>) {
    for path in entries(dir) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            collect_refs(&path, &format!("{name}/"), out);
        } else if let Ok(commit) = fs::read_to_string(&path) {
            out.push((name, commit.trim().to_owned()));
        }
    }
}

/// A cache also keeps lone tokenizers and configurations; only what has weights, or the start of
/// them, is shown.
fn may_be_model(snapshot: &Path) -> bool {
    entries(snapshot).iter().any(|p| {
        local::has_extension(p, "safetensors")
            || local::has_extension(p, "gguf")
            || p.ends_with("model.safetensors.index.json")
    })
}

fn entry(id: String, place: &str, path: &Path, layout: Result<ModelLayout>) -> ModelEntry {
    let encoder =
        matches!(&layout, Ok(ModelLayout::HuggingFace { config, .. }) if is_encoder(config));
    let described = layout.and_then(|layout| {
        let summary = match &layout {
            ModelLayout::Gguf(file) => gguf_summary(file),
            ModelLayout::HuggingFace { config, .. } => Ok(config_summary(config)),
        };
        summary.map(|summary| {
            (
                local::weight_bytes(&layout),
                summary,
                local::has_tokenizer(&layout),
            )
        })
    });
    let (bytes, summary, problem) = match described {
        Ok((bytes, summary, true)) => (bytes, summary, None),
        Ok((bytes, summary, false)) => (
            bytes,
            summary,
            Some("has no tokenizer.json: forward --ids alone".to_owned()),
        ),
        Err(e) => (weights_below(path), String::new(), Some(e.to_string())),
    };
    ModelEntry {
        id,
        place: place.to_owned(),
        bytes,
        summary,
        problem,
        encoder,
    }
}

/// Whether a configuration is that of an encoder that reads sentences for a judge.
fn is_encoder(config: &Path) -> bool {
    read_config(config)
        .get("model_type")
        .and_then(Value::as_str)
        == Some("bert")
}

fn read_config(path: &Path) -> Value {
    fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Bytes of the weights that a broken entry has.
fn weights_below(path: &Path) -> u64 {
    let size = |p: &Path| fs::metadata(p).map_or(0, |m| m.len());
    if path.is_file() {
        return size(path);
    }
    let weights =
        |p: &&PathBuf| local::has_extension(p, "safetensors") || local::has_extension(p, "gguf");
    entries(path).iter().filter(weights).map(|p| size(p)).sum()
}

fn gguf_summary(path: &Path) -> Result<String> {
    let header = Header::read(path)?;
    let family = header.string("general.architecture").unwrap_or("unknown");
    let number = |key: &str| header.uint(&format!("{family}.{key}"));
    Ok(summary(
        family,
        number("block_count"),
        number("feed_forward_length"),
    ))
}

fn config_summary(path: &Path) -> String {
    let config = read_config(path);
    if is_encoder(path) {
        let number = |key: &str| config.get(key).and_then(Value::as_u64);
        let layers = number("num_hidden_layers").unwrap_or(0);
        let width = number("hidden_size").unwrap_or(0);
        return format!("sentence encoder, {layers} layers, width {width}");
    }
    // Gemma 3 and other multimodal models keep the language model's numbers a level deeper.
    let text = config.get("text_config").unwrap_or(&Value::Null);
    let number = |keys: [&str; 2]| {
        keys.iter()
            .find_map(|k| config.get(k).or_else(|| text.get(k))?.as_u64())
    };
    let family = config
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    // What a file leaves out is what its family takes it to be, where the family is known.
    let read = Config::from_hf(path).ok();
    let layers = number(["num_hidden_layers", "n_layer"])
        .or_else(|| read.as_ref().map(|c| c.layers.len() as u64));
    let d_mlp =
        number(["intermediate_size", "n_inner"]).or_else(|| read.as_ref().map(|c| c.d_mlp as u64));
    summary(family, layers, d_mlp)
}

fn summary(family: &str, layers: Option<u64>, d_mlp: Option<u64>) -> String {
    let mut out = family.to_owned();
    if let Some(layers) = layers {
        out += &format!(", {layers} layers");
    }
    if let Some(width) = d_mlp {
        out += &format!(", d_mlp {width}");
    }
    out
}
