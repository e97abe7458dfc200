//! The tap that steers: it applies an intervention to each row at the row's own strength.
//!
//! Knows rows by the caller's numbers ([`Pass::samples`]), never by their place in a batch, so rows
//! may end and drop out. Invariant: a row that is not steered and padding stay as they were.

use std::sync::Arc;

use candle_core::Tensor;

use super::intervention::Intervention;
use crate::error::{Error, Result};
use crate::model::{HookPoint, Pass, Phase, Tap};

/// Which tokens of a row are steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSelection {
    /// Every token that is not padding.
    All,
    /// The tokens that are generated.
    Generated,
    /// The last real token of each prompt, and generated ones: what calibrating for
    /// [`TokenSelection::Generated`] needs.
    LastOfPrompt,
    /// Tokens at absolute positions `from..to`; BOS, where there is one, is at 0.
    Span {
        /// Position of the first token.
        from: usize,
        /// The position after the last token.
        to: usize,
    },
}

impl TokenSelection {
    /// Whether the token at absolute position `at` is steered; `last` where it is its row's last.
    fn selects(self, phase: Phase, at: usize, last: bool) -> bool {
        match self {
            Self::All => true,
            Self::Generated => phase == Phase::Generated,
            Self::LastOfPrompt => phase == Phase::Generated || last,
            Self::Span { from, to } => (from..to).contains(&at),
        }
    }

    /// 1 for each token that is steered and 0 for the others, `[rows][tokens]`; `None` when all are.
    fn mask(self, pass: &Pass<'_>, tokens: usize) -> Option<Vec<f32>> {
        let mask: Vec<f32> = pass
            .lengths
            .iter()
            .zip(pass.starts)
            .flat_map(|(&length, &start)| {
                (0..tokens)
                    .map(move |t| {
                        t < length && self.selects(pass.phase, start + t, t + 1 == length)
                    })
                    .map(|touched| f32::from(u8::from(touched)))
            })
            .collect();
        mask.contains(&0.0).then_some(mask)
    }
}

/// What is done to one row: an intervention at a strength.
#[derive(Debug, Clone)]
pub struct Steering {
    /// The intervention, without its strength.
    pub intervention: Arc<Intervention>,
    /// The signed strength α.
    pub alpha: f64,
}

/// Steers each row by its own [`Steering`].
pub struct SteerTap {
    hooks: Vec<HookPoint>,
    rows: Vec<Option<Steering>>,
    selection: TokenSelection,
    /// Whether rows that are steered may leave what the compute dtype holds.
    tolerant: bool,
    /// The plan of each hook for the rows of the last pass: while generating, the rows stay the same
    /// and so does the plan.
    plans: Vec<Option<HookPlan>>,
}

/// What is added to the rows of a pass at one hook, as tensors.
#[derive(Clone)]
struct HookPlan {
    samples: Vec<usize>,
    /// `[batch, 1, width]`: added whatever x is.
    added: Option<Tensor>,
    /// For rows whose change depends on x: `v` and `dual` `[batch, m, width]`, `gain` and `offset`
    /// `[batch, 1, m]`; what is added is ((x·vᵀ) ∘ gain + offset)·dual.
    along: Option<[Tensor; 4]>,
}

impl SteerTap {
    /// `rows[i]` is what is done to the row whose number is i; `None` leaves it alone.
    ///
    /// # Errors
    /// [`Error::Usage`] for a strength that is not finite.
    pub fn new(rows: Vec<Option<Steering>>, selection: TokenSelection) -> Result<Self> {
        let mut hooks: Vec<HookPoint> = Vec::new();
        for steering in rows.iter().flatten() {
            if !steering.alpha.is_finite() {
                return Err(Error::usage(format!(
                    "the steering strength must be a finite number, not {}",
                    steering.alpha
                )));
            }
            for hook in steering.intervention.hooks() {
                if !hooks.contains(&hook) {
                    hooks.push(hook);
                }
            }
        }
        Ok(Self {
            plans: vec![None; hooks.len()],
            hooks,
            rows,
            selection,
            tolerant: false,
        })
    }

    /// Lets rows that are steered overflow, for a search that tries how strong is too strong.
    pub fn tolerant(self) -> Self {
        Self {
            tolerant: true,
            ..self
        }
    }

