use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::estimate::estimate_with;
use super::*;
use crate::activations::store::CacheDtype;
use crate::corpus::Sample;
use crate::model::{HookPoint, HookSite, ModelInfo, Pass};
use crate::task::{CancelToken, Progress};
use candle_core::{Device, Tensor};

const HOOKS: [HookPoint; 2] = [
    HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    },
    HookPoint {
        layer: 3,
        site: HookSite::MlpOut,
    },
];
const WIDTHS: [usize; 2] = [4, 3];
const BOS: u32 = 1;
const CONTEXT: usize = 8;

struct Info(ModelInfo);

impl Default for Info {
    fn default() -> Self {
        Self(model())
    }
}

/// A token a letter; activations tell the hook, the token, its place in its row and the BOS before
/// it.
#[derive(Default)]
struct Fake {
    bos: bool,
    /// Cancelled or failing at this pass.
    stop_at: Option<usize>,
    cancel: CancelToken,
    /// More padded tokens than this fill its memory, once the first hook was called.
    holds: Option<usize>,
    /// NaN for this letter.
    poison: Option<char>,
    passes: AtomicUsize,
    info: Info,
    /// (rows, padded length) of each pass.
    shapes: Mutex<Vec<(usize, usize)>>,
}

impl Runner for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info.0
    }
    fn width(&self, hook: HookPoint) -> Result<usize> {
        Ok(WIDTHS[HOOKS.iter().position(|&h| h == hook).unwrap()])
    }
    fn encode(&self, text: &str, rule: BosRule) -> Result<Vec<u32>> {
        let bos = (self.bos && rule != BosRule::Never).then_some(BOS);
        Ok(bos
            .into_iter()
            .chain(text.chars().map(|c| c as u32))
            .collect())
    }
    fn bos(&self) -> Option<u32> {
        self.bos.then_some(BOS)
    }
    fn piece(&self, id: u32) -> String {
        char::from_u32(id).unwrap().to_string()
    }
    fn context(&self) -> usize {
        CONTEXT
    }
    fn batch_tokens(&self) -> usize {
        16
    }
    fn device(&self) -> &Device {
        &Device::Cpu
    }
    fn remedy(&self, _: usize) -> String {
        "take it out".to_owned()
    }
    fn forward(&self, batch: &Batch, tap: &mut dyn Tap, ctx: &TaskCtx) -> Result<()> {
        ctx.check()?;
        if Some(self.passes.fetch_add(1, Ordering::Relaxed)) == self.stop_at {
            self.cancel.cancel();
        }
        let lengths: Vec<usize> = batch.rows.iter().map(Vec::len).collect();
        let longest = *lengths.iter().max().unwrap();
        assert!(longest <= CONTEXT);
        self.shapes.lock().unwrap().push((lengths.len(), longest));
        let starts = vec![0; lengths.len()];
        let pass = Pass {
            starts: &starts,
            lengths: &lengths,
            samples: &batch.samples,
            phase: Phase::Prompt,
        };
        for (h, hook) in tap.hooks().to_vec().into_iter().enumerate() {
            let mut data = Vec::new();
            for row in &batch.rows {
                for at in 0..longest {
                    let id = row.get(at).copied().unwrap_or(7777);
                    let poisoned = self.poison.is_some_and(|c| c as u32 == id);
                    data.extend((0..WIDTHS[h]).map(|c| {
                        if poisoned && c == 2 {
                            f32::NAN
                        } else {
                            value(h, id, at, c)
                        }
                    }));
                }
            }
            let x = Tensor::from_vec(data, (lengths.len(), longest, WIDTHS[h]), &Device::Cpu)?;
            assert!(tap.intercept(&pass, hook, &x)?.is_none());
            if self
                .holds
                .is_some_and(|most| lengths.len() * longest > most)
            {
                let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
                return Err(candle_core::Error::Msg(full.into()).into());
            }
        }
        Ok(())
    }
}

fn value(hook: usize, id: u32, at: usize, col: usize) -> f32 {
    (hook * 100_000 + id as usize * 100 + at * 10 + col) as f32
}

fn corpus(texts: &[&str]) -> Corpus {
    let samples = texts
        .iter()
        .map(|t| Sample {
            text: (*t).to_owned(),
            label: None,
        })
        .collect();
    Corpus {
        name: "test".into(),
        samples,
        sha256: format!("{texts:?}"),
    }
}

fn model() -> ModelInfo {
    let text = r#"{"id":"m","origin":"","family":"","layers":4,"d_model":3,"d_mlp":4,"vocab":9,"context":8,"device":"cpu",
        "weights_dtype":"","compute_dtype":"","weight_bytes":0,"weights_sha256":"w","tokenizer_sha256":"t","notes":[]}"#;
    serde_json::from_str(text).unwrap()
}

fn study(dir: &std::path::Path, corpus: &Corpus) -> Study {
    Study::create(
        dir,
        Some(&model()),
        &HOOKS,
        &WIDTHS,
        corpus,
        CacheDtype::F32,
        BosRule::Auto,
    )
    .unwrap()
}

