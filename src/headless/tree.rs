//! `mlpeek tree`: the dendrogram of shared neurons, or levels of recursive semi-NMF, as text or for elsewhere.

use serde_json::json;

use super::features::{lens_model, words};
use super::{Output, open_fit};
use crate::analysis::{FeatureRow, Levels, Tree, contexts, hierarchy, levels};
use crate::cli::{TreeArgs, TreeFormat};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::recursive::{self, joint};
use crate::interop::{dendrogram, levels as levels_json};
use crate::text;

pub(super) fn run(args: &TreeArgs, out: &mut Output) -> Result<()> {
    if args.recursive { recursive_levels(args, out) } else { dendrogram(args, out) }
}

fn dendrogram(args: &TreeArgs, out: &mut Output) -> Result<()> {
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let tree = hierarchy::tree_by(&factors.features, args.overlap.into(), args.linkage.into());
    let object = json!({"fit": entry.name, "measure": tree.measure, "nodes": tree.nodes});
    if out.is_json() && args.cut.is_none() {
        return match &args.out {
            None => out.object(&object),
            Some(_) => write(args, &format!("{object}\n"), out),
        };
    }
    let rows = contexts::feature_rows(&factors, &*study.tokens()?, &study.notes(&entry.name)?);
    if let Some(height) = args.cut {
        return clusters(&hierarchy::cut(&tree, height), &rows, out);
    }
    let label = |id: usize| dendrogram::leaf_label(&rows[id]);
    let text = match args.format {
        TreeFormat::Text => indented(&tree, &rows),
        TreeFormat::Json => format!("{object}\n"),
        TreeFormat::Newick => dendrogram::to_newick(&tree, &label),
        TreeFormat::Svg => dendrogram::to_svg(&tree, &label),
    };
    write(args, &text, out)
}

fn write(args: &TreeArgs, text: &str, out: &mut Output) -> Result<()> {
    let Some(path) = &args.out else { return out.text(text) };
    disk::write_atomic(path, text.as_bytes())?;
    out.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn clusters(clusters: &[Vec<usize>], rows: &[FeatureRow], out: &mut Output) -> Result<()> {
    for ids in clusters {
        if out.is_json() {
            out.object(&json!({"features": ids}))?;
        } else {
            let names: Vec<String> = ids.iter().map(|&id| text::fit(&dendrogram::leaf_label(&rows[id]), 32)).collect();
            out.line(&format!("{:>4}  {}", ids.len(), names.join(" | ")))?;
        }
    }
    Ok(())
}

fn indented(tree: &Tree, rows: &[FeatureRow]) -> String {
    let mut text = format!("{} (a merge's height is 1 − overlap)\n", tree.measure);
    // Depth first by hand: a dendrogram of hundreds of features may be hundreds deep.
    let mut stack: Vec<(usize, usize)> = tree.nodes.last().map(|root| (root.id, 0)).into_iter().collect();
    while let Some((id, depth)) = stack.pop() {
        let node = &tree.nodes[id];
        text += &"  ".repeat(depth.min(30));
        if node.children.is_empty() {
            text += &format!("{id} {}\n", text::fit(&words(&rows[id].top_tokens), 60));
        } else {
            text += &format!("┬ {:.3} ({} features)\n", node.height, node.features.len());
            stack.extend(node.children.iter().rev().map(|&c| (c, depth + 1)));
        }
    }
    text
}

fn recursive_levels(args: &TreeArgs, out: &mut Output) -> Result<()> {
    if matches!(args.format, TreeFormat::Newick | TreeFormat::Svg) {
        return Err(Error::usage(
            "levels are no dendrogram: a feature can have several parents; use --format text or json",
        ));
    }
    let (mut study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let model = lens_model(&mut study, args.model.as_deref(), crate::cli::Device::Auto, out)?;
    let counts =
        if args.levels.is_empty() { recursive::default_levels(entry.config.features) } else { args.levels.clone() };
    let growth = args.growth.into();
    let mut found = recursive::levels(&factors.features, &counts, growth, &entry.config, &out.task())?;
    let tuned = match args.joint {
        true => joint::tune(&factors, &*study.activations(entry.hook)?, &mut found, &out.task())?,
        false => Vec::new(),
    };
    let p = entry.config.share(factors.features.rows);
    let mut described = levels::describe(&factors, &found, growth, p, &tuned, &*study.tokens()?);
    if let Some(model) = &model {
        levels::promote(&mut described, &found, model, entry.hook)?;
    }
    if out.is_json() || args.format == TreeFormat::Json {
        let object = levels_json::to_json(&described, &entry.name);
        return write(args, &format!("{object}\n"), out);
    }
    write(args, &level_lines(&described), out)
}

fn level_lines(levels: &Levels) -> String {
    let mut text = String::new();
    for (l, info) in levels.levels.iter().enumerate() {
        let of = if l == 0 { "the fit".to_owned() } else { format!("level {}", l - 1) };
        text += &format!(
            "level {l}: {} features, p {:.4} ({}), error {:.4} on {of}\n",
            info.features, info.sparsity, levels.growth, info.relative_error
        );
        if let Some((before, after)) = info.joint {
            text += &format!(
                "         of the activations {after:.4} left, {before:.4} before the levels were tuned together\n"
            );
        }
    }
    let top = levels.levels.len() - 1;
    let mut stack: Vec<(usize, usize, f32)> =
        levels.nodes.iter().rev().filter(|n| n.level == top && top > 0).map(|n| (n.id, 0, 1.0)).collect();
    while let Some((id, depth, share)) = stack.pop() {
        let node = &levels.nodes[id];
        let purity = node.purity.as_ref().map_or(String::new(), |p| format!("  {} {:.0} %", p.label, p.share * 100.0));
        let share = if depth == 0 { String::new() } else { format!(" {share:.2}") };
        text += &format!(
            "{}{}.{}{share}  {}{purity}\n",
            "  ".repeat(depth),
            node.level,
            node.feature,
            text::fit(&words(&node.top_tokens), 60)
        );
        stack.extend(node.children.iter().zip(&node.shares).rev().map(|(&c, &s)| (c, depth + 1, s)));
    }
    text
}
