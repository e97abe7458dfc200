//! Weights as stored: memory-mapped safetensors and GGUF, one resident copy.
//!
//! Owns the mapped bytes and how a row of them becomes f32; knows nothing of layers or of what a
//! tensor is for. Invariant: a [`StoredTensor`] tensor lies wholly inside its mapping and is aligned for
//! its blocks, checked when the file is opened, so that reading it cannot fail.

mod blocks;
mod digest;
mod gguf;
mod mapped;
mod safetensors;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::GgmlDType;

use crate::error::{Error, Result};
use crate::model::gguf::Value;

pub use blocks::Activations;
pub use digest::digest;
pub(crate) use mapped::Mapped;

/// A tensor of a weight file, in the bytes that the file holds.
#[derive(Clone)]
pub struct StoredTensor {
    bytes: Arc<Mapped>,
    range: Range<usize>,
    dtype: GgmlDType,
    shape: Vec<usize>,
    file: Arc<Path>,
}

impl StoredTensor {
    /// Checks that `range` of `bytes` holds `shape` in `dtype`; copies it where the file does not
    /// align it.
    pub(crate) fn new(
        bytes: &Arc<Mapped>,
        range: Range<usize>,
        dtype: GgmlDType,
        shape: Vec<usize>,
        file: &Arc<Path>,
    ) -> std::result::Result<Self, String> {
        let block = dtype.block_size();
        let cols = shape.last().copied().unwrap_or(1);
        let count = shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .ok_or("its shape overflows")?;
        if !cols.is_multiple_of(block) {
            return Err(format!(
                "its rows of {cols} values are no whole {dtype:?} blocks of {block}"
            ));
        }
        let need = (count / block)
            .checked_mul(dtype.type_size())
            .ok_or("its shape overflows")?;
        if need != range.len() {
            return Err(format!(
                "{shape:?} in {dtype:?} needs {need} bytes, the file gives it {}",
                range.len()
            ));
        }
        let Some(data) = bytes.as_slice().get(range.clone()) else {
            return Err(format!(
                "it ends at byte {}, the file at {}: truncated?",
                range.end,
                bytes.as_slice().len()
            ));
        };
        if blocks::is_aligned(dtype, data) {
            return Ok(Self {
                bytes: Arc::clone(bytes),
                range,
                dtype,
                shape,
                file: Arc::clone(file),
            });
        }
        let copy = Arc::new(Mapped::copied(data));
        Ok(Self {
            range: 0..data.len(),
            bytes: copy,
            dtype,
            shape,
            file: Arc::clone(file),
        })
    }

    /// A tensor of bytes that lie in memory, of no file.
    ///
    /// # Errors
    /// Bytes that do not hold `shape` in `dtype`.
    pub(crate) fn in_memory(data: &[u8], dtype: GgmlDType, shape: Vec<usize>) -> Result<Self> {
        let bytes = Arc::new(Mapped::copied(data));
        let file: Arc<Path> = Path::new("memory").into();
        Self::new(&bytes, 0..data.len(), dtype, shape, &file)
            .map_err(|problem| Error::file(&file, problem))
    }

    /// The extents of its axes, outermost first: `[rows, cols]` of a matrix.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type in which its values are stored.
    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    /// The bytes of all its values, row after row.
    pub fn data(&self) -> &[u8] {
        &self.bytes.as_slice()[self.range.clone()]
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The extent of its last axis.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The product of all extents but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Whether values are packed in blocks that share a scale.
    pub fn is_quantised(&self) -> bool {
        self.dtype.block_size() > 1
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cols() / self.dtype.block_size() * self.dtype.type_size()
    }

    /// The bytes of the rows in `rows`.
    pub fn rows_data(&self, rows: Range<usize>) -> &[u8] {
        let row = self.row_bytes();
        &self.data()[rows.start * row..rows.end * row]
    }

    /// Writes the rows in `rows` as f32 into `out` (`rows.len() * cols` values).
    pub fn dequantise(&self, rows: Range<usize>, out: &mut [f32]) {
        blocks::dequantise(self.dtype, self.rows_data(rows), out);
    }

    /// The stored values themselves; `None` unless they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        (self.dtype == GgmlDType::F32).then(|| blocks::as_f32(self.data()))
    }