fn run_silent(fake: &Fake, corpus: &Corpus, study: &mut Study) -> Result<Collected> {
    let ctx = TaskCtx::new(fake.cancel.clone(), |_| {});
    run(fake, corpus, study, Add::Never(BosRule::Auto), &ctx)
}

/// All values of both hooks.
fn content(study: &Study) -> Vec<Vec<f32>> {
    let values_of = |&hook: &HookPoint| {
        let source = study.activations(hook).unwrap();
        source.rows(0..source.shape().0).unwrap().data.into_owned()
    };
    HOOKS.iter().map(values_of).collect()
}

/// Short texts, texts longer than the context and than a group, texts without tokens.
fn varied() -> Corpus {
    let long = "the quick brown fox jumps over the lazy dog and runs on and on until nobody can follow it any more";
    corpus(&[
        "ab",
        "",
        long,
        "c",
        "defghij",
        "klmnopqrstu",
        "",
        "vw",
        "xyz",
        "a",
        "b",
        "c",
        "d",
        "efgh",
        "ij",
        long,
        "k",
        "",
    ])
}

#[test]
fn every_token_is_a_row_of_its_sample_in_order() {
    for bos in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let corpus = varied();
        let mut study = study(dir.path(), &corpus);
        let fake = Fake {
            bos,
            ..Fake::default()
        };
        let done = run_silent(&fake, &corpus, &mut study).unwrap();
        let tokens = study.tokens().unwrap();
        let skip = usize::from(bos);
        let letters: usize = corpus.samples.iter().map(|s| s.text.chars().count()).sum();
        assert_eq!(
            (done.tokens, done.samples, done.windowed),
            (letters, corpus.samples.len(), 3),
            "bos {bos}"
        );
        let data = content(&study);
        let mut row = 0;
        for (sample, text) in corpus.samples.iter().enumerate() {
            for (i, c) in text.text.chars().enumerate() {
                let found = tokens.rows[row];
                assert_eq!(
                    (found.id, found.sample, found.position),
                    (c as u32, sample as u32, (i + skip) as u32)
                );
                assert_eq!(tokens.piece(row), c.to_string());
                // Each window has its own BOS and its own places.
                let at = i % (CONTEXT - skip) + skip;
                for (h, width) in WIDTHS.into_iter().enumerate() {
                    let expected: Vec<f32> =
                        (0..width).map(|col| value(h, c as u32, at, col)).collect();
                    assert_eq!(
                        &data[h][row * width..(row + 1) * width],
                        expected,
                        "sample {sample}, token {i}"
                    );
                }
                row += 1;
            }
        }
        assert_eq!(row, tokens.rows.len());
        study.verify().unwrap();
    }
}

#[test]
fn batches_keep_to_the_budget_and_put_like_lengths_together() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..32).map(|i| "x".repeat(1 + i * 5 % 7)).collect();
    let corpus = corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let fake = Fake::default();
    run_silent(&fake, &corpus, &mut study(dir.path(), &corpus)).unwrap();
    let shapes = fake.shapes.lock().unwrap();
    let padded: usize = shapes.iter().map(|(rows, length)| rows * length).sum();
    let real: usize = texts.iter().map(String::len).sum();
    assert!(
        shapes.iter().all(|(rows, length)| rows * length <= 16),
        "{shapes:?}"
    );
    assert!(padded * 4 < real * 5, "{padded} padded for {real} tokens");
}

#[test]
fn a_device_that_is_full_is_given_less_and_the_rows_are_the_same() {
    let corpus = varied();
    let rows = |holds| {
        let dir = tempfile::tempdir().unwrap();
        let mut study = study(dir.path(), &corpus);
        let fake = Fake {
            holds,
            ..Fake::default()
        };
        run_silent(&fake, &corpus, &mut study).map(|_| {
            study.verify().unwrap();
            content(&study)
        })
    };
    let whole = rows(None).unwrap();
    assert!(rows(Some(CONTEXT)).unwrap() == whole);
    // A device that does not hold one text: the error says so, and no study is left behind.
    let error = rows(Some(CONTEXT - 1)).unwrap_err();
    assert!(
        error.is_device_full() && error.to_string().contains("no more than 8 tokens"),
        "{error}"
    );
}

#[test]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_bytes() {
    let corpus = varied();
    let whole_dir = tempfile::tempdir().unwrap();
    let mut whole = study(whole_dir.path(), &corpus);
    let fake = Fake {
        bos: true,
        ..Fake::default()
    };
    let done = run_silent(&fake, &corpus, &mut whole).unwrap();
    let passes = fake.passes.into_inner();
    assert!(passes > 10);
    let mut kept = 0;
    for stop in 0..passes {
        let dir = tempfile::tempdir().unwrap();
        let mut study = study(dir.path(), &corpus);
        let fake = Fake {
            bos: true,
            stop_at: Some(stop),
            ..Fake::default()
        };
        let error = run_silent(&fake, &corpus, &mut study).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(!study.manifest().complete);
        kept += study.tokens().unwrap().rows.len();
        drop(study);
        let mut study = super::tests::study(dir.path(), &corpus);
        let second = Fake {
            bos: true,
            ..Fake::default()
        };
        let resumed = run_silent(&second, &corpus, &mut study).unwrap();
        assert_eq!(
            (resumed.tokens, resumed.samples),
            (done.tokens, done.samples)
        );
        assert_eq!(content(&study), content(&whole), "stopped at pass {stop}");
        assert_eq!(study.tokens().unwrap().rows, whole.tokens().unwrap().rows);
        // Also the same batches, so that a real model gives the same bits.
        let shapes = second.shapes.into_inner().unwrap();
        let all = fake_shapes(&corpus);
        assert_eq!(
            shapes,
            all[all.len() - shapes.len()..],
            "stopped at pass {stop}"
        );
    }
    assert!(kept > 0, "what was complete stays");
}

