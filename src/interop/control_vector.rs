//! Control vectors of llama.cpp: a GGUF file with a tensor `direction.k` for each block k that is
//! steered, one-dimensional f32 of the width of the residual stream.
//!
//! Convention, which other tools are held to by tests: llama.cpp adds `direction.k` to the output of
//! block k, counted from 0, at every position, and never reads one for block 0
//! (<https://github.com/ggml-org/llama.cpp>, `src/llama-adapter.cpp`); repeng's index is the same.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::disk;
use crate::error::{Error, Result};
use crate::model::weights::Weights;

/// What `general.architecture` of a control vector says.
const ARCHITECTURE: &str = "controlvector";
/// The largest number of a block that is accepted from a file.
const MOST_BLOCKS: usize = 1 << 16;
/// What the metadata says of the numbers of tensors.
const CONVENTION: &str =
    "direction.k is added to the residual stream after block k, counted from 0";

/// Vectors that are added to the residual stream, each after the block of its number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ControlVector {
    /// The model's architecture, where the file says one.
    pub model: Option<String>,
    /// Of each steered block its vector; all have one width.
    pub by_block: BTreeMap<usize, Vec<f32>>,
}

/// Writes a control vector with `about` among its metadata, atomically.
///
/// # Errors
/// [`Error::Usage`] for block 0, which llama.cpp never steers, and for no block at all; a file that
/// cannot be written.
pub fn write(path: &Path, vector: &ControlVector, about: &BTreeMap<String, String>) -> Result<()> {
    if vector.by_block.contains_key(&0) {
        return Err(Error::usage(
            "llama.cpp never adds a control vector after block 0: choose a direction of a later layer",
        ));
    }
    let count = u32::try_from(vector.by_block.len()).unwrap_or(u32::MAX);
    let mut metadata = vec![
        ("general.architecture".to_owned(), text(ARCHITECTURE)),
        (
            "controlvector.model_hint".to_owned(),
            text(vector.model.as_deref().unwrap_or_default()),
        ),
        ("controlvector.layer_count".to_owned(), Value::U32(count)),
        ("mlpeek.convention".to_owned(), text(CONVENTION)),
    ];
    metadata.extend(
        about
            .iter()
            .map(|(name, value)| (format!("mlpeek.{name}"), text(value))),
    );
    let tensor = |(block, values): (&usize, &Vec<f32>)| -> Result<(String, QTensor)> {
        let values = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        Ok((
            format!("direction.{block}"),
            QTensor::quantize(&values, GgmlDType::F32)?,
        ))
    };
    let tensors: Vec<_> = vector.by_block.iter().map(tensor).collect::<Result<_>>()?;
    let metadata: Vec<_> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut out = Cursor::new(Vec::new());
    gguf_file::write(&mut out, &metadata, &tensors)?;
    disk::write_atomic(path, out.get_ref())
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Reads a control vector.
///
/// # Errors
/// A file that is no control vector, a tensor of another name, shape or width, a value that is not
/// finite.
pub fn read(path: &Path) -> Result<ControlVector> {
    let bad = |problem: String| Error::file(path, problem);
    let weights = Weights::open_gguf(path)?;
    let word = |key: &str| weights.meta().get(key).and_then(|value| value.as_str());
    match word("general.architecture") {
        Some(ARCHITECTURE) => {}
        other => {
            let other = other.unwrap_or("nothing").escape_debug();
            return Err(bad(format!(
                "is no control vector: its general.architecture is {other}, where {ARCHITECTURE} is due"
            )));
        }
    }
    let model = word("controlvector.model_hint")
        .filter(|hint| !hint.is_empty())
        .map(str::to_owned);
    let mut by_block = BTreeMap::new();
    let mut names: Vec<&str> = weights.names().collect();
    names.sort_unstable();
    for name in names {
        let shown = name.escape_debug();
        let block = name
            .strip_prefix("direction.")
            .and_then(|number| number.parse::<usize>().ok())
            .filter(|block| *block < MOST_BLOCKS)
            .ok_or_else(|| bad(format!("has a tensor '{shown}', where direction.k is due")))?;
        let tensor = weights
            .get(name)
            .filter(|tensor| tensor.shape().len() == 1 && tensor.dtype() == GgmlDType::F32);
        let values = tensor
            .and_then(|tensor| tensor.as_f32())
            .ok_or_else(|| bad(format!("tensor '{shown}' is no vector of f32")))?
            .to_vec();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(bad(format!(
                "tensor '{shown}' holds {} (value {at}): every one must be finite",
                values[at]
            )));
        }
        if by_block
            .values()
            .any(|v: &Vec<f32>| v.len() != values.len())
        {
            return Err(bad("holds vectors of several widths".to_owned()));
        }
        by_block.insert(block, values);
    }
    if by_block.is_empty() {
        return Err(bad("holds no tensor direction.k".to_owned()));
    }
    Ok(ControlVector { model, by_block })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::testing::GgufWriter;
    use proptest::prelude::*;

    fn vector() -> ControlVector {
        ControlVector {
            model: Some("llama".to_owned()),
            by_block: BTreeMap::from([(1, vec![1.0, -2.5, 0.0]), (7, vec![0.5, 0.25, 3.0])]),
        }
    }

    fn written() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        write(&path, &vector(), &BTreeMap::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        (dir, path, bytes)
    }

    #[test]
    fn what_is_written_comes_back_and_block_0_is_refused() {
        let (_dir, path, _) = written();
        assert_eq!(read(&path).unwrap(), vector());
        let mut first = vector();
        first.by_block.insert(0, vec![0.0; 3]);
        let refused = write(&path, &first, &BTreeMap::new()).unwrap_err();
        assert!(refused.to_string().contains("block 0"), "{refused}");
        assert_eq!(read(&path).unwrap(), vector(), "the old file stays");
    }

    #[test]
    fn what_is_no_control_vector_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        let head = || GgufWriter::new().string("general.architecture", ARCHITECTURE);
        let f32s =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let says = |file: GgufWriter, words: &str| {
            std::fs::write(&path, file.bytes()).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        let whole = |file: GgufWriter| file.tensor("direction.3", &[2], 0, &f32s(&[1.0, 2.0]));
        says(whole(GgufWriter::new()), "no control vector");
        says(
            whole(GgufWriter::new().string("general.architecture", "llama")),
            "llama",
        );
        says(
            head().tensor("direction.x", &[2], 0, &f32s(&[1.0, 2.0])),
            "direction.x",
        );
        says(
            head().tensor("direction.3", &[2, 1], 0, &f32s(&[1.0, 2.0])),
            "no vector",
        );
        says(head().tensor("direction.3", &[2], 1, &[0; 4]), "no vector");
        says(
            whole(head()).tensor("direction.4", &[1], 0, &f32s(&[1.0])),
            "several widths",
        );
        says(
            head().tensor("direction.3", &[2], 0, &f32s(&[1.0, f32::NAN])),
            "finite",
        );
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            keep in any::<prop::sample::Index>(),
        ) {
            let (_dir, path, mut bytes) = written();
            for (index, value) in at {
                let i = index.index(bytes.len());
                bytes[i] = value;
            }
            bytes.truncate(keep.index(bytes.len()) + 1);
            std::fs::write(&path, bytes).unwrap();
            let _ = read(&path);
        }
    }
}
