//! `mlpeek tree`: the dendrogram of shared neurons, or levels of recursive semi-NMF, as text or for
//! elsewhere.

use serde_json::{Value, json as object};

use super::features::{lens_model, words};
use super::{Output, check_target, open_fit};
use crate::analysis::hierarchy::leaf_order;
use crate::analysis::neurons::SharedCounts;
use crate::analysis::{FeatureRow, Levels, Tree, contexts, hierarchy};
use crate::cli::{TreeArgs, TreeFormat};
use crate::error::{Error, Result};
use crate::factor::SparseColumns;
use crate::factor::recursive::ChildRule;
use crate::interop::{dendrogram, json, overlap};
use crate::jobs;
use crate::jobs::export;
use crate::jobs::levels::{LevelsFit, LevelsRequest};
use crate::text;

pub(super) fn run(args: &TreeArgs, out: &mut Output) -> Result<()> {
    let format = format(args, out.is_json())?;
    check(args, format)?;
    if format == TreeFormat::Json {
        out.ask_json();
    }
    if args.recursive {
        recursive_levels(args, out)
    } else {
        dendrogram(args, format, out)
    }
}

/// How the tree is written: `--json` and `--format json` ask for the same.
fn format(args: &TreeArgs, json: bool) -> Result<TreeFormat> {
    match args.format {
        None if json => Ok(TreeFormat::Json),
        Some(format) if json && format != TreeFormat::Json => Err(Error::usage(
            "--json asks for --format json: leave one of them out",
        )),
        format => Ok(format.unwrap_or(TreeFormat::Text)),
    }
}

/// Refuses what would be ignored, and a file that could not be written.
fn check(args: &TreeArgs, format: TreeFormat) -> Result<()> {
    let (name, endings) = match format {
        TreeFormat::Text => ("text", &["txt", "text"][..]),
        TreeFormat::Json => ("json", &["json", "jsonl"][..]),
        TreeFormat::Newick => ("newick", &["nwk", "newick", "nw", "tree", "tre"][..]),
        TreeFormat::Svg => ("svg", &["svg"][..]),
        TreeFormat::Csv => ("csv", &["csv"][..]),
    };
    match (args.matrix, format) {
        (true, TreeFormat::Newick) => {
            return Err(Error::usage(
                "--format newick cannot be written: a matrix is no tree; use --format csv or svg",
            ));
        }
        (false, TreeFormat::Csv) => {
            return Err(Error::usage(
                "--format csv has no effect without --matrix, which alone is a table: give both, or neither",
            ));
        }
        _ => {}
    }
    let of_the_model = [
        ("--device", args.compute.device.is_some()),
        ("--dtype", args.compute.dtype.is_some()),
    ];
    if let Some((option, _)) = of_the_model
        .iter()
        .find(|(_, given)| *given && !args.recursive)
    {
        return Err(Error::usage(format!(
            "{option} has no effect without --recursive, which alone opens the model: leave it out"
        )));
    }
    if matches!(format, TreeFormat::Newick | TreeFormat::Svg) {
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
                "--format {name} cannot be written: {why}"
            )));
        }
    }
    args.out
        .as_deref()
        .map_or(Ok(()), |path| check_target(path, endings))
}

