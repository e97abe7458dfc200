//! Shows sets of directions in place of a fit's features: a set is made or opened on a worker and
//! read like a fit; leaving it shows the fit again.
//!
//! Invariant: while a set is on show the fit before it is kept unchanged, with its notes; a set
//! itself has no notes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::session::{Session, Shown, lock};
use crate::analysis::Notes;
use crate::analysis::contexts;
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::jobs::directions::{self, HookSelection};
use crate::jobs::reading;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::{Progress, TaskCtx};

/// The number of directions whose logit lens is computed at a time.
const LENS_DIRECTIONS: usize = 128;

/// The set of directions on show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInfo {
    /// Which set it is.
    pub kind: SetKind,
    /// The activation space of its directions.
    pub hook: HookPoint,
    /// The fit that is shown again once the set is left.
    pub fit: Option<String>,
}

/// A set on show, with its interface to new rows.
#[derive(Clone)]
pub(super) struct OpenSet {
    pub kind: SetKind,
    pub set: Arc<dyn DirectionSet>,
    /// What was on show before, with its notes.
    pub previous: Option<Arc<(Shown, Notes)>>,
}

impl OpenSet {
    pub fn info(&self) -> SetInfo {
        let fit = self
            .previous
            .as_ref()
            .map(|previous| previous.0.fit.clone());
        SetInfo {
            kind: self.kind.clone(),
            hook: self.set.hook(),
            fit,
        }
    }
}

/// Makes or opens a set, scores it on every row of the study and shows it; the logit lens of its
/// list comes last, since it can take long. The study is opened a second time for reading, so that
/// no question waits for it.
pub(super) fn show(session: &Session, kind: &SetKind, ctx: &TaskCtx) -> Result<String> {
    let shown = session.shown().ok();
    let previous = match shown.as_ref().map(|s| s.set.as_ref()) {
        Some(Some(set)) => set.previous.clone(),
        _ => shown.map(|s| Arc::new((s, (*session.notes()).clone()))),
    };
    let dir = open_dir(session).ok_or_else(|| session.no_study())?;
    let study = Study::open_read_only(&dir)?;
    let selection = HookSelection {
        fit: previous.as_ref().map(|b| b.0.fit.clone()),
        ..HookSelection::default()
    };
    ctx.checkpoint(Progress::new(format!("making {kind}"), 0, None, ""))?;
    let model = session.model().ok();
    let set: Arc<dyn DirectionSet> =
        directions::open_with(&study, kind, &selection, model.as_deref(), ctx)?.into();
    let source = study.activations(set.hook())?;
    let factors = set.factors_on(source.as_ref(), ctx)?;
    let notes = directions::names(&study, set.as_ref())?;
    let rows = Arc::new(contexts::feature_rows(
        &factors,
        &*session.tokens()?,
        &Notes::default(),
    ));
    ctx.check()?;
    if open_dir(session).as_deref() != Some(&*dir) {
        return Err(Error::Cancelled);
    }
    let (hook, fit, count) = (set.hook(), set.name().to_owned(), set.directions().count());
    let same_hook = previous.as_ref().is_none_or(|b| b.0.hook == hook);
    let set = Some(OpenSet {
        kind: kind.clone(),
        set,
        previous,
    });
    session.set_notes(notes);
    if !same_hook {
        session.emit_study(hook)?;
    }
    session.display(Shown {
        hook,
        fit,
        factors,
        finished: true,
        rows,
        promoted: Arc::default(),
        set,
    })?;
    refresh_promoted(session, ctx)?;
    Ok(format!("{count} directions of {kind} at {hook}"))
}

pub(super) fn open_dir(session: &Session) -> Option<std::path::PathBuf> {
    lock(&session.study)
        .as_ref()
        .map(|study| study.dir().to_path_buf())
}

/// Shows the fit that was on show before the set.
pub(super) fn leave(session: &Session) -> Result<()> {
    let Some(set) = session.shown()?.set else {
        return Ok(());
    };
    let Some(previous) = set.previous else {
        return Err(Error::refused(
            "there is no fit to go back to: fit the study first",
        ));
    };
    let (shown, notes) = (*previous).clone();
    session.set_notes(notes);
    if shown.hook != set.set.hook() {
        session.emit_study(shown.hook)?;
    }
    session.display(shown)
}

/// Runs the logit lens of every direction on show in parts, which can be cancelled; does nothing
/// without a model.
fn refresh_promoted(session: &Session, ctx: &TaskCtx) -> Result<()> {
    let (Ok(model), Ok(shown)) = (session.model(), session.shown()) else {
        return Ok(());
    };
    let count = shown.factors.features.columns();
    let mut all = Vec::with_capacity(count);
    for start in (0..count).step_by(LENS_DIRECTIONS) {
        ctx.checkpoint(Progress::new(
            "reading through the logit lens",
            start as u64,
            count as u64,
            "directions",
        ))?;
        all.extend(reading::promoted(
            &model,
            shown.hook,
            &shown.factors,
            start..count.min(start + LENS_DIRECTIONS),
        )?);
    }
    session.set_promoted(&shown, all)
}
