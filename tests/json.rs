//! What every command prints with `--json`: each line's fields, held to the page of the guide that
//! documents them.
//!
//! A name means one thing: it has one type, and an object of that name one set of fields, in
//! whatever command it stands. `MLPEEK_UPDATE_JSON=1` writes the page's two tables anew; what a
//! field means is written by hand, and a field without it fails.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlpeek::corpus::Corpus;
use mlpeek::study::Study;
use serde_json::{Value, json};
use support::program::{mlpeek, parsed};
use tempfile::TempDir;

const KEY: &str = "sk-json";

/// What was printed: of each line of each command its fields, of each object its fields, of each
/// field its types.
#[derive(Default)]
struct Schema {
    lines: BTreeMap<(String, String), BTreeSet<String>>,
    objects: BTreeMap<String, BTreeSet<String>>,
    types: BTreeMap<String, BTreeSet<String>>,
}

impl Schema {
    fn line(&mut self, command: &str, line: &Value) {
        let members = line.as_object().expect("a line is an object");
        let event = line["event"].as_str().unwrap_or("–").to_owned();
        let fields = members.keys().cloned().collect();
        let key = (command.to_owned(), event);
        let known = self.lines.entry(key.clone()).or_insert_with(|| fields);
        let present: BTreeSet<String> = members.keys().cloned().collect();
        assert_eq!(*known, present, "lines of {key:?} have different fields");
        self.members(line);
    }

    fn members(&mut self, object: &Value) {
        for (name, value) in object.as_object().unwrap() {
            let known = self.types.entry(name.clone()).or_default();
            known.extend(type_of(value).map(str::to_owned));
            let inner: Vec<&Value> = match value {
                Value::Object(_) => vec![value],
                Value::Array(list) => list.iter().filter(|v| v.is_object()).collect(),
                _ => Vec::new(),
            };
            for object in inner {
                let fields: BTreeSet<String> =
                    object.as_object().unwrap().keys().cloned().collect();
                let known = self.objects.entry(name.clone());
                let known = known.or_insert_with(|| fields.clone());
                assert_eq!(*known, fields, "two kinds of object are called {name}");
                self.members(object);
            }
        }
    }
}

/// `None` for an empty list, which may be of anything.
fn type_of(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Object(_) => "object",
        Value::Array(list) => match list.first()? {
            Value::Number(_) => "list of numbers",
            Value::String(_) => "list of strings",
            Value::Object(_) => "list of objects",
            other => panic!("a list of {other}"),
        },
    })
}

struct Made {
    dir: TempDir,
    schema: Schema,
}

impl Made {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs `words` with `--json` and takes every line as one of `command`.
    fn run(&mut self, command: &str, words: &[&str]) -> Vec<Value> {
        let output = mlpeek(self.dir.path())
            .env("JUDGE_KEY", KEY)
            .env("NO_PROXY", "*")
            .timeout(std::time::Duration::from_secs(300))
            .args(words)
            .arg("--json")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
        let lines = parsed(output.stdout);
        assert!(!lines.is_empty(), "{words:?} printed nothing");
        lines
            .iter()
            .for_each(|line| self.schema.line(command, line));
        lines
    }
}

/// Three labels with words of their own, and one without, which the offline judge leaves out.
fn corpus(path: &Path) {
    let sentences = |words: [&str; 3]| -> Vec<String> {
        let one = |i: usize| format!("{} and {} {i} so it was", words[i % 3], words[(i + 1) % 3]);
        (0..24).map(one).collect()
    };
    let [sea, days, food] = [
        sentences(["tide", "boat", "wave"]),
        sentences(["monday", "friday", "noon"]),
        sentences(["bread", "soup", "rice"]),
    ];
    let none = [&sea[..8], &days[8..16], &food[16..]].concat();
    let corpus = json!({"sea": sea, "days": days, "food": food, "none": none});
    std::fs::write(path, corpus.to_string()).unwrap();
}

/// What the judge says: sentences where sentences are wanted, a description, and else a rating, which
/// is no answer to a question for verdicts.
fn answer(user: &str) -> String {
    match user {
        user if user.contains("plain, varied English sentences") => (1..=6)
            .map(|i| format!("{i}. the tide and the boat\n"))
            .collect(),
        user if user.contains("Begin your answer") => "Description: words of a kind".to_owned(),
        _ => "Good.\nRating: 2".to_owned(),
    }
}

