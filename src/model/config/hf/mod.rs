//! Switches from Hugging Face's `config.json`, of both generations (`rope_theta` and
//! `rope_scaling`; `rope_parameters` and `layer_types`).
//!
//! The rule: a file means what `transformers` 5 makes of it. A key that its class reads is read
//! here with the same default, or refused by name where this decoder has but one way; a key that
//! its class ignores is ignored. `tests/fixtures/make_config_defaults.py` asks `transformers` for
//! all of these values.

mod families;
mod rope;

use std::path::Path;

use serde_json::{Map, Value};

use super::{Activation, Config};
use crate::error::{Error, Result};
use crate::lfs;

const SUPPORTED: &str =
    "llama, mistral, qwen2, qwen3, smollm3, gemma, gemma2, gemma3, gemma3_text, gpt2, gpt_neox";

/// Keys that the modelling code of `transformers` reads and this decoder computes in one way only:
/// the value that means this way, and the families whose code reads them (none: all). Every other
/// key that no family's reader asks for is one that the class of that `model_type` does not read
/// either: it changes no number and is let through.
const ONE_WAY: &[(&str, Neutral, &[&str])] = &[
    ("add_cross_attention", Neutral::False, &["gpt2"]),
    ("is_causal", Neutral::True, &[]),
    ("is_encoder_decoder", Neutral::False, &[]),
    ("per_layer_config", Neutral::Empty, &[]),
    ("pruned_heads", Neutral::Empty, &[]),
    ("scale_attn_by_inverse_layer_idx", Neutral::False, &["gpt2"]),
    ("scale_attn_weights", Neutral::True, &["gpt2"]),
    (
        "use_bidirectional_attention",
        Neutral::False,
        &["gemma", "gemma2", "gemma3_text"],
    ),
];

/// The value of a key that changes nothing; `null` always does so.
#[derive(Clone, Copy)]
enum Neutral {
    False,
    True,
    Empty,
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::False, Value::Bool(false))
            | (Self::True, Value::Bool(true)) => true,
            (Self::Empty, Value::Object(map)) => map.is_empty(),
            (Self::Empty, Value::Array(list)) => list.is_empty(),
            _ => false,
        }
    }
}

/// One `config.json` (or its `text_config`).
struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    /// A value; `null` is none.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether a key stands there with the value `null`, which a few keys tell from being absent.
    fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    /// Refuses a switch by name.
    fn unknown(&self, key: &str, value: &Value) -> Error {
        let shown: String = value.to_string().chars().take(60).collect();
        self.wrong(format!(
            "{key} = {shown} is a switch that mlpeek does not know"
        ))
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let count = value.as_u64().and_then(|v| usize::try_from(v).ok());
        count
            .map(Some)
            .ok_or_else(|| self.wrong(format!("{key} is {value}, not a count")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_f64()
            .map(Some)
            .ok_or_else(|| self.wrong(format!("{key} is {value}, not a number")))
    }

    /// A count of which `null` means that there is none, and absence the family's default.
    fn count_or_none(&self, key: &str, default: usize) -> Result<Option<usize>> {
        if self.is_null(key) {
            Ok(None)
        } else {
            Ok(Some(self.count(key)?.unwrap_or(default)))
        }
    }

    /// A number of which `null` means that there is none, and absence the family's default.
    fn number_or_none(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        if self.is_null(key) {
            Ok(None)
        } else {
            Ok(self.number(key)?.or(default))
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.wrong(format!("{key} is {value}, not true or false")))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.wrong(format!("{key} is {value}, not a text")))
    }

    fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        Activation::by_name(name).map_err(|e| self.wrong(format!("{key}: {e}")))
    }

    fn refuse_other_ways(&self, kind: &str) -> Result<()> {
        if self.get("quantization_config").is_some() {
            return Err(
                self.wrong("quantization_config: use an unquantised checkpoint or a GGUF file")
            );
        }
        for (key, neutral, families) in ONE_WAY {
            let read = families.is_empty() || families.contains(&kind);
            if let Some(value) = self.get(key).filter(|value| read && !neutral.is(value)) {
                return Err(self.unknown(key, value));
            }
        }
        Ok(())
    }

    /// Which layers slide, where `layer_types` says so.
    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else {
            return Ok(None);
        };
        let Some(list) = value.as_array().filter(|l| l.len() == layers) else {
            return Err(self.wrong(format!("layer_types must list {layers} layers")));
        };
        list.iter()
            .map(|v| match v.as_str() {
                Some("full_attention" | "attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => Err(self.wrong(format!(
                    "layer_types: {v} is a kind of layer that mlpeek does not know"
                ))),
            })
            .collect::<Result<_>>()
            .map(Some)
    }
}

impl Config {
    /// The switches of a `config.json`.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        lfs::refuse_pointer(text.as_bytes(), path)?;
        Self::from_hf_text(&text, path)
    }

    /// The switches of the text of a `config.json`; `path` is for errors.
    pub fn from_hf_text(text: &str, path: &Path) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| Error::file(path, format!("not JSON: {e}")))?;
        let Some(map) = value.as_object() else {
            return Err(Error::file(path, "not a JSON object"));
        };
        let kind = map
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let whole = Reader { map, path };
        whole.refuse_other_ways(kind)?;
        let config = match kind {
            "gpt2" => families::gpt2(&whole)?,
            "gpt_neox" => families::neox(&whole)?,
            "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" => families::llama(&whole, kind)?,
            "gemma" | "gemma2" | "gemma3_text" => families::gemma(&whole, kind)?,
            "gemma3" => families::multimodal(&whole)?,
            "" => return Err(whole.wrong("model_type is missing: not a model's config.json")),
            other => {
                return Err(whole.wrong(format!(
                    "model_type '{other}' is not supported (supported: {SUPPORTED})"
                )));
            }
        };
        config.check().map_err(|e| Error::file(path, e))
    }
}
