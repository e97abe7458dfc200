//! Marked features side by side: cosines, neurons that they share or have alone, coefficients over the same tokens.
//! Owns what is on show and how far it is scrolled.
//!
//! Invariant: what is on show belongs to the features that were marked when it was asked for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Copies, Cx, Note, Pane, PaneId, Step, empty, motion, put, put_at, scroll};
use crate::analysis::{ComparedText, Comparison};
use crate::engine::{Command, Event, SteerPart};
use crate::interop::markdown::table;
use crate::ui::action::Action;
use crate::ui::heat::Heat;
use crate::ui::text;
use crate::ui::theme::Ramp;

/// From this width on the texts stand beside the neurons.
const BESIDE: usize = 100;
/// Cells of a cosine or a weight.
const CELL: usize = 6;

/// The pane.
#[derive(Debug, Default)]
pub struct ComparePane {
    found: Option<Comparison>,
    asked: bool,
    problem: Option<String>,
    /// The line under the cursor, of the left and of the right column.
    cursor: [usize; 2],
    /// The first line in sight of each.
    offset: [usize; 2],
    /// The column that the cursor is in.
    right: bool,
}

/// Where a line leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Neuron(usize),
    Feature(usize),
}

type Row = (Line<'static>, Option<Link>);

fn plainly(line: Line<'static>) -> Row {
    (line, None)
}

impl ComparePane {
    fn ask(&mut self, cx: &Cx) -> Vec<Step> {
        let marked = &cx.world.marked;
        if self.found.as_ref().is_some_and(|f| f.features == *marked) && self.problem.is_none() {
            return Vec::new();
        }
        *self = Self { asked: true, ..Self::default() };
        vec![Step::Send(Command::Compare(marked.clone()))]
    }

    /// The columns of lines at this width: one, or two side by side.
    fn columns(&self, cx: &Cx) -> Vec<(usize, Vec<Row>)> {
        let Some(found) = &self.found else { return Vec::new() };
        let width = usize::from(cx.area.width).saturating_sub(2);
        if width < BESIDE {
            let mut lines = summary(found, width, cx);
            lines.push(plainly(Line::default()));
            // Some texts are seen without scrolling, and the neurons are not far below.
            lines.extend(texts(found, width, cx).into_iter().map(plainly));
            lines.extend(neurons(found, width, cx));
            return vec![(width, lines)];
        }
        let left = width / 2 - 2;
        let mut lines = summary(found, left, cx);
        lines.extend(neurons(found, left, cx));
        vec![(left, lines), (width - left - 3, texts(found, width - left - 3, cx).into_iter().map(plainly).collect())]
    }
}

/// The style of a feature's number, so that it is found again in every part.
fn head(found: &Comparison, i: usize, cx: &Cx) -> Span<'static> {
    let id = found.features.get(i).copied().unwrap_or(0);
    Span::styled(text::pad_left(&format!("#{id}"), CELL - 1) + " ", cx.theme.accent())
}

fn signed(value: f32, cx: &Cx) -> Span<'static> {
    let style = match value {
        v if v.abs() < 0.005 => cx.theme.dim(),
        v if v > 0.0 => cx.theme.positive(),
        _ => cx.theme.negative(),
    };
    let shown = if value == 0.0 { "·".to_owned() } else { format!("{value:+.2}") };
    Span::styled(text::pad_left(&shown, CELL), style)
}

/// Who is compared, and the cosines of every two.
fn summary(found: &Comparison, width: usize, cx: &Cx) -> Vec<Row> {
    let theme = cx.theme;
    let mut lines = Vec::new();
    for (i, &id) in found.features.iter().enumerate() {
        let row = cx.world.row(id);
        let what = super::tree::listed(id, 6, cx);
        let what = what.split_once(' ').map_or("", |(_, rest)| rest).to_owned();
        let label =
            row.and_then(|r| r.purity.as_ref()).map(|p| format!("{} {:.0}%", text::clean(&p.label), p.share * 100.0));
        let label = label.unwrap_or_default();
        let room = width.saturating_sub(CELL + text::width(&label) + 2);
        let line = Line::from(vec![
            head(found, i, cx),
            Span::styled(text::pad(&what, room), theme.text()),
            Span::styled(format!("  {label}"), theme.dim()),
        ]);
        lines.push((line, Some(Link::Feature(id))));
    }
    let matrices = [
        ("cosine of neurons", "neurons", Some(&found.cosines)),
        ("cosine in the residual stream", "residual", found.residual.as_ref()),
        ("fire on the same tokens (cosine)", "same tokens", Some(&found.together)),
    ];
    let blocks: Vec<Vec<Line<'static>>> = matrices.into_iter().map(|m| matrix(found, m, cx)).collect();
    // Side by side, as many as there is room for.
    let cells = blocks.iter().flatten().map(Line::width).max().unwrap_or(0) + 2;
    for some in blocks.chunks(((width + 2) / cells.max(1)).max(1)) {
        lines.push(plainly(Line::default()));
        for y in 0..some.iter().map(Vec::len).max().unwrap_or(0) {
            let mut spans = Vec::new();
            for block in some {
                let own = block.get(y).cloned().unwrap_or_default();
                let rest = cells.saturating_sub(own.width());
                spans.extend(own.spans.into_iter().map(|span| span.patch_style(own.style)));
                spans.push(Span::raw(" ".repeat(rest)));
            }
            lines.push(plainly(Line::from(spans)));
        }
    }
    lines
}

