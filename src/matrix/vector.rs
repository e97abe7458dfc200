//! Products of vectors of f32, summed in f64 in the order of the values. Knows nothing of what the
//! vectors mean.

/// a · b; values beyond the shorter vector are left out.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}

/// ‖v‖².
pub fn squared_norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// ‖v‖.
pub fn norm(v: &[f32]) -> f64 {
    squared_norm(v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_what_single_precision_would_lose() {
        let (a, b) = ([1e8f32, 1.0, -1e8], [1.0f32; 3]);
        assert_eq!(dot(&a, &b), 1.0);
        assert_eq!(
            squared_norm(&[1e30, 2e30]),
            5.0 * f64::from(1e30f32).powi(2)
        );
        assert_eq!((norm(&[3.0, 4.0]), norm(&[])), (5.0, 0.0));
    }
}
