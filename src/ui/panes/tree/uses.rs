//! What the tree is used for: steering with a cluster or a part of a feature, other measures, files, the clipboard.

use super::plot::Item;
use super::{TreePane, draw};
use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::engine::{Command, SteerPart};
use crate::ui::action::Action;
use crate::ui::panes::{Cx, Note, Pane, PaneId, Step};

impl TreePane {
    /// To the Steer pane, with what is under the cursor.
    pub(super) fn steer(&self, action: Action) -> Option<Vec<Step>> {
        let item = self.cursor?;
        let features: Vec<(usize, f32)> = self.plot.features(item).into_iter().map(|id| (id, 1.0)).collect();
        let cluster = self.cluster().map(|c| self.plot.features(Item::Node(c))).unwrap_or_default();
        let others = || cluster.iter().copied().filter(|id| !features.iter().any(|(f, _)| f == id)).collect();
        let part = match action {
            Action::SteerCore => SteerPart::CoreOf(cluster.clone()),
            Action::SteerExclusive => SteerPart::ExclusiveOf(others()),
            _ => SteerPart::Whole,
        };
        let negative = action == Action::SuppressWith;
        let note = Note::Steer { features, part, negative, replace: true };
        Some(vec![Step::Tell(PaneId::Steer, Note::Cluster(cluster)), Step::Tell(PaneId::Steer, note)])
    }

    /// Dendrogram or levels.
    pub(super) fn turn(&mut self, cx: &Cx) -> Vec<Step> {
        self.levels.on = !self.levels.on;
        let mut steps = self.levels.want(cx);
        steps.extend(self.entered(cx));
        steps
    }

    /// The next linkage of the dendrogram, or the other rule for p of the levels.
    pub(super) fn next_linkage(&mut self, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.levels.turn(cx);
        }
        self.linkage = match self.linkage {
            Linkage::Average => Linkage::Complete,
            Linkage::Complete => Linkage::Single,
            Linkage::Single => Linkage::Average,
        };
        self.measure_anew(cx)
    }

    /// The next overlap of two features, or the levels tuned together.
    pub(super) fn next_overlap(&mut self, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.levels.tune(cx);
        }
        self.overlap = match self.overlap {
            Overlap::WeightedJaccard => Overlap::Jaccard,
            Overlap::Jaccard => Overlap::Cosine,
            Overlap::Cosine => Overlap::WeightedJaccard,
        };
        self.measure_anew(cx)
    }

    fn measure_anew(&mut self, cx: &Cx) -> Vec<Step> {
        (self.of, self.asked, self.ask_at) = (None, None, None);
        self.want_tree(cx)
    }

    pub(super) fn export(&self, cx: &Cx) -> Vec<Step> {
        let Some(study) = &cx.world.study else { return Vec::new() };
        let fit = cx.world.features.as_ref().map_or("fit", |list| list.fit.as_str());
        let file = |ending: &str| study.dir.join(format!("tree-{fit}.{ending}"));
        ["svg", "nwk", "json"]
            .iter()
            .map(|e| Step::Send(Command::ExportTree(self.overlap, self.linkage, file(e))))
            .collect()
    }

    pub(super) fn copy(&self, cx: &Cx) -> Vec<Step> {
        let lines: Vec<String> = (0..self.rows.len()).map(|row| draw::plain(self, row, cx)).collect();
        vec![Step::Copy(lines.join("\n"), format!("{} rows of the tree", lines.len()))]
    }
}
