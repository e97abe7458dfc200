//! From a study to what is evaluated: methods, the directions that each offers for a label, and the
//! sentences that each part of an evaluation may see.

mod method;

use super::directions::{self, HookSelection};
use super::measured::{self, Choosing, EffectRequest};
use crate::corpus::TokenTable;
use crate::directions::{Baseline, BaselineData, DirectionSet, PlainSet, SetKind};
use crate::error::{Error, Result};
use crate::eval::detection::{Choice, Detector, LabelDetection};
use crate::eval::score::each_strip;
use crate::eval::split::{RowView, Split};
use crate::eval::steering::report::ReportLine;
use crate::eval::unseen::Divided;
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::TaskCtx;
pub use method::Method;
use method::single;

/// What is evaluated where nothing is named: [`Method::usual`], with the trained and loaded
/// autoencoders of the same hook.
///
/// # Errors
/// What [`HookSelection::resolve`] returns.
pub fn usual_of(study: &Study, place: &HookSelection) -> Result<Vec<Method>> {
    let (hook, _) = place.resolve(study)?;
    let mut methods = Method::usual();
    let saes = study
        .saes()?
        .into_iter()
        .filter(|s| s.hook == hook && s.figures.is_some());
    // An autoencoder follows the fit and the supervised baselines, before the other baselines.
    let first_unsupervised = methods
        .iter()
        .skip(1)
        .position(|m| !matches!(m, Method::Set(kind) if kind.supervised()))
        .map_or(methods.len(), |at| at + 1);
    methods.splice(
        first_unsupervised..first_unsupervised,
        saes.map(|s| Method::Set(SetKind::Sae(Some(s.name)))),
    );
    Ok(methods)
}

/// Whom measured sets ask, and what: without a model they are made of what the study holds.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The study's model.
    pub model: Option<&'a Model>,
    /// How directions' effects are measured.
    pub effects: &'a EffectRequest,
}

/// A method with its directions and the one chosen for each scored label.
pub struct MethodDirections {
    /// For tables: "k100", "diffmean", "k100, shuffled labels".
    pub name: String,
    /// The method whose directions these are.
    pub method: Method,
    /// Its set of directions.
    pub set: Box<dyn DirectionSet>,
    /// For each scored label the direction chosen on the training sentences.
    pub found: Vec<LabelDetection>,
}

impl MethodDirections {
    /// Opens a method's directions, the supervised ones made of the training sentences alone, and
    /// chooses one for each label that `divided` scores. The other sets see all sentences, but no
    /// label. `shuffled` is the fit whose features [`Method::Shuffled`] takes.
    ///
    /// # Errors
    /// What [`directions::open`] returns; [`Error::Refused`] when the corpus has no labels that can
    /// be scored.
    pub fn choose(
        study: &Study,
        method: &Method,
        shuffled: &SetKind,
        place: &HookSelection,
        divided: &Divided<'_>,
        seed: u64,
        asked: Asked<'_>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let Divided { tokens, split, .. } = divided;
        check_labels(split, tokens)?;
        let (kind, choice) = match method {
            Method::Set(kind) if kind.supervised() => (kind, Choice::Own),
            Method::Set(kind) => (kind, Choice::Best),
            Method::Shuffled => (shuffled, Choice::Best),
            Method::Mean(_) => {
                return Err(Error::usage(format!(
                    "{method} is several methods: choose each"
                )));
            }
            Method::Prompt => {
                return Err(Error::usage(
                    "prompt asks the model in words and has no direction: it stands alone, beside what steers (mlpeek eval steering)",
                ));
            }
        };
        let set: Box<dyn DirectionSet> = match kind {
            SetKind::Baseline { kind, hook } if kind.supervised() => {
                Box::new(supervised(study, *kind, *hook, place, divided, ctx)?)
            }
            kind if kind.is_measured() => {
                let choosing = Choosing::of_split(split, tokens);
                let Asked { model, effects } = asked;
                let set = measured::open(study, kind, place, &choosing, effects, model, ctx)?;
                Box::new(set)
            }
            kind => directions::open(study, kind, place, ctx)?,
        };
        let shuffled = (*method == Method::Shuffled).then(|| split.shuffled(seed));
        let split = shuffled.as_ref().unwrap_or(split);
        let mut detector = Detector::new(split, choice);
        let source = study.activations(set.hook())?;
        each_strip(
            source.as_ref(),
            &split.sentences,
            set.directions(),
            ctx,
            |scores| {
                detector.add_strip(scores);
                Ok(())
            },
        )?;
        let name = match method {
            Method::Shuffled => format!("{}, shuffled labels", set.name()),
            Method::Set(_) | Method::Mean(_) | Method::Prompt => set.name().to_owned(),
        };
        Ok(Self {
            name,
            method: method.clone(),
            set,
            found: detector.finish(),
        })
    }
}

