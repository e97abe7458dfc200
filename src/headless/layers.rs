//! A command over several layers of a study, `--layer 0,6,12`: each in turn as if it were asked for
//! alone, then every score against layer, as a table, lines of JSON and a plot.
//!
//! Knows no measure. Invariant: that a layer is one of the study is known before the first is worked
//! on.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::json::interval;
use super::{Output, check_target};
use crate::cli::{EvalArgs, GridArgs};
use crate::disk;
use crate::error::{Error, Result};
use crate::eval::steering::report::MeanInterval;
use crate::jobs::directions::name_at;
use crate::plot::{Chart, Point, Series};
use crate::study::{Found, Kept, Study};
use crate::text;

const NAMES: usize = 40;

/// What a line of a table came to at a layer.
pub(super) struct LayerScore {
    /// The line, and its KL or side where it has several.
    pub method: String,
    /// What was measured.
    pub measure: String,
    /// Over labels or features; of one number without a spread all three are it.
    pub value: MeanInterval,
}

impl LayerScore {
    pub(super) fn new(method: &str, measure: &str, value: MeanInterval) -> Self {
        Self {
            method: method.to_owned(),
            measure: measure.to_owned(),
            value,
        }
    }

    /// A number without a spread.
    pub(super) fn of_number(method: &str, measure: &str, mean: f64) -> Self {
        let (low, high) = (mean, mean);
        Self::new(method, measure, MeanInterval { mean, low, high })
    }
}

/// A command at one layer, or at the one that it finds by itself.
type AtLayer<'a> = dyn FnMut(Option<usize>, &mut Output) -> Result<Vec<LayerScore>> + 'a;

/// Runs `one` for the layer that is given, or none; for several in turn, and then tells the scores
/// against layer. `svg`: where the plot goes, which is of several layers alone.
///
/// # Errors
/// [`Error::Usage`] for a layer twice, or one that the study lacks, and for a plot of one layer; what
/// `one` returns, after which the layers before stay done.
pub(super) fn each(
    study: &Path,
    layers: &[usize],
    svg: Option<&Path>,
    out: &mut Output,
    one: &mut AtLayer<'_>,
) -> Result<()> {
    let [_, _, ..] = layers else {
        if svg.is_some() {
            return Err(Error::usage(
                "--svg plots scores against layer, and has no effect with one layer: give several (--layer 0,6,12), or leave it out",
            ));
        }
        return one(layers.first().copied(), out).map(drop);
    };
    svg.map_or(Ok(()), |path| check_target(path, &["svg"]))?;
    if let Some(twice) = (1..layers.len()).find(|&i| layers[..i].contains(&layers[i])) {
        let layer = layers[twice];
        return Err(Error::usage(format!(
            "layer {layer} is named twice: name it once"
        )));
    }
    let hooks = Study::open_read_only(study)?.manifest().hooks.clone();
    if let Some(absent) = layers.iter().find(|&&l| hooks.iter().all(|h| h.layer != l)) {
        let known: Vec<String> = hooks.iter().map(ToString::to_string).collect();
        return Err(Error::usage(format!(
            "layer {absent} was not collected; the study has {}",
            known.join(", ")
        )));
    }
    let mut found: Vec<(usize, LayerScore)> = Vec::new();
    for &layer in layers {
        if !out.is_json() {
            out.line(&format!("layer {layer}"))?;
        }
        let scores = one(Some(layer), out)?;
        // Names of fits begin with their layer, which here is told apart.
        found.extend(scores.into_iter().map(|score| {
            let method = score.method.replace(&format!("l{layer}-"), "");
            (layer, LayerScore { method, ..score })
        }));
        if !out.is_json() {
            out.line("")?;
        }
    }
    tell(&found, layers, svg, out)
}

/// [`each`] for the layers of a grid of fits: `one` gets the grid at one of them.
///
/// # Errors
/// As [`each`].
pub(super) fn each_of(
    grid: &GridArgs,
    out: &mut Output,
    one: &mut dyn FnMut(&GridArgs, &mut Output) -> Result<Vec<LayerScore>>,
) -> Result<()> {
    let mut at = grid.clone();
    let svg = grid.svg.as_deref();
    each(&grid.study, &grid.layer, svg, out, &mut |layer, out| {
        at.layer = layer.into_iter().collect();
        if let Some(layer) = layer {
            let name_of = name_at(&Study::open_read_only(&grid.study)?, layer)?;
            at.fit = grid.fit.iter().map(|name| name_of(name)).collect();
        }
        one(&at, out)
    })
}

/// What is asked at a layer, with the names that fits and autoencoders have there.
///
/// # Errors
/// A study that cannot be read.
pub(super) fn asked_at(args: &EvalArgs, layer: Option<usize>) -> Result<EvalArgs> {
    let mut at = args.clone();
    at.place.layer = layer.into_iter().collect();
    if let Some(layer) = layer {
        let name_of = name_at(&Study::open_read_only(&args.study)?, layer)?;
        at.place.fit = args.place.fit.as_deref().map(&name_of);
        at.methods = args.methods.iter().map(|m| m.renamed(&name_of)).collect();
        at.named_by_layer = at.methods != args.methods;
    }
    Ok(at)
}

