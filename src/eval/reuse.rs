//! The neuron-reuse experiment: in a family of features, do the shared neurons promote the whole
//! family, and those of one member alone that member?
//!
//! Steers with the core, with each member's exclusive neurons and with each member whole, all at
//! one KL, and looks at what becomes of every member's word at the next token (arXiv 2506.10920,
//! its section on weekdays).

use std::sync::Arc;

use serde::Serialize;

use crate::analysis::contexts::check_id;
use crate::analysis::hierarchy;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{BosRule, HookPoint, Model};
use crate::steering::calibrate::{SignedIntervention, calibrate};
use crate::steering::change::change_at;
use crate::steering::{
    Intervention, Mode, Positions, SteerPart, SteerTerm, core_term, part_direction, part_term,
};
use crate::task::{Progress, TaskCtx};

/// A member of a family: a feature and the word that it should promote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The word, as it stands inside a sentence.
    pub word: String,
    /// The id of the feature.
    pub feature: usize,
}

/// The configuration of the experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct ReuseConfig {
    /// KL(base ‖ steered), the mean over the prompts.
    pub kl: f64,
    /// Whose next token is looked at.
    pub prompts: Vec<String>,
    /// The BOS rule of the study.
    pub bos: BosRule,
}

/// The change of one word's log-probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordShift {
    /// The word of the member.
    pub word: String,
    /// The change of its (first) token's log-probability in nats, the mean over the prompts.
    pub delta: f64,
    /// The change of that token's raw logit, as the paper has it: what all tokens' logits rise by
    /// is in it.
    pub logit: f64,
    /// Among all tokens' changes, from 1 for the one that rose most; the same for both.
    pub rank: usize,
}

/// One steering of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReuseRow {
    /// Whose neurons: a member's word, or none for the family's core.
    pub member: Option<String>,
    /// "core", "exclusive" or "whole".
    pub part: &'static str,
    /// The number of neurons that the direction uses.
    pub neurons: usize,
    /// The strength α that was used.
    pub alpha: f64,
    /// The KL(base ‖ steered) at that α, in nats.
    pub kl: f64,
    /// Whether that is the KL asked for: what another KL does cannot be held against it, and is in
    /// no mean.
    pub reached: bool,
    /// Why there is nothing to see, or what is to be known of α.
    pub note: Option<String>,
    /// Every member's word; empty where there was nothing to steer with.
    pub words: Vec<WordShift>,
}

/// The results of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reuse {
    /// The members of the family.
    pub members: Vec<Member>,
    /// Words of which only the first token is looked at.
    pub cut_words: Vec<String>,
    /// The core, then each member's exclusive neurons and the whole of it.
    pub rows: Vec<ReuseRow>,
}

/// Runs the experiment.
///
/// # Errors
/// [`Error::Usage`] for fewer than two members, a feature twice, a feature that is not there, or
/// words that share a token.
pub fn reuse(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    members: &[Member],
    config: &ReuseConfig,
    ctx: &TaskCtx,
) -> Result<Reuse> {
    let ids: Vec<usize> = members.iter().map(|m| m.feature).collect();
    check(members)?;
    ids.iter().try_for_each(|&id| check_id(factors, id))?;
    let (tokens, cut_words) = tokens_of(model, members)?;
    let prompts = model.tokenizer().encode_all(&config.prompts, config.bos)?;
    let run = ReuseRun {
        model,
        prompts,
        kl: config.kl,
        members,
        tokens,
        ctx,
    };
    let shared = hierarchy::shared_neurons(&factors.features, &ids);
    let mut rows = vec![run.row(
        None,
        "core",
        shared.core.len(),
        core_term(model, hook, factors, &shared, 1.0),
    )?];
    for (done, member) in members.iter().enumerate() {
        ctx.checkpoint(Progress::new(
            "steering with parts",
            done as u64,
            members.len() as u64,
            "features",
        ))?;
        let others: Vec<usize> = ids
            .iter()
            .copied()
            .filter(|&id| id != member.feature)
            .collect();
        for (name, part) in [
            ("exclusive", SteerPart::ExclusiveOf(others)),
            ("whole", SteerPart::Whole),
        ] {
            let neurons = part_direction(factors, member.feature, &part).map_or(0, |direction| {
                direction.iter().filter(|&&v| v != 0.0).count()
            });
            let term = part_term(model, hook, factors, member.feature, &part, 1.0);
            rows.push(run.row(Some(&member.word), name, neurons, term)?);
        }
    }
    Ok(Reuse {
        members: members.to_vec(),
        cut_words,
        rows,
    })
}

