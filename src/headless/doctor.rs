//! `mlpeek doctor`: what this machine can do, and a parity self-test of a model.

use candle_core::{DType, Tensor};
use serde_json::json;

use super::{Output, default_options, open_model};
use crate::amounts::bytes;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use crate::model::encoder::SentenceEncoder;
use crate::model::{Batch, BosRule, Logits, Model, NoTap, Phase};
use crate::task::TaskCtx;

/// Plain prose that every model of English has an opinion on; written for this test.
const PARAGRAPH: &str = "The river had risen in the night, and by morning the lower road was under water. Two men in a \
    small boat went from house to house, asking whether anyone needed bread or milk. At the school the teacher lit the \
    stove and waited, because she knew that some of the children would come in any case.";

/// Relative difference of logits up to which two ways of computing them count as equal, in f32 and
/// in half precision.
const TOLERANCE: [f64; 2] = [1e-4, 5e-2];
/// The same of the quantised kernels, which round activations to eight bits in every layer, and the
/// widened weights.
const QUANTISED_TOLERANCE: f64 = 0.2;

struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

pub(super) fn run(args: &DoctorArgs, out: &mut Output) -> Result<()> {
    let mut checks = machine();
    if args.model.is_some() {
        let ctx = out.task();
        let model = open_model(
            args.model.as_deref(),
            &default_options(args.device, None),
            out,
            &ctx,
        )?;
        checks.extend(about(&model)?);
        checks.extend(parity(&model, &ctx)?);
    }
    if args.encoder.is_some() {
        let ctx = out.task();
        let encoder = super::encoder::open(args.encoder.as_deref(), out, &ctx)?;
        checks.extend(encodes(&encoder, &ctx)?);
    }
    for check in &checks {
        if out.is_json() {
            out.object(&json!({"check": check.name, "ok": check.ok, "detail": check.detail}))?;
        } else {
            out.line(&format!(
                "{} {:<20} {}",
                if check.ok { "✓" } else { "✗" },
                check.name,
                check.detail
            ))?;
        }
    }
    match checks.iter().filter(|c| !c.ok).count() {
        0 => Ok(()),
        failed => Err(Error::refused(format!(
            "{failed} of {} checks failed",
            checks.len()
        ))),
    }
}

/// Two texts that mean alike and one of something else, alone and together.
fn encodes(encoder: &SentenceEncoder, ctx: &TaskCtx) -> Result<[Check; 2]> {
    const TEXTS: [&str; 3] = [
        "The boat left the harbour with the tide.",
        "A ship sailed out to sea.",
        PARAGRAPH,
    ];
    let together = encoder.embed(&TEXTS, ctx)?;
    let mut largest = 0.0f32;
    for (text, beside) in TEXTS.iter().zip(&together) {
        let alone = encoder.embed(&[text], ctx)?.concat();
        let off = alone.iter().zip(beside).map(|(a, b)| (a - b).abs());
        largest = off.fold(largest, f32::max);
    }
    let cosine = |a: usize, b: usize| -> f32 {
        let pairs = together[a].iter().zip(&together[b]);
        pairs.map(|(x, y)| x * y).sum()
    };
    let (alike, unlike) = (cosine(0, 1), cosine(1, 2));
    Ok([
        Check {
            name: "texts beside others",
            ok: largest < 1e-5,
            detail: format!("embeddings differ by {largest:.1e} from those of texts alone"),
        },
        Check {
            name: "meaning",
            ok: alike > unlike,
            detail: format!(
                "cosine {alike:.2} of two texts that mean alike, {unlike:.2} of two that do not"
            ),
        },
    ])
}

fn machine() -> Vec<Check> {
    let build = if cfg!(feature = "cuda") {
        "built with cuda"
    } else if cfg!(feature = "metal") {
        "built with metal"
    } else {
        "built for the CPU"
    };
    let device = match crate::model::unused_gpu() {
        Some(note) => format!("{build}; {note}"),
        None => build.to_owned(),
    };
    let threads = rayon::current_num_threads();
    let mut checks = vec![
        Check {
            name: "device",
            ok: true,
            detail: device,
        },
        Check {
            name: "threads",
            ok: true,
            detail: threads.to_string(),
        },
    ];
    match crate::memory::available() {
        Ok(Some(free)) => checks.push(Check {
            name: "free memory",
            ok: free > 1 << 30,
            detail: bytes(free),
        }),
        Ok(None) => {}
        Err(e) => checks.push(Check {
            name: "free memory",
            ok: false,
            detail: e.to_string(),
        }),
    }
    checks.push(match crate::study::home() {
        Ok(dir) => Check {
            name: "data directory",
            ok: true,
            detail: dir.display().to_string(),
        },
        Err(e) => Check {
            name: "data directory",
            ok: false,
            detail: e.to_string(),
        },
    });
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "unset".to_owned());
    let terminal = ["TERM", "COLORTERM", "NO_COLOR", "TMUX", "SSH_CONNECTION"]
        .map(|n| format!("{n}={}", variable(n)));
    checks.push(Check {
        name: "terminal",
        ok: true,
        detail: terminal.join(" "),
    });
    checks
}

