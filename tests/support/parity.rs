//! the guide's table of parity: what a test measures must be under the bound that the table states.
//!
//! `MLPEEK_UPDATE_PARITY=1 cargo test --release --test families` writes the table anew (with `--
//! --include-ignored` and the variables that name the real weights, `--test smollm2` and `--test
//! gemma3` write their rows).

use std::path::PathBuf;
use std::sync::Mutex;

const BEGIN: &str =
    "<!-- parity: written by MLPEEK_UPDATE_PARITY=1 cargo test --release --test families -->\n";
const END: &str = "<!-- end of parity -->\n";
const HEAD: &str = "| model | weights | reference | hooks | logits | hooks, on tensors | logits, on tensors |\n| --- | --- | --- | --- | --- | --- | --- |\n";

/// Tests of one binary may write at once.
static PAGE: Mutex<()> = Mutex::new(());

/// A measured line: the worst difference relative to the largest value.
pub struct Row {
    pub model: String,
    pub weights: &'static str,
    pub reference: &'static str,
    /// Of activations at two layers; `None` where the reference shows none.
    pub hooks: Option<f32>,
    pub logits: f32,
    /// Hooks and logits by the operations of a card.
    pub on_tensors: Option<(f32, f32)>,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let or_none = |error: Option<f32>| error.map_or("–".to_owned(), bound);
        vec![
            self.model.clone(),
            self.weights.into(),
            self.reference.into(),
            or_none(self.hooks),
            bound(self.logits),
            or_none(self.on_tensors.map(|bounds| bounds.0)),
            or_none(self.on_tensors.map(|bounds| bounds.1)),
        ]
    }
}

/// Another processor adds in another order: a bound of the table may be passed by so much there.
const ELSEWHERE: f32 = 4.0;

/// Twice what was measured, rounded up to one digit.
fn bound(error: f32) -> String {
    let doubled = f64::from(error.max(1e-9)) * 2.0;
    let exponent = doubled.log10().floor();
    let digit = (doubled / 10f64.powf(exponent)).ceil();
    format!("{:.0e}", digit * 10f64.powf(exponent))
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/guide/parity.md")
}

/// The page before its table, the table's cells, and what follows.
fn parts() -> (String, Vec<Vec<String>>, String) {
    let text = std::fs::read_to_string(path()).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("src/guide/parity.md marks where its parity table begins");
    let (table, after) = rest
        .split_once(END)
        .expect("src/guide/parity.md marks where its parity table ends");
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|c| c.trim().to_owned())
            .collect()
    };
    (
        before.to_owned(),
        table.lines().skip(2).map(cells).collect(),
        after.to_owned(),
    )
}

/// The (model, weights) of every row.
pub fn listed() -> Vec<(String, String)> {
    parts()
        .1
        .into_iter()
        .map(|c| (c[0].clone(), c[1].clone()))
        .collect()
}

/// Checks that the table has these rows and that each bound in it holds, or writes them.
pub fn hold(rows: &[Row]) {
    let _alone = PAGE.lock().unwrap_or_else(|e| e.into_inner());
    let (before, mut table, after) = parts();
    let update = std::env::var_os("MLPEEK_UPDATE_PARITY").is_some();
    for row in rows {
        let cells = row.cells();
        println!("| {} |", cells.join(" | "));
        let at = table.iter().position(|c| c[..2] == cells[..2]);
        match at {
            Some(at) if update => table[at] = cells,
            None if update => table.push(cells),
            Some(at) => check(row, &table[at]),
            None => panic!(
                "the guide's parity table lacks {} ({}): MLPEEK_UPDATE_PARITY=1",
                row.model, row.weights
            ),
        }
    }
    if update {
        let lines: String = table
            .iter()
            .map(|c| format!("| {} |\n", c.join(" | ")))
            .collect();
        std::fs::write(path(), format!("{before}{BEGIN}{HEAD}{lines}{END}{after}")).unwrap();
    }
}

fn check(row: &Row, cells: &[String]) {
    let what = format!("{} ({})", row.model, row.weights);
    assert_eq!(cells[2], row.reference, "{what}");
    for (name, stated, measured) in [
        ("hooks", &cells[3], row.hooks),
        ("logits", &cells[4], Some(row.logits)),
        (
            "hooks on tensors",
            &cells[5],
            row.on_tensors.map(|bounds| bounds.0),
        ),
        (
            "logits on tensors",
            &cells[6],
            row.on_tensors.map(|bounds| bounds.1),
        ),
    ] {
        match (stated.parse::<f32>().ok(), measured) {
            (Some(stated), Some(measured)) => {
                assert!(stated < 1e-4, "{what}: the guide allows {name} {stated}");
                assert!(
                    measured <= ELSEWHERE * stated,
                    "{what}: {name} differ by {measured:e}, the guide says at most {stated}"
                );
            }
            (None, None) => {}
            _ => panic!(
                "{what}: the guide says '{stated}' of {name}, the test measured {measured:?}"
            ),
        }
    }
}
