//! Text of generated tokens as it becomes complete.
//!
//! Owns which characters may be shown; knows nothing of models. Invariant: what `push` and `flush`
//! returned, joined, is the text of all tokens, and no part of it ends inside a character.

/// Tokens before the new ones that are decoded with them, so that a tokenizer's rule for leading
/// spaces applies inside the text and not at its start.
const CONTEXT: usize = 4;
/// Tokens after which bytes that are still not UTF-8 are shown as U+FFFD.
const MAX_INCOMPLETE: usize = 8;

/// Decodes text token by token, and only ever shows complete characters.
pub(super) struct StreamDecoder {
    /// Tokens whose text is shown, kept as context for those that follow, then tokens still held
    /// back.
    ids: Vec<u32>,
    /// How many of `ids`, from the start, have their text shown.
    shown: usize,
    /// All text that was shown.
    pub(super) text: String,
}

impl StreamDecoder {
    /// A stream that continues `prompt`, none of whose text is shown.
    pub(super) fn after(prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
        Self {
            shown: ids.len(),
            ids,
            text: String::new(),
        }
    }

    /// Adds a token and returns the text that is complete now; `flush` shows unfinished bytes too.
    pub(super) fn push(
        &mut self,
        id: u32,
        flush: bool,
        decode: &dyn Fn(&[u32]) -> String,
    ) -> String {
        self.ids.push(id);
        let text = self.pending(decode);
        let unfinished = text.ends_with('\u{fffd}') && self.ids.len() - self.shown < MAX_INCOMPLETE;
        if unfinished && !flush {
            String::new()
        } else {
            self.show(text)
        }
    }

    /// Returns the text that is held back.
    pub(super) fn flush(&mut self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let text = self.pending(decode);
        self.show(text)
    }

    /// The text of the tokens that are not shown yet.
    fn pending(&self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let before = decode(&self.ids[..self.shown]);
        let after = decode(&self.ids);
        // Context that began inside a character decodes differently once the character is complete:
        // the text from the first difference on is new.
        let same = before
            .bytes()
            .zip(after.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let at = (0..=same)
            .rev()
            .find(|&i| after.is_char_boundary(i))
            .unwrap_or(0);
        after[at..].to_owned()
    }

    /// Counts `text` as shown, and forgets tokens that are no longer needed as context.
    fn show(&mut self, text: String) -> String {
        self.shown = self.ids.len();
        if self.shown > 2 * CONTEXT {
            self.ids.drain(..self.shown - CONTEXT);
            self.shown = CONTEXT;
        }
        self.text.push_str(&text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_held_back_until_it_is_whole() {
        let bytes = "é日🙂x".as_bytes().to_vec();
        let decode = |ids: &[u32]| {
            let raw: Vec<u8> = ids
                .iter()
                .map(|&id| bytes.get(id as usize).copied().unwrap_or(0xff))
                .collect();
            String::from_utf8_lossy(&raw).into_owned()
        };
        let mut stream = StreamDecoder::after(&[9]);
        let shown: Vec<String> = (0..10).map(|id| stream.push(id, false, &decode)).collect();
        assert_eq!(shown, ["", "é", "", "", "日", "", "", "", "🙂", "x"]);
        assert_eq!(stream.text, "é日🙂x");
        assert_eq!(
            stream.push(0, true, &decode),
            "\u{fffd}",
            "at the end nothing is held back"
        );
        let mut stray = StreamDecoder::after(&[]);
        let shown: String = (0..12).map(|_| stray.push(99, false, &decode)).collect();
        assert!(
            shown.starts_with('\u{fffd}'),
            "bytes that never become a character are shown in the end"
        );
    }
}
