//! From named tensors to a network: every shape is checked against the configuration before anything
//! is computed.

use std::cell::RefCell;
use std::collections::HashSet;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::embed::Table;
use super::linear::{Linear, Matrix, Placement, dense};
use super::network::{Decoder, Layer};
use super::ops::NormWeights;
use super::spread::Spread;
use crate::error::{Error, Result};
use crate::model::config::{Config, NormKind, QkvOrder, TensorNames};
use crate::model::weights::{StoredTensor, Weights};
use crate::task::TaskCtx;

/// Finds tensors by role, checks them, and remembers which were used.
struct Loader<'a> {
    config: &'a Config,
    weights: &'a Weights,
    spread: Spread,
    /// Types of blocks that the devices do not multiply rightly: these are widened when loaded.
    widened: &'a [GgmlDType],
    prefix: &'static str,
    used: RefCell<HashSet<String>>,
}

impl Loader<'_> {
    fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(self.weights.path(), problem)
    }

    fn find(&self, name: &str) -> Option<&StoredTensor> {
        let found = self.weights.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(found)
    }

    fn required(&self, name: &str, shape: &[usize]) -> Result<&StoredTensor> {
        let Some(found) = self.find(name) else {
            return Err(self.error(format!(
                "tensor {name} is missing: the checkpoint is not whole or not of this family"
            )));
        };
        check_shape(found, name, shape)?;
        Ok(found)
    }

    /// A tensor of `len` values as f32, all finite.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.required(name, &[len])?;
        let values = tensor.to_f32();
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let problem = format!(
                "tensor {name} holds {} at {i}: the weights are damaged",
                values[i]
            );
            return Err(Error::file(tensor.file(), problem));
        }
        Ok(values)
    }

    /// The full name of a tensor outside the layers, without `.weight`.
    fn outside(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The full name of a tensor of layer `index`, without `.weight`.
    fn in_layer(&self, index: usize, name: &str) -> String {
        format!("{}{}{index}.{name}", self.prefix, self.config.names.layers)
    }

    fn norm(&self, name: &str, place: &Placement) -> Result<NormWeights> {
        let (norm, width) = (self.config.norm, self.config.d_model);
        let weight = self.vector(&format!("{name}.weight"), width)?;
        let bias = match norm.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.vector(&format!("{name}.bias"), width)?),
        };
        NormWeights::new(norm, weight, bias, place)
    }

    /// The RMS norm of each head's q or k; `None` in a family without it.
    fn head_norm(&self, name: &str, place: &Placement) -> Result<Option<NormWeights>> {
        if !self.config.qk_norm {
            return Ok(None);
        }
        let weight = self.vector(&format!("{name}.weight"), self.config.head_dim)?;
        NormWeights::new(self.config.norm, weight, None, place).map(Some)
    }

    /// Projections of one input of width `cols`, side by side; `parts` are their names and widths.
    fn linear(
        &self,
        parts: &[(String, usize)],
        cols: usize,
        bias: bool,
        place: &Placement,
    ) -> Result<Linear> {
        let conv1d = self.config.conv1d;
        let (mut matrices, mut biases) = (Vec::new(), Vec::new());
        for (name, out) in parts {
            let shape = if conv1d { [cols, *out] } else { [*out, cols] };
            let full = format!("{name}.weight");
            matrices.push(self.matrix(self.required(&full, &shape)?, &full, conv1d, place)?);
            if bias {
                biases.extend(self.vector(&format!("{name}.bias"), *out)?);
            }
        }
        Linear::new(matrices, bias.then_some(biases), place)
    }

    fn matrix(
        &self,
        tensor: &StoredTensor,
        name: &str,
        transposed: bool,
        place: &Placement,
    ) -> Result<Matrix> {
        let widened = self.widened.contains(&tensor.dtype());
        Matrix::new(tensor, name, transposed, place, widened)
    }

    fn block(&self, index: usize) -> Result<Layer> {
        let c = self.config;
        let place = self.spread.of(index);
        let names = c.names;
        let name = |own| self.in_layer(index, own);
        let fused = name(names.qkv);
        let qkv = if c.qkv_order == QkvOrder::PerHead
            || self.weights.get(&format!("{fused}.weight")).is_some()
        {
            vec![(fused, c.q_width() + 2 * c.kv_width())]
        } else {
            vec![
                (name(names.q), c.q_width()),
                (name(names.k), c.kv_width()),
                (name(names.v), c.kv_width()),
            ]
        };
        let up = if c.gated {
            vec![(name(names.gate), c.d_mlp), (name(names.up), c.d_mlp)]
        } else {
            vec![(name(names.up), c.d_mlp)]
        };
        let post_norm = |own| {
            if c.post_norms {
                self.norm(&name(own), place).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Layer {
            kind: c.layers[index],
            attn_norm: self.norm(&name(names.attn_norm), place)?,
            qkv: self.linear(&qkv, c.d_model, c.qkv_bias, place)?,
            q_norm: self.head_norm(&name(names.q_norm), place)?,
            k_norm: self.head_norm(&name(names.k_norm), place)?,
            out: self.linear(
                &[(name(names.out), c.d_model)],
                c.q_width(),
                c.out_bias,
                place,
            )?,
            post_attn: post_norm(names.post_attn_norm)?,
            mlp_norm: self.norm(&name(names.mlp_norm), place)?,
            up: self.linear(&up, c.d_model, c.mlp_bias, place)?,
            down: self.linear(&[(name(names.down), c.d_model)], c.d_mlp, c.mlp_bias, place)?,
            post_mlp: post_norm(names.post_mlp_norm)?,
        })
    }

    /// The unembedding and its name. A stored one is used even where the configuration ties it, unless
    /// it equals the embedding: `transformers` 5 does not tie matrices that differ.
    fn head(&self, embed: &StoredTensor) -> Result<(String, StoredTensor)> {
        let c = self.config;
        let name = head_names(c.names)
            .into_iter()
            .find(|name| self.weights.get(name).is_some());
        match name {
            Some(name) => {
                let head = self.required(&name, &[c.vocab, c.d_model])?;
                let same = head.dtype() == embed.dtype() && head.data() == embed.data();
                Ok((name, if same { embed } else { head }.clone()))
            }
            None if c.tied => Ok((
                format!("{}.weight", self.outside(c.names.embedding)),
                embed.clone(),
            )),
            None => {
                let [name, ..] = head_names(c.names);
                let problem = format!(
                    "tensor {name} is missing and tie_word_embeddings is false: the checkpoint is not whole, or its \
                     config.json should say true"
                );
                Err(self.error(problem))
            }
        }
    }

    /// Refuses a tensor of a loaded layer that was not used: it belongs to a computation that this
    /// decoder does not have.
    fn refuse_unused(&self, loaded: usize) -> Result<()> {
        let used = self.used.borrow();
        let blocks: Vec<String> = (0..loaded).map(|i| self.in_layer(i, "")).collect();
        let mut odd: Vec<&str> = self
            .weights
            .names()
            .filter(|n| !used.contains(*n) && blocks.iter().any(|b| n.starts_with(b)))
            .filter(|n| {
                ![
                    "rotary_emb.inv_freq",
                    "attn.bias",
                    "attention.bias",
                    "masked_bias",
                ]
                .iter()
                .any(|b| n.ends_with(b))
            })
            .collect();
        let head_bias = format!("{}.bias", self.config.names.unembedding);
        odd.extend(self.weights.names().filter(|n| *n == head_bias));
        odd.sort_unstable();
        match odd.first() {
            Some(name) => Err(self.error(format!(
                "tensor {name} has no place in family {}",
                self.config.family
            ))),
            None => Ok(()),
        }
    }
}

