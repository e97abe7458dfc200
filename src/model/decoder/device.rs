//! The choice of the device that computes, of its dtype, and the memory that is free on it.

use std::process::{Command, Stdio};

use candle_core::{DType, Device};

use super::LoadOptions;
use super::linear::Placement;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::DeviceChoice;

/// A device that was chosen, with what the user should know of the choice.
pub(super) struct ChosenDevice {
    pub(super) placement: Placement,
    pub(super) name: String,
    pub(super) notes: Vec<String>,
}

/// The device of `options`, or an error with the command that builds for it.
pub(super) fn choose(options: &LoadOptions) -> Result<ChosenDevice> {
    match options.device {
        DeviceChoice::Cpu => Ok(cpu(options, Vec::new())),
        DeviceChoice::Cuda => cuda(options),
        DeviceChoice::Metal => metal(options),
        DeviceChoice::Auto => {
            if candle_core::utils::cuda_is_available() {
                return cuda(options).or_else(|e| {
                    Ok(cpu(
                        options,
                        vec![format!("the GPU cannot be used ({e}): the CPU computes")],
                    ))
                });
            }
            if candle_core::utils::metal_is_available() {
                return metal(options).or_else(|e| {
                    Ok(cpu(
                        options,
                        vec![format!("the GPU cannot be used ({e}): the CPU computes")],
                    ))
                });
            }
            let notes = unused_gpu().into_iter().collect();
            Ok(cpu(options, notes))
        }
    }
}

/// A sentence for the user where the machine has a GPU that this build cannot use.
pub fn unused_gpu() -> Option<String> {
    if !candle_core::utils::cuda_is_available() && has_nvidia_gpu() {
        return Some(
            "an NVIDIA GPU is here but this build computes on the CPU: cargo run --release --features cuda".into(),
        );
    }
    if !candle_core::utils::metal_is_available()
        && cfg!(all(target_os = "macos", target_arch = "aarch64"))
    {
        return Some(
            "an Apple GPU is here but this build computes on the CPU: cargo run --release --features metal".into(),
        );
    }
    None
}

fn has_nvidia_gpu() -> bool {
    let in_proc =
        std::fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|mut gpus| gpus.next().is_some());
    in_proc
        || Command::new("nvidia-smi")
            .arg("-L")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .is_ok_and(|out| out.status.success() && !out.stdout.is_empty())
}

fn cpu(options: &LoadOptions, mut notes: Vec<String>) -> ChosenDevice {
    if let Some(dtype) = options.dtype.filter(|d| *d != DType::F32) {
        notes.push(format!("{dtype:?} was asked for: the CPU computes in f32"));
    }
    ChosenDevice {
        placement: Placement::Mapped,
        name: "cpu".into(),
        notes,
    }
}

fn dtype(options: &LoadOptions) -> Result<DType> {
    match options.dtype.unwrap_or(DType::BF16) {
        dtype @ (DType::F32 | DType::F16 | DType::BF16) => Ok(dtype),
        other => Err(Error::usage(format!(
            "a model cannot compute in {other:?}: use f32, f16 or bf16"
        ))),
    }
}

fn cuda(options: &LoadOptions) -> Result<ChosenDevice> {
    if !cfg!(feature = "cuda") {
        return Err(Error::refused(
            "this build has no CUDA: cargo run --release --features cuda",
        ));
    }
    let device = Device::new_cuda(0).map_err(|e| {
        Error::refused(format!(
            "CUDA device 0 cannot be opened ({}): use --device cpu",
            first_line(&e)
        ))
    })?;
    let placement = Placement::Device(device, dtype(options)?);
    let name = query_nvidia("name").map_or_else(|| "cuda:0".into(), |n| format!("cuda:0 ({n})"));
    Ok(ChosenDevice {
        placement,
        name,
        notes: Vec::new(),
    })
}

fn metal(options: &LoadOptions) -> Result<ChosenDevice> {
    if !cfg!(feature = "metal") {
        return Err(Error::refused(
            "this build has no Metal: cargo run --release --features metal",
        ));
    }
    let device = Device::new_metal(0).map_err(|e| {
        Error::refused(format!(
            "Metal device 0 cannot be opened ({}): use --device cpu",
            first_line(&e)
        ))
    })?;
    Ok(ChosenDevice {
        placement: Placement::Device(device, dtype(options)?),
        name: "metal:0".into(),
        notes: Vec::new(),
    })
}

/// The first line of an error of candle, which may carry a backtrace.
fn first_line(error: &candle_core::Error) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The answer of `nvidia-smi` to a query about the first GPU.
fn query_nvidia(query: &str) -> Option<String> {
    let query = format!("--query-gpu={query}");
    let out = Command::new("nvidia-smi")
        .args([&query, "--format=csv,noheader,nounits"])
        .output()
        .ok()?;
    String::from_utf8(out.stdout)
        .ok()?
        .lines()
        .next()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
}

/// Bytes free where a model will compute, where that can be known.
pub(super) fn memory_available(placement: &Placement) -> Result<Option<u64>> {
    match placement {
        Placement::Device(device, _) if !device.is_cpu() => Ok(free_on(device)),
        Placement::Mapped | Placement::Device(..) => memory::available(),
    }
}

/// Bytes free on a GPU, where that can be known.
fn free_on(gpu: &Device) -> Option<u64> {
    let mib = if gpu.is_cuda() {
        query_nvidia("memory.free")?.parse::<u64>().ok()?
    } else {
        return None;
    };
    Some(mib << 20)
}

/// A GPU that computes something else than a model's passes, such as a fit.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The device, for candle's operations.
    pub device: Device,
    /// Its name to show, such as "cuda:0 (NVIDIA H200)".
    pub name: String,
    /// Bytes free on it; 0 where that is not known.
    pub free: u64,
}

impl Gpu {
    /// The GPU that a choice means; `None` where the CPU computes.
    ///
    /// # Errors
    /// A GPU that was named and cannot be used, or that this build knows nothing of.
    pub fn open(choice: DeviceChoice) -> Result<Option<Self>> {
        let none =
            !candle_core::utils::cuda_is_available() && !candle_core::utils::metal_is_available();
        if choice == DeviceChoice::Auto && none {
            return Ok(None);
        }
        let chosen = choose(&LoadOptions {
            device: choice,
            ..LoadOptions::default()
        })?;
        Ok(match chosen.placement {
            Placement::Device(device, _) => Self::of(&device, &chosen.name),
            Placement::Mapped => None,
        })
    }

    /// The GPU that `device` is; `None` for the CPU.
    pub(super) fn of(device: &Device, name: &str) -> Option<Self> {
        let free = || free_on(device).unwrap_or(0);
        (!device.is_cpu()).then(|| Self {
            device: device.clone(),
            name: name.to_owned(),
            free: free(),
        })
    }
}
