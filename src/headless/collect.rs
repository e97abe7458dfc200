//! `mlpeek collect`.

use std::num::NonZero;

use candle_core::DType;
use serde_json::json;

use super::json::concentrations;
use super::output::thousands;
use super::{Output, check_layers, open_files, unchecked_model_of};
use crate::cli::CollectArgs;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::jobs::collect::{self, Collected};
use crate::model::{BosRule, HookPoint, LoadOptions, Model, describe, source};
use crate::study::{Study, StudyRequest};
use crate::task::TaskCtx;

pub(super) fn run(args: &CollectArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    Study::check_can_create(&args.out)?;
    if args.withdraw {
        let mut study = Study::open(&args.out)?;
        let name = study.withdraw()?;
        let (dir, rows) = (args.out.display(), study.manifest().rows);
        return match out.is_json() {
            true => out.object(&json!({"event": "withdrawn", "corpus": name, "token_count": rows})),
            false => out.line(&format!(
                "{name} is out of {dir} again, which has {} tokens",
                thousands(rows as u64)
            )),
        };
    }
    let (study, done) = if Study::exists_at(&args.out) || args.append {
        into_study(args, out, &ctx)?
    } else {
        into_new_study(args, out, &ctx)?
    };
    if done.windowed > 0 {
        out.note(&format!(
            "{} texts are longer than the context and were cut into windows",
            done.windowed
        ));
    }
    let manifest = study.manifest();
    let model = study.own_model()?;
    for (hook, width) in manifest.hooks.iter().zip(&manifest.widths) {
        let concentrated = study.concentrations(&study.energy(*hook, &ctx)?)?;
        concentrated
            .iter()
            .for_each(|found| out.note(&format!("{hook}: {}", found.advice())));
        if out.is_json() {
            out.object(&json!({
                "event": "collected", "token_count": done.tokens, "sample_count": done.samples, "width": width,
                "layer": hook.layer, "hook": hook.to_string(), "elapsed_s": done.seconds,
                "dtype": manifest.dtype.name(), "compute_dtype": model.compute_dtype,
                "concentrated": concentrations(&concentrated),
            }))?;
        } else {
            out.line(&format!(
                "{hook}: {} tokens of {} samples, {width} wide, {}, in {:.1} s",
                thousands(done.tokens as u64),
                thousands(done.samples as u64),
                collect::stored_words(manifest.dtype, model),
                done.seconds
            ))?;
        }
    }
    Ok(())
}

fn into_new_study(args: &CollectArgs, out: &Output, ctx: &TaskCtx) -> Result<(Study, Collected)> {
    let corpus = given(args)?.unwrap_or_else(Corpus::bundled);
    let files = source::resolve(args.model.model.as_deref(), ctx)?;
    let mut layers = args.layer.clone();
    let layer_count = describe(&files)?.0.layers.len();
    if layers.is_empty() {
        layers.push(layer_count / 2);
    }
    check_layers(&layers, layer_count)?;
    layers.sort_unstable();
    layers.dedup();
    let model = open_files(&files, &options(args, layers.last(), None), out, ctx)?;
    let site = args.hook.unwrap_or_default();
    let hooks: Vec<_> = layers
        .iter()
        .map(|&layer| HookPoint { layer, site })
        .collect();
    let widths = hooks
        .iter()
        .map(|h| model.width(*h))
        .collect::<Result<Vec<_>>>()?;
    let dtype = match args.dtype {
        Some(dtype) => dtype.into(),
        None => {
            collect::stored_remark(model.info())
                .iter()
                .for_each(|remark| out.note(remark));
            collect::exact_dtype(model.info())
        }
    };
    let bos = args.bos.map(BosRule::from).unwrap_or_default();
    let mut study = Study::create(
        &args.out,
        Some(model.info()),
        &hooks,
        &widths,
        &corpus,
        dtype,
        bos,
    )?;
    let done = collect::collect(&model, &corpus, &mut study, bos, ctx)?;
    Ok((study, done))
}

/// Goes on with a study that is there, or adds a corpus to it. All that can be refused is, before
/// the study is locked.
fn into_study(args: &CollectArgs, out: &Output, ctx: &TaskCtx) -> Result<(Study, Collected)> {
    let study = Study::open_read_only(&args.out)?;
    study.check_request(&StudyRequest {
        layers: args.layer.clone(),
        site: args.hook,
        dtype: args.dtype.map(Into::into),
        bos: args.bos.map(Into::into),
    })?;
    let mut corpus = given(args)?;
    if args.append {
        study.check_append(corpus.get_or_insert_with(Corpus::bundled))?;
    } else if let Some(corpus) = &corpus {
        study.check_corpus(corpus)?;
    }
    let model = own_model(&study, args, out, ctx)?;
    study.check_model(model.info())?;
    drop(study);
    let mut study = Study::open(&args.out)?;
    let place = study.own_model()?.id.clone();
    let bos = study.manifest().bos;
    let done = match &corpus {
        Some(corpus) if args.append => collect::append(&model, corpus, &mut study, ctx),
        Some(corpus) => collect::collect(&model, corpus, &mut study, bos, ctx),
        None => collect::resume(&model, &mut study, ctx),
    }?;
    if args.model.model.is_some() && place != model.info().id {
        out.note(&format!(
            "{} has its model at {} from now on (it was {place})",
            args.out.display(),
            model.info().id
        ));
    }
    Ok((study, done))
}

/// The corpus that is named.
fn given(args: &CollectArgs) -> Result<Option<Corpus>> {
    args.data.as_deref().map(Corpus::open).transpose()
}

/// Nothing is generated here, so layers above the last hook need not be loaded.
fn options(args: &CollectArgs, last: Option<&usize>, dtype: Option<DType>) -> LoadOptions {
    LoadOptions {
        device: args.model.device,
        dtype: args.dtype.map(Into::into).or(dtype),
        layers: last.map(|last| last + 1),
        batch_tokens: args.batch_tokens.map(NonZero::get),
    }
}

/// The model that is named, or the study's own, computing as it did for the rows that are there.
fn own_model(study: &Study, args: &CollectArgs, out: &Output, ctx: &TaskCtx) -> Result<Model> {
    let computed = &study.own_model()?.compute_dtype;
    let dtype = match computed.as_str() {
        "bf16" => Some(DType::BF16),
        "f16" => Some(DType::F16),
        "f32" if args.dtype.is_none() => Some(DType::F32),
        _ => None,
    };
    let last = study.manifest().hooks.iter().map(|h| h.layer).max();
    let options = options(args, last.as_ref(), dtype);
    let model = unchecked_model_of(study, args.model.model.as_deref(), &options, out, ctx)?;
    let info = model.info();
    let adds = args.append || !study.manifest().complete;
    if adds && info.compute_dtype != *computed {
        out.note(&format!(
            "the rows of {} so far were computed in {computed}, those to come are in {}",
            study.dir().display(),
            info.compute_dtype
        ));
    }
    Ok(model)
}
