//! Whether a GPU takes a fit's passes, and what the user is told of it.

use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::{Accelerator, CPU_STEPS, FitConfig, PassRates};
use crate::model::{DeviceChoice, Gpu, Model};
use crate::task::TaskCtx;

/// A GPU that a fit may run on.
#[derive(Debug, Clone)]
pub struct FitGpu {
    gpu: Gpu,
    /// Named by the user, not only there.
    asked: bool,
}

/// Where the passes of a fit ran.
#[derive(Debug, Clone, PartialEq)]
pub struct FitPlace {
    /// The device's name.
    pub device: String,
    /// How many times as fast as the CPU the GPU was on the first rows; `None` where that was not
    /// measured.
    pub ratio: Option<f64>,
}

impl FitPlace {
    fn cpu(ratio: Option<f64>) -> Self {
        Self {
            device: "cpu".to_owned(),
            ratio,
        }
    }
}

/// Where a fit is to run.
pub(crate) struct Placement {
    /// The GPU, made ready; `None`: the CPU.
    pub(crate) accelerator: Option<Accelerator>,
    pub(crate) place: FitPlace,
    /// What the user should know of it.
    pub(crate) words: Option<String>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            accelerator: None,
            place: FitPlace::cpu(None),
            words: None,
        }
    }
}

impl Placement {
    fn cpu(ratio: Option<f64>, why: String) -> Self {
        Self {
            place: FitPlace::cpu(ratio),
            words: Some(why),
            ..Self::default()
        }
    }
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

    /// Where the passes of a fit to `source` run. A GPU that nobody named takes them only where it is
    /// the faster one on the first rows; `is_look`: in batches, before the first full sweep.
    ///
    /// # Errors
    /// [`Error::Usage`] for a GPU that was named and cannot take this fit; errors of the source;
    /// [`Error::Cancelled`].
    pub(crate) fn for_fit(
        &self,
        config: &FitConfig,
        source: &dyn ActivationSource,
        is_look: bool,
        ctx: &TaskCtx,
    ) -> Result<Placement> {
        let Gpu { device, name, free } = &self.gpu;
        let batches = is_look.then_some("the batches of a first look run on the CPU");
        match config.cpu_only_reason().or(batches) {
            Some(why) if self.asked => {
                return Err(Error::usage(format!("{why}: use --device cpu")));
            }
            Some(why) => return Ok(Placement::cpu(None, why.to_owned())),
            None => {}
        }
        if !self.asked && free.is_none() {
            let why =
                format!("the CPU fits: the free memory of {name} is unknown (--device takes it)");
            return Ok(Placement::cpu(None, why));
        }
        let accelerator = Accelerator::new(device.clone(), *free, source, config);
        let kept = match free {
            Some(_) => accelerator.describe_residency(source),
            None => "its free memory is unknown, so that nothing stays there".to_owned(),
        };
        let rates = if self.asked {
            None
        } else {
            match accelerator.measure(source, config, ctx) {
                Ok(rates) => Some(rates),
                Err(e @ (Error::Device(..) | Error::Tensor(_))) => {
                    let why = format!("the CPU fits: {name} failed on the first rows: {e}");
                    return Ok(Placement::cpu(None, why));
                }
                Err(e) => return Err(e),
            }
        };
        let (takes, words) = decision(name, rates.as_ref());
        let ratio = rates.map(|rates| rates.ratio());
        if !takes {
            return Ok(Placement::cpu(ratio, words));
        }
        Ok(Placement {
            accelerator: Some(accelerator),
            place: FitPlace {
                device: name.clone(),
                ratio,
            },
            words: Some(format!("{words}; {kept}; {CPU_STEPS}")),
        })
    }
}

