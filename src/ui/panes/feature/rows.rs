//! The lines of a feature's and a neuron's card.

use ratatui::text::{Line, Span};

use super::Link;
use crate::analysis::{FeatureCard, NeuronCard, ScoredToken};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::bar;
use crate::ui::pane::Cx;
use crate::ui::theme::Theme;

/// Lines of the histogram.
const HISTOGRAM: usize = 4;

/// Neurons shown before all are asked for.
const NEURONS: usize = 8;

/// Labels shown before all are asked for.
const LABELS: usize = 6;

/// A line, and what it leads to.
pub(super) struct Row {
    pub(super) link: Option<Link>,
    pub(super) line: Line<'static>,
}

fn plain(line: impl Into<Line<'static>>) -> Row {
    Row {
        link: None,
        line: line.into(),
    }
}

fn heading(theme: &Theme, width: usize, title: &str, facts: &str) -> Row {
    let facts = text::truncate(facts, width.saturating_sub(4 + text::width(title)));
    plain(Line::from(vec![
        Span::styled(format!(" {title}"), theme.heading()),
        Span::styled(format!("  {facts}"), theme.dim()),
    ]))
}

/// A signed bar of `2 * cells` cells about a middle, blue to the right for plus, red to the left
/// for minus.
fn signed_bar(theme: &Theme, value: f32, max: f32, cells: usize) -> [Span<'static>; 3] {
    let blank = " ".repeat(cells);
    let middle = Span::styled("│", theme.rule(false));
    if value >= 0.0 {
        return [
            Span::raw(blank),
            middle,
            Span::styled(bar(value, max, cells), theme.positive()),
        ];
    }
    let halves = ((-value / max.max(f32::MIN_POSITIVE)).min(1.0) * cells as f32 * 2.0)
        .round()
        .max(1.0) as usize;
    let body = "▐".repeat(halves % 2) + &"█".repeat(halves / 2);
    [
        Span::styled(text::pad_left(&body, cells), theme.negative()),
        middle,
        Span::raw(blank),
    ]
}

/// Promoted and suppressed tokens side by side.
fn lens(
    promoted: &[ScoredToken],
    suppressed: &[ScoredToken],
    most: usize,
    cx: &Cx,
    width: usize,
) -> Vec<Row> {
    let theme = cx.theme;
    let half = width.saturating_sub(2) / 2;
    let side = |list: &[ScoredToken], i: usize, style| -> Vec<Span<'static>> {
        let Some(scored) = list.get(i) else {
            return vec![Span::raw(" ".repeat(half))];
        };
        let value = format!("{:+.1}", scored.value);
        let room = half.saturating_sub(text::width(&value) + 2);
        vec![
            Span::raw(format!(
                " {} ",
                text::pad(&text::token(&scored.token), room)
            )),
            Span::styled(value, style),
        ]
    };
    let mut rows = vec![plain(Line::from(vec![
        Span::styled(text::pad(" promotes", half + 1), theme.heading()),
        Span::styled(" suppresses", theme.heading()),
    ]))];
    for i in 0..promoted.len().max(suppressed.len()).min(most) {
        let mut spans = side(promoted, i, theme.positive());
        spans.push(Span::raw(" "));
        spans.extend(side(suppressed, i, theme.negative()));
        rows.push(plain(Line::from(spans)));
    }
    rows
}

/// Counts on a log scale, bin by bin, with the ends of both axes.
fn histogram(counts: &[u32], peak: f32, cx: &Cx, width: usize) -> Vec<Row> {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let theme = cx.theme;
    let cells = counts.len().min(width.saturating_sub(9)).max(1);
    let most = counts.iter().copied().max().unwrap_or(0);
    let total: u64 = counts.iter().map(|c| u64::from(*c)).sum();
    if most == 0 {
        return Vec::new();
    }
    let share = |i: usize| {
        let (from, to) = (
            i * counts.len() / cells,
            ((i + 1) * counts.len() / cells).max(i * counts.len() / cells + 1),
        );
        let count = counts[from..to.min(counts.len())]
            .iter()
            .copied()
            .max()
            .unwrap_or(0);
        f64::from(count + 1).ln() / f64::from(most + 1).ln()
    };
    let mut rows = vec![heading(
        theme,
        width,
        "activations",
        &format!("{} above 0", text::count(total as usize)),
    )];
    for line in 0..HISTOGRAM {
        let low = (HISTOGRAM - 1 - line) as f64 / HISTOGRAM as f64;
        let columns: String = (0..cells)
            .map(|i| {
                EIGHTHS
                    [(((share(i) - low) * HISTOGRAM as f64).clamp(0.0, 1.0) * 8.0).round() as usize]
            })
            .collect();
        let label = match line {
            0 => text::pad_left(&compact(most), 6),
            l if l + 1 == HISTOGRAM => "     1".to_owned(),
            _ => "      ".to_owned(),
        };
        rows.push(plain(Line::from(vec![
            Span::styled(format!("{label} "), theme.dim()),
            Span::styled(columns, theme.bar()),
        ])));
    }
    let end = text::number(f64::from(peak));
    let gap = cells.saturating_sub(1 + text::width(&end));
    let scale = match width {
        w if cells + 19 <= w => "  log counts",
        w if cells + 12 <= w => "  log",
        _ => "",
    };
    rows.push(plain(Line::styled(
        format!("       0{}{end}{scale}", " ".repeat(gap)),
        theme.dim(),
    )));
    rows
}

