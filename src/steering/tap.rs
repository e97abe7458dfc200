//! The tap that steers: adds to, sets or takes out what rows hold along directions.
//!
//! Knows rows by the caller's numbers ([`Pass::samples`]), never by their place in a batch, so rows
//! may end and drop out. Invariant: a row that is not steered and padding stay as they were.

use std::sync::Arc;

use candle_core::Tensor;

use super::push::Push;
use crate::error::{Error, Result};
use crate::model::{HookPoint, Pass, Phase, Tap};

/// Which tokens of a row are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Every real token.
    All,
    /// Tokens of generated passes.
    Generated,
    /// The last real token of each prompt, and generated ones: what calibrating for
    /// [`Touch::Generated`] needs.
    LastOfPrompt,
    /// Tokens at absolute positions `from..to`; BOS, where there is one, is at 0.
    Span {
        /// The first.
        from: usize,
        /// The first no more.
        to: usize,
    },
}

impl Touch {
    /// Whether it touches a token at absolute position `at`, which is the last of its row or not.
    fn touches(self, phase: Phase, at: usize, last: bool) -> bool {
        match self {
            Self::All => true,
            Self::Generated => phase == Phase::Generated,
            Self::LastOfPrompt => phase == Phase::Generated || last,
            Self::Span { from, to } => (from..to).contains(&at),
        }
    }

    /// For each token of each row of a pass 1 or 0; `None` when every one is touched.
    fn mask(self, pass: &Pass<'_>, tokens: usize) -> Option<Vec<f32>> {
        let mask: Vec<f32> = pass
            .lengths
            .iter()
            .zip(pass.starts)
            .flat_map(|(&length, &start)| {
                (0..tokens)
                    .map(move |t| {
                        t < length && self.touches(pass.phase, start + t, t + 1 == length)
                    })
                    .map(|touched| f32::from(u8::from(touched)))
            })
            .collect();
        mask.contains(&0.0).then_some(mask)
    }
}

/// What is done to one row: a push at a strength.
#[derive(Debug, Clone)]
pub struct Steering {
    /// Along which directions, and how.
    pub push: Arc<Push>,
    /// α.
    pub alpha: f64,
}

/// Steers each row as it is told.
pub struct SteerTap {
    hooks: Vec<HookPoint>,
    rows: Vec<Option<Steering>>,
    touch: Touch,
    /// What the rows of the last pass get at each hook, kept as long as the rows stay the same:
    /// while generating.
    plans: Vec<Option<Plan>>,
}

/// What the rows of a pass get at one hook.
#[derive(Clone)]
struct Plan {
    samples: Vec<usize>,
    /// `[batch, 1, width]`: added whatever x is.
    added: Option<Tensor>,
    /// For rows whose push depends on x: `v` and `dual` `[batch, m, width]`, `gain` and `offset`
    /// `[batch, 1, m]`; what is added is ((x·vᵀ) ∘ gain + offset)·dual.
    along: Option<[Tensor; 4]>,
}

impl SteerTap {
    /// `rows[i]` is what is done to the row whose number is i; `None` leaves it alone.
    ///
    /// # Errors
    /// [`Error::Usage`] for a strength that is not finite.
    pub fn new(rows: Vec<Option<Steering>>, touch: Touch) -> Result<Self> {
        let mut hooks: Vec<HookPoint> = Vec::new();
        for steering in rows.iter().flatten() {
            if !steering.alpha.is_finite() {
                return Err(Error::usage(format!(
                    "the steering strength must be a finite number, not {}",
                    steering.alpha
                )));
            }
            for hook in steering.push.hooks() {
                if !hooks.contains(&hook) {
                    hooks.push(hook);
                }
            }
        }
        Ok(Self {
            plans: vec![None; hooks.len()],
            hooks,
            rows,
            touch,
        })
    }

    /// One push at several strengths: row i at `alphas[i]`, where 0 leaves it alone.
    pub fn at_strengths(push: &Arc<Push>, alphas: &[f64], touch: Touch) -> Result<Self> {
        let row = |&alpha: &f64| {
            (alpha != 0.0).then(|| Steering {
                push: push.clone(),
                alpha,
            })
        };
        Self::new(alphas.iter().map(row).collect(), touch)
    }

    fn steering(&self, row: usize) -> Result<Option<&Steering>> {
        let all = self.rows.len();
        self.rows.get(row).map(Option::as_ref).ok_or_else(|| {
            Error::refused(format!(
                "row {row} has no steering strength: {all} were given"
            ))
        })
    }

