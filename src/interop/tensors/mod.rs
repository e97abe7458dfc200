//! Reading and writing safetensors.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. Written a block of rows at a time,
//! so that factors of any length need no second copy in memory.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

pub(super) use read::Header;
pub use read::open_matrix;

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::interop::factor_arrays::{FactorArrays, Numbers};

/// Writes the factors' arrays and what is said of them, atomically.
///
/// # Errors
/// Coefficients of another shape than the features, and a file that cannot be written.
pub fn write_factors(path: &Path, factors: &FactorArrays<'_>) -> Result<()> {
    let arrays = factors.arrays()?;
    let table: Vec<Entry<'_>> = arrays
        .iter()
        .map(|array| (array.name, array.numbers, array.shape.clone()))
        .collect();
    write(path, &table, &factors.about, |out| {
        arrays
            .iter()
            .try_for_each(|array| factors.write_array(array, out))
    })
}

/// Writes named f32 tensors (name, shape, row-major data), atomically.
///
/// # Errors
/// Data of another length than the shape's product, and a file that cannot be written.
pub fn write_named(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    for (name, shape, data) in tensors {
        if shape.iter().product::<usize>() != data.len() {
            return Err(Error::refused(format!(
                "tensor '{name}' has {} values for the shape {shape:?}",
                data.len()
            )));
        }
    }
    let table: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(n, shape, _)| (n.as_str(), Numbers::F32, shape.clone()))
        .collect();
    write(path, &table, &BTreeMap::new(), |out| {
        tensors
            .iter()
            .try_for_each(|(_, _, data)| write_floats(out, data))
    })
}

/// Writes the result of `mlpeek forward`: `tokens` (i64) and named f32 tensors, atomically.
///
/// # Errors
/// Data of another length than the shape's product, and a file that cannot be written.
pub fn write_forward(
    path: &Path,
    ids: &[u32],
    tensors: &[(String, Vec<usize>, Vec<f32>)],
) -> Result<()> {
    let bad =
        |e: SafeTensorError| Error::file(path, format!("cannot be written as safetensors: {e}"));
    let ids: Vec<u8> = ids
        .iter()
        .flat_map(|&id| i64::from(id).to_le_bytes())
        .collect();
    let mut views = vec![(
        "tokens",
        TensorView::new(Dtype::I64, vec![ids.len() / 8], &ids).map_err(bad)?,
    )];
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|t| t.2.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    for ((name, shape, _), data) in tensors.iter().zip(&data) {
        views.push((
            name,
            TensorView::new(Dtype::F32, shape.clone(), data).map_err(bad)?,
        ));
    }
    disk::write_atomic(path, &safetensors::serialize(views, None).map_err(bad)?)
}

pub(super) fn write_floats(out: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(values.len().min(1 << 16) * 4);
    for part in values.chunks(1 << 16) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// A tensor's name, type and shape.
type Entry<'a> = (&'a str, Numbers, Vec<usize>);

