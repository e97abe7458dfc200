//! A fit on a device (a GPU): the steps that run there, as products of dense tensors, and the data
//! that stay there between passes.
//!
//! | on the device | on the host |
//! | --- | --- |
//! | the assignment of k-means and the sums of its clusters | the choice of its first rows; the random and the SVD start |
//! | a pass: products with Z and Y, the HALS sweeps, AᵀY, YᵀY | the statistics of A before a fit, which hash every value |
//! | the errors of all rows, for revival and where rows are weighted | the residual of the few rows that features are revived at |
//! | the squared error of the finished factors | the step on Z, whose supports are sparse |
//!
//! The steps are those of the CPU, but sums are taken in another order: results agree within
//! rounding, not to the bit. A stays on the device as it is stored, and Y in f32, as far as its
//! memory allows; Y is copied back where the host needs it: for snapshots, checkpoints and the end.
//! Invariants: which data stay on the device changes no bit of a result; when the device runs out
//! of memory, it gets fewer rows at a time.

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

pub(crate) use coefficients::{CoefficientsRef, DeviceCoefficients};
use features::DeviceFeatures;
pub use measure::PassRates;
pub use plan::DeviceBytes;
use plan::{FitShape, Plan};
use rows::DeviceRows;

/// What a fit computes on the CPU even when a device runs its passes, as a phrase for the user.
pub const CPU_STEPS: &str =
    "the activations are checked, features stepped and the SVD start made on the CPU";

/// The step on the coefficients of every row: Y is multiplied by `scales`, then updated by HALS
/// sweeps with relaxation, as in [`crate::matrix::panel::hals_sweep`].
pub(crate) struct CoefficientSweeps<'s> {
    /// Z, k sparse columns of unit norm.
    pub(crate) features: &'s SparseColumns,
    /// The factor of each feature's coefficients before the sweeps, k values.
    pub(crate) scales: &'s [f32],
    /// ZᵀZ, k × k.
    pub(crate) q: &'s [f64],
    /// λ of the penalty λΣY.
    pub(crate) penalty: f32,
    /// The number of HALS sweeps.
    pub(crate) sweeps: usize,
}

/// A device that runs the passes of a fit, with the rows and coefficients that stay in its memory.
pub struct Accelerator {
    device: Device,
    rows: DeviceRows,
    plan: Plan,
    bytes: DeviceBytes,
    /// The largest number of rows that one step processes; it shrinks when the device is full.
    portion: Mutex<Portion>,
    keeps_coefficients: AtomicBool,
}

/// The result of a pass on a portion of the rows: their new coefficients and the sums over them.
struct PortionSums {
    /// The updated coefficients, k × rows.
    lines: Tensor,
    /// AᵀY of these rows and of all portions before, k × d.
    products: Tensor,
    /// YᵀY of these rows, k × k.
    gram: Vec<f32>,
    /// Σ_i Y_ij of each feature j.
    totals: Vec<f32>,
    /// Σ_j P_ij Y_ij of each row i.
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

    /// The device memory in bytes of a fit to n × d activations of the type `stored` whose
    /// activations and coefficients all stay on the device.
    pub fn device_bytes(&self, shape: (usize, usize), stored: CacheDtype) -> DeviceBytes {
        self.device_shape(shape, stored).bytes()
    }
}

impl Accelerator {
    /// Plans a fit of `config` to `source` on a device with `free` bytes of memory (`None`:
    /// unknown, and nothing stays there between passes).
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

