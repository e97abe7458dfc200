//! The tap that collects.

use bytemuck::{cast_slice, cast_slice_mut};
use candle_core::{DType, Tensor};

use crate::activations::store::CacheDtype;
use crate::error::{Error, Result};
use crate::model::host::{self, HostBuffer};
use crate::model::{HookPoint, Pass, Tap};

/// Copies the rows of real tokens, BOS left out, to where they belong in the group.
pub(super) struct Capture {
    pub hooks: Vec<HookPoint>,
    pub widths: Vec<usize>,
    /// How values are stored.
    dtype: CacheDtype,
    /// Of each hook the group's rows in that dtype. As words, so that a value never lies across its
    /// own alignment.
    data: Vec<Vec<u32>>,
    /// Values that cannot be stored: at least the first of each kind of a row of the batch.
    pub unstorable: Vec<Unstorable>,
    /// Of each row of the batch: its first row in the group, and how many tokens (BOS) to leave
    /// out.
    pub places: Vec<(usize, usize)>,
    /// Hooks that the present pass has called.
    pub seen: usize,
    buffer: HostBuffer,
}

/// A value that is not finite, or that the store's dtype does not hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unstorable {
    /// Its row in the group.
    pub row: usize,
    pub hook: usize,
    pub neuron: usize,
    pub value: f32,
}

impl Capture {
    pub fn new(hooks: &[HookPoint], widths: &[usize], dtype: CacheDtype) -> Self {
        Self {
            hooks: hooks.to_vec(),
            widths: widths.to_vec(),
            dtype,
            data: vec![Vec::new(); hooks.len()],
            unstorable: Vec::new(),
            places: Vec::new(),
            seen: 0,
            buffer: HostBuffer::default(),
        }
    }

    /// Makes room for a group of `rows` rows; the one before is forgotten.
    pub fn begin(&mut self, rows: usize) {
        self.unstorable.clear();
        for (words, width) in self.data.iter_mut().zip(&self.widths) {
            let bytes = rows * width * self.dtype.size();
            words.resize(bytes.div_ceil(size_of::<u32>()), 0);
        }
    }

    /// `count` rows of a hook from `first` on, as the cache stores them.
    pub fn stored(&self, hook: usize, first: usize, count: usize) -> &[u8] {
        let row = self.widths[hook] * self.dtype.size();
        &cast_slice(&self.data[hook])[first * row..(first + count) * row]
    }

    /// Notes what of a batch's real rows `[n, width]` cannot be stored: of each row of the batch the
    /// first value that is not finite, and the first that the dtype does not hold.
    fn note_unstorable(&mut self, hook: usize, real: &Tensor, counts: &[usize]) -> Result<()> {
        let mut rows = host::rows(real)?.into_iter();
        for (&(first_row, _), &count) in self.places.iter().zip(counts) {
            let (mut no_number, mut too_large) = (None, None);
            for (i, values) in rows.by_ref().take(count).enumerate() {
                for (neuron, value) in values.into_iter().enumerate() {
                    let first = if value.is_finite() {
                        &mut too_large
                    } else {
                        &mut no_number
                    };
                    if first.is_none() && !self.dtype.can_hold(value) {
                        *first = Some(Unstorable {
                            row: first_row + i,
                            hook,
                            neuron,
                            value,
                        });
                    }
                }
            }
            self.unstorable
                .extend([no_number, too_large].into_iter().flatten());
        }
        Ok(())
    }
}

impl Tap for Capture {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    /// Real rows are chosen, narrowed and looked at for what is not finite where they lie; then they
    /// cross in one copy.
    fn intercept(
        &mut self,
        pass: &Pass<'_>,
        hook: HookPoint,
        x: &Tensor,
    ) -> Result<Option<Tensor>> {
        let Some(i) = self.hooks.iter().position(|&h| h == hook) else {
            return Ok(None);
        };
        let width = self.widths[i];
        let (rows, tokens, found) = x.dims3()?;
        if found != width || rows != self.places.len() || pass.lengths.len() != rows {
            return Err(Error::refused(format!(
                "{hook}: activations of shape [{rows}, {tokens}, {found}] where [{}, _, {width}] is due",
                self.places.len()
            )));
        }
        let all = self.places.iter().zip(pass.lengths).enumerate();
        let real: Vec<u32> = all
            .flat_map(|(row, (&(_, skip), &len))| {
                (row * tokens + skip..row * tokens + len).map(|at| at as u32)
            })
            .collect();
        self.seen += 1;
        if real.is_empty() {
            return Ok(None);
        }
        let real = Tensor::new(real, x.device())?;
        let real = x.flatten(0, 1)?.index_select(&real, 0)?;
        let stored = real.to_dtype(tensor_dtype(self.dtype))?;
        let counts: Vec<usize> = (self.places.iter().zip(pass.lengths))
            .map(|(&(_, skip), len)| len.saturating_sub(skip))
            .collect();
        // A value that is too large for the dtype has become infinite.
        if !host::all_finite(&stored)? {
            self.note_unstorable(i, &real, &counts)?;
        }
        let row = width * self.dtype.size();
        let group = cast_slice_mut::<u32, u8>(&mut self.data[i]);
        self.buffer.read(&stored, |bytes| {
            let mut rest = bytes;
            for (&(first_row, _), count) in self.places.iter().zip(&counts) {
                let (from, after) = rest.split_at(count * row);
                group[first_row * row..first_row * row + from.len()].copy_from_slice(from);
                rest = after;
            }
        })?;
        Ok(None)
    }
}

/// candle's name for the type of stored values.
fn tensor_dtype(dtype: CacheDtype) -> DType {
    match dtype {
        CacheDtype::F32 => DType::F32,
        CacheDtype::F16 => DType::F16,
        CacheDtype::Bf16 => DType::BF16,
    }
}
