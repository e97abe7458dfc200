//! The client of a judge: it asks many questions, several at once and again with growing pauses, and
//! caches each answer as it arrives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use serde::Serialize;

use super::client::HttpClient;
use super::reply::Failure;
use super::{Answer, AnswerCache, Endpoint, Question};
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// After this many calls in a row without a connection the endpoint counts as gone.
const GONE_AFTER: usize = 3;
/// After this many calls in a row that failed in spite of all retries the run ends.
const BROKEN_AFTER: usize = 4;
/// After this many questions that were rejected or answered in part, before any answer, the run
/// ends, since it is not the questions.
const REJECTS_ALL_AFTER: usize = 3;

/// The cost of asking, estimated in advance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CostEstimate {
    /// Questions that must be asked.
    pub calls: usize,
    /// Questions that were answered before.
    pub answered: usize,
    /// Tokens of the questions, at about four bytes each.
    pub prompt_tokens: usize,
    /// Tokens that the answers may have at most.
    pub completion_tokens: usize,
}

impl std::ops::AddAssign for CostEstimate {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// The questions that were asked, and the tokens that they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    /// Questions that were asked and answered.
    pub calls: u64,
    /// Questions that were answered before.
    pub answered: u64,
    /// Questions that stayed without an answer.
    pub failed: u64,
    /// Tokens of the questions, as the endpoint counts them.
    pub prompt_tokens: u64,
    /// Tokens of the answers.
    pub completion_tokens: u64,
}

/// A judge behind an endpoint, with a cache of its answers.
pub struct JudgeClient {
    pub(super) endpoint: Endpoint,
    client: Arc<HttpClient>,
    pub(super) answers: AnswerCache,
    usage: TokenUsage,
    streak: FailureStreak,
}

/// The failures of the last calls in a row, over all calls of [`JudgeClient::ask`].
#[derive(Debug, Clone, Copy, Default)]
struct FailureStreak {
    /// Whether the endpoint has answered any question, now or in an earlier run.
    has_answered: bool,
    unreachable: usize,
    failed: usize,
    rejected: usize,
}

impl FailureStreak {
    fn answered(&mut self) {
        *self = Self {
            has_answered: true,
            ..Self::default()
        };
    }

    /// The reason to stop after this failure, where there is one; `total` calls are to be made.
    fn stop_reason(&mut self, failure: &Failure, total: usize) -> Option<String> {
        let (unreachable, failed, rejected) =
            (self.unreachable + 1, self.failed + 1, self.rejected + 1);
        // An endpoint that rejects a question can be reached.
        *self = match failure {
            Failure::Rejected(_) | Failure::Cut(..) => Self {
                rejected,
                has_answered: self.has_answered,
                ..Self::default()
            },
            Failure::Unreachable(_) => Self {
                unreachable,
                failed,
                ..*self
            },
            _ => Self {
                unreachable: 0,
                failed,
                ..*self
            },
        };
        match failure {
            Failure::Final(why) => Some(why.clone()),
            Failure::Rejected(why) if !self.has_answered && rejected >= REJECTS_ALL_AFTER => {
                Some(format!("rejects every question ({why})"))
            }
            Failure::Cut(why, ..) if !self.has_answered && rejected >= REJECTS_ALL_AFTER => {
                Some(format!("comes to no answer ({why})"))
            }
            Failure::Unreachable(why) if unreachable >= GONE_AFTER.min(total) => {
                Some(format!("cannot be reached ({why})"))
            }
            Failure::Passing(why, _) | Failure::Unreachable(why) if failed >= BROKEN_AFTER => Some(
                format!("{failed} calls in a row have failed in spite of all tries ({why})"),
            ),
            _ => None,
        }
    }
}

impl JudgeClient {
    /// A judge whose answers are cached in `answers`.
    pub fn new(endpoint: Endpoint, answers: AnswerCache) -> Self {
        let client = Arc::new(HttpClient::new(&endpoint));
        Self {
            endpoint,
            client,
            answers,
            usage: TokenUsage::default(),
            streak: FailureStreak::default(),
        }
    }

    /// The questions that were asked so far, and the tokens that they took.
    pub fn usage(&self) -> TokenUsage {
        self.usage
    }

    /// The endpoint that answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The cached answer to a question, provided that it contains what is asked for.
    pub fn cached_answer(&self, question: &Question) -> Option<Answer> {
        self.answers
            .get(&question.hash(&self.endpoint))
            .filter(|a| question.expected.is_in(&a.text))
    }

    /// The cost of [`JudgeClient::ask`].
    pub fn estimate(&self, questions: &[Question]) -> CostEstimate {
        let mut estimate = CostEstimate::default();
        for question in questions {
            if self.cached_answer(question).is_some() {
                estimate.answered += 1;
            } else {
                estimate.calls += 1;
                estimate.prompt_tokens += question.rough_tokens();
                estimate.completion_tokens += question.longest_answer(self.endpoint());
            }
        }
        estimate
    }

