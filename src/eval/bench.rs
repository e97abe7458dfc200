//! A corpus that is divided once, on which any set of directions is measured by the same code.

use std::sync::Arc;

use super::contexts::{ContextPurity, PurityMeter, Shares, activity};
use super::detection::{Choice, Detector, LabelDetection};
use super::score::each_strip;
use super::split::{Holdout, ResidentRows, RowView, Split};
use crate::activations::ActivationSource;
use crate::corpus::TokenTable;
use crate::directions::matching::duplicates;
use crate::directions::reconstruction::relative_error;
use crate::directions::{Baseline, BaselineData, DirectionSet, Directions};
use crate::error::{Error, Result};
use crate::factor::{Factoriser, Factors, FitConfig};
use crate::model::HookPoint;
use crate::task::{Progress, TaskCtx};

/// Training rows are copied into memory up to this size, so that the passes of a fit copy nothing.
const RESIDENT_BYTES: usize = 1 << 30;
/// Held-out rows are not encoded on more directions than this, since the cost of a row grows with
/// more than their square.
const MOST_ENCODED: usize = 2048;

/// Directions to be measured, and how they were made.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The directions, k columns of d values.
    pub directions: Directions,
    /// How a label's direction is chosen.
    pub choice: Choice,
    /// The fit on the training rows, where they come from one.
    pub factors: Option<Arc<Factors>>,
    /// Seconds they took to make.
    pub seconds: f64,
}

/// The measures of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateMeasures {
    /// One entry a scored label.
    pub detection: Vec<LabelDetection>,
    /// Of the sentences with the largest cosines.
    pub contexts: Option<ContextPurity>,
    /// Of the sentences with the largest coefficients, for a fit: what a person sees.
    pub coefficient_contexts: Option<ContextPurity>,
    /// The features that `contexts` is the mean of.
    pub shares: Vec<Shares>,
    /// The features that `coefficient_contexts` is the mean of.
    pub coefficient_shares: Vec<Shares>,
    /// Of the fit, on its training rows.
    pub relative_error: Option<f64>,
    /// On the held-out rows, each with its best non-negative coefficients; `None` for single
    /// neurons, supervised directions and very wide bases.
    pub held_out_error: Option<f64>,
    /// Features active at a training token, for a fit.
    pub active: Option<f64>,
    /// Features never used, for a fit.
    pub dead: Option<usize>,
    /// Columns that nearly repeat an earlier one.
    pub duplicates: usize,
}

/// A corpus that is divided into training and held-out sentences.
pub struct Bench<'a> {
    source: &'a dyn ActivationSource,
    tokens: &'a TokenTable,
    split: Split,
    train: ResidentRows<'a>,
    held: RowView<'a>,
}

impl<'a> Bench<'a> {
    /// Divides the sentences of `tokens`, whose rows must be those of `source`.
    ///
    /// # Errors
    /// [`Error::Refused`] when they are not, and what [`Split::new`] returns.
    pub fn new(
        source: &'a dyn ActivationSource,
        tokens: &'a TokenTable,
        holdout: &Holdout,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let n = source.shape().0;
        if tokens.rows.len() != n {
            return Err(Error::refused(format!(
                "{n} rows of activations but {} tokens: run collect again to complete the study",
                tokens.rows.len()
            )));
        }
        let split = Split::new(tokens, holdout)?;
        let train = RowView::new(source, split.rows(false)).resident(RESIDENT_BYTES, ctx)?;
        let held = RowView::new(source, split.rows(true));
        Ok(Self {
            source,
            tokens,
            split,
            train,
            held,
        })
    }

