//! The tap that adds α·weight·v at its hooks.
//!
//! Knows rows by the caller's numbers ([`Pass::samples`]), never by their place in a batch, so rows may end and drop
//! out. Invariant: a row of strength 0 and padding stay bit for bit as they were.

use candle_core::Tensor;

use super::SteerTerm;
use crate::error::{Error, Result};
use crate::model::{HookPoint, Pass, Phase, Tap};

/// Which tokens of a row are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Every real token.
    All,
    /// Tokens of generated passes.
    Generated,
    /// The last real token of each prompt, and generated ones: what calibrating for [`Touch::Generated`] needs.
    LastOfPrompt,
}

/// Adds `strengths[row] · Σ weight·v` at each term's hook.
pub struct SteerTap {
    hooks: Vec<HookPoint>,
    /// Σ weight·v of each hook.
    directions: Vec<Vec<f32>>,
    strengths: Vec<f64>,
    touch: Touch,
    /// What is added at each hook to the rows of the last pass: `[batch, 1, width]`, in the pass's dtype.
    deltas: Vec<Option<(Vec<usize>, Tensor)>>,
}

impl SteerTap {
    /// `strengths[i]` is the α of the row whose number is i. Terms of one hook are summed; their widths must agree.
    pub fn new(terms: &[SteerTerm], strengths: Vec<f64>, touch: Touch) -> Result<Self> {
        if let Some(bad) = strengths.iter().find(|a| !a.is_finite()) {
            return Err(Error::usage(format!("the steering strength must be a finite number, not {bad}")));
        }
        let mut tap = Self { hooks: Vec::new(), directions: Vec::new(), strengths, touch, deltas: Vec::new() };
        for term in terms {
            tap.add(term)?;
        }
        Ok(tap)
    }

    fn add(&mut self, term: &SteerTerm) -> Result<()> {
        let at = self.hooks.iter().position(|h| *h == term.hook).unwrap_or_else(|| {
            self.hooks.push(term.hook);
            self.directions.push(vec![0.0; term.direction.len()]);
            self.deltas.push(None);
            self.hooks.len() - 1
        });
        let sum = &mut self.directions[at];
        if sum.len() != term.direction.len() {
            return Err(Error::usage(format!(
                "two directions at {} have {} and {} values: they must be of one width",
                term.hook,
                sum.len(),
                term.direction.len()
            )));
        }
        for (total, &v) in sum.iter_mut().zip(&term.direction) {
            *total += term.weight * v;
        }
        Ok(())
    }

    /// What is added to each row of a pass: kept as long as the rows stay the same, which they do while generating.
    fn delta(&mut self, at: usize, pass: &Pass<'_>, x: &Tensor) -> Result<Tensor> {
        if let Some((samples, delta)) = &self.deltas[at]
            && samples == pass.samples
            && delta.dtype() == x.dtype()
        {
            return Ok(delta.clone());
        }
        let direction = &self.directions[at];
        let mut values = Vec::with_capacity(pass.samples.len() * direction.len());
        for &row in pass.samples {
            let alpha = *self.strengths.get(row).ok_or_else(|| {
                Error::refused(format!("row {row} has no steering strength: {} were given", self.strengths.len()))
            })?;
            values.extend(direction.iter().map(|&v| (alpha * f64::from(v)) as f32));
        }
        let shape = (pass.samples.len(), 1, direction.len());
        let delta = Tensor::from_vec(values, shape, x.device())?.to_dtype(x.dtype())?;
        self.deltas[at] = Some((pass.samples.to_vec(), delta.clone()));
        Ok(delta)
    }
}

