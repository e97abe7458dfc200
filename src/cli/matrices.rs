//! Arguments of `mlpeek import`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `mlpeek import`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 reads   FILE: .npy or .safetensors, a matrix in f32, f64, f16 or bf16\n\
    \x20 writes  --out: a study, without a model\n\
    \n\
    Examples:\n\
    \x20 mlpeek import activations.npy --out study\n\
    \x20 mlpeek import tensors.safetensors --tensor mlp --out study")]
pub struct ImportArgs {
    /// A matrix, a row a token: .npy or .safetensors
    pub file: PathBuf,
    /// The study's directory
    #[arg(long, short)]
    pub out: PathBuf,
    /// The tensor, when a safetensors file has several
    #[arg(long)]
    pub tensor: Option<String>,
}
