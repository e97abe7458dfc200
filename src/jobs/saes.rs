//! Sparse autoencoders in a study: where a published one belongs, and what one is called.

use crate::directions::reconstruction::{ReconstructionMetrics, reconstruction_metrics};
use crate::directions::sae::train::TrainConfig;
use crate::disk;
use crate::error::{Error, Result};
use crate::interop::sae::Published;
use crate::model::{HookPoint, HookSite, ModelInfo};
use crate::study::{SaeEntry, Study};
use crate::task::TaskCtx;

/// What a user says of an autoencoder, beside what its files say.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaeOverrides {
    /// The layer that it reads.
    pub layer: Option<usize>,
    /// The site of the layer that it reads.
    pub site: Option<HookSite>,
    /// Whatever model and hook the files name.
    pub force: bool,
}

/// The hook of the study that an autoencoder reads, with remarks.
///
/// # Errors
/// Another model, hook or width than the study's: each says what to do.
pub fn place(
    study: &Study,
    found: &Published,
    overrides: SaeOverrides,
) -> Result<(HookPoint, Vec<String>)> {
    let manifest = study.manifest();
    let mut notes = found.notes.clone();
    if let (Some(theirs), Some(ours), false) = (&found.model, &manifest.model, overrides.force) {
        match same_model(theirs, &ours.id) {
            Likeness::Same => {}
            Likeness::Variant => notes.push(format!(
                "the SAE was trained on {theirs}, and the study is of {}",
                ours.id
            )),
            Likeness::Other => {
                return Err(Error::refused(format!(
                    "the SAE was trained on {theirs}, and the study is of {}: pass --force if they are the same",
                    ours.id
                )));
            }
        }
    }
    let theirs = found.hook.as_deref().map(hook_of).transpose();
    let theirs = if overrides.force {
        theirs.ok().flatten()
    } else {
        theirs?
    };
    let hook = chosen(study, theirs, found.hook.as_deref(), overrides, &mut notes)?;
    let width = manifest.widths[manifest
        .hook_index(hook)
        .map_err(|_| elsewhere(study, hook))?];
    if width != found.sae.width {
        return Err(Error::refused(format!(
            "the SAE reads rows of {} values, and {hook} of this study has {width}: it belongs to another model or hook",
            found.sae.width
        )));
    }
    caveats(found, hook, manifest.model.as_ref(), &mut notes)?;
    Ok((hook, notes))
}

fn chosen(
    study: &Study,
    theirs: Option<HookPoint>,
    name: Option<&str>,
    overrides: SaeOverrides,
    notes: &mut Vec<String>,
) -> Result<HookPoint> {
    let fits = |h: &HookPoint| {
        overrides.layer.is_none_or(|l| h.layer == l) && overrides.site.is_none_or(|s| h.site == s)
    };
    if let (Some(theirs), false) = (theirs, overrides.force) {
        return if fits(&theirs) {
            Ok(theirs)
        } else {
            let name = name.unwrap_or_default();
            Err(Error::usage(format!(
                "the SAE says that it reads {name}: leave out --layer and --hook, or pass --force"
            )))
        };
    }
    let hooks: Vec<HookPoint> = study
        .manifest()
        .hooks
        .iter()
        .copied()
        .filter(fits)
        .collect();
    match hooks[..] {
        [one] => {
            if overrides.layer.is_none() || overrides.site.is_none() {
                notes.push(format!("{}: taken to be {one}", says(name)));
            }
            Ok(one)
        }
        [] => Err(Error::usage(format!(
            "this study has no such hook; it has {}",
            listed(study)
        ))),
        _ => Err(Error::usage(format!(
            "{}, and the study has {}: pass --layer and --hook",
            says(name),
            listed(study)
        ))),
    }
}

/// What the files say of what the SAE reads.
fn says(name: Option<&str>) -> String {
    name.map_or_else(
        || "the SAE's files do not say what it reads".to_owned(),
        |name| {
            format!(
                "the SAE's files say that it reads '{}'",
                name.escape_debug()
            )
        },
    )
}

