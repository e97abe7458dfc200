//! `mlpeek forward`: raw tensors for anyone's own code.

use serde_json::json;

use super::{Output, check_layers, check_target, note_model, open_files};
use crate::cli::ForwardArgs;
use crate::error::Result;
use crate::interop::tensors;
use crate::jobs::forward::forward;
use crate::model::{BosRule, HookPoint, LoadOptions, Model, describe, source};

pub(super) fn run(args: &ForwardArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    check_target(&args.out, &["safetensors"])?;
    let files = source::resolve(args.model.model.as_deref(), &ctx)?;
    let config = describe(&files)?.0;
    check_layers(&args.layer, config.layers.len())?;
    let dtype = args.dtype.map(Into::into);
    let options = LoadOptions {
        device: args.model.device,
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
    let at = |&layer: &usize| args.hook.iter().map(move |&site| HookPoint { layer, site });
    let hooks: Vec<HookPoint> = args.layer.iter().flat_map(at).collect();
    let named = forward(decoder, &ids, &hooks, &ctx)?;
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
