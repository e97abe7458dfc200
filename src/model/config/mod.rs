//! What a model is: the switches of one decoder, read from `config.json` or from GGUF metadata.
//!
//! Owns the mapping from a family's configuration to switches; knows nothing of tensors. Invariant:
//! a switch in a configuration that this decoder does not know is refused by name, never ignored.

mod families;
mod gguf;
mod hf;
mod names;
mod recorded;
mod rope;

pub use families::llama_cpp_architecture;
pub use names::TensorNames;
pub use rope::{Rope, RopeScaling};

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The normalisation of the residual stream before a block, and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Norm {
    /// Root mean square (no centring) or LayerNorm.
    pub kind: NormKind,
    /// Added to the mean square or the variance.
    pub eps: f64,
    /// The stored weight w stands for 1 + w (Gemma's safetensors; its GGUF files hold 1 + w
    /// already).
    pub plus_one: bool,
}

/// RMSNorm (Zhang and Sennrich 2019) or LayerNorm (arXiv 1607.06450).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NormKind {
    /// x / sqrt(mean(x²) + eps) ∘ w
    Rms,
    /// (x − mean(x)) / sqrt(var(x) + eps) ∘ w + b
    Layer,
}

/// The MLP's activation function; σ is the logistic function and Φ the normal distribution's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Activation {
    /// SiLU: x · σ(x).
    Silu,
    /// GELU: x · Φ(x), by the error function.
    Gelu,
    /// GELU's approximation by tanh ("gelu_new", "gelu_pytorch_tanh").
    GeluTanh,
    /// ReLU: max(0, x).
    Relu,
    /// Squared ReLU: max(0, x)².
    Relu2,
    /// The approximation of GELU by x · σ(1.702 x).
    QuickGelu,
}

/// How q, k and v lie in the columns of the fused projection's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum QkvOrder {
    /// All of q, then all of k, then all of v.
    Blocks,
    /// For each head its q, k and v (GPT-NeoX).
    PerHead,
}

/// What differs between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LayerKind {
    /// Tokens that a position sees, itself included; `None`: all before it.
    pub window: Option<usize>,
    /// Index into [`Config::ropes`]; `None`: no rotary embedding in this layer.
    pub rope: Option<usize>,
}

/// Every switch of the decoder. Serialised, it is what a study remembers of its model
/// ([`Config::switches`]): a switch that is added later must be `None` or `false` wherever a
/// version without it computed as if it were.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// The family by its name in the files ("llama", "gemma2", …), to show: nothing is decided by it.
    pub family: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Neurons of an MLP.
    pub d_mlp: usize,
    /// The number of query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// The number of key heads, and of value heads.
    pub kv_heads: usize,
    /// The width of one head's q, k and v.
    pub head_dim: usize,
    /// The number of embeddings: token ids are below it.
    pub vocab: usize,
    /// The longest text in tokens.
    pub context: usize,
    /// The normalisation of the residual stream.
    pub norm: Norm,
    /// The activation function of the MLP's hidden layer.
    pub activation: Activation,
    /// The MLP's hidden layer is act(gate) ∘ up, not act(up).
    pub gated: bool,
    /// Attention and MLP both read the layer's input (GPT-NeoX).
    pub parallel: bool,
    /// The outputs of attention and of the MLP are normed before they are added to the residual
    /// stream (Gemma 2 and 3).
    pub post_norms: bool,
    /// RMS norms of each head's q and k.
    pub qk_norm: bool,
    /// Learned positions are added to the embeddings (GPT-2).
    pub learned_positions: bool,
    /// Biases of q, k, v.
    pub qkv_bias: bool,
    /// Bias of the attention's output projection.
    pub out_bias: bool,
    /// Biases of the MLP.
    pub mlp_bias: bool,
    /// Weights are stored `[in, out]` (GPT-2's Conv1D in safetensors).
    pub conv1d: bool,
    /// How a fused q, k, v projection is ordered.
    pub qkv_order: QkvOrder,
    /// The rotary embeddings that layers choose from.
    pub ropes: Vec<Rope>,
    /// Leading values of a head that are rotated.
    pub rotary_dims: usize,
    /// Pairs (2i, 2i + 1) are rotated instead of (i, i + half): the rows of GGUF `llama` q and k
    /// are permuted so.
    pub rope_interleaved: bool,
    /// What differs between layers, a value for each.
    pub layers: Vec<LayerKind>,
    /// The factor of q·k before the softmax.
    pub attention_scale: f64,
    /// Attention scores s become cap · tanh(s / cap) (Gemma 2).
    pub attention_softcap: Option<f64>,
    /// Logits l become cap · tanh(l / cap) (Gemma 2).
    pub final_softcap: Option<f64>,
    /// The factor of the embeddings; `None`: 1.
    pub embed_scale: Option<f64>,
    /// The unembedding and the embedding are one matrix.
    pub tied: bool,
    /// The names of the tensors in the checkpoint.
    #[serde(skip)]
    pub names: &'static TensorNames,
}

