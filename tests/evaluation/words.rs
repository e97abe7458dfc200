//! Asking in words beside steering: `eval steering --methods prompt`.

use std::fs;
use std::path::Path;

use mlpeek::TaskCtx;
use mlpeek::eval::steering::worded::asked_ids;
use mlpeek::model::{Batch, BosRule, LoadOptions, Logits, Model, NoTap, Phase, source};
use serde_json::{Value, json};

use super::support::program::events;
use super::{Made, mlpeek};

const PROMPTS: [&str; 2] = ["the sea", "on day"];

fn asking<'a>(study: &'a str, methods: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let asked = [
        "eval",
        "steering",
        study,
        "--methods",
        methods,
        "--kl",
        "0.02",
        "--max-tokens",
        "4",
    ];
    let prompts = ["--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--json"];
    [&asked[..], &prompts, more].concat()
}

/// Log-probabilities of the next token after ids, in f64.
fn log_probs(model: &Model, ids: Vec<u32>) -> Vec<f64> {
    let batch = Batch {
        rows: vec![ids],
        samples: Vec::new(),
    };
    let ctx = TaskCtx::silent();
    let logits = model.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx);
    let logits = logits
        .unwrap()
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    logits.iter().map(|&l| f64::from(l) - sum.ln()).collect()
}

#[test]
fn what_is_asked_in_words_stands_beside_what_steers() {
    let made = Made::new();
    let (lines, notes, code) =
        made.output(&asking(&made.study, "diffmean,prompt", &["--samples", "1"]));
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("has no chat template"), "{notes}");
    let of = |event: &str| -> Vec<&Value> {
        let all = events(&lines, event).into_iter();
        all.filter(|l| l["method"] == "prompt").collect()
    };
    // Three labels, two prompts; no sign but promoting, no KL that is sought.
    let texts = of("text");
    assert_eq!(texts.len(), 6);
    assert!(
        texts
            .iter()
            .all(|t| t["alpha"] == 0.0 && t["kl_target"] == 0.0 && t["sign"] == 1)
    );
    assert!(
        texts
            .iter()
            .all(|t| t["concept"].is_number() && t["nll"].as_f64().unwrap() > 0.0)
    );
    let method = of("method")[0];
    assert_eq!(
        (method["hook"].is_null(), method["text_count"].as_u64()),
        (true, Some(6))
    );
    assert_eq!(method["cells"].as_array().unwrap().len(), 1);
    assert!(method["best_interval"]["mean"].is_number(), "{method}");
    let steered = events(&lines, "method");
    assert!(steered[0]["hook"].is_string() && steered.len() == 2);
    assert_eq!(of("free_text").len(), 1);
    assert_eq!(of("rise").len(), 1);
    let measured: Vec<&str> = of("measure")
        .iter()
        .map(|m| m["measure"].as_str().unwrap())
        .collect();
    assert_eq!(
        measured,
        ["rise", "own", "nats"],
        "no random direction has its KL"
    );
    assert_eq!(events(&lines, "difference")[0]["against"], "prompt");

    // Where words stand, by the plain formula.
    let silent = TaskCtx::silent();
    let path = made.dir.path().join("tiny-llama");
    let files = source::resolve(path.to_str(), &silent).unwrap();
    let model = Model::open(&files, &LoadOptions::default(), &silent).unwrap();
    let log = fs::read_to_string(strengths(&made)).unwrap();
    let mut checked = 0;
    for record in log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
    {
        if record["method"] != "prompt" {
            continue;
        }
        let label = record["label"].as_str().unwrap();
        let (mut kl, mut nats) = (0.0, vec![0.0; 300]);
        for prompt in PROMPTS {
            let plain = model.tokenizer().encode(prompt, BosRule::Auto).unwrap();
            let asked = asked_ids(&model, label, prompt, BosRule::Auto).unwrap();
            assert!(asked.ends_with(&plain[1..]) && asked[0] == plain[0] && asked.len() > 40);
            let (p, q) = (log_probs(&model, plain), log_probs(&model, asked));
            kl += p
                .iter()
                .zip(&q)
                .map(|(p, q)| p.exp() * (p - q))
                .sum::<f64>()
                / 2.0;
            for (sum, (p, q)) in nats.iter_mut().zip(p.iter().zip(&q)) {
                *sum += (q - p) / 2.0;
            }
        }
        let near = |found: &Value, wanted: f64| {
            assert!(
                (found.as_f64().unwrap() - wanted).abs() < 1e-4,
                "{found} {wanted}"
            );
        };
        near(&record["kl"], kl);
        let (low, high) = nats
            .iter()
            .fold((0.0f64, 0.0f64), |(l, h), &v| (l.min(v), h.max(v)));
        let found = record["nats"].as_f64().unwrap();
        assert!(
            low - 1e-4 <= found && found <= high + 1e-4,
            "{low} {found} {high}"
        );
        checked += 1;
    }
    assert_eq!(checked, 3);
}

