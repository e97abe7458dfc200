//! How long an evaluation takes, measured on a little of it before it begins.
//!
//! Knows a model and a configuration, no directions. Invariant: nothing that it generates is kept.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{SteeringConfig, perplexity};
use crate::error::{Error, Result};
use crate::model::generate::{Arithmetic, Continuation, Sampling, generate};
use crate::model::{Batch, Logits, Model, NoTap, Phase, Portion};
use crate::steering::calibrate::SearchMethod;
use crate::task::TaskCtx;

/// New tokens of each row that is timed.
const TOKENS: usize = 6;
/// Strengths that are tried in one timed pass.
const STRENGTHS: usize = 16;

/// What the parts of an evaluation take here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Seconds for a token of one text, generated among as many as are generated at a time, with its
    /// perplexity.
    pub token: f64,
    /// Seconds for trying one strength on all prompts.
    pub strength: f64,
}

impl Pace {
    /// Generates a batch of a few tokens and tries a few strengths' worth of passes.
    ///
    /// # Errors
    /// What the model returns; [`Error::Usage`] for a prompt without tokens; [`Error::Cancelled`].
    pub fn measure(model: &Model, config: &SteeringConfig, ctx: &TaskCtx) -> Result<Self> {
        let prompts = model.tokenizer().encode_all(&config.prompts, config.bos)?;
        let first = prompts.first().filter(|p| !p.is_empty());
        let first = first.ok_or_else(|| Error::usage("a prompt has no tokens: give a text"))?;
        // Rows of one prompt share what was read of it, as those of the evaluation do.
        let together = config.samples.clamp(1, config.batch.max(1));
        let continuation = Continuation {
            prompt: first.clone(),
            streams: (0..together as u64).collect(),
        };
        let continuations = vec![continuation; (config.batch / together).max(1)];
        let sampling = Sampling {
            max_tokens: TOKENS.min(config.sampling.max_tokens),
            ..config.sampling
        };
        let begun = Instant::now();
        let made = generate(
            model,
            &continuations,
            &sampling,
            Arithmetic::Widened,
            &mut Portion::unlimited(),
            &mut NoTap,
            &mut |_| {},
            ctx,
        )?;
        let rows: Vec<(&[u32], &[u32])> = made.iter().map(|m| (&first[..], &m.ids[..])).collect();
        perplexity::mean_nll(model, &rows, ctx)?;
        let tokens: usize = made.iter().map(|m| m.ids.len()).sum();
        let token = begun.elapsed().as_secs_f64() / tokens.max(1) as f64;
        let batch = Batch {
            rows: prompts
                .iter()
                .cycle()
                .take(STRENGTHS.max(prompts.len()))
                .cloned()
                .collect(),
            samples: Vec::new(),
        };
        let begun = Instant::now();
        model.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, ctx)?;
        let row = begun.elapsed().as_secs_f64() / batch.rows.len() as f64;
        Ok(Self {
            token,
            strength: row * prompts.len() as f64,
        })
    }

    /// Seconds for so many directions and texts at most, beside their rating.
    pub fn seconds(&self, config: &SteeringConfig, directions: usize, texts: usize) -> f64 {
        let searched = if config.mirrored { 1 } else { 2 };
        // A bisection goes on for each target apart; the curve is one for all of them.
        let tried = match config.search {
            SearchMethod::Bisection => BISECTIONS * config.targets.len(),
            SearchMethod::Curve => CURVE + config.targets.len(),
        };
        let tokens = texts * config.sampling.max_tokens;
        self.token * tokens as f64 + self.strength * (directions * searched * tried) as f64
    }
}

/// Strengths that a bisection tries for a target at most, and that a curve begins with.
const BISECTIONS: usize = 20;
const CURVE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_strengths_are_added_up() {
        let pace = Pace {
            token: 0.5,
            strength: 0.25,
        };
        let paper = SteeringConfig::paper();
        // 3 directions, 7 targets, 8 texts of 50 tokens for each sign.
        let texts = super::super::texts_of(3, &paper);
        assert_eq!(texts, 336);
        let wanted = 0.5 * 336.0 * 50.0 + 0.25 * 3.0 * 7.0 * 20.0;
        assert!((pace.seconds(&paper, 3, texts) - wanted).abs() < 1e-9);
        let both = SteeringConfig {
            mirrored: false,
            ..paper
        };
        let more = pace.seconds(&both, 3, texts) - wanted;
        assert!((more - 0.25 * 3.0 * 7.0 * 20.0).abs() < 1e-9);
    }
}
