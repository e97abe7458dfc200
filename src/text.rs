//! Text that comes from a model or a file, made safe and measurable for a grid of cells. Owns what
//! is shown instead of control, zero-width and bidirectional characters, and how many cells a
//! character is given; refuses to know about colours or panes.
//!
//! Invariant: what [`clean`] returns holds no control character, no escape sequence and no
//! character of width zero outside a grapheme, so it can be put on a terminal as it is. No terminal
//! draws a grapheme on more cells than [`width`] says; some draw it on fewer.

pub use crate::amounts::{bytes, chosen_percent, count, duration, number, percent};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Most marks that a base character may carry; more is decoration that spills over other lines.
const MAX_MARKS: usize = 3;

/// Characters that change how others are laid out, or that cannot be seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e000}'..='\u{f8ff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Whether a grapheme is several characters that terminals join, or not, as they please.
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

/// Whether a grapheme is a flag of two letters: terminals draw the flag, or the letters, on two
/// cells.
fn is_flag(grapheme: &str) -> bool {
    grapheme.chars().count() == 2
        && grapheme
            .chars()
            .all(|c| matches!(c, '\u{1f1e6}'..='\u{1f1ff}'))
}

/// Hangul written letter by letter as the syllable that it is: terminals disagree on the cells of
/// the letters.
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
    // What follows a syllable is looked at as behind any other letter.
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
                    // A selector after its base only chooses a glyph; alone it would be an
                    // invisible cell.
                    if i == 0 || !matches!(c, '\u{fe00}'..='\u{fe0f}') {
                        out.push_str(&format!("‹U+{:04X}›", c as u32));
                    }
                } else if c.width().unwrap_or(0) == 0 {
                    if i == 0 && is_mark(c) {
                        // As in a table of letters: a mark stands on a dotted circle.
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

/// `text` with everything that is invisible, or that a terminal would obey, shown as a mark:
/// newline `⏎`, tab `⇥`, others as `‹U+202E›`. Emoji sequences become their first character, flags
/// apart; a mark without a letter stands on `◌`.
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

/// A JSON text that means the same with everything that is invisible, or that a terminal would
/// obey, as `\u202e`. What JSON has outside of its strings is none of that.
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

/// As [`clean`], keeping line feeds as line breaks: generated text shown as paragraphs.
pub fn clean_lines(text: &str) -> Vec<String> {
    text.split('\n')
        .map(|line| clean(line.strip_suffix('\r').unwrap_or(line)))
        .collect()
}

/// A token for a list: its leading space as `·`, so that `·Sunday` and `Sunday` differ.
pub fn token(piece: &str) -> String {
    match piece.strip_prefix(' ') {
        Some(rest) if !rest.is_empty() => format!("·{}", clean(rest)),
        _ if piece.is_empty() => "∅".to_owned(),
        _ if piece.chars().all(|c| c == ' ') => "·".repeat(piece.len().min(8)),
        _ => clean(piece),
    }
}

/// Cells that are kept for `text`: of each grapheme as many as the terminal takes that takes most.
pub fn width(text: &str) -> usize {
    text.graphemes(true).map(cells_of).sum()
}

/// Terminals that know graphemes take few cells for one; those that do not take the sum of its
/// characters'.
fn cells_of(grapheme: &str) -> usize {
    if grapheme.len() == 1 {
        return 1;
    }
    grapheme.width().max(grapheme.chars().map(char_cells).sum())
}

/// Vowel signs that stand beside their letter, and letters of old Hangul, are a cell of their own
/// in many terminals.
fn char_cells(c: char) -> usize {
    let beside = || {
        let letter = matches!(c, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}' | '\u{ff9e}'..='\u{ff9f}');
        letter || c.general_category() == GeneralCategory::SpacingMark
    };
    match c.width() {
        None | Some(0) => usize::from(beside()),
        Some(cells) => cells,
    }
}

/// The cells of a symbol on which all terminals agree; `None` where some do otherwise.
pub fn agreed_width(symbol: &str) -> Option<usize> {
    let mut chars = symbol.chars();
    let (c, None) = (chars.next()?, chars.next()) else {
        return None;
    };
    match c {
        ' '..='~'
        | '\u{a1}'..='\u{ac}'
        | '\u{ae}'..='\u{2ff}'
        | '\u{370}'..='\u{482}'
        | '\u{48a}'..='\u{52f}' => Some(1),
        // What the frame is made of.
        '\u{2010}'..='\u{2027}'
        | '\u{2030}'..='\u{203b}'
        | '\u{2070}'..='\u{20bf}'
        | '\u{2190}'..='\u{2193}' => Some(1),
        '⇥'
        | '⏎'
        | '⌀'
        | '\u{2200}'..='\u{22ff}'
        | '\u{2500}'..='\u{25a9}'
        | '▴'
        | '▸'
        | '▾'
        | '◆'
        | '★' => Some(1),
        '✓' | '✗' | '\u{2800}'..='\u{28ff}' => Some(1),
        '\u{3000}'..='\u{3029}'
        | '\u{3041}'..='\u{3096}'
        | '\u{309b}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' => Some(2),
        '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff01}'..='\u{ff60}' => Some(2),
        _ => None,
    }
}

/// `text` cut to at most `cells`, ending in `…` when it was longer. Expects clean text.
pub fn truncate(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        let w = cells_of(grapheme);
        if used + w + 1 > cells {
            break;
        }
        used += w;
        out.push_str(grapheme);
    }
    if cells > 0 {
        out.push('…');
    }
    out
}

/// A label such as `weekday/Wednesday` in at most `cells`: whole, else what follows the slash,
/// which tells more.
pub fn label(text: &str, cells: usize) -> String {
    match text.rsplit_once('/') {
        Some((_, tail)) if width(text) > cells && !tail.is_empty() => truncate(tail, cells),
        _ => truncate(text, cells),
    }
}

/// [`truncate`], then filled with spaces on the right to exactly `cells`.
pub fn pad(text: &str, cells: usize) -> String {
    let mut out = truncate(text, cells);
    out.extend(std::iter::repeat_n(' ', cells.saturating_sub(width(&out))));
    out
}

/// [`truncate`], then filled with spaces on the left to exactly `cells`.
pub fn pad_left(text: &str, cells: usize) -> String {
    let out = truncate(text, cells);
    format!("{}{out}", " ".repeat(cells.saturating_sub(width(&out))))
}

/// The end of `text` in at most `cells`, beginning with `…` when it was longer: for paths.
pub fn truncate_start(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut used = 1;
    for grapheme in text.graphemes(true).rev() {
        used += cells_of(grapheme);
        if used > cells {
            break;
        }
        kept.push(grapheme);
    }
    if cells == 0 {
        String::new()
    } else {
        std::iter::once("…").chain(kept.into_iter().rev()).collect()
    }
}

/// `text` broken at spaces into lines of at most `cells`; a longer word is cut.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(text) {
        let w = width(word);
        if used + w > cells && used > 0 {
            lines.push(String::new());
            used = 0;
            if word.trim().is_empty() {
                continue;
            }
        }
        for grapheme in word.graphemes(true) {
            let g = cells_of(grapheme);
            if used + g > cells && used > 0 {
                lines.push(String::new());
                used = 0;
            }
            if let Some(last) = lines.last_mut() {
                last.push_str(grapheme);
            }
            used += g;
        }
    }
    lines
}

