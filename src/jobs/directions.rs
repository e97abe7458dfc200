//! From a study to its sets of directions: saved fits, and what is made of its rows and labels on
//! the spot.

mod reference;

use serde::{Deserialize, Serialize};

pub use reference::Reference;

use super::measured::{self, Choosing, EffectRequest};
use crate::analysis::Notes;
use crate::corpus::TokenTable;
use crate::directions::baselines::Count;
use crate::directions::{
    BaselineData, DirectionSet, Directions, FitSet, PlainSet, SaeSet, SetKind,
};
use crate::disk;
use crate::error::{Error, Result};
use crate::interop::direction_file;
use crate::model::{HookPoint, HookSite, Model};
use crate::study::{self, FitEntry, Study};
use crate::task::TaskCtx;

/// Where in a study directions are wanted; what is left open is the newest fit's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSelection {
    /// A fit by name: its hook is meant.
    pub fit: Option<String>,
    /// The layer, where the study has several hooks.
    pub layer: Option<usize>,
    /// Where in the layer.
    pub site: Option<HookSite>,
}

impl HookSelection {
    /// Where directions of a kind are: at the hook, or after the fit, that it names itself, or here.
    pub fn of(&self, kind: &SetKind) -> Self {
        if let Some(fit) = kind.source_fit() {
            return Self {
                fit: Some(fit.to_owned()),
                ..Self::default()
            };
        }
        kind.hook().map_or_else(
            || self.clone(),
            |h| Self {
                fit: None,
                layer: Some(h.layer),
                site: Some(h.site),
            },
        )
    }
}

impl HookSelection {
    /// Refuses an option that none of the sets looks at: a fit where none of them is read, or made
    /// after one; a layer or a hook where every set has its own.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the option.
    pub fn check_effect<'a>(
        &self,
        study: &Study,
        sets: impl IntoIterator<Item = &'a SetKind>,
    ) -> Result<()> {
        let names_no_fit = |kind: &SetKind| {
            kind.source_fit().is_none() && !matches!(kind.source(), Some(SetKind::Fit(Some(_))))
        };
        let is_made_after_fit = |kind: &SetKind| match kind {
            SetKind::Fit(name) => name.is_none(),
            SetKind::Sae(_) | SetKind::File { .. } => false,
            // Labels and neurons are no fit's: of the fit only its hook is taken, which is told
            // where the study has others.
            SetKind::Baseline { kind, hook: None } => {
                kind.count() == Count::Features || study.manifest().hooks.len() > 1
            }
            // At its own hook it is made after the newest fit there.
            SetKind::Baseline { hook: Some(_), .. }
            | SetKind::TextGradient { hook: Some(_), .. } => false,
            SetKind::TextGradient { cut, hook: None } => *cut || study.manifest().hooks.len() > 1,
            SetKind::Mixed { .. } => names_no_fit(kind),
        };
        let has_no_hook = |kind: &SetKind| match kind {
            SetKind::Fit(name) | SetKind::Sae(name) => name.is_none(),
            SetKind::Baseline { hook, .. }
            | SetKind::File { hook, .. }
            | SetKind::TextGradient { hook, .. } => hook.is_none(),
            SetKind::Mixed { .. } => names_no_fit(kind),
        };
        let sets: Vec<&SetKind> = sets.into_iter().collect();
        let names = || {
            let names: Vec<String> = sets.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        if let Some(fit) = &self.fit
            && !sets.iter().any(|kind| is_made_after_fit(kind))
        {
            return Err(Error::usage(format!(
                "--fit {fit} has no effect on {}: leave it out",
                names()
            )));
        }
        if (self.layer.is_some() || self.site.is_some())
            && !sets.iter().any(|kind| has_no_hook(kind))
        {
            let option = if self.layer.is_some() {
                "--layer"
            } else {
                "--hook"
            };
            return Err(Error::usage(format!(
                "{option} has no effect on {}: leave it out",
                names()
            )));
        }
        Ok(())
    }

    /// Whether a hook is of the layer and the site that are named, where they are.
    pub fn admits(&self, hook: HookPoint) -> bool {
        self.layer.is_none_or(|l| hook.layer == l) && self.site.is_none_or(|s| hook.site == s)
    }

    /// The hook of the study that is of the layer and the site named, when just one is; no fit is
    /// looked at.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the study's hooks.
    pub fn only_hook(&self, study: &Study) -> Result<HookPoint> {
        let all = &study.manifest().hooks;
        let hooks: Vec<HookPoint> = all.iter().copied().filter(|h| self.admits(*h)).collect();
        match hooks[..] {
            [one] => Ok(one),
            [] => Err(no_such_hook(all)),
            _ => Err(several_hooks(all)),
        }
    }

    /// The hook that is meant with the saved fit there is on it; an error lists the hooks when
    /// several could be meant.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such fit or hook, or where several hooks could be meant;
    /// fits that cannot be read.
    pub fn resolve(&self, study: &Study) -> Result<(HookPoint, Option<FitEntry>)> {
        if let Some(name) = &self.fit {
            let (hook, _) = study.fit_request(name)?;
            let entry = study.fits()?.into_iter().find(|f| f.name == *name);
            return if self.admits(hook) {
                Ok((entry.as_ref().map_or(hook, |e| e.hook), entry))
            } else {
                Err(Error::usage(format!(
                    "fit '{name}' is of {hook}: leave out --layer and --hook"
                )))
            };
        }
        let all = &study.manifest().hooks;
        let hooks: Vec<HookPoint> = all.iter().copied().filter(|h| self.admits(*h)).collect();
        let newest = study::newest(&study.fits()?, |hook| hooks.contains(&hook)).cloned();
        match (newest, &hooks[..]) {
            (_, []) => Err(no_such_hook(all)),
            (Some(fit), _) => Ok((fit.hook, Some(fit))),
            (None, [one]) => Ok((*one, None)),
            _ => Err(several_hooks(all)),
        }
    }
}