/// What every method offers, and how it is reported on.
#[derive(Default)]
pub struct Choices {
    /// Every method that a line has, each once.
    pub offered: Vec<MethodDirections>,
    /// What tables have a line for: a method, or several as one. Their members by name.
    pub reported: Vec<ReportLine>,
}

impl Choices {
    /// Where each line's directions live.
    pub fn hooks(&self) -> Vec<(String, HookPoint)> {
        let hook = |line: &ReportLine| {
            self.members(line)
                .next()
                .map(|o| (line.name.clone(), o.set.hook()))
        };
        self.reported.iter().filter_map(hook).collect()
    }

    /// The same for every line that is reported on, also one without directions.
    pub fn line_hooks(&self) -> Vec<Option<HookPoint>> {
        let hook = |line: &ReportLine| self.members(line).next().map(|o| o.set.hook());
        self.reported.iter().map(hook).collect()
    }

    /// The methods of a line.
    pub fn members<'a>(
        &'a self,
        line: &'a ReportLine,
    ) -> impl Iterator<Item = &'a MethodDirections> {
        self.offered
            .iter()
            .filter(|o| line.members.contains(&o.name))
    }
}

/// [`MethodDirections::choose`] for each of `methods`; none means [`usual_of`] the study. What is shuffled
/// is the first fit among them.
///
/// # Errors
/// What [`MethodDirections::choose`] returns; [`Error::Usage`] for a mean over methods of different hooks.
pub fn choose_all(
    study: &Study,
    methods: &[Method],
    place: &HookSelection,
    divided: &Divided<'_>,
    seed: u64,
    asked: Asked<'_>,
    ctx: &TaskCtx,
) -> Result<Choices> {
    let usual = if methods.is_empty() {
        usual_of(study, place)?
    } else {
        Vec::new()
    };
    let methods = if methods.is_empty() { &usual } else { methods };
    let is_fit = |m: &&Method| matches!(m, Method::Set(SetKind::Fit(_)));
    let shuffled = match methods.iter().flat_map(single).find(is_fit) {
        Some(Method::Set(kind)) => kind,
        _ => &SetKind::FIT,
    };
    let mut choices = Choices {
        offered: Vec::new(),
        reported: Vec::new(),
    };
    for method in methods {
        let mut members = Vec::new();
        for method in single(method) {
            let known = choices
                .offered
                .iter()
                .find(|o| o.method == *method)
                .map(|o| o.name.clone());
            let name = match known {
                Some(name) => name,
                None => {
                    let offered = MethodDirections::choose(
                        study, method, shuffled, place, divided, seed, asked, ctx,
                    )?;
                    let name = offered.name.clone();
                    // One fit by two names: fit, and the name of the newest.
                    if choices.offered.iter().all(|o| o.name != name) {
                        choices.offered.push(offered);
                    }
                    name
                }
            };
            members.push(name);
        }
        choices.reported.push(ReportLine {
            name: members.join("+"),
            members,
        });
    }
    for line in &choices.reported {
        let mut hooks = choices.members(line).map(|o| o.set.hook());
        let first = hooks.next();
        if hooks.any(|hook| Some(hook) != first) {
            return Err(Error::usage(format!(
                "{}: a mean wants methods of one hook",
                line.name
            )));
        }
    }
    Ok(choices)
}

