//! What the `config.json` of most families has in common: its sizes and its sliding windows.
//!
//! Knows no family but Llama, whose switches the others start from.

use super::Reader;
use crate::error::Result;
use crate::model::config::{Config, Sizes, TensorNames};

/// The values that a family's class in `transformers` has for keys that a `config.json` leaves out.
pub(in crate::model::config) struct Defaults {
    pub layers: usize,
    pub d_model: usize,
    pub d_mlp: usize,
    pub heads: usize,
    /// Key and value heads; `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// Width of a head; `None`: `d_model / heads`.
    pub head_dim: Option<usize>,
    pub vocab: usize,
    pub context: usize,
    /// The key that names the MLP's activation function, and the name that it has by default.
    pub activation: (&'static str, &'static str),
    pub rope_base: f64,
    pub tied: bool,
}

/// The defaults of `LlamaConfig`.
pub(in crate::model::config) const LLAMA: Defaults = Defaults {
    layers: 32,
    d_model: 4096,
    d_mlp: 11_008,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    vocab: 32_000,
    context: 2048,
    activation: ("hidden_act", "silu"),
    rope_base: 10_000.0,
    tied: false,
};
/// The switches of a Llama with the sizes of a `config.json`, for its family to change. It has no
/// sliding windows, and its list of rotary embeddings is still empty.
///
/// # Errors
/// A key that is missing or of the wrong kind.
pub(in crate::model::config) fn base(
    r: &Reader<'_>,
    family: &str,
    names: &'static TensorNames,
    defaults: &Defaults,
) -> Result<Config> {
    let count = |key: &str, default: usize| r.count(key).map(|found| found.unwrap_or(default));
    let layers = count("num_hidden_layers", defaults.layers)?;
    let (d_model, heads) = (
        count("hidden_size", defaults.d_model)?,
        count("num_attention_heads", defaults.heads)?,
    );
    check_counts(r, layers, heads)?;
    let head_dim = r
        .count("head_dim")?
        .or(defaults.head_dim)
        .unwrap_or(d_model / heads);
    // An absent key means the family's default; null always means one for each query head.
    let kv_heads = match defaults.kv_heads {
        Some(default) => r.count_or_none("num_key_value_heads", default)?,
        None => r.count("num_key_value_heads")?,
    };
    let sizes = Sizes {
        layers,
        d_model,
        d_mlp: count("intermediate_size", defaults.d_mlp)?,
        heads,
        kv_heads: kv_heads.unwrap_or(heads),
        head_dim,
        vocab: count("vocab_size", defaults.vocab)?,
        context: count("max_position_embeddings", defaults.context)?,
    };
    let (key, default) = defaults.activation;
    let mut c = Config::llama(family, sizes, names);
    c.norm.eps = r.number("rms_norm_eps")?.unwrap_or(1e-6);
    c.activation = r.activation(key, default)?;
    c.tied = r.flag("tie_word_embeddings", defaults.tied)?;
    Ok(c)
}

/// Refuses counts that no model has, before they are divided by.
///
/// # Errors
/// No layers, no heads, or more than 4096 layers.
pub(in crate::model::config) fn check_counts(
    r: &Reader<'_>,
    layers: usize,
    heads: usize,
) -> Result<()> {
    if layers == 0 || layers > 4096 || heads == 0 {
        return Err(r.error(format!("{layers} layers of {heads} heads cannot be")));
    }
    Ok(())
}

/// Gives `window` to the layers that `sliding` marks, and none to the others.
///
/// # Errors
/// A layer is marked and there is no window.
pub(in crate::model::config) fn set_windows(
    r: &Reader<'_>,
    c: &mut Config,
    window: Option<usize>,
    sliding: &[bool],
) -> Result<()> {
    if window.is_none() && sliding.contains(&true) {
        let problem = "layer_types names sliding_attention, and no sliding window is in force (sliding_window, \
                       use_sliding_window)";
        return Err(r.error(problem));
    }
    for (layer, &sliding) in c.layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    Ok(())
}

/// Refuses `layer_types` that slide, for a family whose code has full attention alone.
///
/// # Errors
/// `layer_types` names `sliding_attention`.
pub(in crate::model::config) fn refuse_sliding(r: &Reader<'_>, c: &Config) -> Result<()> {
    match r.layer_types(c.layers.len())? {
        Some(types) if types.contains(&true) => Err(r.error(format!(
            "layer_types names sliding_attention, which the family {} does not have",
            c.family
        ))),
        _ => Ok(()),
    }
}
