//! What a study's record of its model says of the model's architecture, without opening the model.
//!
//! The record holds the switches of the configuration by name ([`super::Config::switches`]). Studies
//! of versions before it did hold the family's name alone, and those versions knew the families
//! that are listed here.

use crate::model::ModelInfo;

impl ModelInfo {
    /// Whether a norm lies between the MLP's down projection and the residual stream
    /// ([`super::Config::norms_mlp_output`]).
    pub fn norms_mlp_output(&self) -> bool {
        match &self.identity {
            Some(identity) => identity.configuration.contains_key("post_norms"),
            None => ["gemma2", "gemma3"].contains(&self.family.as_str()),
        }
    }

    /// Whether the norms are LayerNorms, which subtract the mean, and not RMS norms.
    pub fn has_layer_norm(&self) -> bool {
        match &self.identity {
            Some(identity) => identity
                .configuration
                .get("norm.kind")
                .is_some_and(|kind| kind == "Layer"),
            None => ["gpt2", "gpt_neox"].contains(&self.family.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::model::ModelIdentity;
    use crate::model::config::{Config, NormKind};

    fn fixtures() -> Vec<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().path().join("config.json"))
            .collect()
    }

    fn record(config: &Config, identity: Option<ModelIdentity>) -> ModelInfo {
        let info = serde_json::json!({
            "id": "", "origin": "", "family": config.family, "layers": 1, "d_model": 1, "d_mlp": 1,
            "vocab": 1, "context": 1, "device": "cpu", "weights_dtype": "f32",
            "compute_dtype": "f32", "weight_bytes": 0, "weights_sha256": "",
            "tokenizer_sha256": "", "identity": identity, "notes": [],
        });
        serde_json::from_value(info).unwrap()
    }

    #[test]
    fn a_record_says_what_the_configuration_says() {
        for path in fixtures() {
            let config = Config::from_hf(&path).unwrap();
            let identity = ModelIdentity {
                configuration: config.switches(),
                ..ModelIdentity::default()
            };
            // The same with the switches recorded, under any name; and of an older version.
            let mut renamed = record(&config, Some(identity));
            renamed.family = "a family of tomorrow".into();
            for info in [renamed, record(&config, None)] {
                assert_eq!(
                    (info.norms_mlp_output(), info.has_layer_norm()),
                    (
                        config.norms_mlp_output(),
                        config.norm.kind == NormKind::Layer
                    ),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
