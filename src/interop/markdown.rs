//! Markdown that nothing written by a model or a corpus can break.

/// A table; heads and cells are made safe.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(heads.iter().map(|h| cell(h)).collect());
    out += &line(heads.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        out += &line(row.iter().map(|c| cell(c)).collect());
    }
    out
}

/// Bold around the word itself, not around its leading space, which Markdown would not read as
/// bold.
pub fn emphasised(token: &str) -> String {
    let word = token.trim();
    let (before, after) = token.split_once(word).unwrap_or(("", ""));
    if word.is_empty() {
        cell(token)
    } else {
        format!("{}**{}**{}", cell(before), cell(word), cell(after))
    }
}

/// Text that cannot break a Markdown table or hide anything.
pub fn cell(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' => "⏎".to_owned(),
            '|' | '*' | '`' | '\\' | '<' | '_' => format!("\\{c}"),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_break_the_table() {
        assert_eq!(emphasised(" a|b\n"), " **a\\|b**⏎");
        assert_eq!(emphasised("\n"), "⏎");
        assert_eq!(cell("<b>"), "\\<b>");
        assert_eq!(
            table(&["a", "b"], &[vec!["1|2".to_owned(), "x".to_owned()]]),
            "| a | b |\n| --- | --- |\n| 1\\|2 | x |\n"
        );
    }
}
