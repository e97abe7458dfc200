//! Arguments of `mlpeek export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{HookSelectionArgs, ModeArg, StudyModelArgs, values};
use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::steering::Mode;

/// What `--format` takes: what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A safetensors file: Z, Y, centre, neuron_weights
    Safetensors,
    /// The same as NumPy's .npz
    Npz,
    /// The list of features as CSV
    Csv,
    /// The contexts of every feature as CSV
    Contexts,
    /// A directory that SAELens opens, of a fit or an autoencoder
    Saelens,
    /// Directions as a control vector of llama.cpp (GGUF)
    ControlVector,
    /// The model with directions ablated or added in its weights, a directory for any server
    Checkpoint,
}

/// What an option is about, for the formats that take it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Set,
    Features,
    Rows,
    Mode,
    Model,
}

impl ExportFormat {
    /// As it is typed and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npz => "npz",
            Self::Csv => "csv",
            Self::Contexts => "contexts",
            Self::Saelens => "saelens",
            Self::ControlVector => "control-vector",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// The ending of the file that is written; `None`: a directory.
    pub fn ending(self) -> Option<&'static str> {
        match self {
            Self::Safetensors => Some("safetensors"),
            Self::Npz => Some("npz"),
            Self::Csv | Self::Contexts => Some("csv"),
            Self::ControlVector => Some("gguf"),
            Self::Saelens | Self::Checkpoint => None,
        }
    }

    fn takes(self, what: Takes) -> bool {
        match what {
            Takes::Rows => matches!(self, Self::Safetensors | Self::Npz),
            Takes::Features => matches!(self, Self::ControlVector | Self::Checkpoint),
            Takes::Set => !self.takes(Takes::Features),
            Takes::Mode => self == Self::Checkpoint,
            Takes::Model => self == Self::Csv || self.takes(Takes::Features),
        }
    }
}

/// Arguments of `mlpeek export`.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  --out: one file, or for saelens and checkpoint a directory (mlpeek guide formats\n\
    \x20         says what is in each); what is there is replaced only by --overwrite\n\
    \n\
    Examples:\n\
    \x20 mlpeek export study --out factors.safetensors\n\
    \x20 mlpeek export study --fit k100 --format npz --rows --out k100.npz\n\
    \x20 mlpeek export study --format csv --directions diffmean --out diffmean.csv\n\
    \x20 mlpeek export study --format saelens --out k100-sae\n\
    \x20 mlpeek export study --format control-vector --feature 29 --alpha 8 --out months.gguf\n\
    \x20 mlpeek export study --format checkpoint --feature 29 --mode ablate --out edited")]
pub struct ExportArgs {
    /// The study's directory
    pub study: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = ExportFormat::Safetensors)]
    pub format: ExportFormat,
    /// The file to write, or the directory
    #[arg(long, short)]
    pub out: PathBuf,
    /// The set of directions [default: the newest fit]
    #[arg(long, value_name = "SET")]
    pub directions: Option<SetKind>,
    /// The directions of a control vector or a checkpoint, each with an optional weight, as for
    /// mlpeek steer: 29 or 3:1,17:-0.5 or diffmean:months
    #[arg(long, value_name = "LIST")]
    pub feature: Option<String>,
    /// The α of mlpeek steer, which is written [default of a control vector and to ablate: 1]
    #[arg(long, value_parser = values::finite)]
    pub alpha: Option<f64>,
    /// What a checkpoint does along the directions [default: ablate]
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Token, position and sample of every row come along, and the texts and labels
    #[arg(long)]
    pub rows: bool,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
    /// Which fit, or where
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

impl ExportArgs {
    /// The set that is written.
    pub fn set(&self) -> SetKind {
        self.directions.clone().unwrap_or_default()
    }

    /// What is done along the directions.
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(ModeArg::Ablate).into()
    }

    /// Refuses an option that the format cannot take, and a format without what it needs.
    ///
    /// # Errors
    /// [`Error::Usage`] that names both.
    pub fn check(&self) -> Result<()> {
        let format = self.format;
        let asks_model = format.takes(Takes::Model) || self.set().is_measured();
        let of_the_model = [
            ("--model", self.model.model.is_some()),
            ("--device", self.model.compute.device.is_some()),
            ("--dtype", self.model.compute.dtype.is_some()),
        ];
        let useless = |takes: bool, option, given: bool| (!takes && given).then_some(option);
        let options = [
            useless(
                format.takes(Takes::Set),
                "--directions",
                self.directions.is_some(),
            ),
            useless(
                format.takes(Takes::Features),
                "--feature",
                self.feature.is_some(),
            ),
            useless(
                format.takes(Takes::Features),
                "--alpha",
                self.alpha.is_some(),
            ),
            useless(format.takes(Takes::Rows), "--rows", self.rows),
            useless(format.takes(Takes::Mode), "--mode", self.mode.is_some()),
        ];
        let options = options.into_iter().chain(
            of_the_model
                .into_iter()
                .map(|(option, given)| useless(asks_model, option, given)),
        );
        if let Some(option) = options.flatten().next() {
            return Err(Error::usage(format!(
                "{option} has no effect with --format {}: leave it out",
                format.name()
            )));
        }
        if format.takes(Takes::Features) && self.feature.is_none() {
            return Err(Error::usage(format!(
                "--format {} needs --feature: the directions to write",
                format.name()
            )));
        }
        if format == ExportFormat::Checkpoint && self.alpha.is_none() && self.mode() != Mode::Ablate
        {
            return Err(Error::usage(
                "a checkpoint that steers needs --alpha: mlpeek steer finds one for a wanted KL",
            ));
        }
        if format == ExportFormat::Saelens
            && !matches!(self.set(), SetKind::Fit(_) | SetKind::Sae(_))
        {
            return Err(Error::usage(format!(
                "--format saelens takes a fit or an autoencoder, not {}",
                self.set()
            )));
        }
        Ok(())
    }
}
