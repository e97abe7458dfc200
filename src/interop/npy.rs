//! NumPy's `.npy`.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to
//! 3. The header is a Python dictionary with exactly the keys `descr`, `fortran_order` and `shape`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::floats::{FloatType, read_matrix};
use super::matrix::Matrix;
use crate::error::{Error, Result};
use crate::lfs;

/// A header longer than this describes no matrix.
const MAX_HEADER: u32 = 1 << 16;

/// Opens a two-dimensional little-endian f32, f64 or f16 matrix (C or Fortran order), to be read by
/// blocks of rows.
///
/// # Errors
/// A file that is not `.npy` or is truncated, another type of numbers, and an array that is not
/// two-dimensional.
pub fn open(path: &Path) -> Result<Matrix<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    matrix(file, length, path)
}

fn matrix<R: Read>(mut input: R, length: u64, path: &Path) -> Result<Matrix<R>> {
    let (header, data) = Header::read(&mut input, length, path)?;
    if header.shape.len() != 2 {
        let dimensions = header.shape.len();
        let problem = format!(
            "holds an array of {dimensions} dimensions ({:?}); a matrix of rows (tokens) × columns (neurons) is needed",
            header.shape
        );
        return Err(Error::file(path, problem));
    }
    let (shape, float_type, by_column) = (
        header.locate(data, path)?,
        header.float_type,
        header.fortran,
    );
    Ok(Matrix {
        input,
        path: path.to_path_buf(),
        float_type,
        shape,
        start: length - data,
        by_column,
    })
}

/// Reads an array of any rank out of `length` bytes: (shape, row-major f32).
pub(super) fn read_array(
    mut input: impl Read,
    length: u64,
    path: &Path,
) -> Result<(Vec<u64>, Vec<f32>)> {
    let (header, data) = Header::read(&mut input, length, path)?;
    if header.fortran && header.shape.len() > 2 {
        return Err(Error::file(
            path,
            "holds a Fortran-ordered array of more than two dimensions",
        ));
    }
    let values = header.values(&mut input, data, path)?;
    Ok((header.shape, values))
}

/// The shape of an array of `length` bytes.
pub(super) fn read_shape(mut input: impl Read, length: u64, path: &Path) -> Result<Vec<u64>> {
    Header::read(&mut input, length, path).map(|(header, _)| header.shape)
}

#[derive(Debug, PartialEq)]
struct Header {
    float_type: FloatType,
    fortran: bool,
    shape: Vec<u64>,
}

impl Header {
    /// The header of an array of `length` bytes, and how many of them are its data.
    fn read(input: &mut impl Read, length: u64, path: &Path) -> Result<(Self, u64)> {
        let bad = |problem: &str| Error::file(path, problem);
        let mut prefix = [0; 8];
        if length < 8 || input.read_exact(&mut prefix).is_err() || prefix[..6] != *b"\x93NUMPY" {
            let mut head = prefix.to_vec();
            // A file that cannot be read further is reported by what was read of it.
            let _ = input.take(64).read_to_end(&mut head);
            if lfs::is_pointer(&head) {
                return Err(bad(lfs::POINTER_PROBLEM));
            }
            return Err(bad(match &prefix {
                [b'P', b'K', 3, 4, ..] => {
                    "is an archive, as of numpy.savez: save one array with numpy.save"
                }
                [0x1f, 0x8b, ..] => "is compressed by gzip: unpack it (gunzip)",
                _ => "is not a .npy file",
            }));
        }
        let mut size = [0; 4];
        let width = match prefix[6] {
            1 => 2,
            2 | 3 => 4,
            version => {
                return Err(bad(&format!(
                    "has .npy version {version}; versions 1 to 3 can be read"
                )));
            }
        };
        input
            .read_exact(&mut size[..width])
            .map_err(|_| bad("is truncated within its header"))?;
        let size = u32::from_le_bytes(size);
        if size > MAX_HEADER {
            return Err(bad("has a header that is too long for a matrix"));
        }
        let mut text = vec![0; size as usize];
        input
            .read_exact(&mut text)
            .map_err(|_| bad("is truncated within its header"))?;
        let header = Self::parse(&text).map_err(|problem| Error::file(path, problem))?;
        Ok((
            header,
            length.saturating_sub(8 + width as u64 + u64::from(size)),
        ))
    }

    /// The values, row-major, after a check that `data` bytes hold them.
    fn values(&self, input: &mut impl Read, data: u64, path: &Path) -> Result<Vec<f32>> {
        read_matrix(
            input,
            path,
            self.float_type,
            self.locate(data, path)?,
            self.fortran,
        )
    }

