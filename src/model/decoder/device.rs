//! Which device computes, in what, and whether there is memory for it.

use std::path::Path;
use std::process::{Command, Stdio};

use candle_core::{DType, Device};

use super::LoadOptions;
use super::linear::Placement;
use crate::error::{Error, Result};
use crate::model::DeviceChoice;

/// A device that was chosen, with what the user should know of the choice.
pub(super) struct Chosen {
    pub(super) placement: Placement,
    pub(super) name: String,
    pub(super) notes: Vec<String>,
}

/// The device of `options`, or an error with the command that builds for it.
pub(super) fn choose(options: &LoadOptions) -> Result<Chosen> {
    match options.device {
        DeviceChoice::Cpu => Ok(cpu(options, Vec::new())),
        DeviceChoice::Cuda => cuda(options),
        DeviceChoice::Metal => metal(options),
        DeviceChoice::Auto => {
            if candle_core::utils::cuda_is_available() {
                return cuda(options)
                    .or_else(|e| Ok(cpu(options, vec![format!("the GPU cannot be used ({e}): the CPU computes")])));
            }
            if candle_core::utils::metal_is_available() {
                return metal(options)
                    .or_else(|e| Ok(cpu(options, vec![format!("the GPU cannot be used ({e}): the CPU computes")])));
            }
            let notes = unused_gpu().into_iter().collect();
            Ok(cpu(options, notes))
        }
    }
}

/// Says so when this build leaves a GPU idle.
pub fn unused_gpu() -> Option<String> {
    if !candle_core::utils::cuda_is_available() && has_nvidia() {
        return Some(
            "an NVIDIA GPU is here but this build computes on the CPU: cargo run --release --features cuda".into(),
        );
    }
    if !candle_core::utils::metal_is_available() && cfg!(all(target_os = "macos", target_arch = "aarch64")) {
        return Some(
            "an Apple GPU is here but this build computes on the CPU: cargo run --release --features metal".into(),
        );
    }
    None
}

fn has_nvidia() -> bool {
    let in_proc = std::fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|mut gpus| gpus.next().is_some());
    in_proc
        || Command::new("nvidia-smi")
            .arg("-L")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .is_ok_and(|out| out.status.success() && !out.stdout.is_empty())
}

fn cpu(options: &LoadOptions, mut notes: Vec<String>) -> Chosen {
    if let Some(dtype) = options.dtype.filter(|d| *d != DType::F32) {
        notes.push(format!("{dtype:?} was asked for: the CPU computes in f32"));
    }
    Chosen { placement: Placement::Mapped, name: "cpu".into(), notes }
}

fn dtype(options: &LoadOptions) -> Result<DType> {
    match options.dtype.unwrap_or(DType::BF16) {
        dtype @ (DType::F32 | DType::F16 | DType::BF16) => Ok(dtype),
        other => Err(Error::usage(format!("a model cannot compute in {other:?}: use f32, f16 or bf16"))),
    }
}

fn cuda(options: &LoadOptions) -> Result<Chosen> {
    if !cfg!(feature = "cuda") {
        return Err(Error::refused("this build has no CUDA: cargo run --release --features cuda"));
    }
    let device = Device::new_cuda(0).map_err(|e| {
        Error::refused(format!("CUDA device 0 cannot be opened ({}): use --device cpu", first_line(&e)))
    })?;
    let placement = Placement::Device(device, dtype(options)?);
    let name = nvidia_name().map_or_else(|| "cuda:0".into(), |n| format!("cuda:0 ({n})"));
    Ok(Chosen { placement, name, notes: Vec::new() })
}

fn metal(options: &LoadOptions) -> Result<Chosen> {
    if !cfg!(feature = "metal") {
        return Err(Error::refused("this build has no Metal: cargo run --release --features metal"));
    }
    let device = Device::new_metal(0).map_err(|e| {
        Error::refused(format!("Metal device 0 cannot be opened ({}): use --device cpu", first_line(&e)))
    })?;
    Ok(Chosen { placement: Placement::Device(device, dtype(options)?), name: "metal:0".into(), notes: Vec::new() })
}

/// candle's errors may carry a backtrace.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn nvidia_name() -> Option<String> {
    let out = Command::new("nvidia-smi").args(["--query-gpu=name", "--format=csv,noheader"]).output().ok()?;
    String::from_utf8(out.stdout).ok()?.lines().next().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty())
}

/// Bytes of memory that can still be taken, where the system says so: what the machine has, within the container's limit.
pub fn memory_available() -> Option<u64> {
    let machine = field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib * 1024);
    let group = container_room(Path::new("/sys/fs/cgroup"));
    match (machine, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Room under a version 2 control group's limit; pages of files count as free.
fn container_room(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let file = read("memory.stat").and_then(|s| field(&s, "file")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(file)))
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Refuses when `need` bytes are not there.
pub(super) fn check_memory(need: u64, available: Option<u64>, what: &str) -> Result<()> {
    match available {
        Some(have) if need > have => Err(Error::refused(format!(
            "{what} needs {} and {} is free: free some, collect fewer layers, or open a smaller or quantised model",
            gib(need),
            gib(have)
        ))),
        _ => Ok(()),
    }
}

fn gib(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_both_numbers() {
        let error = check_memory(16_000_000_000, Some(500_000_000), "the model").unwrap_err().to_string();
        assert!(error.contains("16.0 GB") && error.contains("500 MB"), "{error}");
        assert!(check_memory(5, Some(5), "it").is_ok() && check_memory(u64::MAX, None, "it").is_ok());
    }

    #[test]
    fn reads_what_a_container_may_still_take() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "anon 500\nfile 400\n")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(container_room(dir.path()), Some(500));
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(container_room(dir.path()), None);
    }
}
