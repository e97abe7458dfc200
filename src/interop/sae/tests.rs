//! Every format against what its own code computes (`tests/fixtures/make_saes.py`), and damaged
//! files.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::activations::Block;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saes")
}

/// Folder, what to open in it, where it came from, and what the files (or that) must say.
const CASES: [(&str, &str, &str, Option<&str>); 22] = [
    ("standard", "", "x", Some("blocks.1.mlp.hook_post")),
    ("standard_old", "", "x", Some("blocks.1.mlp.hook_post")),
    ("jumprelu", "", "x", Some("blocks.1.mlp.hook_post")),
    ("jumprelu_old", "", "x", Some("blocks.1.mlp.hook_post")),
    ("topk", "", "x", Some("blocks.1.mlp.hook_post")),
    ("topk_old", "", "x", Some("blocks.1.mlp.hook_post")),
    ("gated", "", "x", Some("blocks.1.mlp.hook_post")),
    ("layer_norm", "", "x", Some("blocks.1.mlp.hook_post")),
    ("constant_norm", "", "x", Some("blocks.1.mlp.hook_post")),
    (
        "gemma_scope",
        "params.npz",
        "google/gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_5",
        Some("blocks.1.hook_resid_post"),
    ),
    ("llama_scope", "", "x", Some("blocks.1.hook_resid_post")),
    (
        "sparsify",
        "layers.1.mlp",
        "some/layers.1.mlp",
        Some("blocks.1.hook_mlp_out"),
    ),
    (
        "openai_relu",
        "mlp_post_act/autoencoders/1.safetensors",
        "a/mlp_post_act/autoencoders/1.safetensors",
        Some("blocks.1.mlp.hook_post"),
    ),
    (
        "openai_topk",
        "mlp_post_act/autoencoders/1.safetensors",
        "sae.safetensors",
        None,
    ),
    (
        "gemma_scope_2",
        "params.safetensors",
        "google/gemma-scope-2-1b-pt/resid_post/layer_1_width_16k_l0_medium",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "dictionary_learning_autoencoder",
        "",
        "x",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "dictionary_learning_autoencodertopk",
        "ae.pt",
        "x",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "dictionary_learning_gatedautoencoder",
        "",
        "x",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "dictionary_learning_batchtopksae",
        "",
        "x",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "dictionary_learning_jumpreluautoencoder",
        "",
        "x",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "qwen_scope",
        "layer1.sae.pt",
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_4/layer1.sae.pt",
        Some("blocks.1.hook_resid_post"),
    ),
    (
        "goodfire",
        "Llama-3.1-8B-Instruct-SAE-l19.pth",
        "Goodfire/x/Llama-3.1-8B-Instruct-SAE-l19.pth",
        Some("blocks.19.hook_resid_post"),
    ),
];

struct Expected {
    rows: usize,
    x: Vec<f32>,
    latents: Vec<f32>,
    reconstruction: Vec<f32>,
}

fn expected(folder: &Path, sae: &Sae) -> Expected {
    let mut file = Archive::open(&folder.join("expected.safetensors")).unwrap();
    let rows = file.shape("x").unwrap()[0] as usize;
    Expected {
        rows,
        x: file.read("x", &[rows, sae.width]).unwrap(),
        latents: file.read("latents", &[rows, sae.latents()]).unwrap(),
        reconstruction: file.read("reconstruction", &[rows, sae.width]).unwrap(),
    }
}

fn assert_agrees(name: &str, sae: &Sae, wanted: &Expected) {
    let block = Block {
        rows: wanted.rows,
        cols: sae.width,
        data: Cow::Borrowed(&wanted.x),
    };
    let latents = sae.encode(&block).unwrap();
    let mut dense = vec![0.0; wanted.latents.len()];
    for i in 0..wanted.rows {
        let (indices, values) = latents.codes.column(i);
        indices
            .iter()
            .zip(values)
            .for_each(|(&j, &v)| dense[i * sae.latents() + j as usize] = v);
    }
    let reconstruction = sae.decode(&latents);
    for (what, computed, expected) in [
        ("latents", &dense, &wanted.latents),
        ("reconstruction", &reconstruction, &wanted.reconstruction),
    ] {
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let apart = computed
            .iter()
            .zip(expected)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(
            apart <= 1e-5 * largest,
            "{name}: {what} are {apart:e} apart of {largest}"
        );
    }
}

