//! From judged texts to the report on a method: scores at each KL and sign, the best of them chosen
//! and reported on different prompts, intervals over labels (`src/guide/evaluation.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::judge::Judgement;
use super::worded::NO_TARGET;
use super::{JudgedRecord, TextKey};
use crate::eval::bootstrap::{Difference, paired};
use crate::plot::{Chart, Point, Series};

/// Draws of a bootstrap.
pub(super) const RESAMPLES: usize = 10_000;

/// A mean over labels with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    /// The mean of the labels' values.
    pub mean: f64,
    /// 2.5th percentile; the mean itself with a single label.
    pub low: f64,
    /// 97.5th percentile; the mean itself with a single label.
    pub high: f64,
}

/// A method at one KL target and sign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellReport {
    /// The KL target in nats.
    pub target: f64,
    /// The sign of α: 1 promotes, −1 suppresses.
    pub sign: i8,
    /// Harmonic mean of concept and fluency of a text, over the texts of a label, over labels.
    pub score: MeanInterval,
    /// The mean concept rating, 0 to 2.
    pub concept: f64,
    /// The mean fluency rating, 0 to 2.
    pub fluency: f64,
    /// Labels that have texts here: a target out of reach leaves none.
    pub labels: usize,
}

/// Of what a line of a report is: one method, or several (fits of several seeds), whose mean is the
/// value of each label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLine {
    /// The name of the line.
    pub name: String,
    /// The methods, by the names in the log.
    pub members: Vec<String>,
}

impl ReportLine {
    /// A line of one method.
    pub fn one(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            members: vec![name.to_owned()],
        }
    }
}

/// The scores of a line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteeringReport {
    /// Name of the line.
    pub method: String,
    /// At every target and sign.
    pub cells: Vec<CellReport>,
    /// The best target and sign of each label, chosen on one half of the prompts and scored on the
    /// other, both ways.
    pub best: Option<MeanInterval>,
    /// The same chosen among promoting alone.
    pub best_promoting: Option<MeanInterval>,
    /// The value of each label that [`best`](Self::best) is the mean of.
    pub labels: BTreeMap<String, f64>,
    /// Number of texts that were judged.
    pub texts: usize,
    /// Texts that the judge gave no rating: in no mean.
    pub unrated: usize,
}

/// The first method's best score minus another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreDifference {
    /// Name of the first method.
    pub method: String,
    /// Name of the method that is subtracted.
    pub against: String,
    /// The difference, paired over labels.
    #[serde(flatten)]
    pub difference: Difference,
}

/// The report on one judge's ratings, in the order of `lines`.
pub fn report(judged: &[JudgedRecord], lines: &[ReportLine], seed: u64) -> Vec<SteeringReport> {
    lines
        .iter()
        .map(|line| of_line(line, judged, seed))
        .collect()
}

/// The differences between the first method and each other one, where both have two labels or more.
pub fn compare(reports: &[SteeringReport], seed: u64) -> Vec<ScoreDifference> {
    let Some((first, others)) = reports.split_first() else {
        return Vec::new();
    };
    let compared = |other: &SteeringReport| {
        let pairs: Vec<(f64, f64)> = first
            .labels
            .iter()
            .filter_map(|(label, &a)| other.labels.get(label).map(|&b| (a, b)))
            .collect();
        let difference = paired(&pairs, RESAMPLES, seed)?;
        Some(ScoreDifference {
            method: first.method.clone(),
            against: other.method.clone(),
            difference,
        })
    };
    others.iter().filter_map(compared).collect()
}

/// The chart of score against KL with positive α, with the score of unsteered texts where that is
/// known.
pub fn chart(reports: &[SteeringReport], title: String, unsteered: Option<f64>) -> Chart {
    let point = |c: &CellReport| Point {
        x: c.target,
        y: c.score.mean,
        low: c.score.low,
        high: c.score.high,
    };
    // What is asked in words has no KL: its one score is the table's.
    let has_points = |r: &&SteeringReport| r.cells.is_empty() || plotted(r).next().is_some();
    let series = |r: &SteeringReport| Series {
        name: r.method.clone(),
        points: plotted(r).map(point).collect(),
    };
    Chart {
        title,
        x_label: "KL(base ‖ steered), promoting".to_owned(),
        y_label: "score, 0 to 2".to_owned(),
        series: reports.iter().filter(has_points).map(series).collect(),
        level: unsteered.map(|score| ("unsteered".to_owned(), score)),
    }
}

