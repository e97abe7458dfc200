//! What a feature is made of and what it does: logit lens, neurons, histogram, labels, related
//! features. With a neuron open: what it does, and every feature that uses it. Owns the cursor over
//! what can be followed.
//!
//! Invariant: everything under the cursor leads somewhere.

mod copied;
mod rows;
#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::engine::{Event, Reply};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_selected};
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::draw_empty;
use copied::{copy_card, copy_neuron};
use rows::{Row, rows_of_card, rows_of_neuron};

/// What a line leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Neuron(usize),
    Feature(usize),
    /// To all features against labels.
    Labels,
    /// The labels that are not listed yet.
    MoreLabels,
}

/// The rows of the open feature or neuron, and the cursor on them.
#[derive(Debug, Default)]
pub struct FeaturePane {
    /// Which of the links.
    cursor: usize,
    /// All neurons, rather than the heaviest few.
    all: bool,
    /// All labels, rather than the strongest few.
    all_labels: bool,
}

impl FeaturePane {
    fn rows(&self, cx: &Cx) -> Vec<Row> {
        let width = usize::from(cx.area.width);
        match cx.world.open_neuron {
            Some(_) => cx
                .world
                .open_neuron_card()
                .map(|card| rows_of_neuron(card, cx, width))
                .unwrap_or_default(),
            None => cx
                .world
                .selected_card()
                .map(|card| rows_of_card(card, self.all, self.all_labels, cx, width))
                .unwrap_or_default(),
        }
    }

    fn links(&self, cx: &Cx) -> Vec<Link> {
        self.rows(cx)
            .into_iter()
            .filter_map(|row| row.link)
            .collect()
    }

    /// The first row to show. The first link shows the top, where the lens is.
    fn offset(&self, rows: &[Row], height: usize) -> usize {
        let at = rows
            .iter()
            .enumerate()
            .filter(|(_, r)| r.link.is_some())
            .nth(self.cursor)
            .map_or(0, |(i, _)| i);
        if self.cursor == 0 && at < height {
            0
        } else {
            scroll(at.saturating_sub(height / 2), at, rows.len(), height)
        }
    }

    fn follow(&mut self, cx: &Cx) -> Vec<Step> {
        match self.links(cx).get(self.cursor) {
            Some(Link::Neuron(index)) => vec![Step::VisitNeuron(*index)],
            Some(Link::Feature(id)) => vec![Step::Visit(*id)],
            Some(Link::Labels) => vec![Step::Focus(PaneId::Labels)],
            Some(Link::MoreLabels) => {
                self.all_labels = true;
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}

impl Pane for FeaturePane {
    fn id(&self) -> PaneId {
        PaneId::Feature
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        let what = match (cx.world.open_neuron, cx.world.selected) {
            (Some(index), _) => format!("Neuron {index}"),
            (None, Some(id)) => {
                let label = cx.world.feature_label(id);
                match cx.world.older_sweep_of_card() {
                    Some(sweep) => format!("Feature {label} · of sweep {sweep}"),
                    None => format!("Feature {label}"),
                }
            }
            (None, None) => "Feature".to_owned(),
        };
        match cx.world.path.split_last() {
            // The way back, when there is one.
            Some((_, way)) if !way.is_empty() => {
                let way = way[way.len().saturating_sub(3)..].join(" › ");
                Line::raw(format!("{way} › {what}"))
            }
            _ => Line::raw(what),
        }
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        (action == Action::Open && self.links(cx).is_empty())
            .then(|| "there is nothing to follow yet".to_owned())
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let links = self.links(cx);
        if let Some(to) = motion(
            action,
            self.cursor,
            links.len(),
            usize::from(cx.area.height),
        ) {
            self.cursor = to;
            return Some(Vec::new());
        }
        Some(match action {
            Action::Open | Action::Right => self.follow(cx),
            // All of one part was asked for: back shows the others again.
            Action::Back if cx.world.open_neuron.is_none() && (self.all || self.all_labels) => {
                (self.all, self.all_labels) = (false, false);
                self.cursor = self.cursor.min(self.links(cx).len().saturating_sub(1));
                Vec::new()
            }
            Action::Neurons => {
                self.all = true;
                let links = self.links(cx);
                self.cursor = links
                    .iter()
                    .position(|l| matches!(l, Link::Neuron(_)))
                    .unwrap_or(0);
                Vec::new()
            }
            Action::Copy => match (cx.world.open_neuron_card(), cx.world.selected_card()) {
                (Some(card), _) => vec![copy_neuron(card, cx)],
                (None, Some(card)) => vec![copy_card(card, cx)],
                (None, None) => vec![],
            },
            _ => return None,
        })
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        if matches!(reply.event, Event::Card(_) | Event::Neuron(_)) {
            self.cursor = self.cursor.min(self.links(cx).len().saturating_sub(1));
        }
        Vec::new()
    }

    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.selected_card().is_none() {
            self.cursor = 0;
            (self.all, self.all_labels) = (false, false);
        }
        Vec::new()
    }

    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let rows = self.rows(cx);
        let at = self.offset(&rows, usize::from(cx.area.height))
            + usize::from(row.saturating_sub(cx.area.y));
        if rows.get(at).is_none_or(|r| r.link.is_none()) {
            return Vec::new();
        }
        self.cursor = rows[..at].iter().filter(|r| r.link.is_some()).count();
        if double { self.follow(cx) } else { Vec::new() }
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let rows = self.rows(cx);
        if rows.is_empty() {
            let lines = match (cx.world.open_neuron, cx.world.selected) {
                (Some(index), _) => vec![format!("reading neuron {index}…")],
                (None, Some(id)) => vec![format!("reading #{id}…")],
                (None, None) => vec![text::truncate(
                    "No feature is selected.",
                    usize::from(cx.area.width),
                )],
            };
            return draw_empty(buf, cx, &lines);
        }
        let height = usize::from(cx.area.height);
        let offset = self.offset(&rows, height);
        let mut links = rows[..offset].iter().filter(|r| r.link.is_some()).count();
        for (i, row) in rows.iter().skip(offset).take(height).enumerate() {
            let selected = row.link.is_some() && links == self.cursor && cx.focused;
            links += usize::from(row.link.is_some());
            match selected {
                true => put_selected(buf, cx.area, i, row.line.clone(), cx.theme, true),
                false => put(buf, cx.area, i, &row.line),
            }
        }
    }
}
