//! Files of tensors that `torch.save` writes: a zip with a pickle, which names the tensors, and their
//! numbers beside it.
//!
//! Invariant: nothing that the pickle asks for is run, and memory is bounded by what the file holds.

mod pickle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use zip::ZipArchive;

use self::pickle::{Node, Pickle, TensorAt};
use super::floats::read_matrix;
use crate::error::{Error, Result};

/// The end of the pickle's name in the zip.
const PICKLE: &str = "/data.pkl";
/// The longest pickle that names tensors.
const MAX_PICKLE: u64 = 64 << 20;
/// The deepest dictionary of dictionaries that is looked into.
const MAX_DEPTH: usize = 4;
/// Most values that are looked at: lists that hold each other many times name no tensors.
const MAX_VISITS: usize = 1 << 20;

/// The tensors of a file by name, and plain values beside them. A name within a dictionary within
/// another has both, with a dot between.
#[derive(Debug)]
pub(super) struct Index {
    folder: String,
    tensors: BTreeMap<String, TensorAt>,
    /// Numbers and texts by name.
    pub(super) metadata: BTreeMap<String, String>,
}

/// Whether a zip is torch's.
pub(super) fn is_torch<R: Read + Seek>(zip: &ZipArchive<R>) -> bool {
    let mut names = zip.file_names().flatten();
    names.any(|name| name.ends_with(PICKLE))
}

impl Index {
    /// Reads the pickle of a zip.
    pub(super) fn read<R: Read + Seek>(zip: &mut ZipArchive<R>, path: &Path) -> Result<Self> {
        let bad = |problem: String| Error::file(path, problem);
        let names: Vec<String> = zip.file_names().flatten().map(|n| n.into_owned()).collect();
        let name = names
            .iter()
            .find(|name| name.ends_with(PICKLE))
            .ok_or_else(|| bad("has no data.pkl".to_owned()))?;
        let folder = name.strip_suffix(PICKLE).unwrap_or_default().to_owned();
        if let Ok(order) = zip.by_name(&format!("{folder}/byteorder")) {
            let mut text = String::new();
            order
                .take(16)
                .read_to_string(&mut text)
                .map_err(Error::io("read", path))?;
            if text.trim() != "little" {
                return Err(bad("holds big-endian numbers".to_owned()));
            }
        }
        let mut bytes = Vec::new();
        let entry = zip
            .by_name(name)
            .map_err(|e| bad(format!("'{name}' cannot be read ({e})")))?;
        entry
            .take(MAX_PICKLE + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > MAX_PICKLE {
            return Err(bad(
                "has a pickle that is too long to name tensors".to_owned()
            ));
        }
        let pickle = pickle::read(&bytes).map_err(bad)?;
        let mut index = Self {
            folder,
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        let mut left = MAX_VISITS;
        index.collect(&pickle, pickle.root, "", (0, &mut left));
        if index.tensors.is_empty() {
            return Err(bad("holds no tensors".to_owned()));
        }
        Ok(index)
    }

    fn collect(
        &mut self,
        pickle: &Pickle,
        node: usize,
        name: &str,
        (depth, left): (usize, &mut usize),
    ) {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => return,
        }
        let within = |key: &str| match name {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        };
        match &pickle.nodes[node] {
            Node::Tensor(tensor) => {
                self.tensors.insert(name.to_owned(), tensor.clone());
            }
            Node::Dict(members) if depth < MAX_DEPTH => {
                for &(key, value) in members {
                    if let Some(key) = pickle.nodes[key].plain() {
                        self.collect(pickle, value, &within(&key), (depth + 1, &mut *left));
                    }
                }
            }
            Node::List(items) | Node::Tuple(items) if depth < MAX_DEPTH => {
                for (i, &value) in items.iter().enumerate() {
                    self.collect(
                        pickle,
                        value,
                        &within(&i.to_string()),
                        (depth + 1, &mut *left),
                    );
                }
            }
            other => {
                if let Some(text) = other.plain() {
                    self.metadata.insert(name.to_owned(), text);
                }
            }
        }
    }

    /// The names of all tensors, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor that is there.
    pub(super) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The values of a tensor that is there, row-major.
    pub(super) fn values<R: Read + Seek>(
        &self,
        zip: &mut ZipArchive<R>,
        path: &Path,
        name: &str,
    ) -> Result<Vec<f32>> {
        let bad = |problem: String| Error::file(path, format!("tensor '{name}' {problem}"));
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| bad("is not there".to_owned()))?;
        let numbers = tensor.numbers.clone().map_err(|kind| {
            bad(format!(
                "holds {}; f16, bf16, f32 and f64 can be read",
                kind.escape_debug()
            ))
        })?;
        let entry = zip
            .by_name(&format!("{}/data/{}", self.folder, tensor.storage))
            .map_err(|e| bad(format!("has no numbers ({e})")))?;
        let needed = numbers.matrix_bytes(tensor.count, 1);
        if needed != Some(entry.size()) || entry.size() != entry.compressed_size() {
            return Err(bad(format!(
                "has {} values in {} bytes",
                tensor.count,
                entry.size()
            )));
        }
        let count = usize::try_from(tensor.count).map_err(|_| bad("is too large".to_owned()))?;
        let last = tensor
            .last()
            .filter(|last| *last < tensor.count || tensor.shape.contains(&0));
        let Some(_) = last else {
            return Err(bad(format!(
                "of shape {:?} reaches beyond its {} values",
                tensor.shape, tensor.count
            )));
        };
        let mut entry = entry;
        let storage = read_matrix(&mut entry, path, numbers, (count, 1), false)?;
        let total = tensor
            .shape
            .iter()
            .try_fold(1usize, |n, &s| n.checked_mul(usize::try_from(s).ok()?))
            // A stride of 0 repeats a value, which no tensor of weights does.
            .filter(|total| *total <= count)
            .ok_or_else(|| bad(format!("of shape {:?} repeats its values", tensor.shape)))?;
        let mut out = Vec::with_capacity(total);
        let mut at = vec![0u64; tensor.shape.len()];
        for _ in 0..total {
            let place = at
                .iter()
                .zip(&tensor.stride)
                .map(|(i, s)| i * s)
                .sum::<u64>();
            out.push(storage[(tensor.offset + place) as usize]);
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                if at[axis] < tensor.shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Ok(out)
    }
}

impl TensorAt {
    /// The place of its last value in the storage; `None` where it overflows.
    fn last(&self) -> Option<u64> {
        let mut last = self.offset;
        for (&size, &stride) in self.shape.iter().zip(&self.stride) {
            last = last.checked_add(size.saturating_sub(1).checked_mul(stride)?)?;
        }
        Some(last)
    }
}
