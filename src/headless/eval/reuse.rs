//! `mlpeek eval reuse`.

use serde_json::{Value, json};

use super::super::{model_of, open_fit};
use super::Output;
use crate::cli::ReuseArgs;
use crate::error::{Error, Result};
use crate::eval::reuse::{Member, Reuse, ReuseConfig, ReuseRow, Summary, WordShift, reuse};
use crate::factor::Factors;
use crate::jobs::family;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

const LEGEND: &str = "Each row steers with the neurons named, all at the same KL; Δ is the change of a word's log-probability (nats) and / of \
    its raw logit as the next token, # its rank among all tokens' changes. ! marks a row at \
    another KL than was asked for, which is in no mean. Core: the neurons in more than half of the members, with their mean \
    weights; exclusive: those that no other member has; whole: the feature.";

/// Cells of a word's change and rank.
const WORD: usize = 21;

pub(super) fn run(args: &ReuseArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let place = args.place.selection();
    let name = match &args.place.fit {
        Some(name) => Some(name.clone()),
        None => place
            .resolve(&Study::open_read_only(&args.study)?)?
            .1
            .map(|f| f.name),
    };
    let (mut study, entry, factors) = open_fit(&args.study, name.as_deref(), out)?;
    let members = members(args, &study, entry.hook, &factors, out, &ctx)?;
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    let prompts = if args.prompt.is_empty() {
        vec!["I think that".to_owned()]
    } else {
        args.prompt.clone()
    };
    let config = ReuseConfig {
        kl: args.kl,
        prompts,
        bos: study.manifest().bos,
    };
    let found = reuse(&model, entry.hook, &factors, &members, &config, &ctx)?;
    if !found.cut_words.is_empty() {
        out.note(&format!(
            "only the first token is looked at of: {}",
            found.cut_words.join(", ")
        ));
    }
    if out.is_json() {
        found
            .rows
            .iter()
            .try_for_each(|row| out.object(&event(row)))?;
        let summary = |part| {
            found.summary(part).map(|s| {
                json!({
                    "own": s.own, "others": s.others, "own_logit": s.own_logit, "others_logit": s.others_logit,
                    "rank": s.rank, "steered_count": s.rows, "out_of_reach_count": s.out_of_reach,
                })
            })
        };
        let members: Vec<Value> = found
            .members
            .iter()
            .map(|m| json!({"word": m.word, "feature": m.feature}))
            .collect();
        return out.object(&json!({
            "event": "reuse", "fit": entry.name, "hook": entry.hook.to_string(), "kl_target": args.kl,
            "members": members, "core": summary("core"), "exclusive": summary("exclusive"),
            "whole": summary("whole"),
        }));
    }
    show(&found, &entry.name, entry.hook, out)
}

/// What steering with a member's neurons did to every member's word.
fn event(row: &ReuseRow) -> Value {
    let words: Vec<Value> = row
        .words
        .iter()
        .map(|w| json!({"word": w.word, "delta": w.delta, "delta_logit": w.logit, "rank": w.rank}))
        .collect();
    json!({
        "event": "row", "member": row.member, "part": row.part, "neuron_count": row.neurons, "alpha": row.alpha,
        "kl": row.kl, "kl_reached": row.reached, "remark": row.note, "words": words,
    })
}

