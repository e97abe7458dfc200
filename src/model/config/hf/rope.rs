//! Rotary embeddings of both generations of configs, merged as `transformers` 5 merges them.

use serde_json::{Map, Value};

use super::Reader;
use crate::error::Result;
use crate::model::config::{Rope, RopeScaling};

/// The rotary embedding of a family with one for all layers. A `rope_scaling` that is not
/// empty replaces `rope_parameters` entirely; what neither holds comes from the keys of the config
/// itself.
pub(in crate::model::config) fn single(
    r: &Reader<'_>,
    default_base: f64,
    context: usize,
) -> Result<Rope> {
    let params = &chosen(r)?;
    let base = r.number("rope_theta")?.unwrap_or(default_base);
    let rope = rope(r, params, base, &original(r, context)?)?;
    let share = number(r, params, "partial_rotary_factor")?.or(r.number("partial_rotary_factor")?);
    if let Some(share) = share.filter(|s| *s != 1.0) {
        return Err(r.unknown("partial_rotary_factor", &Value::from(share)));
    }
    Ok(rope)
}

/// GPT-NeoX's rotary embedding, and the share of a head that is rotated. The family has its own
/// names for these keys of the config.
pub(in crate::model::config) fn neox(r: &Reader<'_>, context: usize) -> Result<(Rope, f64)> {
    let params = &chosen(r)?;
    let base = r.number("rotary_emb_base")?.unwrap_or(10_000.0);
    let rope = rope(r, params, base, &original(r, context)?)?;
    let share = number(r, params, "partial_rotary_factor")?
        .or(r.number("rotary_pct")?)
        .unwrap_or(0.25);
    if !(0.0..=1.0).contains(&share) {
        return Err(r.error(format!("rotary_pct is {share}, not between 0 and 1")));
    }
    Ok((rope, share))
}

/// Gemma 3's rotary embeddings: that of full attention, which `rope_scaling` changes, and that of
/// sliding attention.
pub(in crate::model::config) fn gemma3(r: &Reader<'_>, context: usize) -> Result<[Rope; 2]> {
    let params = object(r, r.map, "rope_parameters")?;
    let mut parts = [Map::new(), Map::new()];
    for (part, kind) in parts
        .iter_mut()
        .zip(["full_attention", "sliding_attention"])
    {
        part.insert("rope_type".into(), "default".into());
        if let Some(own) = params.map(|p| object(r, p, kind)).transpose()?.flatten() {
            part.clone_from(own);
        }
    }
    if let Some((key, value)) =
        params.and_then(|p| p.iter().find(|(_, v)| !v.is_null() && !v.is_object()))
    {
        let problem = format!(
            "rope_parameters: {key} = {value} belongs below full_attention or sliding_attention"
        );
        return Err(r.error(problem));
    }
    if let Some(scaling) = object(r, r.map, "rope_scaling")? {
        parts[0].extend(scaling.clone());
    }
    // `transformers` reads YaRN's `truncate` from the outer object, where Gemma 3 has none.
    parts
        .iter_mut()
        .for_each(|part| drop(part.remove("truncate")));
    let bases = [
        r.number("rope_theta")?.unwrap_or(1_000_000.0),
        r.number("rope_local_base_freq")?.unwrap_or(10_000.0),
    ];
    let [full, sliding] = &parts;
    for part in &parts {
        if let Some(share) = number(r, part, "partial_rotary_factor")?.filter(|s| *s != 1.0) {
            return Err(r.unknown("partial_rotary_factor", &Value::from(share)));
        }
    }
    let original = Original {
        in_config: None,
        context,
    };
    Ok([
        rope(r, full, bases[0], &original)?,
        rope(r, sliding, bases[1], &original)?,
    ])
}

/// Where a config holds the context of the original training, besides the rope parameters.
struct Original {
    /// `original_max_position_embeddings` of the config itself, which overrides that of the parameters.
    in_config: Option<f64>,
    /// The model's context, which is the default.
    context: usize,
}

impl Original {
    fn of(&self, r: &Reader<'_>, params: &Map<String, Value>) -> Result<f64> {
        const KEY: &str = "original_max_position_embeddings";
        let found = self
            .in_config
            .or(number(r, params, KEY)?)
            .unwrap_or(self.context as f64);
        if found > 0.0 {
            Ok(found)
        } else {
            Err(r.error(format!("rope scaling: {KEY} is not positive")))
        }
    }
}

