//! `mlpeek tree`: the dendrogram of shared neurons, or levels of recursive semi-NMF, as text or for
//! elsewhere.

use serde_json::json;

use super::features::{lens_model, words};
use super::{Output, check_target, open_fit};
use crate::analysis::{FeatureRow, Levels, Tree, contexts, hierarchy, levels};
use crate::cli::{TreeArgs, TreeFormat};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::recursive::{self, joint};
use crate::interop::{dendrogram, levels as levels_json};
use crate::text;

pub(super) fn run(args: &TreeArgs, out: &mut Output) -> Result<()> {
    check(args, out.is_json())?;
    if args.format == TreeFormat::Json {
        out.ask_json();
    }
    if args.recursive {
        recursive_levels(args, out)
    } else {
        dendrogram(args, out)
    }
}

/// Refuses what would be ignored, and a file that could not be written.
fn check(args: &TreeArgs, json: bool) -> Result<()> {
    let (format, of) = match args.format {
        _ if json => ("json", &["json", "jsonl"][..]),
        TreeFormat::Text => ("text", &["txt", "text"][..]),
        TreeFormat::Json => ("json", &["json", "jsonl"][..]),
        TreeFormat::Newick => ("newick", &["nwk", "newick", "nw", "tree", "tre"][..]),
        TreeFormat::Svg => ("svg", &["svg"][..]),
    };
    if matches!(args.format, TreeFormat::Newick | TreeFormat::Svg) {
        let why = match (args.recursive, args.cut) {
            (true, _) => {
                "levels are no dendrogram: a feature can have several parents; use --format text or json"
            }
            (false, Some(_)) => {
                "clusters are lists of features: use --cut with --format text or json"
            }
            (false, None) => "",
        };
        if !why.is_empty() {
            return Err(Error::usage(format!(
                "--format {format} cannot be written: {why}"
            )));
        }
    }
    args.out
        .as_deref()
        .map_or(Ok(()), |path| check_target(path, of))
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
        return write_clusters(args, &hierarchy::cut(&tree, height), &rows, out);
    }
    let label = |id: usize| dendrogram::leaf_label(&rows[id]);
    let text = match args.format {
        TreeFormat::Text => return write_lines(args, &indented(&tree, &rows), out),
        TreeFormat::Json => format!("{object}\n"),
        TreeFormat::Newick => dendrogram::to_newick(&tree, &label),
        TreeFormat::Svg => dendrogram::to_svg(&tree, &label),
    };
    write(args, &text, out)
}

/// Lines for a person, to a file as on a terminal: a label cannot end one.
fn write_lines(args: &TreeArgs, lines: &[String], out: &mut Output) -> Result<()> {
    if args.out.is_none() {
        return lines.iter().try_for_each(|line| out.line(line));
    }
    write(
        args,
        &lines
            .iter()
            .map(|line| text::clean(line) + "\n")
            .collect::<String>(),
        out,
    )
}

fn write(args: &TreeArgs, text: &str, out: &mut Output) -> Result<()> {
    let Some(path) = &args.out else {
        return out.document(text);
    };
    disk::write_atomic(path, text.as_bytes())?;
    out.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn write_clusters(
    args: &TreeArgs,
    clusters: &[Vec<usize>],
    rows: &[FeatureRow],
    out: &mut Output,
) -> Result<()> {
    if out.is_json() || args.format == TreeFormat::Json {
        return match &args.out {
            None => clusters
                .iter()
                .try_for_each(|ids| out.object(&json!({"features": ids}))),
            Some(_) => write(
                args,
                &clusters
                    .iter()
                    .map(|ids| format!("{}\n", json!({"features": ids})))
                    .collect::<String>(),
                out,
            ),
        };
    }
    let label = |&id: &usize| text::truncate(&text::clean(&dendrogram::leaf_label(&rows[id])), 32);
    let line = |ids: &Vec<usize>| {
        format!(
            "{:>4}  {}",
            ids.len(),
            ids.iter().map(label).collect::<Vec<_>>().join(" | ")
        )
    };
    write_lines(args, &clusters.iter().map(line).collect::<Vec<_>>(), out)
}

fn indented(tree: &Tree, rows: &[FeatureRow]) -> Vec<String> {
    let mut lines = vec![format!(
        "{} (a merge's height is 1 − overlap)",
        tree.measure
    )];
    // Depth first by hand: a dendrogram of hundreds of features may be hundreds deep.
    let mut stack: Vec<(usize, usize)> = tree
        .nodes
        .last()
        .map(|root| (root.id, 0))
        .into_iter()
        .collect();
    while let Some((id, depth)) = stack.pop() {
        let node = &tree.nodes[id];
        let indent = "  ".repeat(depth.min(30));
        if node.children.is_empty() {
            lines.push(format!(
                "{indent}{id} {}",
                text::truncate(&words(&rows[id].top_tokens), 60)
            ));
        } else {
            lines.push(format!(
                "{indent}┬ {:.3} ({} features)",
                node.height,
                node.features.len()
            ));
            stack.extend(node.children.iter().rev().map(|&c| (c, depth + 1)));
        }
    }
    lines
}

fn recursive_levels(args: &TreeArgs, out: &mut Output) -> Result<()> {
    let (mut study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let model = lens_model(
        &mut study,
        args.model.as_deref(),
        crate::cli::Device::Auto,
        out,
    )?;
    let counts = if args.levels.is_empty() {
        recursive::default_levels(entry.config.features)
    } else {
        args.levels.clone()
    };
    let growth = args.growth.into();
    let mut found = recursive::levels(
        &factors.features,
        &counts,
        growth,
        &entry.config,
        &out.task(),
    )?;
    let tuned = match args.joint {
        true => joint::tune(
            &factors,
            &*study.activations(entry.hook)?,
            &mut found,
            &out.task(),
        )?,
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
    write_lines(args, &level_lines(&described), out)
}

fn level_lines(levels: &Levels) -> Vec<String> {
    let mut lines = Vec::new();
    for (l, info) in levels.levels.iter().enumerate() {
        let of = if l == 0 {
            "the fit".to_owned()
        } else {
            format!("level {}", l - 1)
        };
        lines.push(format!(
            "level {l}: {} features, p {:.4} ({}), error {:.4} on {of}",
            info.features, info.sparsity, levels.growth, info.relative_error
        ));
        if let Some((before, after)) = info.joint {
            lines.push(format!(
                "         of the activations {after:.4} left, {before:.4} before the levels were tuned together"
            ));
        }
    }
    let top = levels.levels.len() - 1;
    let mut stack: Vec<(usize, usize, f32)> = levels
        .nodes
        .iter()
        .rev()
        .filter(|n| n.level == top && top > 0)
        .map(|n| (n.id, 0, 1.0))
        .collect();
    while let Some((id, depth, share)) = stack.pop() {
        let node = &levels.nodes[id];
        let purity = node.purity.as_ref().map_or(String::new(), |p| {
            format!("  {} {:.0} %", p.label, p.share * 100.0)
        });
        let share = if depth == 0 {
            String::new()
        } else {
            format!(" {share:.2}")
        };
        lines.push(format!(
            "{}{}.{}{share}  {}{purity}",
            "  ".repeat(depth),
            node.level,
            node.feature,
            text::truncate(&words(&node.top_tokens), 60)
        ));
        stack.extend(
            node.children
                .iter()
                .zip(&node.shares)
                .rev()
                .map(|(&c, &s)| (c, depth + 1, s)),
        );
    }
    lines
}
