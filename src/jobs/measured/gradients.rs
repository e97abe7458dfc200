//! What makes sentences likelier: the gradient of each one's mean log-likelihood, kept in the study,
//! and the label's part of it.

use std::collections::VecDeque;
use std::ops::Range;

use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{Choosing, need, of_model};
use crate::corpus::TokenTable;
use crate::error::Result;
use crate::model::{HookPoint, Model, Portion};
use crate::study::{Measured, Study};
use crate::task::{Progress, TaskCtx};

/// Sentences of a label whose gradients are taken: the first ones.
const SENTENCES: usize = 32;
/// Bytes of the digest of a text that a record begins with.
const DIGEST: usize = 8;

/// For each label the direction that makes its sentences likelier than sentences are made on
/// average, at unit length; zeros for a label without sentences.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelGradients {
    /// In the residual stream after the hook's layer.
    pub residual: Vec<Vec<f64>>,
    /// In the hook's own space: by how much each of its values pushes along that direction.
    pub by_hook: Vec<Vec<f32>>,
}

impl LabelGradients {
    /// The mean over a label's choosing sentences, minus the mean of that over the labels. What the
    /// study lacks is asked of the model, and kept.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] without a model where it has to be asked, and for what memory does
    /// not hold; what the model returns; [`crate::Error::Cancelled`].
    pub fn of(
        study: &Study,
        hook: HookPoint,
        choosing: &Choosing,
        model: Option<&Model>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let (about, d_model, _) = of_model(study)?;
        let at = study.manifest().hook_index(hook)?;
        let width = study.manifest().widths[at];
        let about = json!({"gradients": hook.to_string(), "of": about});
        let mut kept = study.measured("gradients", &about, DIGEST + 4 * (d_model + width))?;
        let wanted = wanted(choosing);
        let tokens = study.tokens()?;
        let missing: Vec<u32> = wanted
            .iter()
            .flatten()
            .copied()
            .filter(|&sample| of_text(&kept, &tokens, sample).is_none())
            .collect();
        if !missing.is_empty() {
            let typed = format!("textgrad@{}.{}", hook.layer, hook.site);
            let model = need(model, study, &typed)?;
            measure(study, model, hook, &tokens, missing, &mut kept, ctx)?;
        }
        let mean = |samples: &Vec<u32>| {
            let mut sum = vec![0.0f64; d_model + width];
            let records = samples.iter();
            let records = records.filter_map(|&sample| of_text(&kept, &tokens, sample));
            let mut count = 0;
            for record in records {
                let values = record.chunks_exact(4);
                let values = values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(s, v)| *s += f64::from(v));
                count += 1;
            }
            sum.iter_mut().for_each(|s| *s /= f64::from(count.max(1)));
            (count > 0).then_some(sum)
        };
        let means: Vec<Option<Vec<f64>>> = wanted.iter().map(mean).collect();
        Ok(Self::apart(&means, d_model, width))
    }

    /// Takes what the labels share away, and scales to unit length in the residual stream.
    fn apart(means: &[Option<Vec<f64>>], d_model: usize, width: usize) -> Self {
        let count = means.iter().flatten().count().max(1) as f64;
        let mut shared = vec![0.0; d_model + width];
        for mean in means.iter().flatten() {
            shared
                .iter_mut()
                .zip(mean)
                .for_each(|(s, v)| *s += v / count);
        }
        let own = |mean: &Option<Vec<f64>>| {
            let Some(mean) = mean else {
                return (vec![0.0; d_model], vec![0.0; width]);
            };
            let own: Vec<f64> = mean.iter().zip(&shared).map(|(m, s)| m - s).collect();
            let norm = own[..d_model].iter().map(|v| v * v).sum::<f64>().sqrt();
            let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            let residual = own[..d_model].iter().map(|v| v * scale).collect();
            let by_hook = own[d_model..].iter().map(|v| (v * scale) as f32).collect();
            (residual, by_hook)
        };
        let (residual, by_hook) = means.iter().map(own).unzip();
        Self { residual, by_hook }
    }

    /// The width of the hook.
    pub fn hook_width(&self) -> usize {
        self.by_hook.first().map_or(0, Vec::len)
    }
}

/// The gradient of a sample, unless it is that of another text: a corpus may be withdrawn, and its
/// samples' numbers be given anew.
fn of_text<'a>(kept: &'a Measured, tokens: &TokenTable, sample: u32) -> Option<&'a [u8]> {
    let (digest, values) = kept.get(sample)?.split_at(DIGEST);
    (digest == digest_of(&tokens.texts[sample as usize])).then_some(values)
}