fn original(r: &Reader<'_>, context: usize) -> Result<Original> {
    Ok(Original {
        in_config: r.number("original_max_position_embeddings")?,
        context,
    })
}

/// `rope_scaling` where it is not empty, else `rope_parameters`; empty where there is neither.
fn chosen(r: &Reader<'_>) -> Result<Map<String, Value>> {
    let scaling = object(r, r.map, "rope_scaling")?.filter(|s| !s.is_empty());
    let params = object(r, r.map, "rope_parameters")?;
    let chosen = scaling.or(params).cloned().unwrap_or_default();
    match chosen.iter().find(|(_, v)| v.is_object()) {
        Some((key, value)) => Err(r.unknown(&format!("rope parameter {key}"), value)),
        None => Ok(chosen),
    }
}

fn object<'a>(
    r: &Reader<'_>,
    map: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a Map<String, Value>>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(found)) => Ok(Some(found)),
        Some(other) => Err(r.unknown(key, other)),
    }
}

fn number(r: &Reader<'_>, params: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    let Some(value) = params.get(key).filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    value
        .as_f64()
        .map(Some)
        .ok_or_else(|| r.error(format!("rope parameter {key} is {value}, not a number")))
}

/// The rotary embedding that `params` describe, of which only the keys of its type are read.
fn rope(
    r: &Reader<'_>,
    params: &Map<String, Value>,
    base: f64,
    original: &Original,
) -> Result<Rope> {
    let positive_number = |key: &str| {
        number(r, params, key)?
            .filter(|v| *v > 0.0)
            .ok_or_else(|| r.error(format!("rope scaling: {key} is missing or not positive")))
    };
    let base = number(r, params, "rope_theta")?.unwrap_or(base);
    if !(base > 0.0 && base.is_finite()) {
        return Err(r.error(format!("rope_theta is {base}: it must be positive")));
    }
    let kind = ["rope_type", "type"]
        .iter()
        .find_map(|key| params.get(*key).filter(|v| !v.is_null()));
    let kind = kind.unwrap_or(&Value::Null);
    let scaling = match kind.as_str() {
        None if kind.is_null() => RopeScaling::None,
        // NTK scaling begins beyond the context, which no text here exceeds.
        Some("default" | "dynamic") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear(positive_number("factor")?),
        Some("llama3") => {
            let (low, high) = (
                positive_number("low_freq_factor")?,
                positive_number("high_freq_factor")?,
            );
            RopeScaling::Llama3 {
                factor: positive_number("factor")?,
                low,
                high,
                original: original.of(r, params)?,
            }
        }
        Some("yarn") => yarn(r, params, original)?,
        _ => return Err(r.unknown("rope scaling", kind)),
    };
    Ok(Rope { base, scaling })
}

fn yarn(r: &Reader<'_>, params: &Map<String, Value>, original: &Original) -> Result<RopeScaling> {
    let read = |key: &str| number(r, params, key);
    let positive = |key: &str| read(key).map(|found| found.filter(|v| *v != 0.0));
    let context = original.context as f64;
    let original = original.of(r, params)?;
    let factor = match params.get("factor") {
        None => return Err(r.error("rope scaling: factor is missing")),
        Some(_) => read("factor")?.unwrap_or(context / original),
    };
    if factor <= 0.0 {
        return Err(r.error(format!(
            "rope scaling: factor is {factor}: it must be positive"
        )));
    }
    let scale = |m: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * m * factor.ln() + 1.0
        }
    };
    let usual = match (positive("mscale")?, positive("mscale_all_dim")?) {
        (Some(one), Some(all)) => scale(one) / scale(all),
        _ => scale(1.0),
    };
    let truncate = match params.get("truncate") {
        None => true,
        Some(value) => value
            .as_bool()
            .ok_or_else(|| r.unknown("rope parameter truncate", value))?,
    };
    Ok(RopeScaling::Yarn {
        factor,
        fast: positive("beta_fast")?.unwrap_or(32.0),
        slow: positive("beta_slow")?.unwrap_or(1.0),
        original,
        truncate,
        amplitude: read("attention_factor")?.unwrap_or(usual),
    })
}
