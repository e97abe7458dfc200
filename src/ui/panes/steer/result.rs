//! What came of a run: the strength that was found, the tokens that rose and fell, the texts side
//! by side.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::SteerPane;
use super::run::{Run, State, departure, flow};
use super::three_ways;
use crate::analysis::ScoredToken;
use crate::steering::{SteerInfo, Strength};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::bar;
use crate::ui::draw::{put, put_at};
use crate::ui::pane::Cx;

/// Below this width baseline and steered stand one below the other.
const STACKED: usize = 56;

/// The part of the result that scrolls, and the rows that it takes.
pub(super) fn texts_area(pane: &SteerPane, area: Rect, beside: bool, cx: &Cx) -> (Rect, usize) {
    let area = inner(area, beside);
    let Some(run) = pane.runs.get(pane.shown) else {
        return (area, 0);
    };
    let above = head(run, usize::from(area.width), usize::from(area.height), cx).len() as u16;
    let below = Rect {
        y: area.y + above,
        height: area.height.saturating_sub(above),
        ..area
    };
    (below, texts(run, usize::from(area.width), cx).len())
}

/// The result without its title and its margin.
pub(super) fn inner(area: Rect, beside: bool) -> Rect {
    let left = if beside { 2 } else { 1 };
    Rect {
        x: area.x + left.min(area.width),
        y: area.y + area.height.min(1),
        width: area.width.saturating_sub(left),
        height: area.height.saturating_sub(1),
    }
}

pub(super) fn draw(pane: &SteerPane, area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    if area.is_empty() {
        return;
    }
    if beside {
        for y in 0..usize::from(area.height) {
            put(buf, area, y, &Line::styled("│", theme.rule(false)));
        }
    }
    if pane.three.is_some() {
        return three_ways::draw(pane, inner(area, beside), cx, buf);
    }
    let Some(run) = pane.runs.get(pane.shown) else {
        let inner = inner(area, beside);
        if !beside {
            put(
                buf,
                area,
                0,
                &Line::styled("─".repeat(usize::from(area.width)), theme.rule(false)),
            );
        }
        for (i, (line, style)) in empty_lines(pane, cx).into_iter().enumerate() {
            let y = i + usize::from(inner.height / 6);
            put(
                buf,
                inner,
                y,
                &Line::styled(text::truncate(&line, usize::from(inner.width)), style),
            );
        }
        return;
    };
    let (texts_at, rows) = texts_area(pane, area, beside, cx);
    let inner = inner(area, beside);
    let width = usize::from(inner.width);
    for (y, line) in head(run, width, usize::from(inner.height), cx)
        .iter()
        .enumerate()
    {
        put(buf, inner, y, line);
    }
    let height = usize::from(texts_at.height);
    let scroll = pane.scroll.min(rows.saturating_sub(height));
    for (y, line) in texts(run, width, cx)
        .iter()
        .skip(scroll)
        .take(height)
        .enumerate()
    {
        put(buf, texts_at, y, line);
    }
    let more = match rows.saturating_sub(scroll + height) {
        0 => String::new(),
        hidden => format!(" {hidden} rows below: {} ", cx.key(Action::PageDown)),
    };
    let room = usize::from(area.width).saturating_sub(usize::from(beside) + text::width(&more));
    put_at(
        buf,
        area,
        usize::from(beside),
        0,
        &title(pane, run, room, cx),
    );
    put_at(
        buf,
        area,
        usize::from(beside) + room,
        0,
        &Line::styled(more, theme.accent()),
    );
}

