//! A fit on disk, whole or not at all ([`NewFile`]); bound to its source, its configuration
//! and this format, and closed by a checksum. Knows nothing of how a fit goes on.
//!
//! Layout, little-endian: magic, format version, length of a JSON header, the header, the arrays in the order of
//! the lengths in its header, xxh3 of all before it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::SparseColumns;
use super::panels::Panels;
use super::state::{Held, State};
use super::stream::Sums;
use super::values::Values;
use super::{FitConfig, Stop};
use crate::disk::NewFile;
use crate::error::{Error, Result};
use crate::matrix::panel::PANEL;

const MAGIC: [u8; 8] = *b"mlpeekft";
const VERSION: u32 = 1;
/// No header is longer: a foreign file's number is not believed.
const HEADER_BYTES: u64 = 64 << 20;

/// Everything small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) config: FitConfig,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// The hash of every activation.
    pub(crate) fingerprint: u64,
    pub(crate) progress: FitProgress,
    state: StateHeader,
    best: Option<StateHeader>,
}

/// Counters of a fit; floats travel as bits, so that nothing is rounded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FitProgress {
    pub(crate) sweep: usize,
    pub(crate) best_sweep: usize,
    pub(crate) since_best: usize,
    pub(crate) stopped: Option<Stop>,
    /// Bits of the seconds of sweeping, of the start, and at the best sweep.
    pub(crate) seconds: [u64; 3],
    /// Features that stay as they are.
    #[serde(default)]
    pub(crate) locked: Vec<bool>,
    /// Bits of the objective after each sweep.
    pub(crate) history: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StateHeader {
    all: bool,
    error: u64,
    objective: u64,
    fit: u64,
    /// Entries a column; 0 before the first sweep.
    keep: usize,
    /// Lengths of indices, values, y, products, gram, totals, row_fit.
    lengths: [usize; 7],
}

impl StateHeader {
    fn of(state: &State) -> Self {
        let columns = state.features.columns();
        Self {
            all: state.held == Held::All,
            error: state.error.to_bits(),
            objective: state.objective.to_bits(),
            fit: state.sums.fit.to_bits(),
            keep: state.features.indices.len().checked_div(columns).unwrap_or(0),
            lengths: [
                state.features.indices.len(),
                state.features.values.len(),
                state.y.data.len(),
                state.sums.products.len(),
                state.sums.gram.len(),
                state.sums.totals.len(),
                state.sums.row_fit.len(),
            ],
        }
    }

    /// Bytes of its arrays, or `None` when they overflow.
    fn bytes(&self) -> Option<u64> {
        let sizes = [4u64, 4, 4, 4, 8, 8, 4];
        self.lengths.iter().zip(sizes).try_fold(0u64, |sum, (&n, size)| sum.checked_add((n as u64).checked_mul(size)?))
    }

    /// Whether the lengths are those of k features on n × d.
    fn fits(&self, k: usize, n: usize, d: usize) -> bool {
        let padded = n.div_ceil(PANEL).checked_mul(PANEL);
        let entries = k.checked_mul(self.keep);
        let products = if self.all { k.checked_mul(d) } else { entries };
        let want =
            [entries, entries, padded.and_then(|p| p.checked_mul(k)), products, k.checked_mul(k), Some(k), padded];
        self.keep <= d && want.iter().zip(self.lengths).all(|(w, got)| *w == Some(got))
    }
}

/// What a checkpoint holds.
pub(crate) struct Saved {
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) best: Option<State>,
}

/// Writes a checkpoint in place of `path`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn write(
    path: &Path,
    config: &FitConfig,
    shape: (usize, usize),
    fingerprint: u64,
    progress: FitProgress,
    state: &State,
    best: Option<&State>,
) -> Result<()> {
    let header = Header {
        config: config.clone(),
        rows: shape.0,
        cols: shape.1,
        fingerprint,
        progress,
        state: StateHeader::of(state),
        best: best.map(StateHeader::of),
    };
    let json = serde_json::to_vec(&header).map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
    let mut out = Hashed { inner: NewFile::create(path)?, hash: Xxh3::new() };
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&(json.len() as u64).to_le_bytes())?;
    out.put(&json)?;
    for s in std::iter::once(state).chain(best) {
        out.put(&s.features.indices)?;
        out.put(&s.features.values)?;
        out.put(&s.y.data)?;
        out.put(&s.sums.products)?;
        out.put(&s.sums.gram)?;
        out.put(&s.sums.totals)?;
        out.put(&s.sums.row_fit)?;
    }
    let digest = out.hash.digest();
    out.put(&digest.to_le_bytes())?;
    out.inner.commit()
}

