//! Our questions, and how their answers are read.

use super::{Question, Wants};

const ANALYST: &str =
    "You study what units of a language model respond to. You answer briefly and in the form asked for.";
const GRADER: &str = "You grade short texts. You answer in the form asked for and add nothing.";
/// Around the words that excite a unit.
pub const MARKS: (&str, &str) = ("<<", ">>");

fn question(system: &str, user: String, max_tokens: usize, wants: Wants) -> Question {
    // Sentences shall differ; everything else shall be the same each time.
    let temperature = if wants == Wants::Sentences { 0.7 } else { 0.0 };
    Question { system: system.to_owned(), user, max_tokens, temperature, wants }
}

/// What the texts that excite a unit share; their strongest words are marked.
pub fn describe_inputs(texts: &[String]) -> Question {
    let user = format!(
        "A unit of a language model responds to the words marked {}like this{} in these texts:\n\n{}\n\nSay in at most \
         twelve words what the marked words (or their places) have in common. Begin your answer with \"Description:\".",
        MARKS.0,
        MARKS.1,
        numbered(texts)
    );
    question(ANALYST, user, 60, Wants::Description)
}

/// What the words that a unit makes likelier share.
pub fn describe_outputs(promoted: &[String], suppressed: &[String]) -> Question {
    let list = |words: &[String]| words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
    let user = format!(
        "When a unit of a language model is turned up, these words become likelier as the next word:\n{}\n\nand these less \
         likely:\n{}\n\nSay in at most twelve words what the likelier words have in common. Begin your answer with \
         \"Description:\".",
        list(promoted),
        list(suppressed)
    );
    question(ANALYST, user, 60, Wants::Description)
}

/// Sentences that fit a description (or, with `neutral`, that have nothing to do with it).
pub(super) fn sentences(description: &str, count: usize, neutral: bool) -> Question {
    let relation = if neutral { "have nothing to do with" } else { "clearly fit" };
    let user = format!(
        "Write {count} plain, varied English sentences of 8 to 20 words that {relation} this description:\n{description}\n\n\
         One sentence a line, without numbers."
    );
    question(ANALYST, user, 40 * count, Wants::Sentences)
}

/// Which of the texts a description fits.
pub fn detect(description: &str, texts: &[String]) -> Question {
    let user = format!(
        "Description: {description}\n\nTexts:\n\n{}\n\nFor each text, say whether it contains what the description says: 1 \
         if it does, 0 if not. Answer with {} digits separated by spaces, in the order of the texts, and nothing else.",
        numbered(texts),
        texts.len()
    );
    question(GRADER, user, 4 * texts.len() + 8, Wants::Verdicts(texts.len()))
}

/// In which of the texts the marked words are those that a description means.
pub fn fuzz(description: &str, texts: &[String]) -> Question {
    let user = format!(
        "Description: {description}\n\nTexts with marked words:\n\n{}\n\nFor each text, say whether the words marked \
         {}like this{} are what the description says: 1 if they are, 0 if not. Answer with {} digits separated by spaces, in \
         the order of the texts, and nothing else.",
        numbered(texts),
        MARKS.0,
        MARKS.1,
        texts.len()
    );
    question(GRADER, user, 4 * texts.len() + 8, Wants::Verdicts(texts.len()))
}

/// How strongly a text is about a concept: 0, 1 or 2.
pub fn rate_concept(concept: &str, text: &str) -> Question {
    let user = format!(
        "Concept: {concept}\n\nText: {text}\n\nHow much of the concept is in the text? 0: none. 1: a trace. 2: it is plainly \
         there. The text's quality does not matter. End your answer with \"Rating: \" and the number."
    );
    question(GRADER, user, 80, Wants::Rating)
}

/// How fluent a text is: 0, 1 or 2.
pub fn rate_fluency(text: &str) -> Question {
    let user = format!(
        "Text: {text}\n\nHow fluent is the text, whatever it says? 0: broken, repetitive or not English. 1: readable with \
         flaws. 2: fluent. A cut end is no flaw. End your answer with \"Rating: \" and the number."
    );
    question(GRADER, user, 80, Wants::Rating)
}