fn fake_shapes(corpus: &Corpus) -> Vec<(usize, usize)> {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake {
        bos: true,
        ..Fake::default()
    };
    run_silent(&fake, corpus, &mut study(dir.path(), corpus)).unwrap();
    fake.shapes.into_inner().unwrap()
}

#[test]
fn a_complete_study_is_not_collected_again() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = varied();
    let mut study = study(dir.path(), &corpus);
    run_silent(&Fake::default(), &corpus, &mut study).unwrap();
    let fake = Fake::default();
    let again = run_silent(&fake, &corpus, &mut study).unwrap();
    assert_eq!(fake.passes.into_inner(), 0);
    assert_eq!(again.tokens, study.manifest().rows);
}

#[test]
fn an_added_corpus_goes_on_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (corpus(&["ab", "c"]), corpus(&["de"]));
    let mut study = study(dir.path(), &first);
    run_silent(&Fake::default(), &first, &mut study).unwrap();
    assert!(
        run_silent(&Fake::default(), &second, &mut study)
            .unwrap_err()
            .to_string()
            .contains("not a corpus of")
    );
    study.append(&second).unwrap();
    let done = run_silent(&Fake::default(), &second, &mut study).unwrap();
    assert_eq!((done.tokens, done.samples), (5, 3));
    assert_eq!(study.tokens().unwrap().rows[4].sample, 2);
    assert!(study.manifest().complete);
    // The first is still the study's, and complete.
    assert_eq!(
        run_silent(&Fake::default(), &first, &mut study)
            .unwrap()
            .tokens,
        5
    );
}

#[test]
fn nan_is_refused_naming_sample_token_and_neuron_and_what_came_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..60)
        .map(|i| {
            if i == 50 {
                "ab!c".into()
            } else {
                "abc".to_owned()
            }
        })
        .collect();
    let corpus = corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut study = study(dir.path(), &corpus);
    let fake = Fake {
        poison: Some('!'),
        ..Fake::default()
    };
    let error = run_silent(&fake, &corpus, &mut study)
        .unwrap_err()
        .to_string();
    for part in [
        "sample 50",
        "ab!c",
        "neuron 2",
        "blocks.0.mlp.hook_post",
        "NaN",
        "\"!\"",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let kept = study.tokens().unwrap().rows.len();
    assert!((90..=150).contains(&kept), "{kept}");
    assert!(content(&study).iter().flatten().all(|v| v.is_finite()));
}

#[test]
fn another_bos_rule_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(&["ab"]);
    let mut study = study(dir.path(), &corpus);
    let error = run(
        &Fake::default(),
        &corpus,
        &mut study,
        Add::Never(BosRule::Never),
        &TaskCtx::silent(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("auto, not never"), "{error}");
}

#[test]
fn progress_counts_tokens_to_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = varied();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let ctx = TaskCtx::new(CancelToken::default(), move |p: Progress| {
        into.lock().unwrap().push(p)
    });
    let mut study = study(dir.path(), &corpus);
    run(
        &Fake::default(),
        &corpus,
        &mut study,
        Add::Never(BosRule::Auto),
        &ctx,
    )
    .unwrap();
    let seen = seen.lock().unwrap();
    let collecting: Vec<_> = seen.iter().filter(|p| p.stage == "collecting").collect();
    assert!(collecting.is_sorted_by_key(|p| p.done) && collecting.len() > 10);
    let last = collecting.last().unwrap();
    assert_eq!(
        (Some(last.done), last.unit.as_str()),
        (last.total, "tokens")
    );
}

#[test]
fn the_estimate_is_what_is_then_written() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = varied();
    let fake = Fake {
        bos: true,
        ..Fake::default()
    };
    let estimate = estimate_with(
        &fake,
        &corpus,
        &WIDTHS,
        CacheDtype::F32,
        BosRule::Auto,
        &TaskCtx::silent(),
    )
    .unwrap();
    let done = run_silent(&fake, &corpus, &mut study(dir.path(), &corpus)).unwrap();
    assert_eq!(
        (estimate.tokens, estimate.windowed),
        (done.tokens, done.windowed)
    );
    assert_eq!(estimate.bytes, done.tokens as u64 * (4 * 7 + 8));
    assert_eq!(
        Estimate::rough(&corpus, &WIDTHS, CacheDtype::F16).samples,
        corpus.samples.len()
    );
}
