//! Whether a device multiplies quantised blocks rightly: a small product of each type is held
//! against plain arithmetic here, because candle launches its kernels for blocks without asking
//! whether they ran.
//!
//! Knows nothing of layers.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use super::linear::{Kernel, on_device};
use crate::error::Result;
use crate::model::weights::{StoredTensor, Weights};

/// Rows of a matrix that are multiplied: more than a tile of candle's kernels, and not a multiple
/// of one.
const ROWS: usize = 135;
/// Rows that they are multiplied with: the kernels for a few and for many.
const INPUTS: [usize; 2] = [1, 9];
/// Largest difference in norm, relative to the product's norm, of a product whose input is
/// quantised to eight bits, and of one with widened weights. Rounding gives less than a fifth of
/// them; a kernel that did not run or reads the wrong place gives more than 1.
pub(super) const TOLERANCE: [f64; 2] = [0.05, 0.02];

/// How a matrix of blocks is multiplied with `[rows, in]`.
pub(super) type Multiply<'a> = &'a dyn Fn(&Arc<QTensor>, &Tensor, Kernel) -> Result<Tensor>;

/// Types of blocks that candle stores and widens on a device but has no products for.
pub(super) fn has_products(dtype: GgmlDType) -> bool {
    !matches!(dtype, GgmlDType::Q8_1 | GgmlDType::Q8K)
}

/// The types of a file's blocks that are to be widened when they are loaded, and what the user is
/// told of it.
pub(super) fn widened_types(
    weights: &Weights,
    device: &Device,
    dtype: DType,
) -> Result<(Vec<GgmlDType>, Vec<String>)> {
    choose(weights, device, dtype, &multiply)
}

/// `x Wᵀ` of blocks, as the decoder multiplies them.
pub(super) fn multiply(w: &Arc<QTensor>, x: &Tensor, kernel: Kernel) -> Result<Tensor> {
    match kernel {
        Kernel::Quantised => on_device(w, x, Some(&x.to_dtype(DType::F32)?)),
        Kernel::Dequantised => on_device(w, x, None),
    }
}

