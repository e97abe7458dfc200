//! What a failure of a GPU means to a user, told from the name that the driver gives it.
//!
//! Knows no driver: candle passes the name on as text, and so it is tested where there is no card.

/// The kinds of failure of a GPU that a user can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFailure {
    /// Its memory is full.
    Full,
    /// It stopped or vanished: nothing more can be computed on it in this process.
    Lost,
    /// The kernels of this build do not run on it, or its driver does not read them.
    Kernels,
    /// The driver shows no card to this process, or does not work.
    NoCard,
    /// The driver has no card of that number.
    NoSuchCard,
}

/// The names that CUDA's driver, its runtime, cuBLAS and Metal give to each kind.
const NAMES: [(DeviceFailure, &[&str]); 5] = [
    (
        DeviceFailure::Full,
        &[
            "OUT_OF_MEMORY",
            "out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "cudaErrorMemoryAllocation",
            "Failed to create metal resource: Buffer",
        ],
    ),
    (
        DeviceFailure::Kernels,
        &[
            "NO_BINARY_FOR_GPU",
            "UNSUPPORTED_PTX_VERSION",
            "INVALID_PTX",
            "INVALID_IMAGE",
            "CUBLAS_STATUS_ARCH_MISMATCH",
            "cudaErrorNoKernelImageForDevice",
        ],
    ),
    (
        DeviceFailure::NoCard,
        &[
            "CUDA_ERROR_NO_DEVICE",
            "CUDA_ERROR_STUB_LIBRARY",
            "SYSTEM_NOT_READY",
            "SYSTEM_DRIVER_MISMATCH",
            "COMPAT_NOT_SUPPORTED_ON_DEVICE",
            "cudaErrorInsufficientDriver",
        ],
    ),
    (DeviceFailure::NoSuchCard, &["CUDA_ERROR_INVALID_DEVICE"]),
    (
        DeviceFailure::Lost,
        &[
            "DEVICE_UNAVAILABLE",
            "DEVICES_UNAVAILABLE",
            "ECC_UNCORRECTABLE",
            "NVLINK_UNCORRECTABLE",
            "ILLEGAL_ADDRESS",
            "ILLEGAL_INSTRUCTION",
            "LAUNCH_FAILED",
            "LAUNCH_TIMEOUT",
            "MISALIGNED_ADDRESS",
            "HARDWARE_STACK_ERROR",
            "CONTEXT_IS_DESTROYED",
            "CUBLAS_STATUS_EXECUTION_FAILED",
            "CUDA_ERROR_UNKNOWN",
        ],
    ),
];

impl DeviceFailure {
    /// The kind of a failure that a library words as `text`; `None`: another failure, or none of a
    /// GPU.
    pub fn of(text: &str) -> Option<Self> {
        let named = |names: &[&str]| names.iter().any(|name| text.contains(name));
        NAMES
            .iter()
            .find(|(_, names)| named(names))
            .map(|&(kind, _)| kind)
    }

    /// What it means and what to do about it, as a sentence that `cause` explains.
    pub(super) fn sentence(self, cause: &str) -> String {
        let what = match self {
            Self::Full => {
                "the GPU's memory is full: free some of it (nvidia-smi lists who holds it), take a smaller batch, \
                 fewer layers or another card, or use --device cpu"
            }
            Self::Lost => {
                "the GPU has stopped: what was written before stays, and the command can be given again; the \
                 kernel's log and nvidia-smi may say why, and --device cpu goes on without it"
            }
            Self::Kernels => {
                "this build's kernels do not run on this card: build it with CUDA_COMPUTE_CAP set to the card's \
                 compute capability and a toolkit no newer than its driver"
            }
            Self::NoCard => {
                "the driver shows no card to this process: see nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu"
            }
            Self::NoSuchCard => {
                "there is no card of this number: mlpeek doctor --device cuda lists them"
            }
        };
        format!("{what} ({cause})")
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Error;

    use super::*;

    #[test]
    fn a_failure_is_known_by_the_name_that_the_driver_gives_it() {
        for (text, kind) in [
            (
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                Some(DeviceFailure::Full),
            ),
            (
                "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
                Some(DeviceFailure::Full),
            ),
            (
                "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\")",
                Some(DeviceFailure::NoCard),
            ),
            (
                "DriverError(CUDA_ERROR_INVALID_DEVICE, \"invalid device ordinal\")",
                Some(DeviceFailure::NoSuchCard),
            ),
            (
                "DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"…\")",
                Some(DeviceFailure::Lost),
            ),
            (
                "DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"…\") when loading x",
                Some(DeviceFailure::Kernels),
            ),
            ("unsupported dtype for quantized matmul Q8K", None),
            ("shape mismatch in matmul", None),
        ] {
            assert_eq!(DeviceFailure::of(text), kind, "{text}");
        }
    }

    #[test]
    fn an_error_of_a_tensor_becomes_one_line_that_says_what_to_do() {
        let error_of = |text: &str| Error::from(candle_core::Error::Msg(text.into()));
        let full =
            error_of("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")\n   0: a\n   1: b");
        assert!(full.is_device_full());
        let text = full.to_string();
        assert!(
            text.contains("memory is full")
                && text.contains("CUDA_ERROR_OUT_OF_MEMORY")
                && !text.contains('\n'),
            "{text}"
        );
        let lost = error_of("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"…\")");
        assert!(!lost.is_device_full() && lost.to_string().contains("has stopped"));
        let other = error_of("shape mismatch in matmul\n  0: a frame");
        assert!(matches!(other, Error::Tensor(_)));
        assert_eq!(
            other.to_string(),
            "tensor operation failed: shape mismatch in matmul"
        );
    }
}
