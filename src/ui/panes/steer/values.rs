//! What the Steer form asks for: features, strength, sampling. Owns the values and their limits;
//! knows no key and no drawing.
//!
//! Invariant: [`Values::settings`] gives a request that the engine's limits allow, or the reason why there
//! is none.

mod kind;

use serde::{Deserialize, Serialize};

use crate::engine::{Mode, SteerPart, SteerSettings};
use crate::model::generate::Sampling;
use crate::steering::{Positions, Strength};
use crate::ui::form::{Field, Fields, cycle, next_choice, number, whole_number};
use crate::ui::world::World;
pub(super) use kind::{Kind, Part};

/// The KL targets of the evaluation protocol, in nats.
const TARGETS: [f64; 7] = [0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5];
const ALPHAS: [f64; 12] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];
/// Shares of what is ablated.
const SHARES: [f64; 6] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0];
const TEMPERATURES: [f64; 8] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5];
const TOKENS: [usize; 8] = [10, 20, 30, 50, 80, 120, 200, 400];

/// Baseline and steered texts each, at most.
const MAX_SAMPLES: usize = 8;

/// Why an ablation has no sign and no KL to reach.
const ABLATION: &str =
    "an ablation takes a share out of what is along the features: 1 is all of it";

/// The step of a weight.
const WEIGHT_STEP: f32 = 0.25;

/// What the prompt is at first: the calibration prompt of the method.
pub(super) const FIRST_PROMPT: &str = "I think that";

/// The values of the form, each within its limits; a session stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Values {
    pub features: Vec<(usize, f32)>,
    /// The cluster that the features were taken from; empty when they were not.
    pub cluster: Vec<usize>,
    pub part: Part,
    pub mode: Mode,
    pub by_alpha: bool,
    pub kl: f64,
    pub alpha: f64,
    /// The share that an ablation takes out.
    pub taken: f64,
    pub negative: bool,
    pub positions: Positions,
    pub samples: usize,
    pub sampling: Sampling,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            features: Vec::new(),
            cluster: Vec::new(),
            part: Part::Whole,
            mode: Mode::Add,
            by_alpha: false,
            kl: 0.25,
            alpha: 20.0,
            taken: 1.0,
            negative: false,
            positions: Positions::All,
            samples: 2,
            sampling: Sampling::default(),
        }
    }
}

impl Values {
    /// Which values the fields are of, in the order of the cursor.
    pub fn kinds(&self) -> Vec<Kind> {
        let terms = (0..self.features.len().max(1)).map(Kind::Term);
        std::iter::once(Kind::Prompt)
            .chain(terms)
            .chain([
                Kind::By,
                Kind::Amount,
                Kind::Sign,
                Kind::Part,
                Kind::Mode,
                Kind::Positions,
                Kind::Samples,
                Kind::Tokens,
                Kind::Temperature,
                Kind::Seed,
            ])
            .collect()
    }

    /// Adds a feature, or gives the one that is there another weight.
    pub fn add(&mut self, id: usize, weight: f32) {
        match self.features.iter_mut().find(|(f, _)| *f == id) {
            Some((_, w)) => *w = weight,
            None => self.features.push((id, weight)),
        }
    }

    /// The cluster of the features: where they were taken from, else themselves.
    fn whole_cluster(&self) -> Vec<usize> {
        let ids = || self.features.iter().map(|(id, _)| *id);
        if ids().all(|id| self.cluster.contains(&id)) && !self.cluster.is_empty() {
            return self.cluster.clone();
        }
        ids().collect()
    }

    fn others(&self) -> Vec<usize> {
        let mut cluster = self.whole_cluster();
        cluster.retain(|id| !self.features.iter().any(|(f, _)| f == id));
        cluster
    }

