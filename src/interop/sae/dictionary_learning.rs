//! dictionary_learning: `ae.pt` with `config.json`.
//!
//! Format: <https://github.com/saprmarks/dictionary_learning>, `dictionary.py`; `encoder.weight`
//! [latents, d] and `decoder.weight` [d, latents], or `W_enc` [d, latents] and `W_dec` [latents, d];
//! the bias of the decoder is `b_dec`, `bias` or `decoder_bias`. The classes and what each computes
//! are those of SAELens's loader.

use std::path::Path;

use super::{Archive, Gate, Normalise, Published, Sae, count, read_json, short, transpose};
use crate::error::{Error, Result};

/// The file of the weights.
pub(super) const WEIGHTS: &str = "ae.pt";

pub(super) fn read(dir: &Path) -> Result<Published> {
    let path = dir.join("config.json");
    let config = read_json(&path)?;
    let trainer = &config["trainer"];
    if !trainer.is_object() {
        return Err(Error::file(
            &path,
            "has no 'trainer', which dictionary_learning writes",
        ));
    }
    let (d, k) = (
        count(trainer, "activation_dim", &path)?,
        count(trainer, "dict_size", &path)?,
    );
    let mut file = Archive::open(&dir.join(WEIGHTS))?;
    let mut oriented = |large: &str, small: &str, large_shape: [usize; 2]| -> Result<Vec<f32>> {
        let [rows, cols] = large_shape;
        match file.has(large) {
            true => file.read(large, &large_shape),
            false => Ok(transpose(&file.read(small, &[cols, rows])?, cols, rows)),
        }
    };
    // Both as SAELens has them; the encoder is turned round below.
    let encoder = transpose(&oriented("W_enc", "encoder.weight", [d, k])?, d, k);
    let decoder = oriented("W_dec", "decoder.weight", [k, d])?;
    let decoder_bias = ["b_dec", "bias", "decoder_bias"]
        .into_iter()
        .find(|name| file.has(name))
        .unwrap_or("b_dec");
    let decoder_bias = file.read(decoder_bias, &[d])?;
    let class = trainer["dict_class"].as_str().unwrap_or("AutoEncoder");
    let gate = match class {
        "AutoEncoder" | "AutoEncoderNew" => Gate::Relu,
        "AutoEncoderTopK" => Gate::TopK {
            k: count(trainer, "k", &path)?,
            by_norm: false,
        },
        "GatedAutoEncoder" => Gate::Gated {
            bias: file.read("gate_bias", &[k])?,
            log_scale: file.read("r_mag", &[k])?,
        },
        "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" | "JumpReluAutoEncoder" => Gate::JumpRelu {
            threshold: match file.shape("threshold")?.as_slice() {
                [] => vec![file.read("threshold", &[])?[0]; k],
                _ => file.read("threshold", &[k])?,
            },
        },
        other => {
            return Err(Error::file(
                &path,
                format!(
                    "has the class '{}', which is not known",
                    other.escape_debug()
                ),
            ));
        }
    };
    let bias = match (&gate, file.has("b_enc")) {
        (Gate::Gated { .. }, _) => "mag_bias",
        (_, true) => "b_enc",
        (_, false) => "encoder.bias",
    };
    let sae = Sae {
        width: d,
        encoder,
        encoder_bias: file.read(bias, &[k])?,
        decoder,
        decoder_bias,
        centred: class != "JumpReluAutoEncoder",
        gate,
        normalise: Normalise::None,
    };
    let submodule = trainer["submodule_name"].as_str().unwrap_or_default();
    let site = match submodule {
        name if name.starts_with("mlp_out") => "hook_mlp_out",
        name if name.starts_with("attention_out") => "attn_out",
        _ => "hook_resid_post",
    };
    let layer = trainer["layer"].as_u64();
    let layer = layer.ok_or_else(|| {
        Error::file(
            &path,
            format!("has no layer (it has {})", short(&trainer["layer"])),
        )
    })?;
    Ok(Published {
        sae,
        format: "dictionary_learning",
        model: trainer["lm_name"].as_str().map(str::to_owned),
        hook: Some(format!("blocks.{layer}.{site}")),
        notes: Vec::new(),
    })
}
