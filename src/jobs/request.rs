//! What is asked of a job, as plain data that can be logged and replayed.

use std::path::PathBuf;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::activations::store::CacheDtype;
use crate::factor::FitConfig;
use crate::model::device::dtype_name;
use crate::model::generate::Sampling;
use crate::model::{Compute, DeviceChoice, HookSite};
use crate::steering::{Mode, Positions, SteerPart, Strength};

/// A model, a layer, a corpus and a fit: everything that the Start pane chooses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// As `--model`; `None` is the default model.
    pub model: Option<String>,
    /// `None` is the middle layer.
    pub layer: Option<usize>,
    /// Where in the layer.
    pub hook: HookSite,
    /// A corpus file; `None` is the bundled concepts.
    pub corpus: Option<PathBuf>,
    /// The study's directory; `None` is the data directory, under model, layer and corpus.
    pub study: Option<PathBuf>,
    /// The settings of the fit.
    pub fit: FitConfig,
    /// The device that the model computes on.
    pub device: DeviceChoice,
    /// What a GPU computes in; `None` is bf16 where it knows that.
    #[serde(default, with = "dtype_name", skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DType>,
}

impl OpenRequest {
    /// Where the model computes, and in what.
    pub fn compute(&self) -> Compute {
        Compute {
            device: self.device,
            dtype: self.dtype,
        }
    }
}

impl Default for OpenRequest {
    fn default() -> Self {
        Self {
            model: None,
            layer: None,
            hook: HookSite::MlpPost,
            corpus: None,
            study: None,
            fit: FitConfig::default(),
            device: DeviceChoice::Auto,
            dtype: None,
        }
    }
}

/// What an [`OpenRequest`] will take, as far as can be known without opening the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Samples of the corpus.
    pub samples: usize,
    /// Token rows (estimated from bytes where the tokenizer is not at hand).
    pub tokens: usize,
    /// Bytes of the activation cache on disk.
    pub cache_bytes: u64,
    /// The type of its values: what the model will compute in.
    pub dtype: CacheDtype,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    /// Bytes of the factors in memory.
    pub factor_bytes: u64,
    /// Bytes of a GPU that the fit takes where all of it stays there; `None` where the CPU computes.
    #[serde(default)]
    pub gpu_bytes: Option<u64>,
    /// Bytes still to download.
    pub download_bytes: u64,
    /// Free bytes on the study's disk.
    pub disk_free: u64,
    /// Free bytes of memory.
    pub memory_free: u64,
    /// Seconds to the first features, very roughly; `None` when nothing like it has been measured.
    pub seconds: Option<f64>,
    /// Why it cannot run, when it cannot: with the numbers and what would fit.
    pub refusal: Option<String>,
    /// The layers the model has, when known.
    pub layers: Option<usize>,
    /// Neurons a row, when known.
    pub width: Option<usize>,
}

/// A steering run as the Steer pane asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteerSettings {
    /// Features with their weights (1 promotes; each multiplies α).
    pub features: Vec<(usize, f32)>,
    /// Which of their neurons.
    pub part: SteerPart,
    /// What is done along them.
    #[serde(default)]
    pub mode: Mode,
    /// The text to continue.
    pub prompt: String,
    /// How far to steer: α, or the KL to reach.
    pub strength: Strength,
    /// Suppress instead of promote.
    pub negative: bool,
    /// Which tokens are touched.
    pub positions: Positions,
    /// Baseline and steered texts each.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
}
