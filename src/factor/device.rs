//! A pass on a device (a GPU): the products and the HALS sweeps of a block as dense tensors.
//!
//! The steps are those of the panels, but sums have another order: results agree within rounding, not
//! to the bit. Blocks are large, because a HALS sweep launches a few kernels for each feature whatever
//! the number of rows; they stay on the device from one pass to the next as far as its memory allows.
//! Coefficients stay with the caller.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use super::SparseColumns;
use super::coefficient_step::RELAXATION;
use super::columns;
use super::panels::Panels;
use super::pass::{Gather, PassSums};
use super::stream::{Stream, densify};
use crate::error::Result;
use crate::matrix::panel::PANEL;
use crate::task::TaskCtx;

/// Bytes of A in a block on the device.
const BLOCK_BYTES: usize = 256 << 20;
/// The divisor of a device's free memory that gives the bytes that A may keep there.
const FREE_SHARE: u64 = 2;

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

/// A device that takes passes, and the blocks of A that stay on it.
pub(crate) struct Accelerator {
    device: Device,
    block_rows: usize,
    /// The number of blocks of A that may stay on the device.
    max_blocks: usize,
    kept: Mutex<Vec<Tensor>>,
}

/// Whether a device with `free` bytes of memory can keep n × d activations from one pass to the next.
pub(crate) fn fits_in_memory((n, d): (usize, usize), free: u64) -> bool {
    4 * n as u64 * d as u64 <= free / FREE_SHARE
}

impl Accelerator {
    /// An accelerator for rows of d values on a device with `free` bytes of memory.
    pub(crate) fn new(device: Device, d: usize, free: u64) -> Self {
        Self::with_block(
            device,
            d,
            free,
            (BLOCK_BYTES / (4 * d.max(1))).max(PANEL) / PANEL * PANEL,
        )
    }

    /// As [`Self::new`], with blocks of `block_rows` rows, a multiple of [`PANEL`].
    pub(crate) fn with_block(device: Device, d: usize, free: u64, block_rows: usize) -> Self {
        let max_blocks = free / FREE_SHARE / (4 * d * block_rows).max(1) as u64;
        Self {
            device,
            block_rows,
            max_blocks: usize::try_from(max_blocks).unwrap_or(usize::MAX),
            kept: Mutex::default(),
        }
    }

    /// One pass over A: `next` becomes `y` after `step`, and `sums` become those of `next`, as
    /// [`Stream::pass`] computes them.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of the device.
    pub(crate) fn pass(
        &self,
        stream: &Stream<'_>,
        ctx: &TaskCtx,
        y: &Panels,
        next: &mut Panels,
        step: &CoefficientSweeps<'_>,
        gather: Gather<'_>,
        sums: &mut PassSums,
    ) -> Result<()> {
        let (k, d) = (y.k, stream.d);
        let z = DeviceFeatures::new(step, k, d, &self.device)?;
        let mut products = Tensor::zeros((k, d), z.z.dtype(), &self.device)?;
        sums.reset(stream, k, gather);
        for (i, first) in (0..stream.n).step_by(self.block_rows).enumerate() {
            ctx.check()?;
            let rows = first..stream.n.min(first + self.block_rows);
            let a = self.block(stream, i, rows.clone())?;
            let span = first * k..rows.end.div_ceil(PANEL) * PANEL * k;
            let panels = (span.len() / (k * PANEL), k, PANEL);
            let before = Tensor::from_slice(&y.data[span.clone()], panels, &self.device)?;
            let lines = before
                .transpose(0, 1)?
                .reshape((k, panels.0 * PANEL))?
                .broadcast_mul(&z.scales)?;
            let p =
                z.z.matmul(&a.t()?)?
                    .pad_with_zeros(1, 0, lines.dim(1)? - rows.len())?;
            z.descend(&lines, &p, step)?;
            products = (products + lines.narrow(1, 0, rows.len())?.contiguous()?.matmul(&a)?)?;
            add_sums(sums, first, &lines, &p)?;
            let after = lines
                .reshape((k, panels.0, PANEL))?
                .transpose(0, 1)?
                .flatten_all()?;
            next.data[span].copy_from_slice(&after.to_vec1::<f32>()?);
        }
        let dense = products.flatten_all()?.to_vec1::<f32>()?;
        sums.products = match gather {
            Gather::Dense => dense,
            Gather::Support(features) => columns::at_entries(features, &dense),
        };
        Ok(())
    }

