//! Where a model or a fit computes: what the user asks for, what there is, and what is known of it.
//!
//! Owns the devices of the process, one a card; knows nothing of layers. Invariant: an unknown
//! amount of memory is `None`, which is said to the user and never taken for 0.

pub mod card;
mod choice;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(not(feature = "cuda"))]
#[path = "no_driver.rs"]
mod driver;

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::memory;
use card::{Card, compute_dtype};
pub(crate) use choice::dtype_name;
pub use choice::{Cards, Compute, DeviceChoice};

/// The variable by which the tests of whole commands have the CPU compute by the operations of a
/// card, and what it then holds.
const TEST_DEVICE: &str = "MLPEEK_TEST_DEVICE";
const GENERIC: &str = "generic";

/// Whether candle's operations compute on the CPU. The unit tests choose by themselves.
fn is_generic() -> bool {
    !cfg!(test) && std::env::var_os(TEST_DEVICE).is_some_and(|name| name == GENERIC)
}

/// The devices of a choice, with what the user should know of them.
#[derive(Debug)]
pub(crate) struct OpenDevices {
    /// Those that candle computes on, in the order of the layers; none: this crate's kernels compute
    /// on the CPU.
    pub(crate) devices: Vec<Device>,
    /// What is known of each.
    pub(crate) cards: Vec<Card>,
    /// What activations are computed in.
    pub(crate) dtype: DType,
    pub(crate) name: String,
    pub(crate) notes: Vec<String>,
}

impl OpenDevices {
    fn cpu(dtype: Option<DType>, mut notes: Vec<String>) -> Self {
        if let Some(dtype) = dtype.filter(|d| *d != DType::F32) {
            notes.push(format!("{dtype:?} was asked for: the CPU computes in f32"));
        }
        Self {
            devices: Vec::new(),
            cards: Vec::new(),
            dtype: DType::F32,
            name: "cpu".into(),
            notes,
        }
    }

    /// candle's operations on its CPU device, where they stand for a card.
    fn generic(dtype: Option<DType>) -> Self {
        Self {
            devices: vec![Device::Cpu],
            cards: Vec::new(),
            dtype: dtype.unwrap_or(DType::F32),
            name: "cpu".into(),
            notes: vec![format!(
                "{TEST_DEVICE} is {GENERIC}: candle's operations compute, as they do on a card"
            )],
        }
    }

    fn gpus(devices: Vec<Device>, cards: Vec<Card>, dtype: Option<DType>) -> Result<Self> {
        let (dtype, note) = compute_dtype(dtype, &cards)?;
        let titles: Vec<String> = cards.iter().map(Card::title).collect();
        let mut notes: Vec<String> = note.into_iter().collect();
        notes.extend(
            cards
                .iter()
                .filter(|card| card.memory.is_none())
                .map(|card| {
                    format!(
                        "{}: its free memory is unknown, so that nothing is held against it",
                        card.title()
                    )
                }),
        );
        Ok(Self {
            devices,
            dtype,
            name: titles.join(", "),
            cards,
            notes,
        })
    }

    /// Bytes free on each device, where that is known; of the machine where the CPU computes.
    pub(crate) fn free(&self) -> Result<Vec<Option<u64>>> {
        if self.cards.is_empty() {
            return Ok(vec![memory::available()?]);
        }
        Ok(self.cards.iter().map(Card::free).collect())
    }
}

/// What stands for a card in tests: candle's operations on its CPU device, in `dtype`.
pub(crate) fn generic(dtype: DType) -> OpenDevices {
    OpenDevices::generic(Some(dtype))
}

/// The devices of a choice, opened; `dtype`: what was asked for to compute in.
///
/// # Errors
/// A device that was named and that this build or this machine does not have, with what would work.
pub(crate) fn open(choice: DeviceChoice, dtype: Option<DType>) -> Result<OpenDevices> {
    match choice {
        DeviceChoice::Cpu if is_generic() => Ok(OpenDevices::generic(dtype)),
        DeviceChoice::Cpu => Ok(OpenDevices::cpu(dtype, Vec::new())),
        DeviceChoice::Cuda(cards) => cuda(cards, dtype),
        DeviceChoice::Metal => metal(dtype),
        DeviceChoice::Auto => {
            let gpu = if cfg!(feature = "cuda") {
                cuda(Cards::FIRST, dtype)
            } else if cfg!(feature = "metal") {
                metal(dtype)
            } else {
                let notes = unused_gpu().into_iter().collect();
                return Ok(OpenDevices::cpu(dtype, notes));
            };
            gpu.or_else(|e| match e {
                Error::Usage(_) => Err(e),
                e => Ok(OpenDevices::cpu(
                    dtype,
                    vec![format!("the CPU computes: {e}")],
                )),
            })
        }
    }
}

