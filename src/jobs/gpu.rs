//! Whether a GPU takes a fit's sweeps, and what the user is told of it.

use candle_core::Device;

use crate::disk;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model::{DeviceChoice, Gpu, Model};

/// A GPU that a fit may run on.
#[derive(Debug, Clone)]
pub struct FitGpu {
    gpu: Gpu,
    /// Named by the user, not only there.
    asked: bool,
}

impl FitGpu {
    /// The GPU of a choice; `None` where the CPU fits.
    ///
    /// # Errors
    /// A GPU that is named and cannot be opened.
    pub fn open(choice: DeviceChoice) -> Result<Option<Self>> {
        let asked = choice != DeviceChoice::Auto;
        Ok(Gpu::open(choice)?.map(|gpu| Self { gpu, asked }))
    }

    /// The one that a model computes on.
    pub fn of(model: &Model) -> Option<Self> {
        model.gpu().map(|gpu| Self { gpu, asked: false })
    }

    /// Where the sweeps of a fit to n × d activations run, and in words. One that nobody named
    /// takes them only where it is faster.
    pub(crate) fn for_fit(
        &self,
        config: &FitConfig,
        shape: (usize, usize),
    ) -> Result<(Option<(Device, u64)>, String)> {
        let Gpu { device, name, free } = &self.gpu;
        match config.cpu_only_reason() {
            Some(why) if self.asked => {
                return Err(Error::usage(format!("{why}: use --device cpu")));
            }
            Some(why) => return Ok((None, why.to_owned())),
            None => {}
        }
        let Some(free) = *free else {
            // What may be kept there is not known, so nothing is: rows go there in each sweep.
            return Ok(if self.asked {
                let words = format!(
                    "{name} fits; its free memory is unknown, so that it keeps no activations"
                );
                (Some((device.clone(), 0)), words)
            } else {
                let words = format!(
                    "the CPU fits: the free memory of {name} is unknown (--device takes it)"
                );
                (None, words)
            });
        };
        if !self.asked && !config.stays_on_gpu(shape, free) {
            let bytes = disk::human_bytes(4 * shape.0 as u64 * shape.1 as u64);
            return Ok((
                None,
                format!("the CPU fits: {bytes} of activations are too many for {name} to keep"),
            ));
        }
        Ok((Some((device.clone(), free)), format!("{name} fits")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_takes_what_it_can_keep_and_what_it_is_told_to() {
        let fit = |asked, free, config: &FitConfig| {
            let gpu = Gpu {
                device: Device::Cpu,
                name: "gpu:0".into(),
                free,
            };
            let chosen = FitGpu { gpu, asked }.for_fit(config, (1000, 1000));
            chosen.map(|(device, words)| (device.is_some(), words))
        };
        let plain = FitConfig::default();
        let capped = FitConfig {
            row_cap: Some(3),
            ..FitConfig::default()
        };
        assert_eq!(
            fit(false, Some(1 << 30), &plain).unwrap(),
            (true, "gpu:0 fits".into())
        );
        assert!(fit(true, Some(0), &plain).unwrap().0);
        // Unknown is said, and is not nothing.
        let unknown = |asked| fit(asked, None, &plain).unwrap();
        assert!(matches!(unknown(true), (true, words) if words.contains("unknown")));
        assert!(matches!(unknown(false), (false, words) if words.contains("unknown")));
        assert!(
            matches!(fit(false, Some(1 << 20), &plain).unwrap(), (false, words) if words.contains("3.8 MiB"))
        );
        assert!(
            matches!(fit(false, Some(1 << 30), &capped).unwrap(), (false, words) if words.contains("row cap"))
        );
        assert!(matches!(
            fit(true, Some(1 << 30), &capped),
            Err(Error::Usage(_))
        ));
    }

    #[test]
    fn a_fit_on_the_cpu_asks_for_no_gpu() {
        assert!(FitGpu::open(DeviceChoice::Cpu).unwrap().is_none());
    }
}
