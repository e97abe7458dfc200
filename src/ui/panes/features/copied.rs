//! The list for the clipboard: what is shown, in the order shown.

use super::FeaturesPane;
use crate::analysis::FeatureRow;
use crate::engine::Level;
use crate::interop::markdown::table;
use crate::text;
use crate::ui::pane::{CopyFormats, Cx, Step};

impl FeaturesPane {
    pub(super) fn copy(&self, cx: &Cx) -> Vec<Step> {
        let rows: Vec<&FeatureRow> = self
            .order
            .iter()
            .filter_map(|id| cx.world.row(*id))
            .collect();
        if rows.is_empty() {
            return vec![Step::Notify(
                Level::Info,
                "no feature is listed: there is nothing to copy".to_owned(),
            )];
        }
        let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row)).collect();
        let text = cells
            .iter()
            .map(|cells| cells.join("\t"))
            .collect::<Vec<_>>()
            .join("\n");
        let heads = ["id", "share", "neurons", "name", "tokens"];
        vec![Step::CopyAs(Box::new(CopyFormats {
            what: format!("{} features", rows.len()),
            text,
            json: serde_json::to_value(&rows).unwrap_or_default(),
            markdown: table(&heads, &cells),
        }))]
    }
}

fn cells(row: &FeatureRow) -> Vec<String> {
    let tokens: Vec<String> = row
        .top_tokens
        .iter()
        .map(|t| text::clean(t.trim()))
        .collect();
    let name = row.name.as_deref().map(text::clean).unwrap_or_default();
    vec![
        row.id.to_string(),
        format!("{:.4}", row.share),
        row.neurons.to_string(),
        name,
        tokens.join(" "),
    ]
}
