//! Descriptions without a language model: the nearest of a list of candidate phrases, by a sentence
//! encoder.
//!
//! Owns the list and how near a feature is to each phrase. Knows no study. Invariant: what is found is
//! one of the list's phrases and is said to be no more than the nearest; the texts that a description
//! is scored on have no part in finding it.

use std::path::Path;

use super::judge::describe::{Description, FeatureMaterial};
use super::judge::score::{Score, score as scored_verdicts};
use super::steering::meaning::{score, unit_mean};
use crate::error::{Error, Result};
use crate::model::encoder::SentenceEncoder;
use crate::task::{Progress, TaskCtx};

/// Candidate phrases where none are given.
const BUNDLED: &str = include_str!("../../data/phrases.txt");
/// The longest phrase, in characters.
const LONGEST: usize = 200;

/// Candidate phrases with their embeddings.
pub struct Phrases<'a> {
    encoder: &'a SentenceEncoder,
    texts: Vec<String>,
    /// Of each phrase its embedding minus the mean of all, at unit length.
    directions: Vec<Vec<f64>>,
    /// The mean of the phrases' embeddings.
    middle: Vec<f64>,
    from: String,
}

/// Phrases of a list, one a line; empty lines and those that begin with `#` are none, and of equal
/// ones there is one.
///
/// # Errors
/// [`Error::Usage`] where fewer than two are left, and for one that is no phrase.
pub fn read_list(list: &str) -> Result<Vec<String>> {
    let mut out: Vec<String> = Vec::new();
    let lines = list.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.chars().count() > LONGEST {
            return Err(Error::usage(format!(
                "a phrase has at most {LONGEST} characters, and one begins '{}': give a list with a phrase a line",
                line.chars().take(40).collect::<String>().escape_debug()
            )));
        }
        let line = line.to_owned();
        if !out.contains(&line) {
            out.push(line);
        }
    }
    match out.len() {
        0 | 1 => Err(Error::usage(
            "the list of phrases has fewer than two: give a file with a phrase a line",
        )),
        _ => Ok(out),
    }
}

impl<'a> Phrases<'a> {
    /// Refuses a file of which no phrases can be read.
    ///
    /// # Errors
    /// A file that cannot be read, and what [`read_list`] returns.
    pub fn check(file: &Path) -> Result<()> {
        read_file(file).map(drop)
    }

    /// The phrases of a file, or the bundled ones.
    ///
    /// # Errors
    /// A file that cannot be read, what [`read_list`] returns, and what the encoder returns.
    pub fn open(encoder: &'a SentenceEncoder, file: Option<&Path>, ctx: &TaskCtx) -> Result<Self> {
        let (texts, from) = match file {
            None => (read_list(BUNDLED)?, "bundled phrases".to_owned()),
            Some(path) => (read_file(path)?, format!("phrases of {}", path.display())),
        };
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embeddings = encoder.embed(&all, ctx)?;
        let middle = mean(&embeddings, encoder.width());
        let directions = embeddings.iter().map(|x| apart(x, &middle)).collect();
        Ok(Self {
            encoder,
            texts,
            directions,
            middle,
            from,
        })
    }

    /// What describes by these phrases, for every description: "nearest of 311 bundled phrases by
    /// all-MiniLM-L6-v2".
    pub fn name(&self) -> String {
        let (count, from) = (self.texts.len(), &self.from);
        format!("nearest of {count} {from} by {}", self.encoder.name())
    }

    /// Describes features, in the order of `materials`: on the side of the inputs the phrase
    /// nearest to the texts that excite a feature (against texts where it is silent) and to the
    /// words that it fires on, on the side of the outputs the one nearest to the words that it
    /// promotes (against those that it suppresses). `scored`: how well the first tells the texts
    /// that had no part in finding it.
    ///
    /// # Errors
    /// What the encoder returns; [`Error::Cancelled`].
    pub fn describe(
        &self,
        materials: &[FeatureMaterial],
        scored: bool,
        ctx: &TaskCtx,
    ) -> Result<Vec<Description>> {
        let quiet = ctx.without_progress();
        let mut out = Vec::with_capacity(materials.len());
        for material in materials {
            ctx.checkpoint(Progress::new(
                "describing",
                out.len() as u64,
                materials.len() as u64,
                "features",
            ))?;
            out.push(self.describe_one(material, scored, &quiet)?);
        }
        Ok(out)
    }

