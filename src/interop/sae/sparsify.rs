//! EleutherAI's sparsify: `cfg.json` with `sae.safetensors` (`encoder.weight` [latents, d],
//! `encoder.bias`, `W_dec` [latents, d], `b_dec`), top-k of max((x − b_dec) W_encᵀ + b_enc, 0).
//!
//! Format: <https://github.com/EleutherAI/sparsify>, `sparse_coder.py`. The folder's name is the
//! hook point: `layers.5` is the residual stream after block 5, `layers.5.mlp` the MLP's output.
//! SAELens 6 reads `W_dec` transposed and leaves b_dec in the input where `normalize_decoder` is
//! set; here the project's own code holds.

use std::path::Path;

use super::{Archive, Gate, Normalise, Published, Sae, count, layer_in, read_json, short};
use crate::error::{Error, Result};

pub(super) fn read(dir: &Path, name: &str) -> Result<Published> {
    let path = dir.join("cfg.json");
    let config = read_json(&path)?;
    for (key, why) in [
        ("transcode", "is a transcoder, not an autoencoder"),
        (
            "skip_connection",
            "has a skip connection: a transcoder, not an autoencoder",
        ),
        (
            "signed",
            "has signed latents, which cannot be read: latents must not be negative",
        ),
    ] {
        if config[key] == true {
            return Err(Error::file(path, why));
        }
    }
    let activation = &config["activation"];
    if activation.as_str().is_some_and(|a| a != "topk") {
        return Err(Error::file(
            &path,
            format!("has activation {}; topk can be read", short(activation)),
        ));
    }
    let (d, gate) = (
        count(&config, "d_in", &path)?,
        Gate::TopK {
            k: count(&config, "k", &path)?,
            by_norm: false,
        },
    );
    let mut file = Archive::open(&dir.join("sae.safetensors"))?;
    let latents = match config["num_latents"].as_u64() {
        Some(n) if n > 0 => usize::try_from(n).ok(),
        _ => count(&config, "expansion_factor", &path)?.checked_mul(d),
    };
    let latents = latents.ok_or_else(|| Error::file(&path, "has more latents than can be"))?;
    let shape = [latents, d];
    let sae = Sae {
        width: d,
        encoder: file.read("encoder.weight", &shape)?,
        encoder_bias: file.read("encoder.bias", &[latents])?,
        decoder: file.read("W_dec", &shape)?,
        decoder_bias: file.read("b_dec", &[d])?,
        centred: true,
        gate,
        normalise: Normalise::None,
    };
    let folder = name
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let site = if folder.ends_with(".mlp") {
        "hook_mlp_out"
    } else {
        "hook_resid_post"
    };
    let layer = layer_in(folder, &["layers.", "layers_", "h."]);
    let beside = dir
        .parent()
        .map(|p| p.join("config.json"))
        .filter(|p| p.is_file());
    let model = beside
        .and_then(|p| read_json(&p).ok())
        .and_then(|c| c["model"].as_str().map(str::to_owned));
    Ok(Published {
        sae,
        format: "sparsify",
        model,
        hook: layer.map(|l| format!("blocks.{l}.{site}")),
        notes: Vec::new(),
    })
}