/// What an empty pane says.
fn empty_lines(pane: &SteerPane, cx: &Cx) -> Vec<(String, Style)> {
    let theme = cx.theme;
    let mut lines = vec![(
        "Turn a feature up and see what the model says.".to_owned(),
        theme.text(),
    )];
    match pane.refusal_reason(cx) {
        Some(reason) => lines.push((reason, theme.warning())),
        None => lines.push((
            format!(
                "{} continues the prompt with and without it.",
                cx.key(Action::Run)
            ),
            theme.dim(),
        )),
    }
    if pane.form.values.features.is_empty() {
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
        State::Waiting => ("waiting".to_owned(), theme.accent()),
        State::Running if run.info.is_none() => ("searching α".to_owned(), theme.accent()),
        State::Running => ("writing".to_owned(), theme.accent()),
        State::Done => ("done".to_owned(), theme.good()),
        State::Cancelled => ("cancelled".to_owned(), theme.warning()),
        State::Failed(_) => ("failed".to_owned(), theme.error()),
    };
    let n = pane.runs.len();
    let which = if n > 1 {
        format!("run {} of {n}", pane.shown + 1)
    } else {
        "run".to_owned()
    };
    let room = width.saturating_sub(which.len() + 9 + text::width(&state));
    let asked = text::truncate(&run.description(), room);
    let used = 3 + which.len() + 2 + text::width(&asked) + 2 + text::width(&state) + 1;
    Line::from(vec![
        Span::styled("── ", theme.rule(false)),
        Span::styled(which, theme.heading()),
        Span::raw("  "),
        Span::raw(asked),
        Span::raw("  "),
        Span::styled(state, style),
        Span::styled(
            format!(" {}", "─".repeat(width.saturating_sub(used + 1))),
            theme.rule(false),
        ),
    ])
}

/// The strength that was found, and the tokens that rose and fell.
pub(super) fn head(run: &Run, width: usize, height: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut lines = Vec::new();
    if let State::Failed(why) = &run.state {
        lines.extend(
            text::wrap(&text::clean(why), width)
                .into_iter()
                .map(|l| Line::styled(l, theme.error())),
        );
    }
    let Some(info) = &run.info else {
        if run.is_active() {
            let what = match run.settings.strength {
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
        lines.extend(
            wrapped
                .into_iter()
                .take(2)
                .map(|l| Line::styled(l, theme.warning())),
        );
    }
    let rows = (height / 4)
        .clamp(1, 8)
        .min(info.risen.len().max(info.fallen.len()));
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
    if let Strength::Kl(target) = run.settings.strength {
        spans.push(Span::styled(format!(" of {target} asked for"), theme.dim()));
    }
    Line::from(spans)
}

/// A token for a list; white space, which says nothing by its width, as marks with a count.
fn shown_token(piece: &str) -> String {
    if !piece.trim().is_empty() || piece.is_empty() {
        return text::token(piece);
    }
    let mut shown = String::new();
    let mut chars = piece.chars().peekable();
    while let Some(c) = chars.next() {
        let mut n = 1;
        while chars.next_if_eq(&c).is_some() {
            n += 1;
        }
        let mark = if c == ' ' {
            "·".to_owned()
        } else {
            text::clean(&c.to_string())
        };
        shown.push_str(&if n > 2 {
            format!("{mark}×{n}")
        } else {
            mark.repeat(n)
        });
    }
    shown
}

/// Risen and fallen tokens beside each other, with bars on one scale.
fn shifted(info: &SteerInfo, rows: usize, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let largest = info
        .risen
        .iter()
        .chain(&info.fallen)
        .map(|t| t.value.abs())
        .fold(0.0, f32::max);
    let half = (width / 2).min(44);
    let one = |token: Option<&ScoredToken>, style: Style, first: &str| -> Vec<Span<'static>> {
        let Some(token) = token else {
            return vec![Span::raw(" ".repeat(half))];
        };
        let cells = half.saturating_sub(7 + 7 + 2);
        let (name, length) = (cells.min(14), cells.saturating_sub(14).min(14));
        let rest = half.saturating_sub(7 + name + 7 + 1 + length);
        vec![
            Span::styled(text::pad(first, 7), theme.dim()),
            Span::raw(text::pad(&shown_token(&token.token), name)),
            Span::styled(text::pad_left(&format!("{:+.2}", token.value), 7), style),
            Span::styled(
                format!(" {}", bar(token.value.abs(), largest, length)),
                style,
            ),
            Span::raw(" ".repeat(rest)),
        ]
    };
    (0..rows)
        .map(|i| {
            let (risen, fallen) = if i == 0 {
                ("risen", "fallen")
            } else {
                ("", "")
            };
            let mut spans = one(info.risen.get(i), theme.positive(), risen);
            spans.extend(one(info.fallen.get(i), theme.negative(), fallen));
            Line::from(spans)
        })
        .collect()
}

/// Baseline and steered, side by side where there is room.
pub(super) fn texts(run: &Run, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    if run.info.is_none()
        && run
            .baseline
            .iter()
            .chain(&run.steered)
            .all(String::is_empty)
    {
        return Vec::new();
    }
    let many = run.samples() > 1;
    let gutter = if many { 2 } else { 0 };
    let mut lines = Vec::new();
    if width < STACKED {
        for sample in 0..run.samples() {
            let sides = sides(run, sample, width, width, cx);
            for (what, side) in ["baseline", "steered"].into_iter().zip(sides) {
                let label = if many {
                    format!("{what} {}", sample + 1)
                } else {
                    what.to_owned()
                };
                lines.push(Line::styled(label, theme.heading()));
                lines.extend(side.into_iter().map(Line::from));
            }
            lines.push(Line::default());
        }
        return lines;
    }
    let left = (width - gutter - 3) / 2;
    // The last column stays free, as beside every text.
    let right = width - gutter - 4 - left;
    lines.push(Line::from(vec![
        Span::raw(" ".repeat(gutter)),
        Span::styled(text::pad("baseline", left), theme.heading()),
        Span::styled(" │ ", theme.rule(false)),
        Span::styled("steered", theme.heading()),
        Span::styled(feed_hint(run), theme.dim()),
    ]));
    for sample in 0..run.samples() {
        let [baseline, steered] = sides(run, sample, left, right, cx);
        let rows = baseline.len().max(steered.len());
        for y in 0..rows {
            let number = if many && y == 0 {
                format!("{:<gutter$}", sample + 1)
            } else {
                " ".repeat(gutter)
            };
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
            lines.push(Line::from(vec![
                Span::raw(" ".repeat(gutter + left)),
                Span::styled(" │", theme.rule(false)),
            ]));
        }
    }
    lines
}

/// What the mark of a line end is, where one is seen.
fn feed_hint(run: &Run) -> &'static str {
    let mut texts = run.baseline.iter().chain(&run.steered);
    match texts.any(|text| text.contains('\n')) {
        true => "  ⏎ is a line end",
        false => "",
    }
}

