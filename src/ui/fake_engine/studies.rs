//! A made-up study and model, and what else is on the machine.

use std::path::PathBuf;
use std::sync::Arc;

use super::{CONCEPTS, FakeEngine};
use crate::activations::store::CacheDtype;
use crate::directions::reconstruction::ReconstructionMetrics;
use crate::engine::{Estimate, StudyInfo};
use crate::factor::FitConfig;
use crate::model::source::ModelEntry;
use crate::model::{HookPoint, HookSite, ModelInfo};
use crate::study::{FitEntry, FitState, SaeEntry, StudyEntry};

impl FakeEngine {
    /// The study that the fake opens.
    pub fn study(&self) -> StudyInfo {
        StudyInfo {
            dir: PathBuf::from("/data/mlpeek/smollm2-concepts-L15"),
            model: Some("HuggingFaceTB/SmolLM2-135M-Instruct".to_owned()),
            hook: Self::hook(),
            hooks: vec![Self::hook()],
            corpus: "concepts".to_owned(),
            samples: 1104,
            rows: 17_204,
            unfinished: None,
            width: 1536,
            labels: CONCEPTS.len(),
            label_names: Arc::new(CONCEPTS.iter().map(|c| c.0.to_owned()).collect()),
            concentrated: Vec::new(),
            fits: vec![FitEntry {
                name: "bcd-k40".to_owned(),
                hook: Self::hook(),
                config: FitConfig {
                    features: self.features,
                    ..FitConfig::default()
                }
                .with_sparsity_at(1536),
                relative_error: Some(0.322),
                weighted_error: None,
                explained_variance: Some(0.651),
                sweeps: 41,
                seconds: 5.2,
                resumable: false,
                state: FitState::Converged,
                reached: 41,
            }],
            saes: vec![SaeEntry {
                name: "topk64".to_owned(),
                hook: Self::hook(),
                source: "trained here".to_owned(),
                format: "mlpeek".to_owned(),
                architecture: "topk".to_owned(),
                latents: 64,
                figures: Some(ReconstructionMetrics {
                    units: 64,
                    rows: 17_204,
                    fvu: Some(0.312),
                    relative_error: Some(0.29),
                    l0: 16.0,
                    dead: 0.03,
                }),
                trained: None,
                resumable: false,
            }],
            session: None,
            read_only: None,
        }
    }

    /// The model that the fake opens.
    pub fn model() -> ModelInfo {
        ModelInfo {
            id: "HuggingFaceTB/SmolLM2-135M-Instruct".to_owned(),
            origin: "cache".to_owned(),
            family: "llama".to_owned(),
            layers: 30,
            d_model: 576,
            d_mlp: 1536,
            vocab: 49_152,
            context: 8192,
            device: "cpu".to_owned(),
            weights_dtype: "Q4_1".to_owned(),
            compute_dtype: "f32".to_owned(),
            weight_bytes: 98_900_000,
            weights_sha256: String::new(),
            tokenizer_sha256: String::new(),
            identity: None,
            notes: Vec::new(),
        }
    }

    /// What a request takes.
    pub fn estimate() -> Estimate {
        Estimate {
            samples: 1104,
            tokens: 17_204,
            cache_bytes: 105_700_000,
            dtype: CacheDtype::F32,
            weight_bytes: 98_900_000,
            factor_bytes: 7_500_000,
            gpu_bytes: None,
            download_bytes: 0,
            disk_free: 41_000_000_000,
            memory_free: 12_300_000_000,
            seconds: Some(24.0),
            refusal: None,
            layers: Some(30),
            width: Some(1536),
        }
    }

    /// Models on the machine.
    pub fn models() -> Vec<ModelEntry> {
        let entry = |id: &str, bytes, summary: &str, problem: Option<&str>| ModelEntry {
            id: id.to_owned(),
            place: "Hub cache".to_owned(),
            bytes,
            summary: summary.to_owned(),
            problem: problem.map(str::to_owned),
            encoder: false,
        };
        vec![
            entry(
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                98_900_000,
                "llama, 30 layers, d_mlp 1536",
                None,
            ),
            entry(
                "google/gemma-2-2b",
                5_230_000_000,
                "gemma2, 26 layers, d_mlp 9216",
                None,
            ),
            entry(
                "openai-community/gpt2",
                548_000_000,
                "gpt2, 12 layers, d_mlp 3072",
                None,
            ),
            entry(
                "state-spaces/mamba-130m",
                517_000_000,
                "",
                Some("family 'mamba' has no MLP to look into"),
            ),
        ]
    }

    /// The studies that the Start pane lists.
    pub fn studies() -> Vec<StudyEntry> {
        let entry = |dir: &str, model: &str, layer, corpus: &str, rows, fits| StudyEntry {
            dir: PathBuf::from(dir),
            model: model.to_owned(),
            hooks: vec![HookPoint {
                layer,
                site: HookSite::MlpPost,
            }],
            corpus: corpus.to_owned(),
            rows,
            fits,
            unfinished: None,
            stopped: None,
            modified: 1_790_000_000,
        };
        vec![
            entry(
                "/data/mlpeek/a",
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                15,
                "concepts",
                17_204,
                2,
            ),
            entry(
                "/data/mlpeek/b",
                "google/gemma-2-2b",
                12,
                "hierarchy.json",
                61_050,
                1,
            ),
        ]
    }
}
