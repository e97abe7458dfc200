//! The training of an autoencoder in the Fit pane: how it stands in words, and its curve.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::curve;
use super::view::facts_line;
use crate::engine::{Job, TrainPoint};
use crate::study::SaeEntry;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::put;
use crate::ui::pane::Cx;

/// Why `what`, a training or a sweep over k, cannot begin now: either takes all rows and all cores.
pub(super) fn refusal(what: &str, cx: &Cx) -> Option<String> {
    let (world, cancel) = (cx.world, cx.key(Action::Cancel));
    match () {
        () if world.study.is_none() => Some(format!(
            "no study is open: {} opens one",
            cx.key(Action::Start)
        )),
        () if world.job(Job::Collect).is_some() => {
            Some(format!("collecting goes on: {what} needs all rows"))
        }
        () if world.fitting() => Some(format!("a fit is running: {cancel} cancels it")),
        () if world.job(Job::Train).is_some() => Some(format!(
            "one is being trained: {cancel} stops it, and what it learnt is kept"
        )),
        () if world.job(Job::Sweep).is_some() => Some(format!(
            "a sweep over k is under way: {cancel} stops it, and its rows stay on show"
        )),
        () => None,
    }
}

/// Where the training stands, what it was asked for, what can be done.
pub(super) fn summary(
    entry: &SaeEntry,
    points: &[TrainPoint],
    width: usize,
    cx: &Cx,
) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let job = cx.world.job(Job::Train);
    let epochs = entry.trained.as_ref().map_or(0, |config| config.epochs);
    let mut facts = Vec::new();
    if let Some(last) = points.last() {
        let share = last.dead as f32 / entry.latents.max(1) as f32;
        facts.push(("pass", format!("{} of {epochs}", last.epoch)));
        facts.push(("FVU", format!("{:.4}", last.fvu)));
        facts.push(("dead", text::percent(share)));
    }
    match (job, points.last()) {
        (Some(job), _) => {
            facts.extend(job.rate.map(|r| {
                (
                    "rate",
                    format!("{} {}/s", text::number(r), text::clean(&job.progress.unit)),
                )
            }));
            facts.extend(job.eta.map(|eta| ("left", text::duration(eta))));
        }
        (None, Some(last)) => facts.push(("took", text::duration(last.seconds))),
        (None, None) => {}
    }
    let first = facts_line(facts, width, theme);
    let active = entry.trained.as_ref().map_or(0, |config| config.top_k);
    let latents = text::count(entry.latents);
    let how = format!(
        " autoencoder {} · {latents} latents, {active} active · {}",
        text::clean(&entry.name),
        entry.hook
    );
    let key = |a| Span::styled(cx.key(a), theme.accent());
    let hint = |t: &'static str| Span::styled(t, theme.dim());
    let done = points.last().is_some_and(|p| p.step >= p.total);
    let next = match (job.is_some(), done) {
        (true, _) => vec![
            Span::raw(" "),
            key(Action::Cancel),
            hint(" stops, what is learnt is kept"),
        ],
        (false, true) => {
            vec![
                Span::raw(" "),
                key(Action::Sets),
                hint(" lists its latents   "),
                key(Action::Train),
                hint(" trains another"),
            ]
        }
        (false, false) => vec![
            Span::raw(" "),
            key(Action::Train),
            hint(" goes on where it was stopped"),
        ],
    };
    vec![
        Line::from(first),
        Line::styled(text::truncate(&how, width), theme.dim()),
        Line::from(next),
    ]
}

/// The curve of the fraction of variance unexplained (FVU), by passes over the rows.
pub(super) fn curve(area: Rect, cx: &Cx, buf: &mut Buffer) {
    let Some((entry, points)) = &cx.world.training else {
        return;
    };
    if points.is_empty() {
        return put(
            buf,
            area,
            1,
            &Line::styled(" the curve appears with the first pass", cx.theme.dim()),
        );
    }
    let epochs = entry.trained.as_ref().map_or(1, |config| config.epochs);
    curve::training(points, epochs, cx, area, buf);
}