/// Whether the GPU `name` takes the passes, and in words: the one that was named (nothing was
/// measured), or the faster one.
fn decision(name: &str, rates: Option<&PassRates>) -> (bool, String) {
    let Some(rates) = rates else {
        return (true, format!("{name} fits"));
    };
    let rows = crate::amounts::count(rates.rows);
    let ratio = rates.ratio();
    if rates.device_is_faster() {
        let words =
            format!("{name} fits: {ratio:.1} times as fast as the CPU on the first {rows} rows");
        (true, words)
    } else {
        let words = format!(
            "the CPU fits: {name} is {ratio:.2} times as fast on the first {rows} rows (--device takes it)"
        );
        (false, words)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::activations::InMemory;

    fn source() -> InMemory {
        InMemory::new(300, 20, (0..6000).map(|i| (i % 17) as f32 - 8.0).collect())
    }

    fn gpu(asked: bool, free: Option<u64>) -> FitGpu {
        let gpu = Gpu {
            device: Device::Cpu,
            name: "gpu:0".into(),
            free,
        };
        FitGpu { gpu, asked }
    }

    fn plain() -> FitConfig {
        FitConfig {
            features: 4,
            ..FitConfig::default()
        }
    }

    #[test]
    fn the_faster_one_takes_a_fit_and_a_named_one_whatever_was_measured() {
        let rates = |device, cpu| PassRates {
            device,
            cpu,
            rows: 131_072,
        };
        let (takes, words) = decision("gpu:0", Some(&rates(4e6, 1e5)));
        assert!(
            takes && words.contains("40.0 times") && words.contains("131,072"),
            "{words}"
        );
        let (takes, words) = decision("gpu:0", Some(&rates(5e4, 1e5)));
        assert!(!takes && words.contains("0.50 times"), "{words}");
        assert_eq!(decision("gpu:0", None), (true, "gpu:0 fits".into()));
    }

    #[test]
    fn a_gpu_that_is_named_is_taken_and_the_user_is_told_what_stays_there() {
        let ctx = TaskCtx::silent();
        let of = |free| {
            gpu(true, free)
                .for_fit(&plain(), &source(), false, &ctx)
                .unwrap()
        };
        let roomy = of(Some(1 << 30));
        let words = roomy.words.unwrap();
        assert!(roomy.accelerator.is_some() && roomy.place.device == "gpu:0");
        assert_eq!(roomy.place.ratio, None);
        assert!(
            words.contains("23.4 KiB of activations stay there in f32"),
            "{words}"
        );
        assert!(words.contains("on the CPU"), "{words}");
        let full = of(Some(0)).words.unwrap();
        assert!(
            full.contains("no activations stay") && full.contains("go there and back"),
            "{full}"
        );
        assert!(of(None).words.unwrap().contains("unknown"));
    }

    #[test]
    fn a_gpu_that_is_only_there_is_measured_and_the_user_sees_by_what_ratio() {
        let ctx = TaskCtx::silent();
        let found = gpu(false, Some(1 << 30))
            .for_fit(&plain(), &source(), false, &ctx)
            .unwrap();
        // Which one is faster is the machine's to say: the answer has to fit what was measured.
        let ratio = found.place.ratio.unwrap();
        let words = found.words.unwrap();
        assert_eq!(found.accelerator.is_some(), ratio > 1.0);
        assert!(
            words.contains("times as fast") && words.contains("300 rows"),
            "{words}"
        );
        let unknown = gpu(false, None)
            .for_fit(&plain(), &source(), false, &ctx)
            .unwrap();
        assert!(unknown.accelerator.is_none() && unknown.words.unwrap().contains("unknown"));
        ctx.cancel_token().cancel();
        assert!(matches!(
            gpu(false, Some(1 << 30)).for_fit(&plain(), &source(), false, &ctx),
            Err(Error::Cancelled)
        ));
    }

    #[test]
    fn what_only_the_cpu_can_fit_is_said_and_refused_where_a_gpu_was_named() {
        let ctx = TaskCtx::silent();
        let capped = FitConfig {
            row_cap: Some(3),
            ..plain()
        };
        for (config, is_look, word) in [(&capped, false, "row cap"), (&plain(), true, "first look")]
        {
            let of = |asked| gpu(asked, Some(1 << 30)).for_fit(config, &source(), is_look, &ctx);
            let words = of(false).unwrap().words.unwrap();
            assert!(words.contains(word), "{words}");
            assert!(matches!(of(true), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn a_fit_on_the_cpu_asks_for_no_gpu() {
        assert!(FitGpu::open(DeviceChoice::Cpu).unwrap().is_none());
    }
}