fn listed(study: &Study) -> String {
    study
        .manifest()
        .hooks
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn elsewhere(study: &Study, hook: HookPoint) -> Error {
    Error::refused(format!(
        "the SAE reads {hook}, and this study holds {}: collect that hook into a study of its own (mlpeek collect --layer {} \
         --hook {})",
        listed(study),
        hook.layer,
        hook.site
    ))
}

/// A TransformerLens name as a hook: the residual stream before a block is the one after the block
/// before.
fn hook_of(name: &str) -> Result<HookPoint> {
    let parsed = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'));
    let parsed = parsed.and_then(|(layer, site)| Some((layer.parse::<usize>().ok()?, site)));
    match parsed {
        Some((layer, "hook_resid_pre")) if layer > 0 => Ok(HookPoint {
            layer: layer - 1,
            site: HookSite::ResidPost,
        }),
        Some((layer, site)) if site.parse::<HookSite>().is_ok() => Ok(HookPoint {
            layer,
            site: site.parse()?,
        }),
        _ => Err(Error::refused(format!(
            "the SAE reads '{}', which mlpeek has no hook for: mlp.hook_post, hook_mlp_out and hook_resid_post can be \
             collected",
            name.escape_debug()
        ))),
    }
}

fn caveats(
    found: &Published,
    hook: HookPoint,
    model: Option<&ModelInfo>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(model) = model else { return Ok(()) };
    if found.format == "sparsify" && hook.site == HookSite::MlpOut && model.norms_mlp_output() {
        return Err(Error::refused(
            "sparsify reads the MLP's output before the norm that follows it in this model, and hook_mlp_out is after \
             it: such an SAE cannot be read here",
        ));
    }
    if found.format == "SAELens" && hook.site != HookSite::MlpPost && model.has_layer_norm() {
        notes.push(
            "the weights of a model with LayerNorm are centred by TransformerLens, so that its residual stream has mean \
             0: an SAE that was trained so gives poor figures on the model's own weights"
                .to_owned(),
        );
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Likeness {
    Same,
    /// One name goes on where the other ends: "gemma-2-2b" and "gemma-2-2b-it".
    Variant,
    Other,
}

/// Compares what two names say of a model, owner, punctuation and file endings aside.
fn same_model(theirs: &str, ours: &str) -> Likeness {
    let plain = |name: &str| -> String {
        let name = name.split('@').next().unwrap_or(name).trim_end_matches('/');
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let name = name.strip_suffix(".gguf").unwrap_or(&name);
        name.chars().filter(char::is_ascii_alphanumeric).collect()
    };
    let (a, b) = (plain(theirs), plain(ours));
    match () {
        () if a == b => Likeness::Same,
        () if !a.is_empty() && !b.is_empty() && (a.starts_with(&b) || b.starts_with(&a)) => {
            Likeness::Variant
        }
        () => Likeness::Other,
    }
}

/// A name that a study can hold for an autoencoder found at `from`.
pub fn name_for(from: &str) -> String {
    let parts: Vec<&str> = from.trim_end_matches('/').rsplit('/').take(3).collect();
    let joined = parts
        .into_iter()
        .rev()
        .filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let plain: String = joined
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-+".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let plain: String = plain
        .trim_start_matches(['.', '-'])
        .chars()
        .take(80)
        .collect();
    if plain.is_empty() {
        "sae".to_owned()
    } else {
        plain
    }
}

/// Refuses a name under which there is something to lose: weights, or the checkpoint of a stopped
/// training.
///
/// # Errors
/// [`Error::Usage`] with what is there and what to do.
pub fn check_free(study: &Study, name: &str) -> Result<()> {
    let checkpoint = study.sae_checkpoint(name)?.exists();
    let Some(existing) = study.saes()?.into_iter().find(|s| s.name == name) else {
        return Ok(());
    };
    let (format, latents) = (&existing.format, existing.latents);
    Err(Error::usage(match (existing.figures, checkpoint) {
        (_, true) => format!(
            "SAE '{name}' has a checkpoint of a training that was stopped: go on with mlpeek sae train --resume, begin anew \
             with --fresh, or give another --name"
        ),
        (_, false) => format!(
            "the study has an SAE '{name}' already ({format}, {latents} latents): give another --name, or replace it with \
             --fresh"
        ),
    }))
}

/// What to know of an autoencoder that gives rows back worse than their mean does.
pub fn misfit(name: &str, figures: &ReconstructionMetrics) -> Option<String> {
    let fvu = figures.fvu.filter(|&fvu| fvu > 1.0)?;
    Some(format!(
        "SAE '{name}' gives the study's rows back worse than their mean would (FVU {fvu:.2}): it was probably trained on another \
         model or hook, or on rows of another scale, and what it says of this one means little"
    ))
}

/// Refuses a training that memory does not hold.
pub(crate) fn check_memory(
    config: &TrainConfig,
    (n, d): (usize, usize),
    free: Option<u64>,
) -> Result<()> {
    let (need, free) = (config.memory_bytes(n, d), free.unwrap_or(u64::MAX));
    if need <= free {
        return Ok(());
    }
    let bytes = disk::human_bytes;
    let memory_of = |latents: usize| {
        TrainConfig {
            latents,
            ..config.clone()
        }
        .memory_bytes(n, d)
    };
    let (none, one) = (memory_of(0), memory_of(1) - memory_of(0));
    let most = free.saturating_sub(none) / one.max(1);
    let fits = match most {
        0 => format!(
            "ask for a smaller --batch than {}, or free memory",
            config.batch
        ),
        most => format!("at most {most} latents would fit"),
    };
    Err(Error::refused(format!(
        "training {} latents on rows of {d} values takes {} of memory, and {} is free: {fits}",
        config.latents,
        bytes(need),
        bytes(free)
    )))
}

/// Registers a published autoencoder in a study, with its figures on the study's rows.
///
/// # Errors
/// Activations that cannot be read, a study that cannot be written, [`Error::Cancelled`].
pub fn register(
    study: &Study,
    name: &str,
    hook: HookPoint,
    found: &Published,
    from: &str,
    ctx: &TaskCtx,
) -> Result<SaeEntry> {
    let figures = reconstruction_metrics(study.activations(hook)?.as_ref(), &found.sae, ctx)?;
    let entry = SaeEntry {
        name: name.to_owned(),
        hook,
        source: from.to_owned(),
        format: found.format.to_owned(),
        architecture: found.sae.gate.name().to_owned(),
        latents: found.sae.latents(),
        figures: Some(figures),
        trained: None,
        resumable: false,
    };
    study.save_sae(&entry, &found.sae)?;
    Ok(entry)
}

/// The name that an autoencoder trained here gets when the user gives none: `topk2048`, or
/// `topk2048-2` … when that name holds another.
///
/// # Errors
/// Autoencoders of the study that cannot be read.
pub fn default_name(study: &Study, hook: HookPoint, config: &TrainConfig) -> Result<String> {
    let existing = study.saes()?;
    let layer = if study.manifest().hooks.len() > 1 {
        format!("l{}-", hook.layer)
    } else {
        String::new()
    };
    let base = format!("{layer}topk{}", config.latents);
    let free = |name: &String| {
        let taken = existing.iter().find(|s| s.name == *name);
        taken.is_none_or(|sae| sae.hook == hook && sae.trained.as_ref() == Some(config))
    };
    let mut names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
    Ok(names.find(free).unwrap_or(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_model_are_alike() {
        let same = |a, b| same_model(a, b);
        assert_eq!(
            same("google/gemma-2-2b", "google/gemma-2-2b@main"),
            Likeness::Same
        );
        assert_eq!(
            same("gpt2-small", "openai-community/gpt2"),
            Likeness::Variant
        );
        assert_eq!(
            same(
                "HuggingFaceTB/SmolLM2-135M",
                "/m/SmolLM2-135M-Instruct.Q4_1.gguf"
            ),
            Likeness::Variant
        );
        assert_eq!(
            same("meta-llama/Llama-3.1-8B", "google/gemma-2-2b"),
            Likeness::Other
        );
        assert_eq!(same("", "gemma"), Likeness::Other);
    }

    #[test]
    fn hooks_are_read_by_their_transformerlens_names() {
        let point = |layer, site| HookPoint { layer, site };
        assert_eq!(
            hook_of("blocks.3.mlp.hook_post").unwrap(),
            point(3, HookSite::MlpPost)
        );
        assert_eq!(
            hook_of("blocks.3.hook_resid_pre").unwrap(),
            point(2, HookSite::ResidPost)
        );
        for bad in [
            "blocks.0.hook_resid_pre",
            "blocks.1.attn.hook_z",
            "hook_embed",
            "blocks.x.mlp.hook_post",
            "\u{1b}",
        ] {
            let message = hook_of(bad).unwrap_err().to_string();
            assert!(
                message.contains("no hook for") && !message.contains('\u{1b}'),
                "{message}"
            );
        }
    }

    #[test]
    fn a_training_that_memory_does_not_hold_is_refused_with_what_would_fit() {
        let config = TrainConfig {
            latents: 16_384,
            ..TrainConfig::default()
        };
        let shape = (100_000, 1536);
        assert!(check_memory(&config, shape, None).is_ok());
        let message = check_memory(&config, shape, Some(700 << 20))
            .unwrap_err()
            .to_string();
        let most: usize = message
            .split_once("at most ")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            most > 100 && message.contains("16384 latents") && message.contains("700"),
            "{message}"
        );
        for (latents, fits) in [(most, true), (most + 1, false)] {
            let config = TrainConfig {
                latents,
                ..config.clone()
            };
            assert_eq!(
                check_memory(&config, shape, Some(700 << 20)).is_ok(),
                fits,
                "{latents}"
            );
        }
        assert!(
            check_memory(&config, shape, Some(1 << 20))
                .unwrap_err()
                .to_string()
                .contains("smaller --batch")
        );
    }

    #[test]
    fn names_can_be_directories() {
        assert_eq!(
            name_for("google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"),
            "layer_12-width_16k-average_l0_82"
        );
        assert_eq!(name_for("../my sae/"), "my-sae");
        assert_eq!(name_for("/"), "sae");
    }
}
