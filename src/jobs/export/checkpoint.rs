//! The model of a study with an intervention in its weights.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};
use serde_json::json;

use crate::disk;
use crate::error::{Error, Result};
use crate::interop::checkpoint::{self, AddedTensor, Edits};
use crate::model::config::Config;
use crate::model::decoder::describe;
use crate::model::weights::{StoredTensor, Weights};
use crate::model::{ModelFiles, ModelLayout};
use crate::steering::{DownProjection, Intervention};

/// Families whose configuration says by `mlp_bias` whether their MLP has biases.
const BIAS_BY_CONFIG: [&str; 2] = ["llama", "smollm3"];

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedCheckpoint {
    /// The layers whose down projection differs.
    pub layers: Vec<usize>,
    /// What its numbers are rounded to, as stored.
    pub dtype: &'static str,
    /// Whether the MLPs got biases that the model did not have.
    pub added_bias: bool,
}

/// Writes the model with what `intervention` does at strength `alpha`, at every token, in the down
/// projections of its layers.
///
/// # Errors
/// [`Error::Usage`] for a model that is no checkpoint in safetensors, whose MLP's output is normed, or
/// whose family has no bias where one is needed; what [`Intervention::bake`] returns; a file that
/// cannot be written.
pub fn checkpoint(
    files: &ModelFiles,
    intervention: &Intervention,
    alpha: f64,
    dir: &Path,
) -> Result<EditedCheckpoint> {
    let ModelLayout::HuggingFace {
        config: config_path,
        weights: shards,
        ..
    } = &files.layout
    else {
        return Err(Error::usage(format!(
            "{} is a GGUF file, and an edited checkpoint is written of one in safetensors: pass its directory or Hub id as --model to a study that was collected with it",
            files.id
        )));
    };
    let (config, weights) = describe(files)?;
    if config.norms_mlp_output() {
        return Err(Error::usage(format!(
            "{} norms what its MLP puts out, so that no change of weights does what steering does",
            files.id
        )));
    }
    let mut edits = Edits::default();
    let (mut dtype, mut added_bias) = ("f32", false);
    let mut biases = BTreeMap::new();
    for layer in intervention.layers() {
        let name = name_of(&config, &weights, layer, config.names.down)?;
        let (stored, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let tensor = required(&weights, &stored)?;
        dtype = dtype_of(tensor)?.1;
        let before = read(&config, tensor, weights.get(&bias))?;
        let after = intervention.bake(layer, alpha, &before)?;
        if after.weight != before.weight {
            let bytes = encode(tensor.dtype(), &laid_out(&config, &after))?;
            put(&mut edits, tensor, stored, bytes);
        }
        if after.bias != before.bias {
            match weights.get(&bias) {
                Some(tensor) if config.mlp_bias => {
                    let bytes = encode(tensor.dtype(), &after.bias)?;
                    put(&mut edits, tensor, bias, bytes);
                }
                _ if BIAS_BY_CONFIG.contains(&config.family.as_str()) => {
                    biases.insert(layer, after.bias);
                    added_bias = true;
                }
                _ => {
                    return Err(Error::usage(format!(
                        "{} has no bias in its MLP, and its family ({}) knows none: only ablating can be written into its weights",
                        files.id, config.family
                    )));
                }
            }
        }
    }
    if edits.changed.is_empty() && !added_bias {
        return Err(Error::usage(
            "the weights would be those of the model as it is: choose another α or direction",
        ));
    }
    if added_bias {
        edits.config.insert("mlp_bias".to_owned(), json!(true));
        edits.added = all_biases(&config, &weights, &biases)?;
    }
    disk::create_dir(dir)?;
    checkpoint::write(config_path, shards, &edits, dir)?;
    Ok(EditedCheckpoint {
        layers: intervention.layers(),
        dtype,
        added_bias,
    })
}

fn put(edits: &mut Edits, tensor: &StoredTensor, name: String, bytes: Vec<u8>) {
    let shard = edits.changed.entry(tensor.file().to_path_buf());
    shard.or_default().insert(name, bytes);
}

/// The name of a part of a layer in this checkpoint, without `.weight`.
fn name_of(config: &Config, weights: &Weights, layer: usize, part: &str) -> Result<String> {
    let names = config.names;
    let candidates = names.prefixes.iter();
    candidates
        .map(|prefix| format!("{prefix}{}{layer}.{part}", names.layers))
        .find(|name| weights.get(&format!("{name}.weight")).is_some())
        .ok_or_else(|| {
            Error::file(
                weights.path(),
                format!("has no tensor {part} of layer {layer}"),
            )
        })
}

fn required<'a>(weights: &'a Weights, name: &str) -> Result<&'a StoredTensor> {
    weights
        .get(name)
        .ok_or_else(|| Error::file(weights.path(), format!("has no tensor {name}")))
}

