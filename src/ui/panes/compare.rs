//! Marked features side by side: cosines, neurons that they share or have alone, coefficients over
//! the same tokens. Owns what is on show and how far it is scrolled.
//!
//! Invariant: what is on show belongs to the features that were marked when it was asked for.

mod rows;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::analysis::Comparison;
use crate::engine::{Command, Event, Reply, RequestId};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{CopyFormats, Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::draw_empty;
use rows::{markdown, neurons, summary, texts};

/// From this width on the texts stand beside the neurons.
const BESIDE: usize = 100;
/// Cells of a cosine or a weight.
const CELL: usize = 6;

/// The comparison, and the cursor on its rows.
#[derive(Debug, Default)]
pub struct ComparePane {
    comparison: Option<Comparison>,
    open_request: Option<RequestId>,
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

fn unlinked(line: Line<'static>) -> Row {
    (line, None)
}

impl ComparePane {
    fn request_comparison(&mut self, cx: &Cx) -> Vec<Step> {
        let marked = &cx.world.marked;
        if self
            .comparison
            .as_ref()
            .is_some_and(|f| f.features == *marked)
            && self.problem.is_none()
        {
            return Vec::new();
        }
        let request = cx.request(Command::Compare(marked.clone()));
        *self = Self {
            open_request: Some(request.id),
            ..Self::default()
        };
        vec![Step::Request(request)]
    }

    /// The columns of lines at this width: one, or two side by side.
    fn columns(&self, cx: &Cx) -> Vec<(usize, Vec<Row>)> {
        let Some(found) = &self.comparison else {
            return Vec::new();
        };
        let width = usize::from(cx.area.width).saturating_sub(2);
        if width < BESIDE {
            let mut lines = summary(found, width, cx);
            lines.push(unlinked(Line::default()));
            let texts = texts(found, width, cx);
            // On a small screen a text and the first neurons are both seen; the other texts are
            // below.
            let first = if cx.area.height < 30 {
                2 + found.features.len()
            } else {
                texts.len()
            };
            let (above, below) = texts.split_at(first.min(texts.len()));
            lines.extend(above.iter().cloned().map(unlinked));
            lines.extend(neurons(found, width, cx));
            lines.extend(below.iter().cloned().map(unlinked));
            return vec![(width, lines)];
        }
        let left = width / 2 - 2;
        let mut lines = summary(found, left, cx);
        lines.extend(neurons(found, left, cx));
        vec![
            (left, lines),
            (
                width - left - 3,
                texts(found, width - left - 3, cx)
                    .into_iter()
                    .map(unlinked)
                    .collect(),
            ),
        ]
    }
}

impl Pane for ComparePane {
    fn id(&self) -> PaneId {
        PaneId::Compare
    }

    fn title(&self, _: &Cx) -> Line<'static> {
        let ids = self
            .comparison
            .iter()
            .flat_map(|f| f.features.iter().map(|id| format!("#{id}")));
        let ids: Vec<String> = ids.collect();
        Line::raw(if ids.is_empty() {
            "Compare".to_owned()
        } else {
            format!("Compare {}", ids.join(" "))
        })
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if self.comparison.is_none() {
            let first = match &self.problem {
                Some(problem) => text::clean(problem),
                None if self.open_request.is_some() => "Comparing…".to_owned(),
                None => "Nothing is compared yet.".to_owned(),
            };
            let how = format!(
                "{} marks a feature of the list, {} compares those marked.",
                cx.key(Action::Mark),
                cx.key(Action::Compare)
            );
            return draw_empty(buf, cx, &[first, how]);
        }
        let columns = self.columns(cx);
        let height = usize::from(cx.area.height);
        let beside = columns.len() > 1;
        let mut x = 1;
        for (i, (width, lines)) in columns.iter().enumerate() {
            let at = self.cursor[i].min(lines.len().saturating_sub(1));
            let from = scroll(self.offset[i], at, lines.len(), height);
            let area = Rect {
                x: cx.area.x + x as u16,
                width: *width as u16,
                ..cx.area
            };
            for (y, (line, link)) in lines.iter().skip(from).take(height).enumerate() {
                let is_current = from + y == at && usize::from(beside && self.right) == i;
                if is_current {
                    put_at(
                        buf,
                        cx.area,
                        x - 1,
                        y,
                        &Line::styled("▌", cx.theme.accent()),
                    );
                }
                match is_current && link.is_some() {
                    true => put_selected(buf, area, y, line.clone(), cx.theme, cx.focused),
                    false => put(buf, area, y, line),
                }
            }
            if lines.len() > from + height {
                let more = format!(" {} more ", lines.len() - from - height);
                let style = if beside && self.right == (i == 1) {
                    cx.theme.accent()
                } else {
                    cx.theme.dim()
                };
                put_at(
                    buf,
                    area,
                    width.saturating_sub(more.len()),
                    height - 1,
                    &Line::styled(more, style),
                );
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
                let negative = action == Action::SuppressWith;
                Some(vec![Step::steer(&cx.world.marked, negative, true)])
            }
            Action::Copy => {
                let lines: Vec<String> = columns
                    .into_iter()
                    .flat_map(|(_, lines)| lines)
                    .map(|(line, _)| line_text(&line))
                    .collect();
                let found = self.comparison.as_ref()?;
                Some(vec![Step::CopyAs(Box::new(CopyFormats {
                    what: "the comparison".to_owned(),
                    text: lines.join("\n"),
                    json: serde_json::to_value(found).unwrap_or_default(),
                    markdown: markdown(found, cx),
                }))])
            }
            _ => None,
        }
    }

    /// A click goes to a line of a column; a second one opens what it leads to.
    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let columns = self.columns(cx);
        let Some((first, _)) = columns.first() else {
            return Vec::new();
        };
        // As it is drawn: a margin, the left column, a rule between two blanks.
        let right = columns.len() > 1 && usize::from(column.saturating_sub(cx.area.x)) > first + 2;
        let at = usize::from(right);
        let lines = columns[at].1.len();
        let height = usize::from(cx.area.height);
        let cursor = self.cursor[at].min(lines.saturating_sub(1));
        let hit = scroll(self.offset[at], cursor, lines, height)
            + usize::from(row.saturating_sub(cx.area.y));
        if hit >= lines {
            return Vec::new();
        }
        // The lines stay where they are under the pointer.
        self.offset[at] = scroll(self.offset[at], cursor, lines, height);
        (self.right, self.cursor[at]) = (right, hit);
        if double {
            self.act(Action::Open, cx).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.marked.len() < 2 {
            Vec::new()
        } else {
            self.request_comparison(cx)
        }
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Comparison(found) if reply.is_to(self.open_request) => {
                *self = Self {
                    comparison: Some((**found).clone()),
                    ..Self::default()
                };
            }
            Event::Refused(why) if reply.is_to(self.open_request) => {
                self.open_request = None;
                self.problem = Some(why.clone());
            }
            // Ids mean other features now.
            Event::Features(list)
                if self.comparison.is_some() && !(list.finished && cx.focused) =>
            {
                *self = Self::default()
            }
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => {
                *self = Self::default()
            }
            _ => {}
        }
        Vec::new()
    }
}

