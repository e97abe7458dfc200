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
    /// A divisor a pair, as GGUF's `rope_freqs.weight` holds them.
    Factors(Vec<f32>),
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
        Self { base, scaling: RopeScaling::None }
    }

    /// Angle a position for each of the `dims / 2` rotated pairs: θ^(−2i/dims), scaled. The arithmetic is f32 where
    /// Hugging Face's is, so that long positions agree.
    pub fn frequencies(&self, dims: usize) -> Vec<f32> {
        let half = dims / 2;
        let plain = (0..half).map(|i| 1.0 / (self.base as f32).powf((2 * i) as f32 / dims as f32));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|f| f / *factor as f32).collect(),
            RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, d)| f / d).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain
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
