//! Where the fit, or what else computes on the study, stands: a line for the header.

use ratatui::style::Style;

use crate::engine::Job;
use crate::text;
use crate::ui::action::Action;
use crate::ui::app::App;
use crate::ui::world::CutShort;

/// Where the fit stands, short.
pub(super) fn fit_state(app: &App) -> (String, Style) {
    let (world, theme) = (&app.world, &app.theme);
    if let Some(set) = world.set() {
        let back = set.fit.as_ref().map(|fit| {
            format!(
                " · {} back to {}",
                app.keymap.key(Action::Sets),
                text::clean(fit)
            )
        });
        return (
            format!(
                "{}{} ",
                text::clean(&set.kind.to_string()),
                back.unwrap_or_default()
            ),
            theme.accent(),
        );
    }
    if let Some(state) = training_state(app) {
        return state;
    }
    if let Some(fit) = world.starting_fit() {
        return (format!("starting {} ", text::clean(fit)), theme.accent());
    }
    let idle = !world.fitting() && world.job(Job::Collect).is_none();
    if let (Some(cut), true) = (world.cut_short(), idle) {
        let key = app.keymap.key(Action::Continue);
        let what = match cut {
            CutShort::Collecting(state) => format!("collected {} %", state.percent()),
            CutShort::Importing(_) => cut.to_string(),
            CutShort::Fit(fit) => fit.status().to_string(),
        };
        let error = world
            .features
            .as_ref()
            .map(|f| format!(" · error {:.3}", f.relative_error));
        return (
            format!(
                "{what}{} · {} ",
                error.unwrap_or_default(),
                cut.remedy(&key)
            ),
            theme.warning(),
        );
    }
    let error = world
        .features
        .as_ref()
        .map(|f| (f.sweep, f.relative_error, "error"));
    let (sweep, error, name) = match (world.sweeps.last(), error) {
        (Some(point), _) if world.fitting() => (
            point.sweep,
            point.relative_error,
            if point.weighted {
                "weighted error"
            } else {
                "error"
            },
        ),
        (_, Some(snapshot)) => snapshot,
        _ => return (String::new(), theme.dim()),
    };
    let finished = world.features.as_ref().is_some_and(|f| f.finished);
    let (what, style) = match (world.paused, world.fitting(), finished) {
        (true, ..) => ("held", theme.warning()),
        (_, true, _) => ("fitting", theme.accent()),
        (.., true) => ("fitted", theme.good()),
        _ => ("stopped", theme.warning()),
    };
    (
        format!("{what} · sweep {sweep} · {name} {error:.3} "),
        style,
    )
}

/// Where the training of an autoencoder stands, or the sweep over the number of features.
fn training_state(app: &App) -> Option<(String, Style)> {
    let (world, theme) = (&app.world, &app.theme);
    let state = if world.job(Job::Train).is_some() {
        let (entry, points) = world.training.as_ref()?;
        let name = text::clean(&entry.name);
        match points.last() {
            Some(last) => format!(
                "training {name} · pass {} · FVU {:.3} ",
                last.epoch, last.fvu
            ),
            None => format!("training {name} "),
        }
    } else {
        world.job(Job::Sweep)?;
        let (begun, rows) = world.k_sweep.as_ref()?;
        let all = begun.request.features.len();
        format!("sweep over k · {} of {all} ", rows.len())
    };
    Some((state, theme.accent()))
}
