//! The causal evaluation by descriptions, the paper's unit (arXiv 2506.10920): every feature against its
//! own description, on the side of its inputs and on that of its outputs.
//!
//! Owns the order of the work: descriptions, sentences for each, S_CD, strengths, texts, ratings. Knows
//! no terminal. Invariant: a text is written once, whichever side's description it is rated by, and
//! what a difference in means is made from has no part in what it is tested on.

mod kept;
mod outcome;
mod subjects;
mod tables;
mod units;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::causal::{Causal, unsteered_scores};
use super::directions::HookSelection;
use super::evaluation::Method;
use crate::directions::{Baseline, SetKind};
use crate::error::{Error, Result};
use crate::eval::judge::sentences::{self, WrittenSentences};
use crate::eval::judge::{CostEstimate, describe};
use crate::eval::phrases::Phrases;
use crate::eval::steering::endpoint::EndpointJudge;
use crate::eval::steering::judge::TextJudge;
use crate::eval::steering::meaning::MeaningJudge;
use crate::eval::steering::pace::Pace;
use crate::eval::steering::side::{Side, SideJudge};
use crate::eval::steering::worded::how_asked;
use crate::eval::steering::{
    Run, RunEvent, SteeringConfig, WatchedWords, asked_texts_of, texts_of,
};
use crate::model::Model;
use crate::model::encoder::SentenceEncoder;
use crate::study::Study;
use crate::task::TaskCtx;
use kept::examples;
pub use outcome::{ConceptLine, Described, SideDetection};
use subjects::{Offer, Offered, offer};
use tables::SideOf;
use units::{Concept, CorpusSentences, Units, distinct};

/// Sentences of each kind in the paper.
pub const SENTENCES: usize = 5;

/// Texts whose rating is timed.
const RATED: usize = 8;

/// What is asked of an evaluation by descriptions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DescribedRequest {
    /// The methods: sets of features, each judged by its own descriptions; `diffmean` and random
    /// directions by those of the first set.
    pub methods: Vec<Method>,
    /// Where in the study directions are taken from that name no hook.
    pub place: HookSelection,
    /// Features of each set, drawn by the seed; `None`: all.
    pub sample: Option<usize>,
    /// Sentences of each kind that S_CD is measured on; as many more make differences in means.
    pub sentences: usize,
    /// How texts are steered and sampled.
    pub config: SteeringConfig,
    /// Its name in the study; `None`: made of all this.
    pub name: Option<String>,
    /// Of sampling and the bootstrap.
    pub seed: u64,
}

impl DescribedRequest {
    /// The methods where none is named.
    pub fn usual() -> Vec<Method> {
        let random = Baseline::ALL
            .into_iter()
            .filter(|b| !b.ranked() && !b.supervised());
        let kinds = [SetKind::FIT, SetKind::from(Baseline::DiffMean)].into_iter();
        kinds
            .chain(random.map(SetKind::from))
            .map(Method::Set)
            .collect()
    }
}

/// Who describes what nothing describes yet, writes the sentences and rates the texts.
pub enum Voice<'a> {
    /// A language model behind an endpoint.
    Endpoint(&'a mut EndpointJudge),
    /// A sentence encoder: the nearest of some phrases, sentences of the corpus, ratings by meaning.
    Offline {
        /// What turns phrases, sentences and texts into vectors to compare.
        encoder: &'a SentenceEncoder,
        /// The candidate phrases.
        phrases: Phrases<'a>,
    },
}

/// How much there is to do at most, told before any of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Features that are judged.
    pub features: usize,
    /// Those of them that nothing describes yet.
    pub undescribed: usize,
    /// Directions that steer.
    pub directions: usize,
    /// Steered texts when every KL target is reached.
    pub texts: usize,
    /// Tokens of a text.
    pub tokens: usize,
    /// What an endpoint is asked at most; `None` where nobody is asked.
    pub asked: Option<CostEstimate>,
}

/// An evaluation whose units are gathered.
pub struct PreparedUnits {
    ask: DescribedRequest,
    units: Units,
}

/// Gathers the units.
///
/// # Errors
/// What [`Units::gather`] returns; [`Error::Refused`] where no feature fires.
pub fn prepare(
    study: &Study,
    ask: &DescribedRequest,
    model: &Model,
    ctx: &TaskCtx,
) -> Result<PreparedUnits> {
    ask.config.check()?;
    if ask.sentences == 0 || ask.sample == Some(0) {
        return Err(Error::usage(
            "nothing to evaluate: give at least one sentence and one feature",
        ));
    }
    let units = Units::gather(study, ask, model, ctx)?;
    if units.gathered.features.is_empty() {
        return Err(Error::refused(
            "no feature fires anywhere: there is nothing to describe",
        ));
    }
    Ok(PreparedUnits {
        ask: ask.clone(),
        units,
    })
}

