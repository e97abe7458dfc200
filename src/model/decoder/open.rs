//! From files to an open model: configuration, memory, weights, and its description.

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::budget::{self, Plan, Subject};
use super::linear::Placement;
use super::products::widened_types;
use super::spread::Spread;
use super::{Decoder, LoadOptions, load};
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::device::card::Card;
use crate::model::device::{self, OpenDevices};
use crate::model::weights::{Weights, digest};
use crate::model::{ModelFiles, ModelIdentity, ModelInfo, ModelLayout, Tokenizer};
use crate::task::TaskCtx;

/// Configuration and weights as they lie on disk: headers are read, nothing is computed.
///
/// # Errors
/// Files that are missing, broken or of a family that is not supported.
pub fn describe(files: &ModelFiles) -> Result<(Config, Weights)> {
    match &files.layout {
        ModelLayout::HuggingFace {
            config, weights, ..
        } => Ok((
            Config::from_hf(config)?,
            Weights::open_safetensors(weights)?,
        )),
        ModelLayout::Gguf(path) => {
            let weights = Weights::open_gguf(path)?;
            Ok((Config::from_gguf(&weights)?, weights))
        }
    }
}

/// Opens configuration and weights; the plan that is returned says how.
pub(super) fn open(
    files: &ModelFiles,
    options: &LoadOptions,
    ctx: &TaskCtx,
) -> Result<(Decoder, ModelInfo, Plan)> {
    let described = describe(files)?;
    let opened = device::open(options.device, options.dtype)?;
    open_on(files, described, options, &opened, ctx)
}

/// [`open`] on devices that are open.
pub(super) fn open_on(
    files: &ModelFiles,
    (config, weights): (Config, Weights),
    options: &LoadOptions,
    opened: &OpenDevices,
    ctx: &TaskCtx,
) -> Result<(Decoder, ModelInfo, Plan)> {
    let (mut notes, name) = (opened.notes.clone(), opened.name.clone());
    let (widened, plan, spread) = place(&config, &weights, options, opened, &mut notes)?;
    let configuration = config.switches();
    let decoder = load::load(
        config,
        &weights,
        options.layers,
        (spread, &widened, plan.embedding),
        ctx,
    )?;
    notes.extend_from_slice(weights.notes());
    let stored = most_common_dtype(&weights);
    if stored.block_size() > 1 {
        notes.push(format!(
            "weights are {}: activations, traces and KL use them widened to {}; generated text uses the quantised kernels",
            dtype_name(stored),
            compute_name(decoder.dtype()),
        ));
    }
    let config = decoder.config();
    let info = ModelInfo {
        id: files.id.clone(),
        origin: files.origin.clone(),
        family: config.family.clone(),
        layers: config.layers.len(),
        d_model: config.d_model,
        d_mlp: config.d_mlp,
        vocab: config.vocab,
        context: config.context,
        device: name,
        weights_dtype: dtype_name(stored).to_owned(),
        compute_dtype: compute_name(decoder.dtype()).to_owned(),
        weight_bytes: weights.bytes(),
        weights_sha256: digest(weights.files(), ctx)?,
        tokenizer_sha256: String::new(),
        identity: Some(ModelIdentity {
            configuration,
            ..ModelIdentity::default()
        }),
        notes,
    };
    Ok((decoder, info, plan))
}

