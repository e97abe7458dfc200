//! Measures how fast a device and the CPU run the passes of a fit, on the first rows of the source.

use std::ops::Range;
use std::time::Instant;

use super::{Accelerator, CoefficientSweeps};
use crate::activations::store::CacheDtype;
use crate::activations::{ActivationSource, Block, StoredRows};
use crate::error::Result;
use crate::factor::bcd::{self, HALS_SWEEPS, SUPPORT_SWEEPS};
use crate::factor::fit::FitThreads;
use crate::factor::pass::{Columns, Gather, PassSums};
use crate::factor::state::State;
use crate::factor::stream::Stream;
use crate::factor::{FitConfig, SparseColumns, columns};
use crate::matrix::panel::{Gram, PANEL};
use crate::task::{Progress, TaskCtx};

/// Panels per thread that the CPU is measured on: few are enough, since its time per row does not
/// depend on their number.
const PANELS_PER_THREAD: usize = 8;

/// The measured speed of the passes of a fit, in rows per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PassRates {
    /// Rows per second on the device, measured on the first strip of rows.
    pub device: f64,
    /// Rows per second on the CPU, measured on fewer rows.
    pub cpu: f64,
    /// The number of rows that the device was measured on.
    pub rows: usize,
}

impl PassRates {
    /// The speed of the device divided by that of the CPU; 0 if the clock did not move during a
    /// measurement.
    pub fn ratio(&self) -> f64 {
        if self.cpu > 0.0 && self.device.is_finite() {
            self.device / self.cpu
        } else {
            0.0
        }
    }

    /// Whether the device is faster than the CPU.
    pub fn device_is_faster(&self) -> bool {
        self.ratio() > 1.0
    }
}

/// A source that consists of the first `rows` rows of another one.
struct FirstRows<'a> {
    source: &'a dyn ActivationSource,
    rows: usize,
}

impl ActivationSource for FirstRows<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.source.shape().1)
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.source.rows(range)
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.source.read(range, out)
    }

    fn stored_dtype(&self) -> CacheDtype {
        self.source.stored_dtype()
    }

    fn for_each_stored(
        &self,
        range: Range<usize>,
        f: &mut dyn FnMut(StoredRows<'_>) -> Result<()>,
    ) -> Result<()> {
        self.source.for_each_stored(range, f)
    }
}

impl Accelerator {
    /// Times the passes of four sweeps (one that chooses supports, three on fixed supports) on
    /// synthetic features: on the device over the first strip, which then stays there if the plan
    /// keeps it, and on the CPU over fewer rows. Each runs once untimed first, so that memory is
    /// allocated and rows are cached.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of the device.
    pub fn measure(
        &self,
        source: &dyn ActivationSource,
        config: &FitConfig,
        ctx: &TaskCtx,
    ) -> Result<PassRates> {
        ctx.checkpoint(Progress::new("measuring the GPU", 0, None, ""))?;
        let (n, d) = source.shape();
        let features = synthetic_features(config.features, d, config.check((n, d))?);
        let strip = self.plan.strips(n).next().unwrap_or(0..n).len();
        let threads = config.threads.unwrap_or_else(rayon::current_num_threads);
        let fewer = n.min(PANELS_PER_THREAD * PANEL * threads);
        let pool = FitThreads::new(config.threads)?;
        let seconds = |rows: usize, on: Option<&Self>| -> Result<f64> {
            let first = FirstRows { source, rows };
            let stream = Stream::new(&first);
            pool.run(|| {
                passes(&stream, &features, on, ctx)?;
                let started = Instant::now();
                passes(&stream, &features, on, ctx)?;
                Ok(started.elapsed().as_secs_f64())
            })
        };
        let (device, cpu) = (seconds(strip, Some(self))?, seconds(fewer, None)?);
        Ok(PassRates {
            device: strip as f64 / device,
            cpu: fewer as f64 / cpu,
            rows: strip,
        })
    }
}

/// The passes of [`SUPPORT_SWEEPS`] + 1 sweeps from zero coefficients.
fn passes(
    stream: &Stream<'_>,
    features: &SparseColumns,
    on: Option<&Accelerator>,
    ctx: &TaskCtx,
) -> Result<()> {
    let k = features.columns();
    let q = columns::gram(features);
    let gram = Gram::from_dense(&q, k);
    let scales = vec![1.0; k];
    let mut state = State::new(stream.zero_coefficients(k)?, PassSums::default());
    let mut next = State::new(stream.zero_coefficients(k)?, PassSums::default());
    if let Some(device) = on {
        device.upload_coefficients(&mut state)?;
    }
    for sweep in 0..=SUPPORT_SWEEPS {
        let step = CoefficientSweeps {
            features,
            scales: &scales,
            q: &q,
            penalty: 0.0,
            sweeps: HALS_SWEEPS[usize::from(sweep > 0)],
        };
        let gather = if sweep == 0 {
            Gather::Dense
        } else {
            Gather::Support(features)
        };
        match on {
            Some(device) => device.pass(stream, ctx, &state, &mut next, Some(&step), gather)?,
            None => stream.pass(
                ctx,
                &state.y,
                &mut next.y,
                &Columns::Sparse(features),
                gather,
                &mut next.sums,
                &bcd::coefficient_update(&step, &gram, None),
            )?,
        }
        std::mem::swap(&mut state, &mut next);
    }
    Ok(())
}

/// k columns of unit norm with `support_size` pseudo-random neurons each, spread evenly over the d
/// neurons.
fn synthetic_features(k: usize, d: usize, support_size: usize) -> SparseColumns {
    let mut columns = SparseColumns {
        rows: d,
        offsets: vec![0],
        ..SparseColumns::default()
    };
    let value = (support_size as f32).sqrt().recip();
    let mut state = 1u64;
    for _ in 0..k {
        // One neuron of each of `support_size` equal stretches.
        for stretch in 0..support_size {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (from, to) = (stretch * d / support_size, (stretch + 1) * d / support_size);
            let neuron = from + (state >> 33) as usize % (to - from);
            columns.indices.push(neuron as u32);
            columns
                .values
                .push(if state >> 63 == 0 { value } else { -value });
        }
        columns.offsets.push(columns.indices.len());
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_taken_where_it_is_faster() {
        let rates = |device, cpu| PassRates {
            device,
            cpu,
            rows: 64,
        };
        assert!(rates(2e6, 1e5).device_is_faster() && rates(2e6, 1e5).ratio() == 20.0);
        assert!(!rates(1e5, 1e5).device_is_faster());
        assert!(!rates(1e5, 2e6).device_is_faster());
        // A clock that did not move is no evidence for the device.
        for odd in [
            rates(f64::INFINITY, 1.0),
            rates(1.0, f64::INFINITY),
            rates(f64::NAN, 1.0),
            rates(1.0, 0.0),
        ] {
            assert!(!odd.device_is_faster(), "{odd:?}");
        }
    }

    #[test]
    fn synthetic_features_are_columns_of_unit_norm() {
        let columns = synthetic_features(7, 50, 6);
        assert_eq!((columns.columns(), columns.indices.len()), (7, 42));
        for j in 0..7 {
            let (indices, values) = columns.column(j);
            assert!(indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|&i| i < 50));
            let square: f32 = values.iter().map(|v| v * v).sum();
            assert!((square - 1.0).abs() < 1e-5);
        }
        assert_ne!(columns.column(0).0, columns.column(1).0);
    }
}
