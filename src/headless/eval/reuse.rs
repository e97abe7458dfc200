//! `mlpeek eval reuse`.

use serde_json::json;

use super::super::{model_of, open_fit};
use super::Output;
use crate::analysis::{contexts, hierarchy};
use crate::cli::ReuseArgs;
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::eval::rank::auroc_by_group;
use crate::eval::reuse::{Member, Reuse, ReuseConfig, ReuseRow, Summary, WordShift, reuse};
use crate::eval::score::each_strip;
use crate::eval::split::{Holdout, Split};
use crate::factor::Factors;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

const LEGEND: &str = "Each row steers with the neurons named, all at the same KL; Δ is the change of a word's log-probability (nats) as \
    the next token, # its rank among all tokens' changes. ! marks a row at \
    another KL than was asked for, which is in no mean. Core: the neurons in more than half of the members, with their mean \
    weights; exclusive: those that no other member has; whole: the feature.";

/// A label with fewer sentences is named.
const ENOUGH: usize = 4;
/// Cells of a word's change and rank.
const WORD: usize = 15;

pub(super) fn run(args: &ReuseArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let place = args.place.place();
    let name = match &args.place.fit {
        Some(name) => Some(name.clone()),
        None => place
            .resolve(&Study::open_read_only(&args.study)?)?
            .1
            .map(|f| f.name),
    };
    let (mut study, entry, factors) = open_fit(&args.study, name.as_deref(), out)?;
    let members = members(args, &study, entry.hook, &factors, out, &ctx)?;
    let model = model_of(
        &mut study,
        args.model.model.as_deref(),
        args.device,
        None,
        out,
        &ctx,
    )?;
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
        for row in &found.rows {
            out.object(&json!({"event": "row", "row": row}))?;
        }
        let summary = |part| found.summary(part);
        return out.object(&json!({"event": "reuse", "fit": entry.name, "hook": entry.hook.to_string(), "kl": args.kl,
            "members": found.members, "core": summary("core"), "exclusive": summary("exclusive"), "whole": summary("whole")}));
    }
    show(&found, &entry.name, entry.hook, out)
}

fn members(
    args: &ReuseArgs,
    study: &Study,
    hook: HookPoint,
    factors: &Factors,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Vec<Member>> {
    let tokens = study.tokens()?;
    if !args.features.is_empty() {
        return args.features.iter().map(|text| typed(text)).collect();
    }
    if let Some(node) = args.node {
        let tree = hierarchy::tree(&factors.features);
        let node = tree.nodes.get(node).ok_or_else(|| {
            Error::usage(format!(
                "there is no node {node}: the tree has 0 to {}",
                tree.nodes.len().max(1) - 1
            ))
        })?;
        let rows = contexts::feature_rows(factors, &tokens, &study.notes("")?);
        let word = |id: usize| {
            rows[id]
                .top_tokens
                .first()
                .map_or_else(String::new, |t| t.trim().to_owned())
        };
        return Ok(node
            .features
            .iter()
            .map(|&id| Member {
                word: word(id),
                feature: id,
            })
            .collect());
    }
    by_labels(&args.labels, study, hook, factors, &tokens, out, ctx)
}

/// "3=Monday".
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

/// For each label the feature that tells its sentences best from all others, each feature taken
/// once, the surest label first.
fn by_labels(
    wanted: &[String],
    study: &Study,
    hook: HookPoint,
    factors: &Factors,
    tokens: &TokenTable,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Vec<Member>> {
    let mut labels: Vec<usize> = Vec::new();
    for text in wanted {
        let is = |label: &String| {
            label == text || (text.ends_with('/') && label.starts_with(text.as_str()))
        };
        let before = labels.len();
        labels.extend((0..tokens.labels.len()).filter(|&l| is(&tokens.labels[l])));
        if labels.len() == before {
            if tokens.labels.is_empty() {
                return Err(Error::usage(
                    "the corpus has no labels: name the family with --features 3=Monday,17=Tuesday",
                ));
            }
            let some: Vec<&str> = tokens.labels.iter().take(8).map(String::as_str).collect();
            return Err(Error::usage(format!(
                "the corpus has no label '{}': it has {}, …",
                text.escape_debug(),
                some.join(", ")
            )));
        }
    }
    // Nothing is held out from choosing: what is looked at afterwards is the model's next token,
    // not these sentences.
    let split = Split::new(
        tokens,
        &Holdout {
            share: 0.0,
            seed: None,
            ..Holdout::default()
        },
    )?;
    let groups: Vec<Option<u32>> = split
        .sentences
        .iter()
        .map(|s| {
            labels
                .iter()
                .position(|&l| s.label == Some(l as u32))
                .map(|g| g as u32)
        })
        .collect();
    let sentences = |l: usize| {
        split
            .sentences
            .iter()
            .filter(|s| s.label == Some(l as u32))
            .count()
    };
    let few = labels
        .iter()
        .map(|&l| (l, sentences(l)))
        .filter(|(_, count)| *count < ENOUGH);
    let few: Vec<String> = few
        .map(|(l, count)| format!("{} ({count})", tokens.labels[l]))
        .collect();
    if !few.is_empty() {
        out.note(&format!(
            "so few sentences choose a feature as well as chance may: {}",
            few.join(", ")
        ));
    }
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    let directions = crate::directions::Directions::Sparse(factors.features.clone());
    each_strip(
        study.activations(hook)?.as_ref(),
        &split.sentences,
        &directions,
        ctx,
        |scores| {
            for (c, feature) in scores.columns.clone().enumerate() {
                let values: Vec<f32> = (0..groups.len()).map(|i| scores.at(i, c).0).collect();
                let aurocs = auroc_by_group(&values, &groups, labels.len());
                pairs.extend(
                    aurocs
                        .into_iter()
                        .enumerate()
                        .filter_map(|(l, a)| Some((a?, l, feature))),
                );
            }
            Ok(())
        },
    )?;
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut chosen: Vec<Option<usize>> = vec![None; labels.len()];
    for (_, label, feature) in pairs {
        if chosen[label].is_none() && !chosen.contains(&Some(feature)) {
            chosen[label] = Some(feature);
        }
    }
    let word = |l: usize| {
        tokens.labels[l]
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let member = |(&l, feature): (&usize, Option<usize>)| {
        let feature = feature.ok_or_else(|| {
            Error::usage(format!(
                "the fit has fewer features than '{}' and the others need: fit more",
                tokens.labels[l]
            ))
        })?;
        Ok(Member {
            word: word(l),
            feature,
        })
    };
    labels.iter().zip(chosen).map(member).collect()
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
    let told = match (part, s.others) {
        ("core", _) | (_, None) => format!("every member's word {own:+.3}, its median rank {rank}"),
        (_, Some(others)) => {
            format!("its own word {own:+.3} (median rank {rank}), the others' {others:+.3}")
        }
    };
    told + &left_out
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
            format!("{}{:+.2} #{}", mark(&w.word), w.delta, w.rank)
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
            row_line(&row).ends_with(" 0.100       *+1.23 #3"),
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
