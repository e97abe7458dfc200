//! Removes a reasoning model's thoughts, by their markup, from its answer.
//!
//! Knows no question. Invariant: nothing of a thought is left in an answer, and a thought that is
//! not closed is no answer.

/// What is left of an answer without its thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stripped {
    /// The answer without its thoughts.
    Answer(String),
    /// It ends within a thought.
    Open,
    /// It is nothing but thoughts.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Close,
    /// Markup around an answer, of no meaning here.
    Frame,
}

/// Elements, as in `<think>…</think>`.
const THOUGHTS: [&str; 10] = [
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reasoning",
    "reason",
    "reflection",
    "analysis",
    "scratchpad",
    "seed:think",
];
/// Elements around an answer.
const ANSWERS: [&str; 4] = ["answer", "response", "final", "final_answer"];

/// Marks that are written otherwise. The channels are those of gpt-oss: its final one follows its
/// thoughts.
const MARKS: [(&str, Mark); 21] = [
    ("[think]", Mark::Open),
    ("[/think]", Mark::Close),
    ("◁think▷", Mark::Open),
    ("◁/think▷", Mark::Close),
    ("<|start_thinking|>", Mark::Open),
    ("<|end_thinking|>", Mark::Close),
    ("<|begin_of_thought|>", Mark::Open),
    ("<|end_of_thought|>", Mark::Close),
    ("<|channel>thought", Mark::Open),
    ("<channel|>", Mark::Close),
    ("<|channel|>analysis", Mark::Open),
    ("<|channel|>commentary", Mark::Open),
    ("<|channel|>final", Mark::Close),
    ("<|message|>", Mark::Frame),
    ("<|start|>assistant", Mark::Frame),
    ("<|end|>", Mark::Frame),
    ("<|return|>", Mark::Frame),
    ("<|start_response|>", Mark::Frame),
    ("<|end_response|>", Mark::Frame),
    ("<|begin_of_solution|>", Mark::Frame),
    ("<|end_of_solution|>", Mark::Frame),
];

/// Longest tag with its attributes, in bytes.
const LONGEST: usize = 80;

/// An answer without its thoughts. A closing mark without an opening one ends a thought that the
/// model's template began.
pub(super) fn strip_thoughts(text: &str) -> Stripped {
    let mut kept = String::new();
    let (mut thinks, mut thought, mut from, mut at) = (false, false, 0, 0);
    while let Some(next) = text[at..].find(['<', '[', '◁']).map(|n| at + n) {
        let Some((length, mark)) = mark(&text[next..]).filter(|_| !is_quoted(&text[..next])) else {
            at = next + text[next..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        match mark {
            Mark::Open | Mark::Frame if !thinks => kept.push_str(&text[from..next]),
            // What stands before a closing mark was thought, opened or not.
            Mark::Close if !thinks => kept.clear(),
            _ => {}
        }
        thought |= mark != Mark::Frame;
        thinks = mark == Mark::Open || mark == Mark::Frame && thinks;
        at = next + length;
        from = at;
    }
    if thinks {
        return Stripped::Open;
    }
    kept.push_str(&text[from..]);
    let answer = kept.trim();
    match answer.is_empty() && thought {
        true => Stripped::Nothing,
        false => Stripped::Answer(answer.to_owned()),
    }
}

/// Whether a mark is quoted: then it is a part of the text, not markup.
fn is_quoted(before: &str) -> bool {
    before.ends_with(['"', '\'', '`', '“', '‘', '«'])
}

/// The mark that a text begins with, and its length.
fn mark(text: &str) -> Option<(usize, Mark)> {
    let begins = |mark: &str| {
        text.get(..mark.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(mark))
    };
    if let Some((mark, kind)) = MARKS.iter().find(|(mark, _)| begins(mark)) {
        return Some((mark.len(), *kind));
    }
    let end = text.bytes().take(LONGEST).position(|b| b == b'>')?;
    let inside = text.strip_prefix('<')?.get(..end - 1)?;
    let (closes, inside) = inside
        .strip_prefix('/')
        .map_or((false, inside), |rest| (true, rest));
    let name = inside
        .split(|c: char| c.is_whitespace() || c == '/')
        .next()?
        .to_ascii_lowercase();
    let kind = match (
        THOUGHTS.contains(&name.as_str()),
        ANSWERS.contains(&name.as_str()),
        closes,
    ) {
        (true, _, _) if inside.ends_with('/') => Mark::Frame,
        (true, _, false) => Mark::Open,
        (true, _, true) => Mark::Close,
        (_, true, _) => Mark::Frame,
        _ => return None,
    };
    Some((end + 1, kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thoughts_are_taken_out_and_an_open_one_is_no_answer() {
        let answer = |text: &str| Stripped::Answer(text.to_owned());
        let cases = [
            ("months", answer("months")),
            (
                "<think>\nhm, Rating: 2 would be too much\n</think>\n\nRating: 1",
                answer("Rating: 1"),
            ),
            ("  \n <THINK>a</Think>b", answer("b")),
            (
                "<thinking>a</thinking><reasoning effort=\"low\">b</reasoning> c",
                answer("c"),
            ),
            ("<think></think>c", answer("c")),
            ("<think> a <think> b </think> c </think> d", answer("d")),
            ("the template opened it </think> d", answer("d")),
            ("<think>it says <think> somewhere</think>d", answer("d")),
            ("Description: a <think>b</think>", answer("Description: a")),
            (
                "<think>a</think>Description: b<think>c</think>",
                answer("Description: b"),
            ),
            (
                "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
                answer("b"),
            ),
            ("[THINK]a[/THINK]b", answer("b")),
            ("◁think▷a◁/think▷b", answer("b")),
            (
                "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>",
                answer("b"),
            ),
            ("<think>a</think><answer>b</answer>", answer("b")),
            (
                "Description: the tags \"<think>\" and `</think>`",
                answer("Description: the tags \"<think>\" and `</think>`"),
            ),
            (
                "a < b and [thinking] <thinker> </",
                answer("a < b and [thinking] <thinker> </"),
            ),
            ("", answer("")),
            ("<think>a", Stripped::Open),
            (
                "<think>\nThe answer begins with \"Description:\". I lean to Rating: 2 but",
                Stripped::Open,
            ),
            ("<think>a</think>Rating: 1<think>no,", Stripped::Open),
            ("<|channel|>analysis<|message|>a<|end|>", Stripped::Open),
            ("<reasoning>a", Stripped::Open),
            ("<think>a</think>\n", Stripped::Nothing),
            ("a</think>", Stripped::Nothing),
        ];
        for (text, wanted) in cases {
            assert_eq!(strip_thoughts(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_follows_the_last_thought_is_left(text in "(<think>|</think>|<|\\[|◁|é| |>|a){0,20}", end in "[a-z]{1,5}") {
            let _ = strip_thoughts(&text);
            let Stripped::Answer(answer) = strip_thoughts(&format!("{text}</think>{end}")) else { panic!("{text}") };
            prop_assert!(answer.ends_with(&end));
        }
    }
}
