//! The Adam optimiser's update (Kingma, Ba, "Adam: a method for stochastic optimization", 2015) of a
//! slice of weights. Knows nothing of what the weights are.

/// β₁ and β₂, the decay rates of the two moments, with the values of the paper.
const BETA: (f32, f32) = (0.9, 0.999);
/// Added to the root of the second moment, as in the paper.
const EPSILON: f32 = 1e-8;

/// The constants of one step: the learning rate, and the bias corrections, which the moments need
/// because they start from zero.
pub struct Adam {
    /// The learning rate divided by 1 − β₁ᵗ.
    rate: f32,
    /// 1 / √(1 − β₂ᵗ).
    correction: f32,
}

impl Adam {
    /// The constants of step `step`, counted from 1, at the learning rate `rate`. The powers are taken
    /// in f64: 1 − β₂ᵗ loses most digits of an f32 at the first steps.
    pub fn for_step(step: u64, rate: f32) -> Self {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let (first, second) = (power(BETA.0), power(BETA.1));
        Self {
            rate: (f64::from(rate) / first) as f32,
            correction: second.sqrt().recip() as f32,
        }
    }

    /// Updates `weights` and their first and second moments from `gradient`; all four slices have
    /// the same length.
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
