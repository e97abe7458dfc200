//! Which direction of a set stands for a label: the one that its sentences excite (input), the one
//! that promotes its words in the logit lens (output), or the one that raises them in fact (effect).

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::directions::DirectionSet;
use crate::error::{Error, Result};
use crate::model::{BosRule, Model};
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
    for start in (0..directions.count()).step_by(AT_ONCE) {
        ctx.check()?;
        let ids = start..directions.count().min(start + AT_ONCE);
        let columns: Vec<f32> = ids.clone().flat_map(|j| directions.column(j)).collect();
        let columns = Tensor::from_vec(columns, (ids.len(), directions.height()), model.device())?;
        let logits = model
            .logit_lens(&model.residual_direction(hook, &columns)?)?
            .to_dtype(DType::F32)?;
        for (j, line) in ids.zip(logits.to_vec2::<f32>()?) {
            for (tokens, best) in tokens.iter().zip(&mut best) {
                if let Some(lift) = lift(&line, tokens).filter(|&l| best.is_none_or(|(_, b)| l > b))
                {
                    *best = Some((j, lift));
                }
            }
        }
    }
    Ok(best.into_iter().map(|b| b.map(|(j, _)| j)).collect())
}

/// The mean of some logits, in standard deviations of all.
fn lift(logits: &[f32], tokens: &[u32]) -> Option<f64> {
    let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| {
        values.sum::<f64>() / count.max(1) as f64
    };
    let all = mean(&mut logits.iter().map(|&l| f64::from(l)), logits.len());
    let variance = mean(
        &mut logits.iter().map(|&l| (f64::from(l) - all).powi(2)),
        logits.len(),
    );
    let token_mean = mean(
        &mut tokens
            .iter()
            .filter_map(|&t| logits.get(t as usize))
            .map(|&l| f64::from(l)),
        tokens.len(),
    );
    (!tokens.is_empty() && variance > 0.0).then(|| (token_mean - all) / variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lifts_the_words_most_is_measured_in_its_own_scale() {
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-9, "{a:?}");
        near(lift(&[1.0, -1.0, 1.0, -1.0], &[0, 2]), 1.0);
        near(lift(&[10.0, -10.0, 10.0, -10.0], &[0, 2]), 1.0);
        near(lift(&[1.0, -1.0, 1.0, -1.0], &[0, 1]), 0.0);
        assert_eq!(
            (lift(&[1.0, 1.0], &[0]), lift(&[1.0, 2.0], &[])),
            (None, None)
        );
    }

    #[test]
    fn sides_are_typed_as_they_are_shown() {
        for choose in Choose::ALL {
            assert_eq!(choose.to_string().parse::<Choose>().unwrap(), choose);
        }
        assert_eq!("both".parse::<Choose>().unwrap_err().exit_code(), 2);
    }
}
