//! What of a pass reaches the host and the study: in which dtype, in how many copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use super::*;
use crate::engine::testing::support;
use crate::model::{HookSite, host, source};

/// A random Llama that computes as a card does, in `dtype`, and a corpus for it.
fn tiny(dir: &std::path::Path, dtype: DType) -> (Model, Corpus) {
    let ctx = TaskCtx::silent();
    let files = source::resolve(support::tiny_model(dir).to_str(), &ctx).unwrap();
    let model = Model::open_generic(&files, dtype, &ctx).unwrap();
    let corpus = Corpus::open(&support::corpus(dir, 30)).unwrap();
    (model, corpus)
}

/// Two hooks of it.
fn hooks() -> [HookPoint; 2] {
    [
        HookPoint {
            layer: 1,
            site: HookSite::MlpPost,
        },
        HookPoint {
            layer: 2,
            site: HookSite::ResidPost,
        },
    ]
}

/// The rows of both hooks as a study in `dtype` gives them back, the study's bytes on disk, and the
/// batches that it took.
fn collected(model: &Model, corpus: &Corpus, dtype: CacheDtype) -> (Vec<Vec<f32>>, u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let widths = hooks().map(|hook| model.width(hook).unwrap());
    let (info, auto) = (Some(model.info()), BosRule::Auto);
    let mut study =
        Study::create(dir.path(), info, &hooks(), &widths, corpus, dtype, auto).unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = batches.clone();
    let ctx = TaskCtx::new(CancelToken::default(), move |p: Progress| {
        if p.stage == "collecting" {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    collect(model, corpus, &mut study, auto, &ctx).unwrap();
    study.verify().unwrap();
    let mut bytes = 0;
    let rows = hooks().map(|hook| {
        let source = study.activations(hook).unwrap();
        let cache = dir.path().join("cache").join(hook.to_string());
        for shard in std::fs::read_dir(cache).unwrap() {
            bytes += shard.unwrap().metadata().unwrap().len();
        }
        source.rows(0..source.shape().0).unwrap().data.into_owned()
    });
    (rows.to_vec(), bytes, batches.load(Ordering::Relaxed) as u64)
}

fn rounded(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let round = |v: &f32| bf16::from_f32(*v).to_f32();
    rows.iter().map(|r| r.iter().map(round).collect()).collect()
}

#[test]
fn what_a_model_computes_in_bf16_is_stored_exactly_in_half_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (model, corpus) = tiny(dir.path(), DType::BF16);
    assert_eq!(exact_dtype(model.info()), CacheDtype::Bf16);
    let (wide, wide_bytes, _) = collected(&model, &corpus, CacheDtype::F32);
    let (half, half_bytes, _) = collected(&model, &corpus, exact_dtype(model.info()));
    assert!(half == rounded(&wide) && half == wide, "nothing is lost");
    // Beside the headers of two shards.
    assert_eq!(wide_bytes - 2 * 64, 2 * (half_bytes - 2 * 64));
    let words = stored_words(CacheDtype::Bf16, model.info());
    assert_eq!(words, "stored in bf16 as computed");
    assert!(stored_remark(model.info()).unwrap().contains("exact"));
}

#[test]
fn what_is_narrowed_on_the_device_is_what_the_host_would_round() {
    let dir = tempfile::tempdir().unwrap();
    let (model, corpus) = tiny(dir.path(), DType::F32);
    assert_eq!(exact_dtype(model.info()), CacheDtype::F32);
    assert_eq!(stored_remark(model.info()), None);
    let (wide, _, _) = collected(&model, &corpus, CacheDtype::F32);
    let (half, _, _) = collected(&model, &corpus, CacheDtype::Bf16);
    assert!(half == rounded(&wide) && half != wide);
    assert_eq!(
        stored_words(CacheDtype::Bf16, model.info()),
        "stored in bf16, rounded from f32"
    );
}

#[test]
fn a_batch_costs_one_copy_of_values_and_one_number_a_hook() {
    let dir = tempfile::tempdir().unwrap();
    let (model, corpus) = tiny(dir.path(), DType::BF16);
    let before = (host::copies(), host::copied());
    let (rows, _, batches) = collected(&model, &corpus, CacheDtype::Bf16);
    let values: usize = rows.iter().map(Vec::len).sum();
    assert!(batches > 0);
    assert_eq!(host::copies() - before.0, 4 * batches);
    assert_eq!(host::copied() - before.1, values as u64 + 2 * batches);
}

#[test]
fn a_value_beyond_the_range_of_the_dtype_is_refused_by_its_number() {
    let corpus = corpus(&["ab", "cd"]);
    let refused = |fake: Fake| {
        let dir = tempfile::tempdir().unwrap();
        let mut study = Study::create(
            dir.path(),
            Some(&model()),
            &HOOKS,
            &WIDTHS,
            &corpus,
            CacheDtype::F16,
            BosRule::Auto,
        )
        .unwrap();
        run_silent(&fake, &corpus, &mut study)
            .unwrap_err()
            .to_string()
    };
    // The second hook's are above 100,000.
    let error = refused(Fake::default());
    let first = value(1, u32::from('a'), 0, 0);
    let told = format!("the activation {first} of neuron 0 is beyond the range of f16");
    assert!(error.starts_with(&told), "{error}");
    // What is no number comes first, as in f32.
    let error = refused(Fake {
        poison: Some('b'),
        ..Fake::default()
    });
    assert!(
        error.contains("neuron 2") && error.contains("NaN"),
        "{error}"
    );
}
