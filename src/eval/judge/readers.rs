//! Parsers of answers: a description, sentences, verdicts, a rating, or nothing. An answer that could
//! mean two things counts as nothing.
//!
//! Knows no endpoint; thoughts have been taken out before.

/// Longest description, in characters.
const LONGEST: usize = 200;
/// Longest sentence, in characters.
const SENTENCE: usize = 500;

/// A text as it is kept: one line, without control characters and what turns the direction of
/// writing round, bounded.
fn tidy(text: &str, longest: usize) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let plain: String = text
        .chars()
        .filter(|&c| !(c.is_control() && !c.is_whitespace() || turns(c)))
        .collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars()
        .take(longest)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Digits and marks in full width (as Chinese and Japanese keyboards write them) as the usual ones.
fn usual_width(text: &str) -> String {
    let usual = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        c => c,
    };
    text.chars().map(usual).collect()
}

/// The lines of an answer that say something, without the fences around code.
fn lines(answer: &str) -> impl Iterator<Item = &str> {
    answer
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with("```") && !l.starts_with("~~~"))
}

/// Whether a line announces an answer and is none: "Sure! Here is my answer:".
fn announces(line: &str) -> bool {
    const BEGINNINGS: [&str; 12] = [
        "sure",
        "certainly",
        "of course",
        "here is",
        "here's",
        "here are",
        "okay",
        "ok,",
        "ok!",
        "absolutely",
        "my answer",
        "the answer is",
    ];
    let lower = line.to_lowercase();
    line.ends_with([':', '：'])
        || BEGINNINGS
            .iter()
            .any(|beginning| lower.starts_with(beginning))
}

/// What stands around a word as markup.
const MARKUP: [char; 12] = ['"', '\'', '*', '_', '`', '#', '>', '{', '}', '“', '”', ' '];

/// Where what follows "name:" begins: after the last that begins a line, else after the last at
/// all.
fn after_name(answer: &str, name: &str) -> Option<usize> {
    let lower = answer.to_ascii_lowercase();
    let mut found: Option<(bool, usize)> = None;
    for (at, _) in lower.match_indices(name) {
        let before = answer[..at].trim_end_matches(MARKUP);
        if answer[..at].ends_with(char::is_alphanumeric) {
            continue;
        }
        let rest = answer[at + name.len()..].trim_start_matches(MARKUP);
        let Some(value) = rest.strip_prefix([':', '：']) else {
            continue;
        };
        let begins = before.is_empty() || before.ends_with('\n');
        if begins || found.is_none_or(|(begun, _)| !begun) {
            found = Some((begins, answer.len() - value.len()));
        }
    }
    found.map(|f| f.1)
}

/// The description in an answer: what follows the word, or the first line that says something and
/// announces nothing.
pub fn read_description(answer: &str) -> Option<String> {
    let named = after_name(answer, "description");
    let mut candidates = lines(named.map_or(answer, |at| &answer[at..]));
    let line = match named {
        Some(_) => candidates.next(),
        None => {
            let (first, rest): (Vec<&str>, Vec<&str>) =
                candidates.partition(|line| announces(line));
            // A lone line is the answer even if it begins so: "OK signs and approvals".
            rest.first().copied().or_else(|| {
                first
                    .first()
                    .copied()
                    .filter(|l| first.len() == 1 && !l.ends_with([':', '：']))
            })
        }
    }?;
    let line = line.trim_matches(|c: char| MARKUP.contains(&c) || c == ',');
    let plain = tidy(line, LONGEST);
    plain.chars().any(char::is_alphanumeric).then_some(plain)
}

/// The sentences in an answer, without list marks and what announces them.
pub fn read_sentences(answer: &str) -> Vec<String> {
    let plain = |line: &str| {
        let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let numbered = digits
            .strip_prefix(['.', ')'])
            .filter(|_| digits.len() < line.len());
        let marked = line
            .strip_prefix(['-', '*', '•'])
            .filter(|rest| rest.starts_with(' '));
        tidy(
            numbered.or(marked).unwrap_or(line).trim_matches(MARKUP),
            SENTENCE,
        )
    };
    let announced = |i: usize, line: &str| {
        line.ends_with([':', '：'])
            || i == 0 && announces(line) && line.to_lowercase().contains("sentence")
    };
    let sentences = lines(answer)
        .enumerate()
        .filter(|(i, line)| !announced(*i, line))
        .map(|(_, line)| plain(line));
    sentences
        .filter(|l| l.split_whitespace().count() >= 3)
        .collect()
}

