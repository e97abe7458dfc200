//! The cells that text takes on a terminal: measuring, truncating, padding and wrapping. Expects text
//! from [`super::clean`]; knows nothing of colours or panes.
//!
//! Invariant: no terminal draws a grapheme on more cells than [`width`] says; some draw it on fewer.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The number of cells to reserve for `text`: for each grapheme the largest number that any
/// terminal uses.
pub fn width(text: &str) -> usize {
    text.graphemes(true).map(cells_of).sum()
}

/// The cells of a grapheme: terminals that know graphemes use few, others the sum over its
/// characters.
fn cells_of(grapheme: &str) -> usize {
    if grapheme.len() == 1 {
        return 1;
    }
    grapheme.width().max(grapheme.chars().map(char_cells).sum())
}

/// The cells of a character: many terminals give a cell to vowel signs beside their letter and to
/// letters of old Hangul, which the Unicode width does not.
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

/// The number of cells of a symbol if all terminals agree on it; otherwise `None`.
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
        // The symbols that the explorer's frame is made of.
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

/// `text` truncated to at most `cells`, ending in `…` if it was longer. Expects clean text.
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

/// A label such as `weekday/Wednesday` in at most `cells`: in full, or else the part after the
/// slash, which distinguishes labels better.
pub fn label(text: &str, cells: usize) -> String {
    match text.rsplit_once('/') {
        Some((_, tail)) if width(text) > cells && !tail.is_empty() => truncate(tail, cells),
        _ => truncate(text, cells),
    }
}

/// [`truncate`], then padded with spaces on the right to exactly `cells`.
pub fn pad(text: &str, cells: usize) -> String {
    let mut out = truncate(text, cells);
    out.extend(std::iter::repeat_n(' ', cells.saturating_sub(width(&out))));
    out
}

/// [`truncate`], then padded with spaces on the left to exactly `cells`.
pub fn pad_left(text: &str, cells: usize) -> String {
    let out = truncate(text, cells);
    format!("{}{out}", " ".repeat(cells.saturating_sub(width(&out))))
}

/// The end of `text` in at most `cells`, beginning with `…` if it was longer: for paths.
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

/// `text` broken at spaces into lines of at most `cells`; a longer word is split.
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

/// The words of `text`, each with the punctuation that follows it, and the spaces between them.
/// Text without spaces (wide characters) can be broken between any of its words.
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

/// The most similar ASCII character for one cell: symbols of the frame have one, everything else
/// becomes `?`.
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