fn cuda(cards: Cards, dtype: Option<DType>) -> Result<OpenDevices> {
    let (mut devices, mut known) = (Vec::new(), Vec::new());
    let count = driver::count()?;
    for number in cards.numbers() {
        check_number(number, count)?;
        let device = driver::open(number)?;
        known.push(driver::card(&device)?);
        devices.push(device);
    }
    OpenDevices::gpus(devices, known, dtype)
}

/// Refuses a card that the driver does not show, with those that it does.
fn check_number(number: usize, count: usize) -> Result<()> {
    if number < count {
        return Ok(());
    }
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").map_or_else(
        |_| String::new(),
        |v| format!(" (CUDA_VISIBLE_DEVICES is '{v}')"),
    );
    Err(Error::refused(match count {
        0 => format!("the driver shows no card{visible}: use --device cpu"),
        1 => format!("there is no cuda:{number}: the driver shows one card{visible}, cuda:0"),
        _ => format!(
            "there is no cuda:{number}: the driver shows {count} cards{visible}, cuda:0 to cuda:{}",
            count - 1
        ),
    }))
}

/// The device of Metal, the same one whenever it is asked for.
static METAL: Mutex<Option<Device>> = Mutex::new(None);

fn metal(dtype: Option<DType>) -> Result<OpenDevices> {
    if !cfg!(feature = "metal") {
        return Err(Error::refused(
            "this build has no Metal: cargo run --release --features metal",
        ));
    }
    let mut open = METAL.lock().unwrap_or_else(PoisonError::into_inner);
    let device = match &*open {
        Some(device) => device.clone(),
        None => Device::new_metal(0)
            .map_err(|e| Error::refused(format!("{}: use --device cpu", Error::from(e))))?,
    };
    *open = Some(device.clone());
    let card = metal_card(&device);
    OpenDevices::gpus(vec![device], vec![card], dtype)
}

/// What is known of an Apple GPU: the memory that Metal recommends to keep within.
fn metal_card(device: &Device) -> Card {
    #[cfg(feature = "metal")]
    let memory = device.as_metal_device().ok().map(|metal| {
        let recommended = metal.device().recommended_max_working_set_size() as u64;
        card::CardMemory {
            free: recommended,
            total: recommended,
        }
    });
    #[cfg(not(feature = "metal"))]
    let memory = {
        let _ = device;
        None
    };
    Card {
        place: "metal".into(),
        name: None,
        uuid: None,
        capability: None,
        memory,
        bandwidth: None,
        peak: None,
    }
}

/// Whether a choice means the CPU here, as far as can be told without opening anything.
pub fn computes_on_cpu(choice: DeviceChoice) -> bool {
    match choice {
        DeviceChoice::Cpu => true,
        DeviceChoice::Auto => {
            !cfg!(feature = "metal") && !driver::count().is_ok_and(|cards| cards > 0)
        }
        DeviceChoice::Cuda(_) | DeviceChoice::Metal => false,
    }
}

/// The newest CUDA that the driver knows and the toolkit that this build was made with.
///
/// # Errors
/// A build without CUDA, and a driver that does not answer.
pub fn cuda_versions() -> Result<(String, String)> {
    let (driver, toolkit) = driver::versions()?;
    Ok((card::version(driver), card::version(toolkit)))
}

/// Every card that the driver shows to this process.
///
/// # Errors
/// A build without CUDA, and a driver that does not answer or is too old.
pub fn cuda_cards() -> Result<Vec<Card>> {
    (0..driver::count()?)
        .map(|number| driver::card(&driver::open(number)?))
        .collect()
}

/// What is known of the GPU that `device` is now; `None` for the CPU.
///
/// # Errors
/// A driver that does not answer.
pub fn card_of(device: &Device) -> Result<Option<Card>> {
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(_) => driver::card(device).map(Some),
        Device::Metal(_) => Ok(Some(metal_card(device))),
    }
}

/// Gives back to the system what this process keeps of a device's memory and does not use.
///
/// # Errors
/// A driver that does not answer.
pub fn release_unused(device: &Device) -> Result<()> {
    if device.is_cuda() {
        driver::release_unused(device)
    } else {
        Ok(())
    }
}

/// A tensor on `to`: itself where it lies there, else a copy.
///
/// # Errors
/// A copy that the device refuses.
pub(crate) fn carry(x: &Tensor, to: &Device) -> Result<Tensor> {
    let from = x.device();
    if from.is_cuda() && to.is_cuda() && !from.same_device(to) {
        driver::carry(x, to)
    } else {
        Ok(x.to_device(to)?)
    }
}

/// Copies a contiguous tensor of f32, f16 or bf16 from a card of CUDA into `out`.
///
/// # Errors
/// A tensor elsewhere, and a copy that the driver refuses.
pub(crate) fn fetch(x: &Tensor, out: &mut [u32]) -> Result<()> {
    driver::fetch(x, out)
}