/// The projection in 64 bits, whichever way round it is stored.
fn read(
    config: &Config,
    weight: &StoredTensor,
    bias: Option<&StoredTensor>,
) -> Result<DownProjection> {
    let (inputs, outputs) = (config.d_mlp, config.d_model);
    let values = weight.to_f32();
    if values.len() != inputs * outputs {
        return Err(Error::file(
            weight.file(),
            format!("the down projection is {:?}", weight.shape()),
        ));
    }
    let bias = bias.filter(|_| config.mlp_bias).map(StoredTensor::to_f32);
    let wide = |v: f32| f64::from(v);
    let mut down = DownProjection {
        inputs,
        weight: values.into_iter().map(wide).collect(),
        bias: bias.map_or_else(|| vec![0.0; outputs], |b| b.into_iter().map(wide).collect()),
    };
    if config.conv1d {
        down.weight = transposed(&down.weight, inputs, outputs);
    }
    Ok(down)
}

fn laid_out(config: &Config, down: &DownProjection) -> Vec<f64> {
    match config.conv1d {
        true => transposed(&down.weight, config.d_model, config.d_mlp),
        false => down.weight.clone(),
    }
}

/// The transpose of row-major `[rows, cols]`.
fn transposed(values: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..values.len())
        .map(|at| values[(at % rows) * cols + at / rows])
        .collect()
}

/// The names of a type in safetensors and as it is shown.
fn dtype_of(tensor: &StoredTensor) -> Result<(&'static str, &'static str)> {
    match tensor.dtype() {
        GgmlDType::F32 => Ok(("F32", "f32")),
        GgmlDType::F16 => Ok(("F16", "f16")),
        GgmlDType::BF16 => Ok(("BF16", "bf16")),
        other => Err(Error::file(
            tensor.file(),
            format!("holds {other:?}, which is not written"),
        )),
    }
}

fn encode(dtype: GgmlDType, values: &[f64]) -> Result<Vec<u8>> {
    let values = values.iter().map(|&v| v as f32);
    // As it is stored: f16 ends at 65,504.
    let stored = |v: f32| match dtype {
        GgmlDType::F16 => f16::from_f32(v).to_f32(),
        GgmlDType::BF16 => bf16::from_f32(v).to_f32(),
        _ => v,
    };
    if let Some(v) = values.clone().map(stored).find(|v| !v.is_finite()) {
        return Err(Error::usage(format!(
            "a weight would become {v}: choose a smaller α"
        )));
    }
    Ok(match dtype {
        GgmlDType::F16 => values
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect(),
        GgmlDType::BF16 => values
            .flat_map(|v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    })
}

/// Biases of every MLP of a model that had none: zeros but where one is needed.
fn all_biases(
    config: &Config,
    weights: &Weights,
    needed: &BTreeMap<usize, Vec<f64>>,
) -> Result<Vec<AddedTensor>> {
    let mut out = Vec::new();
    for layer in 0..config.layers.len() {
        let parts = [
            (config.names.gate, config.d_mlp),
            (config.names.up, config.d_mlp),
            (config.names.down, config.d_model),
        ];
        for (part, width) in parts {
            let name = name_of(config, weights, layer, part)?;
            let like = required(weights, &format!("{name}.weight"))?;
            let zeros = vec![0.0; width];
            let values = match needed.get(&layer) {
                Some(values) if part == config.names.down => values,
                _ => &zeros,
            };
            out.push(AddedTensor {
                name: format!("{name}.bias"),
                dtype: dtype_of(like)?.0,
                shape: vec![width],
                bytes: encode(like.dtype(), values)?,
            });
        }
    }
    Ok(out)
}
