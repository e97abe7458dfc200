//! One steering run: what was asked, what came of it. Owns where the steered text departs from the
//! baseline and how texts are laid out; knows no key.

use serde::{Deserialize, Serialize};

use crate::engine::{Mode, RequestId, SteerPart, SteerSettings};
use crate::steering::{SteerInfo, Strength};
use crate::text;

/// More samples than can be asked for.
const MAX_SAMPLES: usize = 64;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// The request was sent, and the engine has not begun.
    Waiting,
    /// The engine searches α or generates the texts.
    Running,
    /// All texts are there.
    Done,
    /// Stopped by the user.
    Cancelled,
    /// The run failed; the reason is for a person.
    Failed(String),
}

/// A request to steer, and what has come of it so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    #[serde(rename = "ask")]
    pub settings: SteerSettings,
    /// The set that the directions are of, where they are no features of a fit.
    #[serde(default, rename = "of")]
    pub set: Option<String>,
    pub info: Option<SteerInfo>,
    /// Unsteered texts, one a sample.
    pub baseline: Vec<String>,
    /// Steered texts, one a sample.
    pub steered: Vec<String>,
    pub state: State,
    /// The request that it was asked with, in this run of the explorer.
    #[serde(skip)]
    pub request: Option<RequestId>,
}

impl Run {
    pub fn new(settings: SteerSettings) -> Self {
        let samples = settings.samples.min(MAX_SAMPLES);
        let empty = vec![String::new(); samples];
        Self {
            settings,
            set: None,
            info: None,
            baseline: empty.clone(),
            steered: empty,
            state: State::Waiting,
            request: None,
        }
    }

    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Waiting | State::Running)
    }

    /// Takes a piece of text.
    pub fn push(&mut self, sample: usize, steered: bool, piece: &str) {
        let texts = if steered {
            &mut self.steered
        } else {
            &mut self.baseline
        };
        if sample < MAX_SAMPLES {
            if texts.len() <= sample {
                texts.resize(sample + 1, String::new());
            }
            texts[sample].push_str(piece);
        }
    }

    pub fn samples(&self) -> usize {
        self.baseline.len().max(self.steered.len())
    }

    /// The texts of a sample: baseline, steered.
    pub fn texts(&self, sample: usize) -> (&str, &str) {
        (
            self.baseline.get(sample).map_or("", String::as_str),
            self.steered.get(sample).map_or("", String::as_str),
        )
    }

    /// The features, short: `#17 +1, #3 −0.5`.
    pub fn features(&self) -> String {
        let one = |(id, weight): &(usize, f32)| {
            if *weight == 1.0 {
                format!("#{id}")
            } else {
                format!("#{id} {weight:+}")
            }
        };
        let shown: Vec<String> = self.settings.features.iter().take(4).map(one).collect();
        let more = self.settings.features.len().saturating_sub(4);
        let tail = if more > 0 {
            format!(" +{more}")
        } else {
            String::new()
        };
        let set = self
            .set
            .as_ref()
            .map_or_else(String::new, |set| format!("{} ", text::clean(set)));
        format!("{set}{}{tail}", shown.join(" "))
    }

    fn part(&self) -> &'static str {
        match &self.settings.part {
            SteerPart::Whole => "",
            SteerPart::CoreOf(_) => " core",
            SteerPart::ExclusiveOf(_) => " own",
        }
    }

    /// How much an ablation takes out.
    fn share(&self) -> f64 {
        match self.settings.strength {
            Strength::Alpha(share) | Strength::Kl(share) => share,
        }
    }

    /// What was asked for, in a few words.
    pub fn description(&self) -> String {
        let strength = match self.settings.strength {
            Strength::Kl(kl) => format!("KL {kl}"),
            Strength::Alpha(alpha) => format!("α {alpha}"),
        };
        let what = match self.settings.mode {
            Mode::Ablate => {
                return format!(
                    "ablate {}{}, share {}",
                    self.features(),
                    self.part(),
                    self.share()
                );
            }
            Mode::Set => "set",
            Mode::Add if self.settings.negative => "suppress",
            Mode::Add => "promote",
        };
        format!("{what} {}{} at {strength}", self.features(), self.part())
    }

    /// For a list of runs: `+#17 core`.
    pub fn short_description(&self) -> String {
        let sign = match self.settings.mode {
            Mode::Ablate => "ablate ",
            Mode::Set => "set ",
            Mode::Add if self.settings.negative => "−",
            Mode::Add => "+",
        };
        format!("{sign}{}{}", self.features(), self.part())
    }

    /// The tokens that rose, as words.
    pub fn risen_words(&self) -> Vec<String> {
        let risen = self.info.iter().flat_map(|info| &info.risen);
        let words = risen.map(|t| t.token.trim().to_lowercase());
        words
            .filter(|w| w.chars().count() > 1 && w.chars().all(char::is_alphanumeric))
            .collect()
    }

    /// The whole run as text.
    pub fn to_text(&self) -> String {
        let mut out = vec![
            format!("prompt: {}", self.settings.prompt),
            self.description(),
        ];
        if let Some(info) = &self.info {
            out.push(format!("α {:.4}, KL {:.4}", info.alpha, info.kl));
            out.extend(info.note.clone());
            for (what, tokens) in [("risen", &info.risen), ("fallen", &info.fallen)] {
                let listed: Vec<String> = tokens
                    .iter()
                    .map(|t| format!("{:?} {:+.3}", t.token, t.value))
                    .collect();
                out.push(format!("{what}: {}", listed.join(", ")));
            }
        }
        for sample in 0..self.samples() {
            let (baseline, steered) = self.texts(sample);
            out.push(format!(
                "\nbaseline {}:\n{baseline}\n\nsteered {}:\n{steered}",
                sample + 1,
                sample + 1
            ));
        }
        out.join("\n")
    }
}

