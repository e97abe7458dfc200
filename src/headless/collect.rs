//! `mlpeek collect`.

use std::num::NonZero;

use serde_json::json;

use super::output::thousands;
use super::{Output, open_files};
use crate::activations::collect::collect;
use crate::cli::{CollectArgs, Dtype};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::model::{HookPoint, LoadOptions, describe, source};
use crate::study::Study;

pub(super) fn run(args: &CollectArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let corpus = match &args.data {
        Some(path) => Corpus::open(path)?,
        None => Corpus::bundled(),
    };
    let files = source::resolve(args.model.model.as_deref(), &ctx)?;
    let mut layers = args.layer.clone();
    if layers.is_empty() {
        layers.push(describe(&files)?.0.layers.len() / 2);
    }
    layers.sort_unstable();
    layers.dedup();
    // Nothing is generated here, so layers above the last hook need not be loaded.
    let options = LoadOptions {
        device: args.model.device.into(),
        dtype: args.dtype.map(Into::into),
        layers: layers.last().map(|last| last + 1),
        batch_tokens: args.batch_tokens.map(NonZero::get),
    };
    let model = open_files(&files, &options, out, &ctx)?;
    let hooks: Vec<_> = layers.iter().map(|&layer| HookPoint { layer, site: args.hook }).collect();
    let widths = hooks.iter().map(|h| model.width(*h)).collect::<Result<Vec<_>>>()?;
    let bos = args.bos.into();
    let mut study = if args.append {
        let mut study = Study::open(&args.out)?;
        study.append(&corpus)?;
        study
    } else {
        Study::create(
            &args.out,
            Some(model.info()),
            &hooks,
            &widths,
            &corpus,
            args.dtype.unwrap_or(Dtype::F32).into(),
            bos,
        )?
    };
    let done = collect(&model, &corpus, &mut study, bos, &ctx)?;
    if done.windowed > 0 {
        out.note(&format!("{} texts are longer than the context and were cut into windows", done.windowed));
    }
    for (hook, width) in hooks.iter().zip(&widths) {
        let concentrated = study.concentrations(&study.energy(*hook, &ctx)?)?;
        concentrated.iter().for_each(|found| out.note(&format!("{hook}: {}", found.advice())));
        if out.is_json() {
            out.object(&json!({"event": "collected", "tokens": done.tokens, "samples": done.samples, "d": width,
                "layer": hook.layer, "hook": hook.to_string(), "seconds": done.seconds, "concentrated": concentrated}))?;
        } else {
            out.line(&format!(
                "{hook}: {} tokens of {} samples, {width} wide, in {:.1} s",
                thousands(done.tokens as u64),
                thousands(done.samples as u64),
                done.seconds
            ))?;
        }
    }
    Ok(())
}
