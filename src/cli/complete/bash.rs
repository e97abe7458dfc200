//! Bash, which parts words at `:` and `=` too, hands them over with their quotes, and puts what it
//! gets into the line as it is.
//!
//! The script sends the line itself, which is parted here as bash parts it for a command. Invariant:
//! a candidate stands for one word in the line, whatever it is made of.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap_complete::env::EnvCompleter;

/// The environment variable with the line up to the cursor.
const LINE: &str = "MLPEEK_LINE";

/// Bash with its whole line.
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn io::Write,
    ) -> io::Result<()> {
        let mut script = Vec::new();
        let plain = clap_complete::env::Bash;
        plain.write_registration(var, name, bin, completer, &mut script)?;
        let script = String::from_utf8_lossy(&script);
        let call = "_CLAP_IFS=\"$IFS\"";
        let with_line = format!("{LINE}=\"${{COMP_LINE:0:COMP_POINT}}\" {call}");
        buf.write_all(script.replace(call, &with_line).as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn io::Write,
    ) -> io::Result<()> {
        let Some(line) = line() else {
            return clap_complete::env::Bash.write_complete(cmd, args, current_dir, buf);
        };
        let at = line.words.len() - 1;
        let found = clap_complete::engine::complete(cmd, line.words.clone(), at, current_dir)?;
        let words: Vec<String> = found
            .iter()
            .filter_map(|candidate| line.completed(&candidate.get_value().to_string_lossy()))
            .collect();
        let between = std::env::var("_CLAP_IFS").unwrap_or_else(|_| "\n".to_owned());
        buf.write_all(words.join(&between).as_bytes())
    }
}

/// The line that the script sent; `None` where another shell asks.
pub(super) fn line() -> Option<Line> {
    Some(Line::parse(&std::env::var(LINE).ok()?))
}

/// A line up to the cursor, parted into words.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Its words without their quotes; the last one is under the cursor, and may be empty.
    pub words: Vec<OsString>,
    /// How many bytes of the last word stand before the part that bash replaces.
    kept: usize,
    /// The quote that the last word is in.
    quote: Option<char>,
}

impl Line {
    fn parse(line: &str) -> Self {
        let (mut words, mut word, mut kept) = (Vec::new(), String::new(), 0);
        let (mut quote, mut begun) = (None, false);
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => (quote, begun) = (Some(c), true),
                (None | Some('"'), '\\') => word.extend(chars.next()),
                (None, c) if c.is_whitespace() => {
                    if begun || !word.is_empty() {
                        words.push(std::mem::take(&mut word).into());
                    }
                    (begun, kept) = (false, 0);
                }
                (None, ':' | '=') => {
                    word.push(c);
                    kept = word.len();
                }
                (_, c) => word.push(c),
            }
        }
        words.push(word.into());
        Self { words, kept, quote }
    }

    /// What bash is to put in the place of the last part of the word, for the word `whole`.
    fn completed(&self, whole: &str) -> Option<String> {
        let part = whole.get(self.kept..)?;
        let escaped = |c: char| match self.quote {
            Some('"') => "\"\\$`".contains(c),
            Some(_) => false,
            None => !c.is_alphanumeric() && !"._-+:@/=,~".contains(c),
        };
        let mut out = String::new();
        for c in part.chars() {
            if escaped(c) {
                out.push('\\');
            }
            out.push(c);
        }
        Some(out)
    }
}

/// A word of another shell's line without its quotes and backslashes.
pub(super) fn unquoted(word: &OsStr) -> OsString {
    match word
        .to_str()
        .filter(|word| word.contains(['\\', '\'', '"']))
    {
        Some(quoted) => Line::parse(quoted).words.pop().unwrap_or_default(),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_as_bash_parts_it() {
        let words = |line: &str| Line::parse(line).words;
        assert_eq!(words("mlpeek info "), ["mlpeek", "info", ""]);
        assert_eq!(
            words(r#"mlpeek info my\ study 'a "b"' "c d"e"#),
            ["mlpeek", "info", "my study", "a \"b\"", "c de"]
        );
        assert_eq!(
            words("mlpeek steer s '' x"),
            ["mlpeek", "steer", "s", "", "x"]
        );
    }

    #[test]
    fn what_is_completed_is_one_word_behind_the_last_break() {
        let put = |line: &str, whole: &str| Line::parse(line).completed(whole).unwrap();
        assert_eq!(put("mlpeek feature s fit:k", "fit:k20/"), "k20/");
        assert_eq!(put("mlpeek trace s --fit=k", "--fit=k20"), "k20");
        assert_eq!(put("mlpeek info my", "my study/"), r"my\ study/");
        assert_eq!(put("mlpeek info 'my", "my study/"), "my study/");
        assert_eq!(put("mlpeek info \"my", "my study/"), "my study/");
    }

    #[test]
    fn the_script_sends_the_line() {
        let mut script = Vec::new();
        Bash.write_registration("V", "mlpeek", "mlpeek", "mlpeek", &mut script)
            .unwrap();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("MLPEEK_LINE=\"${COMP_LINE:0:COMP_POINT}\" _CLAP_IFS"));
    }
}
