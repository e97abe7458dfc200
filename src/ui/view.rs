//! The frame around the panes: header, tabs, progress, hints, toasts. Only reads the app.
//!
//! Invariant: draws at every size without panicking; the same app gives the same cells.

mod fit_state;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::action::{ACTIONS, Action};
use super::app::App;
use super::dialog;
use super::draw::{bar, clear, put, put_at};
use super::layout::{Class, Layout, PaneArea};
use super::world::RunningJob;
use crate::engine::{Job, Level};
use crate::text;
use fit_state::fit_state;

/// Hints in the footer at most.
const HINTS: usize = 6;

/// Draws the app into the whole of `buf`.
pub fn view(app: &App, buf: &mut Buffer) {
    draw(app, buf.area, buf);
    if app.theme.ascii {
        for cell in &mut buf.content {
            // A wide character's second cell is empty and stays so.
            let plain = text::ascii(cell.symbol()).to_owned();
            cell.set_symbol(&plain);
        }
    }
}

fn draw(app: &App, screen: Rect, buf: &mut Buffer) {
    if screen.is_empty() {
        return;
    }
    let layout = app.layout();
    if layout.class == Class::Tiny {
        return too_small(app, screen, buf);
    }
    header(app, layout.header, buf);
    tabs(app, layout.tabs, buf);
    for (i, line) in app.notice().iter().enumerate() {
        put(
            buf,
            layout.notice,
            i,
            &Line::styled(line.clone(), app.theme.warning()),
        );
    }
    for placed in &layout.panes {
        pane(app, placed, &layout, buf);
    }
    typed_line(app, &layout, buf);
    progress(app, layout.progress, buf);
    footer(app, layout.footer, buf);
    if let Some(dialog) = &app.dialog {
        app.with_dialog_cx(|cx| dialog::draw(dialog.as_ref(), cx, buf));
    }
    toasts(app, &layout, screen, buf);
}

fn too_small(app: &App, screen: Rect, buf: &mut Buffer) {
    let lines = match app.world.jobs.last() {
        Some(job) => vec![
            "too small: 30×8".to_owned(),
            job.job.label().to_owned() + &done_share(job),
        ],
        None => vec!["too small: 30×8".to_owned()],
    };
    for (i, line) in lines.iter().enumerate() {
        put(
            buf,
            screen,
            i,
            &Line::raw(text::truncate(line, usize::from(screen.width))),
        );
    }
}

fn done_share(job: &RunningJob) -> String {
    match job.progress.total {
        Some(total) if total > 0 => format!(" {}%", (job.progress.done.min(total) * 100) / total),
        _ => String::new(),
    }
}

/// The facts of the header, the most telling first.
fn facts(app: &App) -> Vec<(String, Style)> {
    let (world, theme) = (&app.world, &app.theme);
    let mut facts = Vec::new();
    let short = |id: &str| text::clean(id.rsplit('/').next().unwrap_or(id));
    match (
        &world.model,
        world.study.as_ref().and_then(|s| s.model.as_ref()),
    ) {
        (Some(model), _) => {
            let how = format!(
                "{} ({}, {})",
                short(&model.id),
                text::clean(&model.device),
                model.weights_dtype
            );
            facts.push((how, theme.text()));
        }
        (None, Some(id)) if world.no_model.is_some() => {
            facts.push((format!("{} (not found)", short(id)), theme.warning()));
        }
        (None, Some(id)) => facts.push((format!("{} (not open yet)", short(id)), theme.text())),
        (None, None) => {}
    }
    if let Some(study) = &world.study {
        if let Some(why) = &study.read_only {
            facts.push((format!("read-only: {}", text::clean(why)), theme.warning()));
        }
        facts.push((study.hook.to_string(), theme.text()));
        let corpus = study.corpus.rsplit('/').next().unwrap_or(&study.corpus);
        facts.push((text::clean(corpus), theme.dim()));
        if let (Some(state), None) = (&study.unfinished, world.job(Job::Collect)) {
            facts.push((format!("collected {} %", state.percent()), theme.warning()));
        } else if study.rows > 0 {
            facts.push((format!("{} tokens", text::count(study.rows)), theme.dim()));
        }
    } else if let (Some(opening), false) = (world.opening_facts(), facts.is_empty()) {
        facts.extend(opening.map(|fact| (fact, theme.dim())));
    } else if facts.is_empty() {
        facts.push((
            "what the MLP layers of a language model are made of".to_owned(),
            theme.dim(),
        ));
    }
    facts
}

fn header(app: &App, area: Rect, buf: &mut Buffer) {
    let mut spans = vec![
        Span::styled(" mlpeek", app.theme.title(true)),
        Span::raw("  "),
    ];
    let mut room = usize::from(area.width).saturating_sub(9);
    for (i, (fact, style)) in facts(app).into_iter().enumerate() {
        if i > 0 && room < 8 {
            break;
        }
        let separator = if i > 0 { " · " } else { "" };
        let fact = text::truncate(&fact, room.saturating_sub(separator.len()));
        room = room.saturating_sub(text::width(&fact) + text::width(separator));
        spans.push(Span::styled(separator, app.theme.dim()));
        spans.push(Span::styled(fact, style));
    }
    put(buf, area, 0, &Line::from(spans));
}

