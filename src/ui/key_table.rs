//! The key reference: every action with the keys that the user's file gives it.

use super::config;
use super::keymap::KeyRow;

/// The key reference with the user's keys, and what is wrong with the configuration file, a line
/// each.
pub fn configured_key_table() -> (Vec<KeyRow>, Vec<String>) {
    let config = config::load();
    (config.keymap.table(), config.problems)
}

/// A key reference as a Markdown table.
pub fn key_table_markdown(rows: &[KeyRow]) -> String {
    let mut out =
        String::from("| key | action | where | what it does |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let keys: Vec<String> = row
            .keys
            .iter()
            .map(|k| format!("`{}`", k.replace('|', "\\|")))
            .collect();
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            keys.join(" "),
            row.action,
            row.place,
            row.doc
        ));
    }
    out
}