/// From which byte on each of two texts differs from the other, at the start of a word; the length
/// where it does not.
pub(super) fn departure(baseline: &str, steered: &str) -> (usize, usize) {
    let same = baseline
        .bytes()
        .zip(steered.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let snap = |text: &str| {
        if text
            .as_bytes()
            .get(same)
            .is_none_or(u8::is_ascii_whitespace)
        {
            return same;
        }
        let mut at = same;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text[..at].rfind([' ', '\n']).map_or(0, |i| i + 1)
    };
    (snap(baseline), snap(steered))
}

/// A piece of a line, and whether it lies beyond the departure.
pub(super) type Piece = (String, bool);

/// Line feeds shown at the end of a line at most.
const MAX_FEEDS: usize = 6;

/// `text` made clean and broken at spaces and line feeds into lines of at most `cells`; what comes
/// from byte `from` on is told apart. Empty lines take no row of their own: a mark stands for each.
pub(super) fn flow(text: &str, from: usize, cells: usize) -> Vec<Vec<Piece>> {
    let cells = cells.max(1);
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    let mut start = 0;
    let mut feeds = 0;
    for paragraph in text.split('\n') {
        let at = start;
        start += paragraph.len() + 1;
        if paragraph.trim().is_empty() && (at > 0 || start <= text.len()) {
            // What ends the text has said so already.
            feeds += usize::from(start <= text.len());
            continue;
        }
        mark_feeds(&mut lines, feeds, at > from, cells);
        feeds = 0;
        wrap_paragraph(paragraph, at, from, cells, &mut lines);
    }
    mark_feeds(&mut lines, feeds, text.len() > from, cells);
    if lines.is_empty() {
        lines.push(Vec::new());
    }
    lines
}

fn mark_feeds(lines: &mut Vec<Vec<Piece>>, feeds: usize, beyond: bool, cells: usize) {
    if feeds == 0 {
        return;
    }
    let marks = "⏎".repeat(feeds.min(MAX_FEEDS).min(cells));
    let used = |line: &Vec<Piece>| line.iter().map(|(t, _)| text::width(t)).sum::<usize>();
    match lines.last_mut() {
        Some(last) if used(last) + text::width(&marks) <= cells => last.push((marks, beyond)),
        Some(_) => {}
        None => lines.push(vec![(marks, beyond)]),
    }
}

fn wrap_paragraph(
    paragraph: &str,
    start: usize,
    from: usize,
    cells: usize,
    lines: &mut Vec<Vec<Piece>>,
) {
    let mut line: Vec<Piece> = Vec::new();
    let mut used = 0;
    let mut at = start;
    for word in paragraph.split_inclusive(' ') {
        let beyond = at >= from;
        at += word.len();
        let bare = text::clean(word.trim_end_matches(['\r', ' ']));
        // The space before the first word is how tokens are, not how one reads.
        let leads = at == word.len() && bare.is_empty();
        let gap = if leads {
            0
        } else {
            word.len() - word.trim_end_matches(' ').len()
        };
        let w = text::width(&bare);
        if used > 0 && used + w > cells {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        let mut rest = bare;
        while text::width(&rest) > cells {
            let (head, tail) = split_at_cells(&rest, cells);
            line.push((head, beyond));
            lines.push(std::mem::take(&mut line));
            rest = tail;
        }
        used += text::width(&rest);
        if !rest.is_empty() {
            line.push((rest, beyond));
        }
        let gap = gap.min(cells.saturating_sub(used));
        if gap > 0 {
            line.push((" ".repeat(gap), beyond));
            used += gap;
        }
    }
    lines.push(line);
}

fn split_at_cells(text: &str, cells: usize) -> (String, String) {
    use unicode_segmentation::UnicodeSegmentation;
    let mut used = 0;
    for (i, grapheme) in text.grapheme_indices(true) {
        used += text::width(grapheme);
        if used > cells && i > 0 {
            return (text[..i].to_owned(), text[i..].to_owned());
        }
    }
    (text.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_departure_is_told_from_the_start_of_its_word() {
        assert_eq!(departure(" the best way", " the bear"), (5, 5));
        assert_eq!(departure(" the", " the best"), (4, 4));
        assert_eq!(departure(" the", " there"), (4, 1));
        assert_eq!(departure("same", "same"), (4, 4));
        assert_eq!(departure("日曜", "日本"), (0, 0));
    }

    #[test]
    fn text_flows_at_spaces_and_keeps_paragraphs() {
        let lines = flow("one two three\nfour", 4, 8);
        let shown: Vec<String> = lines
            .iter()
            .map(|l| l.iter().map(|(t, _)| t.as_str()).collect::<String>())
            .collect();
        assert_eq!(shown, ["one two ", "three", "four"]);
        assert!(!lines[0][0].1 && lines[1][0].1);
        let lines = flow("\n\nWhen\n\nI\n", 0, 8);
        let shown: Vec<String> = lines
            .iter()
            .map(|l| l.iter().map(|(t, _)| t.as_str()).collect::<String>())
            .collect();
        assert_eq!(shown, ["⏎⏎", "When⏎", "I"]);
    }

    proptest! {
        #[test]
        fn any_text_flows_clean_and_inside(s in "(.|\n){0,80}", other in ".{0,20}", cells in 2usize..30) {
            let (a, b) = departure(&s, &other);
            prop_assert!(s.is_char_boundary(a) && other.is_char_boundary(b));
            for line in flow(&s, a, cells) {
                let whole: String = line.iter().map(|(t, _)| t.as_str()).collect();
                prop_assert!(!whole.chars().any(char::is_control));
                prop_assert!(text::width(&whole) <= cells.max(8), "{:?}", whole);
            }
        }
    }
}