fn digest_of(text: &str) -> [u8; DIGEST] {
    xxh3_64(text.as_bytes()).to_le_bytes()
}

/// Of each label the samples whose gradients are taken.
fn wanted(choosing: &Choosing) -> Vec<Vec<u32>> {
    let mut out = vec![Vec::new(); choosing.labels.len()];
    for &(label, sample) in &choosing.sentences {
        let samples: &mut Vec<u32> = &mut out[label];
        if samples.len() < SENTENCES {
            samples.push(sample);
        }
    }
    out
}

/// Asks the model for the gradients of samples, in batches of about one length, and keeps each
/// batch as it comes.
fn measure(
    study: &Study,
    model: &Model,
    hook: HookPoint,
    tokens: &TokenTable,
    missing: Vec<u32>,
    kept: &mut Measured,
    ctx: &TaskCtx,
) -> Result<()> {
    let mut rows = vec![0usize; tokens.texts.len()];
    for row in &tokens.rows {
        rows[row.sample as usize] += 1;
    }
    let mut texts = Vec::with_capacity(missing.len());
    for sample in missing {
        let text = &tokens.texts[sample as usize];
        let mut ids = model.tokenizer().encode(text, study.manifest().bos)?;
        // No more of it than was collected, and the token that comes before it.
        ids.truncate(rows[sample as usize] + 1);
        if ids.len() > 1 {
            texts.push((sample, ids));
        }
    }
    texts.sort_by_key(|(sample, ids)| (ids.len(), *sample));
    let lengths: Vec<usize> = texts.iter().map(|(_, ids)| ids.len()).collect();
    let all = texts.len() as u64;
    let mut portion = Portion::unlimited();
    let mut batches: VecDeque<Range<usize>> = model
        .decoder()
        .gradient_batches(&lengths, hook.layer)?
        .into_iter()
        .collect();
    while let Some(mut batch) = batches.pop_front() {
        if batch.len() > portion.most() {
            let end = batch.start + portion.most();
            batches.push_front(end..batch.end);
            batch.end = end;
        }
        let done = batch.start as u64;
        let words = "asking what makes sentences likelier";
        ctx.checkpoint(Progress::new(words, done, all, "sentences"))?;
        let (samples, ids): (Vec<u32>, Vec<Vec<u32>>) =
            texts[batch.clone()].iter().cloned().unzip();
        let asked = model
            .text_gradients(&ids, hook.layer, ctx)
            .and_then(|found| {
                let rows: Vec<Vec<f32>> = found.into_iter().map(|g| g.gradient).collect();
                let by_hook = model.residual_adjoint(hook, &rows)?;
                Ok((rows, by_hook))
            });
        let (rows, by_hook) = match asked {
            Ok(found) => found,
            Err(error) => {
                portion.shrink(error, model.device(), (batch.len(), 1), "sentences")?;
                batches.push_front(batch);
                continue;
            }
        };
        let record = |((sample, g), v): ((u32, Vec<f32>), Vec<f32>)| {
            let digest = digest_of(&tokens.texts[sample as usize]);
            let values = g.iter().chain(&v).flat_map(|v| v.to_le_bytes());
            (sample, digest.into_iter().chain(values).collect())
        };
        kept.add(
            samples
                .into_iter()
                .zip(rows)
                .zip(by_hook)
                .map(record)
                .collect(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_gradients_that_labels_share_is_removed() {
        let means = [Some(vec![3.0, 0.0, 6.0]), None, Some(vec![1.0, 0.0, 2.0])];
        let found = LabelGradients::apart(&means, 2, 1);
        assert_eq!(found.residual, [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]);
        assert_eq!(found.by_hook, [[2.0], [0.0], [-2.0]]);
        assert_eq!(found.hook_width(), 1);
    }

    #[test]
    fn the_first_sentences_of_a_label_are_taken() {
        let choosing = Choosing {
            labels: vec!["a".into(), "b".into()],
            sentences: (0..100).map(|s| (usize::from(s % 3 == 0), s)).collect(),
        };
        let chosen = wanted(&choosing);
        assert_eq!((chosen[0].len(), chosen[1].len()), (SENTENCES, SENTENCES));
        assert_eq!(
            (chosen[0][..2].to_vec(), chosen[1][..2].to_vec()),
            (vec![1, 2], vec![0, 3])
        );
    }
}