impl PreparedUnits {
    /// What it will take at most. `judge`: the endpoint that is asked, where one is.
    pub fn price(&self, judge: Option<&EndpointJudge>) -> Price {
        let features = self.units.gathered.features.len();
        let first = (0..features).filter(|&i| self.units.in_first(i)).count();
        let random = if self.units.random.is_some() {
            first
        } else {
            0
        };
        let means = if self.units.diffmean { 2 * first } else { 0 };
        let texts = |directions| texts_of(directions, &self.ask.config);
        // Each side's description is asked for in words.
        let asked = if self.units.asks { 2 * first } else { 0 };
        let asked_texts = asked_texts_of(asked, &self.ask.config);
        let tokens = self.ask.config.sampling.max_tokens;
        let missing = self.units.to_describe().features;
        let questions = judge.map(|judge| {
            // Both sides rate the concept of a feature's texts, and one question asks their fluency.
            let mut sum = judge.price(
                texts(2 * (features + random) + means) + asked_texts,
                texts(features + random + means) + asked_texts,
                tokens,
            );
            sum += describe::estimate(judge.client_ref(), &missing, false, false);
            let usual = sentences::writing_questions("words of one kind", 2 * self.ask.sentences);
            let writing = judge.client_ref().estimate(&usual);
            let times = 2 * features;
            sum += CostEstimate {
                calls: writing.calls * times,
                answered: writing.answered * times,
                prompt_tokens: writing.prompt_tokens * times,
                completion_tokens: writing.completion_tokens * times,
            };
            sum
        });
        Price {
            features,
            undescribed: missing.len(),
            directions: features + random + means,
            texts: texts(features + random + means) + asked_texts,
            tokens,
            asked: questions,
        }
    }

    /// Seconds that it takes at most, measured on a few texts and strengths; the ratings are among
    /// them where an encoder rates.
    ///
    /// # Errors
    /// What the model and the encoder return; [`Error::Cancelled`].
    pub fn seconds(
        &self,
        price: &Price,
        model: &Model,
        encoder: Option<&SentenceEncoder>,
        ctx: &TaskCtx,
    ) -> Result<f64> {
        let ctx = &ctx.without_progress();
        let config = &self.ask.config;
        let steered = Pace::measure(model, config, ctx)?;
        let steered = steered.seconds(config, price.directions, price.texts);
        let Some(encoder) = encoder else {
            return Ok(steered);
        };
        let text = "a word ".repeat(price.tokens / 2);
        let begun = Instant::now();
        encoder.embed(&[text.as_str(); RATED], ctx)?;
        let rated = begun.elapsed().as_secs_f64() / RATED as f64;
        Ok(steered + rated * price.texts as f64)
    }

