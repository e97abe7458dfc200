//! Where a family's tensors are found: one table of names for each layout of a checkpoint.

/// The names of a checkpoint's tensors, without what they begin with and without `.weight` or
/// `.bias`. `"-"` stands for a tensor that no model of the family has.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// What names may begin with, the most specific first; the unembedding's has no prefix.
    pub prefixes: &'static [&'static str],
    /// Token embeddings `[vocab, d_model]`.
    pub embedding: &'static str,
    /// Learned positions `[context, d_model]`.
    pub positions: &'static str,
    /// The norm before the unembedding, `[d_model]`.
    pub final_norm: &'static str,
    /// The unembedding `[vocab, d_model]`.
    pub unembedding: &'static str,
    /// What names within a layer begin with, up to the layer's index.
    pub layers: &'static str,
    /// The norm before attention, `[d_model]`.
    pub attn_norm: &'static str,
    /// The query projection `[heads · head_dim, d_model]`.
    pub q: &'static str,
    /// The key projection `[kv_heads · head_dim, d_model]`.
    pub k: &'static str,
    /// The value projection `[kv_heads · head_dim, d_model]`.
    pub v: &'static str,
    /// Query, key and value projections in one tensor.
    pub qkv: &'static str,
    /// The RMS norm of each query head, `[head_dim]`.
    pub q_norm: &'static str,
    /// The RMS norm of each key head, `[head_dim]`.
    pub k_norm: &'static str,
    /// The attention's output projection `[d_model, heads · head_dim]`.
    pub out: &'static str,
    /// The norm of the attention's output, `[d_model]`.
    pub post_attn_norm: &'static str,
    /// The norm before the MLP, `[d_model]`.
    pub mlp_norm: &'static str,
    /// The MLP's gate projection `[d_mlp, d_model]`.
    pub gate: &'static str,
    /// The MLP's up projection `[d_mlp, d_model]`.
    pub up: &'static str,
    /// The MLP's down projection `[d_model, d_mlp]`.
    pub down: &'static str,
    /// The norm of the MLP's output, `[d_model]`.
    pub post_mlp_norm: &'static str,
}

/// No name at all, for a family's table to fill in what it has.
pub(super) const UNNAMED: TensorNames = TensorNames {
    prefixes: &[""],
    embedding: "-",
    positions: "-",
    final_norm: "-",
    unembedding: "-",
    layers: "-",
    attn_norm: "-",
    q: "-",
    k: "-",
    v: "-",
    qkv: "-",
    q_norm: "-",
    k_norm: "-",
    out: "-",
    post_attn_norm: "-",
    mlp_norm: "-",
    gate: "-",
    up: "-",
    down: "-",
    post_mlp_norm: "-",
};

/// The names of every architecture in a GGUF file.
pub(super) const GGUF: TensorNames = TensorNames {
    prefixes: &[""],
    embedding: "token_embd",
    positions: "position_embd",
    final_norm: "output_norm",
    unembedding: "output",
    layers: "blk.",
    attn_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    qkv: "attn_qkv",
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    out: "attn_output",
    post_attn_norm: "post_attention_norm",
    mlp_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    post_mlp_norm: "post_ffw_norm",
};
