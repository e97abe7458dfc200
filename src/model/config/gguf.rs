//! Switches from GGUF metadata.
//!
//! Owns how a key is read and what all architectures share; a family's file changes the rest. The
//! keys are those of llama.cpp (`gguf-py/gguf/constants.py`).

use std::collections::HashMap;
use std::path::Path;

use super::names::GGUF;
use super::{Config, Rope, RopeScaling, Sizes, families};
use crate::error::{Error, Result};
use crate::model::gguf::Value;
use crate::model::weights::Weights;

/// The metadata of one file; keys are given without the architecture that they begin with.
pub(super) struct Reader<'a> {
    meta: &'a HashMap<String, Value>,
    /// The value of `general.architecture`.
    pub(super) architecture: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.meta.get(&format!("{}.{key}", self.architecture))
    }

    fn required_count(&self, key: &str) -> Result<usize> {
        self.count(key)?
            .ok_or_else(|| self.error(format!("metadata {}.{key} is missing", self.architecture)))
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.uniform(key)? else {
            return Ok(None);
        };
        let count = value.as_usize();
        count.map(Some).ok_or_else(|| {
            self.error(format!(
                "metadata {}.{key} is {value:?}, not a count",
                self.architecture
            ))
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.uniform(key)? else {
            return Ok(None);
        };
        let number = value.as_f64();
        number.map(Some).ok_or_else(|| {
            self.error(format!(
                "metadata {}.{key} is {value:?}, not a number",
                self.architecture
            ))
        })
    }

    /// The value of a key that has one for all layers, or a list of equal ones.
    fn uniform(&self, key: &str) -> Result<Option<Value>> {
        let differs = |list: String| {
            let problem = format!(
                "metadata {}.{key} differs between layers ({list}): mlpeek knows one for all",
                self.architecture
            );
            Err(self.error(problem))
        };
        match self.get(key) {
            Some(Value::Ints(list)) => match list.as_slice() {
                [first, rest @ ..] if rest.iter().all(|v| v == first) => {
                    Ok(Some(Value::Int(*first)))
                }
                _ => differs(shown(list)),
            },
            Some(Value::Floats(list)) => match list.as_slice() {
                [first, rest @ ..] if rest.iter().all(|v| v == first) => {
                    Ok(Some(Value::Float(f64::from(*first))))
                }
                _ => differs(shown(list)),
            },
            other => Ok(other.cloned()),
        }
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    /// The sliding window in tokens; `None` where the file names none, or 0.
    pub(super) fn window(&self) -> Result<Option<usize>> {
        Ok(self.count("attention.sliding_window")?.filter(|w| *w != 0))
    }

    /// Refuses a sliding window, for an architecture whose code in llama.cpp has none.
    pub(super) fn refuse_window(&self) -> Result<()> {
        match self.window()? {
            Some(_) => Err(self.error(format!(
                "{}.attention.sliding_window is a switch that mlpeek does not know",
                self.architecture
            ))),
            None => Ok(()),
        }
    }

    /// Refuses keys that change the computation in ways that this decoder does not have.
    fn refuse_unknown(&self) -> Result<()> {
        const KNOWN: &[&str] = &[
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_epsilon",
            "attention.layer_norm_rms_epsilon",
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "attention.causal",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.freq_base_swa",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.original_context_length",
            "rope.scaling.finetuned",
            "vocab_size",
            "tensor_data_layout",
        ];
        /// Factors: 1 changes nothing.
        const FACTORS: &[&str] = &[
            "rope.scaling.attn_factor",
            "rope.scale_linear",
            "logit_scale",
            "residual_scale",
            "embedding_scale",
        ];
        let prefix = format!("{}.", self.architecture);
        for (key, value) in self.meta {
            let Some(key) = key.strip_prefix(&prefix) else {
                continue;
            };
            let neutral = if FACTORS.contains(&key) { 1.0 } else { 0.0 };
            if value.as_f64() != Some(neutral) && !KNOWN.contains(&key) {
                let value = match value {
                    Value::Int(v) => format!(" = {v}"),
                    Value::Float(v) => format!(" = {v}"),
                    _ => String::new(),
                };
                return Err(self.error(format!(
                    "metadata {prefix}{key}{value} is a switch that mlpeek does not know"
                )));
            }
        }
        if self.count("attention.causal")? == Some(0) {
            return Err(self.error("attention.causal is false: only causal models can be read"));
        }
        Ok(())
    }

    fn rope(&self, weights: &Weights, dims: usize) -> Result<Rope> {
        let mut rope = Rope::new(self.number("rope.freq_base")?.unwrap_or(10_000.0));
        let factor = self.number("rope.scaling.factor")?.unwrap_or(1.0);
        let kind = self.get("rope.scaling.type");
        if kind.is_some_and(|kind| kind.as_str().is_none()) {
            return Err(self.error(format!(
                "metadata {}.rope.scaling.type is no text",
                self.architecture
            )));
        }
        match kind.and_then(Value::as_str) {
            None | Some("none") => {}
            Some("linear") if factor > 0.0 => rope.scaling = RopeScaling::Linear(factor),
            Some("yarn") if factor > 0.0 && self.architecture != "gemma3" => {
                let context = self.number("context_length")?;
                let original = self
                    .number("rope.scaling.original_context_length")?
                    .filter(|n| *n > 0.0);
                rope.scaling = RopeScaling::yarn(factor, original.or(context).unwrap_or(1.0));
            }
            Some(other) => {
                let problem = format!(
                    "metadata {}.rope.scaling.type = {other} (by {factor}) is a switch that mlpeek does not know",
                    self.architecture
                );
                return Err(self.error(problem));
            }
        }
        if let Some(factors) = weights.get("rope_freqs.weight") {
            let factors = factors.to_f32();
            if factors.len() != dims / 2 || factors.iter().any(|f| !f.is_finite() || *f == 0.0) {
                return Err(self.error(format!(
                    "rope_freqs.weight must hold {} finite divisors",
                    dims / 2
                )));
            }
            rope.scaling = RopeScaling::Factors(factors);
        }
        Ok(rope)
    }
}

/// The first values of a list, for an error.
fn shown<T: std::fmt::Display>(list: &[T]) -> String {
    let first: Vec<String> = list.iter().take(6).map(ToString::to_string).collect();
    first.join(", ") + if list.len() > 6 { ", …" } else { "" }
}

impl Config {
    /// The switches of an open GGUF file.
    ///
    /// # Errors
    /// An architecture that is not supported, metadata that is missing or of the wrong kind, and a
    /// switch that this decoder does not know, each by its key.
    pub fn from_gguf(weights: &Weights) -> Result<Self> {
        let path = weights.path();
        let Some(architecture) = weights
            .meta()
            .get("general.architecture")
            .and_then(Value::as_str)
        else {
            return Err(Error::file(
                path,
                "metadata general.architecture is missing: not a language model",
            ));
        };
        let family = families::from_gguf(architecture).map_err(|supported| {
            let problem =
                format!("architecture '{architecture}' is not supported (supported: {supported})");
            Error::file(path, problem)
        })?;
        let r = Reader {
            meta: weights.meta(),
            architecture,
            path,
        };
        r.refuse_unknown()?;
        let mut config = base(&r, weights)?;
        family(&r, &mut config)?;
        config.check().map_err(|e| Error::file(path, e))
    }
}

/// What every architecture shares, with Llama's switches.
fn base(r: &Reader<'_>, weights: &Weights) -> Result<Config> {
    let (layers, d_model, heads) = (
        r.required_count("block_count")?,
        r.required_count("embedding_length")?,
        r.required_count("attention.head_count")?,
    );
    if layers == 0 || layers > 4096 || heads == 0 {
        return Err(r.error(format!("{layers} layers of {heads} heads cannot be")));
    }
    let head_dim = r.count("attention.key_length")?.unwrap_or(d_model / heads);
    if r.count("attention.value_length")?
        .is_some_and(|v| v != head_dim)
    {
        return Err(
            r.error("attention.value_length differs from key_length, which mlpeek does not know")
        );
    }
    let vocab = weights
        .get("token_embd.weight")
        .map(|t| t.shape().first().copied().unwrap_or(0))
        .unwrap_or(0);
    let rotary_dims = r.count("rope.dimension_count")?.unwrap_or(head_dim);
    let sizes = Sizes {
        layers,
        d_model,
        d_mlp: r.required_count("feed_forward_length")?,
        heads,
        kv_heads: r.count("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab,
        context: r.required_count("context_length")?,
    };
    let mut c = Config::llama(r.architecture, sizes, &GGUF);
    c.norm.eps = r
        .number("attention.layer_norm_rms_epsilon")?
        .unwrap_or(1e-5);
    // The file keeps no switch for biases: they are there or not.
    let has = |name: &str| weights.get(&format!("blk.0.{name}.bias")).is_some();
    c.qkv_bias = has("attn_q") || has("attn_qkv");
    c.out_bias = has("attn_output");
    c.mlp_bias = has("ffn_up");
    c.ropes = vec![r.rope(weights, rotary_dims)?];
    c.rotary_dims = rotary_dims;
    c.attention_softcap = r.number("attn_logit_softcapping")?.filter(|c| *c != 0.0);
    c.final_softcap = r.number("final_logit_softcapping")?.filter(|c| *c != 0.0);
    c.tied = weights.get("output.weight").is_none();
    Ok(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::testing::GgufWriter;

    fn llama() -> GgufWriter {
        GgufWriter::new()
            .string("general.architecture", "llama")
            .uint("llama.block_count", 3)
            .uint("llama.context_length", 128)
            .uint("llama.embedding_length", 32)
            .uint("llama.feed_forward_length", 48)
            .uint("llama.attention.head_count", 2)
            .floats("llama.rope.freq_base", &[500.0; 3])
            .tensor("token_embd.weight", &[32, 2], 0, &[0; 256])
    }

    fn read(writer: GgufWriter) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, writer.bytes()).unwrap();
        Config::from_gguf(&Weights::open_gguf(&path)?)
    }

    #[test]
    fn a_list_of_one_value_for_all_layers_is_that_value_and_others_are_named() {
        let c = read(llama().ints("llama.attention.head_count_kv", &[1, 1, 1])).unwrap();
        assert_eq!((c.kv_heads, c.ropes[0].base), (1, 500.0));
        let says = read(llama().ints("llama.attention.head_count_kv", &[1, 2, 1]))
            .unwrap_err()
            .to_string();
        assert!(
            says.contains("llama.attention.head_count_kv differs between layers (1, 2, 1)"),
            "{says}"
        );
        let says = read(llama().string("llama.block_count", "3"))
            .unwrap_err()
            .to_string();
        assert!(
            says.contains("llama.block_count") && says.contains("not a count"),
            "{says}"
        );
    }

    #[test]
    fn factors_of_one_change_nothing_and_others_are_named() {
        let factor = |key: &str, value: f32| {
            llama().raw(key, [6u32.to_le_bytes(), value.to_le_bytes()].concat())
        };
        let plain = read(llama()).unwrap();
        for key in [
            "llama.rope.scaling.attn_factor",
            "llama.rope.scale_linear",
            "llama.logit_scale",
        ] {
            assert_eq!(read(factor(key, 1.0)).unwrap(), plain);
            let says = read(factor(key, 1.5)).unwrap_err().to_string();
            assert!(says.contains(key) && says.contains("1.5"), "{says}");
        }
        let longrope =
            factor("llama.rope.scaling.factor", 4.0).string("llama.rope.scaling.type", "longrope");
        let says = read(longrope).unwrap_err().to_string();
        assert!(
            says.contains("llama.rope.scaling.type = longrope (by 4)"),
            "{says}"
        );
    }

    #[test]
    fn yarn_is_that_of_a_config_json() {
        let yarn = llama()
            .raw(
                "llama.rope.scaling.factor",
                [6u32.to_le_bytes(), 4f32.to_le_bytes()].concat(),
            )
            .string("llama.rope.scaling.type", "yarn")
            .uint("llama.rope.scaling.original_context_length", 32);
        let json = r#"{"model_type": "llama", "rope_theta": 500.0,
            "rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 32}}"#;
        let hf = Config::from_hf_text(json, Path::new("config.json")).unwrap();
        assert_eq!(read(yarn).unwrap().ropes, hf.ropes);
    }
}
