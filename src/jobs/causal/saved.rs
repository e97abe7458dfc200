//! Evaluations of a study as they lie on the disk: which there are, what each came to so far, and the
//! texts of a method. Asks no model.
//!
//! Invariant: what is read back is what the log says; nothing is generated or judged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::{Causal, Unreached};
use super::{MOST_WORDS, against, leading};
use crate::disk;
use crate::error::{Error, Result};
use crate::eval::steering::log::{Log, PLAN};
use crate::eval::steering::measures::measures;
use crate::eval::steering::offline::OFFLINE;
use crate::eval::steering::report::{ReportLine, compare, report};
use crate::eval::steering::rise::rises;
use crate::eval::steering::worded::PROMPT;
use crate::eval::steering::{CHANCE, SteeringConfig, UNSTEERED, chance_at, texts_of, unreached};
use crate::study::Study;

/// An evaluation that a study keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedEvaluation {
    /// Its name in the study.
    pub name: String,
    /// Its methods, in the order in which they were asked for; prompting, if it was, last.
    pub methods: Vec<String>,
    /// The hook of its first method.
    pub hook: String,
    /// How many labels it is of.
    pub labels: usize,
    /// The KL targets.
    pub targets: Vec<f64>,
    /// Steered texts that are written, and how many there will be at most.
    pub texts: (usize, usize),
    /// Seconds since the Unix epoch of its last change.
    pub modified: u64,
}

/// The texts of a method beside the unsteered ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedTexts {
    /// The evaluation's name.
    pub evaluation: String,
    /// The method.
    pub method: String,
    /// A label each, in the order of the corpus.
    pub labels: Vec<EvaluatedLabel>,
    /// The prompts that were continued.
    pub prompts: Vec<String>,
    /// Of each prompt an unsteered text, where one is there.
    pub unsteered: Vec<String>,
}

/// What a method did for a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedLabel {
    /// The label.
    pub label: String,
    /// The number of the direction that was chosen for it; `None` where the model was asked in words.
    pub direction: Option<usize>,
    /// The words that texts are searched for, those first that stand out most.
    pub words: Vec<String>,
    /// Where its words stand among all tokens' changes, promoting, at each KL target.
    pub rises: Vec<(f64, f64)>,
    /// The texts.
    pub texts: Vec<EvaluatedText>,
}

/// A steered text with its judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedText {
    /// The KL target.
    pub target: f64,
    /// 1 promotes, −1 suppresses.
    pub sign: i8,
    /// Which prompt it continues.
    pub prompt: usize,
    /// The strength.
    pub alpha: f64,
    /// The text.
    pub text: String,
    /// The harmonic mean of concept and fluency; `None` where it has no rating.
    pub score: Option<f64>,
}

/// What of a plan is read back.
#[derive(Deserialize)]
struct Plan {
    config: SteeringConfig,
    directions: Vec<(String, String, usize, String, String)>,
    seed: u64,
    /// A digest of each label's request, where the model was asked in words.
    #[serde(default)]
    asked: Vec<String>,
    /// First rows of the sentences that chose nothing.
    #[serde(default)]
    held_out: Vec<usize>,
}

impl Plan {
    /// What each direction's first value is, each once, in order.
    fn distinct(
        &self,
        part: impl Fn(&(String, String, usize, String, String)) -> &String,
    ) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for direction in &self.directions {
            let part = part(direction);
            if !out.contains(part) {
                out.push(part.clone());
            }
        }
        out
    }

    fn methods(&self) -> Vec<String> {
        let mut methods = self.distinct(|d| &d.0);
        methods.extend((!self.asked.is_empty()).then(|| PROMPT.to_owned()));
        methods
    }

    /// The most texts there will be.
    fn texts(&self) -> usize {
        let asked = self.asked.len() * self.config.prompts.len() * self.config.samples;
        texts_of(self.directions.len(), &self.config) + asked
    }

    /// The labels of a method, each with the number of its direction.
    fn of_method(&self, method: &str) -> Vec<(String, Option<usize>)> {
        if method == PROMPT && !self.asked.is_empty() {
            let labels = self.labels().into_iter();
            return labels.map(|label| (label, None)).collect();
        }
        let own = self.directions.iter().filter(|d| d.0 == method);
        own.map(|d| (d.1.clone(), Some(d.2))).collect()
    }

    fn labels(&self) -> Vec<String> {
        self.distinct(|d| &d.1)
    }
}