    /// Block `i` of A on the device: kept from an earlier pass, or sent now.
    fn block(&self, stream: &Stream<'_>, i: usize, rows: Range<usize>) -> Result<Tensor> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = kept.get(i) {
            return Ok(block.clone());
        }
        let block = stream.fetch(rows)?;
        let tensor = Tensor::from_slice(&block.data, (block.rows, block.cols), &self.device)?;
        stream.release(block);
        if i == kept.len() && i < self.max_blocks {
            kept.push(tensor.clone());
        }
        Ok(tensor)
    }
}

/// Z and what follows from it, on the device.
struct DeviceFeatures {
    /// Zᵀ, k × d, a feature a row.
    z: Tensor,
    /// What Y is multiplied by before the step, a factor a feature, k × 1.
    scales: Tensor,
    /// ZᵀZ without its diagonal, k × k.
    others: Tensor,
    /// 1 / Q_jj, and 0 for a column without norm.
    inverse: Vec<f64>,
}

impl DeviceFeatures {
    fn new(step: &CoefficientSweeps<'_>, k: usize, d: usize, device: &Device) -> Result<Self> {
        let off_diagonal = |(at, &v): (usize, &f64)| if at / k == at % k { 0.0 } else { v as f32 };
        let others: Vec<f32> = step.q.iter().enumerate().map(off_diagonal).collect();
        let inverse =
            |j: usize| Some(step.q[j * k + j]).filter(|&q| q > f64::from(f32::MIN_POSITIVE));
        Ok(Self {
            z: Tensor::from_vec(densify(step.features), (k, d), device)?,
            scales: Tensor::from_slice(step.scales, (k, 1), device)?,
            others: Tensor::from_vec(others, (k, k), device)?,
            inverse: (0..k).map(|j| inverse(j).map_or(0.0, f64::recip)).collect(),
        })
    }

    /// The HALS sweeps: updates the coefficients `lines` (k × rows) in place, feature by feature; `p` is
    /// ZᵀAᵀ (k × rows).
    fn descend(&self, lines: &Tensor, p: &Tensor, step: &CoefficientSweeps<'_>) -> Result<()> {
        let (target, relaxation) = ((p - f64::from(step.penalty))?, f64::from(RELAXATION));
        for j in (0..step.sweeps).flat_map(|_| 0..self.inverse.len()) {
            let others = self.others.narrow(0, j, 1)?.matmul(lines)?;
            let optimum = ((target.narrow(0, j, 1)? - others)? * (relaxation * self.inverse[j]))?;
            let line = (optimum - (lines.narrow(0, j, 1)? * (relaxation - 1.0))?)?.relu()?;
            lines.slice_set(&line, 0, j)?;
        }
        Ok(())
    }
}

/// Adds a block's part of all sums except AᵀY; `first` is the index of its first row.
fn add_sums(sums: &mut PassSums, first: usize, lines: &Tensor, p: &Tensor) -> Result<()> {
    let gram = lines.matmul(&lines.t()?)?.flatten_all()?.to_vec1::<f32>()?;
    sums.gram
        .iter_mut()
        .zip(gram)
        .for_each(|(sum, v)| *sum += f64::from(v));
    let totals = lines.sum(1)?.to_vec1::<f32>()?;
    sums.totals
        .iter_mut()
        .zip(totals)
        .for_each(|(sum, v)| *sum += f64::from(v));
    let fit = (lines * p)?.sum(0)?.to_vec1::<f32>()?;
    sums.fit += fit.iter().map(|&v| f64::from(v)).sum::<f64>();
    sums.row_fit[first..first + fit.len()].copy_from_slice(&fit);
    Ok(())
}