/// Activations of which one neuron holds most, so that a line has what it says of that.
fn outlier(path: &Path) {
    let values: Vec<u8> = (0..120 * 16)
        .map(|i| ((i * 37 % 101) as f32).sin().abs() * if i % 16 == 7 { 30.0 } else { 1.0 })
        .flat_map(f32::to_le_bytes)
        .collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![120, 16], &values);
    safetensors::serialize_to_file([("A", view.unwrap())], None, path).unwrap();
}

/// Runs every command that has `--json`.
fn everything() -> Schema {
    let mut made = Made {
        dir: TempDir::new().unwrap(),
        schema: Schema::default(),
    };
    let model = support::tiny_model(made.dir.path()).display().to_string();
    corpus(Path::new(&made.path("corpus.json")));
    outlier(Path::new(&made.path("outlier.safetensors")));
    let (data, study) = (made.path("corpus.json"), made.path("study"));
    let study = study.as_str();
    let collect = ["collect", "--model", &model, "-l", "1", "--data", &data];
    made.run("collect", &[&collect[..], &["--out", study]].concat());
    let more = support::corpus(made.dir.path(), 12);
    let more = made.dir.path().join(more).display().to_string();
    let fit = |name| {
        [
            "fit",
            study,
            "-k",
            "6",
            "--sparsity",
            "0.1",
            "--max-sweeps",
            "8",
            "--name",
            name,
        ]
    };
    made.run("fit", &fit("one"));
    made.run("fit", &[&fit("two")[..], &["--seed", "5"]].concat());
    let imported = made.path("imported");
    let matrix = made.path("outlier.safetensors");
    made.run("import", &["import", &matrix, "--out", &imported]);
    made.run("fit", &["fit", &imported, "-k", "3", "--max-sweeps", "3"]);
    let scaled = ["--name", "scaled", "--scale-rows", "--scale-neurons"];
    let scaled = [
        &["fit", &imported, "-k", "3", "--max-sweeps", "3"],
        &scaled[..],
    ]
    .concat();
    made.run("fit", &scaled);

    made.run("notes", &["notes", study, "3", "water #wet *4 -- of ships"]);
    made.run("notes", &["notes", study]);
    let notes = made.path("notes.json");
    made.run(
        "notes STUDY --export FILE",
        &["notes", study, "--export", &notes],
    );

    let (url, _) = support::judge::serve(KEY, Box::new(|_, user| Some((200, answer(user)))));
    let judge = [
        "--endpoint",
        &url,
        "--judge-model",
        "m",
        "--key-env",
        "JUDGE_KEY",
    ];
    let describe = ["describe", study, "0,1"];
    made.run(
        "describe",
        &[&describe[..], &judge, &["--sentences"]].concat(),
    );

    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoder");
    let offline = ["describe", study, "2", "--offline", "--encoder", encoder];
    made.run("describe", &offline);
    let published = made.path("published.json");
    std::fs::write(&published, r#"[{"index": "4", "description": "a word"}]"#).unwrap();
    made.run(
        "describe --import",
        &["describe", study, "--import", &published],
    );

    made.run("features", &["features", study]);
    made.run("features", &["features", study, "--directions", "diffmean"]);
    // Before anything is measured, and after.
    made.run("feature", &["feature", study, "0"]);
    let effects = ["effects", study, "--kl", "0.02", "--prompt", "the sea"];
    made.run("effects", &effects);
    let measured = ["--directions", "fit,mix5,textgrad"];
    made.run("effects", &[&["effects", study][..], &measured].concat());
    made.run("features", &[&["features", study][..], &measured].concat());
    made.run("feature", &["feature", study, "mix:sea"]);
    made.run("feature", &["feature", study, "diffmean:sea"]);
    made.run("trace", &["trace", study, "--text", "tide and boat"]);
    made.run("why", &["why", study, "--text", "tide and", "--token", "e"]);
    made.run("tree", &["tree", study]);
    made.run("tree STUDY --cut HEIGHT", &["tree", study, "--cut", "0.9"]);
    made.run("tree STUDY --matrix", &["tree", study, "--matrix"]);
    let levels = ["tree", study, "--recursive", "--levels", "3,2"];
    made.run("tree STUDY --recursive", &levels);
    made.run(
        "tree STUDY --recursive",
        &[&levels[..], &["--joint"]].concat(),
    );
    made.run("compare", &["compare", study, "one", "two"]);
    let steer = [
        "steer",
        study,
        "2,diffmean:sea:0.5",
        "--kl",
        "0.02",
        "--max-tokens",
        "3",
    ];
    made.run("steer", &[&steer[..], &["--prompt", "the sea"]].concat());
    let tensors = made.path("forward.safetensors");
    let forward = [
        "forward", "--model", &model, "--text", "abc", "--layer", "1", "--out", &tensors,
    ];
    made.run("forward", &forward);
    let factors = made.path("factors.safetensors");
    made.run("export", &["export", study, "--out", &factors]);
    let export = |format: &'static str| ["export", study, "--format", format, "--out"];
    for (format, name) in [("npz", "f.npz"), ("csv", "f.csv"), ("contexts", "c.csv")] {
        let out = made.path(name);
        made.run("export", &[&export(format)[..], &[&out]].concat());
    }
    let out = made.path("exported-sae");
    let words = [&export("saelens")[..], &[&out]].concat();
    made.run("export --format saelens", &words);
    let (out, vector) = (made.path("v.gguf"), ["--feature", "0,diffmean:sea:0.5"]);
    let edited = made.path("edited");
    let words = [&export("checkpoint")[..], &[&edited, "--feature", "0"]].concat();
    made.run("export --format checkpoint", &words);
    let words = [&export("control-vector")[..], &[&out], &vector].concat();
    made.run("export --format control-vector", &words);

    let quality = ["quality", study, "-k", "4", "--seeds", "2"];
    made.run("quality", &quality);
    made.run("sweep", &["sweep", study, "-k", "3,4", "--seeds", "2"]);
    let train = [
        "sae",
        "train",
        study,
        "--latents",
        "12",
        "--top-k",
        "3",
        "--epochs",
        "2",
    ];
    made.run("sae train", &[&train[..], &["--name", "t"]].concat());
    let weights = std::fs::read_dir(made.path("study/saes/t")).unwrap();
    let weights = weights.map(|e| e.unwrap().path());
    let weights: PathBuf = weights.into_iter().find(|p| p.is_dir()).unwrap();
    let weights = weights.display().to_string();
    made.run(
        "sae load",
        &["sae", "load", study, &weights, "--name", "u", "--force"],
    );
    made.run("sae list", &["sae", "list", study]);
    made.run("sae compare", &["sae", "compare", study, "--predict", "60"]);

    let methods = ["--methods", "fit,diffmean,random"];
    let detection = ["eval", "detection", study];
    made.run("eval detection", &[&detection[..], &methods].concat());
    let steering = ["eval", "steering", study, "--kl", "0.02", "--samples", "1"];
    let steering = [&steering[..], &["--max-tokens", "2"], &methods].concat();
    made.run("eval steering", &[&steering[..], &["--dry-run"]].concat());
    made.run("eval steering", &[&steering[..], &judge].concat());
    let by_effects = ["--methods", "diffmean,textgrad-cut,mix,effect"];
    let rises = ["eval", "steering", study, "--kl", "0.02", "--samples", "0"];
    made.run("eval steering", &[&rises[..], &by_effects].concat());
    let far = [
        "eval",
        "steering",
        study,
        "--kl",
        "1000",
        "--samples",
        "1",
        "--methods",
        "fit",
    ];
    made.run("eval steering", &far);
    let meaning = ["--judge", "meaning", "--encoder", encoder];
    made.run("eval steering", &[&steering[..], &meaning].concat());
    let described = [
        "eval",
        "steering",
        study,
        "--concepts",
        "descriptions",
        "--sample",
        "2",
    ];
    let described = [
        &described[..],
        &["--kl", "0.02", "--samples", "2", "--max-tokens", "2"],
        &judge,
    ]
    .concat();
    made.run("eval steering --concepts descriptions", &described);
    let reuse = [
        "eval",
        "reuse",
        study,
        "--kl",
        "0.02",
        "--features",
        "0=a,1=b",
    ];
    made.run("eval reuse", &reuse);

    // Of its own corpus: the one above was written over.
    let (wide, own) = (made.path("wide"), made.path("wide.json"));
    corpus(Path::new(&own));
    let both = ["collect", "--model", &model, "-l", "0,1", "--data", &own];
    made.run("collect", &[&both[..], &["--out", &wide]].concat());
    let grid = ["-k", "3", "--max-sweeps", "2", "--layer", "0,1"];
    made.run("fit", &[&["fit", &wide][..], &grid].concat());
    let grid = [&grid[..], &["--seeds", "1"]].concat();
    made.run("sweep", &[&["sweep", &wide][..], &grid].concat());
    made.run("quality", &[&["quality", &wide][..], &grid].concat());
    let layers = ["--layer", "0,1", "--methods", "diffmean"];
    made.run(
        "eval detection",
        &[&["eval", "detection", &wide][..], &layers].concat(),
    );
    let rises = ["eval", "steering", &wide, "--kl", "0.02", "--samples", "0"];
    made.run("eval steering", &[&rises[..], &layers].concat());

    made.run("info", &["info", study]);
    made.run("info", &["info", &imported]);
    let models = made.dir.path().join("home/models");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("broken.gguf"), "no model").unwrap();
    made.run("models", &["models"]);
    made.run("doctor", &["doctor"]);
    if cfg!(feature = "tui") {
        made.run("keys", &["keys"]);
    }
    let append = ["collect", "--append", "--data", &more, "--out", study];
    made.run("collect", &append);
    // One that is added and not collected, as where that was cut short.
    let added = json!({"sea": ["a tide"], "days": ["a noon"]});
    std::fs::write(made.path("added.json"), added.to_string()).unwrap();
    let mut cut = Study::open(Path::new(study)).unwrap();
    cut.append(&Corpus::open(Path::new(&made.path("added.json"))).unwrap())
        .unwrap();
    drop(cut);
    made.run(
        "collect --withdraw --out STUDY",
        &["collect", "--withdraw", "--out", study],
    );
    made.schema
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/json.md")
}