/// What a command came to at a layer before, where `kept` says that it may be taken; what is not there,
/// or not whole, is worked on anew.
///
/// # Errors
/// A file that is there and cannot be read.
pub(super) fn kept_of<T: DeserializeOwned>(kept: Option<&Kept>, out: &Output) -> Result<Option<T>> {
    let Some(kept) = kept else {
        return Ok(None);
    };
    let path = kept.path().display();
    Ok(match kept.read()? {
        Found::Whole(result) => {
            out.note(&format!("as an earlier run left it: {path}"));
            Some(result)
        }
        Found::Damaged => {
            out.note(&format!("{path} is torn, or was changed: worked on anew"));
            None
        }
        Found::Nothing => None,
    })
}

/// Keeps what a command came to at a layer, and says where it could not.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn keep(kept: Option<&Kept>, result: &impl Serialize, out: &Output) -> Result<()> {
    let Some(kept) = kept else {
        return Ok(());
    };
    if let Some(why) = kept.write(result)? {
        out.note(&format!("this layer's result is not kept, as {why}"));
    }
    Ok(())
}

fn tell(
    found: &[(usize, LayerScore)],
    layers: &[usize],
    svg: Option<&Path>,
    out: &mut Output,
) -> Result<()> {
    // A dry run measures nothing.
    if found.is_empty() {
        return Ok(());
    }
    if out.is_json() {
        for (layer, score) in found {
            out.object(&json!({
                "event": "layer", "layer": layer, "method": score.method, "measure": score.measure,
                "value_interval": interval(score.value),
            }))?;
        }
    } else {
        table(found, layers, out)?;
    }
    let Some(path) = svg else {
        return Ok(());
    };
    disk::write_atomic(path, chart(found).svg().as_bytes())?;
    out.note(&format!("wrote {}", path.display()));
    Ok(())
}

fn table(found: &[(usize, LayerScore)], layers: &[usize], out: &mut Output) -> Result<()> {
    let heads: String = layers
        .iter()
        .map(|l| format!("  {:>22}", format!("layer {l}")))
        .collect();
    out.line(&format!("{:NAMES$}{heads}", "against layer, [95 %]"))?;
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for (_, score) in found {
        let line = (score.measure.as_str(), score.method.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for (measure, method) in lines {
        let cell = |layer: &usize| {
            let of = found
                .iter()
                .find(|(l, s)| l == layer && s.measure == measure && s.method == method);
            let shown = of.map_or_else(|| "-".to_owned(), |(_, s)| with_interval(s.value));
            format!("  {shown:>22}")
        };
        let cells: String = layers.iter().map(cell).collect();
        let name = text::truncate(&text::clean(&format!("{measure}, {method}")), NAMES);
        out.line(&format!("{}{cells}", text::pad(&name, NAMES)))?;
    }
    Ok(())
}

/// "0.812 [0.790, 0.833]", or "0.812" for a number without a spread.
fn with_interval(m: MeanInterval) -> String {
    if m.low == m.high {
        return format!("{:.3}", m.mean);
    }
    format!("{:.3} [{:.3}, {:.3}]", m.mean, m.low, m.high)
}

/// The first measure against layer: a plot has one axis.
fn chart(found: &[(usize, LayerScore)]) -> Chart {
    let measure = found.first().map_or("", |(_, s)| s.measure.as_str());
    let mut series: BTreeMap<usize, Series> = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    for (layer, score) in found.iter().filter(|(_, s)| s.measure == measure) {
        let at = names.iter().position(|n| *n == score.method);
        let at = at.unwrap_or_else(|| {
            names.push(&score.method);
            names.len() - 1
        });
        let line = series.entry(at).or_insert_with(|| Series {
            name: score.method.clone(),
            points: Vec::new(),
        });
        line.points.push(Point {
            x: *layer as f64,
            y: score.value.mean,
            low: score.value.low,
            high: score.value.high,
        });
    }
    let mut series: Vec<Series> = series.into_values().collect();
    for line in &mut series {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    Chart {
        title: format!("{measure} against layer"),
        x_label: "layer".to_owned(),
        y_label: measure.to_owned(),
        series,
        level: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_line_a_method_of_the_first_measure_in_the_order_of_layers() {
        let score = |layer, method: &str, measure: &str, mean| {
            (layer, LayerScore::of_number(method, measure, mean))
        };
        let found = [
            score(6, "fit", "auroc", 0.8),
            score(6, "diffmean", "auroc", 0.9),
            score(6, "fit", "s_cd", 0.1),
            score(0, "fit", "auroc", 0.5),
        ];
        let chart = chart(&found);
        let of: Vec<(&str, Vec<(f64, f64)>)> = chart
            .series
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.points.iter().map(|p| (p.x, p.y)).collect(),
                )
            })
            .collect();
        let fit = vec![(0.0, 0.5), (6.0, 0.8)];
        assert_eq!(of, [("fit", fit), ("diffmean", vec![(6.0, 0.9)])]);
        assert_eq!(chart.y_label, "auroc");
    }
}
