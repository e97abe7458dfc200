//! Where a feature (or the open neuron) fires: its contexts as a heat map over tokens. Owns which
//! contexts are shown and how; the card is the world's.
//!
//! Invariant: every context on show contains its peak.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use serde_json::{Value, json};

use crate::analysis::Context;
use crate::engine::{Event, Reply};
use crate::pieces;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{line_cells, put, put_at};
use crate::ui::heat::{Heat, legend};
use crate::ui::list::motion;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::panes::draw_empty;
use crate::ui::theme::Ramp;

/// Lines that one context takes at most when wrapped.
const MAX_LINES: usize = 3;

/// Columns for the value before the text.
const GUTTER: usize = 6;

/// How the contexts are shown, and how far they are scrolled.
#[derive(Debug, Default)]
pub struct ContextsPane {
    quantiles: bool,
    lines: bool,
    cursor: usize,
    offset: usize,
}

/// A context with what is written before it.
struct Entry<'a> {
    head: String,
    context: &'a Context,
}

impl ContextsPane {
    fn entries<'a>(&self, cx: &Cx<'a>) -> Vec<Entry<'a>> {
        let value = |c: &Context| c.values.get(c.peak).copied().unwrap_or(0.0);
        let strongest = |contexts: &'a [Context]| -> Vec<Entry<'a>> {
            contexts
                .iter()
                .map(|context| Entry {
                    head: text::number(f64::from(value(context))),
                    context,
                })
                .collect()
        };
        if cx.world.open_neuron.is_some() {
            return cx
                .world
                .open_neuron_card()
                .map(|card| strongest(&card.contexts))
                .unwrap_or_default();
        }
        let Some(card) = cx.world.selected_card() else {
            return Vec::new();
        };
        if !self.quantiles {
            return strongest(&card.contexts);
        }
        card.quantiles
            .iter()
            .map(|(q, context)| Entry {
                head: format!("q{:.0}", q * 100.0),
                context,
            })
            .collect()
    }

    /// The top of the scale and its ramp.
    fn scale(cx: &Cx) -> (f32, Ramp) {
        if cx.world.open_neuron.is_some() {
            let contexts = cx
                .world
                .open_neuron_card()
                .map_or(&[][..], |card| &card.contexts);
            let values = contexts.iter().flat_map(|c| &c.values);
            return (values.fold(0.0, |max, v| max.max(v.abs())), Ramp::Diverging);
        }
        (
            cx.world.selected_card().map_or(0.0, |card| card.peak),
            Ramp::Sequential,
        )
    }

    fn heat<'a>(&self, context: &'a Context, cx: &Cx<'a>) -> Heat<'a> {
        let (max, ramp) = Self::scale(cx);
        Heat {
            tokens: &context.tokens,
            cut: context.cut,
            values: &context.values,
            max,
            ramp,
            digits: cx.world.digits,
            // A low quantile's peak may be too weak for a colour.
            cursor: self.quantiles.then_some(context.peak),
            theme: cx.theme,
        }
    }

    fn body(cx: &Cx) -> Rect {
        let area = cx.area;
        let top = area.height.min(1);
        Rect {
            y: area.y + top,
            height: area.height.saturating_sub(top + 1),
            ..area
        }
    }

    /// A context wrapped to the pane's width, its tokens coloured by their values.
    fn context_lines(&self, entry: &Entry, cx: &Cx) -> Vec<Line<'static>> {
        let width = usize::from(cx.area.width).saturating_sub(GUTTER + 2);
        let heat = self.heat(entry.context, cx);
        if self.lines {
            return vec![heat.aligned(width, entry.context.peak, width * 2 / 5)];
        }
        let most = MAX_LINES.min(usize::from(Self::body(cx).height).max(1));
        let mut lines = heat.wrapped(width, entry.context.peak, most);
        // The label, where the last line leaves room for it.
        if let (Some(last), Some(label)) = (lines.last_mut(), &entry.context.label) {
            let label = text::label(&text::clean(label), 16);
            let used = line_cells(last) + text::width(&label);
            if used + 2 <= width {
                last.spans.push(Span::raw(" ".repeat(width - used)));
                last.spans.push(Span::styled(label, cx.theme.dim()));
            }
        }
        lines
    }

    /// The first context to show so that the cursor's is seen whole.
    fn first(&self, entries: &[Entry], cx: &Cx) -> usize {
        let height = usize::from(Self::body(cx).height);
        let cursor = self.cursor.min(entries.len().saturating_sub(1));
        let mut used = 0;
        let mut first = cursor;
        for at in (0..=cursor).rev() {
            let Some(entry) = entries.get(at) else { break };
            used += self.context_lines(entry, cx).len();
            if used > height && at < cursor {
                break;
            }
            first = at;
        }
        first.max(self.offset.min(cursor))
    }

    fn keep_cursor_in_sight(&mut self, cx: &Cx) {
        let entries = self.entries(cx);
        self.cursor = self.cursor.min(entries.len().saturating_sub(1));
        self.offset = self.first(&entries, cx);
    }

    fn copy(&self, cx: &Cx) -> Vec<Step> {
        let entries = self.entries(cx);
        let line = |e: &Entry| {
            let label = e.context.label.as_deref().unwrap_or("");
            format!(
                "{}\t{}\t{}",
                e.head,
                text::clean(label),
                text::clean(&e.context.tokens.concat())
            )
        };
        let lines: Vec<String> = entries.iter().map(line).collect();
        vec![Step::Copy(
            lines.join("\n"),
            format!("{} contexts", lines.len()),
        )]
    }

    fn detail_line(&self, entries: &[Entry], cx: &Cx) -> Line<'static> {
        let Some(entry) = entries.get(self.cursor) else {
            return Line::default();
        };
        let context = entry.context;
        let value = context.values.get(context.peak).copied().unwrap_or(0.0);
        let mut facts = vec![format!(
            "{} {}",
            pieces::token_name(&context.tokens, context.peak),
            text::number(f64::from(value))
        )];
        facts.extend(context.label.as_deref().map(text::clean));
        facts.push(format!("sample {}", context.sample));
        let line = format!(" {}", facts.join(" · "));
        Line::styled(
            text::truncate(&line, usize::from(cx.area.width)),
            cx.theme.dim(),
        )
    }

    fn header_line(&self, count: usize, cx: &Cx) -> Line<'static> {
        let what = match (cx.world.open_neuron.is_some(), self.quantiles) {
            (false, true) => "quantiles".to_owned(),
            _ => format!("{count} strongest"),
        };
        let older = cx
            .world
            .older_sweep_of_card()
            .filter(|_| cx.world.open_neuron.is_none())
            .map(|sweep| format!(" · of sweep {sweep}"))
            .unwrap_or_default();
        let (max, ramp) = Self::scale(cx);
        let scale = legend(cx.theme, ramp, max, cx.world.digits);
        let left = usize::from(cx.area.width).saturating_sub(line_cells(&scale) + 1);
        let whole = format!("{what}{older}");
        let what = match () {
            () if text::width(&whole) + 2 <= left => whole,
            () if !older.is_empty() => older.trim_start_matches([' ', '·']).to_owned(),
            () if text::width(&what) + 2 <= left => what,
            () => "strongest".to_owned(),
        };
        let what = text::pad(
            &text::truncate(&format!(" {what}"), left.saturating_sub(1)),
            left,
        );
        let mut spans = vec![Span::styled(what, cx.theme.dim())];
        spans.extend(scale.spans);
        Line::from(spans)
    }
}

