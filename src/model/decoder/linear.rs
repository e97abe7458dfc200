//! Products with weights: one interface over mapped bytes (CPU) and device tensors (GPU),
//! dequantised or quantised.
//!
//! Owns the choice of kernel; knows nothing of layers. Invariant: the stored bytes are the one
//! resident copy: a dequantised product widens one part of one matrix at a time into a scratch that
//! is used again.

mod matrix;

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Storage, Tensor};
use rayon::prelude::*;

use super::vector;
use crate::error::Result;
use crate::model::weights::{Activations, StoredTensor};
use matrix::WeightStorage;
pub(crate) use matrix::{Matrix, Placement, dense};

/// Which kernel multiplies quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Weights are widened to f32: activations, logits of prompts, KL, the logit lens.
    Dequantised,
    /// Activations are quantised to eight bits and multiplied block by block: generated tokens of
    /// few rows.
    Quantised,
}

/// Values of weights that are widened at a time on a device (256 MiB).
const WIDENED_ON_DEVICE: usize = 1 << 26;
/// The number of weights from which a parallel task is worth its cost.
const TASK: usize = 1 << 17;

/// Matrices that multiply the same rows, their results side by side, with a bias.
pub(crate) struct Linear {
    parts: Vec<Matrix>,
    bias: Option<Vec<f32>>,
    device_bias: Option<Tensor>,
    out: usize,
}

impl Linear {
    /// Matrices with inputs of one width, and a bias as wide as all outputs together.
    pub(crate) fn new(
        parts: Vec<Matrix>,
        bias: Option<Vec<f32>>,
        placement: &Placement,
    ) -> Result<Self> {
        let out = parts.iter().map(|p| p.out).sum();
        let device_bias = match (placement, &bias) {
            (Placement::Device(device, dtype), Some(bias)) => {
                Some(Tensor::from_slice(bias, bias.len(), device)?.to_dtype(*dtype)?)
            }
            _ => None,
        };
        Ok(Self {
            parts,
            bias,
            device_bias,
            out,
        })
    }

    /// Its one matrix where that lies on a device in the compute dtype.
    pub(crate) fn dense(&self) -> Option<&Tensor> {
        match &self.parts[..] {
            [
                Matrix {
                    storage: WeightStorage::Dense(w),
                    ..
                },
            ] => Some(w),
            _ => None,
        }
    }

    /// The width of the result.
    pub(crate) fn out(&self) -> usize {
        self.out
    }

    /// The name of the first tensor that holds NaN or infinity.
    pub(crate) fn damaged(&self) -> Option<&str> {
        self.parts
            .iter()
            .find(|p| p.is_damaged())
            .map(|p| p.name.as_str())
    }

    /// `x Wᵀ + b` for `x` `[m, in]`.
    pub(crate) fn apply(&self, x: &Tensor, kernel: Kernel) -> Result<Tensor> {
        self.product(x, kernel, true)
    }

    /// Whether a bias is added.
    pub(crate) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// The product of each matrix apart, with its part of the bias, on a device. `wide`: the bias is
    /// added in f32, and so is the result, so that nothing is rounded between.
    pub(crate) fn apply_apart(
        &self,
        x: &Tensor,
        kernel: Kernel,
        wide: bool,
    ) -> Result<Vec<Tensor>> {
        // Quantised kernels take f32, and all parts take the same.
        let quantised = |p: &Matrix| matches!(p.storage, WeightStorage::Quantised(_));
        let in_f32 = kernel == Kernel::Quantised && self.parts.iter().any(quantised);
        let in_f32 = in_f32.then(|| x.to_dtype(DType::F32)).transpose()?;
        let dtype = if wide { DType::F32 } else { x.dtype() };
        let (mut out, mut at) = (Vec::with_capacity(self.parts.len()), 0);
        for part in &self.parts {
            let product = match &part.storage {
                WeightStorage::Dense(w) => x.matmul(&w.t()?)?,
                WeightStorage::Quantised(w) => on_device(w, x, in_f32.as_ref())?,
                WeightStorage::Mapped(_) => return Err(not_on_device()),
            };
            let product = product.to_dtype(dtype)?;
            out.push(match &self.device_bias {
                Some(bias) => {
                    let bias = bias.narrow(0, at, part.out)?.to_dtype(dtype)?;
                    product.broadcast_add(&bias)?
                }
                None => product,
            });
            at += part.out;
        }
        Ok(out)
    }