#[test]
fn every_format_computes_what_its_own_code_does() {
    for (folder, file, name, hook) in CASES {
        let folder = fixtures().join(folder);
        let found = open(&folder.join(file), name).unwrap();
        assert_eq!(found.hook.as_deref(), hook, "{name}");
        let at = folder.join(file);
        let beside = if at.is_dir() {
            at.as_path()
        } else {
            at.parent().unwrap()
        };
        assert_agrees(
            folder.to_str().unwrap(),
            &found.sae,
            &expected(beside, &found.sae),
        );
    }
}

#[test]
fn an_autoencoder_that_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for (folder, file, name, _) in CASES {
        let found = open(&fixtures().join(folder).join(file), name).unwrap();
        let to = dir.path().join(folder);
        fs::create_dir(&to).unwrap();
        write(
            &to,
            &found.sae,
            Some("m"),
            "blocks.1.hook_mlp_out",
            serde_json::json!({}),
        )
        .unwrap();
        let again = open(&to, "y").unwrap();
        assert_eq!(
            (again.sae, again.model.as_deref()),
            (found.sae, Some("m")),
            "{folder}"
        );
        assert_eq!(again.hook.as_deref(), Some("blocks.1.hook_mlp_out"));
    }
}

#[test]
fn names_say_where_gemma_scope_belongs() {
    let npz = fixtures().join("gemma_scope/params.npz");
    let found = |name: &str| open(&npz, name);
    assert_eq!(
        found("google/gemma-scope-9b-it-res/layer_9/a")
            .unwrap()
            .model
            .unwrap(),
        "google/gemma-2-9b-it"
    );
    assert_eq!(
        found("gemma-scope-2b-pt-mlp/layer_12/a")
            .unwrap()
            .hook
            .unwrap(),
        "blocks.12.hook_mlp_out"
    );
    assert_eq!(found("somewhere/params.npz").unwrap().hook, None);
    assert!(
        found("google/gemma-scope-2b-pt-transcoders/layer_1")
            .unwrap_err()
            .to_string()
            .contains("transcoder")
    );
    assert!(
        found("google/gemma-scope-2b-pt-res/embedding/width_4k")
            .unwrap_err()
            .to_string()
            .contains("embeddings")
    );
}

#[test]
fn a_scaling_factor_of_one_may_be_one_number() {
    let dir = copy("gemma_scope");
    let path = dir.path().join("params.npz");
    let with = |header: &str, values: &[f32]| {
        let mut old = zip::ZipArchive::new(
            fs::File::open(fixtures().join("gemma_scope/params.npz")).unwrap(),
        )
        .unwrap();
        let mut new = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for i in 0..old.len() {
            new.raw_copy_file(old.by_index_raw(i).unwrap()).unwrap();
        }
        new.start_file(
            "scaling_factor.npy",
            zip::write::SimpleFileOptions::default(),
        )
        .unwrap();
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {header}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(
            text.bytes()
                .chain(values.iter().flat_map(|v| v.to_le_bytes())),
        );
        std::io::Write::write_all(&mut new, &bytes).unwrap();
        new.finish().unwrap();
        open(&path, "x")
    };
    for (header, values) in [("()", &[1.0][..]), ("(1,)", &[1.0])] {
        assert!(with(header, values).is_ok(), "{header}");
    }
    assert!(
        with("()", &[2.0])
            .unwrap_err()
            .to_string()
            .contains("scaling_factor that is not 1")
    );
    assert!(
        with("(3,)", &[1.0; 3]).is_err(),
        "neither one nor one a latent"
    );
}