    /// What the rows of `pass` get at a hook of `width`.
    fn plan(&mut self, at: usize, pass: &Pass<'_>, x: &Tensor) -> Result<Plan> {
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
            let Some(part) = steering.push.at(hook) else {
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
            .filter_map(|(_, s)| s.push.at(hook))
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
                    let Some(part) = steering.push.at(hook) else {
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
        let plan = Plan {
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

    fn at(&mut self, pass: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let Some(at) = self.hooks.iter().position(|h| *h == hook) else {
            return Ok(None);
        };
        let (rows, tokens, width) = x.dims3()?;
        let mask = self.touch.mask(pass, tokens);
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

    fn push(mode: Mode, terms: &[(&[f32], f32)]) -> Arc<Push> {
        let term = |&(direction, weight): &(&[f32], f32)| SteerTerm {
            hook: HOOK,
            direction: direction.to_vec(),
            weight,
        };
        Arc::new(Push::new(&terms.iter().map(term).collect::<Vec<_>>(), mode).unwrap())
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
        Ok(tap.at(&pass, HOOK, &x)?.map(|t| t.to_vec3().unwrap()))
    }

    #[test]
    fn only_rows_with_a_strength_are_touched() {
        let push = push(Mode::Add, &[(&[1.0, 0.0], 1.0), (&[0.0, 1.0], -0.5)]);
        let mut tap = SteerTap::at_strengths(&push, &[0.0, 2.0], Touch::All).unwrap();
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
                push: push(mode, terms),
                alpha,
            })
        };
        let rows = vec![
            steering(Mode::Add, &[(&[1.0, 0.0], 1.0)], 3.0),
            steering(Mode::Set, &[(&[0.0, 1.0], 1.0)], 5.0),
        ];
        let mut tap = SteerTap::new(rows, Touch::All).unwrap();
        let out = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt)
            .unwrap()
            .unwrap();
        assert_eq!(out, [vec![vec![4.0, 1.0]; 3], vec![vec![1.0, 5.0]; 3]]);
    }

    #[test]
    fn ablating_takes_a_direction_out_and_setting_fixes_it() {
        let diagonal: (&[f32], f32) = (&[1.0, 1.0], 1.0);
        let mut out = push(Mode::Ablate, &[diagonal]);
        let run = |push: &Arc<Push>, alpha: f64| {
            let mut tap = SteerTap::at_strengths(push, &[alpha, 0.0], Touch::All).unwrap();
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
        out = push(Mode::Ablate, &[diagonal, (&[1.0, 0.0], 1.0)]);
        near(&run(&out, 1.0)[0][0], [0.0, 0.0]);
        // x·v of the unit diagonal becomes 2: x = (√2, √2). Only the sizes of v do not matter.
        near(
            &run(&push(Mode::Set, &[(&[7.0, 7.0], 1.0)]), 2.0)[0][0],
            [2f32.sqrt(); 2],
        );
        let both = push(Mode::Set, &[(&[1.0, 1.0], 0.0), (&[1.0, 0.0], 1.0)]);
        near(&run(&both, 3.0)[0][0], [3.0, -3.0]);
    }

    #[test]
    fn padding_stays_as_it_was() {
        for mode in [Mode::Add, Mode::Set] {
            let mut tap =
                SteerTap::at_strengths(&push(mode, &[(&[1.0, 0.0], 1.0)]), &[3.0, 3.0], Touch::All)
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
        let push = push(Mode::Add, &[(&[1.0, 1.0], 1.0)]);
        let tap = |touch| SteerTap::at_strengths(&push, &[1.0, 1.0], touch).unwrap();
        let mut generated = tap(Touch::Generated);
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
            &mut tap(Touch::LastOfPrompt),
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
                &mut tap(Touch::Span { from, to }),
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
        let narrow = push(Mode::Add, &[(&[1.0], 1.0)]);
        assert!(SteerTap::at_strengths(&narrow, &[f64::NAN], Touch::All).is_err());
        let mut tap = SteerTap::at_strengths(&narrow, &[1.0, 1.0], Touch::All).unwrap();
        let error = apply(&mut tap, &[3, 3], &[0, 1], Phase::Prompt).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the direction has 1 values, but blocks.1.mlp.hook_post is 2 wide"
        );
        let mut few =
            SteerTap::at_strengths(&push(Mode::Add, &[(&[1.0, 1.0], 1.0)]), &[1.0], Touch::All)
                .unwrap();
        assert!(apply(&mut few, &[3, 3], &[0, 1], Phase::Prompt).is_err());
    }
}
