//! Values on the boundaries of cache lines: what is loaded or stored as a vector then never spans
//! two.

use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Values of a cache line.
const LINE: usize = 16;

#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Line([f32; LINE]);

/// A slice of f32 that begins on a cache line.
#[derive(Debug, Clone, Default)]
pub struct AlignedVec {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedVec {
    /// Of no values, with room for so many.
    pub fn with_capacity(len: usize) -> Self {
        Self {
            lines: Vec::with_capacity(len.div_ceil(LINE)),
            len: 0,
        }
    }

    /// Of `len` values; those that were not there are zero, those that were are as they were.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(LINE), Line::zeroed());
        self.len = len;
    }

    /// Of `len` values, whatever they are: what was there before, or zero.
    pub fn resize_for_overwrite(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
        self.len = len;
    }

    /// Puts `values` behind those that are there.
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
