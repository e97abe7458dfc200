//! Downloads that go well, break, resume and are refused.

use super::fake_hub::{Body, COMMIT, FakeHub, Repo, sha256};
use super::*;

const BIG: usize = 300_000;

fn llama() -> Repo {
    Repo::default()
        .file("config.json", r#"{"model_type":"llama"}"#)
        .file("tokenizer.json", "{}")
        .file("generation_config.json", r#"{"eos_token_id":2}"#)
        .file("README.md", "not asked for")
        .file("pytorch_model.bin", "not asked for")
        .file("model.safetensors", safetensors(BIG))
}

fn settings_for(hub: &FakeHub, dir: &Path) -> SourceSettings {
    SourceSettings {
        endpoint: hub.endpoint.clone(),
        ..settings(dir)
    }
}

fn get(settings: &SourceSettings) -> Result<ModelFiles> {
    resolve_in(settings, Some("owner/name"), &TaskCtx::silent())
}

#[test]
fn a_repository_is_fetched_once_and_then_used_without_network() {
    let (hub, dir) = (FakeHub::serve(llama()), tempfile::tempdir().unwrap());
    let settings = SourceSettings {
        token: Some("secret".into()),
        ..settings_for(&hub, dir.path())
    };
    let (ctx, seen) = watched();
    let files = resolve_in(&settings, Some("owner/name"), &ctx).unwrap();
    assert_eq!(
        (files.id.as_str(), files.origin.as_str()),
        ("owner/name", "the Hub (owner/name@main)")
    );
    let snapshot = settings
        .hub_cache
        .join("models--owner--name/snapshots")
        .join(COMMIT);
    let ModelLayout::HuggingFace {
        config, weights, ..
    } = &files.layout
    else {
        panic!()
    };
    assert_eq!(
        (config, weights),
        (
            &snapshot.join("config.json"),
            &vec![snapshot.join("model.safetensors")]
        )
    );
    assert!(
        snapshot.join("generation_config.json").exists() && !snapshot.join("README.md").exists()
    );
    let seen = seen.lock().unwrap();
    let whole = safetensors(BIG).len() as u64;
    for stage in [
        "downloading model.safetensors",
        "checking model.safetensors",
    ] {
        assert!(
            seen.contains(&Progress::new(stage, whole, whole, "bytes")),
            "{stage}: {seen:?}"
        );
    }
    assert!(
        hub.requests
            .lock()
            .unwrap()
            .iter()
            .all(|r| r.ends_with("Bearer secret"))
    );

    let before = hub.asked();
    for offline in [false, true] {
        let again = resolve_in(
            &SourceSettings {
                offline,
                ..settings.clone()
            },
            Some("owner/name"),
            &ctx,
        )
        .unwrap();
        assert_eq!(
            (&again.layout, again.origin.as_str()),
            (&files.layout, "Hub cache (owner/name@0123456789ab)")
        );
    }
    let by_commit = resolve_in(&settings, Some(&format!("owner/name@{COMMIT}")), &ctx).unwrap();
    assert_eq!((by_commit.layout, hub.asked()), (files.layout, before));
    assert_eq!(list_in(&settings)[0].id, "owner/name");
}

#[test]
fn the_revision_is_asked_for_and_kept() {
    let (hub, dir) = (FakeHub::serve(llama()), tempfile::tempdir().unwrap());
    let settings = settings_for(&hub, dir.path());
    let files = resolve_in(&settings, Some("owner/name@v2"), &TaskCtx::silent()).unwrap();
    assert_eq!(files.id, "owner/name@v2");
    assert!(
        hub.requests
            .lock()
            .unwrap()
            .iter()
            .all(|r| r.contains("/revision/v2") || r.contains("/resolve/v2/"))
    );
    let main = resolve_in(
        &SourceSettings {
            offline: true,
            ..settings
        },
        Some("owner/name"),
        &TaskCtx::silent(),
    );
    assert!(message(main).contains("not in the Hub cache"));
}

#[test]
fn shards_and_single_gguf_files_are_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let sharded = Repo::default()
        .file("config.json", "{}")
        .file("tokenizer.json", "{}")
        .file(
            "model.safetensors.index.json",
            r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#,
        )
        .file("m-1.safetensors", safetensors(1))
        .file("m-2.safetensors", safetensors(2));
    let hub = FakeHub::serve(sharded);
    let ModelLayout::HuggingFace { weights, .. } =
        get(&settings_for(&hub, dir.path())).unwrap().layout
    else {
        panic!()
    };
    assert_eq!(weights.len(), 2);

    let one = Repo::default()
        .file("README.md", "x")
        .file("m.gguf", gguf_bytes());
    hub.change(one.clone());
    let gguf = resolve_in(
        &settings_for(&hub, dir.path()),
        Some("o/gguf"),
        &TaskCtx::silent(),
    )
    .unwrap();
    assert!(matches!(gguf.layout, ModelLayout::Gguf(path) if path.ends_with("m.gguf")));
    hub.change(one.file("n.gguf", gguf_bytes()));
    assert!(
        message(resolve_in(
            &settings_for(&hub, dir.path()),
            Some("o/two"),
            &TaskCtx::silent()
        ))
        .contains("m.gguf, n.gguf")
    );
    hub.change(Repo::default().file("README.md", "x"));
    assert!(
        message(resolve_in(
            &settings_for(&hub, dir.path()),
            Some("o/none"),
            &TaskCtx::silent()
        ))
        .contains("no model")
    );
    hub.change(
        Repo::default()
            .file("config.json", "{}")
            .file("model.safetensors", safetensors(1)),
    );
    assert!(
        message(resolve_in(
            &settings_for(&hub, dir.path()),
            Some("o/none"),
            &TaskCtx::silent()
        ))
        .contains("no tokenizer.json")
    );
}

#[test]
fn a_cut_transfer_is_never_taken_for_a_whole_one_and_resumes() {
    let (hub, dir) = (
        FakeHub::serve(llama().served("model.safetensors", Body::CutAfter(100_000))),
        tempfile::tempdir().unwrap(),
    );
    let settings = settings_for(&hub, dir.path());
    let cut = message(get(&settings));
    assert!(
        cut.contains("model.safetensors") && cut.contains("try again"),
        "{cut}"
    );
    let offline = message(get(&SourceSettings {
        offline: true,
        ..settings.clone()
    }));
    assert!(
        offline.contains("HF_HUB_OFFLINE") && offline.contains("not whole"),
        "{offline}"
    );

    hub.change(llama());
    let before = hub.asked();
    get(&settings).unwrap();
    let ranges: Vec<String> = hub.requests.lock().unwrap()[before..].to_vec();
    assert!(
        ranges
            .iter()
            .any(|r| r.contains("model.safetensors") && r.contains("bytes=100000-")),
        "{ranges:?}"
    );
    // What was there already is not fetched again.
    assert!(
        !ranges
            .iter()
            .any(|r| r.contains("config.json") && r.contains("bytes=0- ")),
        "{ranges:?}"
    );
}

#[test]
fn a_short_or_damaged_file_is_thrown_away() {
    for body in [Body::CutUnannounced(100_000), Body::Damaged] {
        let (hub, dir) = (
            FakeHub::serve(llama().served("model.safetensors", body)),
            tempfile::tempdir().unwrap(),
        );
        let settings = settings_for(&hub, dir.path());
        let message = message(get(&settings));
        assert!(message.contains("model.safetensors came"), "{message}");
        let repo = settings.hub_cache.join("models--owner--name");
        assert!(!repo.join("blobs").join(sha256(&safetensors(BIG))).exists());
        assert!(
            fs::symlink_metadata(
                repo.join("snapshots")
                    .join(COMMIT)
                    .join("model.safetensors")
            )
            .is_err()
        );
        hub.change(llama());
        get(&settings).unwrap();
    }
}

#[test]
fn a_resumed_part_of_other_content_is_started_anew() {
    let (hub, dir) = (FakeHub::serve(llama()), tempfile::tempdir().unwrap());
    let settings = settings_for(&hub, dir.path());
    let name = sha256(&safetensors(BIG));
    for part in [vec![b'?'; 1000], vec![b'?'; BIG * 2]] {
        let blobs = settings.hub_cache.join("models--owner--name/blobs");
        let _ = fs::remove_dir_all(&settings.hub_cache);
        write(&blobs, &format!("{name}.part"), part);
        get(&settings).unwrap();
    }
}

#[test]
fn cancelling_leaves_at_once_and_a_restart_finishes() {
    let (hub, dir) = (
        FakeHub::serve(llama().served("model.safetensors", Body::Stalled(1000))),
        tempfile::tempdir().unwrap(),
    );
    let settings = settings_for(&hub, dir.path());
    let ctx = cancelled_when(|p| p.stage.contains("model.safetensors"));
    let resolved = resolve_in(&settings, Some("owner/name"), &ctx);
    assert!(matches!(resolved, Err(Error::Cancelled)), "{resolved:?}");
    // The abandoned worker still waits for bytes and holds its lock; another process would start
    // without it.
    hub.change(llama());
    let blobs = settings.hub_cache.join("models--owner--name/blobs");
    fs::remove_file(blobs.join(format!("{}.lock", sha256(&safetensors(BIG))))).unwrap();
    get(&settings).unwrap();
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, dir) = (
        FakeHub::serve(Repo::default()),
        tempfile::tempdir().unwrap(),
    );
    let settings = settings_for(&hub, dir.path());
    for (status, says, code) in [
        (404, "check its name", 2),
        (401, "HF_TOKEN", 2),
        (403, "terms", 1),
        (503, "503", 1),
    ] {
        hub.change(Repo {
            status: Some(status),
            ..Repo::default()
        });
        let error = get(&settings).unwrap_err();
        assert_eq!(error.exit_code(), code);
        assert!(
            error.to_string().contains("'owner/name'") && error.to_string().contains(says),
            "{error}"
        );
    }
    let garbage: [&[u8]; 5] = [
        b"\0\xff\x01 what is this",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"sha\":\"../../x\",\"siblings\":[]}     ",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    ];
    for garbage in garbage {
        hub.change(Repo {
            garbage: Some(garbage),
            ..Repo::default()
        });
        assert!(message(get(&settings)).contains(&hub.endpoint));
    }
    let closed = message(get(&SourceSettings {
        endpoint: "http://127.0.0.1:1".into(),
        ..settings.clone()
    }));
    assert!(
        closed.starts_with("cannot reach http://127.0.0.1:1: "),
        "{closed}"
    );
    assert!(
        message(get(&SourceSettings {
            endpoint: "ftp://x".into(),
            ..settings.clone()
        }))
        .contains("HF_ENDPOINT")
    );
    let offline = message(get(&SourceSettings {
        offline: true,
        ..settings
    }));
    assert!(
        offline.contains("HF_HUB_OFFLINE") && offline.contains("not in the Hub cache"),
        "{offline}"
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (hub, dir) = (FakeHub::serve(llama()), tempfile::tempdir().unwrap());
    write(dir.path(), "hub", "a file where the cache should be");
    let message = message(get(&settings_for(&hub, dir.path())));
    assert!(
        message.contains("cannot keep config.json") && message.contains("HF_HOME"),
        "{message}"
    );
}

#[test]
fn a_folder_that_is_no_model_is_fetched_alone() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["params.npz", "checkpoints/final.safetensors"];
    let repo = Repo::default()
        .file("layer_1/params.npz", *b"first")
        .file("layer_1/other.bin", *b"not wanted")
        .file("layer_2/checkpoints/final.safetensors", *b"second");
    let hub = FakeHub::serve(repo);
    let settings = SourceSettings {
        endpoint: hub.endpoint.clone(),
        ..settings(dir.path())
    };
    let ctx = TaskCtx::silent();
    let found = resolve_folder_in(&settings, "o/n/layer_1", &files, &ctx).unwrap();
    assert_eq!(fs::read(found.join("params.npz")).unwrap(), b"first");
    assert!(!found.join("other.bin").exists());
    let found = resolve_folder_in(&settings, "o/n/layer_2", &files, &ctx).unwrap();
    assert_eq!(
        fs::read(found.join("checkpoints/final.safetensors")).unwrap(),
        b"second"
    );
    let wrong = message(resolve_folder_in(&settings, "o/n/layer_3", &files, &ctx));
    assert!(wrong.contains("it has layer_1, layer_2"), "{wrong}");
    let offline = SourceSettings {
        offline: true,
        ..settings
    };
    assert!(
        resolve_folder_in(&offline, "o/n/layer_1", &files, &ctx)
            .unwrap()
            .join("params.npz")
            .exists()
    );
    assert!(
        message(resolve_folder_in(&offline, "o/n/layer_4", &files, &ctx))
            .contains("HF_HUB_OFFLINE")
    );
    assert!(
        message(resolve_folder_in(&offline, "nowhere", &files, &ctx))
            .contains("no file or directory")
    );
    assert!(message(resolve_folder_in(&offline, "no//where", &files, &ctx)).contains("owner/name"));
}
