//! How the Steer pane looks: the request, the tokens that rose and fell, the texts side by side.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::form::Field;
use super::run::{Run, State, departure, flow};
use super::{SteerPane, unknown};
use crate::analysis::ScoredToken;
use crate::steering::{SteerInfo, Strength};
use crate::ui::action::Action;
use crate::ui::panes::features::bar;
use crate::ui::panes::{Cx, put, put_at};
use crate::ui::text;

/// From this size on the request stands beside the texts, a value a row.
const BESIDE: (u16, u16) = (104, 20);

/// Below this width baseline and steered stand one below the other.
const STACKED: usize = 56;

/// Cells of a field's name.
const NAME: usize = 13;

/// Where the parts are.
struct Parts {
    form: Rect,
    result: Rect,
    beside: bool,
}

/// A field as drawn.
struct Placed {
    at: usize,
    area: Rect,
    line: Line<'static>,
}

fn beside(area: Rect) -> bool {
    area.width >= BESIDE.0 && area.height >= BESIDE.1
}

/// Cells that the prompt is typed in.
pub(super) fn prompt_cells(cx: &Cx) -> usize {
    let area = cx.area;
    let width = if beside(area) { form_width(area) } else { area.width };
    usize::from(width).saturating_sub(NAME + 2).max(4)
}

fn form_width(area: Rect) -> u16 {
    (area.width / 3).clamp(36, 48)
}

fn parts(pane: &SteerPane, cx: &Cx) -> Parts {
    let area = cx.area;
    if beside(area) {
        let width = form_width(area);
        let result = Rect { x: area.x + width, width: area.width - width, ..area };
        return Parts { form: Rect { width, ..area }, result, beside: true };
    }
    let rows = chips(pane, area, cx).last().map_or(0, |p| p.area.bottom() - area.y);
    // The request never pushes the texts off the screen.
    let height = (rows + 1).min(area.height.saturating_sub(area.height / 3)).max(1);
    let result = Rect { y: area.y + height, height: area.height - height, ..area };
    Parts { form: Rect { height, ..area }, result, beside: false }
}

fn prompt_rows(pane: &SteerPane, cx: &Cx, most: usize) -> Vec<Line<'static>> {
    let rows = pane.prompt.height(prompt_cells(cx)).clamp(1, most);
    pane.prompt.lines(cx.theme, prompt_cells(cx), rows, pane.typing)
}

fn name(field: Field, here: bool, cx: &Cx) -> Vec<Span<'static>> {
    let marker = if here { "▌" } else { " " };
    vec![Span::styled(marker, cx.theme.accent()), Span::styled(text::pad(field.name(), NAME - 1), cx.theme.dim())]
}

/// A value between the arrows that turn it.
fn value(pane: &SteerPane, field: Field, here: bool, cx: &Cx) -> Vec<Span<'static>> {
    let theme = cx.theme;
    if let (Some(input), true) = (&pane.editing, here) {
        return input.line(theme, 12).spans;
    }
    let (left, right) = if here && cx.focused { ("‹", "›") } else { (" ", " ") };
    let style = if here { theme.heading() } else { theme.text() };
    let shown = pane.form.shown(field);
    vec![Span::styled(left, theme.accent()), Span::styled(shown, style), Span::styled(right, theme.accent())]
}

fn term_label(pane: &SteerPane, i: usize, cells: usize, cx: &Cx) -> Span<'static> {
    match pane.form.features.get(i) {
        Some((id, _)) if unknown(*id, cx) => {
            Span::styled(text::fit(&format!("#{id} (not in this fit)"), cells), cx.theme.warning())
        }
        Some((id, _)) => Span::raw(text::fit(&cx.world.feature_label(*id), cells)),
        None => {
            let hint = match cx.world.selected {
                Some(id) => format!("none: {} adds {}", cx.key(Action::SteerWith), cx.world.feature_label(id)),
                None => "none yet".to_owned(),
            };
            Span::styled(text::fit(&hint, cells), cx.theme.dim())
        }
    }
}

