//! How the Start pane looks: the form with what it takes, recent studies, models on this machine.

use std::path::{Path, PathBuf};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Kind, StartPane};
use crate::engine::Estimate;
use crate::model::{HookPoint, HookSite};
use crate::study::StudyEntry;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::form::Fields;
use crate::ui::list::scroll;
use crate::ui::pane::Cx;

/// From this width on the lists stand beside the form.
const TWO_COLUMNS: u16 = 100;

/// A line of the pane, with what the cursor finds on it.
struct Row {
    item: Option<usize>,
    line: Line<'static>,
}

fn plain(line: impl Into<Line<'static>>) -> Row {
    Row {
        item: None,
        line: line.into(),
    }
}

impl StartPane {
    fn columns(cx: &Cx) -> Vec<Rect> {
        let area = cx.area;
        if area.width < TWO_COLUMNS {
            return vec![area];
        }
        let left = area.width * 11 / 20;
        vec![
            Rect {
                width: left - 2,
                ..area
            },
            Rect {
                x: area.x + left,
                width: area.width - left,
                ..area
            },
        ]
    }

    fn rows(&self, cx: &Cx) -> Vec<Vec<Row>> {
        let columns = Self::columns(cx);
        let left = usize::from(columns[0].width);
        let right = usize::from(columns[columns.len() - 1].width);
        let mut form = self.form(cx, left);
        form.push(plain(""));
        form.extend(self.estimate_rows(cx, left));
        let mut lists = self.studies(cx, right);
        lists.push(plain(""));
        lists.extend(self.models(cx, right));
        if columns.len() == 2 {
            return vec![form, lists];
        }
        form.push(plain(""));
        form.extend(lists);
        vec![form]
    }

    /// The first row of a column to show, so that the cursor is seen.
    fn offset(&self, rows: &[Row], height: usize) -> usize {
        rows.iter()
            .position(|r| r.item == Some(self.form.at()))
            .map_or(0, |at| scroll(0, at, rows.len(), height))
    }

    pub(super) fn item_at(&self, column: u16, row: u16, cx: &Cx) -> Option<usize> {
        let rows = self.rows(cx);
        let (area, rows) = Self::columns(cx)
            .into_iter()
            .zip(&rows)
            .find(|(area, _)| area.contains(ratatui::layout::Position::new(column, row)))?;
        let offset = self.offset(rows, usize::from(area.height));
        rows.get(offset + usize::from(row - area.y))?.item
    }

    pub(super) fn draw(&self, cx: &Cx, buf: &mut Buffer) {
        for (area, rows) in Self::columns(cx).into_iter().zip(self.rows(cx)) {
            let height = usize::from(area.height);
            let offset = self.offset(&rows, height);
            for (i, row) in rows.iter().skip(offset).take(height).enumerate() {
                let line = row.line.clone();
                match row.item == Some(self.form.at()) {
                    true => put_selected(buf, area, i, line, cx.theme, cx.focused),
                    false => put(buf, area, i, &line),
                }
            }
            let below = rows.len().saturating_sub(offset + height);
            if below > 0 && height > 0 {
                let more = format!(" ↓ {below} more ");
                let x = usize::from(area.width).saturating_sub(text::width(&more));
                put_at(
                    buf,
                    area,
                    x,
                    height - 1,
                    &Line::styled(more, cx.theme.accent()),
                );
            }
        }
    }

