//! Arguments of `mlpeek describe`.

use std::path::PathBuf;

use clap::Args;

use super::{Device, JsonArgs};
use crate::eval::judge::{Endpoint, Key};

/// A judge behind an OpenAI-compatible endpoint.
#[derive(Debug, Args)]
pub struct EndpointArgs {
    /// Base address of an OpenAI-compatible chat endpoint: http://127.0.0.1:8080/v1
    #[arg(long, requires = "judge_model")]
    pub endpoint: Option<String>,
    /// The model to ask there
    #[arg(long, requires = "endpoint")]
    pub judge_model: Option<String>,
    /// Environment variable that holds the key; it is sent to the endpoint and kept nowhere
    #[arg(long, default_value = "OPENAI_API_KEY")]
    pub key_env: String,
    /// Calls under way at once
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// Seconds that a call may take
    #[arg(long, default_value_t = 120.0)]
    pub timeout: f64,
}

impl EndpointArgs {
    /// The endpoint that these arguments name, if any, with the key from the environment.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let (url, model) = (self.endpoint.as_deref()?, self.judge_model.as_deref()?);
        let asked = Endpoint::new(url, model, Key::from_env(&self.key_env));
        Some(Endpoint { concurrency: self.concurrency, timeout: self.timeout, ..asked })
    }
}

/// `mlpeek describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Features, separated by commas [default: all]
    #[arg(value_delimiter = ',')]
    pub features: Vec<usize>,
    /// The judge
    #[command(flatten)]
    pub judge: EndpointArgs,
    /// Leave out scoring the descriptions by detection and fuzzing
    #[arg(long)]
    pub no_score: bool,
    /// Only say how many calls and tokens it would take
    #[arg(long)]
    pub dry_run: bool,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Where to compute the logit lens
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}
