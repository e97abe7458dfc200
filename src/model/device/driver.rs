//! The cards of CUDA's driver: one candle device a card for the whole process, and what the driver
//! says of each.
//!
//! Invariant: all work of this process on a card goes through one ordered stream, so that lanes
//! which compute at once neither overtake each other nor share a library's handle across streams.
//! Nothing here decides anything: what follows from the answers is in [`super::card`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;
use candle_core::cuda_backend::{CudaDType, CudaStorage};
use candle_core::{DType, Device, Storage, Tensor};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DeviceRepr, DriverError, result};
use half::{bf16, f16};

use super::card::{self, Card, CardMemory};
use crate::error::{Error, Result};

/// The devices that were opened, by the number of their card.
static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

fn failed(error: DriverError) -> Error {
    candle_core::Error::Msg(error.to_string()).into()
}

/// How many cards the driver shows to this process.
pub(super) fn count() -> Result<usize> {
    let count = CudaContext::device_count().map_err(failed)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The newest CUDA that the driver knows, and the toolkit of this build, as the driver counts them.
pub(super) fn versions() -> Result<(u32, u32)> {
    let mut driver = 0;
    // SAFETY: the driver writes one integer to a place that is valid for it.
    #[allow(unsafe_code)]
    unsafe { sys::cuDriverGetVersion(&raw mut driver) }
        .result()
        .map_err(failed)?;
    Ok((u32::try_from(driver).unwrap_or(0), sys::CUDA_VERSION))
}

/// The device of a card, the same one whenever it is asked for.
pub(super) fn open(number: usize) -> Result<Device> {
    let (driver, toolkit) = versions()?;
    if let Some(refusal) = card::driver_refusal(driver, toolkit) {
        return Err(Error::refused(refusal));
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&number) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(number)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: events order several streams of a card; this process has one stream a card, and what
    // crosses to another card waits in `carry`.
    #[allow(unsafe_code)]
    unsafe {
        cuda.disable_event_tracking();
    }
    keep_freed_memory(cuda.cuda_stream().context()).map_err(failed)?;
    open.insert(number, device.clone());
    Ok(device)
}

/// The pool that the card's allocations come from.
fn pool(context: &CudaContext) -> Result<sys::CUmemoryPool, DriverError> {
    // SAFETY: the device is that of a live context.
    #[allow(unsafe_code)]
    unsafe {
        result::device::get_mem_pool(context.cu_device())
    }
}

/// Lets the pool keep what is freed for what is allocated next: it would else go back to the system
/// whenever the stream is waited for, and allocating again takes milliseconds.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the pool is the context's, and this attribute is a u64.
    #[allow(unsafe_code)]
    unsafe {
        result::mem_pool::set_attribute(
            pool(context)?,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
    }
}

/// Bytes that the pool holds and nothing uses.
fn kept_unused(context: &CudaContext) -> Result<u64, DriverError> {
    if !context.has_async_alloc() {
        return Ok(0);
    }
    let pool = pool(context)?;
    let read = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: the pool is the context's, and these attributes are u64.
        #[allow(unsafe_code)]
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }
            .map(|()| bytes)
    };
    let reserved = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = read(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok(reserved.saturating_sub(used))
}

/// Gives back to the system what the pool of a device's card keeps unused.
pub(super) fn release_unused(device: &Device) -> Result<()> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    stream.synchronize().map_err(failed)?;
    if !context.has_async_alloc() {
        return Ok(());
    }
    let pool = pool(context).map_err(failed)?;
    // SAFETY: the pool is the context's.
    #[allow(unsafe_code)]
    unsafe { result::mem_pool::trim_to(pool, 0) }.map_err(failed)
}

/// What the driver says of the card of a device.
pub(super) fn card(device: &Device) -> Result<Card> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    let attribute = |a| {
        context
            .attribute(a)
            .ok()
            .and_then(|v| u32::try_from(v).ok())
    };
    let capability = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).zip(
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
    );
    let kept = kept_unused(context).unwrap_or(0);
    let memory = context.mem_get_info().ok().map(|(free, total)| CardMemory {
        free: free as u64 + kept,
        total: total as u64,
    });
    // Two transfers a clock, which is in kHz, over a bus whose width is in bits.
    let bandwidth = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)
        .zip(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH,
        ))
        .map(|(clock, width)| 2.0 * 1e3 * f64::from(clock) * f64::from(width) / 8.0)
        .filter(|&rate| rate > 0.0);
    // The clock is in kHz.
    let peak = capability
        .zip(attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        ))
        .zip(attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE))
        .and_then(|((capability, processors), clock)| {
            card::peak(capability, processors, 1e3 * f64::from(clock))
        });
    Ok(Card {
        place: format!("cuda:{}", context.ordinal()),
        name: context.name().ok(),
        uuid: context
            .uuid()
            .ok()
            .map(|id| uuid_text(&id.bytes.map(|b| b as u8))),
        capability,
        memory,
        bandwidth,
        peak,
    })
}

/// A UUID as nvidia-smi writes it.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "GPU-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Copies a tensor from its card to another: the copy waits for what makes it, and the memory that
/// it is read from is not used again before it is there.
pub(super) fn carry(x: &Tensor, to: &Device) -> Result<Tensor> {
    let from = x.device().as_cuda_device()?.cuda_stream();
    let target = to.as_cuda_device()?.cuda_stream();
    target.join(&from).map_err(failed)?;
    let copy = x.to_device(to)?;
    from.join(&target).map_err(failed)?;
    Ok(copy)
}

/// Copies a contiguous tensor of f32, f16 or bf16 into `out`, which has room for it, and waits until
/// it is there. cudarc gives out pinned memory by an unsafe call alone; `out` is ordinary memory,
/// into which the driver copies through pinned memory of its own.
pub(super) fn fetch(x: &Tensor, out: &mut [u32]) -> Result<()> {
    let (storage, layout) = x.storage_and_layout();
    let (Storage::Cuda(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(Error::refused("a tensor that lies on no card in one piece"));
    };
    match x.dtype() {
        DType::F32 => fetch_of::<f32>(x.device(), storage, from..to, out),
        DType::F16 => fetch_of::<f16>(x.device(), storage, from..to, out),
        DType::BF16 => fetch_of::<bf16>(x.device(), storage, from..to, out),
        other => Err(Error::refused(format!(
            "values of {other:?} are not fetched"
        ))),
    }
}

fn fetch_of<T: CudaDType + DeviceRepr + Pod>(
    device: &Device,
    storage: &CudaStorage,
    values: Range<usize>,
    out: &mut [u32],
) -> Result<()> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let out = &mut bytemuck::cast_slice_mut::<u32, T>(out)[..values.len()];
    let source = storage.as_cuda_slice::<T>()?.slice(values);
    stream.memcpy_dtoh(&source, out).map_err(failed)?;
    stream.synchronize().map_err(failed)
}
