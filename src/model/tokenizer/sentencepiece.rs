//! SentencePiece's BPE as merges: what a GGUF of the `llama` kind holds as pieces with scores.
//!
//! SentencePiece merges, of all neighbours whose join is a piece, the one with the best score. The same as an ordered
//! list: every way to cut a piece into two pieces, best score first; this is how Hugging Face converts such models
//! (`generate_merges`).

use tokenizers::models::bpe::{Merges, Vocab};

/// Ordered merges of a vocabulary. `mergeable(id)` says whether a piece takes part; score by id.
pub(super) fn merges(tokens: &[String], vocab: &Vocab, scores: &[f32], mergeable: impl Fn(u32) -> bool) -> Merges {
    let mut found: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    let part = |text: &str| vocab.get(text).copied().filter(|&id| mergeable(id));
    for (id, token) in tokens.iter().enumerate() {
        if part(token) != Some(id as u32) {
            continue; // not text, or a second token with the same text
        }
        let chars = token.chars().count();
        let first = found.len();
        for (left_chars, (cut, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(cut);
            if part(left).is_some() && part(right).is_some() {
                found.push((scores[id], left_chars, chars - left_chars, left, right));
            }
        }
        found[first..].sort_by_key(|m| (part(m.3), part(m.4)));
    }
    // Stable, as Python's sort is. Longer left parts first among equals.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    found.into_iter().map(|(_, _, _, left, right)| (left.to_owned(), right.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_merge_first_and_control_tokens_never() {
        let tokens: Vec<String> = ["<s>", "a", "b", "c", "bc", "ab", "abc"].map(String::from).into();
        let scores = [0.0, -9.0, -9.0, -9.0, -1.0, -2.0, -3.0];
        let vocab: Vocab = tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
        let got = merges(&tokens, &vocab, &scores, |id| id > 0);
        let want = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(got, want.map(|(l, r)| (l.to_owned(), r.to_owned())));
    }
}
