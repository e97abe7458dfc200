//! What is read off logits, reduced where they lie: one number a row comes back.
//!
//! For decoders that compute on tensors; in f32, as cards do. Logits that are −∞ count as a
//! probability of 0. Invariant: a row that holds NaN or ∞ gives NaN, on every device.

use candle_core::{D, DType, Tensor};

use super::host;
use crate::error::Result;

/// What −∞ is taken for, so that 0 · log 0 is 0: its exponential is 0 in f32.
const NEVER: f32 = -1e4;

/// Values that are sorted at a time: a card sorts a row within the memory that a block of threads
/// shares.
const SORTED: usize = 4096;

/// Log-probabilities of rows of logits `[rows, vocab]`.
///
/// # Errors
/// A failure of the device.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.to_dtype(DType::F32)?;
    let all = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    // Not by a maximum, which is the other number on a card where one is NaN.
    let never = Tensor::new(NEVER, all.device())?.broadcast_as(all.shape())?;
    Ok(all.lt(&never)?.where_cond(&never, &all)?)
}

/// KL(p ‖ q) in nats of the rows `[rows, vocab]` of two tensors of log-probabilities.
///
/// # Errors
/// A failure of the device.
pub fn divergences(p: &Tensor, q: &Tensor) -> Result<Vec<f64>> {
    let terms = (p.exp()? * (p - q)?)?;
    let each = host::values(&terms.sum(D::Minus1)?)?;
    Ok(each.into_iter().map(|kl| not_negative(kl.into())).collect())
}

/// A KL that was summed: that of a distribution with itself may round below 0.
pub(crate) fn not_negative(kl: f64) -> f64 {
    // NaN stays NaN, of which `max` would make 0.
    if kl < 0.0 { 0.0 } else { kl }
}

/// The log-probability of each row's own id.
///
/// # Errors
/// A failure of the device.
pub fn log_likelihoods(log_probabilities: &Tensor, ids: &[u32]) -> Result<Vec<f64>> {
    let ids = Tensor::new(ids, log_probabilities.device())?.unsqueeze(1)?;
    let each = log_probabilities.contiguous()?.gather(&ids, 1)?;
    Ok(host::values(&each.squeeze(1)?)?
        .into_iter()
        .map(f64::from)
        .collect())
}

/// The `keep` largest of each row, largest first, and their columns.
pub(crate) fn largest(logits: &Tensor, keep: usize) -> Result<(Tensor, Tensor)> {
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

/// The ids and values of the `count` largest of each row `[rows, width]` without NaN, largest first, of
/// equal ones the lower id first among those that come back: twice as many, as a device sorts in an
/// order of its own.
///
/// # Errors
/// A failure of the device.
pub(crate) fn strongest(x: &Tensor, count: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let (values, ids) = largest(x, (2 * count).min(x.dim(1)?))?;
    let kept = values.dim(1)?;
    let (values, ids) = (host::rows(&values)?, host::ids(&ids.flatten_all()?)?);
    let row = |(ids, values): (&[u32], Vec<f32>)| {
        let mut row: Vec<(u32, f32)> = ids.iter().copied().zip(values).collect();
        row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        row.truncate(count);
        row
    };
    Ok(ids.chunks(kept.max(1)).zip(values).map(row).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn one_number_a_row_by_the_definition() {
        let (p, q) = ([0.5f32, 1.5, -2.0], [1.0f32, 0.0, f32::NEG_INFINITY]);
        let rows = |a: &[f32], b: &[f32]| {
            let both = [a, b].concat();
            log_softmax(&Tensor::from_vec(both, (2, 3), &Device::Cpu).unwrap()).unwrap()
        };
        let norm = |l: &[f32]| l.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
        let before = host::copied();
        let kl = divergences(&rows(&q, &p), &rows(&p, &p)).unwrap();
        // The third probability of q is 0, and so is its term.
        let by_hand: f64 = (0..2)
            .map(|i| {
                let log_q = f64::from(q[i]) - norm(&q);
                log_q.exp() * (log_q - (f64::from(p[i]) - norm(&p)))
            })
            .sum();
        assert!((kl[0] - by_hand).abs() < 1e-6, "{kl:?} {by_hand}");
        assert!(kl[1].abs() < 1e-6);
        let found = log_likelihoods(&rows(&p, &q), &[2, 1]).unwrap();
        assert!((found[0] - (-2.0 - norm(&p))).abs() < 1e-6);
        assert!((found[1] - (0.0 - norm(&q))).abs() < 1e-6);
        assert_eq!(host::copied() - before, 4);
    }

    #[test]
    fn a_row_that_overflowed_says_so() {
        for odd in [f32::NAN, f32::INFINITY] {
            let logits = Tensor::new(&[[0.0, odd, 1.0], [0.0, 2.0, 1.0]], &Device::Cpu).unwrap();
            let all = log_softmax(&logits).unwrap();
            let kl = divergences(&all, &all).unwrap();
            assert!(kl[0].is_nan() && kl[1] == 0.0, "{kl:?}");
            assert!(log_likelihoods(&all, &[0, 0]).unwrap()[0].is_nan());
        }
    }
}
