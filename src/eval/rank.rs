//! The area under the ROC curve by ranks.

/// AUROC of `scores` for every group against all other items, from one sort: (Σ ranks of the group
/// − m₁(m₁+1)/2) / (m₁ m₀), ties at their mean rank (a tie counts one half). `groups[i]` is the
/// group of item i. `None` for a group that has no item or every item.
pub fn auroc_by_group(scores: &[f32], groups: &[Option<u32>], count: usize) -> Vec<Option<f64>> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
    let mut sums = vec![0.0f64; count];
    let mut sizes = vec![0usize; count];
    let mut start = 0;
    // `==` rather than the order of the sort: −0 and 0 are a tie.
    for run in order.chunk_by(|&a, &b| scores[a as usize] == scores[b as usize]) {
        let rank = start as f64 + (run.len() as f64 + 1.0) / 2.0;
        start += run.len();
        for group in run.iter().filter_map(|&i| groups[i as usize]) {
            sums[group as usize] += rank;
            sizes[group as usize] += 1;
        }
    }
    sums.iter()
        .zip(&sizes)
        .map(|(&sum, &m)| {
            let (inside, outside) = (m as f64, (scores.len() - m) as f64);
            (m > 0 && m < scores.len())
                .then(|| (sum - inside * (inside + 1.0) / 2.0) / (inside * outside))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pairs won, ties half.
    fn by_pairs(scores: &[f32], groups: &[Option<u32>], group: u32) -> Option<f64> {
        let (mut won, mut pairs) = (0.0, 0.0);
        for (i, &a) in scores
            .iter()
            .enumerate()
            .filter(|(i, _)| groups[*i] == Some(group))
        {
            for (j, &b) in scores
                .iter()
                .enumerate()
                .filter(|(j, _)| groups[*j] != Some(group))
            {
                assert_ne!(i, j);
                pairs += 1.0;
                won += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        (pairs > 0.0).then(|| won / pairs)
    }

    proptest! {
        #[test]
        fn auroc_is_the_share_of_pairs_won(
            items in proptest::collection::vec((-3i8..3, proptest::option::of(0u32..3)), 0..40),
        ) {
            // Few distinct values: most pairs are ties, and 0 comes with both signs.
            let scores: Vec<f32> =
                items.iter().enumerate().map(|(i, (s, _))| f32::from(*s) * if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
            let groups: Vec<_> = items.iter().map(|(_, g)| *g).collect();
            let all = auroc_by_group(&scores, &groups, 3);
            for group in 0..3 {
                match (all[group as usize], by_pairs(&scores, &groups, group)) {
                    (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12, "{a} {b}"),
                    (a, b) => prop_assert_eq!(a, b),
                }
            }
        }
    }
}
