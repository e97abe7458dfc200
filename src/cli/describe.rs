//! Arguments of `mlpeek describe`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::{HookSelectionArgs, StudyModelArgs};
use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::eval::judge::{ApiKey, Endpoint};

/// The environment variable that is read for a key where `--key-env` names none.
const DEFAULT_KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// A judge behind an OpenAI-compatible endpoint.
#[derive(Debug, Clone, Args)]
pub struct EndpointArgs {
    /// Base address of an OpenAI-compatible chat endpoint: http://127.0.0.1:8080/v1
    #[arg(long, requires = "judge_model")]
    pub endpoint: Option<String>,
    /// The model to ask there
    #[arg(long, requires = "endpoint")]
    pub judge_model: Option<String>,
    /// Environment variable that holds the key; it is sent to the endpoint and kept nowhere
    /// [default: OPENAI_API_KEY, where it is set]
    #[arg(long, value_name = "VARIABLE", requires = "endpoint")]
    pub key_env: Option<String>,
    /// Calls under way at once, 1 to 64
    #[arg(long, default_value_t = 4, requires = "endpoint", value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub concurrency: usize,
    /// Seconds that a call may take, up to 3600
    #[arg(long, default_value_t = 120.0, requires = "endpoint", value_parser = seconds)]
    pub timeout: f64,
    /// Longest answer of the judge in tokens, 1 to 32768; one that thinks before it answers needs
    /// more [default: each question's own]
    #[arg(long, requires = "endpoint", value_parser = RangedU64ValueParser::<usize>::new().range(1..=32_768))]
    pub judge_max_tokens: Option<usize>,
    /// Temperature of the judge's answers, 0 to 2; 0 is greedy [default: 0, for sentences that it
    /// makes up 0.7]
    #[arg(long, requires = "endpoint", value_parser = temperature)]
    pub judge_temperature: Option<f64>,
}

/// Reads how long a call may take.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|s| (0.01..=3600.0).contains(s));
    seconds.ok_or_else(|| "give seconds, from 0.01 to 3600".to_owned())
}

/// Reads a judge's temperature.
fn temperature(text: &str) -> Result<f64, String> {
    let temperature = text.parse::<f64>().ok().filter(|t| (0.0..=2.0).contains(t));
    temperature.ok_or_else(|| "give a temperature, from 0 to 2".to_owned())
}

impl EndpointArgs {
    /// The endpoint that these arguments name, if any, with the key from the environment.
    ///
    /// # Errors
    /// [`Error::Usage`] for an address that cannot be or must not be shown, and for a variable that
    /// was named and holds no key.
    pub fn endpoint(&self) -> Result<Option<Endpoint>> {
        let (Some(url), Some(model)) = (self.endpoint.as_deref(), self.judge_model.as_deref())
        else {
            return Ok(None);
        };
        let key = match &self.key_env {
            None => ApiKey::from_env(DEFAULT_KEY_VARIABLE),
            Some(variable) => Some(ApiKey::from_env(variable).ok_or_else(|| no_key(variable))?),
        };
        let asked = Endpoint::new(url, model, key)?;
        Ok(Some(Endpoint {
            concurrency: self.concurrency,
            timeout: self.timeout,
            max_tokens: self.judge_max_tokens,
            temperature: self.judge_temperature,
            ..asked
        }))
    }
}

fn no_key(variable: &str) -> Error {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // What is no name may be the key itself: it is not repeated.
    Error::usage(match variable.chars().all(name) {
        true => format!(
            "--key-env: the environment variable {variable} is not set, is empty or cannot stand in a header: set it, or leave \
             --key-env out where no key is needed"
        ),
        false => {
            "--key-env takes the name of an environment variable, such as OPENAI_API_KEY, not a key"
                .to_owned()
        }
    })
}

fn features_help() -> String {
    format!(
        "Features, separated by commas, or other directions by their set: {} [default: all features of the fit]",
        SetKind::examples()
    )
}

/// Arguments of `mlpeek describe`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  descriptions and every answer into the study: STUDY/descriptions.json\n\
    \x20 reads   --phrases: candidate phrases, one a line; # begins a remark\n\
    \x20         --import: a list of objects with index and description\n\
    \n\
    Examples:\n\
    \x20 mlpeek describe study --offline\n\
    \x20 mlpeek describe study --import explanations.jsonl --set sae:NAME\n\
    \x20 mlpeek describe study 3,17 --endpoint http://127.0.0.1:8080/v1 --judge-model M\n\
    \x20 mlpeek describe study --endpoint http://127.0.0.1:8080/v1 --judge-model M --dry-run")]
