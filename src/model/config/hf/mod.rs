//! Switches from Hugging Face's `config.json`, of both generations (`rope_theta` and
//! `rope_scaling`; `rope_parameters` and `layer_types`).
//!
//! A file means what `transformers` 5 makes of it. A key that its class reads is read
//! here with the same default, or refused by name where this decoder has but one way; a key that
//! its class ignores is ignored. `tests/fixtures/make_config_defaults.py` asks `transformers` for
//! all of these values.

pub(super) mod base;
pub(super) mod rope;

use std::path::Path;

use serde_json::{Map, Value};

use super::{Activation, Config, families};
use crate::error::{Error, Result};
use crate::lfs;

/// A key with the value of it that this decoder computes.
type FixedSwitch = (&'static str, Neutral);

/// Keys that the code of every family in `transformers` reads and that this decoder computes in
/// one way only. A family's file adds those that its own code reads. Every other key that no
/// reader asks for is one that the class of that `model_type` does not read either: it changes no
/// number and is let through.
pub(super) const FIXED: &[FixedSwitch] = &[
    ("is_causal", Neutral::True),
    ("is_encoder_decoder", Neutral::False),
    ("per_layer_config", Neutral::Empty),
    ("pruned_heads", Neutral::Empty),
];

/// The value of a key that this decoder computes; `null` always counts as it.
#[derive(Clone, Copy)]
pub(super) enum Neutral {
    False,
    True,
    Empty,
}

impl Neutral {
    /// Whether `value` is this one.
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
pub(super) struct Reader<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) path: &'a Path,
}

impl<'a> Reader<'a> {
    /// The value of a key; `None` where it is absent or `null`.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether a key has the value `null`, which for a few keys means something else than absence.
    fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    /// The error for a key whose value this decoder does not know.
    pub(super) fn unknown(&self, key: &str, value: &Value) -> Error {
        let shown: String = value.to_string().chars().take(60).collect();
        self.error(format!(
            "{key} = {shown} is a switch that mlpeek does not know"
        ))
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let count = value.as_u64().and_then(|v| usize::try_from(v).ok());
        count
            .map(Some)
            .ok_or_else(|| self.error(format!("{key} is {value}, not a count")))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_f64()
            .map(Some)
            .ok_or_else(|| self.error(format!("{key} is {value}, not a number")))
    }

    /// A count that `null` turns off; `default` applies where the key is absent.
    pub(super) fn count_or_none(&self, key: &str, default: usize) -> Result<Option<usize>> {
        if self.is_null(key) {
            Ok(None)
        } else {
            Ok(Some(self.count(key)?.unwrap_or(default)))
        }
    }

    /// A number that `null` turns off; `default` applies where the key is absent.
    pub(super) fn number_or_none(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        if self.is_null(key) {
            Ok(None)
        } else {
            Ok(self.number(key)?.or(default))
        }
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.error(format!("{key} is {value}, not true or false")))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.error(format!("{key} is {value}, not a text")))
    }

    pub(super) fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text(key)?.unwrap_or(default);
        Activation::by_name(name).map_err(|e| self.error(format!("{key}: {e}")))
    }

    /// Refuses a key of `switches` with a value that this decoder does not compute.
    pub(super) fn refuse_switches(&self, switches: &[FixedSwitch]) -> Result<()> {
        for (key, neutral) in switches {
            if let Some(value) = self.get(key).filter(|value| !neutral.is(value)) {
                return Err(self.unknown(key, value));
            }
        }
        Ok(())
    }

    /// Which layers have sliding attention, from `layer_types`; `None` where that is absent.
    pub(super) fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else {
            return Ok(None);
        };
        let Some(list) = value.as_array().filter(|l| l.len() == layers) else {
            return Err(self.error(format!("layer_types must list {layers} layers")));
        };
        list.iter()
            .map(|v| match v.as_str() {
                Some("full_attention" | "attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => Err(self.error(format!(
                    "layer_types: {v} is a kind of layer that mlpeek does not know"
                ))),
            })
            .collect::<Result<_>>()
            .map(Some)
    }
}

impl Config {
    /// The switches of a `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read or is not JSON, a `model_type` that is not supported, a value of the
    /// wrong kind, and a switch that this decoder does not know, each by its key.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        lfs::refuse_pointer(text.as_bytes(), path)?;
        Self::from_hf_text(&text, path)
    }

    /// The switches of the text of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Config::from_hf`].
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
        let reader = Reader { map, path };
        if reader.get("quantization_config").is_some() {
            let problem = "quantization_config: use an unquantised checkpoint or a GGUF file";
            return Err(reader.error(problem));
        }
        reader.refuse_switches(FIXED)?;
        if kind.is_empty() {
            return Err(reader.error("model_type is missing: not a model's config.json"));
        }
        let family = families::from_hf(kind).map_err(|supported| {
            reader.error(format!(
                "model_type '{kind}' is not supported (supported: {supported})"
            ))
        })?;
        let config = family(&reader, kind)?;
        config.check().map_err(|e| Error::file(path, e))
    }
}