fn compact(n: u32) -> String {
    match n {
        0..=9_999 => text::count(n as usize),
        10_000..=999_999 => format!("{}k", n / 1000),
        _ => format!("{:.1}M", f64::from(n) / 1e6),
    }
}

fn neurons(card: &FeatureCard, all: bool, cx: &Cx, width: usize) -> Vec<Row> {
    let theme = cx.theme;
    let max = card
        .neurons
        .iter()
        .map(|n| n.weight.abs())
        .fold(0.0, f32::max);
    let cells = (width.saturating_sub(26) / 2).clamp(2, 12);
    // Over the columns of the rows below.
    let count = card.neurons.len().to_string();
    let columns = text::pad_left(
        "weight  others",
        (13 + 2 * cells).saturating_sub(count.len()),
    );
    let facts = format!("{count}{columns}");
    let mut rows = vec![heading(theme, width, "neurons", &facts)];
    let shown = if all { card.neurons.len() } else { NEURONS };
    for neuron in card.neurons.iter().take(shown) {
        let style = if neuron.weight >= 0.0 {
            theme.positive()
        } else {
            theme.negative()
        };
        let mut spans = vec![
            Span::raw(text::pad_left(&neuron.index.to_string(), 7)),
            Span::raw(" "),
        ];
        spans.extend(signed_bar(theme, neuron.weight, max, cells));
        spans.push(Span::styled(format!(" {:+.2}", neuron.weight), style));
        let others = neuron.used_by.saturating_sub(1);
        let used = if others == 0 {
            "  own".to_owned()
        } else {
            format!("  +{others}")
        };
        spans.push(Span::styled(used, theme.dim()));
        rows.push(Row {
            link: Some(Link::Neuron(neuron.index)),
            line: Line::from(spans),
        });
    }
    if card.neurons.len() > shown {
        let more = format!(
            "        {} more: {}",
            card.neurons.len() - shown,
            cx.key(Action::Neurons)
        );
        rows.push(plain(Line::styled(more, theme.dim())));
    }
    rows
}

fn labels(card: &FeatureCard, all: bool, cx: &Cx, width: usize) -> Vec<Row> {
    if card.labels.is_empty() {
        return Vec::new();
    }
    let theme = cx.theme;
    let mut rows = vec![heading(theme, width, "labels", "of ΣY (of all tokens)")];
    let cells = width.saturating_sub(31).clamp(2, 16);
    // To the largest: a feature of many labels has small shares of each.
    let most = card.labels.iter().map(|l| l.mass).fold(0.0, f32::max);
    let shown = if all {
        card.labels.len()
    } else {
        LABELS.min(card.labels.len())
    };
    for label in &card.labels[..shown] {
        let line = Line::from(vec![
            Span::raw(format!(
                "  {} ",
                text::pad(&text::label(&text::clean(&label.label), 12), 12)
            )),
            Span::styled(bar(label.mass, most, cells), theme.bar()),
            Span::raw(text::pad_left(&text::percent(label.mass), 6)),
            Span::styled(format!(" ({})", text::percent(label.base)), theme.dim()),
        ]);
        rows.push(Row {
            link: Some(Link::Labels),
            line,
        });
    }
    if card.labels.len() > shown {
        let more = format!(
            "  {} more: {}",
            card.labels.len() - shown,
            cx.key(Action::Open)
        );
        rows.push(Row {
            link: Some(Link::MoreLabels),
            line: Line::styled(more, theme.dim()),
        });
    }
    rows
}

fn related(card: &FeatureCard, cx: &Cx, width: usize) -> Vec<Row> {
    if card.related.is_empty() {
        return Vec::new();
    }
    let theme = cx.theme;
    let mut rows = vec![heading(theme, width, "related", "by shared neurons")];
    for other in &card.related {
        let room = width.saturating_sub(14);
        let line = Line::from(vec![
            Span::raw(text::pad_left(&format!("{:.2}", other.overlap), 7)),
            Span::raw("  "),
            Span::raw(text::truncate(&cx.world.feature_label(other.id), room)),
        ]);
        rows.push(Row {
            link: Some(Link::Feature(other.id)),
            line,
        });
    }
    rows
}

fn facts(card: &FeatureCard, cx: &Cx, width: usize) -> Vec<Row> {
    let row = &card.row;
    let mut facts = vec![
        format!("{} ΣY", text::percent(row.share)),
        format!("fires {}", text::percent(row.density)),
    ];
    if let Some(p) = &row.purity {
        facts.push(format!("{:.0}% {}", p.share * 100.0, text::clean(&p.label)));
    }
    // The label goes to a line of its own where it would be cut.
    let whole = facts.join(" · ");
    let split = if text::width(&whole) + 2 > width {
        facts.len().min(2)
    } else {
        facts.len()
    };
    let (first, rest) = facts.split_at(split);
    let lines = [first, rest]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.join(" · "));
    lines
        .map(|l| {
            plain(Line::styled(
                text::truncate(&format!(" {l}"), width),
                cx.theme.dim(),
            ))
        })
        .collect()
}

