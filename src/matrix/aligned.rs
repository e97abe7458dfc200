//! A vector of f32 that starts on a cache line, so that no 64-byte load or store of a kernel spans
//! two lines. Knows nothing of what the values mean.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// f32 values in a cache line of 64 bytes.
const LINE_VALUES: usize = 16;

/// The unit of allocation, which gives the vector its alignment.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct CacheLine([f32; LINE_VALUES]);

/// A growable array of f32 whose first value lies on a multiple of 64 bytes.
#[derive(Debug, Clone, Default)]
pub struct AlignedVec {
    lines: Vec<CacheLine>,
    len: usize,
}

impl AlignedVec {
    /// An empty vector with capacity for `len` values.
    pub fn with_capacity(len: usize) -> Self {
        Self {
            lines: Vec::with_capacity(len.div_ceil(LINE_VALUES)),
            len: 0,
        }
    }

    /// Changes the length to `len` and keeps the values below it. New values are zero, or within
    /// the last cache line those of a longer vector before.
    pub fn resize(&mut self, len: usize) {
        self.lines
            .resize(len.div_ceil(LINE_VALUES), CacheLine::zeroed());
        self.len = len;
    }

    /// Changes the length to `len` for a caller that overwrites every value: the content is
    /// unspecified (old values or zeros), and memory is never released or cleared.
    pub fn resize_for_overwrite(&mut self, len: usize) {
        let lines = len.div_ceil(LINE_VALUES);
        if lines > self.lines.len() {
            self.lines.resize(lines, CacheLine::zeroed());
        }
        self.len = len;
    }

    /// Appends `values`; the vector may move to a larger allocation.
    pub fn extend_from_slice(&mut self, values: &[f32]) {
        let before = self.len;
        self.resize(before + values.len());
        self[before..].copy_from_slice(values);
    }
}

impl From<Vec<f32>> for AlignedVec {
    fn from(values: Vec<f32>) -> Self {
        let mut out = Self::default();
        out.extend_from_slice(&values);
        out
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_on_a_cache_line_and_stay() {
        let mut values = AlignedVec::default();
        assert!(values.is_empty());
        for len in [3, 64, 1000] {
            values.resize(len);
            assert_eq!((values.len(), values.as_ptr() as usize % 64), (len, 0));
        }
        values[2] = 5.0;
        values.resize(40);
        assert_eq!((values.len(), values[2], values[39]), (40, 5.0, 0.0));
        values.extend_from_slice(&[7.0, 8.0]);
        assert_eq!((values.len(), values[41]), (42, 8.0));
        assert_eq!(AlignedVec::from(vec![1.0, 2.0, 3.0])[..], [1.0, 2.0, 3.0]);
    }
}
