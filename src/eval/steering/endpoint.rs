//! The judge that is a language model behind an endpoint: two separate questions a text, one on
//! concept and one on fluency.

use std::collections::HashSet;

use super::judge::{Judgement, RatingCase, TextJudge};
use crate::error::Result;
use crate::eval::judge::prompts::{explain_concept, explain_fluency, rate_concept, rate_fluency};
use crate::eval::judge::readers::read_rating;
use crate::eval::judge::{Answer, CostEstimate, JudgeClient, Question, TokenUsage};
use crate::task::TaskCtx;

/// Characters that are shown of an answer without a rating.
const SHOWN: usize = 60;

/// Asks an endpoint about every text.
pub struct EndpointJudge {
    client: JudgeClient,
    name: String,
    /// Whether it is asked for the reason before the rating.
    explains: bool,
}

impl EndpointJudge {
    /// Its name is the endpoint's: two models, or two servers of one name, keep logs of their own.
    pub fn new(client: JudgeClient) -> Self {
        let name = client.endpoint().name();
        Self {
            client,
            name,
            explains: false,
        }
    }

    /// One that is asked for the reason before each rating, as the paper asks: another judge, with a
    /// log of its own.
    pub fn explaining(client: JudgeClient) -> Self {
        let name = format!("{}, explaining first", client.endpoint().name());
        Self {
            client,
            name,
            explains: true,
        }
    }

    /// The client, for what questions would cost.
    pub fn client_ref(&self) -> &JudgeClient {
        &self.client
    }

    /// The client, for other questions to the same endpoint.
    pub fn client(&mut self) -> &mut JudgeClient {
        &mut self.client
    }

    /// The two questions about a text: concept, then fluency.
    fn questions(&self, label: &str, text: &str) -> [Question; 2] {
        match self.explains {
            true => [explain_concept(label, text), explain_fluency(text)],
            false => [rate_concept(label, text), rate_fluency(text)],
        }
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
        // Unsteered texts are cases of every label, and their fluency is asked once.
        let mut questions: Vec<Question> = cases.iter().flat_map(|c| self.of_case(c)).collect();
        let mut seen = HashSet::new();
        questions.retain(|q| seen.insert(q.user.clone()));
        let mut sum = self.client.estimate(&questions);
        sum += self.price(texts + unsteered * labels, texts + unsteered, tokens);
        sum
    }

    /// What so many ratings of concepts and of fluency would cost at most, of texts of `tokens`
    /// tokens.
    pub fn price(&self, concepts: usize, fluencies: usize, tokens: usize) -> CostEstimate {
        // About four bytes a token, as the estimate of a question counts them.
        let text = "word".repeat(tokens);
        let [concept, fluency] = self.questions("a concept", &text);
        let mut sum = CostEstimate::default();
        for (question, times) in [(concept, concepts), (fluency, fluencies)] {
            let one = self.client.estimate(&[question]);
            sum += CostEstimate {
                calls: times,
                answered: 0,
                prompt_tokens: one.prompt_tokens * times,
                completion_tokens: one.completion_tokens * times,
            };
        }
        sum
    }

    fn of_case(&self, case: &RatingCase) -> [Question; 2] {
        let text = format!("{}{}", case.prompt, case.text);
        self.questions(&case.label, &text)
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
        let questions: Vec<Question> = cases.iter().flat_map(|c| self.of_case(c)).collect();
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

fn rating(what: &str, answer: &Result<Answer, String>) -> Result<f64, String> {
    let answer = answer.as_ref().map_err(|why| format!("{what}: {why}"))?;
    read_rating(&answer.text).map(f64::from).ok_or_else(|| {
        let shown: String = answer.text.trim().chars().take(SHOWN).collect();
        format!(
            "{what}: no rating in the answer \"{}\"",
            shown.escape_debug()
        )
    })
}
