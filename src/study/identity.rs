//! The identity of a study: the model's weights, configuration and tokenizer, the BOS rule, the
//! type of stored values, the hooks and the corpora.
//!
//! Every command that reads a study with a model or adds rows to it is checked here, before
//! anything is written. A model is compared by what it computes with, never by its path: a study
//! whose model was moved records the new path. Invariant: a refusal leaves every file unchanged.

use std::collections::BTreeSet;
use std::path::Path;

use super::manifest::Manifest;
use super::{Study, lock};
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{BosRule, HookPoint, HookSite, ModelInfo};

/// The largest number of differing configuration values that a message lists.
const MAX_LISTED: usize = 3;

/// The properties that a command requires of an existing study; `None` means any.
#[derive(Debug, Clone, Default)]
pub struct StudyRequest {
    /// The layers; empty for any.
    pub layers: Vec<usize>,
    /// The site of the hooks within the layers.
    pub site: Option<HookSite>,
    /// The type of stored values.
    pub dtype: Option<CacheDtype>,
    /// Whether texts begin with BOS.
    pub bos: Option<BosRule>,
}

impl Study {
    /// Compares `model` with the one that the study was collected with.
    ///
    /// # Errors
    /// [`Error::Refused`] names each part that differs; also for a study that was imported without
    /// a model.
    pub fn check_model(&self, model: &ModelInfo) -> Result<()> {
        let own = self.own_model()?;
        let parts = differing_parts(own, model, self.manifest.bos);
        let dir = self.dir.display();
        if parts.is_empty() {
            return Ok(());
        }
        let parts = parts.join(", ");
        Err(Error::refused(if own.id == model.id {
            format!(
                "{} is not as it was when {dir} was collected, it has {parts}: put it back, or give the study's own model by --model, or collect another study with this one",
                model.id
            )
        } else {
            format!(
                "{dir} was collected with {}, and {} is another model, it has {parts}: give the study's own by --model, or collect another study with this one",
                own.id, model.id
            )
        }))
    }

    /// A message for the user, before the study's model computes activations, if an earlier version
    /// did not record its configuration; otherwise `None`.
    pub fn unrecorded_configuration(&self) -> Option<String> {
        let own = self.manifest.model.as_ref()?;
        let dir = self.dir.display();
        own.identity.is_none().then(|| {
            format!(
                "{dir} does not say with which configuration {} was collected: it is taken for the present one, and mlpeek collect --out {dir} records that",
                own.id
            )
        })
    }

    /// Compares a request with the study.
    ///
    /// # Errors
    /// [`Error::Refused`] says what the study has instead.
    pub fn check_request(&self, request: &StudyRequest) -> Result<()> {
        let refused = |difference: String, option: &str| {
            let dir = self.dir.display();
            Err(Error::refused(format!(
                "{dir}: {difference}; leave out {option}, or choose another directory"
            )))
        };
        if let Some(difference) = hooks_differ(&self.manifest.hooks, request) {
            return refused(difference, "--layer and --hook");
        }
        if let Some(difference) = request
            .dtype
            .and_then(|dtype| dtype_differs(self.manifest.dtype, dtype))
        {
            return refused(difference, "--dtype");
        }
        match request
            .bos
            .and_then(|bos| bos_differs(self.manifest.bos, bos))
        {
            Some(difference) => refused(difference, "--bos"),
            None => Ok(()),
        }
    }

    /// Checks that another study has the same model.
    ///
    /// # Errors
    /// [`Error::Usage`] says what differs.
    pub fn check_same_model(&self, other: &Self) -> Result<()> {
        match models_differ(self.manifest.model.as_ref(), other.manifest.model.as_ref()) {
            None => Ok(()),
            Some(parts) => {
                let (dir, own) = (other.dir.display(), self.dir.display());
                Err(Error::usage(format!(
                    "{dir} is a study of another model than {own} ({parts})"
                )))
            }
        }
    }

    /// Checks that a corpus is one of the study's.
    ///
    /// # Errors
    /// [`Error::Refused`] says what it holds, or that the file has changed.
    pub fn check_corpus(&self, corpus: &Corpus) -> Result<()> {
        match corpus_differs(&self.manifest, &corpus.name, &corpus.sha256) {
            None => Ok(()),
            Some(difference) => Err(Error::refused(format!(
                "{}: {difference}",
                self.dir.display()
            ))),
        }
    }

