//! Rotary embeddings (Su et al. 2021, arXiv:2104.09864): the frequencies of one base with its scaling,
//! as `transformers` computes them (`modeling_rope_utils.py`).

use std::f64::consts::PI;

use serde::Serialize;

/// How the frequencies were changed for a longer context than that of the original training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum RopeScaling {
    /// The frequencies are unchanged.
    None,
    /// All frequencies are divided by a factor (Chen et al. 2023, arXiv:2306.15595).
    Linear(f64),
    /// Llama 3.1 (`_compute_llama3_parameters`): low frequencies are divided by `factor`, high ones kept,
    /// those between interpolated.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Frequencies whose wavelength exceeds `original / low` tokens are divided.
        low: f64,
        /// Frequencies whose wavelength is below `original / high` tokens are kept.
        high: f64,
        /// The context of the original training, in tokens.
        original: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071; `_compute_yarn_parameters`): high frequencies are kept,
    /// low ones divided, those between interpolated, and cosines and sines are scaled.
    Yarn {
        /// What low frequencies are divided by.
        factor: f64,
        /// β_fast: pairs with more rotations than this in the original context are kept.
        fast: f64,
        /// β_slow: pairs with fewer rotations than this are divided.
        slow: f64,
        /// The context of the original training, in tokens.
        original: f64,
        /// The bounds of the interpolation are rounded to whole pairs.
        truncate: bool,
        /// The factor of cosines and sines.
        amplitude: f64,
    },
    /// A divisor for each pair, as GGUF's `rope_freqs.weight` holds them.
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// YaRN by `factor` with the defaults of the paper: β_fast 32, β_slow 1, and 0.1 ln(factor) + 1 as
    /// the factor of cosines and sines.
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

/// A rotary embedding, which some or all layers of a model use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// The base θ of the frequencies.
    pub base: f64,
    /// The change of the frequencies for long contexts.
    pub scaling: RopeScaling,
}

impl Rope {
    /// The embedding of a base, with unchanged frequencies.
    pub fn new(base: f64) -> Self {
        Self {
            base,
            scaling: RopeScaling::None,
        }
    }

    /// The factor of cosines and sines: 1 but for YaRN.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { amplitude, .. } => amplitude as f32,
            _ => 1.0,
        }
    }

    /// The angle per position of each of the `dims / 2` rotated pairs: θ^(−2i/dims), changed by the
    /// scaling. The arithmetic is f32 where that of `transformers` is, so that long positions agree.
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
                // The pair that makes so many rotations within the original context
                // (`find_correction_dim`).
                let pair = |rotations: f64| {
                    dims as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.base.ln())
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
