//! `mlpeek doctor`: what this machine can do, and a parity self-test of a model.

use serde_json::json;

use super::{Output, default_options, open_model};
use crate::amounts::bytes;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use crate::jobs::self_test::{self, Difference, EncoderTest, SOUND_PERPLEXITY, SelfTest};
use crate::model::Model;

/// A thing that was looked at, and what it came to.
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
        checks.extend(about(&model, &self_test::run(&model, &ctx)?));
    }
    if args.encoder.is_some() {
        let ctx = out.task();
        let encoder = super::encoder::open(args.encoder.as_deref(), out, &ctx)?;
        checks.extend(encodes(&self_test::encoder(&encoder, &ctx)?));
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

/// How a sentence encoder's own test went.
fn encodes(test: &EncoderTest) -> [Check; 2] {
    let EncoderTest {
        largest,
        alike,
        unlike,
    } = *test;
    [
        Check {
            name: "texts beside others",
            ok: test.is_same_beside_others(),
            detail: format!("embeddings differ by {largest:.1e} from those of texts alone"),
        },
        Check {
            name: "meaning",
            ok: alike > unlike,
            detail: format!(
                "cosine {alike:.2} of two texts that mean alike, {unlike:.2} of two that do not"
            ),
        },
    ]
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

/// What the model is, and how its own test went.
fn about(model: &Model, test: &SelfTest) -> Vec<Check> {
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
    let back = if test.is_text_back {
        "come back as the text that they were made of"
    } else {
        "do not come back as the same text"
    };
    let compared = |name, difference: Difference| Check {
        name,
        ok: difference.is_equal(),
        detail: format!(
            "largest relative difference {:.1e} (at most {:.0e})",
            difference.found, difference.allowed
        ),
    };
    vec![
        Check {
            name: "model",
            ok: true,
            detail,
        },
        Check {
            name: "tokenizer",
            ok: test.is_text_back,
            detail: format!("{} tokens {back}", test.text_tokens),
        },
        Check {
            name: "finite logits",
            ok: test.is_finite,
            detail: format!("{} values", test.logits),
        },
        compared("cache = full pass", test.cached),
        compared("batch = single", test.batched),
        compared("generated = prompt", test.generated),
        Check {
            name: "perplexity",
            ok: test.is_sound(),
            detail: format!(
                "{:.1} on a paragraph of {} tokens (a sound model of English stays below {SOUND_PERPLEXITY})",
                test.perplexity, test.tokens
            ),
        },
    ]
}