/// A supervised baseline of the training sentences, one direction a scored label, at `hook` or else
/// at `place`.
///
/// # Errors
/// What [`HookSelection::resolve`], opening the rows, and [`Baseline::make`] return.
pub fn supervised(
    study: &Study,
    kind: Baseline,
    hook: Option<HookPoint>,
    place: &HookSelection,
    divided: &Divided<'_>,
    ctx: &TaskCtx,
) -> Result<PlainSet> {
    let Divided { tokens, split, .. } = divided;
    let set = SetKind::Baseline { kind, hook };
    let (hook, fit) = place.of(&set).resolve(study)?;
    let source = study.activations(hook)?;
    let train = RowView::new(source.as_ref(), split.rows(false));
    let of_sentence = |label: Option<u32>| {
        split
            .labels
            .binary_search(&label?)
            .ok()
            .map(|place| place as u32)
    };
    let sentences = split.sentences.iter().filter(|s| !s.held_out);
    let row_labels: Vec<Option<u32>> = sentences
        .flat_map(|s| std::iter::repeat_n(of_sentence(s.label), s.rows.len()))
        .collect();
    let data = BaselineData {
        hook,
        source: &train,
        row_labels: row_labels.into(),
        labels: split
            .labels
            .iter()
            .map(|&l| tokens.labels[l as usize].clone())
            .collect(),
        config: fit.map(|f| f.config).unwrap_or_default(),
    };
    kind.make(set.to_string(), &data, ctx)
}

/// Refuses a corpus of which no label can be told from another.
fn check_labels(split: &Split, tokens: &TokenTable) -> Result<()> {
    if !split.labels.is_empty() {
        return Ok(());
    }
    Err(Error::refused(match tokens.labels.len() {
        0 => "the corpus has no labels: collect one that has (JSON: label → list of texts)"
            .to_owned(),
        n => format!(
            "of {n} labels no two have 4 sentences or more, which choosing and holding out need: add sentences to them"
        ),
    }))
}

/// What a method is called beside others: with its hook where theirs differ and its name does not
/// tell it.
pub fn shown(name: &str, hook: &str, differ: bool) -> String {
    if differ && !name.contains('@') {
        format!("{name} at {hook}")
    } else {
        name.to_owned()
    }
}

/// What a person is told where methods do not live in one space.
pub fn spaces_note(hooks: &[(String, HookPoint)]) -> Option<String> {
    let first = hooks.first()?.1;
    hooks.iter().any(|(_, hook)| *hook != first).then(|| {
        let each: Vec<_> = hooks
            .iter()
            .map(|(name, hook)| format!("{name} at {hook}"))
            .collect();
        format!(
            "these methods live in different spaces, so their strengths differ in kind: {}",
            each.join(", ")
        )
    })
}

/// Sentences of one side as (label, text), for a judge to learn from.
pub fn sentences<'a>(divided: &'a Divided<'_>, held_out: bool) -> Vec<(&'a str, &'a str)> {
    let (split, tokens) = (&divided.split, divided.tokens.as_ref());
    let side = split.sentences.iter().filter(|s| s.held_out == held_out);
    side.filter_map(|s| {
        let label = s.label.filter(|l| split.labels.binary_search(l).is_ok())?;
        let sample = tokens.rows.get(s.rows.start)?.sample as usize;
        Some((
            tokens.labels[label as usize].as_str(),
            tokens.texts[sample].as_str(),
        ))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HookSite;

    #[test]
    fn methods_in_different_spaces_get_a_note() {
        let hook = |layer| HookPoint {
            layer,
            site: HookSite::MlpPost,
        };
        let one = [("a".to_owned(), hook(1)), ("b".to_owned(), hook(1))];
        assert_eq!(spaces_note(&one), None);
        let two = [("a".to_owned(), hook(1)), ("b".to_owned(), hook(2))];
        assert!(
            spaces_note(&two)
                .unwrap()
                .contains("b at blocks.2.mlp.hook_post")
        );
        assert_eq!(
            (
                shown("b", "h", true).as_str(),
                shown("b", "h", false).as_str()
            ),
            ("b at h", "b")
        );
        assert_eq!(
            shown("diffmean@2.hook_mlp_out", "blocks.2.hook_mlp_out", true),
            "diffmean@2.hook_mlp_out"
        );
    }
}
