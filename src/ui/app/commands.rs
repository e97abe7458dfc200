//! What actions do that no pane owns: a function each, which a row of the action table names.
//!
//! Knows no key and asks nothing of whether it may be done: the row's availability has said so.

use std::path::PathBuf;

use super::{App, Effect};
use crate::engine::{Command, Level, OpenRequest};
use crate::factor::FitConfig;
use crate::study::newest;
use crate::ui::action::Action;
use crate::ui::dialogs::{
    HelpDialog, LogDialog, PaletteDialog, Question, QuestionDialog, SetsDialog, sweep_dialog,
    train_dialog,
};
use crate::ui::pane::{Handover, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::world::CutShort;

/// Nothing: it has a meaning in some panes alone.
pub fn in_pane(_: &mut App) -> Vec<Effect> {
    Vec::new()
}

/// The focused pane alone on the screen, or all of them again.
pub fn zoom(app: &mut App) -> Vec<Effect> {
    app.zoom = !app.zoom;
    app.after_select()
}

/// Digits behind tokens, or none.
pub fn digits(app: &mut App) -> Vec<Effect> {
    app.world.digits = !app.world.digits;
    Vec::new()
}

/// Holds the fit, or goes on with one that is held.
pub fn pause(app: &mut App) -> Vec<Effect> {
    let command = if app.world.paused {
        Command::Resume
    } else {
        Command::Pause
    };
    vec![app.send(command)]
}

/// Goes on with what was cut short.
pub fn go_on(app: &mut App) -> Vec<Effect> {
    let command = match app.world.cut_short() {
        Some(CutShort::Collecting(_)) => Command::Collect,
        Some(CutShort::Fit(fit)) => Command::GoOn(fit.name.clone()),
        Some(CutShort::Importing(_)) | None => return Vec::new(),
    };
    vec![app.send(command)]
}

/// Asks where the study's model lies.
pub fn model_place(app: &mut App) -> Vec<Effect> {
    app.open_model_dialog();
    Vec::new()
}

/// Opens the list of all keys.
pub fn help(app: &mut App) -> Vec<Effect> {
    app.show(HelpDialog::new(app.focus))
}

/// Opens the palette of commands, over the focused pane.
pub fn palette(app: &mut App) -> Vec<Effect> {
    app.show(PaletteDialog::new(app.focus))
}

/// Opens the log of what the engine said.
pub fn log(app: &mut App) -> Vec<Effect> {
    app.show(LogDialog::default())
}

/// Opens the choice of sets of directions.
pub fn sets(app: &mut App) -> Vec<Effect> {
    app.show(SetsDialog::new(&app.world))
}

/// Opens the form for training an autoencoder.
pub fn train(app: &mut App) -> Vec<Effect> {
    app.show(train_dialog(&app.world))
}

/// Opens the form for a sweep over the number of features.
pub fn sweep(app: &mut App) -> Vec<Effect> {
    app.show(sweep_dialog(&app.world))
}

/// Captures the mouse, or leaves it to the terminal.
pub fn mouse(app: &mut App) -> Vec<Effect> {
    app.mouse = !app.mouse;
    let state = if app.mouse {
        "mouse on"
    } else {
        "mouse off: the terminal selects text"
    };
    app.toast(Level::Info, state.to_owned());
    vec![Effect::Mouse(app.mouse)]
}

/// Writes names and notes to a file of the study.
pub fn export_notes(app: &mut App) -> Vec<Effect> {
    let path = notes_file(app);
    vec![app.send(Command::ExportNotes(path))]
}

/// Asks for a file of names and notes.
pub fn import_notes(app: &mut App) -> Vec<Effect> {
    let file = notes_file(app).display().to_string();
    app.show(QuestionDialog::new(Question::Notes, &file))
}

/// Asks for a study to hold the fit on show beside.
pub fn compare_study(app: &mut App) -> Vec<Effect> {
    let fit = app.world.fit_name().unwrap_or_default().to_owned();
    let other = other_study(app).unwrap_or_default();
    app.show(QuestionDialog::new(Question::Study(fit), &other))
}

/// Takes the selected feature to the Steer pane, with a negative sign to suppress it.
pub fn steer_with(app: &mut App, negative: bool) -> Vec<Effect> {
    let Some(id) = app.world.selected else {
        return Vec::new();
    };
    app.carry_out(vec![Step::steer(&[id], negative, false)])
}

/// Marks the selected feature or takes its mark away, and goes to the next where the list has the
/// focus.
pub fn mark(app: &mut App) -> Vec<Effect> {
    let Some(id) = app.world.selected else {
        return Vec::new();
    };
    match app.world.marked.iter().position(|m| *m == id) {
        Some(at) => {
            app.world.marked.remove(at);
        }
        None => app.world.marked.push(id),
    }
    if app.focus == PaneId::Features {
        app.act_of(PaneId::Features, Action::NextFeature)
    } else {
        Vec::new()
    }
}

/// Takes back the last name or note.
pub fn undo(app: &mut App) -> Vec<Effect> {
    vec![app.send(Command::UndoNote)]
}

/// Asks for the selected feature's name and notes.
pub fn rename(app: &mut App) -> Vec<Effect> {
    if let Some(id) = app.world.selected {
        app.open_name_dialog(id);
    }
    Vec::new()
}

/// Writes the selected feature to a file of the study.
pub fn export(app: &mut App) -> Vec<Effect> {
    let (Some(id), Some(study)) = (app.world.selected, &app.world.study) else {
        return Vec::new();
    };
    let what = app
        .world
        .set()
        .map_or_else(|| "feature".to_owned(), |set| set.kind.to_string());
    let path = study
        .dir
        .join(format!("{}-{id}.md", what.replace(':', "-")));
    vec![app.send(Command::Export {
        format: "markdown".to_owned(),
        path,
    })]
}

/// The Start pane with what is open now, the cursor on the layer.
pub fn other_layer(app: &mut App) -> Vec<Effect> {
    let Some(study) = &app.world.study else {
        return Vec::new();
    };
    let fit = newest(&study.fits, |_| true).or(study.fits.last());
    let fit = fit.map(|f| f.config.clone()).unwrap_or_default();
    // What the width gave is not what a person chose: another model may have another.
    let chosen = fit
        .sparsity
        .filter(|&p| p != FitConfig::default().sparsity_at(study.width));
    let fit = FitConfig {
        sparsity: chosen,
        ..fit
    };
    let corpus = PathBuf::from(&study.corpus);
    let request = OpenRequest {
        model: study.model.clone(),
        layer: Some(study.hook.layer),
        hook: study.hook.site,
        // A bundled corpus has a name, not a path.
        corpus: (corpus.components().count() > 1 || corpus.extension().is_some()).then_some(corpus),
        fit,
        ..OpenRequest::default()
    };
    app.hand_over(PaneId::Start, &Handover::Open(request))
}

/// Where the notes of the fit on show are written: `STUDY/notes-k100.json`.
fn notes_file(app: &App) -> PathBuf {
    let fit = app
        .world
        .features
        .as_ref()
        .map_or("fit", |list| list.fit.as_str());
    let dir = app
        .world
        .study
        .as_ref()
        .map(|study| study.dir.clone())
        .unwrap_or_default();
    dir.join(format!("notes-{fit}.json"))
}

/// The most recent other study of the same hook.
fn other_study(app: &App) -> Option<String> {
    let current = app.world.study.as_ref()?;
    let others = app
        .world
        .studies
        .as_ref()?
        .iter()
        .filter(|s| s.dir != current.dir && s.hooks.contains(&current.hook));
    others.map(|s| s.dir.display().to_string()).next()
}