    /// The numbers of rows and columns (all dimensions but the last taken as one), after a check that
    /// `data` bytes hold them.
    fn locate(&self, data: u64, path: &Path) -> Result<(usize, usize)> {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows = self
            .shape
            .iter()
            .rev()
            .skip(1)
            .try_fold(1u64, |n, &s| n.checked_mul(s))
            .unwrap_or(u64::MAX);
        match (
            self.float_type.matrix_bytes(rows, cols),
            usize::try_from(rows),
            usize::try_from(cols),
        ) {
            (Some(needed), Ok(rows), Ok(cols)) if needed <= data => Ok((rows, cols)),
            _ => {
                let each = self.float_type.bytes();
                let problem = format!(
                    "is truncated: {rows} × {cols} numbers of {each} bytes, and {data} bytes of data"
                );
                Err(Error::file(path, problem))
            }
        }
    }

    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(text).map_err(|_| "has a header that is not text".to_owned())?;
        let value = |key: &str| {
            let after = text
                .split_once(&format!("'{key}'"))
                .or_else(|| text.split_once(&format!("\"{key}\"")));
            let value = after.and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
            value
                .map(str::trim_start)
                .ok_or_else(|| format!("has a header without '{key}'"))
        };
        let descr = value("descr")?;
        let quoted = descr.chars().next().filter(|c| ['\'', '"'].contains(c));
        let name = quoted
            .and_then(|quote| descr[1..].split(quote).next())
            .unwrap_or("a structure");
        let float_type = match name {
            "<f2" => FloatType::F16,
            "<f4" => FloatType::F32,
            "<f8" => FloatType::F64,
            // NumPy has no bfloat16 and saves it as two bytes of no type.
            "|V2" => {
                return Err("holds '|V2', which is how NumPy saves bfloat16: convert it before saving, with .float() in torch or \
                     .astype('<f4') on the array of ml_dtypes, or save it as safetensors"
                    .to_owned());
            }
            other => {
                let other = other.escape_debug();
                let (what, how) = match other.to_string().as_str() {
                    t if t.starts_with("|V") => (
                        "bytes whose type cannot be told",
                        "save it with a type, such as float32",
                    ),
                    t if t.contains('U') || t.contains('S') => (
                        "texts, no numbers",
                        "a corpus of texts is for mlpeek collect --data",
                    ),
                    t if t.contains('O') => ("Python objects", "save it with .astype('<f4')"),
                    _ => (
                        "little-endian f16, f32 and f64 can be read",
                        "save it with .astype('<f4')",
                    ),
                };
                return Err(format!("holds '{other}' ({what}): {how}"));
            }
        };
        let fortran = match value("fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err("has a header with a strange 'fortran_order'".to_owned()),
        };
        let inside = value("shape")?
            .strip_prefix('(')
            .and_then(|s| s.split_once(')'))
            .map(|(inside, _)| inside);
        let inside = inside.ok_or("has a header with a strange 'shape'")?;
        let numbers = inside.split(',').map(str::trim).filter(|s| !s.is_empty());
        let shape: Vec<u64> = numbers
            .map(|n| {
                n.trim_end_matches('L')
                    .parse()
                    .map_err(|_| "has a header with a strange 'shape'".to_owned())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            float_type,
            fortran,
            shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = [b"\x93NUMPY", &[version, 0][..]].concat();
        let size = header.len() as u32;
        out.extend(&size.to_le_bytes()[..if version == 1 { 2 } else { 4 }]);
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}      \n")
    }

    fn parse_bytes(bytes: &[u8]) -> Result<(usize, usize, Vec<f32>)> {
        // Two numbers a block: a row at a time, or two.
        matrix(Cursor::new(bytes), bytes.len() as u64, Path::new("x.npy"))?.read_all(2)
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn both_orders_and_every_width_give_the_same_matrix() {
        let want = (2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, -0.5]);
        let (c, f) = (
            [1.0f32, 2.0, 3.0, 4.0, 5.0, -0.5],
            [1.0f32, 4.0, 2.0, 5.0, 3.0, -0.5],
        );
        for version in 1..=3 {
            assert_eq!(
                parse_bytes(&file(version, &header("<f4", "False", "(2, 3)"), &f32s(&c))).unwrap(),
                want
            );
        }
        assert_eq!(
            parse_bytes(&file(1, &header("<f4", "True", "(2, 3)"), &f32s(&f))).unwrap(),
            want
        );
        let f8: Vec<u8> = c.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
        assert_eq!(
            parse_bytes(&file(1, &header("<f8", "False", "(2,3)"), &f8)).unwrap(),
            want
        );
        let f2: Vec<u8> = c
            .iter()
            .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
            .collect();
        assert_eq!(
            parse_bytes(&file(1, &header("<f2", "False", "(2L, 3L)"), &f2)).unwrap(),
            want
        );
    }

