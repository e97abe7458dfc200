//! The memory that is still available: on the machine, within its container, and within a limit
//! that the user set. Knows nothing of its use.

use std::path::Path;

use crate::error::{Error, Result};

/// The environment variable of the user's limit: bytes, or a number with K, M or G.
pub const LIMIT_VARIABLE: &str = "MLPEEK_MEMORY";

/// The bytes that can still be allocated; `None` if the system does not say and the user set no
/// limit.
///
/// # Errors
/// [`Error::Usage`] if the environment variable does not hold a number of bytes.
pub fn available() -> Result<Option<u64>> {
    let limit = std::env::var(LIMIT_VARIABLE).ok().map(|text| {
        parse(&text).ok_or_else(|| {
            Error::usage(format!(
                "{LIMIT_VARIABLE} is '{text}': give bytes, or a number like 800M or 4G"
            ))
        })
    });
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = number_after(&meminfo, "MemAvailable:").map(|kib| kib * 1024);
    let group = container_available(Path::new("/sys/fs/cgroup"));
    Ok([limit.transpose()?, machine, group]
        .into_iter()
        .flatten()
        .min())
}

/// Parses bytes, or a whole number with the unit K, M or G (binary).
fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, shift) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The bytes that are still available under the limit of a version 2 control group. Cached pages of
/// files count as available, since the kernel drops them.
fn container_available(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let file = read("memory.stat")
        .and_then(|s| number_after(&s, "file"))
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(file)))
}

/// The number that follows the word `name` at the start of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| {
        l.strip_prefix(name)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_container_may_still_take() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("memory.max", "1000\n"),
            ("memory.current", "900\n"),
            ("memory.stat", "anon 500\nfile 400\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(container_available(dir.path()), Some(500));
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(container_available(dir.path()), None);
    }

    #[test]
    fn a_limit_is_bytes_or_a_number_with_a_unit() {
        let cases = [
            ("123", Some(123)),
            ("4k", Some(4096)),
            ("2G", Some(2 << 30)),
            ("1.5G", None),
            ("", None),
            ("é", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }
}
