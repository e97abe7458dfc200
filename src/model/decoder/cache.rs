//! Keys and values of tokens already seen, each row at its own length.
//!
//! Owns where a row's keys and values lie; knows nothing of how they were made. Invariant: a row of
//! `lengths[r]` tokens has exactly that many keys and values in every layer once a pass is
//! complete.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// Keys and values of the tokens seen so far, for each row of one batch. A copy is made by
/// [`KvCache::select`] alone: tensors that were cloned would share what a pass writes.
pub struct KvCache {
    /// Tokens that each row holds.
    pub(super) lengths: Vec<usize>,
    pub(super) layers: Vec<LayerCache>,
    /// Whether every pass with this cache dequantises the weights, however few its rows.
    pub(super) widened: bool,
}

/// The keys and values of one layer.
#[derive(Clone)]
pub(super) enum LayerCache {
    /// On the CPU, `[tokens][kv_heads * head_dim]` for each row.
    Rows {
        keys: Vec<Vec<f32>>,
        values: Vec<Vec<f32>>,
    },
    /// `[rows, kv_heads, capacity, head_dim]` on a device; `None` before the first token.
    Device(Option<(Tensor, Tensor)>),
}

impl KvCache {
    pub(super) fn new(rows: usize, layers: usize, on_device: bool) -> Self {
        let empty = if on_device {
            LayerCache::Device(None)
        } else {
            LayerCache::Rows {
                keys: vec![Vec::new(); rows],
                values: vec![Vec::new(); rows],
            }
        };
        Self {
            lengths: vec![0; rows],
            layers: vec![empty; layers],
            widened: false,
        }
    }

    /// Makes every pass with this cache dequantise the weights to f32, also for generated tokens of
    /// few rows: the result of a row then depends on no other row of its batch.
    pub fn widened(self) -> Self {
        Self {
            widened: true,
            ..self
        }
    }

    /// Tokens that each row holds.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// A cache of `times` copies of row `row`, for samples that continue one prompt.
    ///
    /// # Errors
    /// [`Error::Usage`] for a row that the cache does not have.
    pub fn fan_out(&self, row: usize, times: usize) -> Result<Self> {
        self.select(&vec![row; times])
    }

    /// A cache of these rows, in this order; a row may be repeated or left out.
    ///
    /// # Errors
    /// [`Error::Usage`] for a row that the cache does not have.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        if let Some(&row) = rows.iter().find(|&&r| r >= self.lengths.len()) {
            return Err(Error::usage(format!(
                "row {row} is not in a cache of {} rows",
                self.lengths.len()
            )));
        }
        let lengths = rows.iter().map(|&r| self.lengths[r]).collect();
        let layers = self
            .layers
            .iter()
            .map(|l| l.select(rows))
            .collect::<Result<_>>()?;
        Ok(Self {
            lengths,
            layers,
            widened: self.widened,
        })
    }

    /// Keeps these rows, each at most once, in this order; on the CPU nothing is copied.
    ///
    /// # Errors
    /// A failure of the device.
    pub(crate) fn retain_rows(&mut self, rows: &[usize]) -> Result<()> {
        self.lengths = rows.iter().map(|&r| self.lengths[r]).collect();
        for layer in &mut self.layers {
            match layer {
                LayerCache::Rows { keys, values } => {
                    *keys = rows.iter().map(|&r| std::mem::take(&mut keys[r])).collect();
                    *values = rows
                        .iter()
                        .map(|&r| std::mem::take(&mut values[r]))
                        .collect();
                }
                LayerCache::Device(_) => *layer = layer.select(rows)?,
            }
        }
        Ok(())
    }

    /// Removes the keys and values, each `width` wide, that a failed pass has written.
    pub(super) fn truncate(&mut self, width: usize) {
        for layer in &mut self.layers {
            if let LayerCache::Rows { keys, values } = layer {
                for (rows, &n) in [keys, values]
                    .into_iter()
                    .flat_map(|side| side.iter_mut().zip(&self.lengths))
                {
                    rows.truncate(n * width);
                }
            }
        }
    }
}

impl LayerCache {
    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(match self {
            Self::Rows { keys, values } => Self::Rows {
                keys: rows.iter().map(|&r| keys[r].clone()).collect(),
                values: rows.iter().map(|&r| values[r].clone()).collect(),
            },
            Self::Device(None) => Self::Device(None),
            // A device's kernels refuse to choose nothing.
            Self::Device(Some(_)) if rows.is_empty() => Self::Device(None),
            Self::Device(Some((k, v))) => {
                let ids: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
                let ids = Tensor::new(ids.as_slice(), k.device())?;
                Self::Device(Some((k.index_select(&ids, 0)?, v.index_select(&ids, 0)?)))
            }
        })
    }

    /// Writes keys and values `[rows, kv_heads, tokens, head_dim]` at each row's start. Returns those
    /// of all positions, up to the largest start plus `tokens`. `places` tells where each goes if rows
    /// start at different positions.
    pub(super) fn append(
        &mut self,
        keys: &Tensor,
        values: &Tensor,
        starts: &[usize],
        places: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, heads, tokens, dim) = keys.dims4()?;
        let end = starts.iter().max().copied().unwrap_or(0) + tokens;
        let Self::Device(held) = self else {
            return Err(Error::usage(
                "a cache of the CPU was given to another device",
            ));
        };
        let (k, v) = match held.take() {
            Some((k, v)) if k.dim(2)? >= end => (k, v),
            old => grow(
                old,
                (rows, heads, end.next_multiple_of(256), dim),
                keys.dtype(),
                keys.device(),
            )?,
        };
        let (keys, values) = (keys.contiguous()?, values.contiguous()?);
        match places {
            None => {
                k.slice_set(&keys, 2, end - tokens)?;
                v.slice_set(&values, 2, end - tokens)?;
            }
            Some(places) => {
                k.scatter_set(places, &keys, 2)?;
                v.scatter_set(places, &values, 2)?;
            }
        }
        let out = (k.narrow(2, 0, end)?, v.narrow(2, 0, end)?);
        *held = Some((k, v));
        Ok(out)
    }
}

type Shape4 = (usize, usize, usize, usize);

/// Empty keys and values of a larger `shape`, with `old` copied to their start.
fn grow(
    old: Option<(Tensor, Tensor)>,
    shape: Shape4,
    dtype: DType,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let k = Tensor::zeros(shape, dtype, device)?;
    let v = Tensor::zeros(shape, dtype, device)?;
    if let Some((old_k, old_v)) = old {
        k.slice_set(&old_k, 2, 0)?;
        v.slice_set(&old_v, 2, 0)?;
    }
    Ok((k, v))
}