    /// The model that the study was collected with, as recorded then.
    ///
    /// # Errors
    /// [`Error::Refused`] for an imported matrix.
    pub fn own_model(&self) -> Result<&ModelInfo> {
        self.manifest.model.as_ref().ok_or_else(|| {
            let dir = self.dir.display();
            Error::refused(format!(
                "{dir} was imported without a model: there is nothing to run text through"
            ))
        })
    }

    /// The error for a study whose own model could not be opened because of `problem`.
    pub fn model_not_found(&self, problem: &Error) -> Error {
        let (dir, id) = (
            self.dir.display(),
            self.manifest.model.as_ref().map_or("", |m| m.id.as_str()),
        );
        // A name that is no path is searched in several places, so the message includes the
        // problem.
        let reason = if Path::new(id).is_absolute() && !Path::new(id).exists() {
            "and is not there".to_owned()
        } else {
            format!("and cannot be opened ({problem})")
        };
        Error::refused(format!(
            "the model of {dir} is {id} by its study.json, {reason}"
        ))
    }

    /// Accepts `model` as the study's own, wherever its files are now. If the user gave the path
    /// (`named`), it is saved in `study.json`. Returns a message about that for the user; if the
    /// path could not be saved, the message says so, and the study can still be read.
    ///
    /// # Errors
    /// What [`Self::check_model`] returns.
    pub fn adopt_model(&mut self, model: &ModelInfo, named: bool) -> Result<Option<String>> {
        self.check_model(model)?;
        let own = self.own_model()?;
        if !named || own.id == model.id {
            return Ok(None);
        }
        let (dir, was) = (self.dir.display().to_string(), own.id.clone());
        Ok(Some(match self.save_model_path(model) {
            Ok(()) => format!(
                "{dir} has its model at {} from now on (it was {was})",
                model.id
            ),
            Err(e) => format!(
                "{dir} still names {was} as its model, so give --model again next time: {e}"
            ),
        }))
    }

    /// Writes a model's new path into the manifest, which is read again under the lock.
    fn save_model_path(&mut self, model: &ModelInfo) -> Result<()> {
        let _lock = if self.is_writable() {
            None
        } else {
            Some(lock::acquire(&self.dir)?)
        };
        if !self.is_writable() {
            self.manifest = Manifest::read(&self.dir)?;
            self.check_model(model)?;
        }
        self.write_model(model, false)
    }

    /// Records the path of `model`, and what an earlier version did not record of it, before rows
    /// are added.
    pub(crate) fn record_model(&mut self, model: &ModelInfo) -> Result<()> {
        self.check_model(model)?;
        self.check_writable()?;
        self.write_model(model, true)
    }

    fn write_model(&mut self, model: &ModelInfo, whole: bool) -> Result<()> {
        let mut own = self.own_model()?.clone();
        (own.id, own.origin) = (model.id.clone(), model.origin.clone());
        if whole && own.identity.is_none() {
            own.identity.clone_from(&model.identity);
        }
        if self.manifest.model.as_ref() == Some(&own) {
            return Ok(());
        }
        let manifest = Manifest {
            model: Some(own),
            ..self.manifest.clone()
        };
        manifest.write(&self.dir)?;
        self.manifest = manifest;
        Ok(())
    }
}

/// The first respect in which a study on disk differs from the requested one.
pub(super) fn difference(saved: &Manifest, request: &Manifest) -> Option<String> {
    let name = |m: &Manifest| {
        m.model
            .as_ref()
            .map_or("an imported matrix".to_owned(), |m| m.id.clone())
    };
    let parts = match (&saved.model, &request.model) {
        (Some(a), Some(b)) => differing_parts(a, b, saved.bos).join(", "),
        (a, b) if a.is_some() == b.is_some() => String::new(),
        _ => "another source".to_owned(),
    };
    if !parts.is_empty() {
        let (a, b) = (name(saved), name(request));
        let how = if a == b {
            ", which now has".to_owned()
        } else {
            format!(", not {b}, which has")
        };
        return Some(format!("it was made with {a}{how} {parts}"));
    }
    if (&saved.hooks, &saved.widths) != (&request.hooks, &request.widths) {
        return Some(format!(
            "it holds {}, not {}",
            list(&saved.hooks),
            list(&request.hooks)
        ));
    }
    let wanted = &request.corpora[0];
    dtype_differs(saved.dtype, request.dtype)
        .or_else(|| bos_differs(saved.bos, request.bos))
        .or_else(|| corpus_differs(saved, &wanted.name, &wanted.sha256))
}