    /// The division into training and held-out sentences.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The rows of the training sentences.
    pub fn train(&self) -> &ResidentRows<'a> {
        &self.train
    }

    /// The rows of the held-out sentences.
    pub fn held_out(&self) -> &RowView<'a> {
        &self.held
    }

    /// Refuses configurations that the training rows do not allow, before the first is fitted.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that cannot be.
    pub fn check(&self, fits: &[FitConfig]) -> Result<()> {
        let shape = self.train.shape();
        fits.iter().try_for_each(|fit| fit.check(shape).map(drop))
    }

    /// Fits the training rows alone; where `earlier` holds a fit of fewer features, it starts from
    /// that.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that cannot be; what the fit returns;
    /// [`Error::Cancelled`].
    pub fn fit(
        &self,
        config: &FitConfig,
        earlier: Option<&Factors>,
        ctx: &TaskCtx,
    ) -> Result<Candidate> {
        let stage = format!(
            "fitting {}, seed {}",
            super::quality::fit_name(config),
            config.seed
        );
        let mut fit = match earlier {
            Some(earlier) => {
                Factoriser::warm_start(&self.train, config.clone(), earlier, &[], ctx)?
            }
            None => Factoriser::start(&self.train, config.clone(), ctx)?,
        };
        loop {
            let sweep = fit.step(ctx)?;
            let most = config.max_sweeps.map(|m| m as u64);
            ctx.checkpoint(Progress::new(
                stage.as_str(),
                sweep.sweep as u64,
                most,
                "sweeps",
            ))?;
            if sweep.stop.is_some() {
                break;
            }
        }
        let factors = fit.finish(ctx)?;
        let directions = Directions::Sparse(factors.features.clone());
        Ok(Candidate {
            directions,
            choice: Choice::Best,
            seconds: factors.seconds,
            factors: Some(factors),
        })
    }

    /// A baseline of the training rows, `like` a fit: its number of features, sparsity and seed; a
    /// supervised one has a direction a scored label, in their order. `hook` is that of the rows.
    ///
    /// # Errors
    /// What [`Baseline::make`] returns.
    pub fn baseline(
        &self,
        baseline: Baseline,
        hook: HookPoint,
        like: FitConfig,
        ctx: &TaskCtx,
    ) -> Result<Directions> {
        let of_sentence = |label: Option<u32>| {
            let place = self.split.labels.binary_search(&label?).ok()?;
            Some(place as u32)
        };
        let train = self.split.sentences.iter().filter(|s| !s.held_out);
        let row_labels: Vec<Option<u32>> = train
            .flat_map(|s| std::iter::repeat_n(of_sentence(s.label), s.rows.len()))
            .collect();
        let data = BaselineData {
            hook,
            source: &self.train,
            row_labels: row_labels.into(),
            labels: self.split.labels.iter().map(u32::to_string).collect(),
            config: like,
        };
        let set = baseline.make(baseline.name().to_owned(), &data, ctx)?;
        Ok(set.directions().clone())
    }

    /// Measures all that is not a comparison with other candidates.
    ///
    /// # Errors
    /// What reading the rows returns; [`Error::Cancelled`].
    pub fn judge(&self, candidate: &Candidate, ctx: &TaskCtx) -> Result<CandidateMeasures> {
        let Candidate {
            directions,
            factors,
            ..
        } = candidate;
        let mut detector = Detector::new(&self.split, candidate.choice);
        let mut purity = PurityMeter::new(self.tokens, &self.split);
        each_strip(
            self.source,
            &self.split.sentences,
            directions,
            ctx,
            |scores| {
                detector.add_strip(scores);
                purity.add_strip(scores);
                Ok(())
            },
        )?;
        let single = matches!(directions, Directions::Neurons(_));
        // Supervised directions need not explain anything, and a weighted sum of them is nearly
        // zero.
        let encoded =
            candidate.choice == Choice::Best && !single && directions.count() <= MOST_ENCODED;
        let coding = factors
            .as_ref()
            .map(|f| f.coding.clone())
            .unwrap_or_default();
        let held_out_error = if encoded {
            relative_error(&self.held, &directions.to_sparse(), &coding, ctx)?
        } else {
            None
        };
        let (coefficient_contexts, coefficient_shares) =
            factors.as_ref().map_or((None, Vec::new()), |factors| {
                let mut meter = PurityMeter::new(self.tokens, &self.split);
                meter.add_coefficients(factors, &self.train);
                meter.finish()
            });
        let (contexts, shares) = purity.finish();
        let activity = factors.as_ref().map(|f| activity(f));
        Ok(CandidateMeasures {
            detection: detector.finish(),
            contexts,
            coefficient_contexts,
            shares,
            coefficient_shares,
            relative_error: factors.as_ref().map(|f| f.relative_error),
            held_out_error,
            active: activity.map(|a| a.0),
            dead: activity.map(|a| a.1),
            duplicates: if single { 0 } else { duplicates(directions) },
        })
    }

    /// Detection with the labels shuffled among the sentences of each side: what choosing the best of
    /// many directions gains by chance. The held-out AUROC must be near ½.
    ///
    /// # Errors
    /// What [`each_strip`] returns.
    pub fn judge_shuffled(
        &self,
        directions: &Directions,
        seed: u64,
        ctx: &TaskCtx,
    ) -> Result<Vec<LabelDetection>> {
        let split = self.split.shuffled(seed);
        let mut detector = Detector::new(&split, Choice::Best);
        each_strip(self.source, &split.sentences, directions, ctx, |scores| {
            detector.add_strip(scores);
            Ok(())
        })?;
        Ok(detector.finish())
    }
}
