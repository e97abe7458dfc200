//! How the Steer pane looks: the request, and the runs that were; what came of a run is
//! [`result`]'s.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use super::values::Kind;
use super::{SteerPane, history, result, unknown};
use crate::text;
use crate::ui::action::Action;
use crate::ui::describe::feature_in_list;
use crate::ui::draw::{put, put_selected};
use crate::ui::pane::Cx;

/// From this size on the request stands beside the texts, a value a row.
const BESIDE: (u16, u16) = (104, 20);

/// From this width on the values stand in three columns.
const NARROWEST_GRID: u16 = 54;

/// Cells of a field's name.
const NAME: usize = 13;

/// How the request is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FormLayout {
    /// A value a row, beside the texts.
    Beside,
    /// In three columns above the texts.
    Grid,
    /// A value a row above the texts, as many as there is room for.
    List,
}

/// Where the parts are.
struct Parts {
    form: Rect,
    result: Rect,
    layout: FormLayout,
}

/// A field as drawn.
struct FieldLine {
    at: usize,
    area: Rect,
    line: Line<'static>,
}

impl FieldLine {
    /// A line of field `at` over the whole width of `area`, in row `y` of the screen.
    fn row(at: usize, area: Rect, y: u16, line: Line<'static>) -> Self {
        let area = Rect {
            y,
            height: 1,
            ..area
        };
        Self { at, area, line }
    }
}

fn beside(area: Rect) -> bool {
    area.width >= BESIDE.0 && area.height >= BESIDE.1
}

/// Cells that the prompt is typed in.
pub(super) fn prompt_cells(cx: &Cx) -> usize {
    let area = cx.area;
    let width = if beside(area) {
        form_width(area)
    } else {
        area.width
    };
    usize::from(width).saturating_sub(NAME + 2).max(4)
}

fn form_width(area: Rect) -> u16 {
    (area.width / 3).clamp(36, 48)
}

fn parts(pane: &SteerPane, cx: &Cx) -> Parts {
    let area = cx.area;
    if beside(area) {
        let width = form_width(area);
        let result = Rect {
            x: area.x + width,
            width: area.width - width,
            ..area
        };
        return Parts {
            form: Rect { width, ..area },
            result,
            layout: FormLayout::Beside,
        };
    }
    let (layout, height) = if area.width >= NARROWEST_GRID && area.height >= 10 {
        let rows = grid(pane, area, cx)
            .iter()
            .map(|p| p.area.bottom())
            .max()
            .unwrap_or(area.y)
            - area.y;
        // A line for what is wrong; the request never pushes the texts off the screen.
        (
            FormLayout::Grid,
            (rows + 1).min(area.height - area.height / 3),
        )
    } else {
        (FormLayout::List, (area.height / 2).max(1).min(area.height))
    };
    let height = height.min(area.height);
    let result = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    Parts {
        form: Rect { height, ..area },
        result,
        layout,
    }
}

fn prompt_rows(pane: &SteerPane, cx: &Cx, most: usize) -> Vec<Line<'static>> {
    let rows = pane.prompt.height(prompt_cells(cx)).clamp(1, most);
    pane.prompt
        .lines(cx.theme, prompt_cells(cx), rows, pane.typing)
}

pub(super) fn marker(is_current: bool, cx: &Cx) -> Span<'static> {
    Span::styled(if is_current { "▌" } else { " " }, cx.theme.accent())
}

fn name(kind: Kind, is_current: bool, cx: &Cx) -> Vec<Span<'static>> {
    vec![
        marker(is_current, cx),
        Span::styled(text::pad(kind.name(), NAME - 1), cx.theme.dim()),
    ]
}

fn prompt_line(row: usize, is_current: bool, line: Line<'static>, cx: &Cx) -> Line<'static> {
    let mut spans = if row == 0 {
        name(Kind::Prompt, is_current, cx)
    } else {
        vec![Span::raw(" ".repeat(NAME))]
    };
    spans.push(Span::raw(" "));
    spans.extend(line.spans);
    Line::from(spans)
}

/// A value between the arrows that turn it.
fn value(
    pane: &SteerPane,
    kind: Kind,
    is_current: bool,
    short: bool,
    cx: &Cx,
) -> Vec<Span<'static>> {
    let theme = cx.theme;
    if let (Some(input), true) = (pane.form.input(), is_current) {
        return input.line(theme, 12).spans;
    }
    let (left, right) = if is_current && cx.focused {
        ("‹", "›")
    } else {
        (" ", " ")
    };
    let style = if is_current {
        theme.heading()
    } else {
        theme.text()
    };
    let shown = pane.form.values.shown(kind, short);
    vec![
        Span::styled(left, theme.accent()),
        Span::styled(shown, style),
        Span::styled(right, theme.accent()),
    ]
}