/// Writes a header for tensors that lie one after the other, then their data, to a neighbour that
/// takes the name once it is whole and on disk.
fn write(
    path: &Path,
    table: &[Entry<'_>],
    about: &BTreeMap<String, String>,
    data: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let names: BTreeSet<&str> = table.iter().map(|(name, ..)| *name).collect();
    if names.len() != table.len() || names.contains("__metadata__") {
        return Err(Error::refused("two tensors of one file have the same name"));
    }
    let mut header = serde_json::Map::new();
    if !about.is_empty() {
        header.insert("__metadata__".to_owned(), json!(about));
    }
    let mut start = 0;
    for (name, numbers, shape) in table {
        let end = start + 4 * shape.iter().product::<usize>();
        header.insert(
            (*name).to_owned(),
            json!({ "dtype": numbers.safetensors(), "shape": shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' '); // numbers start aligned, as other readers map them

    let mut out = BufWriter::new(NewFile::create(path)?);
    let written = (|| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        data(&mut out)?;
        out.flush()
    })();
    written.map_err(Error::io("write", path))?;
    let (file, _) = out.into_parts();
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;

    use proptest::prelude::*;
    use safetensors::SafeTensors;

    use super::read::matrix;
    use super::*;
    use crate::corpus::TokenTable;
    use crate::factor::{Coefficients, Factors, SparseColumns};
    use crate::interop::factor_arrays::BLOCK_ROWS;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    fn parse_bytes(bytes: &[u8], name: Option<&str>) -> Result<(usize, usize, Vec<f32>)> {
        // A row or two a block.
        matrix(
            Cursor::new(bytes),
            bytes.len() as u64,
            Path::new("x.safetensors"),
            name,
        )?
        .read_all(4)
    }

    fn read_matrix(path: &Path, name: Option<&str>) -> Result<(usize, usize, Vec<f32>)> {
        open_matrix(path, name)?.read_all(4)
    }

    /// What another reader makes of a tensor that was written here.
    fn other_reader(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
        let bytes = fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let values = tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (tensor.shape().to_vec(), values.collect())
    }

    #[test]
    fn factors_come_out_dense_and_row_major() {
        // Rows past one block, so that blocks must meet.
        let (d, k, n) = (2 * BLOCK_ROWS + 3, 3, BLOCK_ROWS + 5);
        let features = SparseColumns {
            rows: d,
            offsets: vec![0, 2, 2, 5],
            indices: vec![1, d as u32 - 1, 0, BLOCK_ROWS as u32, BLOCK_ROWS as u32 + 1],
            values: vec![0.5, -0.5, 1.0, 2.0, 3.0],
        };
        let by_feature: Vec<f32> = (0..k * n).map(|i| i as f32).collect();
        let factors = Factors {
            features: features.clone(),
            coefficients: Coefficients::owned(n, by_feature.clone()),
            coding: Default::default(),
            relative_error: 0.0,
            weighted_error: None,
            explained_variance: 0.0,
            sweep: 0,
            seconds: 0.0,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.safetensors");
        let about = BTreeMap::from([("set".to_owned(), "a".to_owned())]);
        let tokens = TokenTable::of_matrix(n);
        let arrays = FactorArrays::new(&factors, Some(&tokens), about);
        write_factors(&path, &arrays).unwrap();
        let zip = dir.path().join("f.npz");
        crate::interop::npz::write_factors(&zip, &arrays).unwrap();
        let mut zip = crate::interop::archive::Archive::open(&zip).unwrap();
        let (shape, z) = other_reader(&path, "Z");
        assert_eq!(shape, [d, k]);
        for j in 0..k {
            let column: Vec<f32> = z[j..].iter().step_by(k).copied().collect();
            assert_eq!(column, features.dense_column(j));
        }
        assert_eq!(zip.read("Z", &[d, k]).unwrap(), z);
        let (shape, y) = other_reader(&path, "Y");
        assert_eq!(zip.read("Y", &[n, k]).unwrap(), y);
        assert_eq!(shape, [n, k]);
        assert!((0..n * k).all(|i| y[i] == by_feature[(i % k) * n + i / k]));
        assert_eq!(read_matrix(&path, Some("Y")).unwrap(), (n, k, y));
        let several = read_matrix(&path, None).unwrap_err().to_string();
        assert!(several.contains(&format!("'Y' [{n}, {k}]")), "{several}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn named_tensors_of_any_rank_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let m = (
            "blocks.0.hook_mlp_out".to_owned(),
            vec![2, 2],
            vec![1.0, -2.0, f32::NAN, 4.0],
        );
        write_named(
            &path,
            &[
                ("tokens".to_owned(), vec![2], vec![1.0, 2.0]),
                m,
                ("e".to_owned(), vec![0], vec![]),
            ],
        )
        .unwrap();
        assert_eq!(other_reader(&path, "tokens"), (vec![2], vec![1.0, 2.0]));
        let (rows, cols, values) = read_matrix(&path, None).unwrap();
        assert_eq!(
            (rows, cols, values[1], values[2].is_nan()),
            (2, 2, -2.0, true)
        );
    }

    #[test]
    fn a_write_that_cannot_be_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        fs::write(&path, "old").unwrap();
        let tensor = |name: &str, len: usize| (name.to_owned(), vec![len], vec![0.0; 2]);
        assert!(write_named(&path, &[tensor("a", 3)]).is_err());
        assert!(write_named(&path, &[tensor("a", 2), tensor("a", 2)]).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(write_named(&dir.path().join("no/such/t.safetensors"), &[tensor("a", 2)]).is_err());
        // Behind a link its file is written, and the link stays.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_named(&link, &[("x".into(), vec![1], vec![2.0])]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::metadata(&path).unwrap().len() > 8);
        fs::remove_file(&link).unwrap();
        // A directory cannot be replaced by a file; nothing unfinished stays beside it.
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write_named(&dir.path().join("d"), &[tensor("a", 2)]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn every_float_type_is_read() {
        let bf16: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|&v| half::bf16::from_f32(v).to_le_bytes())
            .collect();
        let f64s: Vec<u8> = [1.5f64, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        for (dtype, data) in [("BF16", bf16), ("F64", f64s)] {
            let header = format!(
                r#"{{"m":{{"dtype":"{dtype}","shape":[1,2],"data_offsets":[0,{}]}}}}"#,
                data.len()
            );
            assert_eq!(
                parse_bytes(&file(&header, &data), None).unwrap(),
                (1, 2, vec![1.5, -2.0])
            );
        }
    }

    #[test]
    fn damaged_files_are_refused_with_the_reason() {
        let says = |bytes: &[u8], name, wanted: &str| {
            let message = parse_bytes(bytes, name).unwrap_err().to_string();
            assert!(
                message.starts_with("x.safetensors: ") && message.contains(wanted),
                "{message}"
            );
        };
        let one = |dtype: &str, shape: &str, end: u64| {
            file(
                &format!(
                    r#"{{"m":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#
                ),
                &[0; 16],
            )
        };
        assert!(parse_bytes(&one("F32", "[2,2]", 16), None).is_ok());
        says(&one("F32", "[2,2]", 16)[..70], None, "truncated");
        says(&one("F32", "[4]", 16), None, "no matrix");
        says(&one("F32", "[4]", 16), Some("m"), "[4]");
        says(&one("F32", "[2,2]", 16), Some("x"), "'m' [2, 2]");
        says(&one("I64", "[1,2]", 16), None, "I64");
        says(&one("F32", "[2,3]", 16), None, "2 × 3");
        says(&one("F32", "[18446744073709551615,2]", 16), None, "values");
        says(&one("F32", "[400,100]", 160_000), None, "truncated");
        says(&file("{}", &[]), None, "no tensors");
        says(&file("[]", &[]), None, "not a safetensors");
        says(&file(r#"{"m":3}"#, &[]), None, "tensor 'm'");
        says(&[0xFF; 20], None, "not a whole");
        says(b"", None, "too short");
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            keep in any::<prop::sample::Index>(),
        ) {
            let header = r#"{"m":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"v":{"dtype":"F16","shape":[1],"data_offsets":[16,18]}}"#;
            let mut bytes = file(header, &[0; 18]);
            for (index, value) in at {
                let i = index.index(bytes.len());
                bytes[i] = value;
            }
            bytes.truncate(keep.index(bytes.len()) + 1);
            let _ = parse_bytes(&bytes, None);
            let _ = parse_bytes(&bytes, Some("v"));
        }

        #[test]
        fn named_matrices_round_trip(rows in 0usize..5, cols in 0usize..5, seed: u32) {
            let data: Vec<f32> = (0..rows * cols).map(|i| f32::from_bits((seed.wrapping_mul(i as u32 + 1)) & 0x7F00_0000)).collect();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("m.safetensors");
            write_named(&path, &[("m".to_owned(), vec![rows, cols], data.clone())]).unwrap();
            prop_assert_eq!(read_matrix(&path, None).unwrap(), (rows, cols, data));
        }
    }
}