/// The cells that have a place on a plot against KL.
fn plotted(report: &SteeringReport) -> impl Iterator<Item = &CellReport> {
    let cells = report.cells.iter();
    cells.filter(|c| c.sign > 0 && c.target != NO_TARGET)
}

/// Scores of one label: by target and sign, then by prompt.
type Table<'a> = BTreeMap<(u64, i8), Vec<(&'a TextKey, f64)>>;

fn of_line(line: &ReportLine, all: &[JudgedRecord], seed: u64) -> SteeringReport {
    let judged_of = |member: &String| {
        all.iter()
            .filter(|j| j.key.method == *member)
            .collect::<Vec<_>>()
    };
    let members: Vec<Vec<&JudgedRecord>> = line.members.iter().map(judged_of).collect();
    let tables: Vec<BTreeMap<&str, Table<'_>>> =
        members.iter().map(|judged| tables(judged)).collect();
    // Each seed's best is chosen on its own texts.
    let both = |signs: &[i8]| {
        let best_of = |labels: &BTreeMap<&str, Table<'_>>| -> BTreeMap<String, f64> {
            labels
                .iter()
                .filter_map(|(l, table)| Some(((*l).to_owned(), best(table, signs)?)))
                .collect()
        };
        mean_by_label(tables.iter().map(best_of))
    };
    let all = both(&[1, -1]);
    let mean = |by_label: &BTreeMap<String, f64>| {
        interval(&by_label.values().copied().collect::<Vec<_>>(), seed)
    };
    let judged = members.concat();
    SteeringReport {
        method: line.name.clone(),
        cells: cells(&judged, seed),
        best: mean(&all),
        best_promoting: mean(&both(&[1])),
        labels: all,
        texts: judged.len(),
        unrated: judged.iter().filter(|j| !j.judgement.is_rated()).count(),
    }
}

fn tables<'a>(judged: &[&'a JudgedRecord]) -> BTreeMap<&'a str, Table<'a>> {
    let mut labels: BTreeMap<&str, Table<'_>> = BTreeMap::new();
    for record in judged {
        if let Some(score) = record.judgement.score() {
            let table = labels.entry(&record.key.label).or_default();
            table
                .entry((record.key.target.to_bits(), record.key.sign))
                .or_default()
                .push((&record.key, score));
        }
    }
    labels
}

/// Each label's mean over the members that have it.
pub(super) fn mean_by_label<L: Ord>(
    members: impl Iterator<Item = BTreeMap<L, f64>>,
) -> BTreeMap<L, f64> {
    let mut values: BTreeMap<L, Vec<f64>> = BTreeMap::new();
    members
        .flatten()
        .for_each(|(label, v)| values.entry(label).or_default().push(v));
    values
        .into_iter()
        .map(|(label, scores)| (label, scores.iter().sum::<f64>() / scores.len() as f64))
        .collect()
}

/// The score of the best cell of a label on the prompts that it was not chosen by, the mean of both
/// ways; `None` where either half has no text. Prompts take turns, and of a single prompt its
/// texts. Of equal cells a promoting one is taken, and of these the lowest KL.
fn best(table: &Table<'_>, signs: &[i8]) -> Option<f64> {
    let single = table.values().flatten().all(|(key, _)| key.prompt == 0);
    let half_of = |key: &TextKey| if single { key.sample } else { key.prompt } % 2;
    let half = |scores: &[(&TextKey, f64)], which: usize| {
        let chosen = scores.iter().filter(|(key, _)| half_of(key) == which);
        mean(chosen.map(|s| s.1))
    };
    let ways = [0, 1].map(|which| {
        let mut candidates: Vec<_> = table
            .iter()
            .filter(|((_, sign), _)| signs.contains(sign))
            .collect();
        // Stable: within a sign the lowest KL stays first, as the table has it.
        candidates.sort_by_key(|((_, sign), _)| -sign);
        let chosen = candidates
            .into_iter()
            .filter_map(|(_, scores)| Some((half(scores, which)?, half(scores, 1 - which)?)))
            // Of equal cells the first.
            .fold(None, |best: Option<(f64, f64)>, cell| {
                if best.is_none_or(|b| cell.0 > b.0) {
                    Some(cell)
                } else {
                    best
                }
            });
        chosen.map(|c| c.1)
    });
    Some((ways[0]? + ways[1]?) / 2.0)
}