/// The two texts of a sample in lines; what both have is dim, what the steered one has for itself
/// stands out, and in it the tokens that rose.
fn sides(
    run: &Run,
    sample: usize,
    left: usize,
    right: usize,
    cx: &Cx,
) -> [Vec<Vec<Span<'static>>>; 2] {
    let theme = cx.theme;
    let (departed, told) = if theme.marks() {
        (
            Style::new().add_modifier(Modifier::BOLD),
            Modifier::UNDERLINED,
        )
    } else {
        (theme.positive(), Modifier::BOLD | Modifier::UNDERLINED)
    };
    let (baseline, steered) = run.texts(sample);
    let (from, to) = departure(baseline, steered);
    let risen = run.risen_words();
    let paint = |text: &str,
                 from: usize,
                 cells: usize,
                 beyond: Style,
                 words: &[String]|
     -> Vec<Vec<Span<'static>>> {
        let styled = |(piece, is_beyond): (String, bool)| {
            if !is_beyond {
                return Span::styled(piece, theme.dim());
            }
            let bare = piece
                .trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase();
            Span::styled(
                piece,
                if words.contains(&bare) {
                    beyond.add_modifier(told)
                } else {
                    beyond
                },
            )
        };
        flow(text, from, cells)
            .into_iter()
            .map(|line| line.into_iter().map(styled).collect())
            .collect()
    };
    let mut out = [
        paint(baseline, from, left, theme.text(), &[]),
        paint(steered, to, right, departed, &risen),
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
