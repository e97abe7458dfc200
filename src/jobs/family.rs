//! A family of features whose shared neurons are looked at: the features below a node of the
//! dendrogram, or the best one for each of some labels.

use crate::analysis::{Notes, contexts, hierarchy};
use crate::corpus::TokenTable;
use crate::directions::Directions;
use crate::error::{Error, Result};
use crate::eval::rank::auroc_by_group;
use crate::eval::reuse::Member;
use crate::eval::score::each_strip;
use crate::eval::split::{Holdout, Split};
use crate::factor::Factors;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

/// A label with fewer sentences is named.
const ENOUGH: usize = 4;

/// The features below a node of the dendrogram, each with its strongest token as its word.
///
/// # Errors
/// [`Error::Usage`] for a node that the dendrogram does not have.
pub fn members_of_node(factors: &Factors, tokens: &TokenTable, node: usize) -> Result<Vec<Member>> {
    let tree = hierarchy::tree(&factors.features);
    let node = tree.nodes.get(node).ok_or_else(|| {
        Error::usage(format!(
            "there is no node {node}: the tree has 0 to {}",
            tree.nodes.len().max(1) - 1
        ))
    })?;
    let rows = contexts::feature_rows(factors, tokens, &Notes::default());
    let word = |id: usize| {
        rows[id]
            .top_tokens
            .first()
            .map_or_else(String::new, |t| t.trim().to_owned())
    };
    Ok(node
        .features
        .iter()
        .map(|&id| Member {
            word: word(id),
            feature: id,
        })
        .collect())
}

/// For each label the feature that tells its sentences best from all others, each feature taken
/// once, the surest label first. With it a remark where a label has few sentences.
///
/// # Errors
/// [`Error::Usage`] for a label that the corpus does not have, and where the fit has too few
/// features.
pub fn members_of_labels(
    study: &Study,
    hook: HookPoint,
    factors: &Factors,
    wanted: &[String],
    ctx: &TaskCtx,
) -> Result<(Vec<Member>, Option<String>)> {
    let tokens = &*study.tokens()?;
    let mut labels: Vec<usize> = Vec::new();
    for text in wanted {
        let is = |label: &String| {
            label == text || (text.ends_with('/') && label.starts_with(text.as_str()))
        };
        let before = labels.len();
        labels.extend((0..tokens.labels.len()).filter(|&l| is(&tokens.labels[l])));
        if labels.len() == before {
            if tokens.labels.is_empty() {
                return Err(Error::usage(
                    "the corpus has no labels: name the family with --features 3=Monday,17=Tuesday",
                ));
            }
            let some: Vec<&str> = tokens.labels.iter().take(8).map(String::as_str).collect();
            return Err(Error::usage(format!(
                "the corpus has no label '{}': it has {}, …",
                text.escape_debug(),
                some.join(", ")
            )));
        }
    }
    // Nothing is held out from choosing: what is looked at afterwards is the model's next token,
    // not these sentences.
    let split = Split::new(
        tokens,
        &Holdout {
            share: 0.0,
            seed: None,
            ..Holdout::default()
        },
    )?;
    let groups: Vec<Option<u32>> = split
        .sentences
        .iter()
        .map(|s| {
            labels
                .iter()
                .position(|&l| s.label == Some(l as u32))
                .map(|g| g as u32)
        })
        .collect();
    let sentences = |l: usize| {
        split
            .sentences
            .iter()
            .filter(|s| s.label == Some(l as u32))
            .count()
    };
    let few = labels
        .iter()
        .map(|&l| (l, sentences(l)))
        .filter(|(_, count)| *count < ENOUGH);
    let few: Vec<String> = few
        .map(|(l, count)| format!("{} ({count})", tokens.labels[l]))
        .collect();
    let note = (!few.is_empty()).then(|| {
        format!(
            "so few sentences choose a feature as well as chance may: {}",
            few.join(", ")
        )
    });
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    let directions = Directions::Sparse(factors.features.clone());
    each_strip(
        study.activations(hook)?.as_ref(),
        &split.sentences,
        &directions,
        ctx,
        |scores| {
            for (c, feature) in scores.columns.clone().enumerate() {
                let values: Vec<f32> = (0..groups.len()).map(|i| scores.at(i, c).0).collect();
                let aurocs = auroc_by_group(&values, &groups, labels.len());
                pairs.extend(
                    aurocs
                        .into_iter()
                        .enumerate()
                        .filter_map(|(l, a)| Some((a?, l, feature))),
                );
            }
            Ok(())
        },
    )?;
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut chosen: Vec<Option<usize>> = vec![None; labels.len()];
    for (_, label, feature) in pairs {
        if chosen[label].is_none() && !chosen.contains(&Some(feature)) {
            chosen[label] = Some(feature);
        }
    }
    let word = |l: usize| {
        tokens.labels[l]
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let member = |(&l, feature): (&usize, Option<usize>)| {
        let feature = feature.ok_or_else(|| {
            Error::usage(format!(
                "the fit has fewer features than '{}' and the others need: fit more",
                tokens.labels[l]
            ))
        })?;
        Ok(Member {
            word: word(l),
            feature,
        })
    };
    let members = labels.iter().zip(chosen).map(member);
    Ok((members.collect::<Result<_>>()?, note))
}
