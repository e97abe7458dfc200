//! Rotary embeddings: the frequencies of one base with its scaling.

use std::f64::consts::PI;

use serde::Serialize;

/// How long-context training stretched the frequencies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by a factor.
    Linear(f64),
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Below `original / low` the wavelength is long: divided.
        low: f64,
        /// Above `original / high`: kept.
        high: f64,
        /// The context of the original training.
        original: f64,
    },
    /// YaRN: fast pairs kept, slow ones divided, a ramp between; cosines and sines grow.
    Yarn {
        /// The divisor.
        factor: f64,
        /// Pairs that turn more often than this in the original context are kept.
        fast: f64,
        /// Pairs that turn less often are divided.
        slow: f64,
        /// The context of the original training.
        original: f64,
        /// The ramp begins and ends at whole pairs.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        amplitude: f64,
    },
    /// A divisor a pair, as GGUF's `rope_freqs.weight` holds them.
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// YaRN by `factor` with what it does where nothing else is said.
    pub fn yarn(factor: f64, original: f64) -> Self {
        let amplitude = if factor <= 1.0 {
            1.0
        } else {
            0.1 * factor.ln() + 1.0
        };
        Self::Yarn {
            factor,
            fast: 32.0,
            slow: 1.0,
            original,
            truncate: true,
            amplitude,
        }
    }
}

/// One rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// θ.
    pub base: f64,
    /// Scaling of its frequencies.
    pub scaling: RopeScaling,
}

impl Rope {
    /// An unscaled one.
    pub fn new(base: f64) -> Self {
        Self {
            base,
            scaling: RopeScaling::None,
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { amplitude, .. } => amplitude as f32,
            _ => 1.0,
        }
    }

    /// Angle a position for each of the `dims / 2` rotated pairs: θ^(−2i/dims), scaled. The
    /// arithmetic is f32 where Hugging Face's is, so that long positions agree.
    pub fn frequencies(&self, dims: usize) -> Vec<f32> {
        let half = dims / 2;
        let plain = (0..half).map(|i| 1.0 / (self.base as f32).powf((2 * i) as f32 / dims as f32));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|f| f / *factor as f32).collect(),
            RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, d)| f / d).collect(),
            RopeScaling::Yarn {
                factor,
                fast,
                slow,
                original,
                truncate,
                ..
            } => {
                // The pair that turns so often within the original context.
                let pair = |turns: f64| {
                    dims as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln())
                };
                let (mut low, mut high) = (pair(*fast), pair(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dims as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let ramp =
                    |i: usize| ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                plain
                    .enumerate()
                    .map(|(i, f)| f / *factor as f32 * ramp(i) + f * (1.0 - ramp(i)))
                    .collect()
            }
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain
                .map(|f| {
                    let wavelength = 2.0 * PI / f64::from(f);
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        f / *factor as f32
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        ((1.0 - smooth) * f64::from(f) / factor + smooth * f64::from(f)) as f32
                    }
                })
                .collect(),
        }
    }
}