    /// Describes, writes, steers and rates what is not there yet. Stopped on the way, it gives what
    /// it has come to, marked so.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing can be described or judged; what the model, the study, the
    /// log and the judge return.
    pub fn run(
        mut self,
        study: &Study,
        model: &Model,
        voice: &mut Voice<'_>,
        note: &mut dyn FnMut(&str),
        seen: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<Described> {
        for (set, id) in &self.units.gathered.silent {
            note(&format!(
                "{set} {id} fires nowhere: there is nothing to describe"
            ));
        }
        if self.units.asks {
            note(&how_asked(model));
        }
        self.describe_missing(study, voice, note, ctx)?;
        let mut concepts = self.units.concepts();
        let written = self.sentences(study, &mut concepts, voice, note, ctx)?;
        if concepts.is_empty() {
            return Err(Error::refused(
                "no feature has a description with sentences: describe features with mlpeek describe first",
            ));
        }
        let bos = self.ask.config.bos;
        let Offer {
            offered,
            detections,
            own,
        } = offer(
            &self.units,
            &concepts,
            &written,
            model,
            bos,
            self.ask.seed,
            ctx,
        )?;
        let (name, mut log) = self.log(study, model, &concepts, &offered)?;
        let watched = WatchedWords::default();
        let mut run = Run::new(model, &self.ask.config, &watched, &mut log)?;
        let unsteered = run.unsteered(ctx)?;
        let mut left_out = Vec::new();
        let mut aurocs = Vec::new();
        let mut meaning;
        let judge: &mut dyn TextJudge = match voice {
            Voice::Endpoint(judge) => *judge,
            Voice::Offline { encoder, .. } => {
                let (learn, scale) = examples(&concepts, &written);
                let learnt = MeaningJudge::learn(encoder, &learn, &scale, &unsteered, ctx)?;
                (meaning, left_out) = learnt;
                aurocs = meaning.aurocs().to_vec();
                &mut meaning
            }
        };
        let mut found = Vec::new();
        for side in Side::ALL {
            let subjects: Vec<_> = offered
                .iter()
                .filter(|o| o.side.is_none_or(|s| s == side))
                .collect();
            let described = self.descriptions(&concepts, side);
            if described.is_empty() {
                note(&format!("no feature has a description of its {side}"));
                continue;
            }
            let mut judge = SideJudge::new(judge, side, described);
            note(&judge.describe());
            let steered = |o: &&Offered| judge.knows(&o.subject.label);
            let subjects: Vec<_> = subjects
                .into_iter()
                .filter(steered)
                .map(|o| o.subject.clone())
                .collect();
            note(&format!(
                "{side}: {} directions{}, up to {} texts of {} tokens; kept in {}",
                subjects.len(),
                match self.units.asks {
                    true => ", and what is asked in words",
                    false => "",
                },
                texts_of(subjects.len(), &self.ask.config),
                self.ask.config.sampling.max_tokens,
                run.dir().display()
            ));
            let wanted = match self.units.asks {
                true => self.worded(&concepts, side, &judge),
                false => Vec::new(),
            };
            let done = run
                .generate_and_judge(&subjects, &mut judge, seen, ctx)
                .and_then(|()| run.ask_in_words(&wanted, &mut judge, seen, ctx));
            let stopped = match done {
                Err(Error::Cancelled) => true,
                done => done.map(|()| false)?,
            };
            let labels = distinct(&concepts);
            let of_side = |text: &str| concepts.iter().any(|c| c.side == side && c.text == text);
            let labels: Vec<String> = labels
                .into_iter()
                .filter(|t| of_side(t))
                .map(str::to_owned)
                .collect();
            found.push((
                side,
                judge.name().to_owned(),
                judge.describe(),
                labels,
                stopped,
            ));
            if stopped {
                break;
            }
        }
        // An endpoint would have to be paid for rating unsteered texts by every description.
        let prompts = &self.ask.config.prompts;
        let mut unsteered_of = |labels: &[String]| match aurocs.is_empty() {
            true => Ok(None),
            false => unsteered_scores(&unsteered, labels, prompts, judge, ctx),
        };
        let mut sides = Vec::new();
        for (side, judge, meaning, labels, stopped) in found {
            let scores = match stopped {
                true => None,
                false => unsteered_of(&labels)?,
            };
            let not_judged = left_out.iter().filter(|(l, _)| labels.contains(l));
            let side = SideOf {
                side,
                judge,
                meaning,
                not_judged: not_judged.cloned().collect(),
                labels,
                stopped,
            };
            sides.push(Causal {
                unsteered: scores,
                ..self.side(&name, &log, side, &aurocs)?
            });
        }
        Ok(Described {
            sides,
            detections,
            concepts: self.lines(&concepts, &own),
        })
    }

    fn describe_missing(
        &mut self,
        study: &Study,
        voice: &mut Voice<'_>,
        note: &mut dyn FnMut(&str),
        ctx: &TaskCtx,
    ) -> Result<()> {
        let missing = self.units.to_describe();
        let described = self.units.gathered.features.len() - missing.features.len();
        if described > 0 {
            let judges = self.units.descriptions.iter().flatten();
            let judges: BTreeSet<&str> = judges.map(|d| d.judge.as_str()).collect();
            note(&format!(
                "{described} features are described in the study: these descriptions are taken (said {})",
                Vec::from_iter(judges).join("; ")
            ));
        }
        if self.units.unchecked > 0 {
            note(&format!(
                "{} descriptions of an earlier version do not say of which direction they are: described anew",
                self.units.unchecked
            ));
        }
        if missing.features.is_empty() {
            return Ok(());
        }
        let described = match voice {
            Voice::Endpoint(judge) => missing.describe(study, judge.client(), false, None, ctx)?,
            Voice::Offline { phrases, .. } => {
                note(&format!(
                    "{} features are described by no more than the {}",
                    missing.features.len(),
                    phrases.name()
                ));
                missing.describe_offline(study, phrases, false, ctx)?
            }
        };
        self.units.take(described);
        Ok(())
    }

    /// Sentences for each description; a concept without two of each kind and half is left out.
    fn sentences(
        &self,
        study: &Study,
        concepts: &mut Vec<Concept>,
        voice: &mut Voice<'_>,
        note: &mut dyn FnMut(&str),
        ctx: &TaskCtx,
    ) -> Result<HashMap<String, WrittenSentences>> {
        let wanted: Vec<&str> = distinct(concepts);
        let count = 2 * self.ask.sentences;
        let written = match voice {
            Voice::Endpoint(judge) => sentences::write(judge.client(), &wanted, count, ctx)?,
            Voice::Offline { encoder, .. } => {
                note(
                    "no one writes sentences offline: those of the corpus nearest to each description stand in, which features \
                     may have been fitted on",
                );
                CorpusSentences::read(encoder, study, self.ask.seed, ctx)?
                    .find(&wanted, count, ctx)?
            }
        };
        let few = |w: &WrittenSentences| w.activating.len().min(w.neutral.len()) < 2;
        let (short, enough): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .map(str::to_owned)
            .zip(written)
            .partition(|(_, w)| few(w));
        if let Some((text, sentences)) = short.first() {
            let why = sentences
                .errors
                .first()
                .map_or("too few came", String::as_str);
            note(&format!(
                "{} descriptions are left out, without two sentences of either kind ('{text}': {why})",
                short.len()
            ));
        }
        let enough: HashMap<String, WrittenSentences> = enough.into_iter().collect();
        concepts.retain(|c| enough.contains_key(&c.text));
        Ok(enough)
    }
}