    fn marker(&self, item: usize, cx: &Cx) -> Span<'static> {
        Span::styled(
            if item == self.form.at() { "▌" } else { " " },
            cx.theme.accent(),
        )
    }

    fn form(&self, cx: &Cx, width: usize) -> Vec<Row> {
        let theme = cx.theme;
        // What the field under the cursor is stands beside the heading, so that it never moves a
        // line.
        let help = Kind::ALL.get(self.form.at()).map_or("", |kind| kind.help());
        let help = format!("   {}", text::truncate(help, width.saturating_sub(18)));
        let head = vec![
            Span::styled(" Open a model", theme.heading()),
            Span::styled(help, theme.dim()),
        ];
        let mut rows = vec![plain(Line::from(head))];
        let fields = self.form.values.fields(cx.world);
        for (i, (kind, field)) in Kind::ALL.into_iter().zip(fields).enumerate() {
            let is_current = i == self.form.at();
            let mut spans = vec![
                self.marker(i, cx),
                Span::styled(text::pad(&format!(" {}", field.name), 12), theme.dim()),
            ];
            let room = width.saturating_sub(14);
            match self.form.input() {
                Some(input) if is_current => spans.extend(input.line(theme, room).spans),
                _ => {
                    let steps = is_current && cx.focused && kind != Kind::Corpus;
                    let value = text::truncate(&field.shown, room.saturating_sub(4));
                    spans.push(Span::styled(
                        if steps { "‹ " } else { "  " },
                        theme.accent(),
                    ));
                    spans.push(Span::raw(value));
                    spans.push(Span::styled(
                        if steps { " ›" } else { "  " },
                        theme.accent(),
                    ));
                }
            }
            rows.push(Row {
                item: Some(i),
                line: Line::from(spans),
            });
        }
        if let Some(problem) = self.form.problem() {
            rows.push(plain(Line::styled(
                format!("  {}", text::truncate(problem, width.saturating_sub(2))),
                theme.error(),
            )));
        } else if self.form.input().is_some() {
            rows.push(plain(Line::styled(
                "  enter takes it, esc leaves it",
                theme.dim(),
            )));
        }
        rows
    }

    fn estimate_rows(&self, cx: &Cx, width: usize) -> Vec<Row> {
        let theme = cx.theme;
        let waiting = self.open_request.is_some() || self.estimate_due.is_some();
        let mut head = vec![Span::styled(" What it takes", theme.heading())];
        if matches!(&self.estimate, Some(Ok(e)) if e.refusal.is_none() || waiting) {
            head.push(Span::styled(
                format!("   {}", cx.key(Action::Run)),
                theme.accent(),
            ));
            head.push(Span::styled(" starts", theme.dim()));
        }
        let mut rows = vec![plain(Line::from(head))];
        match &self.estimate {
            None => rows.push(plain(Line::styled("  working it out…", theme.dim()))),
            Some(Err(problem)) if !waiting => {
                rows.extend(refusal_rows(problem, width, cx));
            }
            Some(Err(_)) => rows.push(plain(Line::styled("  working it out…", theme.dim()))),
            Some(Ok(estimate)) => {
                let value = if waiting { theme.dim() } else { theme.text() };
                for (name, text) in facts(estimate) {
                    rows.push(plain(Line::from(vec![
                        Span::styled(text::pad(&format!("  {name}"), 14), theme.dim()),
                        Span::styled(text::truncate(&text, width.saturating_sub(15)), value),
                    ])));
                }
                if let Some(reason) = estimate.refusal.as_ref().filter(|_| !waiting) {
                    rows.extend(refusal_rows(reason, width, cx));
                }
            }
        }
        rows
    }

    fn studies(&self, cx: &Cx, width: usize) -> Vec<Row> {
        let theme = cx.theme;
        let first = Kind::ALL.len();
        let studies = cx.world.studies.as_deref().unwrap_or_default();
        let current = self.form.at().checked_sub(first);
        // Where the one under the cursor lies.
        let place = current.and_then(|at| studies.get(at)).map(|s| {
            let place = text::clean(&s.dir.to_string_lossy());
            format!(
                "   {}",
                text::truncate_start(&place, width.saturating_sub(20))
            )
        });
        let mut rows = vec![plain(Line::from(vec![
            Span::styled(" Recent studies", theme.heading()),
            Span::styled(place.unwrap_or_default(), theme.dim()),
        ]))];
        match cx.world.studies.as_deref() {
            None => rows.push(plain(Line::styled("  looking…", theme.dim()))),
            Some([]) => rows.push(plain(Line::styled(
                "  none yet: the first run makes one",
                theme.dim(),
            ))),
            Some(studies) => {
                for (i, study) in studies.iter().enumerate() {
                    let item = first + i;
                    let mut spans = vec![self.marker(item, cx), Span::raw(" ")];
                    let name = study_name(study, studies);
                    spans.extend(study_spans(study, &name, width.saturating_sub(2), cx));
                    rows.push(Row {
                        item: Some(item),
                        line: Line::from(spans),
                    });
                }
            }
        }
        rows
    }

    fn models(&self, cx: &Cx, width: usize) -> Vec<Row> {
        let theme = cx.theme;
        let mut rows = vec![plain(Line::styled(
            " Models on this machine",
            theme.heading(),
        ))];
        let first = Kind::ALL.len() + cx.world.studies.as_ref().map_or(0, Vec::len);
        match cx.world.models.as_deref() {
            None => rows.push(plain(Line::styled("  looking…", theme.dim()))),
            Some([]) => rows.push(plain(Line::styled(
                "  none yet: the default model is fetched when needed",
                theme.dim(),
            ))),
            Some(models) => {
                for (i, model) in models.iter().enumerate() {
                    let item = first + i;
                    let detail = match &model.problem {
                        Some(problem) => text::clean(problem),
                        None => format!(
                            "{}  {}",
                            text::clean(&model.summary),
                            text::bytes(model.bytes)
                        ),
                    };
                    let style = if model.problem.is_some() {
                        theme.warning()
                    } else {
                        theme.dim()
                    };
                    let id = text::truncate_start(
                        &text::clean(&model.id),
                        (width / 2).max(24).min(width.saturating_sub(3)),
                    );
                    let room = width.saturating_sub(4 + text::width(&id));
                    rows.push(Row {
                        item: Some(item),
                        line: Line::from(vec![
                            self.marker(item, cx),
                            Span::raw(format!(" {id}  ")),
                            Span::styled(text::truncate(&detail, room), style),
                        ]),
                    });
                }
            }
        }
        rows
    }
}