fn term_label(pane: &SteerPane, i: usize, cells: usize, cx: &Cx) -> Span<'static> {
    match pane.form.values.features.get(i) {
        Some((id, _)) if unknown(*id, cx) => Span::styled(
            text::truncate(&format!("#{id} (not in this fit)"), cells),
            cx.theme.warning(),
        ),
        Some((id, _)) => Span::raw(text::truncate(&feature_in_list(*id, 4, cx.world), cells)),
        None => {
            let hint = match cx.world.selected {
                Some(id) => format!(
                    "none: {} adds {}",
                    cx.key(Action::SteerWith),
                    cx.world.feature_label(id)
                ),
                None => "none yet".to_owned(),
            };
            Span::styled(text::truncate(&hint, cells), cx.theme.dim())
        }
    }
}

/// The fields, one a row.
fn column(pane: &SteerPane, area: Rect, cx: &Cx) -> Vec<FieldLine> {
    let width = usize::from(area.width);
    let mut lines = Vec::new();
    let mut y = area.y;
    for (at, field) in pane.form.values.kinds().into_iter().enumerate() {
        let is_current = at == pane.form.at();
        if field == Kind::Prompt {
            for (i, line) in prompt_rows(pane, cx, 6).into_iter().enumerate() {
                lines.push(FieldLine::row(
                    at,
                    area,
                    y,
                    prompt_line(i, is_current, line, cx),
                ));
                y += 1;
            }
            continue;
        }
        let mut spans = name(field, is_current, cx);
        if let Kind::Term(i) = field {
            if i > 0 {
                spans[1] = Span::raw(" ".repeat(NAME - 1));
            }
            let room = width.saturating_sub(NAME + 9);
            let is_new = pane.form.values.features.is_empty();
            let label = term_label(pane, i, if is_new { room + 8 } else { room }, cx);
            let gap = room.saturating_sub(text::width(&label.content)) + 1;
            spans.extend([Span::raw(" "), label]);
            if !is_new || (is_current && pane.form.input().is_some()) {
                spans.push(Span::raw(" ".repeat(gap.max(1) - 1)));
                spans.extend(value(pane, field, is_current, false, cx));
            }
        } else {
            spans.extend(value(pane, field, is_current, false, cx));
        }
        lines.push(FieldLine::row(at, area, y, Line::from(spans)));
        y += 1;
    }
    lines
}

/// The prompt, the features one behind the other, the other values in three columns: for a pane
/// without room for a value a row.
fn grid(pane: &SteerPane, area: Rect, cx: &Cx) -> Vec<FieldLine> {
    let mut lines = Vec::new();
    let (mut x, mut y) = (0, area.y);
    let fields = pane.form.values.kinds();
    let terms = pane.form.values.features.len().max(1);
    for (at, field) in fields.iter().copied().enumerate().take(1 + terms) {
        let is_current = at == pane.form.at();
        let Kind::Term(i) = field else {
            let most = if area.height >= 18 { 3 } else { 1 };
            for (i, line) in prompt_rows(pane, cx, most).into_iter().enumerate() {
                lines.push(FieldLine::row(
                    at,
                    area,
                    y,
                    prompt_line(i, is_current, line, cx),
                ));
                y += 1;
            }
            continue;
        };
        let mut spans = if i == 0 {
            name(field, is_current, cx)
        } else {
            vec![marker(is_current, cx)]
        };
        spans.push(Span::raw(" "));
        let is_new = pane.form.values.features.is_empty();
        spans.push(term_label(pane, i, if is_new { 44 } else { 24 }, cx));
        if !is_new || (is_current && pane.form.input().is_some()) {
            spans.push(Span::raw(" "));
            spans.extend(value(pane, field, is_current, false, cx));
        }
        let width = spans.iter().map(|s| text::width(&s.content)).sum::<usize>() as u16;
        if x > 0 && x + width > area.width {
            (x, y) = (NAME as u16 - 1, y + 1);
        }
        let width = width.min(area.width.saturating_sub(x));
        lines.push(FieldLine {
            at,
            area: Rect {
                x: area.x + x,
                y,
                width,
                height: 1,
            },
            line: Line::from(spans),
        });
        x += width + 1;
    }
    y += 1;
    let column = area.width / 3;
    let short = column < 24;
    let values: Vec<Kind> = fields.iter().copied().skip(1 + terms).collect();
    let rows = values.len().div_ceil(3);
    for (i, field) in values.into_iter().enumerate() {
        let at = 1 + terms + i;
        let is_current = at == pane.form.at();
        let name = if short && field == Kind::Temperature {
            "temp"
        } else {
            field.name()
        };
        let mut spans = vec![
            marker(is_current, cx),
            Span::styled(text::pad(name, if short { 9 } else { 12 }), cx.theme.dim()),
        ];
        spans.extend(value(pane, field, is_current, short, cx));
        let cell = Rect {
            x: area.x + column * (i / rows) as u16,
            y: y + (i % rows) as u16,
            width: column,
            height: 1,
        };
        lines.push(FieldLine {
            at,
            area: cell,
            line: Line::from(spans),
        });
    }
    lines
}

