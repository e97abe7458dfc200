//! `mlpeek features`, `feature`: reading directions.

use serde_json::{Value, json};

use super::json::merged;
use super::{Output, open_study, unchecked_model_of};
use crate::analysis::{FeatureCard, FeatureRow, ScoredToken, contexts};
use crate::cli::{ComputeArgs, FeatureArgs, ListArgs};
use crate::directions::{DirectionSet, SetKind};
use crate::error::{Error, Result};
use crate::eval::judge::describe::direction_digest;
use crate::interop::json as cards;
use crate::jobs::directions::{self, Reference};
use crate::jobs::measured::{EffectRequest, Effects};
use crate::jobs::reading::{self, LIST_PROMOTED};
use crate::model::Model;
use crate::pieces::{VisibleSpan, visible_spans};
use crate::study::Study;
use crate::text;

/// Tokens that a card shows as raised and as lowered, each.
const CARD_MOVES: usize = 12;
/// Directions that a mix is shown as made of.
const RECIPE: usize = 8;

/// The tokens that a direction raises, and those that it lowers.
type Moves = (Vec<ScoredToken>, Vec<ScoredToken>);

/// A model for the logit lens, or why there is none.
pub(super) type LensModel = std::result::Result<Model, String>;

/// The study's model for the logit lens, or the reason why there is no lens, which the user is told
/// too: what was saved can be read without a model. One that is named must be the study's own, and
/// so must one that is found.
pub(super) fn lens_model(
    study: &mut Study,
    place: Option<&str>,
    compute: &ComputeArgs,
    out: &Output,
) -> Result<LensModel> {
    match unchecked_model_of(study, place, &compute.options(None), out, &out.task()) {
        Ok(model) => {
            study
                .adopt_model(model.info(), place.is_some())?
                .iter()
                .for_each(|words| out.note(words));
            Ok(Ok(model))
        }
        Err(e) if place.is_some() || matches!(e, Error::Cancelled) => Err(e),
        Err(e) => {
            out.note(&format!("no logit lens: {e}"));
            Ok(Err(e.to_string()))
        }
    }
}

pub(super) fn list(args: &ListArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let mut study = open_study(&args.study, out)?;
    let place = args.place.selection();
    place.check_effect(&study, &args.directions)?;
    let measured = args.directions.iter().any(SetKind::is_measured);
    // What cannot be listed is said before the first line.
    let open = |study: &Study, model: Option<&Model>| -> Result<Vec<Box<dyn DirectionSet>>> {
        let kinds = args.directions.iter();
        kinds
            .map(|kind| directions::open_with(study, kind, &place, model, &ctx))
            .collect()
    };
    let opened = if measured {
        None
    } else {
        Some(open(&study, None)?)
    };
    let model = lens_model(
        &mut study,
        args.model.model.as_deref(),
        &args.model.compute,
        out,
    )?;
    let sets = match opened {
        Some(sets) => sets,
        None => open(&study, model.as_ref().ok())?,
    };
    let tokens = study.tokens()?;
    let set_title = |set: &dyn DirectionSet| format!("{} at {}", set.name(), set.hook());
    // Of one set its name stands above the list, of several in each line.
    let names = sets
        .iter()
        .map(|set| set_title(set.as_ref()).chars().count())
        .max()
        .filter(|_| sets.len() > 1);
    if !out.is_json() {
        head(&sets, names, out)?;
    }
    for set in &sets {
        let (set, hook) = (set.as_ref(), set.hook());
        let factors = set.factors_on(study.activations(hook)?.as_ref(), &ctx)?;
        let mut rows = contexts::feature_rows(&factors, &tokens, &directions::names(&study, set)?);
        if let Ok(model) = &model {
            let all = 0..factors.features.columns();
            let promoted = reading::promoted(model, hook, &factors, all)?;
            for (row, promoted) in rows.iter_mut().zip(promoted) {
                row.promoted = promoted;
            }
        }
        let effects = Effects::stored(&study, set, &EffectRequest::default())?;
        let does = |id: usize| {
            let model = model.as_ref().ok()?;
            Some(
                effects
                    .as_ref()?
                    .moves(id, LIST_PROMOTED, model.tokenizer()),
            )
        };
        if out.is_json() {
            rows.iter().try_for_each(|row| {
                let about = cards::feature_row(row, set.name(), Some(hook));
                let more = moves_json(does(row.id), set.recipe(row.id));
                out.object(&merged([about, more]))
            })?;
            continue;
        }
        rows.sort_by(|a, b| b.share.total_cmp(&a.share));
        let whose = names.map_or(String::new(), |width| {
            format!("{:<width$} ", set_title(set))
        });
        rows.iter().try_for_each(|row| {
            let line = format!("{whose}{}", list_line(row));
            out.line(&match does(row.id) {
                Some(moves) => format!("{line}  moves {}", moves_words(&moves)),
                None => line,
            })
        })?;
    }
    Ok(())
}