    /// One intervention at several strengths: row i at `alphas[i]`, where 0 leaves it alone.
    ///
    /// # Errors
    /// [`Error::Usage`] for a strength that is not finite.
    pub fn at_strengths(
        intervention: &Arc<Intervention>,
        alphas: &[f64],
        selection: TokenSelection,
    ) -> Result<Self> {
        let row = |&alpha: &f64| {
            (alpha != 0.0).then(|| Steering {
                intervention: intervention.clone(),
                alpha,
            })
        };
        Self::new(alphas.iter().map(row).collect(), selection)
    }

    fn steering(&self, row: usize) -> Result<Option<&Steering>> {
        let all = self.rows.len();
        self.rows.get(row).map(Option::as_ref).ok_or_else(|| {
            Error::refused(format!(
                "row {row} has no steering strength: {all} were given"
            ))
        })
    }

    /// The plan for the rows of `pass` at hook number `at`, where x is `[batch, tokens, width]`.
    fn plan(&mut self, at: usize, pass: &Pass<'_>, x: &Tensor) -> Result<HookPlan> {
        if let Some(plan) = self.plans[at]
            .as_ref()
            .filter(|p| p.samples == pass.samples)
        {
            return Ok(plan.clone());
        }
        let (hook, width, batch) = (self.hooks[at], x.dim(2)?, pass.samples.len());
        let mut added = vec![0.0f32; batch * width];
        let mut along: Vec<(usize, &Steering)> = Vec::new();
        for (slot, &row) in pass.samples.iter().enumerate() {
            let Some(steering) = self.steering(row)? else {
                continue;
            };
            let Some(part) = steering.intervention.terms_at(hook) else {
                continue;
            };
            if part.width() != width {
                let given = part.width();
                return Err(Error::usage(format!(
                    "the direction has {given} values, but {hook} is {width} wide"
                )));
            }
            match part.sum() {
                Some(sum) => {
                    let line = &mut added[slot * width..(slot + 1) * width];
                    line.iter_mut()
                        .zip(sum)
                        .for_each(|(a, &v)| *a = (steering.alpha * f64::from(v)) as f32);
                }
                None => along.push((slot, steering)),
            }
        }
        let tensor = |values: Vec<f32>, shape: (usize, usize, usize)| -> Result<Tensor> {
            Ok(Tensor::from_vec(values, shape, x.device())?.to_dtype(x.dtype())?)
        };
        let along = match along
            .iter()
            .filter_map(|(_, s)| s.intervention.terms_at(hook))
            .map(|p| p.count())
            .max()
        {
            None => None,
            Some(m) => {
                let (mut v, mut dual) = (
                    vec![0.0f32; batch * m * width],
                    vec![0.0f32; batch * m * width],
                );
                let (mut gain, mut offset) = (vec![0.0f32; batch * m], vec![0.0f32; batch * m]);
                for (slot, steering) in along {
                    let Some(part) = steering.intervention.terms_at(hook) else {
                        continue;
                    };
                    let span = slot * m * width..slot * m * width + part.count() * width;
                    v[span.clone()].copy_from_slice(part.units());
                    dual[span].copy_from_slice(part.duals());
                    for j in 0..part.count() {
                        (gain[slot * m + j], offset[slot * m + j]) = part.change(j, steering.alpha);
                    }
                }
                let (wide, thin) = ((batch, m, width), (batch, 1, m));
                Some([
                    tensor(v, wide)?,
                    tensor(dual, wide)?,
                    tensor(gain, thin)?,
                    tensor(offset, thin)?,
                ])
            }
        };
        let added = if added.iter().any(|&v| v != 0.0) {
            Some(tensor(added, (batch, 1, width))?)
        } else {
            None
        };
        let plan = HookPlan {
            samples: pass.samples.to_vec(),
            added,
            along,
        };
        self.plans[at] = Some(plan.clone());
        Ok(plan)
    }
}

