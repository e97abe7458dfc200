//! What makes sentences likelier: the gradient of each one's mean log-likelihood, kept in the study,
//! and the label's part of it.

use std::collections::VecDeque;
use std::ops::Range;

use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use super::subject::subjects;
use super::{Choosing, need};
use crate::corpus::TokenTable;
use crate::error::Result;
use crate::model::{HookPoint, Model, Portion};
use crate::study::{Measured, Study};
use crate::task::{Progress, TaskCtx};

/// Sentences of a label whose gradients are taken: the first ones.
const SENTENCES: usize = 32;
/// Bytes of the digest of a text's tokens that a record begins with.
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
        let at = study.manifest().hook_index(hook)?;
        let width = study.manifest().widths[at];
        let wanted = wanted(choosing);
        let tokens = study.tokens()?;
        let tokens = &Collected::of(&tokens);
        let mut found = Vec::new();
        for subject in subjects(study, model)? {
            let about = json!({"gradients": hook.to_string(), "of": subject.about});
            let size = DIGEST + 4 * (subject.d_model + width);
            let kept = study.measured("gradients", &about, size)?;
            let all = wanted.iter().flatten().copied();
            let missing: Vec<u32> = all
                .filter(|&sample| tokens.gradient(&kept, sample).is_none())
                .collect();
            found.push((kept, missing, subject.d_model));
        }
        // Without a model any dtype's will do that is there whole.
        let at = found.iter().position(|(_, missing, _)| missing.is_empty());
        let (mut kept, missing, d_model) = found.swap_remove(at.unwrap_or(0));
        if !missing.is_empty() {
            let typed = format!("textgrad@{}.{}", hook.layer, hook.site);
            let model = need(model, study, &typed)?;
            kept.check_space_for(missing.len())?;
            measure(study, model, hook, tokens, missing, &mut kept, ctx)?;
        }
        let mean = |samples: &Vec<u32>| {
            let mut sum = vec![0.0f64; d_model + width];
            let records = samples.iter();
            let records = records.filter_map(|&sample| tokens.gradient(&kept, sample));
            let mut count = 0;
            for record in records {
                let values = record.chunks_exact(4);
                let values = values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
                // A text of one token has no likelihood.
                if values.clone().any(f32::is_nan) {
                    continue;
                }
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

/// Texts as far as they were collected.
struct Collected<'a> {
    tokens: &'a TokenTable,
    /// Of each sample its rows.
    rows: Vec<Range<usize>>,
}

impl<'a> Collected<'a> {
    fn of(tokens: &'a TokenTable) -> Self {
        let mut rows = vec![0..0; tokens.texts.len()];
        for (i, row) in tokens.rows.iter().enumerate() {
            let of_sample: &mut Range<usize> = &mut rows[row.sample as usize];
            if of_sample.end == 0 {
                of_sample.start = i;
            }
            of_sample.end = i + 1;
        }
        Self { tokens, rows }
    }

    /// The gradient of a sample, unless it is that of other tokens: a corpus may be withdrawn and its
    /// samples' numbers be given anew, and a text be collected further than before.
    fn gradient<'k>(&self, kept: &'k Measured, sample: u32) -> Option<&'k [u8]> {
        let (digest, values) = kept.get(sample)?.split_at(DIGEST);
        (digest == self.digest(sample)).then_some(values)
    }

    /// Of a sample's text and of the tokens that were collected of it.
    fn digest(&self, sample: u32) -> [u8; DIGEST] {
        let mut digest = Xxh3::new();
        digest.update(self.tokens.texts[sample as usize].as_bytes());
        for row in &self.tokens.rows[self.rows[sample as usize].clone()] {
            digest.update(&row.id.to_le_bytes());
            digest.update(&row.position.to_le_bytes());
        }
        digest.digest().to_le_bytes()
    }

    /// What is kept of a sample.
    fn record(&self, sample: u32, values: &[f32]) -> Vec<u8> {
        let values = values.iter().flat_map(|v| v.to_le_bytes());
        self.digest(sample).into_iter().chain(values).collect()
    }

    /// How many tokens of a sample the model has read, the BOS among them.
    fn length(&self, sample: u32) -> usize {
        let rows = &self.tokens.rows[self.rows[sample as usize].clone()];
        rows.last().map_or(0, |last| last.position as usize + 1)
    }
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
    tokens: &Collected<'_>,
    missing: Vec<u32>,
    kept: &mut Measured,
    ctx: &TaskCtx,
) -> Result<()> {
    let (mut texts, mut none) = (Vec::with_capacity(missing.len()), Vec::new());
    let size = model.info().d_model + model.width(hook)?;
    for sample in missing {
        let text = &tokens.tokens.texts[sample as usize];
        let mut ids = model.tokenizer().encode(text, study.manifest().bos)?;
        ids.truncate(tokens.length(sample));
        if ids.len() > 1 {
            texts.push((sample, ids));
        } else {
            none.push((sample, tokens.record(sample, &vec![f32::NAN; size])));
        }
    }
    kept.add(none)?;
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
            (sample, tokens.record(sample, &[g, v].concat()))
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
    use crate::corpus::TokenRow;

    #[test]
    fn the_part_of_gradients_that_labels_share_is_removed() {
        let means = [Some(vec![3.0, 0.0, 6.0]), None, Some(vec![1.0, 0.0, 2.0])];
        let found = LabelGradients::apart(&means, 2, 1);
        assert_eq!(found.residual, [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]);
        assert_eq!(found.by_hook, [[2.0], [0.0], [-2.0]]);
        assert_eq!(found.hook_width(), 1);
    }

    #[test]
    fn a_text_is_asked_about_as_far_as_it_was_collected() {
        let row = |sample, id, position| TokenRow {
            id,
            sample,
            position,
        };
        // The first sample after a BOS, the second without, cut after two tokens.
        let mut tokens = TokenTable {
            rows: vec![row(0, 7, 1), row(0, 8, 2), row(1, 7, 0), row(1, 9, 1)],
            texts: vec!["ab".into(), "ac and more".into(), "not collected".into()],
            ..TokenTable::default()
        };
        let lengths = |tokens: &TokenTable| {
            let collected = Collected::of(tokens);
            [0, 1, 2].map(|s| collected.length(s))
        };
        assert_eq!(lengths(&tokens), [3, 2, 0]);
        let digest = |tokens: &TokenTable| Collected::of(tokens).digest(1);
        let before = digest(&tokens);
        tokens.rows.push(row(1, 3, 2));
        assert_eq!(lengths(&tokens), [3, 3, 0]);
        assert_ne!(digest(&tokens), before, "more of the same text");
        tokens.rows.pop();
        assert_eq!(digest(&tokens), before);
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