/// Just `count` verdicts, or none: digits 0 and 1 that stand alone.
pub fn read_verdicts(answer: &str, count: usize) -> Option<Vec<bool>> {
    let answer = usual_width(answer);
    let mut verdicts: Vec<bool> = Vec::new();
    for line in lines(&answer) {
        // Prose without a digit announces; after a colon the digits follow.
        let numbers = line
            .rsplit_once(':')
            .filter(|(before, _)| !before.contains(|c: char| c.is_numeric()))
            .map_or(line, |s| s.1);
        if !numbers.contains(|c: char| c.is_numeric()) {
            continue;
        }
        let numbers = numbers.trim_end().trim_end_matches('.');
        let between = |c: char| c.is_whitespace() || ",;|[](){}\"'*`".contains(c);
        for word in numbers.split(between).filter(|w| !w.is_empty()) {
            match word {
                "0" | "1" => verdicts.push(word == "1"),
                // "10110": all in one.
                w if w.len() == count && count > 1 && w.bytes().all(|b| b == b'0' || b == b'1') => {
                    verdicts.extend(w.bytes().map(|b| b == b'1'));
                }
                _ => return None,
            }
        }
    }
    (verdicts.len() == count).then_some(verdicts)
}

/// A rating of 0 to 2 after the last "Rating:", or none. A rating on another scale, or a sentence
/// about one, is none.
pub fn read_rating(answer: &str) -> Option<u8> {
    let answer = usual_width(answer);
    let lower = answer.to_ascii_lowercase();
    let named = |(at, _): &(usize, &str)| {
        let behind = lower[*at + "rating".len()..]
            .trim_start_matches(|c: char| c == ' ' || "*\"'`_".contains(c));
        behind.starts_with([':', '[', '='])
    };
    let words = || {
        lower
            .match_indices("rating")
            .filter(|(at, _)| !lower[..*at].ends_with(char::is_alphanumeric))
    };
    // The word may come again in an explanation that follows.
    let at = words().filter(named).last().or_else(|| words().last())?.0;
    let line = lower[at + "rating".len()..]
        .trim_start_matches(|c: char| c.is_whitespace() || ":[*(=\"'`_".contains(c));
    let line = line.lines().next()?;
    let rating = line.bytes().next().filter(|b| (b'0'..=b'2').contains(b))? - b'0';
    let rest = line[1..].trim_start_matches(|c: char| "])*\"'`_}".contains(c));
    // An explanation may follow a mark. With a number of its own it may name another scale.
    let explained = rest
        .trim_start()
        .starts_with(['(', ',', ';', '-', '–', '—', ':', '.'])
        || rest.trim_start().starts_with("because ");
    let doubtful = rest.contains(|c: char| c.is_numeric() || "/%".contains(c))
        || rest.contains("out of")
        || rest.contains(" scale");
    (rest.trim().is_empty() || explained && !doubtful).then_some(rating)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_description_is_one_line_that_describes() {
        let cases = [
            (
                "Sure!\nDescription: **months of the year**",
                Some("months of the year"),
            ),
            ("\n months\n", Some("months")),
            ("**Description:** months", Some("months")),
            ("**Description**: months", Some("months")),
            ("Description：months", Some("months")),
            ("```\nDescription: months\n```", Some("months")),
            (
                "```json\n{\"description\": \"months\"}\n```",
                Some("months"),
            ),
            ("```\nmonths\n```", Some("months")),
            ("Sure! Here is my answer:\n\nmonths", Some("months")),
            (
                "Sure! Here is my answer:\n\nDescription: months",
                Some("months"),
            ),
            ("Certainly.\nmonths", Some("months")),
            ("OK signs and approvals", Some("OK signs and approvals")),
            ("Description:\n months", Some("months")),
            (
                "Description: the word \"description\": and others",
                Some("the word \"description\": and others"),
            ),
            ("Description: a\tb \u{1b}[31mc\u{202e}d", Some("a b [31mcd")),
            ("Description:\n ...", None),
            ("Here is my answer:", None),
            ("", None),
        ];
        for (answer, wanted) in cases {
            assert_eq!(read_description(answer).as_deref(), wanted, "{answer:?}");
        }
        assert_eq!(
            read_description(&"é ".repeat(300)).unwrap().chars().count(),
            199,
            "bounded, and no space at its end"
        );
    }

    #[test]
    fn verdicts_are_as_many_as_were_asked_for_or_none() {
        let cases = [
            "1 0, 1",
            "[1, 0, 1]",
            "101",
            "1\n0\n1",
            "１ ０ １",
            "```\n1 0 1\n```",
            "Sure! Here is my answer:\n\n1 0 1",
            "Answer: 1 0 1",
            "**1 0 1**",
            "1 0 1.",
        ];
        for answer in cases {
            assert_eq!(
                read_verdicts(answer, 3),
                Some(vec![true, false, true]),
                "{answer}"
            );
        }
        for bad in [
            "1 0",
            "1 0 1 1",
            "1. yes 2. no 3. yes",
            "",
            "Text 1 fits",
            "2 0 1",
            "1.0 0.0 1.0",
            "1/1/0",
            "1 or 0, 1",
            "-1 0 1",
            "1: 1\n2: 0\n3: 1",
            "1 0 one",
            "0.5 1 0",
        ] {
            assert_eq!(read_verdicts(bad, 3), None, "{bad}");
        }
        assert_eq!(read_verdicts("1.0 0.0 1.0", 6), None);
    }

    #[test]
    fn a_rating_is_of_the_scale_that_was_asked_for() {
        for (answer, wanted) in [
            ("It is fluent.\nRating: [[2]]", 2),
            ("Rating: 0.", 0),
            ("Rating: **2**", 2),
            ("**Rating:** 1", 1),
            ("**Rating: 1**", 1),
            ("Rating：２", 2),
            ("Rating: ２", 2),
            ("{\"rating\": 2}", 2),
            ("```\nRating: 1\n```", 1),
            ("Rating: 1 (a trace)", 1),
            ("Rating: 2, because it is plainly there", 2),
            ("Rating: 0\nThe text says nothing of it.", 0),
            ("Rating: 2 would be too much.\nRating: 1", 1),
            ("Rating: 2\nThis rating reflects that it is there.", 2),
        ] {
            assert_eq!(read_rating(answer), Some(wanted), "{answer}");
        }
        for bad in [
            "",
            "2",
            "Rating:",
            "Rating: 3",
            "Rating: 1.5",
            "Rating: 1,5",
            "Rating: two",
            "Rating: 12",
            "Rating: 1 out of 10",
            "Rating: 1/10",
            "Rating: 1 / 10",
            "Rating: 2/2",
            "Rating: 1-2",
            "Rating: -1",
            "Rating: 1 (out of ten)",
            "Rating: 2 would be too much",
            "Rating: 1 or 2",
            "Rating: 2%",
            "operating: 1",
            "Rating: 1 (on a scale to ten)",
        ] {
            assert_eq!(read_rating(bad), None, "{bad}");
        }
    }

    #[test]
    fn sentences_keep_their_own_numbers() {
        let answer = "Sure! Here are four sentences\n1. A cat sat down.\n\n- The dog ran off.\n1984 was a good year.\n\"It was late again.\"\nSure enough, he came.\nOk";
        let wanted = [
            "A cat sat down.",
            "The dog ran off.",
            "1984 was a good year.",
            "It was late again.",
            "Sure enough, he came.",
        ];
        assert_eq!(read_sentences(answer), wanted);
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_makes_a_reader_panic(
            text in "\\PC{0,60}|[Rrating: 0-9.\\[１é]{0,30}|[dDescription:*\"\n ]{0,40}", count in 0usize..6,
        ) {
            let _ = (read_sentences(&text), read_rating(&text));
            if let Some(description) = read_description(&text) {
                prop_assert!(description.chars().count() <= LONGEST && !description.contains('\n'));
            }
            if let Some(verdicts) = read_verdicts(&text, count) {
                prop_assert_eq!(verdicts.len(), count);
            }
        }
    }
}