impl Tap for SteerTap {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(
        &mut self,
        pass: &Pass<'_>,
        hook: HookPoint,
        x: &Tensor,
    ) -> Result<Option<Tensor>> {
        let Some(at) = self.hooks.iter().position(|h| *h == hook) else {
            return Ok(None);
        };
        let (rows, tokens, width) = x.dims3()?;
        let mask = self.selection.mask(pass, tokens);
        if mask.as_ref().is_some_and(|m| m.iter().all(|&t| t == 0.0)) {
            return Ok(None);
        }
        let plan = self.plan(at, pass, x)?;
        let mut delta = plan.added;
        if let Some([v, dual, gain, offset]) = &plan.along {
            let held = x.matmul(&v.transpose(1, 2)?.contiguous()?)?;
            let change = held
                .broadcast_mul(gain)?
                .broadcast_add(offset)?
                .matmul(dual)?;
            delta = Some(match delta {
                Some(added) => change.broadcast_add(&added)?,
                None => change,
            });
        }
        let (delta, mask) = match (delta, mask) {
            (None, _) => return Ok(None),
            (Some(delta), None) => return Ok(Some(x.broadcast_add(&delta)?)),
            (Some(delta), Some(mask)) => (delta, mask),
        };
        let mask = Tensor::from_vec(mask, (rows, tokens, 1), x.device())?.to_dtype(x.dtype())?;
        let delta = mask
            .broadcast_as((rows, tokens, width))?
            .broadcast_mul(&delta)?;
        Ok(Some((x + delta)?))
    }

    fn may_overflow(&self, sample: usize) -> bool {
        self.tolerant && self.rows.get(sample).is_some_and(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::{Mode, SteerTerm};
    use super::*;
    use crate::model::HookSite;

    const HOOK: HookPoint = HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    };

    fn intervention(mode: Mode, terms: &[(&[f32], f32)]) -> Arc<Intervention> {
        let term = |&(direction, weight): &(&[f32], f32)| SteerTerm {
            hook: HOOK,
            direction: direction.to_vec(),
            weight,
        };
        Arc::new(Intervention::new(&terms.iter().map(term).collect::<Vec<_>>(), mode).unwrap())
    }

    /// Runs a tap on ones of 2 rows × 3 tokens × 2 that start at position 4 and gives what it made
    /// of them.
    fn apply(
        tap: &mut SteerTap,
        lengths: &[usize],
        samples: &[usize],
        phase: Phase,
    ) -> Result<Option<Vec<Vec<Vec<f32>>>>> {
        let x = Tensor::ones((2, 3, 2), DType::F32, &Device::Cpu).unwrap();
        let pass = Pass {
            starts: &[4, 4],
            lengths,
            samples,
            phase,
        };
        Ok(tap
            .intercept(&pass, HOOK, &x)?
            .map(|t| t.to_vec3().unwrap()))
    }

    #[test]
    fn only_rows_with_a_strength_are_touched() {
        let intervention = intervention(Mode::Add, &[(&[1.0, 0.0], 1.0), (&[0.0, 1.0], -0.5)]);
        let mut tap =
            SteerTap::at_strengths(&intervention, &[0.0, 2.0], TokenSelection::All).unwrap();
        assert_eq!(tap.hooks(), [HOOK]);
        let out = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt)
            .unwrap()
            .unwrap();
        assert_eq!(out, [vec![vec![1.0, 1.0]; 3], vec![vec![3.0, 0.0]; 3]]);
        // Rows are known by their numbers: after one has ended, row 1 may come first.
        let out = apply(&mut tap, &[3, 3], &[1, 0], Phase::Generated)
            .unwrap()
            .unwrap();
        assert_eq!(out, [vec![vec![3.0, 0.0]; 3], vec![vec![1.0, 1.0]; 3]]);
        assert_eq!(
            apply(&mut tap, &[3, 3], &[0, 0], Phase::Prompt).unwrap(),
            None,
            "nothing to add"
        );
    }

