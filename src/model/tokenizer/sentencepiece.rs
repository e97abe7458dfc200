//! SentencePiece's BPE as merges: what a GGUF of the `llama` kind holds as pieces with scores.
//!
//! Of all neighbouring pieces whose join is a piece, SentencePiece merges the pair with the best
//! score. The same is an ordered list of merges: every split of a piece into two pieces, best score
//! first, as `generate_merges` of `transformers` makes it.

use tokenizers::models::bpe::{Merges, Vocab};

/// The ordered merges of a vocabulary. `scores` is indexed by id; pieces for which `mergeable(id)`
/// is false take no part.
pub(super) fn merges(
    tokens: &[String],
    vocab: &Vocab,
    scores: &[f32],
    mergeable: impl Fn(u32) -> bool,
) -> Merges {
    /// A split of a piece in two: the piece's score, and the lengths in characters and ids of the
    /// parts.
    struct Split {
        score: f32,
        chars: (usize, usize),
        ids: (u32, u32),
    }
    let part = |text: &str| vocab.get(text).copied().filter(|&id| mergeable(id));
    let mut splits = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        if part(token) != Some(id as u32) {
            continue; // The token is not text, or the second one with its text.
        }
        let length = token.chars().count();
        let first = splits.len();
        for (chars, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let Some(ids) = part(left).zip(part(right)) {
                splits.push(Split {
                    score: scores[id],
                    chars: (chars, length - chars),
                    ids,
                });
            }
        }
        splits[first..].sort_by_key(|split| split.ids);
    }
    // The sort is stable, as Python's is; among equal scores longer left parts come first.
    splits.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.chars.cmp(&a.chars)));
    let text = |id: u32| tokens[id as usize].clone();
    splits
        .into_iter()
        .map(|split| (text(split.ids.0), text(split.ids.1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_merge_first_and_control_tokens_never() {
        let tokens: Vec<String> = ["<s>", "a", "b", "c", "bc", "ab", "abc"]
            .map(String::from)
            .into();
        let scores = [0.0, -9.0, -9.0, -9.0, -1.0, -2.0, -3.0];
        let vocab: Vocab = tokens
            .iter()
            .enumerate()
            .map(|(i, t)| (t.clone(), i as u32))
            .collect();
        let computed = merges(&tokens, &vocab, &scores, |id| id > 0);
        let expected = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(
            computed,
            expected.map(|(l, r)| (l.to_owned(), r.to_owned()))
        );
    }
}
