//! A fake of the engine for tests: answers commands with made-up data of the right shapes.
//! Deterministic.

mod answers;
mod contract;
mod evaluations;
mod groups;
mod studies;

use std::sync::Arc;

use crate::analysis::{
    Context, FeatureCard, FeatureRow, LabelShare, NeuronCard, NeuronWeight, Purity, Related,
    ScoredToken, Trace, TraceFeature,
};
use crate::engine::{Event, FeatureList, Job, Request, SavedEvaluation, SweepPoint};
use crate::eval::steering::report::{CellReport, MeanInterval, SteeringReport};
use crate::model::{HookPoint, HookSite};
use crate::task::Progress;

/// Concepts with a sentence each; `*` marks the token that fires most.
const CONCEPTS: &[(&str, &str, &str)] = &[
    (
        "days",
        "Sunday Monday Friday Tuesday",
        "The ferry to the island only runs on *Sunday mornings and on Wednesday before noon, weather permitting.",
    ),
    (
        "months",
        "March July October May",
        "By late *October the larches had turned yellow and the first snow lay on the pass.",
    ),
    (
        "colours",
        "red blue scarlet green",
        "She painted the shutters a *blue so deep that the bees mistook them for borage.",
    ),
    (
        "numbers",
        "three seven 12 forty",
        "Of the *seven jars on the shelf, three had burst in the frost; 2048 labels were left.",
    ),
    (
        "countries",
        "France Kenya Japan Peru",
        "The delegation from *Kenya arrived a day late and left a day early.",
    ),
    (
        "animals",
        "dog horse cat otter",
        "An *otter slid down the bank while the old dog pretended not to see.",
    ),
    (
        "food",
        "bread soup rice cheese",
        "We ate *bread with olives and a soup that had been on the stove since dawn.",
    ),
    (
        "emotions",
        "angry glad afraid proud",
        "He was *afraid, and proud of not showing it, and tired of being proud.",
    ),
    (
        "law",
        "court judge appeal ruling",
        "The *court dismissed the appeal without hearing the second witness.",
    ),
    (
        "code",
        "fn return null import",
        "def area(r):\n    *return 3.14 * r ** 2  # naïve, but fine\n",
    ),
    (
        "questions",
        "? why what how",
        "Why did the tide turn so early, and *what did the pilot know of it?",
    ),
    (
        "weather",
        "rain storm snow wind",
        "The *storm passed north of us; all night the wind hummed in the rigging. 🌧️",
    ),
];

/// Text cut the way that a byte-level tokenizer would: words with their leading space, punctuation
/// apart.
fn pieces(text: &str) -> (Vec<String>, usize) {
    let mut tokens: Vec<String> = Vec::new();
    let mut peak = 0;
    let mut mark = false;
    for c in text.chars() {
        if c == '*' && !mark {
            mark = true;
            continue;
        }
        let joins = tokens
            .last()
            .and_then(|t| t.chars().last())
            .is_some_and(|last| {
                (c.is_alphanumeric() && last.is_alphanumeric())
                    || (c.is_alphanumeric() && last == ' ')
            });
        match tokens.last_mut() {
            Some(last) if joins => last.push(c),
            _ => tokens.push(c.to_string()),
        }
        if mark {
            peak = tokens.len() - 1;
            mark = false;
        }
    }
    (tokens, peak)
}

/// A repeatable number from 0 to 1.
fn noise(a: usize, b: usize) -> f32 {
    let mut x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    (x % 10_000) as f32 / 10_000.0
}

/// A fake of the engine: made-up features, and which jobs run.
#[derive(Debug)]
pub struct FakeEngine {
    /// How many features the fit has.
    pub features: usize,
    /// The names of features, by their ids.
    pub names: Vec<(usize, String)>,
    /// The evaluations that the study keeps.
    pub evaluations: Vec<SavedEvaluation>,
    /// Requests for jobs that go on until they are cancelled.
    running: Vec<Request>,
    /// A study is open.
    open: bool,
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self {
            features: 40,
            names: vec![(3, "counting".to_owned())],
            evaluations: Vec::new(),
            running: Vec::new(),
            open: false,
        }
    }
}

fn concept(id: usize) -> (&'static str, &'static str, &'static str) {
    CONCEPTS[id % CONCEPTS.len()]
}