    /// Quantised products: `out[c * m + r] = ⟨row c of rows, x row r⟩` for the m rows of `x`, which
    /// [`Self::quantise_activations`] made for this type.
    pub fn quantised_products(&self, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        blocks::products(self.dtype, self.rows_data(rows), self.cols(), x, out);
    }

    /// `x` (`m * cols` values) quantised for [`Self::quantised_products`].
    pub fn quantise_activations(&self, x: &[f32]) -> Activations {
        blocks::quantise(self.dtype, x, self.cols())
    }

    /// All values as f32, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows() * self.cols()];
        self.dequantise(0..self.rows(), &mut out);
        out
    }
}

/// The tensors of a model's files by name, and a GGUF's metadata.
pub struct Weights {
    tensors: HashMap<String, StoredTensor>,
    meta: HashMap<String, Value>,
    files: Vec<PathBuf>,
    bytes: u64,
    notes: Vec<String>,
}

impl Weights {
    /// Weights of values in memory: names, shapes and values.
    ///
    /// # Errors
    /// Values that are not as many as the shape says.
    pub(crate) fn in_memory(tensors: Vec<(String, Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let mut out = Self {
            tensors: HashMap::new(),
            meta: HashMap::new(),
            files: Vec::new(),
            bytes: 0,
            notes: vec![],
        };
        for (name, shape, values) in tensors {
            let data: &[u8] = bytemuck::cast_slice(&values);
            out.bytes += data.len() as u64;
            let tensor = StoredTensor::in_memory(data, GgmlDType::F32, shape)?;
            out.tensors.insert(name, tensor);
        }
        Ok(out)
    }

    /// Maps the safetensors shards of one checkpoint.
    ///
    /// # Errors
    /// A shard that is missing or broken, a tensor that two shards hold or whose type cannot be
    /// read, and a checkpoint without tensors.
    pub fn open_safetensors(shards: &[PathBuf]) -> Result<Self> {
        let Some(first) = shards.first() else {
            return Err(Error::refused(
                "the model has no weight files: expected model.safetensors or its shards",
            ));
        };
        let mut out = Self {
            tensors: HashMap::new(),
            meta: HashMap::new(),
            files: shards.to_vec(),
            bytes: 0,
            notes: vec![],
        };
        for shard in shards {
            let (tensors, bytes) = safetensors::open(shard)?;
            out.bytes += bytes;
            for (name, tensor) in tensors {
                if out.tensors.insert(name.clone(), tensor).is_some() {
                    return Err(Error::file(
                        shard,
                        format!("tensor {name} is already in another shard"),
                    ));
                }
            }
        }
        if out.tensors.is_empty() {
            return Err(Error::file(first, "holds no tensors"));
        }
        Ok(out)
    }

    /// Maps a GGUF file.
    ///
    /// # Errors
    /// A file that is missing, truncated or not GGUF, and a tensor whose type cannot be read.
    pub fn open_gguf(path: &Path) -> Result<Self> {
        let opened = gguf::open(path)?;
        let note = format!(
            "{} tensors are stored as IQ4_NL and held as Q8_0, the same values",
            opened.converted
        );
        Ok(Self {
            tensors: opened.tensors,
            meta: opened.metadata,
            files: vec![path.to_path_buf()],
            bytes: opened.bytes,
            notes: if opened.converted > 0 {
                vec![note]
            } else {
                Vec::new()
            },
        })
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A GGUF's metadata; empty for safetensors.
    pub fn meta(&self) -> &HashMap<String, Value> {
        &self.meta
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The file to name in an error about the whole checkpoint.
    pub fn path(&self) -> &Path {
        self.files
            .first()
            .map_or(Path::new("weights"), PathBuf::as_path)
    }

    /// Remarks on how the tensors are held, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The sizes of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
