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
    let of_label = |words: Vec<Vec<u32>>| {
        let whole = words.iter().filter(|ids| ids.len() == 1);
        let mut out: Vec<u32> = whole.map(|ids| ids[0]).collect();
        if out.is_empty() {
            out = words
                .iter()
                .filter_map(|ids| ids.first().copied())
                .collect();
        }
        out.sort_unstable();
        out.dedup();
        out
    };
    let words = encoded(model, sentences, labels)?;
    Ok(words.into_iter().map(of_label).collect())
}

/// What a person should know of labels whose words say little: those that have none, and those of
/// whose words none is one token.
///
/// # Errors
/// As [`own_tokens`].
pub fn poor_words(
    model: &Model,
    sentences: &[LabelledText<'_>],
    labels: &[String],
) -> Result<Option<String>> {
    let words = encoded(model, sentences, labels)?;
    let named = |is: &dyn Fn(&[Vec<u32>]) -> bool| {
        let matching = labels.iter().zip(&words).filter(|(_, words)| is(words));
        let names: Vec<&str> = matching.map(|(label, _)| label.as_str()).collect();
        names.join(", ")
    };
    let none = named(&|words| words.is_empty());
    let pieces = named(&|words| !words.is_empty() && words.iter().all(|ids| ids.len() > 1));
    let remarks = [
        (none, "without words of their own, and so without a rise"),
        (
            pieces,
            "without a word of one token, so the first tokens of their words are watched",
        ),
    ];
    let remarks = remarks.iter().filter(|(labels, _)| !labels.is_empty());
    let remarks: Vec<String> = remarks
        .map(|(labels, why)| format!("{why}: {labels}"))
        .collect();
    Ok((!remarks.is_empty()).then(|| remarks.join("; ")))
}

/// The tokens of each of the labels' leading words.
fn encoded(
    model: &Model,
    sentences: &[LabelledText<'_>],
    labels: &[String],
) -> Result<Vec<Vec<Vec<u32>>>> {
    let encode = |word: &String| -> Result<Vec<u32>> {
        let tokenizer = model.tokenizer();
        let mut ids = tokenizer.encode(&format!(" {word}"), BosRule::Never)?;
        // Where a blank is a token of its own, the word begins after it.
        ids.retain(|id| !tokenizer.decode(&[*id]).trim().is_empty());
        Ok(ids)
    };
    let words = leading(sentences, labels, MOST_WORDS);
    let of_label = |words: &Vec<String>| words.iter().map(encode).collect();
    words.iter().map(of_label).collect()
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