/// A copy of a fixture, to be spoilt.
fn copy(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join(folder)).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

#[test]
fn a_wrong_autoencoder_is_refused_in_one_line() {
    let says = |dir: &Path, wanted: &str| {
        let message = open(dir, "x").unwrap_err().to_string();
        assert!(
            message.contains(wanted) && !message.contains('\n'),
            "{message}"
        );
    };
    let spoilt = |from: &str, to: &str, wanted: &str| {
        let dir = copy("jumprelu");
        let path = dir.path().join("cfg.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        says(dir.path(), wanted);
    };
    spoilt(
        "\"d_in\": 12",
        "\"d_in\": 13",
        "tensor 'W_enc' is [12, 20] where [13, 20] is due",
    );
    spoilt(
        "\"d_in\": 12",
        "\"d_in\": -1",
        "no whole number above 0 as 'd_in'",
    );
    spoilt(
        "\"d_sae\": 20",
        "\"d_sae\": 18446744073709551615",
        "is [20] where [18446744073709551615] is due",
    );
    spoilt("\"jumprelu\"", "\"temporal\"", "architecture 'temporal'");
    spoilt(
        "\"jumprelu\"",
        "\"gated\"",
        "has no tensor 'b_gate'; it has W_dec, W_enc, b_dec, b_enc, threshold",
    );
    spoilt(
        "\"reshape_activations\": \"none\"",
        "\"reshape_activations\": \"hook_z\"",
        "attention heads",
    );
    spoilt(
        "\"normalize_activations\": \"none\"",
        "\"normalize_activations\": \"whitening\"",
        "whitening",
    );
    spoilt("{", "[", "not JSON");
    let dir = tempfile::tempdir().unwrap();
    says(dir.path(), "holds no sparse autoencoder");
    says(&dir.path().join("nowhere"), "there is no");
    fs::write(dir.path().join("8.pt"), b"\x80\x02\x8a\nl\xfc\x9cF\xf9").unwrap();
    says(&dir.path().join("8.pt"), "pickle on its own");
    let weights = [("encoder.weight".to_owned(), vec![2, 2], vec![f32::NAN; 4])];
    tensors_with(dir.path(), &weights);
    says(&dir.path().join("w.safetensors"), "holds NaN");
}

fn tensors_with(dir: &Path, arrays: &[(String, Vec<usize>, Vec<f32>)]) {
    crate::interop::tensors::write_named(&dir.join("w.safetensors"), arrays).unwrap();
}

#[test]
fn a_scale_outside_the_weights_is_noted() {
    let dir = copy("standard");
    let path = dir.path().join("cfg.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(
        "\"normalize_activations\": \"none\"",
        "\"normalize_activations\": \"expected_average_only_in\"",
    );
    fs::write(&path, text).unwrap();
    assert_eq!(open(dir.path(), "x").unwrap().notes.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn damage_never_panics(
        case in 0usize..4,
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in proptest::option::of(any::<prop::sample::Index>()),
        early in any::<bool>(),
    ) {
        let (folder, file) = [
            ("gemma_scope", "params.npz"), ("gated", "sae_weights.safetensors"), ("topk", "cfg.json"), ("topk_old", "cfg.json"),
        ][case];
        let dir = copy(folder);
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        // Headers and directories are where damage does more than change a value.
        let span = if early { bytes.len().min(200) } else { bytes.len() };
        let tail = bytes.len() - span;
        for (index, value) in at {
            let i = index.index(span);
            let i = if early && case == 0 { tail + i } else { i };
            bytes[i] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()) + 1);
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(found) = open(dir.path(), "x") {
            let sae = found.sae;
            prop_assert!(sae.encoder.len() == sae.width * sae.latents() && sae.decoder.len() == sae.encoder.len());
            prop_assert!(sae.decoder.iter().chain(&sae.encoder).all(|v| v.is_finite()));
        }
    }
}