fn scored(words: &[&str], id: usize, from: f32, step: f32) -> Vec<ScoredToken> {
    let one = |(i, w): (usize, &&str)| ScoredToken {
        id: (id * 100 + i) as u32,
        token: format!(" {w}"),
        value: from + step * i as f32,
    };
    words.iter().enumerate().map(one).collect()
}

impl FakeEngine {
    /// The hook of the made-up study.
    pub fn hook() -> HookPoint {
        HookPoint {
            layer: 15,
            site: HookSite::MlpPost,
        }
    }

    /// A line of the list.
    pub fn row(&self, id: usize) -> FeatureRow {
        let (label, tokens, _) = concept(id);
        let promoted: Vec<&str> = tokens.split(' ').rev().collect();
        FeatureRow {
            id,
            share: 0.08 / (1.0 + id as f32 * 0.35) + noise(id, 1) * 0.002,
            density: 0.002 + noise(id, 2) * noise(id, 3) * 0.3,
            neurons: 16,
            top_tokens: tokens.split(' ').map(|t| format!(" {t}")).collect(),
            promoted: scored(&promoted, id, 4.0, -0.3),
            purity: Some(Purity {
                label: label.to_owned(),
                share: 0.2 + 0.8 * noise(id, 4),
                base: 0.04,
            }),
            name: self
                .names
                .iter()
                .find(|(i, _)| *i == id)
                .map(|(_, n)| n.clone()),
            note: crate::analysis::FeatureNote::default(),
        }
    }

    /// The feature list after `sweep` sweeps.
    pub fn list(&self, sweep: usize, finished: bool) -> FeatureList {
        FeatureList {
            rows: (0..self.features).map(|id| self.row(id)).collect(),
            sweep,
            relative_error: 0.31 + 0.5 / sweep.max(1) as f64,
            explained_variance: 0.66 - 0.4 / sweep.max(1) as f64,
            finished,
            fit: "bcd-k40".to_owned(),
            set: None,
        }
    }

    fn context(id: usize, i: usize, scale: f32) -> Context {
        let (label, _, text) = CONCEPTS[(id + if i % 5 == 4 { i } else { 0 }) % CONCEPTS.len()];
        let (tokens, peak) = pieces(text);
        let top = scale * (1.0 - 0.025 * i as f32);
        let values = (0..tokens.len())
            .map(|t| match t {
                t if t == peak => top,
                t if noise(id * 31 + i, t) > 0.72 => top * noise(id + i, t + 7) * 0.8,
                _ => 0.0,
            })
            .collect();
        Context {
            row: id * 100 + i,
            sample: i,
            tokens,
            cut: [false; 2],
            values,
            peak,
            label: Some(label.to_owned()),
        }
    }

    /// The card of feature `id`.
    pub fn card(&self, id: usize) -> FeatureCard {
        let (_, tokens, _) = concept(id);
        let words: Vec<&str> = tokens
            .split(' ')
            .chain(["week", "weekday", "morning", "Dienstag", "日曜日", "eve"])
            .collect();
        let opposite = [
            "metre",
            "litre",
            "although",
            "perhaps",
            "\u{202e}evil",
            "kg",
            "whereas",
            "unless",
            "…",
            "zinc",
        ];
        let mut neurons: Vec<NeuronWeight> = (0..16)
            .map(|i| NeuronWeight {
                index: (noise(id, i + 50) * 1536.0) as usize,
                weight: (0.62 - 0.036 * i as f32)
                    * if noise(id, i + 90) > 0.7 { -1.0 } else { 1.0 },
                used_by: 1 + (noise(id, i + 70) * 6.0) as usize,
            })
            .collect();
        neurons.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
        FeatureCard {
            row: self.row(id),
            sweep: 41,
            contexts: (0..25).map(|i| Self::context(id, i, 8.31)).collect(),
            quantiles: (1..10)
                .map(|q| {
                    (
                        1.0 - q as f32 / 10.0,
                        Self::context(id, q + 30, 8.31 - q as f32 * 0.75),
                    )
                })
                .collect(),
            neurons,
            promoted: scored(&words, id, 6.4, -0.37),
            suppressed: scored(&opposite, id, -5.1, 0.31),
            lens_note: None,
            related: (1..6)
                .map(|i| Related {
                    id: (id + i * 7) % self.features,
                    overlap: 0.42 / i as f32,
                })
                .collect(),
            labels: CONCEPTS
                .iter()
                .enumerate()
                .map(|(i, (label, ..))| {
                    let near = if i == id % CONCEPTS.len() { 0.7 } else { 0.02 };
                    LabelShare {
                        label: (*label).to_owned(),
                        mass: near,
                        contexts: near,
                        base: 0.04,
                    }
                })
                .collect(),
            histogram: (0..24)
                .map(|i| (3000.0 * (-0.45 * f64::from(i)).exp()) as u32 + u32::from(i % 7 == 0))
                .collect(),
            peak: 8.31,
        }
    }