fn read(dir: &Path) -> Result<(Plan, Log)> {
    let path = dir.join(PLAN);
    let bytes = disk::read_regular(&path).map_err(Error::io("read", &path))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(&path, format!("not a plan: {e}")))?;
    let plan = Plan::deserialize(&value)
        .map_err(|e| Error::file(&path, format!("not a plan of a steering evaluation: {e}")))?;
    Ok((plan, Log::read(dir, &value)?))
}

/// The steering evaluations of a study, the newest first; those by descriptions and those that cannot
/// be read are left out.
///
/// # Errors
/// A directory that cannot be listed.
pub fn saved(study: &Study) -> Result<Vec<SavedEvaluation>> {
    let root = study.dir().join("evaluations");
    let entries = match std::fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", &root)(e)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let dir = entry.map_err(Error::io("list", &root))?.path();
        let Ok((plan, log)) = read(&dir) else {
            continue;
        };
        let written = log.texts().iter().filter(|t| t.key.method != UNSTEERED);
        let newest = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let modified = newest.filter_map(|file| file.metadata().ok()?.modified().ok());
        let modified = modified
            .filter_map(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            .map(|at| at.as_secs());
        all.push(SavedEvaluation {
            name: dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            methods: plan.methods(),
            hook: plan
                .directions
                .first()
                .map(|d| d.3.clone())
                .unwrap_or_default(),
            labels: plan.labels().len(),
            texts: (written.count(), plan.texts()),
            targets: plan.config.targets,
            modified: modified.max().unwrap_or(0),
        });
    }
    all.sort_by(|a, b| b.modified.cmp(&a.modified).then(a.name.cmp(&b.name)));
    Ok(all)
}

/// The offline judge, or the first other one that has rated texts.
fn judge_of(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut judges: Vec<String> = files
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            Some(
                name.strip_prefix("judged-")?
                    .strip_suffix(".jsonl")?
                    .to_owned(),
            )
        })
        .collect();
    judges.sort();
    if judges.iter().any(|judge| judge == OFFLINE) || judges.is_empty() {
        return OFFLINE.to_owned();
    }
    judges.remove(0)
}

/// What an evaluation came to so far, by its log. What unsteered texts score and how far words were
/// counted in texts is not kept, and not told.
///
/// # Errors
/// [`Error::Usage`] for a name that is none; a plan or a log that cannot be read.
pub fn reopen(study: &Study, name: &str) -> Result<Causal> {
    let dir = study.evaluation_path(name)?;
    let (plan, log) = read(&dir)?;
    let judge = judge_of(&dir);
    let judged = log.judged(&judge)?;
    let lines: Vec<ReportLine> = plan.methods().iter().map(|m| ReportLine::one(m)).collect();
    let methods = report(&judged, &lines, plan.seed);
    let hook_of = |line: &ReportLine| {
        let at = plan.directions.iter().find(|d| d.0 == line.name);
        at.map(|d| d.3.clone()).unwrap_or_default()
    };
    let hooks: Vec<String> = lines.iter().map(hook_of).collect();
    let random_of = |name: &str| {
        let at = lines.iter().position(|line| line.name == name);
        match at.and_then(|i| hooks.get(i)) {
            Some(hook) if !hook.is_empty() && Some(hook) != hooks.first() => chance_at(hook),
            _ => CHANCE.to_owned(),
        }
    };
    let rises_beside = measures(
        log.strengths(),
        &lines,
        &against(&lines),
        &random_of,
        plan.seed,
    );
    let steered = log.texts().iter().filter(|t| t.key.method != UNSTEERED);
    let none = log.strengths().iter().filter(|s| !s.reached).count();
    let out_of_reach = none * plan.config.prompts.len() * plan.config.samples;
    Ok(Causal {
        name: name.to_owned(),
        hook: hooks.first().cloned().unwrap_or_default(),
        hooks,
        meaning: String::new(),
        labels: plan.labels(),
        not_judged: Vec::new(),
        aurocs: Vec::new(),
        unrated: None,
        compared: compare(&methods, plan.seed),
        methods,
        unseen: Vec::new(),
        free_texts: Vec::new(),
        rises: rises(log.strengths(), &lines, plan.seed),
        measures: rises_beside,
        stopped: steered.count() + out_of_reach < plan.texts(),
        unsteered: None,
        unreached: Unreached::of(unreached(log.strengths())),
        judge,
        dir,
    })
}

