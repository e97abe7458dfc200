//! What comes back from a device to the host, counted.
//!
//! Each copy waits for the device, so a token that is generated must cost no more than its id. The
//! count is of this thread, on which a pass and its taps run; a test holds it.

use std::cell::Cell;

use bytemuck::cast_slice;
use candle_core::{CpuStorage, D, DType, Device, Storage, Tensor};

use super::device;
use crate::error::{Error, Result};

thread_local! {
    static COPIED: Cell<u64> = const { Cell::new(0) };
    static COPIES: Cell<u64> = const { Cell::new(0) };
}

/// Values that this thread has copied from a device, whatever the device.
pub fn copied() -> u64 {
    COPIED.get()
}

/// How often this thread has copied values from a device.
pub fn copies() -> u64 {
    COPIES.get()
}

fn count(x: &Tensor) {
    COPIED.set(COPIED.get() + x.elem_count() as u64);
    COPIES.set(COPIES.get() + 1);
}

/// Memory of the host that values of a card are copied into, again and again.
#[derive(Default)]
pub(crate) struct HostBuffer(Vec<u32>);

impl HostBuffer {
    /// What `read` makes of a tensor's values, as bytes of its dtype, f32, f16 or bf16: after one copy
    /// from a card, and without any where they lie on the host.
    ///
    /// # Errors
    /// Values of another dtype, and a copy that fails.
    pub(crate) fn read<T>(&mut self, x: &Tensor, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        count(x);
        let x = x.contiguous()?;
        if x.device().is_cuda() {
            let bytes = x.elem_count() * x.dtype().size_in_bytes();
            self.0.resize(bytes.div_ceil(size_of::<u32>()), 0);
            device::fetch(&x, &mut self.0)?;
            return Ok(read(&cast_slice(&self.0)[..bytes]));
        }
        let here = x.to_device(&Device::Cpu)?;
        let (storage, layout) = here.storage_and_layout();
        let span = layout.contiguous_offsets().map(|(from, to)| from..to);
        match (&*storage, span) {
            (Storage::Cpu(CpuStorage::F32(v)), Some(span)) => Ok(read(cast_slice(&v[span]))),
            (Storage::Cpu(CpuStorage::F16(v)), Some(span)) => Ok(read(cast_slice(&v[span]))),
            (Storage::Cpu(CpuStorage::BF16(v)), Some(span)) => Ok(read(cast_slice(&v[span]))),
            _ => Err(Error::refused(format!(
                "values of {:?} are not read",
                here.dtype()
            ))),
        }
    }
}

/// Whether every value is finite, found where they lie: one number comes back.
pub(crate) fn all_finite(x: &Tensor) -> Result<bool> {
    // A finite value gives 0, any other NaN. By rows first: a card leaves one sum to one block of
    // threads.
    let rows = (x * 0.0)?.sum(D::Minus1)?;
    let whole = values(&rows.flatten_all()?.sum_keepdim(0)?)?;
    Ok(whole.iter().all(|sum| sum.is_finite()))
}

/// The ids of a tensor of one dimension.
pub(crate) fn ids(x: &Tensor) -> Result<Vec<u32>> {
    count(x);
    Ok(x.to_vec1()?)
}

/// The values of a tensor of one dimension, as f32.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f32>> {
    count(x);
    Ok(x.to_dtype(DType::F32)?.to_vec1()?)
}

/// The rows of a tensor of two dimensions, as f32.
pub(crate) fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    count(x);
    Ok(x.to_dtype(DType::F32)?.to_vec2()?)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn values_are_read_as_they_lie() {
        let all: Vec<f32> = (0..24).map(|i| i as f32 - 3.5).collect();
        let x = Tensor::from_slice(&all, (6, 4), &Device::Cpu).unwrap();
        let part = x.narrow(1, 1, 2).unwrap().narrow(0, 2, 3).unwrap();
        let expected: Vec<f32> = part.flatten_all().unwrap().to_vec1().unwrap();
        let mut buffer = HostBuffer::default();
        let mut read = |dtype| {
            let x = part.to_dtype(dtype).unwrap();
            buffer.read(&x, <[u8]>::to_vec)
        };
        let f32s: Vec<u8> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(DType::F32).unwrap(), f32s);
        let halves = expected.iter().map(|&v| f16::from_f32(v).to_le_bytes());
        assert_eq!(
            read(DType::F16).unwrap(),
            halves.flatten().collect::<Vec<_>>()
        );
        let bf16s = expected.iter().map(|&v| bf16::from_f32(v).to_le_bytes());
        assert_eq!(
            read(DType::BF16).unwrap(),
            bf16s.flatten().collect::<Vec<_>>()
        );
        assert!(read(DType::U32).is_err());
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_whatever_the_others_are() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            // The largest of them add up to more than the dtype holds.
            let large = if dtype == DType::F16 { 6e4 } else { 3e38 };
            let mut all = vec![large; 40];
            let of = |all: &[f32]| {
                let x = Tensor::from_slice(all, (8, 5), &Device::Cpu).unwrap();
                all_finite(&x.to_dtype(dtype).unwrap()).unwrap()
            };
            assert!(of(&all), "{dtype:?}");
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                all[17] = odd;
                assert!(!of(&all), "{odd} in {dtype:?}");
            }
        }
    }

    #[test]
    fn what_runs_once_a_token_copies_only_what_is_counted() {
        for (file, source) in [
            ("generate/mod.rs", include_str!("generate/mod.rs")),
            (
                "generate/device_draw.rs",
                include_str!("generate/device_draw.rs"),
            ),
            ("decoder/network.rs", include_str!("decoder/network.rs")),
            ("decoder/attention.rs", include_str!("decoder/attention.rs")),
            (
                "decoder/attention/on_device.rs",
                include_str!("decoder/attention/on_device.rs"),
            ),
            ("decoder/positions.rs", include_str!("decoder/positions.rs")),
            ("decoder/cache.rs", include_str!("decoder/cache.rs")),
            ("decoder/embed.rs", include_str!("decoder/embed.rs")),
            ("decoder/finite.rs", include_str!("decoder/finite.rs")),
            ("decoder/linear.rs", include_str!("decoder/linear.rs")),
            ("decoder/ops.rs", include_str!("decoder/ops.rs")),
            ("steering/tap.rs", include_str!("../steering/tap.rs")),
        ] {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for call in [".to_vec0", ".to_vec1", ".to_vec2", ".to_vec3", ".to_scalar"] {
                assert!(
                    !code.contains(call),
                    "{file} calls {call} beside the counter: use model::host"
                );
            }
        }
    }
}
