//! A dendrogram for elsewhere: Newick for tree viewers, SVG for papers.
//!
//! Sees a [`Tree`] and a label a feature. Invariant: whatever the labels hold, the file is well
//! formed.

use crate::analysis::hierarchy::leaf_order;
use crate::analysis::{FeatureRow, Tree};
use crate::plot::escaped;

/// Characters of a label's tokens.
const LABEL: usize = 40;

/// A leaf's label: `14 November October · months`, or the name that a person gave.
pub fn leaf_label(row: &FeatureRow) -> String {
    let tokens = || {
        row.top_tokens
            .iter()
            .map(|t| t.trim())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let what: String = row
        .name
        .clone()
        .unwrap_or_else(tokens)
        .chars()
        .take(LABEL)
        .collect();
    let label = row
        .purity
        .as_ref()
        .filter(|p| p.share >= 0.5)
        .map_or(String::new(), |p| format!(" · {}", p.label));
    format!("{} {}{label}", row.id, what.trim_end())
}

/// The Newick format: `((a:0.4,b:0.4):0.1,c:0.5);`, branch lengths being differences of heights.
/// Labels are quoted.
pub fn to_newick(tree: &Tree, label: &dyn Fn(usize) -> String) -> String {
    let mut written: Vec<String> = Vec::with_capacity(tree.nodes.len());
    for node in &tree.nodes {
        let text = if node.children.is_empty() {
            let text: String = label(node.id)
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            format!("'{}'", text.replace('\'', "''"))
        } else {
            let branch = |&c: &usize| {
                let length = (node.height - tree.nodes[c].height).max(0.0);
                format!("{}:{length}", std::mem::take(&mut written[c]))
            };
            format!(
                "({})",
                node.children
                    .iter()
                    .map(branch)
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        written.push(text);
    }
    written.pop().unwrap_or_default() + ";\n"
}

/// Pixels of a leaf's row, of the tree and of the labels.
const ROW: f64 = 16.0;
const WIDTH: f64 = 520.0;
const LABELS: f64 = 420.0;
const MARGIN: f64 = 20.0;

/// A picture: the root at the left, heights to scale between the first and the last merge below 1,
/// a label a leaf.
pub fn to_svg(tree: &Tree, label: &dyn Fn(usize) -> String) -> String {
    let order = leaf_order(tree);
    let merges = tree.nodes.iter().filter(|n| !n.children.is_empty());
    let low = merges
        .clone()
        .map(|n| n.height)
        .fold(f32::INFINITY, f32::min);
    let high = merges.map(|n| n.height).fold(f32::NEG_INFINITY, f32::max);
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let span = f64::from(high - low).max(1e-6);
    // Leaves stand at the right edge, the tightest merge a little before it.
    let x = |height: f32, leaf: bool| match leaf {
        true => MARGIN + WIDTH,
        false => MARGIN + (WIDTH - 30.0) * f64::from(high - height) / span,
    };
    let bottom = MARGIN + ROW * (order.len() as f64 + 1.5);
    let (width, height) = (2.0 * MARGIN + WIDTH + LABELS, bottom + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<g fill=\"none\" stroke=\"#33638d\" stroke-width=\"1\">\n"
    );
    let mut y = vec![0f64; tree.nodes.len()];
    for (row, &leaf) in order.iter().enumerate() {
        y[leaf] = MARGIN + ROW * (row as f64 + 0.5);
    }
    for node in tree.nodes.iter().filter(|n| !n.children.is_empty()) {
        let places: Vec<f64> = node.children.iter().map(|&c| y[c]).collect();
        let (top, end) = places
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &p| {
                (a.min(p), b.max(p))
            });
        y[node.id] = f64::midpoint(top, end);
        let at = x(node.height, false);
        let mut path = format!("M{at:.1} {top:.1}V{end:.1}");
        for &child in &node.children {
            let to = x(
                tree.nodes[child].height,
                tree.nodes[child].children.is_empty(),
            );
            path += &format!("M{at:.1} {:.1}H{to:.1}", y[child]);
        }
        out += &format!(
            "<path d=\"{path}\"><title>{:.3}</title></path>\n",
            node.height
        );
    }
    out += "</g>\n<g fill=\"#222\">\n";
    for &leaf in &order {
        let (at, line) = (MARGIN + WIDTH + 6.0, y[leaf] + 4.0);
        out += &format!(
            "<text x=\"{at}\" y=\"{line:.1}\">{}</text>\n",
            escaped(&label(leaf))
        );
    }
    out += &format!(
        "</g>\n<g fill=\"#666\" stroke=\"#666\">\n<path d=\"M{MARGIN} {bottom:.1}H{:.1}\"/>\n",
        x(low, false)
    );
    for tick in 0..=4u8 {
        let value = low + (high - low) * f32::from(tick) / 4.0;
        let at = x(value, false);
        out += &format!(
            "<path d=\"M{at:.1} {bottom:.1}v4\"/><text x=\"{at:.1}\" y=\"{:.1}\" stroke=\"none\" text-anchor=\"middle\">{value:.2}</text>\n",
            bottom + 16.0
        );
    }
    out + &format!(
        "</g>\n<text x=\"{MARGIN}\" y=\"{:.1}\" fill=\"#666\">{}: height = 1 − overlap</text>\n</svg>\n",
        bottom + 32.0,
        escaped(&tree.measure)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::TreeNode;

    fn tree() -> Tree {
        let leaf = |id| TreeNode {
            id,
            children: Vec::new(),
            height: 0.0,
            features: vec![id],
        };
        let join = |id, children: Vec<usize>, height, features| TreeNode {
            id,
            children,
            height,
            features,
        };
        let nodes = vec![
            leaf(0),
            leaf(1),
            leaf(2),
            join(3, vec![0, 2], 0.25, vec![0, 2]),
            join(4, vec![3, 1], 0.75, vec![0, 1, 2]),
        ];
        Tree {
            nodes,
            measure: "weighted Jaccard, average linkage".to_owned(),
        }
    }

    #[test]
    fn newick_holds_every_leaf_and_the_lengths_add_up() {
        let text = to_newick(&tree(), &|id| format!("it's {id}\n"));
        assert_eq!(
            text,
            "(('it''s 0 ':0.25,'it''s 2 ':0.25):0.5,'it''s 1 ':0.75);\n"
        );
        assert_eq!(to_newick(&Tree::default(), &|_| String::new()), ";\n");
    }

    #[test]
    fn an_svg_is_well_formed_whatever_the_labels() {
        let text = to_svg(&tree(), &|id| format!("<{id}> & \u{1b}[2J"));
        assert!(text.contains("&lt;1&gt; &amp; ?[2J") && !text.contains('\u{1b}'));
        for tag in ["svg", "g", "text"] {
            assert_eq!(
                text.matches(&format!("<{tag} ")).count(),
                text.matches(&format!("</{tag}>")).count(),
                "{tag}"
            );
        }
        assert!(!to_svg(&Tree::default(), &|_| String::new()).contains("NaN"));
    }
}
