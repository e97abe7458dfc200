//! Made-up evaluations, as a study keeps them.

use super::{CONCEPTS, FakeEngine};
use crate::engine::{EvaluatedLabel, EvaluatedText, EvaluatedTexts, SavedEvaluation};
use crate::eval::steering::measures::{Measure, MeasureReport};
use crate::eval::steering::report::MeanInterval;
use crate::jobs::causal::Causal;

impl FakeEngine {
    /// Two evaluations, the newest first.
    pub fn kept_evaluations() -> Vec<SavedEvaluation> {
        let one = |name: &str, modified| SavedEvaluation {
            name: name.to_owned(),
            methods: vec!["k100".to_owned(), "diffmean".to_owned()],
            hook: "blocks.15.mlp.hook_post".to_owned(),
            labels: 8,
            targets: vec![0.1, 0.25],
            texts: (120, 128),
            modified,
        };
        vec![one("steering-new", 2), one("steering-old", 1)]
    }

    /// What one of them came to.
    pub fn evaluation(name: &str) -> Causal {
        let methods = Self::reports(3);
        let measure = |(i, measure): (usize, Measure)| {
            let of = |(at, report): (usize, &crate::eval::steering::report::SteeringReport)| {
                let mean = 0.4 - 0.1 * at as f64 + 0.05 * i as f64;
                MeasureReport {
                    method: report.method.clone(),
                    target: 0.25,
                    measure,
                    value: MeanInterval {
                        mean,
                        low: mean - 0.1,
                        high: mean + 0.1,
                    },
                    labels: 8,
                    compared: None,
                }
            };
            methods.iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let measures = Measure::ALL.into_iter().enumerate().flat_map(measure);
        Causal {
            name: name.to_owned(),
            dir: "study/evaluations".into(),
            hook: "blocks.15.mlp.hook_post".to_owned(),
            judge: "offline".to_owned(),
            meaning: String::new(),
            labels: CONCEPTS.iter().map(|c| c.0.to_owned()).collect(),
            not_judged: Vec::new(),
            aurocs: Vec::new(),
            unrated: None,
            measures: measures.collect(),
            hooks: vec!["blocks.15.mlp.hook_post".to_owned(); methods.len()],
            methods,
            compared: Vec::new(),
            unseen: Vec::new(),
            free_texts: Vec::new(),
            rises: Vec::new(),
            stopped: false,
            unsteered: None,
            unreached: Vec::new(),
        }
    }

    /// The texts of one of its methods.
    pub fn evaluated_texts(name: &str, method: &str) -> EvaluatedTexts {
        let text = |(target, sign): (f64, i8)| EvaluatedText {
            target,
            sign,
            prompt: 0,
            alpha: f64::from(sign) * 8.5,
            text: " Sunday comes after Saturday, and Monday after that.".to_owned(),
            score: Some(0.8),
        };
        let label = |(i, concept): (usize, &(&str, &str, &str))| EvaluatedLabel {
            label: concept.0.to_owned(),
            direction: Some(i),
            words: concept.1.split(' ').map(str::to_owned).collect(),
            rises: vec![(0.1, 0.7), (0.25, 0.81)],
            texts: [(0.1, 1), (0.25, 1), (0.1, -1), (0.25, -1)]
                .map(text)
                .into(),
        };
        EvaluatedTexts {
            evaluation: name.to_owned(),
            method: method.to_owned(),
            labels: CONCEPTS.iter().enumerate().map(label).collect(),
            prompts: vec!["I think that".to_owned()],
            unsteered: vec![" the best way is to ask.".to_owned()],
        }
    }
}
