//! `mlpeek doctor`: what this machine can do, and a parity self-test of a model.

use candle_core::DType;
use serde_json::json;

use super::{Output, open_files};
use crate::amounts::bytes;
use crate::cli::DoctorArgs;
use crate::error::{Error, Result};
use crate::jobs::device_test::{self, Check};
use crate::jobs::self_test::{self, Difference, EncoderTest, SOUND_PERPLEXITY, SelfTest};
use crate::model::{BosRule, Compute, DeviceChoice, Model, source};
use crate::task::TaskCtx;

/// Prints checks as they are made, and counts them.
struct Report<'a> {
    out: &'a mut Output,
    made: usize,
    failed: usize,
}

impl Report<'_> {
    fn tell(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<()> {
        for check in checks {
            self.made += 1;
            self.failed += usize::from(!check.ok);
            if self.out.is_json() {
                self.out.object(
                    &json!({"check": check.name, "ok": check.ok, "detail": check.detail}),
                )?;
            } else {
                let mark = if check.ok { "✓" } else { "✗" };
                self.out
                    .line(&format!("{mark} {:<20} {}", check.name, check.detail))?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(args: &DoctorArgs, out: &mut Output) -> Result<()> {
    let options = args.compute.options(None);
    if args.compute.dtype.is_some() && args.compute.device.is_none() && args.model.is_none() {
        return Err(Error::usage(
            "--dtype has no effect without --device or --model: name one of them too",
        ));
    }
    let mut report = Report {
        out,
        made: 0,
        failed: 0,
    };
    report.tell(machine())?;
    let ctx = report.out.task();
    let tested = match args.compute.device {
        Some(device) => test_device(device, options.dtype, &mut report, &ctx)?,
        None => Tested::None,
    };
    if let (Some(spec), Tested::Opened(_) | Tested::None) = (&args.model, &tested) {
        let files = source::resolve(Some(spec), &ctx)?;
        let model = open_files(&files, &options, report.out, &ctx)?;
        report.tell(about(&model, &self_test::run(&model, &ctx)?))?;
        if let Tested::Opened(device) = &tested {
            let ids = model
                .tokenizer()
                .encode(self_test::PARAGRAPH, BosRule::Auto)?;
            report.tell(device.first_layers(&files, &ids, &ctx)?)?;
            report.tell(device.model_rates(&model, &ctx)?)?;
        }
    }
    if args.encoder.is_some() {
        let encoder = super::encoder::open(args.encoder.as_deref(), report.out, &ctx)?;
        report.tell(encodes(&self_test::encoder(&encoder, &ctx)?))?;
    }
    match (report.failed, report.made) {
        (0, _) => Ok(()),
        (failed, made) => Err(Error::refused(format!("{failed} of {made} checks failed"))),
    }
}

/// A device that was to be tested.
enum Tested {
    /// None was named.
    None,
    /// The device is absent, and no model is run on it.
    Missing,
    Opened(device_test::Tested),
}

/// Tests a device that the user named; one that cannot be opened is a check that failed.
fn test_device(
    device: DeviceChoice,
    dtype: Option<DType>,
    report: &mut Report<'_>,
    ctx: &TaskCtx,
) -> Result<Tested> {
    let tested = match device_test::Tested::open(Compute { device, dtype }) {
        Ok(tested) => tested,
        Err(e @ (Error::Usage(_) | Error::Cancelled)) => return Err(e),
        Err(e) => {
            report.tell([Check {
                name: device.to_string(),
                ok: false,
                detail: e.to_string(),
            }])?;
            return Ok(Tested::Missing);
        }
    };
    report.tell(tested.facts())?;
    report.tell(tested.comparisons(ctx)?)?;
    report.tell(tested.rates(ctx)?)?;
    Ok(Tested::Opened(tested))
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
            name: "texts beside others".into(),
            ok: test.is_same_beside_others(),
            detail: format!("embeddings differ by {largest:.1e} from those of texts alone"),
        },
        Check {
            name: "meaning".into(),
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
            name: "device".into(),
            ok: true,
            detail: device,
        },
        Check {
            name: "threads".into(),
            ok: true,
            detail: threads.to_string(),
        },
    ];
    match crate::memory::available() {
        Ok(Some(free)) => checks.push(Check {
            name: "free memory".into(),
            ok: free > 1 << 30,
            detail: bytes(free),
        }),
        Ok(None) => {}
        Err(e) => checks.push(Check {
            name: "free memory".into(),
            ok: false,
            detail: e.to_string(),
        }),
    }
    checks.push(match crate::study::home() {
        Ok(dir) => Check {
            name: "data directory".into(),
            ok: true,
            detail: dir.display().to_string(),
        },
        Err(e) => Check {
            name: "data directory".into(),
            ok: false,
            detail: e.to_string(),
        },
    });
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "unset".to_owned());
    let terminal = ["TERM", "COLORTERM", "NO_COLOR", "TMUX", "SSH_CONNECTION"]
        .map(|n| format!("{n}={}", variable(n)));
    checks.push(Check {
        name: "terminal".into(),
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
    let compared = |name: &str, difference: Difference| Check {
        name: name.into(),
        ok: difference.is_equal(),
        detail: format!(
            "largest relative difference {:.1e} (at most {:.0e})",
            difference.found, difference.allowed
        ),
    };
    vec![
        Check {
            name: "model".into(),
            ok: true,
            detail,
        },
        Check {
            name: "tokenizer".into(),
            ok: test.is_text_back,
            detail: format!("{} tokens {back}", test.text_tokens),
        },
        Check {
            name: "finite logits".into(),
            ok: test.is_finite,
            detail: format!("{} values", test.logits),
        },
        compared("cache = full pass", test.cached),
        compared("batch = single", test.batched),
        compared("generated = prompt", test.generated),
        Check {
            name: "perplexity".into(),
            ok: test.is_sound(),
            detail: format!(
                "{:.1} on a paragraph of {} tokens (a sound model of English stays below {SOUND_PERPLEXITY})",
                test.perplexity, test.tokens
            ),
        },
    ]
}
