//! Asking for feature cards: one question at a time, the newest wins, and again about once a second
//! while a fit moves under the selection.

use std::time::Duration;

use super::{App, Effect};
use crate::engine::{Command, Event, Reply, RequestId};

/// How often the card of the selection is asked for again while the fit runs.
const REFRESH: Duration = Duration::from_secs(1);

/// After this a question counts as lost.
const LOST: Duration = Duration::from_secs(5);

/// A question that is open.
#[derive(Debug)]
struct Asked {
    request: RequestId,
    /// The feature that was asked about.
    id: usize,
    at: Duration,
}

/// The questions about features.
#[derive(Debug, Default)]
pub(super) struct Cards {
    /// Asked and not answered.
    asked: Option<Asked>,
    /// To ask when the answer is there.
    wanted: Option<usize>,
    /// When the last one was asked.
    last: Option<Duration>,
    /// When to ask again because the fit moved on.
    refresh_at: Option<Duration>,
}

impl Cards {
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost = self
            .asked
            .as_ref()
            .filter(|_| self.wanted.is_some())
            .map(|asked| asked.at + LOST);
        self.refresh_at.into_iter().chain(lost).min()
    }

    /// Whether this came of the open question.
    pub(super) fn is_open(&self, reply: &Reply) -> bool {
        reply.is_to(self.asked.as_ref().map(|asked| asked.request))
    }
}

impl App {
    /// Asks for the card of feature `id`, now or when the question before it is answered.
    pub(super) fn request_card(&mut self, id: usize) -> Vec<Effect> {
        let now = self.world.now;
        match &self.cards.asked {
            // The same snapshot gave two reasons to ask.
            Some(asked) if asked.id == id && asked.at == now => Vec::new(),
            Some(asked) if now < asked.at + LOST => {
                self.cards.wanted = Some(id);
                Vec::new()
            }
            _ => {
                let request = self.requests.request(Command::Inspect(id));
                self.cards.asked = Some(Asked {
                    request: request.id,
                    id,
                    at: now,
                });
                self.cards.wanted = None;
                self.cards.last = Some(now);
                self.cards.refresh_at = None;
                vec![Effect::Send(request)]
            }
        }
    }

    pub(super) fn card_event(&mut self, reply: &Reply) -> Vec<Effect> {
        match &reply.event {
            Event::Card(_) | Event::Refused(_) if self.cards.is_open(reply) => {
                self.cards.asked = None;
                self.cards
                    .wanted
                    .take()
                    .map(|id| self.request_card(id))
                    .unwrap_or_default()
            }
            Event::Features(list) => self.card_is_stale(list.finished),
            // The lens of a card that came before its model.
            Event::Model(_) if self.world.features.is_some() => self
                .world
                .selected
                .map(|id| self.request_card(id))
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    fn card_is_stale(&mut self, finished: bool) -> Vec<Effect> {
        let Some(id) = self.world.selected else {
            return Vec::new();
        };
        let due = self
            .cards
            .last
            .map_or(Duration::ZERO, |last| last + REFRESH);
        if finished || self.world.now >= due {
            return self.request_card(id);
        }
        self.cards.refresh_at = Some(due);
        Vec::new()
    }

    pub(super) fn refresh_card(&mut self) -> Vec<Effect> {
        let now = self.world.now;
        if self.cards.refresh_at.is_some_and(|at| at <= now) {
            self.cards.refresh_at = None;
            return self
                .world
                .selected
                .map(|id| self.request_card(id))
                .unwrap_or_default();
        }
        match (&self.cards.asked, self.cards.wanted) {
            (Some(asked), Some(id)) if now >= asked.at + LOST => self.request_card(id),
            _ => Vec::new(),
        }
    }
}
