//! Features against the corpus's labels as a heat map: which labels each feature's mass falls on.
//! Owns the cursor.
//!
//! Invariant: rows and columns are ids of the fit and the corpus, so that a new snapshot does not
//! move the cursor.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;

use crate::analysis::LabelMatrix;
use crate::engine::{Command, Event, Reply, RequestId};
use crate::interop::markdown::table;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{line_cells, put, put_at};
use crate::ui::heat;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{CopyFormats, Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::draw_empty;
use crate::ui::theme::{Ramp, Theme};

/// Widest cell of the map.
const MAX_CELL: usize = 3;

/// The top of the scale at most: shares above it are plain, those below are what one looks for.
const MAX_SHARE: f32 = 0.5;

/// From this height on every column has its name over it.
const ROOMY: usize = 14;

/// The map of features by labels, and the cursor in it.
#[derive(Debug, Default)]
pub struct LabelsPane {
    matrix: Option<Arc<LabelMatrix>>,
    /// Features in the order shown: those of one label together, the purest first.
    order: Vec<usize>,
    snapshot: Option<(String, usize)>,
    /// The request that is not answered yet.
    open_request: Option<RequestId>,
    feature: usize,
    label: usize,
    offset: usize,
    problem: Option<String>,
}

/// The columns of the map.
struct Columns {
    first: usize,
    shown: usize,
    /// Cells of all of them.
    wide: usize,
}

impl Columns {
    /// The cell at which a column in sight begins.
    fn edge(&self, at: usize) -> usize {
        at * self.wide / self.shown.max(1)
    }

    fn cells(&self, at: usize) -> usize {
        self.edge(at + 1) - self.edge(at)
    }

    /// The column in sight at a cell.
    fn at(&self, cell: usize) -> Option<usize> {
        (0..self.shown).find(|&at| (self.edge(at)..self.edge(at + 1)).contains(&cell))
    }
}

/// What a row is about: its largest share, and of which label.
fn largest_share(shares: &[f32]) -> (usize, f32) {
    let largest = shares
        .iter()
        .copied()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    largest.unwrap_or((0, 0.0))
}

impl LabelsPane {
    fn request_labels(&mut self, cx: &Cx) -> Vec<Step> {
        let Some(list) = &cx.world.features else {
            return Vec::new();
        };
        let newest = (list.fit.clone(), list.sweep);
        if self.snapshot.as_ref() == Some(&newest) {
            return Vec::new();
        }
        self.snapshot = Some(newest);
        let request = cx.request(Command::Labels);
        self.open_request = Some(request.id);
        vec![Step::Request(request)]
    }

    fn show_matrix(&mut self, matrix: &Arc<LabelMatrix>, cx: &Cx) {
        self.order = (0..matrix.shares.len()).collect();
        let rank = |id: &usize| {
            let (label, share) = largest_share(&matrix.shares[*id]);
            (label, std::cmp::Reverse(share.to_bits()), *id)
        };
        self.order.sort_by_key(rank);
        self.matrix = Some(matrix.clone());
        self.problem = None;
        if let Some(id) = cx.world.selected {
            self.feature = id;
            self.label = matrix
                .shares
                .get(id)
                .map_or(0, |shares| largest_share(shares).0);
        }
        self.label = self.label.min(matrix.labels.len().saturating_sub(1));
        self.scroll_to_cursor(cx);
    }

    fn row(&self) -> usize {
        self.order
            .iter()
            .position(|id| *id == self.feature)
            .unwrap_or(0)
    }

    fn scroll_to_cursor(&mut self, cx: &Cx) {
        self.offset = scroll(
            self.offset,
            self.row(),
            self.order.len(),
            self.map_size(cx).2,
        );
    }

    /// The columns in sight: where each begins, in a map of `room` cells. They share its width, so
    /// that none is wasted.
    fn columns(&self, room: usize) -> Columns {
        let count = self.matrix.as_ref().map_or(0, |m| m.labels.len()).max(1);
        let shown = count.min(room.max(1));
        Columns {
            first: scroll(0, self.label, count, shown),
            shown,
            wide: room.min(shown * MAX_CELL),
        }
    }

    fn map_row(&self, id: usize, matrix: &LabelMatrix, max: f32, cx: &Cx) -> Vec<Span<'static>> {
        let (_, room, _) = self.map_size(cx);
        let columns = self.columns(room);
        let shares = &matrix.shares[id];
        (0..columns.shown)
            .map(|at| {
                let (cell, value) = (
                    columns.cells(at),
                    shares.get(columns.first + at).copied().unwrap_or(0.0),
                );
                if cx.theme.marks() {
                    let mark = Theme::mark(value.min(max), max).unwrap_or(' ');
                    return Span::raw(mark.to_string().repeat(cell));
                }
                Span::styled(
                    " ".repeat(cell),
                    cx.theme.heat(Ramp::Sequential, value.min(max), max),
                )
            })
            .collect()
    }

    /// Whether families of labels have a line.
    fn has_families(&self) -> bool {
        let family = |l: &&String| l.contains('/');
        let labels = self.matrix.as_ref().map_or(&[][..], |m| &m.labels);
        labels.iter().filter(family).count() > 1
    }

    /// Lines above the map: the label under the cursor, families of labels where there are some,
    /// and the name over each column, read downwards.
    fn heads(&self, cx: &Cx) -> usize {
        1 + usize::from(self.has_families()) + self.name_rows(cx)
    }

    /// Lines that the names of the columns have: as many as the longest takes, and a third of the
    /// pane at most.
    fn name_rows(&self, cx: &Cx) -> usize {
        let labels = self.matrix.as_ref().map_or(&[][..], |m| &m.labels);
        let longest = labels.iter().map(|l| text::width(&self.column_name(l)));
        let height = usize::from(cx.area.height);
        match height {
            0..ROOMY => 0,
            _ => longest.max().unwrap_or(0).min(height / 3),
        }
    }

    /// What stands over the column of a label: without its family where that has a line.
    fn column_name(&self, label: &str) -> String {
        let own = label.split_once('/').map_or(label, |(_, own)| own);
        text::clean(if self.has_families() { own } else { label })
    }

    /// The names over the columns in sight, each read downwards to its column.
    fn draw_names(
        &self,
        matrix: &LabelMatrix,
        columns: &Columns,
        area: Rect,
        cx: &Cx,
        buf: &mut Buffer,
    ) {
        let rows = usize::from(area.height);
        for at in 0..columns.shown {
            let label = columns.first + at;
            let Some(name) = matrix.labels.get(label) else {
                break;
            };
            let name = text::truncate(&self.column_name(name), rows);
            let from = rows.saturating_sub(name.graphemes(true).count());
            let style = match label == self.label {
                true => cx.theme.heading(),
                false => cx.theme.dim(),
            };
            let x = columns.edge(at) + (columns.cells(at).saturating_sub(1)) / 2;
            for (i, letter) in name.graphemes(true).enumerate() {
                put_at(
                    buf,
                    area,
                    x,
                    from + i,
                    &Line::styled(letter.to_owned(), style),
                );
            }
        }
    }

    /// Cells of the names, cells of the map, its rows. What the map leaves is the names'.
    fn map_size(&self, cx: &Cx) -> (usize, usize, usize) {
        let width = usize::from(cx.area.width);
        let count = self.matrix.as_ref().map_or(0, |m| m.labels.len()).max(1);
        let least = (width / 4).clamp(12, 24);
        let used = width.saturating_sub(least + 1).min(count * MAX_CELL).max(1);
        let names = width.saturating_sub(used + 1).min(width / 2).max(least);
        let height = usize::from(cx.area.height)
            .saturating_sub(2 + self.heads(cx))
            .max(1);
        (names, width.saturating_sub(names + 1).max(1), height)
    }

    /// `weekday/Monday`, `weekday/Friday`: the family over its columns, as far as there is room.
    fn families(&self, matrix: &LabelMatrix, room: usize) -> String {
        let columns = self.columns(room);
        let family = |l: &String| l.split_once('/').map(|(family, _)| text::clean(family));
        let mut out = String::new();
        let shown: Vec<Option<String>> = matrix
            .labels
            .iter()
            .skip(columns.first)
            .take(columns.shown)
            .map(family)
            .collect();
        let mut at = 0;
        for run in shown.chunk_by(|a, b| a == b) {
            let cells: usize = (at..at + run.len()).map(|i| columns.cells(i)).sum();
            at += run.len();
            let name = run[0].as_deref().unwrap_or_default();
            let mark = if name.is_empty() { ' ' } else { '╷' };
            let name = if cells >= 4 {
                text::pad(name, cells - 1)
            } else {
                " ".repeat(cells.saturating_sub(1))
            };
            out.extend([mark.to_string(), name]);
        }
        out
    }

    fn cursor_description(&self, matrix: &LabelMatrix, cx: &Cx) -> String {
        let share = matrix
            .shares
            .get(self.feature)
            .and_then(|s| s.get(self.label))
            .copied()
            .unwrap_or(0.0);
        let base = matrix.base.get(self.label).copied().unwrap_or(0.0);
        let label = matrix
            .labels
            .get(self.label)
            .map(|l| text::clean(l))
            .unwrap_or_default();
        let (share, base) = (text::percent(share), text::percent(base));
        // What is cut, where it is narrow, is what the row says already.
        format!(
            "{share} of ΣY on {label} (of all tokens {base}) · {}",
            cx.world.feature_label(self.feature)
        )
    }
}