/// A sentence for the user where the machine has a GPU that this build cannot use.
pub fn unused_gpu() -> Option<String> {
    if !cfg!(feature = "cuda") && has_nvidia_gpu() {
        return Some(
            "an NVIDIA GPU is here but this build computes on the CPU: cargo run --release --features cuda".into(),
        );
    }
    if !cfg!(feature = "metal") && cfg!(all(target_os = "macos", target_arch = "aarch64")) {
        return Some(
            "an Apple GPU is here but this build computes on the CPU: cargo run --release --features metal".into(),
        );
    }
    None
}

/// Whether the system shows an NVIDIA card to a build that cannot ask the driver.
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

/// A GPU that computes something else than a model's passes, such as a fit.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The device, for candle's operations.
    pub device: Device,
    /// Its name to show, such as "cuda:0 (NVIDIA H200)".
    pub name: String,
    /// Bytes free on it, where that is known.
    pub free: Option<u64>,
}

impl Gpu {
    /// The GPU that a choice means; `None` where the CPU computes, and then the user is told why where a
    /// GPU might be expected.
    ///
    /// # Errors
    /// A GPU that was named and cannot be used, or that this build knows nothing of; several, where
    /// one computes.
    pub fn open(choice: DeviceChoice) -> Result<Option<Self>> {
        if let DeviceChoice::Cuda(cards) = choice
            && let Some(number) = cards.numbers().nth(1)
        {
            return Err(Error::usage(format!(
                "one card computes this, and {choice} names several: use cuda:{} or cuda:{number}",
                cards.numbers().next().unwrap_or(0)
            )));
        }
        if choice == DeviceChoice::Cpu && is_generic() {
            return Ok(Some(Self {
                device: Device::Cpu,
                name: "candle's CPU device".to_owned(),
                free: memory::available()?,
            }));
        }
        let opened = open(choice, None)?;
        let (gpu, why) = Self::found(&opened);
        why.iter().for_each(|why| tracing::warn!("{why}"));
        Ok(gpu)
    }

    /// The first of the devices, and what the user should know where there is none: why a card that was
    /// looked for cannot be used, or that this build uses none. Notes on a card that was found are on
    /// how a model computes there.
    fn found(opened: &OpenDevices) -> (Option<Self>, &[String]) {
        match opened.devices.first().and_then(Self::of) {
            Some(gpu) => (Some(gpu), &[]),
            None => (None, &opened.notes),
        }
    }

    /// The GPU that `device` is; `None` for the CPU.
    pub fn of(device: &Device) -> Option<Self> {
        if device.is_cpu() {
            return None;
        }
        // A driver that does not answer leaves the name and the memory unknown.
        let card = card_of(device).ok().flatten();
        Some(Self {
            device: device.clone(),
            name: card
                .as_ref()
                .map_or_else(|| "a GPU".to_owned(), Card::title),
            free: card.as_ref().and_then(Card::free),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_is_not_there_is_refused_with_those_that_are() {
        assert!(check_number(0, 1).is_ok() && check_number(1, 2).is_ok());
        for (number, count, words) in [
            (9, 1, "shows one card"),
            (9, 4, "cuda:0 to cuda:3"),
            (0, 0, "no card"),
        ] {
            let error = check_number(number, count).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
    }

    #[test]
    fn the_cpu_computes_in_f32_and_says_so_where_something_else_is_asked_for() {
        let plain = open(DeviceChoice::Cpu, None).unwrap();
        assert!(plain.devices.is_empty() && plain.notes.is_empty());
        assert_eq!((plain.dtype, plain.name.as_str()), (DType::F32, "cpu"));
        let asked = open(DeviceChoice::Cpu, Some(DType::BF16)).unwrap();
        assert!(asked.dtype == DType::F32 && asked.notes[0].contains("BF16"));
        assert!(computes_on_cpu(DeviceChoice::Cpu) && Gpu::of(&Device::Cpu).is_none());
    }

    #[test]
    fn why_no_gpu_was_found_is_not_lost() {
        let why = "the CPU computes: the driver is too old".to_owned();
        let opened = OpenDevices::cpu(None, vec![why.clone()]);
        let (gpu, told) = Gpu::found(&opened);
        assert!(gpu.is_none());
        assert_eq!(told, [why]);
        let named = OpenDevices::cpu(None, Vec::new());
        assert!(Gpu::found(&named).1.is_empty());
    }

    #[test]
    fn several_cards_are_refused_where_one_computes() {
        let error = Gpu::open("cuda:2,1".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("cuda:2 or cuda:1"), "{error}");
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_gpu_that_this_build_cannot_use_is_refused_with_the_command_that_builds_for_it() {
        for (choice, feature) in [("cuda:1", "cuda"), ("metal", "metal")] {
            let error = open(choice.parse().unwrap(), None).unwrap_err();
            assert!(
                error.to_string().contains(&format!("--features {feature}")),
                "{error}"
            );
        }
        assert!(open(DeviceChoice::Auto, None).unwrap().devices.is_empty());
    }

    #[test]
    fn a_tensor_is_carried_to_the_device_that_it_lies_on() {
        let x = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        let y = carry(&x, &Device::Cpu).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }
}
