//! The rows of A on a device: they are copied there in their stored type, kept as far as memory
//! allows, and converted to f32 and prepared one block at a time. Knows nothing of coefficients.
//!
//! Invariant: a prepared row has the bits that [`Preprocessing::apply`] gives it on the host, as far as
//! the device rounds each operation to f32.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::activations::store::CacheDtype;
use crate::error::Result;
use crate::factor::preprocessing::Preprocessing;
use crate::factor::stream::Stream;

/// The preprocessing of a fit, on the device.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    scale: Option<f64>,
    /// The mean row times the scale, 1 × d.
    centre: Option<Tensor>,
    /// The weights of the neurons, 1 × d.
    pub(super) neurons: Option<Tensor>,
    /// The weights of the rows, n × 1.
    weights: Option<Tensor>,
}

impl Preparation {
    fn new(preprocessing: &Preprocessing, device: &Device) -> Result<Self> {
        let scale = preprocessing.scaling.scale;
        let line = |values: Vec<f32>| {
            let shape = (1, values.len());
            Tensor::from_vec(values, shape, device)
        };
        let centre = preprocessing.centre.as_ref().map(|c| c.iter());
        let neurons = preprocessing.scaling.neurons.as_ref();
        let weights = preprocessing.weights.as_ref();
        Ok(Self {
            scale: (scale != 1.0).then(|| f64::from(scale)),
            centre: centre
                .map(|c| line(c.map(|v| v * scale).collect()))
                .transpose()?,
            neurons: neurons.map(|n| line(n.to_vec())).transpose()?,
            weights: weights
                .map(|w| Tensor::from_slice(w, (w.len(), 1), device))
                .transpose()?,
        })
    }
}

/// Consecutive rows on the device in their stored type.
pub(super) struct Piece {
    pub(super) first: usize,
    raw: Tensor,
}

impl Piece {
    pub(super) fn rows(&self) -> Range<usize> {
        self.first..self.first + self.raw.dims()[0]
    }
}

/// The rows of a source, on a device.
pub(super) struct DeviceRows {
    device: Device,
    block_rows: usize,
    preparation: Preparation,
    kept: Mutex<KeptBlocks>,
}

#[derive(Default)]
struct KeptBlocks {
    /// The first blocks of the source.
    blocks: Vec<Tensor>,
    /// The largest number of blocks to keep.
    most: usize,
}

impl DeviceRows {
    pub(super) fn new(device: &Device, block_rows: usize, most: usize) -> Self {
        Self {
            device: device.clone(),
            block_rows,
            preparation: Preparation::default(),
            kept: Mutex::new(KeptBlocks {
                blocks: Vec::new(),
                most,
            }),
        }
    }

    pub(super) fn prepare(&mut self, preprocessing: &Preprocessing) -> Result<()> {
        self.preparation = Preparation::new(preprocessing, &self.device)?;
        Ok(())
    }

    /// Stops keeping further blocks, because the device is full; those kept so far stay.
    pub(super) fn stop_keeping(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.most = kept.blocks.len();
    }

    /// The rows of `range`, divided at the boundaries of blocks.
    pub(super) fn pieces(&self, stream: &Stream<'_>, range: Range<usize>) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut first = range.start;
        while first < range.end {
            let block = first / self.block_rows;
            let whole = block * self.block_rows..stream.n.min((block + 1) * self.block_rows);
            let rows = first..range.end.min(whole.end);
            first = rows.end;
            pieces.push(Piece {
                first: rows.start,
                raw: self.part_of_block(stream, block, whole, rows)?,
            });
        }
        Ok(pieces)
    }

    /// The rows `rows` of the block that covers the rows `whole`: a part of the kept block, or a
    /// new copy from the host.
    fn part_of_block(
        &self,
        stream: &Stream<'_>,
        block: usize,
        whole: Range<usize>,
        rows: Range<usize>,
    ) -> Result<Tensor> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if block == kept.blocks.len() && block < kept.most {
            let uploaded = self.upload(stream, whole.clone())?;
            kept.blocks.push(uploaded);
        }
        match kept.blocks.get(block) {
            // A stream of fewer rows may have kept a shorter block.
            Some(kept_block) if kept_block.dim(0)? >= rows.end - whole.start => {
                Ok(kept_block.narrow(0, rows.start - whole.start, rows.len())?)
            }
            _ => self.upload(stream, rows),
        }
    }

    /// Copies rows to the device in their stored type.
    fn upload(&self, stream: &Stream<'_>, rows: Range<usize>) -> Result<Tensor> {
        stream.source.advise_pass(rows.clone());
        let mut parts = Vec::new();
        stream.source.for_each_stored(rows, &mut |stored| {
            let dtype = match stored.dtype {
                CacheDtype::F32 => DType::F32,
                CacheDtype::F16 => DType::F16,
                CacheDtype::Bf16 => DType::BF16,
            };
            let shape = [stored.rows, stream.d];
            parts.push(Tensor::from_raw_buffer(
                stored.bytes,
                dtype,
                &shape,
                &self.device,
            )?);
            Ok(())
        })?;
        Ok(match &parts[..] {
            [whole] => whole.clone(),
            parts => Tensor::cat(parts, 0)?,
        })
    }

    /// The rows of a piece in f32, with all of the preprocessing.
    pub(super) fn prepared(&self, piece: &Piece) -> Result<Tensor> {
        self.weigh(&self.centred(piece)?, piece.first)
    }

    /// The rows of a piece in f32, multiplied by the power of two and with the mean row subtracted.
    pub(super) fn centred(&self, piece: &Piece) -> Result<Tensor> {
        let mut rows = piece.raw.to_dtype(DType::F32)?;
        if let Some(scale) = self.preparation.scale {
            rows = (rows * scale)?;
        }
        if let Some(centre) = &self.preparation.centre {
            rows = rows.broadcast_sub(centre)?;
        }
        Ok(rows)
    }

    /// Multiplies rows, the first of which has the index `first`, by the weights of neurons and
    /// rows.
    pub(super) fn weigh(&self, rows: &Tensor, first: usize) -> Result<Tensor> {
        let mut rows = rows.clone();
        if let Some(neurons) = &self.preparation.neurons {
            rows = rows.broadcast_mul(neurons)?;
        }
        if let Some(weights) = &self.preparation.weights {
            rows = rows.broadcast_mul(&weights.narrow(0, first, rows.dim(0)?)?)?;
        }
        Ok(rows)
    }

    pub(super) fn preparation(&self) -> &Preparation {
        &self.preparation
    }
}
