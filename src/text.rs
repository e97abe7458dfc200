//! Text from a model or a file, made safe for a terminal and measured in cells. Owns what is shown
//! instead of control, zero-width and bidirectional characters, and the number of cells of a
//! character. Knows nothing of colours or panes.
//!
//! Invariant: what [`clean`] returns holds no control character, no escape sequence and no
//! character of width zero outside a grapheme, so it can be printed as it is. No terminal draws a
//! grapheme on more cells than [`width`] says; some draw it on fewer.

pub use crate::amounts::{bytes, chosen_percent, count, duration, number, percent};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

mod cells;

pub use cells::{agreed_width, ascii, label, pad, pad_left, truncate, truncate_start, width, wrap};

/// The most combining marks that a base character keeps; more of them spill over other lines.
const MAX_MARKS: usize = 3;

/// Levenshtein's edit distance, in characters.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let up = row[j + 1];
            row[j + 1] = (corner + usize::from(ca != *cb))
                .min(up + 1)
                .min(row[j] + 1);
            corner = up;
        }
    }
    row[b.len()]
}

/// Whether a character is invisible or changes how others are laid out.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e000}'..='\u{f8ff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Whether a grapheme is an emoji sequence, which some terminals draw as one glyph and others as
/// several.
fn is_emoji_sequence(grapheme: &str) -> bool {
    let mut chars = grapheme.chars();
    let Some(first) = chars.next() else {
        return false;
    };
    let pictographic = matches!(first, '\u{1f000}'..='\u{1faff}' | '\u{2190}'..='\u{2bff}' | '\u{3030}' | '\u{303d}'
        | '\u{3297}' | '\u{3299}' | '\u{a9}' | '\u{ae}' | '#' | '*' | '0'..='9');
    pictographic
        && chars.any(|c| {
            matches!(c, '\u{fe0f}' | '\u{200d}' | '\u{20e3}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{1f1e6}'..='\u{1f1ff}')
        })
}

/// Whether a grapheme is a flag of two regional letters: terminals draw the flag or the letters, on
/// two cells either way.
fn is_flag(grapheme: &str) -> bool {
    grapheme.chars().count() == 2
        && grapheme
            .chars()
            .all(|c| matches!(c, '\u{1f1e6}'..='\u{1f1ff}'))
}

/// Composes Hangul that is written letter by letter into the syllable, since terminals disagree on
/// the cells of the letters; `None` for any other grapheme.
fn syllable(grapheme: &str) -> Option<String> {
    let mut rest = grapheme.chars();
    let first = u32::from(rest.next()?);
    let place =
        |c: char, from: u32, count: u32| u32::from(c).checked_sub(from).filter(|at| *at < count);
    let mut code = match first {
        0x1100..=0x1112 => 0xac00 + ((first - 0x1100) * 21 + place(rest.next()?, 0x1161, 21)?) * 28,
        0xac00..=0xd7a3 if (first - 0xac00) % 28 == 0 => first,
        _ => return None,
    };
    let mut marks = rest.clone();
    if let Some(end) = marks.next().and_then(|c| place(c, 0x11a8, 27)) {
        code += end + 1;
        rest = marks;
    }
    Some(char::from_u32(code)?.to_string() + rest.as_str())
}

fn is_mark(c: char) -> bool {
    use GeneralCategory::{EnclosingMark, NonspacingMark, SpacingMark};
    matches!(
        c.general_category(),
        EnclosingMark | NonspacingMark | SpacingMark
    )
}

fn push_visible(grapheme: &str, out: &mut String) {
    // The characters after a composed syllable are handled like those after any other letter.
    let syllable = syllable(grapheme);
    match syllable.as_deref().unwrap_or(grapheme) {
        "\n" | "\r\n" | "\r" => out.push('⏎'),
        "\t" => out.push('⇥'),
        g if is_flag(g) => out.push_str(g),
        g if is_emoji_sequence(g) => out.extend(g.chars().next()),
        g => {
            let mut marks = 0;
            for (i, c) in g.chars().enumerate() {
                if is_hidden(c) {
                    // A variation selector after its base only chooses a glyph; alone it would be
                    // an invisible cell.
                    if i == 0 || !matches!(c, '\u{fe00}'..='\u{fe0f}') {
                        out.push_str(&format!("‹U+{:04X}›", c as u32));
                    }
                } else if c.width().unwrap_or(0) == 0 {
                    if i == 0 && is_mark(c) {
                        // A combining mark without a letter is shown on a dotted circle, as in
                        // Unicode charts.
                        marks += 1;
                        out.extend(['◌', c]);
                    } else if i == 0 {
                        out.push_str(&format!("‹U+{:04X}›", c as u32));
                    } else if marks < MAX_MARKS {
                        marks += 1;
                        out.push(c);
                    }
                } else {
                    out.push(c);
                }
            }
        }
    }
}

/// `text` with every character that is invisible, or that a terminal would act on, replaced by a
/// visible mark: newline by `⏎`, tab by `⇥`, others by their code as `‹U+202E›`. An emoji sequence
/// becomes its first character, except a flag; a combining mark without a letter stands on `◌`.
pub fn clean(text: &str) -> String {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for grapheme in text.graphemes(true) {
        push_visible(grapheme, &mut out);
    }
    out
}