fn head(sets: &[Box<dyn DirectionSet>], names: Option<usize>, out: &mut Output) -> Result<()> {
    let mut whose = String::new();
    match (names, sets) {
        (Some(width), _) => {
            out.line("several sets; a share is of all that its own set expresses")?;
            whose = format!("{:<width$} ", "directions");
        }
        (None, [set, ..]) => out.line(&format!("{} at {}", set.name(), set.hook()))?,
        (None, []) => {}
    }
    out.line(&format!(
        "{whose}{:>5} {:>7} {:>7} {:>7}  {:<34} {:<34} purity",
        "id", "share", "density", "neurons", "top tokens", "promoted"
    ))
}

fn list_line(row: &FeatureRow) -> String {
    let purity = row.purity.as_ref().map_or(String::new(), |p| {
        format!(
            "{:.0} % {} (of all {:.0} %)",
            p.share * 100.0,
            p.label,
            p.base * 100.0
        )
    });
    let name = row
        .name
        .as_ref()
        .map_or(String::new(), |n| format!("  “{n}”"));
    let promoted: Vec<&str> = row.promoted.iter().map(|t| t.token.as_str()).collect();
    format!(
        "{:>5} {:>6.2}% {:>6.1}% {:>7}  {:<34} {:<34} {purity}{name}",
        row.id,
        row.share * 100.0,
        row.density * 100.0,
        row.neurons,
        text::truncate(&words(&row.top_tokens), 34),
        text::truncate(&words(&promoted), 34),
    )
}

pub(super) fn words<T: AsRef<str>>(tokens: &[T]) -> String {
    tokens
        .iter()
        .map(|t| text::clean(t.as_ref().trim()))
        .collect::<Vec<_>>()
        .join(" ")
}

pub(super) fn one(args: &FeatureArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let mut study = open_study(&args.study, out)?;
    let wanted = Reference::parse(&args.id)?;
    if wanted.weight != 1.0 {
        return Err(Error::usage(format!(
            "a direction is shown without a weight: leave out :{}",
            wanted.weight
        )));
    }
    let place = args.place.selection();
    place.check_effect(&study, [&wanted.kind])?;
    wanted.check_label(&study)?;
    let open =
        |study: &Study, model| directions::open_with(study, &wanted.kind, &place, model, &ctx);
    let opened = match wanted.kind.is_measured() {
        true => None,
        false => Some(open(&study, None)?),
    };
    let early = match opened {
        None => Some(lens_model(
            &mut study,
            args.model.model.as_deref(),
            &args.model.compute,
            out,
        )?),
        Some(_) => None,
    };
    let set = match opened {
        Some(set) => set,
        None => open(&study, early.as_ref().and_then(|m| m.as_ref().ok()))?,
    };
    let (id, hook, tokens) = (set.find(&wanted.id)?, set.hook(), study.tokens()?);
    let factors = set.factors_on(study.activations(hook)?.as_ref(), &ctx)?;
    let mut card = contexts::feature_card(
        &factors,
        &tokens,
        &directions::names(&study, set.as_ref())?,
        id,
    )?;
    let model = match early {
        Some(model) => model,
        None => lens_model(
            &mut study,
            args.model.model.as_deref(),
            &args.model.compute,
            out,
        )?,
    };
    reading::add_lens(
        &mut card,
        hook,
        &factors,
        model.as_ref().map_err(Clone::clone),
    );
    let digest = direction_digest(&set.directions().column(id));
    let described = study
        .descriptions(set.name(), [(id, digest.as_str())])?
        .remove(&id);
    let effects = Effects::stored(&study, set.as_ref(), &EffectRequest::default())?;
    let does = effects
        .zip(model.as_ref().ok())
        .map(|(effects, model)| effects.moves(id, CARD_MOVES, model.tokenizer()));
    if !out.is_json() {
        out.line(&format!("{} at {hook}", set.name()))?;
        show_card(&card, out)?;
        if let Some((raised, lowered)) = &does {
            out.line(&format!("raises      {}", column(raised)))?;
            out.line(&format!("lowers      {}", column(lowered)))?;
        }
        if let Some(words) = recipe_words(set.recipe(id)) {
            out.line(&format!("mixed of    {words}"))?;
        }
        let Some(description) = described else {
            return Ok(());
        };
        let lines = [
            ("fires on", &description.input),
            ("promotes", &description.output),
        ];
        return lines.into_iter().try_for_each(|(what, text)| match text {
            Some(text) => out.line(&format!(
                "{what:<11} {} (said {}{})",
                text::clean(text),
                text::clean(&description.judge),
                match description.direction {
                    Some(_) => "",
                    None => "; stored by an earlier version, perhaps of another direction: describe it again",
                }
            )),
            None => Ok(()),
        });
    }
    let about = cards::feature_card(&card, set.name(), Some(hook), described.as_ref());
    out.object(&merged([about, moves_json(does, set.recipe(id))]))
}