    /// The card of neuron `index`.
    pub fn neuron(&self, index: usize) -> NeuronCard {
        let mut contexts: Vec<Context> = (0..12).map(|i| Self::context(index, i, 4.2)).collect();
        for context in &mut contexts {
            let mut sign = 1.0;
            for value in context.values.iter_mut().filter(|v| **v != 0.0) {
                *value *= sign;
                sign = -sign * 0.8;
            }
        }
        let features = (0..4)
            .map(|i| {
                let id = (index + i * 5) % self.features;
                (
                    id,
                    0.5 - 0.3 * i as f32,
                    concept(id).1.split(' ').next().unwrap_or("").to_owned(),
                )
            })
            .collect();
        let words = ["week", "day", "night", "today"];
        NeuronCard {
            index,
            features,
            contexts,
            promoted: scored(&words, index, 3.1, -0.4),
            suppressed: scored(&["zinc", "kg", "µ", "nm"], index, -2.4, 0.3),
        }
    }

    /// Features on a text.
    pub fn trace(&self, text: &str) -> Trace {
        let (tokens, _) = pieces(text);
        let features = (0..8)
            .map(|id| TraceFeature {
                id,
                values: (0..tokens.len())
                    .map(|t| {
                        if noise(id, t + 11) > 0.6 {
                            noise(t, id) * (8.0 - id as f32)
                        } else {
                            0.0
                        }
                    })
                    .collect(),
            })
            .collect();
        let unexplained = (0..tokens.len()).map(|t| 0.2 + 0.5 * noise(t, 5)).collect();
        Trace {
            tokens,
            features,
            unexplained,
        }
    }

    /// Everything that is there when a study with a finished fit is open.
    pub fn opened(&mut self) -> Vec<Event> {
        self.open = true;
        let mut events = vec![
            Event::Model(Box::new(Self::model())),
            Event::Study(Box::new(self.study())),
        ];
        events.extend((1..=41).map(Self::sweep).map(Event::Sweep));
        events.push(Event::Features(Arc::new(self.list(41, true))));
        events
    }

    /// A point of the curve.
    pub fn sweep(sweep: usize) -> SweepPoint {
        SweepPoint {
            sweep,
            relative_error: 0.31 + 0.5 / sweep as f64,
            weighted: false,
            seconds: sweep as f64 * 0.13,
            stop: None,
        }
    }

    /// What has been judged of so many methods.
    pub fn reports(methods: usize) -> Vec<SteeringReport> {
        let names = [
            "k100",
            "diffmean",
            "kmeans",
            "random",
            "neuron",
            "k100, shuffled labels",
        ];
        let report = |(i, name): (usize, &&str)| {
            let mean = |m: f64| MeanInterval {
                mean: m,
                low: m - 0.21,
                high: m + 0.18,
            };
            let cell = |(target, sign): (f64, i8)| CellReport {
                target,
                sign,
                score: mean(0.3 + 0.1 * target * f64::from(sign) / (1.0 + i as f64)),
                concept: 0.4,
                fluency: 1.6,
                labels: 8,
            };
            let cells = [0.1, 0.25, 0.5, 1.0]
                .into_iter()
                .flat_map(|t| [(t, 1), (t, -1)])
                .map(cell)
                .collect();
            SteeringReport {
                method: (*name).to_owned(),
                cells,
                best: Some(mean(0.62 - 0.07 * i as f64)),
                best_promoting: Some(mean(0.6 - 0.07 * i as f64)),
                labels: std::collections::BTreeMap::new(),
                texts: 120,
                unrated: 0,
            }
        };
        names.iter().enumerate().take(methods).map(report).collect()
    }

    /// The progress of a job: `done` of `total` units.
    pub fn progress(job: Job, stage: &str, done: u64, total: u64, unit: &str) -> Event {
        Event::Progress {
            job,
            progress: Progress::new(stage, done, total, unit),
            rate: Some(1212.0),
            eta: Some(5.3),
        }
    }
}