/// An equivalent JSON text in which every character that is invisible, or that a terminal would
/// act on, is escaped as `\u202e`. Outside of its strings JSON has no such character except spaces.
pub fn escape_json(json: &str) -> String {
    if json.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match is_hidden(c) {
            true => c
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            false => out.push(c),
        }
    }
    out
}

/// As [`clean`], but line feeds break lines: for generated text that is shown in paragraphs.
pub fn clean_lines(text: &str) -> Vec<String> {
    text.split('\n')
        .map(|line| clean(line.strip_suffix('\r').unwrap_or(line)))
        .collect()
}

/// A token for a list, with its leading space as `·`, so that `·Sunday` and `Sunday` can be told
/// apart.
pub fn token(piece: &str) -> String {
    match piece.strip_prefix(' ') {
        Some(rest) if !rest.is_empty() => format!("·{}", clean(rest)),
        _ if piece.is_empty() => "∅".to_owned(),
        _ if piece.chars().all(|c| c == ' ') => "·".repeat(piece.len().min(8)),
        _ => clean(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_truncated_label_keeps_its_distinguishing_part() {
        assert_eq!(label("weekday/Wednesday", 20), "weekday/Wednesday");
        assert_eq!(label("weekday/Wednesday", 12), "Wednesday");
        assert_eq!(label("weekday/Wednesday", 6), "Wedne…");
        assert_eq!(label("code/", 3), "co…");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(clean("a\nb\tc"), "a⏎b⇥c");
        assert_eq!(clean("\u{1b}[31mred"), "‹U+001B›[31mred");
        assert_eq!(clean("a\u{202e}b\u{200b}c"), "a‹U+202E›b‹U+200B›c");
        assert_eq!(clean("\u{9b}2J"), "‹U+009B›2J");
    }

    #[test]
    fn emoji_sequences_take_the_cells_of_one_character() {
        assert_eq!(clean("👨‍👩‍👧!"), "👨!");
        assert_eq!(width(&clean("❤\u{fe0f}")), 1);
        assert_eq!(clean("👍🏽"), "👍");
        assert_eq!(clean("é e\u{301}"), "é e\u{301}");
        assert_eq!(clean("\u{301}"), "◌\u{301}");
        assert_eq!(clean("🇫🇷"), "🇫🇷");
    }

    #[test]
    fn cells_are_kept_for_the_terminal_that_takes_most() {
        // Vowel signs beside their letter (Tamil's has width 0 in some terminals), a conjunct,
        // Thai's AM, half-width kana.
        for (text, cells) in [
            ("की", 2),
            ("நா", 2),
            ("ক্ষ", 2),
            ("กำ", 2),
            ("ﾊﾞ", 2),
            ("é", 1),
            ("ที่", 1),
            ("🇫🇷", 2),
            ("日", 2),
        ] {
            assert_eq!(width(text), cells, "{text}");
            assert_eq!(width(&clean(text)), cells, "{text}");
        }
        assert_eq!(
            clean("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
            "한글"
        );
        assert_eq!(clean("가\u{11a8}"), "각");
        assert_eq!(
            clean("가\u{200d}\u{e0041}"),
            "가‹U+200D›‹U+E0041›",
            "nothing is hidden behind a syllable"
        );
    }

    #[test]
    fn frame_characters_have_an_unambiguous_width() {
        for symbol in "│─┬▌▸█▓▒░·▾▴×⏎⇥✗✓⁰⁹…‹›◆★∅⌀▏▁▇⠿αΣ–−"
            .split("")
            .filter(|s| !s.is_empty())
        {
            assert_eq!(
                (agreed_width(symbol), width(symbol)),
                (Some(1), 1),
                "{symbol}"
            );
        }
        for symbol in ["की", "🎉", "❤", "م", "e\u{301}", "\u{301}"] {
            assert_eq!(agreed_width(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn cutting_respects_wide_characters() {
        assert_eq!(truncate("日曜日", 5), "日曜…");
        assert_eq!(truncate("日曜日", 4), "日…");
        assert_eq!(pad("日曜日", 4), "日… ");
        assert_eq!(truncate_start("/data/corpus.json", 8), "…us.json");
        assert_eq!(truncate("abc", 0), "");
    }

    #[test]
    fn a_leading_space_is_seen() {
        assert_eq!(token(" Sunday"), "·Sunday");
    }

    proptest! {
        #[test]
        fn clean_text_is_safe_and_fits(s in "\\PC*|.*", cells in 0usize..40) {
            let shown = clean(&s);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert!(width(&truncate(&shown, cells)) <= cells);
            prop_assert_eq!(width(&pad(&shown, cells)), cells);
            prop_assert!(width(&truncate_start(&shown, cells)) <= cells);
            for line in wrap(&shown, cells.max(2)) {
                prop_assert!(width(&line) <= cells.max(2).max(4));
            }
        }
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_that_is_obeyed() {
        let text =
            "a\u{1b}]52;c;QQ\u{7}\u{9b}31m\u{7f}\u{202e}\u{200b}\u{f0000}\u{fe0f} é 日 👩‍👧\n\"\\";
        let json = serde_json::to_string(&[text]).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.chars().any(is_hidden), "{escaped:?}");
        assert!(
            escaped.contains("\\u009b")
                && escaped.contains("\\udb80\\udc00")
                && escaped.contains("é 日 👩"),
            "{escaped}"
        );
        assert_eq!(
            serde_json::from_str::<Vec<String>>(&escaped).unwrap(),
            [text]
        );
    }
}