    fn describe_one(
        &self,
        material: &FeatureMaterial,
        scored: bool,
        ctx: &TaskCtx,
    ) -> Result<Description> {
        let embed = |texts: &[&str]| self.encoder.embed(texts, ctx);
        let shown = embed(&material.shown_plain())?;
        let silent = embed(&material.silent())?;
        let words = self.words(material.fired_on(), ctx)?;
        // Against silent texts what all texts of the corpus share is taken away.
        let contexts = (!shown.is_empty()).then(|| {
            let own = unit_mean(shown.iter().map(Vec::as_slice), self.encoder.width());
            let others = match silent.is_empty() {
                true => self.middle.clone(),
                false => unit_mean(silent.iter().map(Vec::as_slice), self.encoder.width()),
            };
            unit(own.iter().zip(&others).map(|(a, b)| a - b).collect())
        });
        let input = self.nearest(&sum([contexts, words]));
        let promoted = self.words(material.promoted(), ctx)?;
        let suppressed = self.words(material.suppressed(), ctx)?;
        let against = suppressed.map(|s| s.iter().map(|v| -v / 2.0).collect());
        let output = promoted.and_then(|p| self.nearest(&sum([Some(p), against])));
        let detection = match input.filter(|_| scored) {
            Some(phrase) => self.detection(phrase, material, ctx)?,
            None => None,
        };
        let mut errors = Vec::new();
        if input.is_none() {
            errors.push("description of its inputs: it has no texts".to_owned());
        }
        if output.is_none() {
            errors.push(
                "description of its outputs: the model for its logit lens is missing".to_owned(),
            );
        }
        Ok(Description {
            input: input.map(|i| self.texts[i].clone()),
            output: output.map(|i| self.texts[i].clone()),
            detection,
            judge: self.name(),
            errors,
            ..Description::default()
        })
    }

    /// How near words are, taken together, as a direction among the phrases; `None` without any.
    fn words(&self, words: &[String], ctx: &TaskCtx) -> Result<Option<Vec<f64>>> {
        if words.is_empty() {
            return Ok(None);
        }
        let found = self.encoder.embed(&[&words.join(", ")], ctx)?;
        Ok(found.first().map(|x| apart(x, &self.middle)))
    }

    /// The phrase nearest to a direction, the first of equals.
    fn nearest(&self, direction: &[f64]) -> Option<usize> {
        let product =
            |phrase: &Vec<f64>| -> f64 { phrase.iter().zip(direction).map(|(a, b)| a * b).sum() };
        let scores = self.directions.iter().map(product).enumerate();
        let best = scores.fold(None, |best: Option<(usize, f64)>, (i, s)| match best {
            Some((_, largest)) if s <= largest => best,
            _ => Some((i, s)),
        });
        best.filter(|_| direction.iter().any(|v| *v != 0.0))
            .map(|b| b.0)
    }

    /// Of the texts that were held back, with as many where the feature is silent, the half nearer to
    /// the phrase counts as recognised.
    fn detection(
        &self,
        phrase: usize,
        material: &FeatureMaterial,
        ctx: &TaskCtx,
    ) -> Result<Option<Score>> {
        let (texts, truth): (Vec<&str>, Vec<bool>) = material.trials().unzip();
        if texts.is_empty() {
            return Ok(None);
        }
        let embeddings = self.encoder.embed(&texts, ctx)?;
        let scores: Vec<f64> = embeddings
            .iter()
            .map(|x| score(x, &self.directions[phrase]))
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let own = truth.iter().filter(|t| **t).count();
        let mut verdicts = vec![false; scores.len()];
        order.iter().take(own).for_each(|&i| verdicts[i] = true);
        Ok(Some(scored_verdicts(&[truth], &[Some(verdicts)])))
    }
}

fn read_file(path: &Path) -> Result<Vec<String>> {
    let list = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    read_list(&list).map_err(|e| Error::usage(format!("{}: {e}", path.display())))
}

