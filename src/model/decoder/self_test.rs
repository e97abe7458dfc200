//! What a decoder computes on a device, held against formulas in f64 and this crate's kernels: each
//! operation, a product of each quantised type, small networks of every kind, the first layers of a
//! real model.
//!
//! Knows nothing of rates and of what is printed. Invariant: the reference is computed on the CPU, in
//! f32 or better, by code that the device does not run, candle's CPU device neither.

mod formulas;
mod networks;

use candle_core::{D, DType, Device, Tensor};

use super::linear::Placement;
use super::ops::{self, NormWeights};
use super::products::{TOLERANCE, differences, has_products, multiply, samples, scattered};
use crate::error::Result;
use crate::model::config::{Activation, Norm, NormKind};

pub use networks::{first_layers, networks};

/// A comparison of a device with the CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was computed.
    pub name: String,
    /// In which type of numbers.
    pub dtype: &'static str,
    /// The norm of the difference relative to the norm of the CPU's result, or why there is none.
    pub found: std::result::Result<f64, String>,
    /// The largest difference that counts as equal.
    pub most: f64,
}

impl Comparison {
    fn new(name: impl Into<String>, dtype: DType, found: Result<f64>, most: f64) -> Self {
        Self {
            name: name.into(),
            dtype: dtype.as_str(),
            found: found.map_err(|e| e.to_string()),
            most,
        }
    }

    /// Whether the device computes what the CPU does.
    pub fn is_equal(&self) -> bool {
        self.found.as_ref().is_ok_and(|&found| found <= self.most)
    }
}

/// The types that a model computes in, with the largest relative difference of one operation and of
/// a network of a few layers.
const DTYPES: [(DType, f64, f64); 3] = [
    (DType::F32, 1e-5, 1e-4),
    (DType::F16, 3e-3, 1e-2),
    (DType::BF16, 2e-2, 6e-2),
];

/// Rows, inputs and outputs of the operations: no multiples of a tile.
const SHAPE: (usize, usize, usize) = (37, 264, 131);

/// What a device computes in a type, and the same by its formula.
type Operation = (fn(&Device, DType) -> Result<Tensor>, fn() -> Vec<f64>);

/// Every operation of candle that the decoder's passes are made of.
const OPERATIONS: [(&str, Operation); 13] = [
    (
        "product",
        (
            |device, dtype| {
                let (m, k, n) = SHAPE;
                let w = values((n, k), device, dtype)?;
                Ok(values((m, k), device, dtype)?.matmul(&w.t()?)?)
            },
            formulas::product,
        ),
    ),
    (
        "products of heads",
        (
            |device, dtype| {
                let q = values((2, 4, 19, 24), device, dtype)?;
                let k = values((2, 4, 45, 24), device, dtype)?;
                Ok(q.matmul(&k.t()?)?)
            },
            formulas::products_of_heads,
        ),
    ),
    (
        "RMS norm",
        (
            |device, dtype| norm(NormKind::Rms, device, dtype),
            formulas::rms_norm,
        ),
    ),
    (
        "layer norm",
        (
            |device, dtype| norm(NormKind::Layer, device, dtype),
            formulas::layer_norm,
        ),
    ),
    (
        "silu gate",
        (
            |device, dtype| activation(Activation::Silu, true, device, dtype),
            formulas::silu_gate,
        ),
    ),
    (
        "gelu gate",
        (
            |device, dtype| activation(Activation::GeluTanh, true, device, dtype),
            formulas::gelu_gate,
        ),
    ),
    (
        "gelu by erf",
        (
            |device, dtype| activation(Activation::Gelu, false, device, dtype),
            formulas::gelu_by_erf,
        ),
    ),
    (
        "relu squared",
        (
            |device, dtype| activation(Activation::Relu2, false, device, dtype),
            formulas::relu_squared,
        ),
    ),
    (
        "quick gelu",
        (
            |device, dtype| activation(Activation::QuickGelu, false, device, dtype),
            formulas::quick_gelu,
        ),
    ),
    // Scores are f32 in every type.
    (
        "softmax",
        (
            |device, dtype| {
                let scores = values((2, 4, 19, 45), device, dtype)?.to_dtype(DType::F32)?;
                Ok(candle_nn::ops::softmax_last_dim(&(scores * 8.0)?)?)
            },
            formulas::softmax,
        ),
    ),
    (
        "soft cap",
        (
            |device, dtype| {
                let scores = values((19, 45), device, dtype)?.to_dtype(DType::F32)?;
                ops::softcap(&(scores * 8.0)?, 5.0)
            },
            formulas::soft_cap,
        ),
    ),
    (
        "rows by number",
        (
            |device, dtype| {
                let ids = Tensor::new(&[36u32, 0, 7, 7], device)?;
                let rows = values((SHAPE.0, SHAPE.1), device, dtype)?;
                Ok(rows.index_select(&ids, 0)?)
            },
            formulas::rows_by_number,
        ),
    ),
    (
        "sums and cached rows",
        (
            |device, dtype| {
                let cache = Tensor::zeros((2, 3, 64, 24), dtype, device)?;
                let new = values((2, 3, 5, 24), device, dtype)?;
                cache.slice_set(&new, 2, 17)?;
                let at = Tensor::new(&[[1u32, 3, 5, 7, 9], [60, 61, 62, 63, 0]], device)?;
                let at = at.reshape((2, 1, 5, 1))?.broadcast_as(new.shape())?;
                cache.scatter_set(&at.contiguous()?, &new, 2)?;
                Ok((&cache
                    + cache
                        .to_dtype(DType::F32)?
                        .sum_keepdim(D::Minus1)?
                        .to_dtype(dtype)?
                        .broadcast_as(cache.shape())?)?)
            },
            formulas::sums_and_cached_rows,
        ),
    ),
];