    /// An accelerator with blocks and strips of the given sizes, which keeps `kept_blocks` blocks.
    #[cfg(test)]
    pub(super) fn with_block_sizes(
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

    /// An accelerator on the same device for the rows that k-means samples.
    pub(crate) fn for_sample(&self) -> Self {
        Self::with_plan(self.device.clone(), self.plan, self.bytes)
    }

    /// Sets the preprocessing that is applied to every row of the following passes.
    pub(crate) fn prepare(&mut self, preprocessing: &Preprocessing) -> Result<()> {
        self.rows.prepare(preprocessing)
    }

    /// A phrase that tells the user how many bytes of `source` and of the coefficients stay on the
    /// device between passes.
    pub fn describe_residency(&self, source: &dyn ActivationSource) -> String {
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

    /// Copies the coefficients of a state to the device if the plan keeps coefficients there.
    ///
    /// # Errors
    /// Errors of the device, except that it is full: the coefficients then stay on the host and the
    /// user is warned.
    pub(crate) fn upload_coefficients(&self, state: &mut State) -> Result<()> {
        if state.on_device.is_some() || !self.keeps_coefficients.load(Ordering::Relaxed) {
            return Ok(());
        }
        let strips = self.plan.strips(state.y.rows);
        match DeviceCoefficients::from_panels(&state.y, strips, &self.device) {
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

    /// One pass over A: `next` gets the coefficients of `state` after `step` and their sums, as
    /// [`Stream::pass`] computes them. Without a step only the sums are computed, for the
    /// coefficients of `state`.
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
        // The coefficients of the sweep before the last are dropped first, to free device memory.
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
            self.for_each_portion(strip, usize::MAX, ctx, |rows| {
                let before = state.coefficients();
                let part =
                    self.process_portion(stream, ctx, before, &rows, features.as_ref(), &products)?;
                if features.is_some() && !stays {
                    coefficients::download(&part.lines, rows.start, &mut next.y)?;
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
    /// Errors of the device.
    pub(crate) fn quadratic_forms(
        &self,
        at: CoefficientsRef<'_>,
        n: usize,
        q: &[f64],
    ) -> Result<Vec<f32>> {
        let k = q.len().isqrt();
        let narrow: Vec<f32> = q.iter().map(|&v| v as f32).collect();
        let q = Tensor::from_vec(narrow, (k, k), &self.device)?;
        let ones = Tensor::ones((1, k), DType::F32, &self.device)?;
        let mut out = Vec::with_capacity(n.next_multiple_of(PANEL));
        let ctx = TaskCtx::silent();
        self.for_each_portion(0..n, self.plan.block_rows, &ctx, |rows| {
            let y = at.lines(rows, &self.device)?;
            let forms = ones.matmul(&(q.matmul(&y)? * &y)?)?;
            out.extend(forms.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
        out.truncate(n);
        Ok(out)
    }

    fn process_portion(
        &self,
        stream: &Stream<'_>,
        ctx: &TaskCtx,
        before: CoefficientsRef<'_>,
        rows: &Range<usize>,
        features: Option<&DeviceFeatures>,
        products: &Tensor,
    ) -> Result<PortionSums> {
        let pieces = self.rows.pieces(stream, rows.clone())?;
        // If the portion lies in one block, its rows are converted to f32 once for both products;
        // otherwise a second time for the products with Y, since all of them at once could fill the
        // device.
        let only = match &pieces[..] {
            [piece] => Some(self.rows.prepared(piece)?),
            _ => None,
        };
        let in_f32 = |piece| match &only {
            Some(a) => Ok(a.clone()),
            None => self.rows.prepared(piece),
        };
        let mut lines = before.lines(rows.clone(), &self.device)?;
        let (k, padded) = lines.dims2()?;
        let mut row_fit = vec![0.0; padded];
        if let Some(features) = features {
            let p = Tensor::zeros((k, padded), DType::F32, &self.device)?;
            for piece in &pieces {
                ctx.check()?;
                let part = features.z.matmul(&in_f32(piece)?.t()?)?;
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
            products = (products + y.matmul(&in_f32(piece)?)?)?;
            gram = (gram + y.matmul(&y.t()?)?)?;
        }
        Ok(PortionSums {
            gram: gram.flatten_all()?.to_vec1()?,
            totals: lines.sum(1)?.to_vec1()?,
            row_fit,
            products,
            lines,
        })
    }

    /// Calls `work` with consecutive portions of `rows`, each of at most `most` rows. If the device
    /// runs out of memory, the portion is tried again with fewer rows, so `work` must change its
    /// results only when it succeeds.
    fn for_each_portion(
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
                        self.rows.stop_keeping();
                    }
                    portion().shrink(e, &self.device, (now.len(), PANEL), "rows")?;
                }
            }
        }
        Ok(())
    }
}

impl PortionSums {
    /// Adds YᵀY, the totals and the row fits of the rows from `first` on to `sums`; AᵀY is added on
    /// the device.
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
