//! Where a family's tensors are found: one table for Hugging Face's names, one for GGUF's.

/// A tensor outside the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Token embeddings `[vocab, d_model]`.
    Embed,
    /// Learned positions `[context, d_model]`.
    Positions,
    /// The final norm's weight.
    FinalNorm,
    /// The unembedding `[vocab, d_model]`.
    Head,
}

/// A tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPart {
    /// Norm before attention.
    AttnNorm,
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Query, key and value projections in one.
    Qkv,
    /// RMS norm of each query head.
    QNorm,
    /// RMS norm of each key head.
    KNorm,
    /// The attention's output projection.
    Out,
    /// Norm of the attention's output (Gemma 2 and 3).
    PostAttnNorm,
    /// Norm before the MLP.
    MlpNorm,
    /// Gate projection.
    Gate,
    /// Up projection.
    Up,
    /// Down projection.
    Down,
    /// Norm of the MLP's output (Gemma 2 and 3).
    PostMlpNorm,
}

/// A family's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Llama and everything named like it.
    Llama,
    /// Llama's names with Gemma 2's four norms.
    Gemma,
    /// GPT-2.
    Gpt2,
    /// GPT-NeoX.
    NeoX,
    /// GGUF, every architecture.
    Gguf,
}

impl Names {
    /// Prefixes under which checkpoints put their tensors, the most specific first.
    pub fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Llama | Self::Gemma => &[
                "model.language_model.",
                "language_model.model.",
                "model.",
                "",
            ],
            Self::Gpt2 => &["transformer.", ""],
            Self::NeoX => &["gpt_neox.", ""],
            Self::Gguf => &[""],
        }
    }

    /// The name of a tensor outside the layers, without prefix or `.weight`; the head's is whole.
    pub fn part(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::Llama | Self::Gemma, Part::Embed) => "embed_tokens",
            (Self::Llama | Self::Gemma, Part::FinalNorm) => "norm",
            (Self::Llama | Self::Gemma | Self::Gpt2, Part::Head) => "lm_head",
            (Self::Gpt2, Part::Embed) => "wte",
            (Self::Gpt2, Part::FinalNorm) => "ln_f",
            (Self::NeoX, Part::Embed) => "embed_in",
            (Self::NeoX, Part::FinalNorm) => "final_layer_norm",
            (Self::NeoX, Part::Head) => "embed_out",
            (Self::Gguf, Part::Embed) => "token_embd",
            (Self::Gguf, Part::FinalNorm) => "output_norm",
            (Self::Gguf, Part::Head) => "output",
            (Self::Gguf, Part::Positions) => "position_embd",
            (_, Part::Positions) => "wpe",
        }
    }

    /// The name of layer `index`, with the dot that follows.
    pub fn layer(self, index: usize) -> String {
        match self {
            Self::Llama | Self::Gemma | Self::NeoX => format!("layers.{index}."),
            Self::Gpt2 => format!("h.{index}."),
            Self::Gguf => format!("blk.{index}."),
        }
    }

    /// The name of a layer's tensor within its layer.
    pub fn layer_part(self, part: LayerPart) -> &'static str {
        use LayerPart as P;
        match self {
            Self::Llama | Self::Gemma => match part {
                P::AttnNorm => "input_layernorm",
                P::Q => "self_attn.q_proj",
                P::K => "self_attn.k_proj",
                P::V => "self_attn.v_proj",
                P::Qkv => "self_attn.qkv_proj",
                P::QNorm => "self_attn.q_norm",
                P::KNorm => "self_attn.k_norm",
                P::Out => "self_attn.o_proj",
                P::MlpNorm if self == Self::Gemma => "pre_feedforward_layernorm",
                P::MlpNorm | P::PostAttnNorm => "post_attention_layernorm",
                P::Gate => "mlp.gate_proj",
                P::Up => "mlp.up_proj",
                P::Down => "mlp.down_proj",
                P::PostMlpNorm => "post_feedforward_layernorm",
            },
            Self::Gpt2 => match part {
                P::AttnNorm => "ln_1",
                P::Qkv => "attn.c_attn",
                P::Out => "attn.c_proj",
                P::MlpNorm => "ln_2",
                P::Up => "mlp.c_fc",
                P::Down => "mlp.c_proj",
                P::Q
                | P::K
                | P::V
                | P::QNorm
                | P::KNorm
                | P::PostAttnNorm
                | P::PostMlpNorm
                | P::Gate => "-",
            },
            Self::NeoX => match part {
                P::AttnNorm => "input_layernorm",
                P::Qkv => "attention.query_key_value",
                P::Out => "attention.dense",
                P::MlpNorm => "post_attention_layernorm",
                P::Up => "mlp.dense_h_to_4h",
                P::Down => "mlp.dense_4h_to_h",
                P::Q
                | P::K
                | P::V
                | P::QNorm
                | P::KNorm
                | P::PostAttnNorm
                | P::PostMlpNorm
                | P::Gate => "-",
            },
            Self::Gguf => match part {
                P::AttnNorm => "attn_norm",
                P::Q => "attn_q",
                P::K => "attn_k",
                P::V => "attn_v",
                P::Qkv => "attn_qkv",
                P::QNorm => "attn_q_norm",
                P::KNorm => "attn_k_norm",
                P::Out => "attn_output",
                P::PostAttnNorm => "post_attention_norm",
                P::MlpNorm => "ffn_norm",
                P::Gate => "ffn_gate",
                P::Up => "ffn_up",
                P::Down => "ffn_down",
                P::PostMlpNorm => "post_ffw_norm",
            },
        }
    }
}