fn check_shape(found: &StoredTensor, name: &str, shape: &[usize]) -> Result<()> {
    // A vector may be stored as one row.
    let squeezed: Vec<usize> = found.shape().iter().copied().filter(|&d| d != 1).collect();
    let wanted: Vec<usize> = shape.iter().copied().filter(|&d| d != 1).collect();
    if squeezed == wanted {
        return Ok(());
    }
    let problem = format!(
        "tensor {name} is {:?}, the configuration says {shape:?}",
        found.shape()
    );
    Err(Error::file(found.file(), problem))
}

/// The names that the unembedding may have: at the top, or within the wrapper of a model that also
/// takes images.
fn head_names(names: &TensorNames) -> [String; 2] {
    let name = names.unembedding;
    [
        format!("{name}.weight"),
        format!("language_model.{name}.weight"),
    ]
}

/// The prefix of a checkpoint's tensors; and the unembedding's name where a tied pair is stored as
/// the unembedding alone.
fn prefix(config: &Config, weights: &Weights) -> Result<(&'static str, Option<String>)> {
    let names = config.names;
    let with = |name: &str| {
        let name = format!("{name}.weight");
        names
            .prefixes
            .iter()
            .find(|p| weights.get(&format!("{p}{name}")).is_some())
            .copied()
    };
    if let Some(prefix) = with(names.embedding) {
        return Ok((prefix, None));
    }
    let head = head_names(names)
        .into_iter()
        .find(|name| config.tied && weights.get(name).is_some());
    match (with(names.final_norm), head) {
        (Some(prefix), Some(head)) => Ok((prefix, Some(head))),
        _ => {
            let problem = format!(
                "tensor {}.weight is missing: not a {} checkpoint",
                names.embedding, config.family
            );
            Err(Error::file(weights.path(), problem))
        }
    }
}

