//! Formatting of numbers for people: counts, bytes, durations, shares. Used by every shell; knows
//! nothing of terminals.

/// Formats a count with separators: `17204` as `17,204`.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Formats bytes in powers of 1000, in the unit that leaves one to three digits before the point.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            return if unit == "B" || value >= 99.5 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    String::new()
}

/// Formats seconds as `8 s`, `3 m 20 s` or `2 h 05 m`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=99 => format!("{s} s"),
        100..=5999 => format!("{} m {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} m", s / 3600, s % 3600 / 60),
    }
}

/// Formats a number with two or three significant digits, in scientific notation if it is small.
pub fn number(v: f64) -> String {
    let a = v.abs();
    match a {
        _ if !v.is_finite() => "–".to_owned(),
        _ if a == 0.0 => "0".to_owned(),
        _ if a >= 999.5 => count_signed(v),
        _ if a >= 99.95 => format!("{v:.0}"),
        _ if a >= 9.995 => format!("{v:.1}"),
        _ if a >= 0.0995 => format!("{v:.2}"),
        _ if a >= 0.000_95 => format!("{v:.3}"),
        _ => format!("{v:.0e}"),
    }
}

fn count_signed(v: f64) -> String {
    if v.abs() >= 1e7 {
        return format!("{v:.1e}");
    }
    let digits = count(v.abs().round() as usize);
    if v < 0.0 {
        format!("-{digits}")
    } else {
        digits
    }
}

/// Formats a share from 0 to 1 that a user chose, without rounding it visibly: `2.5 %`.
pub fn chosen_percent(share: f64) -> String {
    // Six digits after the point hide the error of binary fractions, as in 0.07 · 100.
    format!("{} %", (share * 1e8).round() / 1e6)
}

/// Formats a measured share from 0 to 1 in per cent: `3.1%`, `42%`.
pub fn percent(share: f32) -> String {
    let p = share * 100.0;
    match p {
        _ if !p.is_finite() => "–".to_owned(),
        _ if p <= 0.0 => "0%".to_owned(),
        _ if p < 0.095 => "<.1%".to_owned(),
        _ if p < 9.95 => format!("{p:.1}%"),
        _ => format!("{p:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shortened_for_reading() {
        assert_eq!(count(17204), "17,204");
        assert_eq!(bytes(42_300_000), "42.3 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(duration(200.0), "3 m 20 s");
        assert_eq!(number(0.0312), "0.031");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(percent(0.031), "3.1%");
    }

    #[test]
    fn nan_infinity_and_huge_numbers_are_formatted_without_a_panic() {
        assert_eq!(
            (duration(f64::NAN), number(f64::INFINITY), percent(f32::NAN)),
            ("?".into(), "–".into(), "–".into())
        );
        assert_eq!(
            (bytes(0), count(0), bytes(u64::MAX)),
            ("0 B".into(), "0".into(), "18446744 TB".into())
        );
    }
}
