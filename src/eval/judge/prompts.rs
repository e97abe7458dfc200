//! The prompts that a judge is asked with.

use super::{Expected, Question};

const ANALYST: &str = "You study what units of a language model respond to. You answer briefly and in the form asked for.";
const GRADER: &str = "You grade short texts. You answer in the form asked for and add nothing.";
const GRADER_THAT_EXPLAINS: &str =
    "You grade short texts. You explain each grade briefly before you give it.";
/// Around the words that excite a unit.
pub const MARKS: (&str, &str) = ("<<", ">>");

fn question(system: &str, user: String, max_tokens: usize, expected: Expected) -> Question {
    // Sentences shall differ; everything else shall be the same each time.
    let temperature = if expected == Expected::Sentences {
        0.7
    } else {
        0.0
    };
    Question {
        system: system.to_owned(),
        user,
        max_tokens,
        temperature,
        expected,
    }
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
    question(ANALYST, user, 60, Expected::Description)
}

/// What the words that a unit makes likelier share.
pub fn describe_outputs(promoted: &[String], suppressed: &[String]) -> Question {
    let list = |words: &[String]| {
        words
            .iter()
            .map(|w| format!("{w:?}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let user = format!(
        "When a unit of a language model is turned up, these words become likelier as the next word:\n{}\n\nand these less \
         likely:\n{}\n\nSay in at most twelve words what the likelier words have in common. Begin your answer with \
         \"Description:\".",
        list(promoted),
        list(suppressed)
    );
    question(ANALYST, user, 60, Expected::Description)
}

/// Sentences that fit a description (or, with `neutral`, that have nothing to do with it).
pub(super) fn sentences(description: &str, count: usize, neutral: bool) -> Question {
    let relation = if neutral {
        "have nothing to do with"
    } else {
        "clearly fit"
    };
    let user = format!(
        "Write {count} plain, varied English sentences of 8 to 20 words that {relation} this description:\n{description}\n\n\
         One sentence a line, without numbers."
    );
    question(ANALYST, user, 40 * count, Expected::Sentences)
}

/// Which of the texts a description fits.
pub fn detect(description: &str, texts: &[String]) -> Question {
    let user = format!(
        "Description: {description}\n\nTexts:\n\n{}\n\nFor each text, say whether it contains what the description says: 1 \
         if it does, 0 if not. Answer with {} digits separated by spaces, in the order of the texts, and nothing else.",
        numbered(texts),
        texts.len()
    );
    question(
        GRADER,
        user,
        4 * texts.len() + 8,
        Expected::Verdicts(texts.len()),
    )
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
    question(
        GRADER,
        user,
        4 * texts.len() + 8,
        Expected::Verdicts(texts.len()),
    )
}

/// How strongly a text is about a concept: 0, 1 or 2.
pub fn rate_concept(concept: &str, text: &str) -> Question {
    let user = format!(
        "Concept: {concept}\n\nText: {text}\n\nHow much of the concept is in the text? 0: none. 1: a trace. 2: it is plainly \
         there. The text's quality does not matter. End your answer with \"Rating: \" and the number."
    );
    question(GRADER, user, 80, Expected::Rating)
}

/// How fluent a text is: 0, 1 or 2.
pub fn rate_fluency(text: &str) -> Question {
    let user = format!(
        "Text: {text}\n\nHow fluent is the text, whatever it says? 0: broken, repetitive or not English. 1: readable with \
         flaws. 2: fluent. A cut end is no flaw. End your answer with \"Rating: \" and the number."
    );
    question(GRADER, user, 80, Expected::Rating)
}

/// How much of a concept is in a text, with the reason first: near to the paper's question, which is
/// AxBench's.
pub fn explain_concept(concept: &str, text: &str) -> Question {
    let user = format!(
        "You judge whether a text that a language model wrote takes up a concept. The concept, between bars:\n|{concept}|\n\n\
         The text, between bars:\n|{text}|\n\nRate by this scale. 0: the concept is nowhere in the text. 1: the text touches on \
         the concept, but barely or out of place. 2: the text takes the concept up clearly and as a part of what it says. \
         Judge the concept alone, not how well the text is written.\n\nFirst explain your rating in one or two sentences. \
         Then end with \"Rating: \" and the number."
    );
    question(GRADER_THAT_EXPLAINS, user, 200, Expected::Rating)
}

/// How fluent a text is, with the reason first.
pub fn explain_fluency(text: &str) -> Question {
    let user = format!(
        "You judge how fluent a text is that a language model wrote. The text, between bars:\n|{text}|\n\nRate by this scale. 0: \
         the text is not fluent: it is broken, repeats itself or cannot be followed. 1: it is somewhat fluent: it can be \
         followed, with clear mistakes or repetitions. 2: it is fluent: it reads as if a person had written it. The text may \
         end in the middle of a sentence, which is no mistake; whether it is true or to the point does not matter.\n\nFirst \
         explain your rating in one or two sentences. Then end with \"Rating: \" and the number."
    );
    question(GRADER_THAT_EXPLAINS, user, 200, Expected::Rating)
}

fn numbered(texts: &[String]) -> String {
    let one = |(i, text): (usize, &String)| {
        format!(
            "{}. {}",
            i + 1,
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        )
    };
    texts
        .iter()
        .enumerate()
        .map(one)
        .collect::<Vec<_>>()
        .join("\n")
}