    /// `x Wᵀ + b` in f32 for few rows of f32, whatever the compute dtype: the weights are widened a
    /// part at a time.
    pub(crate) fn apply_in_f32(&self, x: &Tensor) -> Result<Tensor> {
        let mut out = Vec::new();
        for part in &self.parts {
            match &part.storage {
                WeightStorage::Dense(w) => {
                    let step = (WIDENED_ON_DEVICE / part.cols).max(1);
                    for first in (0..part.out).step_by(step) {
                        let w = w.narrow(0, first, step.min(part.out - first))?;
                        out.push(x.matmul(&w.to_dtype(DType::F32)?.t()?)?);
                    }
                }
                WeightStorage::Quantised(w) => {
                    out.push(x.matmul(&w.dequantize(x.device())?.t()?)?);
                }
                WeightStorage::Mapped(_) => return Err(not_on_device()),
            }
        }
        let out = joined(out)?;
        Ok(match &self.device_bias {
            Some(bias) => out.broadcast_add(&bias.to_dtype(DType::F32)?)?,
            None => out,
        })
    }

    /// `x Wᵀ` without the bias.
    pub(crate) fn apply_without_bias(&self, x: &Tensor) -> Result<Tensor> {
        self.product(x, Kernel::Dequantised, false)
    }