    #[test]
    fn rows_may_be_steered_along_different_directions() {
        let steering = |mode, terms: &[(&[f32], f32)], alpha| {
            Some(Steering {
                intervention: intervention(mode, terms),
                alpha,
            })
        };
        let rows = vec![
            steering(Mode::Add, &[(&[1.0, 0.0], 1.0)], 3.0),
            steering(Mode::Set, &[(&[0.0, 1.0], 1.0)], 5.0),
        ];
        let mut tap = SteerTap::new(rows, TokenSelection::All).unwrap();
        let out = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt)
            .unwrap()
            .unwrap();
        assert_eq!(out, [vec![vec![4.0, 1.0]; 3], vec![vec![1.0, 5.0]; 3]]);
    }

    #[test]
    fn ablating_takes_a_direction_out_and_setting_fixes_it() {
        let diagonal: (&[f32], f32) = (&[1.0, 1.0], 1.0);
        let mut out = intervention(Mode::Ablate, &[diagonal]);
        let run = |intervention: &Arc<Intervention>, alpha: f64| {
            let mut tap =
                SteerTap::at_strengths(intervention, &[alpha, 0.0], TokenSelection::All).unwrap();
            apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt)
                .unwrap()
                .unwrap()
        };
        let near = |x: &[f32], y: [f32; 2]| {
            assert!(
                (x[0] - y[0]).abs() < 1e-6 && (x[1] - y[1]).abs() < 1e-6,
                "{x:?}"
            )
        };
        near(&run(&out, 1.0)[0][2], [0.0, 0.0]);
        near(&run(&out, 0.5)[0][0], [0.5, 0.5]);
        assert_eq!(
            run(&out, 1.0)[1],
            vec![vec![1.0, 1.0]; 3],
            "the other row is left alone"
        );
        // Two directions that are not at right angles: what is left has nothing along either.
        out = intervention(Mode::Ablate, &[diagonal, (&[1.0, 0.0], 1.0)]);
        near(&run(&out, 1.0)[0][0], [0.0, 0.0]);
        // x·v of the unit diagonal becomes 2: x = (√2, √2). Only the sizes of v do not matter.
        near(
            &run(&intervention(Mode::Set, &[(&[7.0, 7.0], 1.0)]), 2.0)[0][0],
            [2f32.sqrt(); 2],
        );
        let both = intervention(Mode::Set, &[(&[1.0, 1.0], 0.0), (&[1.0, 0.0], 1.0)]);
        near(&run(&both, 3.0)[0][0], [3.0, -3.0]);
    }

    #[test]
    fn padding_stays_as_it_was() {
        for mode in [Mode::Add, Mode::Set] {
            let mut tap = SteerTap::at_strengths(
                &intervention(mode, &[(&[1.0, 0.0], 1.0)]),
                &[3.0, 3.0],
                TokenSelection::All,
            )
            .unwrap();
            let out = apply(&mut tap, &[3, 1], &[0, 1], Phase::Prompt)
                .unwrap()
                .unwrap();
            let steered = if mode == Mode::Add {
                [4.0, 1.0]
            } else {
                [3.0, 1.0]
            };
            assert_eq!(out[0], [steered; 3]);
            assert_eq!(out[1], [steered, [1.0, 1.0], [1.0, 1.0]]);
        }
    }

    #[test]
    fn tokens_are_chosen_by_phase_and_by_position() {
        let intervention = intervention(Mode::Add, &[(&[1.0, 1.0], 1.0)]);
        let tap =
            |selection| SteerTap::at_strengths(&intervention, &[1.0, 1.0], selection).unwrap();
        let mut generated = tap(TokenSelection::Generated);
        assert_eq!(
            apply(&mut generated, &[3, 3], &[0, 1], Phase::Prompt).unwrap(),
            None
        );
        assert!(
            apply(&mut generated, &[3, 3], &[0, 1], Phase::Generated)
                .unwrap()
                .is_some()
        );
        let out = apply(
            &mut tap(TokenSelection::LastOfPrompt),
            &[3, 2],
            &[0, 1],
            Phase::Prompt,
        )
        .unwrap()
        .unwrap();
        assert_eq!(out[0], [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]);
        assert_eq!(out[1], [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]);
        let span = |from, to| {
            apply(
                &mut tap(TokenSelection::Span { from, to }),
                &[3, 2],
                &[0, 1],
                Phase::Prompt,
            )
            .unwrap()
        };
        assert_eq!(span(5, 7).unwrap()[0], [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]);
        assert_eq!(
            span(5, 7).unwrap()[1],
            [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]],
            "padding is no token"
        );
        assert_eq!(span(0, 4), None, "these tokens are past the span");
    }

    #[test]
    fn what_cannot_be_steered_is_refused() {
        let narrow = intervention(Mode::Add, &[(&[1.0], 1.0)]);
        assert!(SteerTap::at_strengths(&narrow, &[f64::NAN], TokenSelection::All).is_err());
        let mut tap = SteerTap::at_strengths(&narrow, &[1.0, 1.0], TokenSelection::All).unwrap();
        let error = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the direction has 1 values, but blocks.1.mlp.hook_post is 2 wide"
        );
        let mut few = SteerTap::at_strengths(
            &intervention(Mode::Add, &[(&[1.0, 1.0], 1.0)]),
            &[1.0],
            TokenSelection::All,
        )
        .unwrap();
        assert!(apply(&mut few, &[3, 3], &[0, 1], Phase::Prompt).is_err());
    }
}
