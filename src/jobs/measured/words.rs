//! The tokens by which a label's words are watched: those of its leading words that are one token,
//! or else the first tokens of all.

use super::Choosing;
use crate::error::{Error, Result};
use crate::eval::steering::vocabulary::{LabelledText, leading};
use crate::model::{BosRule, Model};
use crate::study::Study;

/// Words of a label that are watched at most.
pub const MOST_WORDS: usize = 8;

/// The tokens of each label's words, learnt from labelled sentences. A word of several tokens
/// begins as other words do, so it counts only where a label has no word of one token.
///
/// # Errors
/// A word that the tokenizer cannot encode.
pub fn own_tokens(
    model: &Model,
    sentences: &[LabelledText<'_>],
    labels: &[String],
) -> Result<Vec<Vec<u32>>> {
    let encode = |word: &String| -> Result<Vec<u32>> {
        let tokenizer = model.tokenizer();
        let mut ids = tokenizer.encode(&format!(" {word}"), BosRule::Never)?;
        // Where a blank is a token of its own, the word begins after it.
        ids.retain(|id| !tokenizer.decode(&[*id]).trim().is_empty());
        Ok(ids)
    };
    let of_label = |words: Vec<String>| {
        let ids = words.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let whole = ids.iter().filter(|ids| ids.len() == 1);
        let mut out: Vec<u32> = whole.map(|ids| ids[0]).collect();
        if out.is_empty() {
            out = ids.iter().filter_map(|ids| ids.first().copied()).collect();
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    };
    let words = leading(sentences, labels, MOST_WORDS);
    words.into_iter().map(of_label).collect()
}

/// The tokens of the words of the sentences that choose.
pub(super) fn chosen_tokens(
    study: &Study,
    choosing: &Choosing,
    model: Option<&Model>,
) -> Result<Vec<Vec<u32>>> {
    let model = model.ok_or_else(|| {
        Error::refused(
            "effect chooses by the labels' words as tokens, for which it needs the study's model: name it by --model",
        )
    })?;
    let tokens = study.tokens()?;
    own_tokens(model, &choosing.texts(&tokens), &choosing.labels)
}
