//! How much a device is given at once: less once its memory was full.
//!
//! Knows nothing of what is computed. Invariant: only a full device makes a portion smaller; any
//! other failure is the caller's.

use candle_core::Device;

use super::device::release_unused;
use crate::error::{DeviceFailure, Error, Result};

/// The most units (rows, tokens) that are computed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    most: usize,
}

impl Portion {
    /// At most so many at once, at least one.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1) }
    }

    /// All at once, until that does not fit.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// The most that are computed at once.
    pub fn most(self) -> usize {
        self.most
    }

    /// Makes the portion smaller after computing `taken` of `unit` at once failed by `error`, tells
    /// the user, and gives back what the process keeps of the device's memory; the caller tries
    /// again. `least`: what cannot be divided.
    ///
    /// # Errors
    /// The error itself, where the device was not full, or where there is nothing less to try: then
    /// it says what was tried.
    pub fn shrink(
        &mut self,
        error: Error,
        device: &Device,
        (taken, least): (usize, usize),
        unit: &str,
    ) -> Result<()> {
        let Error::Device(DeviceFailure::Full, cause) = error else {
            return Err(error);
        };
        if taken <= least.max(1) {
            return Err(Error::Device(
                DeviceFailure::Full,
                format!("{cause}, with no more than {taken} {unit} at once"),
            ));
        }
        self.most = (taken / 2).max(least).max(1);
        release_unused(device)?;
        tracing::warn!(
            "the GPU's memory was full with {taken} {unit} at once: going on with {} at once",
            self.most
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Error {
        candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"…\")".into()).into()
    }

    #[test]
    fn work_that_fills_a_device_is_done_in_smaller_portions() {
        // A device that holds at most five rows at once.
        let mut tried = Vec::new();
        let mut work = |rows: &[u32]| -> Result<u32> {
            tried.push(rows.len());
            if rows.len() > 5 {
                return Err(full());
            }
            Ok(rows.iter().sum())
        };
        let rows: Vec<u32> = (0..30).collect();
        let (mut portion, mut rest, mut sum) = (Portion::new(16), &rows[..], 0);
        while !rest.is_empty() {
            let now = portion.most().min(rest.len());
            match work(&rest[..now]) {
                Ok(part) => {
                    sum += part;
                    rest = &rest[now..];
                }
                Err(e) => portion.shrink(e, &Device::Cpu, (now, 1), "rows").unwrap(),
            }
        }
        assert_eq!(sum, 435);
        assert_eq!(tried, [16, 8, 4, 4, 4, 4, 4, 4, 4, 2]);
    }

    #[test]
    fn what_cannot_be_divided_and_what_is_no_full_device_fails() {
        let mut portion = Portion::new(8);
        let error = portion
            .shrink(full(), &Device::Cpu, (512, 512), "tokens")
            .unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_device_full() && text.contains("no more than 512 tokens"),
            "{text}"
        );
        let other = portion
            .shrink(Error::Cancelled, &Device::Cpu, (8, 1), "rows")
            .unwrap_err();
        assert!(matches!(other, Error::Cancelled) && portion.most() == 8);
    }
}
