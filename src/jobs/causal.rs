//! The causal evaluation from a study to its table: prepared with the study at hand, run with the
//! model alone, so that nobody waits for the study while texts are generated.

mod chosen;
mod controls;
mod outcome;
mod plan;
pub mod saved;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::choice::{Choose, first_tokens, with_capitals};
use super::directions::HookSelection;
use super::evaluation::{self, Asked, Method};
use super::measured::{EffectRequest, MOST_WORDS, computed, own_tokens, poor_words};
use crate::amounts::duration;
use crate::error::{Error, Result};
use crate::eval::split::Holdout;
use crate::eval::steering::free_text::free_texts;
use crate::eval::steering::judge::{Judgement, RatingCase, TextJudge};
use crate::eval::steering::log::Log;
use crate::eval::steering::meaning::MeaningJudge;
use crate::eval::steering::measures::measures;
use crate::eval::steering::offline::OfflineJudge;
use crate::eval::steering::report::{ReportLine, compare, report};
use crate::eval::steering::rise::rises;
use crate::eval::steering::vocabulary::{leading, vocabulary};
use crate::eval::steering::worded::{PROMPT, WordedConcept, asked_ids, concept_of, how_asked};
use crate::eval::steering::{
    LabelDirection, Run, RunEvent, SteeringConfig, TextRecord, WatchedWords, asked_texts_of,
    texts_of, unreached,
};
use crate::eval::unseen::Divided;
use crate::model::encoder::SentenceEncoder;
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::TaskCtx;
use chosen::{
    ByWords, ChosenDirection, Side, chance_directions, chance_hooks, chance_of, chosen_directions,
    digest_of, lifted, subjects,
};
use controls::{against, among_more, check_prompts, check_shuffled, watched, with_controls};
pub(super) use outcome::unsteered_scores;
pub use outcome::{Causal, Scores, Unreached};
pub use plan::{Plan, beside};

/// What is asked of a causal evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CausalRequest {
    /// The methods; the first is compared with the others. None means [`evaluation::usual_of`] the
    /// study.
    pub methods: Vec<Method>,
    /// Where in the study directions are taken from that name no hook.
    pub place: HookSelection,
    /// Which sentences choose nothing.
    pub holdout: Holdout,
    /// Whether labels are families, and whole members of them choose nothing.
    #[serde(default)]
    pub unseen: bool,
    /// Labels; none means all that can be scored.
    pub labels: Vec<String>,
    /// By which side of a direction it is chosen for a label.
    #[serde(default)]
    pub choose: Choose,
    /// How directions' effects are measured, where these choose.
    #[serde(default)]
    pub effects: EffectRequest,
    /// How texts are steered and sampled.
    pub config: SteeringConfig,
    /// Its name in the study; `None`: made of all this.
    pub name: Option<String>,
    /// Of shuffling and the bootstrap.
    pub seed: u64,
    /// Whether only the price is asked for, and no log is begun.
    #[serde(default)]
    pub dry_run: bool,
}

impl Default for CausalRequest {
    /// What `mlpeek eval steering` asks where nothing is said.
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            place: HookSelection::default(),
            holdout: Holdout {
                share: 0.5,
                ..Holdout::default()
            },
            unseen: false,
            labels: Vec::new(),
            choose: Choose::Input,
            effects: EffectRequest::default(),
            config: SteeringConfig::default(),
            name: None,
            seed: 42,
            dry_run: false,
        }
    }
}

/// An evaluation that needs nothing more of its study.
pub struct Prepared {
    name: String,
    log: Log,
    config: SteeringConfig,
    seed: u64,
    reported: Vec<ReportLine>,
    /// Where each of them lives; what is asked in words lives nowhere.
    hooks: Vec<Option<HookPoint>>,
    /// Whether the model is also asked in words.
    asks: bool,
    /// A direction a method and label, as it is in its set.
    directions: Vec<ChosenDirection>,
    labels: Vec<String>,
    /// The words that are watched, and the random directions that tell what chance gives them.
    watched: WatchedWords,
    chance: Vec<LabelDirection>,
    /// The line that the measures of the others are compared with.
    against: String,
    /// (label, text) that chose nothing, and those that chose.
    learn: Vec<(String, String)>,
    scale: Vec<(String, String)>,
    /// Of each label the words that texts are searched for.
    own_words: BTreeMap<String, Vec<String>>,
    /// Members of families of which nothing chose.
    unseen: Vec<String>,
    notes: Vec<String>,
}