fn tabs(app: &App, area: Rect, buf: &mut Buffer) {
    let current = app.focus().tab();
    let mut spans = vec![Span::raw(" ")];
    for (tab, ..) in app.tab_spans() {
        let label = app.tab_text(tab);
        if tab == current {
            spans.push(Span::styled(
                label,
                app.theme
                    .title(true)
                    .add_modifier(ratatui::style::Modifier::UNDERLINED),
            ));
        } else {
            spans.push(Span::styled(label, app.theme.dim()));
        }
        spans.push(Span::raw(" ".repeat(usize::from(app.tab_gap()))));
    }
    let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
    put(buf, area, 0, &Line::from(spans));
    let (state, style) = fit_state(app);
    // Narrow terminals drop the sweep and then the error, whole words only.
    let mut words: Vec<&str> = state.trim_end().split(" · ").collect();
    while !words.is_empty() {
        let shown = format!("{} ", words.join(" · "));
        let width = text::width(&shown);
        if used + width <= usize::from(area.width) {
            let x = usize::from(area.width) - width;
            return put_at(buf, area, x, 0, &Line::styled(shown, style));
        }
        words.remove(words.len().min(2) - 1);
    }
}

fn pane(app: &App, placed: &PaneArea, layout: &Layout, buf: &mut Buffer) {
    let pane = app.pane(placed.pane);
    let cx = app.cx(placed.pane);
    let theme = &app.theme;
    let focused = app.focus() == placed.pane;
    let width = usize::from(placed.title.width);
    let mut title = pane.title(&cx);
    title = title.patch_style(theme.title(focused));
    if placed.rule.is_some() || layout.class != Class::Single {
        let corner = if placed.rule.is_some() {
            "┬─ "
        } else {
            "── "
        };
        let mut spans = vec![Span::styled(corner, theme.rule(false))];
        spans.extend(title.spans);
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        spans.push(Span::styled(
            format!(" {}", "─".repeat(width.saturating_sub(used + 1))),
            theme.rule(false),
        ));
        for span in &mut spans {
            if span.style == Style::new() {
                span.style = theme.title(focused);
            }
        }
        put(
            buf,
            placed.title,
            0,
            &Line::from(spans).patch_style(Style::new()),
        );
    } else {
        put(buf, placed.title, 0, &title);
    }
    if let Some(rule) = placed.rule {
        for y in 0..usize::from(rule.height) {
            put(buf, rule, y, &Line::styled("│", theme.rule(false)));
        }
    }
    if !placed.inner.intersection(buf.area).is_empty() {
        pane.view(&cx, buf);
    }
}

/// What is typed in a pane that shares the width with others, over all of them.
fn typed_line(app: &App, layout: &Layout, buf: &mut Buffer) {
    let Some(placed) = layout.pane(app.focus()) else {
        return;
    };
    let whole = layout
        .panes
        .iter()
        .map(|p| p.inner)
        .reduce(Rect::union)
        .unwrap_or_default();
    if whole.width == placed.inner.width || placed.inner.is_empty() {
        return;
    }
    if let Some(line) = app
        .pane(app.focus())
        .typed_line(&app.cx(app.focus()), usize::from(whole.width))
    {
        let row = Rect {
            y: placed.inner.bottom() - 1,
            height: 1,
            ..whole
        };
        put(buf, row, 0, &Line::raw(" ".repeat(usize::from(row.width))));
        put(buf, row, 0, &line);
    }
}

