//! OpenAI's GPT-2 autoencoders: `pre_bias`, `encoder.weight` [latents, d], `latent_bias`,
//! `decoder.weight` [d, latents]; latents = act((x − pre_bias) W_encᵀ + latent_bias), with rows
//! layer-normalised where `act` is TopK.
//!
//! Format: <https://github.com/openai/sparse_autoencoder>, `model.py`; published as files of
//! `torch.save`, whose `activation_state_dict` has the k of TopK. As safetensors `activation` and `k`
//! are metadata.

use super::{Archive, Gate, Normalise, Published, Sae, shape, transpose};
use crate::error::{Error, Result};

pub(super) fn read(mut file: Archive, name: &str) -> Result<Published> {
    let path = file.path().to_path_buf();
    let path = path.as_path();
    let (k, d) = shape(&mut file, "encoder.weight")?;
    let activation = file.metadata("activation").unwrap_or("ReLU").to_owned();
    let active = ["k", "activation_state_dict.k"]
        .into_iter()
        .find_map(|key| file.metadata(key))
        .unwrap_or_default()
        .to_owned();
    let (gate, normalise) = match activation.as_str() {
        "ReLU" => (Gate::Relu, Normalise::None),
        "TopK" => {
            let k = active.parse().ok().filter(|&k: &usize| k > 0);
            let k = k.ok_or_else(|| {
                Error::file(path, "says activation TopK and no k in its metadata")
            })?;
            (Gate::TopK { k, by_norm: false }, Normalise::LayerNorm)
        }
        other => {
            return Err(Error::file(
                path,
                format!("has activation '{other}'; ReLU and TopK can be read"),
            ));
        }
    };
    let sae = Sae {
        width: d,
        encoder: file.read("encoder.weight", &[k, d])?,
        encoder_bias: file.read("latent_bias", &[k])?,
        decoder: transpose(&file.read("decoder.weight", &[d, k])?, d, k),
        decoder_bias: file.read("pre_bias", &[d])?,
        centred: true,
        gate,
        normalise,
    };
    let mut notes = Vec::new();
    if file.metadata("activation").is_none() {
        notes.push("the file does not say its activation: read as ReLU".to_owned());
    }
    Ok(Published {
        sae,
        format: "OpenAI",
        model: Some("gpt2".to_owned()),
        hook: hook(name),
        notes,
    })
}

/// The hook that a path such as `…/gpt2-small/mlp_post_act/autoencoders/8.safetensors` names.
fn hook(name: &str) -> Option<String> {
    let layer: usize = name.rsplit('/').next()?.split('.').next()?.parse().ok()?;
    let part = |wanted: &str| name.split('/').any(|p| p.starts_with(wanted));
    let site = match () {
        () if part("mlp_post_act") => "mlp.hook_post",
        () if part("resid_delta_mlp") => "hook_mlp_out",
        () if part("resid_post_mlp") => "hook_resid_post",
        () => return None,
    };
    Some(format!("blocks.{layer}.{site}"))
}
