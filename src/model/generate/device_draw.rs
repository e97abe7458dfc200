//! Drawing tokens where the logits lie: what comes back is one id a row.
//!
//! Invariant: the rule is [`Sampling::draw`]'s, in f32; logits that are equal are ordered as the
//! device sorts them.

use candle_core::{D, DType, Tensor};

use super::Sampling;
use crate::error::{Error, Result};
use crate::model::host;

/// Candidates that are sorted at a time: a card sorts a row within the memory that a block of threads
/// shares.
const SORTED: usize = 4096;
/// More candidates than this are sorted on the host.
const MOST: usize = 256;
/// Stands for the id of a row whose logits are NaN.
const NONE: u32 = u32::MAX;

/// Whether tokens are drawn on the device with this sampling from so many.
pub(super) fn serves(sampling: &Sampling, vocab: usize) -> bool {
    sampling.temperature == 0.0 || (1..=MOST).contains(&sampling.top_k) && sampling.top_k < vocab
}

/// The ids that `uniforms`, one a row in [0, 1), draw from logits `[rows, vocab]`.
///
/// # Errors
/// Logits that are NaN.
pub(super) fn draw(logits: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Vec<u32>> {
    let drawn = if sampling.temperature == 0.0 {
        logits.argmax(D::Minus1)?
    } else {
        let (values, ids) = largest(logits, sampling.top_k)?;
        let at = chosen(&values, sampling, uniforms)?;
        ids.gather(&at, 1)?.squeeze(1)?
    };
    // A sum is NaN as soon as one of its values is.
    let sum = logits.sum(D::Minus1)?;
    let none = Tensor::full(NONE, drawn.shape(), drawn.device())?;
    let ids = host::ids(&sum.ne(&sum)?.where_cond(&none, &drawn)?)?;
    if ids.contains(&NONE) {
        return Err(Error::refused(super::sampling::NAN));
    }
    Ok(ids)
}

/// The `keep` largest of each row, largest first, and their columns.
fn largest(logits: &Tensor, keep: usize) -> Result<(Tensor, Tensor)> {
    let rows = logits.dim(0)?;
    let (mut values, mut ids): (Tensor, Option<Tensor>) = (logits.contiguous()?, None);
    loop {
        let count = values.dim(1)?;
        let parts = count.div_ceil(SORTED);
        let width = if parts == 1 { count } else { SORTED };
        let missing = parts * width - count;
        if missing > 0 {
            let device = logits.device();
            let none = Tensor::full(f32::NEG_INFINITY, (rows, missing), device)?;
            values = Tensor::cat(&[&values, &none], 1)?;
            if let Some(held) = ids {
                let none = Tensor::zeros((rows, missing), DType::U32, device)?;
                ids = Some(Tensor::cat(&[&held, &none], 1)?);
            }
        }
        let apart = values.reshape((rows * parts, width))?;
        let order = apart.arg_sort_last_dim(false)?;
        let order = order.narrow(1, 0, keep.min(width))?.contiguous()?;
        let kept = (rows, parts * order.dim(1)?);
        values = apart.gather(&order, 1)?.reshape(kept)?;
        let found = match ids {
            Some(ids) => ids.reshape((rows * parts, width))?.gather(&order, 1)?,
            None => {
                let first: Vec<u32> = (0..parts).map(|part| (part * width) as u32).collect();
                let first = Tensor::from_vec(first, (1, parts, 1), order.device())?;
                let order = order.reshape((rows, parts, order.dim(1)?))?;
                order.broadcast_add(&first)?
            }
        };
        let found = found.reshape(kept)?;
        if parts == 1 {
            return Ok((values, found));
        }
        ids = Some(found);
    }
}

/// The place that each row's uniform number draws among its candidates `[rows, count]`, the largest
/// first: `[rows, 1]`.
fn chosen(values: &Tensor, sampling: &Sampling, uniforms: &[f64]) -> Result<Tensor> {
    let (rows, count) = values.dims2()?;
    let device = values.device();
    let below = values.broadcast_sub(&values.narrow(1, 0, 1)?)?;
    let mass = (below * (1.0 / sampling.temperature))?.exp()?;
    let upper: Vec<f32> = (0..count * count)
        .map(|i| f32::from(u8::from(i / count <= i % count)))
        .collect();
    let sums = mass.matmul(&Tensor::from_vec(upper, (count, count), device)?)?;
    let total = sums.narrow(1, count - 1, 1)?;
    // A candidate is kept while those before it do not yet have the share of the mass.
    let enough = (total * sampling.top_p)?;
    let kept = (&sums - &mass)?.broadcast_lt(&enough)?;
    let kept = kept.to_dtype(DType::F32)?;
    let of_kept = (mass * &kept)?.sum_keepdim(1)?;
    let uniforms: Vec<f32> = uniforms.iter().map(|&u| u as f32).collect();
    let aim = (of_kept * Tensor::from_vec(uniforms, (rows, 1), device)?)?;
    let passed = sums.broadcast_le(&aim)?.to_dtype(DType::F32)?;
    let at = (passed * &kept)?.sum_keepdim(1)?;
    // A uniform number near 1 may round to all of the mass.
    let last = (kept.sum_keepdim(1)? - 1.0)?;
    Ok(at.minimum(&last)?.to_dtype(DType::U32)?)
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
        ] {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                ..Sampling::default()
            };
            assert!(serves(&sampling, vocab));
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
            assert_eq!(host::copied() - before, rows as u64);
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