/// The sizes that the files of every family state.
struct Sizes {
    layers: usize,
    d_model: usize,
    d_mlp: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
}

impl Config {
    /// A Llama of these sizes, for a family to change: RMS norms before attention and MLP, a gated
    /// SiLU MLP, full attention in every layer, no biases. `ropes` is empty, and every layer asks
    /// for the first.
    fn llama(family: &str, sizes: Sizes, names: &'static TensorNames) -> Self {
        let layer = LayerKind {
            window: None,
            rope: Some(0),
        };
        Self {
            family: family.to_owned(),
            d_model: sizes.d_model,
            d_mlp: sizes.d_mlp,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            vocab: sizes.vocab,
            context: sizes.context,
            norm: Norm {
                kind: NormKind::Rms,
                eps: 1e-5,
                plus_one: false,
            },
            activation: Activation::Silu,
            gated: true,
            parallel: false,
            post_norms: false,
            qk_norm: false,
            learned_positions: false,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            conv1d: false,
            qkv_order: QkvOrder::Blocks,
            ropes: Vec::new(),
            rotary_dims: sizes.head_dim,
            rope_interleaved: false,
            layers: vec![layer; sizes.layers],
            attention_scale: 1.0 / (sizes.head_dim as f64).sqrt(),
            attention_softcap: None,
            final_softcap: None,
            embed_scale: None,
            tied: false,
            names,
        }
    }

    /// Whether a norm lies between the MLP's down projection and the residual stream. Where none
    /// does, adding a vector z at `mlp.hook_post` adds W_outᵀ z to the stream; where one does, what
    /// is added also depends on the rest of the MLP's output.
    pub fn norms_mlp_output(&self) -> bool {
        self.post_norms
    }

    /// The width of q: all query heads side by side.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// The width of k, and of v: all key heads side by side.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes of keys and values that one token needs in `layers` layers, at `width` bytes a value.
    pub fn kv_bytes_per_token(&self, layers: usize, width: usize) -> u64 {
        (2 * self.kv_width() * layers * width) as u64
    }

    /// Each switch that is in force by its name with its value, as text: `norm.eps` 1e-5. Those
    /// that are off are left out, and so is where tensors are found. Two configurations that
    /// compute the same have the same switches, however their files are written.
    pub fn switches(&self) -> BTreeMap<String, String> {
        let mut switches = BTreeMap::new();
        // Plain numbers, words and lists: nothing in it can fail to be serialised.
        flatten(
            String::new(),
            &serde_json::to_value(self).unwrap_or_default(),
            &mut switches,
        );
        switches
    }

    /// Refuses sizes that contradict each other, with which the decoder would read beyond its data.
    fn check(self) -> Result<Self, String> {
        let sizes = [
            ("layers", self.layers.len(), 4096),
            ("residual width", self.d_model, 1 << 20),
            ("MLP width", self.d_mlp, 1 << 22),
            ("heads", self.heads, 1 << 16),
            ("key/value heads", self.kv_heads, 1 << 16),
            ("head width", self.head_dim, 1 << 16),
            ("vocabulary", self.vocab, 1 << 26),
            ("context", self.context, 1 << 40),
        ];
        for (what, value, most) in sizes {
            if value == 0 || value > most {
                return Err(format!("{what} is {value}: it must be from 1 to {most}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "{} heads do not divide among {} key/value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.rotary_dims > self.head_dim || !self.rotary_dims.is_multiple_of(2) {
            return Err(format!(
                "{} rotary values do not fit heads of {}",
                self.rotary_dims, self.head_dim
            ));
        }
        if self.layers.iter().any(|l| l.window == Some(0)) {
            return Err("a sliding window of 0 tokens sees nothing".into());
        }
        if self.qkv_order == QkvOrder::PerHead && self.heads != self.kv_heads {
            return Err("q, k and v fused by head need as many key/value heads as heads".into());
        }
        Ok(self)
    }
}

fn flatten(name: String, value: &Value, out: &mut BTreeMap<String, String>) {
    let inside = |part: &str| {
        if name.is_empty() {
            part.to_owned()
        } else {
            format!("{name}.{part}")
        }
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| flatten(inside(key), value, out)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, value)| flatten(inside(&i.to_string()), value, out)),
        Value::Null | Value::Bool(false) => {}
        Value::String(text) if text == "None" => {}
        Value::String(text) => _ = out.insert(name, text.clone()),
        value => _ = out.insert(name, value.to_string()),
    }
}

impl Activation {
    /// The function that `transformers` has under a name (`ACT2FN`).
    ///
    /// # Errors
    /// A message that names an unknown function.
    pub fn by_name(name: &str) -> Result<Self, String> {
        Ok(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast"
            | "gelu_accurate" => Self::GeluTanh,
            "relu" => Self::Relu,
            "relu2" => Self::Relu2,
            "quick_gelu" => Self::QuickGelu,
            other => return Err(format!("activation '{other}' is not known")),
        })
    }
}
