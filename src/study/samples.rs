//! `tokens.samples-<i>.jsonl`: the texts and labels of the study's corpora, one file per corpus and
//! one line per sample; the last line holds the number of samples and the checksum of the bytes
//! before it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::corpus::Sample;
use crate::corpus::TokenTable;
use crate::disk;
use crate::error::{Error, Result};

#[derive(Serialize, Deserialize)]
struct Line {
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    samples: usize,
    xxh3: String,
}

fn path_of(dir: &Path, corpus: usize) -> PathBuf {
    dir.join(format!("tokens.samples-{corpus}.jsonl"))
}

pub(super) fn write(dir: &Path, corpus: usize, samples: &[Sample]) -> Result<()> {
    let path = path_of(dir, corpus);
    let bytes =
        encode(samples).map_err(|e| Error::file(&path, format!("cannot be written: {e}")))?;
    disk::write_atomic(&path, &bytes)
}

fn encode(samples: &[Sample]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for sample in samples {
        serde_json::to_writer(
            &mut bytes,
            &Line {
                text: sample.text.clone(),
                label: sample.label.clone(),
            },
        )?;
        bytes.push(b'\n');
    }
    let footer = Footer {
        samples: samples.len(),
        xxh3: format!("{:016x}", xxh3_64(&bytes)),
    };
    serde_json::to_writer(&mut bytes, &footer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Decodes the samples of a file; the error says what is wrong with its bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Sample>, String> {
    let damaged = || "damaged (checksum); restore it from a copy".to_owned();
    let body = bytes.strip_suffix(b"\n").ok_or_else(damaged)?;
    let split = body.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let footer: Footer = serde_json::from_slice(&body[split..]).map_err(|_| damaged())?;
    if format!("{:016x}", xxh3_64(&bytes[..split])) != footer.xxh3 {
        return Err(damaged());
    }
    let lines = bytes[..split].split_inclusive(|&b| b == b'\n');
    let samples: Result<Vec<Sample>, _> = lines
        .map(|line| serde_json::from_slice(line).map(|Line { text, label }| Sample { text, label }))
        .collect();
    samples
        .ok()
        .filter(|s| s.len() == footer.samples)
        .ok_or_else(damaged)
}

/// Reads the samples of corpus number `corpus`, which must be `expected` many.
pub(super) fn read(dir: &Path, corpus: usize, expected: usize) -> Result<Vec<Sample>> {
    let path = path_of(dir, corpus);
    let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
    let samples = decode(&bytes).map_err(|problem| Error::file(&path, problem))?;
    if samples.len() != expected {
        return Err(Error::file(
            &path,
            format!(
                "holds {} samples where study.json says {expected}",
                samples.len()
            ),
        ));
    }
    Ok(samples)
}

/// Removes the file that [`write()`] wrote.
pub(super) fn remove(dir: &Path, corpus: usize) -> Result<()> {
    disk::remove_if_there(&path_of(dir, corpus))
}

/// Appends the samples of corpus number `corpus` to `table`.
pub(super) fn load_into(
    dir: &Path,
    corpus: usize,
    expected: usize,
    table: &mut TokenTable,
) -> Result<()> {
    let samples = read(dir, corpus, expected)?;
    let mut known: HashMap<String, u32> = table
        .labels
        .iter()
        .enumerate()
        .map(|(i, l)| (l.clone(), i as u32))
        .collect();
    for sample in samples {
        let number = sample.label.map(|label| {
            *known.entry(label).or_insert_with_key(|label| {
                table.labels.push(label.clone());
                table.labels.len() as u32 - 1
            })
        });
        table.sample_labels.push(number);
        table.texts.push(sample.text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> impl Strategy<Value = Sample> {
        (any::<String>(), proptest::option::of(any::<String>()))
            .prop_map(|(text, label)| Sample { text, label })
    }

    proptest! {
        #[test]
        fn samples_come_back_and_any_flipped_byte_is_found(
            samples in proptest::collection::vec(sample(), 0..6), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let mut bytes = encode(&samples).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), samples.clone());
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err(), "truncated at {}", at);
            bytes[at] ^= flip;
            // A flip may leave the footer's meaning as it was (the case of a hex digit never does);
            // it must never change the samples.
            prop_assert!(decode(&bytes).map_or(true, |s| s == samples));
        }
    }
}