fn progress(app: &App, area: Rect, buf: &mut Buffer) {
    let Some(job) = app.world.jobs.last() else {
        return;
    };
    let theme = &app.theme;
    let p = &job.progress;
    let width = usize::from(area.width);
    let (is_bytes, is_share) = (p.unit == "bytes", p.unit == "%");
    let amount = |n: u64| {
        if is_bytes {
            text::bytes(n)
        } else {
            text::count(n as usize)
        }
    };
    let mut facts = Vec::new();
    match p.total {
        Some(total) if is_share => facts.push(format!("{}%", p.done.min(total))),
        Some(total) => facts.push(format!("{}/{}", amount(p.done.min(total)), amount(total))),
        None if p.done > 0 => facts.push(amount(p.done)),
        None => {}
    }
    if let (Some(last), false) = (facts.last_mut(), is_bytes || is_share || p.unit.is_empty()) {
        last.push_str(&format!(" {}", p.unit));
    }
    if let Some(rate) = job.rate.filter(|r| r.is_finite() && !is_share) {
        facts.push(if is_bytes {
            format!("{}/s", text::bytes(rate as u64))
        } else {
            format!("{}/s", text::number(rate))
        });
    }
    if app.world.paused && job.job == Job::Fit {
        facts.push(format!("held: {} goes on", app.keymap.key(Action::Pause)));
    } else if let Some(eta) = job.eta.filter(|e| e.is_finite()) {
        facts.push(format!("{} left", text::duration(eta)));
    }
    if app.world.jobs.len() > 1 {
        facts.push(format!("+{} more", app.world.jobs.len() - 1));
    }
    let stage = if p.stage.is_empty() {
        job.job.label().to_owned()
    } else {
        text::clean(&p.stage)
    };
    let end = if job.cancelling {
        "stopping…".to_owned()
    } else {
        format!("{} cancels", app.keymap.key(Action::Cancel))
    };
    let stage = text::truncate(&stage, (width / 3).max(12));
    let fixed = |facts: &[String]| {
        7 + text::width(&stage) + text::width(&facts.join(" · ")) + text::width(&end)
    };
    // Narrow terminals drop the rate first, then what is least.
    while facts.len() > 1 && fixed(&facts) > width {
        facts.remove(1);
    }
    let fixed = fixed(&facts);
    let facts = facts.join(" · ");
    let cells = width.saturating_sub(fixed).min(30);
    let mut spans = vec![
        Span::raw(" "),
        Span::styled(stage, theme.heading()),
        Span::raw(" "),
    ];
    if let Some(total) = p.total.filter(|t| *t > 0 && cells >= 4) {
        let share = (p.done.min(total) as f64 / total as f64) as f32;
        spans.push(Span::styled("▕", theme.dim()));
        spans.push(Span::styled(bar(share, 1.0, cells - 2), theme.bar()));
        spans.push(Span::styled("▏", theme.dim()));
    }
    spans.push(Span::raw(format!(" {facts}  ")));
    spans.push(Span::styled(end, theme.dim()));
    put(buf, area, 0, &Line::from(spans));
}

/// The most useful keys of the focused pane that work now.
fn hints(app: &App) -> Vec<(String, String)> {
    if app.is_closing() {
        return vec![(String::new(), "saving…".to_owned())];
    }
    let focus = app.focus();
    let pane = app.pane(focus);
    if pane.typing() {
        return pane
            .typing_hints()
            .iter()
            .map(|(k, h)| ((*k).to_owned(), (*h).to_owned()))
            .collect();
    }
    let mut live: Vec<_> = ACTIONS
        .iter()
        .filter(|info| info.rank > 0 && info.lives_in(focus) && app.refusal(info.action).is_none())
        .collect();
    live.sort_by_key(|info| info.rank);
    let mut hints: Vec<(String, String)> = live
        .iter()
        .take(HINTS)
        .map(|info| (app.keymap.key(info.action), info.hint.to_owned()))
        .collect();
    hints.push((app.keymap.key(Action::Help), "more".to_owned()));
    hints
}

fn footer(app: &App, area: Rect, buf: &mut Buffer) {
    let all = hints(app);
    let width = usize::from(area.width);
    let cells = |(key, hint): &(String, String)| text::width(key) + text::width(hint) + 4;
    // The last ("more") always stays.
    let mut kept = all.clone();
    while kept.len() > 1 && kept.iter().map(cells).sum::<usize>() > width {
        kept.remove(kept.len() - 2);
    }
    let mut spans = vec![Span::raw(" ")];
    for (key, hint) in kept {
        spans.push(Span::styled(key, app.theme.accent()));
        spans.push(Span::styled(format!(" {hint}   "), app.theme.dim()));
    }
    put(buf, area, 0, &Line::from(spans));
}

fn toasts(app: &App, layout: &Layout, screen: Rect, buf: &mut Buffer) {
    // The last row of a pane may be a line that is typed on.
    let bottom = layout.footer.y.saturating_sub(layout.progress.height + 1);
    let width = usize::from(screen.width).min(72);
    let mut y = usize::from(bottom);
    for toast in app.toasts.iter().rev() {
        let style = match toast.level {
            Level::Info => app.theme.good(),
            Level::Warn => app.theme.warning(),
            Level::Error => app.theme.error(),
        };
        let lines = text::wrap(&text::clean(&toast.text), width.saturating_sub(4));
        let shown = lines.len().min(3);
        let cells = lines
            .iter()
            .take(shown)
            .map(|l| text::width(l))
            .max()
            .unwrap_or(0)
            + 3;
        if y < shown + 1 {
            return;
        }
        y -= shown;
        let x = usize::from(screen.width).saturating_sub(cells + 1);
        let area = Rect::new(x as u16, y as u16, cells as u16, shown as u16);
        // The colours of what lies beneath would show through: a heat map has them.
        clear(buf, area.intersection(screen));
        for (i, line) in lines.iter().take(shown).enumerate() {
            let line = if i + 1 == shown && lines.len() > shown {
                format!("{line}…")
            } else {
                line.clone()
            };
            let whole = text::pad(&format!("▌ {line}"), cells);
            put_at(buf, screen, x, y + i, &Line::styled(whole, style));
        }
    }
}

#[cfg(test)]
mod tests;