    /// Asks all questions; each has an answer, or the reason why it has none, in a line.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; an endpoint that refuses (key, model, address), that is gone, or that
    /// fails call after call. What was answered is kept, and asking again goes on from there.
    pub fn ask(
        &mut self,
        questions: &[Question],
        ctx: &TaskCtx,
    ) -> Result<Vec<Result<Answer, String>>> {
        let mut out: Vec<Option<Result<Answer, String>>> = Vec::with_capacity(questions.len());
        let mut queue = VecDeque::new();
        for (i, question) in questions.iter().enumerate() {
            let cached_answer = self.cached_answer(question);
            match &cached_answer {
                Some(_) => self.usage.answered += 1,
                None => queue.push_back((i, question.clone())),
            }
            self.streak.has_answered |= cached_answer.is_some();
            out.push(cached_answer.map(Ok));
        }
        let total = queue.len();
        let (mut done, mut answered) = (0, 0);
        let workers = Workers::start(&self.client, &self.endpoint, queue);
        while done < total {
            ctx.checkpoint(Progress::new(
                "asking the judge",
                done as u64,
                total as u64,
                "calls",
            ))?;
            let (i, result) = match workers.results.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => result,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.stopped("stopped working", answered, total));
                }
            };
            done += 1;
            out[i] = Some(match result {
                Ok(answer) => {
                    answered += 1;
                    self.take(&questions[i], &answer)?;
                    Ok(answer)
                }
                Err(failure) => {
                    if let Some(why) = self.streak.stop_reason(&failure, total) {
                        return Err(self.stopped(&why, answered, total));
                    }
                    self.usage.failed += 1;
                    if let Failure::Cut(_, asked, answered) = failure {
                        self.usage.prompt_tokens += asked;
                        self.usage.completion_tokens += answered;
                    }
                    Err(match failure {
                        Failure::Passing(why, _) | Failure::Unreachable(why) => {
                            format!("{why}, {} tries", self.endpoint.tries)
                        }
                        Failure::Rejected(why) | Failure::Final(why) | Failure::Cut(why, ..) => why,
                    })
                }
            });
        }
        ctx.checkpoint(Progress::new(
            "asking the judge",
            total as u64,
            total as u64,
            "calls",
        ))?;
        Ok(out
            .into_iter()
            .map(|o| o.unwrap_or_else(|| Err("not asked".to_owned())))
            .collect())
    }

    /// Counts an answer, and caches it where it contains what was asked for.
    fn take(&mut self, question: &Question, answer: &Answer) -> Result<()> {
        if question.expected.is_in(&answer.text) {
            self.answers
                .insert(&question.hash(&self.endpoint), answer)?;
        }
        self.streak.answered();
        self.usage.calls += 1;
        self.usage.prompt_tokens += answer.prompt_tokens;
        self.usage.completion_tokens += answer.completion_tokens;
        Ok(())
    }

    fn stopped(&self, why: &str, answered: usize, total: usize) -> Error {
        let name = self.endpoint.name();
        Error::refused(format!(
            "the judge {name}: {why}, after {answered} of {total} calls; what was answered is kept: mend it and run the same \
             again"
        ))
    }
}

/// The threads that make the calls. They are detached, not joined, so that an endpoint that stalls
/// does not delay a user who quits.
struct Workers {
    results: crossbeam_channel::Receiver<(usize, Result<Answer, Failure>)>,
    stop: Arc<AtomicBool>,
}

impl Workers {
    fn start(
        client: &Arc<HttpClient>,
        endpoint: &Endpoint,
        queue: VecDeque<(usize, Question)>,
    ) -> Self {
        let (sender, results) = crossbeam_channel::unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let count = endpoint.concurrency.clamp(1, 64).min(queue.len());
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let worker = Worker {
                client: Arc::clone(client),
                tries: endpoint.tries.max(1),
                pause: endpoint.pause,
                queue: Arc::clone(&queue),
                stop: Arc::clone(&stop),
                sender: sender.clone(),
            };
            std::thread::spawn(move || worker.run());
        }
        Self { results, stop }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    client: Arc<HttpClient>,
    tries: usize,
    pause: f64,
    queue: Arc<Mutex<VecDeque<(usize, Question)>>>,
    stop: Arc<AtomicBool>,
    sender: Sender<(usize, Result<Answer, Failure>)>,
}

impl Worker {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let next = self
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((i, question)) = next else { return };
            if self
                .sender
                .send((i, self.ask_with_retries(&question)))
                .is_err()
            {
                return;
            }
        }
    }

    fn ask_with_retries(&self, question: &Question) -> Result<Answer, Failure> {
        let mut pause = self.pause;
        for attempt in 1.. {
            let failure = match self.client.ask(question) {
                Err(failure @ (Failure::Passing(..) | Failure::Unreachable(_))) => failure,
                done => return done,
            };
            if attempt >= self.tries || self.stop.load(Ordering::Relaxed) {
                return Err(failure);
            }
            let asked = if let Failure::Passing(_, wait) = &failure {
                *wait
            } else {
                None
            };
            self.sleep(asked.unwrap_or(pause));
            pause *= 2.0;
        }
        Err(Failure::Passing("not asked".to_owned(), None))
    }

    fn sleep(&self, seconds: f64) {
        let end = std::time::Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 600.0));
        while std::time::Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
            let left = end.saturating_duration_since(std::time::Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}
