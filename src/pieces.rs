//! The pieces of consecutive tokens as a person reads them: a character that the tokenizer split
//! over several tokens is joined again. Owns the choice of the token that shows such a character.
//!
//! A piece whose bytes are not valid UTF-8 by themselves is spelled byte by byte (`<0xE4>`, see
//! [`crate::model::Tokenizer::piece`]). Knows no vocabulary. Invariant: a character is shown by the
//! token that holds its first byte, the tokens that hold only later bytes are empty, and so the
//! pieces in order are the text. Bytes that form no character keep their spelling.

use unicode_segmentation::UnicodeSegmentation;

use crate::text;

/// The pieces of consecutive tokens, one for each, with every split character joined and moved to the
/// token that holds its first byte; the tokens that only continue it become empty.
pub fn join_characters<S: AsRef<str>>(pieces: &[S]) -> Vec<String> {
    let mut out: Vec<String> = pieces.iter().map(|p| p.as_ref().to_owned()).collect();
    let spelled: Vec<Option<Vec<u8>>> = pieces.iter().map(|p| spelled_bytes(p.as_ref())).collect();
    let mut from = 0;
    for run in spelled.chunk_by(|a, b| a.is_some() == b.is_some()) {
        let (first, bytes) = (from, run.iter().flatten());
        from += run.len();
        // Each byte is paired with the index of its token.
        let bytes: Vec<(u8, usize)> = bytes
            .enumerate()
            .flat_map(|(i, bytes)| bytes.iter().map(move |&b| (b, first + i)))
            .collect();
        if bytes.is_empty() {
            continue;
        }
        out[first..from].iter_mut().for_each(String::clear);
        let mut at = 0;
        while let Some(&(byte, token)) = bytes.get(at) {
            let character = (1..=4).find_map(|len| {
                let bytes: Vec<u8> = bytes.get(at..at + len)?.iter().map(|b| b.0).collect();
                Some((String::from_utf8(bytes).ok()?, len))
            });
            let (shown, len) = character.unwrap_or_else(|| (format!("<0x{byte:02X}>"), 1));
            out[token].push_str(&shown);
            at += len;
        }
    }
    out
}