/// The fields, one a row.
fn column(pane: &SteerPane, area: Rect, cx: &Cx) -> Vec<Placed> {
    let width = usize::from(area.width);
    let mut placed = Vec::new();
    let mut y = area.y;
    for (at, field) in pane.form.fields().into_iter().enumerate() {
        let here = at == pane.cursor;
        if field == Field::Prompt {
            for (i, line) in prompt_rows(pane, cx, 6).into_iter().enumerate() {
                let mut spans = if i == 0 { name(field, here, cx) } else { vec![Span::raw(" ".repeat(NAME))] };
                spans.push(Span::raw(" "));
                spans.extend(line.spans);
                placed.push(Placed { at, area: Rect { y, height: 1, ..area }, line: Line::from(spans) });
                y += 1;
            }
            continue;
        }
        let mut spans = name(field, here, cx);
        if let Field::Term(i) = field {
            if i > 0 {
                spans[1] = Span::raw(" ".repeat(NAME - 1));
            }
            let room = width.saturating_sub(NAME + 9);
            let is_new = pane.form.features.is_empty();
            let label = term_label(pane, i, if is_new { room + 8 } else { room }, cx);
            let gap = room.saturating_sub(text::width(&label.content)) + 1;
            spans.extend([Span::raw(" "), label]);
            if !is_new || (here && pane.editing.is_some()) {
                spans.push(Span::raw(" ".repeat(gap.max(1) - 1)));
                spans.extend(value(pane, field, here, cx));
            }
        } else {
            spans.extend(value(pane, field, here, cx));
        }
        placed.push(Placed { at, area: Rect { y, height: 1, ..area }, line: Line::from(spans) });
        y += 1;
    }
    placed
}

/// The fields one behind the other, for a pane without room for a column.
fn chips(pane: &SteerPane, area: Rect, cx: &Cx) -> Vec<Placed> {
    let mut placed = Vec::new();
    let (mut x, mut y) = (0, area.y);
    let mut was_term = true;
    for (at, field) in pane.form.fields().into_iter().enumerate() {
        let here = at == pane.cursor;
        if field == Field::Prompt {
            let most = if area.height >= 18 { 3 } else { 1 };
            for (i, line) in prompt_rows(pane, cx, most).into_iter().enumerate() {
                let mut spans = if i == 0 { name(field, here, cx) } else { vec![Span::raw(" ".repeat(NAME))] };
                spans.push(Span::raw(" "));
                spans.extend(line.spans);
                placed.push(Placed { at, area: Rect { y, height: 1, ..area }, line: Line::from(spans) });
                y += 1;
            }
            continue;
        }
        let marker = Span::styled(if here { "▌" } else { " " }, cx.theme.accent());
        let is_term = matches!(field, Field::Term(_));
        let mut spans = vec![marker];
        match field {
            Field::Term(i) => {
                if i == 0 {
                    spans.push(Span::styled(text::pad(field.name(), NAME), cx.theme.dim()));
                }
                let is_new = pane.form.features.is_empty();
                spans.push(term_label(pane, i, if is_new { 44 } else { 20 }, cx));
                if !is_new || (here && pane.editing.is_some()) {
                    spans.extend(value(pane, field, here, cx));
                }
            }
            // Its value alone says what it is.
            Field::Sign | Field::Amount => spans.extend(value(pane, field, here, cx)),
            Field::Temperature if area.width < 100 => {
                spans.push(Span::styled("temp", cx.theme.dim()));
                spans.extend(value(pane, field, here, cx));
            }
            _ => {
                spans.push(Span::styled(field.name(), cx.theme.dim()));
                spans.extend(value(pane, field, here, cx));
            }
        }
        let width = spans.iter().map(|s| text::width(&s.content)).sum::<usize>() as u16;
        if x > 0 && (x + width > area.width || was_term != is_term) {
            x = 0;
            y += 1;
        }
        if is_term && x == 0 && field != Field::Term(0) {
            x = NAME as u16;
        }
        was_term = is_term;
        placed.push(Placed {
            at,
            area: Rect { x: area.x + x, y, width: width.min(area.width.saturating_sub(x)), height: 1 },
            line: Line::from(spans),
        });
        x += width;
    }
    placed
}

fn placed(pane: &SteerPane, parts: &Parts, cx: &Cx) -> Vec<Placed> {
    if parts.beside { column(pane, parts.form, cx) } else { chips(pane, parts.form, cx) }
}

pub(super) fn field_at(pane: &SteerPane, column: u16, row: u16, cx: &Cx) -> Option<usize> {
    let parts = parts(pane, cx);
    let all = placed(pane, &parts, cx);
    all.into_iter().find(|p| p.area.contains(Position::new(column, row))).map(|p| p.at)
}

