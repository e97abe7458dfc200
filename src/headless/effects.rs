//! `mlpeek effects`: what directions do.

use serde_json::json;

use super::features::{recipe_json, recipe_words, words};
use super::{Output, model_of, open_study};
use crate::analysis::ScoredToken;
use crate::cli::EffectsArgs;
use crate::directions::DirectionSet;
use crate::error::{Error, Result};
use crate::jobs::directions;
use crate::jobs::measured::Effects;
use crate::study::Study;
use crate::text;

/// Tokens that a line shows as raised and as lowered, each; JSON has more.
const SHOWN: usize = 8;
const LISTED: usize = 25;

pub(super) fn run(args: &EffectsArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let (ask, place) = (args.ask.request(), args.place.selection());
    let mut study = open_study(&args.study, out)?;
    // What has no effect is said before the weights are read.
    place.check_effect(&study, &args.directions)?;
    let twice = |i: &usize| args.directions[..*i].contains(&args.directions[*i]);
    if let Some(i) = (0..args.directions.len()).find(twice) {
        return Err(Error::usage(format!(
            "--directions {} is named twice: leave one out",
            args.directions[i]
        )));
    }
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    // Locked only now: what is refused writes nothing.
    let study = Study::open(&args.study)?;
    for kind in &args.directions {
        let set = directions::open_with(&study, kind, &place, Some(&model), &ctx)?;
        let set: &dyn DirectionSet = set.as_ref();
        let effects = Effects::of(&study, set, &ask, Some(&model), &ctx)?;
        if !out.is_json() {
            let (name, hook, kl) = (set.name(), set.hook(), ask.kl);
            let prompts = ask.prompts.join(" | ");
            out.line(&format!(
                "{name} at {hook}, each at a KL of about {kl} after: {prompts}"
            ))?;
        }
        for id in 0..effects.count() {
            let (raised, lowered) = effects.moves(id, LISTED, model.tokenizer());
            let reached = effects.reached(id);
            if out.is_json() {
                out.object(&json!({
                    "set": set.name(), "hook": set.hook().to_string(), "feature": id, "title": set.title(id),
                    "alpha": reached.then(|| effects.alpha(id)), "kl": reached.then(|| effects.kl(id)),
                    "raised": reached.then_some(raised), "lowered": reached.then_some(lowered),
                    "recipe": recipe_json(set.recipe(id)),
                }))?;
                continue;
            }
            let title = set
                .title(id)
                .map_or(String::new(), |t| format!("{}  ", text::clean(t)));
            if !reached {
                out.line(&format!("{id:>5}  {title}does not come near that KL"))?;
                continue;
            }
            let names = |tokens: &[ScoredToken]| {
                let names: Vec<&str> = tokens
                    .iter()
                    .take(SHOWN)
                    .map(|t| t.token.as_str())
                    .collect();
                words(&names)
            };
            out.line(&format!(
                "{id:>5}  {title}α {:.2}  raises {}  lowers {}",
                effects.alpha(id),
                names(&raised),
                names(&lowered)
            ))?;
            if let Some(words) = recipe_words(set.recipe(id)) {
                out.line(&format!("       mixed of {words}"))?;
            }
        }
    }
    Ok(())
}
