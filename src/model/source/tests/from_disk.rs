//! Directories and files, whole and broken, and the list of what is there.

use super::*;

fn model_dir(dir: &Path) {
    write(
        dir,
        "config.json",
        r#"{"model_type":"llama","num_hidden_layers":2,"intermediate_size":64}"#,
    );
    write(dir, "tokenizer.json", "{}\n");
    write(dir, "model.safetensors", safetensors(10));
}

fn open(path: &Path) -> Result<ModelFiles> {
    let dir = tempfile::tempdir().unwrap();
    resolve_in(&settings(dir.path()), path.to_str(), &TaskCtx::silent())
}

#[test]
fn a_model_is_found_in_a_directory_and_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    let files = open(dir.path()).unwrap();
    assert_eq!(
        (files.id.as_str(), files.origin.as_str()),
        (dir.path().to_str().unwrap(), "directory")
    );
    let ModelLayout::HuggingFace {
        config, weights, ..
    } = files.layout
    else {
        panic!()
    };
    assert_eq!(
        (config, weights),
        (
            dir.path().join("config.json"),
            vec![dir.path().join("model.safetensors")]
        )
    );

    write(dir.path(), "m.gguf", gguf_bytes());
    let file = dir.path().join("m.gguf");
    assert_eq!(open(&file).unwrap().layout, ModelLayout::Gguf(file.clone()));
    // A directory that has nothing but a GGUF file stands for it.
    fs::remove_file(dir.path().join("config.json")).unwrap();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert_eq!(open(dir.path()).unwrap().layout, ModelLayout::Gguf(file));
}

#[test]
fn shards_come_from_the_index() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let index =
        r#"{"weight_map":{"z":"m-1.safetensors","a":"m-2.safetensors","b":"m-1.safetensors"}}"#;
    write(dir.path(), "model.safetensors.index.json", index);
    write(dir.path(), "m-1.safetensors", safetensors(1));
    assert!(message(open(dir.path())).contains("m-2.safetensors is missing"));
    write(dir.path(), "m-2.safetensors", safetensors(2));
    let ModelLayout::HuggingFace { weights, .. } = open(dir.path()).unwrap().layout else {
        panic!()
    };
    assert_eq!(
        weights,
        ["m-1.safetensors", "m-2.safetensors"].map(|n| dir.path().join(n))
    );
    for (index, says) in [
        (r#"{"weight_map":{"a":"../x"}}"#, "no file name"),
        (r#"{"weight_map":{}}"#, "no shards"),
        ("[1]", "not an index"),
        ("", "not an index"),
    ] {
        write(dir.path(), "model.safetensors.index.json", index);
        assert!(message(open(dir.path())).contains(says), "{index}");
    }
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let broken = |change: &dyn Fn(&Path), says: &str| {
        let dir = tempfile::tempdir().unwrap();
        model_dir(dir.path());
        change(dir.path());
        let message = message(open(dir.path()));
        assert!(
            message.contains(dir.path().to_str().unwrap()) && message.contains(says),
            "{message}"
        );
    };
    let without = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    broken(&without("config.json"), "no config.json");
    broken(&without("model.safetensors"), "no model.safetensors");
    broken(
        &|dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir(dir).unwrap();
        },
        "no model",
    );
    broken(
        &|dir| {
            without("model.safetensors")(dir);
            write(dir, "pytorch_model.bin", "x");
        },
        "PyTorch",
    );
    broken(
        &|dir| {
            without("config.json")(dir);
            write(dir, "a.gguf", gguf_bytes());
            write(dir, "b.gguf", gguf_bytes());
        },
        "a.gguf, b.gguf",
    );
    let whole = safetensors(10);
    broken(
        &|dir| write(dir, "model.safetensors", &whole[..whole.len() - 1]),
        "truncated",
    );
    broken(
        &|dir| write(dir, "model.safetensors", &whole[..20]),
        "truncated",
    );
    broken(&|dir| write(dir, "model.safetensors", ""), "truncated");
    broken(
        &|dir| write(dir, "model.safetensors", [0xFF; 64]),
        "not a safetensors",
    );
    broken(
        &|dir| {
            write(
                dir,
                "model.safetensors",
                [&3u64.to_le_bytes()[..], b"{{{"].concat(),
            )
        },
        "not a safetensors",
    );
    broken(&|dir| write(dir, "tokenizer.json", "{\"a\": "), "truncated");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 856216\n";
        broken(&|dir| write(dir, file, pointer), "git lfs pull");
    }
    #[cfg(unix)]
    broken(
        &|dir| {
            without("model.safetensors")(dir);
            std::os::unix::fs::symlink(dir.join("blobs/none"), dir.join("model.safetensors"))
                .unwrap();
        },
        "a link to a file that is not there",
    );
}

#[test]
fn weights_without_a_tokenizer_are_found_and_a_text_for_them_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let files = open(dir.path()).unwrap();
    let says = message(crate::model::Tokenizer::open(&files));
    assert!(
        says.contains("no tokenizer.json")
            && says.contains("save_pretrained")
            && says.contains("--ids"),
        "{says}"
    );
}