fn line_text(line: &Line) -> String {
    line.spans
        .iter()
        .map(|s| s.content.as_ref())
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use crate::engine::Command;
    use crate::ui::app::Effect;
    use crate::ui::harness::Harness;
    use crate::ui::pane_id::PaneId;
    use crate::ui::theme::Profile;

    #[test]
    fn marked_features_stand_side_by_side_at_every_size() {
        for (width, height) in [(120, 36), (80, 24), (60, 18), (40, 12)] {
            let mut harness = Harness::opened_with(width, height, Profile::TrueColour, 40);
            harness.keys("space space space C");
            assert!(
                matches!(harness.sent.last(), Some(Command::Compare(ids)) if ids.len() == 3),
                "{:?}",
                harness.sent.last()
            );
            let screen = harness.screen();
            assert!(screen.contains("Compare #"), "{screen}");
            harness.keys("pagedown pagedown end g right down left esc");
            assert!(
                harness.screen().contains("Features"),
                "{}",
                harness.screen()
            );
        }
    }

    #[test]
    fn what_is_compared_can_be_opened() {
        for (width, height) in [(120, 36), (80, 24)] {
            let mut harness = Harness::opened_with(width, height, Profile::TrueColour, 40);
            harness.keys("s g space space space C enter");
            assert_eq!(
                harness.app.world.selected,
                Some(0),
                "the first line is a feature"
            );
            harness.keys("esc");
            assert_eq!(harness.app.focus(), PaneId::Compare);
            for _ in 0..40 {
                if harness.app.world.open_neuron.is_none() {
                    harness.keys("j enter");
                    if harness.app.world.open_neuron.is_none()
                        && harness.app.focus() != PaneId::Compare
                    {
                        harness.keys("esc");
                    }
                }
            }
            assert!(
                harness.app.world.open_neuron.is_some(),
                "neurons are among the lines: {}",
                harness.screen()
            );
            harness.keys("esc");
            assert_eq!(harness.app.focus(), PaneId::Compare);
        }
    }

    #[test]
    fn lines_are_clicked_and_opened() {
        for (width, height) in [(120, 36), (80, 24)] {
            let mut harness = Harness::opened_with(width, height, Profile::Mono, 40);
            harness.keys("s g space space space C");
            let (y, x) = harness.find("#1 March").expect("the second feature");
            harness.click(x, y);
            assert!(
                harness
                    .screen()
                    .lines()
                    .nth(usize::from(y))
                    .unwrap()
                    .contains('▌'),
                "{}",
                harness.screen()
            );
            assert_eq!(harness.app.focus(), PaneId::Compare);
            harness.click(x, y);
            assert_eq!(
                (harness.app.world.selected, harness.app.focus()),
                (Some(1), PaneId::Contexts)
            );
        }
    }

    #[test]
    fn at_80x24_matrices_stand_side_by_side_over_texts() {
        let mut harness = Harness::opened_with(80, 24, Profile::TrueColour, 40);
        harness.keys("space space space C");
        let screen = harness.screen();
        let titles = screen
            .lines()
            .find(|l| l.contains("residual stream"))
            .expect("a title");
        assert!(
            titles.contains("neurons") && titles.contains("tokens"),
            "{screen}"
        );
        assert!(
            screen.contains("coefficients over the same tokens") && screen.contains("neurons: "),
            "{screen}"
        );
        assert!(screen.contains(" n"), "{screen}");
    }

    #[test]
    fn one_mark_is_not_enough_and_a_second_press_takes_it_away() {
        let mut harness = Harness::opened_with(80, 24, Profile::Mono, 40);
        harness.keys("space C");
        assert!(
            harness.screen().contains("mark two"),
            "{}",
            harness.screen()
        );
        harness.keys("up space space");
        assert!(
            !harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::Compare(_)))
        );
        harness.keys("g y y");
        assert!(
            harness
                .effects
                .iter()
                .any(|e| matches!(e, Effect::Copy(..)))
        );
    }
}
