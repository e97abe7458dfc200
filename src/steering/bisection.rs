//! The paper's search for the α that reach given KLs: bisection in [1, 2000], 20 steps, as an
//! ask-and-tell optimiser.
//!
//! Knows numbers only. It takes KL to rise with α, as the paper does; [`super::search`] does not, and
//! comes nearer in fewer passes. Invariant: the KL reported is one that was computed at the α reported.

use super::search::Calibration;
use crate::error::{Error, Result};

/// The α between which it looks.
const RANGE: (f64, f64) = (1.0, 2000.0);
/// Values of α that are tried for a target.
const STEPS: usize = 20;
/// The distance from a target, in nats, within which a KL counts as reaching it.
const TOLERANCE: f64 = 0.01;

/// Searches for several targets at once, each by itself: call [`propose`](Self::propose), then
/// [`observe`](Self::observe), until nothing is proposed.
#[derive(Debug, Clone)]
pub struct Bisection {
    targets: Vec<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    kl: f64,
    low: f64,
    high: f64,
    steps: usize,
    /// Of the α that were tried the one whose KL is nearest, with its KL.
    nearest: Option<(f64, f64)>,
    /// The largest KL that was seen.
    largest: f64,
}

impl Target {
    fn reached(&self) -> bool {
        self.nearest
            .is_some_and(|(_, kl)| (kl - self.kl).abs() < TOLERANCE)
    }

    fn open(&self) -> bool {
        self.steps < STEPS && !self.reached()
    }

    fn middle(&self) -> f64 {
        (self.low + self.high) / 2.0
    }

    fn observe(&mut self, alpha: f64, kl: f64) {
        self.steps += 1;
        // What overflows is too strong.
        if !kl.is_finite() {
            self.high = alpha;
            return;
        }
        self.largest = self.largest.max(kl);
        let off = |kl: f64| (kl - self.kl).abs();
        if self.nearest.is_none_or(|(_, near)| off(kl) < off(near)) {
            self.nearest = Some((alpha, kl));
        }
        match kl < self.kl {
            true => self.low = alpha,
            false => self.high = alpha,
        }
    }

    fn calibration(&self) -> Calibration {
        // Without steering the KL is 0.
        let (alpha, kl) = self.nearest.unwrap_or((0.0, 0.0));
        let reached = self.reached();
        let tried = format!(
            "KL {} was not reached by {STEPS} steps of bisection in [{}, {}]",
            self.kl, RANGE.0, RANGE.1
        );
        let note = (!reached).then(|| match self.nearest {
            Some(_) => format!(
                "{tried}: the nearest is {kl:.4} at |α| = {alpha:.4}, the largest {:.4}",
                self.largest
            ),
            None => format!(
                "{tried}: every |α| that was tried overflows what the model computes in: try --dtype f32"
            ),
        });
        Calibration {
            alpha,
            kl,
            reached,
            note,
        }
    }
}

impl Bisection {
    /// Starts a search for the α that reaches each target.
    ///
    /// # Errors
    /// [`Error::Usage`] for a target that is no positive number.
    pub fn new(targets: &[f64]) -> Result<Self> {
        if let Some(target) = targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return Err(Error::usage(format!(
                "the KL target must be a positive number, not {target}: try 0.25"
            )));
        }
        let target = |&kl: &f64| Target {
            kl,
            low: RANGE.0,
            high: RANGE.1,
            steps: 0,
            nearest: None,
            largest: 0.0,
        };
        Ok(Self {
            targets: targets.iter().map(target).collect(),
        })
    }

    /// The α whose KL the search needs next, ascending, each once; empty when it has ended.
    pub fn propose(&mut self) -> Vec<f64> {
        let open = self.targets.iter().filter(|t| t.open());
        let mut out: Vec<f64> = open.map(Target::middle).collect();
        out.sort_by(f64::total_cmp);
        out.dedup();
        out
    }

    /// Takes the KL at each α that was proposed.
    pub fn observe(&mut self, alphas: &[f64], kls: &[f64]) {
        for target in self.targets.iter_mut().filter(|t| t.open()) {
            let middle = target.middle();
            if let Some(at) = alphas.iter().position(|a| *a == middle) {
                target.observe(middle, kls[at]);
            }
        }
    }

    /// One result a target, in their order. For a target that was not reached it is the α of the
    /// nearest KL, with a note.
    pub fn results(&self) -> Vec<Calibration> {
        self.targets.iter().map(Target::calibration).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's loop for one target, written plainly.
    fn plain(curve: &dyn Fn(f64) -> f64, target: f64) -> Option<(f64, f64)> {
        let (mut low, mut high) = (1.0f64, 2000.0f64);
        for _ in 0..20 {
            let alpha = (low + high) / 2.0;
            let kl = curve(alpha);
            if (kl - target).abs() < 0.01 {
                return Some((alpha, kl));
            }
            if kl < target {
                low = alpha;
            } else {
                high = alpha;
            }
        }
        None
    }

    #[test]
    fn bisection_finds_the_strength_of_the_plain_loop() {
        let targets = [0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5];
        for scale in [0.3, 5.0, 80.0, 900.0, 30_000.0] {
            let curve = |a: f64| 1.0 - (-(a / scale).powi(2)).exp();
            let mut search = Bisection::new(&targets).unwrap();
            let mut passes = 0;
            loop {
                let asked = search.propose();
                if asked.is_empty() {
                    break;
                }
                passes += 1;
                let kls: Vec<f64> = asked.iter().map(|&a| curve(a)).collect();
                search.observe(&asked, &kls);
            }
            assert!(passes <= 20);
            for (found, target) in search.results().iter().zip(targets) {
                let wanted = plain(&curve, target);
                assert_eq!(found.reached, wanted.is_some(), "{scale} {target}");
                assert_eq!(found.note.is_some(), !found.reached);
                if let Some(wanted) = wanted {
                    assert_eq!((found.alpha, found.kl), wanted, "{scale} {target}");
                }
            }
        }
    }

    #[test]
    fn what_overflows_is_too_strong_and_a_bad_target_is_refused() {
        let mut search = Bisection::new(&[0.25]).unwrap();
        let first = search.propose();
        assert_eq!(first, [1000.5]);
        search.observe(&first, &[f64::NAN]);
        assert_eq!(search.propose(), [500.75]);
        search.observe(&[500.75], &[0.25]);
        assert!(search.propose().is_empty() && search.results()[0].note.is_none());
        let mut search = Bisection::new(&[0.25]).unwrap();
        while let [alpha] = search.propose()[..] {
            search.observe(&[alpha], &[f64::INFINITY]);
        }
        let found = search.results().remove(0);
        assert_eq!((found.alpha, found.kl, found.reached), (0.0, 0.0, false));
        assert!(found.note.unwrap().contains("every |α| that was tried"));
        assert!(Bisection::new(&[0.0]).is_err() && Bisection::new(&[f64::NAN]).is_err());
    }
}