/// The bytes of a piece that is spelled byte by byte; `None` for a piece of text.
fn spelled_bytes(piece: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = piece;
    while !rest.is_empty() {
        let (digits, after) = rest.strip_prefix("<0x")?.split_once('>')?;
        let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        bytes.push(
            is_byte
                .then(|| u8::from_str_radix(digits, 16).ok())
                .flatten()?,
        );
        rest = after;
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Whether a piece begins with a UTF-8 continuation byte, so that its character began in an earlier
/// token.
pub fn is_continuation(piece: &str) -> bool {
    spelled_bytes(piece).is_some_and(|bytes| matches!(bytes[0], 0x80..=0xbf))
}

/// The index of the token that shows the text of token `at` after [`join_characters`]: `at` itself, or
/// the earlier token that holds the first byte of its character.
pub fn shown_at(tokens: &[String], at: usize) -> usize {
    let at = at.min(tokens.len().saturating_sub(1));
    (0..=at)
        .rev()
        .find(|&i| tokens.get(i).is_some_and(|t| !t.is_empty()))
        .unwrap_or(at)
}

/// Token `at` as a name for a list: [`text::token`] of its piece, or `…` and the character for a token
/// that only continues one.
pub fn token_name(tokens: &[String], at: usize) -> String {
    let shown = shown_at(tokens, at);
    match tokens.get(shown).and_then(|token| token.chars().last()) {
        Some(character) if shown < at => format!("…{}", text::clean(&character.to_string())),
        _ => text::token(tokens.get(at).map_or("", String::as_str)),
    }
}

/// A run of tokens that are drawn together, because a grapheme spans them, and the text they show.
#[derive(Debug, PartialEq)]
pub struct VisibleSpan {
    /// Index of the first token.
    pub first: usize,
    /// Index of the last token, inclusive.
    pub last: usize,
    /// The text as the model produced it: it may hold control characters ([`text::clean`]).
    pub text: String,
}

impl VisibleSpan {
    /// Whether the token of index `token` lies in the span.
    pub fn shows(&self, token: usize) -> bool {
        (self.first..=self.last).contains(&token)
    }

    /// The value of largest magnitude among the span's tokens; a token beyond `values` counts as 0.
    pub fn value(&self, values: &[f32]) -> f32 {
        let values = (self.first..=self.last).filter_map(|token| values.get(token).copied());
        values.fold(0.0, |most, value| {
            if value.abs() > most.abs() {
                value
            } else {
                most
            }
        })
    }
}

/// Groups tokens into spans such that no grapheme is split between two spans: a grapheme belongs to
/// the token that begins it. `tokens` are pieces from [`join_characters`].
pub fn visible_spans(tokens: &[String]) -> Vec<VisibleSpan> {
    let mut out: Vec<VisibleSpan> = Vec::with_capacity(tokens.len());
    for (token, piece) in tokens.iter().enumerate() {
        let mut own = piece.as_str();
        if let Some(before) = out.last_mut() {
            let (joined, rest) = piece.split_at(joined_len(&before.text, piece));
            if !joined.is_empty() || piece.is_empty() {
                before.text.push_str(joined);
                before.last = token;
            }
            own = rest;
        }
        if !own.is_empty() || out.is_empty() {
            out.push(VisibleSpan {
                first: token,
                last: token,
                text: own.to_owned(),
            });
        }
    }
    out
}

/// The number of bytes at the start of `piece` that belong to the last grapheme of `before`.
fn joined_len(before: &str, piece: &str) -> usize {
    let Some(last) = before.graphemes(true).next_back() else {
        return 0;
    };
    if piece.starts_with(|c: char| c.is_ascii()) && !last.starts_with('\r') {
        return 0;
    }
    let joined = format!("{last}{piece}");
    joined
        .graphemes(true)
        .next()
        .map_or(0, |first| first.len().saturating_sub(last.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_stands_with_the_token_that_begins_it() {
        let pieces = [
            " ",
            "<0xE4>",
            "<0xBB><0x8A>",
            "日",
            "<0x20><0xF0><0x9F>",
            "<0x8E>",
            "<0x89><0x21>",
        ];
        let whole = join_characters(&pieces);
        assert_eq!(whole, [" ", "今", "", "日", " 🎉", "", "!"]);
        assert_eq!(token_name(&whole, 1), "今");
        assert_eq!(token_name(&whole, 2), "…今");
        assert_eq!(token_name(&whole, 5), "…🎉");
        assert_eq!(
            (
                shown_at(&whole, 2),
                shown_at(&whole, 3),
                shown_at(&whole, 9)
            ),
            (1, 3, 6)
        );
    }

    #[test]
    fn bytes_that_make_no_character_stay() {
        assert_eq!(
            join_characters(&["<0xE4>", "<0xBB>", " a"]),
            ["<0xE4>", "<0xBB>", " a"]
        );
        assert_eq!(
            join_characters(&["<0xBB>", "<0xC3>", "<0xA9>"]),
            ["<0xBB>", "é", ""]
        );
        // Text that only looks like a byte.
        assert_eq!(
            join_characters(&["<0xE4", ">", "<0xZZ>", "x<0xE4>"]),
            ["<0xE4", ">", "<0xZZ>", "x<0xE4>"]
        );
        assert_eq!(token_name(&[], 0), text::token(""));
        assert!(
            is_continuation("<0xBB><0x8A>")
                && !is_continuation("<0xE4>")
                && !is_continuation("a")
                && !is_continuation("")
        );
    }

    #[test]
    fn what_a_reader_takes_for_one_character_is_seen_as_one() {
        let tokens = ["", "a", "\r", "\n\n", "🇫", "🇷🇩", "\u{301}", "", "b"].map(str::to_owned);
        let seen = visible_spans(&tokens);
        let texts: Vec<_> = seen
            .iter()
            .map(|s| (s.first, s.last, s.text.as_str()))
            .collect();
        let flags = [(4, 5, "🇫🇷"), (5, 7, "🇩\u{301}")];
        assert_eq!(
            texts,
            [
                &[(0, 0, ""), (1, 1, "a"), (2, 3, "\r\n"), (3, 3, "\n")],
                &flags[..],
                &[(8, 8, "b")]
            ]
            .concat()
        );
        assert_eq!(
            seen[5].value(&[9.0, 9.0, 9.0, 9.0, 9.0, 1.0, -3.0, 2.0, 9.0]),
            -3.0
        );
        assert!(seen[5].shows(7) && !seen[5].shows(8));
    }

    proptest! {
        #[test]
        fn cut_anywhere_the_pieces_are_the_text(text in "[a-zé今🎉ก् ]{0,12}", cuts in proptest::collection::vec(0usize..40, 0..9)) {
            let bytes = text.as_bytes();
            let mut ends: Vec<usize> = cuts.into_iter().filter(|c| *c < bytes.len()).chain([0, bytes.len()]).collect();
            ends.sort_unstable();
            ends.dedup();
            let spell = |bytes: &[u8]| match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => bytes.iter().map(|b| format!("<0x{b:02X}>")).collect(),
            };
            let pieces: Vec<String> = ends.windows(2).map(|w| spell(&bytes[w[0]..w[1]])).collect();
            let whole = join_characters(&pieces);
            prop_assert_eq!(whole.len(), pieces.len());
            prop_assert_eq!(whole.concat(), text);
        }
    }
}
