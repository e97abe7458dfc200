//! What an evaluation takes in by itself, so that a difference means something: the same choice among
//! random directions, and the words that are watched under every direction.

use super::super::choice::Choose;
use super::super::evaluation::{self, Method, MethodDirections};
use super::CausalRequest;
use crate::amounts::count;
use crate::directions::{Baseline, Mix, SetKind};
use crate::error::{Error, Result};
use crate::eval::steering::WatchedWords;
use crate::eval::steering::report::ReportLine;
use crate::eval::steering::worded::PROMPT;
use crate::study::Study;

/// The methods with their controls: what chooses by effects, or mixes by them, stands beside the same
/// of random directions.
pub(super) fn with_controls(study: &Study, ask: &CausalRequest) -> Result<Vec<Method>> {
    let mut methods = match ask.methods.is_empty() {
        true => evaluation::usual_of(study, &ask.place)?,
        false => ask.methods.clone(),
    };
    let fit = ask.place.resolve(study).ok().and_then(|(_, fit)| fit);
    let fit = fit.map(|fit| fit.name);
    // As many random directions, as sparse and at the same hook: the best of more is better by chance.
    let random_like = |name: Option<&str>| match name.filter(|name| Some(*name) != fit.as_deref()) {
        Some(other) => format!("{}@{other}", Baseline::Random.name()),
        None => Baseline::Random.name().to_owned(),
    };
    let chooses_by_effect = ask.choose == Choose::Effect;
    let mut choosing: Vec<(Mix, String)> = Vec::new();
    for kind in Method::sets(&methods) {
        match (kind, kind.source()) {
            (SetKind::Mixed { mix, .. }, Some(SetKind::Fit(name))) => {
                choosing.push((*mix, random_like(name.as_deref())));
            }
            (SetKind::Mixed { .. }, Some(source)) if source == Baseline::Random.into() => {}
            (SetKind::Mixed { mix, .. }, _) => {
                choosing.push((*mix, random_like(kind.source_fit())));
            }
            (SetKind::Fit(name), _) if chooses_by_effect => {
                choosing.push((Mix::One, random_like(name.as_deref())));
            }
            _ => {}
        }
    }
    if chooses_by_effect && choosing.iter().all(|(mix, _)| *mix != Mix::One) {
        choosing.push((Mix::One, random_like(None)));
    }
    for (mix, of) in choosing {
        let control = Method::Set(SetKind::Mixed { mix, of: Some(of) });
        if !methods.contains(&control) {
            methods.push(control);
        }
    }
    Ok(methods)
}

/// Leaves the shuffled control out where there is one label, whose words it would choose by; where it
/// was asked for by name, that is refused.
pub(super) fn check_shuffled(
    methods: &mut Vec<Method>,
    ask: &CausalRequest,
    labels: usize,
) -> Result<()> {
    if ask.choose == Choose::Input || labels > 1 {
        return Ok(());
    }
    if ask.methods.contains(&Method::Shuffled) {
        return Err(Error::usage(
            "shuffled chooses by another label's words, and there is one label: name two with --labels, or leave shuffled out",
        ));
    }
    methods.retain(|m| *m != Method::Shuffled);
    Ok(())
}

/// Of what chooses by effects that which has more than the `features` random directions that stand
/// beside it, in words.
pub(super) fn among_more(offered: &[MethodDirections], features: usize) -> Option<String> {
    let has_no_control = |o: &&MethodDirections| match &o.method {
        Method::Set(kind @ (SetKind::Sae(_) | SetKind::File { .. } | SetKind::Baseline { .. })) => {
            !kind.supervised() && kind.ranked() && o.set.directions().count() > features
        }
        _ => false,
    };
    let each: Vec<String> = offered
        .iter()
        .filter(has_no_control)
        .map(|o| format!("{} among {}", o.name, count(o.set.directions().count())))
        .collect();
    (!each.is_empty()).then(|| {
        format!(
            "random directions are chosen by effect among {}, {}: the best of more is better by chance alone",
            count(features),
            each.join(", ")
        )
    })
}

/// Refuses to report on a prompt on which directions are chosen by their effects.
pub(super) fn check_prompts(ask: &CausalRequest) -> Result<()> {
    let measured = ask.methods.iter().any(Method::is_by_effects);
    let both = |p: &&String| ask.effects.prompts.contains(p);
    match ask.config.prompts.iter().find(both) {
        Some(prompt) if measured || ask.choose == Choose::Effect => Err(Error::usage(format!(
            "'{}' cannot both choose and be reported on: give another --prompt or --choose-prompt",
            prompt.escape_debug()
        ))),
        _ => Ok(()),
    }
}

/// The words of the sentences that chose nothing, and which of them are no words of those that did.
pub(super) fn watched(
    labels: &[String],
    words: Vec<Vec<u32>>,
    choosing: &[Vec<u32>],
) -> WatchedWords {
    let new = words.iter().zip(choosing).map(|(words, chosen)| {
        let new = words.iter().copied().filter(|w| !chosen.contains(w));
        new.collect()
    });
    WatchedWords {
        labels: labels.to_vec(),
        new: new.collect(),
        words,
    }
}

/// The line that measures are compared with: differences in means, or else the first.
pub(super) fn against(lines: &[ReportLine]) -> String {
    let diffmean = lines.iter().find(|l| l.name == Baseline::DiffMean.name());
    // What is asked in words has no KL at which others could be compared with it.
    let steered = lines.iter().find(|l| l.name != PROMPT);
    diffmean
        .or(steered)
        .or(lines.first())
        .map_or_else(String::new, |line| line.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_chose_are_not_new() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let found = watched(&labels, vec![vec![1, 2], vec![3]], &[vec![2, 9], vec![]]);
        assert_eq!(found.words, [vec![1, 2], vec![3]]);
        assert_eq!(found.new, [vec![1], vec![3]]);
    }

    #[test]
    fn a_prompt_does_not_choose_and_report() {
        let mut ask = CausalRequest {
            methods: vec!["mix".parse().unwrap()],
            ..CausalRequest::default()
        };
        check_prompts(&ask).unwrap();
        ask.effects.prompts.push(ask.config.prompts[0].clone());
        let error = check_prompts(&ask).unwrap_err();
        assert!(error.to_string().contains("--choose-prompt"), "{error}");
        ask.methods = vec!["diffmean".parse().unwrap()];
        check_prompts(&ask).unwrap();
        ask.choose = Choose::Effect;
        assert_eq!(check_prompts(&ask).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn differences_in_means_are_compared_with_where_they_are_there() {
        let lines = |names: &[&str]| names.iter().map(|n| ReportLine::one(n)).collect::<Vec<_>>();
        assert_eq!(against(&lines(&["k100", "diffmean"])), "diffmean");
        assert_eq!(against(&lines(&["k100", "mix"])), "k100");
        assert_eq!(against(&[]), "");
    }
}