fn numbered(texts: &[String]) -> String {
    let one =
        |(i, text): (usize, &String)| format!("{}. {}", i + 1, text.split_whitespace().collect::<Vec<_>>().join(" "));
    texts.iter().enumerate().map(one).collect::<Vec<_>>().join("\n")
}

/// The description in an answer: what follows the word, or the first line that says something.
pub fn read_description(answer: &str) -> Option<String> {
    let lower = answer.to_ascii_lowercase();
    let after = lower.rfind("description:").map_or(answer, |at| &answer[at + "description:".len()..]);
    let line = after.lines().map(|l| l.trim().trim_matches(['"', '*', '“', '”']).trim()).find(|l| !l.is_empty())?;
    let plain: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    plain.chars().any(char::is_alphanumeric).then_some(plain)
}

/// The sentences in an answer, without list marks and what announces them.
pub fn read_sentences(answer: &str) -> Vec<String> {
    let plain =
        |line: &str| line.trim().trim_start_matches(|c: char| c.is_ascii_digit() || ".)-*• ".contains(c)).to_owned();
    answer.lines().map(plain).filter(|l| l.split_whitespace().count() >= 3 && !l.ends_with(':')).collect()
}

/// Just `count` verdicts, or none: digits 0 and 1 that stand alone.
pub fn read_verdicts(answer: &str, count: usize) -> Option<Vec<bool>> {
    let words = answer.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let mut verdicts: Vec<bool> = Vec::new();
    for word in words {
        match word {
            "0" | "1" => verdicts.push(word == "1"),
            // "10110": all in one.
            w if w.len() == count && count > 1 && w.bytes().all(|b| b == b'0' || b == b'1') => {
                verdicts.extend(w.bytes().map(|b| b == b'1'));
            }
            _ => return None,
        }
    }
    (verdicts.len() == count).then_some(verdicts)
}

/// A rating of 0 to 2 after the last "Rating:", or none.
pub fn read_rating(answer: &str) -> Option<u8> {
    let lower = answer.to_ascii_lowercase();
    let after = &lower[lower.rfind("rating")? + "rating".len()..];
    let after = after.trim_start_matches(|c: char| c.is_whitespace() || ":[*(=\"".contains(c));
    let number: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    match number.trim_end_matches('.') {
        "0" => Some(0),
        "1" => Some(1),
        "2" => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_and_what_is_missing_stays_missing() {
        assert_eq!(
            read_description("Sure!\nDescription: **months of the year**"),
            Some("months of the year".to_owned())
        );
        assert_eq!(read_description("\n months\n"), Some("months".to_owned()));
        assert_eq!(read_description("Description:\n ..."), None);
        assert_eq!(read_verdicts("1 0, 1", 3), Some(vec![true, false, true]));
        assert_eq!(read_verdicts("[1, 0, 1]", 3), Some(vec![true, false, true]));
        assert_eq!(read_verdicts("101", 3), Some(vec![true, false, true]));
        for bad in ["1 0", "1 0 1 1", "1. yes 2. no 3. yes", "", "Text 1 fits", "2 0 1"] {
            assert_eq!(read_verdicts(bad, 3), None, "{bad}");
        }
        assert_eq!(read_rating("It is fluent.\nRating: [[2]]"), Some(2));
        assert_eq!(read_rating("Rating: 0."), Some(0));
        for bad in ["", "2", "Rating:", "Rating: 3", "Rating: 1.5", "Rating: two", "Rating: 12"] {
            assert_eq!(read_rating(bad), None, "{bad}");
        }
        assert_eq!(
            read_sentences("1. A cat sat down.\n\n- The dog ran off.\nOk"),
            ["A cat sat down.", "The dog ran off."]
        );
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_makes_a_reader_panic(text in "\\PC{0,60}|[Rrating: 0-9.\\[]{0,30}", count in 0usize..6) {
            let _ = (read_description(&text), read_sentences(&text), read_rating(&text));
            if let Some(verdicts) = read_verdicts(&text, count) {
                prop_assert_eq!(verdicts.len(), count);
            }
        }
    }
}
