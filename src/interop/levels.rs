//! Levels of features of features for elsewhere: the JSON of `mlpeek tree --recursive --json`.

use serde_json::{Value, json};

use crate::analysis::Levels;

/// The levels and their nodes; a node's height is its level.
pub fn to_json(levels: &Levels, fit: &str) -> Value {
    let nodes: Vec<Value> = levels
        .nodes
        .iter()
        .map(|n| {
            let mut node = serde_json::to_value(n).unwrap_or_default();
            node["height"] = json!(n.level);
            node
        })
        .collect();
    json!({"fit": fit, "growth": levels.growth, "levels": levels.levels, "nodes": nodes})
}