/// The family that is named in one of three ways.
fn members(
    args: &ReuseArgs,
    study: &Study,
    hook: HookPoint,
    factors: &Factors,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Vec<Member>> {
    if !args.features.is_empty() {
        return args.features.iter().map(|text| typed(text)).collect();
    }
    if let Some(node) = args.node {
        return family::members_of_node(factors, &*study.tokens()?, node);
    }
    let (members, note) = family::members_of_labels(study, hook, factors, &args.labels, ctx)?;
    note.iter().for_each(|note| out.note(note));
    Ok(members)
}

/// A feature and its word, as a person types them: "3=Monday".
fn typed(text: &str) -> Result<Member> {
    text.split_once('=')
        .and_then(|(id, word)| {
            Some(Member {
                feature: id.trim().parse().ok()?,
                word: word.trim().to_owned(),
            })
        })
        .filter(|m| !m.word.is_empty())
        .ok_or_else(|| {
            Error::usage(format!(
                "'{}' is no feature with its word: write 3=Monday",
                text.escape_debug()
            ))
        })
}

fn show(found: &Reuse, fit: &str, hook: HookPoint, out: &mut Output) -> Result<()> {
    out.line(&format!("{fit} at {hook}"))?;
    let words: String = found
        .members
        .iter()
        .map(|m| format!("{:>WORD$.WORD$}", m.word))
        .collect();
    out.line(&format!(
        "{:10} {:9} {:>7} {:>8} {:>6} {words}",
        "neurons of", "part", "neurons", "α", "KL"
    ))?;
    for row in &found.rows {
        out.line(&row_line(row))?;
        if let Some(note) = &row.note {
            out.note(&format!(
                "{} {}: {note}",
                row.member.as_deref().unwrap_or("all"),
                row.part
            ));
        }
    }
    out.line("")?;
    for part in ["core", "exclusive", "whole"] {
        out.line(&format!(
            "{part:9}  {}",
            summary_line(part, found.summary(part))
        ))?;
    }
    out.line("")?;
    out.line(LEGEND)
}

fn summary_line(part: &str, summary: Option<Summary>) -> String {
    let Some(s) = summary else {
        return "no member has such neurons".to_owned();
    };
    let left_out = match s.out_of_reach {
        0 => String::new(),
        n => format!("; {n} of {} left out, the KL out of reach", s.rows + n),
    };
    let (Some(own), Some(rank)) = (s.own, s.rank) else {
        return format!("nothing at this KL{left_out}");
    };
    let raw = |logit: Option<f64>| logit.map_or_else(String::new, |l| format!(" (logit {l:+.3})"));
    let (own_logit, others_logit) = (raw(s.own_logit), raw(s.others_logit));
    let effect = match (part, s.others) {
        ("core", _) | (_, None) => {
            format!("every member's word {own:+.3}{own_logit}, its median rank {rank}")
        }
        (_, Some(others)) => format!(
            "its own word {own:+.3}{own_logit}, median rank {rank}; the others' {others:+.3}{others_logit}"
        ),
    };
    effect + &left_out
}

fn row_line(row: &ReuseRow) -> String {
    let member = row.member.as_deref().unwrap_or("all");
    let mark = |word: &str| {
        if row.member.as_deref() == Some(word) {
            "*"
        } else {
            ""
        }
    };
    let word = |w: &WordShift| {
        format!(
            "{:>WORD$}",
            format!(
                "{}{:+.2}/{:+.2} #{}",
                mark(&w.word),
                w.delta,
                w.logit,
                w.rank
            )
        )
    };
    let words: String = row.words.iter().map(word).collect();
    let missed = if row.reached || row.words.is_empty() {
        " "
    } else {
        "!"
    };
    format!(
        "{member:10.10} {:9} {:>7} {:>8.2} {:>6.3}{missed}{words}",
        row.part, row.neurons, row.alpha, row.kl
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_ranks_and_whether_it_is_at_the_kl() {
        let words = vec![WordShift {
            word: "Monday".into(),
            delta: 1.234,
            logit: 2.5,
            rank: 3,
        }];
        let (member, part) = (Some("Monday".to_owned()), "whole");
        let mut row = ReuseRow {
            member,
            part,
            neurons: 7,
            alpha: 2.0,
            kl: 0.1,
            reached: true,
            note: None,
            words,
        };
        assert!(
            row_line(&row).ends_with(" 0.100       *+1.23/+2.50 #3"),
            "{}",
            row_line(&row)
        );
        row.reached = false;
        assert!(row_line(&row).contains("0.100!"));
        let missed = Summary {
            out_of_reach: 2,
            ..Summary::default()
        };
        assert_eq!(
            summary_line("core", Some(missed)),
            "nothing at this KL; 2 of 2 left out, the KL out of reach"
        );
    }

    #[test]
    fn features_are_typed_with_their_words() {
        assert_eq!(
            typed(" 3 = Monday").unwrap(),
            Member {
                word: "Monday".into(),
                feature: 3
            }
        );
        for bad in ["3", "=Monday", "x=Monday", "3="] {
            assert!(matches!(typed(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
