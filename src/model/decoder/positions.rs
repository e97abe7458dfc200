//! Where the tokens of a pass stand, and what every layer needs of that: rotary angles and masks.
//!
//! Invariant: a table on a device is made once a pass, whatever the number of layers.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Tensor};

use crate::error::Result;
use crate::model::config::Config;

/// The positions of the rows of a pass, with their rotary angles.
pub(super) struct RowPositions {
    /// The position of each row's first token.
    pub(super) starts: Vec<usize>,
    /// The number of real tokens of each row.
    pub(super) lengths: Vec<usize>,
    /// The number of tokens of each row with padding.
    pub(super) tokens: usize,
    /// cos and sin `[rows * tokens][rotary_dims / 2]` of each rotary embedding.
    pub(super) angles: Vec<(Vec<f32>, Vec<f32>)>,
    /// What was made of them on each device that the pass has reached.
    tables: Mutex<Vec<(DeviceLocation, Arc<DeviceTables>)>>,
}

impl RowPositions {
    pub(super) fn new(config: &Config, starts: Vec<usize>, lengths: Vec<usize>) -> Self {
        let tokens = lengths.iter().copied().max().unwrap_or(0);
        let mut angles = Vec::with_capacity(config.ropes.len());
        for rope in &config.ropes {
            let (frequencies, amplitude) = (rope.frequencies(config.rotary_dims), rope.amplitude());
            let row = tokens * frequencies.len();
            let count = starts.len() * row;
            let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for (r, &start) in starts.iter().enumerate() {
                // The rows of a prompt all begin at 0: one of them is computed, the others copied.
                if let Some(same) = starts[..r].iter().position(|&s| s == start) {
                    cos.extend_from_within(same * row..(same + 1) * row);
                    sin.extend_from_within(same * row..(same + 1) * row);
                    continue;
                }
                for t in 0..tokens {
                    for f in &frequencies {
                        let (s, c) = ((start + t) as f32 * f).sin_cos();
                        cos.push(amplitude * c);
                        sin.push(amplitude * s);
                    }
                }
            }
            angles.push((cos, sin));
        }
        Self {
            starts,
            lengths,
            tokens,
            angles,
            tables: Mutex::new(Vec::new()),
        }
    }

    /// The position where all rows begin; `None` where they differ.
    fn common_start(&self) -> Option<usize> {
        let first = self.starts.first().copied();
        first.filter(|first| self.starts.iter().all(|s| s == first))
    }

    /// Keys that the last query of the longest row may see.
    pub(super) fn span(&self) -> usize {
        self.starts.iter().max().copied().unwrap_or(0) + self.tokens
    }

    /// How many queries of how many rows are scored at a time, so that at most `scores` are made.
    pub(super) fn tile(&self, config: &Config, scores: usize) -> (usize, usize) {
        let query = (config.heads * self.span()).max(1);
        let rows = (scores / query).clamp(1, self.starts.len().max(1));
        let queries = (scores / (query * rows)).clamp(1, self.tokens.max(1));
        (rows, queries)
    }

