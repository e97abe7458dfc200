mod fake;
mod storing;

use std::sync::Mutex;

use super::estimate::estimate_with;
use super::*;
use crate::activations::store::CacheDtype;
use crate::task::{CancelToken, Progress};
use fake::*;

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
