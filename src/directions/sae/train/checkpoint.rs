//! The checkpoint of a training, written atomically.
//!
//! Layout, little-endian: magic, length of a JSON header, the header, the arrays, xxh3 of all
//! before it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{BatchPosition, Gate, Normalise, Sae, State, TrainConfig};
use crate::disk::NewFile;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"mlpeekS1";

/// The JSON header: all that is not an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    config: TrainConfig,
    rows: usize,
    width: usize,
    fingerprint: u64,
    step: u64,
    #[serde(rename = "place")]
    position: BatchPosition,
    /// The sums of the present pass as the bits of f64, so that JSON does not round them.
    sums: (u64, u64),
    seconds: f64,
}

impl State {
    /// The state without its arrays.
    pub(super) fn small_state(&self) -> SmallState {
        SmallState {
            step: self.step,
            position: self.position,
            sums: self.sums,
            seconds: self.seconds,
        }
    }
}

/// A [`State`] without its arrays.
pub(super) struct SmallState {
    step: u64,
    position: BatchPosition,
    sums: (f64, f64),
    pub(super) seconds: f64,
}

pub(super) fn write(
    path: &Path,
    config: &TrainConfig,
    (rows, width): (usize, usize),
    fingerprint: u64,
    small_state: &SmallState,
    state: &State,
) -> Result<()> {
    let sums = (small_state.sums.0.to_bits(), small_state.sums.1.to_bits());
    let (step, position, seconds) = (small_state.step, small_state.position, small_state.seconds);
    let header = Header {
        config: config.clone(),
        rows,
        width,
        fingerprint,
        step,
        position,
        sums,
        seconds,
    };
    let json = serde_json::to_vec(&header)
        .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
    let mut file = NewFile::create(path)?;
    let mut hash = Xxh3::new();
    let mut write_hashed = |bytes: &[u8]| {
        hash.update(bytes);
        file.write(bytes)
    };
    write_hashed(&MAGIC)?;
    write_hashed(&(json.len() as u64).to_le_bytes())?;
    write_hashed(&json)?;
    let sae = &state.sae;
    let weights = [
        &sae.encoder,
        &sae.decoder,
        &sae.encoder_bias,
        &sae.decoder_bias,
    ];
    for array in weights.into_iter().chain(state.moments.iter().flatten()) {
        write_hashed(bytemuck::cast_slice(array))?;
    }
    write_hashed(bytemuck::cast_slice(&state.silent))?;
    let digest = hash.digest();
    file.write(&digest.to_le_bytes())?;
    file.commit()
}

/// Reads the checkpoint of a training of `config` on rows of this shape and fingerprint; any other
/// checkpoint is refused.
pub(super) fn read(
    path: &Path,
    config: &TrainConfig,
    shape: (usize, usize),
    fingerprint: u64,
) -> Result<State> {
    let bad = |problem: &str| Error::file(path, format!("{problem}; delete it to train anew"));
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let damaged = || bad("the checkpoint is truncated or damaged");
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err(damaged());
    }
    let body = body
        .strip_prefix(&MAGIC)
        .ok_or_else(|| bad("not a checkpoint of a training"))?;
    let (length, body) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
    let (json, mut rest) = body.split_at_checked(length).ok_or_else(damaged)?;
    let header: Header = serde_json::from_slice(json).map_err(|_| damaged())?;
    if (header.rows, header.width) != shape || header.fingerprint != fingerprint {
        return Err(bad("a checkpoint of a training on other activations"));
    }
    if header.config != *config {
        let saved = serde_json::to_string(&header.config).unwrap_or_default();
        return Err(bad(&format!(
            "a checkpoint of a training with other settings ({saved})"
        )));
    }
    let (d, k) = (header.width, config.latents);
    let mut floats = |count: usize| -> Result<Vec<f32>> {
        let (now, later) = rest.split_at_checked(4 * count).ok_or_else(damaged)?;
        rest = later;
        Ok(now
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    };
    let sae = Sae {
        width: d,
        encoder: floats(k * d)?,
        decoder: floats(k * d)?,
        encoder_bias: floats(k)?,
        decoder_bias: floats(d)?,
        centred: true,
        gate: Gate::TopK {
            k: config.top_k,
            by_norm: false,
        },
        normalise: Normalise::None,
    };
    let mut pair = |count: usize| -> Result<[Vec<f32>; 2]> { Ok([floats(count)?, floats(count)?]) };
    let moments = [pair(k * d)?, pair(k * d)?, pair(k)?, pair(d)?];
    let silent: Vec<u64> = rest
        .chunks_exact(8)
        .filter_map(|b| b.try_into().ok())
        .map(u64::from_le_bytes)
        .collect();
    if silent.len() != k || rest.len() != 8 * k {
        return Err(damaged());
    }
    let sums = (f64::from_bits(header.sums.0), f64::from_bits(header.sums.1));
    Ok(State {
        sae,
        moments,
        silent,
        step: header.step,
        position: header.position,
        sums,
        seconds: header.seconds,
    })
}