fn choose(
    weights: &Weights,
    device: &Device,
    dtype: DType,
    multiply: Multiply<'_>,
) -> Result<(Vec<GgmlDType>, Vec<String>)> {
    let mut names: Vec<&str> = weights.names().collect();
    names.sort_unstable();
    let (mut seen, mut widened, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for tensor in names.iter().filter_map(|name| weights.get(name)) {
        let kind = tensor.dtype();
        if !tensor.is_quantised() || tensor.shape().len() != 2 || seen.contains(&kind) {
            continue;
        }
        seen.push(kind);
        if !has_products(kind) {
            widened.push(kind);
            notes.push(format!(
                "{kind:?} weights are widened when they are loaded: there are no products of them on a device"
            ));
        } else if let Some(problem) = problem(tensor, device, dtype, multiply) {
            widened.push(kind);
            notes.push(format!(
                "{kind:?} weights are widened when they are loaded: a product of them on the device {problem}"
            ));
        }
    }
    Ok((widened, notes))
}

/// What is wrong with the products of a matrix on a device, as the end of a sentence; `None` where
/// they are right.
fn problem(
    tensor: &StoredTensor,
    device: &Device,
    dtype: DType,
    multiply: Multiply<'_>,
) -> Option<String> {
    match differences(tensor, device, dtype, multiply) {
        Ok(Some(found)) => {
            let wrong = found
                .into_iter()
                .zip(TOLERANCE)
                .find(|&(e, most)| e.is_nan() || e > most)?;
            Some(format!(
                "differs from the CPU's by {:.1e} of its norm (at most {:.0e})",
                wrong.0, wrong.1
            ))
        }
        // Weights that are not finite are found where they are used.
        Ok(None) => None,
        Err(e) => Some(format!("fails ({e})")),
    }
}

/// The largest difference in norm, relative to the product's norm, between a matrix's products on a
/// device and here: with quantised inputs, and with widened weights. `None` where the weights are
/// not finite.
pub(super) fn differences(
    tensor: &StoredTensor,
    device: &Device,
    dtype: DType,
    multiply: Multiply<'_>,
) -> Result<Option<[f64; 2]>> {
    let (rows, cols) = (tensor.rows().min(ROWS), tensor.cols());
    let storage = QStorage::from_data(tensor.rows_data(0..rows).into(), device, tensor.dtype())?;
    let blocks = Arc::new(QTensor::new(storage, (rows, cols))?);
    let mut wide = vec![0.0f32; rows * cols];
    tensor.dequantise(0..rows, &mut wide);
    let mut worst = [0.0f64; 2];
    for inputs in INPUTS {
        let x = scattered(inputs * cols);
        let exact: Vec<f64> = x
            .chunks_exact(cols)
            .flat_map(|x| wide.chunks_exact(cols).map(move |w| dot(x, w)))
            .collect();
        let norm = exact.iter().map(|v| v * v).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Ok(None);
        }
        let x = Tensor::from_vec(x, (inputs, cols), device)?.to_dtype(dtype)?;
        for (kernel, worst) in [Kernel::Quantised, Kernel::Dequantised]
            .into_iter()
            .zip(&mut worst)
        {
            let computed: Vec<f32> = multiply(&blocks, &x, kernel)?
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1()?;
            let apart = exact
                .iter()
                .zip(&computed)
                .map(|(a, &b)| (a - f64::from(b)).powi(2))
                .sum::<f64>()
                .sqrt();
            let relative = apart / norm.max(f64::MIN_POSITIVE);
            // NaN is the worst of all.
            *worst = if relative.is_nan() {
                f64::NAN
            } else {
                worst.max(relative)
            };
        }
    }
    Ok(Some(worst))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

/// Values between −1 and 1 without an order, the same ones every time.
pub(super) fn scattered(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// A matrix of each type of blocks, with values of a model's size.
pub(super) fn samples() -> Result<Vec<StoredTensor>> {
    const TYPES: [GgmlDType; 12] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q8_1,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::Q8K,
    ];
    let shape = (ROWS, 512);
    let mut values = scattered(shape.0 * shape.1);
    values.iter_mut().for_each(|v| *v *= 0.05);
    let values = Tensor::from_vec(values, shape, &Device::Cpu)?;
    TYPES
        .into_iter()
        .map(|kind| {
            let blocks = QTensor::quantize(&values, kind)?;
            StoredTensor::in_memory(&blocks.data()?, kind, vec![shape.0, shape.1])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::testing::GgufWriter;

    #[test]
    fn the_products_of_every_type_are_right_here() {
        for tensor in samples().unwrap() {
            if !has_products(tensor.dtype()) {
                continue;
            }
            for dtype in [DType::F32, DType::BF16] {
                let found = differences(&tensor, &Device::Cpu, dtype, &multiply).unwrap();
                let [quantised, widened] = found.unwrap();
                // Well below what is allowed, and not zero: eight bits are eight bits.
                assert!(
                    quantised < TOLERANCE[0] / 3.0 && quantised > 1e-5,
                    "{:?} {dtype:?}: {quantised}",
                    tensor.dtype()
                );
                assert!(
                    widened < TOLERANCE[1] / 3.0,
                    "{:?} {dtype:?}: {widened}",
                    tensor.dtype()
                );
            }
        }
    }

    /// A GGUF file with a matrix of each of some types.
    fn weights(kinds: &[(GgmlDType, u32)]) -> (tempfile::TempDir, Weights) {
        let mut file = GgufWriter::new().string("general.architecture", "llama");
        for tensor in samples().unwrap() {
            if let Some((_, code)) = kinds.iter().find(|(kind, _)| *kind == tensor.dtype()) {
                let name = format!("blk.0.{:?}", tensor.dtype());
                file = file.tensor(&name, &[512, ROWS as u64], *code, tensor.data());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, file.bytes()).unwrap();
        let weights = Weights::open_gguf(&path).unwrap();
        (dir, weights)
    }

    #[test]
    fn a_type_that_is_multiplied_wrongly_is_widened_and_the_user_is_told() {
        let (_dir, weights) = weights(&[(GgmlDType::Q4_0, 2), (GgmlDType::Q6K, 14)]);
        let of =
            |multiply: Multiply<'_>| choose(&weights, &Device::Cpu, DType::F32, multiply).unwrap();
        assert_eq!(of(&multiply), (Vec::new(), Vec::new()));

        let of_q6 =
            |w: &Arc<QTensor>, kernel| w.dtype() == GgmlDType::Q6K && kernel == Kernel::Quantised;
        // A launch that never ran leaves what lay in memory; one that fails says so; NaN is wrong.
        let zeros = |w: &Arc<QTensor>, x: &Tensor, kernel| -> Result<Tensor> {
            let right = multiply(w, x, kernel)?;
            Ok(if of_q6(w, kernel) {
                right.zeros_like()?
            } else {
                right
            })
        };
        let nan = |w: &Arc<QTensor>, x: &Tensor, kernel| -> Result<Tensor> {
            let right = multiply(w, x, kernel)?;
            Ok(if of_q6(w, kernel) {
                (right * f64::NAN)?
            } else {
                right
            })
        };
        let fails = |w: &Arc<QTensor>, x: &Tensor, kernel| -> Result<Tensor> {
            if of_q6(w, kernel) {
                return Err(crate::Error::refused("no kernel image"));
            }
            multiply(w, x, kernel)
        };
        for (multiply, words) in [
            (&zeros as Multiply<'_>, "differs from the CPU's by 1.0e0"),
            (&nan, "differs from the CPU's by NaN"),
            (&fails, "fails (no kernel image)"),
        ] {
            let (widened, notes) = of(multiply);
            assert_eq!(widened, [GgmlDType::Q6K]);
            assert!(notes.len() == 1 && notes[0].contains(words), "{notes:?}");
        }
    }

    #[test]
    fn types_without_products_are_widened() {
        let (_dir, weights) = weights(&[(GgmlDType::Q8K, 15), (GgmlDType::Q8_0, 8)]);
        let found = choose(&weights, &Device::Cpu, DType::F32, &multiply).unwrap();
        assert!(
            found.0 == [GgmlDType::Q8K] && found.1[0].contains("no products"),
            "{found:?}"
        );
    }
}
