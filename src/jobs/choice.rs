//! Which direction of a set stands for a label: the one that its sentences excite (input), the one
//! that promotes its words in the logit lens (output), or the one that raises them in fact (effect).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::directions::DirectionSet;
use crate::error::{Error, Result};
use crate::model::{BosRule, Model, host};
use crate::task::TaskCtx;

/// Directions whose logit lens is held at a time.
const AT_ONCE: usize = 64;

/// By which side of a direction it is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// By what excites it: AUROC on the training sentences.
    #[default]
    Input,
    /// By what it promotes: the logit lens of the words of the training sentences.
    Output,
    /// By what it does: the words of the training sentences when it steers, with the sign that
    /// raises them.
    Effect,
}

impl Choose {
    /// In the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Effect];
}

impl fmt::Display for Choose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Effect => "effect",
        })
    }
}

impl FromStr for Choose {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let all = Self::ALL.into_iter();
        all.into_iter().find(|c| c.to_string() == s).ok_or_else(|| {
            Error::usage(format!(
                "'{}' chooses nothing: use input, output or effect",
                s.escape_debug()
            ))
        })
    }
}

/// The first tokens of words inside a sentence, each once.
///
/// # Errors
/// A word that the tokenizer cannot encode.
pub fn first_tokens(model: &Model, words: &[String]) -> Result<Vec<u32>> {
    let mut out = Vec::new();
    for word in words {
        let ids = model
            .tokenizer()
            .encode(&format!(" {word}"), BosRule::Never)?;
        // Where a blank is a token of its own, the word begins after it.
        out.extend(
            ids.into_iter()
                .find(|id| !model.tokenizer().decode(&[*id]).trim().is_empty()),
        );
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// Words as they are and with a capital.
pub fn with_capitals(words: &[String]) -> Vec<String> {
    let capital = |word: &String| {
        let mut letters = word.chars();
        letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(letters)
            .collect()
    };
    words
        .iter()
        .flat_map(|word| [word.clone(), capital(word)])
        .collect()
}

/// For each list of tokens the direction whose logit lens lifts them most: by the mean of their
/// logits, in standard deviations of all logits of that direction; the first of equals, `None` for
/// an empty list.
///
/// # Errors
/// Directions of another width than the model, [`crate::Error::Cancelled`].
pub fn by_output(
    model: &Model,
    set: &dyn DirectionSet,
    tokens: &[Vec<u32>],
    ctx: &TaskCtx,
) -> Result<Vec<Option<usize>>> {
    let (directions, hook) = (set.directions(), set.hook());
    let mut best: Vec<Option<(usize, f64)>> = vec![None; tokens.len()];
    let vocab = model.info().vocab as u32;
    let mut asked: Vec<u32> = tokens
        .iter()
        .flatten()
        .copied()
        .filter(|&t| t < vocab)
        .collect();
    asked.sort_unstable();
    asked.dedup();
    for start in (0..directions.count()).step_by(AT_ONCE) {
        ctx.check()?;
        let ids = start..directions.count().min(start + AT_ONCE);
        let columns: Vec<f32> = ids.clone().flat_map(|j| directions.column(j)).collect();
        let columns = Tensor::from_vec(columns, (ids.len(), directions.height()), model.device())?;
        let logits = model
            .logit_lens(&model.residual_direction(hook, &columns)?)?
            .to_dtype(DType::F32)?;
        let lines = match model.decoder().is_mapped() {
            true => host::rows(&logits)?
                .iter()
                .map(|line| Line::of(line, &asked))
                .collect(),
            false => Line::on_device(&logits, &asked)?,
        };
        for (j, line) in ids.zip(lines) {
            for (tokens, best) in tokens.iter().zip(&mut best) {
                if let Some(lift) = line
                    .lift(tokens)
                    .filter(|&l| best.is_none_or(|(_, b)| l > b))
                {
                    *best = Some((j, lift));
                }
            }
        }
    }
    Ok(best.into_iter().map(|b| b.map(|(j, _)| j)).collect())
}

/// Of one direction's logits what lifts are read off: their mean and variance, and those of the tokens
/// that are asked about.
struct Line {
    mean: f64,
    variance: f64,
    asked: BTreeMap<u32, f64>,
}

impl Line {
    fn of(logits: &[f32], asked: &[u32]) -> Self {
        let all = || logits.iter().map(|&l| f64::from(l));
        let count = logits.len().max(1) as f64;
        let mean = all().sum::<f64>() / count;
        let value = |&token: &u32| Some((token, f64::from(*logits.get(token as usize)?)));
        Self {
            mean,
            variance: all().map(|l| (l - mean).powi(2)).sum::<f64>() / count,
            asked: asked.iter().filter_map(value).collect(),
        }
    }

    /// The same of rows of logits where they lie, in f32.
    fn on_device(logits: &Tensor, asked: &[u32]) -> Result<Vec<Self>> {
        let mean = logits.mean_keepdim(D::Minus1)?;
        let variance = logits.broadcast_sub(&mean)?.sqr()?.mean(D::Minus1)?;
        let (means, variances) = (host::values(&mean.squeeze(1)?)?, host::values(&variance)?);
        let values = if asked.is_empty() {
            vec![Vec::new(); means.len()]
        } else {
            let ids = Tensor::new(asked, logits.device())?;
            host::rows(&logits.index_select(&ids, 1)?)?
        };
        let line = |((mean, variance), values): ((f32, f32), Vec<f32>)| Self {
            mean: mean.into(),
            variance: variance.into(),
            asked: asked
                .iter()
                .copied()
                .zip(values.into_iter().map(f64::from))
                .collect(),
        };
        Ok(means
            .into_iter()
            .zip(variances)
            .zip(values)
            .map(line)
            .collect())
    }

    /// The mean of some logits, in standard deviations of all.
    fn lift(&self, tokens: &[u32]) -> Option<f64> {
        let values = tokens.iter().filter_map(|token| self.asked.get(token));
        let mean = values.sum::<f64>() / tokens.len().max(1) as f64;
        (!tokens.is_empty() && self.variance > 0.0)
            .then(|| (mean - self.mean) / self.variance.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn what_lifts_the_words_most_is_measured_in_its_own_scale() {
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-6, "{a:?}");
        for (logits, tokens, lift) in [
            ([1.0f32, -1.0, 1.0, -1.0], [0, 2], 1.0),
            ([10.0, -10.0, 10.0, -10.0], [0, 2], 1.0),
            ([1.0, -1.0, 1.0, -1.0], [0, 1], 0.0),
        ] {
            near(Line::of(&logits, &tokens).lift(&tokens), lift);
            let rows = Tensor::new(&[logits, [0.0, 0.0, 0.0, 9.0]], &Device::Cpu).unwrap();
            let before = host::copied();
            let lines = Line::on_device(&rows, &tokens).unwrap();
            assert_eq!(host::copied() - before, 2 * (2 + 2));
            near(lines[0].lift(&tokens), lift);
        }
        let lift = |logits: &[f32], tokens: &[u32]| Line::of(logits, tokens).lift(tokens);
        assert_eq!(
            (lift(&[1.0, 1.0], &[0]), lift(&[1.0, 2.0], &[])),
            (None, None)
        );
        let flat = Tensor::new(&[[1.0f32, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(Line::on_device(&flat, &[0]).unwrap()[0].lift(&[0]), None);
        assert_eq!(Line::on_device(&flat, &[]).unwrap()[0].lift(&[]), None);
    }

    #[test]
    fn sides_are_typed_as_they_are_shown() {
        for choose in Choose::ALL {
            assert_eq!(choose.to_string().parse::<Choose>().unwrap(), choose);
        }
        assert_eq!("both".parse::<Choose>().unwrap_err().exit_code(), 2);
    }
}
