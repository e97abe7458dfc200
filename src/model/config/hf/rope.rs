//! Rotary embeddings of both generations of configs.

use serde_json::{Map, Value};

use super::Reader;
use crate::error::Result;
use crate::model::config::{Rope, RopeScaling};

/// A rotary embedding from `rope_parameters` (one kind of layer) or `rope_scaling`.
fn rope(r: &Reader<'_>, params: Option<&Map<String, Value>>, base: f64) -> Result<(Rope, Option<f64>)> {
    let Some(params) = params else { return Ok((Rope::new(base), None)) };
    const KNOWN: &[&str] = &[
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    ];
    if let Some((key, value)) = params.iter().find(|(k, v)| !v.is_null() && !KNOWN.contains(&k.as_str())) {
        return Err(r.wrong(format!("rope parameter {key} = {value} is a switch that mlpeek does not know")));
    }
    let number = |key: &str| params.get(key).and_then(Value::as_f64);
    let need = |key: &str| {
        number(key)
            .filter(|v| *v > 0.0)
            .ok_or_else(|| r.wrong(format!("rope scaling: {key} is missing or not positive")))
    };
    let base = number("rope_theta").unwrap_or(base);
    let kind = params.get("rope_type").or_else(|| params.get("type")).and_then(Value::as_str).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear(need("factor")?),
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: need("original_max_position_embeddings")?,
        },
        other => return Err(r.wrong(format!("rope scaling '{other}' is a switch that mlpeek does not know"))),
    };
    Ok((Rope { base, scaling }, number("partial_rotary_factor")))
}

/// The rotary embeddings (of full layers, of sliding layers) and the share of a head that is rotated.
pub(super) fn ropes(r: &Reader<'_>, base: f64, local_base: Option<f64>) -> Result<(Vec<Rope>, Option<f64>)> {
    let base = r.number("rope_theta")?.unwrap_or(base);
    let scaling = r.get("rope_scaling").and_then(Value::as_object);
    let Some(params) = r.get("rope_parameters").and_then(Value::as_object) else {
        let (full, share) = rope(r, scaling, base)?;
        let mut out = vec![full];
        if let Some(local) = local_base {
            out.push(Rope::new(local));
        }
        return Ok((out, share));
    };
    if !params.contains_key("full_attention") {
        let (full, share) = rope(r, Some(params), base)?;
        let mut out = vec![full];
        if let Some(local) = local_base {
            out.push(Rope::new(local));
        }
        return Ok((out, share));
    }
    let (full, share) = rope(r, params.get("full_attention").and_then(Value::as_object), base)?;
    let sliding = params.get("sliding_attention").and_then(Value::as_object);
    let (local, _) = rope(r, sliding, local_base.unwrap_or(base))?;
    Ok((vec![full, local], share))
}
