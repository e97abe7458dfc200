//! Sets of directions from any source behind one trait, so that the same code lists, reads and
//! judges them and steers with them.
//!
//! Owns [`DirectionSet`], the interface that an SNMF fit, DiffMean, centroids, neurons, random
//! directions and an SAE share, and the sets that need only their columns. Knows no study and no
//! model. Invariant: a set belongs to one hook, and all of its values refer to that hook's
//! activations.

use std::sync::Arc;

use super::Directions;
use super::sae::Sae;
use crate::activations::{ActivationSource, Block};
use crate::error::{Error, Result};
use crate::factor::encode::Encoder;
use crate::factor::{Coding, Coefficients, Factors};
use crate::matrix::gemm::row_major_product;
use crate::model::HookPoint;
use crate::task::{Progress, TaskCtx};
use crate::{disk, memory};

/// The number of rows that are scored at a time.
const BLOCK_ROWS: usize = 1024;

/// k directions in the space of one hook, with a way to say how strongly a row of activations
/// expresses each.
pub trait DirectionSet: Send + Sync {
    /// The name in output and file names: `k100` (a fit), `diffmean`.
    fn name(&self) -> &str;

    /// The hook in whose activation space the directions are.
    fn hook(&self) -> HookPoint;

    /// The d × k matrix, columns of any length.
    fn directions(&self) -> &Directions;

    /// The name of direction `id` if it has one (in a supervised baseline its label).
    fn title(&self, _id: usize) -> Option<&str> {
        None
    }

    /// The directions that direction `id` of a mix combines, with their weights, the largest first;
    /// empty for other sets.
    fn recipe(&self, _id: usize) -> &[(usize, f32)] {
        &[]
    }

    /// How strongly each row expresses each direction: `[rows][k]`, row-major, never negative.
    ///
    /// # Errors
    /// [`Error::Usage`] for rows of another width; [`Error::Cancelled`].
    fn scores(&self, rows: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>>;

    /// The set as factors, the form that all analysis reads: unit columns as features, and their
    /// [`scores`](Self::scores) on every row of `source` as coefficients (4·n·k bytes). The errors
    /// are NaN if the set is no fit.
    ///
    /// # Errors
    /// [`Error::Usage`] for rows of another width; [`Error::Refused`] if the scores do not fit into
    /// memory; what `source` returns; [`Error::Cancelled`].
    fn factors_on(&self, source: &dyn ActivationSource, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        let (n, d) = source.shape();
        let k = self.directions().count();
        if d != self.directions().height() {
            let (name, height) = (self.name(), self.directions().height());
            return Err(Error::usage(format!(
                "{name} has directions of {height} values, the rows have {d}"
            )));
        }
        check_memory(self, (n, d, k), memory::available()?)?;
        let mut by_feature = vec![0.0f32; n * k];
        for start in (0..n).step_by(BLOCK_ROWS) {
            ctx.checkpoint(Progress::new(
                format!("scoring {}", self.name()),
                start as u64,
                n as u64,
                "tokens",
            ))?;
            let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
            let scores = self.scores(&block, ctx)?;
            for (i, line) in scores.chunks_exact(k.max(1)).enumerate() {
                line.iter()
                    .enumerate()
                    .for_each(|(j, &v)| by_feature[j * n + start + i] = v);
            }
        }
        Ok(Arc::new(Factors {
            features: self.directions().to_sparse(),
            coefficients: Coefficients::owned(n, by_feature),
            relative_error: f64::NAN,
            weighted_error: None,
            explained_variance: f64::NAN,
            sweep: 0,
            seconds: 0.0,
            coding: Coding::default(),
        }))
    }

    /// The index of the direction that the user calls `id`, by its name or else by its number.
    ///
    /// # Errors
    /// [`Error::Usage`] with the range of numbers if there is no such direction.
    fn find(&self, id: &str) -> Result<usize> {
        find_titled(
            self.name(),
            self.directions().count(),
            |j| self.title(j),
            id,
        )
    }
}

/// The index that `id` means in a set called `name` of `k` directions with these titles; see
/// [`DirectionSet::find`].
///
/// # Errors
/// [`Error::Usage`] with the range of numbers if there is no such direction.
pub fn find_titled<'a>(
    name: &str,
    k: usize,
    title: impl Fn(usize) -> Option<&'a str>,
    id: &str,
) -> Result<usize> {
    if let Some(named) = (0..k).find(|&j| title(j) == Some(id)) {
        return Ok(named);
    }
    id.parse().ok().filter(|&j| j < k).ok_or_else(|| {
        let numbers = format!(
            "{name} has no direction '{}': it has 0 to {}",
            id.escape_debug(),
            k.max(1) - 1
        );
        let titles: Vec<_> = (0..k).filter_map(&title).take(8).collect();
        let more = if titles.is_empty() {
            String::new()
        } else {
            format!(" ({}, …)", titles.join(", "))
        };
        Error::usage(numbers + &more)
    })
}