impl Tap for SteerTap {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn at(&mut self, pass: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(at) = self.hooks.iter().position(|h| *h == hook) else { return Ok(None) };
        let idle = self.touch == Touch::Generated && pass.phase == Phase::Prompt;
        let steered = |row: &usize| self.strengths.get(*row).is_none_or(|&a| a != 0.0);
        if idle || !pass.samples.iter().any(steered) {
            return Ok(None);
        }
        let (rows, tokens, width) = x.dims3()?;
        if width != self.directions[at].len() {
            let given = self.directions[at].len();
            return Err(Error::usage(format!("the direction has {given} values, but {hook} is {width} wide")));
        }
        let delta = self.delta(at, pass, x)?;
        let last_only = self.touch == Touch::LastOfPrompt && pass.phase == Phase::Prompt;
        if !last_only && pass.lengths.iter().all(|&length| length == tokens) {
            return Ok(Some(x.broadcast_add(&delta)?));
        }
        let touched = |length: usize, t: usize| if last_only { t + 1 == length } else { t < length };
        let mask: Vec<f32> =
            pass.lengths.iter().flat_map(|&l| (0..tokens).map(move |t| f32::from(u8::from(touched(l, t))))).collect();
        let mask = Tensor::from_vec(mask, (rows, tokens, 1), x.device())?.to_dtype(x.dtype())?;
        Ok(Some((x + mask.broadcast_mul(&delta)?)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::model::HookSite;

    const HOOK: HookPoint = HookPoint { layer: 1, site: HookSite::MlpPost };

    fn term(direction: &[f32], weight: f32) -> SteerTerm {
        SteerTerm { hook: HOOK, direction: direction.to_vec(), weight }
    }

    /// Runs a tap on ones of 2 rows × 3 tokens × 2 and gives what it made of them.
    fn apply(
        tap: &mut SteerTap,
        lengths: &[usize],
        samples: &[usize],
        phase: Phase,
    ) -> Result<Option<Vec<Vec<Vec<f32>>>>> {
        let x = Tensor::ones((2, 3, 2), DType::F32, &Device::Cpu).unwrap();
        let pass = Pass { starts: &[0, 0], lengths, samples, phase };
        Ok(tap.at(&pass, HOOK, &x)?.map(|t| t.to_vec3().unwrap()))
    }

    #[test]
    fn only_rows_with_a_strength_are_touched() {
        let terms = [term(&[1.0, 0.0], 1.0), term(&[0.0, 1.0], -0.5)];
        let mut tap = SteerTap::new(&terms, vec![0.0, 2.0], Touch::All).unwrap();
        assert_eq!(tap.hooks(), [HOOK]);
        let out = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt).unwrap().unwrap();
        assert_eq!(out, [vec![vec![1.0, 1.0]; 3], vec![vec![3.0, 0.0]; 3]]);
        // Rows are known by their numbers: after one has ended, row 1 may come first.
        let out = apply(&mut tap, &[3, 3], &[1, 0], Phase::Generated).unwrap().unwrap();
        assert_eq!(out, [vec![vec![3.0, 0.0]; 3], vec![vec![1.0, 1.0]; 3]]);
        assert_eq!(apply(&mut tap, &[3, 3], &[0, 0], Phase::Prompt).unwrap(), None, "nothing to add");
    }

    #[test]
    fn padding_stays_as_it_was() {
        let mut tap = SteerTap::new(&[term(&[1.0, 1.0], 1.0)], vec![1.0, 1.0], Touch::All).unwrap();
        let out = apply(&mut tap, &[3, 1], &[0, 1], Phase::Prompt).unwrap().unwrap();
        assert_eq!(out[0], [[2.0, 2.0]; 3]);
        assert_eq!(out[1], [[2.0, 2.0], [1.0, 1.0], [1.0, 1.0]]);
    }

    #[test]
    fn prompts_are_left_alone_when_generated_tokens_are_steered() {
        let terms = [term(&[1.0, 1.0], 1.0)];
        let mut tap = SteerTap::new(&terms, vec![1.0, 1.0], Touch::Generated).unwrap();
        assert_eq!(apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt).unwrap(), None);
        assert!(apply(&mut tap, &[3, 3], &[0, 1], Phase::Generated).unwrap().is_some());
        let mut tap = SteerTap::new(&terms, vec![1.0, 1.0], Touch::LastOfPrompt).unwrap();
        let out = apply(&mut tap, &[3, 2], &[0, 1], Phase::Prompt).unwrap().unwrap();
        assert_eq!(out[0], [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]);
        assert_eq!(out[1], [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]);
    }

    #[test]
    fn what_cannot_be_added_is_refused() {
        assert!(SteerTap::new(&[], vec![f64::NAN], Touch::All).is_err());
        assert!(SteerTap::new(&[term(&[1.0], 1.0), term(&[1.0, 2.0], 1.0)], vec![1.0], Touch::All).is_err());
        let mut narrow = SteerTap::new(&[term(&[1.0], 1.0)], vec![1.0, 1.0], Touch::All).unwrap();
        let error = apply(&mut narrow, &[3, 3], &[0, 1], Phase::Prompt).unwrap_err();
        assert_eq!(error.to_string(), "the direction has 1 values, but blocks.1.mlp.hook_post is 2 wide");
        let mut few = SteerTap::new(&[term(&[1.0, 1.0], 1.0)], vec![1.0], Touch::All).unwrap();
        assert!(apply(&mut few, &[3, 3], &[0, 1], Phase::Prompt).is_err());
    }
}