/// Builds the first `layers` layers (`None`: all), spread over devices; blocks of the types in
/// `widened` are widened there, and the embeddings are copied to the first where `embedded` says so.
pub(super) fn load(
    config: Config,
    weights: &Weights,
    layers: Option<usize>,
    (spread, widened, embedded): (Spread, &[GgmlDType], bool),
    ctx: &TaskCtx,
) -> Result<Decoder> {
    let depth = config.layers.len();
    let count = layers.unwrap_or(depth);
    if count > depth {
        let last = depth - 1;
        return Err(Error::usage(format!(
            "layer {} does not exist: this model has layers 0 to {last}",
            count - 1
        )));
    }
    let names = config.names;
    let (prefix, tied_to_head) = prefix(&config, weights)?;
    let loader = Loader {
        config: &config,
        weights,
        spread,
        widened,
        prefix,
        used: RefCell::default(),
    };
    let shape = [config.vocab, config.d_model];
    let embed = match tied_to_head {
        Some(head) => loader.required(&head, &shape)?,
        None => loader.required(
            &format!("{}.weight", loader.outside(names.embedding)),
            &shape,
        )?,
    };
    let embed = embed.clone();
    let positions = if config.learned_positions {
        let name = format!("{}.weight", loader.outside(names.positions));
        Some(
            loader
                .required(&name, &[config.context, config.d_model])?
                .clone(),
        )
    } else {
        None
    };
    let mut blocks = Vec::with_capacity(count);
    for i in 0..count {
        blocks.push(loader.block(i)?);
        ctx.check()?;
    }
    loader.refuse_unused(count)?;
    let mut rows = None;
    let (final_norm, head) = if count == depth {
        let (head_name, head) = loader.head(&embed)?;
        let place = loader.spread.last();
        let tied = head.data().as_ptr() == embed.data().as_ptr();
        let head = loader.matrix(&head, &head_name, false, place)?;
        let head = Linear::new(vec![head], None, place)?;
        if tied && place.is_on(loader.spread.first()) {
            rows = head.dense().cloned();
        }
        (
            Some(loader.norm(&loader.outside(names.final_norm), place)?),
            Some(head),
        )
    } else {
        (None, None)
    };
    let spread = loader.spread;
    let table = match spread.first() {
        Placement::Device(device, dtype) if embedded && !embed.is_quantised() => Some(Table {
            rows: match rows {
                Some(rows) => rows,
                None => dense(&embed, device)?.to_dtype(*dtype)?,
            },
            positions: match &positions {
                Some(positions) => Some(dense(positions, device)?.to_dtype(DType::F32)?),
                None => None,
            },
        }),
        _ => None,
    };
    Ok(Decoder::assemble(
        config,
        (embed, table),
        positions,
        blocks,
        final_norm,
        head,
        spread,
    ))
}