/// Why it cannot be, in as many lines as that takes.
fn refusal_rows(reason: &str, width: usize, cx: &Cx) -> Vec<Row> {
    let lines = text::wrap(&text::clean(reason), width.saturating_sub(3)).into_iter();
    lines
        .map(|line| plain(Line::styled(format!("  {line}"), cx.theme.error())))
        .collect()
}

fn facts(e: &Estimate) -> Vec<(&'static str, String)> {
    let mut facts = vec![(
        "corpus",
        format!(
            "{} samples, about {} tokens",
            text::count(e.samples),
            text::count(e.tokens)
        ),
    )];
    // Until the model is here, its widths are not known.
    let (disk, memory) = (text::bytes(e.disk_free), text::bytes(e.memory_free));
    let factors = text::bytes(e.factor_bytes);
    facts.extend(match e.weight_bytes {
        0 => [
            ("disk", format!("known once the model is here; {disk} free")),
            (
                "memory",
                format!("{factors} factors and the model, of {memory} free"),
            ),
        ],
        weights => [
            (
                "disk",
                format!(
                    "{} in {} as computed, of {disk} free",
                    text::bytes(e.cache_bytes),
                    e.dtype.name()
                ),
            ),
            (
                "memory",
                format!(
                    "{} weights + {factors} factors of {memory} free",
                    text::bytes(weights)
                ),
            ),
        ],
    });
    if let Some(bytes) = e.gpu_bytes {
        facts.push(("GPU", format!("{} for the fit", text::bytes(bytes))));
    }
    if e.download_bytes > 0 {
        facts.push(("download", text::bytes(e.download_bytes)));
    }
    facts.push((
        "time",
        e.seconds.map_or_else(
            || "not known: nothing like it has been measured here".to_owned(),
            |s| format!("about {} to the first features", text::duration(s)),
        ),
    ));
    facts
}