fn field_lines(pane: &SteerPane, parts: &Parts, cx: &Cx) -> Vec<FieldLine> {
    match parts.layout {
        FormLayout::Grid => grid(pane, parts.form, cx),
        _ => column(pane, parts.form, cx),
    }
}

pub(super) fn field_at(pane: &SteerPane, column: u16, row: u16, cx: &Cx) -> Option<usize> {
    let parts = parts(pane, cx);
    let all = visible_fields(pane, &parts, cx);
    all.into_iter()
        .find(|p| p.area.contains(Position::new(column, row)))
        .map(|p| p.at)
}

/// The fields that are on the screen, the one under the cursor among them.
fn visible_fields(pane: &SteerPane, parts: &Parts, cx: &Cx) -> Vec<FieldLine> {
    let mut all = field_lines(pane, parts, cx);
    let cursor_row = all
        .iter()
        .find(|p| p.at == pane.form.at())
        .map_or(parts.form.y, |p| p.area.y);
    let over = (cursor_row + 1).saturating_sub(parts.form.bottom());
    all.retain_mut(|p| {
        let seen = p.area.y >= parts.form.y + over && p.area.y < parts.form.bottom() + over;
        p.area.y = p.area.y.saturating_sub(over);
        seen
    });
    all
}

pub(super) fn draw(pane: &SteerPane, cx: &Cx, buf: &mut Buffer) {
    let parts = parts(pane, cx);
    let theme = cx.theme;
    if pane.three.is_some() && parts.layout != FormLayout::Beside {
        // Three columns need all the room there is.
        return three(pane, cx, buf);
    }
    let mut bottom = parts.form.y;
    for field in visible_fields(pane, &parts, cx) {
        bottom = bottom.max(field.area.bottom());
        match field.at == pane.form.at() && !pane.typing {
            true => put_selected(buf, field.area, 0, field.line, theme, cx.focused),
            false => put(buf, field.area, 0, &field.line),
        }
    }
    let width = usize::from(parts.form.width);
    let beside = parts.layout == FormLayout::Beside;
    let space = u16::from(beside);
    let below = Rect {
        y: bottom + space,
        height: parts.form.bottom().saturating_sub(bottom + space),
        ..parts.form
    };
    let (message, style) = match pane.form.problem() {
        Some(problem) => (problem, theme.error()),
        None => (pane.kind().help(), theme.dim()),
    };
    let rows = text::wrap(message, width.saturating_sub(3));
    for (i, line) in rows.iter().enumerate() {
        put(buf, below, i, &Line::styled(format!(" {line}"), style));
    }
    if beside {
        let used = rows.len() as u16 + 1;
        history::draw(
            pane,
            Rect {
                y: below.y + used,
                height: below.height.saturating_sub(used),
                ..below
            },
            cx,
            buf,
        );
    }
    result::draw(pane, parts.result, beside, cx, buf);
}

/// The three ways in the whole pane, and the key that leaves them.
fn three(pane: &SteerPane, cx: &Cx, buf: &mut Buffer) {
    let body = three_area(pane, cx);
    let area = Rect {
        height: cx.area.height,
        ..body
    };
    super::three_ways::draw(pane, body, cx, buf);
    let hint = format!("{} goes back to the request", cx.key(Action::Back));
    put(
        buf,
        area,
        usize::from(body.height),
        &Line::styled(hint, cx.theme.dim()),
    );
}

/// Rows that a page of the texts scrolls by.
pub(super) fn page(pane: &SteerPane, cx: &Cx) -> usize {
    let area = if pane.three.is_some() {
        three_area(pane, cx)
    } else {
        texts(pane, cx).0
    };
    usize::from(area.height).saturating_sub(2).max(1)
}

pub(super) fn last_scroll(pane: &SteerPane, cx: &Cx) -> usize {
    if pane.three.is_some() {
        return super::three_ways::last_scroll(pane, three_area(pane, cx), cx);
    }
    let (area, rows) = texts(pane, cx);
    rows.saturating_sub(usize::from(area.height))
}

/// Whether the three ways have the whole pane, and no form is seen.
pub(super) fn three_alone(pane: &SteerPane, cx: &Cx) -> bool {
    pane.three.is_some() && parts(pane, cx).layout != FormLayout::Beside
}

/// Where the three ways are drawn.
fn three_area(pane: &SteerPane, cx: &Cx) -> Rect {
    let parts = parts(pane, cx);
    if parts.layout == FormLayout::Beside {
        return result::inner(parts.result, true);
    }
    let area = Rect {
        x: cx.area.x + 1,
        width: cx.area.width.saturating_sub(2),
        ..cx.area
    };
    Rect {
        height: area.height.saturating_sub(1),
        ..area
    }
}

/// Where the texts are, and how many rows they take.
fn texts(pane: &SteerPane, cx: &Cx) -> (Rect, usize) {
    let parts = parts(pane, cx);
    result::texts_area(pane, parts.result, parts.layout == FormLayout::Beside, cx)
}
