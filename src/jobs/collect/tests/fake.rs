//! A model whose activations tell what they are of, and what the tests of collecting run it on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};

use super::super::*;
use crate::activations::store::CacheDtype;
use crate::corpus::Sample;
use crate::model::{HookPoint, HookSite, ModelInfo, Pass};
use crate::task::CancelToken;

pub(super) const HOOKS: [HookPoint; 2] = [
    HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    },
    HookPoint {
        layer: 3,
        site: HookSite::MlpOut,
    },
];
pub(super) const WIDTHS: [usize; 2] = [4, 3];
pub(super) const BOS: u32 = 1;
pub(super) const CONTEXT: usize = 8;

pub(super) struct Info(ModelInfo);

impl Default for Info {
    fn default() -> Self {
        Self(model())
    }
}

/// A token a letter; activations tell the hook, the token, its place in its row and the BOS before
/// it.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) bos: bool,
    /// Cancelled or failing at this pass.
    pub(super) stop_at: Option<usize>,
    pub(super) cancel: CancelToken,
    /// More padded tokens than this fill its memory, once the first hook was called.
    pub(super) holds: Option<usize>,
    /// NaN for this letter.
    pub(super) poison: Option<char>,
    pub(super) passes: AtomicUsize,
    pub(super) info: Info,
    /// (rows, padded length) of each pass.
    pub(super) shapes: Mutex<Vec<(usize, usize)>>,
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

pub(super) fn value(hook: usize, id: u32, at: usize, col: usize) -> f32 {
    (hook * 100_000 + id as usize * 100 + at * 10 + col) as f32
}

pub(super) fn corpus(texts: &[&str]) -> Corpus {
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

pub(super) fn model() -> ModelInfo {
    let text = r#"{"id":"m","origin":"","family":"","layers":4,"d_model":3,"d_mlp":4,"vocab":9,"context":8,"device":"cpu",
        "weights_dtype":"","compute_dtype":"","weight_bytes":0,"weights_sha256":"w","tokenizer_sha256":"t","notes":[]}"#;
    serde_json::from_str(text).unwrap()
}

pub(super) fn study(dir: &std::path::Path, corpus: &Corpus) -> Study {
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

pub(super) fn run_silent(fake: &Fake, corpus: &Corpus, study: &mut Study) -> Result<Collected> {
    let ctx = TaskCtx::new(fake.cancel.clone(), |_| {});
    run(fake, corpus, study, Add::Never(BosRule::Auto), &ctx)
}

/// All values of both hooks.
pub(super) fn content(study: &Study) -> Vec<Vec<f32>> {
    let values_of = |&hook: &HookPoint| {
        let source = study.activations(hook).unwrap();
        source.rows(0..source.shape().0).unwrap().data.into_owned()
    };
    HOOKS.iter().map(values_of).collect()
}

/// Short texts, texts longer than the context and than a group, texts without tokens.
pub(super) fn varied() -> Corpus {
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
