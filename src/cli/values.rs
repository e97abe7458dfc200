//! What an option takes: the ranges of its values, refused where they are read, before anything is
//! opened.
//!
//! Knows no command. Each function is a clap value parser, and its error completes "invalid value
//! '…' for --option:".

use crate::factor::MAX_THREADS;

/// A number of things of which there must be one: features, sweeps, threads.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| "give a whole number from 1 on".to_owned())
}

/// The most texts of a prompt: all of them are generated and held at once.
const MOST_SAMPLES: usize = 10_000;

/// A number of texts of a prompt.
pub(super) fn samples(text: &str) -> Result<usize, String> {
    let n = at_least_one(text)?;
    match n <= MOST_SAMPLES {
        true => Ok(n),
        false => Err(format!("give at most {MOST_SAMPLES}")),
    }
}

/// A number of threads.
pub(super) fn threads(text: &str) -> Result<usize, String> {
    let range = 1..=MAX_THREADS;
    text.parse()
        .ok()
        .filter(|n| range.contains(n))
        .ok_or_else(|| format!("give a whole number from 1 to {MAX_THREADS}"))
}

fn number(text: &str, wanted: &str, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && fits(*v))
        .ok_or_else(|| format!("give {wanted}"))
}

/// Any number that is one.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    number(text, "a finite number", |_| true)
}

/// A temperature, a penalty.
pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, "a number that is 0 or more", |v| v >= 0.0)
}

/// Reads a learning rate: a finite number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text, "a number above 0", |v| v > 0.0)
}

/// A share of which something must be there: of neurons, of probability.
pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, "a share above 0 and at most 1, as 0.05", |v| {
        v > 0.0 && v <= 1.0
    })
}

/// A share that is held out; 0 is none, and all cannot be.
pub(super) fn held_out(text: &str) -> Result<f64, String> {
    number(text, "a share from 0 to below 1, as 0.2", |v| {
        (0.0..1.0).contains(&v)
    })
}

/// Reads a KL target in nats: a finite number above 0.
pub(super) fn kl(text: &str) -> Result<f64, String> {
    number(text, "", |v| v > 0.0)
        .map_err(|_| "a KL target must be a positive number: try 0.25".to_owned())
}

/// A height of the dendrogram, which is 1 − overlap; that of cosines reaches to 2.
pub(super) fn height(text: &str) -> Result<f32, String> {
    number(text, "a height from 0 to 2, as 0.9", |v| {
        (0.0..=2.0).contains(&v)
    })
    .map(|v| v as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_in_range_is_refused() {
        for bad in ["nan", "inf", "-inf", "", "x", "1e999"] {
            assert!(
                finite(bad).is_err() && not_negative(bad).is_err() && positive(bad).is_err(),
                "{bad}"
            );
            assert!(
                share(bad).is_err()
                    && held_out(bad).is_err()
                    && kl(bad).is_err()
                    && height(bad).is_err(),
                "{bad}"
            );
        }
        assert!(
            share("0").is_err()
                && share("1").is_ok()
                && held_out("0").is_ok()
                && held_out("1").is_err()
        );
        assert!(
            not_negative("-0.1").is_err() && not_negative("0").is_ok() && positive("0").is_err()
        );
        assert!(
            at_least_one("0").is_err() && at_least_one("-1").is_err() && at_least_one("2").is_ok()
        );
        assert_eq!(height("0.9"), Ok(0.9));
        assert!(samples("10000").is_ok() && samples("10001").is_err() && samples("0").is_err());
    }
}
