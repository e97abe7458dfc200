//! `mlpeek import`.

use serde_json::json;

use super::Output;
use crate::cli::ImportArgs;
use crate::error::{Error, Result};
use crate::interop::{npy, tensors};
use crate::model::{HookPoint, HookSite};
use crate::study::Study;
use crate::task::Progress;

pub(super) fn import(args: &ImportArgs, out: &mut Output) -> Result<()> {
    if let (Some(tensor), true) = (
        &args.tensor,
        args.file.extension().is_some_and(|e| e == "npy"),
    ) {
        let file = args.file.display();
        return Err(Error::usage(format!(
            "--tensor {tensor} has no effect on {file}: a .npy file holds one matrix"
        )));
    }
    Study::check_can_create(&args.out)?;
    let mut matrix = match args.file.extension().and_then(|e| e.to_str()) {
        Some("npy") => npy::open(&args.file)?,
        Some("safetensors") => tensors::open_matrix(&args.file, args.tensor.as_deref())?,
        _ => {
            return Err(Error::usage(format!(
                "{}: only .npy and .safetensors can be imported (texts are for mlpeek collect --data)",
                args.file.display()
            )));
        }
    };
    let hook = HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    };
    let (ctx, (rows, cols)) = (out.task(), matrix.shape());
    let name = args.file.display().to_string();
    let mut pass = 0;
    let mut blocks = |take: &mut dyn FnMut(&[f32]) -> Result<()>| {
        pass += 1;
        let stage = if pass == 1 { "checking" } else { "importing" };
        let mut done = 0;
        matrix.each_block(&mut |block| {
            take(block)?;
            done += block.len() / cols;
            ctx.checkpoint(Progress::new(stage, done as u64, rows as u64, "rows"))
        })
    };
    let study = Study::import_blocks(&args.out, &name, hook, (rows, cols), &mut blocks)?;
    if out.is_json() {
        out.object(
            &json!({"event": "imported", "row_count": rows, "width": cols, "study": study.dir()}),
        )
    } else {
        out.line(&format!("{}: {rows} rows of {cols}", study.dir().display()))
    }
}
