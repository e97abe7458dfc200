//! The fit: its error curve, its rate, and the next one. Owns what the next fit is asked for.
//!
//! Invariant: nothing is fitted without an action of the user here.

mod curve;
mod fits;
mod points;
mod sweep;
#[cfg(test)]
mod tests;
mod training;
mod view;

use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::analysis::matching::FitComparison;
use crate::engine::{Command, Event, Job, Level, Reply, Request, RequestId};
use crate::factor::FitConfig;
use crate::jobs::fitting::Refinement;
use crate::study::{FitEntry, newest};
use crate::text;
use crate::ui::action::Action;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use view::parts;

/// Numbers of features to step through.
const FEATURE_COUNTS: [usize; 12] = [10, 25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200];

/// The fit that runs, the list of fits and the next number of features.
#[derive(Debug, Default)]
pub struct FitPane {
    /// Features of the next fit; `None` until the user chose.
    next: Option<usize>,
    /// The settings of the running fit.
    running_config: Option<FitConfig>,
    /// The cursor in the list of fits.
    cursor: usize,
    plot: Plot,
    compared: Option<FitComparison>,
    /// The request for a comparison that is not answered yet.
    comparing: Option<RequestId>,
    /// Lines of the comparison scrolled off.
    scrolled: usize,
}

/// What the middle of the pane shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Plot {
    /// The error of each sweep.
    #[default]
    Curve,
    /// The error of each fit against its number of features.
    AgainstK,
    /// Two fits side by side.
    Compared,
    /// What a training leaves unexplained.
    Training,
    /// A sweep over the number of features.
    Sweep,
}

impl FitPane {
    /// The configuration that the next fit starts from: that of the fit on show, else of the
    /// newest.
    fn base(&self, cx: &Cx) -> FitConfig {
        let fits = cx.world.study.as_ref().map_or(&[][..], |s| &s.fits);
        let shown = cx
            .world
            .fit_name()
            .and_then(|name| fits.iter().find(|f| f.name == name));
        let saved = shown
            .or(newest(fits, |_| true))
            .or(fits.last())
            .map(|f| f.config.clone());
        self.running_config.clone().or(saved).unwrap_or_default()
    }

    fn next_count(&self, cx: &Cx) -> usize {
        self.next.unwrap_or_else(|| self.base(cx).features)
    }

    fn change_count(&mut self, more: bool, cx: &Cx) {
        let now = self.next_count(cx);
        let found = if more {
            FEATURE_COUNTS.iter().find(|c| **c > now)
        } else {
            FEATURE_COUNTS.iter().rev().find(|c| **c < now)
        };
        self.next = found.copied().or(Some(now));
    }

    fn refit(&mut self, cx: &Cx) -> Vec<Step> {
        let config = FitConfig {
            features: self.next_count(cx),
            ..self.base(cx)
        };
        self.running_config = Some(config.clone());
        let text = format!("fitting {} features", config.features);
        vec![
            Step::Send(Command::Fit(config)),
            Step::Notify(Level::Info, text),
        ]
    }

