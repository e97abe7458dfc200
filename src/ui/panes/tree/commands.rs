//! What the tree is used for: steering with a cluster or a part of a feature, other measures,
//! files, the clipboard.

use serde_json::json;

use super::plot::Item;
use super::{TreePane, draw};
use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::engine::{Command, Mode, SteerPart};
use crate::interop::markdown::table;
use crate::ui::action::Action;
use crate::ui::pane::{CopyFormats, Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;

/// Whether an action takes out what is along the features.
fn ablates(action: Action) -> bool {
    matches!(
        action,
        Action::Ablate | Action::AblateCore | Action::AblateExclusive | Action::AblateThree
    )
}

impl TreePane {
    /// To the Steer pane, with what is under the cursor.
    pub(super) fn steer(&self, action: Action) -> Option<Vec<Step>> {
        let item = self.cursor?;
        let features: Vec<(usize, f32)> = self
            .plot
            .features(item)
            .into_iter()
            .map(|id| (id, 1.0))
            .collect();
        let cluster = self
            .cluster()
            .map(|c| self.plot.features(Item::Node(c)))
            .unwrap_or_default();
        let others = || {
            cluster
                .iter()
                .copied()
                .filter(|id| !features.iter().any(|(f, _)| f == id))
                .collect()
        };
        let part = match action {
            Action::SteerCore | Action::AblateCore => SteerPart::CoreOf(cluster.clone()),
            Action::SteerExclusive | Action::AblateExclusive => SteerPart::ExclusiveOf(others()),
            _ => SteerPart::Whole,
        };
        let negative = action == Action::SuppressWith;
        let handover = Handover::Steer {
            features,
            part,
            negative,
            replace: true,
        };
        let mut handed = vec![Handover::Cluster(cluster), handover];
        if ablates(action) {
            handed.push(Handover::Mode(Mode::Ablate));
        }
        if matches!(action, Action::SteerThree | Action::AblateThree) {
            handed.push(Handover::ThreeWays);
        }
        Some(
            handed
                .into_iter()
                .map(|handover| Step::HandOver(PaneId::Steer, handover))
                .collect(),
        )
    }

    /// Goes from the dendrogram to the levels, or back.
    pub(super) fn toggle_levels(&mut self, cx: &Cx) -> Vec<Step> {
        self.levels.on = !self.levels.on;
        let mut steps = self.levels.request_levels(cx);
        steps.extend(self.entered(cx));
        steps
    }

    /// The next linkage of the dendrogram, or the other rule for p of the levels.
    pub(super) fn next_linkage(&mut self, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.levels.next_growth(cx);
        }
        self.linkage = match self.linkage {
            Linkage::Average => Linkage::Complete,
            Linkage::Complete => Linkage::Single,
            Linkage::Single => Linkage::Average,
        };
        self.measure_changed(cx)
    }

    /// The next overlap of two features, or the levels tuned together.
    pub(super) fn next_overlap(&mut self, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.levels.toggle_together(cx);
        }
        self.overlap = match self.overlap {
            Overlap::WeightedJaccard => Overlap::Jaccard,
            Overlap::Jaccard => Overlap::Cosine,
            Overlap::Cosine => Overlap::WeightedJaccard,
        };
        self.measure_changed(cx)
    }

    fn measure_changed(&mut self, cx: &Cx) -> Vec<Step> {
        (self.snapshot, self.tree_request, self.tree_due) = (None, None, None);
        self.request_tree(cx)
    }

    pub(super) fn export(&self, cx: &Cx) -> Vec<Step> {
        let Some(study) = &cx.world.study else {
            return Vec::new();
        };
        let fit = cx
            .world
            .features
            .as_ref()
            .map_or("fit", |list| list.fit.as_str());
        if self.levels.on {
            return vec![Step::Send(Command::ExportLevels(
                study.dir.join(format!("levels-{fit}.json")),
            ))];
        }
        let file = |ending: &str| study.dir.join(format!("tree-{fit}.{ending}"));
        let tree = |e: &&str| Step::Send(Command::ExportTree(self.overlap, self.linkage, file(e)));
        let mut steps: Vec<Step> = ["svg", "nwk", "json"].iter().map(tree).collect();
        if self.folds.height.is_finite() {
            let (height, path) = (
                self.folds.height,
                study.dir.join(format!("clusters-{fit}.json")),
            );
            steps.push(Step::Send(Command::ExportClusters(
                self.overlap,
                self.linkage,
                height,
                path,
            )));
        }
        steps
    }

    pub(super) fn copy(&self, cx: &Cx) -> Vec<Step> {
        let lines: Vec<String> = (0..self.rows.len())
            .map(|row| draw::plain(self, row, cx))
            .collect();
        let rows = self
            .rows
            .iter()
            .map(|row| (row, self.plot.features(row.item)));
        let names = |ids: &[usize]| {
            ids.iter()
                .map(|id| cx.world.feature_label(*id))
                .collect::<Vec<_>>()
        };
        let json = rows.clone().map(|(row, ids)| {
            let height = match row.item {
                Item::Node(node) if row.folded => Some(self.plot.height(node)),
                _ => None,
            };
            json!({"height": height, "labels": names(&ids), "features": ids})
        });
        let cells = rows
            .map(|(_, ids)| vec![ids.len().to_string(), names(&ids).join(", ")])
            .collect::<Vec<_>>();
        vec![Step::CopyAs(Box::new(CopyFormats {
            what: format!("{} rows of the tree", lines.len()),
            text: lines.join("\n"),
            json: json.collect(),
            markdown: table(&["features", "which"], &cells),
        }))]
    }
}
