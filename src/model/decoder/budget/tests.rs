use std::path::Path;

use super::*;

fn family(name: &str) -> (Config, Weights) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(name);
    let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
    (Config::from_hf(&dir.join("config.json")).unwrap(), weights)
}

fn subject<'a>((config, weights): &'a (Config, Weights)) -> Subject<'a> {
    Subject {
        config,
        weights,
        widened: &[],
    }
}

fn device(dtype: DType) -> Plan {
    Plan::new(&LoadOptions::default(), Some(dtype))
}

fn asked(plan: Plan, tokens: usize) -> Plan {
    Plan {
        tokens,
        asked: true,
        ..plan
    }
}

/// [`check`] with one device.
fn check_one(subject: Subject<'_>, plan: Plan, free: Option<u64>) -> Result<Plan> {
    check(subject, plan, &[free], &["gpu".into()])
}

#[test]
fn counts_the_layers_that_are_kept_and_the_width_of_the_device() {
    let model = family("gpt2");
    let (config, weights) = &model;
    let all = MemoryNeed::on_cpu(config, weights, None);
    let stored: usize = weights
        .names()
        .filter_map(|n| weights.get(n))
        .map(|t| t.data().len())
        .sum();
    assert_eq!(all.weights, stored as u64);
    // A layer of d_model 24 and d_mlp 40: qkv, out, up, down with biases, two norms.
    let layer = 4 * (24 * 72 + 72 + 24 * 24 + 24 + 24 * 40 + 40 + 40 * 24 + 24 + 4 * 24);
    let one = MemoryNeed::on_cpu(config, weights, Some(1));
    assert_eq!((all.weights - one.weights, one.cache), (2 * layer, 0));
    assert_eq!(all.cache, 2 * 64 * (2 * 24 * 3 * 4));
}

#[test]
fn a_device_holds_the_embedding_once_where_it_is_the_unembedding_and_else_not_at_all() {
    // Tied, with learned positions [64, 24], which stay in the file.
    let gpt2 = family("gpt2");
    let on_cpu = MemoryNeed::on_cpu(&gpt2.0, &gpt2.1, None).weights;
    let need = |model, plan| subject(model).need(plan).weights;
    assert_eq!(need(&gpt2, device(DType::BF16)), (on_cpu - 4 * 64 * 24) / 2);
    // An unembedding of its own: the embedding stays in the file.
    let llama = family("llama");
    let on_cpu = MemoryNeed::on_cpu(&llama.0, &llama.1, None).weights;
    let embedding = 4 * (llama.0.vocab * llama.0.d_model) as u64;
    assert_eq!(need(&llama, device(DType::F32)), on_cpu - embedding);
    // Where it is copied it is counted once, and learned positions in f32.
    let with = |plan| Plan {
        embedding: true,
        ..plan
    };
    let more = |model, plan| need(model, with(plan)) - need(model, plan);
    assert_eq!(more(&llama, device(DType::F32)), embedding);
    assert_eq!(more(&llama, device(DType::BF16)), embedding / 2);
    assert_eq!(more(&gpt2, device(DType::BF16)), 4 * 64 * 24);
    // The unembedding of several devices lies on another one; of the first layers there is none.
    let gpt2_embedding = 2 * (gpt2.0.vocab * gpt2.0.d_model) as u64;
    let several = Plan {
        several: true,
        ..device(DType::BF16)
    };
    let first = Plan {
        layers: Some(1),
        ..device(DType::BF16)
    };
    for plan in [several, first] {
        assert_eq!(more(&gpt2, plan), gpt2_embedding + 4 * 64 * 24);
    }
    // The first layers alone have neither.
    let one = Plan {
        layers: Some(1),
        ..device(DType::F32)
    };
    assert_eq!(need(&llama, one), subject(&llama).parts(one).layers[0]);
}

#[test]
fn scores_masks_and_logits_count_on_a_device() {
    let model = family("llama");
    let (plan, config) = (device(DType::F32), &model.0);
    let working = |plan| subject(&model).need(plan).working;
    let first = Plan {
        layers: Some(1),
        ..plan
    };
    // Twice the tokens of a row that the context holds are four times the scores.
    let (few, many) = (asked(first, 8), asked(first, 16));
    let values = 2 * config.d_mlp + config.q_width() + 2 * config.kv_width() + 4 * config.d_model;
    let pairs = 8 * 8;
    assert_eq!(
        working(many) - working(few),
        (8 * values * 4 + 3 * (pairs * config.heads * 8 + pairs * 4)) as u64
    );
    // Logits only where all layers are there, and where they are more than the scores.
    let wide = asked(plan, 1);
    assert!(working(wide) > working(asked(first, 1)));
    // However many tokens: no more scores than are held at once.
    let most = asked(first, 1 << 20);
    assert!(working(most) <= ((1u64 << 20) * values as u64 * 4) + (1 << 28) * 9 + (64 << 20));
}

