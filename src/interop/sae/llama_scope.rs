//! Llama Scope: `hyperparams.json` with `checkpoints/final.safetensors` (`encoder.weight` [latents,
//! d], `encoder.bias`, `decoder.weight` [d, latents], `decoder.bias`), JumpReLU with one threshold.
//!
//! Rows are scaled by s = √d / (their average norm): s goes into W_enc and θ, W_dec and b_dec are
//! divided by it, as SAELens does (`loading/pretrained_sae_loaders.py`,
//! `llama_scope_sae_huggingface_loader`).

use std::path::Path;

use super::{Archive, Gate, Normalise, Published, Sae, count, number, read_json, short, transpose};
use crate::error::{Error, Result};

pub(super) fn read(dir: &Path) -> Result<Published> {
    let path = dir.join("hyperparams.json");
    let config = read_json(&path)?;
    let (d, k) = (
        count(&config, "d_model", &path)?,
        count(&config, "d_sae", &path)?,
    );
    let (inside, outside) = (
        config["hook_point_in"].as_str(),
        config["hook_point_out"].as_str(),
    );
    if let (Some(inside), Some(outside)) = (inside, outside)
        && inside != outside
    {
        return Err(Error::file(
            path,
            format!("reads {inside} and writes {outside}: a transcoder, not an autoencoder"),
        ));
    }
    if config["act_fn"].as_str().is_some_and(|f| f != "jumprelu") {
        return Err(Error::file(
            &path,
            format!(
                "has act_fn {}; jumprelu can be read",
                short(&config["act_fn"])
            ),
        ));
    }
    if config["apply_decoder_bias_to_pre_encoder"] == true {
        return Err(Error::file(
            path,
            "applies the decoder's bias before the encoder, which no Llama Scope SAE does",
        ));
    }
    let norm = number(&config["dataset_average_activation_norm"], "in", &path)?;
    if norm <= 0.0 {
        return Err(Error::file(
            path,
            format!("has an average activation norm of {norm}"),
        ));
    }
    let scale = (d as f32).sqrt() / norm;
    let threshold = number(&config, "jump_relu_threshold", &path)? * scale;
    let mut file = Archive::open(&dir.join("checkpoints/final.safetensors"))?;
    let scaled = |values: Vec<f32>, by: f32| values.into_iter().map(|v| v * by).collect::<Vec<_>>();
    let sae = Sae {
        width: d,
        encoder: scaled(file.read("encoder.weight", &[k, d])?, scale),
        encoder_bias: file.read("encoder.bias", &[k])?,
        decoder: scaled(
            transpose(&file.read("decoder.weight", &[d, k])?, d, k),
            scale.recip(),
        ),
        decoder_bias: scaled(file.read("decoder.bias", &[d])?, scale.recip()),
        centred: false,
        gate: Gate::JumpRelu {
            threshold: vec![threshold; k],
        },
        normalise: Normalise::None,
    };
    let model = Some("meta-llama/Llama-3.1-8B".to_owned());
    Ok(Published {
        sae,
        format: "Llama Scope",
        model,
        hook: inside.map(str::to_owned),
        notes: Vec::new(),
    })
}