/// Values of a model's size, the same on every device.
fn values(shape: impl Into<candle_core::Shape>, device: &Device, dtype: DType) -> Result<Tensor> {
    let shape = shape.into();
    let values = Tensor::from_vec(scattered(shape.elem_count()), shape, device)?;
    Ok(values.to_dtype(dtype)?)
}

fn norm(kind: NormKind, device: &Device, dtype: DType) -> Result<Tensor> {
    let norm = Norm {
        kind,
        eps: 1e-5,
        plus_one: kind == NormKind::Rms,
    };
    let weight = scattered(SHAPE.1);
    let bias = (kind == NormKind::Layer).then(|| scattered(SHAPE.1));
    let place = Placement::Device(device.clone(), dtype);
    let norm = NormWeights::new(norm, weight, bias, &place)?;
    norm.apply(&values((SHAPE.0, SHAPE.1), device, dtype)?)
}

fn activation(kind: Activation, gated: bool, device: &Device, dtype: DType) -> Result<Tensor> {
    let width = SHAPE.1 / 2;
    let columns = if gated { 2 * width } else { width };
    let x = (values((SHAPE.0, columns), device, dtype)? * 4.0)?;
    ops::activate(&x, kind, gated, width, false)
}

/// Every operation on a device in every type, against its formula in f64.
pub fn operations(device: &Device) -> Vec<Comparison> {
    let mut out = Vec::new();
    for (name, (operation, formula)) in OPERATIONS {
        let right = formula();
        for (dtype, most, _) in DTYPES {
            let found = operation(device, dtype).and_then(|x| relative_to(&x, &right));
            out.push(Comparison::new(name, dtype, found, most));
        }
    }
    out
}

/// A product of each quantised type on a device, with quantised inputs and with widened weights,
/// against plain arithmetic. Types without products are widened when a model is loaded, and are
/// not among them.
///
/// # Errors
/// Matrices that cannot be made here; what the device fails at is in the comparisons.
pub fn products(device: &Device, dtype: DType) -> Result<Vec<Comparison>> {
    let mut out = Vec::new();
    for tensor in samples()? {
        if !has_products(tensor.dtype()) {
            continue;
        }
        let found = differences(&tensor, device, dtype, &multiply);
        let parts = ["", ", widened"].into_iter().zip(TOLERANCE).enumerate();
        for (i, (how, most)) in parts {
            let found = match &found {
                Ok(found) => Ok(found.map_or(f64::NAN, |both| both[i])),
                Err(e) => Err(crate::Error::refused(e.to_string())),
            };
            let name = format!("{:?}{how}", tensor.dtype());
            out.push(Comparison::new(name, dtype, found, most));
        }
    }
    Ok(out)
}

/// |a − b| / |b| in the Euclidean norm; NaN where a value is not finite.
fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let b: Vec<f32> = b.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    relative_to(a, &b.into_iter().map(f64::from).collect::<Vec<_>>())
}

/// The same of values that are not on a device.
fn relative_to(a: &Tensor, b: &[f64]) -> Result<f64> {
    let a: Vec<f32> = a.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    if a.len() != b.len() {
        return Err(crate::Error::refused(format!(
            "{} values instead of {}",
            a.len(),
            b.len()
        )));
    }
    let sum = |terms: &mut dyn Iterator<Item = f64>| terms.map(|v| v * v).sum::<f64>().sqrt();
    let apart = sum(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - b));
    let size = sum(&mut b.iter().copied());
    Ok(apart / size.max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(all: &[Comparison]) {
        for c in all {
            assert!(c.is_equal(), "{c:?}");
        }
    }

    #[test]
    fn the_operations_of_candle_on_the_cpu_pass() {
        let found = operations(&Device::Cpu);
        assert_eq!(found.len(), 3 * OPERATIONS.len());
        hold(&found);
    }

    #[test]
    fn an_operation_that_computes_something_else_does_not_pass() {
        let of = |name: &str| {
            let found = OPERATIONS.iter().find(|(n, _)| *n == name);
            found.map(|(_, operation)| *operation).unwrap()
        };
        let ((silu, _), (_, gelu)) = (of("silu gate"), of("gelu gate"));
        let x = silu(&Device::Cpu, DType::F32).unwrap();
        assert!(relative_to(&x, &gelu()).unwrap() > 1e-2);
    }

    #[test]
    fn the_products_of_candle_on_the_cpu_pass() {
        let found = products(&Device::Cpu, DType::F32).unwrap();
        assert_eq!(found.len(), 20);
        hold(&found);
    }

    #[test]
    fn the_networks_pass_in_every_type() {
        let found = networks(&Device::Cpu);
        assert_eq!(found.len(), 18);
        hold(&found);
    }

    #[test]
    fn what_differs_or_is_not_finite_is_not_equal() {
        let x = values((4, 4), &Device::Cpu, DType::F32).unwrap();
        assert_eq!(relative(&x, &x).unwrap(), 0.0);
        let twice = (&x * 2.0).unwrap();
        assert!((relative(&twice, &x).unwrap() - 1.0).abs() < 1e-6);
        let agrees = |found| Comparison::new("x", DType::F32, found, 1e-5).is_equal();
        let nan = (&x * f64::NAN).unwrap();
        assert!(agrees(Ok(1e-6)) && !agrees(Ok(1e-4)) && !agrees(relative(&nan, &x)));
        assert!(!agrees(Err(crate::Error::refused("no kernel"))));
        assert!(relative(&x, &values((4, 5), &Device::Cpu, DType::F32).unwrap()).is_err());
    }
}
