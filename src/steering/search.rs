//! The search for the α that reach given KLs, as an ask-and-tell optimiser: it proposes values of α,
//! its caller computes their KL. It searches for several targets at once.
//!
//! Knows numbers only. Invariant: the KL reported is one that was computed at the α reported, never
//! interpolated.

use crate::error::{Error, Result};

/// The largest α that the search proposes.
pub const MAX_ALPHA: f64 = 1e5;
/// While it looks for a bracket, the search proposes this many α at a time, each [`STEP`] times the
/// one before.
const CLIMB: u32 = 4;
const STEP: f64 = 4.0;
/// In the first rounds a target proposes a single α, the one at which a smooth curve would meet it.
/// A target that is not met by then has its bracket divided.
const SMOOTH_ROUNDS: usize = 3;
/// Values of α that a target proposes in each later round.
const CANDIDATES: usize = 4;
/// The search ends after this many rounds inside the brackets.
const MAX_ROUNDS: usize = 20;
/// The width of a bracket, as a share of its upper end, at which the search gives up; the second where
/// the upper end overflows and says nothing of how near the target is.
const NARROWEST: f64 = 1e-9;
const NARROWEST_OVERFLOW: f64 = 1e-3;
/// KL counts as saturated when the last three steps of α change it by less than this share.
const SATURATION: f64 = 5e-3;

/// The α that a search found for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// α ≥ 0, before the sign.
    pub alpha: f64,
    /// The KL(base ‖ steered) that was computed at this α, in nats.
    pub kl: f64,
    /// Whether it lies within [`tolerance`] of the target.
    pub reached: bool,
    /// A sentence for the user where the target is out of reach or the curve is not monotone.
    pub note: Option<String>,
}

/// The distance from a target, in nats, within which a KL counts as reaching it: 0.01 or 2 % of the
/// target, whichever is smaller.
pub fn tolerance(target: f64) -> f64 {
    (0.02 * target).min(0.01)
}

/// A search in progress: call [`propose`](Self::propose), then [`observe`](Self::observe), until
/// nothing is proposed. All targets use every KL that was computed, and many searches can share a
/// forward pass.
#[derive(Debug, Clone)]
pub struct Search {
    targets: Vec<f64>,
    /// (α, KL), ascending in α, from (0, 0). The KL of an α that overflows is ∞: it is too strong for
    /// every target.
    points: Vec<(f64, f64)>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// α grows until the largest target lies in a bracket; holds the next α.
    Climb(f64),
    /// The search looks between the largest KL and its neighbours, where a peak may lie.
    Peak,
    /// The search narrows the brackets; holds the number of rounds done.
    Refine(usize),
}

impl Search {
    /// Starts a search for the smallest α > 0 that reaches each target.
    ///
    /// # Errors
    /// [`Error::Usage`] for a target that is no positive number.
    pub fn new(targets: &[f64]) -> Result<Self> {
        if let Some(target) = targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return Err(Error::usage(format!(
                "the KL target must be a positive number, not {target}: try 0.25"
            )));
        }
        Ok(Self {
            targets: targets.to_vec(),
            points: vec![(0.0, 0.0)],
            stage: Stage::Climb(1.0),
        })
    }

    /// The α whose KL the search needs next; empty when it has ended. It first increases α until the
    /// largest target lies in a bracket, until [`MAX_ALPHA`], or until the KL saturates; then it
    /// narrows the bracket of each target.
    pub fn propose(&mut self) -> Vec<f64> {
        let largest = self.targets.iter().copied().fold(0.0, f64::max);
        loop {
            let curve = Curve {
                target: largest,
                points: &self.points,
            };
            match self.stage {
                Stage::Climb(next)
                    if curve.bracket().is_none() && next <= MAX_ALPHA && !curve.saturated() =>
                {
                    self.stage = Stage::Climb(next * STEP.powi(CLIMB as i32));
                    let steps = (0..CLIMB as i32).map(|i| next * STEP.powi(i));
                    return steps
                        .take_while(|&a| a < STEP * MAX_ALPHA)
                        .map(|a| a.min(MAX_ALPHA))
                        .collect();
                }
                Stage::Climb(_) => self.stage = Stage::Peak,
                Stage::Peak => {
                    self.stage = Stage::Refine(0);
                    let beside = match curve.crossed() {
                        true => Vec::new(),
                        false => curve.beside_peak(),
                    };
                    if !beside.is_empty() {
                        return beside;
                    }
                }
                Stage::Refine(MAX_ROUNDS) => return Vec::new(),
                Stage::Refine(done) => {
                    self.stage = Stage::Refine(done + 1);
                    let count = if done < SMOOTH_ROUNDS { 1 } else { CANDIDATES };
                    let candidates_of = |&target: &f64| {
                        Curve {
                            target,
                            points: &self.points,
                        }
                        .candidates(count)
                    };
                    let mut out: Vec<f64> = self.targets.iter().flat_map(candidates_of).collect();
                    out.sort_by(f64::total_cmp);
                    out.dedup();
                    return out;
                }
            }
        }
    }

    /// Takes the KL at each α that was proposed. A KL that is not finite is one that is too large.
    pub fn observe(&mut self, alphas: &[f64], kls: &[f64]) {
        let computed = alphas.iter().copied().zip(kls.iter().copied());
        let largest = |kl: f64| if kl.is_finite() { kl } else { f64::INFINITY };
        self.points
            .extend(computed.map(|(alpha, kl)| (alpha, largest(kl))));
        self.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// One result a target, in their order. For a target out of reach it is the α of the largest KL
    /// that was computed, with a note.
    pub fn results(&self) -> Vec<Calibration> {
        self.targets
            .iter()
            .map(|&target| {
                Curve {
                    target,
                    points: &self.points,
                }
                .calibration()
            })
            .collect()
    }
}