/// Reads a checkpoint of a fit of `config` to a source of this shape and fingerprint.
pub(crate) fn read(path: &Path, config: &FitConfig, shape: (usize, usize), fingerprint: u64) -> Result<Saved> {
    let bad = |problem: &str| Error::file(path, format!("{problem}; delete it to start the fit anew"));
    let file = File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut input = Hashed { inner: BufReader::with_capacity(1 << 20, file), hash: Xxh3::new() };
    let truncated = |_| bad("the checkpoint is truncated");
    let mut start = [0u8; 20];
    input.take_exact(&mut start).map_err(truncated)?;
    if start[..8] != MAGIC {
        return Err(bad("not a checkpoint of a fit"));
    }
    let version = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    if version != VERSION {
        return Err(bad(&format!("a checkpoint of format {version}, and this version reads format {VERSION}")));
    }
    let mut length = [0u8; 8];
    length.copy_from_slice(&start[12..]);
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES.min(size) {
        return Err(bad("the checkpoint is truncated or damaged"));
    }
    let mut json = vec![0; length as usize];
    input.take_exact(&mut json).map_err(truncated)?;
    let header: Header = serde_json::from_slice(&json).map_err(|_| bad("the checkpoint's header is damaged"))?;
    check(&header, size, length, bad)?;
    check_binding(&header, config, shape, fingerprint, bad)?;
    let mut state = |saved: &StateHeader| {
        let y = Values::zeros(saved.lengths[2], config.scratch.as_deref())?;
        read_state(&mut input, saved, &header, y).map_err(truncated)
    };
    let (state, best) = (state(&header.state)?, header.best.as_ref().map(&mut state).transpose()?);
    let digest = input.hash.digest();
    let mut sum = [0u8; 8];
    input.inner.read_exact(&mut sum).map_err(|_| bad("the checkpoint is truncated"))?;
    let sound = |s: &State| s.features.indices.iter().all(|&i| (i as usize) < header.cols);
    if u64::from_le_bytes(sum) != digest || !sound(&state) || !best.as_ref().is_none_or(sound) {
        return Err(bad("the checkpoint is damaged: its checksum does not match"));
    }
    Ok(Saved { header, state, best })
}

/// The arrays that the header announces must be exactly what the file holds, before memory is taken for them.
fn check(header: &Header, size: u64, length: u64, bad: impl Fn(&str) -> Error) -> Result<()> {
    let (k, n, d) = (header.config.features, header.rows, header.cols);
    let mut body = Some(20 + length + 8);
    for s in std::iter::once(&header.state).chain(&header.best) {
        if !s.fits(k, n, d) {
            return Err(bad("the checkpoint's header is damaged"));
        }
        body = body.zip(s.bytes()).and_then(|(a, b)| a.checked_add(b));
    }
    if body != Some(size) {
        return Err(bad("the checkpoint is truncated or damaged"));
    }
    Ok(())
}

fn check_binding(
    header: &Header,
    config: &FitConfig,
    shape: (usize, usize),
    fingerprint: u64,
    bad: impl Fn(&str) -> Error,
) -> Result<()> {
    if (header.rows, header.cols) != shape {
        let (n, d) = shape;
        let (rows, cols) = (header.rows, header.cols);
        return Err(bad(&format!("a checkpoint of a fit to {rows} × {cols} activations, and these are {n} × {d}")));
    }
    if header.fingerprint != fingerprint {
        return Err(bad("a checkpoint of a fit to other activations of the same shape"));
    }
    if !header.config.same_fit(config) {
        let saved = serde_json::to_string(&header.config).unwrap_or_default();
        return Err(bad(&format!("a checkpoint of a fit with other settings ({saved})")));
    }
    Ok(())
}

fn read_state(
    input: &mut Hashed<BufReader<File>>,
    saved: &StateHeader,
    header: &Header,
    mut y: Values,
) -> std::io::Result<State> {
    let k = header.config.features;
    let [indices, values, _, products, gram, totals, row_fit] = saved.lengths;
    let offsets = if indices == 0 { Vec::new() } else { (0..=k).map(|j| j * saved.keep).collect() };
    let features = SparseColumns {
        rows: if indices == 0 { 0 } else { header.cols },
        offsets,
        indices: input.array(indices)?,
        values: input.array(values)?,
    };
    input.take_exact(bytemuck::cast_slice_mut(&mut y))?;
    let y = Panels { k, rows: header.rows, data: y };
    let sums = Sums {
        products: input.array(products)?,
        gram: input.array(gram)?,
        fit: f64::from_bits(saved.fit),
        totals: input.array(totals)?,
        row_fit: input.array(row_fit)?,
    };
    let held = if saved.all { Held::All } else { Held::Entries };
    let (error, objective) = (f64::from_bits(saved.error), f64::from_bits(saved.objective));
    Ok(State { features, y, sums, held, error, objective })
}

/// Hashes what passes through, in pieces: what is larger than memory goes through it once.
struct Hashed<T> {
    inner: T,
    hash: Xxh3,
}

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

impl Hashed<NewFile> {
    fn put<V: bytemuck::NoUninit>(&mut self, values: &[V]) -> Result<()> {
        bytemuck::cast_slice(values).chunks(PIECE).try_for_each(|bytes| {
            self.hash.update(bytes);
            self.inner.write(bytes)
        })
    }
}

impl<T: Read> Hashed<T> {
    fn take_exact(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.chunks_mut(PIECE).try_for_each(|bytes| {
            self.inner.read_exact(bytes)?;
            self.hash.update(bytes);
            Ok(())
        })
    }

    fn array<V: bytemuck::Pod>(&mut self, length: usize) -> std::io::Result<Vec<V>> {
        let mut out = vec![V::zeroed(); length];
        self.take_exact(bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }
}