impl Pane for LabelsPane {
    fn id(&self) -> PaneId {
        PaneId::Labels
    }

    fn title(&self, _: &Cx) -> Line<'static> {
        let labels = self.matrix.as_ref().map_or(0, |m| m.labels.len());
        Line::raw(if labels == 0 {
            "Labels".to_owned()
        } else {
            format!("Features by {labels} labels")
        })
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let labels = self.matrix.as_ref()?.labels.len();
        match action {
            Action::Left => self.label = self.label.saturating_sub(1),
            Action::Right => self.label = (self.label + 1).min(labels.saturating_sub(1)),
            Action::Open => return Some(vec![Step::Visit(self.feature)]),
            Action::Copy => {
                let matrix = self.matrix.as_ref()?;
                let heads: Vec<String> = matrix.labels.iter().map(|l| text::clean(l)).collect();
                let mut lines = vec![format!("feature\t{}", heads.join("\t"))];
                lines.extend(self.order.iter().map(|&id| {
                    let shares: Vec<String> = matrix.shares[id]
                        .iter()
                        .map(|s| format!("{s:.4}"))
                        .collect();
                    format!("{id}\t{}", shares.join("\t"))
                }));
                let cells: Vec<Vec<String>> = lines
                    .iter()
                    .skip(1)
                    .map(|l| l.split('\t').map(str::to_owned).collect())
                    .collect();
                let heads: Vec<&str> = std::iter::once("feature")
                    .chain(heads.iter().map(String::as_str))
                    .collect();
                return Some(vec![Step::CopyAs(Box::new(CopyFormats {
                    what: "the shares of all labels".to_owned(),
                    text: lines.join("\n"),
                    json: serde_json::to_value(&**matrix).unwrap_or_default(),
                    markdown: table(&heads, &cells),
                }))]);
            }
            _ => {
                let to = motion(action, self.row(), self.order.len(), self.map_size(cx).2)?;
                self.feature = self.order.get(to).copied()?;
                self.scroll_to_cursor(cx);
                return Some(vec![Step::Select(self.feature)]);
            }
        }
        Some(Vec::new())
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        if let Some(id) = cx.world.selected {
            self.feature = id;
        }
        self.scroll_to_cursor(cx);
        self.request_labels(cx)
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        if let Event::Features(list) = &reply.event
            && self
                .snapshot
                .as_ref()
                .is_some_and(|(fit, _)| *fit != list.fit)
        {
            *self = Self::default();
            if cx.focused {
                return self.request_labels(cx);
            }
        }
        match &reply.event {
            Event::Labels(matrix) if reply.is_to(self.open_request) => self.show_matrix(matrix, cx),
            Event::Refused(why) if reply.is_to(self.open_request) => {
                self.problem = Some(why.clone())
            }
            Event::Features(list) if cx.focused && list.finished => return self.request_labels(cx),
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => {
                *self = Self::default()
            }
            _ => {}
        }
        Vec::new()
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let (names, room, height) = self.map_size(cx);
        let Some(line) = usize::from(row.saturating_sub(cx.area.y))
            .checked_sub(self.heads(cx))
            .filter(|l| *l < height)
        else {
            return Vec::new();
        };
        let Some(&id) = self.order.get(self.offset + line) else {
            return Vec::new();
        };
        self.feature = id;
        let columns = self.columns(room);
        let cell = usize::from(column.saturating_sub(cx.area.x)).checked_sub(names + 1);
        if let Some(at) = cell.and_then(|cell| columns.at(cell)) {
            self.label = columns.first + at;
        }
        if double {
            vec![Step::Visit(id)]
        } else {
            vec![Step::Select(id)]
        }
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let Some(matrix) = self.matrix.as_ref().filter(|m| !m.labels.is_empty()) else {
            let first = match (&self.problem, &self.matrix) {
                (Some(problem), _) => text::clean(problem),
                (None, Some(_)) => "This corpus has no labels.".to_owned(),
                (None, None) => "Counting labels…".to_owned(),
            };
            return draw_empty(
                buf,
                cx,
                &[
                    first,
                    "A corpus with labels shows here which features go with which.".to_owned(),
                ],
            );
        };
        let theme = cx.theme;
        let ((names, room, height), heads) = (self.map_size(cx), self.heads(cx));
        let columns = self.columns(room);
        let max = matrix
            .shares
            .iter()
            .flatten()
            .copied()
            .fold(0.0, f32::max)
            .min(MAX_SHARE);
        // The label under the cursor stands beside the mark over its column, at the side where
        // there is more room.
        let name = matrix
            .labels
            .get(self.label)
            .map(|l| text::clean(l))
            .unwrap_or_default();
        let at = columns.edge(self.label.saturating_sub(columns.first));
        let (left, right) = (at.saturating_sub(1), room.saturating_sub(at + 2));
        let fits = text::width(&name) <= right || right >= left;
        let name = text::label(&name, if fits { right } else { left });
        let from = if fits {
            at + 2
        } else {
            left - text::width(&name).min(left)
        };
        put_at(
            buf,
            cx.area,
            names + 1 + from,
            0,
            &Line::styled(name, theme.heading()),
        );
        put_at(
            buf,
            cx.area,
            names + 1 + at,
            0,
            &Line::styled("▾", theme.accent()),
        );
        let name_rows = self.name_rows(cx);
        let over = Rect {
            x: cx.area.x + (names + 1) as u16,
            y: cx.area.y + (heads - name_rows) as u16,
            width: cx.area.width.saturating_sub((names + 1) as u16),
            height: name_rows as u16,
        };
        self.draw_names(matrix, &columns, over.intersection(cx.area), cx, buf);
        if self.has_families() {
            put_at(
                buf,
                cx.area,
                names + 1,
                1,
                &Line::styled(self.families(matrix, room), theme.dim()),
            );
        }
        for (y, &id) in self.order.iter().skip(self.offset).take(height).enumerate() {
            let y = y + heads;
            let selected = id == self.feature;
            if selected {
                let line = Rect::new(cx.area.x, cx.area.y + y as u16, names as u16, 1);
                buf.set_style(line.intersection(buf.area), theme.selected(cx.focused));
            }
            let what = crate::ui::describe::feature_in_list(id, 4, cx.world);
            let head = Span::styled(text::pad(&what, names.saturating_sub(1)), theme.text());
            let mut spans = vec![
                Span::styled(if selected { "▌" } else { " " }, theme.accent()),
                head,
                Span::raw(" "),
            ];
            spans.extend(self.map_row(id, matrix, max, cx));
            put(buf, cx.area, y, &Line::from(spans));
        }
        let description = text::truncate(
            &self.cursor_description(matrix, cx),
            usize::from(cx.area.width).saturating_sub(2),
        );
        put_at(
            buf,
            cx.area,
            1,
            height + heads,
            &Line::styled(description, theme.heading()),
        );
        let scale = heat::legend(theme, Ramp::Sequential, max, false);
        let from = line_cells(&scale) + 3;
        put_at(buf, cx.area, 1, height + heads + 1, &scale);
        let below = self.order.len().saturating_sub(self.offset + height);
        if below > 0 {
            let more = Line::styled(format!("↓ {below} more"), theme.accent());
            put_at(buf, cx.area, from, height + heads + 1, &more);
        }
    }
}

#[cfg(test)]
mod tests;
