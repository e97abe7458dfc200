//! What an evaluation takes in by itself, so that a difference means something: the same choice among
//! random directions, and the words that are watched under every direction.

use super::super::choice::Choose;
use super::super::evaluation::{self, Method};
use super::CausalRequest;
use crate::directions::{Baseline, Mix, SetKind};
use crate::error::{Error, Result};
use crate::eval::steering::WatchedWords;
use crate::eval::steering::report::ReportLine;
use crate::study::Study;

/// The methods with their controls: what chooses by effects, or mixes by them, stands beside the same
/// of random directions.
pub(super) fn with_controls(study: &Study, ask: &CausalRequest) -> Result<Vec<Method>> {
    let mut methods = match ask.methods.is_empty() {
        true => evaluation::usual_of(study, &ask.place)?,
        false => ask.methods.clone(),
    };
    let mixes = methods.iter().filter_map(|method| match method {
        Method::Set(SetKind::Mixed { mix, .. }) => Some(*mix),
        _ => None,
    });
    let mut mixes: Vec<Mix> = mixes.collect();
    if ask.choose == Choose::Effect {
        mixes.push(Mix::One);
    }
    for mix in mixes {
        let control = Method::Set(SetKind::Mixed {
            mix,
            of: Some(Baseline::Random.name().to_owned()),
        });
        if !methods.contains(&control) {
            methods.push(control);
        }
    }
    Ok(methods)
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
    diffmean
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
