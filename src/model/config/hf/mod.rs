//! Switches from Hugging Face's `config.json`, of both generations (`rope_theta` and `rope_scaling`; `rope_parameters`
//! and `layer_types`).

mod families;
mod rope;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::Config;
use crate::error::{Error, Result};

const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, smollm3, gemma, gemma2, gemma3, gemma3_text, gpt2, gpt_neox";

/// Keys that say nothing of how a forward pass computes.
const NEUTRAL: &[&str] = &[
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "mm_tokens_per_image",
    "model_type",
    "n_ctx",
    "output_past",
    "pad_token_id",
    // How training split matrices among devices: the sums are the same (SmolLM3 publishes 2).
    "pretraining_tp",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "vocab_size",
];

/// One `config.json` (or its `text_config`), which remembers what was read of it.
struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    read: RefCell<HashSet<&'static str>>,
}

impl<'a> Reader<'a> {
    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key);
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    fn count(&self, key: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|v| usize::try_from(v).ok());
        count.map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a count")))
    }

    fn need(&self, key: &'static str, default: Option<usize>) -> Result<usize> {
        self.count(key)?.or(default).ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a number")))
    }

    /// An explicit null means no soft-cap: only a missing key falls back to the family's default.
    fn softcap(&self, key: &'static str, default: Option<f64>) -> Result<Option<f64>> {
        if self.map.contains_key(key) { self.number(key) } else { Ok(default) }
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(format!("{key} is {value}, not true or false")))
    }

    fn text(&self, key: &'static str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a text")))
    }

    /// A switch that is only known in one position.
    fn only(&self, key: &'static str, neutral: &Value) -> Result<()> {
        match self.get(key) {
            Some(v) if v != neutral => Err(self.wrong(format!("{key} = {v} is a switch that mlpeek does not know"))),
            _ => Ok(()),
        }
    }

    /// Whatever was not read and could matter.
    fn refuse_unknown(&self) -> Result<()> {
        let read = self.read.borrow();
        for (key, value) in self.map {
            let off = value.is_null() || value == &Value::Bool(false);
            let known = read.contains(key.as_str()) || NEUTRAL.contains(&key.as_str()) || key.starts_with('_');
            if !off && !known {
                let shown: String = value.to_string().chars().take(60).collect();
                return Err(self.wrong(format!("{key} = {shown} is a switch that mlpeek does not know")));
            }
        }
        Ok(())
    }

    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let Some(list) = value.as_array().filter(|l| l.len() == layers) else {
            return Err(self.wrong(format!("layer_types must list {layers} layers")));
        };
        list.iter()
            .map(|v| match v.as_str() {
                Some("full_attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => Err(self.wrong(format!("layer_types: {v} is a kind of layer that mlpeek does not know"))),
            })
            .collect::<Result<_>>()
            .map(Some)
    }
}

impl Config {
    /// The switches of a `config.json`.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_hf_text(&text, path)
    }

    /// The switches of the text of a `config.json`; `path` is for errors.
    pub fn from_hf_text(text: &str, path: &Path) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::file(path, format!("not JSON: {e}")))?;
        let Some(mut map) = value.as_object() else {
            return Err(Error::file(path, "not a JSON object"));
        };
        let mut kind = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if map.contains_key("quantization_config") {
            return Err(Error::file(path, "quantization_config: use an unquantised checkpoint or a GGUF file"));
        }
        if kind == "gemma3" {
            // The multimodal wrapper: the text model alone is read.
            let Some(text) = map.get("text_config").and_then(Value::as_object) else {
                return Err(Error::file(path, "model_type is gemma3 and text_config is missing"));
            };
            (map, kind) = (text, "gemma3_text");
        }
        let r = Reader { map, path, read: RefCell::default() };
        let config = match kind {
            "gpt2" => families::gpt2(&r)?,
            "gpt_neox" => families::neox(&r)?,
            "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" => families::llama(&r, kind)?,
            "gemma" | "gemma2" | "gemma3_text" => families::gemma(&r, kind)?,
            "" => return Err(r.wrong("model_type is missing: not a model's config.json")),
            other => {
                return Err(r.wrong(format!("model_type '{other}' is not supported (supported: {SUPPORTED})")));
            }
        };
        for (key, neutral) in
            [("is_encoder_decoder", Value::Bool(false)), ("use_bidirectional_attention", Value::Bool(false))]
        {
            r.only(key, &neutral)?;
        }
        r.refuse_unknown()?;
        config.check().map_err(|e| Error::file(path, e))
    }
}