/// The types that are widened, how much is computed at once, and where each layer goes: all that is
/// decided before weights are read. What the user should know of it is added to `notes`.
fn place(
    config: &Config,
    weights: &Weights,
    options: &LoadOptions,
    opened: &OpenDevices,
    notes: &mut Vec<String>,
) -> Result<(Vec<GgmlDType>, Plan, Spread)> {
    let free = opened.free()?;
    let mut widened = Vec::new();
    for gpu in &opened.devices {
        let (types, told) = widened_types(weights, gpu, opened.dtype)?;
        for (kind, note) in types.into_iter().zip(told) {
            if !widened.contains(&kind) {
                widened.push(kind);
                notes.push(note);
            }
        }
    }
    let subject = Subject {
        config,
        weights,
        widened: &widened,
    };
    let dtype = (!opened.devices.is_empty()).then_some(opened.dtype);
    let titles: Vec<String> = opened.cards.iter().map(Card::title).collect();
    let asked = Plan::new(options, dtype);
    let plan = budget::check(subject, asked, &free, &titles)?;
    if plan.tokens < asked.tokens {
        notes.push(format!(
            "batches of {} tokens instead of {}: more would not fit on {}",
            plan.tokens, asked.tokens, opened.name
        ));
    }
    if !opened.cards.is_empty() && !plan.embedding && free.iter().all(Option::is_some) {
        notes.push(format!(
            "the embeddings are looked up on the host: they would not fit beside the rest on {}",
            opened.name
        ));
    }
    let spread = match &opened.devices[..] {
        [] => Spread::one(Placement::Mapped),
        [gpu] => Spread::one(Placement::Device(gpu.clone(), opened.dtype)),
        gpus => {
            let shares = budget::shares(subject, plan, &free);
            for ((share, title), free) in shares.iter().zip(&titles).zip(&free) {
                let free_words = free.map_or_else(String::new, |free| {
                    format!(" of {} free", human_bytes(free))
                });
                notes.push(format!(
                    "{} on {title}: {}{free_words}",
                    share.described(),
                    human_bytes(share.bytes)
                ));
            }
            let firsts: Vec<usize> = shares.iter().map(|share| share.layers.start).collect();
            Spread::over(gpus, opened.dtype, &firsts)
                .ok_or_else(|| Error::refused("the layers cannot be divided over the cards"))?
        }
    };
    Ok((widened, plan, spread))
}

/// The storage type that most bytes of the weights have.
fn most_common_dtype(weights: &Weights) -> GgmlDType {
    let mut bytes: Vec<(GgmlDType, usize)> = Vec::new();
    // Embeddings are often stored more precisely than the layers, whose type is the model's.
    let layers = weights
        .names()
        .filter(|n| n.contains("blk.") || n.contains("layers.") || n.contains("h."));
    for tensor in layers.filter_map(|n| weights.get(n)) {
        match bytes.iter_mut().find(|(d, _)| *d == tensor.dtype()) {
            Some((_, n)) => *n += tensor.data().len(),
            None => bytes.push((tensor.dtype(), tensor.data().len())),
        }
    }
    bytes
        .into_iter()
        .max_by_key(|(_, n)| *n)
        .map_or(GgmlDType::F32, |(d, _)| d)
}

fn dtype_name(dtype: GgmlDType) -> &'static str {
    match dtype {
        GgmlDType::F32 => "f32",
        GgmlDType::F16 => "f16",
        GgmlDType::BF16 => "bf16",
        GgmlDType::Q4_0 => "Q4_0",
        GgmlDType::Q4_1 => "Q4_1",
        GgmlDType::Q5_0 => "Q5_0",
        GgmlDType::Q5_1 => "Q5_1",
        GgmlDType::Q8_0 => "Q8_0",
        GgmlDType::Q8_1 => "Q8_1",
        GgmlDType::Q2K => "Q2_K",
        GgmlDType::Q3K => "Q3_K",
        GgmlDType::Q4K => "Q4_K",
        GgmlDType::Q5K => "Q5_K",
        GgmlDType::Q6K => "Q6_K",
        GgmlDType::Q8K => "Q8_K",
    }
}

fn compute_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    }
}

/// Compares the tokenizer with the embeddings and records it. A few more ids than embeddings are
/// common (Gemma's image token); many more belong to another model.
pub(super) fn check_tokenizer(tokenizer: &Tokenizer, info: &mut ModelInfo) -> Result<()> {
    let (pieces, rows) = (tokenizer.vocab_size(), info.vocab);
    if pieces > rows + 256 || pieces * 2 < rows {
        let problem = format!(
            "the tokenizer has {pieces} pieces, the model {rows} embeddings: they do not belong together"
        );
        return Err(Error::refused(problem));
    }
    info.tokenizer_sha256 = tokenizer.sha256().to_owned();
    if let Some(identity) = &mut info.identity {
        (identity.tokenizer, identity.bos) = (tokenizer.ids_sha256(), tokenizer.bos());
        tokenizer
            .file_sha256()
            .clone_into(&mut identity.tokenizer_file);
    }
    Ok(())
}