/// What `name` stands for at a layer: a fit or an autoencoder that was made of several layers at once
/// is called `lLAYER-name` at each of them. Another keeps its name.
///
/// # Errors
/// Fits or autoencoders that cannot be read.
pub fn name_at(study: &Study, layer: usize) -> Result<impl Fn(&str) -> String + use<>> {
    let fits = study.fits()?.into_iter().map(|f| (f.name, f.hook));
    let saes = study.saes()?.into_iter().map(|s| (s.name, s.hook));
    let here: Vec<String> = fits
        .chain(saes)
        .filter(|(_, hook)| hook.layer == layer)
        .map(|(name, _)| name)
        .collect();
    Ok(move |name: &str| {
        let own = format!("l{layer}-{name}");
        let is_here = |name: &str| here.iter().any(|n| n == name);
        if !is_here(name) && is_here(&own) {
            own
        } else {
            name.to_owned()
        }
    })
}

fn no_such_hook(all: &[HookPoint]) -> Error {
    let names = joined(all);
    Error::usage(format!("this study has no such hook; it has {names}"))
}

fn several_hooks(all: &[HookPoint]) -> Error {
    let names = joined(all);
    Error::usage(format!(
        "this study has several hooks ({names}): choose one with --layer or --hook"
    ))
}

fn joined(hooks: &[HookPoint]) -> String {
    let names: Vec<String> = hooks.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Opens a saved fit or autoencoder, or makes another set of all the study's rows (k-means takes
/// seconds, the others less).
///
/// # Errors
/// What [`HookSelection::resolve`] and [`Baseline::make`](crate::directions::Baseline::make)
/// return; [`Error::Usage`] where there is no such fit or autoencoder.
pub fn open(
    study: &Study,
    kind: &SetKind,
    place: &HookSelection,
    ctx: &TaskCtx,
) -> Result<Box<dyn DirectionSet>> {
    open_with(study, kind, place, None, ctx)
}

/// [`open`] with the study's model at hand, which is asked for what a measured set still lacks.
///
/// # Errors
/// As [`open`]; what [`measured::open`] returns.
pub fn open_with(
    study: &Study,
    kind: &SetKind,
    place: &HookSelection,
    model: Option<&Model>,
    ctx: &TaskCtx,
) -> Result<Box<dyn DirectionSet>> {
    let baseline = match kind {
        SetKind::TextGradient { .. } | SetKind::Mixed { .. } => {
            let choosing = Choosing::whole(&*study.tokens()?);
            let ask = EffectRequest::default();
            let set = measured::open(study, kind, place, &choosing, &ask, model, ctx)?;
            return Ok(Box::new(set));
        }
        SetKind::Fit(Some(name)) => return fit_set(study, Some(name)),
        SetKind::Fit(None) => return fit_at(study, place),
        SetKind::Sae(name) => return sae_set(study, name.as_deref(), place),
        SetKind::File { path, hook } => return file_set(study, path, *hook, place),
        SetKind::Baseline { kind, .. } => *kind,
    };
    let (hook, fit) = place.of(kind).resolve(study)?;
    let source = study.activations(hook)?;
    let tokens = study.tokens()?;
    let data = BaselineData {
        hook,
        source: source.as_ref(),
        row_labels: row_labels(&tokens).into(),
        labels: tokens.labels.clone(),
        config: fit.map(|f| f.config).unwrap_or_default(),
    };
    Ok(Box::new(baseline.make(kind.to_string(), &data, ctx)?))
}

/// The fit at the place; where the place says neither layer nor hook, the fit that it names, or the
/// newest of the study.
fn fit_at(study: &Study, place: &HookSelection) -> Result<Box<dyn DirectionSet>> {
    if place.layer.is_none() && place.site.is_none() {
        return fit_set(study, place.fit.as_deref());
    }
    let (hook, fit) = place.resolve(study)?;
    let name = fit.map(|f| f.name).ok_or_else(|| {
        let (dir, layer) = (study.dir().display(), hook.layer);
        Error::usage(format!(
            "{dir} has no finished fit at {hook}: run mlpeek fit {dir} --layer {layer}"
        ))
    })?;
    fit_set(study, Some(&name))
}

/// The autoencoder of that name, or the newest at the place.
fn sae_set(
    study: &Study,
    name: Option<&str>,
    place: &HookSelection,
) -> Result<Box<dyn DirectionSet>> {
    let newest = study
        .saes()?
        .into_iter()
        .rev()
        .find(|s| s.figures.is_some() && place.admits(s.hook))
        .map(|s| s.name);
    let (entry, sae) = study.load_sae(name.or(newest.as_deref()))?;
    Ok(Box::new(SaeSet::new(&entry.name, entry.hook, sae)))
}

/// The directions of a file: at the hook that `kind` names, else that of the place, else the one
/// that the file says, else the only one of the study.
fn file_set(
    study: &Study,
    path: &str,
    hook: Option<HookPoint>,
    place: &HookSelection,
) -> Result<Box<dyn DirectionSet>> {
    let file = disk::expand_home(path);
    if !file.is_file() {
        return Err(Error::usage(format!("there is no file {}", file.display())));
    }
    let manifest = study.manifest();
    let said = || -> Result<Option<HookPoint>> {
        let name = direction_file::hook_named_in(&file)?;
        let is = |hook: &&HookPoint| Some(hook.to_string()) == name;
        Ok(manifest.hooks.iter().find(is).copied())
    };
    let is_placed = place.layer.is_some() || place.site.is_some();
    let hook = match (hook, is_placed) {
        (Some(hook), _) => hook,
        (None, true) => place.only_hook(study)?,
        (None, false) => match said()? {
            Some(hook) => hook,
            None => HookSelection::default().only_hook(study)?,
        },
    };
    let width = manifest.widths[manifest.hook_index(hook)?];
    let block = (hook.site == HookSite::ResidPost).then_some(hook.layer);
    let found = direction_file::read(&file, width, block)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let directions = Directions::Dense {
        d: width,
        columns: found.columns,
    };
    let name = format!("file:{name}");
    Ok(Box::new(PlainSet::new(
        name,
        hook,
        directions,
        found.titles,
    )))
}

fn fit_set(study: &Study, name: Option<&str>) -> Result<Box<dyn DirectionSet>> {
    let (entry, factors) = study.load_fit(name)?;
    Ok(Box::new(FitSet::new(entry.name, entry.hook, factors)))
}

/// The label of each row.
pub fn row_labels(tokens: &TokenTable) -> Vec<Option<u32>> {
    tokens
        .rows
        .iter()
        .map(|r| {
            tokens
                .sample_labels
                .get(r.sample as usize)
                .copied()
                .flatten()
        })
        .collect()
}

/// Names for the list: what a person gave, else what the set calls its directions.
///
/// # Errors
/// Notes that cannot be read.
pub fn names(study: &Study, set: &dyn DirectionSet) -> Result<Notes> {
    let mut notes = study.notes(set.name())?;
    for id in 0..set.directions().count() {
        if let Some(title) = set.title(id) {
            notes.names.entry(id).or_insert_with(|| title.to_owned());
        }
    }
    Ok(notes)
}
