//! The form of an evaluation on the screen: what its keys do, and how it looks.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};

use super::values::Values;
use crate::engine::{Command, Pace, SavedEvaluation};
use crate::jobs::causal::CausalRequest;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::form::{Field, Fields, Form};
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Step};

/// Lines over the fields, and under them.
const ABOVE: usize = 2;
const BELOW: usize = 3;

/// The form of an evaluation.
#[derive(Debug, Default)]
pub(super) struct EvaluationForm {
    form: Form<Values>,
    /// How fast texts are written here, as it was measured last.
    pace: Option<Pace>,
}

impl EvaluationForm {
    /// The request, or why there is none.
    pub fn request(&self, cx: &Cx) -> Result<CausalRequest, String> {
        self.form.values.request(cx.world)
    }

    /// Asks how fast texts are written, where that is not known yet.
    pub fn measure_pace(&self, cx: &Cx) -> Vec<Step> {
        let config = self.form.values.config();
        match self.pace {
            None => vec![Step::Send(Command::Pace(Box::new(config.clone())))],
            Some(_) => Vec::new(),
        }
        .into_iter()
        .filter(|_| cx.world.features.is_some())
        .collect()
    }

    pub fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace.or(self.pace);
    }

    /// What the request will take: texts, and how long that is here.
    fn outlook(&self, cx: &Cx) -> String {
        let values = &self.form.values;
        let (texts, directions) = (values.texts(cx.world), values.directions(cx.world));
        let how_long = match self.pace {
            Some(pace) => {
                let seconds = pace.seconds(values.config(), directions, texts);
                format!("about {} as measured here", text::duration(seconds))
            }
            None => "its time is told once a text was written".to_owned(),
        };
        let what = match texts {
            0 => format!("{} directions, no texts", text::count(directions)),
            _ => format!("at most {} texts", text::count(texts)),
        };
        format!(
            "{} begins: {what}, {how_long}; stopped, it goes on",
            cx.key(Action::Run)
        )
    }

    pub fn typing(&self) -> bool {
        self.form.input().is_some()
    }

    /// Takes a key while a value is typed; false hands it on.
    pub fn key(&mut self, key: KeyEvent, cx: &Cx) -> bool {
        match key.code {
            KeyCode::Esc => self.form.leave(),
            KeyCode::Enter | KeyCode::Tab => self.form.commit(cx.world),
            _ => return self.form.key(key),
        }
        true
    }

    pub fn paste(&mut self, text: &str) {
        self.form.paste(text);
    }

    /// Moves the cursor, or changes the value under it; `None` for other actions.
    pub fn act(&mut self, action: Action, cx: &Cx) -> Option<()> {
        let (at, count) = (self.form.at(), self.form.count(cx.world));
        match action {
            Action::Left | Action::Right => self.form.step(action == Action::Right, cx.world),
            Action::Edit => {
                if !self.form.edit(cx.world) {
                    self.form.step(true, cx.world);
                }
            }
            _ => self.form.go(motion(action, at, count, rows(cx))?),
        }
        Some(())
    }

    pub fn click(&mut self, row: u16, double: bool, cx: &Cx) {
        let fields = self.form.count(cx.world);
        let Some(line) = usize::from(row.saturating_sub(cx.area.y)).checked_sub(ABOVE) else {
            return;
        };
        let at = scroll(0, self.form.at(), fields, rows(cx)) + line;
        if line < rows(cx) && at < fields && self.form.input().is_none() {
            self.form.go(at);
            if double {
                self.act(Action::Edit, cx);
            }
        }
    }

    /// The form, over what the study keeps of earlier evaluations.
    pub fn view(&self, saved: &[SavedEvaluation], cx: &Cx, buf: &mut Buffer) {
        let (theme, area, width) = (cx.theme, cx.area, usize::from(cx.area.width));
        let line = |t: &str, style| Line::styled(text::truncate(t, width.saturating_sub(2)), style);
        put_at(
            buf,
            area,
            1,
            0,
            &line(
                "Do features make the model speak of what they stand for?",
                theme.text(),
            ),
        );
        let fields = self.form.values.fields(cx.world);
        let names = fields
            .iter()
            .map(|field| text::width(&field.name))
            .max()
            .unwrap_or(0)
            .clamp(10, (width / 3).max(10));
        let offset = scroll(0, self.form.at(), fields.len(), rows(cx));
        for (y, (i, field)) in fields
            .iter()
            .enumerate()
            .skip(offset)
            .take(rows(cx))
            .enumerate()
        {
            let is_current = i == self.form.at();
            let line = Line::from(self.row(field, is_current, names, cx));
            match is_current {
                true => put_selected(buf, area, ABOVE + y, line, theme, cx.focused),
                false => put(buf, area, ABOVE + y, &line),
            }
        }
        let shown = fields.len().saturating_sub(offset).min(rows(cx));
        // A line between where there is room for one.
        let under = ABOVE + shown + usize::from(rows(cx) > shown);
        let below = match (self.form.problem(), fields.get(self.form.at())) {
            (Some(problem), _) => line(&text::clean(problem), theme.warning()),
            (None, field) => line(field.map_or("", |field| &field.help), theme.dim()),
        };
        put_at(buf, area, 1, under, &below);
        let (outlook, style) = match self.request(cx) {
            Ok(_) => (self.outlook(cx), theme.text()),
            Err(problem) => (problem, theme.warning()),
        };
        let wrapped = text::wrap(&outlook, width.saturating_sub(2));
        for (i, part) in wrapped.iter().take(2).enumerate() {
            put_at(buf, area, 1, under + 1 + i, &line(part, style));
        }
        let kept = saved_lines(saved, cx);
        let free = usize::from(area.height).saturating_sub(under + 4);
        for (i, kept) in kept.iter().take(free).enumerate() {
            let style = if i == 0 { theme.heading() } else { theme.dim() };
            put_at(buf, area, 1, under + 4 + i, &line(kept, style));
        }
    }

    /// The name of a field and its value, `names` cells being kept for the name.
    fn row(&self, field: &Field, is_current: bool, names: usize, cx: &Cx) -> Vec<Span<'static>> {
        let theme = cx.theme;
        let style = |style| if field.off { theme.dim() } else { style };
        let mut spans = vec![
            Span::styled(if is_current { "▌" } else { " " }, theme.accent()),
            Span::styled(text::pad(&field.name, names), style(theme.name())),
            Span::raw(" "),
        ];
        let room = usize::from(cx.area.width).saturating_sub(names + 6);
        if let (Some(input), true) = (self.form.input(), is_current) {
            spans.extend(input.line(theme, room).spans);
            return spans;
        }
        let (left, right) = if is_current && cx.focused {
            ("‹", "›")
        } else {
            (" ", " ")
        };
        let shown = text::truncate(&field.shown, room);
        spans.push(Span::styled(left, theme.accent()));
        spans.push(Span::styled(shown, style(theme.text())));
        spans.push(Span::styled(right, theme.accent()));
        spans
    }
}

/// The evaluations of the study, under a heading that says how they are opened.
fn saved_lines(saved: &[SavedEvaluation], cx: &Cx) -> Vec<String> {
    if saved.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "Kept in this study: {} opens the newest",
        cx.key(Action::PreviousRun)
    )];
    lines.extend(saved.iter().map(|e| {
        let targets: Vec<String> = e.targets.iter().map(f64::to_string).collect();
        let texts = match e.texts {
            (_, 0) => "no texts".to_owned(),
            (there, all) => format!("{} of {} texts", text::count(there), text::count(all)),
        };
        let methods = text::clean(&e.methods.join(", "));
        format!(
            "{} labels · KL {} · {texts} · {methods}",
            e.labels,
            targets.join(", ")
        )
    }));
    lines
}

/// How many rows there are for fields.
fn rows(cx: &Cx) -> usize {
    usize::from(cx.area.height)
        .saturating_sub(ABOVE + BELOW)
        .max(1)
}
