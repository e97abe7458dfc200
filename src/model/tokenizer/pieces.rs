//! The exact bytes of every token, in one block of memory.
//!
//! Knows the two spellings of bytes as text: GPT-2's byte-level alphabet, and SentencePiece's `▁`
//! and `<0xNN>`.

/// Bytes of each id; an id without a piece has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Piece i ends here and starts where piece i − 1 ends.
    ends: Vec<usize>,
    count: usize,
}

impl Pieces {
    /// Adds the piece of the next id.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.count += 1;
    }

    /// Says that the next id has no piece.
    pub(super) fn skip(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// The bytes of `id`.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.ends.get(id) {
            Some(&end) => &self.bytes[id.checked_sub(1).map_or(0, |before| self.ends[before])..end],
            None => &[],
        }
    }

    /// Ids with a piece.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// How a vocabulary writes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One character of GPT-2's alphabet a byte.
    ByteLevel,
    /// `▁` for a space, `<0xNN>` for a byte without a piece.
    SentencePiece,
    /// As it is.
    Literal,
}

/// The bytes that a token's text stands for.
pub(super) fn spelled(text: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::Literal => text.as_bytes().to_vec(),
        Spelling::ByteLevel => {
            // A token with other characters was never made by the byte-level alphabet: it is
            // literal.
            text.chars()
                .map(byte_of)
                .collect::<Option<_>>()
                .unwrap_or_else(|| text.as_bytes().to_vec())
        }
        Spelling::SentencePiece => match hex_byte(text) {
            Some(byte) => vec![byte],
            None => text.replace('▁', " ").into_bytes(),
        },
    }
}

/// The byte of a character of GPT-2's alphabet: printable Latin-1 stands for itself, the 68 other
/// bytes, in order, for U+0100 and on (`bytes_to_unicode` in GPT-2's `encoder.py`).
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        c @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// `<0x0A>` is the byte 10.
pub(super) fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    hexadecimal
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut seen = [0; 256];
        for c in (0..0x400).filter_map(char::from_u32) {
            if let Some(byte) = byte_of(c) {
                seen[usize::from(byte)] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n == 1));
        assert_eq!(spelled("ĠHeĊ", Spelling::ByteLevel), b" He\n");
        assert_eq!(spelled("âĢ", Spelling::ByteLevel), [0xE2, 0x80]);
    }

    #[test]
    fn sentencepiece_spells_spaces_and_bytes() {
        assert_eq!(spelled("▁a▁", Spelling::SentencePiece), b" a ");
        assert_eq!(spelled("<0xE2>", Spelling::SentencePiece), [0xE2]);
        assert_eq!(spelled("<0x+1>", Spelling::SentencePiece), b"<0x+1>");
        assert_eq!(spelled("<0xE2", Spelling::SentencePiece), b"<0xE2");
    }

    #[test]
    fn ids_without_a_piece_have_no_bytes() {
        let mut pieces = Pieces::default();
        pieces.push(b"ab");
        pieces.skip();
        pieces.push(b"c");
        assert_eq!(
            [
                pieces.bytes(0),
                pieces.bytes(1),
                pieces.bytes(2),
                pieces.bytes(3)
            ],
            [&b"ab"[..], b"", b"c", b""]
        );
        assert_eq!(pieces.count(), 2);
    }
}
