//! NumPy's `.npz`: a zip of `.npy` files, written without compression so that it can be mapped.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.savez.html>. What is said of the
//! arrays is a text of JSON in an array without dimensions, `about`, which `.item()` gives.

use std::io::{BufWriter, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::factor_arrays::FactorArrays;
use crate::disk::NewFile;
use crate::error::{Error, Result};

/// Writes the factors' arrays and `about`, atomically.
///
/// # Errors
/// Coefficients of another shape than the features, and a file that cannot be written.
pub fn write_factors(path: &Path, factors: &FactorArrays<'_>) -> Result<()> {
    let arrays = factors.arrays()?;
    let out = BufWriter::new(NewFile::create(path)?);
    let written = (|| {
        let mut zip = ZipWriter::new(out);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(true);
        for array in &arrays {
            zip.start_file(format!("{}.npy", array.name), options)?;
            zip.write_all(&header(array.numbers.numpy(), &array.shape))?;
            factors.write_array(array, &mut zip)?;
        }
        let about = serde_json::to_string(&factors.about).map_err(std::io::Error::other)?;
        zip.start_file("about.npy", options)?;
        zip.write_all(&text(&about))?;
        let mut out = zip.finish()?;
        out.flush()?;
        Ok(out.into_parts().0)
    })();
    written
        .map_err(|e: ZipError| Error::io("write", path)(e.into()))?
        .commit()
}

/// What a `.npy` file begins with, version 1; the numbers start at a multiple of 64.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let shape = match shape {
        [one] => format!("({one},)"),
        many => {
            let sizes: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    };
    let mut words =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    let whole = (10 + words.len() + 1).next_multiple_of(64);
    words.resize(whole - 10 - 1, b' ');
    words.push(b'\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((words.len() as u16).to_le_bytes());
    out.extend(words);
    out
}

/// A text as an array without dimensions.
fn text(text: &str) -> Vec<u8> {
    let letters: Vec<u8> = text
        .chars()
        .flat_map(|letter| u32::from(letter).to_le_bytes())
        .collect();
    let mut out = header(&format!("<U{}", letters.len() / 4), &[]);
    out.extend(letters);
    out
}
