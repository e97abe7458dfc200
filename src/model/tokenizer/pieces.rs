//! The exact bytes of every token, in one block of memory.
//!
//! Knows the two encodings of bytes as text: GPT-2's byte-level alphabet, and SentencePiece's `▁`
//! and `<0xNN>`.

/// Bytes of each id; an id without a piece has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where piece i ends in `bytes`; it starts where piece i − 1 ends.
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

    /// Leaves the next id without a piece.
    pub(super) fn skip(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// The bytes of `id`; none where it has no piece.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.ends.get(id) {
            Some(&end) => &self.bytes[id.checked_sub(1).map_or(0, |before| self.ends[before])..end],
            None => &[],
        }
    }

    /// The number of ids that have a piece.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// How the text of a vocabulary's tokens encodes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteEncoding {
    /// One character of GPT-2's alphabet a byte.
    ByteLevel,
    /// `▁` for a space, `<0xNN>` for a byte without a piece.
    SentencePiece,
    /// A token's text is its bytes in UTF-8.
    Literal,
}

/// The bytes that a token's text stands for.
pub(super) fn piece_bytes(text: &str, encoding: ByteEncoding) -> Vec<u8> {
    match encoding {
        ByteEncoding::Literal => text.as_bytes().to_vec(),
        ByteEncoding::ByteLevel => {
            // A token with a character outside the byte-level alphabet was not encoded by it.
            text.chars()
                .map(byte_of)
                .collect::<Option<_>>()
                .unwrap_or_else(|| text.as_bytes().to_vec())
        }
        ByteEncoding::SentencePiece => match hex_byte(text) {
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
        assert_eq!(piece_bytes("ĠHeĊ", ByteEncoding::ByteLevel), b" He\n");
        assert_eq!(piece_bytes("âĢ", ByteEncoding::ByteLevel), [0xE2, 0x80]);
    }

    #[test]
    fn sentencepiece_spells_spaces_and_bytes() {
        assert_eq!(piece_bytes("▁a▁", ByteEncoding::SentencePiece), b" a ");
        assert_eq!(piece_bytes("<0xE2>", ByteEncoding::SentencePiece), [0xE2]);
        assert_eq!(
            piece_bytes("<0x+1>", ByteEncoding::SentencePiece),
            b"<0x+1>"
        );
        assert_eq!(piece_bytes("<0xE2", ByteEncoding::SentencePiece), b"<0xE2");
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
