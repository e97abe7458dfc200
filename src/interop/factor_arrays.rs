//! A set of directions with its coefficients as named arrays, for every format that holds such.
//!
//! Owns the names and shapes of the arrays. Invariant: an array is written a block of rows at a time,
//! so that factors of any length need no second copy in memory.

use std::collections::BTreeMap;
use std::io::{Result as IoResult, Write};
use std::ops::Range;

use super::tensors::write_floats;
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;

/// Rows of a factor that are written at a time.
pub(super) const BLOCK_ROWS: usize = 1024;
/// The names of the arrays of a study's rows, in the order of [`FactorArrays::arrays`].
const ROWS: [&str; 3] = ["token_ids", "positions", "samples"];

/// What an array holds, four bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    F32,
    U32,
}

impl Numbers {
    /// The name in a header of safetensors.
    pub(super) fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::U32 => "U32",
        }
    }

    /// The name in a header of NumPy.
    pub(super) fn numpy(self) -> &'static str {
        match self {
            Self::F32 => "<f4",
            Self::U32 => "<u4",
        }
    }
}

/// An array by its name.
pub(super) struct Array {
    pub(super) name: &'static str,
    pub(super) numbers: Numbers,
    pub(super) shape: Vec<usize>,
}

/// The arrays of a set of directions: `Z` d × k, `Y` n × k and, of a centred fit, `centre` d
/// (A ≈ centre + Y Zᵀ), of one that scales neurons `neuron_weights` d (the factor of each neuron's
/// residual before it is squared), f32; of the study's rows, where they come along, `token_ids`,
/// `positions` and `samples`, n u32 each.
pub struct FactorArrays<'a> {
    factors: &'a Factors,
    rows: Option<&'a TokenTable>,
    /// What is said of them, by name.
    pub about: BTreeMap<String, String>,
}

impl<'a> FactorArrays<'a> {
    /// The arrays of `factors`, and of `rows` where they come along.
    pub fn new(
        factors: &'a Factors,
        rows: Option<&'a TokenTable>,
        about: BTreeMap<String, String>,
    ) -> Self {
        Self {
            factors,
            rows,
            about,
        }
    }

    /// Names and shapes, in the order in which they are written.
    ///
    /// # Errors
    /// Coefficients of another shape than the features, rows of another number than theirs.
    pub(super) fn arrays(&self) -> Result<Vec<Array>> {
        let (z, y) = (&self.factors.features, &self.factors.coefficients);
        let (d, k, n) = (z.rows, z.columns(), y.rows);
        if y.as_slice().len() != n * k {
            let values = y.as_slice().len();
            return Err(Error::refused(format!(
                "factors with {k} features have {values} coefficients for {n} rows"
            )));
        }
        let array = |name, numbers, shape| Array {
            name,
            numbers,
            shape,
        };
        let mut arrays = vec![
            array("Z", Numbers::F32, vec![d, k]),
            array("Y", Numbers::F32, vec![n, k]),
        ];
        let by_neuron = self.factors.coding.neuron_vectors();
        arrays.extend(by_neuron.map(|(name, _)| array(name, Numbers::F32, vec![d])));
        if let Some(tokens) = self.rows {
            if tokens.rows.len() < n {
                return Err(Error::refused(format!(
                    "the study has {} rows, the coefficients {n}",
                    tokens.rows.len()
                )));
            }
            arrays.extend(ROWS.map(|name| array(name, Numbers::U32, vec![n])));
        }
        Ok(arrays)
    }

    /// Writes the values of one of [`Self::arrays`], row-major.
    pub(super) fn write_array(&self, array: &Array, out: &mut dyn Write) -> IoResult<()> {
        let (z, y) = (&self.factors.features, &self.factors.coefficients);
        let (d, k, n) = (z.rows, z.columns(), y.rows);
        match array.name {
            "Z" => {
                // Entries of a column ascend, so each block of rows goes on where the last one
                // stopped.
                let mut next: Vec<usize> = z.offsets[..k].to_vec();
                by_rows(out, d, k, |block, rows| {
                    for (j, at) in next.iter_mut().enumerate() {
                        while *at < z.offsets[j + 1] && (z.indices[*at] as usize) < rows.end {
                            block[(z.indices[*at] as usize - rows.start) * k + j] = z.values[*at];
                            *at += 1;
                        }
                    }
                })
            }
            "Y" => by_rows(out, n, k, |block, rows| {
                for j in 0..k {
                    for (place, &value) in block[j..]
                        .iter_mut()
                        .step_by(k)
                        .zip(&y.feature(j)[rows.clone()])
                    {
                        *place = value;
                    }
                }
            }),
            name => match ROWS.iter().position(|row| *row == name) {
                Some(which) => self.write_rows(which, n, out),
                None => self
                    .factors
                    .coding
                    .neuron_vectors()
                    .filter(|(own, _)| *own == name)
                    .try_for_each(|(_, values)| write_floats(out, values)),
            },
        }
    }

    fn write_rows(&self, which: usize, n: usize, out: &mut dyn Write) -> IoResult<()> {
        let rows = self.rows.map_or(&[][..], |tokens| &tokens.rows[..n]);
        rows.chunks(BLOCK_ROWS).try_for_each(|block| {
            let bytes: Vec<u8> = block
                .iter()
                .flat_map(|row| [row.id, row.position, row.sample][which].to_le_bytes())
                .collect();
            out.write_all(&bytes)
        })
    }
}

/// Writes a rows × cols matrix in blocks of rows that `fill` lays out; blocks start as zeros.
fn by_rows(
    out: &mut dyn Write,
    rows: usize,
    cols: usize,
    mut fill: impl FnMut(&mut [f32], Range<usize>),
) -> IoResult<()> {
    let mut block = vec![0.0; BLOCK_ROWS.min(rows) * cols];
    for start in (0..rows).step_by(BLOCK_ROWS) {
        let range = start..(start + BLOCK_ROWS).min(rows);
        let block = &mut block[..range.len() * cols];
        block.fill(0.0);
        fill(block, range);
        write_floats(out, block)?;
    }
    Ok(())
}
