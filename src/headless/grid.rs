//! What `mlpeek quality` and `mlpeek sweep` share: the rows, the fits' settings, and a table that
//! grows line by line.

use std::sync::Arc;

use crate::activations::ActivationSource;
use crate::activations::energy::{Axis, Concentration};
use crate::cli::GridArgs;
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::eval::quality::Division;
use crate::eval::split::Holdout;
use crate::factor::{FitConfig, Solver};
use crate::jobs::directions::HookSelection;
use crate::jobs::sweeping::bases;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

use super::{Output, open_study};

/// A study's rows with the settings that are judged on them.
pub(super) struct Subject {
    pub(super) study: Study,
    pub(super) source: Box<dyn ActivationSource + Send + Sync>,
    pub(super) tokens: Arc<TokenTable>,
    pub(super) hook: HookPoint,
    pub(super) fits: Vec<FitConfig>,
    pub(super) holdout: Holdout,
    /// Where few neurons or rows hold much of all.
    pub(super) concentrated: Vec<Concentration>,
}

impl Subject {
    pub(super) fn open(
        args: &GridArgs,
        features: &[usize],
        out: &Output,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let study = open_study(&args.study, out)?;
        let place = HookSelection {
            fit: None,
            layer: args.layer.first().copied(),
            site: args.hook,
        };
        let (hook, bases) = bases(&study, &args.fit, &place)?;
        let fits = args.configs(&bases, features);
        let penalised = args.l1.iter().any(|l1| *l1 != 0.0);
        if fits.iter().all(|fit| fit.solver == Solver::Mu)
            && (penalised || args.row_cap.iter().any(|cap| *cap > 0))
        {
            let option = if penalised { "--l1" } else { "--row-cap" };
            return Err(Error::usage(format!(
                "{option} has no effect on the multiplicative updates: leave it out, or use --solver bcd"
            )));
        }
        let holdout = Holdout {
            share: args.holdout,
            seed: Some(args.holdout_seed),
            ..Holdout::default()
        };
        let concentrated = study.concentrations(&study.energy(hook, ctx)?)?;
        let seen = |axis: Axis| {
            fits.iter().any(|f| {
                if axis == Axis::Neurons {
                    !f.scale_neurons
                } else {
                    !f.scale_rows
                }
            })
        };
        concentrated
            .iter()
            .filter(|found| seen(found.axis))
            .for_each(|found| out.note(&found.advice()));
        Ok(Self {
            source: study.activations(hook)?,
            tokens: study.tokens()?,
            hook,
            fits,
            holdout,
            concentrated,
            study,
        })
    }
}

/// "1,118 sentences (18,220 tokens) to fit and choose on, 284 (4,671) held out, 28 labels".
pub(super) fn division(division: &Division) -> String {
    use super::output::thousands;
    format!(
        "{} sentences ({} tokens) to fit and choose on, {} ({} tokens) held out, {} labels",
        thousands(division.train_sentences as u64),
        thousands(division.train_tokens as u64),
        thousands(division.held_out_sentences as u64),
        thousands(division.held_out_tokens as u64),
        division.labels
    )
}

/// A number with `digits` decimals, or a dash.
pub(super) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

/// One line of a table: the first cell to the left, the others to the right of columns as wide as
/// their heads.
pub(super) fn line(first_width: usize, heads: &[&str], first: &str, cells: &[String]) -> String {
    let mut out = format!("{first:first_width$}");
    for (head, cell) in heads.iter().zip(cells) {
        let width = head.chars().count().max(6);
        out.push_str(&format!("  {cell:>width$}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let heads = ["AUROC", "held-out error"];
        let head = line(8, &heads, "", &heads.map(str::to_owned));
        let row = line(
            8,
            &heads,
            "bcd, λ 0",
            &[cell(Some(0.81234), 3), cell(None, 3)],
        );
        assert_eq!(head.chars().count(), row.chars().count());
        assert!(row.starts_with("bcd, λ 0") && row.contains(" 0.812 ") && row.ends_with('-'));
    }
}