/// Words with the punctuation that follows them, and the spaces between; what is written without
/// spaces (wide characters) breaks anywhere between its words.
fn words(text: &str) -> Vec<&str> {
    let mut spans: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
    for (at, word) in text.split_word_bound_indices() {
        let blank = word.trim().is_empty();
        let wide = word.graphemes(true).next().is_some_and(|g| cells_of(g) > 1);
        match spans.last_mut() {
            Some((span, false)) if !blank && !wide => span.end = at + word.len(),
            _ => spans.push((at..at + word.len(), blank)),
        }
    }
    spans.into_iter().map(|(span, _)| &text[span]).collect()
}

/// The nearest ASCII for one cell: what the frame draws has a likeness, everything else is `?`.
pub fn ascii(symbol: &str) -> &str {
    if symbol.is_ascii() {
        return symbol;
    }
    match symbol {
        "│" | "▏" | "▎" | "▕" => "|",
        "─" | "–" | "−" | "━" | "╸" => "-",
        "┬" | "┴" | "┼" | "├" | "┤" | "╭" | "╮" | "╰" | "╯" | "┌" | "┐" | "└" | "┘" => {
            "+"
        }
        "▌" | "▸" | "›" => ">",
        "‹" => "<",
        "█" | "▉" | "▊" | "▋" | "▐" | "▇" | "▆" => "#",
        "▓" => "%",
        "▒" | "▄" | "▅" => "=",
        "░" | "▂" | "▃" => ":",
        "·" | "▁" | "…" => ".",
        "▾" => "v",
        "▴" => "^",
        "×" => "x",
        "⏎" => "$",
        "⇥" => ">",
        "✗" => "x",
        "✓" => "*",
        "⁰" => "0",
        "¹" => "1",
        "²" => "2",
        "³" => "3",
        "⁴" => "4",
        "⁵" => "5",
        "⁶" => "6",
        "⁷" => "7",
        "⁸" => "8",
        "⁹" => "9",
        s if s.chars().all(|c| matches!(c, '\u{2800}'..='\u{28ff}')) => "*",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_that_is_cut_keeps_what_tells() {
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
        // Vowel signs beside their letter (Tamil's counts as nothing for some), a conjunct, Thai's
        // AM, half-width kana.
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
    fn the_frame_is_made_of_cells_that_are_sure() {
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
