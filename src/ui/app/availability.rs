//! Why an action cannot be done now, for the rows of the action table: a function of the app's state
//! each, with words for a person.
//!
//! Knows no key but by its action's name. Invariant: asking changes nothing.

use super::App;
use crate::engine::Job;
use crate::ui::action::Action;
use crate::ui::pane_id::PaneId;
use crate::ui::world::CutShort;

/// Whether something can be done, or why it cannot.
pub type Available = Result<(), String>;

/// More marked features than fit side by side.
const MOST_MARKED: usize = 8;

/// Refuses with `why` unless `allowed`.
fn only_if(allowed: bool, why: &str) -> Available {
    if allowed { Ok(()) } else { Err(why.to_owned()) }
}

/// Nothing stands in its way but what the focused pane may say.
pub fn always(_: &App) -> Available {
    Ok(())
}

/// A fit is running, held or not.
pub fn a_fit_runs(app: &App) -> Available {
    only_if(app.world.fitting(), "no fit is running")
}

/// A study is on show.
pub fn a_study_is_open(app: &App) -> Available {
    only_if(app.world.study.is_some(), "no study is open")
}

/// A feature is under the cursor of the list, of a fit or of a set of directions.
pub fn a_feature_is_selected(app: &App) -> Available {
    if app.world.selected.is_some() {
        return Ok(());
    }
    Err(match app.world.jobs.last() {
        Some(job) => format!("no features yet: {} goes on", job.job.label()),
        None => format!(
            "no features yet: {} opens a model or a study",
            app.keymap.key(Action::Start)
        ),
    })
}

/// The list is that of a fit, not of a set of directions.
pub fn no_set_is_on_show(app: &App) -> Available {
    let Some(set) = app.world.set() else {
        return Ok(());
    };
    let back = match &set.fit {
        Some(_) => format!(": {} goes back to the fit", app.keymap.key(Action::Sets)),
        None => String::new(),
    };
    Err(format!(
        "{} is on show, and this is of a fit's features{back}",
        set.kind
    ))
}

/// A feature is selected, and it is one of a fit: names and notes are of those alone.
pub fn a_feature_of_a_fit_is_selected(app: &App) -> Available {
    no_set_is_on_show(app)?;
    a_feature_is_selected(app)
}

/// The open study has a model that was not found, or was another one.
pub fn the_model_is_missing(app: &App) -> Available {
    let world = &app.world;
    let study = world.study.as_ref().ok_or("no study is open")?;
    only_if(
        study.model.is_some(),
        "this study was imported without a model",
    )?;
    only_if(world.model.is_none(), "the study's model is open")?;
    only_if(world.job(Job::Load).is_none(), "the model is on its way")
}

/// Another set of directions can be read now.
pub fn sets_can_be_read(app: &App) -> Available {
    a_study_is_open(app)?;
    only_if(
        app.world.job(Job::Collect).is_none(),
        "collecting goes on: directions are read on all rows",
    )?;
    only_if(
        !app.world.fitting(),
        "a fit is running: its features are what is shown",
    )
}

/// From two to [`MOST_MARKED`] features are marked, and not yet side by side.
pub fn features_are_marked(app: &App) -> Available {
    only_if(app.focus != PaneId::Compare, "they are on show")?;
    match app.world.marked.len() {
        0 | 1 => Err(format!(
            "mark two features or more with {} first",
            app.keymap.key(Action::Mark)
        )),
        2..=MOST_MARKED => Ok(()),
        n => Err(format!(
            "{n} are marked; at most {MOST_MARKED} fit side by side"
        )),
    }
}

/// Collecting or a fit of the open study was cut short and can go on here.
pub fn something_was_cut_short(app: &App) -> Available {
    let running = [Job::Load, Job::Collect, Job::Fit]
        .into_iter()
        .find(|job| app.world.job(*job).is_some());
    if let Some(job) = running {
        return Err(format!("{} goes on already", job.label()));
    }
    match app.world.cut_short() {
        None => Err("nothing here was cut short".to_owned()),
        Some(cut @ CutShort::Importing(_)) => {
            Err(format!("this study is {cut}: {}", cut.remedy("")))
        }
        Some(_) => {
            let study = app.world.study.as_ref();
            match study.and_then(|study| study.read_only.as_ref()) {
                Some(why) => Err(format!("this study is open for reading alone: {why}")),
                None => Ok(()),
            }
        }
    }
}