/// The KL at every α that was computed, ascending in α from (0, 0), with one target.
struct Curve<'a> {
    target: f64,
    points: &'a [(f64, f64)],
}

impl Curve<'_> {
    /// The next α to compute: inside the bracket, or none when the target is reached or out of reach.
    fn candidates(&self, count: usize) -> Vec<f64> {
        // An end that overflows is no point of a curve, so the bracket is divided.
        let (narrowest, count) = match self.overflow() {
            Some(_) => (NARROWEST_OVERFLOW, CANDIDATES),
            None => (NARROWEST, count),
        };
        let Some((low, high)) = self
            .bracket()
            .filter(|(low, high)| high - low > narrowest * high)
        else {
            return Vec::new();
        };
        if self.reached() {
            return Vec::new();
        }
        let step = (high - low) / count as f64;
        // From 0 the right α may be of any size.
        let inside = |i: usize| {
            if low > 0.0 {
                low + step * i as f64
            } else {
                high * 8f64.powi(-(i as i32))
            }
        };
        let mut out: Vec<f64> = (1..count).map(inside).collect();
        out.push(
            self.smooth(low, high)
                .or_else(|| self.power_law(low, high))
                .unwrap_or(low + 0.5 * step),
        );
        out
    }

    /// Where the parabola ln α = f(ln KL) through the ends of the bracket and the nearest point
    /// beside it meets the target.
    fn smooth(&self, low: f64, high: f64) -> Option<f64> {
        let at = self.points.iter().position(|p| p.0 == low)?;
        let drawn = |p: &(f64, f64)| p.0 > 0.0 && p.1 > 0.0 && p.1.is_finite();
        let log = |p: &(f64, f64)| drawn(p).then(|| (p.1.ln(), p.0.ln()));
        let beside = [at.checked_sub(1), Some(at + 2)].into_iter().flatten();
        let beside = beside.filter_map(|i| log(self.points.get(i)?));
        let target = self.target.ln();
        let third = beside.min_by(|a, b| (a.0 - target).abs().total_cmp(&(b.0 - target).abs()))?;
        let points = [
            log(&self.points[at])?,
            log(self.points.get(at + 1)?)?,
            third,
        ];
        let weight = |i: usize| -> f64 {
            let others = (0..3).filter(|&j| j != i);
            others
                .map(|j| (target - points[j].0) / (points[i].0 - points[j].0))
                .product()
        };
        let alpha = (0..3).map(|i| weight(i) * points[i].1).sum::<f64>().exp();
        Some(alpha).filter(|&a| a > low && a < high)
    }

    /// The middles, as factors, between the point of the largest KL and its neighbours.
    fn beside_peak(&self) -> Vec<f64> {
        let finite = (0..self.points.len()).filter(|&i| self.points[i].1.is_finite());
        let Some(peak) = finite.max_by(|&a, &b| self.points[a].1.total_cmp(&self.points[b].1))
        else {
            return Vec::new();
        };
        let neighbours = [peak.checked_sub(1), Some(peak + 1)].into_iter().flatten();
        let others = neighbours.filter_map(|i| self.points.get(i));
        others
            .map(|p| (p.0 * self.points[peak].0).sqrt())
            .filter(|&a| a > 0.0)
            .collect()
    }

    /// The α at which KL = c·α^p through both ends meets the target (p = 2 near 0).
    fn power_law(&self, low: f64, high: f64) -> Option<f64> {
        let at = |alpha: f64| self.points.iter().find(|p| p.0 == alpha).map(|p| p.1);
        let (below, above) = (at(low)?, at(high).filter(|kl| kl.is_finite())?);
        let power = if low > 0.0 && below > 0.0 {
            (above / below).ln() / (high / low).ln()
        } else {
            2.0
        };
        Some(high * (self.target / above).powf(1.0 / power)).filter(|&a| a > low && a < high)
    }

    /// The first pair of neighbours between which the target is crossed upwards.
    fn bracket(&self) -> Option<(f64, f64)> {
        let above = self.points.iter().position(|p| p.1 >= self.target)?;
        Some((self.points[above.checked_sub(1)?].0, self.points[above].0))
    }

    /// Whether a KL that was computed is at least the target.
    fn crossed(&self) -> bool {
        let mut all = self.points.iter();
        all.any(|p| p.1 >= self.target && p.1.is_finite())
    }

    /// The upper end of the bracket where it is an α that overflows.
    fn overflow(&self) -> Option<f64> {
        let first = self.points.iter().find(|p| p.1 >= self.target)?;
        (!first.1.is_finite()).then_some(first.0)
    }

    /// Of the points near the first crossing the one nearest to the target.
    fn nearest(&self) -> (f64, f64) {
        let end = self
            .points
            .iter()
            .position(|p| p.1 >= self.target)
            .map_or(self.points.len(), |i| i + 1);
        let distance = |p: &(f64, f64)| (p.1 - self.target).abs();
        let near = self.points[..end]
            .iter()
            .copied()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        near.unwrap_or((0.0, 0.0))
    }

    fn reached(&self) -> bool {
        (self.nearest().1 - self.target).abs() < tolerance(self.target)
    }

    /// Whether the last three steps changed the KL, which is not zero, by next to nothing.
    fn saturated(&self) -> bool {
        let Some(last) = self.points.last_chunk::<4>() else {
            return false;
        };
        let (low, high) = last
            .iter()
            .fold((f64::INFINITY, 0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
        last[0].0 > 0.0 && high > 0.0 && high - low < SATURATION * high
    }

    /// Whether the curve falls below the target again after it has crossed it.
    fn falls_again(&self) -> bool {
        let above = self.points.iter().position(|p| p.1 >= self.target);
        above.is_some_and(|i| {
            self.points[i..]
                .iter()
                .any(|p| p.1 < self.target - tolerance(self.target))
        })
    }

    fn calibration(&self) -> Calibration {
        let target = self.target;
        let (alpha, kl) = self.nearest();
        let reached = self.reached();
        let note = if !reached && self.bracket().is_none() {
            Some(format!(
                "KL {target} cannot be reached with this sign: the largest KL seen is {kl:.4} at |α| = {alpha:.4}"
            ))
        } else if let Some(end) = self.overflow().filter(|_| !reached) {
            Some(match alpha > 0.0 {
                true => format!(
                    "KL {target} cannot be reached with this sign: the largest KL seen is {kl:.4} at |α| = {alpha:.4}, and \
                     |α| = {end:.4} overflows what the model computes in"
                ),
                false => format!(
                    "KL {target} cannot be reached with this sign: every |α| that was tried, down to {end:.3e}, overflows \
                     what the model computes in: try --dtype f32"
                ),
            })
        } else if !reached {
            Some(format!(
                "KL jumps past {target} near |α| = {alpha:.4}: the nearest that was reached is {kl:.4}"
            ))
        } else if self.falls_again() {
            Some(format!(
                "KL is not monotone in α here: {alpha:.4} is the smallest |α| found that reaches {target}"
            ))
        } else {
            None
        };
        Calibration {
            alpha,
            kl,
            reached,
            note,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(
        targets: &[f64],
        evaluate: &mut dyn FnMut(&[f64]) -> Vec<f64>,
    ) -> Result<Vec<Calibration>> {
        let mut search = Search::new(targets)?;
        loop {
            let asked = search.propose();
            if asked.is_empty() {
                return Ok(search.results());
            }
            let kls = evaluate(&asked);
            search.observe(&asked, &kls);
        }
    }

    fn on(curve: impl Fn(f64) -> f64, target: f64) -> (Calibration, usize) {
        let mut passes = 0;
        let found = search(&[target], &mut |alphas| {
            passes += 1;
            alphas.iter().map(|&a| curve(a)).collect()
        });
        (found.unwrap().remove(0), passes)
    }

    proptest! {
        #[test]
        fn every_reachable_target_on_a_rising_curve_is_reached(scale in -4f64..4.0, target in 0.02f64..0.6) {
            let scale = 10f64.powf(scale);
            let curve = |a: f64| 1.0 - (-(a / scale).powi(2)).exp();
            let (found, passes) = on(curve, target);
            prop_assert!(found.reached && found.note.is_none(), "{:?}", found);
            prop_assert!((found.kl - target).abs() < tolerance(target));
            prop_assert_eq!(found.kl, curve(found.alpha));
            prop_assert!(passes <= 12);
        }

        #[test]
        fn several_targets_share_a_search(scale in -2f64..3.0, power in 0.5f64..3.0) {
            let scale = 10f64.powf(scale);
            let curve = |a: f64| 1.0 - (-(a / scale).powf(power)).exp();
            let targets = [0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5];
            let mut passes = 0;
            let found = search(&targets, &mut |alphas| {
                passes += 1;
                alphas.iter().map(|&a| curve(a)).collect()
            }).unwrap();
            for (f, target) in found.iter().zip(targets) {
                prop_assert!(f.reached && (f.kl - target).abs() < tolerance(target), "{:?}", f);
            }
            prop_assert!(found.windows(2).all(|w| w[0].alpha < w[1].alpha));
            prop_assert!(passes <= 18, "{}", passes);
        }
    }

    #[test]
    fn a_target_out_of_reach_gives_the_largest_kl_seen() {
        let (found, passes) = on(|a| 0.2 * a / (a + 1.0), 0.5);
        assert!(!found.reached && found.kl < 0.2 && found.kl > 0.19);
        assert!(
            found.note.as_deref().unwrap().contains("cannot be reached"),
            "{found:?}"
        );
        assert!(passes <= 3, "a saturated curve is not followed to the end");
        let (none, _) = on(|_| 0.0, 0.5);
        assert_eq!((none.alpha, none.kl, none.reached), (0.0, 0.0, false));
        let (falling, _) = on(|a| 0.3 * (a / 8.0) * (1.0 - a / 8.0).exp(), 0.5);
        assert!(
            (falling.kl - 0.3).abs() < 1e-9 && falling.alpha == 8.0,
            "{falling:?}"
        );
    }

    #[test]
    fn of_a_curve_that_is_not_monotone_the_first_crossing_counts() {
        let (found, _) = on(|a| if a < 20.0 { a / 20.0 } else { 0.05 }, 0.4);
        assert!(
            found.reached && (found.alpha - 8.0).abs() < 0.2,
            "{found:?}"
        );
        assert!(found.note.as_deref().unwrap().contains("not monotone"));
    }

    #[test]
    fn a_jump_past_the_target_is_told() {
        let (found, _) = on(|a| if a < 3.0 { 0.1 } else { 2.0 }, 0.5);
        assert!(!found.reached && found.kl == 0.1, "{found:?}");
        assert!(found.note.as_deref().unwrap().contains("jumps past"));
    }

    #[test]
    fn strengths_that_overflow_are_too_strong() {
        // The target lies between the last α that is finite and the first that is not.
        for odd in [f64::NAN, f64::INFINITY] {
            let (found, passes) = on(|a| if a > 100.0 { odd } else { a / 100.0 }, 0.9);
            assert!(found.reached && found.note.is_none(), "{found:?}");
            assert!((found.alpha - 90.0).abs() < 1.0 && passes <= 10, "{passes}");
        }
        // A target beyond what overflows: the strongest that is finite is found, and both are told.
        let (found, passes) = on(|a| if a > 100.0 { f64::NAN } else { a / 1000.0 }, 0.5);
        assert!(!found.reached && passes <= 12, "{passes}");
        assert!(found.alpha <= 100.0 && found.alpha > 99.8, "{found:?}");
        let note = found.note.unwrap();
        assert!(
            note.contains("cannot be reached") && note.contains("overflows"),
            "{note}"
        );
        // The peak of a curve that falls before it overflows.
        let hill = |a: f64| 0.3 * (a / 32.0) * (1.0 - a / 32.0).exp();
        let (found, _) = on(|a| if a > 100.0 { f64::NAN } else { hill(a) }, 0.298);
        assert!(found.reached, "{found:?}");
        // Nothing but what overflows.
        let (found, _) = on(|_| f64::NAN, 0.5);
        assert_eq!((found.alpha, found.kl, found.reached), (0.0, 0.0, false));
        assert!(found.note.unwrap().contains("every |α| that was tried"));
    }

    #[test]
    fn a_search_finds_small_strengths_below_one_that_overflows_at_once() {
        let (found, passes) = on(|a| if a > 1e-4 { f64::NAN } else { a * 1e5 }, 0.25);
        assert!(found.reached && passes <= 12, "{passes} {found:?}");
    }

    #[test]
    fn a_target_that_is_no_positive_number_is_refused() {
        for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = search(&[0.1, target], &mut |a| vec![0.0; a.len()]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
    }
}
