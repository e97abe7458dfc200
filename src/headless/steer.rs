//! `mlpeek steer`.

use serde_json::json;

use super::{Output, model_of, open_fit};
use crate::analysis::ScoredToken;
use crate::cli::SteerArgs;
use crate::engine::{SteerAsk, SteerPart, steering};
use crate::error::{Error, Result};
use crate::model::generate::Sampling;
use crate::steering::{Positions, SteerEvent, Strength, steer};

pub(super) fn run(args: &SteerArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let ask = ask(args)?;
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref())?;
    let model = model_of(&study, args.device, None, out, &ctx)?;
    let request = steering::request(&model, entry.hook, &factors, &ask, study.manifest().bos)?;
    let mut failed = None;
    let mut emit = |event: SteerEvent| {
        if out.is_json() {
            return;
        }
        if let Err(e) = tell(&event, out) {
            failed.get_or_insert(e);
        }
    };
    let done = steer(&model, &request, &mut emit, &ctx)?;
    if let Some(e) = failed {
        return Err(e);
    }
    let info = &done.info;
    if out.is_json() {
        let shifted = |tokens: &[ScoredToken]| -> Vec<_> {
            tokens.iter().map(|t| json!({"token": t.token, "id": t.id, "delta": t.value})).collect()
        };
        return out.object(&json!({"fit": entry.name, "features": ask.features, "alpha": info.alpha, "kl": info.kl,
            "note": info.note, "prompt": ask.prompt, "baseline": one_or_all(&done.baseline),
            "steered": one_or_all(&done.steered), "risen": shifted(&info.risen), "fallen": shifted(&info.fallen)}));
    }
    for (i, (baseline, steered)) in done.baseline.iter().zip(&done.steered).enumerate() {
        out.line(&format!("\nbaseline {}  {}{}", i + 1, ask.prompt, plain(baseline)))?;
        out.line(&format!("steered  {}  {}{}", i + 1, ask.prompt, plain(steered)))?;
    }
    Ok(())
}

/// One text as a string, several as a list.
fn one_or_all(texts: &[String]) -> serde_json::Value {
    match texts {
        [one] => json!(one),
        all => json!(all),
    }
}

fn tell(event: &SteerEvent, out: &mut Output) -> Result<()> {
    let SteerEvent::Info(info) = event else { return Ok(()) };
    let list = |tokens: &[ScoredToken]| {
        tokens.iter().map(|t| format!("{} {:+.2}", plain(t.token.trim()), t.value)).collect::<Vec<_>>().join("  ")
    };
    out.line(&format!("α {:.3}  KL {:.4}", info.alpha, info.kl))?;
    if let Some(note) = &info.note {
        out.note(note);
    }
    out.line(&format!("risen   {}", list(&info.risen)))?;
    out.line(&format!("fallen  {}", list(&info.fallen)))
}

/// A model's text with everything that could command a terminal escaped.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' || !c.is_control() { c.to_string() } else { c.escape_default().to_string() })
        .collect()
}

fn ask(args: &SteerArgs) -> Result<SteerAsk> {
    let strength = match (args.alpha, args.kl) {
        (Some(alpha), _) => Strength::Alpha(finite(alpha, "--alpha")?),
        (None, kl) => Strength::Kl(positive(kl.unwrap_or(0.25), "--kl")?),
    };
    if args.samples == 0 {
        return Err(Error::usage("--samples must be at least 1"));
    }
    Ok(SteerAsk {
        features: features(&args.features)?,
        part: SteerPart::Whole,
        prompt: args.prompt.clone(),
        strength,
        negative: args.sign == "-",
        positions: if args.generated_only { Positions::Generated } else { Positions::All },
        samples: args.samples,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
            max_tokens: args.max_tokens,
        },
    })
}

fn finite(value: f64, name: &str) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::usage(format!("{name} must be a finite number"))) }
}

fn positive(value: f64, name: &str) -> Result<f64> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(Error::usage(format!("{name} must be above 0"))) }
}

/// `3`, or `3:1,17:-0.5`.
fn features(text: &str) -> Result<Vec<(usize, f32)>> {
    text.split(',')
        .map(|part| {
            let (id, weight) = part.trim().split_once(':').unwrap_or((part.trim(), "1"));
            match (id.parse(), weight.parse::<f32>()) {
                (Ok(id), Ok(weight)) if weight.is_finite() => Ok((id, weight)),
                _ => Err(Error::usage(format!(
                    "'{part}' is no feature: write its number, or number:weight, separated by commas"
                ))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_weights() {
        assert_eq!(features("3").unwrap(), [(3, 1.0)]);
        assert_eq!(features("3:2, 17:-0.5").unwrap(), [(3, 2.0), (17, -0.5)]);
        for bad in ["", "x", "3:", "3:nan", "1,,2", "-1"] {
            assert!(matches!(features(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
