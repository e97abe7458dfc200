//! Sets of directions on show in place of a fit's features: made or opened on a worker, read as a
//! fit is, and given back.
//!
//! Invariant: while a set is on show the fit that was there waits as it was, with its notes;
//! nothing is ever noted on a set.

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

/// Directions whose logit lens is held at a time.
const AT_ONCE: usize = 128;

/// The set on show, where it is not a fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInfo {
    /// Which set it is.
    pub kind: SetKind,
    /// The activation space of its directions.
    pub hook: HookPoint,
    /// The fit that is shown again once the set is left.
    pub fit: Option<String>,
}

/// A set that is on show, with what reads new rows.
#[derive(Clone)]
pub(super) struct OpenSet {
    pub kind: SetKind,
    pub set: Arc<dyn DirectionSet>,
    /// What was on show before, with its notes.
    pub behind: Option<Arc<(Shown, Notes)>>,
}

impl OpenSet {
    pub fn info(&self) -> SetInfo {
        let fit = self.behind.as_ref().map(|behind| behind.0.fit.clone());
        SetInfo {
            kind: self.kind.clone(),
            hook: self.set.hook(),
            fit,
        }
    }
}

/// Makes or opens a set, reads it on every row of the study and puts it on show; the logit lens of
/// its list comes last, for it can take as long. The study is opened beside the open one, so
/// that no question waits for it.
pub(super) fn show(session: &Session, kind: &SetKind, ctx: &TaskCtx) -> Result<String> {
    let shown = session.shown().ok();
    let behind = match shown.as_ref().map(|s| s.set.as_ref()) {
        Some(Some(set)) => set.behind.clone(),
        _ => shown.map(|s| Arc::new((s, (*session.notes()).clone()))),
    };
    let dir = open_dir(session).ok_or_else(|| session.no_study())?;
    let study = Study::open_read_only(&dir)?;
    let place = HookSelection {
        fit: behind.as_ref().map(|b| b.0.fit.clone()),
        ..HookSelection::default()
    };
    ctx.checkpoint(Progress::new(format!("making {kind}"), 0, None, ""))?;
    let model = session.model().ok();
    let set: Arc<dyn DirectionSet> =
        directions::open_with(&study, kind, &place, model.as_deref(), ctx)?.into();
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
    let same_hook = behind.as_ref().is_none_or(|b| b.0.hook == hook);
    let set = Some(OpenSet {
        kind: kind.clone(),
        set,
        behind,
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
    promote(session, ctx)?;
    Ok(format!("{count} directions of {kind} at {hook}"))
}

fn open_dir(session: &Session) -> Option<std::path::PathBuf> {
    lock(&session.study)
        .as_ref()
        .map(|study| study.dir().to_path_buf())
}

/// Puts the fit that waits behind the set on show again.
pub(super) fn back(session: &Session) -> Result<()> {
    let Some(set) = session.shown()?.set else {
        return Ok(());
    };
    let Some(behind) = set.behind else {
        return Err(Error::refused(
            "there is no fit to go back to: fit the study first",
        ));
    };
    let (shown, notes) = (*behind).clone();
    session.set_notes(notes);
    if shown.hook != set.set.hook() {
        session.emit_study(shown.hook)?;
    }
    session.display(shown)
}

/// The logit lens of every direction on show, a part at a time; nothing without a model.
fn promote(session: &Session, ctx: &TaskCtx) -> Result<()> {
    let (Ok(model), Ok(shown)) = (session.model(), session.shown()) else {
        return Ok(());
    };
    let count = shown.factors.features.columns();
    let mut all = Vec::with_capacity(count);
    for start in (0..count).step_by(AT_ONCE) {
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
            start..count.min(start + AT_ONCE),
        )?);
    }
    session.set_promoted(&shown, all)
}
