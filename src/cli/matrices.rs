//! Arguments of `mlpeek import` and `mlpeek export`.

use std::path::PathBuf;

use clap::Args;

/// `mlpeek import`.
#[derive(Debug, Args)]
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

/// `mlpeek export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The format
    #[arg(long, default_value = "safetensors", value_parser = ["safetensors"])]
    pub format: String,
    /// The file to write
    #[arg(long, short)]
    pub out: PathBuf,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
}
