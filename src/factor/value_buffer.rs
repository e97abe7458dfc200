//! A buffer for the arrays of a fit whose size is rows times features: in memory, or in a mapped
//! file. Knows nothing of their meaning.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use crate::disk::scratch::Scratch;
use crate::error::Result;

/// A mutable slice of f32, in memory or in a file that is deleted with it.
#[derive(Debug)]
pub(crate) struct ValueBuffer(Storage);

#[derive(Debug)]
enum Storage {
    Memory(Vec<f32>),
    File(Scratch),
}

impl ValueBuffer {
    /// `len` zeros, in a file of the folder `scratch` if one is given.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for a folder that cannot be written in or a disk without space.
    pub(crate) fn zeros(len: usize, scratch: Option<&Path>) -> Result<Self> {
        Ok(Self(match scratch {
            Some(dir) => Storage::File(Scratch::zeros(dir, len)?),
            None => Storage::Memory(vec![0.0; len]),
        }))
    }
}

impl Default for ValueBuffer {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<f32>> for ValueBuffer {
    fn from(values: Vec<f32>) -> Self {
        Self(Storage::Memory(values))
    }
}

impl Deref for ValueBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Storage::Memory(values) => values,
            Storage::File(values) => values.as_slice(),
        }
    }
}

impl DerefMut for ValueBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Storage::Memory(values) => values,
            Storage::File(values) => values.as_mut_slice(),
        }
    }
}
