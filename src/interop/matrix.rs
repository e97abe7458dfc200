//! A matrix of a file as blocks of complete rows, so that one larger than memory can be read.
//!
//! Knows no format: `npy` and `tensors` read the header and say where the numbers lie. Invariant:
//! blocks come in the order of rows, and memory is one block whatever the file's size.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::floats::FloatType;
use crate::error::{Error, Result};

/// Numbers in a block: 16 MiB as f32.
const BLOCK: usize = 1 << 22;

/// A matrix whose header has been read, in a file that is long enough for all its numbers.
pub struct Matrix<R> {
    pub(super) input: R,
    pub(super) path: PathBuf,
    pub(super) float_type: FloatType,
    /// (rows, columns), of which `input` holds the product.
    pub(super) shape: (usize, usize),
    /// Where in `input` the numbers begin.
    pub(super) start: u64,
    /// The numbers lie column by column (Fortran order).
    pub(super) by_column: bool,
}

impl<R: Read + Seek> Matrix<R> {
    /// The numbers of rows and of columns.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Calls `f` with every row, row-major, a block of complete rows at a time. May be called again.
    ///
    /// # Errors
    /// A file that cannot be read, a finite number that f32 cannot hold, and what `f` returns.
    pub fn each_block(&mut self, f: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.each_block_of(BLOCK, f)
    }

    pub(super) fn each_block_of(
        &mut self,
        values: usize,
        f: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let (rows, cols) = self.shape;
        if cols == 0 {
            return Ok(());
        }
        let height = (values / cols).max(1).min(rows);
        let mut block = vec![0.0; height * cols];
        let mut bytes = vec![
            0;
            if self.by_column {
                height
            } else {
                height * cols
            } * self.float_type.bytes()
        ];
        for first in (0..rows).step_by(height.max(1)) {
            let height = height.min(rows - first);
            let block = &mut block[..height * cols];
            if self.by_column {
                let bytes = &mut bytes[..height * self.float_type.bytes()];
                for col in 0..cols {
                    self.read_at(col * rows + first, bytes)?;
                    self.decode(bytes, (first, col), &mut |i, value| {
                        block[i * cols + col] = value
                    })?;
                }
            } else {
                let bytes = &mut bytes[..height * cols * self.float_type.bytes()];
                self.read_at(first * cols, bytes)?;
                self.decode(bytes, (first, 0), &mut |i, value| block[i] = value)?;
            }
            f(block)?;
        }
        Ok(())
    }

    fn read_at(&mut self, number: usize, bytes: &mut [u8]) -> Result<()> {
        let at = self.start + number as u64 * self.float_type.bytes() as u64;
        let read = self
            .input
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.input.read_exact(bytes));
        read.map_err(Error::io("read", &self.path))
    }

    /// The numbers in `bytes`, the first of which stands at (row, column).
    fn decode(
        &self,
        bytes: &[u8],
        (row, col): (usize, usize),
        store: &mut dyn FnMut(usize, f32),
    ) -> Result<()> {
        for (i, raw) in bytes.chunks_exact(self.float_type.bytes()).enumerate() {
            let value = self.float_type.decode(raw);
            if self.float_type.overflows(value, raw) {
                let cols = self.shape.1;
                let (row, col) = if self.by_column {
                    (row + i, col)
                } else {
                    (row + i / cols, i % cols)
                };
                return Err(too_large(&self.path, row, col));
            }
            store(i, value);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn read_all(&mut self, block: usize) -> Result<(usize, usize, Vec<f32>)> {
        let mut all = Vec::new();
        self.each_block_of(block, &mut |rows| {
            all.extend_from_slice(rows);
            Ok(())
        })?;
        Ok((self.shape.0, self.shape.1, all))
    }
}

/// The error for a finite number that f32 cannot hold.
pub(super) fn too_large(path: &Path, row: usize, col: usize) -> Error {
    Error::file(
        path,
        format!("row {row}, column {col} is too large for f32: scale the matrix"),
    )
}