    /// The fit under the cursor where it was stopped, the number of features is not changed and
    /// none is to stay as it is.
    fn resumable_fit<'a>(&self, cx: &Cx<'a>) -> Option<&'a FitEntry> {
        let fit = *fits::listed(cx).get(self.cursor)?;
        let same = self.next.is_none_or(|k| k == fit.config.features) && cx.world.marked.is_empty();
        let meant = cx.world.features.is_none() || fits::is_shown(fit, cx);
        Some(fit).filter(|fit| !fit.is_finished() && same && (meant || !fit.has_factors()))
    }

    /// Features are added to those on show where rows are explained worst, or those most alike are
    /// merged.
    fn go_on(&mut self, cx: &Cx) -> Option<Vec<Step>> {
        if let Some(fit) = self.resumable_fit(cx) {
            let text = format!(
                "{} goes on from where it was stopped",
                text::clean(&fit.name)
            );
            return Some(vec![
                Step::Send(Command::GoOn(fit.name.clone())),
                Step::Notify(Level::Info, text),
            ]);
        }
        let shown = cx.world.features.as_ref()?;
        let (now, wanted, lock) = (
            shown.rows.len(),
            self.next_count(cx),
            cx.world.marked.clone(),
        );
        let mut text = format!(
            "going on from {} with {wanted} features",
            text::clean(&shown.fit)
        );
        if !lock.is_empty() {
            text += &format!(", {} marked as they are", lock.len());
        }
        self.running_config = Some(FitConfig {
            features: wanted,
            ..self.base(cx)
        });
        let (add, merge) = (wanted.saturating_sub(now), now.saturating_sub(wanted));
        let refinement = Refinement {
            fit: Some(shown.fit.clone()),
            add,
            merge,
            lock,
        };
        Some(vec![
            Step::Send(Command::Refine(refinement)),
            Step::Notify(Level::Info, text),
        ])
    }

    /// The next or former of what the middle can show.
    fn step_plot(&mut self, forward: bool, cx: &Cx) {
        let mut all = vec![Plot::Curve, Plot::AgainstK];
        all.extend(self.compared.as_ref().map(|_| Plot::Compared));
        all.extend(cx.world.training.as_ref().map(|_| Plot::Training));
        all.extend(cx.world.k_sweep.as_ref().map(|_| Plot::Sweep));
        let at = all.iter().position(|p| *p == self.plot).unwrap_or(0);
        self.plot = all[(at + if forward { 1 } else { all.len() - 1 }) % all.len()];
    }

    /// Up and down in the list; a screen at a time in a comparison.
    fn move_by(&mut self, action: Action, cx: &Cx) -> Option<()> {
        let all = fits::listed(cx);
        if let (Plot::Compared, Some(found), Action::PageUp | Action::PageDown) =
            (self.plot, &self.compared, action)
        {
            let middle = parts(self.plot, all.len(), cx.area).middle;
            let lines = fits::compared_lines(found, usize::from(middle.width), cx).len();
            let last = (lines + 1).saturating_sub(usize::from(middle.height));
            self.scrolled = motion(
                action,
                self.scrolled.min(last),
                last,
                usize::from(middle.height),
            )?;
            return Some(());
        }
        self.cursor = motion(
            action,
            self.cursor,
            all.len(),
            usize::from(cx.area.height) / 3,
        )?;
        Some(())
    }
}

