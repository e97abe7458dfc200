//! Memory that can still be taken: of the machine, within its container, within the user's own
//! limit.

use std::path::Path;

use crate::error::{Error, Result};

/// A limit of the user's own: bytes, or a number with K, M or G.
pub const LIMIT: &str = "MLPEEK_MEMORY";

/// Bytes that can still be taken; `None` where the system does not say and the user set no limit.
pub fn available() -> Result<Option<u64>> {
    let limit = std::env::var(LIMIT).ok().map(|text| {
        parse(&text).ok_or_else(|| {
            Error::usage(format!(
                "{LIMIT} is '{text}': give bytes, or a number like 800M or 4G"
            ))
        })
    });
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = field(&meminfo, "MemAvailable:").map(|kib| kib * 1024);
    let group = container_room(Path::new("/sys/fs/cgroup"));
    Ok([limit.transpose()?, machine, group]
        .into_iter()
        .flatten()
        .min())
}

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

/// Room under a version 2 control group's limit; pages of files count as free.
fn container_room(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let file = read("memory.stat")
        .and_then(|s| field(&s, "file"))
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(file)))
}

/// The number after a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
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
        assert_eq!(container_room(dir.path()), Some(500));
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(container_room(dir.path()), None);
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