fn check(members: &[Member]) -> Result<()> {
    if members.len() < 2 {
        return Err(Error::usage(
            "a family has at least two members: name more labels or features",
        ));
    }
    for (i, member) in members.iter().enumerate() {
        if let Some(other) = members[..i].iter().find(|m| m.feature == member.feature) {
            return Err(Error::usage(format!(
                "'{}' and '{}' are both feature {}: fit more features, or leave one out",
                other.word, member.word, member.feature
            )));
        }
    }
    Ok(())
}

/// The first token of each word inside a sentence, and the words that have more.
fn tokens_of(model: &Model, members: &[Member]) -> Result<(Vec<u32>, Vec<String>)> {
    let (mut tokens, mut cut) = (Vec::new(), Vec::new());
    for member in members {
        let ids = model
            .tokenizer()
            .encode(&format!(" {}", member.word), BosRule::Never)?;
        // Where a blank is a token of its own, the word begins after it.
        let blank = |id: &u32| model.tokenizer().decode(&[*id]).trim().is_empty();
        let ids: Vec<u32> = ids.into_iter().skip_while(blank).collect();
        let first = *ids
            .first()
            .ok_or_else(|| Error::usage(format!("'{}' has no tokens", member.word)))?;
        if let Some(at) = tokens.iter().position(|&t| t == first) {
            return Err(Error::usage(format!(
                "'{}' and '{}' begin with the same token: they cannot be told apart",
                members[at].word, member.word
            )));
        }
        if ids.len() > 1 {
            cut.push(member.word.clone());
        }
        tokens.push(first);
    }
    Ok((tokens, cut))
}

/// What all steerings of the experiment share.
struct ReuseRun<'a> {
    model: &'a Model,
    prompts: Vec<Vec<u32>>,
    kl: f64,
    members: &'a [Member],
    tokens: Vec<u32>,
    ctx: &'a TaskCtx,
}

impl ReuseRun<'_> {
    fn row(
        &self,
        member: Option<&str>,
        part: &'static str,
        neurons: usize,
        term: Result<SteerTerm>,
    ) -> Result<ReuseRow> {
        let member = member.map(str::to_owned);
        let empty = |note| ReuseRow {
            member: member.clone(),
            part,
            neurons,
            alpha: 0.0,
            kl: 0.0,
            reached: false,
            note,
            words: Vec::new(),
        };
        let intervention = match term {
            Ok(term) => Arc::new(Intervention::new(&[term], Mode::Add)?),
            // A part without neurons is a result, not a failure.
            Err(Error::Usage(why)) => return Ok(empty(Some(why))),
            Err(e) => return Err(e),
        };
        let signed = [SignedIntervention {
            intervention: intervention.clone(),
            negative: false,
        }];
        let found = calibrate(
            self.model,
            &signed,
            &self.prompts,
            &[self.kl],
            Positions::All,
            self.ctx,
        )?;
        let Some(found) = found.into_iter().flatten().next() else {
            return Ok(empty(None));
        };
        let change = change_at(
            self.model,
            &intervention,
            &self.prompts,
            found.alpha,
            Positions::All,
            self.ctx,
        )?;
        let shifts = &change.log_probs;
        let word = |(member, &token): (&Member, &u32)| {
            let delta = shifts[token as usize];
            WordShift {
                word: member.word.clone(),
                delta,
                logit: delta + change.shared,
                rank: 1 + shifts.iter().filter(|&&s| s > delta).count(),
            }
        };
        let words = self.members.iter().zip(&self.tokens).map(word).collect();
        let reached = found.reached;
        Ok(ReuseRow {
            member,
            part,
            neurons,
            alpha: found.alpha,
            kl: found.kl,
            reached,
            note: found.note,
            words,
        })
    }
}

/// The means of a part over the members that have it, at the KL asked for.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Summary {
    /// The mean change of the member's own word; of every member's for the core, which is nobody's
    /// own. `None` where no row reached the KL.
    pub own: Option<f64>,
    /// The mean change of the other members' words; for the core the same as `own`.
    pub others: Option<f64>,
    /// `own` and `others` of raw logits.
    pub own_logit: Option<f64>,
    /// See `own_logit`.
    pub others_logit: Option<f64>,
    /// The median rank of the member's own word.
    pub rank: Option<usize>,
    /// Rows that are in these means.
    pub rows: usize,
    /// Rows that are not: the KL was out of their reach.
    pub out_of_reach: usize,
}