fn mean(embeddings: &[Vec<f32>], width: usize) -> Vec<f64> {
    let count = embeddings.len().max(1) as f64;
    let at = |i: usize| embeddings.iter().map(|x| f64::from(x[i])).sum::<f64>() / count;
    (0..width).map(at).collect()
}

/// What sets an embedding apart from the middle, at unit length.
fn apart(embedding: &[f32], middle: &[f64]) -> Vec<f64> {
    let each = embedding.iter().zip(middle);
    unit(each.map(|(&x, m)| f64::from(x) - m).collect())
}

fn unit(mut v: Vec<f64>) -> Vec<f64> {
    let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm > 0.0 {
        v.iter_mut().for_each(|v| *v /= norm);
    }
    v
}

/// The sum of the directions that there are.
fn sum(parts: [Option<Vec<f64>>; 2]) -> Vec<f64> {
    match parts {
        [Some(a), Some(b)] => a.iter().zip(&b).map(|(a, b)| a + b).collect(),
        [Some(one), None] | [None, Some(one)] => one,
        [None, None] => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::encoder::tests::{real, tiny};

    fn with<'a>(encoder: &'a SentenceEncoder, list: &str) -> Phrases<'a> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        std::fs::write(&path, list).unwrap();
        Phrases::open(encoder, Some(&path), &TaskCtx::silent()).unwrap()
    }

    #[test]
    fn a_list_has_a_phrase_a_line() {
        let found = read_list("# remark\n\n days \nthe sea\ndays\n").unwrap();
        assert_eq!(found, ["days", "the sea"]);
        for bad in [
            "",
            "# only\n",
            "one\none\n",
            &format!("a\n{}", "x".repeat(201)),
        ] {
            assert_eq!(read_list(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        let bundled = read_list(BUNDLED).unwrap();
        let phrases = BUNDLED.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!((bundled.len(), phrases), (311, 311), "none stands twice");
    }

    #[test]
    fn words_are_nearest_to_the_phrase_that_holds_them() {
        let encoder = tiny();
        let phrases = with(&encoder, "monday\nboat\nharbour\nlonger text\n");
        let ctx = TaskCtx::silent();
        for (promoted, phrase) in [
            ("boat", "boat"),
            ("harbour", "harbour"),
            ("monday", "monday"),
        ] {
            let material = FeatureMaterial::made(0, [&[], &[], &[promoted], &[], &[]]);
            let found = &phrases.describe(&[material], true, &ctx).unwrap()[0];
            assert_eq!(found.output.as_deref(), Some(phrase));
            assert_eq!((&found.input, &found.detection), (&None, &None));
            assert!(
                found.judge.starts_with("nearest of 4 phrases of "),
                "{}",
                found.judge
            );
            assert!(found.judge.contains(" by encoder "), "{}", found.judge);
            assert_eq!(found.errors, ["description of its inputs: it has no texts"]);
        }
        // The texts and the words say the same, and the texts that were held back are told by it.
        let material =
            FeatureMaterial::made(1, [&["boat", "boat"], &["boat"], &[], &[], &["monday"]])
                .with_trials(&["boat", "boat boat"], &["monday", "longer text"]);
        let found = &phrases.describe(&[material], true, &ctx).unwrap()[0];
        assert_eq!(found.input.as_deref(), Some("boat"));
        let score = found.detection.unwrap();
        assert_eq!((score.balanced_accuracy, score.judged), (Some(1.0), 4));
        assert_eq!(
            found.errors,
            ["description of its outputs: the model for its logit lens is missing"]
        );
    }

    #[test]
    #[ignore = "needs all-MiniLM-L6-v2: MLPEEK_TEST_ENCODER names its directory"]
    fn the_default_encoder_finds_what_words_mean() {
        let encoder = real();
        let ctx = TaskCtx::silent();
        let phrases = Phrases::open(&encoder, None, &ctx).unwrap();
        for (words, phrase) in [
            (["Monday", "Friday", "Tuesday"], "days of the week"),
            (["red", "blue", "yellow"], "colours"),
            (["March", "October", "June"], "months of the year"),
        ] {
            let material = FeatureMaterial::made(0, [&[], &[], &words, &[], &[]]);
            let found = &phrases.describe(&[material], true, &ctx).unwrap()[0];
            assert_eq!(found.output.as_deref(), Some(phrase));
        }
    }
}