    #[test]
    fn blocks_meet_in_a_matrix_larger_than_one() {
        let (rows, cols) = (701, 211);
        let by_row: Vec<f64> = (0..rows * cols).map(|i| (i % 2000) as f64).collect();
        let by_column: Vec<f64> = (0..rows * cols)
            .map(|i| by_row[(i % rows) * cols + i / rows])
            .collect();
        for (order, values) in [("False", &by_row), ("True", &by_column)] {
            let float_type: [(&str, Vec<u8>); 3] = [
                (
                    "<f2",
                    values
                        .iter()
                        .flat_map(|&v| half::f16::from_f64(v).to_le_bytes())
                        .collect(),
                ),
                (
                    "<f4",
                    values
                        .iter()
                        .flat_map(|&v| (v as f32).to_le_bytes())
                        .collect(),
                ),
                (
                    "<f8",
                    values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
                ),
            ];
            for (descr, data) in float_type {
                let bytes = file(1, &header(descr, order, "(701, 211)"), &data);
                let mut read =
                    matrix(Cursor::new(&bytes), bytes.len() as u64, Path::new("x.npy")).unwrap();
                // A last block of one row among those of 100, a block of less than a row, one for
                // all.
                for block in [100 * cols + 5, cols - 1, rows * cols] {
                    let mut heights = Vec::new();
                    let (_, _, values) = read.read_all(block).unwrap();
                    read.each_block_of(block, &mut |b| {
                        heights.push(b.len() / cols);
                        Ok(())
                    })
                    .unwrap();
                    assert_eq!(heights[0], (block / cols).max(1));
                    assert_eq!(heights.iter().sum::<usize>(), rows);
                    assert!(
                        values.iter().zip(&by_row).all(|(a, b)| f64::from(*a) == *b),
                        "{descr} {order} {block}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_f32_cannot_hold_is_named_by_row_and_column_in_both_orders() {
        let mut values = [1.0f64; 12];
        // Row 2, column 1 of 4 × 3, by row and by column.
        for (order, at) in [("False", 7), ("True", 6)] {
            values[at] = 1e300;
            let bytes = file(
                1,
                &header("<f8", order, "(4, 3)"),
                &values.map(f64::to_le_bytes).concat(),
            );
            let error = parse_bytes(&bytes).unwrap_err().to_string();
            assert!(error.contains("row 2, column 1"), "{order}: {error}");
            values[at] = 1.0;
        }
    }

    #[test]
    fn a_matrix_without_rows_is_read() {
        assert_eq!(
            parse_bytes(&file(1, &header("<f4", "True", "(0, 5)"), &[])).unwrap(),
            (0, 5, vec![])
        );
        assert_eq!(
            parse_bytes(&file(1, &header("<f4", "False", "(5, 0)"), &[])).unwrap(),
            (5, 0, vec![])
        );
    }

    #[test]
    fn damaged_arrays_are_refused_with_the_reason() {
        let says = |bytes: &[u8], wanted: &str| {
            let message = parse_bytes(bytes).unwrap_err().to_string();
            assert!(
                message.starts_with("x.npy: ") && message.contains(wanted),
                "{message}"
            );
        };
        let good = file(1, &header("<f4", "False", "(2, 3)"), &[0; 24]);
        for keep in 0..good.len() {
            assert!(parse_bytes(&good[..keep]).is_err());
        }
        says(&good[..good.len() - 1], "truncated");
        says(b"PK\x03\x04 a zip of arrays", "numpy.save");
        says(
            b"version https://git-lfs.github.com/spec/v1\n",
            "git lfs pull",
        );
        says(b"\x1f\x8b\x08\0\0\0\0\0", "gunzip");
        says(b"1.0 2.0 3.0 4.0", "not a .npy");
        says(&file(9, "", &[]), "version 9");
        says(
            &file(1, &header(">f4", "False", "(2, 3)"), &[0; 24]),
            "astype",
        );
        says(
            &file(1, &header("|V2", "False", "(2, 3)"), &[0; 12]),
            "bfloat16: convert it before saving, with .float()",
        );
        says(
            &file(1, &header("|V4", "False", "(2, 3)"), &[0; 24]),
            "cannot be told): save it with a type",
        );
        says(&file(1, &header("|O", "False", "(2, 3)"), &[0; 24]), "'|O'");
        says(
            &file(
                1,
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1)}",
                &[0; 4],
            ),
            "a structure",
        );
        says(
            &file(1, &header("<f4", "False", "(6,)"), &[0; 24]),
            "1 dimensions",
        );
        says(
            &file(1, &header("<f4", "False", "()"), &[0; 4]),
            "0 dimensions",
        );
        says(
            &file(1, &header("<f4", "False", "(-1, 3)"), &[0; 24]),
            "'shape'",
        );
        says(
            &file(1, &header("<f4", "Maybe", "(1, 3)"), &[0; 24]),
            "'fortran_order'",
        );
        says(
            &file(
                1,
                &header(
                    "<f4",
                    "False",
                    "(18446744073709551615, 18446744073709551615)",
                ),
                &[],
            ),
            "truncated",
        );
        says(
            &file(
                1,
                &header("<f8", "False", "(1, 2)"),
                &[1.0f64, 1e300].map(f64::to_le_bytes).concat(),
            ),
            "column 1",
        );
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
            keep in any::<prop::sample::Index>(),
            version in 1u8..4,
        ) {
            let mut bytes = file(version, &header("<f4", "True", "(2, 3)"), &[0; 24]);
            for (index, value) in at {
                let i = index.index(bytes.len());
                bytes[i] = value;
            }
            bytes.truncate(keep.index(bytes.len()) + 1);
            let _ = parse_bytes(&bytes);
        }

        #[test]
        fn headers_never_panic(text in "[{}'\": ,a-z()0-9<>|TFL]{0,80}") {
            let _ = parse_bytes(&file(2, &text, &[0; 8]));
        }
    }
}
