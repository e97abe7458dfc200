//! Many questions: several at once, tried again with growing pauses, answers kept as they come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use serde::Serialize;

use super::client::Client;
use super::reply::Failure;
use super::{Answer, Answers, Endpoint, Question};
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// So many calls in a row that nobody answers mean that the endpoint is gone.
const GONE_AFTER: usize = 3;
/// So many calls in a row that failed in spite of every try, in whatever way, mean that waiting for
/// more is of no use.
const BROKEN_AFTER: usize = 4;
/// So many questions that are rejected, or answered in part, before the first answer mean that it
/// is not the questions.
const REJECTS_ALL_AFTER: usize = 3;

/// What asking would cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Questions that must be asked.
    pub calls: usize,
    /// Questions that were answered before.
    pub answered: usize,
    /// Tokens of the questions, at about four bytes each.
    pub prompt_tokens: usize,
    /// Tokens that the answers may have at most.
    pub completion_tokens: usize,
}

impl std::ops::AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// What asking did cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
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

/// A judge with a memory.
pub struct Judge {
    pub(super) endpoint: Endpoint,
    client: Arc<Client>,
    pub(super) answers: Answers,
    tally: Tally,
    streak: Streak,
}

/// How the last calls went, over all of a judge's questions: a run asks them a few at a time.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    /// It has answered something, now or in an earlier run.
    heard: bool,
    unreachable: usize,
    failed: usize,
    rejected: usize,
}

impl Streak {
    fn answered(&mut self) {
        *self = Self {
            heard: true,
            ..Self::default()
        };
    }

    /// Why there is no use in going on after this failure, with `total` calls asked for, if that is
    /// so.
    fn over(&mut self, failure: &Failure, total: usize) -> Option<String> {
        let (unreachable, failed, rejected) =
            (self.unreachable + 1, self.failed + 1, self.rejected + 1);
        // Whoever rejects a question is there.
        *self = match failure {
            Failure::Rejected(_) | Failure::Cut(..) => Self {
                rejected,
                heard: self.heard,
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
            Failure::Rejected(why) if !self.heard && rejected >= REJECTS_ALL_AFTER => {
                Some(format!("rejects every question ({why})"))
            }
            Failure::Cut(why, ..) if !self.heard && rejected >= REJECTS_ALL_AFTER => {
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

impl Judge {
    /// A judge whose answers are kept in `answers`.
    pub fn new(endpoint: Endpoint, answers: Answers) -> Self {
        let client = Arc::new(Client::new(&endpoint));
        Self {
            endpoint,
            client,
            answers,
            tally: Tally::default(),
            streak: Streak::default(),
        }
    }

    /// What was asked so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Who answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What was answered earlier, where it holds what is asked for.
    pub fn known(&self, question: &Question) -> Option<Answer> {
        self.answers
            .get(&question.hash(&self.endpoint))
            .filter(|a| question.wants.met_by(&a.text))
    }

    /// What [`Judge::ask`] would cost.
    pub fn estimate(&self, questions: &[Question]) -> Estimate {
        let mut estimate = Estimate::default();
        for question in questions {
            if self.known(question).is_some() {
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
            let known = self.known(question);
            match &known {
                Some(_) => self.tally.answered += 1,
                None => queue.push_back((i, question.clone())),
            }
            self.streak.heard |= known.is_some();
            out.push(known.map(Ok));
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
                    return Err(self.gone("stopped working", answered, total));
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
                    if let Some(why) = self.streak.over(&failure, total) {
                        return Err(self.gone(&why, answered, total));
                    }
                    self.tally.failed += 1;
                    if let Failure::Cut(_, asked, answered) = failure {
                        self.tally.prompt_tokens += asked;
                        self.tally.completion_tokens += answered;
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

    /// Counts an answer, and keeps it where it holds what was asked for.
    fn take(&mut self, question: &Question, answer: &Answer) -> Result<()> {
        if question.wants.met_by(&answer.text) {
            self.answers.keep(&question.hash(&self.endpoint), answer)?;
        }
        self.streak.answered();
        self.tally.calls += 1;
        self.tally.prompt_tokens += answer.prompt_tokens;
        self.tally.completion_tokens += answer.completion_tokens;
        Ok(())
    }

    fn gone(&self, why: &str, answered: usize, total: usize) -> Error {
        let name = self.endpoint.name();
        Error::refused(format!(
            "the judge {name}: {why}, after {answered} of {total} calls; what was answered is kept: mend it and run the same \
             again"
        ))
    }
}

/// Threads that ask. They are let go, not waited for: an endpoint that stalls must not hold up a
/// user who leaves.
struct Workers {
    results: crossbeam_channel::Receiver<(usize, Result<Answer, Failure>)>,
    stop: Arc<AtomicBool>,
}

impl Workers {
    fn start(
        client: &Arc<Client>,
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
    client: Arc<Client>,
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
            if self.sender.send((i, self.patiently(&question))).is_err() {
                return;
            }
        }
    }

    fn patiently(&self, question: &Question) -> Result<Answer, Failure> {
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
