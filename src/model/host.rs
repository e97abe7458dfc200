//! What comes back from a device to the host, counted.
//!
//! Each copy waits for the device, so a token that is generated must cost no more than its id. The
//! count is of this thread, on which a pass and its taps run; a test holds it.

use std::cell::Cell;

use candle_core::{DType, Tensor};

use crate::error::Result;

thread_local! {
    static COPIED: Cell<u64> = const { Cell::new(0) };
}

/// Values that this thread has copied from a device, whatever the device.
pub fn copied() -> u64 {
    COPIED.get()
}

fn count(x: &Tensor) {
    COPIED.set(COPIED.get() + x.elem_count() as u64);
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