pub struct DescribeArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Features, or other directions as `SET:ID`.
    #[arg(value_delimiter = ',', help = features_help())]
    pub features: Vec<String>,
    /// The language model that describes and rates, by its endpoint
    #[command(flatten)]
    pub judge: EndpointArgs,
    /// Take descriptions that someone published from a file, such as an autoencoder's of
    /// Neuronpedia: JSON or JSON Lines, objects with index and description
    #[arg(long, value_name = "FILE", conflicts_with_all = ["endpoint", "offline", "sentences", "dry_run", "no_score", "features", "fit", "layer", "hook"])]
    pub import: Option<PathBuf>,
    /// The set that --import describes, such as sae:NAME [default: the fit]
    #[arg(long)]
    pub set: Option<SetKind>,
    /// Describe without a language model: by the nearest of a list of phrases, which a sentence
    /// encoder finds and which is said to be no more
    #[arg(long, conflicts_with_all = ["endpoint", "sentences", "dry_run"])]
    pub offline: bool,
    /// The candidate phrases of --offline, one a line [default: a bundled list of 311]
    #[arg(long, value_name = "FILE")]
    pub phrases: Option<PathBuf>,
    /// The sentence encoder of --offline: a directory, or a Hub id [default: all-MiniLM-L6-v2, from
    /// the Hub or a Python package]
    #[arg(long, value_name = "ENCODER")]
    pub encoder: Option<String>,
    /// Leave out scoring the descriptions by detection and fuzzing
    #[arg(long)]
    pub no_score: bool,
    /// Have 5 sentences written that fit each description and 5 that do not, and tell by S_CD how
    /// the direction tells them apart on this model
    #[arg(long)]
    pub sentences: bool,
    /// Only say how many calls and tokens it would take
    #[arg(long)]
    pub dry_run: bool,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    fn judge(more: &[&str]) -> Result<super::EndpointArgs, String> {
        let line = [
            "mlpeek",
            "describe",
            "s",
            "--endpoint",
            "http://127.0.0.1:1/v1",
            "--judge-model",
            "m",
        ];
        match Cli::try_parse_from(line.iter().chain(more))
            .map_err(|e| e.to_string())?
            .command
        {
            Some(Command::Describe(args)) => Ok(args.judge),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn timeouts_and_concurrency_are_bounded() {
        for bad in ["nan", "inf", "-inf", "0", "-1", "1e9", "soon", ""] {
            let error = judge(&[&format!("--timeout={bad}")]).unwrap_err();
            assert!(error.contains("from 0.01 to 3600"), "{error}");
        }
        for bad in ["0", "65", "-1"] {
            assert!(judge(&[&format!("--concurrency={bad}")]).is_err());
        }
        assert_eq!(
            judge(&["--timeout", "1.5", "--concurrency", "9"])
                .unwrap()
                .endpoint()
                .unwrap()
                .unwrap()
                .timeout,
            1.5
        );
    }

    #[test]
    fn temperature_and_token_limits_are_bounded() {
        let endpoint = judge(&["--judge-max-tokens", "900", "--judge-temperature", "0.5"])
            .unwrap()
            .endpoint()
            .unwrap();
        let endpoint = endpoint.unwrap();
        assert_eq!(
            (endpoint.max_tokens, endpoint.temperature),
            (Some(900), Some(0.5))
        );
        for bad in [
            "--judge-max-tokens=0",
            "--judge-temperature=-1",
            "--judge-temperature=nan",
            "--judge-temperature=3",
        ] {
            assert!(judge(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_that_is_named_must_hold_a_key() {
        let refused = |name: &str| {
            judge(&["--key-env", name])
                .unwrap()
                .endpoint()
                .unwrap_err()
                .to_string()
        };
        assert!(refused("MLPEEK_NO_SUCH_VARIABLE").contains("MLPEEK_NO_SUCH_VARIABLE is not set"));
        let secret = refused("sk-typed-here");
        assert!(
            !secret.contains("sk-typed-here")
                && secret.contains("the name of an environment variable"),
            "{secret}"
        );
    }
}