/// The values of every two, under a title of which the short one is taken where the long one would widen it.
fn matrix(found: &Comparison, (long, short, values): (&str, &str, Option<&Vec<f32>>), cx: &Cx) -> Vec<Line<'static>> {
    let (theme, m) = (cx.theme, found.features.len());
    let wide = (m + 1) * CELL;
    if m == 2 {
        let value = values.map(|v| signed(v.get(1).copied().unwrap_or(0.0), cx));
        let value = value.unwrap_or_else(|| Span::styled("  needs the model", theme.dim()));
        return vec![Line::from(vec![Span::styled(short.to_owned(), theme.heading()), value])];
    }
    let title = if text::width(long) <= wide { long } else { short };
    let mut lines = vec![Line::styled(title.to_owned(), theme.heading())];
    let Some(values) = values else {
        lines.push(Line::styled("needs the study's model", theme.dim()));
        return lines;
    };
    let mut heads = vec![Span::raw(" ".repeat(CELL))];
    heads.extend((0..m).map(|j| head(found, j, cx)));
    lines.push(Line::from(heads));
    for i in 0..m {
        let mut spans = vec![head(found, i, cx)];
        spans.extend((0..m).map(|j| match values.get(i * m + j) {
            Some(_) if i == j => Span::styled(text::pad_left("1", CELL), theme.dim()),
            value => signed(value.copied().unwrap_or(0.0), cx),
        }));
        lines.push(Line::from(spans));
    }
    lines
}

/// Each neuron with its weight in every feature: those of all first, a feature's own last.
fn neurons(found: &Comparison, width: usize, cx: &Cx) -> Vec<Row> {
    let (theme, m) = (cx.theme, found.features.len());
    let of = |n: &(usize, Vec<f32>)| n.1.iter().filter(|w| **w != 0.0).count();
    let all = found.neurons.iter().filter(|n| of(n) == m).count();
    let core = found.shared.core.len();
    let alone = found.neurons.iter().filter(|n| of(n) == 1).count();
    let title = format!("neurons: {all} in all, {core} core (in most), {alone} of one alone");
    let mut heads = vec![Span::raw(" ".repeat(CELL + 1))];
    heads.extend((0..m).map(|j| head(found, j, cx)));
    let title = Line::styled(text::fit(&title, width), theme.heading());
    let mut lines: Vec<Row> = [Line::default(), title, Line::from(heads)].into_iter().map(plainly).collect();
    let mut before = m + 1;
    for neuron in &found.neurons {
        let members = of(neuron);
        let word = match members {
            _ if members == before => "",
            n if n == m => "  in all",
            1 => "  its own",
            _ if 2 * members > m => "  core",
            _ => "  shared",
        };
        before = members;
        let mut spans = vec![Span::styled(text::pad(&format!(" n{}", neuron.0), CELL + 1), theme.text())];
        spans.extend(neuron.1.iter().map(|&w| signed(w, cx)));
        spans.push(Span::styled(word, theme.dim()));
        lines.push((Line::from(spans), Some(Link::Neuron(neuron.0))));
    }
    lines
}

/// The same tokens, once a feature.
fn texts(found: &Comparison, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut lines = vec![Line::styled("coefficients over the same tokens", theme.heading())];
    for shown in &found.texts {
        let label = shown.label.as_deref().map(text::clean).unwrap_or_default();
        lines.push(Line::styled(text::pad_left(&label, width), theme.dim()));
        for i in 0..found.features.len() {
            lines.push(text_line(found, shown, i, width, cx));
        }
    }
    lines
}

