//! Gemma Scope: `params.npz` with `W_enc` [d, latents], `b_enc`, `W_dec` [latents, d], `b_dec` and
//! `threshold`, JumpReLU.
//!
//! Format: <https://huggingface.co/google/gemma-scope>; the site and the layer stand in the
//! repository's name and the folder's (`gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`).
//! Gemma Scope 2 has the same tensors in small letters, `params.safetensors`, a `config.json`, and
//! the site in the folder's name (`gemma-scope-2-1b-pt/resid_post/layer_7_width_16k_l0_medium`).

use std::path::Path;

use serde_json::Value;

use super::{Archive, Gate, Normalise, Published, Sae, layer_in, read_json, shape, transpose};
use crate::error::{Error, Result};

/// Gemma Scope 2, `config.json` and `params.safetensors` of a directory.
pub(super) fn read_second(dir: &Path, name: &str) -> Result<Published> {
    let path = dir.join("config.json");
    let config = if path.is_file() {
        read_json(&path)?
    } else {
        Value::Null
    };
    if let Some(other) = config["architecture"]
        .as_str()
        .filter(|a| *a != "jump_relu")
    {
        return Err(Error::file(
            path,
            format!(
                "has the architecture '{}'; jump_relu can be read",
                other.escape_debug()
            ),
        ));
    }
    let has = |word: &str| name.split('/').any(|part| part.starts_with(word));
    if has("transcoder") || has("clt") {
        return Err(Error::refused(format!(
            "{name} is a transcoder, not an autoencoder: its decoder rows can be read as directions, file:PATH"
        )));
    }
    let mut found = read(&dir.join("params.safetensors"), name)?;
    found.format = "Gemma Scope 2";
    let sites = [
        ("resid_post", "hook_resid_post"),
        ("mlp_out", "hook_mlp_out"),
        ("attn_out", "attn.hook_z"),
    ];
    let site = sites.into_iter().find(|(word, _)| has(word));
    let layer = layer_in(name, &["layer_"]);
    found.hook = site
        .zip(layer)
        .map(|((_, site), layer)| format!("blocks.{layer}.{site}"));
    let repository = name
        .split('/')
        .find(|part| part.starts_with("gemma-scope-2-"))
        .map(|part| part.replace("gemma-scope-2", "gemma-3"));
    let model = config["model_name"].as_str().map(str::to_owned);
    found.model = model.or(repository).map(|model| {
        let model = model.trim_start_matches("google/").replace("-v3", "-3");
        // The smallest model's name has no suffix.
        match model.contains("270m") {
            true => format!("google/{}", model.replace("-pt", "")),
            false => format!("google/{model}"),
        }
    });
    Ok(found)
}

pub(super) fn read(path: &Path, name: &str) -> Result<Published> {
    let mut file = Archive::open(path)?;
    // Early releases have small letters.
    let spelling = |file: &Archive, small: &'static str, large: &'static str| {
        if file.has(small) { small } else { large }
    };
    let (enc, dec) = (
        spelling(&file, "w_enc", "W_enc"),
        spelling(&file, "w_dec", "W_dec"),
    );
    let (d, k) = shape(&mut file, enc)?;
    super::check_scaling(&mut file, k)?;
    let sae = Sae {
        width: d,
        encoder: transpose(&file.read(enc, &[d, k])?, d, k),
        encoder_bias: file.read("b_enc", &[k])?,
        decoder: file.read(dec, &[k, d])?,
        decoder_bias: file.read("b_dec", &[d])?,
        centred: false,
        gate: Gate::JumpRelu {
            threshold: file.read("threshold", &[k])?,
        },
        normalise: Normalise::None,
    };
    let model = name
        .split('/')
        .find_map(|part| part.strip_prefix("gemma-scope-"))
        .map(|rest| {
            let (size, tuned) = (
                rest.split('-').next().unwrap_or_default(),
                rest.contains("-it-"),
            );
            format!("google/gemma-2-{size}{}", if tuned { "-it" } else { "" })
        });
    Ok(Published {
        sae,
        format: "Gemma Scope",
        model,
        hook: hook(name)?,
        notes: Vec::new(),
    })
}

fn hook(name: &str) -> Result<Option<String>> {
    if name.contains("embedding") {
        return Err(Error::refused(format!(
            "{name} reads embeddings, which mlpeek has no hook for"
        )));
    }
    let site = name.split('/').find_map(|part| {
        let part = part.trim_end_matches("-canonical");
        [
            ("-res", "hook_resid_post"),
            ("-mlp", "hook_mlp_out"),
            ("-att", "attn.hook_z"),
            ("-transcoders", "a transcoder"),
        ]
        .into_iter()
        .find(|(end, _)| part.starts_with("gemma-scope") && part.ends_with(end))
    });
    match (site, layer_in(name, &["layer_"])) {
        (Some((_, "a transcoder")), _) => Err(Error::refused(format!(
            "{name} is a transcoder, not an autoencoder"
        ))),
        (Some((_, site)), Some(layer)) => Ok(Some(format!("blocks.{layer}.{site}"))),
        _ => Ok(None),
    }
}