/// What the model is, and whether its tokenizer gives a text back.
fn about(model: &Model) -> Result<Vec<Check>> {
    let info = model.info();
    let detail = format!(
        "{}, {} layers, {} wide, {} neurons, {} of {} on {}, computed in {}",
        info.family,
        info.layers,
        info.d_model,
        info.d_mlp,
        bytes(info.weight_bytes),
        info.weights_dtype,
        info.device,
        info.compute_dtype
    );
    let ids = model.tokenizer().encode(PARAGRAPH, BosRule::Never)?;
    let same = model.tokenizer().decode(&ids).trim_start() == PARAGRAPH;
    let back = if same {
        "come back as the text that they were made of"
    } else {
        "do not come back as the same text"
    };
    Ok(vec![
        Check {
            name: "model",
            ok: true,
            detail,
        },
        Check {
            name: "tokenizer",
            ok: same,
            detail: format!("{} tokens {back}", ids.len()),
        },
    ])
}

fn parity(model: &Model, ctx: &TaskCtx) -> Result<Vec<Check>> {
    let ids = model.tokenizer().encode(PARAGRAPH, BosRule::Auto)?;
    let half = ids.len() / 2;
    let whole = logits(model, std::slice::from_ref(&ids), ctx)?.get(0)?;
    let (tokens, _) = whole.dims2()?;
    let values: Vec<f32> = whole.flatten_all()?.to_vec1()?;
    let finite = values.iter().all(|v| v.is_finite());
    let perplexity = perplexity(&whole, &ids)?;

    let mut cache = model.new_cache(1);
    let first = one(&ids[..half]);
    model.forward(
        &first,
        Phase::Prompt,
        Some(&mut cache),
        &mut NoTap,
        Logits::None,
        ctx,
    )?;
    let cached = model
        .forward(
            &one(&ids[half..]),
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            ctx,
        )?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .to_dtype(DType::F32)?
        .squeeze(0)?;
    let cache_error = difference(&cached, &whole.get(tokens - 1)?)?;

    let batched = logits(model, &[ids[..half].to_vec(), ids.clone()], ctx)?;
    let batch_error = difference(&batched.get(1)?, &whole)?.max(difference(
        &batched.get(0)?.narrow(0, 0, half)?,
        &whole.narrow(0, 0, half)?,
    )?);

    let mut cache = model.new_cache(1);
    model.forward(
        &one(&ids[..tokens - 1]),
        Phase::Prompt,
        Some(&mut cache),
        &mut NoTap,
        Logits::None,
        ctx,
    )?;
    let generated = model
        .forward(
            &one(&ids[tokens - 1..]),
            Phase::Generated,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            ctx,
        )?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .squeeze(0)?;
    let generated_error = difference(&generated, &whole.get(tokens - 1)?)?;

    let prose = perplexity.is_finite() && perplexity < 100.0;
    let tolerance = TOLERANCE[usize::from(model.info().compute_dtype != "f32")];
    let equal = |e: f64| e.is_finite() && e < tolerance;
    let compared =
        |e: f64, most: f64| format!("largest relative difference {e:.1e} (at most {most:.0e})");
    Ok(vec![
        Check {
            name: "finite logits",
            ok: finite,
            detail: format!("{} values", values.len()),
        },
        Check {
            name: "cache = full pass",
            ok: equal(cache_error),
            detail: compared(cache_error, tolerance),
        },
        Check {
            name: "batch = single",
            ok: equal(batch_error),
            detail: compared(batch_error, tolerance),
        },
        Check {
            name: "generated = prompt",
            ok: generated_error.is_finite() && generated_error < QUANTISED_TOLERANCE,
            detail: compared(generated_error, QUANTISED_TOLERANCE),
        },
        Check {
            name: "perplexity",
            ok: prose,
            detail: format!(
                "{perplexity:.1} on a paragraph of {} tokens (a sound model of English stays below 100)",
                ids.len()
            ),
        },
    ])
}

fn one(ids: &[u32]) -> Batch {
    Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    }
}

fn logits(model: &Model, rows: &[Vec<u32>], ctx: &TaskCtx) -> Result<Tensor> {
    let batch = Batch {
        rows: rows.to_vec(),
        samples: Vec::new(),
    };
    Ok(model
        .forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::All, ctx)?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .to_dtype(DType::F32)?)
}

/// Largest |a − b| over the largest |b|.
fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b): (Vec<f32>, Vec<f32>) = (a.flatten_all()?.to_vec1()?, b.flatten_all()?.to_vec1()?);
    let scale = b.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    Ok(a.iter()
        .zip(&b)
        .fold(0f64, |m, (x, y)| m.max(f64::from((x - y).abs())))
        / scale)
}

/// exp(mean −log p(next token)).
fn perplexity(logits: &Tensor, ids: &[u32]) -> Result<f64> {
    let rows: Vec<Vec<f32>> = logits.to_vec2()?;
    let losses = rows.iter().zip(&ids[1..]).map(|(row, &next)| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        sum.ln() - f64::from(row[next as usize] - max)
    });
    let count = ids.len().saturating_sub(1).max(1);
    Ok((losses.sum::<f64>() / count as f64).exp())
}