fn text_line(found: &Comparison, shown: &ComparedText, i: usize, width: usize, cx: &Cx) -> Line<'static> {
    let values = shown.values.get(i).map_or(&[][..], Vec::as_slice);
    let max = found.peaks.get(i).copied().unwrap_or(0.0);
    let heat = Heat {
        tokens: &shown.tokens,
        values,
        max,
        ramp: Ramp::Sequential,
        digits: cx.world.digits,
        cursor: None,
        theme: cx.theme,
    };
    let peak = values.get(shown.peak).copied().unwrap_or(0.0);
    let room = width.saturating_sub(2 * CELL + 1);
    let mut spans = vec![head(found, i, cx)];
    let number = if peak > 0.0 { text::number(f64::from(peak)) } else { "·".to_owned() };
    spans.push(Span::styled(text::pad_left(&number, CELL - 1) + " ", cx.theme.dim()));
    spans.extend(heat.aligned(room, shown.peak, room * 2 / 5).spans);
    Line::from(spans)
}

impl Pane for ComparePane {
    fn id(&self) -> PaneId {
        PaneId::Compare
    }

    fn title(&self, _: &Cx) -> Line<'static> {
        let ids = self.found.iter().flat_map(|f| f.features.iter().map(|id| format!("#{id}")));
        let ids: Vec<String> = ids.collect();
        Line::raw(if ids.is_empty() { "Compare".to_owned() } else { format!("Compare {}", ids.join(" ")) })
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if self.found.is_none() {
            let first = match &self.problem {
                Some(problem) => text::clean(problem),
                None if self.asked => "Comparing…".to_owned(),
                None => "Nothing is compared yet.".to_owned(),
            };
            let how = format!(
                "{} marks a feature of the list, {} compares those marked.",
                cx.key(Action::Mark),
                cx.key(Action::Compare)
            );
            return empty(buf, cx, &[first, how]);
        }
        let columns = self.columns(cx);
        let height = usize::from(cx.area.height);
        let beside = columns.len() > 1;
        let mut x = 1;
        for (i, (width, lines)) in columns.iter().enumerate() {
            let at = self.cursor[i].min(lines.len().saturating_sub(1));
            let from = scroll(self.offset[i], at, lines.len(), height);
            let area = Rect { x: cx.area.x + x as u16, width: *width as u16, ..cx.area };
            for (y, (line, link)) in lines.iter().skip(from).take(height).enumerate() {
                let here = from + y == at && usize::from(beside && self.right) == i;
                if here {
                    if link.is_some() {
                        let line = Rect { y: area.y + y as u16, height: 1, ..area };
                        buf.set_style(line.intersection(buf.area), cx.theme.selected(cx.focused));
                    }
                    put_at(buf, cx.area, x - 1, y, &Line::styled("▌", cx.theme.accent()));
                }
                put(buf, area, y, line);
            }
            if lines.len() > from + height {
                let more = format!(" {} more ", lines.len() - from - height);
                let style = if beside && self.right == (i == 1) { cx.theme.accent() } else { cx.theme.dim() };
                put_at(buf, area, width.saturating_sub(more.len()), height - 1, &Line::styled(more, style));
            }
            x += width + 1;
            if beside && i == 0 {
                for y in 0..height {
                    put_at(buf, cx.area, x, y, &Line::styled("│", cx.theme.rule(false)));
                }
                x += 2;
            }
        }
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let height = usize::from(cx.area.height);
        let columns = self.columns(cx);
        let column = usize::from(self.right && columns.len() > 1);
        let (_, lines) = columns.get(column)?;
        let at = self.cursor[column].min(lines.len().saturating_sub(1));
        if let Some(to) = motion(action, at, lines.len(), height) {
            self.cursor[column] = to;
            self.offset[column] = scroll(self.offset[column], to, lines.len(), height);
            return Some(Vec::new());
        }
        match action {
            Action::Open => Some(match lines.get(at)?.1? {
                Link::Neuron(index) => vec![Step::VisitNeuron(index)],
                Link::Feature(id) => vec![Step::Visit(id)],
            }),
            Action::Left | Action::Right => {
                self.right = action == Action::Right;
                Some(Vec::new())
            }
            Action::SteerWith | Action::SuppressWith => {
                let features = cx.world.marked.iter().map(|&id| (id, 1.0)).collect();
                let negative = action == Action::SuppressWith;
                let note = Note::Steer { features, part: SteerPart::Whole, negative, replace: true };
                Some(vec![Step::Tell(PaneId::Steer, note)])
            }
            Action::Copy => {
                let lines: Vec<String> =
                    columns.into_iter().flat_map(|(_, lines)| lines).map(|(line, _)| plain(&line)).collect();
                let found = self.found.as_ref()?;
                Some(vec![Step::Offer(Box::new(Copies {
                    what: "the comparison".to_owned(),
                    text: lines.join("\n"),
                    json: serde_json::to_value(found).unwrap_or_default(),
                    markdown: markdown(found, cx),
                }))])
            }
            _ => None,
        }
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.marked.len() < 2 { Vec::new() } else { self.ask(cx) }
    }

    fn event(&mut self, event: &Event, cx: &Cx) -> Vec<Step> {
        match event {
            Event::Comparison(found) => {
                *self = Self { found: Some((**found).clone()), ..Self::default() };
            }
            Event::Refused(why) if self.asked => {
                self.asked = false;
                self.problem = Some(why.clone());
            }
            // Ids mean other features now.
            Event::Features(list) if self.found.is_some() && !(list.finished && cx.focused) => *self = Self::default(),
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => *self = Self::default(),
            _ => {}
        }
        Vec::new()
    }
}