pub(super) fn draw(pane: &SteerPane, cx: &Cx, buf: &mut Buffer) {
    let parts = parts(pane, cx);
    let theme = cx.theme;
    let mut bottom = parts.form.y;
    for field in placed(pane, &parts, cx) {
        // What does not fit gives way, not what the cursor is on.
        let area = field.area;
        if area.bottom() > parts.form.bottom() {
            continue;
        }
        bottom = bottom.max(area.bottom());
        if field.at == pane.cursor && !pane.typing {
            buf.set_style(area.intersection(buf.area), theme.selected(cx.focused));
        }
        put(buf, area, 0, &field.line);
    }
    let width = usize::from(parts.form.width);
    let mut below = Rect { y: bottom, height: parts.form.bottom() - bottom, ..parts.form };
    if let Some(problem) = &pane.problem {
        for (i, line) in text::wrap(problem, width.saturating_sub(2)).iter().enumerate() {
            put(buf, below, i, &Line::styled(format!(" {line}"), theme.error()));
        }
    } else if parts.beside {
        below.y += 1;
        below.height = below.height.saturating_sub(1);
        for (i, line) in text::wrap(pane.field().help(), width.saturating_sub(3)).iter().enumerate() {
            put(buf, below, i, &Line::styled(format!(" {line}"), theme.dim()));
        }
    } else {
        put(buf, below, 0, &Line::styled(format!(" {}", text::fit(pane.field().help(), width - 1)), theme.dim()));
    }
    result(pane, parts.result, parts.beside, cx, buf);
}

/// The part of the result that scrolls.
fn texts_area(pane: &SteerPane, cx: &Cx) -> (Rect, usize) {
    let parts = parts(pane, cx);
    let area = inner(parts.result, parts.beside);
    let Some(run) = pane.runs.get(pane.shown) else { return (area, 0) };
    let above = head(run, usize::from(area.width), usize::from(area.height), cx).len();
    let below = Rect { y: area.y + above as u16, height: area.height.saturating_sub(above as u16), ..area };
    (below, texts(run, usize::from(area.width), cx).len())
}

/// Rows that a page of the texts scrolls by.
pub(super) fn page(pane: &SteerPane, cx: &Cx) -> usize {
    usize::from(texts_area(pane, cx).0.height).saturating_sub(2).max(1)
}

pub(super) fn last_scroll(pane: &SteerPane, cx: &Cx) -> usize {
    let (area, rows) = texts_area(pane, cx);
    rows.saturating_sub(usize::from(area.height))
}

/// The result without its title and its margin.
fn inner(area: Rect, beside: bool) -> Rect {
    let left = if beside { 2 } else { 1 };
    Rect {
        x: area.x + left.min(area.width),
        y: area.y + area.height.min(1),
        width: area.width.saturating_sub(left),
        height: area.height.saturating_sub(1),
    }
}

fn result(pane: &SteerPane, area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    if area.is_empty() {
        return;
    }
    if beside {
        for y in 0..usize::from(area.height) {
            put(buf, area, y, &Line::styled("│", theme.rule(false)));
        }
    }
    let Some(run) = pane.runs.get(pane.shown) else {
        let inner = inner(area, beside);
        if !beside {
            put(buf, area, 0, &Line::styled("─".repeat(usize::from(area.width)), theme.rule(false)));
        }
        for (i, (line, style)) in nothing(pane, cx).into_iter().enumerate() {
            let y = i + usize::from(inner.height / 6);
            put(buf, inner, y, &Line::styled(text::fit(&line, usize::from(inner.width)), style));
        }
        return;
    };
    put_at(buf, area, usize::from(beside), 0, &title(pane, run, usize::from(area.width), cx));
    let (texts_at, rows) = texts_area(pane, cx);
    let inner = inner(area, beside);
    let width = usize::from(inner.width);
    for (y, line) in head(run, width, usize::from(inner.height), cx).iter().enumerate() {
        put(buf, inner, y, line);
    }
    let height = usize::from(texts_at.height);
    let scroll = pane.scroll.min(rows.saturating_sub(height));
    for (y, line) in texts(run, width, cx).iter().skip(scroll).take(height).enumerate() {
        put(buf, texts_at, y, line);
    }
    let hidden = rows.saturating_sub(scroll + height);
    if hidden > 0 && height > 1 {
        let more = format!(" {hidden} more: {} ", cx.key(Action::PageDown));
        let x = width.saturating_sub(text::width(&more));
        put_at(buf, texts_at, x, height - 1, &Line::styled(more, theme.accent()));
    }
}

