//! `mlpeek eval` by unseen members of families, and what is counted in texts, end to end on a small
//! random model.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::program::{events, mlpeek};
use tempfile::TempDir;

fn run(home: &Path, args: &[&str]) -> (Vec<Value>, String, i32) {
    let output = mlpeek(home).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok());
    let said = String::from_utf8(output.stderr).unwrap();
    (lines.collect(), said, output.status.code().unwrap())
}

fn lines(home: &Path, args: &[&str]) -> Vec<Value> {
    let (lines, said, code) = run(home, args);
    assert_eq!(code, 0, "{said}");
    lines
}

/// A fitted study of two families of three members each, and of a label that is of none.
fn study(home: &Path) -> String {
    let sentences = |word: &str, of: &str| -> Vec<String> {
        (0..8)
            .map(|i| format!("{of} {word} {i} {of} so it {word} was"))
            .collect()
    };
    let corpus = json!({
        "day/Monday": sentences("monday", "week"), "day/Friday": sentences("friday", "week"),
        "day/Sunday": sentences("sunday", "week"), "sea/tide": sentences("tide", "water"),
        "sea/wave": sentences("wave", "water"), "sea/boat": sentences("boat", "water"),
        "money": sentences("coin", "bank"),
    });
    let data = home.join("corpus.json");
    std::fs::write(&data, corpus.to_string()).unwrap();
    let model = support::tiny_model(home).display().to_string();
    let (data, study) = (data.display().to_string(), home.join("study"));
    let study = study.display().to_string();
    let collect = [
        "collect", "--model", &model, "--layer", "1", "--data", &data,
    ];
    lines(home, &[&collect[..], &["--out", &study]].concat());
    let fit = ["fit", &study, "-k", "5", "--sparsity", "0.1"];
    lines(home, &[&fit[..], &["--max-sweeps", "10"]].concat());
    study
}

#[test]
fn families_are_judged_on_members_of_which_nothing_chose() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    let detection = ["eval", "detection", &study, "--methods", "fit,diffmean"];
    let (found, said, _) = run(home, &[&detection[..], &["--unseen", "--json"]].concat());
    let labels = events(&found, "method")[1]["labels"].as_array().unwrap();
    let names: Vec<&str> = labels
        .iter()
        .map(|l| l["label"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["day", "sea"]);
    let last = events(&found, "detection")[0];
    let unseen = last["unseen_members"].as_array().unwrap();
    assert_eq!((unseen.len(), &last["label_count"]), (2, &json!(2)));
    assert!(said.contains(unseen[0].as_str().unwrap()), "{said}");
    assert!(
        said.contains("left out") && said.contains("money"),
        "{said}"
    );
    // What members share carries over to the others: the family's word is in all sentences.
    let carried = events(&found, "method")[1]["auroc_interval"]["mean"].as_f64();
    assert!(carried.unwrap() > 0.7, "{carried:?}");

    let steering = [
        "eval", "steering", &study, "--kl", "0.02", "--unseen", "--json",
    ];
    let methods = ["--methods", "diffmean,textgrad,mix5", "--samples", "0"];
    let asked = [&steering[..], &methods].concat();
    let all = lines(home, &asked);
    assert_eq!(
        events(&all, "steering")[0]["unseen_members"],
        last["unseen_members"]
    );
    assert_eq!(events(&all, "rise")[0]["label_count"], 2);
    // A family is a label by its own name, and a member none.
    let one = lines(home, &[&asked[..], &["--labels", "sea"]].concat());
    assert_eq!(events(&one, "steering")[0]["label_names"], json!(["sea"]));
    let (_, said, code) = run(home, &[&asked[..], &["--labels", "sea/tide"]].concat());
    assert_eq!(code, 2, "{said}");
    let none = run(
        home,
        &["eval", "detection", &study, "--unseen", "--holdout", "0"],
    );
    assert_eq!(none.2, 2, "{}", none.1);
    let described = ["--concepts", "descriptions", "--judge", "meaning"];
    let (_, said, code) = run(home, &[&steering[..], &described].concat());
    assert!(code == 2 && said.contains("--unseen"), "{said}");
}

#[test]
fn own_words_and_perplexity_of_the_texts_are_told_of_every_method() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    let asked = [
        "eval",
        "steering",
        &study,
        "--kl",
        "0.02",
        "--samples",
        "1",
        "--max-tokens",
        "4",
        "--methods",
        "diffmean,textgrad,textgrad-cut,mix,mix5,effect",
        "--json",
    ];
    let found = lines(home, &asked);
    let all = events(&found, "free_text");
    let names: Vec<&str> = all.iter().map(|f| f["method"].as_str().unwrap()).collect();
    let wanted = [
        "unsteered",
        "diffmean",
        "textgrad",
        "textgrad-cut",
        "mix",
        "mix5",
        "effect",
        "mix@random",
        "mix5@random",
        "effect@random",
    ];
    assert_eq!(names, wanted);
    let texts = events(&found, "text");
    for row in &all[1..] {
        let of = texts
            .iter()
            .filter(|t| t["method"] == row["method"] && t["sign"] == 1);
        let of: Vec<_> = of.collect();
        assert_eq!(row["text_count"], json!(of.len()), "{row}");
        // exp of the mean over all tokens, as the texts' own lines have it.
        let number = |t: &Value, name: &str| t[name].as_f64().unwrap();
        let tokens: f64 = of.iter().map(|t| number(t, "token_count")).sum();
        let sum = |t: &&&Value| number(t, "nll") * number(t, "token_count");
        let wanted = (of.iter().map(sum).sum::<f64>() / tokens).exp();
        let given = row["perplexity"].as_f64().unwrap();
        assert!(
            (given / wanted - 1.0).abs() < 1e-9,
            "{given}, wanted {wanted}"
        );
        assert_eq!(row["minus_against"].is_null(), row["method"] == "diffmean");
    }
    let rises = [&asked[..4], &["0.02", "--samples", "0", "--json"]].concat();
    let none = lines(home, &[&rises[..], &["--methods", "diffmean"]].concat());
    assert!(events(&none, "free_text").is_empty());
}