impl Pane for FitPane {
    fn id(&self) -> PaneId {
        PaneId::Fit
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        match (self.plot, &cx.world.training) {
            (Plot::Training, Some((entry, _))) => {
                return Line::raw(format!("Autoencoder {}", text::clean(&entry.name)));
            }
            (Plot::Sweep, _) => return Line::raw("Sweep over the number of features"),
            _ => {}
        }
        let name = cx
            .world
            .fit_in_hand()
            .map(text::clean)
            .filter(|n| !n.is_empty());
        Line::raw(name.map_or_else(|| "Fit".to_owned(), |n| format!("Fit {n}")))
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        let mine = [
            Action::Refit,
            Action::GoOn,
            Action::More,
            Action::Fewer,
            Action::ShowFit,
            Action::CompareFit,
        ];
        match action {
            Action::Train => return training::refusal("a training", cx),
            Action::SweepK => return training::refusal("a sweep", cx),
            _ => {}
        }
        if !mine.contains(&action) {
            return None;
        }
        match (&cx.world.study, action) {
            (None, _) => Some(format!(
                "no study is open: {} opens one",
                cx.key(Action::Start)
            )),
            (Some(_), Action::Refit | Action::GoOn) if cx.world.fitting() => Some(format!(
                "a fit is running: {} cancels it",
                cx.key(Action::Cancel)
            )),
            (Some(_), Action::Refit | Action::GoOn) if cx.world.job(Job::Collect).is_some() => {
                Some("collecting goes on: a fit needs all rows".to_owned())
            }
            (Some(_), Action::GoOn | Action::CompareFit) if cx.world.set().is_some() => Some(
                "a set of directions is on show, no fit: enter shows the fit under the cursor"
                    .to_owned(),
            ),
            (Some(_), Action::GoOn) if self.resumable_fit(cx).is_some() => None,
            (Some(_), Action::GoOn) if cx.world.features.is_none() => {
                Some("there is no fit on show to go on from".to_owned())
            }
            (Some(_), Action::ShowFit | Action::CompareFit) if cx.world.fitting() => {
                Some("a fit is running: it is what is shown".to_owned())
            }
            (Some(_), Action::ShowFit | Action::CompareFit) => {
                match fits::listed(cx).get(self.cursor) {
                    None => Some("this layer has no fit yet".to_owned()),
                    Some(fit) if fits::is_shown(fit, cx) && action == Action::ShowFit => {
                        Some("it is on show; down goes to another".to_owned())
                    }
                    Some(fit) if fits::is_shown(fit, cx) => Some(
                        "it is the one on show: put the cursor on another to compare".to_owned(),
                    ),
                    Some(fit) if !fit.has_factors() => Some(format!(
                        "it has no features yet, it was {}: {} goes on",
                        fit.status(),
                        cx.key(Action::GoOn)
                    )),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::More => self.change_count(true, cx),
            Action::Fewer => self.change_count(false, cx),
            Action::Refit => return Some(self.refit(cx)),
            Action::GoOn => return self.go_on(cx),
            Action::Left | Action::Right => self.step_plot(action == Action::Right, cx),
            Action::Back if self.plot != Plot::Curve => self.plot = Plot::Curve,
            Action::ShowFit => {
                let fit = fits::listed(cx).get(self.cursor).map(|f| f.name.clone())?;
                return Some(vec![Step::Send(Command::ShowFit(fit))]);
            }
            Action::CompareFit => {
                let fit = fits::listed(cx).get(self.cursor).map(|f| f.name.clone())?;
                let shown = cx.world.features.as_ref().map(|list| list.fit.clone())?;
                let request = cx.request(Command::CompareFits(shown, fit));
                self.comparing = Some(request.id);
                return Some(vec![Step::Request(request)]);
            }
            Action::Copy if self.plot == Plot::Sweep => {
                let (begun, rows) = cx.world.k_sweep.as_ref()?;
                return Some(vec![Step::CopyAs(Box::new(sweep::copy_formats(
                    begun, rows, cx,
                )))]);
            }
            Action::Copy => {
                let lines: Vec<String> = cx
                    .world
                    .sweeps
                    .iter()
                    .map(|p| format!("{}\t{}\t{:.3}", p.sweep, p.relative_error, p.seconds))
                    .collect();
                return Some(vec![Step::Copy(
                    lines.join("\n"),
                    format!("{} sweeps", lines.len()),
                )]);
            }
            _ => return self.move_by(action, cx).map(|()| Vec::new()),
        }
        Some(Vec::new())
    }

    /// A click goes to a fit of the list; a second one shows it.
    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let all = fits::listed(cx);
        let list = parts(self.plot, all.len(), cx.area).list;
        let height = usize::from(list.height).saturating_sub(1);
        let cursor = self.cursor.min(all.len().saturating_sub(1));
        let Some(line) = usize::from(row)
            .checked_sub(usize::from(list.y) + 1)
            .filter(|l| *l < height)
        else {
            return Vec::new();
        };
        let hit = scroll(0, cursor, all.len(), height) + line;
        if hit >= all.len() {
            return Vec::new();
        }
        self.cursor = hit;
        match self.refusal(Action::ShowFit, cx) {
            None if double => self.act(Action::ShowFit, cx).unwrap_or_default(),
            Some(why) if double => vec![Step::Notify(Level::Warn, why)],
            _ => Vec::new(),
        }
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::FitsCompared(found) if reply.is_to(self.comparing) => {
                self.compared = Some((**found).clone());
                (self.plot, self.scrolled) = (Plot::Compared, 0);
            }
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => {
                *self = Self::default()
            }
            Event::Started(Job::Fit) => self.plot = Plot::Curve,
            Event::Training(_) => self.plot = Plot::Training,
            Event::SweepBegun(_) => self.plot = Plot::Sweep,
            Event::Closed if matches!(self.plot, Plot::Training | Plot::Sweep) => {
                self.plot = Plot::Curve
            }
            _ => {}
        }
        if matches!(reply.event, Event::Study(_) | Event::Failed(Job::Fit, _)) {
            self.running_config = None;
        }
        Vec::new()
    }

    fn request_sent(&mut self, request: &Request) {
        if matches!(request.command, Command::CompareStudy(..)) {
            self.comparing = Some(request.id);
        }
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        self.draw(cx, buf);
    }
}