    /// `y W` for `y` `[m, out]`: what a change of the result says of the input.
    pub(crate) fn transposed(&self, y: &Tensor) -> Result<Tensor> {
        let m = y.dim(0)?;
        if self.parts.iter().all(|p| p.mapped().is_some()) {
            let cols = self.parts.first().map_or(0, |p| p.cols);
            let mut out = vec![0.0; m * cols];
            with_slice(y, |y| {
                let mut at = 0;
                for part in &self.parts {
                    if let Some(tensor) = part.mapped() {
                        part.add_transposed(tensor, y, at, self.out, &mut out);
                    }
                    at += part.out;
                }
            })?;
            return Ok(Tensor::from_vec(out, (m, cols), &Device::Cpu)?);
        }
        let (mut sum, mut at): (Option<Tensor>, _) = (None, 0);
        for part in &self.parts {
            let y = y.narrow(1, at, part.out)?.contiguous()?;
            at += part.out;
            let product = match &part.storage {
                WeightStorage::Dense(w) => y.matmul(w)?,
                WeightStorage::Quantised(w) => {
                    y.matmul(&w.dequantize(y.device())?.to_dtype(y.dtype())?)?
                }
                WeightStorage::Mapped(_) => continue,
            };
            sum = Some(match sum {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
        sum.ok_or_else(|| candle_core::Error::Msg("a product of no matrices".into()).into())
    }

    fn product(&self, x: &Tensor, kernel: Kernel, with_bias: bool) -> Result<Tensor> {
        if matches!(
            self.parts.first(),
            Some(Matrix {
                storage: WeightStorage::Mapped(_),
                ..
            })
        ) {
            let m = x.dim(0)?;
            let out = with_slice(x, |x| self.product_mapped(x, m, kernel, with_bias))?;
            return Ok(Tensor::from_vec(out, (m, self.out), &Device::Cpu)?);
        }
        if with_bias || self.device_bias.is_none() {
            return joined(self.apply_apart(x, kernel, false)?);
        }
        let without = self.parts.iter().map(|part| match &part.storage {
            WeightStorage::Dense(w) => Ok(x.matmul(&w.t()?)?),
            WeightStorage::Quantised(w) => on_device(w, x, None),
            WeightStorage::Mapped(_) => Err(not_on_device()),
        });
        joined(without.collect::<Result<_>>()?)
    }

    fn product_mapped(&self, x: &[f32], m: usize, kernel: Kernel, with_bias: bool) -> Vec<f32> {
        let mut out = vec![0.0; m * self.out];
        let stored: Vec<&StoredTensor> = self.parts.iter().filter_map(Matrix::mapped).collect();
        if kernel == Kernel::Quantised && stored.iter().all(|t| t.is_quantised()) {
            quantised(&stored, x, m, &mut out);
        } else {
            let mut at = 0;
            for (part, tensor) in self.parts.iter().zip(stored) {
                part.dequantised(tensor, x, &mut out, at, self.out);
                at += part.out;
            }
        }
        if let (Some(bias), true) = (&self.bias, with_bias) {
            vector::for_each_row(&mut out, self.out, |_, row| vector::axpy(row, 1.0, bias));
        }
        out
    }
}

/// `out = x [W₁ᵀ | W₂ᵀ | …]` for m rows of x, quantised to eight bits; all parts are one parallel
/// step.
fn quantised(parts: &[&StoredTensor], x: &[f32], m: usize, out: &mut [f32]) {
    let mut activations: Vec<Activations> = Vec::new();
    for part in parts {
        if !activations.iter().any(|a| a.fits(part.dtype())) {
            activations.push(part.quantise_activations(x));
        }
    }
    // For several rows of x the results are written column after column, so that those of a task lie
    // together.
    let mut columns = if m == 1 {
        Vec::new()
    } else {
        vec![0.0; out.len()]
    };
    let mut left: &mut [f32] = if m == 1 { out } else { &mut columns };
    let weights: usize = parts.iter().map(|p| p.rows() * p.cols()).sum();
    let tasks = (weights / TASK).clamp(1, 4 * rayon::current_num_threads());
    let mut work = Vec::new();
    for part in parts {
        let (part_out, rest) = std::mem::take(&mut left).split_at_mut(part.rows() * m);
        left = rest;
        let step = (weights / (tasks * part.cols()).max(1))
            .next_multiple_of(8)
            .max(8);
        let Some(x) = activations.iter().find(|a| a.fits(part.dtype())) else {
            continue;
        };
        work.extend(
            part_out
                .chunks_mut(step * m)
                .enumerate()
                .map(|(i, results)| (part, i * step, x, results)),
        );
    }
    let run = |(part, first, x, results): (&&StoredTensor, usize, &Activations, &mut [f32])| {
        part.quantised_products(first..first + results.len() / m, x, results);
    };
    if tasks == 1 {
        work.into_iter().for_each(run);
    } else {
        work.into_par_iter().for_each(run);
    }
    if m > 1 {
        let width = out.len() / m;
        for (r, line) in out.chunks_exact_mut(width).enumerate() {
            for (o, column) in line.iter_mut().zip(columns.chunks_exact(m)) {
                *o = column[r];
            }
        }
    }
}

/// `x Wᵀ` of quantised weights: by their own kernels where x is given in f32 too, else widened.
pub(super) fn on_device(w: &Arc<QTensor>, x: &Tensor, wide: Option<&Tensor>) -> Result<Tensor> {
    let dtype = x.dtype();
    if let Some(wide) = wide {
        let out = wide.contiguous()?.apply_op1_no_bwd(w.as_ref())?;
        return Ok(out.to_dtype(dtype)?);
    }
    // A card has kernels that widen to f16, which holds more digits than bf16 does, at half the
    // memory of f32.
    let w = if dtype != DType::F32 && x.device().is_cuda() {
        w.dequantize_f16(x.device())?
    } else {
        w.dequantize(x.device())?
    };
    Ok(x.matmul(&w.to_dtype(dtype)?.t()?)?)
}

/// Tensors side by side; a single one as it is.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    Ok(match parts.len() {
        1 => parts.swap_remove(0),
        _ => Tensor::cat(&parts, 1)?,
    })
}

fn not_on_device() -> crate::error::Error {
    candle_core::Error::Msg("weights of the CPU were asked for a device's product".into()).into()
}

/// Reads a contiguous f32 tensor on the CPU in place.
pub(crate) fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(cpu) = &*storage else {
        return Err(candle_core::Error::Msg(
            "a CPU kernel was given a tensor of another device".into(),
        )
        .into());
    };
    let all = cpu.as_slice::<f32>()?;
    let start = layout.start_offset();
    Ok(f(&all[start..start + layout.shape().elem_count()]))
}
