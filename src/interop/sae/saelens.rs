//! SAELens directories: `cfg.json` (version 6, and the flat one before it) with
//! `sae_weights.safetensors`.
//!
//! Format: <https://github.com/decoderesearch/SAELens>, `sae_lens/saes/*.py` and
//! `loading/pretrained_sae_loaders.py`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Archive, Gate, Normalise, Published, Sae, count, read_json, short, transpose};
use crate::disk;
use crate::error::{Error, Result};
use crate::interop::tensors;

/// The file of the configuration in a SAELens directory.
pub const CONFIG: &str = "cfg.json";
/// The file of the weights in a SAELens directory.
pub const WEIGHTS: &str = "sae_weights.safetensors";

pub(super) fn read(dir: &Path) -> Result<Published> {
    let path = dir.join(CONFIG);
    let config = read_json(&path)?;
    let config_value = |key: &str| {
        config["metadata"]
            .get(key)
            .filter(|v| !v.is_null())
            .unwrap_or(&config[key])
    };
    let (d, k) = (
        count(&config, "d_in", &path)?,
        count(&config, "d_sae", &path)?,
    );
    let hook = config_value("hook_name")
        .as_str()
        .or(config["hook_point"].as_str())
        .map(str::to_owned);
    if config["reshape_activations"]
        .as_str()
        .is_some_and(|r| r != "none")
    {
        return Err(Error::file(
            path,
            "reads attention heads (hook_z), which mlpeek has no hook for",
        ));
    }
    if config["finetuning_scaling_factor"] == true {
        return Err(Error::file(
            path,
            "has finetuning scaling factors, which cannot be read",
        ));
    }
    let mut notes = Vec::new();
    let normalise = match &config["normalize_activations"] {
        Value::Null | Value::Bool(false) => Normalise::None,
        Value::Bool(true) => unscaled(&mut notes),
        Value::String(name) => match name.as_str() {
            "none" => Normalise::None,
            "expected_average_only_in" => unscaled(&mut notes),
            "constant_norm_rescale" => Normalise::ConstantNorm,
            "layer_norm" => Normalise::LayerNorm,
            other => {
                return Err(Error::file(
                    path,
                    format!("normalises activations by '{other}', which cannot be read"),
                ));
            }
        },
        other => {
            return Err(Error::file(
                &path,
                format!("has normalize_activations {}", short(other)),
            ));
        }
    };
    let mut file = Archive::open(&dir.join(WEIGHTS))?;
    super::check_scaling(&mut file, k)?;
    let gate = gate(&config, &path, &mut file, k)?;
    let bias = if matches!(gate, Gate::Gated { .. }) {
        "b_mag"
    } else {
        "b_enc"
    };
    let sae = Sae {
        width: d,
        encoder: transpose(&file.read("W_enc", &[d, k])?, d, k),
        encoder_bias: file.read(bias, &[k])?,
        decoder: file.read("W_dec", &[k, d])?,
        decoder_bias: file.read("b_dec", &[d])?,
        centred: config["apply_b_dec_to_input"].as_bool().unwrap_or(true),
        gate,
        normalise,
    };
    let model = config_value("model_name").as_str().map(str::to_owned);
    Ok(Published {
        sae,
        format: "SAELens",
        model,
        hook,
        notes,
    })
}

fn unscaled(notes: &mut Vec<String>) -> Normalise {
    let note = "the SAE was trained on rows of average norm √d and its scale is not in the files: rows are read as they are, \
                as SAELens does, and its figures will be poor unless the scale was folded into its weights";
    notes.push(note.to_owned());
    Normalise::None
}

fn gate(config: &Value, path: &Path, file: &mut Archive, latents: usize) -> Result<Gate> {
    // Before version 6 top-k was an activation function of the standard architecture.
    let function = config["activation_fn_str"]
        .as_str()
        .or(config["activation_fn"].as_str())
        .unwrap_or("relu");
    let topk = |k: usize| Gate::TopK {
        k,
        by_norm: config["rescale_acts_by_decoder_norm"] == true,
    };
    match (
        config["architecture"].as_str().unwrap_or("standard"),
        function,
    ) {
        (_, "topk") if config.get("k").is_none() => {
            Ok(topk(count(&config["activation_fn_kwargs"], "k", path)?))
        }
        ("topk", _) => Ok(topk(count(config, "k", path)?)),
        (_, other) if other != "relu" => Err(Error::file(
            path,
            format!("has activation function '{other}'; relu and topk can be read"),
        )),
        ("standard", _) => Ok(Gate::Relu),
        // Batch-top-k autoencoders are saved as JumpReLU ones with the threshold that they have
        // learnt.
        ("jumprelu" | "batchtopk", _) => Ok(Gate::JumpRelu {
            threshold: file.read("threshold", &[latents])?,
        }),
        ("gated", _) => Ok(Gate::Gated {
            bias: file.read("b_gate", &[latents])?,
            log_scale: file.read("r_mag", &[latents])?,
        }),
        (other, _) => Err(Error::file(
            path,
            format!(
                "has the architecture '{}'; standard, jumprelu, batchtopk, topk and gated can be read",
                other.escape_debug()
            ),
        )),
    }
}

/// Writes an autoencoder as a SAELens 6 directory, weights first: a directory with a configuration
/// is complete. `metadata` goes into the configuration beside the model's and the hook's names.
///
/// # Errors
/// A file that cannot be written.
pub fn write(
    dir: &Path,
    sae: &Sae,
    model: Option<&str>,
    hook: &str,
    metadata: Value,
) -> Result<()> {
    let (d, k) = (sae.width, sae.latents());
    let named =
        |name: &str, shape: Vec<usize>, data: &[f32]| (name.to_owned(), shape, data.to_vec());
    let mut arrays = vec![
        (
            "W_enc".to_owned(),
            vec![d, k],
            transpose(&sae.encoder, k, d),
        ),
        named("W_dec", vec![k, d], &sae.decoder),
        named("b_dec", vec![d], &sae.decoder_bias),
    ];
    let bias = if matches!(sae.gate, Gate::Gated { .. }) {
        "b_mag"
    } else {
        "b_enc"
    };
    arrays.push(named(bias, vec![k], &sae.encoder_bias));
    let normalise = match sae.normalise {
        Normalise::None => "none",
        Normalise::ConstantNorm => "constant_norm_rescale",
        Normalise::LayerNorm => "layer_norm",
    };
    let mut config = json!({"d_in": d, "d_sae": k, "dtype": "float32", "device": "cpu", "architecture": sae.gate.name(),
        "apply_b_dec_to_input": sae.centred, "normalize_activations": normalise, "reshape_activations": "none"});
    match &sae.gate {
        Gate::Relu => {}
        Gate::JumpRelu { threshold } => arrays.push(named("threshold", vec![k], threshold)),
        Gate::TopK { k, by_norm } => {
            config["k"] = json!(k);
            config["rescale_acts_by_decoder_norm"] = json!(by_norm);
        }
        Gate::Gated { bias, log_scale } => {
            arrays.push(named("b_gate", vec![k], bias));
            arrays.push(named("r_mag", vec![k], log_scale));
        }
    }
    let mut about = json!({"model_name": model, "hook_name": hook, "sae_lens_version": "6.0.0"});
    if let (Some(about), Value::Object(more)) = (about.as_object_mut(), metadata) {
        about.extend(more);
    }
    config["metadata"] = about;
    tensors::write_named(&dir.join(WEIGHTS), &arrays)?;
    disk::write_atomic(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}
