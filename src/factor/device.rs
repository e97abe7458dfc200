//! A fit on a device (a GPU): what it computes there as dense tensors, and what it keeps there.
//!
//! | on the device | on the host |
//! | --- | --- |
//! | the assignment of k-means and the sums of its clusters | the choice of its first rows; the random and the SVD start |
//! | a pass: products with Z and Y, the HALS sweeps, AᵀY, YᵀY | the statistics of A before a fit, which hash every value |
//! | the errors of all rows, for revival and where rows are weighted | the residual of the few rows that features are revived at |
//! | the squared error of the finished factors | the step on Z, whose supports are sparse |
//!
//! The steps are those of the panels, but sums have another order: results agree within rounding, not
//! to the bit. A stays on the device as it is stored, and Y in f32, as far as its memory allows; Y is
//! copied back where the host needs it: for snapshots, checkpoints and the end. Invariants: what
//! stays on the device changes no bit of a result; a device that is full is given fewer rows at once.

mod coefficients;
mod features;
mod kmeans;
mod measure;
mod plan;
mod residual;
mod rows;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use super::pass::{Gather, PassSums};
use super::preprocessing::Preprocessing;
use super::state::State;
use super::stream::Stream;
use super::{FitConfig, SparseColumns, columns};
use crate::activations::ActivationSource;
use crate::activations::store::CacheDtype;
use crate::error::Result;
use crate::matrix::panel::PANEL;
use crate::model::Portion;
use crate::task::TaskCtx;

pub(crate) use coefficients::{CoefficientsAt, DeviceCoefficients};
use features::DeviceFeatures;
pub use measure::PassRates;
pub use plan::DeviceBytes;
use plan::{FitShape, Plan};
use rows::DeviceRows;

/// The work of a fit that stays on the CPU, to be told to a person.
pub const ON_CPU: &str =
    "the activations are checked, features stepped and the SVD start made on the CPU";

/// The step on the coefficients of every row: Y times `scales`, then HALS sweeps with relaxation, the
/// same as [`crate::matrix::panel::hals_sweep`].
pub(crate) struct CoefficientSweeps<'s> {
    pub(crate) features: &'s SparseColumns,
    pub(crate) scales: &'s [f32],
    /// ZᵀZ, k × k.
    pub(crate) q: &'s [f64],
    pub(crate) penalty: f32,
    pub(crate) sweeps: usize,
}

/// A device that takes the passes of a fit, and what stays on it.
pub struct Accelerator {
    device: Device,
    rows: DeviceRows,
    plan: Plan,
    bytes: DeviceBytes,
    /// How many rows are worked on at once.
    portion: Mutex<Portion>,
    keeps_coefficients: AtomicBool,
}

/// What a pass makes of some rows.
struct PartOfPass {
    lines: Tensor,
    /// AᵀY of these rows and of those before.
    products: Tensor,
    gram: Vec<f32>,
    totals: Vec<f32>,
    row_fit: Vec<f32>,
}

impl FitConfig {
    fn device_shape(&self, (rows, neurons): (usize, usize), stored: CacheDtype) -> FitShape {
        FitShape {
            rows,
            neurons,
            features: self.features,
            value_bytes: stored.size(),
            prepared: self.centre || self.scale_rows || self.scale_neurons,
        }
    }

    /// What a fit to n × d activations, stored as `stored`, takes of a device's memory where all of it
    /// stays there.
    pub fn device_bytes(&self, shape: (usize, usize), stored: CacheDtype) -> DeviceBytes {
        self.device_shape(shape, stored).bytes()
    }
}

impl Accelerator {
    /// A device with `free` bytes of memory, unknown for `None`, for a fit of `config` to `source`.
    pub fn new(
        device: Device,
        free: Option<u64>,
        source: &dyn ActivationSource,
        config: &FitConfig,
    ) -> Self {
        let shape = config.device_shape(source.shape(), source.stored_dtype());
        Self::with_plan(device, Plan::new(&shape, free), shape.bytes())
    }

    fn with_plan(device: Device, plan: Plan, bytes: DeviceBytes) -> Self {
        Self {
            rows: DeviceRows::new(&device, plan.block_rows, plan.kept_blocks),
            device,
            plan,
            bytes,
            portion: Mutex::new(Portion::new(plan.portion_rows)),
            keeps_coefficients: AtomicBool::new(plan.keeps_coefficients),
        }
    }

