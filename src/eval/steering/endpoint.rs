//! The judge that is a language model behind an endpoint: two separate questions a text, one on
//! concept and one on fluency.

use std::collections::HashSet;

use super::judge::{Judgement, RatingCase, TextJudge};
use crate::error::Result;
use crate::eval::judge::prompts::{rate_concept, rate_fluency};
use crate::eval::judge::readers::read_rating;
use crate::eval::judge::{Answer, CostEstimate, JudgeClient, Question, TokenUsage};
use crate::task::TaskCtx;

/// Characters that are shown of an answer without a rating.
const SHOWN: usize = 60;

/// Asks an endpoint about every text.
pub struct EndpointJudge {
    client: JudgeClient,
    name: String,
}

impl EndpointJudge {
    /// Its name is the endpoint's: two models, or two servers of one name, keep logs of their own.
    pub fn new(client: JudgeClient) -> Self {
        let name = client.endpoint().name();
        Self { client, name }
    }

    /// What rating `cases`, and so many texts more of `tokens` tokens, would cost at most; the
    /// unsteered ones are rated once for each of `labels`. Of the cases it is known which questions
    /// were answered before.
    pub fn estimate(
        &self,
        cases: &[RatingCase],
        texts: usize,
        unsteered: usize,
        labels: usize,
        tokens: usize,
    ) -> CostEstimate {
        // About four bytes a token, as the estimate of a question counts them.
        let text = "word".repeat(tokens);
        let of = |question: Question, times: usize| {
            let one = self.client.estimate(&[question]);
            let tokens = |n: usize| n * times;
            (
                times,
                tokens(one.prompt_tokens),
                tokens(one.completion_tokens),
            )
        };
        let concept = of(rate_concept("a concept", &text), texts + unsteered * labels);
        let fluency = of(rate_fluency(&text), texts + unsteered);
        // Unsteered texts are cases of every label, and their fluency is asked once.
        let mut questions: Vec<Question> = cases.iter().flat_map(questions).collect();
        let mut seen = HashSet::new();
        questions.retain(|q| seen.insert(q.user.clone()));
        let mut sum = self.client.estimate(&questions);
        sum += CostEstimate {
            calls: concept.0 + fluency.0,
            answered: 0,
            prompt_tokens: concept.1 + fluency.1,
            completion_tokens: concept.2 + fluency.2,
        };
        sum
    }

    /// What was asked so far, and the tokens that it took.
    pub fn usage(&self) -> TokenUsage {
        self.client.usage()
    }
}

impl TextJudge for EndpointJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!(
            "judge {}: concept 0 to 2 (how much of the label is in the text) and fluency 0 to 2, asked apart of prompt and text \
             together",
            self.name
        )
    }

    fn rate(&mut self, cases: &[RatingCase], ctx: &TaskCtx) -> Result<Vec<Judgement>> {
        let questions: Vec<Question> = cases.iter().flat_map(questions).collect();
        let answers = self.client.ask(&questions, ctx)?;
        let judgement = |pair: &[Result<Answer, String>]| match (
            rating("concept", &pair[0]),
            rating("fluency", &pair[1]),
        ) {
            (Ok(concept), Ok(fluency)) => Judgement::Rated { concept, fluency },
            (Err(unrated), _) | (_, Err(unrated)) => Judgement::Unrated { unrated },
        };
        Ok(answers.chunks_exact(2).map(judgement).collect())
    }
}

/// The two questions about a text: concept, then fluency.
fn questions(case: &RatingCase) -> [Question; 2] {
    let text = format!("{}{}", case.prompt, case.text);
    [rate_concept(&case.label, &text), rate_fluency(&text)]
}

fn rating(of: &str, answer: &Result<Answer, String>) -> Result<f64, String> {
    let answer = answer.as_ref().map_err(|why| format!("{of}: {why}"))?;
    read_rating(&answer.text).map(f64::from).ok_or_else(|| {
        let shown: String = answer.text.trim().chars().take(SHOWN).collect();
        format!("{of}: no rating in the answer \"{}\"", shown.escape_debug())
    })
}
