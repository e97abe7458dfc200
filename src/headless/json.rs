//! JSON objects that several commands print, or that are kept on disk under other names.
//!
//! Owns the names of their fields, which `src/guide/json.md` documents. Invariant: what a study's
//! files call a thing may change without changing what a command prints, and the other way round.

use serde_json::{Value, json};

use super::output::Output;
use crate::activations::energy::Concentration;
use crate::directions::reconstruction::ReconstructionMetrics;
use crate::directions::sae::train::TrainConfig;
use crate::error::Result;
use crate::eval::bootstrap::Difference;
use crate::eval::judge::{CostEstimate, TokenUsage};
use crate::eval::quality::Division;
use crate::eval::report::DetectionReport;
use crate::eval::steering::report::MeanInterval;
use crate::factor::FitConfig;
use crate::model::ModelInfo;
use crate::study::{FitEntry, Manifest};

/// One object of the members of several; a later one wins.
pub(super) fn merged<const N: usize>(parts: [Value; N]) -> Value {
    let mut whole = serde_json::Map::new();
    for part in parts {
        if let Value::Object(members) = part {
            whole.extend(members);
        }
    }
    Value::Object(whole)
}

/// A mean with its 95 % interval.
pub(super) fn interval(mean: MeanInterval) -> Value {
    json!({"mean": mean.mean, "low": mean.low, "high": mean.high})
}

/// A difference of two methods with its 95 % interval.
pub(super) fn difference(difference: &Difference) -> Value {
    json!({
        "mean": difference.mean, "low": difference.low, "high": difference.high, "verdict": difference.verdict,
    })
}

/// Where few neurons or rows hold much of the activations.
pub(super) fn concentrations(found: &[Concentration]) -> Value {
    let one = |c: &Concentration| {
        let members: Vec<Value> = c
            .members
            .iter()
            .map(|(index, share)| json!({"index": index, "share": share}))
            .collect();
        json!({
            "axis": c.axis, "total_count": c.count, "share": c.share, "strongest": members, "first": c.first,
        })
    };
    found.iter().map(one).collect()
}

/// How the rows of a study were divided.
pub(super) fn division(division: &Division) -> Value {
    json!({
        "train_sentence_count": division.train_sentences, "held_out_sentence_count": division.held_out_sentences,
        "train_token_count": division.train_tokens, "held_out_token_count": division.held_out_tokens,
        "label_count": division.labels,
    })
}

/// How well the labels of a corpus are told by directions.
pub(super) fn detection(report: &DetectionReport) -> Value {
    let labels: Vec<Value> = report
        .labels
        .iter()
        .map(|l| {
            json!({
                "label": l.label, "auroc": l.auroc, "train_auroc": l.train_auroc, "s_cd": l.s_cd, "feature": l.feature,
            })
        })
        .collect();
    json!({
        "auroc": report.auroc, "auroc_standard_error": report.standard_error, "train_auroc": report.train_auroc,
        "s_cd": report.s_cd, "s_cd_undefined": report.s_cd_undefined, "above_0": report.above_0, "label_aurocs": labels,
    })
}

/// The settings of a fit, named as the options of `mlpeek fit` are.
pub(super) fn settings(config: &FitConfig) -> Value {
    json!({
        "feature_count": config.features, "solver": config.solver, "sparsity": config.sparsity, "l1": config.l1,
        "row_cap": config.row_cap, "scale_rows": config.scale_rows, "scale_neurons": config.scale_neurons,
        "centre": config.centre, "init": config.init, "seed": config.seed, "max_sweeps": config.max_sweeps,
        "patience": config.patience, "thread_count": config.threads,
    })
}

/// A fit in a list.
pub(super) fn fit(fit: &FitEntry, newest: bool) -> Value {
    json!({
        "fit": fit.name, "hook": fit.hook.to_string(), "feature_count": fit.config.features,
        "relative_error": fit.relative_error, "sweep_count": fit.sweeps, "state": fit.state,
        "reached_sweep": fit.reached, "resumable": fit.resumable, "newest": newest,
    })
}

/// A model, as the study that was collected with it knows it.
pub(super) fn model(model: &ModelInfo) -> Value {
    json!({
        "id": model.id, "origin": model.origin, "family": model.family, "layer_count": model.layers,
        "d_model": model.d_model, "d_mlp": model.d_mlp, "vocabulary_size": model.vocab,
        "context_length": model.context, "device": model.device, "weights_dtype": model.weights_dtype,
        "compute_dtype": model.compute_dtype, "weight_bytes": model.weight_bytes,
        "weights_sha256": model.weights_sha256, "tokenizer_sha256": model.tokenizer_sha256, "remarks": model.notes,
    })
}

/// The corpora of a study.
pub(super) fn corpora(manifest: &Manifest) -> Value {
    manifest
        .corpora
        .iter()
        .map(|c| json!({"corpus": c.name, "sample_count": c.samples, "sha256": c.sha256}))
        .collect()
}

/// How well a fit or an autoencoder reconstructs rows; `null` everywhere before it was measured.
pub(super) fn figures(figures: Option<&ReconstructionMetrics>) -> Value {
    json!({
        "unit_count": figures.map(|f| f.units), "row_count": figures.map(|f| f.rows),
        "fvu": figures.and_then(|f| f.fvu), "relative_error": figures.and_then(|f| f.relative_error),
        "l0": figures.map(|f| f.l0), "dead_share": figures.map(|f| f.dead),
    })
}

/// The settings of a training.
pub(super) fn training(config: &TrainConfig) -> Value {
    json!({
        "latent_count": config.latents, "top_k": config.top_k, "epoch_count": config.epochs,
        "batch_rows": config.batch, "learning_rate": config.learning_rate, "seed": config.seed,
    })
}

/// What a judge would be asked at most.
pub(super) fn cost(cost: &CostEstimate) -> Value {
    json!({
        "call_count": cost.calls, "answered_count": cost.answered, "prompt_token_count": cost.prompt_tokens,
        "completion_token_count": cost.completion_tokens,
    })
}

/// Says what asking a judge did cost.
///
/// # Errors
/// Standard output that cannot be written to.
pub(super) fn usage(usage: TokenUsage, out: &mut Output) -> Result<()> {
    out.object(&json!({
        "event": "usage", "call_count": usage.calls, "answered_count": usage.answered, "failed_count": usage.failed,
        "prompt_token_count": usage.prompt_tokens, "completion_token_count": usage.completion_tokens,
    }))
}
