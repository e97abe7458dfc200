//! SentencePiece's BPE as merges: what a GGUF of the `llama` kind holds as pieces with scores.
//!
//! SentencePiece merges, of all neighbours whose join is a piece, the one with the best score. The
//! same as an ordered list: every way to cut a piece into two pieces, best score first; this is how
//! Hugging Face converts such models (`generate_merges`).

use tokenizers::models::bpe::{Merges, Vocab};

/// Ordered merges of a vocabulary. `mergeable(id)` says whether a piece takes part; score by id.
pub(super) fn merges(
    tokens: &[String],
    vocab: &Vocab,
    scores: &[f32],
    mergeable: impl Fn(u32) -> bool,
) -> Merges {
    /// A piece and the two that it is cut into, with the parts' lengths in characters.
    struct Cut {
        score: f32,
        chars: (usize, usize),
        ids: (u32, u32),
    }
    let part = |text: &str| vocab.get(text).copied().filter(|&id| mergeable(id));
    let mut cuts = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        if part(token) != Some(id as u32) {
            continue; // not text, or a second token with the same text
        }
        let length = token.chars().count();
        let first = cuts.len();
        for (chars, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let Some(ids) = part(left).zip(part(right)) {
                cuts.push(Cut {
                    score: scores[id],
                    chars: (chars, length - chars),
                    ids,
                });
            }
        }
        cuts[first..].sort_by_key(|cut| cut.ids);
    }
    // Stable, as Python's sort is. Longer left parts first among equals.
    cuts.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.chars.cmp(&a.chars)));
    let text = |id: u32| tokens[id as usize].clone();
    cuts.into_iter()
        .map(|cut| (text(cut.ids.0), text(cut.ids.1)))
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
        let got = merges(&tokens, &vocab, &scores, |id| id > 0);
        let want = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(got, want.map(|(l, r)| (l.to_owned(), r.to_owned())));
    }
}
