//! Rises of words under a method beside what would have raised them anyway: random directions, and the
//! method's directions for other labels; paired against one method, with a reading that is adjusted
//! for the number of comparisons.
//!
//! Knows strengths as the log has them. Invariant: the comparisons of a table are counted, and the
//! adjusted reading is over all of them of one measure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StrengthRecord;
use super::report::{MeanInterval, RESAMPLES, ReportLine, interval, mean_by_label};
use crate::eval::bootstrap::{Difference, holm, paired, paired_p};

/// What is measured of a label's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Where they stand among all tokens' changes.
    Rise,
    /// That minus where they stand under random directions at the same KL.
    Calibrated,
    /// That minus where they stand under the method's directions for other labels.
    Own,
    /// Calibrated, of the words that the sentences that chose do not have.
    New,
    /// The mean change of their log-probabilities, in nats.
    Nats,
}

impl Measure {
    /// In the order of a table's columns.
    pub const ALL: [Self; 5] = [
        Self::Rise,
        Self::Calibrated,
        Self::Own,
        Self::New,
        Self::Nats,
    ];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Calibrated => "calibrated",
            Self::Own => "own",
            Self::New => "new",
            Self::Nats => "nats",
        }
    }
}

/// A method minus the one that all are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The method that is subtracted.
    pub against: String,
    /// Paired over labels.
    pub difference: Difference,
    /// Two-sided, by the bootstrap.
    pub p: f64,
    /// Holm's, over the comparisons of this measure.
    pub adjusted_p: f64,
    /// How many these are.
    pub comparisons: usize,
}

/// A measure of a method at one KL target, promoting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureReport {
    /// Name of the line.
    pub method: String,
    /// The KL target in nats.
    pub target: f64,
    /// What is measured.
    pub measure: Measure,
    /// The mean over labels.
    pub value: MeanInterval,
    /// Labels that have it.
    pub labels: usize,
    /// Against the method that all are compared with; `None` for that method itself, and with fewer
    /// than two labels in common.
    pub compared: Option<Compared>,
}

/// Every measure of each line at each target, compared with the line called `against`. `chance_of`:
/// under which method the random directions of a line's hook are.
pub fn measures(
    strengths: &[StrengthRecord],
    lines: &[ReportLine],
    against: &str,
    chance_of: &dyn Fn(&str) -> String,
    seed: u64,
) -> Vec<MeasureReport> {
    let mut targets: Vec<f64> = strengths.iter().map(|s| s.target).collect();
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    let mut out = Vec::new();
    for measure in Measure::ALL {
        let first = out.len();
        for &target in &targets {
            let at_target = || {
                let promoting = |s: &&StrengthRecord| s.target == target && s.sign > 0 && s.reached;
                strengths.iter().filter(promoting)
            };
            let values = |line: &ReportLine| -> BTreeMap<String, f64> {
                let random = chance_of(&line.name);
                mean_by_label(line.members.iter().map(|member| {
                    let records: Vec<_> = at_target().filter(|s| s.method == *member).collect();
                    let chance: Vec<_> = at_target().filter(|s| s.method == random).collect();
                    by_label(measure, &records, &chance)
                }))
            };
            let base = lines.iter().find(|l| l.name == against).map(&values);
            for line in lines {
                let own = values(line);
                let all: Vec<f64> = own.values().copied().collect();
                let Some(value) = interval(&all, seed) else {
                    continue;
                };
                let compared = base.as_ref().filter(|_| line.name != against);
                let compared = compared.and_then(|base| {
                    let pair = |(label, &a): (&String, &f64)| Some((a, *base.get(label)?));
                    let pairs: Vec<(f64, f64)> = own.iter().filter_map(pair).collect();
                    Some(Compared {
                        against: against.to_owned(),
                        difference: paired(&pairs, RESAMPLES, seed)?,
                        p: paired_p(&pairs, RESAMPLES, seed)?,
                        adjusted_p: 1.0,
                        comparisons: 0,
                    })
                });
                out.push(MeasureReport {
                    method: line.name.clone(),
                    target,
                    measure,
                    value,
                    labels: own.len(),
                    compared,
                });
            }
        }
        let mut compared: Vec<&mut Compared> = out[first..]
            .iter_mut()
            .filter_map(|r| r.compared.as_mut())
            .collect();
        let adjusted = holm(&compared.iter().map(|c| c.p).collect::<Vec<_>>());
        let comparisons = adjusted.len();
        for (compared, adjusted_p) in compared.iter_mut().zip(adjusted) {
            (compared.adjusted_p, compared.comparisons) = (adjusted_p, comparisons);
        }
    }
    out
}