    /// Why a part cannot be taken.
    pub fn refused_part(&self, part: Part) -> Option<&'static str> {
        match part {
            Part::Whole => None,
            Part::Core if self.whole_cluster().len() < 2 => {
                Some("a core needs a cluster: take the feature from the Tree")
            }
            Part::Own if self.others().is_empty() => {
                Some("own neurons are told from a cluster's: take the feature from the Tree")
            }
            _ => None,
        }
    }

    /// Changes a value by a step; says why when it cannot.
    pub fn step_value(&mut self, kind: Kind, forward: bool) -> Result<(), String> {
        match kind {
            Kind::Prompt => {}
            Kind::Term(i) => {
                if let Some((_, weight)) = self.features.get_mut(i) {
                    let by = if forward { WEIGHT_STEP } else { -WEIGHT_STEP };
                    let to = *weight + by;
                    // Nothing is steered with a weight of 0.
                    *weight = if to == 0.0 { by } else { to }.clamp(-8.0, 8.0);
                }
            }
            Kind::By | Kind::Sign if self.mode == Mode::Ablate => return Err(ABLATION.to_owned()),
            Kind::By => self.by_alpha = !self.by_alpha,
            Kind::Amount if self.mode == Mode::Ablate => {
                self.taken = next_choice(&SHARES, self.taken, forward)
            }
            Kind::Amount if self.by_alpha => self.alpha = next_choice(&ALPHAS, self.alpha, forward),
            Kind::Amount => self.kl = next_choice(&TARGETS, self.kl, forward),
            Kind::Sign => self.negative = !self.negative,
            Kind::Part => {
                let all = [Part::Whole, Part::Core, Part::Own];
                let at = all.iter().position(|p| *p == self.part).unwrap_or(0);
                let after = |by: usize| all[(at + by) % all.len()];
                let order = if forward {
                    [after(1), after(2)]
                } else {
                    [after(2), after(1)]
                };
                match order.into_iter().find(|p| self.refused_part(*p).is_none()) {
                    Some(part) => self.part = part,
                    None => {
                        return Err(self.refused_part(Part::Core).unwrap_or_default().to_owned());
                    }
                }
            }
            Kind::Mode => {
                self.mode = cycle(&[Mode::Add, Mode::Set, Mode::Ablate], &self.mode, forward);
            }
            Kind::Positions => {
                self.positions = if self.positions == Positions::All {
                    Positions::Generated
                } else {
                    Positions::All
                };
            }
            Kind::Samples => {
                let n = if forward {
                    self.samples + 1
                } else {
                    self.samples.saturating_sub(1)
                };
                self.samples = n.clamp(1, MAX_SAMPLES);
            }
            Kind::Tokens => {
                self.sampling.max_tokens = next_choice(&TOKENS, self.sampling.max_tokens, forward)
            }
            Kind::Temperature => {
                self.sampling.temperature =
                    next_choice(&TEMPERATURES, self.sampling.temperature, forward)
            }
            Kind::Seed => {
                let seed = self.sampling.seed;
                self.sampling.seed = if forward {
                    seed.wrapping_add(1)
                } else {
                    seed.saturating_sub(1)
                };
            }
        }
        Ok(())
    }

    /// Whether a value is typed rather than chosen.
    pub fn is_typed(kind: Kind) -> bool {
        !matches!(
            kind,
            Kind::By | Kind::Sign | Kind::Part | Kind::Mode | Kind::Positions
        )
    }

    /// A value as one would type it.
    pub fn typed(&self, kind: Kind) -> String {
        match kind {
            Kind::Term(i) => self
                .features
                .get(i)
                .map(|(_, w)| w.to_string())
                .unwrap_or_default(),
            Kind::Amount if self.mode == Mode::Ablate => self.taken.to_string(),
            Kind::Amount if self.by_alpha => self.alpha.to_string(),
            Kind::Amount => self.kl.to_string(),
            Kind::Samples => self.samples.to_string(),
            Kind::Tokens => self.sampling.max_tokens.to_string(),
            Kind::Temperature => self.sampling.temperature.to_string(),
            Kind::Seed => self.sampling.seed.to_string(),
            _ => String::new(),
        }
    }

    /// Takes what was typed, or says what is wrong with it.
    pub fn set_value(&mut self, kind: Kind, typed: &str) -> Result<(), String> {
        match kind {
            Kind::Term(i) => match self.features.get_mut(i) {
                Some(term) => match number(typed, "a weight", -100.0, 100.0)? {
                    0.0 => {
                        return Err(
                            "a weight of 0 steers with nothing: remove the feature instead"
                                .to_owned(),
                        );
                    }
                    weight => term.1 = weight as f32,
                },
                None => {
                    let id = typed.trim().trim_start_matches('#');
                    let id = id
                        .parse()
                        .map_err(|_| format!("a feature is a number such as 17, not '{id}'"))?;
                    self.add(id, 1.0);
                }
            },
            Kind::Amount if self.mode == Mode::Ablate => {
                self.taken = number(typed, "a share", 0.0, 10.0)?
            }
            Kind::Amount if self.by_alpha => self.alpha = number(typed, "α", 0.0, 1e6)?,
            Kind::Amount => match number(typed, "a KL", 0.0, 20.0)? {
                0.0 => return Err("a KL of 0 is the baseline".to_owned()),
                kl => self.kl = kl,
            },
            Kind::Samples => self.samples = whole_number(typed, "samples", 1..=MAX_SAMPLES)?,
            Kind::Tokens => self.sampling.max_tokens = whole_number(typed, "tokens", 1..=4096)?,
            Kind::Temperature => {
                self.sampling.temperature = number(typed, "temperature", 0.0, 10.0)?
            }
            Kind::Seed => self.sampling.seed = whole_number(typed, "seed", 0..=usize::MAX)? as u64,
            _ => {}
        }
        Ok(())
    }

    /// The request, with the text to continue.
    pub fn settings(&self, prompt: &str) -> SteerSettings {
        let part = match self.part {
            Part::Core if self.refused_part(Part::Core).is_none() => {
                SteerPart::CoreOf(self.whole_cluster())
            }
            Part::Own if self.refused_part(Part::Own).is_none() => {
                SteerPart::ExclusiveOf(self.others())
            }
            _ => SteerPart::Whole,
        };
        SteerSettings {
            features: self.features.clone(),
            part,
            mode: self.mode,
            prompt: prompt.to_owned(),
            strength: match self.mode {
                Mode::Ablate => Strength::Alpha(self.taken),
                _ if self.by_alpha => Strength::Alpha(self.alpha),
                _ => Strength::Kl(self.kl),
            },
            negative: self.negative && self.mode != Mode::Ablate,
            positions: self.positions,
            samples: self.samples,
            sampling: self.sampling,
        }
    }

    /// Why the first feature cannot be steered with in three ways.
    pub fn refused_three(&self) -> Option<String> {
        match self.features.as_slice() {
            [_] => {}
            [] => return Some("no feature to steer with".to_owned()),
            _ => {
                return Some(
                    "three ways are one feature's: take the others out of the list".to_owned(),
                );
            }
        }
        self.refused_part(Part::Core)
            .or_else(|| self.refused_part(Part::Own))
            .map(str::to_owned)
    }

    /// The same request with the whole feature, with the core of its cluster, with its own neurons;
    /// one sample each.
    pub fn three(&self, prompt: &str) -> Vec<SteerSettings> {
        let ways = [
            SteerPart::Whole,
            SteerPart::CoreOf(self.whole_cluster()),
            SteerPart::ExclusiveOf(self.others()),
        ];
        ways.into_iter()
            .map(|part| SteerSettings {
                part,
                samples: 1,
                ..self.settings(prompt)
            })
            .collect()
    }

    /// Takes a part with the cluster that it tells of.
    pub fn set_part(&mut self, part: &SteerPart) {
        self.part = match part {
            SteerPart::Whole => Part::Whole,
            SteerPart::CoreOf(cluster) => {
                self.cluster.clone_from(cluster);
                Part::Core
            }
            SteerPart::ExclusiveOf(others) => {
                self.cluster = self
                    .features
                    .iter()
                    .map(|(id, _)| *id)
                    .chain(others.iter().copied())
                    .collect();
                Part::Own
            }
        };
    }

    /// How a value reads; `short` where there are nine cells.
    pub fn shown(&self, kind: Kind, short: bool) -> String {
        match kind {
            Kind::By if self.mode == Mode::Ablate => "share".to_owned(),
            Kind::Sign if self.mode == Mode::Ablate => "–".to_owned(),
            Kind::Mode => match self.mode {
                Mode::Add => "add",
                Mode::Set => "set",
                Mode::Ablate => "ablate",
            }
            .to_owned(),
            Kind::By => if self.by_alpha { "α" } else { "KL" }.to_owned(),
            Kind::Sign => if self.negative { "suppress" } else { "promote" }.to_owned(),
            Kind::Part => match self.part {
                Part::Whole => "whole".to_owned(),
                Part::Core if short => "core".to_owned(),
                Part::Own if short => "own".to_owned(),
                Part::Core => format!("core of {}", self.whole_cluster().len()),
                Part::Own => format!("own, of {}", self.whole_cluster().len()),
            },
            Kind::Positions => match self.positions {
                Positions::All => "all".to_owned(),
                Positions::Generated if short => "new".to_owned(),
                Positions::Generated => "generated".to_owned(),
                Positions::Span { from, to } => format!("{from}..{to}"),
            },
            Kind::Term(i) => self
                .features
                .get(i)
                .map(|(_, w)| format!("{w:+}"))
                .unwrap_or_default(),
            _ => self.typed(kind),
        }
    }
}