/// What an empty pane says.
fn empty_lines(cx: &Cx) -> Vec<String> {
    if let Some(index) = cx.world.open_neuron {
        return vec![format!("reading neuron {index}…")];
    }
    match cx.world.selected {
        Some(id) if cx.world.selected_card().is_none() => vec![format!("reading #{id}…")],
        Some(id) => vec![format!("#{id} fires nowhere.")],
        None if cx.world.rows().is_empty() => {
            vec!["Contexts appear with the first features.".to_owned()]
        }
        None => vec![
            "No feature is selected.".to_owned(),
            format!("{} goes to the list.", cx.key(Action::Explore)),
        ],
    }
}

impl Pane for ContextsPane {
    fn id(&self) -> PaneId {
        PaneId::Contexts
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        Line::raw(match (cx.world.open_neuron, cx.world.selected) {
            (Some(index), _) => format!("Contexts of neuron {index}"),
            (None, Some(id)) => format!("Contexts of {}", cx.world.feature_label(id)),
            (None, None) => "Contexts".to_owned(),
        })
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        match action {
            Action::Quantiles if cx.world.open_neuron.is_some() => {
                Some("a neuron has its strongest contexts alone".to_owned())
            }
            Action::Trace if self.entries(cx).is_empty() => Some("no context is shown".to_owned()),
            _ => None,
        }
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let entries = self.entries(cx);
        if let Some(to) = motion(action, self.cursor, entries.len(), 6) {
            self.cursor = to;
            self.keep_cursor_in_sight(cx);
            return Some(Vec::new());
        }
        Some(match action {
            Action::Open => vec![Step::Focus(PaneId::Feature)],
            Action::Quantiles => {
                self.quantiles = !self.quantiles;
                (self.cursor, self.offset) = (0, 0);
                Vec::new()
            }
            Action::Lines => {
                self.lines = !self.lines;
                self.offset = 0;
                self.keep_cursor_in_sight(cx);
                Vec::new()
            }
            Action::Trace => {
                let context = entries.get(self.cursor)?.context;
                let text = context.tokens.concat();
                let before = context.tokens.iter().take(context.peak);
                let at = before.map(String::len).sum();
                vec![Step::HandOver(PaneId::Live, Handover::Text { text, at })]
            }
            Action::Copy => self.copy(cx),
            _ => return None,
        })
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        if matches!(reply.event, Event::Card(_) | Event::Neuron(_)) {
            self.keep_cursor_in_sight(cx);
        }
        Vec::new()
    }

    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        if cx.world.selected_card().is_none() {
            (self.cursor, self.offset) = (0, 0);
        }
        self.keep_cursor_in_sight(cx);
        Vec::new()
    }

    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let entries = self.entries(cx);
        let Some(mut line) = usize::from(row).checked_sub(usize::from(Self::body(cx).y)) else {
            return Vec::new();
        };
        for (i, entry) in entries.iter().enumerate().skip(self.first(&entries, cx)) {
            let height = self.context_lines(entry, cx).len();
            if line < height {
                self.cursor = i;
                return if double {
                    vec![Step::Focus(PaneId::Feature)]
                } else {
                    Vec::new()
                };
            }
            line -= height;
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let entries = self.entries(cx);
        if entries.is_empty() {
            return draw_empty(buf, cx, &empty_lines(cx));
        }
        put(buf, cx.area, 0, &self.header_line(entries.len(), cx));
        let body = Self::body(cx);
        let mut row = 0;
        for (i, entry) in entries.iter().enumerate().skip(self.first(&entries, cx)) {
            let is_current = i == self.cursor;
            for (j, line) in self.context_lines(entry, cx).iter().enumerate() {
                if row >= usize::from(body.height) {
                    break;
                }
                let mark = Span::styled(if is_current { "▌" } else { " " }, cx.theme.accent());
                let head = if j == 0 { entry.head.as_str() } else { "" };
                let style = if is_current {
                    cx.theme.heading()
                } else {
                    cx.theme.dim()
                };
                let gutter = Span::styled(text::pad_left(head, GUTTER - 1), style);
                put(buf, body, row, &Line::from(vec![mark, gutter]));
                put_at(buf, body, GUTTER + 1, row, line);
                row += 1;
            }
        }
        put(
            buf,
            cx.area,
            usize::from(cx.area.height).saturating_sub(1),
            &self.detail_line(&entries, cx),
        );
    }

    fn session(&self) -> Value {
        json!({ "quantiles": self.quantiles, "lines": self.lines })
    }

    fn restore(&mut self, session: &Value, _: &Cx) {
        self.quantiles = session["quantiles"].as_bool().unwrap_or(self.quantiles);
        self.lines = session["lines"].as_bool().unwrap_or(self.lines);
    }
}
