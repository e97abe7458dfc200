//! How far two tensors are apart.

use candle_core::{Device, Tensor};

/// The largest difference against the largest value of `b`; the shapes must be equal.
pub fn relative(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let [a, b] = [a, b].map(|t| t.to_device(&Device::Cpu).unwrap());
    let max = |t: &Tensor| {
        t.abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    max(&(&a - &b).unwrap()) / max(&b)
}
