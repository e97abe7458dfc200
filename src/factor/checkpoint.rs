//! The checkpoint file of a fit, which belongs to one source and one configuration: a header, then
//! the arrays in the order of their lengths in the header, in the format of [`super::checksummed`].
//! Knows nothing of sweeps.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SparseColumns;
use super::checksummed::{FileKind, Reader, Writer};
use super::panels::Panels;
use super::pass::PassSums;
use super::state::{HeldProducts, State};
use super::value_buffer::ValueBuffer;
use super::{FitConfig, Stop};
use crate::error::Result;
use crate::matrix::panel::PANEL;

const KIND: FileKind = FileKind {
    magic: *b"mlpeekft",
    version: 1,
    name: "checkpoint of a fit",
};

/// The JSON header: configuration, source, counters, and the lengths of the arrays that follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) config: FitConfig,
    #[serde(flatten)]
    source_identity: SourceIdentity,
    pub(crate) progress: FitProgress,
    state: StateHeader,
    best: Option<StateHeader>,
}

/// The identity of the activations that a checkpoint belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceIdentity {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// The hash of every activation ([`super::data_stats::DataStats::fingerprint`]).
    pub(crate) fingerprint: u64,
    /// The power of two by which they were multiplied; absent in checkpoints of earlier versions, which
    /// did not scale them.
    #[serde(default = "unit_scale")]
    pub(crate) scale: f32,
}

fn unit_scale() -> f32 {
    1.0
}

/// The counters of a fit. Floats are stored as bits, because decimal JSON numbers could round them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FitProgress {
    pub(crate) sweep: usize,
    pub(crate) best_sweep: usize,
    pub(crate) since_best: usize,
    pub(crate) stopped: Option<Stop>,
    /// Bits of the seconds of sweeping, of the initialisation, and of sweeping until the best sweep.
    pub(crate) seconds: [u64; 3],
    /// Whether each feature is locked.
    #[serde(default)]
    pub(crate) locked: Vec<bool>,
    /// Bits of the objective after each sweep.
    pub(crate) history: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StateHeader {
    /// Whether the sums hold all of AᵀY, not only its values at the entries of the features.
    all: bool,
    /// Bits of the squared error, of the objective and of Σ P∘Y.
    error: u64,
    objective: u64,
    fit: u64,
    /// s, the entries of a column; 0 before the first sweep.
    #[serde(rename = "keep")]
    support_size: usize,
    /// Lengths of indices, values, y, products, gram, totals, row_fit.
    lengths: [usize; 7],
}