/// What a person noted besides the name.
fn noted(card: &FeatureCard, cx: &Cx, width: usize) -> Vec<Row> {
    let note = cx
        .world
        .row(card.row.id)
        .map_or(&card.row.note, |row| &row.note);
    let mut spans = vec![Span::raw(" ")];
    let tags: Vec<String> = note
        .tags
        .iter()
        .map(|tag| format!("#{}", text::clean(tag)))
        .collect();
    spans.push(Span::styled(tags.join(" "), cx.theme.accent()));
    if let Some(rating) = note.rating {
        spans.push(Span::styled(
            format!("  {}", "★".repeat(usize::from(rating.min(5)))),
            cx.theme.name(),
        ));
    }
    if let Some(cosine) = note.doubtful {
        let doubt =
            format!("  ? carried over a refit, cosine {cosine:.2}: note it anew to keep it");
        spans.push(Span::styled(doubt, cx.theme.warning()));
    }
    let mut rows = Vec::new();
    if spans.iter().any(|s| !s.content.trim().is_empty()) {
        rows.push(plain(Line::from(spans)));
    }
    let lines = text::wrap(&text::clean(&note.text), width.saturating_sub(2));
    rows.extend(
        lines
            .into_iter()
            .filter(|l| !l.is_empty())
            .map(|l| plain(format!(" {l}"))),
    );
    rows
}

/// `all` neurons and `all_labels`, rather than the first few of each.
pub(super) fn rows_of_card(
    card: &FeatureCard,
    all: bool,
    all_labels: bool,
    cx: &Cx,
    width: usize,
) -> Vec<Row> {
    let tall = usize::from(cx.area.height) >= 26;
    let mut rows = facts(card, cx, width);
    rows.extend(noted(card, cx, width));
    match &card.lens_note {
        Some(note) if card.promoted.is_empty() => {
            rows.push(plain(Line::styled(
                " promotes and suppresses",
                cx.theme.heading(),
            )));
            for line in text::wrap(&text::clean(note), width.saturating_sub(3)) {
                rows.push(plain(Line::styled(format!("  {line}"), cx.theme.dim())));
            }
        }
        _ => rows.extend(lens(
            &card.promoted,
            &card.suppressed,
            if tall { 8 } else { 6 },
            cx,
            width,
        )),
    }
    let sections = [
        neurons(card, all, cx, width),
        histogram(&card.histogram, card.peak, cx, width),
        related(card, cx, width),
        labels(card, all_labels, cx, width),
    ];
    for section in sections.into_iter().filter(|s| !s.is_empty()) {
        if tall {
            rows.push(plain(""));
        }
        rows.extend(section);
    }
    rows
}

pub(super) fn rows_of_neuron(card: &NeuronCard, cx: &Cx, width: usize) -> Vec<Row> {
    let theme = cx.theme;
    let mut rows = Vec::new();
    // What it does comes before the hundreds of features that may use it.
    if !card.promoted.is_empty() || !card.suppressed.is_empty() {
        rows.extend(lens(
            &card.promoted,
            &card.suppressed,
            if cx.area.height >= 26 { 10 } else { 5 },
            cx,
            width,
        ));
    }
    if !cx.contexts_seen && !card.contexts.is_empty() {
        let keys = format!(
            "{} or {}",
            cx.key(Action::PreviousPane),
            cx.key(Action::Left)
        );
        rows.push(heading(
            theme,
            width,
            &format!("{} contexts", card.contexts.len()),
            &format!("{keys} shows them"),
        ));
    }
    let facts = format!("{} opens one", cx.key(Action::Open));
    let title = format!("used by {} features", card.features.len());
    rows.push(heading(theme, width, &title, &facts));
    let max = card.features.iter().map(|f| f.1.abs()).fold(0.0, f32::max);
    let cells = (width.saturating_sub(30) / 2).clamp(2, 8);
    for (id, weight, token) in &card.features {
        let style = if *weight >= 0.0 {
            theme.positive()
        } else {
            theme.negative()
        };
        let label = cx
            .world
            .row(*id)
            .and_then(|r| r.name.as_deref())
            .map_or_else(|| text::token(token), text::clean);
        let mut spans = vec![
            Span::raw(text::pad_left(&format!("#{id}"), 6)),
            Span::raw(" "),
        ];
        spans.extend(signed_bar(theme, *weight, max, cells));
        spans.push(Span::styled(format!(" {weight:+.2}"), style));
        spans.push(Span::raw(format!(
            "  {}",
            text::truncate(&label, width.saturating_sub(17 + 2 * cells))
        )));
        rows.push(Row {
            link: Some(Link::Feature(*id)),
            line: Line::from(spans),
        });
    }
    rows
}