/// Refuses a set whose scores on every row and unit columns do not fit into memory.
fn check_memory<S: DirectionSet + ?Sized>(
    set: &S,
    (n, d, k): (usize, usize, usize),
    free: Option<u64>,
) -> Result<()> {
    let [n, d, k] = [n, d, k].map(|v| v as u64);
    let columns = match set.directions() {
        Directions::Dense { .. } => k.saturating_mul(8 * d),
        Directions::Sparse(z) => 8 * z.values.len() as u64,
        Directions::Neurons(_) => 16 * k,
    };
    let scores = n.saturating_mul(k).saturating_mul(4);
    let (need, free) = (scores.saturating_add(columns), free.unwrap_or(u64::MAX));
    if need <= free {
        return Ok(());
    }
    let most = free.saturating_sub(columns) / (4 * k).max(1);
    let fits = match most {
        0 => "take a set of fewer directions, or free memory".to_owned(),
        most => format!(
            "at most {most} tokens would fit: take a study of fewer, or a set of fewer directions"
        ),
    };
    Err(Error::refused(format!(
        "reading {} takes {} of memory ({k} directions on {n} tokens), and {} is free: {fits}",
        set.name(),
        disk::human_bytes(need),
        disk::human_bytes(free)
    )))
}

/// A set that consists only of columns: the score of column v on a row a is the projection max(0,
/// a·v/‖v‖).
#[derive(Debug, Clone)]
pub struct PlainSet {
    name: String,
    hook: HookPoint,
    directions: Directions,
    titles: Vec<String>,
    recipes: Vec<Vec<(usize, f32)>>,
}

impl PlainSet {
    /// Makes a set; `titles` is empty or holds one title for each direction.
    pub fn new(
        name: impl Into<String>,
        hook: HookPoint,
        directions: Directions,
        titles: Vec<String>,
    ) -> Self {
        Self {
            name: name.into(),
            hook,
            directions,
            titles,
            recipes: Vec::new(),
        }
    }

    /// The same set with the directions and weights that each of its directions combines.
    pub fn with_recipes(mut self, recipes: Vec<Vec<(usize, f32)>>) -> Self {
        self.recipes = recipes;
        self
    }
}

impl DirectionSet for PlainSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&self) -> HookPoint {
        self.hook
    }

    fn directions(&self) -> &Directions {
        &self.directions
    }

    fn title(&self, id: usize) -> Option<&str> {
        self.titles.get(id).map(String::as_str)
    }

    fn recipe(&self, id: usize) -> &[(usize, f32)] {
        self.recipes.get(id).map_or(&[], Vec::as_slice)
    }

    fn scores(&self, rows: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        ctx.check()?;
        if let Directions::Neurons(_) = self.directions {
            return Ok(rows.data.iter().map(|v| v.max(0.0)).collect());
        }
        let k = self.directions.count();
        let mut out = vec![0.0; rows.rows * k];
        row_major_product(
            &mut out,
            &rows.data,
            rows.cols,
            &self.directions.unit_by_neuron(0..k),
            k,
        );
        out.iter_mut().for_each(|v| *v = v.max(0.0));
        Ok(out)
    }
}

/// The features of an SNMF fit; new rows are encoded by non-negative least squares.
pub struct FitSet {
    name: String,
    hook: HookPoint,
    factors: Arc<Factors>,
    directions: Directions,
    encoder: Encoder,
}

impl FitSet {
    /// The set of a fit's factors; prepares the encoder.
    pub fn new(name: impl Into<String>, hook: HookPoint, factors: Arc<Factors>) -> Self {
        let (directions, encoder) = (
            Directions::Sparse(factors.features.clone()),
            Encoder::from_factors(&factors),
        );
        Self {
            name: name.into(),
            hook,
            factors,
            directions,
            encoder,
        }
    }
}

impl DirectionSet for FitSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&self) -> HookPoint {
        self.hook
    }

    fn directions(&self) -> &Directions {
        &self.directions
    }

    fn scores(&self, rows: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        self.encoder.encode(rows, ctx)
    }

    /// The fit as it was saved, provided that `source` has at least its rows.
    fn factors_on(&self, source: &dyn ActivationSource, _: &TaskCtx) -> Result<Arc<Factors>> {
        let (n, fitted) = (source.shape().0, self.factors.coefficients.rows);
        if fitted > n {
            return Err(Error::refused(format!(
                "fit '{}' has {fitted} rows, the study {n}: fit again",
                self.name
            )));
        }
        Ok(self.factors.clone())
    }
}

/// The decoder rows of a sparse autoencoder; the scores are the latents.
pub struct SaeSet {
    name: String,
    hook: HookPoint,
    directions: Directions,
    sae: Sae,
}

impl SaeSet {
    /// The set of the autoencoder `name`; the set is named `sae:NAME`.
    pub fn new(name: &str, hook: HookPoint, sae: Sae) -> Self {
        Self {
            name: format!("sae:{name}"),
            hook,
            directions: sae.directions(),
            sae,
        }
    }
}

impl DirectionSet for SaeSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&self) -> HookPoint {
        self.hook
    }

    fn directions(&self) -> &Directions {
        &self.directions
    }

    fn scores(&self, rows: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        ctx.check()?;
        let (codes, k) = (self.sae.encode(rows)?.codes, self.sae.latents());
        let mut out = vec![0.0; rows.rows * k];
        for (i, line) in out.chunks_exact_mut(k.max(1)).enumerate() {
            let (indices, values) = codes.column(i);
            indices
                .iter()
                .zip(values)
                .for_each(|(&j, &v)| line[j as usize] = v);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