/// Chooses directions and opens the log.
///
/// # Errors
/// What [`evaluation::MethodDirections::choose`] and [`Log::open`] return; [`Error::Usage`] for a
/// label that is not there and without a method.
pub fn prepare(
    study: &Study,
    ask: &CausalRequest,
    model: &Model,
    ctx: &TaskCtx,
) -> Result<Prepared> {
    let all_tokens = study.tokens()?;
    let divided = Divided::new(&all_tokens, &ask.holdout, ask.unseen)?;
    let (split, tokens) = (&divided.split, divided.tokens.as_ref());
    ask.config.check()?;
    if let Some(missing) = ask.labels.iter().find(|l| !tokens.labels.contains(l)) {
        return Err(Error::usage(format!(
            "the corpus has no label '{}'",
            missing.escape_debug()
        )));
    }
    check_prompts(ask)?;
    // Before the model is asked about all of them.
    let scored: Vec<&String> = split
        .labels
        .iter()
        .map(|&l| &tokens.labels[l as usize])
        .collect();
    if let Some(small) = ask.labels.iter().find(|l| !scored.contains(l)) {
        return Err(Error::refused(format!(
            "'{}' has fewer than 4 sentences, which choosing and holding out need: leave it out, or add sentences to it",
            small.escape_debug()
        )));
    }
    let asked = Asked {
        model: Some(model),
        effects: &ask.effects,
    };
    let labels: Vec<String> = split
        .labels
        .iter()
        .map(|&l| tokens.labels[l as usize].clone())
        .collect();
    let labels: Vec<String> = labels
        .into_iter()
        .filter(|l| ask.labels.is_empty() || ask.labels.contains(l))
        .collect();
    let mut methods = with_controls(study, ask)?;
    check_shuffled(&mut methods, ask, labels.len())?;
    let asks_at = methods.iter().position(|m| *m == Method::Prompt);
    methods.retain(|m| *m != Method::Prompt);
    let mut choices = match methods.is_empty() {
        true => evaluation::Choices::default(),
        false => {
            evaluation::choose_all(study, &methods, &ask.place, &divided, ask.seed, asked, ctx)?
        }
    };
    let all = &choices.offered;
    let train = evaluation::sentences(&divided, false);
    let by_words = |side: Side<'_>, tokens: &[Vec<u32>]| -> Result<Vec<ByWords>> {
        let each = all.iter();
        each.map(|offered| lifted(offered, side, tokens, model, ctx))
            .collect()
    };
    let choosing = own_tokens(model, &train, &labels)?;
    let chosen = match ask.choose {
        Choose::Input => vec![None; all.len()],
        Choose::Output => {
            let words = vocabulary(&train, &labels);
            let tokens = words
                .iter()
                .map(|w| first_tokens(model, &with_capitals(w)))
                .collect::<Result<Vec<_>>>()?;
            by_words(Side::Output, &tokens)?
        }
        Choose::Effect => by_words(Side::Effect(study, &ask.effects), &choosing)?,
    };
    let held_out = evaluation::sentences(&divided, true);
    let watched = watched(&labels, own_tokens(model, &held_out, &labels)?, &choosing);
    let directions = chosen_directions(all, &chosen, &labels, &tokens.labels);
    // Methods that name their own hooks need no place, and the default's sparsity is taken then.
    let fit = ask.place.resolve(study).ok().and_then(|(_, fit)| fit);
    let config_at = fit.map(|f| f.config).unwrap_or_default();
    let among_more = match ask.choose {
        Choose::Effect => among_more(all, config_at.features),
        Choose::Input | Choose::Output => None,
    };
    let hooks = choices.hooks();
    let mut chance = Vec::new();
    for (hook, name) in chance_hooks(&hooks) {
        chance.extend(chance_directions(
            model,
            (hook, &name),
            |d| config_at.sparsity_at(d),
            ask.seed,
        )?);
    }
    // Everything that decides a text: another plan is another evaluation.
    let mut plan = json!({"words": watched.words, "chance": digest_of(&chance), "config": ask.config, "model": computed(study, model), "split": split.labels.len(), "seed": ask.seed,
        "held_out": split.sentences.iter().filter(|s| s.held_out).map(|s| s.rows.start).collect::<Vec<_>>(),
        "directions": directions.iter().map(|o| json!([o.method, o.label, o.direction, o.hook.to_string(),
            format!("{:016x}", xxh3_64(bytemuck::cast_slice::<f32, u8>(&o.column)))])).collect::<Vec<_>>()});
    if let Some(at) = asks_at {
        choices.reported.insert(at, ReportLine::one(PROMPT));
        plan["asked"] = json!(asked_digests(
            model,
            &ask.config,
            labels.iter().map(|l| concept_of(l))
        )?);
    }
    let name = ask
        .name
        .clone()
        .unwrap_or_else(|| format!("steering-{:016x}", xxh3_64(plan.to_string().as_bytes())));
    let log = match ask.dry_run {
        true => Log::read(&study.evaluation_path(&name)?, &plan)?,
        false => Log::open(&study.evaluation_dir(&name)?, &plan)?,
    };
    let owned = |held_out| {
        let sentences = evaluation::sentences(&divided, held_out).into_iter();
        sentences
            .map(|(label, text)| (label.to_owned(), text.to_owned()))
            .collect()
    };
    let poor = poor_words(model, &held_out, &labels)?;
    let own_words = leading(&held_out, &labels, MOST_WORDS);
    let against = against(&choices.reported);
    Ok(Prepared {
        watched,
        chance,
        against,
        name,
        log,
        config: ask.config.clone(),
        seed: ask.seed,
        hooks: choices.line_hooks(),
        asks: asks_at.is_some(),
        reported: choices.reported,
        directions,
        labels: labels.clone(),
        learn: owned(true),
        scale: owned(false),
        notes: divided
            .notes()
            .into_iter()
            .chain(evaluation::spaces_note(&hooks))
            .chain(poor)
            .chain(among_more)
            .chain(asks_at.map(|_| how_asked(model)))
            .collect(),
        own_words: labels.into_iter().zip(own_words).collect(),
        unseen: divided.unseen,
    })
}

