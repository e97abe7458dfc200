//! The picture of a dendrogram.

use super::*;
use crate::ui::panes::tree::plot;

fn picture(tree: Tree, chosen: usize) -> Vec<String> {
    let plot = Plot::new(Arc::new(tree));
    let folds = plot.first_folds();
    let rows = plot.rows(&folds);
    let grid = plot.grid(&rows, 0, rows.len(), 15, Item::Node(chosen));
    grid.lines
        .chunks(15)
        .map(|row| row.iter().map(|&lines| plot::glyph(lines)).collect())
        .collect()
}

fn node(id: usize, children: &[usize], height: f32, features: &[usize]) -> TreeNode {
    TreeNode {
        id,
        children: children.to_vec(),
        height,
        features: features.to_vec(),
    }
}

#[test]
fn heights_are_drawn_to_scale_and_the_tightest_comes_first() {
    let leaves = (0..4).map(|id| node(id, &[], 0.0, &[id]));
    let merges = [
        node(4, &[2, 3], 0.4, &[2, 3]),
        node(5, &[0, 4], 0.6, &[0, 2, 3]),
        node(6, &[1, 5], 0.8, &[0, 1, 2, 3]),
    ];
    let tree = Tree {
        nodes: leaves.chain(merges).collect(),
        measure: String::new(),
    };
    // 0.4 at the right end, 0.8 at the left, 0.6 in the middle between them; leaves in the order 2
    // 3 0 1.
    assert_eq!(
        picture(tree, 6),
        [
            "      ┌────┬───",
            " ┌────┤    └───",
            "─┤    └────────",
            " └─────────────"
        ]
    );
}

#[test]
fn what_joins_at_one_height_is_a_comb_and_what_shares_nothing_stands_alone() {
    let leaves = (0..4).map(|id| node(id, &[], 0.0, &[id]));
    let merges = [
        node(4, &[0, 1], 0.5, &[0, 1]),
        node(5, &[4, 2], 0.5, &[0, 1, 2]),
        node(6, &[3, 5], 1.0, &[0, 1, 2, 3]),
    ];
    let tree = Tree {
        nodes: leaves.chain(merges).collect(),
        measure: String::new(),
    };
    let plot = Plot::new(Arc::new(tree.clone()));
    assert_eq!(
        (plot.roots.as_slice(), plot.alone.as_slice()),
        (&[5][..], &[3][..])
    );
    let drawn = picture(tree, 5);
    assert_eq!(drawn[0].find('┌'), drawn[2].find('└'));
    assert_eq!(
        drawn[3].trim(),
        "",
        "the line for those that share nothing has no branches"
    );
}