fn dendrogram(args: &TreeArgs, format: TreeFormat, out: &mut Output) -> Result<()> {
    let (study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let tree = hierarchy::tree_by(&factors.features, args.overlap.into(), args.linkage.into());
    let rows = contexts::feature_rows(&factors, &*study.tokens()?, &study.notes(&entry.name)?);
    let is_json = format == TreeFormat::Json;
    if args.matrix {
        return matrix(
            args,
            format,
            &factors.features,
            &tree,
            &rows,
            &entry.name,
            out,
        );
    }
    if let Some(height) = args.cut {
        return match is_json {
            true => write_json(
                args,
                &json::clusters(&tree, height, &rows, &entry.name),
                out,
            ),
            false => write_lines(args, &cluster_lines(&tree, height, &rows), out),
        };
    }
    if is_json {
        return write_json(args, &json::tree(&tree, &entry.name), out);
    }
    let label = |id: usize| dendrogram::leaf_label(&rows[id]);
    match format {
        TreeFormat::Newick => write(args, &dendrogram::to_newick(&tree, &label), out),
        TreeFormat::Svg => write(args, &dendrogram::to_svg(&tree, &label), out),
        TreeFormat::Text | TreeFormat::Json | TreeFormat::Csv => {
            write_lines(args, &indented(&tree, &rows), out)
        }
    }
}

/// How many neurons each two features share, in the order of the tree's leaves.
fn matrix(
    args: &TreeArgs,
    format: TreeFormat,
    features: &SparseColumns,
    tree: &Tree,
    rows: &[FeatureRow],
    fit: &str,
    out: &mut Output,
) -> Result<()> {
    let (counts, order) = (SharedCounts::new(features), leaf_order(tree));
    let label = |id: usize| dendrogram::leaf_label(&rows[id]);
    let row = |i: usize| order.iter().map(move |&j| (i, j));
    match format {
        TreeFormat::Csv => write(args, &overlap::to_csv(&counts, &order, &label), out),
        TreeFormat::Svg => write(args, &overlap::to_svg(&counts, &order, &label), out),
        TreeFormat::Json => {
            let lines = order.iter().map(|&i| {
                let shared: Vec<u32> = row(i).map(|(i, j)| counts.count(i, j)).collect();
                object!({"fit": fit, "feature": i, "leaf_label": label(i), "features": order, "shared_neurons": shared})
            });
            let lines: Vec<Value> = lines.collect();
            match &args.out {
                None => lines.iter().try_for_each(|line| out.object(line)),
                Some(_) => {
                    let lines: String = lines.iter().map(export::line).collect();
                    write(args, &lines, out)
                }
            }
        }
        TreeFormat::Text | TreeFormat::Newick => {
            let width = counts.largest_of_pairs().max(1).to_string().len().max(3);
            let line = |&i: &usize| {
                let cells: String = row(i)
                    .map(|(i, j)| format!(" {:>width$}", counts.count(i, j)))
                    .collect();
                let name = text::truncate(&text::clean(&label(i)), 32);
                format!("{}{cells}", text::pad(&name, 32))
            };
            write_lines(args, &order.iter().map(line).collect::<Vec<_>>(), out)
        }
    }
}

/// Lines for a person, to a file as on a terminal: a label cannot end one.
fn write_lines(args: &TreeArgs, lines: &[String], out: &mut Output) -> Result<()> {
    if args.out.is_none() {
        return lines.iter().try_for_each(|line| out.line(line));
    }
    let lines: String = lines.iter().map(|line| text::clean(line) + "\n").collect();
    write(args, &lines, out)
}

/// An object on a line of its own.
fn write_json(args: &TreeArgs, object: &Value, out: &mut Output) -> Result<()> {
    match &args.out {
        None => out.object(object),
        Some(_) => write(args, &export::line(object), out),
    }
}

fn write(args: &TreeArgs, text: &str, out: &mut Output) -> Result<()> {
    let Some(path) = &args.out else {
        return out.document(text);
    };
    export::write(path, text)?;
    out.note(&format!("wrote {}", path.display()));
    Ok(())
}

/// A line a cluster: how many features it has, and what they are called.
fn cluster_lines(tree: &Tree, height: f32, rows: &[FeatureRow]) -> Vec<String> {
    let label = |&id: &usize| text::truncate(&text::clean(&dendrogram::leaf_label(&rows[id])), 32);
    let line = |ids: Vec<usize>| {
        let labels: Vec<String> = ids.iter().map(label).collect();
        format!("{:>4}  {}", ids.len(), labels.join(" | "))
    };
    hierarchy::cut(tree, height).into_iter().map(line).collect()
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
    let model = lens_model(&mut study, args.model.as_deref(), &args.compute, out)?;
    let source = match args.joint {
        true => Some(study.activations(entry.hook)?),
        false => None,
    };
    let fit = LevelsFit {
        factors: &factors,
        config: &entry.config,
        hook: entry.hook,
        tokens: &*study.tokens()?,
        tune_on: source.as_deref().map(|source| source as _),
    };
    let usual = ChildRule::default();
    let request = LevelsRequest {
        counts: args.levels.clone(),
        growth: args.growth.into(),
        children: ChildRule {
            most: args.max_children.unwrap_or(usual.most),
            share: args.child_share.map_or(usual.share, |share| share as f32),
        },
    };
    let levels = jobs::levels::levels(&fit, &request, model.as_ref().ok(), &out.task())?;
    if out.is_json() {
        return write_json(args, &json::levels(&levels, &entry.name), out);
    }
    write_lines(args, &level_lines(&levels), out)
}

fn level_lines(levels: &Levels) -> Vec<String> {
    let mut lines = Vec::new();
    for (l, info) in levels.levels.iter().enumerate() {
        let basis = if l == 0 {
            "the fit".to_owned()
        } else {
            format!("level {}", l - 1)
        };
        lines.push(format!(
            "level {l}: {} features, p {:.4} ({}), error {:.4} on {basis}",
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