/// What an empty pane says.
fn nothing(pane: &SteerPane, cx: &Cx) -> Vec<(String, Style)> {
    let theme = cx.theme;
    let mut lines = vec![("Turn a feature up and see what the model says.".to_owned(), theme.text())];
    match pane.refused(cx) {
        Some(reason) => lines.push((reason, theme.warning())),
        None => lines.push((format!("{} continues the prompt with and without it.", cx.key(Action::Run)), theme.dim())),
    }
    if pane.form.features.is_empty() {
        let line = format!(
            "In Explore, {} adds the feature under the cursor and {} suppresses it.",
            cx.key(Action::SteerWith),
            cx.key(Action::SuppressWith)
        );
        lines.push((line, theme.dim()));
        let line = format!(
            "In the Tree ({}), {} takes a cluster's core, {} what one feature has for itself.",
            cx.key(Action::Tree),
            cx.key(Action::SteerCore),
            cx.key(Action::SteerExclusive)
        );
        lines.push((line, theme.dim()));
    }
    lines
}

/// Which run, what it asked for, where it stands.
fn title(pane: &SteerPane, run: &Run, width: usize, cx: &Cx) -> Line<'static> {
    let theme = cx.theme;
    let (state, style) = match &run.state {
        State::Asked => ("waiting".to_owned(), theme.accent()),
        State::Running if run.info.is_none() => ("searching α".to_owned(), theme.accent()),
        State::Running => ("writing".to_owned(), theme.accent()),
        State::Done(how) => (text::clean(how), theme.good()),
        State::Cancelled => ("cancelled".to_owned(), theme.warning()),
        State::Failed(_) => ("failed".to_owned(), theme.error()),
    };
    let n = pane.runs.len();
    let which = if n > 1 { format!("run {} of {n}", pane.shown + 1) } else { "run".to_owned() };
    let room = width.saturating_sub(which.len() + 9 + text::width(&state));
    let asked = text::fit(&run.asked(), room);
    let used = 3 + which.len() + 2 + text::width(&asked) + 2 + text::width(&state) + 1;
    Line::from(vec![
        Span::styled("── ", theme.rule(false)),
        Span::styled(which, theme.heading()),
        Span::raw("  "),
        Span::raw(asked),
        Span::raw("  "),
        Span::styled(state, style),
        Span::styled(format!(" {}", "─".repeat(width.saturating_sub(used + 1))), theme.rule(false)),
    ])
}

/// The strength that was found, and the tokens that rose and fell.
fn head(run: &Run, width: usize, height: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut lines = Vec::new();
    if let State::Failed(why) = &run.state {
        lines.extend(text::wrap(&text::clean(why), width).into_iter().map(|l| Line::styled(l, theme.error())));
    }
    let Some(info) = &run.info else {
        if run.is_active() {
            let what = match run.ask.strength {
                Strength::Kl(kl) => format!("looking for the α that gives a KL of {kl}…"),
                Strength::Alpha(_) => "measuring…".to_owned(),
            };
            lines.push(Line::styled(what, theme.dim()));
        }
        return lines;
    };
    lines.push(strength(run, info, cx));
    if let Some(note) = &info.note {
        let wrapped = text::wrap(&text::clean(note), width);
        lines.extend(wrapped.into_iter().take(2).map(|l| Line::styled(l, theme.warning())));
    }
    let rows = (height / 4).clamp(1, 8).min(info.risen.len().max(info.fallen.len()));
    lines.extend(shifted(info, rows, width, cx));
    if height >= 12 {
        lines.push(Line::default());
    }
    lines
}

fn strength(run: &Run, info: &SteerInfo, cx: &Cx) -> Line<'static> {
    let theme = cx.theme;
    let mut spans = vec![
        Span::styled("α ", theme.dim()),
        Span::styled(format!("{:+.1}", info.alpha), theme.heading()),
        Span::styled("   KL ", theme.dim()),
        Span::styled(format!("{:.3}", info.kl), theme.heading()),
    ];
    if let Strength::Kl(target) = run.ask.strength {
        spans.push(Span::styled(format!(" of {target} asked for"), theme.dim()));
    }
    Line::from(spans)
}

