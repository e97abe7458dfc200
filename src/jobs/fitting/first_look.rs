//! A first look in batches, from its start or its checkpoint to the pass that gives every row its
//! coefficients.

use std::path::Path;

use super::{
    Begin, ErrorCurve, FitObserver, FitRun, Resume, Timer, checkpoint_every, checkpoint_or_note,
};
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::{Factoriser, FitConfig, MiniBatchFit, Stop};
use crate::task::{Progress, TaskCtx};

/// The first look at its checkpoint, where it was cut short and goes on from there.
///
/// # Errors
/// One of another request, which fitting anew would lose; where it must go on, one that cannot be
/// used.
pub(super) fn cut<'a>(
    source: &'a dyn ActivationSource,
    config: &FitConfig,
    place: &FitRun,
    observer: &mut dyn FitObserver,
) -> Result<Option<MiniBatchFit<'a>>> {
    if place.resume == Resume::Never || !MiniBatchFit::has_checkpoint(&place.checkpoint) {
        return Ok(None);
    }
    let look = match MiniBatchFit::resume(source, config.clone(), &place.checkpoint) {
        Err(e) if place.resume == Resume::IfCut => {
            observer.note(&format!(
                "fitting anew, since the checkpoint of '{}' cannot be used: {e}",
                place.name
            ));
            crate::disk::remove_if_there(&place.checkpoint)?;
            return Ok(None);
        }
        look => look?,
    };
    let (name, rows, batches) = (&place.name, look.batch_rows(), look.batches());
    match (place.resume, &place.begin) {
        (Resume::IfCut, Begin::Batches(asked)) if *asked == rows => Ok(Some(look)),
        (Resume::IfCut, _) => Err(Error::usage(format!(
            "'{name}' is a first look in batches of {rows} rows that was cut short after {batches}: go on with it by --name {name} --resume alone, give another --name, or drop it by --fresh"
        ))),
        _ => Ok(Some(look)),
    }
}

/// Batches until they end or the user has seen enough, then every row. With it why it ended; `None`
/// where the user stopped it.
pub(super) fn run<'a>(
    mut look: MiniBatchFit<'a>,
    resumed: bool,
    config: &FitConfig,
    checkpoint: &Path,
    losses: &mut ErrorCurve<'_>,
    observer: &mut dyn FitObserver,
    ctx: &TaskCtx,
) -> Result<(Factoriser<'a>, Option<Stop>)> {
    observer.started(0.0, resumed);
    let mut save_state = Timer::after(checkpoint_every()?);
    // One that was cut short in its last pass has all its batches.
    let mut stop = look.stop_reason();
    while stop.is_none() {
        let sweep = match look.step(ctx) {
            Err(Error::Cancelled) if look.batches() > 0 => break,
            step => step?,
        };
        losses.append(sweep, observer);
        observer.sweep(sweep)?;
        ctx.checkpoint(Progress::new(
            "batches",
            sweep.sweep as u64,
            config.max_sweeps.map(|m| m as u64),
            "batches",
        ))
        .ok();
        stop = sweep.stop;
        let held = observer.wants_hold();
        if held || stop.is_some() || save_state.is_due() {
            save_state.during(|| checkpoint_or_note(look.checkpoint(checkpoint), observer));
        }
        if held && observer.hold(ctx).is_err() {
            break;
        }
    }
    if stop.is_some() {
        return Ok((look.finish(ctx)?, stop));
    }
    observer.note(&format!(
        "stopped after {} batches: one pass gives every row its coefficients, then this is saved",
        look.batches()
    ));
    Ok((look.finish(&TaskCtx::silent())?, None))
}