impl Reuse {
    /// What a part comes to; `None` where no member has such neurons.
    pub fn summary(&self, part: &str) -> Option<Summary> {
        let (mut own, mut others, mut ranks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut own_logits, mut others_logits) = (Vec::new(), Vec::new());
        let steered = || {
            self.rows
                .iter()
                .filter(|r| r.part == part && !r.words.is_empty())
        };
        let rows = steered().filter(|r| r.reached).count();
        for row in steered().filter(|r| r.reached) {
            for shift in &row.words {
                let mine = row.member.as_ref().is_none_or(|m| *m == shift.word);
                if mine {
                    own.push(shift.delta);
                    own_logits.push(shift.logit);
                    ranks.push(shift.rank);
                }
                if !mine || row.member.is_none() {
                    others.push(shift.delta);
                    others_logits.push(shift.logit);
                }
            }
        }
        ranks.sort_unstable();
        let mean = |v: &[f64]| (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64);
        let out_of_reach = steered().count() - rows;
        let found = Summary {
            own: mean(&own),
            others: mean(&others),
            own_logit: mean(&own_logits),
            others_logit: mean(&others_logits),
            rank: ranks.get(ranks.len() / 2).copied(),
            rows,
            out_of_reach,
        };
        (rows + out_of_reach > 0).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(member: Option<&str>, part: &'static str, deltas: [f64; 2]) -> ReuseRow {
        let words = ["a", "b"].into_iter().zip(deltas);
        let shift = |(word, delta): (&str, f64)| WordShift {
            word: word.to_owned(),
            delta,
            logit: delta + 0.5,
            rank: (10.0 - delta) as usize,
        };
        let member = member.map(str::to_owned);
        let words = words.map(shift).collect();
        ReuseRow {
            member,
            part,
            neurons: 3,
            alpha: 1.0,
            kl: 0.1,
            reached: true,
            note: None,
            words,
        }
    }

    #[test]
    fn a_part_is_summed_up_over_the_members() {
        let rows = vec![
            row(None, "core", [2.0, 4.0]),
            row(Some("a"), "exclusive", [5.0, -1.0]),
            row(Some("b"), "exclusive", [-3.0, 3.0]),
            ReuseRow {
                words: Vec::new(),
                ..row(Some("b"), "whole", [0.0; 2])
            },
        ];
        let mut found = Reuse {
            members: Vec::new(),
            cut_words: Vec::new(),
            rows,
        };
        let told = |found: &Reuse, part| {
            found
                .summary(part)
                .map(|s| (s.own, s.others, s.rank, s.rows, s.out_of_reach))
        };
        assert_eq!(
            told(&found, "core"),
            Some((Some(3.0), Some(3.0), Some(8), 1, 0))
        );
        assert_eq!(
            told(&found, "exclusive"),
            Some((Some(4.0), Some(-2.0), Some(7), 2, 0))
        );
        assert_eq!(told(&found, "whole"), None);
        let core = found.summary("core").unwrap();
        assert_eq!((core.own_logit, core.others_logit), (Some(3.5), Some(3.5)));
        let exclusive = found.summary("exclusive").unwrap();
        assert_eq!(
            (exclusive.own_logit, exclusive.others_logit),
            (Some(4.5), Some(-1.5))
        );
        // At another KL than the others' it is told, and in no mean.
        (found.rows[0].reached, found.rows[1].reached) = (false, false);
        assert_eq!(told(&found, "core"), Some((None, None, None, 0, 1)));
        assert_eq!(
            told(&found, "exclusive"),
            Some((Some(3.0), Some(-3.0), Some(7), 1, 1))
        );
    }

    #[test]
    fn a_family_has_distinct_members() {
        let member = |word: &str, feature| Member {
            word: word.to_owned(),
            feature,
        };
        assert!(check(&[member("a", 1)]).is_err());
        let error = check(&[member("a", 1), member("b", 2), member("c", 1)])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("'a' and 'c' are both feature 1"),
            "{error}"
        );
        assert!(check(&[member("a", 1), member("b", 2)]).is_ok());
    }
}
