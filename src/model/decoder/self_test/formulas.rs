//! What each operation of the self-test gives, by its formula in f64 and with plain loops.
//!
//! Knows nothing of candle: a value that candle computes wrongly on every device is found too.

use super::super::products::scattered;
use super::SHAPE;

/// Values of the operations' inputs.
fn values(count: usize) -> Vec<f64> {
    scattered(count).into_iter().map(f64::from).collect()
}

/// A · Bᵀ of each of `batch` pairs of matrices, `m` × `k` and `n` × `k`.
fn products(batch: usize, (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    let (a, b) = (values(batch * m * k), values(batch * n * k));
    let mut out = Vec::with_capacity(batch * m * n);
    for i in 0..batch {
        for row in a[i * m * k..(i + 1) * m * k].chunks(k) {
            for other in b[i * n * k..(i + 1) * n * k].chunks(k) {
                out.push(row.iter().zip(other).map(|(x, y)| x * y).sum());
            }
        }
    }
    out
}

/// A matrix `SHAPE.0` × `SHAPE.2` by inner products of `SHAPE.1` values.
pub(super) fn product() -> Vec<f64> {
    products(1, SHAPE)
}

/// Scores of 2 × 4 heads: 19 queries, 45 keys, 24 values each.
pub(super) fn products_of_heads() -> Vec<f64> {
    products(8, (19, 24, 45))
}

/// x / √(mean x² + ε) · (1 + w)
pub(super) fn rms_norm() -> Vec<f64> {
    let (x, w) = (values(SHAPE.0 * SHAPE.1), values(SHAPE.1));
    let of = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + 1e-5).sqrt();
        let each = row.iter().zip(&w);
        each.map(|(v, w)| v * scale * (1.0 + w)).collect()
    };
    x.chunks(SHAPE.1).flat_map(of).collect()
}

/// (x − mean) / √(variance + ε) · w + b, where w and b are the same values.
pub(super) fn layer_norm() -> Vec<f64> {
    let (x, w) = (values(SHAPE.0 * SHAPE.1), values(SHAPE.1));
    let of = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        let each = row.iter().zip(&w);
        each.map(|(v, w)| (v - mean) * scale * w + w).collect()
    };
    x.chunks(SHAPE.1).flat_map(of).collect()
}

/// act(x) of x four times as large as the values.
fn activated(act: fn(f64) -> f64) -> Vec<f64> {
    let x = values(SHAPE.0 * (SHAPE.1 / 2));
    x.into_iter().map(|v| act(4.0 * v)).collect()
}

/// act(gate) · up of rows `[gate | up]` four times as large as the values.
fn gated(act: fn(f64) -> f64) -> Vec<f64> {
    let width = SHAPE.1 / 2;
    let x = values(SHAPE.0 * 2 * width);
    let of = |row: &[f64]| -> Vec<f64> {
        let (gate, up) = row.split_at(width);
        let each = gate.iter().zip(up);
        each.map(|(g, u)| act(4.0 * g) * 4.0 * u).collect()
    };
    x.chunks(2 * width).flat_map(of).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// x σ(x) of the gate, times the rest.
pub(super) fn silu_gate() -> Vec<f64> {
    gated(|x| x * sigmoid(x))
}

/// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) of the gate, times the rest.
pub(super) fn gelu_gate() -> Vec<f64> {
    gated(|x| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    })
}

/// x/2 (1 + erf(x / √2))
pub(super) fn gelu_by_erf() -> Vec<f64> {
    activated(|x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)))
}

/// erf x = 2/√π e^(−x²) Σ 2ⁿ x^(2n+1) / (1 · 3 · … · (2n+1)) (Abramowitz and Stegun, 7.1.6): all terms
/// have one sign, so that none cancels another.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// max(x, 0)²
pub(super) fn relu_squared() -> Vec<f64> {
    activated(|x| x.max(0.0).powi(2))
}

/// x σ(1.702 x)
pub(super) fn quick_gelu() -> Vec<f64> {
    activated(|x| x * sigmoid(1.702 * x))
}

/// Of rows of 45 scores eight times as large as the values.
pub(super) fn softmax() -> Vec<f64> {
    let scores = values(2 * 4 * 19 * 45);
    let of = |row: &[f64]| -> Vec<f64> {
        let powers: Vec<f64> = row.iter().map(|v| (8.0 * v).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / sum).collect()
    };
    scores.chunks(45).flat_map(of).collect()
}

/// 5 tanh(x / 5) of scores eight times as large as the values.
pub(super) fn soft_cap() -> Vec<f64> {
    let cap = |v: f64| 5.0 * (8.0 * v / 5.0).tanh();
    values(19 * 45).into_iter().map(cap).collect()
}

/// Rows 36, 0, 7 and 7.
pub(super) fn rows_by_number() -> Vec<f64> {
    let rows = values(SHAPE.0 * SHAPE.1);
    let row = |r: usize| rows[r * SHAPE.1..(r + 1) * SHAPE.1].to_vec();
    [36, 0, 7, 7].into_iter().flat_map(row).collect()
}

/// A cache of 2 rows × 3 heads × 64 places × 24 values, written in one piece from place 17 on and then
/// at places of each row's own; to every value the sum of its place is added.
pub(super) fn sums_and_cached_rows() -> Vec<f64> {
    let new = values(2 * 3 * 5 * 24);
    let mut cache = vec![0.0; 2 * 3 * 64 * 24];
    let places = [[1, 3, 5, 7, 9], [60, 61, 62, 63, 0]];
    for (head, new) in new.chunks(5 * 24).enumerate() {
        for (i, token) in new.chunks(24).enumerate() {
            for place in [17 + i, places[head / 3][i]] {
                cache[(head * 64 + place) * 24..][..24].copy_from_slice(token);
            }
        }
    }
    let of = |token: &[f64]| -> Vec<f64> {
        let sum: f64 = token.iter().sum();
        token.iter().map(|v| v + sum).collect()
    };
    cache.chunks(24).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_is_that_of_the_tables() {
        // Abramowitz and Stegun, table 7.1.
        for (x, of) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (2.0, 0.995_322_265_0),
            (-1.0, -0.842_700_792_9),
            (3.0, 0.999_977_909_5),
        ] {
            assert!((erf(x) - of).abs() < 1e-10, "{x}");
        }
    }
}