impl Fields for Values {
    fn fields(&self, _: &World) -> Vec<Field> {
        let field = |kind: Kind| Field {
            // The prompt is typed in a box of its own.
            typed: (Self::is_typed(kind) && kind != Kind::Prompt).then(|| self.typed(kind)),
            ..Field::choice(kind.name(), kind.help(), &self.shown(kind, false))
        };
        self.kinds().into_iter().map(field).collect()
    }

    fn step(&mut self, at: usize, forward: bool, _: &World) -> Result<(), String> {
        match self.kinds().get(at) {
            Some(&kind) => self.step_value(kind, forward),
            None => Ok(()),
        }
    }

    fn set(&mut self, at: usize, typed: &str, _: &World) -> Result<(), String> {
        match self.kinds().get(at) {
            Some(&kind) => self.set_value(kind, typed),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_needs_a_cluster() {
        let mut values = Values {
            features: vec![(3, 1.0)],
            ..Values::default()
        };
        assert!(values.step_value(Kind::Part, true).is_err());
        values.cluster = vec![3, 5, 9];
        values.step_value(Kind::Part, true).unwrap();
        assert_eq!(values.settings("x").part, SteerPart::CoreOf(vec![3, 5, 9]));
        values.step_value(Kind::Part, true).unwrap();
        assert_eq!(
            values.settings("x").part,
            SteerPart::ExclusiveOf(vec![5, 9])
        );
        // Another feature than the cluster's: the part that was meant is no more.
        values.features = vec![(8, 1.0)];
        assert_eq!(values.settings("x").part, SteerPart::Whole);
    }

    #[test]
    fn an_ablation_takes_a_share_out_and_has_no_sign() {
        let mut values = Values {
            features: vec![(3, 1.0)],
            negative: true,
            ..Values::default()
        };
        values.step_value(Kind::Mode, false).unwrap();
        assert!(
            values.step_value(Kind::Sign, true).is_err()
                && values.step_value(Kind::By, true).is_err()
        );
        let ask = values.settings("x");
        assert_eq!(
            (ask.mode, ask.strength, ask.negative),
            (Mode::Ablate, Strength::Alpha(1.0), false)
        );
        values.set_value(Kind::Amount, "0.4").unwrap();
        assert_eq!(values.settings("x").strength, Strength::Alpha(0.4));
        values.step_value(Kind::Mode, true).unwrap();
        assert_eq!(
            (values.settings("x").mode, values.settings("x").strength),
            (Mode::Add, Strength::Kl(0.25))
        );
    }

    #[test]
    fn weights_skip_nothing_at_all_and_typed_values_have_limits() {
        let mut values = Values {
            features: vec![(3, 0.25)],
            ..Values::default()
        };
        values.step_value(Kind::Term(0), false).unwrap();
        assert_eq!(values.features, [(3, -0.25)]);
        assert!(values.set_value(Kind::Term(0), "0").is_err());
        assert!(values.set_value(Kind::Amount, "nan").is_err());
        assert!(values.set_value(Kind::Samples, "9").is_err());
        values.set_value(Kind::Amount, "0.07").unwrap();
        assert_eq!(values.settings("").strength, Strength::Kl(0.07));
        values.step_value(Kind::Amount, true).unwrap();
        assert_eq!(values.kl, 0.1);
    }
}
