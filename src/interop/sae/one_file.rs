//! Autoencoders of one file, told apart by the names of its tensors: Qwen-Scope, Goodfire, OpenAI.
//!
//! Qwen-Scope (`layer12.sae.pt`): `W_enc` [latents, d], `W_dec` [d, latents], `b_enc`, `b_dec`, top-k
//! with the k of the repository's name (`…-L0_50`). Goodfire: `encoder_linear.*`, `decoder_linear.*`,
//! ReLU, the layer from the name (`…-l19`). Both as SAELens's loaders read them.

use std::path::Path;

use super::{Archive, Gate, Normalise, Published, Sae, layer_in, openai, shape, transpose};
use crate::error::{Error, Result};

pub(super) fn read(path: &Path, name: &str) -> Result<Published> {
    let file = Archive::open(path)?;
    if file.has("encoder_linear.weight") {
        goodfire(file, name)
    } else if file.has("W_enc") && !file.has("pre_bias") {
        qwen_scope(file, name)
    } else {
        openai::read(file, name)
    }
}

/// An autoencoder whose matrices are the transposes of SAELens's, which leaves b_dec in the input.
fn turned(file: &mut Archive, names: [&str; 4], gate: Gate) -> Result<Sae> {
    let [encoder, encoder_bias, decoder, decoder_bias] = names;
    let (k, d) = shape(file, encoder)?;
    Ok(Sae {
        width: d,
        encoder: file.read(encoder, &[k, d])?,
        encoder_bias: file.read(encoder_bias, &[k])?,
        decoder: transpose(&file.read(decoder, &[d, k])?, d, k),
        decoder_bias: file.read(decoder_bias, &[d])?,
        centred: false,
        gate,
        normalise: Normalise::None,
    })
}

fn qwen_scope(mut file: Archive, name: &str) -> Result<Published> {
    let k = layer_in(name, &["L0_"]).filter(|k| *k > 0).ok_or_else(|| {
        Error::file(
            file.path(),
            "does not say its k: Qwen-Scope has it in the folder's name (SAE-Res-…-L0_50)",
        )
    })?;
    let gate = Gate::TopK { k, by_norm: false };
    let sae = turned(&mut file, ["W_enc", "b_enc", "W_dec", "b_dec"], gate)?;
    let model = name
        .split('/')
        .find_map(|part| part.strip_prefix("SAE-Res-"))
        .and_then(|rest| rest.split("-W").next())
        .map(|model| format!("Qwen/{model}"));
    Ok(Published {
        sae,
        format: "Qwen-Scope",
        model,
        hook: layer_in(name, &["layer"]).map(|layer| format!("blocks.{layer}.hook_resid_post")),
        notes: Vec::new(),
    })
}

fn goodfire(mut file: Archive, name: &str) -> Result<Published> {
    let names = [
        "encoder_linear.weight",
        "encoder_linear.bias",
        "decoder_linear.weight",
        "decoder_linear.bias",
    ];
    let sae = turned(&mut file, names, Gate::Relu)?;
    let stem = name.rsplit('/').next().unwrap_or_default();
    let model = stem
        .split_once("-SAE-")
        .map(|(model, _)| format!("meta-llama/{model}"));
    Ok(Published {
        sae,
        format: "Goodfire",
        model,
        hook: layer_in(&stem.replace("-l", "/l"), &["l"])
            .map(|layer| format!("blocks.{layer}.hook_resid_post")),
        notes: Vec::new(),
    })
}