/// A measure of each label, of one method's records at one target.
fn by_label(
    measure: Measure,
    records: &[&StrengthRecord],
    chance: &[&StrengthRecord],
) -> BTreeMap<String, f64> {
    let mean = |values: Vec<f64>| {
        let count = values.len() as f64;
        (count > 0.0).then(|| values.iter().sum::<f64>() / count)
    };
    let value = |s: &StrengthRecord| -> Option<f64> {
        match measure {
            Measure::Rise => s.rise,
            Measure::Nats => s.nats,
            Measure::Calibrated => {
                let anyway = chance
                    .iter()
                    .filter_map(|c| c.places.get(&s.label).copied());
                Some(s.rise? - mean(anyway.collect())?)
            }
            Measure::New => {
                let anyway = chance
                    .iter()
                    .filter_map(|c| c.new_places.get(&s.label).copied());
                Some(s.new_places.get(&s.label)? - mean(anyway.collect())?)
            }
            Measure::Own => {
                // One direction may stand for several labels: it is no other label's then.
                let others = records.iter().filter(|o| o.places != s.places);
                let others = others.filter_map(|o| o.places.get(&s.label).copied());
                Some(s.rise? - mean(others.collect())?)
            }
        }
    };
    records
        .iter()
        .filter_map(|s| Some((s.label.clone(), value(s)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::CHANCE;
    use super::*;

    fn record(method: &str, label: &str, places: &[(&str, f64)]) -> StrengthRecord {
        let places: BTreeMap<String, f64> =
            places.iter().map(|(l, p)| ((*l).to_owned(), *p)).collect();
        StrengthRecord {
            method: method.into(),
            label: label.into(),
            direction: 0,
            sign: 1,
            target: 0.25,
            alpha: 1.0,
            kl: 0.25,
            reached: true,
            note: None,
            rise: places.get(label).copied(),
            nats: Some(2.0),
            new_places: places.clone(),
            places,
        }
    }

    #[test]
    fn the_rise_that_random_directions_cause_is_subtracted() {
        let all = [
            record("m", "x", &[("x", 0.9), ("y", 0.6)]),
            record("m", "y", &[("x", 0.5), ("y", 0.8)]),
            // The same direction as for x: no other one.
            record("m", "z", &[("x", 0.9), ("y", 0.6)]),
            record(CHANCE, "0", &[("x", 0.3), ("y", 0.5)]),
            record(CHANCE, "1", &[("x", 0.5), ("y", 0.5)]),
            record("diffmean", "x", &[("x", 0.6), ("y", 0.5)]),
            record("diffmean", "y", &[("x", 0.5), ("y", 0.7)]),
        ];
        let lines = ["m", "diffmean"].map(ReportLine::one);
        let first = |_: &str| CHANCE.to_owned();
        let found = measures(&all, &lines, "diffmean", &first, 1);
        let row = |method: &str, measure: Measure| {
            found
                .iter()
                .find(|r| r.method == method && r.measure == measure)
                .unwrap()
        };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a}, wanted {b}");
        near(row("m", Measure::Rise).value.mean, 0.85);
        near(row("m", Measure::Calibrated).value.mean, (0.5 + 0.3) / 2.0);
        near(row("m", Measure::New).value.mean, (0.5 + 0.3) / 2.0);
        // x: 0.9 − 0.5; y: 0.8 − the mean of 0.6 and 0.6.
        near(row("m", Measure::Own).value.mean, (0.4 + 0.2) / 2.0);
        near(row("m", Measure::Nats).value.mean, 2.0);
        let compared = row("m", Measure::Calibrated).compared.as_ref().unwrap();
        near(compared.difference.mean, (0.3 + 0.1) / 2.0);
        assert_eq!((compared.comparisons, &*compared.against), (1, "diffmean"));
        assert!(row("diffmean", Measure::Own).compared.is_none());
        assert!(found.iter().all(|r| r.method != CHANCE));
        // At another hook its random directions are what is subtracted.
        let mut all = all.to_vec();
        all.push(record("chance at h", "0", &[("x", 0.1), ("y", 0.2)]));
        let at = |line: &str| match line {
            "m" => "chance at h".to_owned(),
            _ => CHANCE.to_owned(),
        };
        let found = measures(&all, &lines, "diffmean", &at, 1);
        let calibrated = |method: &str| {
            let mut of = found.iter().filter(|r| r.measure == Measure::Calibrated);
            of.find(|r| r.method == method).unwrap().value.mean
        };
        near(calibrated("m"), (0.8 + 0.6) / 2.0);
        near(calibrated("diffmean"), (0.2 + 0.2) / 2.0);
    }
}