    /// The tables on `device`, made when a pass first asks for them there.
    pub(super) fn tables(
        &self,
        config: &Config,
        queries: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Arc<DeviceTables>> {
        let mut all = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let location = device.location();
        if let Some((_, found)) = all.iter().find(|(at, _)| *at == location) {
            return Ok(found.clone());
        }
        let made = Arc::new(DeviceTables::new(self, config, queries, device, dtype)?);
        all.push((location, made.clone()));
        Ok(made)
    }
}

/// What every layer of a pass needs on a device.
pub(super) struct DeviceTables {
    /// cos and sin of each rotary embedding, `[tokens, rotary_dims / 2]`, or `[rows, tokens,
    /// rotary_dims / 2]` where rows begin at different positions.
    pub(super) rotary: Vec<(Tensor, Tensor)>,
    masks: Vec<(Option<usize>, Option<Tensor>)>,
    /// Whether the masks hold for every row, aligned at the last query and the last key.
    shared: bool,
    /// Where each key of the pass goes in a cache whose rows differ in length, `[rows, kv_heads,
    /// tokens, head_dim]`.
    pub(super) places: Option<Tensor>,
}

impl DeviceTables {
    fn new(
        positions: &RowPositions,
        config: &Config,
        queries: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let (rows, tokens) = (positions.starts.len(), positions.tokens);
        let half = config.rotary_dims / 2;
        let shared = positions.common_start().is_some();
        let table = |values: &[f32]| -> Result<Tensor> {
            let table = if shared {
                Tensor::from_slice(&values[..tokens * half], (tokens, half), device)?
            } else {
                Tensor::from_slice(values, (rows, tokens, half), device)?
            };
            Ok(table.to_dtype(dtype)?)
        };
        let rotary = positions.angles.iter();
        let rotary = rotary
            .map(|(cos, sin)| Ok((table(cos)?, table(sin)?)))
            .collect::<Result<_>>()?;
        // A soft-cap is computed in f32, and the mask is added after it.
        let mask_dtype = match config.attention_softcap {
            Some(_) => DType::F32,
            None => dtype,
        };
        let mut masks: Vec<(Option<usize>, Option<Tensor>)> = Vec::new();
        for layer in &config.layers {
            if masks.iter().any(|(window, _)| *window == layer.window) {
                continue;
            }
            let mask = mask(positions, layer.window, queries, device)?;
            let mask = mask.map(|mask| mask.to_dtype(mask_dtype)).transpose()?;
            masks.push((layer.window, mask));
        }
        let places = if shared {
            None
        } else {
            let at: Vec<u32> = (positions.starts.iter())
                .flat_map(|&s| (0..tokens).map(move |t| (s + t) as u32))
                .collect();
            let at = Tensor::from_vec(at, (rows, 1, tokens, 1), device)?;
            let shape = (rows, config.kv_heads, tokens, config.head_dim);
            Some(at.broadcast_as(shape)?.contiguous()?)
        };
        Ok(Self {
            rotary,
            masks,
            shared,
            places,
        })
    }

    /// What is added to the scores of the queries `first..first + count` of the rows `row..row +
    /// rows` against the keys `begin..end` in a layer with this window: 0 where a query may attend
    /// and −∞ elsewhere, `[1 or rows, 1, count, end - begin]`. `None` where every query sees every
    /// key.
    pub(super) fn mask(
        &self,
        window: Option<usize>,
        (row, rows): (usize, usize),
        (first, count): (usize, usize),
        (begin, end): (usize, usize),
    ) -> Result<Option<Tensor>> {
        let found = self.masks.iter().find(|(w, _)| *w == window);
        let Some(mask) = found.and_then(|(_, mask)| mask.as_ref()) else {
            return Ok(None);
        };
        let keys = end - begin;
        if !self.shared {
            let part = mask.narrow(0, row, rows)?.narrow(2, first, count)?;
            return Ok(Some(part.narrow(3, begin, keys)?));
        }
        // Who sees whom depends on the distance from the last query and key alone: one mask of a
        // tile serves them all, cut from its end.
        let (tall, wide) = (mask.dim(2)?, mask.dim(3)?);
        let part = mask.narrow(2, tall - count, count)?;
        Ok(Some(part.narrow(3, wide - keys, keys)?))
    }
}

/// The mask of the last `queries` queries of rows that begin together, `[1, 1, queries, span]`, or
/// of all queries of all rows, `[rows, 1, tokens, span]`, against all keys. `None` where nothing is
/// masked.
fn mask(
    positions: &RowPositions,
    window: Option<usize>,
    queries: usize,
    device: &Device,
) -> Result<Option<Tensor>> {
    let (span, tokens) = (positions.span(), positions.tokens);
    let row = |start: usize, queries: std::ops::Range<usize>| {
        queries.flat_map(move |t| {
            let query = start + t;
            let low = window.map_or(0, |w| (query + 1).saturating_sub(w));
            (0..span).map(move |j| match (low..=query).contains(&j) {
                true => 0.0,
                false => f32::NEG_INFINITY,
            })
        })
    };
    let (mask, shape): (Vec<f32>, _) = match positions.common_start() {
        Some(start) => {
            let mask = row(start, tokens - queries..tokens).collect();
            (mask, (1, 1, queries, span))
        }
        None => {
            let starts = positions.starts.iter();
            let mask = starts.flat_map(|&start| row(start, 0..tokens)).collect();
            (mask, (positions.starts.len(), 1, tokens, span))
        }
    };
    if mask.iter().all(|&m| m == 0.0) {
        return Ok(None);
    }
    Ok(Some(Tensor::from_vec(mask, shape, device)?))
}
