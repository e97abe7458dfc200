//! Drawing tokens where the logits lie: what comes back is one id a row, and all logits only of a row
//! whose draw falls behind its likeliest tokens.
//!
//! Invariant: the rule is [`Sampling::draw`]'s, in f32; logits that are equal are ordered as the
//! device sorts them.

use candle_core::{D, DType, Device, Tensor};

use super::Sampling;
use crate::error::{Error, Result};
use crate::model::host;
use crate::model::likelihood::largest;

/// The most candidates that are sorted on the device. Where all tokens are candidates these hold most
/// of the mass, and a draw behind them is made on the host.
const MOST: usize = 1024;
/// Stands for the id of a row whose logits are NaN.
const NONE: u32 = u32::MAX;
/// Stands for the id of a row whose draw falls behind the candidates.
const BEHIND: u32 = u32::MAX - 1;

/// The ids that `uniforms`, one a row in [0, 1), draw from logits `[rows, vocab]`.
///
/// # Errors
/// Logits that are NaN.
pub(super) fn draw(logits: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Vec<u32>> {
    let drawn = if sampling.temperature == 0.0 {
        logits.argmax(D::Minus1)?
    } else {
        drawn(logits, sampling, uniforms)?
    };
    // A sum is NaN as soon as one of its values is.
    let sum = logits.sum(D::Minus1)?;
    let none = Tensor::full(NONE, drawn.shape(), drawn.device())?;
    let mut ids = host::ids(&sum.ne(&sum)?.where_cond(&none, &drawn)?)?;
    if ids.contains(&NONE) {
        return Err(Error::refused(super::sampling::NAN));
    }
    for (row, id) in ids.iter_mut().enumerate().filter(|(_, id)| **id == BEHIND) {
        let logits = host::values(&logits.narrow(0, row, 1)?.squeeze(0)?)?;
        *id = sampling.draw(&logits, uniforms[row])?;
    }
    Ok(ids)
}

/// What is drawn of each row, or [`BEHIND`].
fn drawn(logits: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Tensor> {
    let vocab = logits.dim(1)?;
    let asked = match sampling.top_k {
        0 => vocab,
        top_k => top_k.min(vocab),
    };
    let (values, ids) = largest(logits, asked.min(MOST))?;
    let (at, behind) = if asked <= MOST {
        (chosen(&values, sampling, uniforms)?, None)
    } else if asked == vocab {
        let (at, behind) = chosen_of_all(&values, logits, sampling, uniforms)?;
        (at, Some(behind))
    } else {
        // The mass of so many tokens is not known without sorting all.
        return Ok(Tensor::full(BEHIND, logits.dim(0)?, logits.device())?);
    };
    let drawn = ids.gather(&at, 1)?.squeeze(1)?;
    let Some(behind) = behind else {
        return Ok(drawn);
    };
    let elsewhere = Tensor::full(BEHIND, drawn.shape(), drawn.device())?;
    Ok(behind.squeeze(1)?.where_cond(&elsewhere, &drawn)?)
}

/// The mass of each candidate `[rows, count]`, the largest first, relative to the first one's, and
/// the sums up to each.
fn masses(values: &Tensor, sampling: &Sampling) -> Result<(Tensor, Tensor)> {
    let count = values.dim(1)?;
    let below = values.broadcast_sub(&values.narrow(1, 0, 1)?)?;
    let mass = (below * (1.0 / sampling.temperature))?.exp()?;
    let upper = Tensor::triu2(count, DType::F32, values.device())?;
    let sums = mass.matmul(&upper)?;
    Ok((mass, sums))
}

/// 1 for each candidate that is kept: those before it do not yet have `enough` of the mass.
fn kept(mass: &Tensor, sums: &Tensor, enough: &Tensor) -> Result<Tensor> {
    let kept = (sums - mass)?.broadcast_lt(enough)?;
    Ok(kept.to_dtype(DType::F32)?)
}

/// The place where the sums of the kept candidates pass `aim` `[rows, 1]`.
fn passed(sums: &Tensor, kept: &Tensor, aim: &Tensor) -> Result<Tensor> {
    let passed = sums.broadcast_le(aim)?.to_dtype(DType::F32)?;
    let at = (passed * kept)?.sum_keepdim(1)?;
    // A uniform number near 1 may round to all of the mass.
    let last = (kept.sum_keepdim(1)? - 1.0)?;
    Ok(at.minimum(&last)?.to_dtype(DType::U32)?)
}

fn column(uniforms: &[f64], device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = uniforms.iter().map(|&u| u as f32).collect();
    Ok(Tensor::from_vec(values, (uniforms.len(), 1), device)?)
}

/// The place that each row's uniform number draws among its candidates `[rows, count]`, the largest
/// first: `[rows, 1]`.
fn chosen(values: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Tensor> {
    let (mass, sums) = masses(values, sampling)?;
    let total = sums.narrow(1, sums.dim(1)? - 1, 1)?;
    let kept = kept(&mass, &sums, &(total * sampling.top_p)?)?;
    let of_kept = (mass * &kept)?.sum_keepdim(1)?;
    let aim = (of_kept * column(uniforms, values.device())?)?;
    passed(&sums, &kept, &aim)
}

/// The same where all tokens of `logits` are candidates, of which `values` are the likeliest; and 1
/// for each row whose draw cannot be told from these.
fn chosen_of_all(
    values: &Tensor,
    logits: &Tensor,
    sampling: &Sampling,
    uniforms: &[f64],
) -> Result<(Tensor, Tensor)> {
    let (mass, sums) = masses(values, sampling)?;
    let held = sums.narrow(1, sums.dim(1)? - 1, 1)?;
    let below = logits.broadcast_sub(&values.narrow(1, 0, 1)?)?;
    let whole = (below * (1.0 / sampling.temperature))?.exp()?;
    let whole = whole.sum_keepdim(1)?;
    let enough = (&whole * sampling.top_p)?;
    let kept = kept(&mass, &sums, &enough)?;
    let uniforms = column(uniforms, values.device())?;
    let (aim, behind) = if sampling.top_p < 1.0 {
        // Where the likeliest do not hold the share, what is kept is not known.
        let of_kept = (mass * &kept)?.sum_keepdim(1)?;
        ((of_kept * uniforms)?, held.lt(&enough)?)
    } else {
        let aim = (whole * uniforms)?;
        let behind = held.le(&aim)?;
        (aim, behind)
    };
    Ok((passed(&sums, &kept, &aim)?, behind))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    #[test]
    fn what_a_device_draws_is_what_the_host_draws() {
        let mut rng = Pcg64::seed_from_u64(3);
        for (vocab, temperature, top_k, top_p) in [
            (50, 1.0, 30, 0.3),
            (50, 0.7, 5, 1.0),
            (5000, 1.0, 30, 0.9),
            (20_000, 1.5, 200, 1.0),
            (9000, 0.0, 0, 1.0),
            (50, 1.0, 0, 1.0),
            (900, 1.3, 0, 0.8),
            (5000, 0.8, 700, 0.9),
            // All of many tokens: most draws are among the likeliest, the others behind them.
            (9000, 1.0, 0, 1.0),
            (9000, 0.2, 0, 1.0),
            (9000, 0.2, 0, 0.5),
            (9000, 3.0, 0, 0.9),
            (9000, 1.0, 3000, 0.9),
        ] {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                ..Sampling::default()
            };
            let rows = 40;
            let logits: Vec<f32> = (0..rows * vocab)
                .map(|_| rng.random_range(-6.0..6.0))
                .collect();
            let uniforms: Vec<f64> = (0..rows).map(|_| rng.random()).collect();
            let on_host: Vec<u32> = logits
                .chunks(vocab)
                .zip(&uniforms)
                .map(|(logits, &u)| sampling.draw(logits, u).unwrap())
                .collect();
            let x = Tensor::from_vec(logits, (rows, vocab), &Device::Cpu).unwrap();
            let before = host::copied();
            assert_eq!(draw(&x, &sampling, &uniforms).unwrap(), on_host);
            // An id a row, and the logits of rows whose draw falls behind the likeliest.
            let copied = (host::copied() - before) as usize;
            let behind = (copied - rows) / vocab;
            assert_eq!(copied, rows + behind * vocab);
            let all = top_k == 0 && temperature > 0.0 && vocab > MOST;
            let (least, most) = match (all, temperature, top_p) {
                // The likeliest 1,024 of 9,000 hold three quarters of the mass, or too little of what is kept.
                (true, 1.0, 1.0) => (3, 20),
                (true, 3.0, _) => (rows, rows),
                (true, _, 1.0) => (0, 5),
                _ if top_k > MOST => (rows, rows),
                _ => (0, 0),
            };
            assert!(
                (least..=most).contains(&behind),
                "{behind} rows of {vocab} tokens"
            );
        }
    }

    #[test]
    fn the_end_of_the_mass_and_logits_that_are_nan() {
        let logits = |v: &[f32]| Tensor::from_slice(v, (1, v.len()), &Device::Cpu).unwrap();
        let sampling = Sampling {
            top_k: 3,
            top_p: 1.0,
            ..Sampling::default()
        };
        let almost = 1.0 - f64::EPSILON;
        let x = logits(&[1.0, 3.0, 2.0, -9.0]);
        assert_eq!(draw(&x, &sampling, &[almost]).unwrap(), [0]);
        assert_eq!(draw(&x, &sampling, &[0.0]).unwrap(), [1]);
        let broken = logits(&[1.0, f32::NAN, 2.0, 0.0]);
        assert!(draw(&broken, &sampling, &[0.5]).is_err());
    }
}
