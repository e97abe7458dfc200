//! Drawing a token from logits: temperature, top-k, top-p.
//!
//! Owns no random numbers: the caller passes a uniform one for each draw. Invariant: the same
//! logits and number give the same token.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Why nothing can be drawn from logits that are NaN.
pub(super) const NAN: &str =
    "the logits are NaN: the weights are damaged, or a steering strength is too large";

/// How the next token is drawn (defaults: method, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Keeps the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Then keeps the likeliest tokens up to this share of the probability, in (0, 1].
    pub top_p: f64,
    /// Seeds the random numbers of every row.
    pub seed: u64,
    /// At most so many new tokens a row.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 30,
            top_p: 0.3,
            seed: 42,
            max_tokens: 50,
        }
    }
}

impl Sampling {
    /// Refuses values that nothing can be drawn with.
    ///
    /// # Errors
    /// [`Error::Usage`] for a negative temperature, a `top_p` outside (0, 1], or no new tokens.
    pub fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(Error::usage(format!(
                "temperature {} must be 0 or more",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::usage(format!(
                "top-p {} must be above 0 and at most 1",
                self.top_p
            )));
        }
        if self.max_tokens == 0 {
            return Err(Error::usage(
                "there is nothing to generate: ask for at least one new token",
            ));
        }
        Ok(())
    }

    /// The token that `uniform` (in [0, 1)) draws from logits `[vocab]`: temperature, then the
    /// `top_k` likeliest, then nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). Equal
    /// logits are ordered by id, so that a draw is the same on every machine.
    ///
    /// # Errors
    /// Logits that are NaN, or none at all.
    pub(super) fn draw(&self, logits: &[f32], uniform: f64) -> Result<u32> {
        if logits.iter().any(|l| l.is_nan()) {
            return Err(Error::refused(NAN));
        }
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        if self.temperature == 0.0 {
            return ids
                .into_iter()
                .min_by(order)
                .ok_or_else(|| Error::refused("the model has no vocabulary"));
        }
        let keep = if self.top_k == 0 {
            ids.len()
        } else {
            self.top_k.min(ids.len())
        };
        if keep < ids.len() {
            ids.select_nth_unstable_by(keep, order);
            ids.truncate(keep);
        }
        ids.sort_unstable_by(order);
        let top = ids.first().map_or(0.0, |&i| f64::from(logits[i as usize]));
        let mut mass: Vec<f64> = ids
            .iter()
            .map(|&i| ((f64::from(logits[i as usize]) - top) / self.temperature).exp())
            .collect();
        let total: f64 = mass.iter().sum();
        let mut sum = 0.0;
        let cut = mass.iter().position(|m| {
            sum += m;
            sum >= self.top_p * total
        });
        mass.truncate(cut.map_or(mass.len(), |c| c + 1));
        let mut left = uniform * mass.iter().sum::<f64>();
        for (&id, m) in ids.iter().zip(&mass) {
            left -= m;
            if left < 0.0 {
                return Ok(id);
            }
        }
        let last = mass.len().saturating_sub(1);
        ids.get(last)
            .copied()
            .ok_or_else(|| Error::refused("the model has no vocabulary"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_kept_mass() {
        let logits = || vec![0.0, 3.0, 2.0, -1.0, 3.0];
        let sampling = |temperature, top_k, top_p| Sampling {
            temperature,
            top_k,
            top_p,
            ..Sampling::default()
        };
        assert_eq!(
            sampling(0.0, 0, 1.0).draw(&logits(), 0.9).unwrap(),
            1,
            "ties go to the lower id"
        );
        assert_eq!(sampling(1.0, 2, 1.0).draw(&logits(), 0.49).unwrap(), 1);
        assert_eq!(sampling(1.0, 2, 1.0).draw(&logits(), 0.51).unwrap(), 4);
        assert_eq!(
            sampling(1.0, 0, 0.4).draw(&logits(), 0.999).unwrap(),
            1,
            "one token already holds the mass"
        );
        let mut seen = [0; 5];
        for i in 0..1000 {
            seen[sampling(1.0, 0, 1.0)
                .draw(&logits(), (f64::from(i) + 0.5) / 1000.0)
                .unwrap() as usize] += 1;
        }
        let total: f64 = logits().iter().map(|l: &f32| f64::from(*l).exp()).sum();
        for (count, logit) in seen.iter().zip(logits()) {
            assert!((f64::from(*count) - 1000.0 * f64::from(logit).exp() / total).abs() < 2.0);
        }
        assert!(sampling(1.0, 0, 1.0).draw(&[f32::NAN, 1.0], 0.5).is_err());
        assert!(sampling(-1.0, 0, 1.0).check().is_err() && sampling(1.0, 0, 0.0).check().is_err());
    }
}