/// Who rates the texts. Ratings of two judges are never in one table.
pub enum Judging<'a> {
    /// The offline judge, by the labels' own words.
    Words,
    /// A sentence encoder, by meaning.
    Meaning(&'a SentenceEncoder),
    /// Another judge, such as a language model behind an endpoint.
    Asked(&'a mut dyn TextJudge),
}

impl Prepared {
    /// Its name in the study.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Generates and judges what is not there yet. `note` gets remarks for a person. Stopped on the
    /// way, it gives what it has come to, marked so.
    ///
    /// # Errors
    /// [`Error::Refused`] when no label can be judged; what the model, the log and the judge
    /// return.
    pub fn run(
        mut self,
        model: &Model,
        judging: Judging<'_>,
        note: &mut dyn FnMut(&str),
        seen: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<Causal> {
        self.notes.iter().for_each(|n| note(n));
        let texts_before = self.log.texts().len();
        let steered = self.plan().written;
        let begun = Instant::now();
        let mut run = Run::new(model, &self.config, &self.watched, &mut self.log)?;
        let unsteered = run.unsteered(ctx)?;
        // What was just generated tells how long the rest takes; where all was there, the progress
        // tells it.
        let fresh = (unsteered.len() + steered).saturating_sub(texts_before);
        let seconds_a_text = (fresh > 0).then(|| begun.elapsed().as_secs_f64() / fresh as f64);
        let (learn, scale) = (pairs(&self.learn), pairs(&self.scale));
        let (mut words, mut meaning, mut aurocs) = (None, None, Vec::new());
        let (judge, left_out): (&mut dyn TextJudge, _) = match judging {
            Judging::Asked(judge) => (judge, Vec::new()),
            Judging::Words => {
                let (judge, left_out) = OfflineJudge::learn(&learn, &scale, &unsteered);
                (words.insert(judge), left_out)
            }
            Judging::Meaning(encoder) => {
                let (judge, left_out) =
                    MeaningJudge::learn(encoder, &learn, &scale, &unsteered, ctx)?;
                aurocs = judge.aurocs().to_vec();
                (meaning.insert(judge), left_out)
            }
        };
        // Where no text is written nothing is judged, and a label needs no judge that knows it.
        let judged = self.config.samples > 0;
        let not_judged: Vec<(String, String)> = left_out
            .into_iter()
            .filter(|(l, _)| judged && self.labels.contains(l))
            .collect();
        if !not_judged.is_empty() {
            let each: Vec<_> = not_judged
                .iter()
                .map(|(label, why)| format!("{label} ({why})"))
                .collect();
            let (count, all) = (not_judged.len(), self.labels.len());
            note(&format!(
                "{count} of {all} labels are not judged: {}",
                each.join("; ")
            ));
        }
        self.labels.retain(|l| !judged || judge.knows(l));
        self.own_words.retain(|l, _| self.labels.contains(l));
        aurocs.retain(|(label, _)| self.labels.contains(label));
        if self.labels.is_empty() {
            return Err(Error::refused(
                "no label is left that can be judged: name others with --labels, or give a corpus with at least two labels and several sentences of each",
            ));
        }
        let each = self.watched.labels.iter().map(String::as_str);
        let mut words: HashMap<&str, Vec<u32>> =
            each.zip(self.watched.words.iter().cloned()).collect();
        words.retain(|label, _| self.labels.iter().any(|l| l == label));
        let subjects = subjects(&self.directions, &words, model)?;
        let concepts = match self.asks {
            true => concepts_of(&self.labels, &words),
            false => Vec::new(),
        };
        note(&judge.describe());
        let texts =
            texts_of(subjects.len(), &self.config) + asked_texts_of(concepts.len(), &self.config);
        let takes = seconds_a_text
            .filter(|_| texts > steered)
            .map_or(String::new(), |seconds| {
                let seconds = seconds * (texts - steered) as f64;
                format!(
                    ", about {} as fast as the unsteered ones, beside the search of the strengths",
                    duration(seconds)
                )
            });
        note(&format!(
            "{} directions{}, up to {texts} texts of {} tokens{takes}; kept in {}",
            subjects.len(),
            beside(concepts.len()),
            self.config.sampling.max_tokens,
            run.dir().display()
        ));
        let unsteered =
            unsteered_scores(&unsteered, &self.labels, &self.config.prompts, judge, ctx)?;
        let done = run
            .chance(&self.chance, ctx)
            .and_then(|()| run.generate_and_judge(&subjects, judge, seen, ctx))
            .and_then(|()| run.ask_in_words(&concepts, judge, seen, ctx));
        let stopped = match done {
            Err(Error::Cancelled) => true,
            done => done.map(|()| false)?,
        };
        let judged = self.log.judged(judge.name())?;
        let unrated = judged.iter().find_map(|record| match &record.judgement {
            Judgement::Unrated { unrated } => Some(unrated.clone()),
            Judgement::Rated { .. } => None,
        });
        let methods = report(&judged, &self.reported, self.seed);
        Ok(Causal {
            name: self.name,
            dir: self.log.dir().to_path_buf(),
            hook: hook_name(self.hooks.iter().flatten().next()),
            hooks: self.hooks.iter().map(|h| hook_name(h.as_ref())).collect(),
            judge: judge.name().to_owned(),
            meaning: judge.describe(),
            labels: self.labels,
            not_judged,
            aurocs,
            unrated,
            compared: compare(&methods, self.seed),
            methods,
            free_texts: free_texts(
                self.log.texts(),
                &self.reported,
                &self.own_words,
                &self.against,
                self.seed,
            ),
            unseen: self.unseen,
            rises: rises(self.log.strengths(), &self.reported, self.seed),
            measures: measures(
                self.log.strengths(),
                &self.reported,
                &self.against,
                &|line| chance_of(line, &self.reported, &self.hooks),
                self.seed,
            ),
            stopped,
            unsteered,
            unreached: Unreached::of(unreached(self.log.strengths())),
        })
    }
}

/// A hook as it is shown; nothing for what lives nowhere.
fn hook_name(hook: Option<&HookPoint>) -> String {
    hook.map(ToString::to_string).unwrap_or_default()
}

/// Labels as the model is asked to speak of them.
fn concepts_of(labels: &[String], words: &HashMap<&str, Vec<u32>>) -> Vec<WordedConcept> {
    let concept = |label: &String| WordedConcept {
        label: label.clone(),
        concept: concept_of(label),
        words: words.get(label.as_str()).cloned().unwrap_or_default(),
    };
    labels.iter().map(concept).collect()
}

/// Of what the model reads where it is asked in words: another wording is another evaluation.
pub(super) fn asked_digests(
    model: &Model,
    config: &SteeringConfig,
    concepts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Vec<String>> {
    let of_concept = |concept: &str| {
        let mut digest = Xxh3::new();
        for prompt in &config.prompts {
            let ids = asked_ids(model, concept, prompt, config.bos)?;
            digest.update(bytemuck::cast_slice(&ids));
        }
        Ok(format!("{:016x}", digest.digest()))
    };
    let concepts = concepts.into_iter();
    concepts.map(|c| of_concept(c.as_ref())).collect()
}

fn pairs(owned: &[(String, String)]) -> Vec<(&str, &str)> {
    owned
        .iter()
        .map(|(label, text)| (label.as_str(), text.as_str()))
        .collect()
}

fn case_of(text: &TextRecord, label: &str, prompts: &[String]) -> RatingCase {
    RatingCase {
        label: label.to_owned(),
        prompt: prompts[text.key.prompt].clone(),
        text: text.text.clone(),
        nll: text.nll,
        distinct: text.distinct,
    }
}