fn strengths(made: &Made) -> std::path::PathBuf {
    let evaluations = Path::new(&made.study).join("evaluations");
    let mut all = fs::read_dir(evaluations).unwrap();
    all.next().unwrap().unwrap().path().join("strengths.jsonl")
}

#[test]
fn a_chat_model_is_asked_through_its_template_and_goes_on_where_it_stopped() {
    let made = Made::new();
    let config = made.dir.path().join("tiny-llama/tokenizer_config.json");
    let template =
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}";
    let told = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template});
    fs::write(&config, told.to_string()).unwrap();
    let args = asking(
        &made.study,
        "prompt",
        &["--samples", "2", "--batch", "3", "--name", "w"],
    );
    let (lines, notes, code) = made.output(&args);
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("through its own chat template"), "{notes}");
    assert_eq!(events(&lines, "text").len(), 12);
    let dir = Path::new(&made.study).join("evaluations/w");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let (texts, strengths) = (read("texts.jsonl"), read("strengths.jsonl"));
    // Killed in the middle of a line.
    fs::write(
        dir.join("texts.jsonl"),
        &texts.as_bytes()[..texts.len() - 30],
    )
    .unwrap();
    fs::write(
        dir.join("strengths.jsonl"),
        &strengths.as_bytes()[..strengths.len() / 2],
    )
    .unwrap();
    let again = made.lines(&args);
    assert_eq!(events(&again, "method"), events(&lines, "method"));
    let sorted = |text: &str| {
        let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&read("texts.jsonl")), sorted(&texts));
    assert_eq!(sorted(&read("strengths.jsonl")), sorted(&strengths));
    // Another template asks otherwise, and is another evaluation.
    let told = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template.replace("<", "[")});
    fs::write(&config, told.to_string()).unwrap();
    made.fails(&args, 1, "another evaluation");
    let told = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ raise_exception('no talk') }}"});
    fs::write(&config, told.to_string()).unwrap();
    made.fails(&args, 1, "no talk");
}

#[test]
fn what_words_cannot_do_is_refused() {
    let made = Made::new();
    let study = &made.study;
    made.fails(
        &["eval", "detection", study, "--methods", "fit,prompt"],
        2,
        "has no direction",
    );
    made.fails(
        &[
            "eval",
            "steering",
            study,
            "--methods",
            "prompt",
            "--layer",
            "1",
        ],
        2,
        "no effect on prompt",
    );
    made.fails(
        &["eval", "steering", study, "--methods", "fit+prompt"],
        2,
        "has no direction",
    );
    // A table for a person tells no KL of it.
    let args = asking(study, "diffmean,prompt", &["--samples", "1"]);
    let args: Vec<&str> = args.into_iter().filter(|a| *a != "--json").collect();
    let output = mlpeek(made.dir.path()).args(&args).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("no KL sought") && !table.contains("prompt, KL"),
        "{table}"
    );
}