    /// One on `device` that cuts rows into blocks and strips of so many, of which `kept_blocks` stay.
    #[cfg(test)]
    pub(super) fn cut_into(
        device: Device,
        block_rows: usize,
        strip_rows: usize,
        kept_blocks: usize,
        keeps_coefficients: bool,
    ) -> Self {
        let plan = Plan {
            block_rows,
            strip_rows,
            portion_rows: usize::MAX,
            kept_blocks,
            keeps_coefficients,
        };
        let bytes = DeviceBytes {
            activations: 0,
            coefficients: 0,
            working: 0,
        };
        Self::with_plan(device, plan, bytes)
    }

    /// One on the same device for the rows that k-means samples.
    pub(crate) fn for_sample(&self) -> Self {
        Self::with_plan(self.device.clone(), self.plan, self.bytes)
    }

    /// Prepares rows as a fit does.
    pub(crate) fn prepare(&mut self, preprocessing: &Preprocessing) -> Result<()> {
        self.rows.prepare(preprocessing)
    }

    /// What stays on the device from one pass to the next, in words: bytes of `source` and of the
    /// coefficients.
    pub fn kept(&self, source: &dyn ActivationSource) -> String {
        let human = crate::disk::human_bytes;
        let n = source.shape().0.max(1);
        let rows = n.min(self.plan.kept_blocks.saturating_mul(self.plan.block_rows));
        let all = self.bytes.activations;
        let activations = (u128::from(all) * rows as u128 / n as u128) as u64;
        let dtype = source.stored_dtype().name();
        let rows = match activations {
            0 => format!(
                "no activations stay there ({} in {dtype} are sent in each pass)",
                human(all)
            ),
            kept if kept < all => format!(
                "{} of {} of activations stay there in {dtype}, the rest is sent in each pass",
                human(kept),
                human(all)
            ),
            _ => format!("{} of activations stay there in {dtype}", human(all)),
        };
        if self.plan.keeps_coefficients {
            format!(
                "{rows}, and {} of coefficients",
                human(self.bytes.coefficients)
            )
        } else {
            format!("{rows}; coefficients go there and back in each pass")
        }
    }