/// A study by its model, or by its directory where another one is of the same model and corpus:
/// with as many of the directories above as tell it from the others.
fn study_name(study: &StudyEntry, all: &[StudyEntry]) -> String {
    let what = |s: &StudyEntry| (s.model.clone(), s.hooks.clone(), s.corpus.clone());
    let alike = all.iter().filter(|s| what(s) == what(study)).count();
    if alike == 1 {
        let model = study.model.rsplit('/').next().unwrap_or(&study.model);
        return text::clean(model);
    }
    let ending = |dir: &Path, parts: usize| -> PathBuf {
        let all: Vec<_> = dir.components().collect();
        all[all.len().saturating_sub(parts)..].iter().collect()
    };
    let parts = study.dir.components().count();
    let shortest = (1..=parts).map(|n| (n, ending(&study.dir, n)));
    let mut shortest = shortest.filter(|(n, own)| {
        let same = all.iter().filter(|s| ending(&s.dir, *n) == *own);
        same.count() == 1
    });
    let own = shortest
        .next()
        .map_or_else(|| study.dir.clone(), |(_, own)| own);
    text::clean(&own.to_string_lossy())
}

fn study_spans(study: &StudyEntry, name: &str, width: usize, cx: &Cx) -> Vec<Span<'static>> {
    // The usual hook goes without saying.
    let hook = |h: &HookPoint| match h.site {
        HookSite::MlpPost => format!("L{}", h.layer),
        site => format!("L{} {site}", h.layer),
    };
    let hooks: Vec<String> = study.hooks.iter().map(hook).collect();
    let head = text::truncate_start(name, width.min((width / 2).max(28)));
    let fits = if study.fits == 1 {
        "1 fit".to_owned()
    } else {
        format!("{} fits", study.fits)
    };
    let corpus = study.corpus.rsplit('/').next().unwrap_or(&study.corpus);
    let tail = format!(
        "  {} · {} · {} rows · {fits}",
        hooks.join(", "),
        text::clean(corpus),
        text::count(study.rows)
    );
    // What was cut short comes first: it is what the study waits for.
    let cut = match (&study.unfinished, &study.stopped) {
        (Some(state), _) => format!("  collected {} %", state.percent()),
        (None, Some(stopped)) => format!("  {}", text::clean(stopped)),
        (None, None) => String::new(),
    };
    let cut = text::truncate(&cut, width.saturating_sub(text::width(&head)));
    let room = width.saturating_sub(text::width(&head) + text::width(&cut));
    let tail = text::truncate(&tail, room);
    vec![
        Span::raw(head),
        Span::styled(cut, cx.theme.warning()),
        Span::styled(tail, cx.theme.dim()),
    ]
}

#[cfg(test)]
mod tests {
    use crate::engine::Event;
    use crate::ui::fake_engine::FakeEngine;
    use crate::ui::harness::Harness;
    use crate::ui::theme::Profile;

    #[test]
    fn studies_of_one_model_and_corpus_are_told_apart_by_their_directories() {
        let mut harness = Harness::opened(120, 36, Profile::Mono);
        let mut studies = FakeEngine::studies();
        let twin = crate::study::StudyEntry {
            dir: "/elsewhere/twin".into(),
            ..studies[0].clone()
        };
        studies.push(twin);
        harness.keys("6").event(Event::Studies(studies));
        let screen = harness.screen();
        assert!(
            screen.contains("twin  L15") && screen.contains("gemma-2-2b  L12"),
            "{screen}"
        );
        let mut studies = FakeEngine::studies();
        let name = studies[0].dir.file_name().unwrap().to_owned();
        let namesake = crate::study::StudyEntry {
            dir: std::path::Path::new("/elsewhere/twin").join(name),
            ..studies[0].clone()
        };
        studies.push(namesake);
        harness.event(Event::Studies(studies));
        let screen = harness.screen();
        assert!(screen.contains("twin/"), "{screen}");
    }
}