/// Risen and fallen tokens beside each other, with bars on one scale.
fn shifted(info: &SteerInfo, rows: usize, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let largest = info.risen.iter().chain(&info.fallen).map(|t| t.value.abs()).fold(0.0, f32::max);
    let half = (width / 2).min(44);
    let one = |token: Option<&ScoredToken>, style: Style, first: &str| -> Vec<Span<'static>> {
        let Some(token) = token else { return vec![Span::raw(" ".repeat(half))] };
        let cells = half.saturating_sub(7 + 7 + 2);
        let (name, length) = (cells.min(14), cells.saturating_sub(14).min(14));
        let rest = half.saturating_sub(7 + name + 7 + 1 + length);
        vec![
            Span::styled(text::pad(first, 7), theme.dim()),
            Span::raw(text::pad(&text::token(&token.token), name)),
            Span::styled(text::pad_left(&format!("{:+.2}", token.value), 7), style),
            Span::styled(format!(" {}", bar(token.value.abs(), largest, length)), style),
            Span::raw(" ".repeat(rest)),
        ]
    };
    (0..rows)
        .map(|i| {
            let (risen, fallen) = if i == 0 { ("risen", "fallen") } else { ("", "") };
            let mut spans = one(info.risen.get(i), theme.positive(), risen);
            spans.extend(one(info.fallen.get(i), theme.negative(), fallen));
            Line::from(spans)
        })
        .collect()
}

/// Baseline and steered, side by side where there is room.
fn texts(run: &Run, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    if run.info.is_none() && run.baseline.iter().chain(&run.steered).all(String::is_empty) {
        return Vec::new();
    }
    let many = run.samples() > 1;
    let gutter = if many { 2 } else { 0 };
    let mut lines = Vec::new();
    if width < STACKED {
        for sample in 0..run.samples() {
            let sides = sides(run, sample, width, width, cx);
            for (what, side) in ["baseline", "steered"].into_iter().zip(sides) {
                let label = if many { format!("{what} {}", sample + 1) } else { what.to_owned() };
                lines.push(Line::styled(label, theme.heading()));
                lines.extend(side.into_iter().map(Line::from));
            }
            lines.push(Line::default());
        }
        return lines;
    }
    let left = (width - gutter - 3) / 2;
    let right = width - gutter - 3 - left;
    lines.push(Line::from(vec![
        Span::raw(" ".repeat(gutter)),
        Span::styled(text::pad("baseline", left), theme.heading()),
        Span::styled(" │ ", theme.rule(false)),
        Span::styled("steered", theme.heading()),
    ]));
    for sample in 0..run.samples() {
        let [baseline, steered] = sides(run, sample, left, right, cx);
        let rows = baseline.len().max(steered.len());
        for y in 0..rows {
            let number = if many && y == 0 { format!("{:<gutter$}", sample + 1) } else { " ".repeat(gutter) };
            let mut spans = vec![Span::styled(number, theme.dim())];
            let own = baseline.get(y).cloned().unwrap_or_default();
            let used: usize = own.iter().map(|s| text::width(&s.content)).sum();
            spans.extend(own);
            spans.push(Span::raw(" ".repeat(left.saturating_sub(used))));
            spans.push(Span::styled(" │ ", theme.rule(false)));
            spans.extend(steered.get(y).cloned().unwrap_or_default());
            lines.push(Line::from(spans));
        }
        if sample + 1 < run.samples() {
            lines.push(Line::from(vec![Span::raw(" ".repeat(gutter + left)), Span::styled(" │", theme.rule(false))]));
        }
    }
    lines
}

/// The two texts of a sample in lines; what both have is dim, what the steered one has for itself stands out.
fn sides(run: &Run, sample: usize, left: usize, right: usize, cx: &Cx) -> [Vec<Vec<Span<'static>>>; 2] {
    let theme = cx.theme;
    let (baseline, steered) = run.texts(sample);
    let (from, to) = departure(baseline, steered);
    let paint = |text: &str, from: usize, cells: usize, beyond: Style| -> Vec<Vec<Span<'static>>> {
        let lines = flow(text, from, cells);
        let styled =
            |(piece, is_beyond): (String, bool)| Span::styled(piece, if is_beyond { beyond } else { theme.dim() });
        lines.into_iter().map(|line| line.into_iter().map(styled).collect()).collect()
    };
    let mut out = [
        paint(baseline, from, left, theme.text()),
        paint(steered, to, right, theme.positive().add_modifier(Modifier::BOLD)),
    ];
    if run.is_active() {
        for side in &mut out {
            if let Some(last) = side.last_mut() {
                last.push(Span::styled("▏", theme.accent()));
            }
        }
    }
    out
}