/// The texts of a method, with the directions that were chosen and the labels' words.
///
/// # Errors
/// As [`reopen`]; [`Error::Usage`] for a method that it has not.
pub fn texts(study: &Study, name: &str, method: &str) -> Result<EvaluatedTexts> {
    let dir = study.evaluation_path(name)?;
    let (plan, log) = read(&dir)?;
    let chosen = plan.of_method(method);
    if chosen.is_empty() {
        return Err(Error::usage(format!(
            "evaluation '{name}' has no method '{}'",
            method.escape_debug()
        )));
    }
    let labels: Vec<String> = chosen.iter().map(|(label, _)| label.clone()).collect();
    let words = words(study, &plan, &labels)?;
    let judged = log.judged(&judge_of(&dir))?;
    let scores: HashMap<String, f64> = judged
        .iter()
        .filter_map(|j| Some((j.key.id(), j.judgement.score()?)))
        .collect();
    let mut texts: BTreeMap<&str, Vec<EvaluatedText>> = BTreeMap::new();
    for text in log.texts().iter().filter(|t| t.key.method == method) {
        texts
            .entry(&text.key.label)
            .or_default()
            .push(EvaluatedText {
                target: text.key.target,
                sign: text.key.sign,
                prompt: text.key.prompt,
                alpha: text.alpha,
                text: text.text.clone(),
                score: scores.get(&text.key.id()).copied(),
            });
    }
    let rises = |label: &str| {
        let own = log
            .strengths()
            .iter()
            .filter(|s| s.method == method && s.label == label && s.sign > 0 && s.reached);
        own.filter_map(|s| Some((s.target, s.rise?))).collect()
    };
    let of_label = |((label, direction), words): ((String, Option<usize>), _)| EvaluatedLabel {
        words,
        direction,
        rises: rises(&label),
        texts: texts.remove(label.as_str()).unwrap_or_default(),
        label,
    };
    let labels = chosen.into_iter().zip(words).map(of_label);
    let labels = labels.collect();
    let unsteered = |prompt: usize| {
        let mut all = log.texts().iter();
        let text = all.find(|t| t.key.method == UNSTEERED && t.key.prompt == prompt);
        text.map(|t| t.text.clone()).unwrap_or_default()
    };
    Ok(EvaluatedTexts {
        evaluation: name.to_owned(),
        method: method.to_owned(),
        labels,
        unsteered: (0..plan.config.prompts.len()).map(unsteered).collect(),
        prompts: plan.config.prompts,
    })
}

/// The words of each label, of the sentences that chose nothing.
fn words(study: &Study, plan: &Plan, labels: &[String]) -> Result<Vec<Vec<String>>> {
    let tokens = study.tokens()?;
    let sentence = |&row: &usize| {
        let sample = tokens.rows.get(row)?.sample as usize;
        Some((tokens.label(row)?, tokens.texts.get(sample)?.as_str()))
    };
    let sentences: Vec<(&str, &str)> = plan.held_out.iter().filter_map(sentence).collect();
    Ok(leading(&sentences, labels, MOST_WORDS))
}