#[test]
fn a_cached_snapshot_is_found_by_its_commit_or_the_start_of_it() {
    const ONE: &str = "0123456789abcdef0123456789abcdef01234567";
    const TWO: &str = "0123459999abcdef0123456789abcdef01234567";
    let dir = tempfile::tempdir().unwrap();
    let settings = SourceSettings {
        offline: true,
        ..settings(dir.path())
    };
    model_dir(
        &settings
            .hub_cache
            .join("models--own--pinned/snapshots")
            .join(ONE),
    );
    let find = |spec: &str| resolve_in(&settings, Some(spec), &TaskCtx::silent());
    for spec in [
        format!("own/pinned@{ONE}"),
        "own/pinned@0123456".to_owned(),
        "own/pinned@0123456789ABC".to_owned(),
    ] {
        let files = find(&spec).unwrap();
        assert_eq!(
            (files.id, files.origin.as_str()),
            (spec, "Hub cache (own/pinned@0123456789ab)")
        );
    }
    let says = message(find("own/pinned"));
    assert!(
        says.contains("HF_HUB_OFFLINE") && says.contains("own/pinned@0123456789ab"),
        "{says}"
    );
    model_dir(
        &settings
            .hub_cache
            .join("models--own--pinned/snapshots")
            .join(TWO),
    );
    let says = message(find("own/pinned@012345"));
    assert!(
        says.contains("own/pinned@0123456789ab, own/pinned@0123459999ab"),
        "{says}"
    );
    let ids: Vec<String> = list_in(&settings).into_iter().map(|e| e.id).collect();
    assert_eq!(
        ids,
        [format!("own/pinned@{ONE}"), format!("own/pinned@{TWO}")]
    );
}

#[test]
fn a_hub_id_without_an_owner_is_opened_as_it_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SourceSettings {
        offline: true,
        ..settings(dir.path())
    };
    model_dir(&settings.hub_cache.join("models--gpt2/snapshots/abc"));
    write(&settings.hub_cache, "models--gpt2/refs/main", "abc");
    assert_eq!(list_in(&settings)[0].id, "gpt2");
    for spec in ["gpt2", "gpt2@main", "gpt2@abc"] {
        assert_eq!(
            resolve_in(&settings, Some(spec), &TaskCtx::silent())
                .unwrap()
                .id,
            spec
        );
    }
    let says = message(resolve_in(&settings, Some("gpt3"), &TaskCtx::silent()));
    assert!(
        says.contains("'gpt3' is no file or directory") && says.contains("HF_HUB_OFFLINE"),
        "{says}"
    );
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        write(dir.path(), name, bytes);
        message(open(&dir.path().join(name)))
    };
    assert!(file("a.gguf", b"hello").contains("not a GGUF"));
    assert!(file("a.safetensors", &safetensors(1)).contains("pass the directory"));
    assert!(file("b.gguf", &gguf_bytes()[..300]).contains("truncated"));
    assert!(file("c.gguf", &gguf::testing::GgufWriter::new().bytes()).contains("no tensors"));
    let part = gguf::testing::GgufWriter::new()
        .uint("split.count", 2)
        .tensor("t", &[1], 0, &[0; 4]);
    assert!(file("d.gguf", &part.bytes()).contains("split"));
}

#[test]
fn a_name_that_is_nothing_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        message(resolve_in(
            &settings(dir.path()),
            Some("nothing"),
            &TaskCtx::silent()
        ))
        .contains("no file or directory")
    );
    for spec in ["./no/such/dir", "no/such.gguf", "a/b/c", "", "  "] {
        let resolved = resolve_in(&settings(dir.path()), Some(spec), &TaskCtx::silent());
        assert!(
            matches!(resolved, Err(Error::Usage(_))),
            "{spec}: {resolved:?}"
        );
    }
    let home = settings(dir.path());
    write(&home.home, "m.gguf", gguf_bytes());
    assert!(resolve_in(&home, Some("~/m.gguf"), &TaskCtx::silent()).is_ok());
}

#[test]
fn the_list_shows_both_caches_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    assert_eq!(list_in(&settings), []);
    write(&settings.models(), "x.gguf", gguf_bytes());
    write(&settings.models(), package::FILE, &gguf_bytes()[..100]);
    write(&settings.models(), ".partial/y.gguf", "");
    let repo = settings.hub_cache.join("models--owner--some--name");
    model_dir(&repo.join("snapshots/abc"));
    write(&repo, "refs/main", "abc");
    write(&repo, "refs/refs/pr/1", "abc\n");
    write(&repo, "refs/evil", "../abc");
    write(
        &settings.hub_cache,
        "models--o--tokenizer-only/refs/main",
        "c",
    );
    write(
        &settings.hub_cache,
        "models--o--tokenizer-only/snapshots/c/tokenizer.json",
        "{}",
    );
    write(&settings.hub_cache, "datasets--o--d/refs/main", "c");

    let list = list_in(&settings);
    let ids: Vec<&str> = list.iter().map(|e| e.id.as_str()).collect();
    let ours = settings.models().join("x.gguf").display().to_string();
    assert_eq!(
        ids,
        [
            DEFAULT_MODEL,
            &ours,
            "owner/some--name",
            "owner/some--name@refs/pr/1"
        ]
    );
    assert!(list[0].problem.as_ref().unwrap().contains("truncated"));
    assert_eq!(
        (list[1].summary.as_str(), list[1].bytes),
        ("llama, 3 layers, d_mlp 48", gguf_bytes().len() as u64)
    );
    assert_eq!(
        (list[2].summary.as_str(), list[2].place.as_str()),
        ("llama, 2 layers, d_mlp 64", "Hub cache")
    );
    assert_eq!(
        (list[2].bytes, &list[2].problem),
        (safetensors(10).len() as u64, &None)
    );
}