/// What stands between the two marks of a table.
fn table<'a>(page: &'a str, name: &str) -> &'a str {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let at = page.find(&begin).expect("the table's beginning is marked") + begin.len();
    let length = page[at..].find(&end).expect("the table's end is marked");
    &page[at..at + length]
}

fn names(fields: &BTreeSet<String>) -> String {
    let names: Vec<String> = fields.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Name and types of the page's fields.
fn documented(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut fields = BTreeMap::new();
    for row in table(page, "fields")
        .lines()
        .filter(|l| l.starts_with("| `"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "a row has three cells: {row}");
        assert!(cells[2].len() > 3, "{row} says what it means");
        let types = cells[1].split(" or ").map(str::to_owned).collect();
        let name = cells[0].trim_matches('`').to_owned();
        assert!(fields.insert(name, types).is_none(), "{row} stands twice");
    }
    fields
}

#[test]
fn every_field_of_every_command_is_documented_and_has_one_type() {
    let found = everything();
    for (name, types) in &found.types {
        let real: Vec<&String> = types.iter().filter(|t| *t != "null").collect();
        assert!(real.len() <= 1, "{name} is {real:?}: one name, one type");
    }
    let lines: String = found
        .lines
        .iter()
        .map(|((command, event), fields)| {
            format!("| `{command}` | {event} | {} |\n", names(fields))
        })
        .collect();
    let lines = format!("| command | line | fields |\n| --- | --- | --- |\n{lines}");
    let objects: String = found
        .objects
        .iter()
        .map(|(name, fields)| format!("| `{name}` | {} |\n", names(fields)))
        .collect();
    let objects = format!("| object | fields |\n| --- | --- |\n{objects}");
    let mut text = std::fs::read_to_string(page()).unwrap();
    if std::env::var_os("MLPEEK_UPDATE_JSON").is_some() {
        text = text.replace(table(&text, "lines"), &lines);
        text = text.replace(table(&text, "objects"), &objects);
        std::fs::write(page(), &text).unwrap();
    }
    let fields = documented(&text);
    let seen: BTreeSet<&String> = found.types.keys().collect();
    let known: BTreeSet<&String> = fields.keys().collect();
    let printed: Vec<_> = seen
        .difference(&known)
        .map(|name| (name, &found.types[*name]))
        .collect();
    assert!(
        printed.is_empty(),
        "printed, and not on the page: {printed:#?}"
    );
    let gone: Vec<_> = known.difference(&seen).collect();
    assert!(gone.is_empty(), "on the page, and not printed: {gone:?}");
    for (name, types) in &found.types {
        assert!(
            types.is_subset(&fields[name]),
            "{name} is {types:?}, the page says {:?}",
            fields[name]
        );
    }
    assert_eq!(
        table(&text, "lines"),
        lines,
        "MLPEEK_UPDATE_JSON=1 writes it"
    );
    assert_eq!(
        table(&text, "objects"),
        objects,
        "MLPEEK_UPDATE_JSON=1 writes it"
    );
}
