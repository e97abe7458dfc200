//! `mlpeek forward`: raw tensors for anyone's own code.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde_json::json;

use super::{Output, check_layers, check_target, note_model, open_files};
use crate::cli::ForwardArgs;
use crate::error::{Error, Result};
use crate::interop::tensors;
use crate::model::{
    Batch, BosRule, HookPoint, LoadOptions, Logits, Model, Pass, Phase, Tap, describe, source,
};

/// Keeps what it sees of a batch of one.
struct Recorder {
    hooks: Vec<HookPoint>,
    seen: BTreeMap<HookPoint, Tensor>,
}

impl Tap for Recorder {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn at(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.insert(hook, x.squeeze(0)?.to_dtype(DType::F32)?);
        Ok(None)
    }
}

pub(super) fn run(args: &ForwardArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    check_target(&args.out, &["safetensors"])?;
    let files = source::resolve(args.model.model.as_deref(), &ctx)?;
    let config = describe(&files)?.0;
    check_layers(&args.layer, config.layers.len())?;
    let dtype = args.dtype.map(Into::into);
    let options = LoadOptions {
        device: args.model.device.into(),
        dtype,
        ..LoadOptions::default()
    };
    let (model, bare);
    let (decoder, ids) = match &args.ids {
        // Ids alone need no tokenizer.
        Some(ids) => {
            bare = Model::open_decoder(&files, &options, &ctx)?;
            note_model(&bare.1, out);
            (&bare.0, ids.clone())
        }
        None => {
            model = open_files(&files, &options, out, &ctx)?;
            let text = args.text.as_deref().unwrap_or("");
            (
                model.decoder(),
                model.tokenizer().encode(text, BosRule::Auto)?,
            )
        }
    };
    if ids.is_empty() {
        return Err(Error::usage(
            "there is no token to run: the text is empty and the model has no BOS",
        ));
    }
    let mut hooks: Vec<_> = args
        .layer
        .iter()
        .flat_map(|&layer| args.hook.iter().map(move |&site| HookPoint { layer, site }))
        .collect();
    hooks.sort_unstable();
    hooks.dedup();
    hooks.iter().try_for_each(|h| decoder.width(*h).map(drop))?;
    let mut tap = Recorder {
        hooks,
        seen: BTreeMap::new(),
    };
    let batch = Batch {
        rows: vec![ids.clone()],
        samples: Vec::new(),
    };
    let logits = decoder
        .forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, &ctx)?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .squeeze(0)?
        .to_dtype(DType::F32)?;
    let mut named = Vec::with_capacity(tap.seen.len() + 1);
    for (hook, x) in &tap.seen {
        named.push(plain(hook.to_string(), x)?);
    }
    named.push(plain("logits".to_owned(), &logits)?);
    let mut shapes: Vec<_> = named
        .iter()
        .map(|(name, shape, _)| (name.clone(), shape.clone()))
        .collect();
    shapes.sort();
    tensors::write_forward(&args.out, &ids, &named)?;
    if out.is_json() {
        let tensors: Vec<_> = shapes
            .iter()
            .map(|(name, shape)| json!({"tensor": name, "shape": shape}))
            .collect();
        out.object(
            &json!({"event": "forward", "out": args.out, "token_ids": ids, "tensors": tensors}),
        )
    } else {
        out.line(&format!("{}: {} tokens", args.out.display(), ids.len()))?;
        shapes
            .iter()
            .try_for_each(|(name, shape)| out.line(&format!("  {name} {shape:?}")))
    }
}

fn plain(name: String, x: &Tensor) -> Result<(String, Vec<usize>, Vec<f32>)> {
    Ok((name, x.dims().to_vec(), x.flatten_all()?.to_vec1()?))
}