fn cells(judged: &[&JudgedRecord], seed: u64) -> Vec<CellReport> {
    let mut by_cell: BTreeMap<(u64, i8), BTreeMap<&str, Vec<&Judgement>>> = BTreeMap::new();
    for record in judged {
        let cell = by_cell
            .entry((record.key.target.to_bits(), -record.key.sign))
            .or_default();
        cell.entry(&record.key.label)
            .or_default()
            .push(&record.judgement);
    }
    let report = |((bits, negated), labels): ((u64, i8), BTreeMap<&str, Vec<&Judgement>>)| {
        let each = |value: &dyn Fn(&Judgement) -> Option<f64>| -> Vec<f64> {
            labels
                .values()
                .filter_map(|records| mean(records.iter().filter_map(|j| value(j))))
                .collect()
        };
        let rating = |pick: fn(f64, f64) -> f64| {
            let values = each(&|j| match j {
                Judgement::Rated { concept, fluency } => Some(pick(*concept, *fluency)),
                Judgement::Unrated { .. } => None,
            });
            mean(values.into_iter()).unwrap_or(0.0)
        };
        let scores = each(&Judgement::score);
        Some(CellReport {
            target: f64::from_bits(bits),
            sign: -negated,
            score: interval(&scores, seed)?,
            concept: rating(|c, _| c),
            fluency: rating(|_, f| f),
            labels: scores.len(),
        })
    };
    by_cell.into_iter().filter_map(report).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The mean of labels' values with its bootstrap interval; `None` without labels.
pub fn interval(values: &[f64], seed: u64) -> Option<MeanInterval> {
    let mean = mean(values.iter().copied())?;
    let pairs: Vec<(f64, f64)> = values.iter().map(|&v| (v, 0.0)).collect();
    let (low, high) = paired(&pairs, RESAMPLES, seed).map_or((mean, mean), |d| (d.low, d.high));
    Some(MeanInterval { mean, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged_text(
        label: &str,
        target: f64,
        sign: i8,
        prompt: usize,
        concept: Option<f64>,
    ) -> JudgedRecord {
        let key = TextKey {
            method: "m".into(),
            label: label.into(),
            target,
            sign,
            prompt,
            sample: 0,
        };
        let judgement = match concept {
            Some(concept) => Judgement::Rated {
                concept,
                fluency: 2.0,
            },
            None => Judgement::Unrated {
                unrated: "no".into(),
            },
        };
        JudgedRecord { key, judgement }
    }

    #[test]
    fn the_best_strength_is_reported_where_it_was_not_chosen() {
        // On prompt 0 the KL of 0.1 looks best, on prompt 1 the KL of 0.5: choosing on either and
        // reporting on the other gives what the other says of it, not the largest.
        let judged = [
            judged_text("a", 0.1, 1, 0, Some(2.0)),
            judged_text("a", 0.1, 1, 1, Some(0.0)),
            judged_text("a", 0.5, 1, 0, Some(0.0)),
            judged_text("a", 0.5, 1, 1, Some(2.0)),
            judged_text("a", 0.5, -1, 0, Some(1.0)),
        ];
        let report = &report(&judged, &[ReportLine::one("m")], 1)[0];
        assert_eq!(report.best.unwrap().mean, 0.0);
        let cell = report.cells.iter().find(|c| c.target == 0.1).unwrap();
        assert_eq!(
            (cell.score.mean, cell.concept, cell.fluency, cell.labels),
            (1.0, 1.0, 2.0, 1)
        );
        assert_eq!(
            report
                .cells
                .iter()
                .map(|c| (c.target, c.sign))
                .collect::<Vec<_>>(),
            [(0.1, 1), (0.5, 1), (0.5, -1)]
        );
    }

    #[test]
    fn of_equal_cells_a_promoting_one_is_taken() {
        // On both prompts suppressing at the lowest KL looks as good as promoting; what they get on
        // the other differs.
        let mut judged = Vec::new();
        for (target, sign, scores) in [
            (0.1, -1, [1.0, 1.0]),
            (0.1, 1, [1.0, 0.0]),
            (0.5, 1, [0.0, 0.0]),
        ] {
            for (prompt, score) in scores.into_iter().enumerate() {
                judged.push(judged_text("a", target, sign, prompt, Some(score)));
            }
        }
        // Chosen on prompt 0: promoting at 0.1 (0 on the other); chosen on prompt 1: suppressing
        // (its score is 4/3).
        let best = report(&judged, &[ReportLine::one("m")], 1)[0]
            .best
            .unwrap()
            .mean;
        assert!((best - 2.0 / 3.0).abs() < 1e-12, "{best}");
    }

    #[test]
    fn a_text_without_rating_is_in_no_mean() {
        let judged = [
            judged_text("a", 0.1, 1, 0, Some(2.0)),
            judged_text("a", 0.1, 1, 1, None),
            judged_text("b", 0.1, 1, 0, None),
            judged_text("b", 0.1, 1, 1, None),
        ];
        let report = &report(&judged, &["m", "n"].map(ReportLine::one), 1);
        assert_eq!((report[0].texts, report[0].unrated), (4, 3));
        assert_eq!(
            (report[0].cells[0].score.mean, report[0].cells[0].labels),
            (2.0, 1)
        );
        assert_eq!(
            report[0].best, None,
            "one half of the prompts has no rating"
        );
        assert!(report[1].cells.is_empty() && report[1].best.is_none());
    }

    #[test]
    fn methods_are_compared_label_by_label() {
        let mut judged = Vec::new();
        for (i, label) in ["a", "b", "c", "d"].into_iter().enumerate() {
            for prompt in 0..2 {
                judged.push(judged_text(
                    label,
                    0.1,
                    1,
                    prompt,
                    Some(1.0 + 0.1 * i as f64),
                ));
                let mut other = judged_text(label, 0.1, 1, prompt, Some(0.5 + 0.1 * i as f64));
                other.key.method = "n".into();
                judged.push(other);
            }
        }
        let reports = report(&judged, &["m", "n"].map(ReportLine::one), 3);
        let difference = &compare(&reports, 3)[0];
        assert_eq!(
            (difference.method.as_str(), difference.against.as_str()),
            ("m", "n")
        );
        assert!(difference.difference.low > 0.2 && difference.difference.mean < 0.8);
        let best = reports[0].best.unwrap();
        assert!(best.low < best.mean && best.mean < best.high);
    }
    #[test]
    fn several_seeds_are_one_line() {
        // Each seed's best is its own: at another KL, on labels of which one is judged under one
        // seed alone.
        let records_of = |method: &str, label, target, score| {
            [0, 1].map(|prompt| {
                let mut record = judged_text(label, target, 1, prompt, Some(score));
                record.key.method = method.into();
                record
            })
        };
        let judged: Vec<JudgedRecord> = [
            records_of("s1", "a", 0.1, 2.0),
            records_of("s1", "a", 0.5, 0.0),
            records_of("s2", "a", 0.1, 0.0),
            records_of("s2", "a", 0.5, 1.0),
            records_of("s2", "b", 0.1, 2.0),
        ]
        .into_iter()
        .flatten()
        .collect();
        let line = ReportLine {
            name: "s1+s2".into(),
            members: vec!["s1".into(), "s2".into()],
        };
        let found = &report(&judged, &[line], 1)[0];
        let alone = report(&judged, &["s1", "s2"].map(ReportLine::one), 1);
        assert_eq!((found.method.as_str(), found.texts), ("s1+s2", 10));
        assert!(
            (found.labels["a"] - (alone[0].labels["a"] + alone[1].labels["a"]) / 2.0).abs() < 1e-12
        );
        assert_eq!(found.labels["b"], alone[1].labels["b"]);
        assert!(
            (found.labels["a"] - (2.0 + 4.0 / 3.0) / 2.0).abs() < 1e-12,
            "{:?}",
            found.labels
        );
    }
}
