//! Text to ids and back, byte-exact; a GGUF's own tokenizer or a `tokenizer.json`.

use super::{BosRule, ModelFiles};
use crate::error::Result;

/// A model's tokenizer.
pub struct Tokenizer {}

impl Tokenizer {
    /// Reads the tokenizer of a model's files.
    pub fn open(files: &ModelFiles) -> Result<Self> {
        let _ = files;
        unimplemented!()
    }

    /// Ids of `text`, with BOS by `rule` (a BOS that the text already starts with is not doubled). Special tokens
    /// written in the text are recognised, as Hugging Face does.
    pub fn encode(&self, text: &str, rule: BosRule) -> Result<Vec<u32>> {
        let _ = (text, rule);
        unimplemented!()
    }

    /// The text of ids; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let _ = ids;
        unimplemented!()
    }

    /// The exact bytes of one token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let _ = id;
        unimplemented!()
    }

    /// One token for display on its own: its text where its bytes are UTF-8, else `<0xE2>`-like marks for each byte.
    pub fn piece(&self, id: u32) -> String {
        let _ = id;
        unimplemented!()
    }

    /// The BOS id, when the model has one.
    pub fn bos(&self) -> Option<u32> {
        unimplemented!()
    }

    /// Ids that end generation.
    pub fn eos(&self) -> &[u32] {
        unimplemented!()
    }

    /// Number of ids that have a piece.
    pub fn vocab_size(&self) -> usize {
        unimplemented!()
    }

    /// sha256 of what defines it.
    pub fn sha256(&self) -> &str {
        unimplemented!()
    }
}