/// The cosines of every two, then the neurons with their weights.
fn markdown(found: &Comparison, cx: &Cx) -> String {
    let names: Vec<String> = found.features.iter().map(|&id| cx.world.feature_label(id)).collect();
    let m = names.len();
    let residual = |at: usize| found.residual.as_ref().and_then(|r| r.get(at));
    let number = |value: Option<&f32>| value.map_or("–".to_owned(), |v| format!("{v:+.3}"));
    let mut pairs = Vec::new();
    for (i, a) in names.iter().enumerate() {
        for (j, b) in names.iter().enumerate().skip(i + 1) {
            let at = i * m + j;
            let values = [found.cosines.get(at), residual(at), found.together.get(at)].map(number);
            pairs.push([a.clone(), b.clone()].into_iter().chain(values).collect());
        }
    }
    let mut out = table(&["a", "b", "cosine of neurons", "in the residual stream", "fire together"], &pairs);
    let heads: Vec<&str> = std::iter::once("neuron").chain(names.iter().map(String::as_str)).collect();
    let weights = |w: &f32| if *w == 0.0 { String::new() } else { format!("{w:+.3}") };
    let rows = found
        .neurons
        .iter()
        .map(|(index, ws)| std::iter::once(index.to_string()).chain(ws.iter().map(weights)).collect::<Vec<String>>());
    out += "\n";
    out + &table(&heads, &rows.collect::<Vec<_>>())
}

fn plain(line: &Line) -> String {
    line.spans.iter().map(|s| s.content.as_ref()).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use crate::engine::Command;
    use crate::ui::app::Effect;
    use crate::ui::panes::PaneId;
    use crate::ui::stage::Stage;
    use crate::ui::theme::Profile;

    #[test]
    fn marked_features_stand_side_by_side_at_every_size() {
        for (width, height) in [(120, 36), (80, 24), (60, 18), (40, 12)] {
            let mut stage = Stage::opened_with(width, height, Profile::TrueColour, 40);
            stage.keys("space space space C");
            assert!(
                matches!(stage.sent.last(), Some(Command::Compare(ids)) if ids.len() == 3),
                "{:?}",
                stage.sent.last()
            );
            let screen = stage.screen();
            assert!(screen.contains("Compare #"), "{screen}");
            stage.keys("pagedown pagedown end g right down left esc");
            assert!(stage.screen().contains("Features"), "{}", stage.screen());
        }
    }

    #[test]
    fn what_is_compared_can_be_opened() {
        for (width, height) in [(120, 36), (80, 24)] {
            let mut stage = Stage::opened_with(width, height, Profile::TrueColour, 40);
            stage.keys("s g space space space C enter");
            assert_eq!(stage.app.world.selected, Some(0), "the first line is a feature");
            stage.keys("esc end");
            assert_eq!(stage.app.place(), PaneId::Compare);
            stage.keys("enter");
            assert!(stage.app.world.open_neuron.is_some(), "the last is a neuron: {}", stage.screen());
            stage.keys("esc");
            assert_eq!(stage.app.place(), PaneId::Compare);
        }
    }

    #[test]
    fn at_80x24_matrices_stand_side_by_side_over_texts() {
        let mut stage = Stage::opened_with(80, 24, Profile::TrueColour, 40);
        stage.keys("space space space C");
        let screen = stage.screen();
        let titles = screen.lines().find(|l| l.contains("residual")).expect("a title");
        assert!(titles.contains("neurons") && titles.contains("tokens"), "{screen}");
        assert!(screen.contains("coefficients over the same tokens"), "{screen}");
    }

    #[test]
    fn one_mark_is_not_enough_and_a_second_press_takes_it_away() {
        let mut stage = Stage::opened_with(80, 24, Profile::Mono, 40);
        stage.keys("space C");
        assert!(stage.screen().contains("mark two"), "{}", stage.screen());
        stage.keys("up space space");
        assert!(!stage.sent.iter().any(|c| matches!(c, Command::Compare(_))));
        stage.keys("g y y");
        assert!(stage.effects.iter().any(|e| matches!(e, Effect::Copy(..))));
    }
}
