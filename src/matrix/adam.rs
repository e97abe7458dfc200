//! One step of Adam (Kingma, Ba 2015) on a slice of weights.

const BETA: (f32, f32) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;

/// The step of a number: its rate and its corrections for moments that began at zero.
pub struct Adam {
    rate: f32,
    /// 1 / √(1 − β₂ᵗ).
    correction: f32,
}

impl Adam {
    /// Step `step` (from 1) at a rate of learning.
    pub fn for_step(step: u64, rate: f32) -> Self {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let (first, second) = (power(BETA.0), power(BETA.1));
        Self {
            rate: (f64::from(rate) / first) as f32,
            correction: second.sqrt().recip() as f32,
        }
    }

    /// Moves `weights` down their gradient and renews the two moments, all of one length.
    pub fn update(
        &self,
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
    ) {
        let moments = first.iter_mut().zip(second);
        for ((w, (m, v)), &g) in weights.iter_mut().zip(moments).zip(gradient) {
            *m += (1.0 - BETA.0) * (g - *m);
            *v += (1.0 - BETA.1) * (g * g - *v);
            *w -= self.rate * *m / (v.sqrt() * self.correction + EPSILON);
        }
    }
}
