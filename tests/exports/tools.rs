//! Each format read by the tool that it is for, where that is installed.

use super::*;

/// Runs a script of `tests/ecosystem` with the Python that has the tools.
fn python(script: &str, args: &[&Path]) {
    let python = std::env::var("MLPEEK_TEST_PYTHON").expect("MLPEEK_TEST_PYTHON names a Python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/ecosystem")
        .join(script);
    let output = std::process::Command::new(python)
        .arg(script)
        .args(args)
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

#[test]
#[ignore = "MLPEEK_TEST_PYTHON names a Python with sae-lens"]
fn saelens_opens_the_directory_and_reconstructs_the_same() {
    let made = Made::new("mlp.hook_post");
    let (path, _) = made.export("saelens", "sae", &[]);
    let found = sae::open(&path, "sae").unwrap();
    let study = made.open();
    let source = study.activations(study.manifest().hooks[0]).unwrap();
    let rows = 0..source.shape().0.min(40);
    let block = source.rows(rows.clone()).unwrap();
    let back = found.sae.decode(&found.sae.encode(&block).unwrap());
    let shape = vec![rows.len(), source.shape().1];
    let held = made.path("rows.safetensors");
    let arrays = [
        ("x".to_owned(), shape.clone(), block.data.to_vec()),
        ("reconstruction".to_owned(), shape, back),
    ];
    mlpeek::interop::tensors::write_named(&held, &arrays).unwrap();
    python("saelens.py", &[&path, &held]);
}

#[test]
#[ignore = "MLPEEK_TEST_PYTHON names a Python with transformers"]
fn transformers_opens_the_checkpoint_and_computes_the_same() {
    let made = Made::new("mlp.hook_post");
    for (name, more) in [
        ("ablated", &["--feature", "0"][..]),
        (
            "steered",
            &["--feature", "0", "--mode", "add", "--alpha", "3"],
        ),
    ] {
        let (path, _) = made.export("checkpoint", name, more);
        let files = source::resolve(path.to_str(), &TaskCtx::silent()).unwrap();
        let edited = Model::open(&files, &LoadOptions::default(), &TaskCtx::silent()).unwrap();
        let rows = all_logits(edited.decoder(), &mut NoTap);
        let shape = vec![rows.len(), rows[0].len()];
        let held = made.path("logits.safetensors");
        let arrays = [("logits".to_owned(), shape, rows.concat())];
        mlpeek::interop::tensors::write_named(&held, &arrays).unwrap();
        python("checkpoint.py", &[&path, &held]);
    }
}

#[test]
#[ignore = "MLPEEK_TEST_PYTHON names a Python with torch and numpy"]
fn files_of_torch_and_numpy_are_directions_too() {
    let made = Made::new("mlp.hook_post");
    let (arrays, _) = made.export("npz", "f.npz", &[]);
    let (tensors, matrix) = (made.path("v.pt"), made.path("v.npy"));
    python("torch_save.py", &[&arrays, &tensors, &matrix]);
    let own = made.run(&["features", &made.study]);
    for path in [tensors, matrix] {
        let set = format!("file:{}", path.display());
        let lines = made.run(&["features", &made.study, "--directions", &set]);
        assert!(
            lines
                .iter()
                .zip(&own)
                .all(|(a, b)| a["promoted"] == b["promoted"])
        );
    }
}

#[test]
#[ignore = "MLPEEK_TEST_PYTHON names a Python with llama-cpp-python and gguf"]
fn llama_cpp_adds_a_control_vector_after_the_block_that_ours_is_added_after() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/llama/model.gguf");
    let files = ModelFiles {
        id: path.display().to_string(),
        origin: "test".to_owned(),
        layout: ModelLayout::Gguf(path.clone()),
    };
    let decoder = decoder(&files);
    let site = HookSite::ResidPost;
    let width = decoder.width(HookPoint { layer: 1, site }).unwrap();
    let (terms, alpha) = ([term(width, site, 3, 1.0)], 2.5f32);
    let scaled = terms[0].direction.iter().map(|v| alpha * v).collect();
    let vector = control_vector::ControlVector {
        model: None,
        by_block: [(1, scaled)].into(),
    };
    let dir = TempDir::new().unwrap();
    let (file, held) = (dir.path().join("v.gguf"), dir.path().join("l.safetensors"));
    control_vector::write(&file, &vector, &Default::default()).unwrap();
    let logits = |name: &str, alpha: f32| {
        let rows = all_logits(&decoder, &mut steered(&terms, Mode::Add, f64::from(alpha)));
        (
            name.to_owned(),
            vec![rows.len(), rows[0].len()],
            rows.concat(),
        )
    };
    let arrays = [logits("plain", 0.0), logits("steered", alpha)];
    mlpeek::interop::tensors::write_named(&held, &arrays).unwrap();
    python("control_vector.py", &[&path, &file, &held]);
}

#[test]
#[ignore = "MLPEEK_TEST_PYTHON names a Python with numpy and gguf"]
fn numpy_and_gguf_read_the_arrays_and_the_vector() {
    let made = Made::new("mlp.hook_post");
    let (arrays, _) = made.export("npz", "f.npz", &["--rows"]);
    let (safetensors, _) = made.export("safetensors", "f.safetensors", &["--rows"]);
    let (vector, _) = made.export("control-vector", "v.gguf", &["--feature", "1"]);
    python("arrays.py", &[&arrays, &safetensors, &vector]);
}
