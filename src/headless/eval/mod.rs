//! `mlpeek eval`: what directions detect, what they cause, what they share.

mod described;
mod detection;
mod free_text;
mod measures;
mod reuse;
mod scores;
mod steering;

use crate::cli::{EvalArgs, EvalCommand};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::eval::split::Holdout;
use crate::eval::steering::report::MeanInterval;
use crate::eval::unseen::Divided;
use crate::jobs::directions::HookSelection;
use crate::jobs::evaluation::Method;
use crate::study::Study;

use super::Output;

pub(super) fn run(command: &EvalCommand, out: &mut Output) -> Result<()> {
    match command {
        EvalCommand::Detection(args) => detection::run(args, out),
        EvalCommand::Steering(args) => steering::run(args, out),
        EvalCommand::Reuse(args) => reuse::run(args, out),
    }
}

/// Share of each label's sentences that is held out where nothing is said.
const HELD_OUT: f64 = 0.5;

fn holdout(args: &EvalArgs) -> Holdout {
    Holdout {
        share: args.holdout.unwrap_or(HELD_OUT),
        seed: Some(args.holdout_seed.unwrap_or(0)),
        ..Holdout::default()
    }
}

/// Refuses a fit, layer or hook that none of the methods looks at.
fn check_place(args: &EvalArgs, study: &Study) -> Result<()> {
    // Without a method it is the usual ones, of which the fit is one.
    if args.methods.is_empty() {
        return Ok(());
    }
    let mut place = args.place.selection();
    if args.named_by_layer {
        place.layer = None;
    }
    let only_words = args.methods.iter().all(|m| *m == Method::Prompt);
    if only_words && place != HookSelection::default() {
        return Err(Error::usage(
            "--fit, --layer and --hook have no effect on prompt, which asks the model in words: leave them out",
        ));
    }
    place.check_effect(study, Method::sets(&args.methods))
}

/// Divides the sentences, and says which members are unseen and which labels are left out.
fn divide<'a>(args: &EvalArgs, tokens: &'a TokenTable, out: &Output) -> Result<Divided<'a>> {
    let divided = Divided::new(tokens, &holdout(args), args.unseen)?;
    divided.notes().iter().for_each(|note| out.note(note));
    Ok(divided)
}

/// A mean with its interval, as in "0.812 [0.790, 0.833]".
fn with_interval(mean: Option<MeanInterval>) -> String {
    mean.map_or_else(
        || "-".to_owned(),
        |m| format!("{:.3} [{:.3}, {:.3}]", m.mean, m.low, m.high),
    )
}
