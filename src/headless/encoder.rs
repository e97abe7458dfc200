//! The sentence encoder of a command, told of.

use super::Output;
use crate::error::Result;
use crate::model::encoder::SentenceEncoder;
use crate::model::source::resolve_encoder;
use crate::task::TaskCtx;

/// Finds, fetches where needed, and reads a sentence encoder; says where it is from.
pub(super) fn open(spec: Option<&str>, out: &Output, ctx: &TaskCtx) -> Result<SentenceEncoder> {
    let files = resolve_encoder(spec, ctx)?;
    let encoder = SentenceEncoder::open(&files)?;
    out.note(&format!(
        "sentence encoder {} from {} (sha256 {}), on the CPU in f32",
        encoder.name(),
        encoder.origin(),
        files.sha256.get(..12).unwrap_or(&files.sha256)
    ));
    Ok(encoder)
}
