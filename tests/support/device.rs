//! The device that tests of candle's operations run on: MLPEEK_TEST_DEVICE, else candle's CPU.

use candle_core::Device;
use mlpeek::model::{Cards, DeviceChoice, Gpu};

/// The devices that MLPEEK_TEST_DEVICE names: "cuda:0", "cuda:0,1", "metal". Without it, or where it
/// is "generic" or "cpu", candle's operations on the CPU.
pub fn devices() -> Vec<Device> {
    let name = std::env::var("MLPEEK_TEST_DEVICE").unwrap_or_default();
    if ["", "generic", "cpu"].contains(&name.as_str()) {
        return vec![Device::Cpu];
    }
    let open = |choice| Gpu::open(choice).unwrap().expect("a GPU").device;
    match name.parse().unwrap() {
        DeviceChoice::Cuda(cards) => cards
            .numbers()
            .map(|n| open(DeviceChoice::Cuda(Cards::new(&[n as u8]).unwrap())))
            .collect(),
        choice => vec![open(choice)],
    }
}