/// The tokens that a direction raises and lowers when it steers; null where that was not measured.
fn moves_json(moves: Option<Moves>, recipe: &[(usize, f32)]) -> Value {
    let (raised, lowered) = moves.unzip();
    json!({"raised": raised, "lowered": lowered, "recipe": recipe_json(recipe)})
}

fn moves_words((raised, lowered): &Moves) -> String {
    let names = |tokens: &[ScoredToken]| {
        let names: Vec<&str> = tokens.iter().map(|t| t.token.as_str()).collect();
        words(&names)
    };
    format!("+ {} − {}", names(raised), names(lowered))
}

/// What a mix is made of, as JSON: none for what is no mix.
pub(super) fn recipe_json(recipe: &[(usize, f32)]) -> Value {
    let part = |&(feature, weight): &(usize, f32)| json!({"feature": feature, "weight": weight});
    recipe.iter().map(part).collect()
}

/// The heaviest parts of a mix: "17 +0.52, 3 −0.21 and 98 lighter ones".
pub(super) fn recipe_words(recipe: &[(usize, f32)]) -> Option<String> {
    let part = |(feature, weight): &(usize, f32)| format!("{feature} {weight:+.2}");
    let shown: Vec<String> = recipe.iter().take(RECIPE).map(part).collect();
    let more = match recipe.len().saturating_sub(RECIPE) {
        0 => String::new(),
        count => format!(" and {count} lighter ones"),
    };
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

fn column(tokens: &[ScoredToken]) -> String {
    tokens
        .iter()
        .take(12)
        .map(|t| format!("{} {:.2}", text::clean(t.token.trim()), t.value))
        .collect::<Vec<_>>()
        .join("  ")
}

fn show_card(card: &FeatureCard, out: &mut Output) -> Result<()> {
    out.line(&list_line(&card.row))?;
    out.line("")?;
    out.line("contexts (the token in brackets is the peak)")?;
    for c in &card.contexts {
        let shown = |seen: VisibleSpan| {
            let text = text::clean(&seen.text);
            if seen.shows(c.peak) {
                format!("[{text}]")
            } else {
                text
            }
        };
        let text: String = visible_spans(&c.tokens).into_iter().map(shown).collect();
        let ends = c.cut.map(|cut| if cut { "…" } else { "" });
        out.line(&format!(
            "  {:>8.2}  {:<14} {}{text}{}",
            c.values[c.peak],
            text::truncate(&text::clean(c.label.as_deref().unwrap_or("")), 14),
            ends[0],
            ends[1]
        ))?;
    }
    out.line("")?;
    out.line(&format!("promotes    {}", column(&card.promoted)))?;
    out.line(&format!("suppresses  {}", column(&card.suppressed)))?;
    let neurons = card
        .neurons
        .iter()
        .take(12)
        .map(|n| format!("{} {:+.2}", n.index, n.weight))
        .collect::<Vec<_>>()
        .join("  ");
    out.line(&format!("neurons     {neurons}"))?;
    let related = card
        .related
        .iter()
        .take(8)
        .map(|r| format!("{} ({:.2})", r.id, r.overlap))
        .collect::<Vec<_>>()
        .join("  ");
    out.line(&format!("related     {related}"))
}