impl StateHeader {
    fn new(state: &State) -> Self {
        let columns = state.features.columns();
        Self {
            all: state.held == HeldProducts::All,
            error: state.error.to_bits(),
            objective: state.objective.to_bits(),
            fit: state.sums.fit.to_bits(),
            support_size: state
                .features
                .indices
                .len()
                .checked_div(columns)
                .unwrap_or(0),
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

    /// The total bytes of the arrays; `None` if the lengths of a damaged header overflow.
    fn bytes(&self) -> Option<u64> {
        let sizes = [4u64, 4, 4, 4, 8, 8, 4];
        self.lengths
            .iter()
            .zip(sizes)
            .try_fold(0u64, |sum, (&n, size)| {
                sum.checked_add((n as u64).checked_mul(size)?)
            })
    }

    /// Whether the lengths are those of k features on n × d activations.
    fn has_shape(&self, k: usize, n: usize, d: usize) -> bool {
        let padded = n.div_ceil(PANEL).checked_mul(PANEL);
        let entries = k.checked_mul(self.support_size);
        let products = if self.all { k.checked_mul(d) } else { entries };
        let expected = [
            entries,
            entries,
            padded.and_then(|p| p.checked_mul(k)),
            products,
            k.checked_mul(k),
            Some(k),
            padded,
        ];
        self.support_size <= d
            && expected
                .iter()
                .zip(self.lengths)
                .all(|(expected, length)| *expected == Some(length))
    }
}

/// The content of a checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) header: Header,
    pub(crate) state: State,
    pub(crate) best: Option<State>,
}

/// Writes a checkpoint that atomically replaces `path`.
///
/// # Errors
/// [`crate::Error::Io`] if it cannot be written.
pub(crate) fn write(
    path: &Path,
    config: &FitConfig,
    source_identity: SourceIdentity,
    progress: FitProgress,
    state: &State,
    best: Option<&State>,
) -> Result<()> {
    let header = Header {
        config: config.clone(),
        source_identity,
        progress,
        state: StateHeader::new(state),
        best: best.map(StateHeader::new),
    };
    let mut out = Writer::create(path, &KIND, &header)?;
    for s in std::iter::once(state).chain(best) {
        out.write_array(&s.features.indices)?;
        out.write_array(&s.features.values)?;
        out.write_array(&s.y.data)?;
        out.write_array(&s.sums.products)?;
        out.write_array(&s.sums.gram)?;
        out.write_array(&s.sums.totals)?;
        out.write_array(&s.sums.row_fit)?;
    }
    out.commit()
}

/// Reads a checkpoint of a fit of `config` to the activations of `source_identity`.
///
/// # Errors
/// [`crate::Error::File`] if the file is damaged, or if it belongs to other activations or settings.
pub(crate) fn read(
    path: &Path,
    config: &FitConfig,
    source_identity: SourceIdentity,
) -> Result<Checkpoint> {
    let (mut input, header): (_, Header) = Reader::open(path, &KIND)?;
    check(&header, &input)?;
    check_source(&header, config, source_identity, &input)?;
    let mut state = |saved: &StateHeader| {
        let y = ValueBuffer::zeros(saved.lengths[2], config.scratch.as_deref())?;
        read_state(&mut input, saved, &header, y)
    };
    let (state, best) = (
        state(&header.state)?,
        header.best.as_ref().map(&mut state).transpose()?,
    );
    let indices_in_range = |s: &State| {
        s.features
            .indices
            .iter()
            .all(|&i| (i as usize) < header.source_identity.cols)
    };
    input.finish(indices_in_range(&state) && best.as_ref().is_none_or(indices_in_range))?;
    Ok(Checkpoint {
        header,
        state,
        best,
    })
}

fn check(header: &Header, input: &Reader) -> Result<()> {
    let (k, n, d) = (
        header.config.features,
        header.source_identity.rows,
        header.source_identity.cols,
    );
    let mut body = Some(0);
    for s in std::iter::once(&header.state).chain(&header.best) {
        if !s.has_shape(k, n, d) {
            return Err(input.error("the checkpoint's header is damaged"));
        }
        body = body
            .zip(s.bytes())
            .and_then(|(a, b): (u64, u64)| a.checked_add(b));
    }
    input.expect_bytes(body)
}

fn check_source(
    header: &Header,
    config: &FitConfig,
    expected: SourceIdentity,
    input: &Reader,
) -> Result<()> {
    let bad = |problem: &str| input.error(problem);
    let SourceIdentity {
        rows,
        cols,
        fingerprint,
        scale,
    } = header.source_identity;
    if (rows, cols) != (expected.rows, expected.cols) {
        let (n, d) = (expected.rows, expected.cols);
        return Err(bad(&format!(
            "a checkpoint of a fit to {rows} × {cols} activations, and these are {n} × {d}"
        )));
    }
    if fingerprint != expected.fingerprint {
        return Err(bad(
            "a checkpoint of a fit to other activations of the same shape",
        ));
    }
    if !header.config.same_fit(config) {
        let saved = serde_json::to_string(&header.config).unwrap_or_default();
        return Err(bad(&format!(
            "a checkpoint of a fit with other settings ({saved})"
        )));
    }
    if scale != expected.scale {
        return Err(bad(
            "a checkpoint of an earlier version, which did not scale activations as small or large as these",
        ));
    }
    Ok(())
}

fn read_state(
    input: &mut Reader,
    saved: &StateHeader,
    header: &Header,
    mut y: ValueBuffer,
) -> Result<State> {
    let k = header.config.features;
    let [indices, values, _, products, gram, totals, row_fit] = saved.lengths;
    let offsets = if indices == 0 {
        Vec::new()
    } else {
        (0..=k).map(|j| j * saved.support_size).collect()
    };
    let features = SparseColumns {
        rows: if indices == 0 {
            0
        } else {
            header.source_identity.cols
        },
        offsets,
        indices: input.read_array(indices)?,
        values: input.read_array(values)?,
    };
    input.read_into(bytemuck::cast_slice_mut(&mut y))?;
    let y = Panels {
        k,
        rows: header.source_identity.rows,
        data: y,
    };
    let sums = PassSums {
        products: input.read_array(products)?,
        gram: input.read_array(gram)?,
        fit: f64::from_bits(saved.fit),
        totals: input.read_array(totals)?,
        row_fit: input.read_array(row_fit)?,
    };
    let held = if saved.all {
        HeldProducts::All
    } else {
        HeldProducts::Entries
    };
    let (error, objective) = (f64::from_bits(saved.error), f64::from_bits(saved.objective));
    Ok(State {
        features,
        y,
        on_device: None,
        sums,
        held,
        error,
        objective,
    })
}