#[test]
fn a_refusal_names_the_numbers_and_what_would_fit() {
    let model = family("gpt2");
    let cpu = Plan::on_cpu(None);
    let text = |plan, free| {
        check_one(subject(&model), plan, Some(free))
            .unwrap_err()
            .to_string()
    };
    let two = MemoryNeed::on_cpu(&model.0, &model.1, Some(2)).total();
    let error = text(cpu, two);
    assert!(
        error.contains("first 2 of 3 layers") && error.contains("--layer 1"),
        "{error}"
    );
    assert!(
        error.contains("weights") && error.contains("MiB") && !error.contains("bf16"),
        "{error}"
    );
    let half = subject(&model).need(device(DType::BF16)).total();
    assert!(text(asked(device(DType::F32), 8192), half).contains("--dtype bf16"));
    assert!(!text(cpu, 1).contains("would fit"));
    assert!(text(device(DType::BF16), 1).contains("cuda:0,1"));
    assert!(check_one(subject(&model), cpu, None).is_ok());
    let enough = MemoryNeed::on_cpu(&model.0, &model.1, None).total();
    assert!(check_one(subject(&model), cpu, Some(enough)).is_ok());
}

#[test]
fn a_batch_that_fits_is_proposed_and_then_fits() {
    let model = family("gpt2");
    let whole = asked(device(DType::F32), 8192);
    let free = subject(&model).need(asked(whole, 2048)).total();
    let error = check_one(subject(&model), whole, Some(free))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("smaller batch would fit (collect --batch-tokens 2048)"),
        "{error}"
    );
    let smaller = LoadOptions {
        batch_tokens: Some(2048),
        ..LoadOptions::default()
    };
    let smaller = Plan::new(&smaller, Some(DType::F32));
    assert!(check_one(subject(&model), smaller, Some(free)).is_ok());
    // A number that nobody asked for is made smaller without being refused.
    let plan = check_one(subject(&model), device(DType::F32), Some(free)).unwrap();
    assert_eq!(plan.tokens, 2048);
}

#[test]
fn layers_lie_on_several_devices_and_each_is_held_against_its_own_memory() {
    let model = family("gpt2");
    let plan = asked(device(DType::F32), 64);
    let parts = subject(&model).parts(plan);
    let layer = parts.layers[0] + parts.cache;
    // Room for two layers on the first, for one and the unembedding on the second.
    let free = [
        Some(parts.working + 2 * layer),
        Some(parts.working + layer + parts.outside),
    ];
    let found = shares(subject(&model), plan, &free);
    assert_eq!((found[0].layers.clone(), found[0].end), (0..2, false));
    assert_eq!((found[1].layers.clone(), found[1].end), (2..3, true));
    assert_eq!(found[0].described(), "layers 0 to 1");
    assert_eq!(found[1].described(), "layer 2 and the unembedding");
    let bytes: Vec<u64> = found.iter().map(|share| share.bytes).collect();
    assert_eq!(bytes, [free[0].unwrap(), free[1].unwrap()]);
    let names = ["cuda:0".to_owned(), "cuda:1".to_owned()];
    assert!(check(subject(&model), plan, &free, &names).is_ok());
    let short = [free[0].map(|b| b - 1), free[1]];
    let error = check(subject(&model), plan, &short, &names)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("on cuda:0 take") && error.contains("layer 2 and the unembedding on cuda:1"),
        "{error}"
    );
    assert!(check(subject(&model), plan, &[None, Some(1 << 40)], &names).is_ok());
}

#[test]
fn the_embedding_is_copied_where_that_is_known_to_fit() {
    let llama = family("llama");
    let plan = device(DType::BF16);
    let with = Plan {
        embedding: true,
        ..plan
    };
    let whole = subject(&llama).need(with).total();
    let taken = |free| check_one(subject(&llama), plan, free).unwrap();
    assert!(taken(Some(whole)).embedding);
    // It yields before the batch does.
    let without = taken(Some(whole - 1));
    assert_eq!((without.embedding, without.tokens), (false, plan.tokens));
    assert!(!taken(None).embedding);
    let cpu = Plan::new(&LoadOptions::default(), None);
    assert!(
        !check_one(subject(&llama), cpu, Some(u64::MAX))
            .unwrap()
            .embedding
    );
    let with = Plan {
        several: true,
        ..with
    };
    let found = shares(subject(&llama), with, &[Some(1 << 40), Some(1 << 40)]);
    assert!(found[0].start && !found[1].start);
    assert!(found[0].described().starts_with("the embeddings, layer"));
    let bytes: u64 = found.iter().map(|share| share.bytes).sum();
    let parts = subject(&llama).parts(with);
    assert_eq!(
        bytes,
        parts.layers.iter().sum::<u64>()
            + 3 * parts.cache
            + parts.outside
            + parts.embedding
            + 2 * parts.working
    );
}
