//! The texts of a method of an evaluation: for each label the direction that was chosen, the label's
//! words, and its texts beside the unsteered ones.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::engine::{EvaluatedLabel, EvaluatedText, EvaluatedTexts, SetKind};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Step};

/// From this width on the labels stand beside the texts.
const BESIDE: u16 = 76;

/// A method's texts, and which of them are looked at.
#[derive(Debug)]
pub(super) struct TextsView {
    texts: EvaluatedTexts,
    /// The label under the cursor, and the first in sight.
    label: usize,
    offset: usize,
    /// Which of the label's strengths is on show.
    strength: usize,
}

impl TextsView {
    pub fn new(texts: EvaluatedTexts, label: usize) -> Self {
        let label = label.min(texts.labels.len().saturating_sub(1));
        Self {
            texts,
            label,
            offset: 0,
            strength: 0,
        }
    }

    pub fn method(&self) -> &str {
        &self.texts.method
    }

    pub fn cursor(&self) -> usize {
        self.label
    }

    fn current(&self) -> Option<&EvaluatedLabel> {
        self.texts.labels.get(self.label)
    }

    /// The strengths at which the label has texts: KL and sign, promoting first.
    fn strengths(&self) -> Vec<(f64, i8)> {
        let texts = self.current().map_or(&[][..], |label| &label.texts);
        let mut all: Vec<(f64, i8)> = texts.iter().map(|t| (t.target, t.sign)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.total_cmp(&b.0)));
        all.dedup();
        all
    }

    /// Lines of the list of labels.
    fn height(cx: &Cx) -> usize {
        let rows = usize::from(cx.area.height);
        match cx.area.width {
            BESIDE.. => rows,
            _ => rows / 3,
        }
        .saturating_sub(1)
        .max(1)
    }

    /// Moves over labels and strengths; goes to the feature that was chosen.
    pub fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let strengths = self.strengths().len().max(1);
        match action {
            Action::Left => self.strength = (self.strength + strengths - 1) % strengths,
            Action::Right => self.strength = (self.strength + 1) % strengths,
            Action::Run | Action::Open => {
                return Some(match self.current()?.direction {
                    Some(direction) if self.is_on_show(cx) => vec![Step::Visit(direction)],
                    _ => Vec::new(),
                });
            }
            Action::Copy => {
                return Some(vec![Step::Copy(
                    self.as_text(),
                    format!("the texts of {}", self.texts.method),
                )]);
            }
            _ => {
                let (count, height) = (self.texts.labels.len(), Self::height(cx));
                self.label = motion(action, self.label, count, height)?;
                self.offset = scroll(self.offset, self.label, count, height);
                self.strength = 0;
            }
        }
        Some(Vec::new())
    }

    /// Whether the method's directions are those of the list on show.
    fn is_on_show(&self, cx: &Cx) -> bool {
        let list = cx.world.features.as_ref();
        list.is_some_and(|list| match &list.set {
            Some(set) => set.kind.to_string() == self.texts.method,
            None => {
                list.fit == self.texts.method
                    || SetKind::Fit(Some(list.fit.clone())).to_string() == self.texts.method
            }
        })
    }

    fn as_text(&self) -> String {
        let mut lines = vec!["label\tdirection\tKL\tsign\tprompt\ttext\tscore".to_owned()];
        for label in &self.texts.labels {
            for t in &label.texts {
                let score = t.score.map_or_else(String::new, |s| format!("{s:.3}"));
                let prompt = self.texts.prompts.get(t.prompt).map_or("", String::as_str);
                lines.push(format!(
                    "{}\t{}\t{}\t{:+}\t{}\t{}\t{score}",
                    text::clean(&label.label),
                    direction_name(label.direction),
                    t.target,
                    t.sign,
                    text::clean(prompt),
                    text::clean(&t.text)
                ));
            }
        }
        lines.join("\n")
    }

    pub fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let area = cx.area;
        let (list, body) = if area.width >= BESIDE {
            let width = (area.width / 3).clamp(26, 40);
            let rule = Rect {
                x: area.x + width,
                width: 1,
                ..area
            };
            for y in 0..usize::from(area.height) {
                put(buf, rule, y, &Line::styled("│", cx.theme.rule(false)));
            }
            let body = Rect {
                x: area.x + width + 2,
                width: area.width - width - 2,
                ..area
            };
            (Rect { width, ..area }, body)
        } else {
            let height = Self::height(cx) as u16 + 1;
            let list = Rect {
                height: height.min(area.height),
                ..area
            };
            let body = Rect {
                x: area.x + 1,
                y: area.y + list.height,
                width: area.width.saturating_sub(1),
                height: area.height - list.height,
            };
            (list, body)
        };
        self.draw_labels(list, cx, buf);
        self.draw_texts(body, cx, buf);
    }

    fn draw_labels(&self, area: Rect, cx: &Cx, buf: &mut Buffer) {
        let (theme, width) = (cx.theme, usize::from(area.width));
        let name = width.saturating_sub(16).max(6);
        let head = format!(
            " {}{:>7}{:>7}",
            text::pad("label", name),
            "chosen",
            "score+"
        );
        put(buf, area, 0, &Line::styled(head, theme.dim()));
        let height = usize::from(area.height).saturating_sub(1).max(1);
        let labels = self.texts.labels.iter().enumerate();
        for (y, (at, label)) in labels.skip(self.offset).take(height).enumerate() {
            // Of those that promote: a good score of a text that suppresses would be chance.
            let promoting = label.texts.iter().filter(|t| t.sign > 0);
            let rated: Vec<f64> = promoting.filter_map(|t| t.score).collect();
            let score = (!rated.is_empty())
                .then(|| rated.iter().sum::<f64>() / rated.len() as f64)
                .map_or_else(|| "–".to_owned(), |mean| format!("{mean:.2}"));
            let current = at == self.label;
            let shown = text::pad(&text::label(&text::clean(&label.label), name), name);
            let line = Line::from(vec![
                Span::styled(if current { "▌" } else { " " }, theme.accent()),
                Span::raw(shown),
                Span::styled(
                    format!("{:>7}", direction_name(label.direction)),
                    theme.dim(),
                ),
                Span::raw(format!("{score:>7}")),
            ]);
            match current {
                true => put_selected(buf, area, 1 + y, line, theme, cx.focused),
                false => put(buf, area, 1 + y, &line),
            }
        }
    }

    fn draw_texts(&self, area: Rect, cx: &Cx, buf: &mut Buffer) {
        let (theme, width) = (cx.theme, usize::from(area.width).saturating_sub(1));
        let Some(label) = self.current() else { return };
        let words: Vec<String> = label.words.iter().map(|w| text::clean(w)).collect();
        let words = match words.is_empty() {
            true => "no words stand out".to_owned(),
            false => words.join(" "),
        };
        let mut lines = Vec::new();
        for (i, line) in text::wrap(&words, width.saturating_sub(7).max(1))
            .into_iter()
            .take(2)
            .enumerate()
        {
            let head = if i == 0 { "words  " } else { "       " };
            lines.push(Line::from(vec![
                Span::styled(head, theme.dim()),
                Span::styled(line, theme.name()),
            ]));
        }
        if !label.rises.is_empty() {
            let each = label
                .rises
                .iter()
                .map(|(kl, rise)| format!("{rise:.2} at KL {kl}"));
            let each: Vec<String> = each.collect();
            lines.push(Line::from(vec![
                Span::styled("rise   ", theme.dim()),
                Span::raw(text::truncate(&each.join(" · "), width.saturating_sub(7))),
            ]));
        }
        let strengths = self.strengths();
        let Some(&(target, sign)) = strengths.get(self.strength.min(strengths.len().max(1) - 1))
        else {
            lines.push(Line::styled(
                text::truncate(
                    "no text was written for it, only its words were ranked",
                    width,
                ),
                theme.dim(),
            ));
            return put_all(&lines, area, buf);
        };
        let which = if sign > 0 { "promoting" } else { "suppressing" };
        let at = format!(
            "‹ KL {target}, {which} ›  {} of {}",
            self.strength.min(strengths.len() - 1) + 1,
            strengths.len()
        );
        lines.push(Line::styled(at, theme.heading()));
        let half = width.saturating_sub(3) / 2;
        let sides = format!("{} │ with the method", text::pad("unsteered", half));
        lines.push(Line::styled(sides, theme.dim()));
        let own: Vec<&EvaluatedText> = label
            .texts
            .iter()
            .filter(|t| (t.target, t.sign) == (target, sign))
            .collect();
        for t in own {
            lines.extend(self.pair(t, &label.words, width, cx));
        }
        put_all(&lines, area, buf);
    }

    /// A text beside the unsteered one of the same prompt, the label's words marked.
    fn pair(
        &self,
        t: &EvaluatedText,
        words: &[String],
        width: usize,
        cx: &Cx,
    ) -> Vec<Line<'static>> {
        let theme = cx.theme;
        let prompt = self.texts.prompts.get(t.prompt).map_or("", String::as_str);
        let score = t
            .score
            .map_or_else(|| "no rating".to_owned(), |s| format!("score {s:.2}"));
        let head = format!(
            "{} …  α {}  {score}",
            text::clean(prompt),
            text::number(t.alpha)
        );
        let mut lines = vec![
            Line::default(),
            Line::styled(text::truncate(&head, width), theme.dim()),
        ];
        let unsteered = self
            .texts
            .unsteered
            .get(t.prompt)
            .map_or("", String::as_str);
        let half = width.saturating_sub(3) / 2;
        let wrap = |s: &str| text::wrap(text::clean(s).trim(), half.max(1));
        let (left, right) = (wrap(unsteered), wrap(&t.text));
        for y in 0..left.len().max(right.len()) {
            let left = left.get(y).cloned().unwrap_or_default();
            let mut spans = vec![
                Span::styled(text::pad(&left, half), theme.dim()),
                Span::styled(" │ ", theme.rule(false)),
            ];
            let right = right.get(y).cloned().unwrap_or_default();
            spans.extend(marked(&right, words, cx));
            lines.push(Line::from(spans));
        }
        lines
    }
}

/// The number of a direction; nothing where the model was asked in words.
fn direction_name(direction: Option<usize>) -> String {
    direction.map_or_else(String::new, |id| format!("#{id}"))
}

/// A line with the words that are wanted told apart.
fn marked(line: &str, words: &[String], cx: &Cx) -> Vec<Span<'static>> {
    let folded: Vec<String> = words.iter().map(|w| w.to_lowercase()).collect();
    let is_wanted = |piece: &str| {
        let bare = piece
            .trim_matches(|c: char| !c.is_alphanumeric())
            .to_lowercase();
        !bare.is_empty() && folded.contains(&bare)
    };
    line.split_inclusive(' ')
        .map(|piece| {
            let style = match is_wanted(piece) {
                true => cx.theme.found(),
                false => cx.theme.text(),
            };
            Span::styled(piece.to_owned(), style)
        })
        .collect()
}

fn put_all(lines: &[Line<'static>], area: Rect, buf: &mut Buffer) {
    for (y, line) in lines.iter().take(usize::from(area.height)).enumerate() {
        put_at(buf, area, 0, y, line);
    }
}
