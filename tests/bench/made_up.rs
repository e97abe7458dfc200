//! A made-up study of any size, with texts, tokens and labels: what the explorer's bench walks
//! through. Nothing of it but the texts is in memory at once.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use mlpeek::activations::store::{CacheDtype, MappedF32};
use mlpeek::corpus::{Corpus, Sample};
use mlpeek::factor::{Coding, Coefficients, Factors, FitConfig, SparseColumns};
use mlpeek::model::{BosRule, HookPoint, HookSite};
use mlpeek::study::{Appender, Study};
use rayon::prelude::*;

/// Features of the study.
pub const FEATURES: usize = 400;
/// Neurons of a row.
const NEURONS: usize = 64;
/// Neurons of a feature: few enough that some features share none.
const SUPPORT: usize = 4;
/// Tokens of a sample.
const LENGTH: usize = 16;
/// Labels of the samples.
pub const LABELS: usize = 28;
/// Words that any sample may have, before those of one label alone.
const COMMON: usize = 3000;
/// Words of a label.
const OWN: usize = 40;
/// Rows are sealed whenever so many bytes wait.
const PENDING: usize = 64 << 20;

const HOOK: HookPoint = HookPoint {
    layer: 0,
    site: HookSite::MlpPost,
};

/// A repeatable number.
fn noise(a: usize, b: usize) -> usize {
    let mut x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 32)) as usize & 0xffff_ffff
}

/// A word that can be said: `tolaru`.
pub fn word(id: usize) -> String {
    let syllable = |n: usize| {
        [
            b"ptkbdglmnrsv"[n % 12] as char,
            b"aeiou"[n / 12 % 5] as char,
        ]
    };
    let mut left = noise(id, 9);
    let mut out = String::new();
    for _ in 0..3 {
        out.extend(syllable(left));
        left /= 60;
    }
    // Numbered, so that no two are one.
    out + &id.to_string()
}

fn label_of(sample: usize) -> usize {
    noise(sample, 1) % LABELS
}

/// The tokens of a sample: every fourth is a word of its label.
fn ids(sample: usize) -> impl Iterator<Item = usize> {
    (0..LENGTH).map(move |at| {
        let drawn = noise(sample, 100 + at);
        if at % 4 == 1 {
            COMMON + label_of(sample) * OWN + drawn % OWN
        } else {
            drawn % COMMON
        }
    })
}

fn piece(id: usize) -> String {
    format!(" {}", word(id))
}

/// A study of at least `rows` rows with a saved fit, whose features each fire in samples of one
/// label first and on about 2 % of the rows in all.
pub fn make(dir: &Path, rows: usize) {
    let samples = rows.div_ceil(LENGTH);
    let corpus = Corpus {
        name: "made up".to_owned(),
        samples: (0..samples)
            .into_par_iter()
            .map(|s| Sample {
                text: ids(s)
                    .map(piece)
                    .collect::<String>()
                    .trim_start()
                    .to_owned(),
                label: Some(format!("label {}", label_of(s))),
            })
            .collect(),
        sha256: format!("made up of {samples} samples"),
    };
    let (dtype, bos) = (CacheDtype::F32, BosRule::Never);
    let mut study = Study::create(dir, None, &[HOOK], &[NEURONS], &corpus, dtype, bos).unwrap();
    drop(corpus);
    let mut appender = Appender::open(&mut study).unwrap();
    let mut values = vec![0.0; LENGTH * NEURONS];
    for sample in 0..samples {
        let tokens: Vec<(u32, u32)> = ids(sample)
            .enumerate()
            .map(|(at, id)| (id as u32, at as u32))
            .collect();
        for (i, value) in values.iter_mut().enumerate() {
            *value = (noise(sample, i) % 1000) as f32 / 1000.0;
        }
        appender
            .push(&tokens, &[bytemuck::cast_slice(&values)], true, |id| {
                piece(id as usize)
            })
            .unwrap();
        if appender.pending_bytes() > PENDING {
            appender.seal().unwrap();
        }
    }
    appender.seal().unwrap();
    drop(appender);
    save_fit(&study, samples);
}

/// A feature's coefficient at each row.
fn coefficients(feature: usize, samples: usize, out: &mut [f32]) {
    out.fill(0.0);
    for sample in 0..samples {
        let drawn = noise(sample, 1000 + feature);
        let fires = drawn % 100
            < if label_of(sample) == feature % LABELS {
                60
            } else {
                8
            };
        for at in [1, 5, 6 + drawn % 8].into_iter().filter(|_| fires) {
            out[sample * LENGTH + at] = (noise(sample + at, feature) % 1000) as f32 / 100.0;
        }
    }
}

/// Saves a fit whose coefficients are made and written by a few features at a time.
fn save_fit(study: &Study, samples: usize) {
    let rows = samples * LENGTH;
    let path = study.dir().join("made-up.f32");
    let mut file = File::create(&path).unwrap();
    let mut block = vec![0.0; 8 * rows];
    for first in (0..FEATURES).step_by(8) {
        block
            .par_chunks_mut(rows)
            .enumerate()
            .for_each(|(i, out)| coefficients(first + i, samples, out));
        file.write_all(bytemuck::cast_slice(&block)).unwrap();
    }
    let indices = (0..FEATURES).flat_map(|j| {
        let mut own: Vec<u32> = Vec::new();
        for i in 0.. {
            let neuron = (noise(j / (1 + i % 2), i) % NEURONS) as u32;
            if !own.contains(&neuron) {
                own.push(neuron);
            }
            if own.len() == SUPPORT {
                break;
            }
        }
        own.sort_unstable();
        own
    });
    let features = SparseColumns {
        rows: NEURONS,
        offsets: (0..=FEATURES).map(|j| SUPPORT * j).collect(),
        indices: indices.collect(),
        values: [0.1, 0.3, 0.5, 0.806_225_8].repeat(FEATURES),
    };
    let factors = Factors {
        features,
        coefficients: Coefficients::mapped(
            rows,
            MappedF32::open(&path, 0, FEATURES * rows).unwrap(),
        ),
        relative_error: 0.5,
        weighted_error: None,
        explained_variance: 0.5,
        sweep: 1,
        seconds: 1.0,
        coding: Coding::default(),
    };
    let config = FitConfig {
        features: FEATURES,
        ..FitConfig::default()
    };
    study.save_fit("large", HOOK, &config, &factors).unwrap();
    drop(factors);
    fs::remove_file(path).unwrap();
}