    /// Takes the coefficients of a state onto the device, where they are to stay there.
    ///
    /// # Errors
    /// Those of the device, but for a full one: then they stay on the host.
    pub(crate) fn hold(&self, state: &mut State) -> Result<()> {
        if state.on_device.is_some() || !self.keeps_coefficients.load(Ordering::Relaxed) {
            return Ok(());
        }
        let strips = self.plan.strips(state.y.rows);
        match DeviceCoefficients::of(&state.y, strips, &self.device) {
            Ok(coefficients) => {
                state.on_device = Some(coefficients);
                Ok(())
            }
            Err(e) if e.is_device_full() => {
                self.keeps_coefficients.store(false, Ordering::Relaxed);
                tracing::warn!(
                    "the GPU's memory is full: the coefficients stay on the host and go there and back in each pass"
                );
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// One pass over A: `next` gets the coefficients of `state` after `step` (`None`: the same ones,
    /// which are not copied), and its sums become those of them, as [`Stream::pass`] computes them.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of the device.
    pub(crate) fn pass(
        &self,
        stream: &Stream<'_>,
        ctx: &TaskCtx,
        state: &State,
        next: &mut State,
        step: Option<&CoefficientSweeps<'_>>,
        gather: Gather<'_>,
    ) -> Result<()> {
        let (k, d) = (state.y.k, stream.d);
        // Those of the sweep before the last make room.
        next.on_device = None;
        let sums = &mut next.sums;
        sums.reset(stream, k, gather);
        let features = step
            .map(|step| DeviceFeatures::new(step, &self.device))
            .transpose()?;
        let mut products = Tensor::zeros((k, d), DType::F32, &self.device)?;
        let mut coefficients = DeviceCoefficients::default();
        let stays = state.on_device.is_some();
        for strip in self.plan.strips(stream.n) {
            self.portions(strip, usize::MAX, ctx, |rows| {
                let before = state.coefficients();
                let part =
                    self.part_of_pass(stream, ctx, before, &rows, features.as_ref(), &products)?;
                if features.is_some() && !stays {
                    coefficients::fetch(&part.lines, rows.start, &mut next.y)?;
                }
                part.add_to(sums, rows.start);
                products = part.products;
                if features.is_some() && stays {
                    coefficients.push(rows.start, part.lines);
                }
                Ok(())
            })?;
        }
        let dense = products.flatten_all()?.to_vec1::<f32>()?;
        sums.products = match gather {
            Gather::Dense => dense,
            Gather::Support(features) => columns::at_entries(features, &dense),
        };
        if features.is_some() && stays {
            next.on_device = Some(coefficients);
        }
        Ok(())
    }

    /// yᵀQy of each of `n` rows, for k × k values of Q.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn quadratic_forms(
        &self,
        at: CoefficientsAt<'_>,
        n: usize,
        q: &[f64],
    ) -> Result<Vec<f32>> {
        let k = q.len().isqrt();
        let narrow: Vec<f32> = q.iter().map(|&v| v as f32).collect();
        let q = Tensor::from_vec(narrow, (k, k), &self.device)?;
        let ones = Tensor::ones((1, k), DType::F32, &self.device)?;
        let mut out = Vec::with_capacity(n.next_multiple_of(PANEL));
        let ctx = TaskCtx::silent();
        self.portions(0..n, self.plan.block_rows, &ctx, |rows| {
            let y = at.lines(rows, &self.device)?;
            let forms = ones.matmul(&(q.matmul(&y)? * &y)?)?;
            out.extend(forms.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
        out.truncate(n);
        Ok(out)
    }

    fn part_of_pass(
        &self,
        stream: &Stream<'_>,
        ctx: &TaskCtx,
        before: CoefficientsAt<'_>,
        rows: &Range<usize>,
        features: Option<&DeviceFeatures>,
        products: &Tensor,
    ) -> Result<PartOfPass> {
        let pieces = self.rows.pieces(stream, rows.clone())?;
        // A strip of one block is widened once, a longer one again for its products with Y.
        let only = match &pieces[..] {
            [piece] => Some(self.rows.widen(piece)?),
            _ => None,
        };
        let wide = |piece| match &only {
            Some(a) => Ok(a.clone()),
            None => self.rows.widen(piece),
        };
        let mut lines = before.lines(rows.clone(), &self.device)?;
        let (k, padded) = lines.dims2()?;
        let mut row_fit = vec![0.0; padded];
        if let Some(features) = features {
            let p = Tensor::zeros((k, padded), DType::F32, &self.device)?;
            for piece in &pieces {
                ctx.check()?;
                let part = features.z.matmul(&wide(piece)?.t()?)?;
                p.slice_set(&part, 1, piece.first - rows.start)?;
            }
            lines = lines.broadcast_mul(&features.scales)?;
            features.descend(&lines, &p)?;
            row_fit = features.row_fit(&lines, &p)?.flatten_all()?.to_vec1()?;
        }
        let mut products = products.clone();
        let mut gram = Tensor::zeros((k, k), DType::F32, &self.device)?;
        for piece in &pieces {
            ctx.check()?;
            let at = piece.rows();
            let y = lines
                .narrow(1, at.start - rows.start, at.len())?
                .contiguous()?;
            products = (products + y.matmul(&wide(piece)?)?)?;
            gram = (gram + y.matmul(&y.t()?)?)?;
        }
        Ok(PartOfPass {
            gram: gram.flatten_all()?.to_vec1()?,
            totals: lines.sum(1)?.to_vec1()?,
            row_fit,
            products,
            lines,
        })
    }

    /// Calls `work` with consecutive parts of `rows`, at most `most` rows each and fewer where the
    /// device has been full; a part that fills it is worked on again in smaller ones. What `work`
    /// changes, it changes only when it succeeds.
    fn portions(
        &self,
        rows: Range<usize>,
        most: usize,
        ctx: &TaskCtx,
        mut work: impl FnMut(Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut first = rows.start;
        while first < rows.end {
            ctx.check()?;
            let portion = || self.portion.lock().unwrap_or_else(PoisonError::into_inner);
            let at_once = (portion().most().min(most) / PANEL).max(1) * PANEL;
            let now = first..rows.end.min(first.saturating_add(at_once));
            match work(now.clone()) {
                Ok(()) => first = now.end,
                Err(e) => {
                    if e.is_device_full() {
                        self.rows.keep_no_more();
                    }
                    portion().shrink(e, &self.device, (now.len(), PANEL), "rows")?;
                }
            }
        }
        Ok(())
    }
}

impl PartOfPass {
    /// Adds the sums of rows from `first` on, but for AᵀY.
    fn add_to(&self, sums: &mut PassSums, first: usize) {
        let add = |totals: &mut [f64], values: &[f32]| {
            totals
                .iter_mut()
                .zip(values)
                .for_each(|(total, &v)| *total += f64::from(v));
        };
        add(&mut sums.gram, &self.gram);
        add(&mut sums.totals, &self.totals);
        let fit = &self.row_fit;
        sums.fit += fit.iter().map(|&v| f64::from(v)).sum::<f64>();
        sums.row_fit[first..first + fit.len()].copy_from_slice(fit);
    }
}
