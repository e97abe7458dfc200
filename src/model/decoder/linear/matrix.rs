//! One weight matrix: where its values are stored, and products with it that widen a part at a time.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use super::super::vector;
use crate::error::Result;
use crate::matrix::gemm::{View, product};
use crate::matrix::rowwise;
use crate::model::weights::StoredTensor;

/// Values of weights that are dequantised at a time.
const SCRATCH: usize = 1 << 21;

thread_local! {
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Where and how the values of a matrix are stored.
pub(super) enum WeightStorage {
    /// In the mapped file.
    Mapped(StoredTensor),
    /// On the device, in the compute dtype, `[out, in]`.
    Dense(Tensor),
    /// On the device, in its blocks.
    Quantised(Arc<QTensor>),
}

/// One weight matrix `[out, in]`.
pub(crate) struct Matrix {
    pub(super) storage: WeightStorage,
    pub(super) name: String,
    pub(super) out: usize,
    pub(super) cols: usize,
    /// StoredTensor `[in, out]` (Conv1D).
    transposed: bool,
}

/// Where weights are put when a model is opened.
#[derive(Clone)]
pub(crate) enum Placement {
    /// Left in the mapped file, computed by this crate's CPU kernels in f32.
    Mapped,
    /// Copied to a device, computed by candle's operations in a dtype.
    Device(Device, DType),
}

impl Placement {
    /// Whether both are the same device.
    pub(crate) fn is_on(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Device(a, _), Self::Device(b, _)) => a.same_device(b),
            _ => false,
        }
    }
}

impl Matrix {
    /// The matrix of a tensor whose shape was checked, copied to the device where there is one;
    /// `widened`: its blocks are not kept there.
    pub(crate) fn new(
        tensor: &StoredTensor,
        name: &str,
        transposed: bool,
        placement: &Placement,
        widened: bool,
    ) -> Result<Self> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let (out, cols) = if transposed {
            (cols, rows)
        } else {
            (rows, cols)
        };
        let storage = match placement {
            Placement::Mapped => WeightStorage::Mapped(tensor.clone()),
            Placement::Device(device, _) if tensor.is_quantised() && !widened => {
                let storage = QStorage::from_data(tensor.data().into(), device, tensor.dtype())?;
                WeightStorage::Quantised(Arc::new(QTensor::new(storage, tensor.shape().to_vec())?))
            }
            Placement::Device(device, dtype) => {
                let dense = dense(tensor, device)?;
                let dense = if transposed {
                    dense.t()?.contiguous()?
                } else {
                    dense
                };
                WeightStorage::Dense(dense.to_dtype(*dtype)?)
            }
        };
        Ok(Self {
            storage,
            name: name.to_owned(),
            out,
            cols,
            transposed,
        })
    }

    /// Whether a value is NaN or infinite; a scan of the whole matrix, for naming the cause of a
    /// failure.
    pub(super) fn is_damaged(&self) -> bool {
        let WeightStorage::Mapped(tensor) = &self.storage else {
            return false;
        };
        let mut row = vec![0.0; tensor.cols()];
        (0..tensor.rows()).any(|r| {
            tensor.dequantise(r..r + 1, &mut row);
            !vector::all_finite(&row)
        })
    }

    pub(super) fn mapped(&self) -> Option<&StoredTensor> {
        match &self.storage {
            WeightStorage::Mapped(tensor) => Some(tensor),
            WeightStorage::Dense(_) | WeightStorage::Quantised(_) => None,
        }
    }

    /// `out[:, at..at + self.out] = x Wᵀ` for the m rows of `x`; `out` is `[m, width]`.
    pub(super) fn dequantised(
        &self,
        tensor: &StoredTensor,
        x: &[f32],
        out: &mut [f32],
        at: usize,
        width: usize,
    ) {
        let (m, k) = (x.len() / self.cols, self.cols);
        let out = &mut out[at..];
        if !self.transposed {
            return rowwise::product(x, k, self.out, out, width, |rows, to| {
                tensor.dequantise(rows, to)
            });
        }
        if let Some(values) = tensor.as_f32() {
            let (x, w) = (View::rows(x, k), View::rows(values, self.out));
            return product((m, k, self.out), x, w, out, width, false, true);
        }
        let mut scratch = WIDENED.take();
        let step = (SCRATCH / self.out).clamp(1, k);
        scratch.resize(scratch.len().max(step * self.out), 0.0);
        for first in (0..k).step_by(step) {
            let count = step.min(k - first);
            let part = &mut scratch[..count * self.out];
            tensor.dequantise(first..first + count, part);
            let (x, w) = (View::rows(&x[first..], k), View::rows(part, self.out));
            product((m, count, self.out), x, w, out, width, first > 0, true);
        }
        WIDENED.set(scratch);
    }

    /// `out += y[:, at..at + self.out] W` for the m rows of `y`, which are `width` values apart;
    /// `out` is `[m, in]`.
    pub(super) fn add_transposed(
        &self,
        tensor: &StoredTensor,
        y: &[f32],
        at: usize,
        width: usize,
        out: &mut [f32],
    ) {
        let (m, k) = (out.len() / self.cols, self.cols);
        // As stored, W is [in, out] here: its transpose is what the forward pass would read.
        if self.transposed {
            let y: Vec<f32> = y
                .chunks_exact(width)
                .flat_map(|row| &row[at..at + self.out])
                .copied()
                .collect();
            let mut product = vec![0.0; out.len()];
            rowwise::product(&y, self.out, k, &mut product, k, |rows, to| {
                tensor.dequantise(rows, to)
            });
            return vector::axpy(out, 1.0, &product);
        }
        let mut scratch = WIDENED.take();
        let step = (SCRATCH / k).clamp(1, self.out);
        scratch.resize(scratch.len().max(step * k), 0.0);
        for first in (0..self.out).step_by(step) {
            let count = step.min(self.out - first);
            let part = &mut scratch[..count * k];
            tensor.dequantise(first..first + count, part);
            let (y, w) = (View::rows(&y[at + first..], width), View::rows(part, k));
            product((m, count, k), y, w, out, k, true, true);
        }
        WIDENED.set(scratch);
    }
}

/// The values of a stored tensor on a device: as they are stored, straight from the mapped file;
/// of blocks, widened to f32 here.
pub(crate) fn dense(tensor: &StoredTensor, device: &Device) -> Result<Tensor> {
    let stored = match tensor.dtype() {
        GgmlDType::F32 => DType::F32,
        GgmlDType::F16 => DType::F16,
        GgmlDType::BF16 => DType::BF16,
        _ => return Ok(Tensor::from_vec(tensor.to_f32(), tensor.shape(), device)?),
    };
    Ok(Tensor::from_raw_buffer(
        tensor.data(),
        stored,
        tensor.shape(),
        device,
    )?)
}