fn corpus_differs(saved: &Manifest, name: &str, sha256: &str) -> Option<String> {
    saved.first_sample(sha256).is_none().then(|| {
        if saved.corpora.iter().any(|corpus| corpus.name == name) {
            return format!("{name} has changed since it was made");
        }
        let own: Vec<&str> = saved
            .corpora
            .iter()
            .map(|corpus| corpus.name.as_str())
            .collect();
        // A matrix cannot be added to.
        let remedy = if saved.model.is_some() {
            " (--append adds another corpus)"
        } else {
            ""
        };
        format!("it holds {}, not {name}{remedy}", own.join(" and "))
    })
}

/// How the models of two studies differ, as a phrase; two imported matrices do not differ.
pub(super) fn models_differ(a: Option<&ModelInfo>, b: Option<&ModelInfo>) -> Option<String> {
    match (a, b) {
        // Rows of one model are of the same neurons, however their texts begin.
        (Some(a), Some(b)) => {
            Some(differing_parts(a, b, BosRule::Never).join(", ")).filter(|parts| !parts.is_empty())
        }
        (None, None) => None,
        _ => Some("one has none".to_owned()),
    }
}

fn list(hooks: &[HookPoint]) -> String {
    hooks
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn hooks_differ(saved: &[HookPoint], request: &StudyRequest) -> Option<String> {
    let layers: BTreeSet<usize> = request.layers.iter().copied().collect();
    let own: BTreeSet<usize> = saved.iter().map(|h| h.layer).collect();
    let at = |site| saved.iter().all(|h| h.site == site);
    if (layers.is_empty() || layers == own) && request.site.is_none_or(at) {
        return None;
    }
    let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let wanted = match (layers.is_empty(), request.site) {
        (false, Some(site)) => format!("{site} of layer {}", layers.join(", ")),
        (false, None) => format!("layer {}", layers.join(", ")),
        (true, site) => site.map(|s| s.to_string()).unwrap_or_default(),
    };
    Some(format!("it holds {}, not {wanted}", list(saved)))
}

fn dtype_differs(saved: CacheDtype, request: CacheDtype) -> Option<String> {
    (saved != request).then(|| format!("its cache is {}, not {}", saved.name(), request.name()))
}

fn bos_differs(saved: BosRule, request: BosRule) -> Option<String> {
    (saved != request).then(|| {
        format!("its BOS rule is {saved:?}, not {request:?}")
            .to_lowercase()
            .replace("bos", "BOS")
    })
}

/// How `request` differs from `saved`, as phrases: "other weights", "another tokenizer". What an
/// earlier version did not record does not count.
fn differing_parts(saved: &ModelInfo, request: &ModelInfo, bos: BosRule) -> Vec<String> {
    let mut parts = Vec::new();
    if saved.weights_sha256 != request.weights_sha256 {
        parts.push("other weights".to_owned());
    }
    let (Some(own), Some(new)) = (&saved.identity, &request.identity) else {
        // Versions without an identity read `tokenizer.json` alone.
        let file = request
            .identity
            .as_ref()
            .map(|identity| &identity.tokenizer_file);
        if saved.tokenizer_sha256 != request.tokenizer_sha256
            && file != Some(&saved.tokenizer_sha256)
        {
            parts.push("another tokenizer".to_owned());
        }
        return parts;
    };
    let names: BTreeSet<&String> = own
        .configuration
        .keys()
        .chain(new.configuration.keys())
        .collect();
    let value = |configuration: &std::collections::BTreeMap<String, String>, name: &String| {
        configuration
            .get(name)
            .map_or_else(|| "off".to_owned(), Clone::clone)
    };
    let mut switches: Vec<String> = names
        .into_iter()
        .filter(|name| own.configuration.get(*name) != new.configuration.get(*name))
        .map(|name| {
            format!(
                "{name} {}, not {}",
                value(&new.configuration, name),
                value(&own.configuration, name)
            )
        })
        .collect();
    if !switches.is_empty() {
        let more = switches.len().saturating_sub(MAX_LISTED);
        switches.truncate(MAX_LISTED);
        switches.extend((more > 0).then(|| format!("{more} more")));
        parts.push(format!("another configuration ({})", switches.join("; ")));
    }
    if own.tokenizer != new.tokenizer {
        parts.push("another tokenizer".to_owned());
    }
    if bos != BosRule::Never && own.bos != new.bos {
        let token = |bos: Option<u32>| bos.map_or_else(|| "none".to_owned(), |id| id.to_string());
        parts.push(format!(
            "another BOS token ({}, not {})",
            token(new.bos),
            token(own.bos)
        ));
    }
    parts
}
